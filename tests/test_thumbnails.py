"""Thumbnails have a table of their own, with one row for each content, in older libraries after a migration; one that
is missing is made again."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lancedb
import pytest
from PIL import Image

from steersearch.core.errors import LibraryBusyError, LibraryUnreadableError
from steersearch.indexer import loader
from steersearch.indexer.care import migrate, tables
from steersearch.indexer.care.tables import Tables
from steersearch.indexer.database import Database
from steersearch.indexer.loader import content_hash
from steersearch.indexer.manifest import SCHEMA_VERSION
from steersearch.indexer.place import bytes_below
from steersearch.indexer.store import Store
from steersearch.indexer.writers import alone, writing
from tests.toy_embedder import ToyEmbedder, save_photos
from tests.toy_library import Library, made_by_6a69363

NAMES = ("blue.png", "pink.png", "red.png", "trip/copy.png", "trip/green.png")


def thumbnails(library: Library) -> dict[str, bytes]:
    """Of all photos, by content."""
    store = Store(library.place)
    return store.thumbnails(store.photos().column("image_id").to_pylist())


def rows(library: Library, name: str) -> list[dict[str, Any]]:
    table = lancedb.connect(library.place / "lance").open_table(name)
    found: list[dict[str, Any]] = table.to_arrow().to_pylist()
    return found


def drop(library: Library, image_id: str) -> None:
    Database(library.place).delete("thumbnails", f"image_id = '{image_id}'")


def said(library: Library, *, repair: bool = False) -> list[tuple[str, str]]:
    return [
        (finding.severity.value, finding.what.split(" (")[0]) for finding in library.verify(repair=repair)
    ]


# in a library of this version


@pytest.fixture
def library(tmp_path: Path) -> Library:
    library = Library.create(save_photos(tmp_path / "photos", 5), tmp_path / "library")
    library.index(ToyEmbedder(), ["red"])
    return library


def test_copies_share_one(library: Library) -> None:
    for number in range(3):
        shutil.copy(library.folder / "000.png", library.folder / f"copy {number}.png")
    assert library.index(ToyEmbedder(), ["red"]).copies == 3
    again = Library.create(library.folder, library.place.with_name("again"))
    assert again.index(ToyEmbedder(), ["red"]).copies == 3  # and in a first run
    for one in (library, again):
        assert (len(rows(one, "images")), len(rows(one, "thumbnails")), len(thumbnails(one))) == (8, 5, 5)
        assert one.verify() == []
    hits = library.query(ToyEmbedder(), library.folder / "001.png", "red", k=9)
    copies = {hit.path.name: library.thumbnail(hit) for hit in hits if hit.path.name.startswith("copy")}
    assert len(copies) == 3
    assert set(copies.values()) == {Store(library.place).thumbnail(content_hash(library.folder / "000.png"))}


def test_one_that_is_missing_is_found_and_made_by_the_next_run_without_a_model(library: Library) -> None:
    before, lost = thumbnails(library), content_hash(library.folder / "003.png")
    drop(library, lost)
    assert said(library) == [("note", "1 of the photos have none")]
    hits = library.query(ToyEmbedder(), library.folder / "001.png", "red", k=9)
    assert len(hits) == 5  # which needs none
    counts = library.index(ToyEmbedder(), ["red"])
    assert (counts.added, counts.reused, counts.forward_passes) == (1, 4, 0)
    assert thumbnails(library) == before
    assert library.verify() == []


def test_a_damaged_one_is_set_aside_and_made_again(library: Library) -> None:
    before, (first, second, *_) = thumbnails(library), sorted(Store(library.place).thumbnail_ids())
    kept = {row["image_id"]: row for row in rows(library, "thumbnails")}
    for image_id, jpeg in ((first, b"\xff\xd8 no jpeg"), (second, before[first])):
        drop(library, image_id)
        Database(library.place).change(
            "thumbnails",
            lambda table, new={**kept[image_id], "thumbnail": jpeg}: table.add([new]),  # type: ignore[misc]
        )
    assert thumbnails(library).keys() == before.keys() - {first, second}
    assert said(library) == [
        ("warning", "1 row has a thumbnail that does not decode"),
        ("warning", "1 row has values that do not match its checksum"),
    ]
    assert said(library, repair=True)[2:] == [("note", "2 of the photos have none")]
    assert list((library.place / "set-aside").glob("*/lance/thumbnails.lance"))
    counts = library.index(ToyEmbedder(), ["red"])
    assert (counts.added, counts.forward_passes) == (2, 0)
    assert thumbnails(library) == before
    assert library.verify() == []


@pytest.mark.parametrize("damage", ["gone", "unreadable"])
def test_without_their_table_nothing_is_lost_but_time(library: Library, damage: str) -> None:
    before, folder = thumbnails(library), library.place / "lance" / "thumbnails.lance"
    if damage == "gone":
        shutil.rmtree(folder)
    else:
        for path in folder.glob("*/*.*"):
            path.write_bytes(b"nothing")
    assert any(finding.is_problem for finding in library.verify())
    assert not any(finding.is_problem for finding in library.verify(repair=True))
    counts = library.index(ToyEmbedder(), ["red"])
    assert (counts.added, counts.forward_passes) == (5, 0)
    assert thumbnails(library) == before
    assert library.verify() == []


def test_those_of_removed_photos_are_kept_until_optimize(library: Library) -> None:
    gone = content_hash(library.folder / "002.png")
    (library.folder / "002.png").unlink()
    library.index(ToyEmbedder(), ["red"])
    assert ("note", "1 of them belong to no photo any more") in said(library)
    assert gone in Store(library.place).thumbnail_ids()
    library.optimize()
    assert gone not in Store(library.place).thumbnail_ids()
    assert len(thumbnails(library)) == 4
    assert ("note", "1 of them belong to no photo any more") not in said(library)


# in one of schema 6


@pytest.fixture
def old(tmp_path: Path) -> Library:
    return made_by_6a69363(tmp_path)


def old_thumbnails(library: Library) -> dict[str, bytes]:
    """As the table of photos has them."""
    photos = (row for row in rows(library, "images") if row["status"] == "ok")
    return {row["image_id"]: row["thumbnail"] for row in photos}


def is_new(library: Library) -> bool:
    """Whether the tables are those of schema 7."""
    schema = lancedb.connect(library.place / "lance").open_table("images").schema
    return not {"thumbnail", "thumbnail_checksum"} & {*schema.names}


def answers(library: Library) -> list[tuple[str, float, bytes | None]]:
    hits = library.query(ToyEmbedder(), library.folder / "pink.png", "red", k=9)
    return [(hit.path.name, hit.score, library.thumbnail(hit)) for hit in hits]


def test_an_older_library_is_searched_and_verified_as_it_is(old: Library) -> None:
    before = {path: path.read_bytes() for path in old.place.rglob("*") if path.is_file()}
    kept = old_thumbnails(old)
    assert thumbnails(old) == kept
    assert len(kept) == 4
    assert [name for name, _, jpeg in answers(old) if jpeg in kept.values()] == [
        "pink.png", "red.png", "copy.png", "blue.png", "green.png",
    ]  # fmt: skip
    assert old.verify() == []
    assert {path: path.read_bytes() for path in before} == before
    first = min(kept)
    Database(old.place).change(
        "images", lambda table: table.update(f"image_id = '{first}'", {"thumbnail": b"x"})
    )
    assert first not in thumbnails(old)
    assert "has a thumbnail that does not decode" in old.verify()[0].what


def test_the_next_run_moves_them_and_decodes_no_photo(old: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "read_picture", lambda *_args, **_options: pytest.fail("decoded"))
    before, kept = answers(old), old_thumbnails(old)
    size = bytes_below(old.place / "lance" / "images.lance" / "data")
    counts = old.index(ToyEmbedder())
    assert (counts.reused, counts.skipped, counts.forward_passes) == (5, 1, 0)
    assert is_new(old)
    assert {row["image_id"]: row["thumbnail"] for row in rows(old, "thumbnails")} == kept
    assert len(rows(old, "thumbnails")) == 4
    assert answers(old) == before
    assert (
        bytes_below(old.place / "lance" / "images.lance" / "data") < size / 2
    )  # their bytes are gone from there
    assert json.loads((old.place / "library.json").read_text())["schema_version"] == SCHEMA_VERSION
    assert Library.open(old.place).verify(deep=True) == []
    monkeypatch.undo()
    undisturbed = Library.create(old.folder, old.place.with_name("undisturbed"))
    undisturbed.index(ToyEmbedder(), ["red"], exclude=["drafts/"])
    for name in ("images", "thumbnails"):
        assert sorted(rows(old, name), key=str) == sorted(rows(undisturbed, name), key=str)


class Interrupted(BaseException):
    """Stands for the end of the process."""


def interrupt(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Let the migration end before its step number `steps`, counted from 0 over all that it writes."""
    done = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            nonlocal done
            if done == steps:
                raise Interrupted
            done += 1
            return function(*arguments, **named)

        return run

    monkeypatch.setattr(tables, "_COPIED", 1)
    for owner, name in (
        (Database, "create"), (tables, "_add"), (Database, "narrow"), (Tables, "compact"),
        (migrate, "replace_prompt_index"), (migrate, "write_library"),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))


