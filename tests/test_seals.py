"""Seals: a table whose files are not what was written is not read, whatever LanceDB would make of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from steersearch.core.errors import LibraryDamagedError, LibraryUnreadableError
from steersearch.indexer.checksums import check_structure, damaged_files
from steersearch.indexer.store import Store
from steersearch.indexer.writers import writing
from tests.toy_embedder import ToyEmbedder, save_photo, save_photos
from tests.toy_library import Library


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """Five photos, two of which came later and one went, so that LanceDB keeps lists of deleted rows."""
    library = Library.create(save_photos(tmp_path / "photos", 4), tmp_path / "library")
    library.index(ToyEmbedder(), ["red"])
    (library.folder / "002.png").unlink()
    save_photo(library.folder / "000.png", (1, 2, 3), size=(30, 30))
    save_photo(library.folder / "007.png", (7, 7, 7))
    library.index(ToyEmbedder(), ["red"])
    return library


def images(library: Library) -> Path:
    return library.place / "lance" / "images.lance"


def gallery(library: Library) -> list[str]:
    return Store(library.place).gallery(library.prompts()[0].key).paths


def newest(library: Library) -> Path:
    return min(images(library).glob("_versions/*.manifest"))  # LanceDB counts down


def test_every_file_is_sealed_when_the_last_writer_has_ended(library: Library) -> None:
    for table in (library.place / "lance").iterdir():
        assert damaged_files(table) == ([], [])
        for path in table.glob("*/*"):
            if path.suffix != ".json":
                whole = path.read_bytes()
                path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
                assert damaged_files(table) == ([path.relative_to(table).as_posix()], [])
                path.write_bytes(whole)


def test_one_bit_of_what_says_which_rows_there_are(library: Library) -> None:
    for path in (newest(library), *images(library).glob("_deletions/*")):
        whole = path.read_bytes()
        for position in range(len(whole)):
            byte = bytes([whole[position] ^ 1 << position % 8])
            path.write_bytes(whole[:position] + byte + whole[position + 1 :])
            with pytest.raises(LibraryDamagedError, match="does not match its checksum"):
                check_structure(images(library))
        path.write_bytes(whole)
    check_structure(images(library))


def test_a_table_that_is_damaged_is_neither_read_nor_written(library: Library) -> None:
    path = next(images(library).glob("_deletions/*"))
    path.write_bytes(path.read_bytes()[::-1])
    for act in (
        lambda: gallery(library),
        library.info,
        lambda: library.index(ToyEmbedder(), ["blue"]),
        library.optimize,
    ):
        with pytest.raises(LibraryDamagedError) as error:
            act()
        assert error.value.path == path


def test_an_older_version_is_not_taken_for_the_newest(library: Library) -> None:
    newest(library).unlink()
    with pytest.raises(LibraryUnreadableError, match="its newest version is missing"):
        gallery(library)


def test_what_is_not_sealed_yet_is_read(library: Library) -> None:
    expected = gallery(library)
    for table in (library.place / "lance").iterdir():
        (table / "checksums.json").unlink()
    assert gallery(library) == expected
    for table in (library.place / "lance").iterdir():
        (table / "checksums.json").write_text('{"files": 7}')  # damaged: a seal that is none proves nothing
    assert gallery(library) == expected
    with writing(library.place):
        pass
    newest(library).write_bytes(b"nothing")
    with pytest.raises(LibraryDamagedError):
        gallery(library)


def test_seals_follow_what_optimize_makes(library: Library) -> None:
    expected = gallery(library)
    library.optimize()
    assert gallery(library) == expected
    assert damaged_files(images(library)) == ([], [])
    shutil.rmtree(images(library) / "data")  # of no version that is read: away, not damaged
    with pytest.raises(LibraryUnreadableError):
        gallery(library)
