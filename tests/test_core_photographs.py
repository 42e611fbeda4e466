"""CORE's protocol on photographs: only those held out for tests, only nouns held out, one object's difference."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from steersearch.benchmarks.paper import core_photographs
from steersearch.benchmarks.paper.core_data import CoreData
from steersearch.benchmarks.paper.core_photographs import is_photographic, photographs
from steersearch.core.errors import BenchmarkError
from steersearch.core.preprocess import open_image
from steersearch.training.photographs.listed import is_test_only
from steersearch.training.world.stamps import HELD_OUT_NOUNS, STAMPS_FOLDER
from steersearch.training.world.things import Thing
from tests.small_rcc import small_rcc

pytestmark = pytest.mark.skipif(not STAMPS_FOLDER.is_dir(), reason="the stamps' package is not installed")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight photographs of noise that may be places, and one of a place that is none."""
    folder = tmp_path_factory.mktemp("package")
    names = [f"gcompris/explore_monuments/resource/india/palace{number}.png" for number in range(8)]
    files = {name: noise(number) for number, name in enumerate(names)}
    (folder / "explore_monuments.rcc").write_bytes(small_rcc(files))
    (folder / "click_on_letter.rcc").write_bytes(small_rcc({"a/resource/train0.png": noise(9)}))
    return folder


def noise(seed: int) -> bytes:
    png = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).resize((640, 480)).save(png, "PNG")
    return png.getvalue()


@pytest.fixture(scope="module")
def data(package: Path, tmp_path_factory: pytest.TempPathFactory) -> CoreData:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEERSEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        return core_photographs.dataset(bases=2, package=package)


def test_only_photographs_kept_for_tests_are_taken(package: Path) -> None:
    found = photographs(package)
    kept = {
        f"palace{number}.png"
        for number in range(8)
        if is_test_only("gcompris-qt-data", f"palace{number}.png")
    }
    assert {name.removeprefix("explore_monuments/india/") for name in found} == kept
    assert 1 < len(kept) < 8


def test_a_package_without_photographs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="0 photographs in it are held out for tests"):
        photographs(tmp_path)


def test_scenes_are_of_five_held_out_objects_each(data: CoreData) -> None:
    assert data.name == "core-photographs"
    assert len(data.scenes) >= 3
    objects = [noun for scene in data.scenes for noun in scene.prompts]
    assert len(set(objects)) == len(objects) == 5 * len(data.scenes)
    assert set(objects) <= HELD_OUT_NOUNS
    assert data.n == 2 * len(objects)


def test_variants_differ_in_their_object_only(data: CoreData) -> None:
    scene = data.scenes[0]
    pictures = [np.asarray(scene.gallery.read(k)).astype(int) for k in range(5)]
    masks = [np.asarray(open_image(path).convert("L")) > 127 for path in scene.masks[:5]]
    assert len({row.image_id for row in scene.rows[:5]}) == 1
    assert min(mask.mean() for mask in masks) >= 0.004
    for picture, mask in zip(pictures[1:], masks[1:], strict=True):
        changed = np.abs(picture - pictures[0]).max(axis=2) > 40
        assert changed[mask].mean() > 0.5
        around = Image.fromarray(mask | masks[0]).convert("L").filter(ImageFilter.MaxFilter(61))
        assert (
            changed[np.asarray(around) == 0].mean() < 0.005
        )  # shadows, and what of a cutout is nearly transparent


@pytest.mark.parametrize(("photographic", "spread"), [(True, 60), (False, 1)])
def test_a_cutout_of_flat_colours_is_no_photograph(photographic: bool, spread: int) -> None:
    pixels = np.random.default_rng(0).integers(100, 100 + spread, (20, 20, 4), np.uint8)
    pixels[..., 3] = 255
    thing = Thing(
        picture=Image.fromarray(pixels), noun="x", phrase="x", category="", names=frozenset(), source="stamp"
    )
    assert is_photographic(thing) == photographic
