"""What is called damage: only what reading again cannot mend."""

from __future__ import annotations

from pathlib import Path

import pytest

from steersearch.core.errors import LibraryDamagedError, LibraryUnreadableError
from steersearch.indexer.place import reading


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied"),
        MemoryError(),
        RuntimeError("lance error: LanceError(IO): Too many open files (os error 24)"),
        ImportError("The pyarrow installation is not built with support for 'dataset'"),
    ],
)
def test_what_was_refused_or_is_not_installed_is_no_damage(error: Exception) -> None:
    with pytest.raises(LibraryUnreadableError), reading(Path("table.lance")):
        raise error


def test_what_the_file_itself_says_wrong_is_damage() -> None:
    with pytest.raises(LibraryDamagedError), reading(Path("table.lance")):
        raise ValueError("invalid metadata")
