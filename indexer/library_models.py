"""The models of one library: which one `index` uses, and which one made an index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from steersearch.core.errors import ModelMismatchError, PromptError
from steersearch.core.learned import Learned
from steersearch.core.preprocess import View, checked_view
from steersearch.indexer.changed_weights import ChangedWeights
from steersearch.indexer.doubts import Doubt, doubt_about, share_unlike
from steersearch.indexer.embedder import Embedder, Provider
from steersearch.indexer.manifest import PromptIndex, UnsteeredIndex
from steersearch.indexer.prompt_indexes import PromptIndexes
from steersearch.indexer.regions import region_snapshot_name

AUTO = "auto"


class LibraryModels:
    """The models of the library at `place`, loaded when they are needed.

    model: the name of the one that `index` uses; "auto" is the one that the library has used last.
    """

    def __init__(self, place: Path, indexes: PromptIndexes, provider: Provider, model: str) -> None:
        self._place, self._indexes, self._model = place, indexes, model
        self.provider = provider
        self.changed = ChangedWeights(place, indexes, provider)
        self._unlike: dict[str, tuple[str, float]] = {}  # by key: name of the region snapshot, `share_unlike`

    @property
    def name(self) -> str:
        """The model that `index` uses; "auto" where the library has used none."""
        used = self._indexes.used() if self._model == AUTO else []
        return used[-1].model_id if used else self._model

    @property
    def view(self) -> View | None:
        """The view that `index` uses: the one used last with this model; None: the model's own."""
        return self._indexes.view_used(self.name)

    def for_run(self, prompts: Sequence[str], view: View | None) -> Embedder:
        """The model for a run of `index`."""
        model = self.name
        self.changed.take_over(model)
        view = checked_view(view) or self.view
        embedder = self.provider.embedder(model, view)
        if prompts:
            return embedder
        named = self._indexes.named()
        changed = self.changed.of(model)
        if changed and not any(i.weights_hash == self.provider.weights_hash(model) for i in named):
            raise PromptError(f"no prompt given, and {self.changed.how_to_go_on(changed)}")
        used = self._indexes.used()
        if used and not any(index.model_id == model and view in (None, index.view) for index in used):
            _ = embedder.dim  # loads it: only the model itself can tell whether any of them are its own
        return embedder

    def of(self, index: PromptIndex | UnsteeredIndex) -> Embedder:
        """The model that made `index`. Raises ModelMismatchError if it has other weights by now."""
        embedder = self.provider.embedder(index.model_id, index.view)
        if embedder.weights_hash == index.weights_hash:
            return embedder
        if embedder.model_id != index.model_id:
            raise ModelMismatchError.of(index.prompt, index.model_id, embedder.model_id)
        raise self.changed.error(index, embedder)

    def doubt(self, index: PromptIndex | UnsteeredIndex, prompts: Sequence[str] = ()) -> Doubt | None:
        """Why an answer by the model that made `index` may be wrong; None: nothing is known against it."""
        learned = self.provider.learned(index.weights_hash)
        if learned is None:
            return None
        way_out = self._indexes.command((), learned.better)
        return doubt_about(learned, self._share_unlike(learned, index), index, prompts, way_out)

    def _share_unlike(self, learned: Learned, index: PromptIndex | UnsteeredIndex) -> float:
        """As `share_unlike`, measured again when the photos change."""
        unsteered = UnsteeredIndex.beside(index)
        name = region_snapshot_name(self._place, unsteered.key)
        known = self._unlike.get(unsteered.key)
        if known is None or known[0] != name:
            known = self._unlike[unsteered.key] = name, share_unlike(learned, self._place, unsteered)
        return known[1]
