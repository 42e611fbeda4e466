"""The prompt indexes of a library: which of them answers a focus, and the command that makes one."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from steersearch.core.digits import in_digits
from steersearch.core.errors import LibraryDamagedError, LibraryUnreadableError, PromptIndexMissing
from steersearch.core.preprocess import View
from steersearch.core.prompts import as_prompt, checked_prompt
from steersearch.indexer.embedder import Embedder
from steersearch.indexer.galleries import Galleries
from steersearch.indexer.locations import default_place
from steersearch.indexer.manifest import (
    PromptIndex,
    is_begun_by_query,
    new_prompt_index,
    read_prompt_indexes,
)


class PromptIndexes:
    """The prompt indexes of the library that has these galleries."""

    def __init__(self, galleries: Galleries) -> None:
        self._galleries, self._place = galleries, galleries.place

    def all(self) -> list[PromptIndex]:
        """Those that can be searched, oldest first."""
        return read_prompt_indexes(self._place)

    def named(self) -> list[PromptIndex]:
        """Those that an `index` run was asked for; the others were only begun by a query."""
        return [index for index in self.all() if not is_begun_by_query(self._place, index)]

    def view_used(self, model_id: str) -> View | None:
        """The view that `index` used last with this model; None: never, or one of the model's own."""
        named = (index.view for index in reversed(self.named()) if index.model_id == model_id)
        return next(named, None)

    def scale_used(self, model_id: str) -> float:
        """1 if `index` has used it with this model, or none; else the gate_scale used last."""
        scales = [index.gate_scale for index in self.named() if index.model_id == model_id]
        return 1.0 if 1.0 in scales or not scales else scales[-1]

    def choices(
        self,
        focus: str,
        model: str | None = None,
        gate_scale: float | None = None,
        view: View | None = None,
    ) -> list[PromptIndex]:
        """Those for this focus, at least one, the one to be preferred first.

        Those of all photos come before those of half of them and more, and these before the others; then those of
        gate_scale 1, then those in the view that `index` used last with their model, then the ones made last.
        Raises PromptError, and PromptIndexMissing, which says what there is and the command that builds this one.
        """
        focus = checked_prompt(focus)
        existing = self.all()
        fitting = [
            index
            for index in reversed(existing)
            if as_prompt(index.prompt) == focus  # older libraries kept a prompt as it was typed
            and model in (None, index.model_id)
            and gate_scale in (None, index.gate_scale)
            and view in (None, index.view)
        ]
        if not fitting:
            command = self.command(focus, model, gate_scale, view)
            raise PromptIndexMissing(focus, self._galleries.root, [str(index) for index in existing], command)
        return sorted(fitting, key=self._preference) if len(fitting) > 1 else fitting

    def _preference(self, index: PromptIndex) -> tuple[int, bool, bool]:
        """Less is better."""
        try:
            gallery = self._galleries.of(index)
            lacks = min(2, -(-gallery.missing // max(len(gallery), 1)))
        except (LibraryDamagedError, LibraryUnreadableError):  # who asks for this very one gets the error
            lacks = 3
        return lacks, index.gate_scale != 1, index.view != self.view_used(index.model_id)

    def of(self, embedder: Embedder, prompt: str, gate_scale: float) -> PromptIndex:
        """The one of these settings: the one that exists, or one to be made."""
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
        """The command line that indexes the photo folder under a prompt, several, or () those that there are."""
        folder = self._galleries.root
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
        if self._place != default_place(folder):
            command += f" --library {shlex.quote(os.fspath(self._place))}"
        return command

    def update_command(self, index: PromptIndex) -> str:
        """The command line that brings a prompt index up to date."""
        return self.command(index.prompt, index.model_id, index.gate_scale, index.view)
