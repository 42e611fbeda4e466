"""The terms of a query: texts to look at, each with a weight."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from numbers import Real
from typing import Literal, TypeAlias, get_args

from steersearch.core.errors import ArgumentError, in_digits
from steersearch.core.prompts import Reading, checked_prompt
from steersearch.indexer.manifest import PromptIndex

_WEIGHED = re.compile(r"(?P<text>.*):\s*(?P<weight>[+-]?(\d+\.?\d*|\.\d+))", re.DOTALL)
_UNCLEAR = re.compile(r"(?P<text>.*):(?P<weight>\S*)", re.DOTALL)  # not a number in the place of a weight

Sort = Literal["score", "date", "-date"]  # of hits


@dataclass(frozen=True)
class Focus:
    """One term of a query: what to look at, and how much it counts.

    text: a prompt in stored form.
    weight: finite, not 0; a negative one leads away from the text. The score of a photo under several focuses is
        Σ weight·cosine / Σ |weight|,  in [-1, 1].
    indexes: the matching prompt indexes, the one that answers first; empty before `Library.resolve`.
    reading: how the model reads the text; None: unknown (before the search, and for indexes of older versions).

    Raises PromptError, ArgumentError.
    """

    text: str
    weight: float = 1.0
    indexes: tuple[PromptIndex, ...] = ()
    reading: Reading | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", checked_prompt(self.text))
        if not math.isfinite(self.weight) or self.weight == 0:
            raise ArgumentError(f'weight of "{self.text}"', self.weight, "must be a finite number, not 0")

    @classmethod
    def on(cls, index: PromptIndex, weight: float = 1.0) -> Focus:
        """The prompt of `index`, answered by it."""
        return cls(index.prompt, weight, (index,))

    @property
    def index(self) -> PromptIndex:
        """The prompt index that answers."""
        return self.indexes[0]

    @property
    def others(self) -> tuple[PromptIndex, ...]:
        """The other prompt indexes that match."""
        return self.indexes[1:]

    @property
    def remarks(self) -> list[str]:
        """What the user should know about how the model reads the text."""
        return [] if self.reading is None else self.reading.remarks()

    def __str__(self) -> str:
        """As `parse_focus` reads it."""
        is_clear = not _WEIGHED.fullmatch(self.text) and not _UNCLEAR.fullmatch(self.text)
        return self.text if self.weight == 1 and is_clear else f"{self.text}:{in_digits(self.weight)}"


AnyFocus: TypeAlias = str | Sequence[str | tuple[str, float] | Focus]


def parse_focus(text: str) -> Focus:
    """Parse TEXT or TEXT:WEIGHT. What follows the last colon without a space is a weight, so "ratio 16:9" needs one:
    "ratio 16:9:1". In "colour: red" the colon belongs to the text. Raises ArgumentError for an empty text, a weight
    that is not a number, or 0."""
    text = text.strip()
    weighed = _WEIGHED.fullmatch(text)
    if weighed is not None:
        return Focus(weighed["text"], float(weighed["weight"]))
    unclear = _UNCLEAR.fullmatch(text)
    if unclear is not None:
        given = f'"{unclear["weight"]}" is not a number' if unclear["weight"] else "nothing follows the colon"
        reason = f'{given}; a weight looks like "cushion:0.5". For the text itself write "{text}:1"'
        raise ArgumentError("focus", text, reason)
    return Focus(text)


def as_focuses(focus: AnyFocus) -> list[Focus]:
    """One text, taken as it is without a weight, or several focuses. Raises ArgumentError for none or a duplicate."""
    if isinstance(focus, bytes | Mapping) or not isinstance(focus, Iterable | Focus):
        raise ArgumentError("focus", focus, 'must be a text, or several, such as ["sofa", ("cushion", 0.5)]')
    several = [focus] if isinstance(focus, str | Focus) else focus
    focuses = [_as_focus(one) for one in several]
    texts = [one.text for one in focuses]
    if not texts:
        raise ArgumentError("focus", focus, "is empty")
    if len(set(texts)) < len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise ArgumentError("focus", twice, "is given twice; give it once, with one weight")
    return focuses


def _as_focus(one: object) -> Focus:
    if isinstance(one, Focus):
        return one
    if isinstance(one, str):
        return Focus(one)
    if isinstance(one, tuple) and len(one) == 2 and isinstance(one[1], Real):
        with suppress(OverflowError):
            return Focus(one[0], float(one[1]))
    raise ArgumentError("focus", one, 'must be a text, or such as ("cushion", 0.5)')


def shares_of(weights: Sequence[float]) -> list[float]:
    """weight / Σ |weight|, where the sum exceeds the largest number too."""
    largest = max(map(abs, weights))
    scaled = [weight / largest for weight in weights]
    return [weight / sum(map(abs, scaled)) for weight in scaled]


def checked_sort(sort: Sort) -> Sort:
    """Raises ArgumentError for an unknown order."""
    if sort not in get_args(Sort):
        raise ArgumentError("sort", sort, f"must be one of {', '.join(get_args(Sort))}")
    return sort
