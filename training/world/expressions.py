"""Expressions about the pictures of a corpus: a few for each, generated once and kept beside them."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from steersearch.core.errors import DataError
from steersearch.core.files import drafted, read_json, require_regular, write_atomically
from steersearch.training.world.corpus import Corpus
from steersearch.training.world.drawings import forked_pool
from steersearch.training.world.painting import pick
from steersearch.training.world.phrases import Standing, describe
from steersearch.training.world.things import TEMPLATES

EACH = 4  # expressions drawn for each picture
RELATIONS = 0.2  # share of expressions with a relation
CHUNK = 1000


@dataclass(frozen=True)
class Expressions:
    """Expression e of picture p is texts[number[p, e]].

    targets (P, E, M) bool: the things of the picture that it is true of
    """

    texts: list[str]
    number: npt.NDArray[np.int32]
    targets: npt.NDArray[np.bool_]


def draw_expressions(corpus: Corpus, seed: int, absent: float, folder: Path) -> Expressions:
    """EACH expressions for every picture, a function of (corpus, seed, absent), kept in `folder`."""
    settings = json.dumps([len(corpus.images), len(corpus.stock), seed, absent, EACH, RELATIONS, TEMPLATES])
    name = hashlib.sha256(settings.encode() + corpus.things.tobytes()).hexdigest()[:16]
    texts_file, arrays = folder / f"expressions-{name}.json", folder / f"expressions-{name}.npz"
    with FileLock(folder / f"expressions-{name}.lock"):  # several runs may share the folder
        if not texts_file.is_file():
            texts, number, targets = _draw_all(corpus, seed, absent)
            with drafted(arrays) as draft, draft.open("wb") as file:
                np.savez(file, number=number, meant=targets)
            # written last: it marks both files as complete
            write_atomically(texts_file, lambda file: file.write(json.dumps(texts).encode()))
    try:
        with np.load(require_regular(arrays)) as kept:
            return _checked(Expressions(read_json(texts_file), kept["number"], kept["meant"]), corpus)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or str(error)
        way_out = f"delete {texts_file.name} and {arrays.name}, they will be drawn again"
        raise DataError(folder, f"damaged expressions ({reason}); {way_out}") from error


def _checked(said: Expressions, corpus: Corpus) -> Expressions:
    """`said`, if it is of this corpus. Raises ValueError."""
    pictures, things = corpus.things.shape
    if said.number.shape != (pictures, EACH) or said.targets.shape != (pictures, EACH, things):
        raise ValueError("they are of another number of pictures")
    if said.number.dtype != np.int32 or said.targets.dtype != np.bool_:
        raise ValueError("their arrays have other types")
    if not isinstance(said.texts, list) or not all(isinstance(text, str) for text in said.texts):
        raise ValueError("their texts are not text")
    if said.number.min(initial=0) < 0 or said.number.max(initial=0) >= len(said.texts):
        raise ValueError("texts are missing")
    return said


_drawing: list[tuple[Corpus, int, float]] = []  # inherited by forked workers


def _draw_all(
    corpus: Corpus, seed: int, absent: float
) -> tuple[list[str], npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    _drawing[:] = [(corpus, seed, absent)]
    with forked_pool() as pool:
        parts = list(pool.map(_draw_chunk, range(0, len(corpus.images), CHUNK)))
    _drawing.clear()
    said = [text for part, _ in parts for text in part]
    texts = sorted(set(said))
    numbers = {text: i for i, text in enumerate(texts)}
    number = np.array([numbers[text] for text in said], np.int32).reshape(-1, EACH)
    return texts, number, np.concatenate([targets for _, targets in parts])


def _draw_chunk(start: int) -> tuple[list[str], npt.NDArray[np.bool_]]:
    corpus, seed, absent = _drawing[0]
    stop = min(start + CHUNK, len(corpus.images))
    said, targets = [], np.zeros((stop - start, EACH, corpus.things.shape[1]), np.bool_)
    for picture in range(start, stop):
        rng = np.random.default_rng([seed, 6, picture])
        standing = _standing(corpus, picture)
        for e in range(EACH):
            phrase = describe(standing, rng, corpus.stock, relations=RELATIONS, absent=absent)
            said.append(pick(rng, TEMPLATES).format(phrase.text))
            targets[picture - start, e, list(phrase.targets)] = True
    return said, targets


def _standing(corpus: Corpus, picture: int) -> list[Standing]:
    """The picture's things in the corpus' order, each at the centre of its cover."""
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
