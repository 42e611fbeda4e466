"""Arrow columns as NumPy arrays, against their Python values: chunks, slices and missing values."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from steersearch.indexer.schema import mask_of, numbers


def chunked(values: list[object], kind: pa.DataType, cut: int) -> pa.ChunkedArray:
    """In two chunks, slices of a longer array, so that neither begins at a byte."""
    whole = pa.array([None, *values, None], kind)
    return pa.chunked_array([whole.slice(1, cut), whole.slice(1 + cut, len(values) - cut)], kind)


@given(st.lists(st.none() | st.booleans(), max_size=40), st.data())
def test_a_mask_has_the_values_and_false_for_missing_ones(
    values: list[bool | None], data: st.DataObject
) -> None:
    column = chunked(values, pa.bool_(), data.draw(st.integers(0, len(values))))
    assert mask_of(column).tolist() == [bool(value) for value in values]
    assert mask_of(column.combine_chunks()).tolist() == [bool(value) for value in values]


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=40), st.data())
def test_whole_numbers_are_kept_exactly(values: list[int | None], data: st.DataObject) -> None:
    column = chunked(values, pa.int64(), data.draw(st.integers(0, len(values))))
    assert numbers(column, np.int64, -7).tolist() == [-7 if value is None else value for value in values]


@given(st.lists(st.none() | st.floats(width=32, allow_nan=False), max_size=40), st.data())
def test_missing_numbers_are_what_they_are_to_be(values: list[float | None], data: st.DataObject) -> None:
    found = numbers(
        chunked(values, pa.float32(), data.draw(st.integers(0, len(values)))), np.float32, math.nan
    )
    assert found.dtype == np.float32
    assert [None if math.isnan(value) else value for value in found.tolist()] == values
