"""Safetensors files, whose headers are checked before any tensor is read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from steersearch.core.errors import CheckpointError
from steersearch.core.files import open_regular

_TYPES = ("F64", "F32", "F16", "BF16", "I64")  # I64: batch norm's counter
_MOST_HOLES = 8  # largest ratio of a file's size to its blocks on disk; float weights do not compress so far


@contextmanager
def opened_whole(path: Path) -> Iterator[BufferedReader]:
    """Open the regular file `path`. Raises CheckpointError, also for a sparse file, which is small on disk and
    gigabytes in memory."""
    try:
        file = open_regular(path)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    with file:
        status = os.fstat(file.fileno())
        taken = 512 * getattr(status, "st_blocks", 0)  # 0 if unknown
        if 0 < _MOST_HOLES * taken < status.st_size:
            raise CheckpointError(
                f"{path}: a sparse file, {taken:,} bytes on disk of {status.st_size:,}: not weights"
            )
        yield file


class WeightsFile:
    """A safetensors file. shapes: of its tensors by name; none overlaps another or ends after the file."""

    def __init__(self, path: Path, opened: Any) -> None:
        """opened: the untyped result of `safe_open`."""
        self.path, self._opened = path, opened
        self.metadata: dict[str, str] = opened.metadata() or {}
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
        self.shapes: dict[str, tuple[int, ...]] = {n: tuple(s.get_shape()) for n, s in slices.items()}
        for name, kind in ((n, s.get_dtype()) for n, s in slices.items()):
            if kind not in _TYPES:
                raise CheckpointError(f"{path}: {name} has the type {kind!r}, not one of {', '.join(_TYPES)}")

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """These tensors as stored, memory-mapped. Raises CheckpointError."""
        try:
            return {name: self._opened.get_tensor(name) for name in names}
        except Exception as error:
            raise CheckpointError(f"{self.path}: cannot be read ({error})") from error


@contextmanager
def weights_file(path: Path) -> Iterator[WeightsFile]:
    """Open the safetensors file `path`. Raises CheckpointError for another format or an unusual dtype."""
    with opened_whole(path):
        try:
            opened: Any = safe_open(path, framework="pt")
            file = WeightsFile(path, opened)
        except CheckpointError:
            raise
        except Exception as error:  # safetensors' own types, and OSError
            raise CheckpointError(
                f"{path}: cannot be loaded, not a readable safetensors file ({error})"
            ) from error
        with opened:
            yield file
