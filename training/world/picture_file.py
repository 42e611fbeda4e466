"""Pictures with a JSON object each, in one safetensors file: reading it runs no code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from steersearch.core.files import drafted, parse_json, require_regular

_CHANNELS = (3, 4)  # RGB, RGBA


def save_pictures(file: Path, pictures: Sequence[Image.Image], about: Sequence[Mapping[str, object]]) -> None:
    """Write RGB or RGBA pictures with a JSON-able object each, atomically. Raises OSError."""
    arrays = [np.asarray(picture, np.uint8) for picture in pictures]
    content = {
        "pixels": np.concatenate([array.ravel() for array in arrays] or [np.zeros(0, np.uint8)]),
        "shapes": np.array([array.shape for array in arrays], np.int32).reshape(-1, 3),
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with drafted(file) as draft:
            save_file(content, draft)
    except SafetensorError as error:  # raised for a full disk
        raise OSError(str(error)) from error


def load_pictures(file: Path) -> tuple[list[Image.Image], list[dict[str, Any]]]:
    """Read what `save_pictures` wrote. Raises OSError, and ValueError for a damaged file."""
    try:
        with safe_open(require_regular(file), framework="np") as opened:
            pixels, shapes, about = (opened.get_tensor(name) for name in ("pixels", "shapes", "about"))
    except SafetensorError as error:
        raise ValueError(f"no safetensors file of ours ({error})") from error
    if pixels.dtype != np.uint8 or pixels.ndim != 1 or shapes.dtype != np.int32 or shapes.ndim != 2:
        raise ValueError("its arrays are not those of pictures")
    if shapes.shape[1] != 3 or (shapes < 1).any() or not np.isin(shapes[:, 2], _CHANNELS).all():
        raise ValueError("a picture has an impossible size")
    ends = np.cumsum(shapes.prod(axis=1, dtype=np.int64))
    objects = parse_json(about.tobytes())
    if not isinstance(objects, list) or not all(isinstance(one, dict) for one in objects):
        raise ValueError("the pictures' descriptions are damaged")
    if len(objects) != len(shapes) or len(pixels) != (ends[-1] if len(ends) else 0):
        raise ValueError("pictures are missing")
    parts = np.split(pixels, ends[:-1])
    return [Image.fromarray(part.reshape(shape)) for part, shape in zip(parts, shapes, strict=True)], objects
