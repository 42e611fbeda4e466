"""When a photo was taken, from EXIF, XMP, IPTC, PNG, or else the file's time.

The order is: date taken, date digitised, GPS date, date of change. A vague date of a better source wins over a precise
one of a worse source.
"""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, IptcImagePlugin

from steersearch.core.images.pillow import png_chunk

Precision = Literal["year", "month", "day", "minute", "second"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
FILE_TIME = "file time"
CHANGE_DATES = ("EXIF DateTime", "XMP xmp:ModifyDate", "PNG tIME", FILE_TIME)

_ISO = {
    "year": "%Y", "month": "%Y-%m", "day": "%Y-%m-%d", "minute": "%Y-%m-%dT%H:%M", "second": "%Y-%m-%dT%H:%M:%S",
}  # fmt: skip
_FIRST_PHOTO = 1826
# The first days of clocks that nobody has set: Mac, Unix (west of Greenwich the day before), DOS, GPS.
_CLOCKS_BEGIN = np.array(
    ["1904-01-01", "1969-12-31", "1970-01-01", "1980-01-01", "1980-01-06"], "datetime64[D]"
)


@dataclass(frozen=True)
class CaptureDate:
    """A date in local time without a zone. moment: the start of the known second, minute, day, month or year;
    source: the field, as its standard names it, such as "EXIF DateTimeOriginal"."""

    moment: datetime
    precision: Precision
    source: str

    def __str__(self) -> str:
        return f"{self.iso} ({self.source})"

    @property
    def is_change(self) -> bool:
        """Whether it is the date of a change, because no date of the shot is known."""
        return self.source in CHANGE_DATES

    @property
    def iso(self) -> str:
        """ISO 8601, to its precision: "2019-05" for a month."""
        return self.moment.strftime(_ISO[self.precision])

    @property
    def day(self) -> str:
        """`iso` to the day at most; a date of a change says so: "2019-05-17 (file)"."""
        kind = " (file)" if self.source == FILE_TIME else " (changed)" if self.is_change else ""
        return self.iso[:10] + kind


def capture_date(image: Image.Image, file: BinaryIO | None = None) -> CaptureDate | None:
    """When this picture was taken, from the first readable and plausible field in `_ORDER`; None if there is none.

    file: the picture's, open for reading and seeking; needed for PNG tIME only.
    """
    found = _found(image)
    if image.format == "PNG" and file is not None:
        found.append(("PNG tIME", _png_time(file)))
    dates = ((source, parse_date(value)) for wanted in _ORDER for source, value in found if source == wanted)
    return next((replace(date, source=source) for source, date in dates if date is not None), None)


def file_dates(mtimes_ns: npt.NDArray[np.int64]) -> list[CaptureDate | None]:
    """Modification times of files as dates; None for those that are implausible."""
    return [
        CaptureDate(datetime.fromtimestamp(seconds), "second", FILE_TIME) if is_plausible else None
        for seconds, is_plausible in zip((mtimes_ns // 10**9).tolist(), are_plausible(mtimes_ns), strict=True)
    ]


def are_plausible(mtimes_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which of these file times are plausible dates of photos."""
    days = (mtimes_ns // 10**9 - time.timezone).astype("datetime64[s]").astype("datetime64[D]")  # local
    past = (days >= np.datetime64(str(_FIRST_PHOTO))) & (days <= np.datetime64(_tomorrow(), "D"))
    plausible: npt.NDArray[np.bool_] = past & ~np.isin(days, _CLOCKS_BEGIN)
    return plausible


# ------------------------------------------------------------------------------------------------ where dates stand

_ORDER = (
    "EXIF DateTimeOriginal", "XMP exif:DateTimeOriginal", "XMP photoshop:DateCreated", "IPTC DateCreated",
    "PNG Creation Time", "EXIF DateTimeDigitized", "XMP exif:DateTimeDigitized", "XMP xmp:CreateDate", "GPS date",
    *CHANGE_DATES,
)  # fmt: skip
_EXIF_BLOCK, _GPS_BLOCK, _GPS_DATE = 0x8769, 0x8825, 0x1D
_EXIF_TAGS = {"DateTimeOriginal": 0x9003, "DateTimeDigitized": 0x9004, "DateTime": 0x0132}
_XMP_NAMES = {
    "DateTimeOriginal": "exif:DateTimeOriginal", "DateCreated": "photoshop:DateCreated",
    "DateTimeDigitized": "exif:DateTimeDigitized", "CreateDate": "xmp:CreateDate", "ModifyDate": "xmp:ModifyDate",
}  # fmt: skip
# Programs use various prefixes, and attributes or elements.
_XMP_DATE = re.compile(
    rf":({'|'.join(_XMP_NAMES)})(?:\s*=\s*[\"']|(?:\s[^<>]{{0,200}})?>)\s*([^<>\"']{{4,60}})"
)


def _found(image: Image.Image) -> list[tuple[str, object]]:
    """All dates in the picture: source and value. A damaged block ends at the damage."""
    found: list[tuple[str, object]] = []
    for read in (_exif_dates, _xmp_dates, _iptc_dates, _png_dates):
        try:
            for one in read(image):
                found.append(one)
        except Exception:  # Pillow's parsers raise many types for damaged blocks
            continue
    return found


def _exif_dates(image: Image.Image) -> Iterator[tuple[str, object]]:
    exif = image.getexif()
    yield from _tagged(exif)  # TIFF/EP, hence many RAW files, has the date of the shot here
    yield from _tagged(exif.get_ifd(_EXIF_BLOCK))
    yield "GPS date", exif.get_ifd(_GPS_BLOCK).get(_GPS_DATE)


def _tagged(block: Mapping[int, Any]) -> Iterator[tuple[str, object]]:
    return ((f"EXIF {name}", block[tag]) for name, tag in _EXIF_TAGS.items() if tag in block)


def _xmp_dates(image: Image.Image) -> Iterator[tuple[str, object]]:
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    return ((f"XMP {_XMP_NAMES[name]}", date) for name, date in _XMP_DATE.findall(_text(packet)))


def _iptc_dates(image: Image.Image) -> Iterator[tuple[str, object]]:
    block = IptcImagePlugin.getiptcinfo(image) or {}  # type: ignore[arg-type]
    date, time = (_text(block.get((2, number))) for number in (55, 60))
    yield "IPTC DateCreated", f"{date}T{time}"


def _png_dates(image: Image.Image) -> Iterator[tuple[str, object]]:
    return (
        ("PNG Creation Time", text) for key, text in image.info.items() if str(key).lower() == "creation time"
    )


def _png_time(file: BinaryIO) -> str | None:
    """The date in the chunk tIME."""
    body = png_chunk(file, b"tIME")
    if body is None or len(body) < 7:
        return None
    year, (month, day, *time) = int.from_bytes(body[:2]), body[2:7]
    return f"{year}-{month:02}-{day:02}T" + ":".join(f"{part:02}" for part in time)


# ------------------------------------------------------------------------------------------------ reading a date

_SEPARATOR = r"[^\dA-Za-z]{1,3}"
_YEAR_FIRST = re.compile(
    rf"(\d{{4}})(?!\d)(?:({_SEPARATOR})(\d{{1,2}})(?!\d)(?:({_SEPARATOR})(\d{{1,2}})(?!\d)(.*))?)?", re.DOTALL
)
_DIGITS_ALONE = re.compile(r"(\d{4})(\d\d)(\d\d)((?:\d{4}|\d{6}|\d{9})?(?!\d).*)", re.DOTALL)
_DAY_FIRST = re.compile(r"(\d{1,2})([./:-])(\d{1,2})\2(\d{4})(?!\d)(.*)", re.DOTALL)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ENGLISH = (  # no other: the Tuesday of "mardi 17 décembre" begins like March
    "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    "nov(?:ember)?|dec(?:ember)?"
)
_MONTH_NAMED = re.compile(
    rf"(?:.*?\b(\d{{1,2}})(?:st|nd|rd|th)?[\s.,-]+|.*?\b)({_ENGLISH})[\s.,-]+"
    rf"(?:(\d{{1,2}})(?:st|nd|rd|th)?\b(?:[\s,]+\d\d?:\d\d(?::\d\d)?(?:\s[a-z]+)?)?[\s.,-]+)?(\d{{4}})\b",
    re.IGNORECASE,
)
_TIME = re.compile(
    r"[\sT_,:日일]{0,3}(\d{1,2})\s?([:.h時时시-])\s?(\d{2})(?:\s?(?:\2|[m分분])\s?(\d{2}))?(?!\d)",
    re.IGNORECASE,
)
_TIME_DIGITS = re.compile(r"[\sT_]{0,2}(\d\d)()(\d\d)(\d\d)?")
_HALF_OF_DAY = re.compile(r"\b[ap]\.?\s?m\b|午|오[전후]|[صم]", re.IGNORECASE)  # of twelve hours


def parse_date(value: object) -> CaptureDate | None:
    """Parse a date as cameras, editors and people write it; None without a plausible year. The source stays empty.

    Accepts any separators or none, single digits, digits of any script, ISO 8601 and English month names. Blank, zero
    or impossible parts reduce it to a month or a year; an unreadable or twelve-hour time to a day. Time zone and
    fractions of a second are dropped. Implausible are years before 1826, dates after tomorrow, and the first days of
    unset clocks.
    """
    text = unicodedata.normalize("NFKC", _text(value)).strip(" \t\r\n'\"")[:100]
    date = _dated(*_parts(text))
    if date is None or not datetime(_FIRST_PHOTO, 1, 1) <= date.moment <= _tomorrow():
        return None
    is_whole = date.precision not in ("year", "month")
    return None if is_whole and np.datetime64(date.moment, "D") in _CLOCKS_BEGIN else date


def _tomorrow() -> datetime:
    """The latest possible local time of a photo."""
    return datetime.now() + timedelta(days=1)


def _text(value: object) -> str:
    """Text up to its first NUL. Bytes are UTF-8 or UTF-16, which Pillow decodes as Latin-1 in an EXIF block."""
    if isinstance(value, tuple | list):
        value = value[0] if value else None
    if isinstance(value, bytes):
        value = value.decode("utf-16" if value[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1", "replace")
    text = "" if value is None else str(value)
    with suppress(UnicodeError):
        text = text.encode("latin-1").decode("utf-8")
    return text.replace("\0", "") if "\0" in text[:4] else text.partition("\0")[0]


def _parts(text: str) -> tuple[int, int, int, str]:
    """Year, month and day, 0 for a missing one, and the rest of the text."""
    if found := _DIGITS_ALONE.match(text):
        year, month, day, rest = found.groups()
    elif found := _YEAR_FIRST.match(text):
        year, before_month, month, before_day, day, rest = found.groups()
        if day and before_day != before_month and re.match(r":\d\d", rest):  # "2019:05 12:00:00" has no day
            day = rest = None
    elif found := _DAY_FIRST.match(text):
        first, separator, second, year, rest = found.groups()
        is_day_first = separator == "." or int(first) > 12
        day, month = (first, second) if is_day_first else (second, first)
        if not is_day_first and int(second) <= 12 and first != second:  # ambiguous
            day = month = None
    elif found := _MONTH_NAMED.match(text):
        day, name, later_day, year = found.groups()
        day, month, rest = day or later_day, str(_MONTHS.index(name[:3].lower()) + 1), None
    else:
        return 0, 0, 0, ""
    return int(year), int(month or 0), int(day or 0), rest or ""


def _dated(year: int, month: int, day: int, rest: str) -> CaptureDate | None:
    """The date of these parts, to the precision that is possible."""
    with suppress(ValueError):
        return _timed(CaptureDate(datetime(year, month, day), "day", ""), rest)
    with suppress(ValueError):
        return CaptureDate(datetime(year, month, 1), "month", "")
    return CaptureDate(datetime(year, 1, 1), "year", "") if year else None


def _timed(date: CaptureDate, rest: str) -> CaptureDate:
    """The date with the time that follows it, if it can be read."""
    found = _TIME.match(rest) or _TIME_DIGITS.match(rest)
    if found is None or _HALF_OF_DAY.search(rest):
        return date
    hour, _, minute, second = found.groups()
    with suppress(ValueError):  # such as "24:00"
        moment = date.moment.replace(hour=int(hour), minute=int(minute))
        date = CaptureDate(moment, "minute", "")
        date = CaptureDate(moment.replace(second=int(second or 60)), "second", "")
    return date
