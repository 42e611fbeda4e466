"""`verify --repair` beside errors that pass: what cannot be read now is said and left as it is, to the last byte."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from steersearch.core.errors import SteerSearchError
from steersearch.indexer.care.tables import Tables
from tests.toy_embedder import ToyEmbedder, save_photos
from tests.toy_library import Library

ROOT = Path(__file__).parent.parent

# What a user with fewer rights, file handles or threads meets. Everything is imported before these are given up.
PROGRAM = """
import json, os, resource, sys
import decimal, lancedb, lancedb.query, platformdirs, pyarrow.compute, pyarrow.dataset, pyarrow.ipc
from steersearch.indexer.library import Library
from tests.toy_embedder import ToyEmbedder
from steersearch.indexer import library
from steersearch.indexer.care import tables
from steersearch.indexer.care import verify
from steersearch.core.errors import SteerSearchError

place, limit = sys.argv[1:]
found = Library.open(place)
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
if limit == "files":
    open_now = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 1, open_now + 1))
if limit == "threads":
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
try:
    said = [[finding.subject, finding.what, finding.is_problem] for finding in found.verify(repair=True)]
except SteerSearchError as error:
    said = [["error", str(error), True]]
print(json.dumps(said))
"""


@pytest.fixture
def library() -> Iterator[Library]:
    """In a folder that any user can reach and write to."""
    root = Path(tempfile.mkdtemp())
    library = Library.create(save_photos(root / "photos", 4), root / "library")
    library.index(ToyEmbedder(), ["red"])
    for path in (root, *root.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
    yield library
    shutil.rmtree(root)


def files(library: Library) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in library.place.rglob("*") if p.is_file() and p.parent.name != "locks"}


def repaired(library: Library, limit: str = "") -> list[tuple[str, str, bool]]:
    """The findings of a repair in a process of its own, by a user without special rights."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, library.place, limit],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    return [
        (subject, what, is_problem) for subject, what, is_problem in json.loads(ran.stdout.splitlines()[-1])
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="needs the rights and limits of Linux")
def test_what_may_not_be_read_is_left_as_it_is(library: Library) -> None:
    """One process for all: each file is closed while the others are looked at."""
    before = files(library)
    patterns = (
        "lance/images.lance/data/*", "lance/prompt_*/_versions/*.manifest", "lance/frozen_*/data/*",
        "prompts/*/features.npy", "prompts/*/manifest.json", "snapshots/red-*/*.npy", "snapshots/frozen_*/*.arrow",
    )  # fmt: skip
    closed = [path for pattern in patterns for path in library.place.glob(pattern)]
    for path in closed:
        path.chmod(0)
    found = repaired(library)
    for path in closed:
        path.chmod(0o666)
    assert files(library) == before
    assert {what.split(" (")[0] for _, what, is_problem in found if is_problem} >= {
        "their table cannot be read now",
        "its manifest cannot be read now",
    }
    assert all(
        is_problem and "Permission denied" in what for _, what, is_problem in found if "unfinished" not in _
    )
    assert library.verify(deep=True) == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs the rights and limits of Linux")
@pytest.mark.parametrize("limit", ["files", "threads"])
def test_too_few_file_handles_or_threads_are_no_damage(library: Library, limit: str) -> None:
    before = files(library)
    found = repaired(library, limit)
    assert files(library) == before
    assert any(is_problem for _, _, is_problem in found)
    assert library.verify(deep=True) == []


@pytest.mark.parametrize(
    "pattern",
    ["lance/images.lance/data/*", "lance/prompt_*/data/*", "lance/frozen_*/data/*", "lance/*/_versions"],
)
def test_what_is_away_for_a_moment_is_waited_for(library: Library, tmp_path: Path, pattern: str) -> None:
    before = files(library)
    (path, *_) = library.place.glob(pattern)
    path.rename(tmp_path / "away")
    assert any(finding.is_problem for finding in library.verify())
    assert any(finding.is_problem for finding in library.verify(repair=True))
    with pytest.raises(SteerSearchError):
        library.index(ToyEmbedder(), ["red"])
    (tmp_path / "away").rename(path)
    assert before.items() <= files(library).items()
    assert library.verify(deep=True) == []


def test_what_is_set_aside_is_kept(library: Library) -> None:
    manifest = next(library.place.glob("prompts/*/manifest.json"))
    table = next(library.place.glob("lance/prompt_*/data/*"))
    features = next(library.place.glob("prompts/*/features.npy"))
    for path in (manifest, table, features):
        path.write_bytes(b"damaged")
    library.verify(repair=True)
    kept = [
        p.relative_to(library.place / "set-aside")
        for p in library.place.rglob("set-aside/**/*")
        if p.is_file()
    ]
    assert {Path(*path.parts[1:]) for path in kept} >= {
        path.relative_to(library.place) for path in (manifest, table)
    }
    library.verify(repair=True)
    library.index(ToyEmbedder(), ["red"])
    assert library.verify(deep=True) == []
    library.delete()
    assert not library.place.exists()


def test_a_repair_that_was_killed_before_the_last_step_is_finished(library: Library) -> None:
    """The new table is whole and has its name not yet, the old one is set aside."""
    (table,) = library.place.glob("lance/prompt_*")
    expected = vectors(library)
    table.rename(table.with_name(f"repaired_{table.name}"))
    shutil.rmtree(library.place / "snapshots")
    assert not any(finding.is_problem for finding in library.verify(repair=True))
    assert vectors(library) == expected


def test_vectors_come_back_from_a_snapshot_that_an_earlier_repair_set_aside(library: Library) -> None:
    expected = vectors(library)
    for pattern in ("lance/images.lance/data/*", "lance/prompt_*/data/*"):
        (path,) = library.place.glob(pattern)
        path.write_bytes(b"damaged")
    assert not any(finding.is_problem for finding in library.verify(repair=True))
    assert vectors(library) == expected


def test_a_snapshot_whose_manifest_and_table_are_away_is_kept(library: Library, tmp_path: Path) -> None:
    (table,) = library.place.glob("lance/prompt_*")
    next(library.place.glob("prompts/*/manifest.json")).write_text("damaged")
    table.rename(tmp_path / "away")
    library.optimize()
    assert list(library.place.glob("snapshots/red-*/*.npy"))


def vectors(library: Library) -> set[tuple[str, bytes]]:
    """The contents that have a vector, with it."""
    key = library.find_prompt_index("red").key
    rows = Tables(library.place).inspect(
        f"prompt_{key}", None, lambda batches: [r for b in batches for r in b.to_pylist()]
    )
    return {(row["image_id"], np.array(row["embedding"], np.float32).tobytes()) for row in rows}
