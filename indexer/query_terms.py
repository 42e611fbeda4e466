"""The terms of a query: texts to look at, each with a weight."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from steersearch.core.errors import ArgumentError, in_digits
from steersearch.core.prompts import Reading, checked_prompt
from steersearch.indexer.manifest import PromptIndex

_WEIGHED = re.compile(r"(?P<text>.*):\s*(?P<weight>[+-]?(\d+\.?\d*|\.\d+))", re.DOTALL)
_UNCLEAR = re.compile(r"(?P<text>.*):(?P<weight>\S*)", re.DOTALL)  # where a weight stands, and is no number

Sort = Literal["score", "date", "-date"]  # of hits


@dataclass(frozen=True)
class Focus:
    """One term of a query: what to look at, and how much it counts.

    text: as a prompt is kept.
    weight: its part in the score, any finite number but 0; below 0 leads away from it. The score of a photo under
        several focuses is  Σ weight·cosine / Σ |weight|,  in [-1, 1].
    indexes: the prompt indexes that fit, the one that answers first; none before `Library.resolve`.
    reading: how the model reads the text; None: not known (before the search, and of indexes of older versions).

    Raises PromptError for a text that is no prompt, ArgumentError for a weight.
    """

    text: str
    weight: float = 1.0
    indexes: tuple[PromptIndex, ...] = ()
    reading: Reading | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", checked_prompt(self.text))
        if not math.isfinite(self.weight) or self.weight == 0:
            raise ArgumentError(
                "weight", self.weight, f'of the focus "{self.text}" must be a finite number, not 0'
            )

    @classmethod
    def on(cls, index: PromptIndex, weight: float = 1.0) -> Focus:
        """The prompt of this index, answered by it."""
        return cls(index.prompt, weight, (index,))

    @property
    def index(self) -> PromptIndex:
        """The prompt index that answers."""
        return self.indexes[0]

    @property
    def others(self) -> tuple[PromptIndex, ...]:
        """The prompt indexes that fit what was asked for as well."""
        return self.indexes[1:]

    @property
    def remarks(self) -> list[str]:
        """What the user should know of how the model reads the text."""
        return [] if self.reading is None else self.reading.remarks()

    def __str__(self) -> str:
        """As `parse_focus` reads it."""
        is_clear = not _WEIGHED.fullmatch(self.text) and not _UNCLEAR.fullmatch(self.text)
        return self.text if self.weight == 1 and is_clear else f"{self.text}:{in_digits(self.weight)}"


AnyFocus: TypeAlias = str | Sequence[str | tuple[str, float] | Focus]


def parse_focus(text: str) -> Focus:
    """TEXT or TEXT:WEIGHT. A number after the last colon is a weight, and a single word right after it can only be
    meant as one. A text that ends like that needs a weight of its own: "ratio 16:9:1" is the text "ratio 16:9" with
    weight 1. In "colour: red" the colon belongs to the text. Raises ArgumentError for an empty text, a weight that is
    no number, or 0."""
    text = text.strip()
    weighed = _WEIGHED.fullmatch(text)
    if weighed is not None:
        return Focus(weighed["text"], float(weighed["weight"]))
    unclear = _UNCLEAR.fullmatch(text)
    if unclear is not None:
        given = f'"{unclear["weight"]}" is no number' if unclear["weight"] else "nothing follows the colon"
        reason = f'{given}; a weight looks like "cushion:0.5". For the text itself write "{text}:1"'
        raise ArgumentError("focus", text, reason)
    return Focus(text)


def as_focuses(focus: AnyFocus) -> list[Focus]:
    """One text (as it is, no weight is read from it), or several focuses. Raises ArgumentError: none, one twice."""
    several = [focus] if isinstance(focus, str | Focus) else focus
    focuses = [_as_focus(one) for one in several]
    texts = [one.text for one in focuses]
    if not texts:
        raise ArgumentError("focus", focus, "names nothing to look at")
    if len(set(texts)) < len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise ArgumentError("focus", twice, "is given twice; give it once, with one weight")
    return focuses


def _as_focus(one: object) -> Focus:
    if isinstance(one, Focus):
        return one
    if isinstance(one, str):
        return Focus(one)
    if isinstance(one, tuple) and len(one) == 2 and isinstance(one[1], int | float):
        return Focus(one[0], float(one[1]))
    raise ArgumentError("focus", one, 'must be a text, or such as ("cushion", 0.5)')


def checked_sort(sort: Sort) -> Sort:
    """Raises ArgumentError for an order that is none."""
    if sort not in get_args(Sort):
        raise ArgumentError("sort", sort, f"must be one of {', '.join(get_args(Sort))}")
    return sort
