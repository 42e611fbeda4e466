"""Vectors of pictures under prompts: computed once, whatever stopped the run; right whichever way they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from steersearch.benchmarks.harness import embeddings
from steersearch.benchmarks.harness.cache import cache_folder
from steersearch.benchmarks.harness.embeddings import Gallery, gallery_vectors, pair_vectors
from steersearch.benchmarks.harness.method import Seen
from steersearch.benchmarks.harness.steervit_method import SteerViTMethod
from steersearch.core.errors import BenchmarkError
from steersearch.core.predictor import Predictor


class Numbers:
    """Pictures whose first pixel is their number; counts how often each is read."""

    def __init__(self, count: int, digest: str = "numbers") -> None:
        self.count, self.digest = count, digest
        self.reads: list[int] = []

    def __len__(self) -> int:
        return self.count

    def read(self, number: int) -> Image.Image:
        self.reads.append(number)
        return Image.new("RGB", (4 + number % 3, 4), (number, 0, 0))


class Lengths:
    """Vector (number, length of the prompt); fails when `left` pictures have been seen."""

    weights_hash = None
    name, identity, licence = "lengths", "lengths", "none"
    takes_prompt, gallery_takes_prompt, batch_size = True, True, 3

    def __init__(self, left: int = 10**9, takes_prompt: bool = True) -> None:
        self.left, self.takes_prompt = left, takes_prompt
        self.seen: list[tuple[int, str | None]] = []

    def see(self, pictures: Sequence[Image.Image], prompt: str | None, **wanted: bool) -> Seen:
        assert len(pictures) <= self.batch_size
        self.left -= len(pictures)
        if self.left < 0:
            raise KeyboardInterrupt
        numbers = [int(np.asarray(picture)[0, 0, 0]) for picture in pictures]
        self.seen += [(number, prompt) for number in numbers]
        return Seen(vectors=np.array([vector(number, prompt) for number in numbers], dtype=np.float32))


def vector(number: int, prompt: str | None) -> tuple[float, float]:
    return float(number), -1.0 if prompt is None else float(len(prompt))


WANTED = st.dictionaries(
    st.sampled_from(["a", "bb", "ccc", None]),
    st.lists(st.integers(0, 11), unique=True, max_size=12),
    max_size=4,
)


@given(steps=st.lists(WANTED, min_size=1, max_size=3), takes_prompt=st.booleans())
def test_each_pair_is_computed_once_and_right(
    tmp_path_factory: pytest.TempPathFactory, steps: list[dict[str | None, list[int]]], takes_prompt: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEERSEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(embeddings, "CHUNK", 5)
        method = Lengths(takes_prompt=takes_prompt)
        for wanted in steps:
            pictures = Numbers(12)
            found = pair_vectors(method, pictures, wanted)
            assert set(found) == set(wanted)
            for prompt, numbers in wanted.items():
                said = prompt if takes_prompt else None
                for number in numbers:
                    assert tuple(found[prompt][number]) == vector(number, said)
            assert len(pictures.reads) == len(set(pictures.reads))
        assert len(method.seen) == len(set(method.seen))


def test_a_run_that_is_stopped_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "CHUNK", 4)
    wanted = {"a": range(10), "bb": range(10)}
    with pytest.raises(KeyboardInterrupt):
        pair_vectors(Lengths(left=13), Numbers(10), wanted)
    rest = Lengths()
    found = pair_vectors(rest, Numbers(10), wanted)
    assert len(rest.seen) == 20 - 8  # one file of four pictures was complete
    assert [tuple(found["bb"][number]) for number in range(10)] == [vector(n, "bb") for n in range(10)]


def test_other_pictures_and_other_methods_are_not_taken_for_these() -> None:
    method = Lengths()
    pair_vectors(method, Numbers(3), {"a": range(3)})
    pair_vectors(method, Numbers(3, digest="others"), {"a": range(3)})
    other = Lengths()
    other.identity = "lengths, another version"
    pair_vectors(other, Numbers(3), {"a": range(3)})
    assert (len(method.seen), len(other.seen)) == (6, 3)


def test_a_damaged_file_is_made_again() -> None:
    pair_vectors(Lengths(), Numbers(3), {"a": range(3)})
    (file,) = cache_folder().glob("features/*/*/*.npz")
    file.write_bytes(file.read_bytes()[:100])
    method = Lengths()
    assert tuple(pair_vectors(method, Numbers(3), {"a": range(3)})["a"][2]) == vector(2, "a")
    assert len(method.seen) == 3


def test_vectors_that_mean_nothing_are_refused() -> None:
    class Broken(Lengths):
        def see(self, pictures: Sequence[Image.Image], prompt: str | None, **wanted: bool) -> Seen:
            return Seen(vectors=np.full((len(pictures), 2), np.nan, dtype=np.float32))

    with pytest.raises(
        BenchmarkError, match=r'lengths gave an embedding that is empty or not finite for "a"'
    ):
        pair_vectors(Broken(), Numbers(2), {"a": range(2)})


# --------------------------------------------------------------------------------------- through the indexer


@pytest.fixture
def gallery(photos: Path) -> Gallery:
    return Gallery(
        photos, tuple(sorted((path.name for path in photos.iterdir()), reverse=True)), "six colours"
    )


@pytest.mark.usefixtures("word_encoder")
def test_the_indexer_gives_what_the_model_gives(gallery: Gallery, tiny_model: Path) -> None:
    model = Predictor.from_pretrained(tiny_model, device="cpu")
    for method in (SteerViTMethod(model), SteerViTMethod(model, 0.6, "cls"), SteerViTMethod(model, 0.0)):
        found = gallery_vectors(method, gallery, ["the red mug", " a kite ", None])
        pictures = [gallery.read(number) for number in range(len(gallery))]
        for prompt, vectors in found.items():
            direct = method.see(pictures, prompt).vectors
            direct /= np.linalg.norm(direct, axis=1, keepdims=True)
            assert vectors == pytest.approx(direct, abs=2e-5)
    assert not np.allclose(
        found["the red mug"], gallery_vectors(SteerViTMethod(model), gallery, ["a mug"])["a mug"]
    )


@pytest.mark.usefixtures("word_encoder")
def test_what_was_indexed_is_not_embedded_again(
    gallery: Gallery, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = SteerViTMethod(Predictor.from_pretrained(tiny_model, device="cpu"))
    first = gallery_vectors(method, gallery, ["a mug", None])
    monkeypatch.setattr(embeddings._Embedder, "embed", None)
    again = gallery_vectors(method, gallery, [None, "a mug"])
    assert all(np.array_equal(first[prompt], again[prompt]) for prompt in first)


@pytest.mark.usefixtures("word_encoder")
def test_the_frozen_backbone_needs_no_text_encoder(
    gallery: Gallery, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Predictor, "encode_prompts", None)
    method = SteerViTMethod(Predictor.from_pretrained(tiny_model, device="cpu"), gate_scale=0)
    assert gallery_vectors(method, gallery, ["a mug"])["a mug"].shape == (6, 32)


@pytest.mark.usefixtures("word_encoder")
def test_a_picture_that_cannot_be_read_is_named(gallery: Gallery, tiny_model: Path) -> None:
    (gallery.folder / gallery.files[1]).write_bytes(b"no picture")
    with pytest.raises(BenchmarkError, match=gallery.files[1]):
        gallery_vectors(
            SteerViTMethod(Predictor.from_pretrained(tiny_model, device="cpu")), gallery, ["a mug"]
        )
