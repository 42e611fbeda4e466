"""Small JSON files of a library, with a checksum among their fields."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

from steersearch.core import files
from steersearch.core.errors import LibraryDamagedError, LibraryUnreadableError
from steersearch.indexer.place import write_inside

_CHECKSUM = "checksum"
_MOST = 2**26  # bytes: the checksums of some 500,000 files


def write_json(place: Path, path: Path, content: Mapping[str, Any]) -> None:
    """Write the fields of an object and their checksum. Raises LibraryPlaceError."""
    text = json.dumps({**content, _CHECKSUM: _checksum(content)}, indent=1).encode()
    write_inside(place, path, lambda file: file.write(text))


def read_json(path: Path) -> Any:
    """What a file says, whatever its checksum.

    Raises FileNotFoundError, LibraryUnreadableError where it cannot be read now, LibraryDamagedError where it can be
    read and is no JSON.
    """
    try:
        return files.read_json(path, _MOST)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise LibraryUnreadableError(path, error.strerror or str(error)) from error
    except ValueError as error:
        raise LibraryDamagedError(path, f"not JSON ({error})") from error


def checked(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an object but its checksum, which is compared. One without is taken as it is: people and older
    versions write none. Raises LibraryDamagedError."""
    fields = {name: value for name, value in content.items() if name != _CHECKSUM}
    if content.get(_CHECKSUM) not in (None, _checksum(fields)):
        reason = f'it does not fit its {_CHECKSUM} (if you changed it by hand, delete the line "{_CHECKSUM}")'
        raise LibraryDamagedError(path, reason)
    return fields


def _checksum(fields: Mapping[str, Any]) -> int:
    return crc32(json.dumps(fields, sort_keys=True).encode())
