"""A stage of a run, before the steering itself: it trains the trunk, or which words a patch answers to.

Each stage has its own folder of checkpoints, from which a stopped run goes on, and its own log, a line of JSON a time.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steersearch.core.errors import NotFiniteError, RecipeDiffersError, RunStateError
from steersearch.core.files import never_a_link
from steersearch.training import run_state
from steersearch.training.interruption import Interruption
from steersearch.training.muon import Muon

Readings = dict[str, Tensor]  # each ()
Losses = Callable[[int], tuple[Tensor, Readings]]  # of a step, by its number


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What every stage has.

    steps, batch (pictures in each).  lr: of AdamW.  matrix_lr: of Muon, which takes the matrices; 0: AdamW takes all
    warmup: steps up to the full rates, which then fall along a cosine to 1 %.  weight_decay: of matrices, not vectors
    """

    steps: int
    batch: int = 32
    lr: float = 1.2e-3
    matrix_lr: float = 0.02
    warmup: int = 100
    weight_decay: float = 0.05
    seed: int = 0
    save_every: int = 250


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up, then a cosine to 1 % of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


class Stage:
    """name: as the recipe's section.  modules: what is kept, by a name each; their parameters that require gradients
    are trained.  is_matrix: which of these Muon takes, by their names "module.parameter".
    settings: all that decides what is learnt; a checkpoint of others is never gone on from.
    """

    def __init__(
        self,
        name: str,
        config: StageConfig,
        folder: Path,
        modules: Mapping[str, nn.Module],
        is_matrix: Callable[[str], bool],
        settings: Mapping[str, Any],
    ) -> None:
        self.name, self.config, self.folder = name, config, folder
        self._modules = modules
        self._settings = {name: {k: v for k, v in asdict(config).items() if k != "save_every"}, **settings}
        self._names = {
            parameter: f"{part}.{own}"
            for part, module in modules.items()
            for own, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        self._optimisers = _optimisers(self._names, is_matrix, config)

    def train(
        self, losses: Losses, *, resume: bool, say: Callable[[str], None], summary: Callable[[Readings], str]
    ) -> None:
        """Go through all steps, or those that an earlier run left. summary: a few words on the readings of a step.

        Raises KeyboardInterrupt when it was asked to stop and has saved its state, NotFiniteError for a loss or
        gradient that is none, RunStateError for checkpoints that cannot be used, RecipeDiffersError where one is to be
        resumed that is of other settings.
        """
        config, start, began = self.config, self._restore(resume, say), time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        log_file = self.folder / f"{self.name}.jsonl"
        with (
            Interruption(say) as interruption,
            open(log_file, "a" if start else "w", opener=never_a_link) as log,
        ):
            for step in range(start, config.steps):
                readings = self._step(step, losses)
                if step % 25 == 0:
                    rate = (step - start + 1) * config.batch / (time.monotonic() - began)
                    values = {name: value.item() for name, value in readings.items()}
                    log.write(json.dumps({"step": step, "pictures_per_s": rate, **values}) + "\n")
                    log.flush()
                if (step + 1) % config.save_every == 0 or step + 1 == config.steps or interruption.asked:
                    self._save(step + 1)
                    say(f"{self.name}: step {step + 1:,} of {config.steps:,}, {summary(readings)}")
                if interruption.asked:
                    raise KeyboardInterrupt

    def _step(self, step: int, losses: Losses) -> Readings:
        config = self.config
        for optimiser in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step, config.steps, group["peak"], config.warmup)
        loss, readings = losses(step)
        self._require_finite(loss, step, "loss")
        for optimiser in self._optimisers:
            optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(list(self._names), 1.0)
        self._require_finite(norm, step, "gradient")
        for optimiser in self._optimisers:
            optimiser.step()
        return readings

    def _require_finite(self, value: Tensor, step: int, what: str) -> None:
        if not torch.isfinite(value):
            setting = f"{self.name}.lr and {self.name}.matrix_lr"
            raise NotFiniteError(value.item(), step, self.folder, what, setting=setting)

    def _save(self, step: int) -> None:
        """Raises CheckpointNotSavedError."""
        tensors = {
            f"{part}.{k}": v for part, module in self._modules.items() for k, v in module.state_dict().items()
        }
        for optimiser in self._optimisers:
            tensors |= run_state.optimiser_tensors(optimiser, self._names)
        run_state.save(self.folder, step, tensors, {"settings": self._settings}, keep=1)

    def _restore(self, resume: bool, say: Callable[[str], None]) -> int:
        """Take up the last checkpoint if it is of these settings; returns the steps done."""
        found = run_state.latest(self.folder)
        if found is None:
            return 0
        step, tensors, state = run_state.load(found)
        other = run_state.differences(state.get("settings", {}), self._settings)
        if other and resume:
            raise RecipeDiffersError(found, other)
        if other:
            name, was, now = other[0]
            say(f"{self.name}: {found} is of another run ({name} was {was}, is now {now}): beginning anew")
            return 0
        self._take(tensors, found)
        say(f"{self.name}: going on at step {step:,}")
        return step

    def _take(self, tensors: Mapping[str, Tensor], found: Path) -> None:
        try:
            for part, module in self._modules.items():
                own = {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")}
                module.load_state_dict(own)
        except RuntimeError as error:  # how torch names what is missing or of another shape
            raise RunStateError(found, f"it does not fit the {self.name} ({error})") from error
        for optimiser in self._optimisers:
            run_state.restore_optimiser(optimiser, self._names, tensors)


def _optimisers(
    names: Mapping[nn.Parameter, str], is_matrix: Callable[[str], bool], config: StageConfig
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, AdamW for the rest; vectors (biases, norms, gates) are not decayed."""
    matrices = [p for p, name in names.items() if p.ndim == 2 and is_matrix(name)] if config.matrix_lr else []
    taken = {id(p) for p in matrices}
    rest = [p for p in names if id(p) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": config.weight_decay, "peak": config.lr},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0, "peak": config.lr},
    ]
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([group for group in groups if group["params"]])
    ]
    if matrices:
        muon = Muon(matrices, weight_decay=config.weight_decay)
        muon.param_groups[0]["peak"] = config.matrix_lr
        optimisers.append(muon)
    return optimisers
