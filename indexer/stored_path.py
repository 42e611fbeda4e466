"""File names as the tables hold them: valid UTF-8, whatever bytes the file system has.

Python gives a name's bytes that are no UTF-8 as lone surrogates, which Arrow refuses. A NUL cannot occur in a file
name, so NUL and two hex digits stand for such a byte; every other name is stored as it is. Names in composed and in
decomposed Unicode form stay two names, as they are two files.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import numpy as np
import numpy.typing as npt

_ESCAPE = re.compile("\0([0-9a-f]{2})")
_OUTSIDE = r"(?s)^/|(^|/)\.\.(/|$)|^$|\x00([^0-9a-f]|$|[0-9a-f]([^0-9a-f]|$))"
_SURROGATE = re.compile("[\udc80-\udcff]")


def to_stored(path: str) -> str:
    """A path as `os.fsdecode` gives it -> text that is valid UTF-8."""
    return path if path.isascii() else _SURROGATE.sub(lambda found: f"\0{ord(found[0]) - 0xDC00:02x}", path)


def paths_in(column: Any) -> list[str]:
    """The paths of a table's Arrow column as Python gives file names: whoever reads a table reads them by this."""
    return list(map(from_stored, column.to_pylist()))


def is_outside(stored: str) -> bool:
    """Whether a stored path is no file name below a folder: no index has written it."""
    return re.search(_OUTSIDE, stored) is not None


def are_outside(column: Any) -> npt.NDArray[np.bool_]:
    """(n,) As `is_outside`, for each path of an Arrow column."""
    import pyarrow.compute as compute

    found: npt.NDArray[np.bool_] = compute.match_substring_regex(column, _OUTSIDE).to_numpy(
        zero_copy_only=False
    )
    return found


def normal_form(text: str) -> str:
    """A text in which letters that look alike are alike, however a system or a keyboard composes them (NFC)."""
    return unicodedata.normalize("NFC", text)


def comparable_paths(column: Any) -> Any:
    """An Arrow column of stored paths in normal form, to compare them with what people write."""
    import pyarrow.compute as compute

    is_plain = compute.all(compute.string_is_ascii(column)).as_py()
    return column if is_plain else compute.utf8_normalize(column, form="NFC")


def from_stored(stored: str) -> str:
    """Inverse of `to_stored`."""
    return _ESCAPE.sub(lambda found: chr(0xDC00 + int(found[1], 16)), stored) if "\0" in stored else stored
