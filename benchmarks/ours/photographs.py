"""photographs: does the model recognise what real photographs show? Our own benchmark, on held-out test photographs.

Four questions, each with prompts "the NOUN": which quarter of a mosaic of four photographs gets the most heat; whether
the strongest patch lies on the named thing in a cluttered photograph; whether the nearest photograph shows the same, as
`query` without a focus compares them; which photographs of all come first, as `find` ranks them. A fifth, on cutouts in
the photographs: which of two that differ only in colour is named.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from steersearch.benchmarks.harness.benchmark import Outcome, Report
from steersearch.benchmarks.harness.benchmark import Source as DataSource
from steersearch.benchmarks.harness.cache import cache_folder, digest_of
from steersearch.benchmarks.harness.catalogue import Value
from steersearch.benchmarks.harness.method import Method
from steersearch.benchmarks.harness.pointing import patch_cover, points
from steersearch.benchmarks.harness.steervit_method import SteerViTMethod
from steersearch.benchmarks.ours.coloured_pairs import Pair, coloured_pairs
from steersearch.benchmarks.ours.labelled_photographs import LICENCE, Label, Photograph, read_photographs
from steersearch.core.errors import BenchmarkError
from steersearch.core.vectors import Floats
from steersearch.indexer.progress import ProgressEvent
from steersearch.indexer.ranking import find_scores
from steersearch.training.data.mask_codec import Mask
from steersearch.training.photographs.listed import listed

MOSAICS = 60
PAIRS = 60
SIDE = 224  # of a photograph in a mosaic, in pixels
FIRST = 10  # number of first photos by which `find` is judged
SEED = 96_000  # other benchmarks have 90,000 to 95,000
TEMPLATE = "the {}"
Answered = Callable[[int], None]  # how many prompts were answered


@dataclass(frozen=True)
class Mosaic:
    """Four photographs in a square; `nouns` from left to right, then down."""

    picture: Image.Image
    nouns: tuple[str, str, str, str]


@dataclass(frozen=True, kw_only=True)
class PhotographData:
    name: str = "photographs"
    source: DataSource = "real"
    licence: str = LICENCE
    photographs: tuple[Photograph, ...]
    mosaics: tuple[Mosaic, ...]
    pairs: tuple[Pair, ...]

    @property
    def n(self) -> int:
        return len(self.photographs)

    @property
    def data_hash(self) -> str:
        return digest_of(
            [
                [[photo.name, sorted(photo.words), _digest(photo.picture)] for photo in self.photographs],
                [[mosaic.nouns, _digest(mosaic.picture)] for mosaic in self.mosaics],
                [[pair.said, _digest(pair.picture)] for pair in self.pairs],
            ]
        )


@dataclass(frozen=True)
class Photographs:
    """The benchmark."""

    def load(self, place: Path | None, limit: int | None) -> PhotographData:
        """limit: mosaics, and pairs. Raises DataError, StampsMissingError."""
        photographs = read_photographs(place, cache_folder() / "packages")
        grounds = [photo.picture for photo in photographs]
        return PhotographData(
            photographs=tuple(photographs),
            mosaics=tuple(_mosaics(photographs, limit or MOSAICS)),
            pairs=tuple(coloured_pairs(grounds, limit or PAIRS, np.random.default_rng([SEED, 2]))),
        )

    def world(self, limit: int | None) -> PhotographData:
        raise BenchmarkError(
            "photographs has no stand-in; leave --world out: its data is fetched from Debian"
        )

    def evaluate(self, method: Method, dataset: PhotographData, progress: Report | None = None) -> Outcome:
        """All shares in percent; see the functions below for each."""
        if not isinstance(method, SteerViTMethod):
            raise BenchmarkError(f"{method.name}: only SteerViT's heatmaps and presence are measured here")
        wanted = _asked_words(dataset.photographs)
        work, done = 4 + 2 + len(wanted) + len(_cluttered(dataset.photographs)), 0

        def answered(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(ProgressEvent(done, work, 0.0))

        metrics: dict[str, Any] = {}
        metrics |= quadrants(method, dataset.mosaics, answered)
        metrics["pointing"] = _percent(pointed(method, dataset.photographs, answered))
        metrics |= neighbours(method, dataset.photographs)
        found = {word: found_first(method, dataset.photographs, word, answered) for word in wanted}
        ten = [word for word, count in wanted.items() if count >= FIRST]
        fewer = [word for word, count in wanted.items() if count < FIRST]
        for score in ("find", "presence"):
            metrics[f"{score}_precision_at_10"] = _percent([found[word][score] for word in ten])
            metrics[f"{score}_r_precision_fewer"] = _percent([found[word][score] for word in fewer])
        metrics["find_words"] = len(ten)
        metrics["colour"] = _percent(colours(method, dataset.pairs, answered))
        rows = [
            {"word": word, "photographs": wanted[word]}
            | {score: _percent([share]) for score, share in shares.items()}
            for word, shares in found.items()
        ]
        counts = {"mosaics": len(dataset.mosaics), "pairs": len(dataset.pairs), "template": TEMPLATE}
        return Outcome(metrics=metrics, rows=rows, settings=counts)


def create(options: Mapping[str, Value]) -> Photographs:
    return Photographs()


def examples() -> list[tuple[str, Image.Image]]:
    """A mosaic and a pair, as `bench` shows them."""
    data = Photographs().load(None, 1)
    mosaic, pair = data.mosaics[0], data.pairs[0]
    return [(", ".join(mosaic.nouns), mosaic.picture), (" or ".join(pair.said), pair.picture)]


def quadrants(method: SteerViTMethod, mosaics: Sequence[Mosaic], answered: Answered) -> dict[str, float]:
    """Share of prompts whose own quarter of the mosaic gets the most heat; by chance 25.

    "trained": nouns that label training photographs; "new": the others, which training may have used as a class of
    the backbone's network or as WordNet's word for several, but for no labelled photograph.
    """
    trained_nouns = {photograph.noun for photograph in listed()}
    right: dict[bool, list[float]] = {True: [], False: []}
    pictures = [mosaic.picture for mosaic in mosaics]
    quarters = torch.stack([patch_cover(_quarter(k), method.model) for k in range(4)])
    for k in range(4):
        for noun in sorted({mosaic.nouns[k] for mosaic in mosaics}):
            shown = [
                picture for picture, mosaic in zip(pictures, mosaics, strict=True) if mosaic.nouns[k] == noun
            ]
            heat = _heat(method, shown, noun) @ quarters.T
            right[noun in trained_nouns] += (heat.argmax(dim=1) == k).float().tolist()
        answered(1)
    everything = right[True] + right[False]
    return {
        "mosaic": _percent(everything),
        "mosaic_trained": _percent(right[True]),
        "mosaic_new": _percent(right[False]),
    }


def pointed(method: SteerViTMethod, photographs: Sequence[Photograph], answered: Answered) -> list[float]:
    """For each thing named in a cluttered photograph, whether the strongest patch lies in its boxes."""
    hits: list[float] = []
    for photo, label in _cluttered(photographs):
        prompt = TEMPLATE.format(label.noun)
        hits += points(method, [photo.picture], prompt, [photo.mask(label)])[0]
        answered(1)
    return hits


def neighbours(method: SteerViTMethod, photographs: Sequence[Photograph]) -> dict[str, Any]:
    """Share of photographs whose nearest other shows the same, where another does.

    "neighbour": by the vectors that `query` compares without a focus.  "neighbour_mean": by the mean patch.
    """
    counts = Counter(photo.alone for photo in photographs)
    several = [photo for photo in photographs if photo.alone and counts[photo.alone] > 1]
    pixels = np.stack([method.model.preprocess(photo.picture) for photo in several])
    unsteered, _ = method.model.embed_with_unsteered(pixels, [], method.gate_scale)
    nouns = [photo.alone for photo in several]
    return {
        "neighbour": _percent(_nearest_alike(unsteered.embeddings, nouns)),
        "neighbour_mean": _percent(_nearest_alike(unsteered.patches.mean(axis=(1, 2)), nouns)),
        "neighbour_photographs": len(several),
    }


def _nearest_alike(vectors: Floats, nouns: Sequence[str]) -> list[float]:
    """For each vector (n, D), whether the other one nearest to it by cosine has the same noun."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = unit @ unit.T
    np.fill_diagonal(scores, -np.inf)
    return [float(noun == nouns[j]) for noun, j in zip(nouns, scores.argmax(axis=1), strict=True)]


