"""What is kept of a file: a row of the table of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from steersearch.core.images.dates import CaptureDate

NO_DATE = "none"  # the source of a photo that says nothing of its date; null: it was not asked yet


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file as it was read, and what came of it. Two are equal that say the same of the file and its content.

    path: relative to the photo folder, "/" between its parts.
    image_id: hash of its content; "" where it has to be tried again, whether or not it changes: it could not be read,
        or not under the settings of then.
    mtime_ns: when it was last changed, or a nanosecond before that where it may change once more without a trace:
        it was written so shortly before it was read that a further write could bear the same time. The next run
        then sees a changed file and hashes it.
    reason: why it is skipped; None for a usable photo. A skipped file has nothing of what follows.
    width, height: in pixels, as a viewer shows it.  thumbnail: JPEG, longer side at most 256 pixels.
    taken_at, taken_at_precision, taken_at_source: of a `CaptureDate`, see `date_columns`; the source is null where
        the photo was not asked for its date, as versions before schema 3 left it.
    """

    path: str
    image_id: str
    size: int
    mtime_ns: int
    width: int | None = field(default=None, compare=False)
    height: int | None = field(default=None, compare=False)
    taken_at: datetime | None = field(default=None, compare=False)
    taken_at_precision: str | None = field(default=None, compare=False)
    taken_at_source: str | None = field(default=None, compare=False)
    thumbnail: bytes | None = field(default=None, compare=False)
    reason: str | None = None

    def as_row(self) -> dict[str, Any]:
        """Its fields by name."""
        return {name: getattr(self, name) for name in self.__slots__}


def date_columns(date: CaptureDate | None) -> Mapping[str, Any]:
    """What the columns of dates hold of a photo that was asked for its date."""
    moment, precision, source = (
        (None, None, NO_DATE) if date is None else (date.moment, date.precision, date.source)
    )
    return {"taken_at": moment, "taken_at_precision": precision, "taken_at_source": source}
