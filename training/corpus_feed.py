"""Batches from a corpus of the generated world, whose pictures are composed and expressions encoded in advance.

Not a `SourceFeed`: a batch of 32 takes milliseconds of one core here and a second there, which would stall training
on two cores; and its keys for distillation are things of the world, not texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from steersearch.training.augment import has_direction
from steersearch.training.batch import Batch, Keyed
from steersearch.training.frozen_tokens import FrozenTokens
from steersearch.training.pictures import Pictures
from steersearch.training.text_store import TextStore
from steersearch.training.world.corpus import Corpus
from steersearch.training.world.expressions import EACH, Expressions
from steersearch.training.world.ingredients import Rows
from steersearch.training.world.things import TEMPLATES
from steersearch.training.world.vocabulary import Vocabulary


@dataclass(frozen=True)
class Described:
    """A corpus, its pictures on the training device, and its expressions. rows (R,): those to train on"""

    corpus: Corpus
    pictures: Pictures | FrozenTokens
    expressions: Expressions
    rows: Rows


class CorpusFeed:
    """A `Feed` whose batches are a function of corpus, seed and step.

    Half of the pictures are mirrored, unless the expression names a direction, and tones vary; precomputed tokens are
    not augmented. Pixels are on the device of the pictures, the rest of a batch is on the CPU.
    held: for validation.  keyed: whether batches have `Keyed` for distillation
    """

    sources = ("world",)

    def __init__(
        self,
        train: Described,
        held: Described,
        store: TextStore,
        *,
        batch: int,
        seed: int,
        keyed: bool,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self._train, self._held = train, held
        self._store, self._batch, self._seed = store, batch, seed
        self._rank, self._ranks = rank, ranks
        self._length = store.longest
        self._fits = _Fits(train.corpus, train.expressions) if keyed else None

    @property
    def held_pictures(self) -> Sequence[Image.Image]:
        """The first validation pictures."""
        return [Image.fromarray(image) for image in self._held.corpus.images[:64]]

    def training(self, start: int, stop: int) -> Iterator[Batch]:
        """Each step draws its pictures without replacement."""
        for step in range(start, stop):
            rng = np.random.default_rng([self._seed, step])
            rows = rng.choice(self._train.rows, self._batch, replace=False)
            each = rng.integers(EACH, size=self._batch)
            mirrored = rng.random(self._batch) < 0.5
            gain = rng.normal(1, 0.08, (self._batch, 3, 1, 1))
            shift = rng.normal(0, 0.12, (self._batch, 3, 1, 1))
            mine = slice(self._rank, None, self._ranks)
            if not self._train.pictures.varies:
                yield self._read(self._train, rows[mine], each[mine], np.zeros_like(mirrored[mine]))
                continue
            batch = self._read(self._train, rows[mine], each[mine], mirrored[mine])
            varied = batch.pixels * torch.from_numpy(gain[mine]).float().to(batch.pixels.device)
            varied += torch.from_numpy(shift[mine]).float().to(batch.pixels.device)
            yield replace(batch, pixels=varied)

    def validation(self) -> Iterator[Batch]:
        """The first expression of every validation picture, not augmented."""
        rows = np.arange(self._rank, len(self._held.pictures), self._ranks)
        for start in range(0, len(rows), 64):
            part = rows[start : start + 64]
            first = np.zeros(len(part), np.int64)
            yield self._read(self._held, part, first, first.astype(bool), keyed=False)

    def _read(
        self,
        described: Described,
        rows: npt.NDArray[np.int64],
        each: npt.NDArray[np.int64],
        mirrored: npt.NDArray[np.bool_],
        keyed: bool = True,
    ) -> Batch:
        corpus, expressions = described.corpus, described.expressions
        numbers = expressions.number[rows, each]
        texts = [expressions.texts[n] for n in numbers]
        targets = expressions.targets[rows, each]  # (B, M)
        shares = corpus.cover[rows].astype(np.float32) / 255 * targets[..., None, None]
        cover = shares.sum(axis=1).clip(0, 1)
        flip = mirrored & ~np.array([has_direction(text) for text in texts])
        cover[flip] = cover[flip, :, ::-1]
        return Batch(
            described.pictures(rows, flip),
            self._store.features(texts, self._length),
            torch.from_numpy(cover).flatten(1),
            torch.from_numpy(_centres(cover)),
            torch.zeros(len(rows), dtype=torch.int64),
            self._fits(corpus.things[rows], targets, numbers) if keyed and self._fits else None,
            tuple(texts),
        )


class _Fits:
    """Which things of the stock, besides the target, an expression fits, so that they are not negatives."""

    def __init__(self, corpus: Corpus, expressions: Expressions) -> None:
        vocabulary = Vocabulary(corpus.stock)
        self._bears = vocabulary.bears  # (K + 1, V)
        number = {name: i for i, name in enumerate(vocabulary.names)}
        named = {template.format(name): i for name, i in number.items() for template in TEMPLATES}
        self._name = torch.tensor([named.get(text, -1) for text in expressions.texts])
        nouns = sorted({thing.noun for thing in corpus.stock})
        self._noun = torch.tensor([*(nouns.index(thing.noun) for thing in corpus.stock), -1])

    def __call__(
        self, things: npt.NDArray[np.int16], targets: npt.NDArray[np.bool_], numbers: npt.NDArray[np.int32]
    ) -> Keyed:
        nothing = len(self._noun) - 1
        count = targets.sum(axis=1)
        first = things[np.arange(len(things)), targets.argmax(axis=1)].astype(np.int64)
        one = torch.from_numpy(np.where(count == 1, first, np.where(count == 0, nothing, -1)))
        names = self._name[torch.from_numpy(numbers.astype(np.int64))]
        borne: Tensor = self._bears[:, names.clamp_min(0)].T  # (B, K + 1)
        alike = (self._noun[None, :] == self._noun[one][:, None]) & (one != nothing)[:, None]
        # An expression with more than a name ("the mug left of the ball") may fit every thing with that noun.
        fits = torch.where((names >= 0)[:, None], borne, alike)
        # For an absent thing its own keys are the most important negatives.
        return Keyed(one, fits & (one != nothing)[:, None])


def _centres(cover: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(B, Hp, Wp) -> (B, 2): x and y of the centre of the covered patches' box, in patches; nan without one."""
    centres = np.full((len(cover), 2), np.nan, np.float32)
    for i, grid in enumerate(cover > 0.05):
        rows, columns = np.flatnonzero(grid.any(axis=1)), np.flatnonzero(grid.any(axis=0))
        if len(rows):
            centres[i] = (columns[0] + columns[-1] + 1) / 2, (rows[0] + rows[-1] + 1) / 2
    return centres
