"""The model against the equations in float64 (`tests.reference`): to 1e-5 of each output's size.

DINOv2 S, B and L at full width and depth, all else narrow; random weights, pictures of few patches. "Of its size"
means: the largest difference divided by the root mean square of what is expected.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor

from steersearch.core import text
from steersearch.core.backbone import TimmTrunk
from steersearch.core.checkpoints import load_model
from steersearch.core.preprocess import Preprocess
from steersearch.core.steervit import Features, SteerViT, SteerViTConfig
from steersearch.core.text import PromptFeatures, load_text_encoder
from steersearch.core.vectors import Aggregation
from tests import reference
from tests.reference import Case, Outputs
from tests.test_text import write_tiny_roberta

TOLERANCE = 1e-5
# Of attention maps: a sharp softmax turns the rounding of its logits, which grows with their size, into that of its
# values. With the mini 1.3e-5 was seen on one processor, below 1e-5 on another.
ATTENTION_TOLERANCE = 4e-5
LENGTHS = (1, 3, 20, 80)  # of prompts, in tokens; one of more than 72 is not folded
DINOV2 = {
    "small": ("vit_small_patch14_dinov2", 6),
    "base": ("vit_base_patch14_dinov2", 12),
    "large": ("vit_large_patch14_dinov2", 16),
}  # timm's name, and heads of the self-attention
NARROW = {"embed_dim": 96, "depth": 6, "num_heads": 3}


def difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the root mean square of `expected`."""
    assert found.shape == expected.shape
    return float((found.detach().double() - expected).abs().max() / expected.square().mean().sqrt())


# ------------------------------------------------------------------------------------ models, pictures and prompts


def random_model(
    trunk: str, resolution: int = 42, shape: Mapping[str, int] | None = None, **changes: Any
) -> SteerViT:
    """A SteerViT over the timm model `trunk`, with random weights under which every part matters (see `fill`).

    `shape`, arguments of timm's VisionTransformer, makes it smaller.
    """
    config = SteerViTConfig(
        trunk=trunk,
        resolution=resolution,
        preprocess=Preprocess(size=resolution, mean=(0.5,) * 3, std=(0.5,) * 3),
        **changes,
    )
    with torch.device("meta"):  # timm's own initialisation takes longer than the test
        vit = timm.create_model(trunk, img_size=resolution, num_classes=0, **(shape or {}))
        model = SteerViT(config, TimmTrunk(vit))
    fill(model.to_empty(device="cpu"))
    return model


@torch.no_grad()
def fill(model: SteerViT) -> None:
    """Random weights: products keep the size of what they take, LayerScale is far from 0, gates are open.

    What adds to the tokens is small, so that they stay near 0.1 and the eps of every LayerNorm shows.
    """
    generator = torch.Generator().manual_seed(0)
    adds = ("attn.proj", "mlp.fc2", "to_out", "ff.3", "patch_embed.proj")
    for name, value in model.state_dict().items():
        value.normal_(generator=generator)
        if name.endswith("_gate"):
            value.mul_(0.3).add_(0.6)
        elif value.ndim > 1 and name != "connector.mlp.0.weight":  # that one takes vectors of unit length
            value.div_(value[0].numel() ** 0.5)
        elif value.ndim == 1 and name.endswith("weight"):  # of a LayerNorm
            value.mul_(0.2).add_(1)
        elif value.ndim == 1:
            value.mul_(0.3)
        if name.rpartition(".")[0].endswith(adds):
            value.mul_(0.1)


def pictures(model: SteerViT, number: int) -> Tensor:
    side = model.config.resolution
    return torch.randn(number, 3, side, side, generator=torch.Generator().manual_seed(1))


def prompt(length: int, width: int) -> Tensor:
    """Text tokens (length, width), some a hundred times as long as others."""
    generator = torch.Generator().manual_seed(length)
    tokens = torch.randn(length, width, generator=generator)
    return tokens * 10 ** torch.empty(length, 1).uniform_(-1, 1, generator=generator)


