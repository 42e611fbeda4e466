"""SteerViT as a method of the benchmarks."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from steersearch.benchmarks.harness.method import Floats, Seen
from steersearch.core.attention_maps import attention_maps
from steersearch.core.cross_attention import GatedCrossAttention
from steersearch.core.errors import ArgumentError, BenchmarkError
from steersearch.core.predictor import Predictor
from steersearch.core.preprocess import View
from steersearch.core.registry import MODELS
from steersearch.core.steervit import Features
from steersearch.core.vectors import Aggregation, AggregationRecord


class SteerViTMethod:
    """SteerViT at one gate_scale, aggregation and view; without a prompt, or at gate_scale 0, it is the backbone."""

    gallery_takes_prompt = True

    def __init__(
        self,
        model: Predictor,
        gate_scale: float = 1.0,
        aggregation: Aggregation | None = None,
        view: View | None = None,
    ) -> None:
        """aggregation, view: None is the model's own. Raises ArgumentError for a gate_scale below 0 or not finite."""
        if not 0 <= gate_scale < float("inf"):
            raise ArgumentError("gate_scale", gate_scale, "must be a number from 0 (no steering) up")
        self.model = model.with_view(view).with_aggregation(aggregation)
        self.gate_scale, self._view = gate_scale, view
        self.aggregation = self.model.aggregation
        self.name = _name(self)
        self.weights_hash = model.weights_hash
        self.identity = _digest(self.settings | {"weights": self.weights_hash})
        card = MODELS.get(model.model_id)
        self.licence = "that of its file" if card is None else card.licence
        self.takes_prompt = gate_scale != 0
        self.batch_size = self.model.batch_size

    def at(self, gate_scale: float) -> SteerViTMethod:
        """The same model, view and aggregation at another gate_scale."""
        return SteerViTMethod(self.model, gate_scale, self.aggregation, self._view)

    def pooled(self, aggregation: Aggregation) -> SteerViTMethod:
        """The same model, view and gate_scale with another aggregation."""
        return SteerViTMethod(self.model, self.gate_scale, aggregation, self._view)

    @property
    def paper_aggregation(self) -> Aggregation:
        """The paper's: the checkpoint's, or, if that is `focus`, CLS, or the mean for a backbone without CLS."""
        return paper_aggregation(self.model)

    @property
    def gates(self) -> list[float] | None:
        """The gate of each cross-attention at this gate_scale, 0 to 1; None for a model without gates."""
        layers = self.model.model.cross_attention.values()
        gates = [layer.attn_gate for layer in layers if isinstance(layer, GatedCrossAttention)]
        opened = [abs(math.tanh(gate.item() * self.gate_scale)) for gate in gates if gate is not None]
        return [round(each, 4) for each in opened] or None

    @property
    def part_of_square(self) -> tuple[float, float, float, float]:
        """See `Preprocess.part_of_square`."""
        return self.model.preprocess.part_of_square

    @property
    def settings(self) -> dict[str, Any]:
        """All but the weights that determines the output, JSON-able."""
        return {
            "gate_scale": self.gate_scale,
            "aggregation": vars(AggregationRecord.of(self.aggregation)),
            "preprocess": self.model.preprocess.to_dict(),
            "dtype": str(self.model.dtype).removeprefix("torch."),
        }

    @torch.inference_mode()
    def see(
        self,
        pictures: Sequence[Image.Image],
        prompt: str | None,
        *,
        patches: bool = False,
        maps: bool = False,
        attention: bool = False,
    ) -> Seen:
        """See `Method.see`. maps are the head's logits; at gate_scale 0, of the unsteered patches."""
        if maps and prompt is None:
            raise BenchmarkError(
                f"{self.name} has no heatmap without a prompt: its head is trained under one"
            )
        if attention and not self.model.model.num_prefix_tokens:
            raise BenchmarkError(f"{self.name} has no attention map: its backbone has no CLS token")
        found = self.model.features(list(pictures), prompt, self.gate_scale, attention=attention)
        grid = (len(pictures), *found.grid)
        return Seen(
            vectors=_floats(found.aggregate(self.aggregation)),
            patches=_floats(found.patches).reshape(*grid, -1) if patches else None,
            maps=_floats(found.logits).reshape(grid) if maps else None,
            attention=_attention(found) if attention else None,
        )


def paper_aggregation(model: Predictor) -> Aggregation:
    """See `SteerViTMethod.paper_aggregation`."""
    own = model.model.config.aggregation
    if own != "focus":
        return own
    return "cls" if model.model.num_prefix_tokens else "mean"


def _attention(found: Features) -> Floats:
    assert found.attention is not None
    return _floats(attention_maps(found.attention, found.grid, suppress_sinks=False, normalise=False))


def _floats(values: torch.Tensor) -> Floats:
    array: Floats = values.float().cpu().numpy()
    return array


def _name(method: SteerViTMethod) -> str:
    """The model, and settings that are not the default: mini+gate0.6+cls."""
    own = method.model.model.config
    said = [method.model.model_id]
    if method.gate_scale != 1:
        said.append(f"gate{method.gate_scale:g}")
    if method.aggregation != own.aggregation:
        said.append(method.aggregation)
    if method.model.preprocess.mode != own.preprocess.mode:
        said.append(method.model.preprocess.mode)
    return "+".join(said)


def _digest(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
