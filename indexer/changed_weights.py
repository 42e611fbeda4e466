"""Models whose weights have changed since a library was indexed with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from steersearch.core.errors import ModelMismatchError, index_of, listed
from steersearch.core.preprocess import View
from steersearch.indexer.embedder import Embedder, Provider
from steersearch.indexer.manifest import (
    PromptIndex,
    UnsteeredIndex,
    read_unsteered_indexes,
    replace_prompt_index,
    replace_unsteered_index,
)
from steersearch.indexer.prompt_indexes import PromptIndexes
from steersearch.indexer.writers import writing


class ChangedWeights:
    """Which prompt indexes of a library were built with weights that their model no longer has."""

    def __init__(self, place: Path, indexes: PromptIndexes, provider: Provider) -> None:
        self._place, self._indexes, self._provider = place, indexes, provider

    def of(self, model: str) -> list[PromptIndex]:
        """The prompt indexes of `model` built with other weights than it has now, unless the prompt was indexed since.

        Empty if only loading the model could tell.
        """
        now = self._provider.weights_hash(model)
        made = [index for index in self._indexes.named() if index.model_id == model]
        since = {index.prompt for index in made if index.weights_hash == now}
        return [i for i in made if now not in (None, i.weights_hash) and i.prompt not in since]

    def chosen(self, indexes: Sequence[PromptIndex]) -> list[PromptIndex]:
        """Of indexes that differ only in weights, the one with the current weights, else the first; in order."""
        kept: dict[tuple[str, float, View | None], PromptIndex] = {}
        for index in indexes:
            settings = index.model_id, index.gate_scale, index.view
            if settings not in kept or index.weights_hash == self._provider.weights_hash(index.model_id):
                kept[settings] = index
        return [index for index in indexes if index in kept.values()]

    def in_short(self, changed: Sequence[PromptIndex]) -> str:
        """Message for indexes that `of` returned, as a note on an unrelated answer."""
        prompts = list(dict.fromkeys(index.prompt for index in changed))
        names, model = listed([f'"{prompt}"' for prompt in prompts], most=3), changed[0].model_id
        few = f"index again: {self._indexes.command(prompts, model)}"
        return f"{model} has other weights now than when {names} was indexed; " + (
            few if len(prompts) <= 3 else "index these prompts again"
        )

    def how_to_go_on(self, changed: Sequence[PromptIndex]) -> str:
        """Message for indexes that `of` returned."""
        prompts = list(dict.fromkeys(index.prompt for index in changed))
        names, model = ", ".join(f'"{prompt}"' for prompt in prompts), changed[0].model_id
        return (
            f"the model {model} has other weights now than those that indexed {names}, and their vectors cannot be "
            f"compared; index again: {self._indexes.command(prompts, model)}; or {self._way_back(model)}"
        )

    def error(self, index: PromptIndex | UnsteeredIndex, embedder: Embedder) -> ModelMismatchError:
        """This embedder has the name of the index's model and other weights."""
        expected, found = index.weights_hash[:12], embedder.weights_hash[:12]
        return ModelMismatchError(
            f"{index_of(index.prompt)} was made with other weights of {index.model_id} (sha256 {expected}…, "
            f"here is {found}…), so its vectors cannot be compared; {self._way_back(index.model_id)}, "
            f"or index the folder again: {self._indexes.update_command(index)}"
        )

    def take_over(self, model: str) -> None:
        """Name `model` in the indexes that its weights built, if the model named there has other weights now."""
        have: list[PromptIndex | UnsteeredIndex] = [
            *self._indexes.all(),
            *read_unsteered_indexes(self._place),
        ]
        others = [index for index in have if index.model_id != model]
        weights = self._provider.weights_hash(model) if others else None
        made = [index for index in others if index.weights_hash == weights]
        made = [i for i in made if self._provider.weights_hash(i.model_id) not in (None, weights)]
        if made:
            self.rename(made, model)

    def rename(self, indexes: Sequence[PromptIndex | UnsteeredIndex], model: str) -> None:
        """Record `model` as the name of the weights that built these indexes."""
        with writing(self._place):
            for index in indexes:
                renamed = replace(index, model_id=model)
                if isinstance(renamed, PromptIndex):
                    replace_prompt_index(self._place, renamed)
                else:
                    replace_unsteered_index(self._place, renamed)

    def _way_back(self, model: str) -> str:
        command, where = self._indexes.command((), "FILE"), self._provider.earlier_weights(model)
        return f"go on with the earlier weights: {command}, where FILE is {where}"
