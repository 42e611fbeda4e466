"""The benchmark of labelled photographs, on pictures of one colour each and with a method that knows the colours."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from steersearch import Library
from steersearch.benchmarks.harness.benchmark import create
from steersearch.benchmarks.harness.catalogue import card
from steersearch.benchmarks.harness.method import Seen
from steersearch.benchmarks.harness.steervit_method import SteerViTMethod
from steersearch.benchmarks.ours import labelled_photographs, photographs
from steersearch.benchmarks.ours.coloured_pairs import coloured_pairs
from steersearch.benchmarks.ours.labelled_photographs import Label, Photograph, labels, read_photographs
from steersearch.benchmarks.ours.photographs import PhotographData
from steersearch.core.errors import BenchmarkError, DataError
from steersearch.core.predictor import Predictor
from steersearch.core.steervit import Features
from steersearch.core.vectors import Unsteered
from steersearch.training.photographs.listed import Listed, is_test_only, listed
from steersearch.training.world.recolour import COLOURS
from steersearch.training.world.stamps import HELD_OUT_NOUNS, STAMPS_FOLDER
from tests.small_rcc import small_rcc

HUES = {"fish": (200, 30, 30), "windmill": (30, 200, 30), "kiosk": (30, 30, 200), "obelisk": (200, 200, 30)}


def shows(noun: str, name: str, wider: Sequence[str] = (), tint: int = 0) -> Photograph:
    picture = Image.new("RGB", (90, 60), tuple(value + tint for value in HUES[noun]))
    return Photograph(name, picture, (Label(Listed("p", name, "", ""), noun, frozenset(wider), ()),))


def cluttered() -> Photograph:
    """A fish at the left, a windmill at the right."""
    picture = Image.new("RGB", (100, 100), (0, 0, 0))
    picture.paste(HUES["fish"], (0, 40, 30, 100))
    picture.paste(HUES["windmill"], (70, 0, 100, 60))
    boxes = {"fish": (0.0, 40.0, 30.0, 100.0), "windmill": (70.0, 0.0, 100.0, 60.0)}
    found = tuple(
        Label(Listed("p", "cluttered", "", ""), noun, frozenset(), (box,)) for noun, box in boxes.items()
    )
    return Photograph("cluttered", picture, found)


ALL = (
    *(shows("fish", f"fish{k}", ["animal"], tint=k) for k in range(3)),
    *(shows("windmill", f"windmill{k}", tint=k) for k in range(3)),
    shows("kiosk", "kiosk"),
    shows("obelisk", "obelisk"),
    cluttered(),
)


class Painter(SteerViTMethod):
    """Heat where a picture has the hue of the noun in the prompt; vectors are mean colours.  right=False: elsewhere."""

    def __init__(self, file: Path, right: bool = True) -> None:
        model = Predictor.from_pretrained(file, device="cpu")
        super().__init__(model)
        self.sign = 20.0 if right else -20.0
        self.model = SimpleNamespace(  # type: ignore[assignment]
            preprocess=model.preprocess,
            grid=model.grid,
            features=self._features,
            embed_with_unsteered=self._embed_with_unsteered,
        )

    def see(self, pictures, prompt, *, patches=False, maps=False, attention=False):  # type: ignore[no-untyped-def]
        pixels = torch.stack([self._pixels(picture) for picture in pictures])
        found = torch.nn.functional.adaptive_avg_pool2d(pixels, self.model.grid)
        logits = None
        if prompt is not None:
            hue = HUES.get(prompt.removeprefix("the "), HUES["fish"])  # an animal is a fish
            wanted = self._pixels(Image.new("RGB", (90, 60), hue)).mean((1, 2))
            logits = (-self.sign * (found - wanted[:, None, None]).abs().mean(dim=1)).numpy()
        return Seen(vectors=found.mean((2, 3)).numpy(), maps=logits)

    def _pixels(self, picture: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(self.model.preprocess(picture)))

    def _features(self, pictures, prompt, gate_scale):  # type: ignore[no-untyped-def]
        pixels = torch.stack([self._pixels(picture) for picture in pictures])
        patches = torch.nn.functional.adaptive_avg_pool2d(pixels, self.model.grid).flatten(2).transpose(1, 2)
        logits = torch.from_numpy(self.see(pictures, prompt, maps=True).maps).flatten(1)
        none = torch.empty(len(logits), 0, 3)
        return Features(prefix=none, patches=patches, logits=logits, grid=self.model.grid)

    def _embed_with_unsteered(self, pixels, prompt_features, gate_scale):  # type: ignore[no-untyped-def]
        return Unsteered(embeddings=pixels.mean(axis=(2, 3)), patches=pixels.transpose(0, 2, 3, 1)), []


@pytest.fixture
def data() -> PhotographData:
    return PhotographData(photographs=ALL, mosaics=tuple(photographs._mosaics(ALL, 6)), pairs=())


def test_whoever_knows_the_things_has_all_points(data: PhotographData, tiny_model: Path) -> None:
    outcome = photographs.Photographs().evaluate(Painter(tiny_model), data)
    assert {
        name: value
        for name, value in outcome.metrics.items()
        if name != "colour" and not name.endswith(("precision_at_10", "precision_fewer"))
    } == {
        "mosaic": 100, "mosaic_trained": 100, "mosaic_new": 100, "pointing": 100, "neighbour": 100,
        "neighbour_mean": 100, "neighbour_photographs": 6, "find_words": 0,
    }  # fmt: skip
    assert {row["word"]: row["photographs"] for row in outcome.rows} == {
        "animal": 3,
        "fish": 4,
        "windmill": 4,
    }


def test_whoever_looks_elsewhere_has_none(data: PhotographData, tiny_model: Path) -> None:
    metrics = photographs.Photographs().evaluate(Painter(tiny_model, right=False), data).metrics
    assert metrics["mosaic"] == metrics["pointing"] == 0


def test_first_by_presence_are_those_that_show_it_or_they_are_not(tiny_model: Path) -> None:
    for right in (True, False):
        method = Painter(tiny_model, right)
        shares = [photographs.found_first(method, ALL[:-1], word, lambda _: None) for word in HUES]
        assert {share["presence"] for share in shares} == {float(right)}


def noisy(count: int) -> list[Photograph]:
    """Photographs of a noun each."""
    rng = np.random.default_rng(3)
    found = []
    for k in range(count):
        noun = list(HUES)[k % len(HUES)]
        pixels = np.clip(np.array(HUES[noun]) + rng.normal(0, 90, (48, 64, 3)), 0, 255).astype(np.uint8)
        labels = (Label(Listed("p", f"{k:02}.png", "", ""), noun, frozenset(), ()),)
        found.append(Photograph(f"{k:02}.png", Image.fromarray(pixels), labels))
    return found


@pytest.fixture
def library(tmp_path: Path, tiny_model: Path, word_encoder: None) -> Library:
    """Of `noisy` photographs."""
    (tmp_path / "photos").mkdir()
    for photo in noisy(40):
        photo.picture.save(tmp_path / "photos" / photo.name)
    library = Library.create(tmp_path / "photos", model=str(tiny_model))
    library.index(prompts=["the fish"])
    return library


def test_find_is_what_the_command_answers(library: Library, tiny_model: Path) -> None:
    hits = library.find("the fish", k=40, exact=True)
    by_find = [hit.path.name for hit in hits]
    by_presence = [hit.path.name for hit in sorted(hits, key=lambda hit: -hit.parts[0].score)]
    alike = len({*by_find[:8]} & {*by_presence[:8]}) / 8
    assert alike < 1
    method = SteerViTMethod(Predictor.from_pretrained(tiny_model, device="cpu"))
    fish = (Label(Listed("p", "", "", ""), "fish", frozenset(), ()),)
    for names, expected in (
        (by_find, {"find": 1.0, "presence": alike}),
        (by_presence, {"find": alike, "presence": 1.0}),
    ):
        gallery = [replace(photo, labels=fish if photo.name in names[:8] else ()) for photo in noisy(40)]
        assert photographs.found_first(method, gallery, "fish", lambda _: None) == expected


def test_neighbours_are_what_a_query_without_a_focus_finds(library: Library, tiny_model: Path) -> None:
    gallery = noisy(40)
    nouns = {photo.name: photo.alone for photo in gallery}
    nearest = {name: library.query(library.folder / name, k=1)[0].path.name for name in nouns}
    found = photographs.neighbours(
        SteerViTMethod(Predictor.from_pretrained(tiny_model, device="cpu")), gallery
    )
    alike = [nouns[name] == nouns[other] for name, other in nearest.items()]
    assert found["neighbour"] == 100 * np.mean(alike)
    assert found["neighbour"] != found["neighbour_mean"]


def test_nouns_of_a_mosaic_say_nothing_of_one_another(data: PhotographData) -> None:
    for mosaic in data.mosaics:
        assert len(set(mosaic.nouns)) == 4
        for k, noun in enumerate(mosaic.nouns):
            middle = mosaic.picture.getpixel((112 + 224 * (k % 2), 112 + 224 * (k // 2)))
            assert np.abs(np.subtract(middle, HUES[noun])).max() <= 2


def test_trained_nouns_are_those_of_photographs_to_train_on() -> None:
    assert {"fish", "windmill"} <= {photograph.noun for photograph in listed()}
    assert not {"kiosk", "obelisk"} & {photograph.noun for photograph in listed()}


def test_boxes_are_percent_of_the_picture() -> None:
    photo = cluttered()
    mask = photo.mask(photo.labels[0])
    assert mask[40:, :30].all()
    assert mask.sum() == 60 * 30


def test_every_labelled_photograph_is_kept_for_tests() -> None:
    assert len({label.photograph for label in labels()}) > 100
    assert all(is_test_only(label.photograph.package, label.photograph.file) for label in labels())
    assert not {label.photograph.file for label in labels()} & {photograph.file for photograph in listed()}


def test_a_label_of_a_photograph_to_train_on_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    train = next(row for row in listed() if row.package == "gcompris-qt-data")
    (tmp_path / "photographs.tsv").write_text(
        f"package\tfile\tnoun\twider\tboxes\n{train.package}\t{train.file}\tfish\t\t\n"
    )
    monkeypatch.setattr(labelled_photographs.resources, "files", lambda package: tmp_path)
    with pytest.raises(DataError, match="is not held out for tests"):
        labels.__wrapped__()


def test_photographs_are_read_from_unpacked_packages(tmp_path: Path) -> None:
    """Every file that the labels name, as small pictures in archives of the packages' layout."""
    png = io.BytesIO()
    Image.new("RGB", (8, 6), (1, 2, 3)).save(png, "PNG")
    archives: dict[str, dict[str, bytes]] = {}
    for file in {label.photograph.file for label in labels()}:
        outer, _, inner = file.partition(":")
        if inner:
            archives.setdefault(outer, {})[f"gcompris/{Path(outer).stem}/resource/{inner}"] = png.getvalue()
        else:
            path = tmp_path / "darknet" / outer
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png.getvalue())
    (tmp_path / "gcompris-qt-data").mkdir()
    for outer, files in archives.items():
        (tmp_path / "gcompris-qt-data" / outer).write_bytes(small_rcc(files))
    found = read_photographs(tmp_path, tmp_path)
    assert len(found) == len({label.photograph for label in labels()})
    assert {"dog", "bicycle", "truck", "animal"} in [photo.words for photo in found]
    assert next(photo for photo in found if photo.name.endswith("fish11.webp")).alone == "fish"


def test_a_folder_without_the_packages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no unpacked package gcompris-qt-data"):
        read_photographs(tmp_path, tmp_path)


def test_there_is_no_stand_in() -> None:
    with pytest.raises(BenchmarkError, match="has no stand-in"):
        create(card("photographs"), {}).world(None)


@pytest.mark.skipif(not STAMPS_FOLDER.is_dir(), reason="the stamps' package is not installed")
def test_pairs_differ_in_colour_alone() -> None:
    ground = Image.new("RGB", (320, 240), (120, 130, 110))
    pairs = list(coloured_pairs([ground], 4, np.random.default_rng(0)))
    for number, pair in enumerate(pairs):
        (first, noun), (second, other) = (said.split(" ", 1) for said in pair.said)
        assert noun == other
        assert first != second
        assert {first, second} <= set(COLOURS)
        assert all(mask.any() for mask in pair.masks)
        assert number % 2 == 0 or noun in HELD_OUT_NOUNS
