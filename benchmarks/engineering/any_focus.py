"""Anytime search under a focus that is not indexed: how soon it finds the exact top ten, and its quality until then.

Steers every photo of a labelled gallery (`photo_gallery`) under every focus, which gives the exact answer. Then replays
the order of `indexer.shortlist` and counts how much of the exact top ten is found once a given share of the gallery is
steered. Queries are other photos that show the focus; since real photographs are few, their queries are those of the
gallery that are held out for tests, each left out of its own answer.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from steersearch.benchmarks.engineering import startup
from steersearch.benchmarks.engineering.photo_gallery import VERSION, LabelledPhoto, Shown, photo_gallery
from steersearch.benchmarks.harness.cache import cache_folder, digest_of
from steersearch.benchmarks.harness.record import Record, run_script
from steersearch.benchmarks.ours.labelled_photographs import decoded, read_photographs, unpacked
from steersearch.core.predictor import Predictor
from steersearch.core.preprocess import open_image
from steersearch.indexer.anytime import LESSON
from steersearch.indexer.embedder import QueryFeatures
from steersearch.indexer.library import Library
from steersearch.indexer.manifest import UnsteeredIndex, new_unsteered_index
from steersearch.indexer.regions import (
    RegionArrays,
    open_region_snapshot,
    pack_regions,
    regions_of,
)
from steersearch.indexer.schema import FileRecord
from steersearch.indexer.shortlist import Shortlist
from steersearch.indexer.store import Store, UnsteeredVector
from steersearch.training.photographs.listed import listed, read_listed
from steersearch.training.world.kinds import KINDS

FOCUSES = {"the mug": "mug", "the bicycle": "bicycle", "the red thing": "red", "the book": "book"}
ON_PHOTOGRAPHS = {f"the {what}": what for what in ("animal", "building", "tool", "fish")}
GALLERY, QUERIES, QUERIES_PER_FOCUS = 10_000, 600, 12
SHARES = (0.005, 0.01, 0.02, 0.05, 0.1)
SHARES_OF_FEW = (0.05, 0.1, 0.15, 0.2, 0.3)
TOP = 10
BATCH = LESSON  # photos steered at a time
SYNTHETIC = 100_000
BUDGETS, RUNS = ("1ms", "1s", "5s"), 3  # the first steers only as many photos as there are hits

Floats = npt.NDArray[np.float32]
Focuses = Mapping[str, str]  # and what a photo shows for it


@dataclass(frozen=True)
class Part:
    """n photos. patches: (n, Hp, Wp, D) float16 and whole: (n, D), of unsteered features; per focus f:

    embeddings: (F, n, D) float32, unit length; heatmaps: (F, n, Hp, Wp) float32.
    """

    photos: Sequence[LabelledPhoto]
    patches: npt.NDArray[np.float16]
    whole: Floats
    embeddings: Floats
    heatmaps: Floats


def photographs_of(folder: Path, packages: Path | None) -> list[LabelledPhoto]:
    """GCompris' and darknet's photographs as files in `folder`: first those held out for tests, which are labelled.

    packages: a folder with both, unpacked; None: fetch them.
    """
    kept = read_photographs(packages, cache_folder() / "packages")
    found = [(photo.picture, photo.words) for photo in kept]
    package = unpacked(packages, cache_folder() / "packages")["gcompris-qt-data"]
    others = [each for each in listed() if each.package == "gcompris-qt-data"]
    for each, content in read_listed(others, {"gcompris-qt-data": package}):
        found.append((decoded(content, each.file), frozenset()))
    folder.mkdir(parents=True, exist_ok=True)
    photos = []
    for number, (picture, words) in enumerate(found):
        path = folder / f"{number:04d}.png"
        picture.save(path)
        photos.append(LabelledPhoto(path, tuple(Shown(word, word, 1.0) for word in sorted(words))))
    return photos


def steer_all(
    folder: Path, embedder: Predictor, part: str, photos: Sequence[LabelledPhoto], focuses: Focuses
) -> Part:
    """The photos of `part` under every focus; kept in `folder` for the next run."""
    count = len(photos)
    computed = digest_of(embedder.weights_hash, embedder.preprocessing, [*focuses])
    kept = folder / f"steered-{part}-{count}-v{VERSION}-{computed[:12]}.npz"
    if not kept.exists():
        features = [embedder.encode_prompt(focus).tokens for focus in focuses]
        found = []
        for start in range(0, count, BATCH):
            pictures = [open_image(photo.path) for photo in photos[start : start + BATCH]]
            pixels = np.stack([embedder.preprocess(picture) for picture in pictures])
            frozen, steered = embedder.embed_with_unsteered(pixels, features, 1.0)
            found.append(
                (
                    frozen.patches.astype(np.float16),
                    frozen.embeddings,
                    np.stack([one.embeddings for one in steered]),
                    np.stack([one.heatmaps for one in steered]),
                )
            )
        patches, whole, embeddings, heatmaps = zip(*found, strict=True)
        np.savez(
            kept,
            patches=np.concatenate(patches),
            whole=np.concatenate(whole),
            embeddings=np.concatenate(embeddings, axis=1),
            heatmaps=np.concatenate(heatmaps, axis=1),
        )
    with np.load(kept) as arrays:
        return Part(photos, **arrays)


def write_library(place: Path, gallery: Part, index: UnsteeredIndex) -> None:
    """Write the tables that an `index` run of the gallery would leave, without steering it again."""
    store = Store(place)
    store.ensure_images()
    store.ensure_unsteered_table(index.key, index.dim)
    names = [photo.path.name for photo in gallery.photos]  # in order, wherever the folder is
    store.write_images([FileRecord(name, name, 1, 1) for name in names])
    vectors = [
        UnsteeredVector(name, whole, pack_regions(regions_of(patches.astype(np.float32))))
        for name, whole, patches in zip(names, gallery.whole, gallery.patches, strict=True)
    ]
    store.write_unsteered(index.key, vectors)


# ------------------------------------------------------------------------------------------------ one query


@dataclass(frozen=True)
class Answer:
    """One query under one focus. found: share of the exact top ten in each of SHARES, in the learned order;
    unlearned: in the order of late interaction alone. first: the first hit, as a row of the gallery, of "exact",
    "regions" (the order alone) and of the photos steered at each of SHARES."""

    found: list[float]
    unlearned: list[float]
    first: dict[str, int]


def answer(
    arrays: RegionArrays,
    rows: npt.NDArray[np.int64],
    gallery: Part,
    queries: Part,
    f: int,
    q: int,
    shares: Sequence[float],
) -> Answer:
    """Replay the shortlist's order; photo i of the gallery is row rows[i] of the arrays."""
    scores = gallery.embeddings[f] @ queries.embeddings[f, q]
    others = np.array([photo.path != queries.photos[q].path for photo in gallery.photos])
    top = np.argsort(np.where(others, -scores, np.inf), kind="stable")[:TOP]
    photo_at, rows = np.flatnonzero(others).tolist(), rows[others]
    query = QueryFeatures(
        queries.embeddings[f, q], queries.heatmaps[f, q], queries.patches[q].astype(np.float32)
    )
    shortlist = Shortlist(arrays, rows, [query])
    alone = [photo_at[number] for number, _ in shortlist.best(len(rows))]
    numbers, taken = list[int](), list[int]()
    for number in shortlist:
        numbers.append(number)
        taken.append(photo_at[number])
        if len(taken) >= shares[-1] * len(rows):
            break
        if len(taken) % BATCH == 0:
            last = taken[-BATCH:]
            shortlist.learn(numbers[-BATCH:], [gallery.heatmaps[f, last]], [scores[last]])
    sizes = [round(share * len(rows)) for share in shares]
    first = {"exact": int(top[0]), "regions": alone[0]}
    for share, size in zip(shares, sizes, strict=True):
        first[f"{share:g}"] = taken[int(np.argmax(scores[taken[:size]]))]
    return Answer(
        [float(np.isin(top, taken[:size]).mean()) for size in sizes],
        [float(np.isin(top, alone[:size]).mean()) for size in sizes],
        first,
    )


