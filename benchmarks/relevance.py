"""Which hits to call relevant: rules of cutting a ranking off, on generated photos whose objects are known.

python -m steersearch.benchmarks.relevance --save

For some objects of core-world, each photo that has the object searches a gallery of others: some that have it and many
that have not, in several proportions, none at all among them. A rule sees the scores only. Its figures, means over all
queries of one proportion:
  precision (of a query for which it keeps nothing: 1), recall, f1 (0 if nothing right is kept)
  kept (photos; what counts where the gallery has none that is right)
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from steersearch.benchmarks.core_world import Picture, build
from steersearch.benchmarks.record import Record
from steersearch.core.steervit import SteerViT
from steersearch.indexer.relevance import Background, two_groups

Scores = npt.NDArray[np.float32]
Rule = Callable[[Scores], float]  # the least score that is kept

GALLERIES = {
    "0 of 300": (0, 300),
    "3 of 303": (3, 300),
    "11 of 311": (11, 300),
    "11 of 111": (11, 100),
    "11 of 44": (11, 33),
}
_SEED = 5
_BATCH = 32


def _fixed(least: float) -> Rule:
    return lambda _: least


def _z(least: float) -> Rule:
    return lambda scores: float(scores.mean() + least * scores.std())


def _robust(least: float) -> Rule:
    """Median and median absolute deviation instead of mean and standard deviation."""

    def cut(scores: Scores) -> float:
        median = np.median(scores)
        return float(median + least * 1.4826 * np.median(np.abs(scores - median)))

    return cut


def _largest_gap(scores: Scores) -> float:
    """Between two neighbours in the ranking's upper half."""
    ranked = np.sort(scores)[::-1][: max(2, len(scores) // 2)]
    return float(ranked[int(np.argmax(ranked[:-1] - ranked[1:]))])


def _groups_or_z(clear: float, least: float) -> Rule:
    """Two groups where they explain so much of the variance and the upper one is no more than a half, else z."""

    def cut(scores: Scores) -> float:
        explained, between, share = two_groups(scores)
        return between if explained >= clear and share <= 0.5 else _z(least)(scores)

    return cut


RULES: dict[str, Rule] = {
    **{f"z > {least}": _z(least) for least in (1.5, 2.0, 2.5, 3.0)},
    **{f"robust z > {least}": _robust(least) for least in (2.0, 3.0, 4.0)},
    **{f"score > {least}": _fixed(least) for least in (0.6, 0.7, 0.8, 0.9)},
    "largest gap": _largest_gap,
    "two groups": lambda scores: two_groups(scores)[1],
    **{f"groups from {clear}, else z > 2": _groups_or_z(clear, 2.0) for clear in (0.75, 0.8, 0.85, 0.9)},
    "chosen": lambda scores: Background.of(scores).least,
}


def embed(model: SteerViT, pictures: list[Picture], prompt: str) -> Scores:
    """(pictures, dim) float32, unit length."""
    images = [picture.image for picture in pictures]
    parts = [model.embed(images[i : i + _BATCH], prompt).numpy() for i in range(0, len(images), _BATCH)]
    return np.concatenate(parts)


def evaluate(model: SteerViT, bases: int, objects_each: int) -> dict[str, dict[str, dict[str, float]]]:
    """Per proportion and rule the figures above."""
    pictures = build("drawn", bases)
    rng = np.random.default_rng(_SEED)
    found: dict[str, dict[str, list[tuple[float, ...]]]] = {
        name: {rule: [] for rule in RULES} for name in GALLERIES
    }
    for scene in dict.fromkeys(picture.scene for picture in pictures):
        names = list(dict.fromkeys(picture.object for picture in pictures if picture.scene == scene))
        for name in names[:objects_each]:
            vectors = embed(model, pictures, f"the {name}")
            is_right = np.array([picture.object == name for picture in pictures])
            for query in np.flatnonzero(is_right):
                scores = vectors @ vectors[query]
                right = np.flatnonzero(is_right & (np.arange(len(pictures)) != query))
                wrong = np.flatnonzero(~is_right)
                for gallery, (num_right, num_wrong) in GALLERIES.items():
                    chosen = (
                        scores[rng.permutation(right)[:num_right]],
                        scores[rng.permutation(wrong)[:num_wrong]],
                    )
                    for rule, cut in RULES.items():
                        found[gallery][rule].append(_figures(*chosen, cut(np.concatenate(chosen))))
    columns = ("precision", "recall", "f1", "kept")
    return {
        gallery: {
            rule: {c: round(float(v), 3) for c, v in zip(columns, np.mean(rows, axis=0), strict=True)}
            for rule, rows in by_rule.items()
        }
        for gallery, by_rule in found.items()
    }


def _figures(right: Scores, wrong: Scores, least: float) -> tuple[float, float, float, float]:
    """Precision, recall, F1 and the number kept; recall and F1 are 1 where nothing is right and nothing is kept."""
    hits, kept = int((right >= least).sum()), int((right >= least).sum() + (wrong >= least).sum())
    precision = hits / kept if kept else 1.0
    recall = hits / len(right) if len(right) else 1.0
    f1 = 2 * hits / (kept + len(right)) if kept + len(right) else 1.0
    return precision, recall, f1, float(kept)


def main() -> None:
    """Measure the rules, print the record and keep it if asked to."""
    parser = argparse.ArgumentParser(description="Rules of calling hits relevant, on generated photos.")
    parser.add_argument("--model", default="mini", help="a model's name or file")
    parser.add_argument("--bases", type=int, default=12, help="base pictures per scene")
    parser.add_argument("--objects", type=int, default=2, help="objects per scene")
    parser.add_argument("--save", action="store_true", help="keep the record in benchmarks/results")
    arguments = parser.parse_args()
    began = time.monotonic()
    model = SteerViT.from_pretrained(arguments.model)
    metrics: dict[str, Any] = evaluate(model, arguments.bases, arguments.objects)
    settings = {"bases": arguments.bases, "objects_each": arguments.objects, "seed": _SEED}
    record = Record.make("relevance/drawn", arguments.model, settings, metrics, time.monotonic() - began)
    print(record.to_json())
    if arguments.save:
        record.save()


if __name__ == "__main__":
    main()
