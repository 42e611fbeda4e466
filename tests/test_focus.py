"""What people write after --focus, and what a query takes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersearch.core.errors import ArgumentError, PromptError
from steersearch.core.prompts import check_prompt
from steersearch.indexer.query_terms import Focus, as_focuses, parse_focus


@pytest.mark.parametrize(
    ("written", "focus"),
    [
        ("sofa", Focus("sofa")),
        ("cushion:0.5", Focus("cushion", 0.5)),
        ("cat:-1", Focus("cat", -1)),
        ("the cat : +.25 ", Focus("the cat", 0.25)),
        ("ratio 16:9:1", Focus("ratio 16:9")),
        ("ratio 16:9", Focus("ratio 16", 9)),
        ("a: b", Focus("a: b")),
        ("time 12:30 h", Focus("time 12:30 h")),
        ("colour: red", Focus("colour: red")),
        ("colour: red:0.5", Focus("colour: red", 0.5)),
        ("fish:abc:1", Focus("fish:abc")),
        ("cat::1", Focus("cat:")),
    ],
)
def test_a_number_behind_the_last_colon_is_a_weight(written: str, focus: Focus) -> None:
    assert parse_focus(written) == focus


def is_prompt(text: str) -> bool:
    try:
        check_prompt(text)
    except PromptError:
        return False
    return True


texts = st.text(min_size=1).filter(is_prompt)
weights = st.floats(allow_nan=False, allow_infinity=False).filter(bool)


@given(texts, weights | st.sampled_from([1.0, -1.0, 0.5]))
def test_a_focus_is_read_as_it_is_written(text: str, weight: float) -> None:
    focus = Focus(text, weight)
    assert parse_focus(str(focus)) == focus


@pytest.mark.parametrize("written", ["cat:0", "cat:-0.0", "cat:" + "9" * 400])
def test_weights_that_weigh_nothing(written: str) -> None:
    with pytest.raises(ArgumentError, match=r'^weight of "cat" = .*: must be a finite number, not 0$'):
        parse_focus(written)


@pytest.mark.parametrize("written", ["", "  ", ":1", "a\0b", "\u200b"])
def test_a_focus_is_refused_in_the_words_in_which_a_prompt_is(written: str) -> None:
    with pytest.raises(PromptError) as refused:
        parse_focus(written)
    with pytest.raises(PromptError) as as_prompt:
        check_prompt(written.removesuffix(":1"))
    assert str(refused.value) == str(as_prompt.value)


@pytest.mark.parametrize("written", ["fish:abc", "cat:nan", "cat:", "cat:1e3", "cat:0,5", "a: b:half", "x:½"])
def test_a_weight_that_is_no_number_is_refused_and_the_text_can_still_be_had(written: str) -> None:
    with pytest.raises(ArgumentError) as refused:
        parse_focus(written)
    assert refused.value.reason.endswith(f'For the text itself write "{written}:1"')
    assert parse_focus(f"{written}:1") == Focus(written)


def test_a_text_is_one_focus_however_it_is_typed() -> None:
    assert Focus(" cafe\u0301\n") == Focus("caf\u00e9")
    assert parse_focus("cafe\u0301 :2") == Focus("caf\u00e9", 2)
    with pytest.raises(ArgumentError, match="twice"):
        as_focuses(["cafe\u0301", "caf\u00e9"])


def test_what_a_query_takes() -> None:
    assert as_focuses("16:9") == [
        Focus("16:9")
    ]  # no weight is read from what is not written on a command line
    assert as_focuses(Focus("cat", 2)) == [Focus("cat", 2)]
    several = [Focus("sofa"), Focus("cushion", 0.5), Focus("cat", -1)]
    assert as_focuses([" sofa", ("cushion", 0.5), Focus("cat", -1)]) == several


@pytest.mark.parametrize("focus", [[], ["cat", "cat "], ("cat", 0.5), [("cat", "much")], [3]])
def test_what_a_query_refuses(focus: Any) -> None:
    with pytest.raises(ArgumentError):
        as_focuses(focus)


@pytest.mark.parametrize("focus", ["", ["cat", ""], [(3, 1.0)]])
def test_a_query_refuses_what_is_no_prompt(focus: Any) -> None:
    with pytest.raises(PromptError, match="the prompt"):
        as_focuses(focus)
