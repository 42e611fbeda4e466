"""Which contents a library has already, and which a run computes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from steersearch.indexer.id_map import IdMap, Ids, row_of, rows_of
from steersearch.indexer.manifest import PromptIndex, UnsteeredIndex

Target = PromptIndex | UnsteeredIndex


class Contents:
    """What is known of each content (image_id) when a run begins.

    One sorted array of 32 bytes per content, and a byte for each target, which processes of one machine can share.

    usable: contents of usable photos that have a thumbnail.  bad: why a content cannot be decoded.
    embedded: each target's key, and the contents that have its vector, taken one after the other; all sorted.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        usable: Ids,
        bad: Mapping[str, str],
        embedded: Iterable[tuple[str, Ids]],
    ) -> None:
        self.targets = tuple(targets)
        self._bad = dict(bad)
        self._ids, self._is_usable = usable, np.ones(len(usable), dtype=bool)
        self._has: dict[str, npt.NDArray[np.bool_]] = {}
        for key, ids in embedded:
            self._take_in(ids[rows_of(self._ids, ids) < 0])
            has = np.zeros(len(self._ids), dtype=bool)
            has[rows_of(self._ids, ids)] = True
            self._has[key] = has

    def _take_in(self, new: Ids) -> None:
        """Contents that have a vector, and no usable photo."""
        if len(new):
            rows = np.searchsorted(self._ids, new)
            self._ids = np.insert(self._ids.astype(np.promote_types(self._ids.dtype, new.dtype)), rows, new)
            self._is_usable = np.insert(self._is_usable, rows, False)
            self._has = {key: np.insert(has, rows, False) for key, has in self._has.items()}

    def bad_reason(self, image_id: str) -> str | None:
        """Why this content cannot be decoded, if that is known."""
        return self._bad.get(image_id)

    def is_usable(self, image_id: str) -> bool:
        """Whether there is a usable photo of this content, with a thumbnail."""
        row = row_of(self._ids, image_id)
        return row is not None and bool(self._is_usable[row])

    def is_whole(self, image_id: str) -> bool:
        """Whether the library has all of a usable photo of this content."""
        return self.is_usable(image_id) and not self.missing(image_id)

    def missing(self, image_id: str) -> tuple[Target, ...]:
        """The targets that lack a vector of this content."""
        row = row_of(self._ids, image_id)
        return tuple(target for target in self.targets if row is None or not self._has[target.key][row])

    def are_whole(self, image_ids: Ids) -> npt.NDArray[np.bool_]:
        """(n,) As `is_whole`, of each content."""
        rows = rows_of(self._ids, image_ids)
        whole = rows >= 0
        if whole.any():
            whole &= self._is_usable[rows]
            for target in self.targets:
                whole &= self._has[target.key][rows]
        return whole


class Claims:
    """Which contents one worker computes, so that it computes copies once. Several threads may ask."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._claimed: dict[str, set[str]] = {target.key: set() for target in contents.targets}
        self._done = IdMap()  # the number of the targets that a content has got here, in `_groups`
        self._groups: list[frozenset[str]] = []

    def missing(self, image_id: str) -> tuple[Target, ...]:
        """The targets that lack a vector of this content by now."""
        done = self._keys(image_id)
        return tuple(target for target in self._contents.missing(image_id) if target.key not in done)

    def is_known(self, image_id: str) -> bool:
        """Whether everything is computed for this content."""
        is_usable = self._done.get(image_id) is not None or self._contents.is_usable(image_id)
        return is_usable and not self.missing(image_id)

    def is_claimed(self, image_id: str) -> bool:
        """Whether this content is computed here, or was."""
        return bool(self._keys(image_id)) or any(image_id in ids for ids in self._claimed.values())

    def claim(self, image_id: str) -> tuple[Target, ...]:
        """The targets for which this content is to be computed now: those that lack it and do not wait for it."""
        missing = self.missing(image_id)
        free = tuple(target for target in missing if image_id not in self._claimed[target.key])
        for target in free:
            self._claimed[target.key].add(image_id)
        return free

    def settle(self, image_ids: Collection[str], targets: Iterable[Target]) -> None:
        """These contents have vectors now."""
        keys = frozenset(target.key for target in targets)
        for image_id in image_ids:
            self._done[image_id] = self._group(keys | self._keys(image_id))
        for key in keys:
            self._claimed[key].difference_update(image_ids)

    def _keys(self, image_id: str) -> frozenset[str]:
        """Of the targets that this content has got here."""
        group = self._done.get(image_id)
        return frozenset() if group is None else self._groups[group]

    def _group(self, keys: frozenset[str]) -> int:
        if keys not in self._groups:
            self._groups.append(keys)
        return self._groups.index(keys)
