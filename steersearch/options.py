"""Options that several commands share, with their checks: parsed the same and explained the same everywhere."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


def words(text: str) -> str:
    """A text with a word in it, as it was given."""
    if not text.strip():
        raise typer.BadParameter('is empty; name what to look at, such as "the remote control"')
    return text


def all_words(texts: list[str]) -> list[str]:
    """Texts that have a word in each."""
    return [words(text) for text in texts]


def finite(number: float | None) -> float | None:
    """A number from 0 up, or none at all."""
    if number is not None and not 0 <= number < float("inf"):
        raise typer.BadParameter(f"{number} is not a number from 0 (no steering) up; 1 is as trained")
    return number


Focus = Annotated[
    str, typer.Option(metavar="TEXT", callback=words, help="What to look at; a prompt that was indexed.")
]
GateScale = Annotated[
    float,
    typer.Option(metavar="NUMBER", callback=finite, help="Strength of the steering: 0 none, 1 as trained."),
]
Place = Annotated[
    Path | None,
    typer.Option(metavar="PLACE", help="Where the library lives (also: STEERSEARCH_LIBRARY)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]
