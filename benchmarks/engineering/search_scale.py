"""Search in large galleries: latency and recall of our indexes, FAISS and LanceDB on clustered vectors.

python -m steersearch.benchmarks.engineering.search_scale --count 1000000 --dim 768 --save

The vectors are generated: clusters of heavy-tailed sizes, whose spread lies in a few directions of falling strength
with a little noise in all, as in embeddings of photos. White noise would make every index look bad, and so would
clusters of fewer than ten vectors. Queries are further draws of the same clusters. Each method runs in a fresh process,
which maps the vectors from a file; its figures are
  build_seconds, bytes (of its files beside the vectors), peak_mib (of its process)
  p50_ms, p99_ms, recall (share of the true ten nearest), queries (fewer for slow methods, see QUERY_SECONDS)
  p50_processor_ms (all threads; other work on the machine changes it least)
  by_probes (ours): the same for several nprobe
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from steersearch.benchmarks.engineering.fresh_process import call_fresh, peak_memory
from steersearch.benchmarks.harness.record import Record, run_script
from steersearch.indexer import snapshot as snapshots
from steersearch.indexer.faiss_index import FlatIndex, IVFIndex
from steersearch.indexer.hits import Method
from steersearch.indexer.ranking import rank
from steersearch.indexer.snapshot import SAMPLE, Snapshot

Floats = npt.NDArray[np.float32]

K = 10
QUERIES = 200
QUERY_SECONDS = 40.0  # per method at most, but at least LEAST_QUERIES queries
LEAST_QUERIES = 20
HNSW_SECONDS = 600.0  # longer builds are skipped
PROBES_TRIED = (8, 16, 18, 20, 24, 32, 36, 64)
_CLUSTERS, _DIRECTIONS = 2000, 64
_SEED = 20261125
_CHUNK = 50_000
_VECTORS, _TRUTH, _ASKED = "vectors.npy", "truth.npy", "queries.npy"


def generate(folder: Path, count: int, dim: int) -> None:
    """Write the gallery (count, dim) float32, unit length, the queries, and the rows of their true K nearest."""
    rng = np.random.default_rng(_SEED)
    clusters = _Clusters(rng, count, dim)
    vectors = np.lib.format.open_memmap(folder / _VECTORS, "w+", np.float32, (count, dim))
    for start in range(0, count, _CHUNK):
        end = min(start + _CHUNK, count)
        vectors[start:end] = clusters.draw(end - start)
    asked = clusters.draw(QUERIES)
    np.save(folder / _ASKED, asked)
    np.save(folder / _TRUTH, nearest(vectors, asked))


def nearest(vectors: Floats, queries: Floats) -> npt.NDArray[np.int64]:
    """The rows of the K nearest, (queries, K): float32 products choose twice as many, float64 ones rank them."""
    kept_scores: Floats = np.empty((len(queries), 0), np.float32)
    kept: npt.NDArray[np.int64] = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(vectors), _CHUNK):
        scores = queries @ vectors[start : start + _CHUNK].T
        rows = np.broadcast_to(np.arange(start, start + scores.shape[1]), scores.shape)
        kept_scores, kept = np.hstack([kept_scores, scores]), np.hstack([kept, rows])
        best = np.argpartition(-kept_scores, min(2 * K, kept.shape[1] - 1), axis=1)[:, : 2 * K]
        kept_scores = np.take_along_axis(kept_scores, best, axis=1)
        kept = np.take_along_axis(kept, best, axis=1)
    exact = np.einsum("qkd,qd->qk", vectors[kept].astype(np.float64), queries.astype(np.float64))
    return np.take_along_axis(kept, np.argsort(-exact, axis=1)[:, :K], axis=1)


class _Clusters:
    """A mixture to draw unit vectors from."""

    def __init__(self, rng: np.random.Generator, count: int, dim: int) -> None:
        self._rng = rng
        clusters = min(_CLUSTERS, count // 100)
        self._shares = rng.pareto(1.2, clusters) + 1
        self._shares /= self._shares.sum()
        self._centres = self._unit(rng.standard_normal((clusters, dim), dtype=np.float32))
        # Length of a typical deviation.
        self._spreads = rng.lognormal(-0.5, 0.35, clusters).astype(np.float32)
        strengths = np.arange(1, _DIRECTIONS + 1) ** -0.5
        strengths /= np.sqrt((strengths**2).sum())
        directions = self._unit(rng.standard_normal((_DIRECTIONS, dim), dtype=np.float32))
        self._directions = (strengths[:, None] * directions).astype(np.float32)

    def draw(self, count: int) -> Floats:
        chosen = self._rng.choice(len(self._shares), count, p=self._shares)
        dim = self._centres.shape[1]
        deviations = self._rng.standard_normal((count, _DIRECTIONS), dtype=np.float32) @ self._directions
        deviations += self._rng.standard_normal((count, dim), dtype=np.float32) * np.float32(0.3 / dim**0.5)
        return self._unit(self._centres[chosen] + self._spreads[chosen, None] * deviations)

    @staticmethod
    def _unit(vectors: Floats) -> Floats:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


# ------------------------------------------------------------------------------------------------ the methods


def ours_exact(folder: str) -> dict[str, Any]:
    """Exact search with the mean and spread of all scores, as in `query --exact`."""
    gallery = _gallery(Path(folder), None)
    return _measured(Path(folder), lambda query: rank([gallery], [query], [1.0], K, exact=True).rows)


def ours_cells(folder: str) -> dict[str, Any]:
    """Our IVF index at any size: candidates scored exactly, mean and spread of scores from a sample."""
    snapshots.APPROXIMATE_FROM = 1
    vectors = _vectors(Path(folder))
    file = Path(folder) / "cells.faiss"
    built = _seconds(lambda: _write(file, IVFIndex.of(vectors)))
    gallery = _gallery(Path(folder), IVFIndex.read(file))

    def nearest_rows(query: Floats) -> npt.NDArray[np.int64]:
        ranking = rank([gallery], [query], [1.0], K)
        assert ranking.method is Method.ivf
        return ranking.rows

    assert gallery.ivf is not None
    about = {"cells": gallery.ivf.nlist, "probes": gallery.ivf.nprobe}
    measured = _measured(Path(folder), nearest_rows)
    curve = {}
    for probes in PROBES_TRIED:
        gallery.ivf.nprobe = probes
        curve[str(probes)] = _measured(Path(folder), nearest_rows)
    return {**measured, **about, "by_probes": curve, "build_seconds": built, "bytes": file.stat().st_size}


def faiss_flat(folder: str) -> dict[str, Any]:
    """FAISS's own exact index, in memory."""
    import faiss

    vectors = _vectors(Path(folder))
    index = faiss.IndexFlatIP(vectors.shape[1])
    built = _seconds(lambda: index.add(vectors))
    return {
        **_measured(Path(folder), lambda query: index.search(query[None], K)[1][0]),
        "build_seconds": built,
    }


