"""The cache of the benchmarks: data sets as folders of pictures, libraries, features."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from steersearch.core import files
from steersearch.core.errors import OutputError

_DESCRIPTION = "dataset.json"
_MAKING = ".making-"
_ABANDONED_S = 24 * 3600  # an unfinished folder of this age belongs to a killed run


def cache_folder() -> Path:
    """STEERSEARCH_CACHE/benchmarks, or the same below the user's cache folder. It may be deleted at any time."""
    return files.cache_folder() / "benchmarks"


def digest_of(*parts: object) -> str:
    """sha256 of JSON-able values, the same in every process."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def kept_dataset(
    name: str, key: Mapping[str, Any], make: Callable[[Path], dict[str, Any]]
) -> tuple[Path, dict[str, Any]]:
    """A folder filled by `make`, and the description that it returned; cached by `key`.

    The folder is renamed when complete, so a killed run leaves none, and of two concurrent runs the first wins.
    Raises OutputError.
    """
    folder = cache_folder() / "data" / f"{name.replace('/', '-')}-{digest_of(key)[:16]}"
    try:
        if not (folder / _DESCRIPTION).exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            _sweep(folder.parent)
            with tempfile.TemporaryDirectory(prefix=_MAKING, dir=folder.parent) as started:
                making = Path(started) / "dataset"
                making.mkdir()
                description = make(making)
                (making / _DESCRIPTION).write_text(json.dumps(description), encoding="utf-8")
                _take_place(making, folder)
        description = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
    except OSError as error:
        raise OutputError(folder, error.strerror or str(error)) from error
    return folder, description


def _take_place(made: Path, folder: Path) -> None:
    try:
        made.rename(folder)
    except OSError:
        if not (folder / _DESCRIPTION).exists():  # otherwise another run was faster
            raise


def _sweep(folder: Path) -> None:
    for path in folder.glob(f"{_MAKING}*"):
        if time.time() - path.stat().st_mtime > _ABANDONED_S:
            shutil.rmtree(path, ignore_errors=True)
