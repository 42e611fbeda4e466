"""What a training step minimises: the paper's objective, and object-alone distillation on top of it.

The paper asks for a heatmap only (arXiv 2604.02327, Eq. 3). Object-alone distillation is ours: the steered embedding
of (picture, expression) is drawn to what the frozen trunk itself says of that object alone, on a plain background.
The masks are there, so it needs no new labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from steersearch.core.steervit import Features, SteerViT
from steersearch.core.vectors import Aggregation
from steersearch.training.batch import Alone, Batch, Keyed
from steersearch.training.hybrid.aligner import Aligner, total
from steersearch.training.losses import (
    alone_contrastive_losses,
    alone_cosine_losses,
    gaussian_target,
    patch_target,
    pmass,
    pointing,
    soft_cross_entropy,
)
from steersearch.training.recipe import ObjectiveSettings
from steersearch.training.stage import Term

Gather = Callable[[Tensor], Tensor]  # what all processes have, one after the other along the first axis


def aggregations(settings: ObjectiveSettings) -> dict[Aggregation, float]:
    """The aggregations that are distilled, with their weights; empty for the paper's objective."""
    weights: dict[Aggregation, float] = {
        "cls": settings.alone_cls, "mean": settings.alone_mean, "focus": settings.alone_focus
    }  # fmt: skip
    return {kind: weight for kind, weight in weights.items() if weight}


