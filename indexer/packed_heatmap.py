"""A heatmap in a byte per patch, as the tables keep it."""

from __future__ import annotations

import numpy as np

from steersearch.core.vectors import Floats


def pack_heatmap(heatmap: Floats) -> bytes:
    """(Hp, Wp) float32, not negative -> Hp and Wp as uint16, then a byte per value.

    The bytes are 255·√(value / largest): on a linear scale the many faint values of a peaked heatmap would
    all be rounded to 0, and with them half of the mass.
    """
    largest = float(heatmap.max())
    shares = heatmap / largest if largest > 0 else np.zeros_like(heatmap)
    values = np.rint(255 * np.sqrt(shares)).astype(np.uint8)
    return bytes(np.array(heatmap.shape, dtype="<u2").tobytes() + values.tobytes())


def unpack_heatmap(packed: bytes) -> Floats:
    """Inverse of `pack_heatmap` but for rounding: (Hp, Wp) float32 that sums to 1 (or is 0 everywhere)."""
    shape = np.frombuffer(packed, dtype="<u2", count=2)
    values = np.frombuffer(packed, dtype=np.uint8, offset=4).reshape(shape).astype(np.float32) ** 2
    return values / np.float32(max(values.sum(), 1))


def unpacks(packed: bytes) -> bool:
    """Whether these bytes are a heatmap."""
    try:
        return unpack_heatmap(packed).size > 0
    except ValueError:
        return False
