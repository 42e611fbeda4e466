"""What a small model has learned: words, and the look of the photos that it was trained on.

A photo's unsteered vector, whitened by those of the training pictures, lies along the directions in which these differ
most. A picture of another kind, such as a page of text, lies across them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import save_file

from steersearch.core.vectors import Floats, product

_LONGEST = 4  # words of a name
# Of the mean variance: a direction in which nothing differs shows only how numbers were rounded.
_FLOOR = 0.05


@dataclass(frozen=True)
class Learned:
    """weights: sha256 of the model's file.  better: the name of a model that knows more.
    mean (D,) and axes (D, D): whiten unsteered vectors of unit length, directions of most variance first.
    most: what `strangeness` does not exceed in 95 % of photographs like the training's.
    words: the names that the model was taught, see `digests`.
    """

    weights: str
    better: str
    most: float
    mean: Floats
    axes: Floats
    words: frozenset[int]

    @classmethod
    def read(cls, path: Path) -> Learned:
        """What `save` wrote."""
        with safe_open(path, "np") as file:
            about = json.loads(file.metadata()["learned"])
            mean, axes = (file.get_tensor(name).astype(np.float32) for name in ("mean", "axes"))
            return cls(**about, mean=mean, axes=axes, words=frozenset(file.get_tensor("words").tolist()))

    def save(self, path: Path) -> None:
        arrays: dict[str, npt.NDArray[Any]] = {"mean": self.mean, "axes": self.axes.astype(np.float16)}
        arrays["words"] = np.array(sorted(self.words), np.int64)
        about = {"weights": self.weights, "better": self.better, "most": self.most}
        save_file(arrays, path, {"learned": json.dumps(about)})

    def is_unlike(self, vectors: Floats) -> npt.NDArray[np.bool_]:
        """Which of these photos, (n, D) unsteered vectors, look unlike the training's."""
        return strangeness(vectors, self.mean, self.axes) > self.most

    def knows(self, prompt: str) -> bool:
        """Whether some word of `prompt`, or several in a row, is a name that the model was taught."""
        return not self.words.isdisjoint(digests(_names_in(prompt)))


@cache
def learned_by(weights: str) -> Learned | None:
    """What the bundled model has learned; None for other weights, of this sha256."""
    with as_file(files("steersearch.core.mini") / "learned.safetensors") as file:
        learned = Learned.read(file)
    return learned if learned.weights == weights else None


def strangeness(vectors: Floats, mean: Floats, axes: Floats) -> Floats:
    """(n,): how far each vector lies across the directions in which training pictures differ, over how far along."""
    along, across = np.split(product(vectors - mean, axes), 2, axis=1)
    ratio: Floats = np.linalg.norm(across, axis=1) / np.maximum(np.linalg.norm(along, axis=1), 1e-12)
    return ratio


def whitening(vectors: Floats) -> tuple[Floats, Floats]:
    """Mean (D,) and axes (D, D) of these vectors, (n, D) with n > D, as `Learned` has them."""
    mean = vectors.mean(axis=0)
    variances, directions = np.linalg.eigh(np.cov(vectors.T.astype(np.float64)))
    axes = (directions / np.sqrt(np.maximum(variances, _FLOOR * variances.mean())))[:, ::-1]
    return mean.astype(np.float32), axes.astype(np.float32)


def digests(names: Iterable[str]) -> frozenset[int]:
    """64 bits of each name's sha256."""
    plain = (" ".join(_words(name)).encode() for name in names)
    return frozenset(
        int.from_bytes(hashlib.sha256(name).digest()[:8], "little", signed=True) for name in plain
    )


def _names_in(prompt: str) -> Iterator[str]:
    words = _words(prompt)
    for start in range(len(words)):
        for end in range(start + 1, min(start + _LONGEST, len(words)) + 1):
            before, last = words[start : end - 1], words[end - 1]
            for form in _singular(last):
                yield " ".join([*before, form])


def _singular(word: str) -> list[str]:
    """The word, and what it may be the plural of."""
    endings = (("ies", "y"), ("ves", "f"), ("es", ""), ("s", ""))
    return [word, *(word.removesuffix(end) + new for end, new in endings if word.endswith(end))]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
