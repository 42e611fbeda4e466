"""genecis-world: GeneCIS's four splits on generated photos, in the published layout. A stand-in, not GeneCIS.

A pool of photos of six families of scenes, three drawn things in each, from seeds that training never used:
focus_object      condition a kind of thing; the target shows it too, in another family of scene; the others do not, and
                  half of them are of the reference's family
change_object     the reference lacks the thing; the target is of its family and has it; the others are one or the other
focus_attribute   boxes of things of one kind; condition "color" or "pattern": the target has the reference's
change_attribute  condition another colour: the target is of the reference's kind and has it; the others either
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image

from steersearch.benchmarks.harness.cache import kept_dataset
from steersearch.benchmarks.paper import world_photos
from steersearch.benchmarks.paper.genecis_data import GenecisData, cut_out, read_split, to_square
from steersearch.core.errors import BenchmarkError
from steersearch.core.files import file_sha256
from steersearch.training.world import composition, drawings, scenes
from steersearch.training.world.kinds import KINDS
from steersearch.training.world.painting import Look
from steersearch.training.world.things import draw_thing

VERSION = 1
SEED = 93_000  # training uses small seeds, other stand-ins 90,000 to 92,000
PHOTOS = 360
ROWS = 60  # of each split
LOOKS = 8  # of each kind
SIZE = (320, 240)
THING_SIZE = (0.25, 0.45)  # longer side as part of the picture's height
# Beside the target.
GALLERY = {"focus_object": 14, "change_object": 14, "focus_attribute": 9, "change_attribute": 14}

Rng = np.random.Generator


@dataclass(frozen=True)
class Seen:
    """A thing in a photo: its look, and its box (x, y, width, height) in pixels."""

    photo: int
    family: str
    look: Look
    box: tuple[int, int, int, int]


def dataset(rows: int, splits: Sequence[str], photos: int = PHOTOS) -> GenecisData:
    """The stand-in as a data set in the cache folder, drawn once per version of the drawing code.

    rows: of each split.
    """
    key = {"rows": rows, "photos": photos, "code": _code()}
    folder, _ = kept_dataset("genecis-world", key, lambda empty: _write(empty, rows, photos))
    read = [read_split(split, folder / f"{split}.json", folder)[0] for split in splits]
    return GenecisData(
        name="genecis-world",
        source="generated stand-in",
        licence="Apache-2.0, as this program",
        splits=tuple(read),
        remarks={"version": VERSION},
    )


def _write(folder: Path, rows: int, photos: int) -> dict[str, Any]:
    things = list(_draw(folder, photos))
    counts = {}
    for number, (split, ask) in enumerate(_QUESTIONS.items()):
        made = _rows(ask, things, rows, np.random.default_rng([SEED, VERSION, 1, number]), GALLERY[split])
        (folder / f"{split}.json").write_text(json.dumps(made), encoding="utf-8")
        counts[split] = len(made)
    return {"rows": counts}


def _draw(folder: Path, photos: int) -> Iterator[Seen]:
    """Draw the pool into both folders of pictures; returns its contents."""
    for sub in ("val2017", "VG_100K"):
        (folder / sub).mkdir(parents=True)
    for number, (photo, seen) in enumerate(_pool(photos), 1):
        for path in (folder / "val2017" / f"{number:012d}.jpg", folder / "VG_100K" / f"{number}.jpg"):
            photo.save(path, "JPEG", quality=95)
        yield from seen


def _pool(photos: int) -> Iterator[tuple[Image.Image, list[Seen]]]:
    """The photos of the pool and their contents; the first are the same for any number."""
    rng = np.random.default_rng([SEED, VERSION, 0])
    looks = {name: [kind.sample_look(rng) for _ in range(LOOKS)] for name, kind in KINDS.items()}
    for number in range(photos):
        kinds = rng.choice(list(KINDS), 3, replace=False)
        chosen = [looks[kind][int(rng.integers(LOOKS))] for kind in kinds]
        drawn = [draw_thing(look, rng, 160) for look in chosen]
        family = scenes.FAMILIES[number % len(scenes.FAMILIES)]
        photo = world_photos.photo_of(family, [(drawn, THING_SIZE)], rng, SIZE, 0.008)
        seen = []
        for placed in photo.placed:
            look = next(look for look, thing in zip(chosen, drawn, strict=True) if thing is placed.thing)
            left, top, right, bottom = placed.box
            seen.append(Seen(number + 1, family, look, (left, top, right - left, bottom - top)))
        yield photo.image, seen


def examples(photos: int = 24) -> list[tuple[str, Image.Image]]:
    """A row of each "focus" split from the first photos of the pool: reference, target, one of the others."""
    images, seen = zip(*_pool(photos), strict=True)
    things = [thing for each in seen for thing in each]
    shown = []
    for number, split in enumerate(("focus_object", "focus_attribute")):
        row, *_ = _rows(_QUESTIONS[split], things, 1, np.random.default_rng([SEED, VERSION, 2, number]), 1)
        parts = (
            (f'reference, "the {row["condition"]}"', row["reference"]),
            ("right", row["target"]),
            ("wrong", row["gallery"][0]),
        )
        shown += [(f"{split.replace('_', ' ')}: {said}", _shown(entry, images)) for said, entry in parts]
    return shown


def _shown(entry: dict[str, Any], images: Sequence[Image.Image]) -> Image.Image:
    """The picture of an entry of a row: a photo, or a box of it."""
    if "instance_bbox" in entry:
        return to_square(cut_out(images[int(entry["image_id"]) - 1], entry["instance_bbox"]))
    return images[int(entry["val_image_id"]) - 1]


# ------------------------------------------------------------------------------------------------------- rows

Entry = dict[str, Any]
# Reference, condition, target, two sorts of others.
Asked = tuple[Entry, str, Entry, list[Entry], list[Entry]]


def _rows(
    ask: Callable[..., Asked | None], things: Sequence[Seen], rows: int, rng: Rng, others: int
) -> list[Entry]:
    made: list[Entry] = []
    for _ in range(rows * 50):
        if len(made) == rows:
            return made
        asked = ask(things, rng)
        if asked is None:
            continue
        reference, condition, target, near, far = asked
        half = min(others // 2, len(far))
        if len(near) < others - half:
            continue
        picked = [*_pick(near, others - half, rng), *_pick(far, half, rng)]
        made.append({"reference": reference, "target": target, "gallery": picked, "condition": condition})
    raise BenchmarkError(
        f"{len(made)} of {rows} rows found room in a pool of {len({t.photo for t in things})} photos"
    )


def _focus_object(things: Sequence[Seen], rng: Rng) -> Asked | None:
    reference = things[int(rng.integers(len(things)))]
    kind = reference.look.kind
    having = {thing.photo for thing in things if thing.look.kind == kind}
    targets = [t for t in things if t.look.kind == kind and t.family != reference.family]
    if not targets:
        return None
    without = _photos(t for t in things if t.photo not in having)
    near = [_coco(photo) for photo, family in without.items() if family == reference.family]
    far = [_coco(photo) for photo, family in without.items() if family != reference.family]
    return _coco(reference.photo), kind, _coco(_one(targets, rng).photo), near, far


def _change_object(things: Sequence[Seen], rng: Rng) -> Asked | None:
    reference, wanted = (things[int(i)] for i in rng.choice(len(things), 2, replace=False))
    kind = wanted.look.kind
    having = {thing.photo for thing in things if thing.look.kind == kind}
    targets = [
        t for t in things if t.photo in having and t.look.kind == kind and t.family == reference.family
    ]
    if reference.photo in having or not targets:
        return None
    families = _photos(things)
    near = [
        _coco(photo)
        for photo, family in families.items()
        if family == reference.family and photo not in having and photo != reference.photo
    ]
    far = [_coco(photo) for photo in having if families[photo] != reference.family]
    return _coco(reference.photo), kind, _coco(_one(targets, rng).photo), near, far


def _focus_attribute(things: Sequence[Seen], rng: Rng) -> Asked | None:
    reference = things[int(rng.integers(len(things)))]
    condition = ("color", "pattern")[int(rng.integers(2))]

    def value(thing: Seen) -> str:
        return thing.look.colour if condition == "color" else thing.look.pattern

    same = [t for t in things if t.look.kind == reference.look.kind and t.photo != reference.photo]
    targets = [t for t in same if value(t) == value(reference)]
    near = [_box(t) for t in same if value(t) != value(reference)]
    if not targets:
        return None
    return _box(reference), condition, _box(_one(targets, rng)), near, []


def _change_attribute(things: Sequence[Seen], rng: Rng) -> Asked | None:
    reference = things[int(rng.integers(len(things)))]
    same = [t for t in things if t.look.kind == reference.look.kind and t.photo != reference.photo]
    others = [t for t in same if t.look.colour != reference.look.colour]
    if not others:
        return None
    target = _one(others, rng)
    colour = target.look.colour
    near = [_box(t) for t in same if t.look.colour != colour]
    far = [_box(t) for t in things if t.look.kind != reference.look.kind and t.look.colour == colour]
    return _box(reference), colour, _box(target), near, far


_QUESTIONS: dict[str, Callable[[Sequence[Seen], Rng], Asked | None]] = {
    "focus_object": _focus_object,
    "change_object": _change_object,
    "focus_attribute": _focus_attribute,
    "change_attribute": _change_attribute,
}


def _photos(things: Sequence[Seen] | Iterator[Seen]) -> dict[int, str]:
    """photo -> its family."""
    return {thing.photo: thing.family for thing in things}


def _coco(photo: int) -> Entry:
    return {"val_image_id": photo}


def _box(thing: Seen) -> Entry:
    return {"image_id": thing.photo, "instance_bbox": list(thing.box)}


def _one(things: Sequence[Seen], rng: Rng) -> Seen:
    return things[int(rng.integers(len(things)))]


def _pick(entries: Sequence[Entry], count: int, rng: Rng) -> list[Entry]:
    return [entries[int(i)] for i in rng.choice(len(entries), count, replace=False)] if count else []


def _code() -> list[str]:
    """What determines the drawn photos."""
    own = [file_sha256(Path(str(part))) for part in (__file__, composition.__file__, world_photos.__file__)]
    return [drawings.drawing_code(), *own, PIL.__version__, np.__version__]
