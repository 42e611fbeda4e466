"""The training loop, the same for every stage: steps, validation, journal, checkpoints, resuming.

One process or several (Hugging Face Accelerate: gloo on CPUs, NCCL on GPUs) see the same batches in the same order.
So a run that is interrupted and resumed, or spread over processes, ends like an undisturbed one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steersearch.core.errors import ConfigError, DataError, RunError, SteerSearchError, UnknownSettingError
from steersearch.training import checkpoint
from steersearch.training.interruption import Interruption
from steersearch.training.journal import Journal
from steersearch.training.optimiser import build_optimisers, learning_rate, set_learning_rate
from steersearch.training.recipe import RunSettings
from steersearch.training.settings import other_settings
from steersearch.training.stage import Stage, Terms

Say = Callable[[str], None]


class Trainer:
    """Trains `stage`; journal and checkpoints go to `folder`.

    accelerator: of Hugging Face Accelerate, for a stage that several processes share; None: this process alone
    """

    def __init__(
        self, stage: Stage, folder: Path, run: RunSettings, say: Say, accelerator: Any = None
    ) -> None:
        self.stage, self.folder, self.run, self.say = stage, folder, run, say
        self._accelerator = accelerator
        self._names = {parameter: name for name, parameter in stage.trained.items()}
        self._optimisers = build_optimisers(stage.trained, stage.optimiser, stage.is_matrix)
        self.step = 0
        self.best = -math.inf
        self._window = Window()
        self._latest: dict[str, float] = {}

    # ------------------------------------------------------------------------------------------------ the loop

    def train(self, *, resume: bool) -> None:
        """Run all steps, from the latest checkpoint if there is one.

        resume: refuse a checkpoint made with other settings; else start over.
        Raises KeyboardInterrupt if asked to stop, after saving; SteerSearchError before a step that would spoil the
        weights; RunError, CheckpointError for a checkpoint that does not fit.
        """
        self._restore(resume)
        steps, run = self.stage.optimiser.steps, self.run
        if self.step >= steps:
            return
        with ExitStack() as stack:
            interruption = stack.enter_context(Interruption(self.say))
            journal = stack.enter_context(self._journal()) if self._is_main else None
            if self.step == 0:
                self._validate(journal)
            began, first = time.monotonic(), self.step
            for terms in self.stage.losses(self.step, steps):
                stop = self._step(terms, interruption.asked)
                self.step += 1
                last = self.step == steps
                if self.step % run.log_every == 0 or last:
                    self._log(journal, (self.step - first) / (time.monotonic() - began))
                if self.step % run.validate_every == 0 or last:
                    self._validate(journal)
                if self.step % run.save_every == 0 or last or stop:
                    self._save()
                if stop and not last:
                    self.say(f"stopped at step {self.step:,}, which is saved; --resume continues from there")
                    raise KeyboardInterrupt

    def _step(self, terms: Terms, stop: bool) -> bool:
        """One step of the optimisers. Returns whether any process was asked to stop."""
        settings = self.stage.optimiser
        set_learning_rate(self._optimisers, learning_rate(self.step, settings))
        loss, means, stop = self._over_all(terms, stop)
        self._require_finite(means["loss"], "loss")
        for optimiser in self._optimisers:
            optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(self.stage.trained.values(), settings.clip or math.inf)
        means["gradient"] = norm.item()
        self._require_finite(means["gradient"], "gradient")
        for optimiser in self._optimisers:
            optimiser.step()
        self._window.add(means)
        self._latest = {name: means[name] for name in terms}
        return stop

    def _over_all(self, terms: Terms, stop: bool) -> tuple[Tensor, dict[str, float], bool]:
        """The loss to differentiate here, the terms' means over all processes, and whether any was asked to stop.

        Each term's mean is over the samples of all processes. Gradients are averaged over R processes, so each
        process takes R times its own part.
        """
        sums = torch.stack([
            *(term.total.detach().double() for term in terms.values()),
            *(term.count.double() for term in terms.values()),
        ])  # fmt: skip
        sums = torch.cat([sums, sums.new_tensor([float(stop)])])
        if self._ranks > 1:
            sums = self._accelerator.reduce(sums, "sum")
        values = sums.tolist()
        totals, counts = values[: len(terms)], [max(1.0, n) for n in values[len(terms) : -1]]
        means = {name: total / n for name, total, n in zip(terms, totals, counts, strict=True)}
        parts = [
            term.weight * self._ranks / n * term.total for term, n in zip(terms.values(), counts, strict=True)
        ]
        means["loss"] = sum(term.weight * means[name] for name, term in terms.items())
        return torch.stack(parts).sum(), means, values[-1] > 0

    def _require_finite(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            raise SteerSearchError(
                f"{self.folder}: the {what} is {value} at step {self.step}, stopped before it spoils the weights; look "
                f"at the data of this step, or start over in another folder with a lower {self.stage.rates}"
            )

    # --------------------------------------------------------------------------------- journal and checkpoints

    def _journal(self) -> Journal:
        run = self.run
        return Journal(
            self.folder,
            tensorboard=run.tensorboard,
            wandb=run.wandb,
            step=self.step,
            recipe=self.stage.settings,
        )

    def _validate(self, journal: Journal | None) -> None:
        found = self.stage.validate()
        if not found:
            return
        if journal is not None:
            journal.log(self.step, "validation", found)
        pmass, pointing = found.get("pmass", math.nan), found.get("pointing", math.nan)
        self.say(f"step {self.step:,}: validation pmass {pmass:.3f}, pointing {pointing:.3f}")
        if pmass > self.best:
            self.best = pmass
            if self._is_main and self.step:
                self.stage.keep_best(self.folder)

    def _log(self, journal: Journal | None, steps_per_second: float) -> None:
        means = self._window.means()
        self._window = Window()
        if journal is None:
            return
        means["learning_rate"] = learning_rate(self.step - 1, self.stage.optimiser)
        means["pictures_per_second"] = steps_per_second * self.stage.optimiser.batch
        journal.log(self.step, "train", means | self.stage.readings())

    def _save(self) -> None:
        if not self._is_main:
            return
        tensors = {name: value.detach() for name, value in self._values().items()}
        for optimiser in self._optimisers:
            tensors |= checkpoint.optimiser_tensors(optimiser, self._names)
        tensors |= self.stage.tensors()
        state = {
            "best": self.best if math.isfinite(self.best) else None,
            "window": vars(self._window),
            "settings": self.stage.settings,
        }
        checkpoint.save(self.folder, self.step, tensors, state)
        losses = "".join(f", {name} {value:.2f}" for name, value in self._latest.items())
        self.say(f"{self.stage.name}: step {self.step:,} of {self.stage.optimiser.steps:,}{losses}")

    def _restore(self, resume: bool) -> None:
        """Continue from the latest checkpoint, if there is one with these settings."""
        found = checkpoint.latest(self.folder)
        if found is None:
            return
        step, tensors, state = checkpoint.load(found)
        try:
            saved = self.stage.completed(state["settings"])
            other = checkpoint.differences(saved, self.stage.settings, self.stage.free)
            if not other:
                self._take(tensors, state)
        except (KeyError, TypeError, RuntimeError, ConfigError, DataError, UnknownSettingError) as error:
            raise RunError(found, f"it does not fit this run ({error})") from error
        if other and resume:
            raise other_settings(found, other)
        if other:
            name, was, now = other[0]
            self.say(
                f"{self.stage.name}: {found} is of another run ({name} was {was}, is now {now}): starting over"
            )
            return
        self.step = step
        self.say(f"{self.stage.name}: resumed at step {step:,}")

    def _take(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for name, value in self._values().items():
                value.copy_(tensors[name])
        for optimiser in self._optimisers:
            checkpoint.restore_optimiser(optimiser, self._names, tensors)
        self.stage.restore(tensors)
        self.best = -math.inf if state["best"] is None else state["best"]
        self._window = Window(**state["window"])

    def _values(self) -> dict[str, Tensor]:
        """What training changes in the stage's modules."""
        return {**self.stage.trained, **self.stage.buffers}

    @property
    def _is_main(self) -> bool:
        return self._accelerator is None or bool(self._accelerator.is_main_process)

    @property
    def _ranks(self) -> int:
        return 1 if self._accelerator is None else int(self._accelerator.num_processes)


class Window:
    """Means of readings since the last line of the journal."""

    def __init__(self, sums: Mapping[str, float] | None = None, steps: int = 0) -> None:
        self.sums, self.steps = dict(sums or {}), steps

    def add(self, readings: Mapping[str, float]) -> None:
        for name, value in readings.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.steps += 1

    def means(self) -> dict[str, float]:
        return {name: total / self.steps for name, total in self.sums.items()}