def shown(photo: LabelledPhoto, what: str) -> set[str]:
    """The looks of a kind that the photo shows, or of a colour."""
    if what in {thing.kind for thing in photo.shown}:
        return photo.looks(what)
    return {look for thing in photo.shown for look in photo.looks(thing.kind) if f" {what} " in f" {look} "}


def evaluate(
    arrays: RegionArrays,
    rows: npt.NDArray[np.int64],
    gallery: Part,
    queries: Part,
    focuses: Focuses = FOCUSES,
    shares: Sequence[float] = SHARES,
) -> dict[str, object]:
    """Curves per focus and over all, with the standard error over the queries; and how often the first hit is right:

    it shows a thing of the very look that the focus names in the query photo (say, "striped red mug"). Unlabelled hits
    do not count.
    """
    found: list[list[float]] = []
    unlearned: list[list[float]] = []
    right: dict[str, list[bool]] = {}
    by_focus: dict[str, list[float]] = {}
    for f, (focus, what) in enumerate(focuses.items()):
        wanted = [q for q, photo in enumerate(queries.photos) if shown(photo, what)][:QUERIES_PER_FOCUS]
        answers = [answer(arrays, rows, gallery, queries, f, q, shares) for q in wanted]
        found += [one.found for one in answers]
        unlearned += [one.unlearned for one in answers]
        by_focus[focus] = np.mean([one.found for one in answers], axis=0).round(3).tolist()
        for q, one in zip(wanted, answers, strict=True):
            looks = shown(queries.photos[q], what)
            for name, photo in one.first.items():
                if gallery.photos[photo].shown:
                    right.setdefault(name, []).append(bool(looks & shown(gallery.photos[photo], what)))
    return {
        "shares_steered": shares,
        "queries": len(found),
        "top10_found": np.mean(found, axis=0).round(3).tolist(),
        "top10_found_standard_error": (np.std(found, axis=0) / np.sqrt(len(found))).round(3).tolist(),
        "top10_found_without_learning": np.mean(unlearned, axis=0).round(3).tolist(),
        "top10_found_by_focus": by_focus,
        "right_first_hit": {name: round(float(np.mean(values)), 3) for name, values in right.items()},
    }