def features_of(*prompts: Tensor) -> PromptFeatures:
    return PromptFeatures.from_numpy([each.numpy() for each in prompts])


# ------------------------------------------------------------------------------------------------------- the checks


def check(
    found: Features, expected: Outputs, *, is_steered: bool = True, tolerance: float = TOLERANCE
) -> None:
    """All that a forward pass gives is what is expected, to `tolerance` of its size; attention to its own.

    Unsteered, `focus` is the mean.
    """
    assert found.is_steered == is_steered
    pairs = {
        "prefix": (found.prefix, expected.prefix),
        "patches": (found.patches, expected.patches),
        "logits": (found.logits, expected.logits),
        "heatmap": (found.heatmap().flatten(1), expected.heatmap),
    }
    for kind in get_args(Aggregation):
        if kind != "cls" or found.prefix.shape[1]:
            wanted = "mean" if kind == "focus" and not is_steered else kind
            pairs[kind] = found.aggregate(kind), expected.aggregate(wanted)
    if found.attention is not None:
        assert expected.attention is not None
        pairs["attention"] = found.attention, expected.attention
    differences = {name: difference(*pair) for name, pair in pairs.items() if pair[1].numel()}
    assert differences.pop("attention", 0.0) <= ATTENTION_TOLERANCE
    assert max(differences.values()) <= tolerance, differences


def check_model(
    model: SteerViT,
    num_heads: int,
    *,
    num_pictures: int = 2,
    lengths: Sequence[int] = LENGTHS,
    gate_scales: Sequence[float] = (0.6,),
    tolerance: float = TOLERANCE,
) -> None:
    """The model equals the equations: without prompt, steered by one prompt, and with one per picture.

    Prompts of all `lengths` at gate_scale 1, the one of three tokens at `gate_scales` as well; folded and not.
    """
    same = partial(check, tolerance=tolerance)
    pixels, has_cls = pictures(model, num_pictures), model._trunk.num_prefix_tokens > 0
    prompts = {length: prompt(length, model.config.text_dim) for length in lengths}
    plan = [(0, 1.0), *((length, 1.0) for length in lengths), *((3, scale) for scale in gate_scales)]
    outputs = reference.steervit(
        model.state_dict(),
        [Case(picture, prompts.get(length), scale) for length, scale in plan for picture in pixels],
        num_heads=num_heads,
        cross_head_dim=model.config.head_dim,
        late=model.config.fusion == "late",
    )
    parts = (outputs.rows(i * num_pictures, (i + 1) * num_pictures) for i in range(len(plan)))
    expected = dict(zip(plan, parts, strict=True))
    with torch.no_grad():
        for (length, scale), wanted in expected.items():  # one prompt for all: folded, if not too long
            features = features_of(prompts[length]) if length else None
            same(model(pixels, features, scale, attention=has_cls), wanted, is_steered=bool(length))
        same(model(pixels, features_of(prompts[3]), 0.0), expected[0, 1.0], is_steered=False)
        which = [i % num_pictures for i in range(len(lengths))]  # a prompt per picture: padded to the longest
        mixed = model(pixels[which], features_of(*prompts.values()))
    for i, length in enumerate(lengths):
        same(row_of(mixed, i), expected[length, 1.0].rows(which[i], which[i] + 1))
    scale = gate_scales[0]
    # With gradients nothing is folded.
    same(model(pixels, features_of(prompts[3]), scale), expected[3, scale])
    for other in ((0, 1.0), (lengths[-1], 1.0), (3, scale)):
        assert (
            difference(expected[3, 1.0].patches, expected[other].patches) > 0.1
        )  # else there is little to see


def row_of(features: Features, i: int) -> Features:
    part = slice(i, i + 1)
    return Features(
        prefix=features.prefix[part],
        patches=features.patches[part],
        logits=features.logits[part],
        grid=features.grid,
    )


# ------------------------------------------------------------------------------------------------- SteerViT


