"""A corpus: many photos of the generated world, made beforehand and kept as arrays for training.

Composing takes a few milliseconds a photo, which is as long as a training step of the mini on a CPU core; made once,
the photos serve every epoch of both training stages.
"""

from __future__ import annotations

import json
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from steersearch.training import emoji, scenes, stamps, world
from steersearch.training.things import KINDS, Thing, draw_stock

MAX_THINGS = 6
CHUNK = 250  # photos per task of a worker


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """What a corpus holds.

    photos: how many; size: side of the square photos in pixels; patch: side of a patch of the mask grid in pixels
    drawn_per_kind: drawn things of each kind; plates: backgrounds of each family of scenes
    stamps, emoji: whether these packages' things are used as well (they must be installed then)
    """

    photos: int = 40_000
    size: int = 128
    patch: int = 16
    drawn_per_kind: int = 72
    plates: int = 160
    stamps: bool = True
    emoji: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Corpus:
    """Photos as arrays.

    images:   (P, S, S, 3) uint8
    cover:    (P, M, Hp, Wp) uint8, visible part of each patch that thing m covers, 255 = all
    things:   (P, M) int16, index into `stock`, -1 where there is none
    families: (P,) int8, index into scenes.FAMILIES, -1 for a plain texture
    stock:    the things
    """

    images: npt.NDArray[np.uint8]
    cover: npt.NDArray[np.uint8]
    things: npt.NDArray[np.int16]
    families: npt.NDArray[np.int8]
    stock: list[Thing]


def make_stock(config: CorpusConfig) -> list[Thing]:
    """The things that the corpus' photos are composed of; the same for the same configuration."""
    with _pool() as pool:
        tasks = [pool.submit(_draw_kind, name, i, config) for i, name in enumerate(KINDS)]
        things = [thing for task in tasks for thing in task.result()]
    if config.stamps:
        things += stamps.load_stamps(config.size, held_out=False)
    if config.emoji:
        things += emoji.load_emoji(config.size, things)
    return [thing for thing in things if thing.source == "drawn" or thing.noun not in stamps.HELD_OUT_NOUNS]


def make_corpus(config: CorpusConfig, folder: Path) -> Corpus:
    """Compose the corpus with all cores and keep it in `folder`; one that is there already is loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays, things_file, settings = (folder / f"corpus.{end}" for end in ("npz", "pickle", "json"))
    if settings.is_file() and json.loads(settings.read_text()) == vars(config):
        stock = pickle.loads(things_file.read_bytes())  # written below, by this very function
        with np.load(arrays) as kept:
            return Corpus(kept["images"], kept["cover"], kept["things"], kept["families"], stock)
    stock = make_stock(config)
    plates = _make_plates(config)
    with _pool(_set_materials, (config, stock, plates)) as pool:
        parts = list(pool.map(_compose_chunk, range(0, config.photos, CHUNK)))
    images, cover, things, families = (np.concatenate([part[i] for part in parts]) for i in range(4))
    things_file.write_bytes(pickle.dumps(stock))
    np.savez(arrays, images=images, cover=cover, things=things, families=families)
    settings.write_text(json.dumps(vars(config)))  # last: its presence means that the arrays are whole
    return Corpus(images, cover, things, families, stock)


def _pool(initializer: Any = None, arguments: tuple[Any, ...] = ()) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("fork")  # workers inherit the materials instead of unpickling them
    return ProcessPoolExecutor(mp_context=context, initializer=initializer, initargs=arguments)


def _draw_kind(name: str, number: int, config: CorpusConfig) -> list[Thing]:
    rng = np.random.default_rng([config.seed, 1, number])
    return draw_stock(rng, config.drawn_per_kind, config.size, [name])


def _make_plates(config: CorpusConfig) -> list[scenes.Scene]:
    """Backgrounds at about the photos' size, in the shapes that cameras give."""
    with _pool() as pool:
        tasks = [pool.submit(_draw_plates, i, config) for i in range(len(scenes.FAMILIES) + 1)]
        return [plate for task in tasks for plate in task.result()]


