"""Arrays in .npy files, written row by row: none need fit into memory, and a full disk raises OSError."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from steersearch.core.files import require_regular


def begin_array(file: Path, dtype: npt.DTypeLike, shape: Sequence[int]) -> None:
    """Create `file` as a sparse array of zeros. Raises OSError."""
    described = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": tuple(shape)}
    with file.open("wb") as opened:
        np.lib.format.write_array_header_1_0(opened, described)
        opened.truncate(opened.tell() + int(np.prod(shape)) * np.dtype(dtype).itemsize)


def write_rows(file: Path, first: int, rows: npt.NDArray[Any]) -> None:
    """Write `rows`, of the array's dtype, from row `first` on. Raises OSError."""
    with file.open("r+b") as opened:
        np.lib.format.read_magic(opened)
        np.lib.format.read_array_header_1_0(opened)
        opened.seek(first * rows[:1].nbytes, 1)
        opened.write(np.ascontiguousarray(rows).tobytes())
        opened.flush()
        os.fsync(opened.fileno())  # before anything records them as written


def map_rows(file: Path) -> npt.NDArray[Any]:
    """Memory-map the array. Raises OSError, ValueError, EOFError."""
    array: npt.NDArray[Any] = np.load(require_regular(file), mmap_mode="r")
    return array
