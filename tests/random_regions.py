"""Regions of random directions, for tests of the order in which photos are steered."""

import numpy as np

from steersearch.core.vectors import Floats
from steersearch.indexer.regions import RegionArrays


def random_regions(count: int, dim: int) -> tuple[Floats, RegionArrays]:
    """Four directions (count, 4, dim), each of a quarter of its photo, and the arrays that hold them."""
    unit = np.random.default_rng(0).normal(size=(count, 4, dim)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=2, keepdims=True)
    vectors = np.rint(unit * 127).astype(np.int8)
    patches = np.tile(np.arange(4, dtype=np.uint8).reshape(2, 2), (count, 1, 1))
    zeros, whole = np.zeros(dim, np.float32), np.zeros((count, dim), np.float16)
    return unit, RegionArrays(vectors, np.ones(1, np.float32), patches, zeros, whole)
