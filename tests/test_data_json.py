"""Large JSON in pieces: the same values as the json module, whatever the window, and every cut is noticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersearch.core.errors import DataError
from steersearch.training.data.importers import json_stream
from steersearch.training.data.importers.json_stream import elements, read_element

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(
    st.dictionaries(st.text(max_size=4), VALUES, max_size=4),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.sampled_from([1, 3, 16, 4096]),
)
def test_elements_are_those_of_the_json_module(
    tmp_path: Path, document: dict[str, object], indent: int | None, ascii_only: bool, window: int
) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps(document, indent=indent, ensure_ascii=ascii_only), "utf-8", "surrogatepass")
    expected = [
        (key, value)
        for key, found in document.items()
        for value in (found if isinstance(found, list) else [found])
    ]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(json_stream, "_WINDOW", window)
        found = list(elements(path))
        assert [(e.section, e.value) for e in found] == expected
        assert [read_element(path, e.offset, e.length) for e in found] == [value for _, value in expected]


def test_an_outermost_list_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(b'\xef\xbb\xbf [1, {"a": 2}] \n')
    assert [(e.section, e.value) for e in elements(path)] == [("", 1), ("", {"a": 2})]


def test_bytes_that_are_no_utf8_are_kept_as_surrogates(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(b'{"a": ["gr\xfcn", "gr\xc3\xbcn"]}')
    assert [e.value for e in elements(path)] == ["gr\udcfcn", "grün"]


def test_a_cut_anywhere_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_WINDOW", 16)
    whole = json.dumps({"n": 12.5, "images": [{"id": 1, "name": "ü"}, {}], "last": True}).encode()
    path = tmp_path / "file.json"
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"may be truncated|byte 8 .a comma or } was"):
            list(elements(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a":[1,]}', r"byte 8 \(a comma or \] was expected\)"),
        (b'{"a":1,}', "byte 7"),
        (b"[1 2]", "byte 3"),
        (b"{1:2}", "a key was expected"),
        (b'"text"', r"byte 0 \(\{ was expected\)"),
        (b'{"a":1} x', "more after the end"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": [nonsense]}', "Expecting value"),
    ],
)
def test_mistakes_have_a_place(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(text)
    with pytest.raises(DataError, match=message):
        list(elements(path))


def test_a_large_file_with_a_mistake_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "_WINDOW", 64)
    monkeypatch.setattr(json_stream, "_LARGEST", 1000)
    path = tmp_path / "file.json"
    path.write_bytes(b'{"a": ["' + b"x" * 100_000)
    with pytest.raises(DataError, match=r"Unterminated string starting at\)"):
        list(elements(path))


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        list(elements(tmp_path / "none.json"))
    with pytest.raises(DataError, match="a folder, not a file"):
        list(elements(tmp_path))
