"""What photos of the generated world are composed of, drawn once and kept in the cache folder.

Drawing the things takes a minute at 128 pixels and several at 336, which no worker should repeat. The file's name is
a hash of the settings and of the code that draws, so that what was drawn by other code is never taken for ours.
Stamps, emoji and photographs are read from where they are installed and not kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image

from steersearch.core.local_path import cache_folder
from steersearch.training import (
    corpus,
    drawing,
    objects_home,
    objects_outside,
    outdoors,
    plate,
    rooms,
    scenery,
    scenes,
)
from steersearch.training import things as things_module
from steersearch.training.corpus import CorpusConfig
from steersearch.training.scenes import Place, Scene
from steersearch.training.things import Thing

_CODE = (
    corpus,
    drawing,
    objects_home,
    objects_outside,
    outdoors,
    plate,
    rooms,
    scenery,
    scenes,
    things_module,
)


def kept_things(config: CorpusConfig) -> list[Thing]:
    """`corpus.draw_kinds`, from the cache folder if they are there, else drawn and kept."""
    file = _file("things", config.seed, config.size, config.drawn_per_kind)
    kept = _load(file)
    if kept is None:
        things = corpus.draw_kinds(config)
        _save(file, [thing.picture for thing in things], [_about(thing) for thing in things])
        return things
    return [
        Thing(picture=picture, **about | {"names": frozenset(about["names"])})
        for picture, about in zip(*kept, strict=True)
    ]


def kept_plates(config: CorpusConfig) -> list[Scene]:
    """`corpus.draw_plates`, likewise; crops of photographs are cut anew."""
    if config.backgrounds:
        return corpus.draw_plates(config)
    file = _file("plates", config.seed, config.size, config.plates)
    kept = _load(file)
    if kept is None:
        plates = corpus.draw_plates(config)
        about = [
            {"family": scene.family, "places": [asdict(place) for place in scene.places]} for scene in plates
        ]
        _save(file, [scene.image for scene in plates], about)
        return plates
    return [
        Scene(about["family"], picture, tuple(Place(**place) for place in about["places"]))
        for picture, about in zip(*kept, strict=True)
    ]


def _about(thing: Thing) -> dict[str, Any]:
    about = {field.name: getattr(thing, field.name) for field in fields(thing) if field.name != "picture"}
    return about | {"names": sorted(thing.names)}


def _file(what: str, *settings: int) -> Path:
    key = hashlib.sha256(json.dumps([*settings, drawing_code(), PIL.__version__, np.__version__]).encode())
    return cache_folder() / "world" / f"{what}-{key.hexdigest()[:20]}.npz"


@cache
def drawing_code() -> str:
    """Hash of the sources of all that draws: what was drawn under another one is not ours."""
    return hashlib.sha256(b"".join(Path(str(part.__file__)).read_bytes() for part in _CODE)).hexdigest()


def _save(file: Path, pictures: Sequence[Image.Image], about: Sequence[dict[str, Any]]) -> None:
    """Written beside, then renamed: whoever reads it finds it whole."""
    arrays = [np.asarray(picture) for picture in pictures]
    pixels = np.concatenate([array.ravel() for array in arrays])
    shapes = np.array([array.shape for array in arrays], np.int32)
    told = np.frombuffer(json.dumps(about).encode(), np.uint8)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
            np.savez(part, pixels=pixels, shapes=shapes, about=told)
        os.replace(part.name, file)
    except OSError:
        return  # no room, or no right to write: it is drawn again the next time


def _load(file: Path) -> tuple[list[Image.Image], list[dict[str, Any]]] | None:
    """None if it is not there, or damaged."""
    try:
        with np.load(file, allow_pickle=False) as kept:
            pixels: npt.NDArray[np.uint8] = kept["pixels"]
            shapes, about = kept["shapes"], json.loads(kept["about"].tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    ends = np.cumsum(shapes.prod(axis=1, dtype=np.int64))
    parts = np.split(pixels, ends[:-1])
    return [Image.fromarray(part.reshape(shape)) for part, shape in zip(parts, shapes, strict=True)], about
