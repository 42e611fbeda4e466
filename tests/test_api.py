"""The Python interface: what the commands do, as methods that return data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from steersearch import Hit, Library, SteerViT
from steersearch.core.errors import ArgumentError, LibraryMissingError, PromptIndexMissing
from tests.conftest import write_tiny_model

PROMPT = "the red mug"

pytestmark = pytest.mark.usefixtures("word_encoder")


@pytest.fixture
def library(photos: Path, tiny_model: Path) -> Library:
    library = Library.create(photos, model=str(tiny_model))
    library.index(prompts=[PROMPT, "bookshelf"])
    return library


def test_hits_are_those_of_the_model_itself(library: Library, photos: Path, tiny_model: Path) -> None:
    """The ranking equals one made by hand from `SteerViT.embed`."""
    model = SteerViT.from_pretrained(tiny_model)
    paths = sorted(photos.iterdir())
    for prompt in (PROMPT, "bookshelf"):
        embeddings = model.embed(paths, prompt=prompt).numpy()
        scores = embeddings @ embeddings[paths.index(photos / "blue.jpg")]
        order = np.argsort(-scores)
        hits = library.query(photos / "blue.jpg", focus=prompt, k=4)
        assert [hit.path for hit in hits] == [paths[i] for i in order[:4]]
        assert [hit.score for hit in hits] == pytest.approx(scores[order[:4]].tolist(), abs=1e-5)
        assert [(hit.rank, hit.exact, hit.prompt) for hit in hits] == [
            (i, True, prompt) for i in (1, 2, 3, 4)
        ]


def test_prompts_rank_differently(library: Library, photos: Path) -> None:
    first, second = (library.query(photos / "blue.jpg", focus=f) for f in (PROMPT, "bookshelf"))
    assert [hit.score for hit in first] != [hit.score for hit in second]


def test_a_hit_has_the_heatmap_of_the_model(library: Library, photos: Path, tiny_model: Path) -> None:
    hit: Hit = library.query(photos / "blue.jpg", focus=PROMPT, k=2)[1]
    (expected,) = SteerViT.from_pretrained(tiny_model).heatmaps([hit.path], PROMPT).numpy()
    assert hit.heatmap.shape == (4, 4)
    assert hit.heatmap.sum() == pytest.approx(1)
    np.testing.assert_allclose(hit.heatmap, expected, atol=float(expected.max()) / 100)  # kept in 8 bits
    index = library.find_prompt_index(PROMPT)
    np.testing.assert_allclose(library.heatmap(hit.path, index), expected, atol=1e-5)


def test_a_library_is_opened_by_its_place_or_its_folder(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    for named in (library.place, photos):
        opened = Library.open(named)
        assert (opened.place, opened.folder) == (library.place, photos)
        assert [index.prompt for index in opened.prompts()] == [PROMPT, "bookshelf"]
    with pytest.raises(LibraryMissingError):
        Library.open(tmp_path / "nowhere")


def test_auto_means_the_model_that_the_library_has(library: Library, photos: Path, tiny_model: Path) -> None:
    again = Library.create(photos)
    assert again.model == str(tiny_model)
    counts = again.index(prompts=["teapot"])
    assert (counts.added, counts.forward_passes) == (6, 6)


def test_gate_scale_is_part_of_a_prompt_index(library: Library, photos: Path) -> None:
    library.index(prompts=[PROMPT], gate_scale=0.0)
    scores = {
        gate: [hit.score for hit in library.query(photos / "red.jpg", PROMPT, gate_scale=gate)]
        for gate in (0, 1)
    }
    assert scores[0] != scores[1]
    with pytest.raises(PromptIndexMissing) as missing:
        library.query(photos / "red.jpg", PROMPT, gate_scale=0.5)
    assert "--gate-scale 0.5" in missing.value.command


def test_a_query_never_mixes_models(library: Library, photos: Path, tmp_path: Path) -> None:
    other = str(write_tiny_model(tmp_path / "other.safetensors", seed=5))
    with pytest.raises(PromptIndexMissing) as missing:
        library.query(photos / "red.jpg", PROMPT, model=other)
    assert f"--model {other}" in missing.value.command


def test_a_device_that_is_not_there(photos: Path, tiny_model: Path) -> None:
    library = Library.create(photos, model=str(tiny_model), device="cuda:77")
    with pytest.raises(ArgumentError, match=r"device = 'cuda:77': cannot be used on this machine"):
        library.index(prompts=[PROMPT])
