"""What a condition may ask of the SQL engine: enough for photos, and never so much that it ends the process."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersearch.core.errors import FilterError
from steersearch.indexer.filters import FUNCTIONS, MOST_NESTED, MOST_OPERATORS, Filters, rows_where
from steersearch.indexer.schema import PHOTO_COLUMNS
from tests.conftest import Run

PHOTOS = pa.table(
    {
        "path": ["Trip/a.jpg", "trip/b.jpg", "c.jpg"],
        "image_id": ["A", "B", "C"],
        "size": [1, 2, 3],
        "mtime_ns": [1, 2, 3],
        "width": pa.array([10, 20, 30], pa.int32()),
        "height": pa.array([10, 10, 10], pa.int32()),
        "taken_at": pa.array([1_600_000_000, 1_700_000_000, None], pa.timestamp("s")),
        "taken_at_precision": pa.array(["second", "day", None]),
        "taken_at_source": pa.array(["camera", "camera", None]),
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
        (" OR ".join(f"width = {number}" for number in range(1000)), "1,999 operators, more than 200"),
        ("width " + "+ 1 " * 1000 + "> 3", "1,001 operators"),
        ("NOT " * 500 + "width = 1", "501 operators"),
        ("width " + "IS NOT NULL " * 1000, "operators"),
        ("(" * 1000 + "width = 1" + ")" * 1000, "nested more than 16"),
        ("lower(" * 40 + "path" + ")" * 40 + " = 'x'", "nested more than 16"),
        ("width IN (" + "1," * 20_000 + "1)", "characters, more than 20,000"),
        (
            "length(lpad(path, 2000000000, 'x')) > 1",
            "lpad is not a column, a keyword or one of the functions",
        ),
        ("length(repeat(path, 2000000000)) > 1", "repeat is not a column"),
        ("path || path = 'x'", r"\| is not allowed in a condition"),
        ("regexp_like(path, '(a{1,99}){1,99}')", "regexp_like is not a column"),
        (f"path LIKE '{'%a' * 21}'", "more than 20 %"),
        ("width > 1) OR (width > 1", 'has a "\\)" without its "\\("'),
        ("width > (1", 'has a "\\(" without its "\\)"'),
        ("width > 1; DROP TABLE photos", "drop is not a column|; is not allowed"),
        ("width > 1 -- and so on", "-- is not allowed"),
        ("width IN (SELECT 1)", "select is not a column"),
        ("path = 'open", "' is not allowed"),
        ("colour = 'red'", "colour is not a column"),
        ("path = 'caf\udce9'", "is not valid Unicode"),
    ],
)
def test_what_would_be_too_much_is_refused_before_it_is_read(condition: str, reason: str) -> None:
    with pytest.raises(FilterError, match=reason) as error:
        Filters.of(where=condition)
    assert error.value.columns == PHOTO_COLUMNS
    assert len(str(error.value)) < 700


# ------------------------------------------------------------------------------------------ what the engine says


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("taken_at > '2021-01-01'", 'taken_at is compared with "2021-01-01"; write dates like date '),
        ("taken_at > 2021", "taken_at is compared with 2021; write dates like date "),
        ("taken_at BETWEEN '2021' AND '2022'", 'taken_at is compared with "2021"; write dates like'),
        ("taken_at >= timestamp '2021-05'", "'2021-05' is not a date; write dates like"),
        ("taken_at >= date 'May'", "'May' is not a date; write dates like"),
        ("date_trunc('year', path) = 'x'", "'x' is not a date; write dates like"),
        ("taken_at LIKE '2021%'", "LIKE compares texts"),
        ("date_part('moon', taken_at) = 3", "a date has no part 'moon'"),
        ("width > 'wide'", 'a number is compared with "wide"'),
        ("path = 3", "a text is compared with 3; put texts in single quotes"),
        ("width >", "ends too early; an expression is expected"),
        ("width > 10 height > 100", "ends before height; AND and OR join conditions"),
        ("width > 10 3", "ends before 3;"),
        ("path LIKE 'a%' path LIKE 'b%'", "ends before path;"),
        ("width > 10, height > 100", "(width > 10, height > 100) is not supported here"),
        ("width + 1", "is not a condition: it must be true or false"),
        ("width / 0 > 1", "divides by zero"),
        ("lower(width) = 'x'", "lower takes a text, not a number"),
        ("abs(path) > 1", "abs takes a number, not a text"),
        ("contains(path)", "contains takes 2 arguments"),
        ("round(width, 'x') > 1", "round does not accept these arguments"),
        ("cast(path as int) > 3", "is not a number"),
        ("width = 10 = 20", "truth = number makes no sense"),
        ("mtime_ns > timestamp '2021-05-01'", "number > date makes no sense"),
        ("NOT width", "number IS DISTINCT FROM truth makes no sense"),
    ],
)
def test_what_the_engine_says_is_put_in_plain_words(condition: str, reason: str) -> None:
    with pytest.raises(FilterError) as error:
        rows(condition)
    assert error.value.reason.startswith(reason) or error.value.reason.endswith(reason)
    assert_plain(error.value)


def assert_plain(error: FilterError) -> None:
    """Nothing in it is of the engine and its sources."""
    reason = error.reason.replace(error.condition, "")
    found = re.findall(
        r"cargo|\.rs|/root|lance|datafusion|arrow|utf8|int32|int64|planning|SELECT 1", reason, re.I
    )
    assert found == []
    assert len(reason) < 300


PARTS = (
    *PHOTO_COLUMNS, *FUNCTIONS, "AND", "OR", "NOT", "IN", "LIKE", "BETWEEN", "IS NULL", "(", ")", ",", "=", "<", "+",
    "/", "%", "0", "3", "1e9", "99999999999999999999", "'2021-01-01'", "'x'", "'%a'", "date", "timestamp", "cast", "as",
    "int", "null", "true", '"width"', "size", "path",
)  # fmt: skip


@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=9))
def test_any_condition_is_read_or_refused_in_plain_words(parts: list[str]) -> None:
    try:
        found = rows(" ".join(parts))
    except FilterError as error:
        assert_plain(error)
    else:
        assert set(found) <= {0, 1, 2}


def test_the_help_shows_a_form_for_dates_that_is_read(run: Run) -> None:
    (form,) = re.findall(r'"(taken_at [^"]*)"', " ".join(run("find", "--help").out.split()))
    assert rows(form) == []
    assert rows(form.replace("2024", "2020")) == [0, 1]
