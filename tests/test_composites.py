"""Pictures made of photographs: what they show is where their masks say, under all its names, and nothing held out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steersearch.core.errors import DataError
from steersearch.training.photographs.folder import read_folder
from steersearch.training.photographs.wordnet import WORDNET_FOLDER
from steersearch.training.world.composites import MODES, Composer
from steersearch.training.world.corpus import Corpus, make_corpus
from steersearch.training.world.instances import cutout, read_photograph
from steersearch.training.world.photo_stock import PhotoStock, make_stock
from steersearch.training.world.recolour import COLOURS, has_one_colour, recolour
from steersearch.training.world.scenes import Scene
from steersearch.training.world.stamps import STAMPS_FOLDER
from steersearch.training.world.things import draw_stock
from steersearch.training.world.world import WorldConfig
from tests.photograph_folder import DISC, make_photograph_folder

SMALL = WorldConfig(photos=40, size=64, drawn_per_kind=1, plates=1, stamps=False, emoji=False)


def plainly(noun: str) -> frozenset[str]:
    return frozenset({noun})


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photograph_folder(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def corpus(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(replace(SMALL, photographs=str(photographs)), tmp_path_factory.mktemp("corpus"))


def test_a_corpus_on_photographs_is_whole_repeatable_and_of_all_modes(corpus: Corpus, tmp_path: Path) -> None:
    assert corpus.things.shape == (40, 8)
    assert set(corpus.modes.tolist()) == set(range(len(MODES)))
    assert ((corpus.things >= 0).sum(axis=1) >= 1).all()
    assert (corpus.families[corpus.modes != MODES.index("world")] == -1).all()
    assert (corpus.families[corpus.modes == MODES.index("world")] >= -1).any()
    fewer = make_corpus(replace(corpus.config, photos=9), tmp_path)
    assert (fewer.images == corpus.images[:9]).all()
    assert (fewer.cover == corpus.cover[:9]).all()


def test_what_a_photograph_shows_is_where_its_mask_says(photographs: Path) -> None:
    """The cup, the only red thing there is, in parts of its photograph and in mosaics of them."""
    found = [read_photograph(read_folder(photographs)[0], plainly)]
    drawn = draw_stock(np.random.default_rng(0), 1, 64, ["bucket"])
    stock = make_stock(
        drawn, found, lambda noun, among: plainly(noun), size=64, seed=0, with_stamps=False, with_emoji=False
    )
    composer = Composer(stock, found, [Scene("", Image.new("RGB", (80, 60)), ())], size=64, seed=0)
    composites = [composer.compose(number) for number in range(60)]
    seen = [one for one in composites if one.mode in ("photograph", "mosaic")]
    assert {one.mode for one in seen} == {"photograph", "mosaic"}
    for one in seen:
        pixels = np.asarray(one.image).astype(int)
        redness = pixels[..., 0] - pixels[..., 1]
        cups = [mask for number, mask in one.shown if stock.things[number].noun == "cup"]
        assert all(np.median(redness[mask]) > 40 for mask in cups)
        if one.mode == "photograph":
            assert len(cups) == 1
            assert np.median(redness[~cups[0]]) < 0


def test_nothing_held_out_is_composed(corpus: Corpus) -> None:
    nouns = {thing.noun for thing in corpus.stock if thing.source == "photo"}
    assert nouns == {
        "cup",
        "car",
    }  # neither the hammer, which is held out, nor the kite, which is never right


def test_a_corpus_without_photographs_has_no_modes(tmp_path: Path) -> None:
    corpus = make_corpus(replace(SMALL, photos=2), tmp_path)
    assert corpus.modes.tolist() == [-1, -1]
    assert corpus.things.shape == (2, 6)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="steersearch train photographs FOLDER"):
        make_corpus(replace(SMALL, photographs=str(tmp_path)), tmp_path / "corpus")


# ----------------------------------------------------------------------------------------------- instances


def test_a_photograph_with_a_noun_shows_what_stands_out(photographs: Path) -> None:
    photograph = read_photograph(read_folder(photographs)[0], plainly)
    (cup,) = photograph.instances
    assert (cup.noun, photograph.shows_one) == ("cup", True)
    rows, columns = np.where(cup.mask)
    box = (columns.min(), rows.min(), columns.max(), rows.max())
    assert np.abs(np.array(box) - DISC).max() <= 1
    thing = cutout(photograph, cup, size=40)
    assert thing.picture.size == (40, 40)
    assert thing.picture.getpixel((20, 20))[3] == 255  # type: ignore[index]
    assert thing.picture.getpixel((0, 0))[3] == 0  # type: ignore[index]


def test_a_box_is_cut_down_to_what_stands_out_in_it(photographs: Path) -> None:
    photograph = read_photograph(read_folder(photographs)[1], plainly)
    (car,) = photograph.instances  # the kite is one of what is never right
    assert (car.noun, photograph.shows_one) == ("car", False)
    assert not car.mask[:, :32].any()  # left of the box
    salient = read_photograph(read_folder(photographs)[0], plainly).instances[0].mask
    assert (car.mask == salient)[24:114, 32:128].mean() > 0.99


def test_a_box_in_which_nothing_stands_out_is_an_ellipse(photographs: Path) -> None:
    labelled = read_folder(photographs)[1]
    Image.new("L", (8, 6)).save(photographs / "masks/nothing.png")
    photograph = read_photograph(replace(labelled, mask=photographs / "masks/nothing.png"), plainly)
    (car,) = photograph.instances
    assert car.mask[69, 80]
    assert not car.mask[26, 34]  # a corner of the box
    assert 0.6 < car.mask[24:114, 32:128].mean() < 0.8


# --------------------------------------------------------------------------------------------------- stock


@pytest.mark.slow  # reads all stamps
@pytest.mark.skipif(not STAMPS_FOLDER.is_dir(), reason="the stamps' package is not installed")
def test_recoloured_stamps_are_called_by_their_new_colour(photographs: Path) -> None:
    found = [read_photograph(labelled, plainly) for labelled in read_folder(photographs)[:3]]
    stock = make_stock(
        [], found, lambda noun, among: plainly(noun), size=32, seed=0, with_stamps=True, with_emoji=False
    )
    recoloured = [stock.things[number] for number in stock.groups["recoloured"]]
    assert len(recoloured) > 50
    for thing in recoloured:
        assert thing.phrase == f"{thing.colour} {thing.noun}"
        assert {thing.phrase, thing.noun, f"{thing.colour} thing"} <= thing.names
        assert thing.category not in ("animal", "bird", "fish", "insect")
        others = {f"{colour} {thing.noun}" for colour in COLOURS} - {thing.phrase}
        assert not others & thing.names
    assert_numbered(stock)


def assert_numbered(stock: PhotoStock) -> None:
    """Groups follow one another, and each photograph's instances are its own."""
    assert [number for group in stock.groups.values() for number in group] == list(range(len(stock.things)))
    assert [[stock.things[number].noun for number in one] for one in stock.instances] == [
        ["cup"],
        ["car"],
        [],
    ]


