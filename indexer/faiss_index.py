"""Exact inner-product search with FAISS. The only file that imports faiss, lazily."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from steersearch.core.errors import FaissConflictError

Floats = npt.NDArray[np.float32]
_ROUNDING = 1e-5  # two float32 scores closer than this may be in either order, whatever their true order


class FlatIndex:
    """All vectors, compared one by one: no neighbour is missed."""

    def __init__(self, index: Any) -> None:
        self._index = index
        self._searched = _on_gpus(index)

    @classmethod
    def of(cls, vectors: Floats) -> FlatIndex:
        """vectors: (n, dim) float32; n may be 0."""
        faiss = _faiss()
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        return cls(index)

    @classmethod
    def read(cls, path: Path) -> FlatIndex:
        """Maps the file, so opening a large index costs nothing. RuntimeError if it cannot be read."""
        faiss = _faiss()
        return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC))

    def to_bytes(self) -> bytes:
        """What `read` reads."""
        serialized: npt.NDArray[np.uint8] = _faiss().serialize_index(self._index)
        return serialized.tobytes()

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, query: Floats, k: int) -> list[tuple[float, int]]:
        """The k best (score, row), best first, equal scores by row; fewer if there are fewer rows.

        query: (dim,) float32. FAISS finds the candidates; how its float32 sums are rounded is its own affair,
        so the few candidates are scored again in float64: equal vectors get equal scores.
        """
        rows = self._candidates(np.ascontiguousarray(query, dtype=np.float32)[None], min(k, len(self)))
        vectors = self._index.reconstruct_batch(rows).astype(np.float64)
        scores = (vectors * query.astype(np.float64)).sum(axis=1)
        best = np.lexsort((rows, -scores))[:k]
        return [(float(scores[i]), int(rows[i])) for i in best]

    def _candidates(self, query: Floats, k: int) -> npt.NDArray[np.int64]:
        """Rows of the k best and of all that tie with the k-th."""
        asked = k
        while True:
            asked = min(max(2 * asked, k + 16), len(self))
            if asked == 0:
                return np.empty(0, dtype=np.int64)
            scores, rows = self._searched.search(query, asked)
            tie = scores[0, k - 1] - _ROUNDING * max(1.0, abs(float(scores[0, k - 1])))
            if asked == len(self) or scores[0, -1] < tie:
                return np.asarray(rows[0][scores[0] >= tie], dtype=np.int64)


def flat_file(vectors: Floats) -> bytes:
    """(n, dim) float32 as a file that `faiss.read_index` reads: a flat index of inner products, ids 0 to n - 1."""
    faiss = _faiss()
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    serialized: npt.NDArray[np.uint8] = faiss.serialize_index(index)
    return serialized.tobytes()


def _faiss() -> Any:
    """The faiss module. Raises FaissConflictError where two packages have overwritten each other's files."""
    installed = [name for name in ("faiss-cpu", "faiss-gpu-cu12") if _is_installed(name)]
    if len(installed) > 1:
        raise FaissConflictError(installed)
    import faiss

    return faiss


def _is_installed(package: str) -> bool:
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _on_gpus(index: Any) -> Any:
    """The same index on all GPUs that FAISS sees, or itself where there are none (faiss-cpu never sees any)."""
    faiss = _faiss()
    return faiss.index_cpu_to_all_gpus(index) if faiss.get_num_gpus() > 0 else index
