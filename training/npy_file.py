"""Arrays in .npy files, written row by row: none of them is ever whole in memory, and a full disk is an OSError."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from steersearch.core.files import require_regular


def begin_array(file: Path, dtype: npt.DTypeLike, shape: Sequence[int]) -> None:
    """Let `file` be an array of zeros, which take no room yet. Raises OSError."""
    described = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": tuple(shape)}
    with file.open("wb") as opened:
        np.lib.format.write_array_header_1_0(opened, described)
        opened.truncate(opened.tell() + int(np.prod(shape)) * np.dtype(dtype).itemsize)


def write_rows(file: Path, first: int, rows: npt.NDArray[Any]) -> None:
    """Write `rows` into the array from row `first` on; they are of its type. Raises OSError."""
    with file.open("r+b") as opened:
        np.lib.format.read_magic(opened)
        np.lib.format.read_array_header_1_0(opened)
        opened.seek(first * rows[:1].nbytes, 1)
        opened.write(np.ascontiguousarray(rows).tobytes())
        opened.flush()
        os.fsync(opened.fileno())  # whatever says later that they are there is not to be wrong


def map_rows(file: Path) -> npt.NDArray[Any]:
    """The array, mapped to read. Raises OSError, ValueError and EOFError for what is none."""
    array: npt.NDArray[Any] = np.load(require_regular(file), mmap_mode="r")
    return array
