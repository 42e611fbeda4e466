"""words: does the heatmap find a thing named by a word never seen in training?

Photos of the generated world show a thing among three others. Prompts name it by its noun, then by a synonym ("couch"
for an armchair). No such data is published.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from steersearch.benchmarks.harness.benchmark import Outcome, Report
from steersearch.benchmarks.harness.benchmark import Source as DataSource
from steersearch.benchmarks.harness.cache import digest_of
from steersearch.benchmarks.harness.catalogue import Value, check_template
from steersearch.benchmarks.harness.method import Method
from steersearch.benchmarks.harness.metrics import percent
from steersearch.benchmarks.harness.pointing import points
from steersearch.benchmarks.harness.steervit_method import SteerViTMethod
from steersearch.benchmarks.paper import core_world
from steersearch.benchmarks.paper.core_world import Source
from steersearch.core.errors import BenchmarkError
from steersearch.core.heatmaps import outlined
from steersearch.indexer.progress import ProgressEvent
from steersearch.training.data.mask_codec import Mask
from steersearch.training.world import composition, scenes
from steersearch.training.world.kinds import KINDS
from steersearch.training.world.things import UNSEEN_STAMP_WORDS, UNSEEN_WORDS, Thing, draw_thing

PHOTOS_EACH = 8

# Synonyms for what the held-out sources show; training uses neither them nor, for objects, the nouns themselves.
UNSEEN_HELD_OUT_WORDS: dict[Source, dict[str, str]] = {
    "held-out-objects": {
        "reindeer": "caribou", "tangerine": "mandarin orange", "jug": "pitcher", "tipi": "tepee", "castle": "fortress",
        "burro": "donkey", "teakettle": "kettle", "locust": "grasshopper", "porpoise": "dolphin",
        "rubbish lorry": "garbage truck", "violoncello": "cello", "towboat": "tugboat",
    },
    "held-out-pictures": {
        "calf": "cow", "toad": "frog", "swine": "tamworth pig", "ladybird": "ladybug", "fire engine": "fire truck",
        "housefly": "fly", "xmas tree": "christmas tree", "cairn": "inukshuk", "narcissus": "daffodil",
        "blossom": "flower",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """Photos of one thing, its noun, an unseen word for it, and its mask in each photo."""

    word: str
    noun: str
    photos: tuple[Image.Image, ...]
    masks: tuple[Mask, ...]


@dataclass(frozen=True, kw_only=True)
class WordsData:
    name: str
    source: DataSource = "generated stand-in"
    licence: str
    asked: tuple[Asked, ...]

    @property
    def n(self) -> int:
        return sum(len(each.photos) for each in self.asked)

    @property
    def data_hash(self) -> str:
        return digest_of(
            [
                [e.word, e.noun, [hashlib.sha256(photo.tobytes()).hexdigest() for photo in e.photos]]
                for e in self.asked
            ]
        )


@dataclass(frozen=True)
class Words:
    """The benchmark. source: of the things, as in core-world."""

    source: Source = "drawn"
    template: str = "the {}"

    def load(self, place: Path | None, limit: int | None) -> WordsData:
        raise BenchmarkError("words has no real data; measure it on the generated world: bench words --world")

    def world(self, limit: int | None) -> WordsData:
        """limit: photos of each word."""
        return WordsData(
            name=f"words-world/{self.source}",
            licence=core_world.LICENCES[self.source],
            asked=tuple(_photos(self.source, limit or PHOTOS_EACH)),
        )

    def evaluate(self, method: Method, dataset: WordsData, progress: Report | None = None) -> Outcome:
        """Pointing accuracy and pmass in percent (see `pointing`), with the noun and with the unseen word.

        "trained" is the noun; it is "held_out" for held-out-objects, whose nouns are not trained either.
        """
        if not isinstance(method, SteerViTMethod):
            raise BenchmarkError(f"{method.name}: only SteerViT's heatmaps are laid over masks here")
        known = "held_out" if self.source == "held-out-objects" else "trained"
        rows: list[dict[str, Any]] = []
        for done, each in enumerate(dataset.asked, start=1):
            row: dict[str, Any] = {"word": each.word, "noun": each.noun, "photos": len(each.photos)}
            for case, said in ((known, each.noun), ("unseen", each.word)):
                hits, mass = points(method, each.photos, self.template.format(said), each.masks)
                row[case], row[f"{case}_pmass"] = percent(hits), percent(mass)
            rows.append(row)
            if progress is not None:
                progress(ProgressEvent(done, len(dataset.asked), 0.0))
        names = [f"{case}{end}" for end in ("", "_pmass") for case in (known, "unseen")]
        metrics = {name: round(float(np.mean([row[name] for row in rows])), 2) for name in names}
        return Outcome(metrics=metrics, rows=rows, settings={"template": self.template})


def create(options: Mapping[str, Value]) -> Words:
    return Words(cast(Source, options["source"]), check_template(str(options["template"])))


def examples() -> list[tuple[str, Image.Image]]:
    """A photo for each of the first four words of the stand-in, with the thing outlined."""
    return [
        (f'"the {each.word}", trained as {each.noun}', outlined(each.photos[0], each.masks[0]))
        for each in islice(_photos("drawn", 1), 4)
    ]


def _photos(source: Source, each: int) -> Iterator[Asked]:
    rng = np.random.default_rng([core_world.SEED, 4, zlib.crc32(source.encode())])
    stock = _stock(source, rng)
    for word, noun in _other_words(source).items():
        meant, others = _things(source, noun, stock)
        made = [
            _photo_with(noun, meant, others, scenes.FAMILIES[number % len(scenes.FAMILIES)], rng)
            for number in range(each)
        ]
        yield Asked(word, noun, tuple(photo for photo, _ in made), tuple(mask for _, mask in made))


def _other_words(source: Source) -> dict[str, str]:
    """Unseen words, and the nouns of the things that they mean."""
    if source == "drawn":
        return UNSEEN_WORDS
    return UNSEEN_STAMP_WORDS if source == "stamps" else UNSEEN_HELD_OUT_WORDS[source]


def _stock(source: Source, rng: np.random.Generator) -> Sequence[Thing]:
    if source != "drawn":
        return core_world.stamp_stock(repeated=False)
    return [draw_thing(kind.sample_look(rng), rng, 160) for kind in KINDS.values() for _ in range(3)]


def _things(source: Source, noun: str, stock: Sequence[Thing]) -> tuple[Sequence[Thing], Sequence[Thing]]:
    """The things of this noun, and those that may be placed beside them."""
    if source in UNSEEN_HELD_OUT_WORDS:
        return core_world.held_out_pictures(source)[noun], core_world.others_than([noun])
    return [t for t in stock if noun in t.names], [t for t in stock if noun not in t.names]


def _photo_with(
    noun: str, meant: Sequence[Thing], others: Sequence[Thing], family: str, rng: np.random.Generator
) -> tuple[Image.Image, Mask]:
    """A photo of one of `meant` among three others, and its mask."""
    for _ in range(50):
        plate = scenes.draw_scene(family, rng, (320, 240))
        thing = meant[int(rng.integers(len(meant)))]
        crowd = [others[int(i)] for i in rng.choice(len(others), 3, replace=False)]
        photo = composition.compose(plate, composition.place_things(plate, [thing, *crowd], rng, (0.25, 0.4)))
        mask = photo.mask(noun)
        if mask.mean() > 0.008:
            return photo.image, mask
    raise RuntimeError(f"no room for a {noun} in 50 plates of a {family}")
