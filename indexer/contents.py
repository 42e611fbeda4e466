"""Which contents a library has already, and which a run computes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from steersearch.indexer.manifest import PromptIndex, UnsteeredIndex
from steersearch.indexer.schema import FileRecord

Target = PromptIndex | UnsteeredIndex


class Contents:
    """What is known of each content (image_id) when a run begins.

    Sorted arrays, 32 bytes per content and set, which processes of one machine can share.

    known: the files in the library.  pictured: the contents that have a thumbnail.  embedded: those that have a vector,
    by key of the target.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        known: Iterable[FileRecord],
        pictured: Collection[str],
        embedded: Mapping[str, Collection[str]],
    ) -> None:
        self.targets = tuple(targets)
        self._embedded = {key: _sorted(ids) for key, ids in embedded.items()}
        known = list(known)
        self._usable = _sorted(
            {file.image_id for file in known if file.reason is None}.intersection(pictured)
        )
        self._bad = {f.image_id: f.reason for f in known if f.reason is not None and f.image_id}

    def bad_reason(self, image_id: str) -> str | None:
        """Why this content cannot be decoded, if that is known."""
        return self._bad.get(image_id)

    def is_usable(self, image_id: str) -> bool:
        """Whether there is a usable photo of this content, with a thumbnail."""
        return _holds(self._usable, image_id)

    def is_whole(self, image_id: str) -> bool:
        """Whether the library has all of a usable photo of this content."""
        return self.is_usable(image_id) and not self.missing(image_id)

    def missing(self, image_id: str) -> tuple[Target, ...]:
        """The targets that lack a vector of this content."""
        return tuple(target for target in self.targets if not _holds(self._embedded[target.key], image_id))


class Claims:
    """Which contents one worker computes, so that it computes copies once. Several threads may ask."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._usable: set[str] = set()
        self._claimed: dict[str, set[str]] = {target.key: set() for target in contents.targets}
        self._embedded: dict[str, set[str]] = {target.key: set() for target in contents.targets}

    def missing(self, image_id: str) -> tuple[Target, ...]:
        """The targets that lack a vector of this content by now."""
        missing = self._contents.missing(image_id)
        return tuple(target for target in missing if image_id not in self._embedded[target.key])

    def is_known(self, image_id: str) -> bool:
        """Whether everything is computed for this content."""
        is_usable = image_id in self._usable or self._contents.is_usable(image_id)
        return is_usable and not self.missing(image_id)

    def is_claimed(self, image_id: str) -> bool:
        """Whether this content is computed here, or was."""
        return any(image_id in ids for ids in (*self._claimed.values(), *self._embedded.values()))

    def claim(self, image_id: str) -> tuple[Target, ...]:
        """The targets for which this content is to be computed now: those that lack it and do not wait for it."""
        missing = self.missing(image_id)
        free = tuple(target for target in missing if image_id not in self._claimed[target.key])
        for target in free:
            self._claimed[target.key].add(image_id)
        return free

    def settle(self, image_ids: Collection[str], targets: Iterable[Target]) -> None:
        """These contents have vectors now."""
        self._usable.update(image_ids)
        for target in targets:
            self._embedded[target.key].update(image_ids)
            self._claimed[target.key].difference_update(image_ids)


def _sorted(ids: Collection[str]) -> npt.NDArray[np.bytes_]:
    found: npt.NDArray[np.bytes_] = np.array(list(ids), dtype="S")
    found.sort()
    return found


def _holds(ids: npt.NDArray[np.bytes_], image_id: str) -> bool:
    name = image_id.encode()
    row = int(np.searchsorted(ids, name))
    return row < len(ids) and ids[row] == name
