from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersearch.indexer import file_lists, long_table
from steersearch.indexer.file_lists import FoundFile, FoundFiles, KnownFiles
from steersearch.indexer.schema import FileRecord, to_stored

NAMES = [
    "a.jpg",
    "b/a.jpg",
    "b.jpg",
    "é.jpg",
    "caf\udce9/in.jpg",
    "日本\n.jpg",
    "na\udcefve.jpg",
    "z/\udcff\udcfe.png",
]
FILES = st.dictionaries(st.sampled_from(NAMES), st.integers(-(2**63), 2**63 - 1))


def found_of(files: dict[str, int]) -> FoundFiles:
    return FoundFiles.of(FoundFile(path, 7, mtime_ns) for path, mtime_ns in files.items())


def known_of(files: dict[str, int]) -> KnownFiles:
    columns = {
        "path": [to_stored(path) for path in files],
        "image_id": [f"{len(path):032x}" for path in files],
        "size": [7] * len(files),
        "mtime_ns": list(files.values()),
        "reason": pa.array(["damaged" if path > "c" else None for path in files], pa.string()),
        "taken_at_source": pa.array(["EXIF" if path > "b/" else None for path in files], pa.string()),
    }
    return KnownFiles([KnownFiles.part_of(pa.table(columns))] if files else [])


@given(FILES, FILES, st.integers(1, 3), st.sampled_from([0, 100]))
def test_each_file_is_found_in_the_other_list_whatever_bytes_its_name_has(
    here: dict[str, int], there: dict[str, int], together: int, in_memory: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for module in (file_lists, long_table):
            patch.setattr(module, "PART", together)
        patch.setattr(long_table, "IN_MEMORY", in_memory)
        found, known = found_of(here), known_of(there)
        assert {f.path: f.mtime_ns for f in found} == here
        assert {f.path: f.mtime_ns for f in known} == there
        for one, other, files in ((found, known, here), (known, found, there)):
            rows = [row for part in one.parts() for row in other.rows_of(one, part).tolist()]
            paths = [one.path(row) for row in range(len(one))]
            assert sorted(paths) == sorted(files)
            assert [row >= 0 for row in rows] == [path in here and path in there for path in paths]
            assert all(other.path(row) == path for row, path in zip(rows, paths, strict=True) if row >= 0)
        for path in NAMES:
            record = FileRecord(
                path, f"{len(path):032x}", 7, there.get(path, 0), reason="damaged" if path > "c" else None
            )
            assert known.get(path) == (record if path in there else None)
            assert found.has(path) == (path in here)
        assert [known.path(row) for row in range(len(known)) if known.is_dated[row]] == [
            path for path in (f.path for f in known) if path > "b/"
        ]


def test_paths_are_decoded_as_they_are_asked_for() -> None:
    found = found_of(dict.fromkeys(NAMES, 1))
    rows = found.rows_of(found, np.arange(8))[::2]
    paths = found.paths(rows)
    expected = [found.path(row) for row in (0, 2, 4, 6)]
    assert (list(paths), paths[1:3], paths[3], len(paths)) == (expected, expected[1:3], expected[3], 4)
    assert sorted(map(os.fsencode, paths)) == sorted(map(os.fsencode, expected))


def test_files_of_several_folders_are_one_sorted_list() -> None:
    one = found_of({"b.jpg": 1, "a.jpg": 2})
    both = FoundFiles.joined([one.below(".second/"), one])
    assert [(f.path, f.mtime_ns) for f in both] == [
        (".second/a.jpg", 2), (".second/b.jpg", 1), ("a.jpg", 2), ("b.jpg", 1),
    ]  # fmt: skip
