"""Read a pickle of annotations without running code in it.

A pickle is a program that may call any function by name. Lists, dictionaries, texts and numbers need no names, so here
every name is refused, and with it all code.

The unpickler is the standard library's in Python, which is five times as slow as the one in C; but that one allocates
memory by numbers in the file, so that twelve bytes fill 32 GB.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

from steersearch.core.errors import DataError
from steersearch.core.files import read_regular

MOST_BYTES = 2**30


def read_plain_pickle(path: Path) -> Any:
    """The content of a pickle: lists, dictionaries, texts and numbers, nested.

    Texts of Python 2 are bytes and decoded as UTF-8, with lone surrogates for invalid bytes. Raises DataError for a
    pickle that names anything, and for a missing or damaged file.
    """
    try:
        return _Unpickler(path, read_regular(path, MOST_BYTES)).load()
    except DataError:
        raise
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error
    except Exception as error:  # a damaged pickle can fail anywhere
        raise DataError(path, f"not a pickle, or damaged ({type(error).__name__}: {error})") from error


class _Unpickler(pickle._Unpickler):
    def __init__(self, path: Path, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8", errors="surrogateescape")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        raise self._refusal(f"{module}.{name}")

    def get_extension(self, code: int) -> Any:
        raise self._refusal(f"extension {code}")

    def persistent_load(self, pid: Any) -> Any:
        raise self._refusal("an object outside of the file")

    def _refusal(self, wanted: str) -> DataError:
        reason = f'refused, its pickle calls "{wanted}", which annotations do not need; nothing was run'
        return DataError(self._path, reason)
