"""A text that nobody has indexed, and no query photo: how much of what `find` finds is there after steering so much.

    python -m steersearch.benchmarks.find_any PHOTOS [--count 4000] [--save]

Generated photos (`photo_gallery`, drawn into PHOTOS the first time) are all steered under each of some looks, such as
"the striped red mug", each of which one photo in seventy to two hundred shows. The order in which `find` would have
steered them is then gone through, with nothing left out but the clock: regions of every photo, batches, lessons. In
the record, per share of the gallery: how much of the exact top ten (and fifty) of `find_scores` is there, and the share
of right photos among the ten that would be shown; the same for photos taken at random.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from steersearch.benchmarks.photo_gallery import VERSION, LabelledPhoto, photo_gallery
from steersearch.benchmarks.record import Record
from steersearch.core.preprocess import open_image
from steersearch.core.presence import presence
from steersearch.core.steervit import NO_STEERING, Features, SteerViT
from steersearch.indexer.find import find_scores
from steersearch.indexer.region_snapshot import RegionArrays
from steersearch.indexer.shortlist import Shortlist

Floats = npt.NDArray[np.float32]
SEED = 94_000
COUNT, LOOKS = 4000, 10
SHOWN_BY = (1 / 160, 1 / 66)  # least and greatest share of the photos that show a look
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2)
BATCH = 32
TEMPLATE = "the {}"


@dataclass(frozen=True)
class Steered:
    """n photos under one prompt. presence (n,); embeddings (n, D), unit length; heatmaps (n, Hp, Wp)."""

    presence: Floats
    embeddings: Floats
    heatmaps: Floats


def steer(
    model: SteerViT, photos: Sequence[LabelledPhoto], prompts: Sequence[str]
) -> tuple[Floats, list[Steered]]:
    """The frozen trunk's patch tokens (n, Hp, Wp, D), and all photos under each prompt."""
    with torch.inference_mode():
        steerings = [NO_STEERING, *(model.steering(model.encode_prompt(prompt)) for prompt in prompts)]
        patches: list[Floats] = []
        found: list[list[Steered]] = [[] for _ in prompts]
        for start in range(0, len(photos), BATCH):
            pixels = np.stack([model.preprocess(open_image(p.path)) for p in photos[start : start + BATCH]])
            frozen, *steered = model.encode(model.to_device(pixels), steerings)
            patches.append(frozen.patches.float().cpu().numpy().reshape(len(pixels), *frozen.grid, -1))
            for under, features in zip(found, steered, strict=True):
                under.append(_steered(features, model))
        return np.concatenate(patches), [_joined(under) for under in found]