def faiss_hnsw(folder: str) -> dict[str, Any]:
    """FAISS's HNSW, 32 links, in memory; efSearch 128. Only the build rate, if a build would take too long."""
    import faiss

    vectors = _vectors(Path(folder))
    index = faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    first = min(len(vectors), 20_000)
    tried = _seconds(lambda: index.add(vectors[:first]))
    # a lower bound: each further vector costs a little more than the one before
    expected = tried * len(vectors) / first
    if expected > HNSW_SECONDS:
        return {"built_per_second": round(first / tried, 1), "expected_build_seconds": round(expected)}
    built = tried + _seconds(lambda: index.add(vectors[first:]))
    index.hnsw.efSearch = 128
    return {
        **_measured(Path(folder), lambda query: index.search(query[None], K)[1][0]),
        "build_seconds": built,
        "bytes": len(vectors) * (4 * vectors.shape[1] + 4 * 64),
    }


def lancedb_flat(folder: str) -> dict[str, Any]:
    """LanceDB without an index; writes the table that `lancedb_cells` uses."""
    import lancedb

    vectors = _vectors(Path(folder))
    schema = pa.schema([("row", pa.int64()), ("vector", pa.list_(pa.float32(), vectors.shape[1]))])

    def batches() -> Any:
        for start in range(0, len(vectors), _CHUNK):
            part = vectors[start : start + _CHUNK]
            column = pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), part.shape[1])
            rows = pa.array(np.arange(start, start + len(part)))
            yield pa.RecordBatch.from_arrays([rows, column], schema=schema)

    database = lancedb.connect(str(Path(folder) / "lance"))
    built = _seconds(lambda: database.create_table("photos", batches(), schema=schema))
    table = database.open_table("photos")

    def nearest_rows(query: Floats) -> npt.NDArray[np.int64]:
        asked = table.search(query).distance_type("cosine").select(["row"]).limit(K)
        rows: npt.NDArray[np.int64] = asked.to_arrow()["row"].to_numpy()
        return rows

    return {
        **_measured(Path(folder), nearest_rows),
        "build_seconds": built,
        "bytes": _bytes_below(Path(folder) / "lance"),
    }


