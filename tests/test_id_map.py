from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersearch.indexer import id_map
from steersearch.indexer.id_map import IdMap, row_of, rows_of, sorted_ids

IDS = st.sampled_from([f"{n:x}" * (1 + n % 3) for n in range(16)])


@given(st.lists(st.tuples(IDS, st.integers(0, 2**31 - 1))), st.lists(IDS))
def test_it_holds_what_a_dict_holds(given: list[tuple[str, int]], counted: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(id_map, "_FEW", 3)
        found, expected = IdMap(), dict[str, int]()
        for image_id, number in given:
            found[image_id] = expected[image_id] = number % 2**30
        for image_id in counted:
            found.count(image_id)
            expected[image_id] = expected.get(image_id, 0) + 1
        assert {f"{n:x}": found.get(f"{n:x}") for n in range(16)} == {
            f"{n:x}": expected.get(f"{n:x}") for n in range(16)
        }
        assert dict(found.items()) == expected


@given(st.lists(IDS), st.lists(IDS, min_size=1))
def test_rows_are_those_of_the_sorted_contents(given: list[str], asked: list[str]) -> None:
    ids, expected = sorted_ids(given), sorted(set(given))
    rows = [expected.index(image_id) if image_id in expected else -1 for image_id in asked]
    assert [-1 if (row := row_of(ids, image_id)) is None else row for image_id in asked] == rows
    assert rows_of(ids, sorted_ids(asked)).tolist() == [
        expected.index(image_id) if image_id in expected else -1 for image_id in sorted(set(asked))
    ]
