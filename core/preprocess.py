"""From a file to the numbers a backbone takes: Pillow and NumPy only, so that readers never import torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from steersearch.core.errors import ArgumentError, ConfigError
from steersearch.core.images.colour import to_rgb
from steersearch.core.images.limits import DEFAULT_LIMITS, Limits
from steersearch.core.images.picture import Picture
from steersearch.core.images.reader import read_picture
from steersearch.core.ranges import check_number, check_text, check_whole, read_fields, read_list

View = Literal["crop", "squash", "tile"]
TILES = 2  # per side of the picture in the view "tile"

_INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
MOST_SIDE = 4096  # pixels of a backbone's input
_LEAST_CROP = 0.5  # of a side; timm's backbones keep .75 and more, and a picture is resized to the inverse
_LONGEST_STRIP = 8  # a longer strip (width : height) is cut before it is resized, or 1 × 60000 fills memory

_KEPT = 2  # a picture decoded at a reduced scale keeps this many times the pixels per side that are needed
_LEAST_SIDE = 256  # pixels that are kept in any case, for thumbnails


def checked_view(view: View | None) -> View | None:
    """`view`; None passes. Raises ArgumentError for any other value."""
    if view is not None and view not in get_args(View):
        raise ArgumentError("view", view, f"must be one of {get_args(View)}")
    return view


def open_image(
    path: str | Path, *, at_least: int | None = None, limits: Limits = DEFAULT_LIMITS
) -> Image.Image:
    """The image of the picture in `path`, upright RGB as a viewer would show it; see `reader.read_picture`.

    at_least: the shorter side in pixels that has to be left of a JPEG decoded at a reduced scale, such as
        `Preprocess.least_side`; None decodes all of it.
    Raises ImageError with the reason in plain words; ImageRefusedError, one of these, for a picture that takes more
    than `limits` and for a format whose optional decoder is not installed.
    """
    return read_picture(path, at_least=at_least, limits=limits).image


def least_side(preprocessing: Mapping[str, Any]) -> int | None:
    """`Preprocess.least_side` out of settings in their dictionary form; None, all pixels, where these are others."""
    if "size" not in preprocessing:
        return None
    tiles = TILES if preprocessing.get("mode") == "tile" else 1
    needed: int = math.ceil(preprocessing["size"] * tiles / preprocessing.get("crop_pct", 1.0))
    return max(_LEAST_SIDE, _KEPT * needed)


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """What is done to a picture before the backbone sees it; a backbone's own equals timm's evaluation transform.

    size: side in pixels of the square that the backbone takes.  mean, std: per channel, of values in [0, 1].
    crop_pct: share of the resized picture that the central crop keeps, per side.
    mode: "crop" scales the shorter side and cuts the central square.
        "squash" scales both sides; with crop_pct 1 nothing is lost, and timm has backbones with less.
        "tile" squashes to twice `size`, for the backbone to see as 2 × 2 tiles: at twice the resolution, with
        four forward passes. Nothing is lost here either, and crop_pct is 1.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    mode: View = "crop"

    def __post_init__(self) -> None:
        check_whole("size", self.size, 1, MOST_SIDE)
        check_number("crop_pct", self.crop_pct, _LEAST_CROP, 1)
        check_text("interpolation", self.interpolation)
        if self.mode not in get_args(View):
            raise ConfigError("mode", self.mode, f"must be one of {get_args(View)}")
        if self.mode == "tile" and self.crop_pct != 1:
            raise ConfigError(
                "crop_pct", self.crop_pct, 'must be 1 with the mode "tile", which loses nothing'
            )
        if self.interpolation not in _INTERPOLATIONS:
            raise ConfigError(
                "interpolation", self.interpolation, f"must be one of {sorted(_INTERPOLATIONS)}"
            )
        for name, values, least in (("mean", self.mean, -100), ("std", self.std, 1e-3)):
            if len(values) != 3:
                raise ConfigError(name, values, "must be three numbers")
            for value in values:
                check_number(name, value, least, 100)

    def with_view(self, view: View) -> Preprocess:
        """These settings with pictures seen in another way.

        "crop" keeps crop_pct, so that a backbone whose own mode it is gets timm's evaluation transform. "squash"
        and "tile" keep the whole picture: crop_pct becomes 1, or MAE's and SigLIP's 0.9 would cut the borders.
        """
        return replace(self, mode=view, crop_pct=self.crop_pct if view == "crop" else 1.0)

    @property
    def side(self) -> int:
        """Side in pixels of what a call returns: `size`, or twice that for the tiles."""
        return self.size * TILES if self.mode == "tile" else self.size

    @property
    def least_side(self) -> int:
        """The shorter side in pixels that a picture may be decoded at: twice that of the resized picture.

        Embeddings of photos so decoded have a cosine above .998 with those of the whole (the mini, grainy photos of
        five megapixels, `tests/test_reduced_scale.py`). A picture below four times the resized side, such as one of a
        megapixel for 336 pixels, is never reduced.
        """
        side = least_side(self.to_dict())
        assert side is not None
        return side

    def __call__(self, picture: Picture | Image.Image) -> npt.NDArray[np.float32]:
        """A picture of any size and mode -> (3, side, side) float32, normalised, channels RGB.

        A `Picture` at a reduced scale is resized from its true sides, as the whole of it would be.
        """
        image = picture.image if isinstance(picture, Picture) else to_rgb(picture)
        left, top, right, bottom = picture.box if isinstance(picture, Picture) else (0, 0, *image.size)
        if self.mode == "crop":
            left, right = _without_ends(left, right, bottom - top)
            top, bottom = _without_ends(top, bottom, right - left)
        resized, cut = self._resize_and_crop((right - left, bottom - top))
        box = (left, top, right, bottom)
        image = image.resize(resized, _INTERPOLATIONS[self.interpolation], box=box).crop(cut)
        pixels = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)).astype(np.float32)
        mean, std = (np.array(v, dtype=np.float32)[:, None, None] for v in (self.mean, self.std))
        pixels /= np.float32(255)
        pixels -= mean
        pixels /= std
        return pixels

    def region(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """What the backbone sees of a picture of `size` (width, height): left, top, right, bottom in pixels."""
        (width, height), (left, top, right, bottom) = self._resize_and_crop(size)
        x, y = size[0] / width, size[1] / height
        return left * x, top * y, right * x, bottom * y

    @property
    def part_of_square(self) -> tuple[float, float, float, float]:
        """As `region`, of any square picture: left, top, right, bottom as shares of its side."""
        return self.region((1, 1))

    def _resize_and_crop(
        self, size: tuple[float, float]
    ) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
        """For a picture of `size` (width, height): the size it is brought to, and the box cut from that."""
        scaled = math.floor(self.side / self.crop_pct)
        width, height = scaled, scaled
        if self.mode == "crop":
            short = min(size)
            width, height = (scaled if s == short else int(scaled * s / short) for s in size)
        left, top = round((width - self.side) / 2), round((height - self.side) / 2)
        return (width, height), (left, top, left + self.side, top + self.side)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; `from_dict` reads it back."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preprocess:
        """Inverse of `to_dict`. Raises ConfigError."""
        read = read_fields(cls, data, "preprocess")
        return cls(**{**read, **{name: read_list(name, read[name]) for name in ("mean", "std")}})


def view_of(preprocessing: Mapping[str, Any]) -> View | None:
    """The view under which settings were made, from their dictionary form, as a prompt index records it.

    None: one that `Preprocess.with_view` does not make, such as timm's squash with a central crop of 0.95,
    which only a backbone's own settings have.
    """
    view: View | None = preprocessing.get("mode")
    return None if view == "squash" and preprocessing.get("crop_pct") != 1 else view


def _without_ends(start: float, end: float, across: float) -> tuple[float, float]:
    """A strip without its ends if it is very long: the central crop drops them anyway, after a huge resize."""
    cut = end - start - _LONGEST_STRIP * across
    return (start, end) if cut <= 0 else (start + cut // 2, end - cut // 2)