@pytest.mark.parametrize("use_ffn", [False, True])
@pytest.mark.parametrize("size", ["small", pytest.param("base", marks=pytest.mark.slow)])
def test_dinov2(size: str, use_ffn: bool) -> None:
    trunk, num_heads = DINOV2[size]
    check_model(random_model(trunk, use_ffn=use_ffn), num_heads, gate_scales=(0.6, 1.7))


@pytest.mark.soak
@pytest.mark.parametrize("use_ffn", [False, True])
def test_dinov2_large(use_ffn: bool) -> None:
    trunk, num_heads = DINOV2["large"]
    check_model(random_model(trunk, use_ffn=use_ffn), num_heads, num_pictures=1, lengths=(3, 80))


@pytest.mark.parametrize(
    ("trunk", "resolution"),
    [
        ("vit_base_patch16_224.mae", 48),
        ("vit_base_patch16_siglip_224", 48),
        ("vit_base_patch14_reg4_dinov2", 42),
    ],
)
def test_other_backbones(trunk: str, resolution: int) -> None:
    check_model(random_model(trunk, resolution, NARROW), NARROW["num_heads"])


@pytest.mark.parametrize(
    "changes",
    [
        {"fusion": "late"},
        {"fusion": "late", "use_ffn": True, "cross_attn_layers": (2, 3)},
        {"connector_hidden": None},
        {"tanh_gate": False},
        {"tanh_gate": False, "use_ffn": True},
        {"use_ffn": True, "cross_attn_ffn_mult": 0.5},
        {"cross_attn_layers": (0, 4, 5, 6)},
        {"cross_attn_layers": (3,)},
        {"cross_attn_layers": (0, 1, 2, 3, 4, 5)},
    ],
    ids=str,
)
def test_variants(changes: dict[str, Any]) -> None:
    trunk, _ = DINOV2["base"]
    check_model(random_model(trunk, shape=NARROW, **changes), NARROW["num_heads"])


def test_the_bundled_model_with_its_trained_weights() -> None:
    model = load_model("mini", device="cpu")
    assert model.config.vit is not None
    # Its gates are wide open: 0.6 is as 1. Below its blocks are 47 convolutions, each of which rounds.
    check_model(model, model.config.vit.num_heads, gate_scales=(0.2,), tolerance=3e-5)


# -------------------------------------------------------------------------------------------- text encoders


def test_minilm() -> None:
    folder = text._installed_minilm()
    assert folder is not None
    config = json.loads((folder / "config.json").read_text())
    state = load_file(folder / "model.safetensors")
    number = {word: i for i, word in enumerate((folder / "vocab.txt").read_text().splitlines())}
    prompts = ["mug", "the remote control", f"{'the big red mug on the left ' * 12}"]
    found = load_text_encoder("minilm").encode(prompts)
    for each, tokens in zip(prompts, found.numpy(), strict=True):
        ids = [number[word] for word in ["[CLS]", *each.split(), "[SEP]"]]
        assert difference(torch.from_numpy(tokens), reference.text_tokens(state, config, ids)) <= TOLERANCE


def test_roberta(tmp_path: Path) -> None:
    folder = tmp_path / "tiny-roberta"
    folder.mkdir()
    write_tiny_roberta(folder)
    config = json.loads((folder / "config.json").read_text())
    state = load_file(folder / "model.safetensors")
    prompts = ["a", "ab c", "qed", "ab " * 300]
    found = load_text_encoder(str(folder)).encode(prompts)
    for each, tokens in zip(prompts, found.numpy(), strict=True):
        ids = [0, *_byte_ids(each)[:510], 2]
        assert difference(torch.from_numpy(tokens), reference.text_tokens(state, config, ids)) <= TOLERANCE


def _byte_ids(prompt: str) -> list[int]:
    """Ids in the vocabulary of the tiny RoBERTa: a to z from 4 on, then the same after a blank, then the blank."""
    ids, after_blank = [], False
    for letter in prompt:
        if letter != " ":
            ids.append(4 + 26 * after_blank + ord(letter) - ord("a"))
        after_blank = letter == " "
    return ids + [4 + 52] * after_blank