def test_a_cutout_in_another_colour_keeps_its_shape_and_its_light() -> None:
    ramp = np.tile(np.linspace(60, 250, 32).astype(np.uint8), (32, 1))
    blank = np.zeros_like(ramp)
    alpha = np.full_like(ramp, 255)
    alpha[:8] = 0
    red = Image.fromarray(np.dstack([ramp, blank, blank, alpha]))
    assert has_one_colour(red)
    blue = np.asarray(recolour(red, "blue", np.random.default_rng(0))).astype(int)
    assert (blue[..., 3] == alpha).all()
    shown = blue[alpha > 0]
    assert (shown[:, 2] > shown[:, 0]).all()
    light = blue[16, :, :3].sum(axis=1)
    assert (np.diff(light) >= 0).all()
    assert light[-1] > 2 * light[0]
    for colour, brightest in (("black", 0.35), ("gray", 0.8), ("white", 1.0)):
        grey = np.asarray(recolour(red, colour, np.random.default_rng(0)))[16, :, :3]
        assert np.ptp(grey, axis=1).max() == 0
        assert grey.max() <= 255 * brightest
    half = np.asarray(red).copy()
    half[:, 16:, 2], half[:, 16:, 0] = half[:, 16:, 0], 0
    assert not has_one_colour(Image.fromarray(half))


def test_another_wordnet_is_refused(tmp_path: Path) -> None:
    photographs = make_photograph_folder(tmp_path / "photographs")
    config = replace(SMALL, photos=1, photographs=str(photographs), wordnet=True)
    unpacked = photographs / "packages/wordnet-base/usr/share/wordnet"
    unpacked.mkdir(parents=True, exist_ok=True)
    data = {
        "00000001": "00000001 03 n 01 physical_entity 0 000 | x",
        "03147509": "03147509 06 n 02 cup 0 loving_cup 0 001 @ 00000001 n 0000 | x",
    }
    (unpacked / "data.noun").write_text("\n".join(data.values()) + "\n")
    (unpacked / "index.noun").write_text("cup n 1 1 @ 1 1 03147509\n")
    with pytest.raises(DataError, match=r"not WordNet 3\.0"):
        make_corpus(config, tmp_path / "corpus")


@pytest.mark.skipif(not (WORDNET_FOLDER / "data.noun").is_file(), reason="WordNet is not installed")
def test_things_bear_the_wider_names_that_wordnet_has(photographs: Path, tmp_path: Path) -> None:
    corpus = make_corpus(replace(SMALL, photos=1, photographs=str(photographs), wordnet=True), tmp_path)
    names = {thing.noun: thing.names for thing in corpus.stock}
    assert {"cup", "container", "crockery"} <= names["cup"]
    assert {"car", "auto", "motor vehicle"} <= names["car"]
    assert "container" not in names["car"]
    assert {"alcohol", "beverage"}.isdisjoint(names["cup"])
    assert names["rubber duck"].isdisjoint({"animal", "bird"})
    assert "furniture" in names["bookshelf"]
