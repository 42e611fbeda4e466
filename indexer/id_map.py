"""A whole number for each of many contents, in sorted arrays: 36 bytes a content, where a dict takes some 200."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.bytes_]
T = TypeVar("T", bound=np.generic)

_FEW = 4096  # new ones that are not sorted in yet, or a 16th of all


class IdMap:
    """Numbers by content (image_id). One thread at a time may write, others may read meanwhile."""

    def __init__(self) -> None:
        self._sorted = sorted_ids(()), np.empty(0, np.int32)
        self._recent: dict[str, int] = {}

    def get(self, image_id: str) -> int | None:
        """None: it has none."""
        recent = self._recent.get(image_id)  # first, as `_sort_in` empties it last
        if recent is not None:
            return recent
        ids, numbers = self._sorted
        row = row_of(ids, image_id)
        return None if row is None else int(numbers[row])

    def __setitem__(self, image_id: str, number: int) -> None:
        ids, numbers = self._sorted
        if len(ids) and (row := row_of(ids, image_id)) is not None:
            numbers[row] = number
            return
        self._recent[image_id] = number
        if len(self._recent) >= max(_FEW, len(ids) // 16):
            self._sort_in()

    def count(self, image_id: str) -> None:
        """One more."""
        self[image_id] = (self.get(image_id) or 0) + 1

    def items(self) -> Iterator[tuple[str, int]]:
        """Every content with its number."""
        self._sort_in()
        ids, numbers = self._sorted
        for image_id, number in zip(ids, numbers, strict=True):
            yield image_id.decode(), int(number)

    def _sort_in(self) -> None:
        ids, numbers = self._sorted
        new = np.array(list(self._recent), dtype="S")
        order = np.argsort(new)
        rows = np.searchsorted(ids, new[order])
        ids = ids.astype(np.promote_types(ids.dtype, new.dtype))
        added = np.fromiter(self._recent.values(), np.int32, len(new))[order]
        self._sorted = np.insert(ids, rows, new[order]), np.insert(numbers, rows, added)
        self._recent = {}


def sorted_ids(ids: Collection[str] | Ids) -> Ids:
    """Different contents, sorted: 32 bytes each. An array is sorted in place."""
    found = ids if isinstance(ids, np.ndarray) else np.array(list(ids), dtype="S")
    found.sort()
    is_first = are_first(found)
    return found if is_first.all() else found[is_first]


def are_first(ids: Ids) -> npt.NDArray[np.bool_]:
    """(n,) Of sorted contents, whether each differs from the one before it."""
    found = np.ones(len(ids), dtype=bool)
    found[1:] = ids[1:] != ids[:-1]
    return found


def row_of(ids: Ids, image_id: str) -> int | None:
    """Where sorted contents have this one; None: nowhere."""
    name = image_id.encode()
    row = int(np.searchsorted(ids, name))
    return row if row < len(ids) and ids[row] == name else None


def rows_of(ids: npt.NDArray[T], some: npt.NDArray[T]) -> npt.NDArray[np.int64]:
    """As `row_of`, of each of `some`; -1: nowhere. They may be anything that NumPy sorts."""
    if not len(ids):
        return np.full(len(some), -1)
    rows = np.searchsorted(ids, some)
    rows[rows == len(ids)] = 0
    return np.where(ids[rows] == some, rows, -1)
