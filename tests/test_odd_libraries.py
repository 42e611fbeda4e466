"""Libraries that are odd or damaged, from a run that failed early or from somebody else: whatever a command is asked of
them, it answers, or fails with one line that says why."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from steersearch.indexer.care.tables import Tables
from steersearch.indexer.checksums import read_table, write_table
from steersearch.indexer.database import Database
from steersearch.indexer.schema import (
    IMAGES,
    THUMBNAILS,
    gallery_schema,
    unsteered_gallery_schema,
    with_checksums,
)
from tests.conftest import Run

Oddity = tuple[str, Callable[[Path], object]]  # what is odd, and how to make a library so

VALUES: tuple[object, ...] = (
    None, True, 0, -1, 2**70, 10**400, 1e308, float("nan"), "", " ", "x", "x" * 100_000, "a\0b", "../../x", "/etc",
    "\x1b[2J",     "\ud800", [], [1], {}, {"size": "x"}, {"size": -1, "mode": "tile"},
)  # fmt: skip
CONTENTS = (
    b"", b"null", b"[]", b"3", b'"x"', b"{}", b"\xff\xfe", b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"a":' * 50_000,
    b"1" * 10_000, b"NaN", bytes(4096),
)  # fmt: skip
ROW_VALUES: dict[str, tuple[object, ...]] = {
    "path": ("/etc/passwd", "../outside.jpg", "", ".", "a\0b.jpg", "x" * 5000, "no\nsuch.jpg", "\x1b[2J.jpg"),
    "image_id": ("", "x", "'; DROP", "\0"),
    "size": (-1, 2**62),
    "mtime_ns": (-(2**62), 2**62),
    "width": (None, 0, -5, 2**31 - 1),
    "height": (None, 0, -5),
    "taken_at_precision": (None, "fortnight"),
    "taken_at_source": (None, "hearsay"),
    "status": ("", "odd"),
    "reason": ("odd",),
}
THUMBNAIL_VALUES: dict[str, tuple[object, ...]] = {
    "image_id": ("", "x"),
    "thumbnail": (b"", b"not a picture", b"\xff\xd8" + bytes(99)),
}
VECTOR_VALUES: dict[str, tuple[object, ...]] = {
    "image_id": ("", "x"),
    "heatmap": (b"", b"odd", b"\xff" * 100),
    "presence": (None, float("inf"), float("-inf"), 1e30),
    "embedding": ([0.0] * 32, [1e38] * 32),
}


UNSTEERED_VALUES: dict[str, tuple[object, ...]] = {
    "regions": (b"", b"odd", b"\xff" * 100, bytes(100)),
    "embedding": ([0.0] * 32, [6e4] * 32),
}


@pytest.fixture
def library(run: Run, photos: Path, tiny_model: Path, tmp_path: Path) -> Path:
    place = tmp_path / "library"
    assert run("index", photos, "--prompt", "mug", "--model", tiny_model, "--library", place).code == 0
    assert run("query", photos / "red.jpg", "--focus", "mug", "--library", place).code == 0
    return place


def ask(run: Run, place: Path, photos: Path) -> None:
    """Each command ends with an answer, or with a line of words and exit code 1; an exception would be raised here."""
    page, table = place.parent / "page.html", place.parent / "table.parquet"
    for path in (page, table):
        path.unlink(missing_ok=True)
    asked = (
        ["query", photos / "red.jpg", "--focus", "mug", "--html", page],
        ["query", photos / "red.jpg", "--focus", "mug", "--json", "--in", "sub", "--collapse"],
        ["find", "mug", "--html", page],
        ["find", "kite", "--json"],
        ["info"],
        ["info", "--json"],
        ["verify", "--deep"],
        ["export", "-o", table, "--focus", "mug"],
        ["optimize"],
        ["verify", "--repair"],
    )
    for command, *arguments in asked:
        ran = run(command, *arguments, "--library", place)
        assert ran.code in (0, 1), (command, ran.err)
        assert "Traceback" not in ran.err, (command, ran.err)
        if ran.code == 1 and command != "verify":
            assert any(line.startswith("error: ") for line in ran.err.splitlines()), (command, ran.err)
            assert len(ran.err) < 10_000, command
        assert "root:" not in (page.read_text("utf-8", "replace") if page.exists() else ""), command


def withstand(run: Run, library: Path, photos: Path, oddities: list[Oddity]) -> None:
    whole = library.with_name("whole")
    shutil.copytree(library, whole)
    for what, make in oddities:
        shutil.rmtree(library, ignore_errors=True)
        shutil.copytree(whole, library)
        make(library)
        try:
            ask(run, library, photos)
        except BaseException as error:
            error.add_note(what)
            raise


# what is odd


def odd_files(library: Path) -> Iterator[Oddity]:
    """Other content in the small files, and other things in their places."""
    for name in ("library.json", "exclude.json", "prompts/*/manifest.json", "prompts/*/reading.json",
                 "prompts/*/features.npy", "lance/images.lance/checksums.json", "lance/prompt_*/checksums.json",
                 "snapshots/mug-*/*.arrow", "snapshots/mug-*/*.npy", "snapshots/frozen_*/*.arrow"):  # fmt: skip
        path = next(library.glob(name), library / name).relative_to(library)
        for content in CONTENTS:
            yield f"{path}: {content[:20]!r}", partial(write, path, content)
        yield f"{path}: none", partial(delete, path)
        yield f"{path}: a folder", partial(folder, path)
        yield f"{path}: a pipe", partial(pipe, path)
        yield f"{path}: a link to itself", partial(link, path, path.name)
        yield f"{path}: a link to a device", partial(link, path, "/dev/zero")


def odd_fields(library: Path) -> Iterator[Oddity]:
    """Manifests without checksums, as people write them, with any value in any field."""
    for name in ("library.json", "prompts/*/manifest.json", "prompts/*/reading.json"):
        path = next(library.glob(name)).relative_to(library)
        content = json.loads((library / path).read_text())
        keys = [(key,) for key in content if key != "checksum"]
        keys += [("preprocessing", key) for key in content.get("preprocessing", ())]
        for key in keys:
            for value in VALUES:
                yield f"{path}: {'.'.join(key)} = {str(value)[:20]!r}", partial(put, path, key, value)
            yield f"{path}: no {'.'.join(key)}", partial(put, path, key, ...)


def odd_tables(library: Path) -> Iterator[Oddity]:
    """What is left of a first run that ended early, and tables, snapshots and folders that are gone."""
    every = sorted(
        {
            p.relative_to(library)
            for p in (*library.glob("*"), *library.glob("*/*"), *library.glob("lance/*/*"))
        }
    )
    for path in every:
        yield f"no {path}", partial(delete, path)
        if (library / path).is_dir():
            yield f"{path}: empty", partial(empty, path)
            yield f"{path}: a file", partial(write, path, b"x")
            yield f"{path}: a link to nothing", partial(link, path, "nothing")
    keep: tuple[tuple[str, ...], ...] = (
        (),
        ("lance",),
        ("prompts",),
        ("lance/images.lance",),
        ("prompts", "snapshots"),
    )
    for names in keep:
        yield f"nothing but {names}", partial(leave, names)


def odd_rows(library: Path) -> Iterator[Oddity]:
    """Rows whose checksums are right and whose values are not, as somebody may have written them."""
    (key,) = (path.name for path in library.glob("prompts/*"))
    (frozen,) = (path.stem for path in library.glob("lance/frozen_*"))
    for table, values in (
        (IMAGES, ROW_VALUES), (THUMBNAILS, THUMBNAIL_VALUES),
        (f"prompt_{key}", VECTOR_VALUES), (frozen, UNSTEERED_VALUES),
    ):  # fmt: skip
        for column, odd in values.items():
            for value in odd:
                yield f"{table}: {column} = {str(value)[:20]!r}", partial(put_row, table, column, value)
    for kind, schema in (("mug-", gallery_schema()), ("frozen_", unsteered_gallery_schema())):
        for path in ROW_VALUES["path"]:
            yield f"snapshot of {kind}: {path!r}", partial(put_in_snapshot, kind, schema, str(path))


def write(path: Path, content: bytes, library: Path) -> None:
    delete(path, library)
    (library / path).write_bytes(content)


def delete(path: Path, library: Path) -> None:
    if (library / path).is_dir():
        shutil.rmtree(library / path)
    else:
        (library / path).unlink(missing_ok=True)


def folder(path: Path, library: Path) -> None:
    delete(path, library)
    (library / path).mkdir()


def empty(path: Path, library: Path) -> None:
    folder(path, library)


def pipe(path: Path, library: Path) -> None:
    delete(path, library)
    os.mkfifo(library / path)


def link(path: Path, to: str, library: Path) -> None:
    delete(path, library)
    (library / path).symlink_to(to)


def leave(names: tuple[str, ...], library: Path) -> None:
    for path in library.iterdir():
        if path.name != "library.json" and not any(name.split("/")[0] == path.name for name in names):
            delete(path, library)
    for path in library.glob("lance/*") if "lance/images.lance" in names else ():
        if path.name != "images.lance":
            delete(path, library)


def put(path: Path, key: tuple[str, ...], value: object, library: Path) -> None:
    content = json.loads((library / path).read_text())
    del content["checksum"]
    fields = content
    for name in key[:-1]:
        fields = fields[name]
    fields[key[-1]] = value
    if value is ...:
        del fields[key[-1]]
    (library / path).write_text(json.dumps(content))


def put_row(name: str, column: str, value: Any, library: Path) -> None:
    """Another value in the first row of a table, with the checksums that belong to it."""
    tables = Tables(library)
    rows = tables.inspect(name, None, lambda batches: pa.Table.from_batches(list(batches)))
    changed = [{**row, column: value} if number == 0 else row for number, row in enumerate(rows.to_pylist())]
    made = with_checksums(name, pa.Table.from_pylist(changed, schema=rows.schema))
    Database(library).change(name, lambda table: (table.delete("true"), table.add(made)))


def put_in_snapshot(kind: str, schema: pa.Schema, path: str, library: Path) -> None:
    (file,) = library.glob(f"snapshots/{kind}*/*.arrow")
    table = read_table(file, schema)
    paths = pa.array([path, *table.column("path").to_pylist()[1:]])
    changed = table.set_column(0, schema.field("path"), paths)
    write_table(library, file, changed.schema, [changed])


KINDS = [odd_files, odd_fields, odd_tables, odd_rows]


def test_an_odd_library_is_answered_or_refused_in_words(run: Run, library: Path, photos: Path) -> None:
    """Some of each kind; the names are those of the oddities."""
    chosen = (
        "nothing but ()", "preprocessing = \"{'size': 'x'}\"", "images: path = '/etc/passwd'",
        "snapshot of frozen_: 'a\\x00b.jpg'", "heatmap = \"b'odd'\"",
    )  # fmt: skip
    oddities = [oddity for kind in KINDS for oddity in kind(library)]
    withstand(
        run, library, photos, [next(one for one in oddities if one[0].endswith(name)) for name in chosen]
    )


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_every_odd_library_is_answered_or_refused_in_words(
    run: Run, library: Path, photos: Path, kind: Callable[[Path], Iterator[Oddity]]
) -> None:
    withstand(run, library, photos, list(kind(library)))
