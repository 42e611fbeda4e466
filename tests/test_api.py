"""The Python interface: what the commands do, as methods that return data."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from steersearch import Hit, Library, SteerViT, api
from steersearch.api import Models, load_embedder, load_model
from steersearch.core.errors import (
    ArgumentError,
    LibraryMissingError,
    ModelMismatchError,
    PromptIndexMissing,
    UnknownModelError,
)
from steersearch.core.vectors import VectorSettings
from steersearch.identity import identity_of
from tests.conftest import Run, draw_picture, write_tiny_model

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
        hits = library.query(photos / "blue.jpg", focus=prompt, k=4, include_query=True)
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
    library.query(photos / "red.jpg", PROMPT, gate_scale=0.5)  # begins one
    assert library.prompts()[-1].gate_scale == 0.5
    with pytest.raises(PromptIndexMissing) as missing:
        library.find_prompt_index(PROMPT, gate_scale=0.7)
    assert "--gate-scale 0.7" in missing.value.command


def test_a_gate_scale_is_named_with_all_its_digits(library: Library) -> None:
    for gate_scale in (0.1234567, 1 / 3, 1e-7):
        with pytest.raises(PromptIndexMissing) as missing:
            library.find_prompt_index(PROMPT, gate_scale=gate_scale)
        words = missing.value.command.split()
        assert float(words[words.index("--gate-scale") + 1]) == gate_scale
        library.index(prompts=[PROMPT], gate_scale=gate_scale)
        assert words[words.index("--gate-scale") + 1] in str(library.prompts()[-1])


def test_an_update_is_of_the_model_that_is_named(library: Library, photos: Path) -> None:
    """Also where nothing is to be computed, and the name alone does not tell which indexes are the model's."""
    with pytest.raises(UnknownModelError):
        Library.create(photos, model="nosuch").index()
    assert Library.create(photos).index().reused == 6


def test_one_focus_is_named_by_its_text(library: Library, photos: Path) -> None:
    library.index(prompts=["ratio 16:9"])
    assert {hit.prompt for hit in library.find("ratio 16:9")} == {"ratio 16:9"}
    assert {hit.prompt for hit in library.query(photos / "red.jpg", [("ratio 16:9", -1.0)])} == {
        "ratio 16:9:-1"
    }


def test_a_view_is_part_of_a_prompt_index(
    library: Library, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """Query and gallery are seen alike, each time as the model itself would: own view, tiles, central square."""
    model = SteerViT.from_pretrained(tiny_model)
    paths = sorted(photos.iterdir())
    keys = {library.find_prompt_index(PROMPT).key}
    for view, grid in (("tile", (8, 8)), ("crop", (4, 4))):
        counts = library.index(prompts=[PROMPT], view=view)  # type: ignore[arg-type]
        assert counts.forward_passes == 6
        index = library.find_prompt_index(PROMPT)
        assert index.view == view
        keys.add(index.key)
        seeing = model.with_view(view)
        embeddings = seeing.embed(paths, prompt=PROMPT).numpy()
        scores = np.sort(embeddings @ embeddings[paths.index(photos / "blue.jpg")])[::-1]
        hits = library.query(photos / "blue.jpg", PROMPT, include_query=True)
        assert [hit.score for hit in hits] == pytest.approx(scores.tolist(), abs=1e-5)
        copy = tmp_path / "copy.png"  # the same pixels in another file, which the library does not know
        Image.open(photos / "blue.jpg").save(copy)
        query = library.query(copy, PROMPT).query
        assert query is not None
        (expected,) = seeing.heatmaps([copy], PROMPT).numpy()
        np.testing.assert_allclose(query.heatmap(index), expected, atol=1e-5)
        assert expected.shape == hits[0].heatmap.shape == grid
    assert len(keys) == 3
    last = {
        view: [hit.score for hit in library.query(photos / "blue.jpg", PROMPT, view=view, include_query=True)]
        for view in ("squash", "tile", "crop", None)
    }
    assert last[None] == last["crop"]
    assert len({tuple(scores) for scores in last.values()}) == 3


def test_a_library_goes_on_seeing_as_it_did(library: Library, photos: Path, tiny_model: Path) -> None:
    assert library.view == "squash"  # the model's own, with which it began
    library.index(prompts=[PROMPT], view="tile")
    again = Library.create(photos)
    assert again.view == "tile"
    assert again.index(prompts=["teapot"]).forward_passes == 6
    assert again.find_prompt_index("teapot").view == "tile"
    (photos / "red.jpg").rename(photos / "crimson.jpg")
    draw_picture(photos / "new.jpg", "red", seed=9)
    assert again.index().forward_passes == 2  # the new photo, under the two prompts seen in tiles
    assert again.info().prompts[0].missing == 1  # seen by squashing
    assert [hit.exact for hit in again.query(photos / "new.jpg", PROMPT, view="squash", k=1)] == [True]
    assert again.info().prompts[0].missing == 0
    other = Library.create(photos, model="mini")
    assert other.view is None  # which the library has never used: its own


def test_the_views_of_a_model_share_its_weights(library: Library, photos: Path) -> None:
    for view in ("tile", "crop"):
        library.index(prompts=[PROMPT], view=view)
    heads = {id(embedder.loaded().model.head) for embedder in library._models.provider._embedders.values()}  # type: ignore[attr-defined]
    assert len(library._models.provider._embedders) == 3
    assert len(heads) == 1


def test_a_view_that_was_not_indexed(library: Library, photos: Path) -> None:
    with pytest.raises(PromptIndexMissing) as missing:
        library.find_prompt_index(PROMPT, view="tile")
    assert missing.value.command.endswith(f'--prompt "{PROMPT}" --view tile')
    assert "view squash)" in str(missing.value)
    with pytest.raises(ArgumentError, match="view = 'fisheye': must be one of"):
        library.query(photos / "red.jpg", PROMPT, view="fisheye")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="view = 'fisheye'"):
        library.index(prompts=[PROMPT], view="fisheye")  # type: ignore[arg-type]


