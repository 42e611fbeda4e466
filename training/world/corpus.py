"""A corpus: many photos of the generated world, made beforehand and kept as arrays for training.

Composing takes a few milliseconds a photo, which is as long as a training step of the mini on a CPU core; made once,
the photos serve every epoch of both training stages.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
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
from steersearch.training.world import composition, emoji, photo_stock, scenes, stamps
from steersearch.training.world.backgrounds import Backgrounds
from steersearch.training.world.composites import MODES, Composer, Mode
from steersearch.training.world.instances import read_photograph
from steersearch.training.world.kinds import KINDS
from steersearch.training.world.picture_file import load_pictures, save_pictures
from steersearch.training.world.things import Thing, about_thing, draw_stock, thing_of

MAX_THINGS = 6
MAX_THINGS_ON_PHOTOGRAPHS = 8
CHUNK = 250  # photos per task of a worker

_Task: TypeAlias = "tuple[CorpusConfig, int]"


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """What a corpus holds.

    photos: how many; size: side of the square photos in pixels; patch: side of a patch of the mask grid in pixels
    drawn_per_kind: drawn things of each kind; plates: backgrounds of each family of scenes
    stamps, emoji: whether these packages' things are used as well (they must be installed then)
    backgrounds: a folder of photographs of textures, crops of which are backgrounds too; "" for none
    photographs: a folder that `steersearch train photographs` made, to compose pictures of (`composites`); "" for none,
        or in a run with a hybrid trunk for the one that it makes
    wordnet: whether the things' names are widened by WordNet's, which must be there then
    held_back: whether the photographs that choices are made on (`photographs.is_held_back`) stay out
    """

    photos: int = 40_000
    size: int = 128
    patch: int = 16
    drawn_per_kind: int = 72
    plates: int = 160
    stamps: bool = True
    emoji: bool = True
    seed: int = 0
    backgrounds: str = ""
    photographs: str = ""
    wordnet: bool = False
    held_back: bool = False

    @property
    def most_things(self) -> int:
        """How many things a picture may show."""
        return MAX_THINGS_ON_PHOTOGRAPHS if self.photographs else MAX_THINGS


@dataclass(frozen=True)
class Corpus:
    """Photos as arrays.

    config:   what they were composed by
    images:   (P, S, S, 3) uint8
    cover:    (P, M, Hp, Wp) uint8, visible part of each patch that thing m covers, 255 = all
    things:   (P, M) int16, index into `stock`, -1 where there is none
    families: (P,) int8, index into scenes.FAMILIES, -1 for a plain texture
    modes:    (P,) int8, index into composites.MODES, -1 in a corpus without photographs
    stock:    the things
    """

    config: CorpusConfig
    images: npt.NDArray[np.uint8]
    cover: npt.NDArray[np.uint8]
    things: npt.NDArray[np.int16]
    families: npt.NDArray[np.int8]
    modes: npt.NDArray[np.int8]
    stock: list[Thing]


@dataclass(frozen=True)
class Materials:
    """What photos are composed of.

    featured: so many things at the end of the stock are what it is about: every photo shows at least one of them;
        0 where no thing is preferred
    """

    config: CorpusConfig
    stock: list[Thing]
    plates: list[scenes.Scene]
    featured: int = 0

    @cached_property
    def drawn(self) -> int:
        """How many things at the beginning of the stock are drawn ones."""
        return len(KINDS) * self.config.drawn_per_kind

    @cached_property
    def by_noun(self) -> dict[str, list[int]]:
        """Stock numbers of each noun, in order."""
        return _grouped([thing.noun for thing in self.stock])

    @cached_property
    def by_colour(self) -> dict[str, list[int]]:
        return _grouped([thing.colour for thing in self.stock])


@dataclass(frozen=True)
class Plan:
    """A photo before it is composed: its background, what stands where, the stock numbers of the things by identity,
    and the generator that decides the light."""

    plate: scenes.Scene
    spots: list[tuple[Thing, composition.Spot]]
    numbers: dict[int, int]
    rng: np.random.Generator


def plan_photo(materials: Materials, number: int) -> Plan:
    """What is where in photo `number` of the corpus; the same for the same configuration."""
    rng = np.random.default_rng([materials.config.seed, 3, number])
    while True:
        plan = _plan(rng, materials)
        least = len(materials.stock) - materials.featured
        if any(not materials.featured or plan.numbers[id(thing)] >= least for thing, _ in plan.spots):
            return plan


def compose_photo(plan: Plan) -> composition.Photo:
    """The photo that was planned, under its light, in the plate's shape."""
    photo = composition.compose(plan.plate, plan.spots)
    return composition.Photo(composition.relight(photo.image, plan.rng), photo.family, photo.placed)


def squared(image: Image.Image, size: int) -> Image.Image:
    """The photo as it is kept: squashed to size × size."""
    return image.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0)


