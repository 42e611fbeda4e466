"""EfficientNet-Lite2: equals timm's, with either sort of convolution and in half precision."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steersearch.core import efficientnet_lite
from steersearch.core.efficientnet_lite import COARSE, DEEP, FINE, EfficientNetLite2, Maps, read_published

PICTURES = 5


@pytest.fixture(scope="module")
def timms() -> Any:
    """timm's model with random weights, and batch norms that have measured what these make of noise."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_lite2").train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 1.0)
    with torch.no_grad():
        model(noise(64))
    return model.eval()


@pytest.fixture(scope="module")
def network(timms: Any) -> EfficientNetLite2:
    return read_published(as_published(timms))[0]


def noise(side: int) -> Tensor:
    return torch.randn(PICTURES, 3, side, side, generator=torch.Generator().manual_seed(side))


def as_published(timms: Any) -> dict[str, Tensor]:
    """timm's weights under the names of the published file."""
    names = {
        "_conv_stem": timms.conv_stem,
        "_bn0": timms.bn1,
        "_conv_head": timms.conv_head,
        "_bn1": timms.bn2,
    }
    for i, block in enumerate(block for stage in timms.blocks for block in stage):
        if hasattr(block, "conv_pwl"):
            layers = (("expand_conv", block.conv_pw), ("bn0", block.bn1), ("depthwise_conv", block.conv_dw),
                      ("bn1", block.bn2), ("project_conv", block.conv_pwl), ("bn2", block.bn3))  # fmt: skip
        else:  # of the first stage, which does not widen
            layers = (("depthwise_conv", block.conv_dw), ("bn1", block.bn1), ("project_conv", block.conv_pw),
                      ("bn2", block.bn2))  # fmt: skip
        names |= {f"_blocks.{i}._{name}": layer for name, layer in layers}
    names["_fc"] = timms.classifier
    return {
        f"{name}.{key}": value for name, layer in names.items() for key, value in layer.state_dict().items()
    }


def assert_equal(ours: Tensor, theirs: Tensor, within: float = 1e-4) -> None:
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.1
    assert (ours - theirs).abs().max() < within * theirs.abs().max()


