"""Which photos pass: against conditions written out by hand."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersearch.core.errors import ArgumentError
from steersearch.indexer.filters import Filters, parse_date
from steersearch.indexer.folders import Folders, PhotoFolder

ROOT = Path("/photos")


def table(*photos: tuple[str, datetime | None, datetime], precision: str | None = "second") -> Any:
    """Photos: path, when it was taken, the file's time; each is as wide as its path is long."""
    paths, taken, files = zip(*sorted(photos), strict=True)
    number = len(paths)
    return pa.table(
        {
            "path": pa.array(paths),
            "image_id": pa.array([""] * number),
            "size": pa.array([0] * number, pa.int64()),
            "mtime_ns": pa.array([round(time.timestamp() * 1e9) for time in files], pa.int64()),
            "width": pa.array([len(path) for path in paths], pa.int32()),
            "height": pa.array([1] * number, pa.int32()),
            "taken_at": pa.array(taken, pa.timestamp("s")),
            "taken_at_precision": pa.array([precision] * number, pa.string()),
            "taken_at_source": pa.array([""] * number, pa.string()),
        }
    )


def passing(photos: Any, filters: Filters, root: Path = ROOT) -> list[str]:
    mask = filters.passing(photos, Folders([PhotoFolder(path=str(root))]))
    assert mask is not None
    return [path for path, passes in zip(photos["path"].to_pylist(), mask, strict=True) if passes]


NOON = datetime(2024, 5, 17, 12)
PHOTOS = table(
    *(
        (path, None, NOON)
        for path in ("a.jpg", "trip.jpg", "trip/1.jpg", "trip/day 2/2.jpg", "trip0/3.jpg", "z/4.jpg")
    )
)


@pytest.mark.parametrize("folder", ["trip", "trip/", "./trip", "z/../trip", "/photos/trip"])
def test_a_folder_and_what_lies_below_it(folder: str) -> None:
    assert passing(PHOTOS, Filters.of(folder=folder)) == ["trip/1.jpg", "trip/day 2/2.jpg"]


def test_the_whole_folder_and_a_deeper_one(tmp_path: Path) -> None:
    assert passing(PHOTOS, Filters.of(folder="."), tmp_path) == PHOTOS["path"].to_pylist()
    assert passing(PHOTOS, Filters.of(folder="trip/day 2")) == ["trip/day 2/2.jpg"]


def test_a_folder_named_from_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos" / "trip").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    filters = Filters.of(folder="photos/trip")
    assert passing(PHOTOS, filters, tmp_path.resolve() / "photos") == ["trip/1.jpg", "trip/day 2/2.jpg"]


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("tri", "its folders: trip, trip0, z$"),
        ("/elsewhere", "outside"),
        ("..", "outside|no photo"),
        ("", "is empty"),
        (" ", "is empty"),
    ],
)
def test_a_folder_without_photos(folder: str, reason: str) -> None:
    with pytest.raises(ArgumentError, match=reason) as error:
        passing(PHOTOS, Filters.of(folder=folder))
    assert error.value.value == folder


moments = st.datetimes(datetime(2000, 1, 1), datetime(2025, 1, 1)).map(
    lambda time: time.replace(microsecond=0)
)


@given(st.lists(st.tuples(st.none() | moments, moments), min_size=1, max_size=20), moments, moments)
def test_dates_are_the_camera_s_or_else_the_file_s(
    times: list[tuple[datetime | None, datetime]], after: datetime, before: datetime
) -> None:
    photos = table(*((f"{i:02}.jpg", *time) for i, time in enumerate(times)))
    expected = [f"{i:02}.jpg" for i, (taken, file) in enumerate(times) if after <= (taken or file) < before]
    assert passing(photos, Filters(after=after, before=before)) == expected


