"""Words for what patches show: their truth, on a bank of a few words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from steersearch.training.hybrid.word_bank import WordBank
from steersearch.training.world.things import Thing
from steersearch.training.world.vocabulary import Vocabulary

WORDS = [
    ("pug", frozenset({0})), ("beagle", frozenset({1})), ("dog", frozenset({0, 1})), ("cup", frozenset({2})),
    ("animal", frozenset({0, 1, 3})),
]  # fmt: skip
MEANS = dict(WORDS)


def thing(noun: str, *names: str) -> Thing:
    picture = Image.new("RGBA", (2, 2))
    return Thing(
        picture=picture, noun=noun, phrase=noun, category="", names=frozenset({noun, *names}), source="drawn"
    )


@pytest.fixture
def bank() -> WordBank:
    return WordBank(WORDS, Vocabulary([thing("mug", "red mug"), thing("ball")]), classes=5)


def patches() -> tuple[torch.Tensor, torch.Tensor]:
    """Four patches by their classes, of which the fifth has no word; the last two lie on the mug and on the ball."""
    classes = torch.tensor([[0.7, 0.2, 0, 0, 0.1], [0, 0, 0.9, 0, 0.1], [0, 0, 0, 1, 0], [0.5, 0, 0, 0.5, 0]])
    return classes, torch.tensor([-1, -1, 0, 1])


def test_what_is_drawn_is_true_of_the_patches(bank: WordBank) -> None:
    classes, things = patches()
    seen: set[str] = set()
    for seed in range(30):
        drawn = bank.draw(np.random.default_rng(seed), classes, things)
        truth, width = drawn.truth, len(drawn.texts)
        assert truth.shown.shape == (4, width)
        assert truth.on_thing.tolist() == [False, False, True, True]
        for i, (text, has_article) in enumerate(zip(drawn.texts, drawn.has_article.tolist(), strict=True)):
            assert text.startswith("the ") == has_article
            word = text.removeprefix("the ")
            seen.add(word)
            if i < width - truth.names:
                wanted = classes[:, sorted(MEANS[word])].sum(dim=1)
            else:
                wanted = torch.tensor([0, 0, float(word in ("mug", "red mug")), float(word == "ball")])
            assert torch.allclose(truth.shown[:, i], wanted.clamp(0, 1)), word
        assert truth.narrow <= 4  # one for each class that has a word
    assert seen == {*MEANS, "mug", "red mug", "ball"}


def test_every_text_that_is_drawn_is_among_those_to_encode(bank: WordBank) -> None:
    classes, things = patches()
    for seed in range(20):
        assert set(bank.draw(np.random.default_rng(seed), classes, things).texts) <= set(bank.texts)


def test_asking_gives_a_word_and_where_it_shows(bank: WordBank) -> None:
    classes, _ = patches()
    asked = [bank.ask(np.random.default_rng(seed), classes) for seed in range(80)]
    found = dict(each for each in asked if each is not None)
    assert {text.removeprefix("the ") for text in found} == set(MEANS)
    assert torch.allclose(found["cup"], torch.tensor([0.0, 1, 0, 0]))
    assert torch.allclose(found["animal"], torch.tensor([0.9, 0, 1, 1]))
    assert None in asked  # the class without a word


def test_what_hardly_shows_is_not_requested(bank: WordBank) -> None:
    faint = torch.tensor([[0.05, 0, 0, 0, 0.95]])
    assert {bank.ask(np.random.default_rng(seed), faint) for seed in range(40)} == {None}
