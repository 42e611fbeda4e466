"""Libraries of older formats: searched as they are, brought forward by the next that writes, whatever happens."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import lancedb
import pytest
from PIL import Image

from steersearch.core.errors import ModelMismatchError, SchemaVersionError
from steersearch.indexer.care import migrate
from steersearch.indexer.care.tables import Tables
from steersearch.indexer.manifest import SCHEMA_VERSION
from steersearch.indexer.place import write_json
from steersearch.indexer.store import Store
from steersearch.indexer.writers import writing
from tests.toy_embedder import ToyEmbedder, save_photo, save_photos
from tests.toy_library import Library, as_before_schema_7


class Interrupted(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def old(tmp_path: Path) -> Library:
    """A library of schema 1 with two prompt indexes and a third that was never finished."""
    library = Library.create(save_photos(tmp_path / "photos", 5), tmp_path / "library")
    library.index(ToyEmbedder(), ["red", "blue", "green"])
    as_before_schema_7(library.place)
    database = lancedb.connect(library.place / "lance")
    for name in Tables(library.place).names("prompt_"):
        database.open_table(name).drop_columns(["presence"])
    database.open_table("images").drop_columns(["taken_at_precision", "taken_at_source"])
    for file in (library.place / "library.json", *library.place.glob("prompts/*/manifest.json")):
        file.write_text(json.dumps({**json.loads(file.read_text()), "schema_version": 1}))
    next(library.place.glob("prompts/green-*/manifest.json")).unlink()
    return library


def versions(place: Path) -> list[int]:
    files = [place / "library.json", *sorted(place.glob("prompts/*/manifest.json"))]
    return [json.loads(file.read_text())["schema_version"] for file in files]


def columns(place: Path) -> list[bool]:
    """For each prompt table, whether it has the column of schema 2."""
    database = lancedb.connect(place / "lance")
    return ["presence" in database.open_table(name).schema.names for name in Tables(place).names("prompt_")]


def answers(library: Library) -> list[list[tuple[str, float]]]:
    photo = library.folder / "003.png"
    return [
        [(hit.path.name, hit.score) for hit in library.query(ToyEmbedder(), photo, focus)]
        for focus in ("red", "blue")
    ]


def test_a_library_of_schema_1_is_searched_as_it_is(old: Library) -> None:
    assert len(answers(old)[0]) == 5
    assert old.info().photos == 5
    assert Store(old.place)._rows("prompt_" + old.prompts()[0].key, ["presence"]).column(0).null_count == 5
    assert (versions(old.place), columns(old.place)) == ([1, 1, 1], [False] * 3)


def test_the_next_run_brings_it_forward_and_computes_nothing(old: Library) -> None:
    before = answers(old)
    counts = Library.open(old.place).index(ToyEmbedder())
    assert (counts.reused, counts.forward_passes) == (5, 0)
    assert (versions(old.place), columns(old.place)) == ([SCHEMA_VERSION] * 3, [True] * 3)
    assert answers(Library.open(old.place)) == before
    assert (
        Library.open(old.place).index(ToyEmbedder(), ["green"]).forward_passes == 0
    )  # of the unfinished one


def test_the_next_run_asks_photos_for_their_dates_without_a_model(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, date in enumerate(["2019-05-17T12:00:00", "2019:05:17", ""]):
        exif = Image.Exif()
        exif[0x8769] = {0x9003: date}
        exif[0x0132] = "2024:03:03 10:00:00"
        Image.new("RGB", (8, 8), (70 * number, 0, 0)).save(photos / f"{number}.jpg", exif=exif)
    shutil.copy(photos / "0.jpg", photos / "copy.jpg")
    library = Library.create(photos, tmp_path / "library")
    library.index(ToyEmbedder(), ["red"])
    as_before_schema_7(library.place)
    images = lancedb.connect(library.place / "lance").open_table("images")
    # As schema 2 had it, which knew no other form.
    images.update(values={"taken_at": datetime(2024, 3, 3, 10)})
    images.drop_columns(["taken_at_precision", "taken_at_source"])
    for file in (library.place / "library.json", *library.place.glob("prompts/*/manifest.json")):
        file.write_text(json.dumps({**json.loads(file.read_text()), "schema_version": 2}))

    def dates() -> dict[str, str]:
        hits = Library.open(library.place).query(ToyEmbedder(), photos / "0.jpg", "red")
        return {hit.path.name: str(hit.date) for hit in hits}

    assert set(dates().values()) == {"2024-03-03T10:00:00 (EXIF)"}
    (photos / "copy.jpg").unlink()
    (photos / "2.jpg").rename(photos / "moved.jpg")
    counts = Library.open(library.place).index(ToyEmbedder())
    assert (counts.reused, counts.moved, counts.removed, counts.forward_passes) == (2, 1, 1, 0)
    assert Library.open(library.place).index(ToyEmbedder()).forward_passes == 0
    assert dates() == {
        "0.jpg": "2019-05-17T12:00:00 (EXIF DateTimeOriginal)",
        "1.jpg": "2019-05-17 (EXIF DateTimeOriginal)",
        "moved.jpg": "2024-03-03T10:00:00 (EXIF DateTime)",
    }


def interrupt(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Let the migration end before its step number `steps`, counted from 0 over all that it writes."""
    done = 0

    def counted(function: Callable[..., None]) -> Callable[..., None]:
        def run(*arguments: Any) -> None:
            nonlocal done
            if done == steps:
                raise Interrupted
            done += 1
            function(*arguments)

        return run

    monkeypatch.setattr(Tables, "add_columns", counted(Tables.add_columns))
    for name in ("replace_prompt_index", "write_library"):
        monkeypatch.setattr(migrate, name, counted(getattr(migrate, name)))