def test_changed_weights_are_indexed_again_in_the_same_view(photos: Path, tmp_path: Path) -> None:
    file = write_tiny_model(tmp_path / "own.safetensors", seed=0)
    Library.create(photos, model=str(file)).index(prompts=[PROMPT], view="tile")
    write_tiny_model(file, seed=1)
    draw_picture(tmp_path / "stranger.jpg", "red", seed=77)
    with pytest.raises(ModelMismatchError) as changed:
        Library.open(photos).query(tmp_path / "stranger.jpg", PROMPT)
    assert str(changed.value).endswith(f"--model {file} --gate-scale 1 --view tile")


def test_a_view_is_known_without_loading_the_model(tiny_model: Path) -> None:
    for view in ("crop", "squash", "tile", None):
        known = identity_of(str(tiny_model), view)
        loaded = load_embedder(str(tiny_model), "cpu", view=view)
        assert known.preprocessing == loaded.preprocessing
        assert known.weights_hash == loaded.weights_hash
        assert VectorSettings.from_dict(loaded.preprocessing).preprocess == loaded.preprocess


def test_a_query_never_mixes_models(library: Library, photos: Path, tmp_path: Path) -> None:
    other = str(write_tiny_model(tmp_path / "other.safetensors", seed=5))
    with pytest.raises(PromptIndexMissing) as missing:
        library.find_prompt_index(PROMPT, model=other)
    assert f"--model {other}" in missing.value.command
    # steers all six photos with the other model
    hits = library.query(photos / "red.jpg", PROMPT, model=other, include_query=True)
    assert [hit.exact for hit in hits] == [True] * 6
    assert {part.focus.index.key for hit in hits for part in hit.parts} == {library.prompts()[-1].key}
    assert library.prompts()[-1].model_id == other


def test_a_precision_is_that_of_the_model_here_and_on_a_cluster(photos: Path, tiny_model: Path) -> None:
    models = Models("cpu", "bfloat16")
    for known in (models, pickle.loads(pickle.dumps(models))):
        embedder = known.embedder(str(tiny_model), None)
        assert embedder.dim  # loads it
        assert known._models[str(tiny_model)].dtype == torch.bfloat16
    library = Library.create(photos, model=str(tiny_model), device="cpu", precision="half")
    with pytest.raises(ArgumentError, match="precision = 'half': must be one of auto, float32, bfloat16"):
        library.index(prompts=[PROMPT])


def test_a_setting_gives_the_precision(
    run: Run, photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    monkeypatch.setattr(api, "load_model", lambda *given: loaded.append(given) or load_model(*given))
    run("config", "set", "precision", "bfloat16")
    run("index", photos, "--prompt", PROMPT, "--model", tiny_model, "--library", "lib")
    run("query", photos / "red.jpg", "--focus", "another thing", "--library", "lib")
    run("explain", photos / "red.jpg", "--focus", PROMPT, "--model", tiny_model, "-o", "map.png")
    assert [given[2] for given in loaded] == ["bfloat16"] * 3


def test_a_device_that_is_not_there(photos: Path, tiny_model: Path) -> None:
    library = Library.create(photos, model=str(tiny_model), device="cuda:77")
    with pytest.raises(ArgumentError, match=r"device = 'cuda:77': cannot be used on this machine"):
        library.index(prompts=[PROMPT])
