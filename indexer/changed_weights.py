"""Prompt indexes whose model has other weights by now, and how to go on with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from steersearch.core.errors import WeightsChangedError
from steersearch.core.preprocess import View
from steersearch.indexer.embedder import Embedder
from steersearch.indexer.manifest import PromptIndex, replace_prompt_index
from steersearch.indexer.prompt_indexes import PromptIndexes
from steersearch.indexer.provider import Provider
from steersearch.indexer.writers import writing


class ChangedWeights:
    """Of a library's prompt indexes those whose model has changed."""

    def __init__(self, place: Path, indexes: PromptIndexes, provider: Provider) -> None:
        self._place, self._indexes, self._provider = place, indexes, provider

    def of(self, model: str) -> list[PromptIndex]:
        """The prompt indexes that `model` made with other weights than it has now, but for prompts indexed since.

        None where only loading the model can tell.
        """
        now = self._provider.weights_hash(model)
        made = [index for index in self._indexes.named() if index.model_id == model]
        since = {index.prompt for index in made if index.weights_hash == now}
        return [i for i in made if now not in (None, i.weights_hash) and i.prompt not in since]

    def chosen(self, indexes: Sequence[PromptIndex]) -> list[PromptIndex]:
        """Of indexes that differ in weights alone the one whose weights the model has now, else the first; in order."""
        kept: dict[tuple[str, float, View | None], PromptIndex] = {}
        for index in indexes:
            settings = index.model_id, index.gate_scale, index.view
            if settings not in kept or index.weights_hash == self._provider.weights_hash(index.model_id):
                kept[settings] = index
        return [index for index in indexes if index in kept.values()]

    def how_to_go_on(self, changed: Sequence[PromptIndex]) -> str:
        """What `of` means, and what to do."""
        prompts = list(dict.fromkeys(index.prompt for index in changed))
        names, model = ", ".join(f'"{prompt}"' for prompt in prompts), changed[0].model_id
        return (
            f"the model {model} has other weights now than those that indexed {names}, and their vectors cannot be "
            f"compared; index again: {self._indexes.command(prompts, model)}; or {self._way_back(model)}"
        )

    def error(self, index: PromptIndex, embedder: Embedder) -> WeightsChangedError:
        """Says that this embedder, under the name of the one that made the index, is another."""
        return WeightsChangedError(
            index.model_id,
            index.prompt,
            index.weights_hash,
            embedder.weights_hash,
            command=self._indexes.update_command(index),
            way_back=self._way_back(index.model_id),
        )

    def take_over(self, model: str) -> None:
        """Name `model` as the model of prompt indexes that its weights made, if their own has others by now."""
        others = [index for index in self._indexes.all() if index.model_id != model]
        weights = self._provider.weights_hash(model) if others else None
        made = [index for index in others if index.weights_hash == weights]
        made = [i for i in made if self._provider.weights_hash(i.model_id) not in (None, weights)]
        if made:
            self.rename(made, model)

    def rename(self, indexes: Sequence[PromptIndex], model: str) -> None:
        """Record that the weights which made these indexes go by the name `model` now."""
        with writing(self._place):
            for index in indexes:
                replace_prompt_index(self._place, replace(index, model_id=model))

    def _way_back(self, model: str) -> str:
        command, where = self._indexes.command((), "FILE"), self._provider.earlier_weights(model)
        return f"go on with the earlier weights: {command}, where FILE is {where}"
