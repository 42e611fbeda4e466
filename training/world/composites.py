"""Pictures made of photographs (with things pasted in, unchanged, or as a mosaic) and of drawn scenes.

Each picture is a function of the stock, the seed and its number. Since the instances of a photograph are known, an
expression can also be about what the photograph itself shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from steersearch.training.world import composition
from steersearch.training.world.drawings import SHAPES
from steersearch.training.world.instances import Photograph
from steersearch.training.world.painting import pick
from steersearch.training.world.photo_stock import PhotoStock
from steersearch.training.world.scenes import Scene

Mask = npt.NDArray[np.bool_]
Mode = Literal["world", "composite", "photograph", "mosaic"]

MODES: tuple[Mode, ...] = get_args(Mode)
MODE_SHARES = (0.3, 0.42, 0.08, 0.2)
MOST_PLACED = 5
LAYOUTS = ((2, 2), (2, 2), (2, 2), (1, 2), (2, 1), (3, 3))  # rows and columns of a mosaic
# Shares of the stock's groups among the things placed in each mode.
ON_PLATES = {"drawn": 0.5, "stamp": 0.3, "emoji": 0.08, "recoloured": 0.12}
ON_PHOTOGRAPHS = {"drawn": 0.15, "stamp": 0.4, "emoji": 0.03, "recoloured": 0.25, "cutout": 0.17}
IN_MOSAICS = {"stamp": 0.5, "recoloured": 0.2, "cutout": 0.15, "drawn": 0.15}
LEAST_SHOWN = 0.45  # share of an instance that must stay visible


@dataclass(frozen=True)
class Composite:
    """image: RGB, of any shape.  shown: stock number and visible mask (H, W) of each thing.  family: of its scene"""

    image: Image.Image
    shown: list[tuple[int, Mask]]
    family: str
    mode: Mode


@dataclass(frozen=True)
class _Crop:
    """A crop of a photograph. shown: stock number and mask of each instance that is visible enough."""

    image: Image.Image
    shown: list[tuple[int, Mask]]


class Composer:
    """photographs: at least one, to which the stock's instances belong.  plates: the drawn world's backgrounds."""

    def __init__(
        self,
        stock: PhotoStock,
        photographs: Sequence[Photograph],
        plates: Sequence[Scene],
        *,
        size: int,
        seed: int,
    ) -> None:
        self._stock, self._photographs, self._plates = stock, photographs, plates
        self._size, self._seed = size, seed
        self._all = range(len(photographs))
        self._bare = [number for number in self._all if not photographs[number].instances]

    def compose(self, number: int) -> Composite:
        """Picture `number`, which shows at least one thing; at about `size` pixels a side."""
        turn = 0
        while True:
            rng = np.random.default_rng([self._seed, 3, number, turn])
            mode = MODES[int(rng.choice(len(MODES), p=MODE_SHARES))]
            made = self._mosaic(rng) if mode == "mosaic" else self._scene(rng, mode)
            if made is not None and made.shown:
                return made
            turn += 1

    def _scene(self, rng: np.random.Generator, mode: Mode) -> Composite | None:
        if mode == "world":
            plate, under = pick(rng, self._plates), []
        else:
            width, height = pick(rng, SHAPES)
            unit = self._size * 1.15 / ((width + height) / 2)
            size = round(width * unit), round(height * unit)
            crop = self._crop(rng, self._all, size, least=0.35, least_area=0.004)
            plate, under = Scene("", crop.image, ()), crop.shown
        image, placed = plate.image, list[tuple[int, Mask]]()
        if mode != "photograph":
            image, placed = self._place(rng, plate, mode)
            hidden = np.zeros((image.height, image.width), np.bool_)
            for _, mask in placed:
                hidden |= mask
            left = [(number, mask & ~hidden) for number, mask in under]
            shares = [rest.sum() / mask.sum() for (_, rest), (_, mask) in zip(left, under, strict=True)]
            if any(0.05 < share < LEAST_SHOWN for share in shares):
                return None  # between these an instance is neither visible nor hidden
            under = [one for one, share in zip(left, shares, strict=True) if share >= LEAST_SHOWN]
        return Composite(composition.relight(image, rng, 0.15), under + placed, plate.family, mode)

    def _place(
        self, rng: np.random.Generator, plate: Scene, mode: Mode
    ) -> tuple[Image.Image, list[tuple[int, Mask]]]:
        """One large thing or several smaller ones, often two of a noun, on the plate."""
        shares = ON_PLATES if mode == "world" else ON_PHOTOGRAPHS
        alone = rng.random() < 0.15
        picked = [
            self._pick(rng, shares) for _ in range(1 if alone else int(rng.integers(2, MOST_PLACED + 1)))
        ]
        if not alone and rng.random() < 0.4:  # a hard negative
            alike = self._stock.by_noun[self._stock.things[picked[0]].noun]
            picked[1] = pick(rng, alike)
        size = (0.4, 0.8) if alone else (0.19, 0.48) if mode == "world" else (0.12, 0.45)
        return self._composed(rng, plate, picked, size, loose=0.4)

    def _composed(
        self,
        rng: np.random.Generator,
        plate: Scene,
        picked: Sequence[int],
        size: tuple[float, float],
        loose: float,
    ) -> tuple[Image.Image, list[tuple[int, Mask]]]:
        numbers = {id(self._stock.things[number]): number for number in picked}
        things = [self._stock.things[number] for number in numbers.values()]
        photo = composition.compose(plate, composition.place_things(plate, things, rng, size, loose=loose))
        return photo.image, [(numbers[id(placed.thing)], placed.mask) for placed in photo.placed]

    def _mosaic(self, rng: np.random.Generator) -> Composite:
        """Photographs side by side, and here and there a cutout on a plain ground."""
        rows, columns = pick(rng, LAYOUTS)
        image = Image.new("RGB", (self._size, self._size))
        shown = []
        for row in range(rows):
            for column in range(columns):
                left, right = column * self._size // columns, (column + 1) * self._size // columns
                top, bottom = row * self._size // rows, (row + 1) * self._size // rows
                tile = self._tile(rng, (right - left, bottom - top))
                image.paste(composition.relight(tile.image, rng, 0.12), (left, top))
                for number, mask in tile.shown:
                    whole = np.zeros((self._size, self._size), np.bool_)
                    whole[top:bottom, left:right] = mask
                    shown.append((number, whole))
        return Composite(image, shown, "", "mosaic")

    def _tile(self, rng: np.random.Generator, size: tuple[int, int]) -> _Crop:
        if rng.random() < 0.75:
            return self._crop(rng, self._all, size, least=0.7, least_area=0.01)
        ground = Image.new("RGB", size, tuple(int(value) for value in rng.integers(60, 256, 3)))
        if self._bare and rng.random() < 0.4:
            ground = self._crop(rng, self._bare, size, least=0.35, least_area=0.0).image
        picked = [self._pick(rng, IN_MOSAICS)]
        return _Crop(*self._composed(rng, Scene("", ground, ()), picked, (0.45, 0.85), loose=1.0))

    def _pick(self, rng: np.random.Generator, shares: Mapping[str, float]) -> int:
        """A thing of one of the groups that are not empty, drawn by their shares."""
        groups = {name: share for name, share in shares.items() if self._stock.groups[name]}
        total = sum(groups.values())
        chosen = str(rng.choice(list(groups), p=[share / total for share in groups.values()]))
        numbers = self._stock.groups[chosen]
        return int(rng.integers(numbers.start, numbers.stop))

    def _crop(
        self,
        rng: np.random.Generator,
        among: Sequence[int],
        size: tuple[int, int],
        *,
        least: float,
        least_area: float,
    ) -> _Crop:
        """A crop of one of the photographs `among`, of the shape (width, height); half of them are mirrored.

        least: least side of the crop, as a share of the largest that fits.  least_area: share of the picture that an
        instance must cover to count. Crops that cut an instance in two are avoided.
        """
        which = pick(rng, among)
        photograph, numbers = self._photographs[which], self._stock.instances[which]
        for _ in range(6):
            box = _part(photograph.image.size, size, rng, least)
            kept = [_kept(one.mask, box) for one in photograph.instances]
            if not any(0.03 < share < LEAST_SHOWN for share in kept):
                break
        image = photograph.image.resize(size, Image.Resampling.BICUBIC, box, reducing_gap=2.0)
        masks = [
            np.asarray(one.alpha.resize(size, Image.Resampling.BILINEAR, box)) > 127
            for one in photograph.instances
        ]
        if rng.random() < 0.5:
            image, masks = ImageOps.mirror(image), [mask[:, ::-1] for mask in masks]
        shown = [
            (number, mask)
            for number, mask, share in zip(numbers, masks, kept, strict=True)
            if share >= LEAST_SHOWN and mask.mean() > least_area
        ]
        return _Crop(image, shown)


_Box = tuple[float, float, float, float]


def _part(whole: tuple[int, int], size: tuple[int, int], rng: np.random.Generator, least: float) -> _Box:
    """A box (left, top, right, bottom) with the aspect of `size` in a picture of `whole` pixels."""
    aspect = size[0] / size[1]
    height = min(whole[1], whole[0] / aspect) * rng.uniform(least, 1)
    width = height * aspect
    left, top = rng.uniform(0, whole[0] - width), rng.uniform(0, whole[1] - height)
    return left, top, min(whole[0], left + width), min(whole[1], top + height)


def _kept(mask: Mask, box: _Box) -> float:
    """Share of the mask that lies inside the box."""
    left, top, right, bottom = (round(side) for side in box)
    return float(mask[top:bottom, left:right].sum() / max(1, mask.sum()))
