"""The view "tile": a picture's four tiles go through the backbone one by one, and come back as one picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from steersearch.core.errors import PromptError
from steersearch.core.predictor import Predictor
from steersearch.core.steervit import Features, SteerViT
from steersearch.core.text import PromptFeatures
from steersearch.core.tiles import join_tiles, split_tiles, tile_shares, weigh_tiles
from tests.small_models import KINDS, TEXT_DIM, prompts_of, small_model

# ------------------------------------------------------------------------------------------- on plain tensors


def test_splitting_by_hand() -> None:
    picture = torch.arange(16.0).reshape(1, 1, 4, 4)
    tiles = split_tiles(torch.cat([picture, picture + 100]))
    assert tiles.shape == (8, 1, 2, 2)
    assert tiles[:4, 0].tolist() == [
        [[0, 1], [4, 5]],
        [[2, 3], [6, 7]],
        [[8, 9], [12, 13]],
        [[10, 11], [14, 15]],
    ]
    assert torch.equal(tiles[4:], tiles[:4] + 100)


def test_joining_by_hand() -> None:
    upper_left, upper_right, lower_left, lower_right = torch.arange(24.0).reshape(4, 6)  # 2 × 3 patches each
    joined = join_tiles(torch.stack([upper_left, upper_right, lower_left, lower_right]), (2, 3))
    assert joined.reshape(4, 6).tolist() == [
        [0, 1, 2, 6, 7, 8],
        [3, 4, 5, 9, 10, 11],
        [12, 13, 14, 18, 19, 20],
        [15, 16, 17, 21, 22, 23],
    ]


@pytest.mark.parametrize("grid", [(1, 1), (2, 5), (4, 4)])
def test_joining_undoes_splitting(grid: tuple[int, int]) -> None:
    channels, (height, width) = 3, grid
    pictures = torch.randn(5, channels, 2 * height, 2 * width)
    tokens = split_tiles(pictures).flatten(2).transpose(1, 2)  # one patch per pixel: (20, N, 3)
    assert torch.equal(join_tiles(tokens, grid), pictures.flatten(2).transpose(1, 2))


def test_shares_by_hand() -> None:
    logits = torch.tensor([[1.0, 3.0], [0.0, 0.0], [4.0, 0.0], [2.0, 6.0]]).log()
    logits = torch.cat([logits, torch.zeros(4, 2)])
    expected = torch.tensor([[4, 0, 4, 8], [4, 4, 4, 4]]) / 16
    assert torch.allclose(tile_shares(logits), expected, atol=1e-7)


def test_weighing_by_hand() -> None:
    values = torch.tensor([[[1.0, 10.0]], [[2.0, 20.0]], [[3.0, 30.0]], [[4.0, 40.0]]])  # one prefix token
    shares = torch.tensor([[0.5, 0.25, 0.25, 0.0]])
    assert weigh_tiles(values, shares).tolist() == [[[1.75, 17.5]]]
    assert weigh_tiles(values[:, :0], shares).shape == (1, 0, 2)


# --------------------------------------------------------------------------------------------- in the model


def by_hand(model: SteerViT, pixels: Tensor, prompts: PromptFeatures | None) -> list[list[Features]]:
    """For each picture its four tiles' features, each from a forward pass of its own through the plain view."""
    side = model.config.resolution
    found = []
    for i, picture in enumerate(pixels):
        prompt = prompts
        if prompts is not None and len(prompts) > 1:
            prompt = PromptFeatures(prompts.tokens[i : i + 1], prompts.mask[i : i + 1])
        tiles = [picture[None, :, y : y + side, x : x + side] for y in (0, side) for x in (0, side)]
        found.append([model(tile, prompt, attention=model._trunk.num_prefix_tokens > 0) for tile in tiles])
    return found


def beside(tiles: list[Tensor], grid: tuple[int, int]) -> Tensor:
    """Four (N, ...) maps as one, (4·N, ...) in reading order."""
    a, b, c, d = (tile.reshape(*grid, *tile.shape[1:]) for tile in tiles)
    return torch.cat([torch.cat([a, b], dim=1), torch.cat([c, d], dim=1)]).flatten(0, 1)


def large_pixels(model: SteerViT, batch: int = 3) -> Tensor:
    side = 2 * model.config.resolution
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(3))