# To schema 2: 3 tables, 2 manifests, the library's own; to schema 3: a table, 2 manifests, the library's own.
@pytest.mark.parametrize("steps", range(10))
def test_a_migration_that_ends_anywhere_leaves_a_library_that_is_read_and_migrated_on(
    old: Library, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = answers(old)
    with monkeypatch.context() as patch:
        interrupt(patch, steps)
        with pytest.raises(Interrupted):
            old.index(ToyEmbedder())
    assert versions(old.place)[0] == (1 if steps < 6 else 2)
    assert sum(columns(old.place)) == min(steps, 3)
    assert answers(Library.open(old.place)) == before
    Library.open(old.place).index(ToyEmbedder())
    assert (versions(old.place), columns(old.place)) == ([SCHEMA_VERSION] * 3, [True] * 3)
    assert answers(Library.open(old.place)) == before


def write_at_once(place: str, barrier: Any) -> None:
    barrier.wait(600)
    with writing(Path(place)):
        assert versions(Path(place)) == [SCHEMA_VERSION] * 3


@pytest.mark.slow
def test_two_processes_that_bring_it_forward_at_once(old: Library) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(2)
    processes = [spawn.Process(target=write_at_once, args=(str(old.place), barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
    assert [process.exitcode for process in processes] == [0, 0]
    assert columns(old.place) == [True] * 3


def test_a_newer_library_is_neither_written_nor_touched(old: Library) -> None:
    file = old.place / "library.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema_version": SCHEMA_VERSION + 1}))
    before = file.read_bytes()
    with pytest.raises(SchemaVersionError, match="pip install --upgrade"), writing(old.place):
        pytest.fail("it was opened")
    assert file.read_bytes() == before
    assert columns(old.place) == [False] * 3


SENTENCE = "focus, heatmap squared, mean without a prompt"  # what schema 4 called the aggregation
SETTINGS = {"size": 4, "mean": [0.0, 0.0, 0.0]}


class Recorded(ToyEmbedder):
    """One whose settings are those of this version."""

    def __init__(self) -> None:
        record = {"version": 1, "aggregation": {"kind": "focus", "version": 3}}
        super().__init__(preprocessing={**SETTINGS, **record})


def test_a_library_of_sentences_is_one_of_records_without_being_embedded_again(tmp_path: Path) -> None:
    photos = save_photos(tmp_path / "photos", 5)
    library = Library.create(photos, tmp_path / "library")
    library.index(ToyEmbedder(preprocessing={**SETTINGS, "aggregation": SENTENCE}), ["red", "blue"])
    keys = {index.key for index in library.prompts()}
    as_before_schema_7(library.place)
    for file in (library.place / "library.json", *library.place.glob("prompts/*/manifest.json")):
        fields = {**json.loads(file.read_text()), "schema_version": 4}
        del fields["checksum"]
        write_json(library.place, file, fields)
    assert SENTENCE in file.read_text()
    shutil.rmtree(library.place / "unsteered")  # which no library of that time has

    embedder = Recorded()
    opened = Library.open(library.place)
    hits = opened.query(embedder, photos / "003.png", "red")
    assert (len(hits), hits.exact, embedder.forward_passes) == (5, True, 0)
    counts = opened.index(embedder, ["red", "blue"])  # with its regions
    assert (counts.reused, counts.forward_passes, embedder.is_untouched) == (5, 0, True)
    assert {index.key for index in opened.prompts()} == keys
    for file in opened.place.glob("prompts/*/manifest.json"):
        kept = json.loads(file.read_text())
        assert kept["preprocessing"]["aggregation"] == {"kind": "focus", "version": 3}
    assert set(versions(opened.place)) == {SCHEMA_VERSION}
    assert opened.index(embedder, ["green"]).forward_passes == 5
    assert embedder.batches == [(5, 1)]  # one prompt: what no prompt changes is known
    earlier = ToyEmbedder(preprocessing={**SETTINGS, "aggregation": "focus"})  # the heatmap was not squared
    with pytest.raises(ModelMismatchError):
        opened.query(earlier, save_photo(tmp_path / "stranger.png", (9, 8, 7)), "red")