class Objective:
    """The terms of the loss of a batch.

    keys: for batches of kind `Keyed`, per aggregation what the frozen trunk says of each of K things alone and last
        of nothing, (K + 1, D) at unit length.  gather: joins tensors over all processes
    aligner: gives what `beside` adds, so that words stay where the alignment has put them
    Keys of `Alone` batches are computed here and kept in a queue; `tensors` and `restore` carry it over a stop.
    """

    def __init__(
        self,
        settings: ObjectiveSettings,
        model: SteerViT,
        keys: Mapping[Aggregation, Tensor] | None = None,
        gather: Gather = lambda values: values,
        rank: int = 0,
        aligner: Aligner | None = None,
    ) -> None:
        self._aligner = aligner if settings.alignment else None
        self.settings, self._model, self._gather, self._rank = settings, model, gather, rank
        self.weights = aggregations(settings)
        self._keys = {kind: values.to(model.device) for kind, values in (keys or {}).items()}
        self._queue = {kind: torch.empty(0, model.dim, device=model.device) for kind in self.weights}
        self._queued_names = torch.empty(0, dtype=torch.int64, device=model.device)

    def __call__(self, found: Features, batch: Batch) -> dict[str, Term]:
        """segmentation or pointing, and for each distilled aggregation alone_<kind>."""
        counted = batch.counted
        losses = soft_cross_entropy(found.logits.float(), _target(batch, found.grid, self.settings))
        terms: dict[str, Term] = {self.settings.kind: Term(losses[counted].sum(), counted.sum(), 1.0)}
        if isinstance(batch.alone, Keyed):
            terms |= self._against_all_things(found, batch.alone)
        elif isinstance(batch.alone, Alone):
            terms |= self._against_queue(found, batch.alone)
        return terms

    def beside(self, step: int) -> dict[str, Term]:
        """The term that is of no batch: the alignment, of half as many pictures as its own steps have."""
        if self._aligner is None:
            return {}
        config = self._aligner.config
        losses = self._aligner(config.seed + 1 + self._rank, step, max(2, config.batch // 2))
        value = total(losses)
        return {"alignment": Term(value, torch.ones((), device=value.device), self.settings.alignment)}

    def _against_all_things(self, found: Features, alone: Keyed) -> dict[str, Term]:
        """Only where one thing is meant, or none is there."""
        single = alone.things >= 0
        terms = {}
        for kind, weight in self.weights.items():
            keys, things = self._keys[kind], alone.things[single]
            losses = self._distil(pooled(found, kind)[single], keys, things, alone.excluded[single])
            terms[f"alone_{kind}"] = Term(losses.sum(), single.sum(), weight)
        return terms

    def _against_queue(self, found: Features, alone: Alone) -> dict[str, Term]:
        """Against the batch's own keys and earlier ones; the same expression is no negative."""
        own = self.alone_keys(alone)
        size = len(alone.names)
        everyone = self._joined(alone.names)
        names = torch.cat([everyone, self._queued_names])
        ranks = len(everyone) // size
        positive = torch.arange(size, device=names.device) * ranks + self._rank
        excluded = names[None, :] == alone.names[:, None]
        terms = {}
        for kind, weight in self.weights.items():
            keys = torch.cat([self._joined(own[kind]), self._queue[kind]])
            losses = self._distil(pooled(found, kind), keys, positive, excluded)
            terms[f"alone_{kind}"] = Term(losses.sum(), torch.tensor(size, device=names.device), weight)
            self._queue[kind] = keys[: self.settings.queue]
        self._queued_names = names[: self.settings.queue]
        return terms

    def _joined(self, values: Tensor) -> Tensor:
        """The rows of all processes, which have equally many each, in the order in which one would have them."""
        gathered = self._gather(values)
        by_process = gathered.reshape(-1, *values.shape)  # (R, B, ...)
        return by_process.transpose(0, 1).reshape(gathered.shape)

    def _distil(self, steered: Tensor, keys: Tensor, positive: Tensor, excluded: Tensor) -> Tensor:
        """(B,) losses."""
        if self.settings.distillation == "cosine":
            return alone_cosine_losses(steered, keys[positive])
        return alone_contrastive_losses(steered, keys, positive, excluded, self.settings.temperature)

    @torch.no_grad()
    def alone_keys(self, alone: Alone) -> dict[Aggregation, Tensor]:
        """What the frozen trunk says of each object alone: (B, D) at unit length for each distilled aggregation."""
        return frozen_keys(self._model, alone.pixels, alone.cover, list(self.weights))

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must keep of it."""
        queue = {f"queue.{kind}": values for kind, values in self._queue.items()}
        return queue | {"queue.names": self._queued_names}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `tensors` gave. Raises KeyError where it lacks something."""
        self._queue = {kind: tensors[f"queue.{kind}"].to(self._model.device) for kind in self._queue}
        self._queued_names = tensors["queue.names"].to(self._model.device)


@torch.no_grad()
def frozen_keys(
    model: SteerViT, pixels: Tensor, cover: Tensor, kinds: list[Aggregation]
) -> dict[Aggregation, Tensor]:
    """The frozen trunk's embeddings (B, D) of `pixels`, at unit length; "focus" weighs the patches by `cover` (B, N),
    since without a prompt there is no heatmap, and by all alike where nothing is covered."""
    seen = model(pixels)
    empty = cover.sum(dim=1, keepdim=True) == 0
    weights = torch.where(empty, torch.ones_like(cover), cover)
    weights = weights / weights.sum(dim=1, keepdim=True)
    keys: dict[Aggregation, Tensor] = {}
    for kind in kinds:
        vectors = (
            torch.einsum("bn,bnd->bd", weights, seen.patches.float())
            if kind == "focus"
            else seen.aggregate(kind)
        )
        keys[kind] = F.normalize(vectors.float(), dim=-1)
    return keys


def pooled(found: Features, kind: Aggregation) -> Tensor:
    """(B, D): the aggregation that is distilled; "focus" by the heatmap itself, not its square, so that all patches of
    the object learn and not its peak alone."""
    if kind != "focus":
        return found.aggregate(kind)
    heatmap = found.heatmap().flatten(1)
    return torch.einsum("bn,bnd->bd", heatmap, found.patches.to(heatmap.dtype))


def _target(batch: Batch, grid: tuple[int, int], settings: ObjectiveSettings) -> Tensor:
    """(B, N): what the softmax over patches should be; all zero where nothing is meant."""
    if settings.kind == "pointing":
        return gaussian_target(batch.centre, grid, settings.sigma)
    return patch_target(batch.cover)


def measure(found: Features, batch: Batch, settings: ObjectiveSettings) -> dict[str, tuple[Tensor, Tensor]]:
    """Validation metrics: loss, pmass, pointing; of each its values (B',) and the rows (B,) bool that they are of.

    Pointing is said of pictures that show what is meant, the others of all rows that are counted.
    """
    counted, shown = batch.counted, batch.shown
    logits, target = found.logits.float(), _target(batch, found.grid, settings)
    return {
        "loss": (soft_cross_entropy(logits[counted], target[counted]), counted),
        "pmass": (pmass(logits[counted], patch_target(batch.cover[counted])), counted),
        "pointing": (pointing(logits[shown], batch.cover[shown]).float(), shown),
    }
