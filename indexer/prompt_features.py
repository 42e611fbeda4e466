"""The encoded prompt of a prompt index, stored in the library so that runs and queries need no text encoder."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from steersearch.core.errors import (
    LibraryDamagedError,
    LibraryPlaceError,
    LibraryUnreadableError,
    SteerSearchError,
)
from steersearch.core.files import read_regular
from steersearch.core.prompts import EncodedPrompt, Reading
from steersearch.indexer.checksums import DamagedFileError, read_array, write_array
from steersearch.indexer.manifest import PROMPTS, ROWS_CHECKED_SINCE, PromptIndex, features_file, read_library
from steersearch.indexer.place import checked, read_json, write_json

logger = logging.getLogger(__name__)
Features = npt.NDArray[np.float32]
_MOST = 2**26  # bytes of a file


def read_features(place: Path, key: str) -> Features:
    """The text encoder's output for a prompt, (L, Dt) float32, finite.

    Raises FileNotFoundError, LibraryUnreadableError, LibraryDamagedError.
    """
    path = features_file(place, key)
    try:
        found = _read_older(path) if _may_lack_checksum(place) else read_array(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise LibraryUnreadableError(path, error.strerror or str(error)) from error
    except (ValueError, EOFError) as error:
        reason = error.reason if isinstance(error, DamagedFileError) else str(error)
        raise LibraryDamagedError(path, reason) from error
    if found.ndim != 2 or found.size == 0 or found.dtype != np.float32:
        reason = f"it has the shape {found.shape} and the type {found.dtype}, not (tokens, width) float32"
        raise LibraryDamagedError(path, reason)
    if not np.isfinite(found).all():
        raise LibraryDamagedError(path, "it is not finite")
    return np.array(found)  # PyTorch warns about read-only memory, which read_array maps


def read_reading(place: Path, key: str) -> Reading | None:
    """How the text encoder read a prompt; None if it is not encoded yet, or was by an older version.

    Raises LibraryUnreadableError, LibraryDamagedError.
    """
    path = _reading_file(place, key)
    try:
        said = checked(path, read_json(path))
        reading = Reading.from_dict(said)
        if set(said) - set(reading.to_dict()):
            raise ValueError("it has other fields")
        return reading
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise LibraryDamagedError(path, f"it does not say how the prompt was read ({error})") from error


def write_encoded_prompt(place: Path, key: str, encoded: EncodedPrompt) -> None:
    """Store an encoded prompt: first its reading, so that features never lack one.

    Raises LibraryPlaceError.
    """
    write_json(place, _reading_file(place, key), encoded.reading.to_dict())
    write_features(place, key, encoded.tokens)


def write_features(place: Path, key: str, features: Features) -> None:
    """Store the text encoder's output for a prompt. Raises LibraryPlaceError."""
    write_array(place, features_file(place, key), np.asarray(features, dtype=np.float32))


def is_encoded(place: Path, index: PromptIndex) -> bool:
    """Whether an intact encoded prompt is stored. Raises LibraryUnreadableError."""
    return _encoded_features(place, index) is not None


def _encoded_features(place: Path, index: PromptIndex) -> Features | None:
    """Of an intact encoded prompt, else None. Raises LibraryUnreadableError."""
    try:
        read_reading(place, index.key)
        return read_features(place, index.key)
    except FileNotFoundError:
        return None
    except LibraryDamagedError as error:
        logger.warning(
            'the encoded prompt "%s" was damaged and is encoded again: %s', index.prompt, error.reason
        )
        return None


def features_of(place: Path, index: PromptIndex, encode: Callable[[str], EncodedPrompt]) -> Features:
    """As `read_features`; if they are missing or damaged, `encode` makes them, and they are stored.

    Raises LibraryUnreadableError.
    """
    if (features := _encoded_features(place, index)) is not None:
        return features
    encoded = encode(index.prompt)
    try:
        write_encoded_prompt(place, index.key, encoded)
    except LibraryPlaceError as error:
        logger.warning(
            '%s: the encoded prompt "%s" could not be written: it %s', place, index.prompt, error.reason
        )
    return np.asarray(encoded.tokens, dtype=np.float32)


def keep_checked(place: Path, key: str) -> None:
    """Give the features of an older library a checksum, unless they are invalid."""
    with suppress(FileNotFoundError, LibraryDamagedError):
        write_features(place, key, np.array(read_features(place, key)))


def _read_older(path: Path) -> Features:
    """Features as written before schema 4, or since."""
    with suppress(DamagedFileError):
        return read_array(path)
    try:
        found: Features = np.load(io.BytesIO(read_regular(path, _MOST)), allow_pickle=False)
    except MemoryError as error:
        raise ValueError("a header that asks for too much memory") from error
    return found


def _reading_file(place: Path, key: str) -> Path:
    return place / PROMPTS / key / "reading.json"


def _may_lack_checksum(place: Path) -> bool:
    try:
        return read_library(place).schema_version < ROWS_CHECKED_SINCE
    except (FileNotFoundError, SteerSearchError):
        return False