def _joined(parts: Sequence[Steered]) -> Steered:
    names = ("presence", "embeddings", "heatmaps")
    return Steered(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _steered(features: Features, model: SteerViT) -> Steered:
    return Steered(
        presence(features).cpu().numpy(),
        features.embedding(model.config.aggregation).float().cpu().numpy(),
        features.heatmap().cpu().numpy(),
    )


def regions(patches: Floats) -> RegionArrays:
    """Every patch a region, as it is kept for the mini, centred and in 8 bits."""
    count, height, width, dim = patches.shape
    mean = patches.reshape(-1, dim).mean(axis=0)
    centred = patches.reshape(count, -1, dim) - mean
    centred /= np.maximum(np.linalg.norm(centred, axis=-1, keepdims=True), 1e-9)
    numbers = np.arange(height * width, dtype=np.uint8).reshape(1, height, width)
    return RegionArrays(
        np.rint(127 * centred).astype(np.int8),
        np.ones(1, np.float32),
        np.repeat(numbers, count, axis=0),
        mean,
        np.zeros((count, dim), np.float16),
    )


def steering_order(arrays: RegionArrays, under: Steered, limit: int) -> list[int]:
    """The photos in the order in which `find` steers them, `limit` of them."""
    shortlist = Shortlist(arrays, np.arange(len(arrays)), None)
    taken: list[int] = []
    for row in shortlist:
        taken.append(row)
        if len(taken) == limit:
            break
        if len(taken) % BATCH == 0:
            last = taken[-BATCH:]
            shortlist.learn(last, [under.heatmaps[last]], [under.presence[last]])
    return taken


def best(under: Steered, photos: Sequence[int], k: int) -> list[int]:
    """The k that `find` would show of these photos."""
    rows = np.sort(np.array(photos))
    scores = find_scores(under.presence[rows], under.embeddings[rows], [str(row) for row in rows])
    shown: list[int] = rows[np.argsort(-scores, kind="stable")[:k]].tolist()
    return shown


def evaluate(
    arrays: RegionArrays, steered: Sequence[Steered], shows: Sequence[npt.NDArray[np.bool_]]
) -> dict[str, float]:
    """shows: per prompt (n,), which photos show it. All figures are means over the prompts, in percent."""
    count = len(arrays)
    values: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        values.setdefault(name, []).append(100 * value)

    rng = np.random.default_rng(SEED)
    for under, right in zip(steered, shows, strict=True):
        exact = best(under, range(count), 50)
        note("exact/right_of_ten", right[exact[:10]].mean())
        note("photos_that_show_it", right.mean())
        limit = round(SHARES[-1] * count)
        orders = {
            "likeliest": steering_order(arrays, under, limit),
            "random": rng.permutation(count)[:limit].tolist(),
        }
        for name, order in orders.items():
            for share in SHARES:
                some = order[: round(share * count)]
                note(f"{name}/{share:g}/of_exact_ten", np.isin(exact[:10], some).mean())
                note(f"{name}/{share:g}/of_exact_fifty", np.isin(exact, some).mean())
                note(f"{name}/{share:g}/right_of_ten", right[best(under, some, 10)].mean())
    return {name: round(float(np.mean(given)), 1) for name, given in values.items()}


def looks(photos: Sequence[LabelledPhoto], wanted: int) -> dict[str, npt.NDArray[np.bool_]]:
    """Looks that neither many nor few photos show, each with which photos do."""
    shown = [{look for thing in photo.shown for look in photo.looks(thing.kind)} for photo in photos]
    counts = {look: sum(look in one for one in shown) for look in sorted(set().union(*shown))}
    least, greatest = (share * len(photos) for share in SHOWN_BY)
    fitting = [look for look, number in counts.items() if least <= number <= greatest]
    chosen = np.random.default_rng(SEED).permutation(fitting)[:wanted].tolist()
    return {look: np.array([look in one for one in shown]) for look in chosen}


def main() -> None:
    """Measure one model and print the record as a JSON object."""
    parser = argparse.ArgumentParser(
        description="Photos found by a text that nobody has indexed. Takes some six minutes on two idle cores, and as "
        "long again to draw the photos the first time."
    )
    parser.add_argument("photos", type=Path, help="folder for the photos")
    parser.add_argument("--model", default="mini", help="a model's name or file")
    parser.add_argument("--drawn", type=int, default=COUNT, help="photos drawn; default: %(default)s")
    parser.add_argument("--count", type=int, default=COUNT, help="of these so many; default: %(default)s")
    parser.add_argument("--save", action="store_true", help="keep the record in benchmarks/results")
    arguments = parser.parse_args()
    began = time.monotonic()
    model = SteerViT.from_pretrained(arguments.model)
    gallery = photo_gallery(arguments.photos, "gallery", arguments.drawn)[: arguments.count]
    shows = looks(gallery, LOOKS)
    patches, steered = steer(model, gallery, [TEMPLATE.format(look) for look in shows])
    metrics = evaluate(regions(patches), steered, list(shows.values()))
    settings = {
        "photos": len(gallery),
        "photos_version": VERSION,
        "looks": list(shows),
        "template": TEMPLATE,
        "batch": BATCH,
        "weights": model.weights_hash,
    }
    record = Record.make("find-any-world", arguments.model, settings, metrics, time.monotonic() - began)
    print(record.to_json())
    if arguments.save:
        record.save()


if __name__ == "__main__":
    main()
