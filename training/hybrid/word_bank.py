"""Words for what patches show: for classes of the backbone's network, one or several, and names of things.

Letters: P patches, C classes, W words, K things of the stock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from steersearch.training.hybrid.alignment import Truth
from steersearch.training.world.vocabulary import Vocabulary

ARTICLE = "the "
LEAST_SHOWN = 0.1  # least share of a word in the patch that shows most of it, for the word to be drawn
BROAD = 0.7  # exponent of a class's share in a batch: rare ones are drawn more often than they occur


@dataclass(frozen=True)
class Drawn:
    """Words for one step of the alignment. has_article (W,) bool: whether each begins with one."""

    texts: list[str]
    has_article: Tensor
    truth: Truth


class WordBank:
    """class_words: each word with the numbers of the classes it is true of.  vocabulary: names of the stock."""

    def __init__(
        self, class_words: Sequence[tuple[str, frozenset[int]]], vocabulary: Vocabulary, classes: int = 1000
    ) -> None:
        self.words = [word for word, _ in class_words]
        self.names = vocabulary.names
        self._bears = vocabulary.bears  # (K + 1, V)
        self._of_word = torch.zeros(len(class_words), classes)
        self._narrow: list[list[int]] = [[] for _ in range(classes)]
        self._wide: list[list[int]] = [[] for _ in range(classes)]
        for number, (_, numbers) in enumerate(class_words):
            self._of_word[number, sorted(numbers)] = 1
            for each in numbers:
                (self._narrow if len(numbers) == 1 else self._wide)[each].append(number)

    @cached_property
    def texts(self) -> list[str]:
        """All texts that may be drawn, with and without an article."""
        plain = sorted({*self.words, *self.names})
        return [*plain, *(ARTICLE + text for text in plain)]

    def draw(
        self,
        rng: np.random.Generator,
        classes: Tensor,
        things: Tensor,
        *,
        narrow: int = 160,
        wide: int = 80,
        names: int = 100,
    ) -> Drawn:
        """At most this many words of each kind, for patches that show classes (P, C), on things (P,), -1 for none.

        Classes are drawn by how much of them the patches show, and a word for each; names are those of the things.
        """
        share = classes.mean(dim=0).double().numpy() ** BROAD
        drawn = rng.choice(
            len(share), min(narrow, int((share > 0).sum())), replace=False, p=share / share.sum()
        )
        first = [
            _one_of(rng, self._narrow[c] or self._wide[c]) for c in drawn if self._narrow[c] or self._wide[c]
        ]
        several = sorted({_one_of(rng, self._wide[c]) for c in drawn[:wide] if self._wide[c]} - set(first))
        on_thing = things >= 0
        shown_things = rng.permutation(torch.unique(things[on_thing]).numpy())[:names]
        named = sorted({_one_of(rng, self._borne_by(thing)) for thing in shown_things})
        shown = torch.cat(
            [
                classes @ self._of_word[first + several].T,
                torch.where(on_thing[:, None], self._bears[things][:, named].float(), 0.0),
            ],
            dim=1,
        ).clamp(0, 1)
        plain = [self.words[i] for i in first + several] + [self.names[i] for i in named]
        has_article = rng.random(len(plain)) < 0.5
        texts = [
            ARTICLE + text if article else text for text, article in zip(plain, has_article, strict=True)
        ]
        truth = Truth(shown, narrow=len(first), names=len(named), on_thing=on_thing)
        return Drawn(texts, torch.from_numpy(has_article), truth)

    def ask(self, rng: np.random.Generator, classes: Tensor) -> tuple[str, Tensor] | None:
        """A word for something that a picture shows, and where: (P,) in 0..1, 1 where it shows most of it.

        classes (P, C): probabilities at each patch. None if no word is found, or the drawn one shows nowhere.
        """
        patch = classes[int(rng.integers(len(classes)))].double().numpy()
        number = int(rng.choice(len(patch), p=patch / patch.sum()))
        words = self._narrow[number] + self._wide[number]
        if not words:
            return None
        word = _one_of(rng, words)
        shown = classes @ self._of_word[word]
        if shown.max() < LEAST_SHOWN:
            return None
        text = self.words[word] if rng.random() < 0.5 else ARTICLE + self.words[word]
        return text, shown / shown.max()

    def _borne_by(self, thing: int) -> list[int]:
        return [int(i) for i in self._bears[thing].nonzero()[:, 0]]


def _one_of(rng: np.random.Generator, choices: Sequence[int]) -> int:
    return choices[int(rng.integers(len(choices)))]
