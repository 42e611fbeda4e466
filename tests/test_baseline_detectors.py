"""SAM3 and GroundingDINO as baselines, with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from steersearch.benchmarks import baselines
from steersearch.benchmarks.baselines.grounding_dino import GRID, GroundingDino, mean_of_scales, sentence
from steersearch.benchmarks.baselines.pretrained import Pretrained
from steersearch.benchmarks.baselines.sam3 import Sam3
from steersearch.core.errors import BenchmarkError
from tests.small_baselines import (
    assert_batching_changes_nothing,
    assert_close_in_bfloat16,
    halved,
    pictures,
    randomise,
    word_tokenizer,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def sam3() -> Pretrained:
    from transformers import Sam3Config, Sam3ImageProcessor, Sam3Model, Sam3Processor

    side = 56
    text = {
        "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "projection_dim": 16,
        "num_attention_heads": 2, "max_position_embeddings": 32, "eos_token_id": 2, "bos_token_id": 1,
        "pad_token_id": 0,
    }  # fmt: skip
    backbone = {
        "model_type": "sam3_vit_model", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": side, "patch_size": 14, "window_size": 2, "global_attn_indexes": [1],
        "pretrain_image_size": 28,
    }  # fmt: skip
    small = {"hidden_size": 16, "num_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = Sam3Config(
        vision_config={
            "backbone_config": backbone, "fpn_hidden_size": 16, "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        },
        text_config=text,
        geometry_encoder_config=small,
        detr_encoder_config=small,
        detr_decoder_config=small | {"num_queries": 5},
        mask_decoder_config={"hidden_size": 16, "num_attention_heads": 2, "num_upsampling_stages": 3},
    )  # fmt: skip
    model = randomise(Sam3Model(config))
    images = Sam3ImageProcessor(size={"height": side, "width": side})
    tokenizer = word_tokenizer(["<pad>", "<s>", "</s>"], bos="<s>", eos="</s>", model_max_length=32)
    return Pretrained(model, Sam3Processor(images, tokenizer, target_size=side), "source", CPU)


def test_sam3_gives_the_output_of_its_fusion_encoder(sam3: Pretrained) -> None:
    method = Sam3(baselines.CARDS["sam3"], sam3)
    images = pictures(size=(70, 50))
    seen = assert_batching_changes_nothing(method, images, "the red cat", patches=True, maps=True)
    assert seen.patches is not None
    assert seen.maps is not None
    assert seen.patches.shape == (3, 4, 4, 16)
    np.testing.assert_allclose(seen.vectors, seen.patches.mean(axis=(1, 2)), atol=1e-5)

    given = sam3.processor(images=images, text=["the red cat"] * 3, return_tensors="pt")
    told = {name: given[name] for name in ("pixel_values", "input_ids", "attention_mask")}
    with torch.no_grad():
        found = sam3.model(**told)
        vision = sam3.model.vision_encoder(told["pixel_values"])
        text = sam3.model.get_text_features(told["input_ids"], told["attention_mask"]).pooler_output
        fused = sam3.model.detr_encoder(
            vision_features=[vision.fpn_hidden_states[-2]],
            text_features=text,
            vision_pos_embeds=[vision.fpn_position_encoding[-2]],
            text_mask=told["attention_mask"].bool(),
        ).last_hidden_state
    np.testing.assert_allclose(seen.patches.reshape(3, 16, 16), fused, atol=1e-4)
    np.testing.assert_allclose(seen.maps, found.semantic_seg[:, 0], rtol=1e-3, atol=1e-4)

    other = method.see(images, "the blue dog", patches=True, maps=True)
    for part in ("vectors", "patches", "maps"):
        assert np.abs(getattr(other, part) - getattr(seen, part)).max() > 1e-3
    with pytest.raises(BenchmarkError, match="sam3 needs a prompt: it finds what a text names"):
        method.see(images, None)


@pytest.fixture(scope="module")
def grounding_dino() -> Pretrained:
    from transformers import (
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
    )

    config = GroundingDinoConfig(
        backbone_config={
            "model_type": "swin", "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4,
            "image_size": 128, "out_features": ["stage2", "stage3", "stage4"],
        },
        text_config={
            "model_type": "bert", "vocab_size": 2000, "hidden_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 32,
        },
        d_model=32, encoder_layers=1, decoder_layers=3, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=4, num_feature_levels=4,
    )  # fmt: skip
    model = randomise(GroundingDinoForObjectDetection(config), std=0.1)
    images = GroundingDinoImageProcessor(size={"shortest_edge": 128, "longest_edge": 160})
    tokenizer = word_tokenizer(["[PAD]", "[CLS]", "[SEP]"], bos="[CLS]", eos="[SEP]")
    return Pretrained(model, GroundingDinoProcessor(images, tokenizer), "source", CPU)


def test_grounding_dino_gives_the_mean_of_its_scales(grounding_dino: Pretrained) -> None:
    method = GroundingDino(baselines.CARDS["grounding-dino"], grounding_dino)
    images = [*pictures(2, size=(60, 50)), *pictures(1, size=(50, 60), seed=1)]
    images = [images[0], images[2], images[1]]  # sizes alternate
    seen = assert_batching_changes_nothing(method, images, "the red cat", patches=True)
    assert seen.patches is not None
    assert seen.patches.shape == (3, *GRID, 32)
    np.testing.assert_allclose(seen.vectors, seen.patches.mean(axis=(1, 2)), atol=1e-5)

    given = grounding_dino.processor(images=[images[0]], text=["the red cat."], return_tensors="pt")
    with torch.no_grad():
        tokens = grounding_dino.model(**given).encoder_last_hidden_state_vision
    shapes = _shapes(given["pixel_values"].shape[-2:], tokens.shape[1])
    wanted, start = torch.zeros(32, *GRID), 0
    for height, width in shapes:
        part = tokens[0, start : start + height * width].T.reshape(1, 32, height, width)
        wanted += F.interpolate(part, size=GRID, mode="bilinear", antialias=True)[0] / 4
        start += height * width
    np.testing.assert_allclose(seen.patches[0], wanted.permute(1, 2, 0), atol=1e-4)

    other = method.see(images, "the blue dog", patches=True)
    assert np.abs(other.vectors - seen.vectors).max() > 1e-4
    with pytest.raises(BenchmarkError, match="grounding-dino has no heatmap: it scores boxes, not patches"):
        method.see(images, "the cat", maps=True)


def _shapes(size: Sequence[int], tokens: int) -> list[tuple[int, int]]:
    """Height and width of each scale: an eighth of the picture's and so on, rounded up."""
    shapes = [(-(-size[0] // step), -(-size[1] // step)) for step in (8, 16, 32, 64)]
    assert sum(height * width for height, width in shapes) == tokens
    return shapes


def test_scales_of_one_value_each_have_its_mean() -> None:
    shapes = [(6, 4), (3, 2)]
    tokens = torch.cat([torch.full((2, 24, 5), 1.0), torch.full((2, 6, 5), 4.0)], dim=1)
    torch.testing.assert_close(mean_of_scales(tokens, shapes, (3, 2)), torch.full((2, 3, 2, 5), 2.5))


def test_a_scale_of_the_grids_own_size_stays_where_it_is() -> None:
    tokens = torch.arange(6.0).reshape(1, 6, 1)
    found = mean_of_scales(tokens, [(2, 3)], (2, 3))
    torch.testing.assert_close(found[0, :, :, 0], torch.tensor([[0.0, 1, 2], [3, 4, 5]]))


@pytest.mark.parametrize("prompt", ["The red cat", "the red cat.", " the red cat . "])
def test_a_prompt_as_grounding_dino_reads_it(prompt: str) -> None:
    assert sentence(prompt).replace(" .", ".") == "the red cat."


def test_weights_in_bfloat16(sam3: Pretrained) -> None:
    one, other = (Sam3(baselines.CARDS["sam3"], loaded) for loaded in (sam3, halved(sam3)))
    assert_close_in_bfloat16(one, other, "the red cat", patches=True, maps=True)


def test_both_load_from_a_folder(sam3: Pretrained, grounding_dino: Pretrained, tmp_path: Path) -> None:
    at_336 = partial(GroundingDino, side=336)
    for name, made, kind in (("sam3", sam3, Sam3), ("grounding-dino", grounding_dino, at_336)):
        folder: Any = tmp_path / name
        made.model.save_pretrained(folder)
        made.processor.save_pretrained(folder)
        loaded = baselines.load(f"{name}={folder}", device="cpu")
        assert loaded.settings["dtype"] == "float32"  # as for all that is ranked by cosine, on a GPU too
        images = pictures(1, size=(60, 50))
        wanted = kind(baselines.CARDS[name], made).see(images, "the red cat").vectors
        np.testing.assert_allclose(loaded.see(images, "the red cat").vectors, wanted, atol=1e-4)
