"""What a condition may ask of the SQL engine: enough for photos, and never so much that it ends the process."""

from __future__ import annotations

import pyarrow as pa
import pytest

from steersearch.core.errors import FilterError
from steersearch.indexer.conditions import MOST_NESTED, MOST_OPERATORS
from steersearch.indexer.filters import Filters
from steersearch.indexer.store import PHOTO_COLUMNS, rows_where

PHOTOS = pa.table(
    {
        "path": ["Trip/a.jpg", "trip/b.jpg", "c.jpg"],
        "image_id": ["A", "B", "C"],
        "size": [1, 2, 3],
        "mtime_ns": [1, 2, 3],
        "width": pa.array([10, 20, 30], pa.int32()),
        "height": pa.array([10, 10, 10], pa.int32()),
        "taken_at": pa.array([1_600_000_000, 1_700_000_000, None], pa.timestamp("s")),
    }
)


def rows(condition: str) -> list[int]:
    """What passes a condition that was looked through."""
    where = Filters.of(where=condition).where
    assert where is not None
    return list(rows_where(PHOTOS, where))


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("width > height AND path LIKE 'trip/%'", [1]),
        ("lower(path) LIKE 'trip/%' and not (width between 15 and 25)", [0]),
        ("\"width\" IN (10, 30) OR image_id = 'it''s -- no /* comment'", [0, 2]),
        ("taken_at IS NULL", [2]),
        ("taken_at >= TIMESTAMP '2023-01-01'", [1]),
        ("date_part('year', taken_at) = 2020", [0]),
        ("abs(width - 20) < 1 and round(width / 3.0) = 7 and length(path) = 10", [1]),
        ("starts_with(path, 'T') OR ends_with(upper(path), 'C.JPG') OR contains(path, 'zz')", [0, 2]),
        (
            "coalesce(taken_at, date '2000-01-01') < date '2001-01-01' and cast(width as double) / 4 = 7.5",
            [2],
        ),
        ("date_trunc('year', taken_at) = timestamp '2020-01-01'", [0]),
        ("width * 1.0 / height >= 2 AND width % 20 = 0", [1]),
        (" OR ".join(["width = 10"] * (MOST_OPERATORS // 2)), [0]),
        (" AND ".join(f"width <> {number}" for number in range(MOST_OPERATORS // 2)), []),
        (f"width IN ({', '.join(map(str, range(11, 3000)))})", [1, 2]),
        ("(" * MOST_NESTED + "width = 10" + ")" * MOST_NESTED, [0]),
        (f"path LIKE '{'%a' * 20}'", []),
    ],
)
def test_what_photos_need_is_read(condition: str, expected: list[int]) -> None:
    assert rows(condition) == expected


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        (" OR ".join(f"width = {number}" for number in range(1000)), "1,999 operators, at most 200"),
        ("width " + "+ 1 " * 1000 + "> 3", "1,001 operators"),
        ("NOT " * 500 + "width = 1", "501 operators"),
        ("width " + "IS NOT NULL " * 1000, "operators"),
        ("(" * 1000 + "width = 1" + ")" * 1000, "nested more than 16"),
        ("lower(" * 40 + "path" + ")" * 40 + " = 'x'", "nested more than 16"),
        ("width IN (" + "1," * 20_000 + "1)", "letters long, at most 20,000"),
        ("length(lpad(path, 2000000000, 'x')) > 1", "lpad is no column, and no word or function"),
        ("length(repeat(path, 2000000000)) > 1", "repeat is no column"),
        ("path || path = 'x'", r"\| cannot stand in a condition"),
        ("regexp_like(path, '(a{1,99}){1,99}')", "regexp_like is no column"),
        (f"path LIKE '{'%a' * 21}'", "more than 20 %"),
        ("width > 1) OR (width > 1", 'has a "\\)" without its "\\("'),
        ("width > (1", 'has a "\\(" without its "\\)"'),
        ("width > 1; DROP TABLE photos", "drop is no column|; cannot stand"),
        ("width > 1 -- and so on", "-- cannot stand"),
        ("width IN (SELECT 1)", "select is no column"),
        ("path = 'open", "' cannot stand"),
        ("colour = 'red'", "colour is no column"),
    ],
)
def test_what_would_be_too_much_is_refused_before_it_is_read(condition: str, reason: str) -> None:
    with pytest.raises(FilterError, match=reason) as error:
        Filters.of(where=condition)
    assert error.value.columns == PHOTO_COLUMNS
    assert len(str(error.value)) < 700
