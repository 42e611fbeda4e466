"""A corpus' pictures as the input of the first steered block, computed once and stored: no prompt changes it.

The backbone is frozen, so without augmentation everything before the first steered block is constant; in a hybrid
backbone that is nine tenths of the forward pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from torch import Tensor

from steersearch.core.errors import DataError
from steersearch.core.files import drafted, require_regular
from steersearch.core.steervit import SteerViT
from steersearch.training.pictures import Pictures

AT_ONCE = 64


class FrozenTokens:
    """tokens (P, T, D) float16, of which batches are made on `device`; replaces `Pictures`, without augmentation."""

    varies = False

    def __init__(self, tokens: npt.NDArray[np.float16], device: torch.device) -> None:
        self._tokens, self._device = tokens, device

    def __len__(self) -> int:
        return len(self._tokens)

    def __call__(self, rows: npt.NDArray[np.int64], mirrored: npt.NDArray[np.bool_] | None = None) -> Tensor:
        """Tokens of the pictures `rows` (B,): (B, T, D) float32."""
        if mirrored is not None and mirrored.any():
            raise ValueError("tokens cannot be mirrored")
        return torch.from_numpy(self._tokens[rows]).to(self._device).float()


def trunk_digest(model: SteerViT) -> str:
    """A hash of the backbone's weights alone."""
    digest = hashlib.sha256()
    for name, value in model.trunk.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def kept_tokens(
    model: SteerViT, images: npt.NDArray[np.uint8], corpus: str, folder: Path, say: Callable[[str], None]
) -> npt.NDArray[np.float16]:
    """(P, T, D), computed with `model` unless `folder` has them. corpus: identifies the pictures.

    Raises DataError for stored tokens of other pictures, OSError.
    """
    first = (model.config.fusion, min(model.config.cross_attn_layers))
    key = hashlib.sha256(f"{corpus} {trunk_digest(model)} {first}".encode()).hexdigest()[:16]
    file = folder / f"tokens-{key}.npy"
    with FileLock(file.with_suffix(".lock")):  # several runs may share the folder
        if not file.is_file():
            say(f"tokens: embedding {len(images):,} pictures up to the first steered block")
            _make(model, images, file)
    try:
        tokens: npt.NDArray[np.float16] = np.load(require_regular(file), mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(file, f"damaged ({reason}); delete it, it will be rebuilt") from error
    if tokens.dtype != np.float16 or tokens.ndim != 3 or len(tokens) != len(images):
        raise DataError(file, "damaged (it is not of these pictures); delete it, it will be rebuilt")
    return tokens


@torch.inference_mode()
def _make(model: SteerViT, images: npt.NDArray[np.uint8], file: Path) -> None:
    preprocess = model.config.preprocess
    pictures = Pictures(images, model.device, preprocess.mean, preprocess.std)
    plain = np.zeros(AT_ONCE, np.bool_)
    with drafted(file) as draft:
        kept: Any = None
        for start in range(0, len(images), AT_ONCE):
            rows = np.arange(start, min(start + AT_ONCE, len(images)))
            tokens = model.before_steering(pictures(rows, plain[: len(rows)])).half().cpu().numpy()
            if kept is None:
                shape = (len(images), *tokens.shape[1:])
                kept = np.lib.format.open_memmap(draft, "w+", np.float16, shape)
            kept[rows] = tokens
        kept.flush()
