"""What the frozen trunk says of a photo, made small enough to keep for every photo: a vector per region.

No prompt changes it, so a focus that nobody has indexed can be looked for in it. The patch tokens of a photo are
grouped into a few regions of patches that look alike; a region's vector is the mean of its patches, in 8 bits.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from steersearch.core.vectors import Floats, as_hashed
from steersearch.indexer.manifest import PromptIndex

NUMBERS = 8192  # per photo, of 8 bits: regions × their length; all of the mini's 64 patches
_ROUNDS = 6  # of k-means; later ones move almost nothing


@dataclass(frozen=True, kw_only=True)
class FrozenIndex:
    """Library × model: what the frozen trunk says of each photo, whatever the prompts. Fields as in PromptIndex."""

    key: str
    weights_hash: str
    preprocessing: dict[str, Any] = field(hash=False)
    dim: int

    @classmethod
    def beside(cls, index: PromptIndex) -> FrozenIndex:
        """The one that belongs to the model and the preprocessing of a prompt index."""
        identity = json.dumps([index.weights_hash, as_hashed(index.preprocessing)], sort_keys=True)
        key = hashlib.sha256(identity.encode()).hexdigest()[:12]
        return cls(key=key, weights_hash=index.weights_hash, preprocessing=index.preprocessing, dim=index.dim)


@dataclass(frozen=True)
class Regions:
    """A photo in regions. vectors: (R, dim) float32; patches: (Hp, Wp) uint8, the region each patch belongs to."""

    vectors: Floats
    patches: npt.NDArray[np.uint8]


def regions_of(patches: Floats, count: int | None = None) -> Regions:
    """Patch tokens (Hp, Wp, dim) as at most `count` regions: k-means, begun evenly spread over the picture.

    count: at most 256; None: as many as NUMBERS allows, but 8 at least.
    Regions that end up without a patch are left out; where there are no more patches than regions, each is one.
    """
    tokens = patches.reshape(-1, patches.shape[-1])
    count = count or min(256, max(8, NUMBERS // tokens.shape[1]))
    if len(tokens) <= count:
        return Regions(tokens, np.arange(len(tokens), dtype=np.uint8).reshape(patches.shape[:2]))
    centres = tokens[np.linspace(0, len(tokens) - 1, count).round().astype(int)]
    for _ in range(_ROUNDS):
        nearest = (tokens @ centres.T - (centres**2).sum(axis=1) / 2).argmax(axis=1)
        used, nearest = np.unique(nearest, return_inverse=True)
        members = (nearest == np.arange(len(used))[:, None]).astype(np.float32)  # (R, N)
        centres = members @ tokens / members.sum(axis=1, keepdims=True)
    return Regions(centres, nearest.astype(np.uint8).reshape(patches.shape[:2]))


def pack_regions(regions: Regions) -> bytes:
    """Hp, Wp, R and dim as uint16; the patches' regions; per region a float16 scale and dim int8: scale · int8."""
    scales = np.maximum(np.abs(regions.vectors).max(axis=1, keepdims=True) / 127, 1e-4).astype("<f2")
    values = np.clip(np.rint(regions.vectors / scales), -127, 127).astype(np.int8)
    shape = np.array([*regions.patches.shape, *regions.vectors.shape], dtype="<u2")
    return b"".join(part.tobytes() for part in (shape, regions.patches, scales, values))


def unpack_regions(packed: bytes) -> Regions:
    """Inverse of `pack_regions` but for rounding."""
    height, width, count, dim = (int(n) for n in np.frombuffer(packed, dtype="<u2", count=4))
    end = 8 + height * width
    patches = np.frombuffer(packed, dtype=np.uint8, count=height * width, offset=8).reshape(height, width)
    scales = np.frombuffer(packed, dtype="<f2", count=count, offset=end).astype(np.float32)
    values = np.frombuffer(packed, dtype=np.int8, offset=end + 2 * count).reshape(count, dim)
    return Regions(values * scales[:, None], patches)


def unpacks(packed: bytes) -> bool:
    """Whether these bytes are the regions of a photo."""
    try:
        regions = unpack_regions(packed)
    except ValueError:
        return False
    patches = regions.patches
    return (
        bool(np.isfinite(regions.vectors).all())
        and patches.size > 0
        and int(patches.max()) < len(regions.vectors)
    )
