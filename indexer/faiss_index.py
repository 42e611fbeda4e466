"""Nearest vectors, by comparing all of them, or with an IVF index.

Both classes find candidates by float32 inner products, which the caller rescores, see `scores_of`. The only file that
imports faiss, lazily.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from steersearch.core.errors import SteerSearchError
from steersearch.indexer.checksums import CheckedArray

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

_ROUNDING = 1e-5  # two float32 scores closer than this may be in either order, whatever their true order
_SCORED_AT_ONCE = 1 << 14  # rows
_GPU_MOST = 2048  # neighbours that FAISS finds on a GPU
_TRAINED_ON = 40  # vectors per cell from which the cells are learned
_ROUNDS = 6  # of learning
_COMPONENTS = 14_000  # dimension times cells that a search looks into: the same time for every dimension
_LEAST_PROBES = 18
_PROBED_CELLS = 8  # otherwise at most one cell in 8
_PROBED_SHARE = 20  # a search returns at most 1 in 20 of the vectors in the cells that it probes
_SEED = 1234


class FlatIndex:
    """All vectors are compared: no neighbour is missed. vectors: (n, dim) float32, finite, in memory or in a file."""

    def __init__(self, vectors: Floats | CheckedArray) -> None:
        self.vectors = vectors
        self._on_gpus = _OnGpus(self._gpu_index)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def all(self) -> Floats:
        """The vectors in memory."""
        return self.vectors.values if isinstance(self.vectors, CheckedArray) else self.vectors

    def scores(self, query: Floats) -> Floats:
        """The inner product of every vector with `query`, (dim,) -> (n,) float32.

        One matrix product: on two cores in half the time of FAISS's own flat index, which takes one thread a query.
        """
        if len(self) == 0:
            return np.empty(0, dtype=np.float32)
        scores: Floats = self.all @ np.ascontiguousarray(query, dtype=np.float32)
        return scores

    def candidates_on_gpus(self, query: Floats, k: int) -> Rows | None:
        """The rows of the k best and of all that tie with the k-th, found on the GPUs.

        None where there are none, at the first search (whoever asks once is done before the vectors are there), and
        for more neighbours than FAISS gives.
        """
        k = min(k, len(self))
        asked = min(2 * k + 16, len(self))
        while 0 < asked <= _GPU_MOST:
            found = self._on_gpus.search(query, asked)
            if found is None:
                return None
            scores, rows = found
            tie = _tied_from(float(scores[k - 1]))
            if asked == len(self) or scores[-1] < tie:
                return rows[scores >= tie]
            asked = min(2 * asked, len(self))
        return None

    def _gpu_index(self, faiss: Any) -> Any:
        index = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(self.vectors.shape[1]))
        index.add(self.all)
        return index


class CellIndex:
    """An IVF index with 8-bit scalar quantisation (FAISS: IVF, SQ8).

    The quantised scores only select candidates.
    probes: nprobe, the number of cells that a search looks into.  cells: nlist.
    """

    def __init__(self, index: Any) -> None:
        self._index = index
        self.probes = num_probes(index.nlist, index.d)
        self._centres: Floats = index.quantizer.reconstruct_n(0, index.nlist)
        self._on_gpus = _OnGpus(lambda faiss: _with_probes(faiss.index_cpu_to_all_gpus(index), self.probes))

    @classmethod
    def of(cls, vectors: Floats) -> CellIndex:
        """vectors: (n, dim) float32, n at least 1; the same vectors give the same cells."""
        faiss = _faiss()
        count, dim = vectors.shape
        cells = num_cells(count)
        index = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(dim),
            dim,
            cells,
            faiss.ScalarQuantizer.QT_8bit_uniform,  # a fifth faster to look through than with a range per component
            faiss.METRIC_INNER_PRODUCT,
        )
        index.cp.niter = _ROUNDS
        chosen = np.random.default_rng(_SEED).choice(count, min(count, _TRAINED_ON * cells), replace=False)
        index.train(np.ascontiguousarray(vectors[np.sort(chosen)]))
        for start in range(0, count, 1 << 16):
            index.add(np.ascontiguousarray(vectors[start : start + (1 << 16)]))
        return cls(index)

    @classmethod
    def read(cls, path: Path) -> CellIndex:
        """Maps the file, so opening a large index costs nothing. RuntimeError if it cannot be read."""
        faiss = _faiss()
        return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC))

    def write(self, file: IO[bytes]) -> None:
        """What `read` reads."""
        faiss = _faiss()
        faiss.write_index(self._index, faiss.PyCallbackIOWriter(file.write))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def cells(self) -> int:
        return int(self._index.nlist)

    def reaches(self, k: int) -> bool:
        """Whether the cells that a search looks into hold enough vectors to choose k of them."""
        return k * _PROBED_SHARE <= self.probes * len(self) // self.cells

    def candidates(self, query: Floats, count: int, allowed: npt.NDArray[np.bool_] | None = None) -> Rows:
        """At most `count` rows near `query`, (dim,) float32, of those that are `allowed` ((n,); None: all)."""
        if allowed is None and count <= _GPU_MOST:
            found = self._on_gpus.search(query, count)
            if found is not None:
                return found[1][found[1] >= 0]
        if allowed is None:
            near, nearness = self._nearest_cells(query)
            self._index.nprobe = len(near)
            rows = self._index.search_preassigned(_as_batch(query), count, near[None], nearness[None])[1][0]
        else:
            faiss = _faiss()
            selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
            options = faiss.SearchParametersIVF(nprobe=self.probes, sel=selector)
            rows = self._index.search(_as_batch(query), count, params=options)[1][0]
        found_rows: Rows = rows[rows >= 0]
        return found_rows

    def _nearest_cells(self, query: Floats) -> tuple[Rows, Floats]:
        """The cells to look into and their products with the query."""
        nearness = products(self._centres, query)
        chosen = np.argpartition(-nearness, self.probes - 1)[: self.probes]
        return chosen, nearness[chosen]


def products(vectors: Floats, query: Floats) -> Floats:
    """The inner product of each of some thousand vectors, (n, dim) float32 in memory, with `query` -> (n,) float32.

    Row by row and so on one thread: `vectors @ query` wakes others, and waits 15 ms for them where cores are busy.
    """
    found: Floats = np.vecdot(vectors, np.ascontiguousarray(query, dtype=np.float32))
    return found


def num_probes(cells: int, dim: int) -> int:
    """How many of `cells` a search looks into, for vectors of `dim` numbers."""
    return min(cells, max(_LEAST_PROBES, min(_COMPONENTS // dim, cells // _PROBED_CELLS)))


def num_cells(count: int) -> int:
    """Cells for `count` vectors: the power of two below 3·√count, so that a cell holds some √count / 2 of them."""
    return min(count, 1 << int(np.log2(3 * count**0.5)))


def best_rows(scores: Floats, k: int) -> Rows:
    """The rows of the k largest of (n,) float32 scores and of all that tie with the k-th, sorted."""
    k = min(k, len(scores))
    if k == 0:
        return np.empty(0, dtype=np.int64)
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    return np.flatnonzero(scores >= _tied_from(float(kth)))


def scores_of(vectors: Floats | CheckedArray, rows: Rows, query: Floats) -> Doubles:
    """The inner products of these rows of `vectors` with `query`, in float64: equal vectors, equal scores."""
    wide = query.astype(np.float64)
    parts = [
        (vectors[rows[start : start + _SCORED_AT_ONCE]].astype(np.float64) * wide).sum(axis=1)
        for start in range(0, len(rows), _SCORED_AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.empty(0)


def _tied_from(kth: float) -> float:
    """The least float32 score that may in truth be as high as this one."""
    return kth - _ROUNDING * max(1.0, abs(kth))


class _OnGpus:
    """An index on all GPUs that FAISS sees, put there at the second search; faiss-cpu never sees any."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make
        self._index: Any = None
        self._searches = 0
        self._lock = threading.Lock()  # an index on a GPU takes one search at a time

    def search(self, query: Floats, count: int) -> tuple[Floats, Rows] | None:
        """Scores and rows of the `count` nearest to (dim,) float32, best first; None without GPUs, or at first."""
        with self._lock:
            self._searches += 1
            if self._searches == 1 or _faiss().get_num_gpus() == 0:
                return None
            if self._index is None:
                self._index = self._make(_faiss())
            scores, rows = self._index.search(_as_batch(query), count)
            return scores[0], rows[0]


def _with_probes(index: Any, probes: int) -> Any:
    _faiss().GpuParameterSpace().set_index_parameter(index, "nprobe", probes)
    return index


def _as_batch(query: Floats) -> Floats:
    return np.ascontiguousarray(query, dtype=np.float32)[None]


def flat_file(vectors: Floats) -> bytes:
    """(n, dim) float32 as a file that `faiss.read_index` reads: a flat index of inner products, ids 0 to n - 1."""
    faiss = _faiss()
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    serialized: npt.NDArray[np.uint8] = faiss.serialize_index(index)
    return serialized.tobytes()


@cache
def _faiss() -> Any:
    """The faiss module. Raises SteerSearchError where two packages have overwritten each other's files."""
    installed = [name for name in ("faiss-cpu", "faiss-gpu-cu12") if _is_installed(name)]
    if len(installed) > 1:
        both = " ".join(installed)
        raise SteerSearchError(
            f"{' and '.join(installed)} are both installed and share their files; for the GPU: pip uninstall -y "
            f"{both} && pip install faiss-gpu-cu12; without: the same with faiss-cpu"
        )
    import faiss

    return faiss


def _is_installed(package: str) -> bool:
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return False
    return True
