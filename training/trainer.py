"""The training loop: what steers is trained, the trunk stays frozen (arXiv 2604.02327, section 4.7).

One process or several (Hugging Face Accelerate: gloo on processors, NCCL on GPUs) see the same batches in the same
order, so a run that is stopped and resumed, or spread over processes, tells the same story as one that is not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steersearch.core.checkpoints import write_safetensors
from steersearch.core.errors import (
    ConfigError,
    DataError,
    NotFiniteError,
    RunStateError,
    UnknownSettingError,
)
from steersearch.core.steervit import Features, SteerViT
from steersearch.core.text import PromptFeatures
from steersearch.training import run_state
from steersearch.training.batch import Batch, Feed
from steersearch.training.interruption import Interruption
from steersearch.training.journal import Journal
from steersearch.training.objective import Objective, Term, measure
from steersearch.training.optimiser import build_optimisers, learning_rate, set_learning_rate
from steersearch.training.recipe import Recipe
from steersearch.training.settings import flat, from_json, may_change

Say = Callable[[str], None]


class Steered(nn.Module):
    """The model as it is trained: what no expression changes runs without graph, the rest with it."""

    def __init__(self, model: SteerViT) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, prompts: PromptFeatures) -> Features:
        """(B, 3, S, S) pixels and B prompts -> features with gradients for the trained parts.

        In place of pixels what the first steered block gets, (B, T, D), where that was computed beforehand.
        """
        with torch.no_grad():
            tokens = pixels if pixels.ndim == 3 else self.model.before_steering(pixels)
        return self.model.steer(tokens, self.model.steering(prompts))


class Trainer:
    """Trains `model` on `feed` as `recipe` says, and keeps everything in `folder`.

    accelerator: of Hugging Face Accelerate; says which process this is, and where it computes.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: SteerViT,
        feed: Feed,
        objective: Objective,
        folder: Path,
        accelerator: Any,
        say: Say,
    ) -> None:
        self.recipe, self.model, self.feed, self.objective = recipe, model, feed, objective
        self.folder, self.say = folder, say
        self._accelerator = accelerator
        self._trained = dict(model.trainable_parameters())
        self._names = {parameter: name for name, parameter in self._trained.items()}
        self._optimisers = build_optimisers(self._trained.items(), recipe.optimiser)
        steered: nn.Module = Steered(model)
        self._steered = steered
        if recipe.run.compile:
            steered = torch.compile(steered)  # type: ignore[assignment]
        self._forward = accelerator.prepare_model(steered)
        self.step = 0
        self.best = -math.inf
        self._window = Window()

    # ------------------------------------------------------------------------------------------------ the loop

    def train(self, resume: Path | None = None) -> bool:
        """Go through all steps. Returns False if it was asked to stop; what it had is then saved.

        resume: a checkpoint of `run_state`. Raises NotFiniteError before a step that would spoil the weights.
        """
        if resume is not None:
            self._restore(resume)
        steps, run = self.recipe.optimiser.steps, self.recipe.run
        with ExitStack() as stack:
            interruption = stack.enter_context(Interruption(self.say))
            journal = stack.enter_context(self._journal()) if self._is_main else None
            if self.step == 0:
                self._validate(journal)
            self.model.train()
            began, first = time.monotonic(), self.step
            for batch in self.feed.training(self.step, steps):
                asked = self._step(batch.to(self.model.device), interruption.asked)
                self.step += 1
                if self.step % run.log_every == 0 or self.step == steps:
                    self._log(journal, (self.step - first) / (time.monotonic() - began))
                if self.step % run.validate_every == 0 or self.step == steps:
                    self._validate(journal)
                if self.step % run.save_every == 0 or self.step == steps or asked:
                    self._save()
                if asked:
                    return self.step == steps
        return True

    def _step(self, batch: Batch, asked: bool) -> bool:
        """One step of the optimiser. Returns whether any process was asked to stop."""
        set_learning_rate(self._optimisers, learning_rate(self.step, self.recipe.optimiser))
        with self._accelerator.autocast():
            found = self._forward(batch.pixels, batch.prompts)
        terms = self.objective(found, batch) | self.objective.beside(self.step)
        loss, means, asked = self._over_all(terms, asked)
        if not math.isfinite(means["loss"]):
            raise NotFiniteError(means["loss"], self.step, self.folder)
        for optimiser in self._optimisers:
            optimiser.zero_grad(set_to_none=True)
        self._accelerator.backward(loss)
        if self.recipe.optimiser.clip:
            norm = nn.utils.clip_grad_norm_(self._trained.values(), self.recipe.optimiser.clip)
            means["gradient"] = norm.item()
            if not math.isfinite(means["gradient"]):
                raise NotFiniteError(means["gradient"], self.step, self.folder, "gradient")
        for optimiser in self._optimisers:
            optimiser.step()
        self._window.add(means)
        return asked

    def _over_all(self, terms: Mapping[str, Term], asked: bool) -> tuple[Tensor, dict[str, float], bool]:
        """The loss to differentiate here, the terms' means over all processes, and whether any was asked to stop.

        Each term's mean is over the samples of all processes. Gradients are averaged over R processes, so each
        process takes R times its own part.
        """
        told = torch.stack([*(t.total.detach().double() for t in terms.values()),
                            *(t.count.double() for t in terms.values()),
                            torch.tensor(float(asked), dtype=torch.float64, device=self.model.device)])  # fmt: skip
        if self._ranks > 1:
            told = self._accelerator.reduce(told, "sum")
        values = told.tolist()
        totals, counts = values[: len(terms)], [max(1.0, n) for n in values[len(terms) : -1]]
        means = {name: total / n for name, total, n in zip(terms, totals, counts, strict=True)}
        parts = [
            term.weight * self._ranks / n * term.total for term, n in zip(terms.values(), counts, strict=True)
        ]
        means["loss"] = sum(term.weight * means[name] for name, term in terms.items())
        return torch.stack(parts).sum(), means, values[-1] > 0

    # ---------------------------------------------------------------------------------------------- validation

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """loss, pmass and pointing over all validation rows, and of each source: "pmass/refcoco".

        Each row counts once, in whichever process it was: sums are reduced, nothing is padded.
        """
        self.model.eval()
        kinds = ("loss", "pmass", "pointing")
        sums = torch.zeros(
            2, len(kinds), len(self.feed.sources), dtype=torch.float64, device=self.model.device
        )  # of the values, and how many they are
        for batch in self.feed.validation():
            batch = batch.to(self.model.device)
            with self._accelerator.autocast():
                found = self._steered(batch.pixels, batch.prompts)
            measured = measure(found, batch, self.recipe.objective)
            for number, kind in enumerate(kinds):
                values, rows = measured[kind]
                for part, column in enumerate(
                    (values.double(), torch.ones_like(values, dtype=torch.float64))
                ):
                    sums[part, number].index_add_(0, batch.source[rows], column)
        self.model.train()
        if self._ranks > 1:
            sums = self._accelerator.reduce(sums, "sum")
        return _means(sums.cpu(), kinds, self.feed.sources)

    def _validate(self, journal: Journal | None) -> None:
        found = self.validate()
        if journal is not None:
            journal.log(self.step, "validation", found)
        pmass = found.get("pmass", math.nan)
        self.say(
            f"step {self.step:,}: validation pmass {pmass:.3f}, pointing {found.get('pointing', math.nan):.3f}"
        )
        if pmass > self.best:
            self.best = pmass
            if self._is_main and self.step:
                write_safetensors(self.model, self.folder / "best.safetensors")

    # ------------------------------------------------------------------------------------- what a run leaves

    def _journal(self) -> Journal:
        run = self.recipe.run
        recipe = asdict(self.recipe)
        return Journal(
            self.folder, tensorboard=run.tensorboard, wandb=run.wandb, step=self.step, recipe=recipe
        )

    def _log(self, journal: Journal | None, steps_per_second: float) -> None:
        means = self._window.means()
        self._window = Window()
        if journal is None:
            return
        means["learning_rate"] = learning_rate(self.step - 1, self.recipe.optimiser)
        means["pictures_per_second"] = steps_per_second * self.recipe.optimiser.batch
        for name, parameter in self._trained.items():
            if name.endswith("gate"):
                means[f"gate/{name.split('.')[1]}.{name.rsplit('.', 1)[1]}"] = math.tanh(parameter.item())
        journal.log(self.step, "train", means)

    def _save(self) -> None:
        if not self._is_main:
            return
        tensors = {f"model.{name}": parameter.detach() for name, parameter in self._trained.items()}
        for optimiser in self._optimisers:
            tensors |= run_state.optimiser_tensors(optimiser, self._names)
        tensors |= self.objective.tensors()
        state = {"best": self.best if math.isfinite(self.best) else None, "window": vars(self._window),
                 "recipe": asdict(self.recipe)}  # fmt: skip
        run_state.save(self.folder, self.step, tensors, state)

    def _restore(self, checkpoint: Path) -> None:
        self.step, tensors, state = run_state.load(checkpoint, "cpu")
        free = [key for key in flat(self.recipe) if may_change(key)]
        try:
            saved = from_json(
                json.dumps(state["recipe"])
            )  # a key that it lacks is newer, and has its default
            run_state.refuse_other_recipe(checkpoint, asdict(saved), asdict(self.recipe), free)
            with torch.no_grad():
                for name, parameter in self._trained.items():
                    parameter.copy_(tensors[f"model.{name}"])
            for optimiser in self._optimisers:
                run_state.restore_optimiser(optimiser, self._names, tensors)
            self.objective.restore(tensors)
            self.best = -math.inf if state["best"] is None else state["best"]
            self._window = Window(**state["window"])
        except (KeyError, TypeError, RuntimeError, ConfigError, DataError, UnknownSettingError) as error:
            raise RunStateError(checkpoint, f"it does not hold what this run needs ({error})") from error
        self.say(f"resumed at step {self.step:,}")

    @property
    def _is_main(self) -> bool:
        return bool(self._accelerator.is_main_process)

    @property
    def _ranks(self) -> int:
        return int(self._accelerator.num_processes)


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


def _means(sums: Tensor, kinds: tuple[str, ...], sources: tuple[str, ...]) -> dict[str, float]:
    """(2, kinds, S) sums and counts -> means over everything, and of each source if there are several."""
    found: dict[str, float] = {}
    parts = [("", sums.sum(dim=2))]
    if len(sources) > 1:
        parts += [(f"/{name}", sums[:, :, number]) for number, name in enumerate(sources)]
    for name, (totals, counts) in parts:
        for kind, total, count in zip(kinds, totals.tolist(), counts.tolist(), strict=True):
            if count:
                found[f"{kind}{name}"] = total / count
    found["rows"] = sums[1, 0].sum().item()
    return found
