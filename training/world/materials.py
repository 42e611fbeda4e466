"""What photos of the generated world are composed of, drawn once and kept in the cache folder.

Drawing the things takes a minute at 128 pixels and several at 336, which no worker should repeat. The file's name is
a hash of the settings and of the code that draws, so that what was drawn by other code is never taken for ours.
Stamps, emoji and photographs are read from where they are installed and not kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL
from PIL import Image

from steersearch.core.files import cache_folder
from steersearch.training.world import corpus
from steersearch.training.world.corpus import CorpusConfig
from steersearch.training.world.picture_file import load_pictures, save_pictures
from steersearch.training.world.scenes import Place, Scene
from steersearch.training.world.things import Thing, about_thing, thing_of

T = TypeVar("T")


def kept_things(config: CorpusConfig) -> list[Thing]:
    """`corpus.draw_kinds`, from the cache folder if they are there, else drawn and kept."""
    file = _file("things", config.seed, config.size, config.drawn_per_kind)
    kept = _load(file, thing_of)
    if kept is None:
        kept = corpus.draw_kinds(config)
        _save(file, [thing.picture for thing in kept], [about_thing(thing) for thing in kept])
    return kept


def kept_plates(config: CorpusConfig) -> list[Scene]:
    """`corpus.draw_plates`, likewise; crops of photographs are cut anew."""
    if config.backgrounds:
        return corpus.draw_plates(config)
    file = _file("plates", config.seed, config.size, config.plates)
    kept = _load(file, _scene)
    if kept is None:
        kept = corpus.draw_plates(config)
        places = [[asdict(place) for place in scene.places] for scene in kept]
        about = [{"family": scene.family, "places": there} for scene, there in zip(kept, places, strict=True)]
        _save(file, [scene.image for scene in kept], about)
    return kept


def _scene(picture: Image.Image, about: Mapping[str, Any]) -> Scene:
    return Scene(about["family"], picture, tuple(Place(**place) for place in about["places"]))


def _file(what: str, *settings: int) -> Path:
    key = hashlib.sha256(json.dumps([*settings, drawing_code(), PIL.__version__, np.__version__]).encode())
    return cache_folder() / "world" / f"{what}-{key.hexdigest()[:20]}.safetensors"


@cache
def drawing_code() -> str:
    """Hash of this package's sources: pictures kept under another one are drawn again."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def _save(file: Path, pictures: Sequence[Image.Image], about: Sequence[Mapping[str, object]]) -> None:
    with suppress(OSError):  # no room, or no right to write: it is drawn again the next time
        save_pictures(file, pictures, about)


def _load(file: Path, make: Callable[[Image.Image, Mapping[str, Any]], T]) -> list[T] | None:
    """What is made of each picture and what is said of it; None if the file is not there, or damaged."""
    try:
        return [make(picture, about) for picture, about in zip(*load_pictures(file), strict=True)]
    except (OSError, ValueError, KeyError, TypeError):
        return None
