"""A corpus: photos of the generated world, composed beforehand and kept as arrays for training.

Composing a photo takes a few milliseconds, as long as a training step of mini takes for it on a CPU core. Composed
once, the photos serve all epochs and stages.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from steersearch.core.errors import DataError
from steersearch.core.files import drafted, read_json, write_atomically
from steersearch.training.npy_file import begin_array, map_rows, write_rows
from steersearch.training.photographs.folder import folder_wordnet, read_folder
from steersearch.training.photographs.listed import is_held_back
from steersearch.training.photographs.wordnet import PHYSICAL, class_words
from steersearch.training.world import composition, drawings, photo_stock, scenes, stamps
from steersearch.training.world.composites import MODES, Composer, Mode
from steersearch.training.world.instances import read_photograph
from steersearch.training.world.picture_file import load_pictures, save_pictures
from steersearch.training.world.things import Thing, about_thing, thing_of
from steersearch.training.world.world import World, WorldConfig, squared

CHUNK = 250  # photos per task of a worker


@dataclass(frozen=True)
class Corpus:
    """Photos as arrays.

    config:   of their world
    images:   (P, S, S, 3) uint8
    cover:    (P, M, Hp, Wp) uint8, visible part of each patch that thing m covers, 255 = all
    things:   (P, M) int16, index into `stock`, -1 where there is none
    families: (P,) int8, index into scenes.FAMILIES, -1 for a plain texture
    modes:    (P,) int8, index into composites.MODES, -1 in a corpus without photographs
    stock:    the things
    """

    config: WorldConfig
    images: npt.NDArray[np.uint8]
    cover: npt.NDArray[np.uint8]
    things: npt.NDArray[np.int16]
    families: npt.NDArray[np.int8]
    modes: npt.NDArray[np.int8]
    stock: list[Thing]


ARRAYS = ("images", "cover", "things", "families", "modes")
STOCK, SETTINGS = "stock.safetensors", "corpus.json"
FORMAT = 3  # format of a corpus' files; a corpus of another format is composed again


def make_corpus(config: WorldConfig, folder: Path) -> Corpus:
    """The corpus of `config` in `folder`, mapped into memory. If there is none, it is composed on all cores.

    Raises DataError if it is damaged, OSError where nothing can be written.
    """
    settings = folder / SETTINGS
    if _kept(settings) != {"format": FORMAT, **vars(config)}:
        folder.mkdir(parents=True, exist_ok=True)
        settings.unlink(missing_ok=True)
        _compose(config, folder)
        content = json.dumps({"format": FORMAT, **vars(config)}).encode()
        write_atomically(settings, lambda file: file.write(content))  # last: the other files are complete
    try:
        stock = [
            thing_of(picture, about) for picture, about in zip(*load_pictures(folder / STOCK), strict=True)
        ]
        arrays = {name: map_rows(folder / f"{name}.npy") for name in ARRAYS}
        return _checked(Corpus(config=config, stock=stock, **arrays))
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            folder, f"a damaged world ({reason}); delete it, it will be composed again"
        ) from error


def _kept(settings: Path) -> object:
    """The content of `settings`; None if the file is missing or unreadable."""
    try:
        return read_json(settings)
    except (FileNotFoundError, ValueError):
        return None


def _compose(config: WorldConfig, folder: Path) -> None:
    stock, make = _on_photographs(config) if config.photographs else _drawn_world(config)
    starts = range(0, config.photos, CHUNK)
    with ExitStack() as drafts, drawings.forked_pool(_set_making, (config, make)) as pool:
        files = {name: drafts.enter_context(drafted(folder / f"{name}.npy")) for name in ARRAYS}
        for name, (dtype, shape) in _shapes(config).items():
            begin_array(files[name], dtype, shape)
        for start, parts in zip(starts, pool.map(_compose_chunk, starts), strict=True):
            for file, rows in zip(files.values(), parts, strict=True):
                write_rows(file, start, rows)
    save_pictures(folder / STOCK, [thing.picture for thing in stock], [about_thing(thing) for thing in stock])


def _shapes(config: WorldConfig) -> dict[str, tuple[type[np.generic], tuple[int, ...]]]:
    """Type and shape of each array of `Corpus`."""
    photos, size, most, grid = config.photos, config.size, config.most_things, config.size // config.patch
    return {
        "images": (np.uint8, (photos, size, size, 3)),
        "cover": (np.uint8, (photos, most, grid, grid)),
        "things": (np.int16, (photos, most)),
        "families": (np.int8, (photos,)),
        "modes": (np.int8, (photos,)),
    }


def _checked(corpus: Corpus) -> Corpus:
    """`corpus`, if its arrays fit its configuration. Raises ValueError."""
    for name, (dtype, shape) in _shapes(corpus.config).items():
        array = getattr(corpus, name)
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(f"{name}.npy is {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}")
    counts = {"things": len(corpus.stock), "families": len(scenes.FAMILIES), "modes": len(MODES)}
    for name, most in counts.items():
        array = getattr(corpus, name)
        if array.min(initial=-1) < -1 or array.max(initial=-1) >= most:
            raise ValueError(f"{name}.npy has numbers out of range")
    return corpus


@dataclass(frozen=True)
class _Made:
    """A composed picture. shown: stock number and mask (H, W) of each thing.  mode: of composites.MODES, or None"""

    image: Image.Image
    shown: list[tuple[int, composition.Mask]]
    family: str
    mode: Mode | None


_Make: TypeAlias = "Callable[[int], _Made]"  # picture of a number


def _drawn_world(config: WorldConfig) -> tuple[list[Thing], _Make]:
    world = World(config)

    def make(number: int) -> _Made:
        plan = world.plan(number)
        photo = plan.compose()
        shown = [(plan.numbers[id(placed.thing)], placed.mask) for placed in photo.placed]
        return _Made(photo.image, shown, photo.family, None)

    return world.stock, make


def _on_photographs(config: WorldConfig) -> tuple[list[Thing], _Make]:
    folder = Path(config.photographs)
    names = (
        class_words(folder_wordnet(folder)).names if config.wordnet else lambda noun, among: frozenset({noun})
    )
    photographs = [
        read_photograph(labelled, lambda noun: names(noun, PHYSICAL))
        for labelled in read_folder(folder)
        if labelled.noun not in stamps.HELD_OUT_NOUNS
        and not (config.held_back and is_held_back(labelled.package, labelled.file))
    ]
    stock = photo_stock.make_stock(
        drawings.draw_things(config.seed, config.size, config.drawn_per_kind),
        photographs,
        names,
        size=config.size,
        seed=config.seed,
        with_stamps=config.stamps,
        with_emoji=config.emoji,
    )
    plates = drawings.draw_plates(config.seed, config.size, config.plates, config.backgrounds)
    composer = Composer(stock, photographs, plates, size=config.size, seed=config.seed)

    def make(number: int) -> _Made:
        made = composer.compose(number)
        largest = sorted(made.shown, key=lambda one: -one[1].sum())[: config.most_things]
        return _Made(made.image, largest, made.family, made.mode)

    return stock.things, make


_making: list[tuple[WorldConfig, _Make]] = []


def _set_making(config: WorldConfig, make: _Make) -> None:
    _making[:] = [(config, make)]


def _compose_chunk(start: int) -> tuple[npt.NDArray[Any], ...]:
    config, make = _making[0]
    count, grid = min(CHUNK, config.photos - start), config.size // config.patch
    images = np.zeros((count, config.size, config.size, 3), np.uint8)
    cover = np.zeros((count, config.most_things, grid, grid), np.uint8)
    things = np.full((count, config.most_things), -1, np.int16)
    families, modes = np.full(count, -1, np.int8), np.full(count, -1, np.int8)
    for i in range(count):
        made = make(start + i)
        images[i] = np.asarray(squared(made.image, config.size))
        for j, (number, mask) in enumerate(made.shown):
            cover[i, j] = _patch_cover(mask, grid)
            things[i, j] = number
        if made.family:
            families[i] = scenes.FAMILIES.index(made.family)
        if made.mode:
            modes[i] = MODES.index(made.mode)
    return images, cover, things, families, modes


def _patch_cover(mask: npt.NDArray[np.bool_], grid: int) -> npt.NDArray[np.uint8]:
    """(H, W) bool -> (grid, grid) uint8: covered part of each cell after squashing to a square."""
    full = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(full.resize((grid, grid), Image.Resampling.BOX), np.uint8)
