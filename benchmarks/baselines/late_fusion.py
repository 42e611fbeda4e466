"""Late fusion, the paper's ablation: a SteerViT whose cross-attention comes after the last block of its backbone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from steersearch.benchmarks.baselines.base import Baseline, Outputs, Wanted, on_grid
from steersearch.benchmarks.baselines.cards import Card
from steersearch.benchmarks.harness.steervit_method import paper_aggregation
from steersearch.core.errors import BenchmarkError
from steersearch.core.predictor import Predictor
from steersearch.core.vectors import Aggregation, AggregationRecord


def load(card: Card, weights: Path | None, device: str) -> LateFusion:
    """weights: a .safetensors or .pth file. Raises BenchmarkError without one, and for a model that fuses early."""
    if weights is None:
        raise BenchmarkError(
            f"{card.name}: the authors released no such model; train one (steersearch train --set model.fusion=late) "
            f"and give its file: {card.name}=FILE"
        )
    predictor = Predictor.from_pretrained(weights, device=device)
    fusion = predictor.model.config.fusion
    if fusion != "late":
        raise BenchmarkError(f'{weights}: a model with fusion "{fusion}", not "late"')
    return LateFusion(card, predictor)


class LateFusion(Baseline):
    """As SteerViT: the checkpoint's aggregation, steered patches, logits of the segmentation head, CLS attention.

    The attention of the backbone's last block comes before the text does: no prompt changes it.
    """

    def __init__(self, card: Card, predictor: Predictor) -> None:
        self.predictor = predictor
        model, source = predictor.model, predictor.weights_hash
        config = model.config.to_dict() | {"aggregation": vars(AggregationRecord.of(predictor.aggregation))}
        super().__init__(card, model, source, predictor.device, predictor.batch_size, config=config)

    def pooled(self, aggregation: Aggregation) -> LateFusion:
        """The same model under another aggregation."""
        return LateFusion(self.card, self.predictor.with_aggregation(aggregation))

    @property
    def name(self) -> str:
        own = self.predictor.model.config.aggregation
        return self.card.name if self.aggregation == own else f"{self.card.name}+{self.aggregation}"

    @property
    def aggregation(self) -> Aggregation:
        """How tokens become one vector."""
        return self.predictor.aggregation

    @property
    def paper_aggregation(self) -> Aggregation:
        """See `SteerViTMethod.paper_aggregation`."""
        return paper_aggregation(self.predictor)

    def _see(self, pictures: Sequence[Image.Image], prompt: str | None, wanted: Wanted) -> Outputs:
        if wanted.maps and prompt is None:
            raise BenchmarkError(f"{self.name} has no heatmap without a prompt")
        found = self.predictor.features(pictures, prompt, attention=wanted.attention)
        attention = None if found.attention is None else found.attention.float().mean(dim=1)
        return Outputs(
            vectors=found.aggregate(self.predictor.aggregation),
            patches=on_grid(found.patches, found.grid) if wanted.patches else None,
            maps=on_grid(found.logits, found.grid) if wanted.maps else None,
            attention=None if attention is None else on_grid(attention, found.grid),
        )


__all__ = ["LateFusion", "load"]
