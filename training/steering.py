"""The stage that trains the steering; the backbone stays frozen (arXiv 2604.02327, section 4.7)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steersearch.core.checkpoints import write_safetensors
from steersearch.core.steervit import Features, SteerViT
from steersearch.core.text import PromptFeatures
from steersearch.training.batch import Feed
from steersearch.training.model import finished
from steersearch.training.objective import Objective, measure
from steersearch.training.recipe import Recipe
from steersearch.training.settings import flat, from_json, may_change
from steersearch.training.stage import Stage, Terms

BEST = "best.safetensors"  # in the run's folder
METRICS = ("loss", "pmass", "pointing")


class Steered(nn.Module):
    """The model in training: only the part that depends on the expression has a graph."""

    def __init__(self, model: SteerViT) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, prompts: PromptFeatures) -> Features:
        """(B, 3, S, S) pixels and B prompts -> features with gradients for the trained parts.

        Takes precomputed input of the first steered block, (B, T, D), in place of pixels.
        """
        with torch.no_grad():
            tokens = pixels if pixels.ndim == 3 else self.model.before_steering(pixels)
        return self.model.steer(tokens, self.model.steering(prompts))


class Steering(Stage):
    """Trains `model` on the batches of `feed`. accelerator: of Hugging Face Accelerate"""

    name = "steering"
    rates = "optimiser.lr"

    def __init__(
        self, recipe: Recipe, model: SteerViT, feed: Feed, objective: Objective, accelerator: Any
    ) -> None:
        self.model, self.feed = model, feed
        self._recipe, self.optimiser = recipe, recipe.optimiser
        self.modules = {
            "connector": model.connector, "cross_attention": model.cross_attention, "head": model.head
        }  # fmt: skip
        self.settings = asdict(recipe)
        self.free = [key for key in flat(recipe) if may_change(key)]
        self._objective, self._accelerator = objective, accelerator
        self._steered = Steered(model)
        compiled: Any = torch.compile(self._steered) if recipe.run.compile else self._steered
        self._forward = accelerator.prepare_model(compiled)

    def losses(self, start: int, stop: int) -> Iterator[Terms]:
        for step, batch in enumerate(self.feed.training(start, stop), start):
            self.model.train()
            batch = batch.to(self.model.device)
            with self._accelerator.autocast():
                found = self._forward(batch.pixels, batch.prompts)
            yield self._objective(found, batch) | self._objective.beside(step)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """loss, pmass and pointing over all validation rows, and of each source: "pmass/refcoco".

        Each row counts once, whatever the number of processes: sums are reduced, nothing is padded.
        """
        self.model.eval()
        device, sources = self.model.device, self.feed.sources
        totals, counts = torch.zeros(2, len(METRICS), len(sources), dtype=torch.float64, device=device)
        for batch in self.feed.validation():
            batch = batch.to(device)
            with self._accelerator.autocast():
                found = self._steered(batch.pixels, batch.prompts)
            measured = measure(found, batch, self._objective.settings)
            for number, metric in enumerate(METRICS):
                values, rows = measured[metric]
                source = batch.source[rows]
                totals[number].index_add_(0, source, values.double())
                counts[number].index_add_(0, source, torch.ones_like(values, dtype=torch.float64))
        sums = torch.stack([totals, counts])
        if self._accelerator.num_processes > 1:
            sums = self._accelerator.reduce(sums, "sum")
        return _means(sums.cpu(), sources)

    def keep_best(self, folder: Path) -> None:
        write_safetensors(finished(self.model, self._recipe.model), folder / BEST)

    def readings(self) -> dict[str, float]:
        """The gates, after the tanh."""
        return {
            f"gate/{name.split('.')[1]}.{name.rsplit('.', 1)[1]}": math.tanh(parameter.item())
            for name, parameter in self.trained.items()
            if name.endswith("gate")
        }

    def completed(self, saved: Mapping[str, Any]) -> Mapping[str, Any]:
        return asdict(from_json(json.dumps(saved)))

    def tensors(self) -> dict[str, Tensor]:
        return self._objective.tensors()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self._objective.restore(tensors)


def _means(sums: Tensor, sources: tuple[str, ...]) -> dict[str, float]:
    """(2, metrics, S) sums and counts -> means over everything, and of each source if there are several."""
    found: dict[str, float] = {}
    parts = [("", sums.sum(dim=2))]
    if len(sources) > 1:
        parts += [(f"/{name}", sums[:, :, number]) for number, name in enumerate(sources)]
    for name, (totals, counts) in parts:
        for metric, total, count in zip(METRICS, totals.tolist(), counts.tolist(), strict=True):
            if count:
                found[f"{metric}{name}"] = total / count
    found["rows"] = sums[1, 0].sum().item()
    return found
