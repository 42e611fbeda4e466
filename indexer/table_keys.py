"""Which keys a table has, in 8 bytes each, so that rows which are certainly new need no merge.

`merge_insert` reads the keys of the whole table and holds them, in each commit. An append costs neither; but LanceDB
lets it follow any other commit, so that a key would be there twice if another writer had just inserted it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from steersearch.indexer.id_map import rows_of

Hashes = npt.NDArray[np.int64]


class TableKeys:
    """Hashes of the keys of one table. columns: Arrow columns of them, together all that it has."""

    def __init__(self, columns: Iterable[Any]) -> None:
        self._runs: list[Hashes] = []  # each sorted, and more than twice as long as the next
        self.take_in(np.concatenate([np.empty(0, np.int64), *map(hashes_of, columns)]))

    def lack(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """(n,) Whether a key is certainly new. Among n others, n of 2**64 new ones do not seem so."""
        found = np.ones(len(hashes), dtype=bool)
        for run in self._runs:
            found &= rows_of(run, hashes) < 0
        return found

    def take_in(self, hashes: Hashes) -> None:
        """The table has these, too."""
        run = np.sort(hashes)
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]), kind="stable")  # which merges sorted parts
        self._runs.append(run)


def hashes_of(keys: Any) -> Hashes:
    """(n,) Of an Arrow column of texts; valid in this process."""
    return np.fromiter(map(hash, keys.to_pylist()), np.int64, len(keys))
