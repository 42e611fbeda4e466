"""Odd values and files at the command line: whatever is given, the outcome is an answer or an error in words."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.conftest import Run

SEED = 0
TRIES = 80

FILES = {
    "empty.json": b"",
    "list.json": b"[1, 2]",
    "number.json": b"3",
    "object.json": b'{"a": 1}',
    "nested.json": b"[" * 100_000,
    "bytes.json": b"\xff\xfe\x00" * 50,
    "coco.json": b'{"images": [1], "annotations": {"a": 3}, "categories": null}',
    "infinite.json": b'{"images": [{"id": 1e999, "file_name": "\\ud800"}], "annotations": [{"image_id": 1e999}]}',
    "weights.safetensors": b"\xff" * 64,
    "weights.pth": b"PK\x03\x04 no archive",
}
NAMES = (
    "",
    " ",
    ".",
    "nowhere",
    "\udcff.json",
    "x" * 5000,
    "a\nb",
    "[red]",
    "https://a/b",
    "--",
    "/proc/self/mem",
    "/dev/zero",
)

# VALUE is what is odd; LIBRARY and PHOTO are as they should be.
COMMANDS = [
    "index VALUE --prompt x",
    "index PHOTOS --prompt x --library VALUE --model mini",
    "index PHOTOS --prompt x --model VALUE",
    "query VALUE --focus mug --library LIBRARY",
    "query PHOTO --focus mug --library VALUE",
    "find mug --in VALUE --library LIBRARY",
    "find mug --where VALUE --library LIBRARY",
    "find mug --model VALUE --library LIBRARY",
    "find mug --html VALUE/page.html --library LIBRARY",
    "info --library VALUE",
    "remove VALUE --library LIBRARY",
    "export VALUE/x.parquet --focus mug --library LIBRARY",
    "export x.arrow --focus VALUE --library LIBRARY",
    "explain VALUE --focus mug --model TINY -o x.png",
    "explain PHOTO --focus mug --model VALUE -o x.png",
    "models show VALUE",
    "train check VALUE",
    "train masks VALUE -o masks",
    "train --preset VALUE --dry-run",
    "train --resume -o VALUE --dry-run",
    "train --preset mini --dry-run --data VALUE",
    "train --preset mini --dry-run --set VALUE",
    "train --preset mini --dry-run --set data.cache=VALUE",
    "bench core --model TINY --data VALUE",
    "bench genecis --model TINY --data VALUE",
    "bench pods --model TINY --data VALUE",
    "bench refcocog --model TINY --data VALUE",
    "bench mosaic --model TINY --data VALUE",
    "bench build mosaic VALUE -o built",
    "bench build core PHOTOS -o built --objects VALUE",
    "bench report -o VALUE/x.md",
]


@pytest.fixture
def places(run: Run, photos: Path, tiny_model: Path, tmp_path: Path) -> dict[str, str]:
    place = tmp_path / "library"
    made = run("index", photos, "--prompt", "mug", "--model", tiny_model, "--library", place, "--no-regions")
    assert made.code == 0
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    paths = {"LIBRARY": place, "PHOTOS": photos, "PHOTO": photos / "red.jpg", "TINY": tiny_model}
    return {name: str(path) for name, path in paths.items()}


def test_whatever_is_given_is_answered_or_refused_in_words(run: Run, places: dict[str, str]) -> None:
    draw = random.Random(SEED)
    values = [*FILES, "pipe.json", "folder.json", *NAMES]
    refused = 0
    for number in range(TRIES):  # each command twice at least, with other values
        command, value = COMMANDS[number % len(COMMANDS)], draw.choice(values)
        arguments = [places.get(word, word.replace("VALUE", value)) for word in command.split()]
        done = run(*arguments)
        assert done.code in (0, 1, 2), (arguments, done)
        assert "a fault of steersearch" not in done.err, (arguments, done)
        assert done.code == 0 or "rror: " in done.err, (arguments, done)
        refused += done.code != 0
    assert refused > TRIES / 2


def test_objects_that_are_no_objects_are_refused(run: Run, places: dict[str, str]) -> None:
    """A pipe is not waited for, and brackets without end are no fault of ours."""
    for name, reason in (("nested.json", "it is nested too deeply"), ("pipe.json", "not a regular file")):
        done = run("bench", "build", "core", places["PHOTOS"], "-o", "built", "--objects", name)
        assert done.code == 1
        assert f"error: {name}: not JSON that can be read (" in done.err
        assert reason in done.err
