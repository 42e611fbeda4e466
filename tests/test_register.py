"""Truth and maps lie on one another: what paints the truth through a trunk's own preprocessing scores 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from steersearch.benchmarks.harness.benchmark import Benchmark, Outcome
from steersearch.benchmarks.harness.pixel_metrics import patch_cover
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
from steersearch.core.backbone import timm_preprocess
from steersearch.core.errors import BenchmarkError
from steersearch.core.predictor import Predictor
from steersearch.core.preprocess import Preprocess, View
from steersearch.core.steervit import SteerViT, SteerViTConfig
from tests.conftest import WordEncoder

RESOLUTION, PATCH = 112, 4
GRID = RESOLUTION // PATCH
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


class PaintingTrunk(nn.Module):
    """A trunk whose patch tokens are the mean colours of its patches, and whose CLS attends to what is red."""

    num_prefix_tokens, grid, dim, depth = 1, (GRID, GRID), 3, 1

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self.blocks, self.norm = nn.Sequential(nn.Identity()), nn.Identity()
        self.mean, self.std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)

    def tokens(self, pixels: Tensor) -> Tensor:
        colours = F.avg_pool2d(pixels, PATCH).flatten(2).transpose(1, 2) * self.std + self.mean
        return torch.cat([torch.zeros(len(pixels), 1, 3), colours], dim=1)

    def cls_attention(self, x: Tensor) -> Tensor:
        return (10 * (x[..., 0] - x[..., 1])).softmax(dim=-1)[:, None]


def painting(preprocess: Preprocess, view: View | None = None) -> SteerViTMethod:
    config = SteerViTConfig(
        trunk="painting",
        resolution=RESOLUTION,
        cross_attn_layers=(),
        text_dim=WordEncoder.dim,
        connector_hidden=4,
        preprocess=preprocess,
    )
    model = SteerViT(config, trunk=PaintingTrunk(preprocess))
    model.head.weight.data = torch.tensor([[10.0, -10.0, 0.0]])
    return SteerViTMethod(Predictor(model), view=view)


@pytest.fixture(params=SEEN)
def method(request: pytest.FixtureRequest, word_encoder: None) -> SteerViTMethod:
    return painting(*SEEN[request.param])


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


@pytest.mark.parametrize(
    ("make", "least"),
    [  # all but what the edges of patches cost; attention over tiles is weighted tile by tile
        (mosaics, {"ap_head": 99.9, "ap": 93}),
        (anomalies, {"auroc": 99.9, "pro": 99.9, "f1": 98.5}),
        (expressions, {"mean_iou": 97, "mean_iou_pixels": 94, "pointing": 100}),
        (segments, {"ade20k": 97.9, "ade20k_foreground": 96.5}),
    ],
    ids=["mosaic", "anomaly", "refcocog", "ade20k"],
)
def test_whoever_paints_the_truth_scores_all(
    method: SteerViTMethod, make: Callable[[], tuple[Benchmark[object], object]], least: dict[str, float]
) -> None:
    benchmark, data = make()
    outcome: Outcome = benchmark.evaluate(method, data)
    reached = {name: outcome.metrics[name] for name in least}
    assert all(reached[name] >= least[name] for name in least), reached


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
