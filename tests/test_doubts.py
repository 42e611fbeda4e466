"""The bundled model says where it may well be wrong: over photos unlike those it learned from, for untaught words."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steersearch import Library
from steersearch.core.learned import Learned, digests, learned_by, strangeness, whitening
from steersearch.core.registry import MODELS
from steersearch.views.notebook import hits_html
from steersearch.views.page import write_page
from tests.conftest import Run
from tests.drawn_copies import page

PHOTOGRAPHS = ("owl", "pancakes", "sunflower", "soccer-ball")  # nothing was trained on these
UNLIKE = "of these photos look unlike those it was trained on"


@pytest.fixture(scope="module")
def learned() -> Learned:
    found = learned_by(MODELS["mini"].weights.sha256)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """A library of four pages of text, indexed without a prompt."""
    folder = tmp_path_factory.mktemp("pages")
    for number in range(4):
        page(number).save(folder / f"page{number}.png")
    return indexed(folder)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Library:
    folder = tmp_path_factory.mktemp("photographs")
    for name in PHOTOGRAPHS:
        with Image.open(str(files("steersearch") / "photographs" / f"{name}.jpg")) as photo:
            photo.save(folder / f"{name}.png")
    return indexed(folder)


def indexed(folder: Path) -> Library:
    library = Library.create(folder, model="mini", place=folder.parent / f"{folder.name}.library")
    library.index()
    return library


def test_over_pages_of_text_the_answer_doubts_itself(pages: Library) -> None:
    hits = pages.query(pages.folder / "page0.png")
    assert hits[0].searched.doubt is not None
    assert hits[0].searched.doubt.unlike == 1
    assert str(hits.searched.doubt) == (
        f"mini may well be wrong here: 100% {UNLIKE}; a better model: "
        f"steersearch index {pages.folder} --model dinov2-small --library {pages.place}"
    )


def test_over_photographs_that_nothing_was_trained_on_it_does_not(photographs: Library) -> None:
    owl = photographs.folder / "owl.png"
    assert photographs.query(owl).searched.doubt is None
    assert photographs.query(owl, focus="the bird").searched.doubt is None


def test_a_prompt_in_untaught_words_is_named(photographs: Library) -> None:
    hits = photographs.query(photographs.folder / "owl.png", focus=["an owl", "people at a party"])
    assert hits.searched.doubt is not None
    assert (hits.searched.doubt.unlike, hits.searched.doubt.untaught) == (0, ("people at a party",))
    assert 'wrong here: it was taught no word of "people at a party"; a better' in str(hits.searched.doubt)


def test_every_form_of_an_answer_says_so(pages: Library, run: Run, tmp_path: Path) -> None:
    place, photo = str(pages.place), str(pages.folder / "page0.png")
    for command in (["query", photo], ["query", photo, "--focus", "invoice"], ["find", "invoice"]):
        done = run(*command, "--library", place)
        assert (done.err.count("may well be wrong"), done.err.count(UNLIKE)) == (1, 1)
        rows = [json.loads(line) for line in run(*command, "--library", place, "--json").out.splitlines()]
        assert rows
        assert all(UNLIKE in row["doubt"] for row in rows)
    found = pages.find("invoice")
    write_page(tmp_path / "page.html", [found])
    assert (tmp_path / "page.html").read_text("utf-8").count(UNLIKE) == 1
    assert hits_html(found).count(UNLIKE) == 1


def test_without_unsteered_vectors_only_the_words_are_judged(pages: Library, tmp_path: Path) -> None:
    library = Library.create(pages.folder, model="mini", place=tmp_path / "library")
    library.index(["a mug", "invoice"], regions=False)
    assert library.find("a mug").searched.doubt is None
    assert library.find("invoice").searched.doubt is not None


def test_what_was_learned_belongs_to_the_bundled_weights(learned: Learned) -> None:
    assert learned.weights == MODELS["mini"].weights.sha256
    assert learned.better in MODELS
    assert learned_by("0" * 64) is None


@pytest.mark.parametrize(
    "prompt",
    ["a mug", "the red mug", "two dogs", "berries", "remote control", "A MUG, please", "a hot dog stand"],
)
def test_a_taught_word_is_known_in_any_prompt(learned: Learned, prompt: str) -> None:
    assert learned.knows(prompt)


@pytest.mark.parametrize(
    "prompt", ["people", "the beach", "invoice", "smiling", "the colour", "ein Fahrrad", "犬"]
)
def test_a_prompt_without_a_taught_word_is_not(learned: Learned, prompt: str) -> None:
    assert not learned.knows(prompt)


def test_names_are_compared_without_hyphens_and_case() -> None:
    assert digests(["Man-eater"]) == digests(["man eater"])
    assert len(digests(["cup", "mug"])) == 2


def test_strangeness_by_hand() -> None:
    """Along (3, 0) and across (0, 4) of four directions that are axes themselves."""
    found = strangeness(
        np.array([[3, 0, 0, 4], [3, 4, 0, 0]], np.float32), np.zeros(4, np.float32), np.eye(4)
    )
    assert found.tolist() == pytest.approx([4 / 3, 0])


def test_a_direction_without_variance_is_not_blown_up() -> None:
    vectors = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    vectors[:, 3] = 0.7
    assert np.abs(whitening(vectors)[1]).max() < 10


def test_whitened_vectors_have_no_scale_and_no_direction(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32) * [4, 3, 2, 1.5] + 5
    mean, axes = whitening(vectors)
    assert np.cov(((vectors - mean) @ axes).T) == pytest.approx(np.eye(4), abs=1e-4)
    assert np.abs(axes[:, 0]).argmax() == 0  # of most variance
    made = Learned("a", "b", 1.5, mean, axes, digests(["cup"]))
    made.save(tmp_path / "learned.safetensors")
    read = Learned.read(tmp_path / "learned.safetensors")
    assert (read.weights, read.better, read.most, read.words) == ("a", "b", 1.5, made.words)
    assert read.axes == pytest.approx(axes, abs=1e-3)
