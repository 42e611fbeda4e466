"""A JPEG decoded at a reduced scale is as good as the whole to the mini, and the same in the index as in `embed`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steersearch.core.predictor import Predictor
from steersearch.core.preprocess import View, open_image
from steersearch.indexer.store import Store
from steersearch.training.world.scenes import draw_scene
from tests.toy_library import Library

PROMPT = "the remote control"


@pytest.fixture(scope="module")
def mini() -> Predictor:
    return Predictor.from_pretrained("mini", "cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three of nine megapixels, with grain."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    paths = []
    for family in ("kitchen", "street", "living room"):
        scene = draw_scene(family, rng, (860, 645)).image.resize((3440, 2580))
        grain = rng.integers(-8, 9, (2580, 3440, 1), dtype=np.int16)
        noisy = np.clip(np.asarray(scene, np.int16) + grain, 0, 255).astype(np.uint8)
        paths.append(folder / f"{family}.jpg")
        Image.fromarray(noisy).save(paths[-1], quality=90)
    return paths


@pytest.mark.parametrize("view", ["crop", "squash", "tile"])
def test_embeddings_and_heatmaps_agree_with_those_of_the_whole_photo(
    view: View, mini: Predictor, photos: list[Path]
) -> None:
    model = mini.with_view(view)
    assert min(open_image(photos[0], at_least=model.preprocess.least_side).size) < 1300
    whole = [open_image(path) for path in photos]
    for prompt in (PROMPT, None):
        cosines = (model.embed(whole, prompt) * model.embed(photos, prompt)).sum(dim=1)
        assert cosines.min() > 1 - 4e-3, prompt
    moved = (model.heatmaps(whole, PROMPT) - model.heatmaps(photos, PROMPT)).abs().flatten(1).sum(dim=1)
    assert moved.max() < 0.1  # of a mass of 1


def test_the_index_holds_what_embed_gives(mini: Predictor, photos: list[Path], tmp_path: Path) -> None:
    library = Library.create(photos[0].parent, tmp_path / "library")
    library.index(mini, [PROMPT], regions=False)
    gallery = Store(library.place).gallery(library.prompts()[0].key)
    by_name = {path.name: vector for path, vector in zip(photos, mini.embed(photos, PROMPT), strict=True)}
    assert sorted(by_name) == gallery.paths
    for name, stored in zip(gallery.paths, gallery.embeddings, strict=True):
        np.testing.assert_allclose(stored, by_name[name].numpy(), atol=1e-5)
