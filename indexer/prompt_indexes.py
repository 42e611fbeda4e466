"""The prompt indexes of a library: which one answers a focus, and the command that builds one."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from steersearch.core.errors import (
    LibraryDamagedError,
    LibraryUnreadableError,
    PromptIndexMissing,
    in_digits,
)
from steersearch.core.preprocess import View
from steersearch.core.prompts import as_prompt, checked_prompt
from steersearch.indexer.database import versions
from steersearch.indexer.embedder import Embedder, known_identity
from steersearch.indexer.galleries import Galleries
from steersearch.indexer.manifest import (
    PromptIndex,
    UnsteeredIndex,
    is_begun_by_query,
    new_prompt_index,
    new_unsteered_index,
    read_prompt_indexes,
    read_unsteered_indexes,
)
from steersearch.indexer.place import found_place
from steersearch.indexer.schema import unsteered_table


class PromptIndexes:
    """The prompt indexes of a library."""

    def __init__(self, galleries: Galleries) -> None:
        self._galleries, self._place = galleries, galleries.place

    def all(self) -> list[PromptIndex]:
        """All finished prompt indexes, oldest first."""
        return read_prompt_indexes(self._place)

    def named(self) -> list[PromptIndex]:
        """Those that `index` built; the others were begun by a query."""
        return [index for index in self.all() if not is_begun_by_query(self._place, index)]

    def unsteered(self) -> list[UnsteeredIndex]:
        """The unsteered features with a record, oldest first; older versions wrote none."""
        found = {index.key: index for index in map(UnsteeredIndex.beside, reversed(self.all()))}
        found |= {index.key: index for index in read_unsteered_indexes(self._place)}
        kept = (index for index in found.values() if versions(self._place, unsteered_table(index.key)))
        return sorted(kept, key=lambda index: (index.created_at, index.key))

    def used(self) -> list[PromptIndex | UnsteeredIndex]:
        """What `index` built, oldest first."""
        made: list[PromptIndex | UnsteeredIndex] = [*self.named(), *read_unsteered_indexes(self._place)]
        return sorted(made, key=lambda index: (index.created_at, index.key))

    def view_used(self, model_id: str) -> View | None:
        """The view that `index` used last with this model; None: never, or the model's own."""
        used = (index.view for index in reversed(self.used()) if index.model_id == model_id)
        return next(used, None)

    def scale_used(self, model_id: str) -> float:
        """The gate_scale of a new index with this model: 1 if `index` has used 1, or none; else the last used."""
        scales = [index.gate_scale for index in self.named() if index.model_id == model_id]
        return 1.0 if 1.0 in scales or not scales else scales[-1]

    def choices(
        self,
        focus: str,
        model: str | None = None,
        gate_scale: float | None = None,
        view: View | None = None,
    ) -> list[PromptIndex]:
        """The indexes for this focus, at least one, best first.

        Ordered by coverage (all photos, at least half, fewer), then gate_scale 1, then the view that `index` used
        last with the model, then the newest. Raises PromptError, and PromptIndexMissing, which lists the prompts and
        the command that builds this one.
        """
        focus = checked_prompt(focus)
        existing = self.all()
        fitting = [
            index
            for index in reversed(existing)
            if as_prompt(index.prompt) == focus  # older libraries stored a prompt as typed
            and model in (None, index.model_id)
            and gate_scale in (None, index.gate_scale)
            and view in (None, index.view)
        ]
        if not fitting:
            command = self.command(focus, model, gate_scale, view)
            raise PromptIndexMissing(
                focus, self._galleries.folders.paths[0], [str(index) for index in existing], command
            )
        return sorted(fitting, key=self._preference) if len(fitting) > 1 else fitting

    def _preference(self, index: PromptIndex) -> tuple[int, bool, bool]:
        """Smaller is better."""
        try:
            gallery = self._galleries.of(index)
            lacks = min(2, -(-gallery.missing // max(len(gallery), 1)))
        except (LibraryDamagedError, LibraryUnreadableError):  # raised again if this index is searched
            lacks = 3
        return lacks, index.gate_scale != 1, index.view != self.view_used(index.model_id)

    def of(self, embedder: Embedder, prompt: str, gate_scale: float) -> PromptIndex:
        """The index with these settings, existing or new."""
        index = new_prompt_index(
            checked_prompt(prompt),
            gate_scale,
            model_id=embedder.model_id,
            weights_hash=embedder.weights_hash,
            preprocessing=embedder.preprocessing,
            dim=embedder.dim,
        )
        return next((existing for existing in self.all() if existing.key == index.key), index)

    def command(
        self,
        prompt: str | Sequence[str],
        model: str | None = None,
        gate_scale: float | None = None,
        view: View | None = None,
    ) -> str:
        """The command line that indexes the photos under `prompt`; (): under all existing prompts."""
        folder = self._galleries.folders.paths[0]
        command = f"steersearch index {shlex.quote(os.fspath(folder))}"
        for text in [prompt] if isinstance(prompt, str) else prompt:
            quoted = "".join(f"\\{c}" if c in '\\"$`' else c for c in text)
            command += f' --prompt "{quoted}"'
        if model is not None:
            command += f" --model {shlex.quote(model)}"
        if gate_scale is not None:
            command += f" --gate-scale {in_digits(gate_scale)}"
        if view is not None:
            command += f" --view {view}"
        if self._place != found_place(folder):
            command += f" --library {shlex.quote(os.fspath(self._place))}"
        return command

    def update_command(self, index: PromptIndex | UnsteeredIndex) -> str:
        """The command line that brings an index up to date."""
        if isinstance(index, UnsteeredIndex):
            return self.command((), index.model_id, None, index.view)
        return self.command(index.prompt, index.model_id, index.gate_scale, index.view)


# ------------------------------------------------------------------------------------------ which of them a run builds


def targets(
    place: Path, indexes: PromptIndexes, embedder: Embedder, prompts: Sequence[str], gate_scale: float
) -> list[PromptIndex]:
    """The prompt indexes that a run builds: `prompts` at `gate_scale`; without prompts all of this embedder that
    `index` built, at their own gate_scales. Loads the embedder only if the manifests cannot tell.
    """
    identity = known_identity(embedder)
    existing = [i for i in indexes.all() if identity.fits(i.weights_hash, i.preprocessing)]
    if not prompts:
        return _to_update(place, embedder, existing)
    found = []
    for prompt in prompts:
        same = [i for i in existing if (as_prompt(i.prompt), i.gate_scale) == (prompt, gate_scale)]
        if identity.weights_hash is not None and len(same) == 1:  # known without loading the model
            found.append(same[0])
        else:
            found.append(indexes.of(embedder, prompt, gate_scale))
    return found


def _to_update(place: Path, embedder: Embedder, existing: list[PromptIndex]) -> list[PromptIndex]:
    existing = [index for index in existing if not is_begun_by_query(place, index)]
    if len({(i.weights_hash, repr(i.preprocessing)) for i in existing}) > 1:
        _ = embedder.dim  # loads it, to learn its weights_hash
        identity = known_identity(embedder)
        existing = [i for i in existing if identity.fits(i.weights_hash, i.preprocessing)]
    return existing


def unsteered_target(
    indexes: PromptIndexes, embedder: Embedder, prompt_indexes: Sequence[PromptIndex]
) -> UnsteeredIndex:
    """The unsteered features that a run over these prompt indexes, perhaps none, builds. Loads the embedder only if
    the manifests cannot tell."""
    existing = indexes.unsteered()
    if prompt_indexes:
        made = UnsteeredIndex.beside(prompt_indexes[0])
    else:
        identity = known_identity(embedder)
        fitting = [i for i in existing if identity.fits(i.weights_hash, i.preprocessing)]
        if identity.weights_hash is not None and len(fitting) == 1:
            return fitting[0]
        made = new_unsteered_index(
            model_id=embedder.model_id,
            weights_hash=embedder.weights_hash,
            preprocessing=embedder.preprocessing,
            dim=embedder.dim,
        )
    return next((index for index in existing if index.key == made.key), made)
