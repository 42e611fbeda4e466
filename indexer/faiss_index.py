"""Nearest vectors, by comparing all of them, or with an IVF index.

Both classes find candidates by float32 inner products, which the caller rescores, see `scores_of`. The only file that
imports faiss, lazily.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from steersearch.indexer.checksums import CheckedArray

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

_ROUNDING = 1e-5  # float32 scores closer than this may be in the wrong order
_SCORED_AT_ONCE = 1 << 14  # rows
_TRAINED_ON = 40  # vectors per cell for k-means
_ROUNDS = 6  # of k-means
_COMPONENTS = 14_000  # dimension × nprobe, so that a search takes the same time for every dimension
_LEAST_NPROBE = 18
_PROBED_CELLS = 8  # otherwise at most one cell in 8
_PROBED_SHARE = 20  # a search returns at most 1 in 20 of the vectors in the cells that it probes
_SEED = 1234
_GPU_MOST = 2048  # neighbours that FAISS finds on a GPU
_RESCORED = 4  # candidates per hit of an IVF search, which are scored exactly


class FlatIndex:
    """Exact search. vectors: (n, dim) float32, finite, in memory or in a file."""

    def __init__(self, vectors: Floats | CheckedArray) -> None:
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def all(self) -> Floats:
        """The vectors in memory."""
        return self.vectors.values if isinstance(self.vectors, CheckedArray) else self.vectors

    def scores(self, query: Floats) -> Floats:
        """The inner product of every vector with `query`, (dim,) -> (n,) float32.

        A matrix product takes half the time of FAISS's flat index on two cores, as that uses one thread per query.
        """
        if len(self) == 0:
            return np.empty(0, dtype=np.float32)
        scores: Floats = self.all @ np.ascontiguousarray(query, dtype=np.float32)
        return scores


class IVFIndex:
    """An IVF index with 8-bit scalar quantisation (FAISS: IVF, SQ8).

    The quantised scores only select candidates.  nlist: number of cells;  nprobe: number of cells searched.
    """

    def __init__(self, index: Any) -> None:
        self._index = index
        self.nprobe = max(choose_nprobe(index.nlist, index.d), int(index.nprobe))
        self._centres: Floats = index.quantizer.reconstruct_n(0, index.nlist)

    @classmethod
    def of(cls, vectors: Floats) -> IVFIndex:
        """vectors: (n, dim) float32, n at least 1; deterministic."""
        faiss = _faiss()
        count, dim = vectors.shape
        nlist = choose_nlist(count)
        index = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(dim),
            dim,
            nlist,
            faiss.ScalarQuantizer.QT_8bit_uniform,  # a fifth faster than with a range per component
            faiss.METRIC_INNER_PRODUCT,
        )
        index.cp.niter = _ROUNDS
        chosen = np.random.default_rng(_SEED).choice(count, min(count, _TRAINED_ON * nlist), replace=False)
        index.train(np.ascontiguousarray(vectors[np.sort(chosen)]))
        _add(index, vectors)
        return cls(index)

    @classmethod
    def in_cells_of(cls, path: Path, vectors: Floats) -> IVFIndex:
        """`vectors`, (n, dim) float32, in the cells of an index in a file of `write`.

        Raises RuntimeError if it cannot be read, ValueError for vectors of another length.
        """
        index = _faiss().read_index(str(path))
        if index.d != vectors.shape[1]:
            raise ValueError(f"an index of vectors of length {index.d}, not {vectors.shape[1]}")
        index.reset()
        _add(index, vectors)
        return cls(index)

    @classmethod
    def read(cls, path: Path) -> IVFIndex:
        """Memory-map a file of `write`. Raises RuntimeError if it cannot be read."""
        faiss = _faiss()
        return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC))

    def write(self, file: IO[bytes]) -> None:
        """Write a file for `read`."""
        faiss = _faiss()
        self._index.nprobe = self.nprobe
        faiss.write_index(self._index, faiss.PyCallbackIOWriter(file.write))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def nlist(self) -> int:
        return int(self._index.nlist)

    def reaches(self, k: int) -> bool:
        """Whether the probed cells contain enough vectors to choose k of them."""
        return k * _PROBED_SHARE <= self.nprobe * len(self) // self.nlist

    def candidates(self, query: Floats, count: int, allowed: npt.NDArray[np.bool_] | None = None) -> Rows:
        """At most `count` rows near `query`, (dim,) float32, of those that are `allowed` ((n,); None: all)."""
        if allowed is None and count <= _GPU_MOST and self._on_gpus is not None:
            rows = self._on_gpus.search(_as_batch(query), count)[1][0]
        elif allowed is None:
            near, nearness = self._nearest_cells(query)
            self._index.nprobe = len(near)
            rows = self._index.search_preassigned(_as_batch(query), count, near[None], nearness[None])[1][0]
        else:
            faiss = _faiss()
            selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
            options = faiss.SearchParametersIVF(nprobe=self.nprobe, sel=selector)
            rows = self._index.search(_as_batch(query), count, params=options)[1][0]
        found_rows: Rows = rows[rows >= 0]
        return found_rows

    @cached_property
    def _on_gpus(self) -> Any:
        """A copy on all GPUs; None where there are none, or FAISS was not built for them."""
        faiss = _faiss()
        if faiss.get_num_gpus() == 0:
            return None
        copied = faiss.index_cpu_to_all_gpus(self._index)
        faiss.GpuParameterSpace().set_index_parameter(copied, "nprobe", self.nprobe)
        return copied

    def _nearest_cells(self, query: Floats) -> tuple[Rows, Floats]:
        """The `nprobe` nearest cells, and the inner products of their centroids with the query."""
        nearness = products(self._centres, query)
        chosen = np.argpartition(-nearness, self.nprobe - 1)[: self.nprobe]
        return chosen, nearness[chosen]


def _add(index: Any, vectors: Floats) -> None:
    for start in range(0, len(vectors), 1 << 16):
        index.add(np.ascontiguousarray(vectors[start : start + (1 << 16)]))


def num_candidates(k: int) -> int:
    """How many candidates a search for k photos takes, which are then scored exactly."""
    return _RESCORED * k + 16


def products(vectors: Floats, query: Floats) -> Floats:
    """The inner product of each of some thousand vectors, (n, dim) float32 in memory, with `query` -> (n,) float32.

    On one thread: `vectors @ query` starts others, and waits 15 ms for them if the cores are busy.
    """
    found: Floats = np.vecdot(vectors, np.ascontiguousarray(query, dtype=np.float32))
    return found


def choose_nprobe(nlist: int, dim: int) -> int:
    """nprobe for an index of `nlist` cells and vectors of length `dim`."""
    return min(nlist, max(_LEAST_NPROBE, min(_COMPONENTS // dim, nlist // _PROBED_CELLS)))


def choose_nlist(count: int) -> int:
    """nlist for `count` vectors: the power of two below 3·√count, so that a cell has about √count / 2 of them."""
    return min(count, 1 << int(np.log2(3 * count**0.5)))


def best_rows(scores: Floats, k: int) -> Rows:
    """The rows of the k largest of (n,) float32 scores and of all that tie with the k-th, sorted."""
    k = min(k, len(scores))
    if k == 0:
        return np.empty(0, dtype=np.int64)
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    return np.flatnonzero(scores >= tied_from(float(kth)))


def scores_of(vectors: Floats | CheckedArray, rows: Rows, query: Floats) -> Doubles:
    """The inner products of these rows of `vectors` with `query`, in float64: equal vectors, equal scores."""
    wide = query.astype(np.float64)
    parts = [
        (vectors[rows[start : start + _SCORED_AT_ONCE]].astype(np.float64) * wide).sum(axis=1)
        for start in range(0, len(rows), _SCORED_AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.empty(0)


def tied_from(kth: float) -> float:
    """The smallest float32 score whose exact value may equal this one's."""
    return kth - _ROUNDING * max(1.0, abs(kth))


def _as_batch(query: Floats) -> Floats:
    return np.ascontiguousarray(query, dtype=np.float32)[None]


def write_flat(file: IO[bytes], dim: int, parts: Iterable[Floats]) -> None:
    """(m, dim) float32 vectors as a file that `faiss.read_index` reads: a flat index of inner products, ids from 0."""
    faiss = _faiss()
    index = faiss.IndexFlatIP(dim)
    for vectors in parts:
        index.add(vectors)
    faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))


def _faiss() -> Any:
    """FAISS, imported late and without its annotations, which are incomplete."""
    import faiss

    return faiss