def draw_kinds(config: CorpusConfig) -> list[Thing]:
    """The drawn things of the stock, `drawn_per_kind` of each kind."""
    return [thing for part in _map(_draw_kind, [(config, i) for i in range(len(KINDS))]) for thing in part]


def draw_plates(config: CorpusConfig) -> list[scenes.Scene]:
    """Backgrounds at about the photos' size, in the shapes that cameras give: `plates` of each family of scenes, as
    many plain ones, and as many crops of photographs where there is a folder of them."""
    groups = len(scenes.FAMILIES) + 1
    parts = _map(_draw_plates, [(config, i) for i in range(groups)])
    if config.backgrounds:  # in this process, so that a damaged photograph is reported as such
        parts.append(_draw_plates((config, groups)))
    return [plate for part in parts for plate in part]


def make_stock(config: CorpusConfig) -> list[Thing]:
    """The things that the corpus' photos are composed of; the same for the same configuration."""
    return with_packages(draw_kinds(config), config)


def with_packages(drawn: list[Thing], config: CorpusConfig) -> list[Thing]:
    """Drawn things, and after them those of the packages that the configuration asks for but those held out."""
    things = list(drawn)
    if config.stamps:
        things += stamps.load_stamps(config.size, held_out=False)
    if config.emoji:
        things += emoji.load_emoji(config.size, things)
    return [thing for thing in things if thing.source == "drawn" or thing.noun not in stamps.HELD_OUT_NOUNS]


ARRAYS = ("images", "cover", "things", "families", "modes")
STOCK, SETTINGS = "stock.safetensors", "corpus.json"
FORMAT = 3  # of the files in a corpus' folder; one of another format is composed anew


def make_corpus(config: CorpusConfig, folder: Path) -> Corpus:
    """Compose the corpus with all cores and keep it in `folder`; one that is there already is mapped into memory.

    Raises DataError for one that is damaged, OSError where nothing can be written.
    """
    settings = folder / SETTINGS
    if _kept(settings) != {"format": FORMAT, **vars(config)}:
        folder.mkdir(parents=True, exist_ok=True)
        settings.unlink(missing_ok=True)
        _compose(config, folder)
        told = json.dumps({"format": FORMAT, **vars(config)})
        write_atomically(settings, lambda file: file.write(told.encode()))  # last: now the files are whole
    try:
        stock = [
            thing_of(picture, about) for picture, about in zip(*load_pictures(folder / STOCK), strict=True)
        ]
        arrays = {name: map_rows(folder / f"{name}.npy") for name in ARRAYS}
        return _checked(Corpus(config=config, stock=stock, **arrays))
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(folder, f"a damaged world ({reason}); delete it, it will be composed anew") from error


def _kept(settings: Path) -> object:
    """What the folder says that it holds; None if it says nothing that can be read."""
    try:
        return read_json(settings)
    except (FileNotFoundError, ValueError):
        return None


def _compose(config: CorpusConfig, folder: Path) -> None:
    stock, make = _on_photographs(config) if config.photographs else _drawn_world(config)
    starts = range(0, config.photos, CHUNK)
    with ExitStack() as drafts, _pool(_set_making, (config, make)) as pool:
        files = {name: drafts.enter_context(drafted(folder / f"{name}.npy")) for name in ARRAYS}
        for name, (dtype, shape) in _shapes(config).items():
            begin_array(files[name], dtype, shape)
        for start, parts in zip(starts, pool.map(_compose_chunk, starts), strict=True):
            for file, rows in zip(files.values(), parts, strict=True):
                write_rows(file, start, rows)
    save_pictures(folder / STOCK, [thing.picture for thing in stock], [about_thing(thing) for thing in stock])


def _shapes(config: CorpusConfig) -> dict[str, tuple[type[np.generic], tuple[int, ...]]]:
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
    """`corpus`, if its arrays are what its configuration says. Raises ValueError."""
    for name, (dtype, shape) in _shapes(corpus.config).items():
        array = getattr(corpus, name)
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(f"{name}.npy is {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}")
    counts = {"things": len(corpus.stock), "families": len(scenes.FAMILIES), "modes": len(MODES)}
    for name, most in counts.items():
        array = getattr(corpus, name)
        if array.min(initial=-1) < -1 or array.max(initial=-1) >= most:
            raise ValueError(f"{name}.npy names what there is not")
    return corpus


def _pool(initializer: Any = None, arguments: tuple[Any, ...] = ()) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("fork")  # workers inherit the materials instead of unpickling them
    return ProcessPoolExecutor(mp_context=context, initializer=initializer, initargs=arguments)


def _map(function: Callable[[_Task], list[Any]], tasks: list[_Task]) -> list[list[Any]]:
    """With all cores; in a worker, which may have none of its own, one after the other."""
    if multiprocessing.current_process().daemon:
        return [function(task) for task in tasks]
    with _pool() as pool:
        return list(pool.map(function, tasks))