def found_first(
    method: SteerViTMethod, photographs: Sequence[Photograph], word: str, answered: Answered
) -> dict[str, float]:
    """Share of right ones among the first photographs: the first ten, or as many as there are right ones.

    "find": as the command ranks a library of these photographs.  "presence": by that alone.
    """
    pictures = [photo.picture for photo in photographs]
    seen = method.model.features(pictures, TEMPLATE.format(word), method.gate_scale)
    sure = seen.presence().cpu().numpy()
    embeddings = seen.embedding(method.aggregation).cpu().numpy()
    scores = {"find": find_scores(sure, embeddings, list(map(_digest, pictures))), "presence": sure}
    true = np.array([word in photo.words for photo in photographs])
    first = min(FIRST, int(true.sum()))
    answered(1)
    return {
        name: float(true[np.argsort(-score, kind="stable")[:first]].mean()) for name, score in scores.items()
    }


def colours(method: SteerViTMethod, pairs: Sequence[Pair], answered: Answered) -> list[float]:
    """For each thing of each pair, whether naming its colour puts more heat on it than on the other."""
    right: list[float] = []
    for k in range(2):
        for pair in pairs:
            heat = _heat(method, [pair.picture], pair.said[k])[0]
            own, other = (
                (heat * patch_cover(mask, method.model)).sum() for mask in (pair.masks[k], pair.masks[1 - k])
            )
            right.append(float(own > other))
        answered(1)
    return right


