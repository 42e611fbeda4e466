"""What a steering is trained without: no picture of it, no expression about it, nothing else missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from steersearch.core.errors import ConfigError
from steersearch.training.recipe import MINI
from steersearch.training.settings import apply_settings
from steersearch.training.world.composites import MODES
from steersearch.training.world.corpus import Corpus, make_corpus
from steersearch.training.world.expressions import Expressions, draw_expressions
from steersearch.training.world.ingredients import Ingredient, left_over
from steersearch.training.world.world import WorldConfig
from tests.photograph_folder import make_photograph_folder

SMALL = WorldConfig(photos=120, size=64, drawn_per_kind=1, plates=1, stamps=False, emoji=False)


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Expressions]:
    folder = tmp_path_factory.mktemp("world")
    photographs = make_photograph_folder(folder / "photographs")
    corpus = make_corpus(replace(SMALL, photographs=str(photographs)), folder / "corpus")
    return corpus, draw_expressions(corpus, 0, 0.1, folder)


def sources(corpus: Corpus, expressions: Expressions, rows: list[int]) -> set[str]:
    """Of all things that an expression about one of the pictures is true of, in the whole corpus' numbers."""
    return {
        corpus.stock[corpus.things[row, thing]].source
        for row in rows
        for thing in np.flatnonzero(expressions.targets[row].any(axis=0))
    }


def test_with_nothing_left_out_everything_stays(described: tuple[Corpus, Expressions]) -> None:
    corpus, expressions = described
    same, rows, said = left_over(corpus, expressions, ())
    assert same is corpus
    assert said is expressions
    assert rows.tolist() == list(range(120))


@pytest.mark.parametrize(
    ("ingredient", "mode", "source"),
    [("composites", "composite", None), ("instances", None, "photo"), ("drawings", "world", "drawn")],
)
def test_nothing_is_shown_or_said_of_what_is_left_out(
    described: tuple[Corpus, Expressions], ingredient: Ingredient, mode: str | None, source: str | None
) -> None:
    corpus, expressions = described
    left, rows, said = left_over(corpus, expressions, (ingredient,))
    modes = {MODES[number] for number in corpus.modes[rows]}
    assert modes == set(MODES) - {mode} - ({"photograph"} if ingredient == "instances" else set())
    said_of = sources(corpus, said, rows.tolist())
    assert said_of == {"drawn", "photo"} - {source}
    shown = {corpus.stock[thing].source for thing in left.things[rows].ravel() if thing >= 0}
    assert shown == {"drawn", "photo"} - {source}


def test_what_remains_of_a_picture_was_said_of_it_before(described: tuple[Corpus, Expressions]) -> None:
    corpus, expressions = described
    _, rows, said = left_over(corpus, expressions, ("drawings",))

    def pairs(of: Expressions, row: int) -> set[tuple[int, bytes]]:
        return {(int(n), t.tobytes()) for n, t in zip(of.number[row], of.targets[row], strict=True)}

    drawn = np.array([thing.source == "drawn" for thing in corpus.stock] + [False])
    for row in rows:
        about_others = {
            (number, targets)
            for number, targets in pairs(expressions, row)
            if not drawn[corpus.things[row]][np.frombuffer(targets, np.bool_)].any()
        }
        assert pairs(said, row) == about_others  # all of them, and no other


def test_only_a_world_on_photographs_has_ingredients() -> None:
    with pytest.raises(ConfigError, match=r"data\.without"):
        apply_settings(MINI, ["model.trunk=mini", "objective.alignment=0", "data.without=drawings"])
    with pytest.raises(ConfigError, match=r"data\.without"):
        apply_settings(MINI, ["data.without=photographs"])
    assert apply_settings(MINI, ["data.without=drawings,composites"]).data.without == (
        "drawings",
        "composites",
    )
