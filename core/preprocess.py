"""From a file to the numbers a trunk takes: Pillow and NumPy only, so that readers never import torch."""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from steersearch.core.errors import ConfigError, ImageError

# Our own limit below replaces Pillow's warning; `catch_warnings` around each call would not be thread-safe.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings(
    "ignore", module=r"PIL\.TiffImagePlugin"
)  # damaged EXIF: the picture is used without it

View = Literal["crop", "squash", "tile"]
TILES = 2  # per side of the picture in the view "tile"

_INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_LONGEST_STRIP = 8  # a longer strip (width : height) is cut before it is resized, or 1 × 60000 fills memory


# All that Pillow's decoders are known to raise at damaged files; RuntimeError is the AVIF decoder's.
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, RuntimeError, struct.error,
)  # fmt: skip


def open_image(path: str | Path, *, max_megapixels: float = 170.0) -> Image.Image:
    """The picture in `path` as upright RGB, as a viewer would show it.

    EXIF orientation is applied first; 16-bit grey is scaled, not clipped; transparency lies on white; of an
    animation the first frame is taken. Raises ImageError with the reason in plain words: missing, empty,
    not an image, truncated, larger than `max_megapixels`.
    """
    path = Path(path)
    _refuse_unreadable(path)
    try:
        with Image.open(path) as image:
            _refuse_large(path, image, max_megapixels)
            image.load()
            _turn_upright(image)
            return to_rgb(image)
    except UnidentifiedImageError:
        raise ImageError(path, "not an image, or of a kind that cannot be read") from None
    except Image.DecompressionBombError:
        raise ImageError(path, f"too large: more than {max_megapixels:g} megapixels") from None
    except MemoryError:
        raise ImageError(path, "too large for the memory of this machine") from None
    except _DECODER_ERRORS as error:
        raise ImageError(path, f"truncated or damaged ({error})") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image as RGB: 16-bit and float grey scaled to 8 bits, transparency composited on white."""
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I", "F"):
        return _grey_to_rgb(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # no copy: a large photo is 50 MB and more


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """What is done to a picture before the trunk sees it; a trunk's own equals timm's evaluation transform.

    size: side in pixels of the square that the trunk takes.  mean, std: per channel, of values in [0, 1].
    crop_pct: share of the resized picture that the central crop keeps, per side.
    mode: "crop" scales the shorter side and cuts the central square.
        "squash" scales both sides; with crop_pct 1 nothing is lost, and timm has trunks with less.
        "tile" squashes to twice `size`, for the trunk to see as 2 × 2 tiles: at twice the resolution, with
        four forward passes. Nothing is lost here either, and crop_pct is 1.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    mode: View = "crop"

    def __post_init__(self) -> None:
        if self.size <= 0:
            raise ConfigError("size", self.size, "must be at least one pixel")
        if not 0 < self.crop_pct <= 1:
            raise ConfigError("crop_pct", self.crop_pct, "must lie in (0, 1]")
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
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ConfigError(
                "mean, std", (self.mean, self.std), "must be three numbers each, std above zero"
            )

    def with_view(self, view: View) -> Preprocess:
        """These settings with pictures seen in another way.

        "crop" keeps crop_pct, so that a trunk whose own mode it is gets timm's evaluation transform. "squash"
        and "tile" keep the whole picture: crop_pct becomes 1, or MAE's and SigLIP's 0.9 would cut the borders.
        """
        return replace(self, mode=view, crop_pct=self.crop_pct if view == "crop" else 1.0)

    @property
    def side(self) -> int:
        """Side in pixels of what a call returns: `size`, or twice that for the tiles."""
        return self.size * TILES if self.mode == "tile" else self.size

    def __call__(self, image: Image.Image) -> npt.NDArray[np.float32]:
        """A picture of any size and mode -> (3, side, side) float32, normalised, channels RGB."""
        image = image if image.mode == "RGB" else to_rgb(image)
        if self.mode == "crop":
            image = _shorten_strip(image)
        resized, box = self._resize_and_crop(image.size)
        image = image.resize(resized, _INTERPOLATIONS[self.interpolation]).crop(box)
        pixels = np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)
        mean, std = (np.array(v, dtype=np.float32)[:, None, None] for v in (self.mean, self.std))
        return np.ascontiguousarray((pixels - mean) / std)

    def region(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """What the trunk sees of a picture of `size` (width, height): left, top, right, bottom in pixels."""
        (width, height), (left, top, right, bottom) = self._resize_and_crop(size)
        x, y = size[0] / width, size[1] / height
        return left * x, top * y, right * x, bottom * y

    def _resize_and_crop(self, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
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
        """Inverse of `to_dict`."""
        return cls(**{**data, "mean": tuple(data["mean"]), "std": tuple(data["std"])})


def view_of(preprocessing: Mapping[str, Any]) -> View | None:
    """The view under which settings were made, from their dictionary form, as a prompt index records it.

    None: one that `Preprocess.with_view` does not make, such as timm's squash with a central crop of 0.95,
    which only a trunk's own settings have.
    """
    view: View | None = preprocessing.get("mode")
    return None if view == "squash" and preprocessing.get("crop_pct") != 1 else view


def _refuse_unreadable(path: Path) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise ImageError(path, reason or "cannot be read") from None
    if not path.is_file():
        raise ImageError(path, "not a file")
    if size == 0:
        raise ImageError(path, "the file is empty")


def _refuse_large(path: Path, image: Image.Image, max_megapixels: float) -> None:
    megapixels = image.width * image.height / 1e6
    if megapixels > max_megapixels:
        raise ImageError(path, f"too large: {megapixels:.0f} megapixels, at most {max_megapixels:g} are read")


def _turn_upright(image: Image.Image) -> None:
    """Apply the EXIF orientation, in place; a picture whose EXIF block is damaged is still a picture."""
    with suppress(Exception):  # Pillow's EXIF parser raises whatever the damage leads it to
        ImageOps.exif_transpose(image, in_place=True)


def _grey_to_rgb(image: Image.Image) -> Image.Image:
    """16-bit grey by its fixed range; 32-bit integer and float grey, which have none, by their own."""
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I;16"):
        low, high = 0.0, 65535.0
    elif image.mode == "I" and low >= 0 and high <= 65535:  # 8- or 16-bit values in a wide container
        low, high = 0.0, 255.0 if high <= 255 else 65535.0
    grey = (values - low) * (255.0 / (high - low if high > low else 1.0))
    return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")


def _shorten_strip(image: Image.Image) -> Image.Image:
    """Cut the ends off a very long strip: the central crop would drop them anyway, after a huge resize."""
    longest = _LONGEST_STRIP * min(image.size)
    if max(image.size) <= longest:
        return image
    width, height = (min(s, longest + (s - longest) % 2) for s in image.size)  # as much from either end
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
