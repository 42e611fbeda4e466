"""Batches from a corpus of the generated world: pictures that were composed beforehand, expressions that were encoded.

On two processor cores this is what keeps a training from waiting: a batch of 32 takes some milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor

from steersearch.core.errors import DataError
from steersearch.core.files import drafted, read_json, require_regular, write_atomically
from steersearch.core.preprocess import Preprocess
from steersearch.training.augment import has_direction
from steersearch.training.batch import Batch, Keyed
from steersearch.training.frozen_tokens import FrozenTokens
from steersearch.training.pictures import Pictures
from steersearch.training.prompts import Vocabulary
from steersearch.training.text_store import TextStore
from steersearch.training.world.corpus import Corpus
from steersearch.training.world.phrases import Standing, describe
from steersearch.training.world.things import TEMPLATES

EACH = 4  # expressions drawn for each picture
RELATIONS = 0.2  # of which so many say where a thing is
CHUNK = 1000


@dataclass(frozen=True)
class Expressions:
    """What is said of a corpus' pictures: expression e of picture p is texts[number[p, e]].

    meant (P, E, M) bool: which of the picture's things it is true of
    """

    texts: list[str]
    number: npt.NDArray[np.int32]
    meant: npt.NDArray[np.bool_]


def draw_expressions(corpus: Corpus, seed: int, absent: float, folder: Path) -> Expressions:
    """EACH expressions for every picture, a function of (corpus, seed, absent); kept in `folder`."""
    told = json.dumps([len(corpus.images), len(corpus.stock), seed, absent, EACH, RELATIONS, TEMPLATES])
    name = hashlib.sha256(told.encode() + corpus.things.tobytes()).hexdigest()[:16]
    texts_file, arrays = folder / f"expressions-{name}.json", folder / f"expressions-{name}.npz"
    with FileLock(folder / f"expressions-{name}.lock"):  # several runs may share the folder
        if not texts_file.is_file():
            texts, number, meant = _draw_all(corpus, seed, absent)
            with drafted(arrays) as draft, draft.open("wb") as file:
                np.savez(file, number=number, meant=meant)
            # last: its presence means that both are whole
            write_atomically(texts_file, lambda file: file.write(json.dumps(texts).encode()))
    try:
        with np.load(require_regular(arrays)) as kept:
            return _checked(Expressions(read_json(texts_file), kept["number"], kept["meant"]), corpus)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or str(error)
        way_out = f"delete {texts_file.name} and {arrays.name}, they will be drawn anew"
        raise DataError(folder, f"damaged expressions ({reason}); {way_out}") from error


def _checked(said: Expressions, corpus: Corpus) -> Expressions:
    """`said`, if it is of this corpus. Raises ValueError."""
    pictures, things = corpus.things.shape
    if said.number.shape != (pictures, EACH) or said.meant.shape != (pictures, EACH, things):
        raise ValueError("they are not of this many pictures")
    if said.number.dtype != np.int32 or said.meant.dtype != np.bool_:
        raise ValueError("their arrays are of other types")
    if not isinstance(said.texts, list) or not all(isinstance(text, str) for text in said.texts):
        raise ValueError("their texts are none")
    if said.number.min(initial=0) < 0 or said.number.max(initial=0) >= len(said.texts):
        raise ValueError("texts are missing")
    return said


_drawing: list[tuple[Corpus, int, float]] = []  # what forked workers find


def _draw_all(
    corpus: Corpus, seed: int, absent: float
) -> tuple[list[str], npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    _drawing[:] = [(corpus, seed, absent)]
    with ProcessPoolExecutor(mp_context=get_context("fork")) as pool:
        parts = list(pool.map(_draw_chunk, range(0, len(corpus.images), CHUNK)))
    _drawing.clear()
    said = [text for part, _ in parts for text in part]
    texts = sorted(set(said))
    numbers = {text: i for i, text in enumerate(texts)}
    number = np.array([numbers[text] for text in said], np.int32).reshape(-1, EACH)
    return texts, number, np.concatenate([meant for _, meant in parts])


def _draw_chunk(start: int) -> tuple[list[str], npt.NDArray[np.bool_]]:
    corpus, seed, absent = _drawing[0]
    stop = min(start + CHUNK, len(corpus.images))
    said, meant = [], np.zeros((stop - start, EACH, corpus.things.shape[1]), np.bool_)
    for picture in range(start, stop):
        rng = np.random.default_rng([seed, 6, picture])
        standing = _standing(corpus, picture)
        for e in range(EACH):
            phrase = describe(standing, rng, corpus.stock, relations=RELATIONS, absent=absent)
            said.append(TEMPLATES[int(rng.integers(len(TEMPLATES)))].format(phrase.text))
            meant[picture - start, e, list(phrase.meant)] = True
    return said, meant


def _standing(corpus: Corpus, picture: int) -> list[Standing]:
    """The picture's things, each where its cover has its centre; in the corpus' order."""
    found = []
    for thing, cover in zip(corpus.things[picture], corpus.cover[picture], strict=True):
        if thing < 0:
            break
        weights = cover.astype(np.float64) + 1e-9
        y, x = (np.arange(side) + 0.5 for side in cover.shape)
        total = weights.sum()
        found.append(
            Standing(
                corpus.stock[thing],
                float((weights.sum(0) * x).sum() / total / cover.shape[1]),
                float((weights.sum(1) * y).sum() / total / cover.shape[0]),
                float(total / 255 / cover.size),
            )
        )
    return found


@dataclass(frozen=True)
class _Told:
    """A corpus, its pictures where they are needed, and what is said of them."""

    corpus: Corpus
    pictures: Pictures | FrozenTokens
    expressions: Expressions


class CorpusFeed:
    """A `Feed`. Step k of seed s is a function of (corpus, s, k); half of the pictures are mirrored, tones vary.

    preprocess: of the model, whose pixels are made as its trunk expects them.
    An expression with a direction in it is never mirrored. keyed: whether batches have `Keyed` for distillation.
    device: where the batches' pixels are made; the rest of a batch is on the CPU.
    tokens: of both corpora, in place of pixels; they stay as they are.
    """

    sources = ("world",)

    def __init__(
        self,
        corpus: Corpus,
        expressions: Expressions,
        held: Corpus,
        held_expressions: Expressions,
        store: TextStore,
        preprocess: Preprocess,
        *,
        batch: int,
        seed: int,
        keyed: bool,
        rank: int = 0,
        ranks: int = 1,
        device: torch.device,
        tokens: tuple[FrozenTokens, FrozenTokens] | None = None,
    ) -> None:
        mean, std = preprocess.mean, preprocess.std
        seen = tokens or (
            Pictures(corpus.images, device, mean, std),
            Pictures(held.images, device, mean, std),
        )
        self._train = _Told(corpus, seen[0], expressions)
        self._held = _Told(held, seen[1], held_expressions)
        self._store, self._batch, self._seed = store, batch, seed
        self._rank, self._ranks = rank, ranks
        self._length = store.longest
        self._fits = _Fits(corpus, expressions) if keyed else None

    @property
    def held_pictures(self) -> Sequence[Image.Image]:
        """The first pictures that are validated on, as they are."""
        return [Image.fromarray(image) for image in self._held.corpus.images[:64]]

    def training(self, start: int, stop: int) -> Iterator[Batch]:
        """Pictures are drawn anew for each step, so none is seen twice within one."""
        for step in range(start, stop):
            rng = np.random.default_rng([self._seed, step])
            rows = rng.choice(len(self._train.pictures), self._batch, replace=False)
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
            yield Batch(
                varied, batch.prompts, batch.cover, batch.centre, batch.source, batch.alone, batch.texts
            )

    def validation(self) -> Iterator[Batch]:
        """The first expression of every held picture, as it is."""
        rows = np.arange(self._rank, len(self._held.pictures), self._ranks)
        plain = np.zeros(1, np.int64)
        for start in range(0, len(rows), 64):
            part = rows[start : start + 64]
            first = np.repeat(plain, len(part))
            yield self._read(self._held, part, first, first.astype(bool), keyed=False)

    def _read(
        self,
        told: _Told,
        rows: npt.NDArray[np.int64],
        each: npt.NDArray[np.int64],
        mirrored: npt.NDArray[np.bool_],
        keyed: bool = True,
    ) -> Batch:
        corpus, expressions = told.corpus, told.expressions
        numbers = expressions.number[rows, each]
        texts = [expressions.texts[n] for n in numbers]
        meant = expressions.meant[rows, each]  # (B, M)
        cover = (corpus.cover[rows].astype(np.float32) / 255 * meant[..., None, None]).sum(axis=1).clip(0, 1)
        flip = mirrored & ~np.array([has_direction(text) for text in texts])
        cover[flip] = cover[flip, :, ::-1]
        return Batch(
            told.pictures(rows, flip),
            self._store.features(texts, self._length),
            torch.from_numpy(cover).flatten(1),
            torch.from_numpy(_centres(cover)),
            torch.zeros(len(rows), dtype=torch.int64),
            self._fits(corpus.things[rows], meant, numbers) if keyed and self._fits else None,
            tuple(texts),
        )


class _Fits:
    """Which things of the stock an expression fits besides the one meant: they are no negatives."""

    def __init__(self, corpus: Corpus, expressions: Expressions) -> None:
        vocabulary = Vocabulary(corpus.stock)
        self._bears = vocabulary.bears  # (K + 1, V)
        number = {name: i for i, name in enumerate(vocabulary.names)}
        named = {template.format(name): i for name, i in number.items() for template in TEMPLATES}
        self._name = torch.tensor([named.get(text, -1) for text in expressions.texts])
        nouns = sorted({thing.noun for thing in corpus.stock})
        self._noun = torch.tensor([*(nouns.index(thing.noun) for thing in corpus.stock), -1])

    def __call__(
        self, things: npt.NDArray[np.int16], meant: npt.NDArray[np.bool_], numbers: npt.NDArray[np.int32]
    ) -> Keyed:
        nothing = len(self._noun) - 1
        count = meant.sum(axis=1)
        first = things[np.arange(len(things)), meant.argmax(axis=1)].astype(np.int64)
        one = torch.from_numpy(np.where(count == 1, first, np.where(count == 0, nothing, -1)))
        names = self._name[torch.from_numpy(numbers.astype(np.int64))]
        borne: Tensor = self._bears[:, names.clamp_min(0)].T  # (B, K + 1)
        alike = (self._noun[None, :] == self._noun[one][:, None]) & (one != nothing)[:, None]
        # An expression that is no plain name ("the mug left of the ball") fits, for all we know, every such thing.
        fits = torch.where((names >= 0)[:, None], borne, alike)
        # Where what is named is not there, its own keys are the negatives that matter most.
        return Keyed(one, fits & (one != nothing)[:, None])


def _centres(cover: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(B, Hp, Wp) -> (B, 2): x and y of the middle of what is covered, in patches; nan where nothing is."""
    centres = np.full((len(cover), 2), np.nan, np.float32)
    for i, grid in enumerate(cover > 0.05):
        rows, columns = np.flatnonzero(grid.any(axis=1)), np.flatnonzero(grid.any(axis=0))
        if len(rows):
            centres[i] = (columns[0] + columns[-1] + 1) / 2, (rows[0] + rows[-1] + 1) / 2
    return centres
