"""CLIP in OpenCLIP's layout: build it, load its weights, tokenize.

The only file that imports open_clip, of the extra "baselines".
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from steersearch.benchmarks.baselines.cards import Card
from steersearch.core.errors import BenchmarkError, CheckpointError, CheckpointKeysError

logger = logging.getLogger(__name__)

# OpenAI's, of all CLIPs here.
MEAN, STD = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
VIT_B_16: Mapping[str, Any] = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
}
VIT_B_16_PLUS_240: Mapping[str, Any] = {
    "embed_dim": 640,
    "vision_cfg": {"image_size": 240, "layers": 12, "width": 896, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 640, "heads": 10, "layers": 12},
}


def clip_model(card: Card, shape: Mapping[str, Any], *, quick_gelu: bool = False, **options: Any) -> Any:
    """open_clip's `CLIP` with random weights. quick_gelu: as OpenAI trained theirs.

    Raises BenchmarkError where open_clip is not installed.
    """
    return _open_clip(card).CLIP(**shape, quick_gelu=quick_gelu, **options)


def tokenize(card: Card, texts: Sequence[str], length: int) -> Tensor:
    """(P, length) token ids, truncated if too long; the vocabulary comes with the package."""
    tokens: Tensor = _open_clip(card).SimpleTokenizer(context_length=length)(list(texts))
    return tokens


def _open_clip(card: Card) -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise BenchmarkError(f"{card.name} needs open_clip: pip install 'steersearch[baselines]'") from error
    return open_clip


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pt file, without wrappers of training. Runs no code from the file."""
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise anything for a damaged file
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    found = {key.removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}
    if not found:
        raise CheckpointError(f"{path}: holds no weights")
    return found


def fill(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load all weights into `module`. Weights that it has no place for are logged and skipped.

    Raises CheckpointKeysError for missing and misshapen ones.
    """
    wanted = module.state_dict()
    missing = sorted(set(wanted) - set(state))
    misshapen = sorted(key for key in set(wanted) & set(state) if wanted[key].shape != state[key].shape)
    if missing or misshapen:
        raise CheckpointKeysError(path, missing=missing, misshapen=misshapen)
    if unknown := sorted(set(state) - set(wanted)):
        logger.warning("%s: holds weights that are not known and not used: %s", path, ", ".join(unknown[:5]))
    module.load_state_dict({key: state[key].to(value.dtype) for key, value in wanted.items()})
