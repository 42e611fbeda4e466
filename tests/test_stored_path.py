"""Any name that a file can have is stored as valid UTF-8, and comes back as it was."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from steersearch.indexer.schema import from_stored, to_stored

names = st.binary(max_size=40).filter(lambda name: b"\0" not in name)


@given(names)
def test_every_name_comes_back(name: bytes) -> None:
    path = name.decode("utf-8", "surrogateescape")
    stored = to_stored(path)
    assert stored.encode().decode() == stored
    assert from_stored(stored) == path


@given(st.lists(names, unique=True, max_size=8))
def test_no_two_names_are_stored_as_one(different: list[bytes]) -> None:
    assert len({to_stored(os.fsdecode(name)) for name in different}) == len(different)


def test_names_worked_out_by_hand() -> None:
    assert to_stored("caf\udce9/a.jpg") == "caf\0e9/a.jpg"
    assert to_stored("é 日本 😀") == "é 日本 😀"
    assert from_stored(to_stored("\\xe9")) == "\\xe9"
    composed, decomposed = "\u00e9.jpg", "e\u0301.jpg"
    assert (to_stored(composed), to_stored(decomposed)) == (composed, decomposed)