@torch.inference_mode()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [(5,), (3, 1, 6)], ids=["one prompt", "one each"])
def test_a_tiled_picture_is_its_four_tiles(kind: str, lengths: tuple[int, ...]) -> None:
    model = small_model(kind)
    tiled, pixels, prompts = Predictor(model).with_view("tile"), large_pixels(model), prompts_of(*lengths)
    (found,) = tiled.encode(pixels, [tiled.steering(prompts)], attention=kind != "siglip")
    assert found.grid == tiled.grid == (2 * model.grid[0], 2 * model.grid[1])
    for i, tiles in enumerate(by_hand(model, pixels, prompts)):
        logits = beside([tile.logits[0] for tile in tiles], model.grid)
        heat = logits.softmax(dim=0)
        shares = torch.stack([tile.logits[0].exp().sum() for tile in tiles])
        shares = shares / shares.sum()
        patches = beside([tile.patches[0] for tile in tiles], model.grid)
        expected = {
            "focus": (heat**2 / (heat**2).sum()) @ patches,
            "mean": sum(share * tile.aggregate("mean")[0] for share, tile in zip(shares, tiles, strict=True)),
        }
        if kind != "siglip":  # which has no CLS
            weighed = zip(shares, tiles, strict=True)
            expected["cls"] = sum(share * tile.aggregate("cls")[0] for share, tile in weighed)
            looks = [
                s * t.attention[0].T for s, t in zip(shares, tiles, strict=True) if t.attention is not None
            ]
            assert found.attention is not None
            assert torch.allclose(found.attention[i], beside(looks, model.grid).T, atol=1e-5)
            assert found.attention[i].sum(dim=-1).max() <= 1
        assert torch.allclose(found.logits[i], logits, atol=1e-4)
        assert torch.allclose(found.patches[i], patches, atol=1e-4)
        assert torch.allclose(found.heatmap()[i].flatten(), heat, atol=1e-5)
        for aggregation, vector in expected.items():
            assert torch.allclose(found.aggregate(aggregation)[i], vector, atol=1e-4), aggregation


@torch.inference_mode()
def test_without_a_prompt_all_tiles_count_alike() -> None:
    model = small_model()
    tiled, pixels = Predictor(model).with_view("tile"), large_pixels(model)
    for prompts, gate_scale in ((None, 1.0), (prompts_of(4), 0.0)):
        (found,) = tiled.encode(pixels, [tiled.steering(prompts, gate_scale)])
        for i, tiles in enumerate(by_hand(model, pixels, None)):
            for aggregation in ("cls", "mean"):
                vector = torch.stack([tile.aggregate(aggregation)[0] for tile in tiles]).mean(dim=0)
                assert torch.allclose(found.aggregate(aggregation)[i], vector, atol=1e-5)


# ------------------------------------------------------------------------------------------------ with_view


@pytest.fixture
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (70, 110, 3), dtype=np.uint8)) for _ in range(11)]


@pytest.fixture
def tiled(monkeypatch: pytest.MonkeyPatch) -> Predictor:
    monkeypatch.setattr(
        Predictor, "encode_prompts", lambda self, prompts: prompts_of(*[len(prompt) for prompt in prompts])
    )
    return Predictor(small_model()).with_view("tile")


def test_a_view_shares_the_weights(pictures: list[Image.Image]) -> None:
    model = Predictor(small_model())
    tiled = model.with_view("tile")
    assert tiled.model is model.model
    assert tiled.weights_hash == model.weights_hash
    assert (model.preprocess.mode, tiled.preprocess.mode) == ("crop", "tile")
    assert (model.grid, tiled.grid) == ((4, 4), (8, 8))
    assert model.embed(pictures[:1]).shape == tiled.embed(pictures[:1]).shape == (1, 64)


def test_a_view_of_a_view_is_one_of_the_model() -> None:
    network = small_model()
    own = replace(network.config.preprocess, crop_pct=0.9)
    model = Predictor(SteerViT(replace(network.config, preprocess=own), network.trunk))
    assert model.with_view("squash").preprocess.crop_pct == 1
    assert model.with_view("tile").with_view("crop").preprocess == own
    assert model.with_view("tile").with_view(None).preprocess == own


def test_pictures_in_batches_each_with_its_own_prompt(tiled: Predictor, pictures: list[Image.Image]) -> None:
    """More pictures than one batch of tiles holds; the prompts must not get out of step."""
    prompts = ["abc" if i % 3 else "abcdef" for i in range(len(pictures))]
    maps = tiled.heatmaps(pictures, prompts)
    assert maps.shape == (11, 8, 8)
    rows = prompts_of(*[len(prompt) for prompt in prompts])
    for i, picture in enumerate(pictures):
        own = PromptFeatures(rows.tokens[i : i + 1], rows.mask[i : i + 1])
        pixels = torch.from_numpy(tiled.preprocess(picture))[None]
        with torch.inference_mode():
            (alone,) = tiled.encode(pixels, [tiled.steering(own)])
        assert torch.allclose(maps[i], alone.heatmap()[0], atol=1e-6)
    with pytest.raises(PromptError, match="2 prompts for 11 images"):
        tiled.embed(pictures, prompts[:2])
    assert rows.tokens.shape[-1] == TEXT_DIM


def test_attention_maps_of_tiles(tiled: Predictor, pictures: list[Image.Image]) -> None:
    maps = tiled.attention_maps(pictures[:2], "mug")
    assert maps.shape == (2, 8, 8)
    assert maps.min() >= 0
    assert 0.999 < maps.max() < 1


def test_a_model_saved_in_a_view_is_read_in_it(tmp_path: Path, pictures: list[Image.Image]) -> None:
    model = Predictor(small_model())
    model.save(tmp_path / "plain.safetensors")
    model.with_view("tile").save(tmp_path / "tiled.safetensors")
    plain, tiled = (
        Predictor.from_pretrained(tmp_path / f"{name}.safetensors", "cpu") for name in ("plain", "tiled")
    )
    assert (plain.preprocess.mode, tiled.preprocess.mode) == ("crop", "tile")
    assert torch.equal(plain.with_view("tile").embed(pictures[:2]), tiled.embed(pictures[:2]))
