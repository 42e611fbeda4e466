"""Files of weights, their descriptions read and measured before any number is."""

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

_TYPES = ("F64", "F32", "F16", "BF16", "I64")  # the last: how many batches a batch norm has seen
_MOST_HOLES = 8  # times the bytes that a file takes on the disk; float weights cannot be packed so far


@contextmanager
def opened_whole(path: Path) -> Iterator[BufferedReader]:
    """The regular file `path`. Raises CheckpointError also for a sparse one: a few bytes on the disk, and gigabytes
    in memory."""
    try:
        file = open_regular(path)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    with file:
        status = os.fstat(file.fileno())
        taken = 512 * getattr(status, "st_blocks", 0)  # 0 where the file system does not say
        if 0 < _MOST_HOLES * taken < status.st_size:
            raise CheckpointError(
                f"{path}: a file with holes, {status.st_size:,} bytes of which the disk holds {taken:,}; no weights"
            )
        yield file


class WeightsFile:
    """A safetensors file. shapes: of its tensors by name, none of which overlaps another or the file's end."""

    def __init__(self, path: Path, opened: Any) -> None:
        """opened: of `safe_open`, which has no types."""
        self.path, self._opened = path, opened
        self.metadata: dict[str, str] = opened.metadata() or {}
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
        self.shapes: dict[str, tuple[int, ...]] = {n: tuple(s.get_shape()) for n, s in slices.items()}
        for name, kind in ((n, s.get_dtype()) for n, s in slices.items()):
            if kind not in _TYPES:
                raise CheckpointError(f"{path}: {name} is of the type {kind!r}, none of {', '.join(_TYPES)}")

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """These tensors, as stored; mapped from the file, not copied. Raises CheckpointError."""
        try:
            return {name: self._opened.get_tensor(name) for name in names}
        except Exception as error:
            raise CheckpointError(f"{self.path}: cannot be read ({error})") from error


@contextmanager
def weights_file(path: Path) -> Iterator[WeightsFile]:
    """The safetensors file `path`. Raises CheckpointError for what is none, or holds numbers of an unusual type."""
    with opened_whole(path):
        try:
            opened: Any = safe_open(path, framework="pt")
            file = WeightsFile(path, opened)
        except CheckpointError:
            raise
        except Exception as error:  # safetensors' own, or of the system
            raise CheckpointError(
                f"{path}: cannot be loaded, not a readable safetensors file ({error})"
            ) from error
        with opened:
            yield file