@pytest.mark.parametrize("side", [32, 96])
def test_maps_and_classes_equal_timms(timms: Any, side: int) -> None:
    network, classifier = read_published(as_published(timms))
    pixels = noise(side)
    with torch.no_grad():
        fine = timms.blocks[:5](timms.bn1(timms.conv_stem(pixels)))
        coarse = timms.blocks[5:](fine)
        deep = timms.bn2(timms.conv_head(coarse))
        maps = network(pixels)
        assert_equal(maps.fine, fine)
        assert_equal(maps.coarse, coarse)
        assert_equal(network.deep(maps), deep)
        logits = network.deep(maps).mean((2, 3)) @ classifier.weight.T + classifier.bias
        assert_equal(logits, timms(pixels))
    assert maps.fine.shape == (PICTURES, FINE, side // 16, side // 16)
    assert maps.coarse.shape == (PICTURES, COARSE, side // 32, side // 32)
    assert network.deep(maps).shape[1] == DEEP


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Callable[[EfficientNetLite2, Tensor], Maps]:
    """A network's maps by plain convolutions."""

    def maps(network: EfficientNetLite2, pixels: Tensor) -> Maps:
        assert efficientnet_lite._JOINED_TYPES, "this PyTorch has no joined convolutions: nothing is compared"
        with monkeypatch.context() as without, torch.no_grad():
            without.setattr(efficientnet_lite, "_JOINED_TYPES", set())
            return network(pixels)

    return maps


@pytest.mark.parametrize("side", [32, 96])
def test_joined_convolutions_equal_the_plain_ones(
    side: int, network: EfficientNetLite2, plain: Callable[[EfficientNetLite2, Tensor], Maps]
) -> None:
    pixels = noise(side)
    with torch.no_grad():
        joined = network(pixels)
    expected = plain(network, pixels)
    assert_equal(joined.fine, expected.fine, 1e-5)
    assert_equal(joined.coarse, expected.coarse, 1e-5)


@pytest.mark.skipif(
    torch.bfloat16 not in efficientnet_lite._JOINED_TYPES,
    reason="this processor does not compute in bfloat16",
)
def test_joined_convolutions_in_bfloat16_lose_no_more_than_plain_ones(
    timms: Any, network: EfficientNetLite2, plain: Callable[[EfficientNetLite2, Tensor], Maps]
) -> None:
    half, pixels = read_published(as_published(timms))[0].bfloat16(), noise(96)
    with torch.no_grad():
        exact, joined = network(pixels), half(pixels.bfloat16())
    apart = plain(half, pixels.bfloat16())
    assert joined.coarse.dtype == torch.bfloat16
    for kind in ("fine", "coarse"):
        wanted = getattr(exact, kind).flatten(1)
        lost, lost_apart = (
            1 - torch.cosine_similarity(getattr(maps, kind).float().flatten(1), wanted).min()
            for maps in (joined, apart)
        )
        assert lost < 1.5 * lost_apart


def test_pictures_in_parts_have_the_maps_that_they_have_together(
    network: EfficientNetLite2, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.no_grad():
        together = network(noise(32))
        monkeypatch.setattr(efficientnet_lite, "_CPU_PIXELS", 2 * 32**2)
        in_parts = network(noise(32))
    assert_equal(in_parts.fine, together.fine, 1e-5)
    assert_equal(in_parts.coarse, together.coarse, 1e-5)


def learn(network: EfficientNetLite2) -> EfficientNetLite2:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.1)
    return network


def load(network: EfficientNetLite2) -> EfficientNetLite2:
    network.load_state_dict({name: 1.1 * value for name, value in network.state_dict().items()}, assign=True)
    return network


CHANGES: dict[str, Callable[[EfficientNetLite2], EfficientNetLite2]] = {
    "learnt": learn,
    "loaded": load,
    "rounded": lambda network: network.bfloat16().float(),
    "copied": lambda network: learn(deepcopy(network)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_network_used_before_its_weights_change_uses_the_new_ones(
    change: str, timms: Any, plain: Callable[[EfficientNetLite2, Tensor], Maps]
) -> None:
    network = read_published(as_published(timms))[0]
    pixels = noise(32)
    with torch.inference_mode():
        before = network(pixels)
        network = CHANGES[change](network)
        after = network(pixels)
    assert not torch.allclose(after.coarse, before.coarse, rtol=1e-3)
    assert_equal(after.coarse, plain(network, pixels).coarse, 1e-5)


def test_weights_rounded_to_half_precision_give_nearly_the_same_maps(timms: Any) -> None:
    network = read_published(as_published(timms))[0]
    rounded = read_published(as_published(timms))[0].half().float()
    with torch.no_grad():
        exact, near, half = network(noise(32)), rounded(noise(32)), rounded.half()(noise(32).half())
    for found in (near, half):
        for ours, wanted in ((found.fine, exact.fine), (found.coarse, exact.coarse)):
            agreement = torch.cosine_similarity(ours.float().flatten(1), wanted.flatten(1))
            assert agreement.min() > 0.999
    assert half.coarse.dtype == torch.float16


def test_gradients_reach_pixels_and_weights(timms: Any) -> None:
    network = read_published(as_published(timms))[0].requires_grad_(True)
    pixels = noise(32).requires_grad_(True)
    network.deep(network(pixels)).mean().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().max() > 0
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_published_file_without_a_tensor_is_refused(timms: Any) -> None:
    state = as_published(timms)
    del state["_blocks.7._bn1.running_var"]
    with pytest.raises(KeyError, match=r"_blocks\.7\._bn1"):
        read_published(state)