# ---------------------------------------------------------------------------------------------------- times


def seconds_of_shortlist(arrays: RegionArrays, queries: Part) -> dict[str, float]:
    """Medians of five: until the first candidate is known, and of a refit.

    "cpu": processor time of this process, which other work on the machine disturbs less.
    """
    clocks = {"": time.monotonic, "_cpu": time.process_time}
    spent: dict[str, list[float]] = {f"{what}{clock}": [] for what in ("first", "again") for clock in clocks}
    for q in range(5):
        one = QueryFeatures(
            queries.embeddings[0, q], queries.heatmaps[0, q], queries.patches[q].astype(np.float32)
        )
        started = {clock: now() for clock, now in clocks.items()}
        shortlist = Shortlist(arrays, np.arange(len(arrays)), [one])
        taken = list(islice(shortlist, BATCH))
        for clock, now in clocks.items():
            spent[f"first{clock}"].append(now() - started[clock])
        started = {clock: now() for clock, now in clocks.items()}
        heatmaps = np.repeat(one.heatmap[None], BATCH, axis=0)
        shortlist.learn(taken, [heatmaps], [np.linspace(1, 0, BATCH, dtype=np.float32)])
        for clock, now in clocks.items():
            spent[f"again{clock}"].append(now() - started[clock])
    return {name: round(float(np.median(values)), 3) for name, values in spent.items()}


