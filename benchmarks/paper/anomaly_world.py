"""anomaly-world: the protocol of `anomaly` on drawn surfaces and things. A stand-in: no figure of it is the paper's.

Four surfaces that fill the picture, and four things that stand in its middle, each class with its own look; damaged
ones have a scratch, a crack, a stain or a hole, with its exact mask. Training has never seen damage.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from steersearch.benchmarks.harness.viewing import digest, kept
from steersearch.benchmarks.paper.anomaly_data import Item, Items
from steersearch.training.data.mask_codec import Mask
from steersearch.training.world import composition, scenes
from steersearch.training.world.kinds import KINDS
from steersearch.training.world.things import draw_thing

VERSION = 2
SEED = 94_000
SIDE = 160  # pixels
SURFACES = ("tile", "fabric", "carpet", "wallpaper")
THINGS = ("mug", "book", "cushion", "suitcase")
PICTURES = 18  # of each class; a third is sound
DEFECTS = ("scratch", "crack", "stain", "hole")
_FINE = 4  # supersampling of drawn defects
_LEAST = 24  # pixels of a defect

Base = tuple[Image.Image, Mask]  # a picture without damage, and where it can be damaged
Bases = Callable[[np.random.Generator], Base]


def build(limit: int | None = None) -> Items:
    """The stand-in, always the same; `limit`: only the first pictures of each class, of PICTURES."""
    items = [item for name in (*SURFACES, *THINGS) for item in _of_class(name, limit)]
    return Items(
        name="anomaly-world",
        source="generated stand-in",
        licence="Apache-2.0",
        data_hash=digest(
            part
            for item in items
            for part in (item.picture().tobytes(), b"" if item.mask is None else item.mask().tobytes())
        ),
        items=tuple(items),
        side=SIDE,
    )


def examples() -> list[tuple[str, Image.Image]]:
    """A sound and a damaged picture of a thing and of a surface, and the damage outlined."""
    shown = []
    for name, number in (("suitcase", 0), ("tile", 2)):
        items = _of_class(name, 3)
        whole, damaged = items[1], items[number]
        assert damaged.mask is not None
        shown += [
            (f"a whole {name}", whole.picture()),
            (f"a {name} with a {damaged.defect}", damaged.picture()),
            (f"the {damaged.defect}", Image.fromarray(damaged.mask()).convert("RGB")),
        ]
    return shown


def _of_class(name: str, limit: int | None) -> list[Item]:
    """The first pictures of a class; the second of every three is sound."""
    rng = np.random.default_rng([SEED, VERSION, (*SURFACES, *THINGS).index(name)])
    bases = _surfaces(rng) if name in SURFACES else _things(name, rng)
    defects = [
        "" if place % 3 == 1 else DEFECTS[(place - (place + 1) // 3) % len(DEFECTS)]
        for place in range(PICTURES)
    ]
    return [_item(name, defect, bases, rng) for defect in defects[:limit]]


def _surfaces(rng: np.random.Generator) -> Bases:
    """Pieces of one large texture."""
    texture = scenes.draw_texture(rng, (3 * SIDE, 3 * SIDE))

    def piece(rng: np.random.Generator) -> Base:
        left, top = (int(corner) for corner in rng.integers(0, 2 * SIDE, 2))
        cut = texture.crop((left, top, left + SIDE, top + SIDE))
        return composition.relight(cut, rng, 0.04), np.ones((SIDE, SIDE), np.bool_)

    return piece


def _things(name: str, rng: np.random.Generator) -> Bases:
    """One look of a kind in the middle of a plain background, slightly shifted and rotated."""
    look = KINDS[name].sample_look(rng)
    shade = tuple(int(value) for value in rng.integers(120, 220, 3))

    def standing(rng: np.random.Generator) -> Base:
        cutout = draw_thing(look, rng, 3 * SIDE // 4).picture.rotate(float(rng.normal(0, 4)), expand=True)
        image = Image.new("RGB", (SIDE, SIDE), shade)
        corner = tuple((SIDE - side) // 2 + int(rng.integers(-6, 7)) for side in cutout.size)
        image.paste(cutout, (corner[0], corner[1]), cutout)
        cover = Image.new("L", (SIDE, SIDE))
        cover.paste(cutout.getchannel("A"), (corner[0], corner[1]))
        return composition.relight(image, rng, 0.04), np.asarray(cover) > 200

    return standing


def _item(name: str, defect: str, bases: Bases, rng: np.random.Generator) -> Item:
    image, where = bases(rng)
    if not defect:
        return Item(name, "", kept(image), None)
    damaged, mask = damage(image, where, defect, rng)
    return Item(name, defect, kept(damaged), lambda: mask)


def damage(
    image: Image.Image, where: Mask, defect: str, rng: np.random.Generator
) -> tuple[Image.Image, Mask]:
    """The picture with a defect of DEFECTS somewhere in `where` (H, W), and the pixels that it changes."""
    places = np.argwhere(where)
    for _ in range(200):
        y, x = (int(value) for value in places[int(rng.integers(len(places)))])
        cover = _SHAPES[defect](x, y, image.size, rng) * where
        mask = cover > 0.5
        if mask.sum() >= _LEAST:
            break
    else:
        raise RuntimeError(f"no room for a {defect}")
    pixels = np.asarray(image, np.float32)
    colour = _colour(defect, pixels[mask].mean(axis=0), rng)
    strength = 0.75 if defect == "stain" else 0.95
    mixed = pixels + (strength * cover)[..., None] * (colour - pixels)
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8)), mask


def _colour(defect: str, under: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """The paint of a defect: scratches stand out, cracks and holes are dark, stains look like a spilled drink."""
    if defect == "scratch":
        return np.full(3, 245 if under.mean() < 140 else 40, np.float32)
    if defect == "stain":
        spilled = np.array([(92, 58, 22), (120, 20, 40), (40, 60, 30)][int(rng.integers(3))], np.float32)
        return spilled if np.abs(spilled - under).max() > 60 else 255 - under
    return np.full(3, 12 if under.mean() > 60 else 230, np.float32)


def _scratch(x: int, y: int, size: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    turn, length = rng.uniform(0, np.pi), rng.uniform(25, 70)
    steps = np.linspace(-0.5, 0.5, 6) * length
    points = [
        (x + s * np.cos(turn) + rng.normal(0, 1), y + s * np.sin(turn) + rng.normal(0, 1)) for s in steps
    ]
    return _painted(size, lambda pen: pen.line(_finer(points), fill=255, width=round(_FINE * 2.5)))


def _crack(x: int, y: int, size: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    lines = []
    for turn in rng.uniform(0, 2 * np.pi) + np.array([0, 2.0, 4.1]) + rng.normal(0, 0.3, 3):
        points, at, way = [(float(x), float(y))], np.array([x, y], float), float(turn)
        for _ in range(int(rng.integers(3, 6))):
            way += float(rng.normal(0, 0.6))
            at = at + rng.uniform(5, 10) * np.array([np.cos(way), np.sin(way)])
            points.append((float(at[0]), float(at[1])))
        lines.append(points)

    def paint(pen: ImageDraw.ImageDraw) -> None:
        for points in lines:
            pen.line(_finer(points), fill=255, width=_FINE * 2)

    return _painted(size, paint)


def _stain(x: int, y: int, size: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    radius = rng.uniform(9, 20)
    turns = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    reach = radius * rng.uniform(0.7, 1.25, len(turns))
    points = list(zip(x + reach * np.cos(turns), y + reach * np.sin(turns), strict=True))
    return _painted(size, lambda pen: pen.polygon(_finer(points), fill=255), 1.2)


def _hole(x: int, y: int, size: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    wide, high = rng.uniform(4, 9, 2)
    corners = _finer([(x - wide, y - high), (x + wide, y + high)])
    return _painted(size, lambda pen: pen.ellipse(corners, fill=255))


_SHAPES = {"scratch": _scratch, "crack": _crack, "stain": _stain, "hole": _hole}


def _painted(
    size: tuple[int, int], paint: Callable[[ImageDraw.ImageDraw], None], blur: float = 0.4
) -> npt.NDArray[np.float32]:
    """(H, W) in [0, 1]: what `paint` draws on a sheet of `size` (width, height) that is _FINE times finer."""
    sheet = Image.new("L", (size[0] * _FINE, size[1] * _FINE))
    paint(ImageDraw.Draw(sheet))
    small = sheet.filter(ImageFilter.GaussianBlur(blur * _FINE)).resize(size, Image.Resampling.BOX)
    return np.asarray(small, np.float32) / np.float32(255)


def _finer(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x * _FINE, y * _FINE) for x, y in points]
