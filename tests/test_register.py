"""Truth and maps lie on one another: what paints the truth through a backbone's own preprocessing scores 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from steersearch.benchmarks.harness.benchmark import Benchmark, Outcome
from steersearch.benchmarks.harness.pixel_metrics import patch_cover
from steersearch.benchmarks.harness.pointing import points
from steersearch.benchmarks.harness.steervit_method import SteerViTMethod
from steersearch.benchmarks.harness.viewing import kept
from steersearch.benchmarks.paper.anomaly import AnomalyBenchmark
from steersearch.benchmarks.paper.anomaly_data import Item, Items
from steersearch.benchmarks.paper.mosaic import MosaicBenchmark
from steersearch.benchmarks.paper.mosaic_data import Mosaic, Mosaics
from steersearch.benchmarks.paper.quality import QualityBenchmark
from steersearch.benchmarks.paper.quality_data import QualityData, Segmented, SegmentedSet
from steersearch.benchmarks.paper.refcocog import RefcocogBenchmark
from steersearch.benchmarks.paper.refcocog_data import Expression, Expressions
from steersearch.core.backbone import TimmTrunk, timm_preprocess
from steersearch.core.errors import BenchmarkError
from steersearch.core.predictor import Predictor
from steersearch.core.preprocess import Preprocess, View
from steersearch.core.steervit import SteerViT, SteerViTConfig
from steersearch.core.vit import HybridEmbed, ViT, ViTConfig
from tests.conftest import WordEncoder

RESOLUTION = 112
Box = tuple[int, int, int, int]  # left, top, right, bottom

SQUASHED = Preprocess(size=RESOLUTION, mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=0.95, mode="squash")
SEEN: dict[str, tuple[Preprocess, View | None]] = {
    "dinov2": (timm_preprocess("vit_base_patch14_dinov2.lvd142m", RESOLUTION), None),
    "mae": (timm_preprocess("vit_base_patch16_224.mae", RESOLUTION), None),
    "siglip": (timm_preprocess("vit_base_patch16_siglip_224.webli", RESOLUTION), None),
    "mae, squashed": (timm_preprocess("vit_base_patch16_224.mae", RESOLUTION), "squash"),
    "mae, in tiles": (timm_preprocess("vit_base_patch16_224.mae", RESOLUTION), "tile"),
    "squashed and cropped by timm": (SQUASHED, None),
}

# Every kind of backbone, on a grid of 28 x 28, the hybrid of 14 x 14.
small = partial(ViTConfig, dim=8, depth=1, num_heads=2)
FINE = small(image_size=RESOLUTION, patch_size=4)
TRUNKS: dict[str, ViTConfig | str] = {
    "patches of 14, CLS": small(image_size=392, patch_size=14, layer_scale=True),
    "patches of 16, CLS": small(image_size=448, patch_size=16),
    "patches of 16, no CLS": small(image_size=448, patch_size=16, class_token=False),
    "convolutional stem": small(image_size=448, patch_size=16, stem_channels=(8, 8, 8)),
    "hybrid": small(image_size=224, cnn="efficientnet-lite2"),
    "timm's, with registers": "vit_small_patch14_reg4_dinov2",
    "timm's, no CLS": "vit_base_patch16_siglip_224",
}


def painted(kind: ViTConfig | str, preprocess: Preprocess) -> ViT | TimmTrunk:
    """A backbone whose patch tokens begin with the mean colours of their patches, and whose CLS attends to red."""
    if isinstance(kind, str):
        vit: Any = timm.create_model(
            kind, img_size=preprocess.size, embed_dim=8, depth=1, num_heads=2, num_classes=0
        )
        trunk: Any = TimmTrunk(vit.eval())
    else:
        vit = trunk = ViT(kind).eval()
    with torch.no_grad():
        for value in vit.parameters():
            value.zero_()
        _paint_patches(vit.patch_embed, torch.tensor(preprocess.mean), torch.tensor(preprocess.std))
        block = vit.blocks[-1]
        block.norm1, vit.norm = nn.Identity(), nn.Identity()
        qkv, width = block.attn.qkv, 8 // 2  # of a head
        for head in range(2):
            qkv.bias[head * width] = width**0.5
            qkv.weight[8 + head * width, :2] = torch.tensor([10.0, -10.0])
    painted_trunk: ViT | TimmTrunk = trunk
    return painted_trunk


def _paint_patches(embed: Any, mean: Tensor, std: Tensor) -> None:
    """Weights by which the first three channels of a patch are the mean of its pixels, from 0 to 1."""
    if isinstance(embed, HybridEmbed):  # 3 x 16 averages of 4 x 4 pixels
        embed.colour.weight[:3] = torch.block_diag(*(std[c] * torch.full((1, 16), 1 / 16) for c in range(3)))
        embed.colour.bias[:3] = mean
    elif hasattr(embed, "proj"):
        pixels = embed.proj.weight[0, 0].numel()
        embed.proj.weight[:3] = torch.diag(std)[..., None, None] / pixels
        embed.proj.bias[:3] = mean
    else:
        first, *others = embed.backbone
        for layer, scale, shift in (
            (first, std, mean),
            *((o, torch.ones(3), torch.zeros(3)) for o in others),
        ):
            layer.conv.weight[:3, :3, 1:, 1:] = torch.diag(scale)[..., None, None] / 4  # of 2 x 2 pixels
            if layer.bn is None:
                layer.conv.bias[:3] = shift
            else:
                layer.bn.weight.fill_(1.0)
                layer.bn.bias[:3] = shift


def painting(
    preprocess: Preprocess, view: View | None = None, kind: ViTConfig | str = FINE
) -> SteerViTMethod:
    config = SteerViTConfig(
        trunk="painting",
        resolution=preprocess.size,
        cross_attn_layers=(),
        text_dim=WordEncoder.dim,
        connector_hidden=4,
        aggregation="mean",
        preprocess=preprocess,
    )
    model = SteerViT(config, trunk=painted(kind, preprocess))
    model.head.weight.data[0, :3] = torch.tensor([10.0, -10.0, 0.0])
    return SteerViTMethod(Predictor(model), view=view)


@pytest.fixture(params=[*SEEN, *TRUNKS])
def method(request: pytest.FixtureRequest, word_encoder: None) -> SteerViTMethod:
    if request.param in SEEN:
        return painting(*SEEN[request.param])
    kind = TRUNKS[request.param]
    side = (392 if "14" in kind else 448) if isinstance(kind, str) else kind.image_size
    return painting(
        Preprocess(size=side, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), mode="squash"), kind=kind
    )


def scene(size: tuple[int, int], *boxes: Box) -> tuple[Image.Image, np.ndarray]:
    """A grey picture of `size` (width, height) with red boxes, and where these are."""
    picture = Image.new("RGB", size, (90, 90, 90))
    mask = np.zeros((size[1], size[0]), np.bool_)
    for left, top, right, bottom in boxes:
        picture.paste((255, 0, 0), (left, top, right, bottom))
        mask[top:bottom, left:right] = True
    return picture, mask


# Pictures of several shapes; the things touch the border, lie near it, and within. Only red is ever asked for.
SCENES = [
    scene((400, 300), (0, 0, 120, 90)),
    scene((300, 400), (200, 310, 300, 400), (40, 60, 90, 110)),
    scene((320, 320), (10, 180, 150, 320)),
    scene((500, 300), (330, 0, 500, 110)),
]


def mosaics() -> tuple[Benchmark[Mosaics], Mosaics]:
    squares = [
        scene((448, 448), (0, 0, 150, 130)),
        scene((448, 448), (20, 260, 200, 420), (300, 30, 420, 200)),
    ]
    parts = tuple(
        Mosaic(str(i), kept(picture), lambda m=mask: m.astype(np.uint8), (1,))
        for i, (picture, mask) in enumerate(squares)
    )
    data = Mosaics(name="m", source="real", licence="", data_hash="", classes=("red", "none"), mosaics=parts)
    return MosaicBenchmark("the {}"), data


def anomalies() -> tuple[Benchmark[Items], Items]:
    damaged = [Item("nut", "red", kept(picture), lambda m=mask: m) for picture, mask in SCENES]
    whole = Item("nut", "", kept(scene((400, 300))[0]), None)
    items = Items(name="a", source="real", licence="", data_hash="", items=(*damaged, whole), side=RESOLUTION)
    return AnomalyBenchmark(), items


class Scenes:
    """What `refcocog` needs of a source."""

    def picture(self, index: int) -> Image.Image:
        return SCENES[index][0]


def expressions() -> tuple[Benchmark[Expressions], Expressions]:
    said = tuple(
        Expression(Scenes(), i, "the red one", mask)  # type: ignore[arg-type]
        for i, (_, mask) in enumerate(SCENES)
    )
    data = Expressions(name="r", source="real", licence="", data_hash="", measured=said, tuning=said)
    return RefcocogBenchmark("val"), data


def segments() -> tuple[Benchmark[QualityData], QualityData]:
    shown = tuple(
        Segmented(kept(picture), lambda m=mask: m.astype(np.uint8), frozenset({1}))
        for picture, mask in SCENES
    )
    segmented = SegmentedSet(classes={1: "red"}, memory=shown[:2], test=shown[2:], digest="")
    data = QualityData(name="q", source="real", licence="", labelled=(), segmented=segmented)
    return QualityBenchmark((), 2), data


class Pointing:
    """What `core`, `words` and `photographs` ask of heatmaps and masks."""

    def evaluate(self, method: SteerViTMethod, data: object) -> Outcome:
        pictures, masks = zip(*SCENES, strict=True)
        hits, mass = points(method, pictures, "the red one", masks)
        return Outcome(metrics={"pointing": 100 * float(np.mean(hits)), "pmass": 100 * float(np.mean(mass))})


@pytest.mark.parametrize(
    ("make", "least"),
    [  # all but what the edges of patches cost; attention over tiles is weighted tile by tile
        (mosaics, {"ap_head": 99.9, "ap": 93}),
        (anomalies, {"auroc": 99.9, "pro": 99.9, "f1": 98.5}),
        (expressions, {"mean_iou": 96, "mean_iou_pixels": 94, "pointing": 100}),
        (segments, {"ade20k": 97.9, "ade20k_foreground": 96.5}),
        (lambda: (Pointing(), None), {"pointing": 100, "pmass": 99}),
    ],
    ids=["mosaic", "anomaly", "refcocog", "ade20k", "pointing"],
)
def test_whoever_paints_the_truth_scores_all(
    method: SteerViTMethod, make: Callable[[], tuple[Benchmark[object], object]], least: dict[str, float]
) -> None:
    benchmark, data = make()
    outcome: Outcome = benchmark.evaluate(method, data)
    # Without CLS the head's is the only one.
    metrics = {"ap_head": outcome.metrics.get("ap"), **outcome.metrics}
    coarser = 3 if method.model.grid[0] < 28 else 1
    assert {name for name in least if metrics[name] < 100 - coarser * (100 - least[name])} == set(), metrics


def test_what_lies_wholly_in_a_border_that_is_cut_off_is_left_out(word_encoder: None) -> None:
    method = painting(*SEEN["mae"])
    _, border = scene((400, 300), (0, 0, 15, 300))
    benchmark, said = expressions()
    unseen = Expression(Scenes(), 0, "the red one", border)  # type: ignore[arg-type]
    some = replace(said, measured=(*said.measured, unseen))
    assert benchmark.evaluate(method, some).settings["unseen"] == 1
    assert benchmark.evaluate(method, some).metrics == benchmark.evaluate(method, said).metrics
    with pytest.raises(BenchmarkError, match="r: no expression is about what unsaved sees"):
        benchmark.evaluate(method, replace(said, measured=(unseen,)))
    anomaly, items = anomalies()
    hidden = (Item("nut", "red", kept(SCENES[0][0]), lambda: border),)
    with pytest.raises(BenchmarkError, match="a, nut: no damage lies where unsaved looks"):
        anomaly.evaluate(method, replace(items, items=hidden))


def test_a_mask_is_cut_to_a_part_exactly() -> None:
    mask = np.zeros((10, 20), np.bool_)
    mask[:, :11] = True
    cover = patch_cover(mask, (1, 4), (0.05, 0.0, 0.95, 1.0))  # columns 1 to 19, cells 4.5 wide
    np.testing.assert_allclose(cover, [[1, 1, 1 / 4.5, 0]])
    np.testing.assert_allclose(patch_cover(mask, (1, 4)), [[1, 1, 0.2, 0]])