def _draw_kind(task: _Task) -> list[Thing]:
    config, number = task
    rng = np.random.default_rng([config.seed, 1, number])
    return draw_stock(rng, config.drawn_per_kind, config.size, [list(KINDS)[number]])


def _draw_plates(task: _Task) -> list[scenes.Scene]:
    config, group = task
    rng = np.random.default_rng([config.seed, 2, group])
    photographs = Backgrounds(Path(config.backgrounds)) if group > len(scenes.FAMILIES) else None
    plates = []
    for _ in range(config.plates):
        width, height = [(4, 3), (1, 1), (3, 4), (3, 2)][int(rng.integers(4))]
        unit = config.size * 1.25 / max(1.0, (width + height) / 2)
        size = (round(width * unit), round(height * unit))
        if group < len(scenes.FAMILIES):
            plates.append(scenes.draw_scene(scenes.FAMILIES[group], rng, size))
        else:
            draw = photographs.crop if photographs else scenes.draw_texture
            plates.append(scenes.Scene("", draw(rng, size), ()))
    return plates


@dataclass(frozen=True)
class _Made:
    """A composed picture. shown: stock number and mask (H, W) of each thing.  mode: of composites.MODES, or None"""

    image: Image.Image
    shown: list[tuple[int, composition.Mask]]
    family: str
    mode: Mode | None


_Make: TypeAlias = "Callable[[int], _Made]"  # picture of a number


def _drawn_world(config: CorpusConfig) -> tuple[list[Thing], _Make]:
    stock = make_stock(config)
    materials = Materials(config, stock, draw_plates(config))

    def make(number: int) -> _Made:
        plan = plan_photo(materials, number)
        photo = compose_photo(plan)
        shown = [(plan.numbers[id(placed.thing)], placed.mask) for placed in photo.placed]
        return _Made(photo.image, shown, photo.family, None)

    return stock, make


def _on_photographs(config: CorpusConfig) -> tuple[list[Thing], _Make]:
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
        draw_kinds(config),
        photographs,
        names,
        size=config.size,
        seed=config.seed,
        with_stamps=config.stamps,
        with_emoji=config.emoji,
    )
    composer = Composer(stock, photographs, draw_plates(config), size=config.size, seed=config.seed)

    def make(number: int) -> _Made:
        made = composer.compose(number)
        largest = sorted(made.shown, key=lambda one: -one[1].sum())[: config.most_things]
        return _Made(made.image, largest, made.family, made.mode)

    return stock.things, make


_making: list[tuple[CorpusConfig, _Make]] = []


def _set_making(config: CorpusConfig, make: _Make) -> None:
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


def _plan(rng: np.random.Generator, materials: Materials) -> Plan:
    """Perhaps without any thing, if none found room."""
    stock = materials.stock
    plate = materials.plates[int(rng.integers(len(materials.plates)))]
    alone = rng.random() < 0.12
    count = 1 if alone else int(rng.integers(2, MAX_THINGS + 1))
    picked = [_pick(rng, materials) for _ in range(count)]
    if materials.featured:
        picked[0] = len(stock) - 1 - int(rng.integers(materials.featured))
    if not alone and rng.random() < 0.4:
        picked[1] = _like(picked[0], rng, materials)
    numbers = {id(stock[i]): i for i in picked}
    size = (0.45, 0.8) if alone else (0.19, 0.48)
    spots = composition.place_things(plate, [stock[i] for i in numbers.values()], rng, size, loose=0.4)
    return Plan(plate, spots, numbers, rng)


def _like(number: int, rng: np.random.Generator, materials: Materials) -> int:
    """A hard negative: another thing of the same kind, which attributes must tell apart, or of the same colour."""
    thing = materials.stock[number]
    if thing.colour != "" and rng.random() < 0.4:
        alike = [i for i in materials.by_colour[thing.colour] if materials.stock[i].noun != thing.noun]
    else:
        alike = materials.by_noun[thing.noun]
    return alike[int(rng.integers(len(alike)))] if alike else number


def _grouped(words: list[str]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for i, word in enumerate(words):
        groups.setdefault(word, []).append(i)
    return groups


def _pick(rng: np.random.Generator, materials: Materials) -> int:
    """A drawn thing or a stamp with even odds."""
    drawn, stock = materials.drawn, len(materials.stock)
    if drawn == stock or rng.random() < 0.5:
        return int(rng.integers(drawn))
    return int(rng.integers(drawn, stock))


def _patch_cover(mask: npt.NDArray[np.bool_], grid: int) -> npt.NDArray[np.uint8]:
    """(H, W) bool -> (grid, grid) uint8: covered part of each cell after squashing to a square."""
    full = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(full.resize((grid, grid), Image.Resampling.BOX), np.uint8)