# The table, 4 thumbnails, the photos' table without them, its old versions dropped, a manifest, the library's own.
@pytest.mark.parametrize("steps", [0, 2, 5, 6, 7, 8])
def test_a_migration_that_ends_anywhere_is_gone_on_with(
    old: Library, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, kept = answers(old), old_thumbnails(old)
    with monkeypatch.context() as patch:
        interrupt(patch, steps)
        with pytest.raises(Interrupted):
            old.index(ToyEmbedder())
    assert json.loads((old.place / "library.json").read_text())["schema_version"] == 6
    assert is_new(old) == (steps > 5)
    half_way = Library.open(old.place)
    assert answers(half_way) == before
    assert not any(finding.is_problem for finding in half_way.verify(deep=True))
    assert half_way.index(ToyEmbedder()).reused == 5
    assert {row["image_id"]: row["thumbnail"] for row in rows(old, "thumbnails")} == kept
    assert len(rows(old, "thumbnails")) == 4
    assert answers(half_way) == before
    assert half_way.verify(deep=True) == []


def test_one_that_was_damaged_before_is_made_again_by_the_run_that_moves_the_others(old: Library) -> None:
    kept = old_thumbnails(old)
    first = min(kept)
    Database(old.place).change(
        "images", lambda table: table.update(f"image_id = '{first}'", {"thumbnail": b"x"})
    )
    assert old.index(ToyEmbedder()).forward_passes == 0
    assert thumbnails(old) == kept
    assert old.verify(deep=True) == []


@pytest.mark.parametrize("damage", ["all", "a version", "a page", "a byte"])
def test_a_damaged_photos_table_is_repaired_as_in_a_new_library(old: Library, damage: str) -> None:
    (path, *others) = old.place.glob("lance/images.lance/data/*")
    if damage == "a version":
        path = min(old.place.glob("lance/images.lance/_versions/*"))  # the newest
    content = path.read_bytes()
    middle = len(content) // 2
    spoilt = {"a page": bytes(400), "a byte": bytes([content[middle] ^ 1])}.get(damage, content[:middle])
    path.write_bytes(content[:middle] + spoilt + content[middle + len(spoilt) :])
    for other in others if damage == "all" else ():
        other.write_bytes(b"nothing")
    assert any(finding.is_problem for finding in old.verify())
    assert not any(finding.is_problem for finding in old.verify(repair=True))
    assert is_new(old)
    counts = old.index(ToyEmbedder())
    assert (counts.forward_passes, len(thumbnails(old))) == (0, 4)
    assert old.verify(deep=True) == []


def test_what_cannot_be_read_now_is_moved_when_it_can(old: Library, tmp_path: Path) -> None:
    kept = old_thumbnails(old)
    (path, *_) = old.place.glob("lance/images.lance/data/*")
    path.rename(tmp_path / "away")
    with pytest.raises(LibraryUnreadableError):
        old.index(ToyEmbedder())
    (tmp_path / "away").rename(path)
    assert not is_new(old)
    assert thumbnails(old) == kept
    assert old.index(ToyEmbedder()).reused == 5
    assert {row["image_id"]: row["thumbnail"] for row in rows(old, "thumbnails")} == kept


def test_nothing_is_moved_while_a_program_of_an_older_version_writes(old: Library) -> None:
    """Whose rows would be lost as the table of photos is written anew."""
    with writing(old.place):
        manifest = old.place / "library.json"
        manifest.write_text(
            json.dumps({**json.loads(manifest.read_text()), "schema_version": 6, "checksum": None})
        )
        for enter in (writing, alone):
            with pytest.raises(LibraryBusyError), enter(old.place):
                pytest.fail("it was opened")


def test_thumbnails_are_jpegs_of_the_photos(old: Library) -> None:
    old.index(ToyEmbedder())
    for name in NAMES:
        jpeg = Store(old.place).thumbnail(content_hash(old.folder / name))
        assert jpeg is not None
        with Image.open(io.BytesIO(jpeg)) as image:
            assert image.format == "JPEG"
