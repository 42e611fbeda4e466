"""Parts of a world on photographs that training can leave out, to measure what each is worth."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from steersearch.training.world.composites import MODES, Mode
from steersearch.training.world.corpus import Corpus
from steersearch.training.world.expressions import EACH, Expressions

# composites: photographs with things put in.  instances: what photographs themselves show, also cut out elsewhere.
# drawings: drawn scenes, and drawn things elsewhere.
Ingredient = Literal["composites", "instances", "drawings"]
Rows: TypeAlias = "npt.NDArray[np.int64]"

PICTURES: dict[Ingredient, Mode] = {"composites": "composite", "drawings": "world"}
SOURCES: dict[Ingredient, str] = {"instances": "photo", "drawings": "drawn"}  # of things


def left_over(
    corpus: Corpus, expressions: Expressions, without: Collection[Ingredient]
) -> tuple[Corpus, Rows, Expressions]:
    """The corpus with -1 for the things left out, the pictures (R,) that remain, and their expressions.

    A picture remains if it shows a remaining thing and has an expression that is true of no other. Such expressions
    replace the rest.
    """
    if not without:
        return corpus, np.arange(len(corpus.images)), expressions
    source = np.array([*(thing.source for thing in corpus.stock), ""])  # the last is that of -1
    hidden = np.isin(source[corpus.things], [SOURCES[each] for each in without if each in SOURCES])
    modes = [MODES.index(PICTURES[each]) for each in without if each in PICTURES]
    hidden |= np.isin(corpus.modes, modes)[:, None]
    things = np.where(hidden, -1, corpus.things)
    fits = (expressions.targets & hidden[:, None]).sum(axis=2) == 0  # (P, E)
    rows = np.flatnonzero((things >= 0).any(axis=1) & fits.any(axis=1))
    fitting = np.argsort(~fits, axis=1, kind="stable")  # those first
    place = np.arange(EACH) % fits.sum(axis=1, keepdims=True).clip(1)
    chosen = np.take_along_axis(fitting, place, axis=1)
    at = np.arange(len(fits))[:, None]
    said = replace(
        expressions, number=expressions.number[at, chosen], targets=expressions.targets[at, chosen]
    )
    return replace(corpus, things=things), rows, said
