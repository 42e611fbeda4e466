"""What a library says of itself: read as it was written, or not at all."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from steersearch.core.errors import LibraryDamagedError, SchemaVersionError
from steersearch.indexer.manifest import SCHEMA_VERSION, PromptIndex, manifest_file
from tests.toy_embedder import ToyEmbedder, save_photo
from tests.toy_library import Library


def known(index: PromptIndex) -> PromptIndex:
    """What of a manifest decides answers and has a checksum. A lower version is one that has none yet."""
    return replace(index, created_at="", schema_version=SCHEMA_VERSION)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    library = Library.create(
        save_photo(tmp_path / "photos/red.png", (200, 0, 0)).parent, tmp_path / "library"
    )
    library.index(ToyEmbedder(), ["red", "blue"])
    return library


@pytest.mark.parametrize("file", ["library.json", "prompts/red-*/manifest.json"])
def test_one_byte_of_a_manifest_is_another(library: Library, file: str) -> None:
    """Whatever it is, an index is as it was made or is left out; when it was made has no checksum."""
    (path,) = library.place.glob(file)
    whole = path.read_bytes()
    prompts = [known(index) for index in library.prompts()]
    for position in range(len(whole)):
        path.write_bytes(
            whole[:position] + bytes([whole[position] ^ 1 << position % 7]) + whole[position + 1 :]
        )
        with suppress(LibraryDamagedError, SchemaVersionError):
            opened = Library.open(library.place)
            assert opened.folder == library.folder
            found = [known(index) for index in opened.prompts()]
            assert {index.key for index in prompts if index.prompt != "red"} <= {index.key for index in found}
            assert all(index in prompts for index in found)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("key", "../../away"), ("prompt", 7), ("prompt", " "), ("gate_scale", "1"), ("gate_scale", float("nan")),
        ("model_id", None), ("preprocessing", []), ("dim", 0), ("dim", 2.5), ("dim", 10**30), ("dtype", "float64"),
        ("created_at", "yesterday"), ("created_at", 5), ("schema_version", True), ("schema_version", "2"),
        ("schema_version", 0),
    ],
)  # fmt: skip
def test_a_manifest_says_nothing_that_cannot_be(library: Library, field: str, value: object) -> None:
    (path,) = library.place.glob("prompts/red-*/manifest.json")
    content = {name: value for name, value in json.loads(path.read_text()).items() if name != "checksum"}
    path.write_text(json.dumps({**content, field: value}))
    assert [index.prompt for index in Library.open(library.place).prompts()] == ["blue"]
    assert library.query(ToyEmbedder(), library.folder / "red.png", "blue")


@pytest.mark.parametrize(
    "folder",
    [
        None, "/a", {"path": "relative"}, {"path": "/a\0b"}, {"path": ["/"]}, {"name": "a/b"}, {"name": "."},
        {"disk": "sda"}, {"disk": {"id": 1, "name": "a", "path": "/"}}, {"novelty": 1},
    ],
)  # fmt: skip
def test_a_library_names_folders_that_can_be(library: Library, folder: object) -> None:
    path = library.place / "library.json"
    whole = {"path": "/a", "name": "", "disk": None}
    folders = [] if folder is None else [{**whole, **folder}] if isinstance(folder, dict) else [folder]
    path.write_text(json.dumps({"folders": folders, "schema_version": SCHEMA_VERSION}))
    with pytest.raises(LibraryDamagedError, match="folder"):
        Library.open(library.place)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a": ' * 50_000, "\xff", "null", "1e999"])
def test_what_is_no_manifest_at_all(library: Library, content: str) -> None:
    (path,) = library.place.glob("prompts/red-*/manifest.json")
    path.write_bytes(content.encode("latin-1"))
    assert [index.prompt for index in Library.open(library.place).prompts()] == ["blue"]
    path.unlink()
    os.mkfifo(path)
    assert [index.prompt for index in Library.open(library.place).prompts()] == ["blue"]


def test_a_manifest_is_read_again_when_its_file_changes(library: Library) -> None:
    index, other = library.prompts()
    file = manifest_file(library.place, index.key)
    before = file.stat()
    content = file.read_text()
    # Which its checksum does not fit.
    file.write_text(content.replace(index.model_id, index.model_id[::-1], 1))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert library.prompts() == [other]
    file.write_text(content)
    assert library.prompts() == [index, other]