@pytest.mark.parametrize(
    ("precision", "begins", "after", "before", "passes"),
    [
        ("year", "2019", "2019-06", None, True),
        ("year", "2019", None, "2019-01-02", True),
        ("year", "2019", "2020", None, False),
        ("year", "2019", None, "2019", False),
        ("month", "2019-12", "2019-12-31", "2020-01-01", True),
        ("month", "2019-12", "2020", None, False),
        ("day", "2020-02-29", "2020-02-29 18:00", None, True),
        ("day", "2020-02-29", "2020-03-01", None, False),
        ("minute", "2020-02-29 18:30", "2020-02-29T18:30:59", None, True),
        ("minute", "2020-02-29 18:30", "2020-02-29 18:31", None, False),
        ("second", "2020-02-29 18:30", "2020-02-29 18:30", None, True),
        ("second", "2020-02-29 18:30", "2020-02-29T18:30:01", None, False),
        ("second", "2020-02-29 18:30", "1000", "9999", True),
        (None, "2020-02-29 18:30", "2020-02-29 18:30", None, True),  # of an older library
    ],
)
def test_a_vague_date_passes_with_any_part_of_it(
    precision: str | None, begins: str, after: str | None, before: str | None, passes: bool
) -> None:
    photos = table(("a.jpg", parse_date("", begins), NOON), precision=precision)
    assert passing(photos, Filters.of(after=after, before=before)) == ["a.jpg"] * passes


def test_a_photo_without_any_plausible_date_passes_no_filter_of_dates() -> None:
    photos = table(("a.jpg", None, datetime(1980, 1, 1, 12)), ("b.jpg", None, NOON))
    assert passing(photos, Filters.of(after="1970")) == ["b.jpg"]
    assert passing(photos, Filters.of(before="2025")) == ["b.jpg"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2024", datetime(2024, 1, 1)),
        ("2024-05", datetime(2024, 5, 1)),
        ("2024-05-17", datetime(2024, 5, 17)),
        (" 2024-05-17 18:30", datetime(2024, 5, 17, 18, 30)),
        ("2024-05-17T18:30:05", datetime(2024, 5, 17, 18, 30, 5)),
        (date(2024, 5, 17), datetime(2024, 5, 17)),
        (NOON, NOON),
    ],
)
def test_dates(written: str | date, meant: datetime) -> None:
    assert parse_date("after", written) == meant


@pytest.mark.parametrize(
    "written", ["", "yesterday", "17.5.2024", "2024-13", "2024-02-30", "2024-05-17T10:00+02:00"]
)
def test_what_is_no_date(written: str) -> None:
    with pytest.raises(ArgumentError, match="before") as error:
        Filters.of(before=written)
    assert error.value.value == written


def test_no_filter_is_no_mask() -> None:
    assert not Filters.of()
    assert Filters.of().passing(PHOTOS, ROOT) is None


def test_sql_and_a_folder_must_both_hold() -> None:
    assert passing(PHOTOS, Filters.of(where="width > 9")) == ["trip/1.jpg", "trip/day 2/2.jpg", "trip0/3.jpg"]
    assert passing(PHOTOS, Filters.of(where="width > 10")) == ["trip/day 2/2.jpg", "trip0/3.jpg"]
    assert passing(PHOTOS, Filters.of(folder="trip", where="width > 10")) == ["trip/day 2/2.jpg"]
    assert passing(PHOTOS, Filters.of(where="width > 99")) == []


COMPOSED, DECOMPOSED = "\u00e9t\u00e9", "e\u0301te\u0301"


@pytest.mark.parametrize("typed", [COMPOSED, DECOMPOSED])
def test_letters_are_alike_however_they_are_composed(typed: str) -> None:
    """A Mac writes names in one form, a keyboard on Linux types the other."""
    paths = [f"{COMPOSED}/1.jpg", f"{DECOMPOSED}/2.jpg", "ete/3.jpg", f"a/{DECOMPOSED}.jpg"]
    photos = table(*((path, None, NOON) for path in paths))
    assert passing(photos, Filters.of(folder=typed)) == sorted(paths[:2])
    assert passing(photos, Filters.of(where=f"path LIKE '{typed}%'")) == sorted(paths[:2])
    assert passing(photos, Filters.of(where=f"path NOT LIKE '{typed}%'")) == sorted(paths[2:])
    assert passing(photos, Filters.of(where="path LIKE 'a/_t_.jpg'")) == [paths[3]]
    home = Path(f"/{DECOMPOSED}")
    assert passing(photos, Filters.of(folder=f"/{COMPOSED}/{typed}"), home) == sorted(paths[:2])
