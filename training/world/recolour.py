"""Cutouts in other colours: the same mug in red and in blue teaches that the colour is not the thing."""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image

# Hue, saturation and value of the middle tone, all 0..1.
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.0, 0.85, 0.8),
    "orange": (0.08, 0.9, 0.95),
    "yellow": (0.145, 0.9, 0.95),
    "green": (0.34, 0.75, 0.6),
    "blue": (0.61, 0.8, 0.8),
    "purple": (0.77, 0.65, 0.6),
    "pink": (0.93, 0.45, 1.0),
    "brown": (0.07, 0.65, 0.45),
    "black": (0.0, 0.0, 0.12),
    "white": (0.0, 0.0, 0.97),
    "gray": (0.0, 0.0, 0.5),
}
# Darkest tone and span up to the lightest, of colours without a hue.
_GREYS = {"black": (0.02, 0.28), "gray": (0.28, 0.45), "white": (0.62, 0.36)}
_MIDDLE = 0.6  # position of the colour itself between the darkest and the lightest tone


def recolour(cutout: Image.Image, colour: str, rng: np.random.Generator) -> Image.Image:
    """An RGBA cutout in one of COLOURS, its light and shadow kept; the exact tint varies."""
    pixels = np.asarray(cutout, np.float32) / 255
    light = pixels[..., :3] @ np.array([0.3, 0.59, 0.11], np.float32)
    dark, bright = np.percentile(light[pixels[..., 3] > 0.5], [2, 98])
    tone = ((light - dark) / max(0.05, bright - dark)).clip(0, 1)[..., None]
    hue, saturation, value = COLOURS[colour]
    hue, saturation = (hue + rng.normal(0, 0.012)) % 1, min(1.0, saturation * rng.uniform(0.85, 1.1))
    middle = np.array(colorsys.hsv_to_rgb(hue, saturation, value), np.float32)
    if colour in _GREYS:
        darkest, span = _GREYS[colour]
        painted = np.repeat(darkest + span * tone, 3, axis=2)
    else:
        shadow, shine = middle * 0.28, middle + (1 - middle) * 0.55
        below = shadow + (middle - shadow) * (tone / _MIDDLE)
        above = middle + (shine - middle) * ((tone - _MIDDLE) / (1 - _MIDDLE))
        painted = np.where(tone < _MIDDLE, below, above)
    return Image.fromarray((np.dstack([painted.clip(0, 1), pixels[..., 3:]]) * 255).astype(np.uint8))


def has_one_colour(cutout: Image.Image) -> bool:
    """Whether an RGBA cutout has nearly one hue or none, so that another colour is as plausible."""
    opaque = np.asarray(cutout)[..., 3] > 200
    hsv = np.asarray(cutout.convert("RGB").convert("HSV"))[opaque].astype(np.float64) / 255
    if len(hsv) < 50:
        return False
    hue, saturation = np.exp(2j * np.pi * hsv[:, 0]), hsv[:, 1]
    agreement = abs((saturation * hue).sum()) / max(1e-6, float(saturation.sum()))
    return bool(agreement > 0.75 or saturation.mean() < 0.15)
