"""Masks from boxes with SAM 2, from transformers. Meta's weights are under the Apache licence 2.0.

The image encoder, nearly all the work, runs once per picture, whatever the number of boxes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from steersearch.core import hub
from steersearch.core.errors import ArgumentError, CheckpointError, HubError
from steersearch.core.files import as_path, read_json, remembered_sha256
from steersearch.core.registry import HubFile

DEFAULT_MODEL = "facebook/sam2.1-hiera-large"
BOXES_AT_ONCE = 64  # of each picture, in one pass of the mask decoder
PIXELS_AT_ONCE = 64_000_000  # of masks resized to their picture together

_FILES = ("config.json", "model.safetensors")
_KINDS = ("sam2", "sam2_video")  # published files are of the video model, which contains the image model


class Segmenter:
    """A SAM 2 model.

    name: the one requested;  weights: sha256 of its file;  licence: of the weights, None if unknown
    """

    def __init__(self, name: str = DEFAULT_MODEL, device: str = "auto") -> None:
        """Load `name`, a hub id or a folder with config.json and model.safetensors.

        Raises HubError if it cannot be fetched, CheckpointError if it is damaged or not a SAM 2 model.
        """
        self.name = name
        folder = _model_folder(name)
        self.weights = remembered_sha256(folder / "model.safetensors")
        self.licence = "Apache-2.0" if name.startswith("facebook/sam2") else None
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self._model = _load(folder).eval().requires_grad_(False).to(self.device)
        self._side = _image_side(self._model.config, folder)
        self._processor = _processor(self._side)

    @property
    def default_batch(self) -> int:
        """A batch size that suits the device."""
        return 8 if self.device.type == "cuda" else 1

    @torch.no_grad()
    def masks(
        self, pictures: Sequence[Image.Image], boxes: Sequence[npt.NDArray[np.float32]]
    ) -> list[Iterator[Tensor]]:
        """Masks of the boxes on each of B pictures.

        pictures: RGB, of any sizes;  boxes: (K, 4) each, left, top, right, bottom in pixels of the picture, K >= 1
        Returns for each picture its masks in the order of the boxes, as parts (k, H, W) bool on the device, computed
        lazily, since a hundred masks of a large picture take a gigabyte.
        Raises ArgumentError if the GPU runs out of memory.
        """
        try:
            logits = self._decode(self._encode(pictures), pictures, boxes)
        except torch.OutOfMemoryError as error:
            reason = "too many pictures for the GPU's memory; use a smaller number"
            raise ArgumentError("batch_size", len(pictures), reason) from error
        return [
            _at_full_size(found, (picture.height, picture.width))
            for found, picture in zip(logits, pictures, strict=True)
        ]

    def _encode(self, pictures: Sequence[Image.Image]) -> list[Tensor]:
        """Embeddings of B pictures: (B, C, h, w) float32 at three sizes."""
        pixels = self._processor(images=list(pictures), return_tensors="pt")["pixel_values"].to(self.device)
        half = self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        # Prompts and decoder stay in float32: in bfloat16 a corner would be off by some pixels.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            found = self._model.get_image_embeddings(pixels)
        return [level.float() for level in found]

    def _decode(
        self,
        encoded: list[Tensor],
        pictures: Sequence[Image.Image],
        boxes: Sequence[npt.NDArray[np.float32]],
    ) -> list[Tensor]:
        """Logits (K, h, w) of each picture's boxes, at the low resolution of the decoder."""
        most = max(len(of_picture) for of_picture in boxes)
        scaled = torch.zeros(len(pictures), most, 4)
        for i, (picture, of_picture) in enumerate(zip(pictures, boxes, strict=True)):
            scale = torch.tensor([self._side / picture.width, self._side / picture.height] * 2)
            scaled[i, : len(of_picture)] = torch.from_numpy(of_picture) * scale
            scaled[i, len(of_picture) :] = scaled[i, len(of_picture) - 1]  # boxes cannot be masked out
        parts = [
            self._model(
                image_embeddings=list(encoded),
                input_boxes=scaled[:, start : start + BOXES_AT_ONCE].to(self.device),
                multimask_output=False,
            ).pred_masks
            for start in range(0, most, BOXES_AT_ONCE)
        ]
        found = torch.cat(parts, dim=1).squeeze(2)  # (B, most, h, w)
        return [found[i, : len(of_picture)] for i, of_picture in enumerate(boxes)]


def _at_full_size(logits: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
    """Logits (K, h, w) -> masks (k, H, W) bool, a few at a time; bilinear, as in Sam2Processor."""
    count = max(1, PIXELS_AT_ONCE // (size[0] * size[1]))
    for start in range(0, len(logits), count):
        part = logits[start : start + count, None]
        yield F.interpolate(part, size, mode="bilinear", align_corners=False)[:, 0] > 0


# ----------------------------------------------------------------------------------------------- loading it


def _model_folder(name: str) -> Path:
    """The folder of the model's files, fetched if necessary."""
    folder = as_path(name)
    if os.path.isdir(folder):
        lacking = [file for file in _FILES if not (folder / file).is_file()]
        if lacking:
            raise CheckpointError(f"{folder}: not a SAM 2 model, it lacks {' and '.join(lacking)}")
        return folder
    if not hub.is_repository(name):
        raise CheckpointError(f'"{name}": no such folder, and not an id of the model hub (owner/name)')
    files = [HubFile(repo=name, file=file) for file in _FILES]
    if not all(hub.find(file) for file in files) and (reason := hub.why_unreachable()):
        way_out = "go online once to fetch it, or name its folder: --model FOLDER"
        raise HubError(name, _FILES[1], f"not downloaded yet and {reason}; {way_out}")
    return [hub.fetch(file) for file in files][-1].parent


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Suppress transformers' progress bar and its table of skipped layers while a model loads."""
    from transformers.utils import logging as transformers_logging

    verbosity, had_bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bar:
            transformers_logging.enable_progress_bar()


def _load(folder: Path) -> Any:
    from transformers import Sam2Model

    try:
        kind = read_json(folder / "config.json").get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{folder / 'config.json'}: cannot be read ({error})") from error
    if kind not in _KINDS:
        raise CheckpointError(f'{folder}: a model of the kind "{kind}", not one of {", ".join(_KINDS)}')
    try:
        with quiet_transformers():
            model, report = Sam2Model.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True
            )
    except Exception as error:  # transformers raises many types for a damaged file
        raise CheckpointError(f"{folder}: cannot be loaded ({error}); download it again") from error
    if missing := sorted(report["missing_keys"]):  # transformers initialised them at random
        raise CheckpointError(f"{folder}: its weights lack {', '.join(missing[:5])}; download it again")
    return model


def _image_side(config: Any, folder: Path) -> int:
    """Side of the square that pictures are squashed to, in pixels."""
    size = config.vision_config.backbone_config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise CheckpointError(
            f"{folder}: it takes pictures of {width} × {height} pixels, only squares are supported"
        )
    return int(height)


def _processor(side: int) -> Any:
    """The published Sam2Processor for pictures of `side`: bilinear, ImageNet's mean and standard deviation."""
    from transformers import Sam2ImageProcessor, Sam2Processor

    return Sam2Processor(Sam2ImageProcessor(size={"height": side, "width": side}), target_size=side)
