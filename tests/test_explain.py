"""`explain`: the model's own maps, drawn over a photo or side by side, from Python and as a command."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from steersearch import SteerViT
from steersearch.core.attention_maps import to_unit_range
from steersearch.core.errors import ArgumentError, ConfigError, ImageError, OutputError, SteerSearchError
from steersearch.core.heatmaps import overlay, strengths
from steersearch.core.predictor import Predictor
from steersearch.core.preprocess import open_image
from steersearch.core.prompts import Reading
from steersearch.explain import MOST_MAPS, Explanation, explain, photo_maps
from tests.conftest import Run, draw_picture, write_tiny_model
from tests.small_models import prompts_of, small_model

pytestmark = pytest.mark.usefixtures("word_encoder")

FOCUSES = ["the red mug", "bookshelf"]
BOTH = ("heatmap", "attention")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    draw_picture(tmp_path / "red.jpg", "red", size=(96, 64))
    return tmp_path / "red.jpg"


@pytest.fixture
def explained(photo: Path, tiny_model: Path, tmp_path: Path) -> Any:
    """`explain` of the photo, with the tiny model."""

    def call(focus: Any = "cat", output: str = "out.png", **options: Any) -> Explanation:
        return explain(photo, focus, tmp_path / output, **{"model": str(tiny_model), **options})

    return call


# ----------------------------------------------------------------------------------------------- in Python


def test_the_maps_are_the_models_own(explained: Any, photo: Path, tiny_model: Path) -> None:
    done = explained(FOCUSES, gate_scale=[0.0, 0.6], maps=BOTH)
    model = SteerViT.from_pretrained(tiny_model)
    order = [(f, g, k) for f in FOCUSES for g in (0.0, 0.6) for k in BOTH]
    assert [(m.focus, m.gate_scale, m.kind) for m in done.maps] == order
    for found in done.maps:
        values = torch.from_numpy(found.values)
        if found.kind == "heatmap":
            expected = model.heatmaps([photo], found.focus, found.gate_scale)[0]
            assert values.sum() == pytest.approx(1)
        else:
            expected = model.attention_maps([photo], found.focus, found.gate_scale)[0]
            assert 0 < values.sum() < 1
            values = to_unit_range(values)
        torch.testing.assert_close(values, expected, atol=1e-5, rtol=1e-4)


def test_without_steering_the_focus_does_not_matter(explained: Any) -> None:
    first, second = explained(FOCUSES, gate_scale=0.0).maps
    assert np.array_equal(first.values, second.values)


def test_sinks_are_counted_or_left(tiny_model: Path, photo: Path) -> None:
    """The attention of a model that looks at one patch only: it is a sink, and is taken out."""
    model = SteerViT.from_pretrained(tiny_model)
    spiky = torch.full((1, 1, 16), 0.01)
    spiky[..., 5] = 0.8
    model.model._attention = lambda x: spiky  # type: ignore[method-assign]

    def maps(suppress_sinks: bool) -> Any:
        (found,) = photo_maps(model, open_image(photo), ["cat"], [1.0], ["attention"], suppress_sinks)
        return found

    assert (maps(False).sinks, maps(True).sinks) == (None, 1)
    assert maps(False).values.reshape(-1).tolist() == pytest.approx(spiky.reshape(-1).tolist())
    assert maps(True).values.max() < 0.1


def test_one_map_is_drawn_at_the_photos_size(explained: Any, photo: Path) -> None:
    done = explained()
    assert done.seen == 1
    with Image.open(done.output) as drawn:
        assert drawn.size == (96, 64)
        expected = overlay(open_image(photo), strengths(done.maps[0].values))
        assert np.array_equal(np.asarray(drawn), np.asarray(expected))


def test_several_are_drawn_side_by_side(explained: Any) -> None:
    sizes = []
    for options in (
        {"gate_scale": [0, 1]},
        {"focus": FOCUSES},
        {"maps": BOTH},
        {"focus": FOCUSES, "maps": BOTH},
    ):
        with Image.open(explained(**options).output) as drawn:
            sizes.append(drawn.size)
    assert all(width > 700 for width, _ in sizes)
    assert sizes[3][1] > sizes[2][1]


def test_a_crop_is_covered_where_it_was_seen(explained: Any) -> None:
    done = explained(view="crop")
    assert done.seen == pytest.approx(64 / 96)
    with Image.open(done.output) as drawn:
        sides = np.asarray(drawn)[:, [0, 15, 80, 95]].astype(int)
    assert (np.ptp(sides, axis=-1) == 0).all()  # grey


def test_tiles_have_four_times_the_patches(explained: Any) -> None:
    assert explained(view="tile").maps[0].values.shape == (8, 8)


def test_what_is_given_twice_is_drawn_once(explained: Any) -> None:
    assert len(explained(["cat", "cat"], gate_scale=[1, 1.0], maps=["heatmap", "heatmap"]).maps) == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"focus": []}, ArgumentError),
        ({"gate_scale": []}, ArgumentError),
        ({"maps": ()}, ArgumentError),
        ({"maps": "gradients"}, ArgumentError),
        ({"gate_scale": [i / 100 for i in range(MOST_MAPS + 1)]}, ArgumentError),
        ({"view": "whole"}, ArgumentError),
        ({"output": "out.gif"}, OutputError),
        ({"output": "nowhere/out.png"}, OutputError),
        ({"output": "red.jpg"}, OutputError),
    ],
)
def test_what_cannot_be_intended_is_refused(
    explained: Any, photo: Path, options: dict[str, Any], error: type[Exception]
) -> None:
    before = photo.read_bytes()
    with pytest.raises(error):
        explained(**options)
    assert [path.name for path in photo.parent.iterdir()] == ["red.jpg"]
    assert photo.read_bytes() == before


def test_a_missing_photo_is_named_even_if_the_output_exists(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "out.png").write_bytes(b"old")
    with pytest.raises(ImageError, match="no such file"):
        explain(tmp_path / "missing.jpg", "cat", tmp_path / "out.png", model=str(tiny_model))
    assert (tmp_path / "out.png").read_bytes() == b"old"


def test_a_picture_too_long_for_its_kind_of_file_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    Image.new("RGB", (17_000, 2)).save(tmp_path / "strip.png")
    with pytest.raises(OutputError, match=r"WEBP cannot hold 17000 by 2 pixels; write a \.png"):
        explain(tmp_path / "strip.png", "cat", tmp_path / "out.webp", model=str(tiny_model))
    done = explain(tmp_path / "strip.png", "cat", tmp_path / "out.png", model=str(tiny_model))
    assert done.output.exists()


def test_a_backbone_without_cls_has_heatmaps_only() -> None:
    model = Predictor(small_model("siglip"))
    read = replace(prompts_of(3), readings=(Reading(),))
    model.encode_prompts = lambda prompts: read  # type: ignore[method-assign]
    picture = Image.new("RGB", (80, 60), "red")
    (heatmap,) = photo_maps(model, picture, ["cat"], [1.0], ["heatmap"])
    assert heatmap.values.shape == (4, 4)
    with pytest.raises(ConfigError, match="no CLS token"):
        list(photo_maps(model, picture, ["cat"], [1.0], ["attention"]))


def test_maps_that_are_no_numbers_are_not_drawn(
    photo: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = SteerViT.from_pretrained(tiny_model)
    torch.nn.init.constant_(model.model.head.weight, float("nan"))
    monkeypatch.setattr("steersearch.explain.load_embedder", lambda *_: model)
    with pytest.raises(SteerSearchError, match="not finite"):
        explain(photo, "cat", tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


# ----------------------------------------------------------------------------------------- the command line


def test_the_command_draws_and_says_what_it_found(run: Run, photo: Path, tiny_model: Path) -> None:
    done = run("explain", photo, "--focus", "cat", "-o", "out.png", "--model", tiny_model, "--device", "cpu")
    assert (done.code, done.out) == (0, "out.png\n")
    assert done.err.startswith(f"model: {tiny_model}\nheatmap of “cat”, gate scale 1: ")
    assert len(done.err.splitlines()) == 2


def test_the_model_is_that_of_the_library_that_holds_the_photo(
    run: Run, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    assert run("index", photos, "--prompt", "cat", "--model", tiny_model, "--view", "tile").code == 0
    done = run("explain", photos / "red.jpg", "--focus", "cat", "-o", "own.png")
    assert f"model: {tiny_model}, of the library of photos\n" in done.err
    assert "of 64 patches" in done.err  # in tiles
    named = run("explain", photos / "red.jpg", "--focus", "cat", "-o", "named.png", "--view", "squash")
    assert "of 16 patches" in named.err


def test_a_photo_of_no_library_is_explained_by_the_model_that_a_search_with_it_uses(
    run: Run, photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By that of the library named, around or below the current folder, else used last; "auto" would be another."""
    (tmp_path / "away").mkdir()
    draw_picture(tmp_path / "away" / "stranger.jpg", "red")
    small, other = tmp_path / "small", write_tiny_model(tmp_path / "other.safetensors", seed=1)
    shutil.copytree(photos, small)
    run("index", photos, "--model", tiny_model)
    run("index", small, "--model", other, "--library", tmp_path / "place")
    explain = ("explain", tmp_path / "away" / "stranger.jpg", "--focus", "cat", "-o", tmp_path / "out.png")
    for folder, options, model in (
        (tmp_path / "away", (), other),
        (photos, (), tiny_model),
        (photos, ("--library", tmp_path / "place"), other),
    ):
        monkeypatch.chdir(folder)
        assert f"model: {model}, of the library of " in run(*explain, *options).err
    both = run(*explain, "--library", tmp_path / "place", "--model", "mini")
    assert (both.code, "exclude each other" in both.err) == (2, True)


