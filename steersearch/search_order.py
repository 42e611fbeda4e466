"""A search as one process orders it from another: what `Library.query` or `Library.find` is to be called with."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import steersearch
from steersearch.core.images.limits import Limits
from steersearch.core.objects import real_path
from steersearch.indexer.place import LIBRARY_FILE
from steersearch.indexer.query_terms import Focus

TOKEN_VARIABLE = "STEERSEARCH_TOKEN"  # what servers ask for, and commands send
MOST_BYTES = 64 * 2**20  # of all photos of a search
MOST_SECONDS = 30.0  # for photos without vectors: others wait meanwhile
MOST_HITS = 10_000
HEARTBEAT_S = 1.0  # between two signs of life
# Not among them: `exact`, which others would wait for, and `model`, which may be a file's path.
OPTIONS = frozenset(
    "k any_of region gate_scale view folder after before where collapse sort include_query budget_s".split()
)


@dataclass(frozen=True, kw_only=True)
class Order:
    """text: of a find.  focuses: of a query, (text, weight); None: whole photos are compared.

    photos: bytes of each query photo, which follow the order.  limits: on reading them.  options: the other arguments.
    library: see `mark_of`.  version: of who orders.
    """

    library: list[int]
    text: str | None = None
    focuses: list[tuple[str, float]] | None = None
    photos: list[int]
    limits: dict[str, float]
    options: dict[str, Any]
    version: str = field(default_factory=lambda: steersearch.__version__)

    def line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> Order:
        """Raises ValueError or TypeError for a line that is not an order."""
        return cls(**json.loads(line))

    @property
    def terms(self) -> list[Focus] | None:
        return None if self.focuses is None else [Focus(text, weight) for text, weight in self.focuses]

    def limits_within(self, most: Limits) -> Limits:
        """The limits, none above `most`."""
        return Limits(**{name: min(value, self.limits[name]) for name, value in asdict(most).items()})


def id_of(place: Path) -> str:
    """The id of the library at this place, for a server."""
    return hashlib.sha256(os.fsencode(real_path(place))).hexdigest()[:16]


def mark_of(place: Path) -> list[int]:
    """What tells the library at `place` from one of the same path on another machine, or of another time."""
    state = (place / LIBRARY_FILE).stat()
    return [state.st_ino, state.st_mtime_ns, state.st_size]


@contextmanager
def remarks_kept() -> Iterator[list[str]]:
    """What the library warns of meanwhile."""
    kept = _Kept()
    logger = logging.getLogger("steersearch")
    logger.addHandler(kept)
    try:
        yield kept.said
    finally:
        logger.removeHandler(kept)


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def absolute(folder: str | None, photo_folders: Sequence[Path]) -> str | None:
    """A folder as `Filters` reads it here, wherever it is read."""
    if folder is None or not folder.strip() or os.path.isabs(folder):
        return folder
    is_of_library = any((root / folder).is_dir() for root in photo_folders)
    is_here = os.path.normpath(folder) != "." and Path(folder).is_dir()
    return os.path.abspath(folder) if is_here and not is_of_library else folder
