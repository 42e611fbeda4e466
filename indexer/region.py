"""A region of the query photo: a box, or several, that the user marks instead of naming what is in it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from steersearch.core.errors import ArgumentError, in_digits

Box = tuple[float, float, float, float]  # left, top, right, bottom
MOST_BOXES = 500  # more than runs of patches in any grid of ours
MOST_PARTS = 100  # photos
_NUMBER = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*(%?)\s*")


@dataclass(frozen=True)
class Region:
    """left, top, right, bottom in pixels of the upright photo, or in percent of its width and height.

    Raises ArgumentError for a box without area, or one that begins or ends outside of every photo.
    """

    left: float
    top: float
    right: float
    bottom: float
    in_percent: bool = False

    def __post_init__(self) -> None:
        if not all(math.isfinite(side) and side >= 0 for side in self.box):
            raise self._wrong("its sides must be numbers of at least 0")
        if not (self.left < self.right and self.top < self.bottom):
            raise self._wrong("right must be greater than left, and bottom than top")
        if self.in_percent and max(self.box) > 100:
            raise self._wrong("no side can lie beyond 100%")

    @property
    def boxes(self) -> tuple[Region, ...]:
        return (self,)

    @property
    def box(self) -> Box:
        return self.left, self.top, self.right, self.bottom

    def __str__(self) -> str:
        """As `as_region` reads it."""
        return ",".join(in_digits(side) + "%" * self.in_percent for side in self.box)

    def in_pixels(self, size: tuple[int, int]) -> Box:
        """In pixels of a photo of this (width, height). Raises ArgumentError for a box that does not lie in it."""
        width, height = size
        if self.in_percent:
            x, y = width / 100, height / 100
            return self.left * x, self.top * y, self.right * x, self.bottom * y
        if self.right > width or self.bottom > height:
            raise self._wrong(f"does not lie in the photo, which has {width} × {height} pixels")
        return self.box

    def patches(self, size: tuple[int, int], seen: Box, grid: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """(Hp, Wp): the patches whose centres lie in the region, or the one that is nearest to its centre.

        size: (width, height) of the photo in pixels.  seen: the part of it that `grid` (Hp, Wp) covers, in pixels.
        Raises ArgumentError for a region of which the model sees less than half.
        """
        left, top, right, bottom = self.in_pixels(size)
        inside = (max(left, seen[0]), max(top, seen[1]), min(right, seen[2]), min(bottom, seen[3]))
        area = max(0.0, inside[2] - inside[0]) * max(0.0, inside[3] - inside[1])
        if area < (right - left) * (bottom - top) / 2:
            raise self._wrong('the model sees less than half of it; index with the view "squash"')
        columns, column = _cells(inside[0], inside[2], seen[0], seen[2], grid[1])
        rows, row = _cells(inside[1], inside[3], seen[1], seen[3], grid[0])
        found: npt.NDArray[np.bool_] = rows[:, None] & columns[None]
        if not found.any():
            found[row, column] = True
        return found

    def _wrong(self, reason: str) -> ArgumentError:
        return ArgumentError("region", str(self), reason)


@dataclass(frozen=True)
class Boxes:
    """Several boxes, which may overlap, as one region. Raises ArgumentError for none, or too many."""

    boxes: tuple[Region, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.boxes) <= MOST_BOXES:
            raise ArgumentError("region", str(self)[:80], f"must be 1 to {MOST_BOXES} boxes")

    def __str__(self) -> str:
        """As `as_region` reads it."""
        return ";".join(map(str, self.boxes))

    def patches(self, size: tuple[int, int], seen: Box, grid: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """(Hp, Wp): the patches of any of the boxes, see `Region.patches`."""
        found: npt.NDArray[np.bool_] = np.any([box.patches(size, seen, grid) for box in self.boxes], axis=0)
        return found


Part: TypeAlias = Region | Boxes


@dataclass(frozen=True)
class Parts:
    """A part of each of several photos, in their order; None: the whole photo. Raises ArgumentError where all are
    whole."""

    each: tuple[Part | None, ...]

    def __post_init__(self) -> None:
        if not any(self.each):
            raise ArgumentError("region", str(self), "marks no part of any photo")

    @property
    def boxes(self) -> tuple[Region, ...]:
        return tuple(box for part in self.each if part is not None for box in part.boxes)

    def __str__(self) -> str:
        """As `as_region` reads it."""
        return "/".join("" if part is None else str(part) for part in self.each)


Area: TypeAlias = Part | Parts
AnyRegion: TypeAlias = str | Sequence[float] | Area


def parts_of(region: Area) -> tuple[Part | None, ...]:
    """Of each query photo the part that is marked; None: the whole photo."""
    return region.each if isinstance(region, Parts) else (region,)


def as_region(region: AnyRegion) -> Area:
    """A region as it is; "120,80,300,260" or four numbers: pixels; "10%,20%,50%,60%": percent; several boxes with ";"
    between them; those of several photos with "/" between these, nothing for a whole photo. Raises ArgumentError."""
    if isinstance(region, Parts):
        return region
    if isinstance(region, str) and "/" in region:
        given = region.split("/", MOST_PARTS)
        return Parts(tuple(_as_part(part) if part.strip() else None for part in given))
    return _as_part(region)


def _as_part(region: str | Sequence[float] | Part) -> Part:
    if isinstance(region, str) and ";" in region:
        boxes = [_as_box(box) for box in region.split(";", MOST_BOXES)]
        return Boxes(tuple(boxes))
    return region if isinstance(region, Boxes) else _as_box(region)


def _as_box(region: str | Sequence[float] | Region) -> Region:
    if isinstance(region, Region):
        return region
    if not isinstance(region, str):
        if len(region) != 4:
            raise ArgumentError("region", region, "must be left, top, right, bottom")
        left, top, right, bottom = map(float, region)
        return Region(left, top, right, bottom)
    found = [_NUMBER.fullmatch(part) for part in region.split(",")]
    matches = [match for match in found if match is not None]
    units = {match[2] for match in matches}
    if len(found) != 4 or len(matches) != 4 or len(units) != 1:
        reason = "must be left,top,right,bottom: all in pixels (120,80,300,260) or all in percent (10%,20%,50%,60%)"
        raise ArgumentError("region", region, reason)
    left, top, right, bottom = (float(match[1]) for match in matches)
    return Region(left, top, right, bottom, in_percent=units == {"%"})


def _cells(
    start: float, end: float, first: float, last: float, count: int
) -> tuple[npt.NDArray[np.bool_], int]:
    """Which of `count` cells between `first` and `last` have their centre between `start` and `end`; and the cell in
    which the middle of the two lies."""
    length = (last - first) / count
    centres = first + length * (np.arange(count) + 0.5)
    middle = int(((start + end) / 2 - first) / length)
    return (centres >= start) & (centres < end), min(middle, count - 1)
