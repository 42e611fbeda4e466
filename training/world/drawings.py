"""The things and backgrounds that photos are composed of, drawn with all cores and kept in the cache folder.

Drawing takes a minute at 128 pixels and several at 336. A kept file is named after a hash of the settings and of
this package's sources, so drawings by other code are never used.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL
from PIL import Image

from steersearch.core.files import cache_folder
from steersearch.training.world import scenes
from steersearch.training.world.backgrounds import Backgrounds
from steersearch.training.world.kinds import KINDS
from steersearch.training.world.painting import pick
from steersearch.training.world.picture_file import load_pictures, save_pictures
from steersearch.training.world.places import Place
from steersearch.training.world.scenes import Scene
from steersearch.training.world.things import Thing, about_thing, draw_stock, thing_of

T = TypeVar("T")

SHAPES = ((4, 3), (1, 1), (3, 4), (3, 2))  # of backgrounds, as of cameras


def draw_things(seed: int, size: int, each: int) -> list[Thing]:
    """`each` things of every kind, their longer side at most `size` pixels."""
    return _with_all_cores(partial(_of_kind, seed, size, each), KINDS)


def draw_plates(seed: int, size: int, each: int, photographs: str = "") -> list[Scene]:
    """`each` backgrounds of every family of scenes, as many without a scene, and as many crops of the photographs in
    that folder, if it is given; at about `size` pixels. Raises DataError."""
    plates = _with_all_cores(partial(_of_family, seed, size, each), (*scenes.FAMILIES, ""))
    if photographs:  # in this process, so that a damaged photograph is reported as such
        plates += _plates(seed, size, each, "", len(scenes.FAMILIES) + 1, Backgrounds(Path(photographs)).crop)
    return plates


def kept_things(seed: int, size: int, each: int) -> list[Thing]:
    """`draw_things`, from the cache folder if they are in it."""
    return _kept("things", (seed, size, each), draw_things, _of_thing, thing_of)


def kept_plates(seed: int, size: int, each: int, photographs: str = "") -> list[Scene]:
    """`draw_plates`, from the cache folder if they are in it; with photographs they are always drawn."""
    if photographs:
        return draw_plates(seed, size, each, photographs)
    return _kept("plates", (seed, size, each), draw_plates, _of_scene, _scene)


@cache
def drawing_code() -> str:
    """Hash of this package's sources: pictures kept under another one are drawn again."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def forked_pool(initializer: Any = None, arguments: tuple[Any, ...] = ()) -> ProcessPoolExecutor:
    """A pool on all cores, whose workers inherit memory instead of unpickling it."""
    context = multiprocessing.get_context("fork")
    return ProcessPoolExecutor(mp_context=context, initializer=initializer, initargs=arguments)


def _with_all_cores(draw: Callable[[str], list[T]], names: Iterable[str]) -> list[T]:
    if multiprocessing.current_process().daemon:  # a worker cannot start workers
        return [drawn for name in names for drawn in draw(name)]
    with forked_pool() as pool:
        return [drawn for part in pool.map(draw, names) for drawn in part]


def _of_kind(seed: int, size: int, each: int, kind: str) -> list[Thing]:
    return draw_stock(np.random.default_rng([seed, 1, list(KINDS).index(kind)]), each, size, [kind])


def _of_family(seed: int, size: int, each: int, family: str) -> list[Scene]:
    group = (*scenes.FAMILIES, "").index(family)
    return _plates(seed, size, each, family, group, scenes.draw_texture)


def _plates(
    seed: int,
    size: int,
    each: int,
    family: str,
    group: int,
    draw: Callable[[np.random.Generator, tuple[int, int]], Image.Image],
) -> list[Scene]:
    """Backgrounds of a family, or drawn by `draw` where it is "". group: decides the generator"""
    rng = np.random.default_rng([seed, 2, group])
    plates = []
    for _ in range(each):
        width, height = pick(rng, SHAPES)
        unit = size * 1.25 / max(1.0, (width + height) / 2)
        shape = (round(width * unit), round(height * unit))
        plates.append(scenes.draw_scene(family, rng, shape) if family else Scene("", draw(rng, shape), ()))
    return plates


def _of_thing(thing: Thing) -> tuple[Image.Image, dict[str, Any]]:
    return thing.picture, about_thing(thing)


def _of_scene(scene: Scene) -> tuple[Image.Image, dict[str, Any]]:
    return scene.image, {"family": scene.family, "places": [asdict(place) for place in scene.places]}


def _scene(picture: Image.Image, about: Mapping[str, Any]) -> Scene:
    return Scene(about["family"], picture, tuple(Place(**place) for place in about["places"]))


def _kept(
    what: str,
    settings: tuple[int, int, int],
    draw: Callable[[int, int, int], list[T]],
    parts: Callable[[T], tuple[Image.Image, dict[str, Any]]],
    make: Callable[[Image.Image, Mapping[str, Any]], T],
) -> list[T]:
    """The result of `draw` for these settings, from a kept file if there is a sound one."""
    key = hashlib.sha256(json.dumps([*settings, drawing_code(), PIL.__version__, np.__version__]).encode())
    file = cache_folder() / "world" / f"{what}-{key.hexdigest()[:20]}.safetensors"
    with suppress(OSError, ValueError, KeyError, TypeError):
        return [make(picture, about) for picture, about in zip(*load_pictures(file), strict=True)]
    drawn = draw(*settings)
    pictures, about = zip(*map(parts, drawn), strict=True)
    with suppress(OSError):  # no space or permission: it is drawn again next time
        save_pictures(file, pictures, about)
    return drawn
