"""Any picture that Pillow decodes as 8-bit sRGB. In strips, to take little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from steersearch.core.colour import Conversion, conversion, profile_of

STRIP = 2**20  # pixels that are converted at a time
_DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_GREY = ("1", "L", "LA", "La", *_DEEP_GREY)
_PHOTOMETRIC, _SAMPLE_FORMAT = 262, 339  # TIFF tags
_WHITE_IS_ZERO, _UNSIGNED, _SIGNED = 0, 1, 2  # what they say


def to_rgb(image: Image.Image, profile: bytes | None = None, shrink: int = 1) -> Image.Image:
    """A picture of any mode as RGB in sRGB, transparency on white, grey of more than 8 bits scaled to 8.

    profile: its ICC profile; None is the one that it carries.  shrink: the result has a `shrink`th of the width and of
    the height, rounded up; each pixel is the mean of those that it stands for.
    Returns the picture itself where nothing is to be done.
    """
    return converted(image, conversion_of(image, profile), shrink)


def conversion_of(
    image: Image.Image, profile: bytes | None = None, file: BinaryIO | None = None
) -> Conversion:
    """How the colours of a picture become sRGB, by the profile given or else its own, see `profile_of`."""
    return conversion(profile or profile_of(image, file), image.mode in _GREY, image.mode)


def converted(image: Image.Image, colours: Conversion, shrink: int = 1) -> Image.Image:
    """`to_rgb`, with the conversion of its colours at hand."""
    image.load()
    if image.mode == "RGB" and colours.transform is None and shrink == 1 and not image.has_transparency_data:
        return image
    is_deep = image.mode in _DEEP_GREY or _stored_type(image) is not None
    convert = _deep_grey_converter(image, colours) if is_deep else _converter(image, colours)
    if shrink == 1 and image.width * image.height <= STRIP:
        return convert(image)
    result = Image.new("RGB", (-(-image.width // shrink), -(-image.height // shrink)))
    for top, strip in _strips(image, shrink):
        rgb = convert(strip)
        result.paste(rgb.reduce(shrink) if shrink > 1 else rgb, (0, top // shrink))
    return result


def _strips(image: Image.Image, multiple: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """A picture in strips of its full width, each with its first row; their heights are multiples of `multiple`."""
    rows = max(1, STRIP // (image.width * multiple)) * multiple
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(image.height, top + rows)))


def _converter(image: Image.Image, colours: Conversion) -> Callable[[Image.Image], Image.Image]:
    is_transparent = image.has_transparency_data

    def convert(strip: Image.Image) -> Image.Image:
        alpha = None
        if is_transparent:
            strip = (strip.convert("LA") if strip.mode == "La" else strip).convert("RGBA")
            alpha = strip.getchannel("A")
        if colours.transform is not None and strip.mode != colours.mode:
            strip = strip.convert(colours.mode)
        rgb = colours.apply(strip)
        return rgb if alpha is None else Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)

    return convert


def _deep_grey_converter(image: Image.Image, colours: Conversion) -> Callable[[Image.Image], Image.Image]:
    """Grey of more than 8 bits: its range is looked up once, for the whole picture."""
    stored = _stored_type(image)

    def values_of(strip: Image.Image) -> npt.NDArray[Any]:
        values = np.asarray(strip)
        return values if stored is None else values.view(stored)

    black, white = _black_and_white(image, [_extremes(values_of(strip)) for _, strip in _strips(image)])
    see_through = image.info.get("transparency")  # in a PNG, one of the values
    curve = None
    if colours.mode == "L" and colours.transform is not None:
        curve = np.asarray(colours.apply(Image.frombytes("L", (256, 1), bytes(range(256)))))[0, :, 1]

    def grey_of(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        grey = np.clip((values.astype(np.float64) - black) * (255.0 / (white - black)), 0, 255)
        if curve is not None:
            grey = np.interp(grey, np.arange(256), curve)
        if isinstance(see_through, int):
            grey[values == see_through] = 255
        return np.nan_to_num(grey).round().astype(np.uint8)

    table = grey_of(np.arange(2**16)) if image.mode.startswith("I;16") else None

    def convert(strip: Image.Image) -> Image.Image:
        values = values_of(strip)
        grey = grey_of(values) if table is None else table[values]
        rgb = Image.fromarray(grey).convert("RGB")
        return rgb if curve is not None else colours.apply(rgb)

    return convert


def _extremes(values: npt.NDArray[Any]) -> tuple[float, float]:
    finite = values if values.dtype.kind in "iu" else values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _stored_type(image: Image.Image) -> str | None:
    """NumPy's type of grey values that Pillow gives in another: it has no signed bytes and no unsigned 32 bits."""
    return {("L", _SIGNED): "i1", ("I", _UNSIGNED): "u4"}.get((image.mode, _tag(image, _SAMPLE_FORMAT) or 0))


def _black_and_white(image: Image.Image, extremes: list[tuple[float, float]]) -> tuple[float, float]:
    """The values that are black and white, where Pillow gives a picture as it is stored.

    Whole numbers from 0 up are taken for the least of 8, 12 and 16 bits that holds them (16 bits are not taken for 8),
    floats within [0, 1] for shares of white. All else, signed numbers too, has no convention: by its own range.
    """
    low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
    is_negative = _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO
    is_signed = _tag(image, _SAMPLE_FORMAT) == _SIGNED
    if image.mode == "F":
        scale = [1.0]
    elif image.mode == "I":
        scale = [] if is_signed else [255.0, 4095.0, 65535.0]
    else:
        scale = [65535.0] if is_negative else [4095.0, 65535.0]
    white = next((white for white in scale if low >= 0 and high <= white), None)
    low, high = (low, max(high, low + 1e-9)) if white is None else (0.0, white)
    return (high, low) if is_negative else (low, high)


def _tag(image: Image.Image, number: int) -> int | None:
    """A TIFF's tag, the first of its values; None in other pictures."""
    value = getattr(image, "tag_v2", {}).get(number)
    return value[0] if isinstance(value, tuple) else value