def test_the_command_makes_a_sheet(run: Run, photo: Path, tiny_model: Path, explained: Any) -> None:
    options = [option for focus in FOCUSES for option in ("--focus", focus)]
    options += ["--gate-scale", "0", "--gate-scale", "1", "--map", "both", "-o", "sheet.png"]
    done = run("explain", photo, *options, "--model", tiny_model)
    assert (done.code, done.out) == (0, "sheet.png\n")
    assert [line.partition(":")[0] for line in done.err.splitlines()[1:]] == [
        f"{kind} of “{focus}”, gate scale {gate_scale}"
        for focus in FOCUSES
        for gate_scale in (0, 1)
        for kind in BOTH
    ]
    same = explained(FOCUSES, "same.png", gate_scale=[0.0, 1.0], maps=BOTH)
    assert (photo.parent / "sheet.png").read_bytes() == same.output.read_bytes()


def test_the_command_says_what_was_not_seen(run: Run, photo: Path, tiny_model: Path) -> None:
    done = run("explain", photo, "--focus", "cat", "-o", "a.png", "--model", tiny_model, "--view", "crop")
    assert "the model sees 67% of this photo" in done.err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--map", "gradients"), "--map"),
        (("--gate-scale", "nan"), "--gate-scale"),
        (("--gate-scale", "-1"), "--gate-scale"),
        (("--focus", " "), "--focus"),
    ],
)
def test_misuse_is_named(run: Run, photo: Path, arguments: tuple[str, ...], word: str) -> None:
    done = run("explain", photo, "--focus", "cat", "-o", "out.png", *arguments)
    assert (done.code, done.out) == (2, "")
    assert word in done.err
    assert not (photo.parent / "out.png").exists()