def _heat(method: SteerViTMethod, pictures: Sequence[Image.Image], noun: str) -> torch.Tensor:
    """(B, N): shares of heat, which add up to 1."""
    maps = method.see(pictures, TEMPLATE.format(noun), maps=True).maps
    assert maps is not None
    return torch.from_numpy(maps).flatten(1).softmax(dim=1)


def _quarter(k: int) -> Mask:
    mask = np.zeros((2 * SIDE, 2 * SIDE), bool)
    top, left = (k // 2) * SIDE, (k % 2) * SIDE
    mask[top : top + SIDE, left : left + SIDE] = True
    return mask


def _mosaics(photographs: Sequence[Photograph], count: int) -> Iterator[Mosaic]:
    """Mosaics of four photographs whose labels do not fit one another."""
    rng = np.random.default_rng([SEED, 1])
    alone = [photo for photo in photographs if photo.alone]
    while count:
        four = [alone[int(i)] for i in rng.choice(len(alone), 4, replace=False)]
        if any(a.alone in b.words for a in four for b in four if a is not b):
            continue
        picture = Image.new("RGB", (2 * SIDE, 2 * SIDE))
        for k, photo in enumerate(four):
            picture.paste(_square(photo.picture), ((k % 2) * SIDE, (k // 2) * SIDE))
        a, b, c, d = (photo.alone for photo in four)
        yield Mosaic(picture, (a, b, c, d))
        count -= 1


def _square(picture: Image.Image) -> Image.Image:
    """The middle of a picture, SIDE on each side."""
    side = min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    return picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, (left, top, left + side, top + side))


def _asked_words(photographs: Sequence[Photograph]) -> dict[str, int]:
    """Words for what at least three photographs show, and how many show it."""
    counts = Counter(word for photo in photographs for word in photo.words)
    return {word: count for word, count in sorted(counts.items()) if count >= 3}


def _cluttered(photographs: Sequence[Photograph]) -> list[tuple[Photograph, Label]]:
    return [(photo, label) for photo in photographs for label in photo.labels if label.boxes]


def _digest(picture: Image.Image) -> str:
    return hashlib.sha256(picture.tobytes()).hexdigest()


def _percent(shares: Sequence[float]) -> float:
    return round(100 * float(np.mean(shares)), 2) if shares else float("nan")
