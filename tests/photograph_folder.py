"""A small folder of photographs as `steersearch train photographs` leaves it, without its networks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from steersearch.training.photographs.folder import MANIFEST

SIDE = (160, 120)
DISC = (40, 30, 120, 110)  # left, top, right, bottom


def make_photograph_folder(folder: Path) -> Path:
    """A red cup before green; a street with a boxed car; leaves that show nothing with a name; a held-out hammer."""
    rows = [
        _row(folder, 0, "cup", (200, 30, 30), boxes=()),
        _row(
            folder, 1, "", (30, 30, 200), boxes=(("car", (0.2, 0.2, 0.8, 0.95)), ("kite", (0, 0, 0.1, 0.1)))
        ),
        _row(folder, 2, "", None, boxes=()),
        _row(folder, 3, "hammer", (90, 90, 90), boxes=()),
    ]
    (folder / MANIFEST).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def _row(
    folder: Path,
    number: int,
    noun: str,
    colour: tuple[int, int, int] | None,
    boxes: tuple[tuple[str, tuple[float, ...]], ...],
) -> dict[str, object]:
    for name in ("photographs", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 60, (SIDE[1], SIDE[0], 3), np.uint8)
    photograph, mask = Image.fromarray(noise + np.uint8([20, 90, 20])), Image.new("L", SIDE)
    if colour:
        ImageDraw.Draw(photograph).ellipse(DISC, fill=colour)
        ImageDraw.Draw(mask).ellipse(DISC, fill=255)
    photograph.save(folder / f"photographs/{number:04d}.png")
    mask.save(folder / f"masks/{number:04d}.png")
    return {
        "package": "scikit-image", "file": f"{number}.png", "noun": noun, "licence": "CC0-1.0", "sha256": "",
        "photograph": f"photographs/{number:04d}.png", "mask": f"masks/{number:04d}.png" if colour else None,
        "boxes": [{"name": name, "score": 0.9, "box": box} for name, box in boxes],
    }  # fmt: skip
