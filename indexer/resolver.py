"""Which index answers a query."""

from __future__ import annotations

import math
from dataclasses import replace
from numbers import Real

from steersearch.core.errors import ArgumentError, PromptIndexMissing
from steersearch.core.preprocess import View, checked_view
from steersearch.indexer.library_models import LibraryModels
from steersearch.indexer.manifest import PromptIndex, UnsteeredIndex
from steersearch.indexer.prompt_indexes import PromptIndexes
from steersearch.indexer.query_terms import AnyFocus, Focus, as_focuses


class Resolver:
    """Finds the indexes that answer; model, gate_scale, view: of the index, None: any."""

    def __init__(self, indexes: PromptIndexes, models: LibraryModels) -> None:
        self._indexes, self._models = indexes, models

    def focuses(
        self, focus: AnyFocus, gate_scale: float | None, model: str | None, view: View | None
    ) -> list[Focus]:
        """See `Library.resolve`."""
        if gate_scale is not None:
            checked_scale(gate_scale)
        return [
            one if one.indexes else replace(one, indexes=self._indexes_of(one.text, gate_scale, model, view))
            for one in as_focuses(focus)
        ]

    def _indexes_of(
        self, prompt: str, gate_scale: float | None, model: str | None, view: View | None
    ) -> tuple[PromptIndex, ...]:
        """Those that exist, or the one that a query will begin."""
        try:
            return tuple(self.choices(prompt, gate_scale, model, view))
        except PromptIndexMissing:
            name = self._full_name(model) or self._models.name
            embedder = self._models.provider.embedder(name, view or self._indexes.view_used(name))
            scale = self._indexes.scale_used(name) if gate_scale is None else gate_scale
            index = self._indexes.of(embedder, prompt, scale)
            return (replace(index, model_id=embedder.model_id),)  # its weights may have another name there

    def choices(
        self, prompt: str, gate_scale: float | None, model: str | None, view: View | None
    ) -> list[PromptIndex]:
        """The indexes of this prompt, the preferred one first, see `PromptIndexes.choices`. Raises
        PromptIndexMissing."""
        found = self._indexes.choices(prompt, self._full_name(model), gate_scale, checked_view(view))
        return self._models.changed.chosen(found)

    def unsteered(self, model: str | None, view: View | None) -> UnsteeredIndex:
        """See `Library.unsteered_index`."""
        name, view = self._full_name(model), checked_view(view)
        fitting = [
            i for i in self._indexes.unsteered() if name in (None, i.model_id) and view in (None, i.view)
        ]
        if not fitting:
            command = self._indexes.command((), name, None, view)
            raise ArgumentError(
                "focus", None, f"needs unsteered vectors, of which there are none; run: {command}"
            )
        weights_hash = self._models.provider.weights_hash
        current = [i for i in fitting if i.weights_hash == weights_hash(i.model_id)]
        return (current or fitting)[-1]

    def _full_name(self, model: str | None) -> str | None:
        return None if model is None else self._models.provider.full_name(model)


def checked_scale(gate_scale: float) -> float:
    """Raises ArgumentError unless the value is a finite number."""
    if not (isinstance(gate_scale, Real) and abs(gate_scale) < math.inf):
        raise ArgumentError("gate_scale", gate_scale, "must be a finite number, 1.0 is as trained")
    return gate_scale