def lancedb_cells(folder: str) -> dict[str, Any]:
    """LanceDB's IVF_SQ, nprobes 20, refine factor 10; needs the table of `lancedb_flat`."""
    import lancedb
    from lancedb.index import IvfSq

    place = Path(folder) / "lance"
    table = lancedb.connect(str(place)).open_table("photos")
    before = _bytes_below(place)
    built = _seconds(lambda: table.create_index("vector", config=IvfSq(distance_type="cosine")))

    def nearest_rows(query: Floats) -> npt.NDArray[np.int64]:
        asked = table.search(query).distance_type("cosine").nprobes(20).refine_factor(10)
        rows: npt.NDArray[np.int64] = asked.select(["row"]).limit(K).to_arrow()["row"].to_numpy()
        return rows

    measured = _measured(Path(folder), nearest_rows)
    return {**measured, "build_seconds": built, "bytes": _bytes_below(place) - before}


METHODS: dict[str, Callable[[str], dict[str, Any]]] = {
    "ours_exact": ours_exact,
    "ours_cells": ours_cells,
    "faiss_flat": faiss_flat,
    "faiss_hnsw": faiss_hnsw,
    "lancedb_flat": lancedb_flat,
    "lancedb_cells": lancedb_cells,
}


def _measured(folder: Path, search: Callable[[Floats], npt.NDArray[np.int64]]) -> dict[str, Any]:
    """Latency, one query at a time, and recall of a search that gives the rows of K neighbours."""
    queries, truth = np.load(folder / _ASKED), np.load(folder / _TRUTH)
    search(queries[0])  # warm up
    seconds: list[float] = []
    processor: list[float] = []
    found = []
    for query in queries:
        began, used = time.perf_counter(), time.process_time()
        found.append(search(query))
        seconds.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
        if sum(seconds) > QUERY_SECONDS and len(seconds) >= LEAST_QUERIES:
            break
    shares = [
        len(set(rows.tolist()) & set(true.tolist())) / K for rows, true in zip(found, truth, strict=False)
    ]
    p50, p99 = np.percentile(np.array(seconds) * 1000, [50, 99])
    return {
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
        "p50_processor_ms": round(float(np.median(processor)) * 1000, 2),
        "recall": round(float(np.mean(shares)), 4),
        "queries": len(seconds),
        "peak_mib": round(peak_memory() / 2**20),
    }


def _vectors(folder: Path) -> Floats:
    vectors: Floats = np.load(folder / _VECTORS, mmap_mode="r").view(np.ndarray)
    return vectors


def _gallery(folder: Path, ivf: IVFIndex | None) -> Snapshot:
    """The vectors as the snapshot of a prompt index whose paths are row numbers."""
    vectors = _vectors(folder)
    schema = pa.schema([("path", pa.string())], metadata={"steersearch:missing": "0"})
    table = pa.table([[f"{row:08}" for row in range(len(vectors))]], schema=schema)
    chosen = np.random.default_rng(0).choice(len(vectors), min(SAMPLE, len(vectors)), replace=False)
    return Snapshot("", FlatIndex(vectors), table, ivf, vectors[np.sort(chosen)])


def _write(file: Path, ivf: IVFIndex) -> None:
    with file.open("wb") as opened:
        ivf.write(opened)


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return round(time.monotonic() - began, 1)


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Measure the methods at one size, print the record and, with --save, keep it."""
    parser = argparse.ArgumentParser(description="Latency and recall of search in large galleries.")
    parser.add_argument("--count", type=int, default=100_000, help="vectors; default: %(default)s")
    parser.add_argument("--dim", type=int, default=384, help="default: %(default)s")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    run_script(parser, measure)


def measure(count: int, dim: int, methods: Sequence[str]) -> Record:
    """The record of these methods on `count` vectors of `dim` numbers."""
    began = time.monotonic()
    metrics: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        metrics["generate_seconds"] = _seconds(
            lambda: call_fresh(generate_in, folder=folder, count=count, dim=dim)
        )
        metrics["bytes_of_vectors"] = 4 * count * dim
        for name in methods:
            metrics[name] = call_fresh(METHODS[name], folder=folder)
    settings = {
        "count": count,
        "dim": dim,
        "methods": list(methods),
        "k": K,
        "clusters": _CLUSTERS,
        "directions": _DIRECTIONS,
        "seed": _SEED,
    }
    some = [] if methods == list(METHODS) else methods
    name = "/".join(["search-scale", f"{count}x{dim}", *some])
    return Record.make(name, "generated", settings, metrics, time.monotonic() - began, weights_hash=None)


def generate_in(folder: str, count: int, dim: int) -> None:
    """`generate`, for a fresh process."""
    generate(Path(folder), count, dim)


if __name__ == "__main__":
    main()
