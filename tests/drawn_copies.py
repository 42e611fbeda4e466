"""Families of drawn pictures that look alike, and ways to copy a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from steersearch.benchmarks.paper.world_photos import KIND_NAMES, Drawings
from steersearch.indexer.loader import PhotoReader
from steersearch.training.world import composition, scenes

_WORDS = (
    "invoice receipt total milk bread train ticket name address doctor exam result poem river night hotel booking "
    "guest map lecture slide chapter one of the a in to and for with that"
).split()
_INK = (25, 25, 30)

Draw = Callable[[int], Image.Image]


# ------------------------------------------------------------------------------------------------ look-alikes


def _sheet(size: tuple[int, int], paper: tuple[int, int, int]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", size, paper)
    return image, ImageDraw.Draw(image)


def _text(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, ink: Any = _INK) -> None:
    draw.text(at, text, fill=ink, font=_font(size))


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _words(rng: np.random.Generator, count: int) -> str:
    return " ".join(rng.choice(_WORDS, count))


def page(number: int) -> Image.Image:
    """A page of text."""
    rng, (image, draw) = np.random.default_rng(number), _sheet((900, 1200), (250, 250, 248))
    for y in range(80, 1120, 36):
        _text(draw, (70, y), _words(rng, 8), 24)
    return image


def form(number: int, filled: int = 13) -> Image.Image:
    """A form of which the last `filled` amounts differ from those of others."""
    rng, own = np.random.default_rng(0), np.random.default_rng(number + 1)
    image, draw = _sheet((900, 1200), (255, 255, 255))
    _text(draw, (70, 60), "INVOICE", 48)
    for row in range(13):
        y = 200 + 60 * row
        amounts = [f"{generator.integers(1000, 10000) / 100:.2f}" for generator in (rng, own)]
        _text(draw, (70, y), _WORDS[row], 26)
        _text(draw, (650, y), amounts[13 - row <= filled], 26)
        draw.line((70, y + 40, 830, y + 40), fill=(120, 120, 120))
    return image


def form_with_another_total(number: int) -> Image.Image:
    return form(number, filled=1)


def receipt(number: int) -> Image.Image:
    rng, (image, draw) = np.random.default_rng(number), _sheet((500, 1300), (244, 242, 235))
    _text(draw, (120, 40), "SUPERMARKET", 30)
    for y in range(120, 1200, 34):
        _text(draw, (40, y), _words(rng, 1), 22)
        _text(draw, (380, y), f"{rng.integers(2000) / 100:.2f}", 22)
    return image


def chat(number: int) -> Image.Image:
    """The screen of a telephone: of nine messages only the last differs."""
    rng, own = np.random.default_rng(1), np.random.default_rng(number)
    image, draw = _sheet((540, 1170), (236, 229, 221))
    draw.rectangle((0, 0, 540, 90), fill=(7, 94, 84))
    _text(draw, (90, 30), "Family", 30, "white")
    for row in range(9):
        left, y = int(rng.choice([20, 150])), 110 + 100 * row
        draw.rounded_rectangle(
            (left, y, left + 370, y + 80), 16, fill=(220, 248, 198) if left > 20 else "white"
        )
        _text(draw, (left + 16, y + 22), _words(own if row == 8 else rng, 5), 20)
    return image


def screenshot(number: int) -> Image.Image:
    rng, (image, draw) = np.random.default_rng(number), _sheet((1280, 800), (240, 240, 243))
    draw.rectangle((0, 0, 1280, 60), fill=(50, 60, 90))
    draw.rectangle((0, 60, 220, 800), fill=(225, 228, 235))
    for row, y in enumerate(range(90, 700, 40)):
        _text(draw, (20, y), _WORDS[row], 20)
    for y in range(90, 760, 32):
        _text(draw, (260, y), _words(rng, 12), 20)
    return image


def slide(number: int) -> Image.Image:
    rng, (image, draw) = np.random.default_rng(number), _sheet((1280, 720), (255, 255, 255))
    draw.rectangle((0, 0, 1280, 110), fill=(20, 60, 120))
    _text(draw, (50, 30), _words(rng, 4), 44, "white")
    for y in range(180, 600, 80):
        _text(draw, (80, y), f"- {_words(rng, 5)}", 32)
    return image


def code(number: int) -> Image.Image:
    """Something like a QR code."""
    dots = np.random.default_rng(number).integers(0, 2, (29, 29)).astype(np.uint8)
    mark = np.pad(np.pad(np.ones((3, 3), np.uint8), 1), 1, constant_values=1)
    for top, left in ((0, 0), (0, 22), (22, 0)):
        dots[top : top + 7, left : left + 7] = mark
    image = Image.fromarray((1 - dots) * 255).resize((580, 580), Image.Resampling.NEAREST)
    return ImageOps.expand(image, 40, 255).convert("RGB")


def night(number: int) -> Image.Image:
    """Lights in the dark."""
    rng, (image, draw) = np.random.default_rng(number), _sheet((1200, 800), (6, 6, 10))
    for _ in range(3 + number % 4 * 2):
        x, y = (int(rng.integers(side)) for side in image.size)
        draw.ellipse((x - 8, y - 8, x + 8, y + 8), fill=(255, 230, 180))
    return _grained(image.filter(ImageFilter.GaussianBlur(4)), rng, 3)


def sky(number: int) -> Image.Image:
    """A blue gradient."""
    rng = np.random.default_rng(number)
    top, bottom = (
        rng.integers((100, 150, 210), (140, 190, 250)),
        rng.integers((100, 150, 210), (170, 220, 256)),
    )
    rows = np.linspace(top, bottom, 800)[:, None]
    return _grained(Image.fromarray(np.repeat(rows, 1200, axis=1).astype(np.uint8)), rng, 1.5)


def fog(number: int) -> Image.Image:
    """Grey clouds of low contrast."""
    shades = 180 + 8 * np.random.default_rng(number).normal(size=(10, 14))
    return (
        Image.fromarray(shades.astype(np.uint8)).resize((1200, 800), Image.Resampling.BICUBIC).convert("RGB")
    )


def photo(number: int) -> Image.Image:
    """A photo of the generated world."""
    return _scene(number, (640, 480))


def edit(number: int) -> Image.Image:
    """Four edits of one scene, in each of which one thing is replaced."""
    return _scene(1000 + number // 4, (640, 480), instead=number)


def series(number: int) -> Image.Image:
    """Four shots of one scene, moments apart: things, camera and light have moved a little."""
    rng = np.random.default_rng([3, number])
    image = _scene(2000 + number // 4, (704, 528), moved=rng)
    left, top = (int(value) for value in rng.integers(0, 20, 2))
    seen = image.crop((left, top, left + 672, top + 504)).resize((640, 480), Image.Resampling.LANCZOS)
    return _grained(seen.point(lambda value: value * 1.02), rng, 3)


@cache
def _drawings() -> Drawings:
    return Drawings([77], 4)


def _scene(
    number: int, size: tuple[int, int], instead: int | None = None, moved: np.random.Generator | None = None
) -> Image.Image:
    rng = np.random.default_rng([5, number])
    plate = scenes.draw_scene(scenes.FAMILIES[number % len(scenes.FAMILIES)], rng, size)
    things = [_drawings().any_of(KIND_NAMES[kind], rng) for kind in rng.permutation(len(KIND_NAMES))[:4]]
    standing = composition.place_things(plate, things, rng, (0.25, 0.4))
    if instead is not None:
        own = np.random.default_rng([9, instead])
        standing[0] = (_drawings().any_of(KIND_NAMES[own.integers(len(KIND_NAMES))], own), standing[0][1])
    if moved is not None:
        standing = [(thing, replace(spot, x=spot.x + moved.uniform(-0.02, 0.02))) for thing, spot in standing]
    return composition.compose(plate, standing).image


def _grained(image: Image.Image, rng: np.random.Generator, grain: float) -> Image.Image:
    values = np.asarray(image) + rng.normal(0, grain, (image.height, image.width, 3))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


FAMILIES: tuple[Draw, ...] = (
    page, form, form_with_another_total, receipt, chat, screenshot, slide, code, night, sky, fog, photo, edit, series,
)  # fmt: skip


# ------------------------------------------------------------------------------------------------ copies


def _at(longer: int) -> Callable[[Image.Image], Image.Image]:
    return lambda image: ImageOps.contain(image, (longer, longer), Image.Resampling.LANCZOS)


def _cut(left: float, others: float) -> Callable[[Image.Image], Image.Image]:
    """The picture without these parts of its width and height."""

    def cut(image: Image.Image) -> Image.Image:
        width, height = image.size
        box = (left * width, others * height, (1 - others) * width, (1 - others) * height)
        return image.crop(tuple(map(round, box)))  # type: ignore[arg-type]

    return cut


COPIES: dict[str, tuple[Callable[[Image.Image], Image.Image], int]] = {
    "quality 80": (lambda image: image, 80),
    "quality 40": (lambda image: image, 40),
    "half the size": (lambda image: ImageOps.scale(image, 0.5), 85),
    "320 pixels, quality 60": (_at(320), 60),
    "160 pixels, quality 60": (_at(160), 60),
    "turned": (lambda image: image.transpose(Image.Transpose.ROTATE_90), 85),
    "cut, 1 % each side": (_cut(0.01, 0.01), 85),
    "cut, 2 % each side": (_cut(0.02, 0.02), 85),
    "cut, 5 % each side": (_cut(0.05, 0.05), 85),
    "cut, 5 % of one side": (_cut(0.05, 0), 85),
}
# Versions, whose pixels differ: they must not be folded.
VERSIONS: dict[str, tuple[Callable[[Image.Image], Image.Image], int]] = {
    "mirrored": (ImageOps.mirror, 85),
    "grey": (lambda image: image.convert("L"), 85),
    "brighter, 10 %": (lambda image: image.point(lambda value: value * 1.1), 85),
}


# ------------------------------------------------------------------------------------------------ files


@dataclass(frozen=True)
class File:
    """A picture on disk with its thumbnail (JPEG), as the indexer makes it."""

    path: Path
    image_id: str
    thumbnail: bytes


class Folder:
    """Writes pictures into a folder and reads them as the indexer does."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, 0
        self._read = PhotoReader(
            folder, is_known=lambda _: False, bad_reason=lambda _: None, needs_pixels=lambda _: False,
            preprocess=lambda image: np.zeros((3, 1, 1), np.float32),
        )  # fmt: skip

    def save(self, image: Image.Image, quality: int) -> File:
        self._number += 1
        name = f"{self._number:05}.jpg"
        image.save(self._folder / name, quality=quality)
        photo: Any = self._read(name)
        return File(self._folder / name, photo.file.image_id, photo.thumbnail)