def first_answers(folder: Path, place: Path, embedder: Predictor, query: Path) -> dict[str, list[float]]:
    """[wall, processor] seconds, medians, of `steersearch query` with each of BUDGETS, as a process of its own.

    The gallery below `folder` is indexed at `place` under a prompt that no query uses; every focus is new, to the text
    encoder too.
    """
    Library.create(folder / "gallery", embedder, place).index(["the picture"])
    kinds = iter(KINDS)
    spent = {}
    for budget in BUDGETS:
        runs = []
        for _ in range(RUNS):
            command = ["query", str(query.absolute()), "--library", str(place), "--paths"]
            runs.append(startup.run([*command, "--focus", f"the {next(kinds)}", "--budget", budget], place))
        spent[budget] = [round(float(np.median(seconds)), 2) for seconds in zip(*runs, strict=True)]
    return spent


def synthetic(count: int, like: RegionArrays) -> RegionArrays:
    """Arrays of `count` contents with regions drawn from those of `like`."""
    rows = np.random.default_rng(0).integers(0, len(like), count)
    return RegionArrays(like.vectors[rows], like.scale, like.patches[rows], like.mean, like.embeddings[rows])


def main() -> None:
    """Measure one model and print the record as a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini", help="a model's name or file")
    parser.add_argument("--folder", type=Path, default=Path("any-focus-photos"), help="folder for the photos")
    parser.add_argument(
        "--photos", type=int, default=GALLERY, help="size of the gallery; default: %(default)s"
    )
    parser.add_argument(
        "--photographs",
        type=Path,
        metavar="PACKAGES",
        help="use real photographs, from these unpacked packages",
    )
    run_script(parser, measure)


def measure(model: str, folder: Path, photos: int, photographs: Path | None = None) -> Record:
    """The record of one model; the photos are kept in `folder`. photographs: of which packages, instead of the world"""
    began = time.monotonic()
    embedder = Predictor.from_pretrained(model)
    if photographs:
        focuses, shares = ON_PHOTOGRAPHS, SHARES_OF_FEW
        shots = photographs_of(folder / "gallery", photographs)
        gallery = queries = steer_all(folder, embedder, "photographs", shots, focuses)
    else:
        focuses, shares = FOCUSES, SHARES
        gallery, queries = (
            steer_all(folder, embedder, part, photo_gallery(folder, part, count), focuses)
            for part, count in (("gallery", photos), ("query", QUERIES))
        )
    index = new_unsteered_index(
        model_id=embedder.model_id,
        weights_hash=embedder.weights_hash,
        preprocessing=embedder.preprocessing,
        dim=embedder.dim,
    )
    with tempfile.TemporaryDirectory() as place:
        write_library(Path(place), gallery, index)
        snapshot = open_region_snapshot(Path(place), index.key)
        assert snapshot.arrays is not None
        on_disk = sum(file.stat().st_size for file in Path(place).rglob("*.npy"))
        metrics = evaluate(snapshot.arrays, snapshot.rows, gallery, queries, focuses, shares)
        packed = len(pack_regions(regions_of(gallery.patches[0].astype(np.float32))))
        metrics["bytes_per_photo"] = {
            "table": packed + 2 * embedder.dim,
            "snapshot": round(on_disk / len(gallery.photos)),
        }
        if not photographs:
            large = synthetic(SYNTHETIC, snapshot.arrays)
            metrics["shortlist_seconds"] = {
                f"{len(arrays):,}": seconds_of_shortlist(arrays, queries)
                for arrays in (snapshot.arrays, large)
            }
            query = queries.photos[0].path
            metrics["query_seconds_by_budget"] = first_answers(folder, Path(place) / "own", embedder, query)
    settings = {
        "photos": len(gallery.photos),
        "photos_version": VERSION,
        "focuses": focuses,
        "queries_per_focus": QUERIES_PER_FOCUS,
        "regions": snapshot.arrays.vectors.shape[1],
        "preprocess": embedder.preprocessing,
    }
    seconds = time.monotonic() - began
    name = "any-focus-photographs" if photographs else "any-focus"
    return Record.make(name, model, settings, metrics, seconds, weights_hash=embedder.weights_hash)


if __name__ == "__main__":
    main()
