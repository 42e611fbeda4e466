"""The process that runs an index holds little of each file: but for its name, size and time all is read in parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from steersearch.benchmarks.engineering.fresh_process import call_fresh
from steersearch.benchmarks.engineering.ray_engine import index_paths, write_paths

FEW, MANY = 10_000, 70_000  # the latter a list in a file
MOST = 650  # bytes a file; 925 where each lookup of originals was a filter; some 450 without


def own_memory(folder: Path, files: int) -> float:
    """The peak of a process that indexes this many, in bytes."""
    write_paths(folder / "photos", files)
    found = call_fresh(index_paths, folder=f"{folder}/photos", place=f"{folder}/library", engine="local")
    assert found["files"] == files
    return float(found["own"])


@pytest.mark.soak
def test_a_file_takes_little_memory(tmp_path: Path) -> None:
    few, many = own_memory(tmp_path / "few", FEW), own_memory(tmp_path / "many", MANY)
    assert (many - few) / (MANY - FEW) < MOST