def _draw_plates(family: int, config: CorpusConfig) -> list[scenes.Scene]:
    rng = np.random.default_rng([config.seed, 2, family])
    plates = []
    for _ in range(config.plates):
        width, height = [(4, 3), (1, 1), (3, 4), (3, 2)][int(rng.integers(4))]
        unit = config.size * 1.25 / max(1.0, (width + height) / 2)
        size = (round(width * unit), round(height * unit))
        if family < len(scenes.FAMILIES):
            plates.append(scenes.draw_scene(scenes.FAMILIES[family], rng, size))
        else:
            plates.append(scenes.Scene("", scenes.draw_texture(rng, size), ()))
    return plates


_materials: dict[str, Any] = {}


def _set_materials(config: CorpusConfig, stock: list[Thing], plates: list[scenes.Scene]) -> None:
    _materials.update(config=config, stock=stock, plates=plates)


def _compose_chunk(start: int) -> tuple[npt.NDArray[Any], ...]:
    config: CorpusConfig = _materials["config"]
    count, grid = min(CHUNK, config.photos - start), config.size // config.patch
    images = np.zeros((count, config.size, config.size, 3), np.uint8)
    cover = np.zeros((count, MAX_THINGS, grid, grid), np.uint8)
    things = np.full((count, MAX_THINGS), -1, np.int16)
    families = np.zeros(count, np.int8)
    for i in range(count):
        rng = np.random.default_rng([config.seed, 3, start + i])
        photo, numbers = _compose_one(rng, config, _materials["stock"], _materials["plates"])
        images[i] = np.asarray(
            photo.image.resize((config.size, config.size), Image.Resampling.BICUBIC, reducing_gap=3.0)
        )
        for j, placed in enumerate(photo.placed):
            cover[i, j] = _patch_cover(placed.mask, grid)
            things[i, j] = numbers[id(placed.thing)]
        families[i] = scenes.FAMILIES.index(photo.family) if photo.family else -1
    return images, cover, things, families


def _compose_one(
    rng: np.random.Generator, config: CorpusConfig, stock: list[Thing], plates: list[scenes.Scene]
) -> tuple[world.Photo, dict[int, int]]:
    """One photo with at least one thing, and the stock numbers of its things by identity."""
    plate = plates[int(rng.integers(len(plates)))]
    alone = rng.random() < 0.12
    count = 1 if alone else int(rng.integers(2, MAX_THINGS + 1))
    picked = [_pick(rng, config, stock) for _ in range(count)]
    if not alone and rng.random() < 0.4:
        picked[1] = _like(picked[0], rng, stock)
    numbers = {id(stock[i]): i for i in picked}
    size = (0.45, 0.8) if alone else (0.19, 0.48)
    spots = world.place_things(plate, [stock[i] for i in numbers.values()], rng, size, loose=0.4)
    if not spots:
        return _compose_one(rng, config, stock, plates)
    photo = world.compose(plate, spots)
    return world.Photo(world.relight(photo.image, rng), photo.family, photo.placed), numbers


def _like(number: int, rng: np.random.Generator, stock: list[Thing]) -> int:
    """A hard negative: another thing of the same kind, which attributes must tell apart, or of the same colour."""
    thing = stock[number]
    same_colour = thing.colour != "" and rng.random() < 0.4
    alike = [i for i, other in enumerate(stock) if _alike(thing, other, same_colour)]
    return alike[int(rng.integers(len(alike)))] if alike else number


def _alike(thing: Thing, other: Thing, same_colour: bool) -> bool:
    if same_colour:
        return other.colour == thing.colour and other.noun != thing.noun
    return other.noun == thing.noun


def _pick(rng: np.random.Generator, config: CorpusConfig, stock: list[Thing]) -> int:
    """A drawn thing or a stamp with even odds."""
    drawn = len(KINDS) * config.drawn_per_kind
    if drawn == len(stock) or rng.random() < 0.5:
        return int(rng.integers(drawn))
    return int(rng.integers(drawn, len(stock)))


def _patch_cover(mask: npt.NDArray[np.bool_], grid: int) -> npt.NDArray[np.uint8]:
    """(H, W) bool -> (grid, grid) uint8: covered part of each cell after squashing to a square."""
    full = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(full.resize((grid, grid), Image.Resampling.BOX), np.uint8)
