"""Deduplication of hits: those that show the same photo are folded into the best of them; those that show the query
photo are left out."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from steersearch.core.errors import ImageError
from steersearch.core.images.pillow import opened_content
from steersearch.core.preprocess import open_image
from steersearch.core.vectors import Floats
from steersearch.indexer.hits import Hit, Hits
from steersearch.indexer.loader import THUMBNAIL_SIDE
from steersearch.indexer.query_photo import QueryPhoto

# What two pictures may differ by where they differ most, see `dedup.differences`, as thumbnails and as photos.
# Chosen on drawn copies and look-alikes, see benchmarks/LOG.md, 2026-11-29.
PERHAPS, SAME = 0.5, 0.25
SIDE = 512  # pixels at which photos are compared, longer side
_IN_MEMORY = 64  # photos
_MORE = 3  # times as many hits are asked for at first, and again where too many of them are copies
_COPY_COSINE = 0.95  # under every focus: a hit that is less like the query photo is not a copy of it
_OTHERS_IN_A_ROW = 4


def without_query(
    search: Callable[[int], Hits],
    k: int,
    photos: Sequence[QueryPhoto],
    likeness: Callable[[QueryPhoto, Hit], float],
) -> Hits:
    """The k best hits of `search(count)` that are not query photos: neither their files, nor their content, nor copies
    of them. `Searched.left_out` names those that rank before the last hit.

    likeness: the least cosine of a query photo and a hit under a focus. Copies show the same pixels as in `folded`.
    Hits are examined in the order of their likeness until a few in a row are no copies.
    """
    asked = k + len(photos)
    while True:
        hits = search(asked)
        shown: set[Path] = set()
        for photo in photos:
            shown |= {hit.path for hit in hits if hit.image_id == photo.image_id or photo.is_at(hit.path)}
        for photo in photos:
            others = [(likeness(photo, hit), hit) for hit in hits if hit.path not in shown]
            shown |= set(_copies(photo, others))
        kept = [hit for hit in hits if hit.path not in shown][:k]
        if len(kept) == k or len(hits) < asked:
            before = len(hits) if len(kept) < k else kept[-1].rank
            left_out = tuple(hit.path for hit in hits[:before] if hit.path in shown)
            searched = replace(hits.searched, left_out=left_out)
            ranked = (replace(hit, rank=rank, searched=searched) for rank, hit in enumerate(kept, start=1))
            return Hits(ranked, searched, hits.query)
        asked *= _MORE


def _copies(photo: QueryPhoto, hits: Sequence[tuple[float, Hit]]) -> Iterator[Path]:
    """hits: each with its likeness."""
    alike = sorted((-likeness, hit.rank, hit) for likeness, hit in hits if likeness >= _COPY_COSINE)
    others = 0
    queried = cache(lambda: _reduced(photo.picture.image))
    for *_, hit in alike:
        if _is_copy(photo.image_id, queried, hit.path):
            others = 0
            yield hit.path
        else:
            others += 1
            if others == _OTHERS_IN_A_ROW:
                return


_verdicts = OrderedDict[tuple[str, Path, int, int], bool]()  # of query photos and files compared before
_KEPT_VERDICTS = 4096


def _is_copy(image_id: str, queried: Callable[[], Shown], path: Path) -> bool:
    """Whether the file at `path` shows the query photo, which has this content. queried: gives it, reduced."""
    try:
        state = path.stat()
    except OSError:
        return False
    name = image_id, path, state.st_mtime_ns, state.st_size
    if (found := _verdicts.get(name)) is None:
        if (shown := _photo_if_alike(path, queried())) is None:
            return False
        found = _verdicts[name] = is_same(queried(), shown, SIDE, SAME)
        while len(_verdicts) > _KEPT_VERDICTS:
            with suppress(KeyError):  # another thread took the last
                _verdicts.popitem(last=False)
    return found


def folded(
    search: Callable[[int], Hits], k: int, thumbnails: Callable[[Sequence[str]], Mapping[str, bytes]]
) -> Hits:
    """The k best hits of `search(count)` that are not copies of one another; each names what was folded into it.

    Copies are files of the same content, and photos that show the same pixels (see `same_picture`): alike as
    thumbnails, and then as they are read from their files; what cannot be read is not folded.
    thumbnails: contents -> their JPEGs. Copies that rank far behind their photo may be missed: no more hits are
    examined than it takes to find k.
    """
    asked = _MORE * k
    while True:
        hits = search(asked)
        kept = list(_fold(hits, Comparison(thumbnails([hit.image_id for hit in hits]))))
        if len(kept) >= k or len(hits) < asked:
            first = (replace(hit, rank=rank) for rank, hit in enumerate(kept[:k], start=1))
            return Hits(first, hits.searched, hits.query)
        asked *= _MORE


def _fold(hits: Sequence[Hit], comparison: Comparison) -> Iterator[Hit]:
    kept: list[Hit] = []
    copies: list[list[Path]] = []
    for hit in hits:
        number = comparison.first_copy(hit, kept)
        if number is None:
            kept.append(hit)
            copies.append([])
        else:
            copies[number].append(hit.path)
    for hit, paths in zip(kept, copies, strict=True):
        yield replace(hit, copies=tuple(paths))


class PhotoFile(Protocol):
    """A file and the hash of its content, such as a hit."""

    @property
    def path(self) -> Path: ...

    @property
    def image_id(self) -> str: ...


class Comparison:
    """Compares the photos of one search. thumbnails: contents -> their JPEGs, which are decoded again when needed."""

    def __init__(self, thumbnails: Mapping[str, bytes]) -> None:
        self._thumbnails = thumbnails
        self._photo = lru_cache(_IN_MEMORY)(_photo)
        self._small = lru_cache(_IN_MEMORY)(self._decoded)
        self._signatures: dict[str, Floats] = {}
        for image_id in thumbnails:
            small = self._decoded(image_id)
            if small is not None:
                self._signatures[image_id] = small.signature

    def first_copy(self, file: PhotoFile, others: Sequence[PhotoFile]) -> int | None:
        """The number of the first of `others` that shows the same photo as `file`; None if none does."""
        candidates = {number for number, other in enumerate(others) if other.image_id == file.image_id}
        shown = [number for number, other in enumerate(others) if other.image_id in self._signatures]
        if shown and file.image_id in self._signatures:
            signatures = np.stack([self._signatures[others[number].image_id] for number in shown])
            alike = are_alike(self._signatures[file.image_id], signatures)
            candidates.update(np.array(shown)[alike].tolist())
        return next((number for number in sorted(candidates) if self.is_copy(file, others[number])), None)

    def is_copy(self, file: PhotoFile, other: PhotoFile) -> bool:
        """Whether two files show the same photo."""
        if file.image_id == other.image_id:
            return True
        one, two = self._small(file.image_id), self._small(other.image_id)
        if one is None or two is None or not is_same(one, two, THUMBNAIL_SIDE, PERHAPS):
            return False
        one, two = self._photo(file.path), self._photo(other.path)
        return one is not None and two is not None and is_same(one, two, SIDE, SAME)

    def _decoded(self, image_id: str) -> Shown | None:
        """A thumbnail; None if there is none, or it is damaged, which `verify` says."""
        try:
            with opened_content(io.BytesIO(self._thumbnails.get(image_id, b"")), ["JPEG"]) as image:
                return Shown.of(image)
        except (OSError, SyntaxError, ValueError):
            return None


def _photo(path: Path) -> Shown | None:
    """The photo at the size at which it is compared; None if it cannot be read now."""
    try:
        image = open_image(path, at_least=SIDE)
    except ImageError:
        return None
    return _reduced(image)


_signatures: OrderedDict[tuple[Path, int, int], Floats] = OrderedDict()  # of photos that were read before
_KEPT_SIGNATURES = 4096  # of a kilobyte


def _photo_if_alike(path: Path, other: Shown) -> Shown | None:
    """As `_photo`; None too, mostly without reading it, if it is so unlike another that it is not a copy."""
    try:
        state = path.stat()
    except OSError:
        return None
    name = path, state.st_mtime_ns, state.st_size
    signature = _signatures.get(name)
    if signature is not None and _unlike(other.signature, signature).min() >= _UNLIKE:
        return None
    shown = _photo(path)
    if shown is not None:
        _signatures[name] = shown.signature
        while len(_signatures) > _KEPT_SIGNATURES:
            _signatures.popitem(last=False)
    return shown


def _reduced(image: Image.Image) -> Shown:
    """At the size at which photos are compared, in whole pixels: a little more than SIDE."""
    return Shown.of(image.reduce(max(1, max(image.size) // SIDE)))


# ---------------------------------------------------------------------------------------- whether two pictures are one

Offsets = npt.NDArray[np.float64]  # (4,): stretch and shift along x, the same along y, as parts of the side

_SIGNATURE = 16  # pixels, each side
_UNLIKE = 0.5  # difference of signatures from which no closer look is taken
_MOST_OFFSET = 0.15
_LEVELS, _STEPS = (24, 48, 96), 8  # of laying over: longer side in pixels, and steps at each
_BLOCKS = 16  # in which brightness is compared, along the longer side; for colours half as many
_COARSER = 8  # times, the pixels in which colours are compared: JPEG blurs them
# Variance that is never counted: of 6 levels of 255, and where there are hard edges what JPEG makes beside them.
_NOISE, _RINGING = 36.0, 0.02  # the second of the variance of the whole picture
_TURNS = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)


@dataclass(frozen=True)
class Shown:
    """A picture to compare, upright, in YCbCr."""

    image: Image.Image

    @classmethod
    def of(cls, image: Image.Image) -> Shown:
        return cls(image.convert("RGB").convert("YCbCr"))

    @cached_property
    def grey(self) -> Image.Image:
        """At the size at which one is laid over another."""
        size = _scaled(self.image.size, _LEVELS[-1])
        return self.image.getchannel("Y").resize(size, Image.Resampling.BOX)

    @cached_property
    def signature(self) -> Floats:
        """(16, 16): the picture in grey at its coarsest."""
        return _values(self.grey, (_SIGNATURE, _SIGNATURE))


def are_alike(signature: Floats, others: Floats) -> npt.NDArray[np.bool_]:
    """(n,): which of the pictures with these signatures (n, 16, 16) may show the same, turned or not, as one."""
    turned = (np.rot90(signature, quarters) for quarters in range(4))
    found: npt.NDArray[np.bool_] = np.any(
        [_difference(others, each[None]) < _UNLIKE for each in turned], axis=0
    )
    return found


def is_same(one: Shown, other: Shown, side: int, limit: float) -> bool:
    """Whether the pictures, one of them turned or not, differ nowhere by more than `limit`, see `differences`.

    side: how large the longer side is when they are compared, in pixels, unless the smaller picture has less.
    """
    unlike = _unlike(one.signature, other.signature)
    if unlike.min() >= _UNLIKE:
        return False
    turn = _TURNS[int(unlike.argmin())]
    other = other if turn is None else Shown(other.image.transpose(turn))
    if all(most <= limit for most in differences(one, other, np.zeros(4), side)):
        return True
    offsets = lay_over(one.grey, other.grey)
    return bool(offsets.any()) and all(most <= limit for most in differences(one, other, offsets, side))


def _unlike(signature: Floats, other: Floats) -> Floats:
    """(4,): how much two pictures differ at their coarsest, the other one turned by as many quarters."""
    turned = np.stack([np.rot90(other, quarters) for quarters in range(4)])
    return _difference(turned, signature[None])


def differences(one: Shown, other: Shown, offsets: Offsets, side: int) -> Iterator[float]:
    """How much two pictures differ where they differ most, in each of the two colours and in brightness: of all blocks
    the largest mean squared difference / (variance of one + of other + noise).

    About 0 for the same picture, 1 for unlike ones; what only one of them shows is left out.
    """
    side = min(side, max(one.image.size), max(other.image.size))
    colours = max(side // _COARSER, _BLOCKS)
    for channel, length, blocks in (
        ("Cb", colours, _BLOCKS // 2),
        ("Cr", colours, _BLOCKS // 2),
        ("Y", side, _BLOCKS),
    ):
        size = _scaled(one.image.size, length)
        values = _values(one.image.getchannel(channel), size)
        own = _scaled(other.image.size, length) if offsets.any() else size
        laid = _values(other.image.getchannel(channel), own)
        found = _block_differences(values, _laid(laid, offsets, size), max(2, length // blocks))
        seen = found[np.isfinite(found)]
        if len(seen):
            yield float(seen.max())
        elif channel == "Y":
            yield 1.0  # nothing could be compared


def _block_differences(one: Floats, other: Floats, block: int) -> Floats:
    """(n,): of each block of two channels (H, W), see `differences`; blocks lie side by side, and also moved by half of
    one. NaN where `other` is not seen in full."""
    middle = one.mean()
    moments = np.empty((5, *one.shape), dtype=np.float32)
    np.subtract(one, middle, out=moments[0])
    np.subtract(other, middle, out=moments[1])
    np.square(moments[:2], out=moments[2:4])
    np.square(np.subtract(one, other, out=moments[4]), out=moments[4])
    means = _block_sums(_block_sums(moments, block, axis=1), block, axis=2) / block**2
    variances = (means[2:4] - means[:2] ** 2).sum(axis=0).clip(0)
    found: Floats = means[4] / (variances + _NOISE + _RINGING * float(one.var()))
    return found.ravel()


def _block_sums(values: Floats, block: int, axis: int) -> Floats:
    """Sums along an axis over `block` values, from each multiple of it on and from half a block later; what is left at
    the end is left out."""
    size = values.shape[axis]
    edges = sorted([*range(0, size + 1, block), *range(block // 2, size + 1, block)])
    along = np.moveaxis(values, axis, 0)
    halves = np.stack([along[start:end].sum(axis=0) for start, end in pairwise(edges)])
    return np.moveaxis(halves[:-1] + halves[1:], 0, axis)


def lay_over(one: Image.Image, other: Image.Image) -> Offsets:
    """How far `other` has to be stretched and shifted to lie on `one` (both grey; least squares, from coarse to fine);
    0 where that were more than a little, or they are too unlike or too plain to say."""
    offsets = np.zeros(4)
    for side in _LEVELS:
        size = _scaled(one.size, side)
        target, picture = _values(one, size).ravel(), _values(other, _scaled(other.size, side))
        y, x = ((np.indices(size[::-1]) + 0.5) / np.array(size[::-1])[:, None, None]) - 0.5
        for _ in range(_STEPS):
            laid = _laid(picture, offsets, size)
            slope_y, slope_x = np.gradient(laid, 1 / size[1], 1 / size[0])
            known = [slope_x * x, slope_x, slope_y * y, slope_y, laid, np.ones_like(laid)]
            rows = np.stack(known).reshape(6, -1)
            if offsets.any():  # there may be edges that only one of them shows
                rows = np.where(np.isfinite(rows).all(axis=0), rows, 0.0)
            *moves, contrast, _ = np.linalg.solve(rows @ rows.T + 1e-3 * np.eye(6), rows @ target)
            if contrast < 0.2:
                return np.zeros(4)
            step = np.clip(np.array(moves) / contrast, -0.03, 0.03)
            offsets += step
            if np.abs(offsets).max() > _MOST_OFFSET:
                return np.zeros(4)
            if np.abs(step).max() < 0.05 / side:
                break
    return offsets


def _laid(values: Floats, offsets: Offsets, size: tuple[int, int]) -> Floats:
    """(H, W) values, stretched and shifted, as (size[1], size[0]); NaN beyond their edges."""
    height, width = values.shape
    if (width, height) == size and not offsets.any():
        return values
    stretch_x, shift_x, stretch_y, shift_y = offsets
    map_x = ((1 + stretch_x) * width / size[0], 0.0, width * (shift_x - stretch_x / 2))
    map_y = (0.0, (1 + stretch_y) * height / size[1], height * (shift_y - stretch_y / 2))
    laid = Image.fromarray(values).transform(
        size, Image.Transform.AFFINE, (*map_x, *map_y), Image.Resampling.BILINEAR, fillcolor=float("nan")
    )
    return np.asarray(laid)


def _values(channel: Image.Image, size: tuple[int, int]) -> Floats:
    """One channel at this size, (H, W)."""
    smooth = Image.Resampling.BOX if size[0] < channel.width else Image.Resampling.BICUBIC
    return np.asarray(channel.resize(size, smooth), dtype=np.float32)


def _scaled(size: tuple[int, int], side: int) -> tuple[int, int]:
    """A size whose longer side is this."""
    width, height = (max(4, round(length * side / max(size))) for length in size)
    return width, height


def _difference(one: Floats, other: Floats) -> Floats:
    """(n,) of n signatures, see `differences`."""
    squared = ((one - other) ** 2).mean(axis=(1, 2))
    found: Floats = squared / (one.var(axis=(1, 2)) + other.var(axis=(1, 2)) + _NOISE)
    return found
