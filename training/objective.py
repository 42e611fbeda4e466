"""What a training step minimises: the paper's objective, and object-alone distillation on top of it.

The paper trains the heatmap only (arXiv 2604.02327, Eq. 3). Object-alone distillation is ours: the steered embedding of
(picture, expression) is drawn to the unsteered embedding of that object alone, cut out by its mask, on a plain
background. It needs no new labels.
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

Gather = Callable[[Tensor], Tensor]  # concatenates the tensors of all processes along the first axis


def aggregations(settings: ObjectiveSettings) -> dict[Aggregation, float]:
    """The distilled aggregations with their weights; empty for the paper's objective."""
    weights: dict[Aggregation, float] = {
        "cls": settings.alone_cls, "mean": settings.alone_mean, "focus": settings.alone_focus
    }  # fmt: skip
    return {kind: weight for kind, weight in weights.items() if weight}


class Objective:
    """The terms of the loss of a batch.

    keys: for `Keyed` batches, per aggregation the unsteered embedding of each of K things alone, and last of nothing,
        (K + 1, D) of unit length.  gather: joins tensors over all processes
    aligner: computes the term of `beside`, which keeps the alignment while the steering trains
    Keys of `Alone` batches are computed here and queued; `tensors` and `restore` save the queue in checkpoints.
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
        """The alignment term, on its own pictures, half as many as in the alignment stage."""
        if self._aligner is None:
            return {}
        config = self._aligner.config
        losses = self._aligner(config.seed + 1 + self._rank, step, max(2, config.batch // 2))
        value = total(losses)
        return {"alignment": Term(value, torch.ones((), device=value.device), self.settings.alignment)}

    def _against_all_things(self, found: Features, alone: Keyed) -> dict[str, Term]:
        """For rows with one object or none."""
        single = alone.things >= 0
        terms = {}
        for kind, weight in self.weights.items():
            keys, things = self._keys[kind], alone.things[single]
            losses = self._distil(pooled(found, kind)[single], keys, things, alone.excluded[single])
            terms[f"alone_{kind}"] = Term(losses.sum(), single.sum(), weight)
        return terms

    def _against_queue(self, found: Features, alone: Alone) -> dict[str, Term]:
        """Against the batch's own keys and earlier ones; rows with the same expression are not negatives."""
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
        """The rows of all processes, equally many each, in the order of a single process."""
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
        """The unsteered embedding of each object alone: (B, D) of unit length for each distilled aggregation."""
        return frozen_keys(self._model, alone.pixels, alone.cover, list(self.weights))

    def tensors(self) -> dict[str, Tensor]:
        """The queues, for a checkpoint."""
        queue = {f"queue.{kind}": values for kind, values in self._queue.items()}
        return queue | {"queue.names": self._queued_names}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the queues. Raises KeyError if one is missing."""
        self._queue = {kind: tensors[f"queue.{kind}"].to(self._model.device) for kind in self._queue}
        self._queued_names = tensors["queue.names"].to(self._model.device)


@torch.no_grad()
def frozen_keys(
    model: SteerViT, pixels: Tensor, cover: Tensor, kinds: list[Aggregation]
) -> dict[Aggregation, Tensor]:
    """Unsteered embeddings (B, D) of `pixels`, of unit length.

    "focus" weighs the patches by `cover` (B, N), since there is no heatmap without a prompt; an empty cover counts as
    uniform.
    """
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
    """(B, D): the distilled aggregation. "focus" weighs by the heatmap, not its square, so that all patches of the
    object learn, not its peak alone."""
    if kind != "focus":
        return found.aggregate(kind)
    heatmap = found.heatmap().flatten(1)
    return torch.einsum("bn,bnd->bd", heatmap, found.patches.to(heatmap.dtype))


def _target(batch: Batch, grid: tuple[int, int], settings: ObjectiveSettings) -> Tensor:
    """(B, N): the target of the softmax over patches; all zero if the expression fits nothing."""
    if settings.kind == "pointing":
        return gaussian_target(batch.centre, grid, settings.sigma)
    return patch_target(batch.cover)


def measure(found: Features, batch: Batch, settings: ObjectiveSettings) -> dict[str, tuple[Tensor, Tensor]]:
    """Validation metrics loss, pmass and pointing: each with its values (B',) and their rows (B,) bool.

    Pointing covers pictures that show what the expression names; the others cover all counted rows.
    """
    counted, shown = batch.counted, batch.shown
    logits, target = found.logits.float(), _target(batch, found.grid, settings)
    return {
        "loss": (soft_cross_entropy(logits[counted], target[counted]), counted),
        "pmass": (pmass(logits[counted], patch_target(batch.cover[counted])), counted),
        "pointing": (pointing(logits[shown], batch.cover[shown]).float(), shown),
    }
