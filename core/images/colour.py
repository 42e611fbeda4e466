"""Convert any picture of Pillow to 8-bit sRGB: find its colour profile and apply it with littleCMS.

The conversion works in strips, to save memory.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from steersearch.core.images.boxes import avif_codes, jp2_profile
from steersearch.core.images.pillow import png_chunk

STRIP = 2**20  # pixels converted at a time
_DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_GREY = ("1", "L", "LA", "La", *_DEEP_GREY)
_PHOTOMETRIC, _SAMPLE_FORMAT = 262, 339  # TIFF tags
_WHITE_IS_ZERO, _UNSIGNED, _SIGNED = 0, 1, 2  # their values


def to_rgb(image: Image.Image, profile: bytes | None = None, shrink: int = 1) -> Image.Image:
    """Convert a picture of any mode to sRGB, transparency on white, grey of more than 8 bits scaled to 8.

    profile: its ICC profile; None: the embedded one.
    shrink: divides width and height, rounded up; pixels are averaged.
    Returns the picture itself if there is nothing to do.
    """
    return converted(image, conversion_of(image, profile), shrink)


def conversion_of(
    image: Image.Image, profile: bytes | None = None, file: BinaryIO | None = None
) -> Conversion:
    """The conversion of a picture to sRGB, from `profile` or else its own, see `profile_of`."""
    return conversion(profile or profile_of(image, file), image.mode in _GREY, image.mode)


def converted(image: Image.Image, colours: Conversion, shrink: int = 1) -> Image.Image:
    """As `to_rgb`, with a given conversion."""
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
    """Strips of full width, each with its first row; heights are multiples of `multiple`."""
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
    """For grey of more than 8 bits, whose range is measured once over the whole picture."""
    stored = _stored_type(image)

    def values_of(strip: Image.Image) -> npt.NDArray[Any]:
        values = np.asarray(strip)
        return values if stored is None else values.view(stored)

    black, white = _black_and_white(image, [_extremes(values_of(strip)) for _, strip in _strips(image)])
    see_through = image.info.get("transparency")  # in a PNG, the value that is transparent
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
    """NumPy's dtype of grey values in a type that Pillow lacks (signed bytes, unsigned 32 bits), else None."""
    format = _tag(image, _SAMPLE_FORMAT) or (_UNSIGNED if image.format == "TIFF" else 0)  # TIFF's default
    return {("L", _SIGNED): "i1", ("I", _UNSIGNED): "u4"}.get((image.mode, format))


def _black_and_white(image: Image.Image, extremes: list[tuple[float, float]]) -> tuple[float, float]:
    """The values of black and white in a picture that Pillow does not normalise.

    Non-negative integers have the smallest of 8, 12 and 16 bits that fits (16 bits never count as 8); floats within
    [0, 1] are shares of white. For all else, signed numbers included, there is no convention: its own range counts.
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
    """The first value of a TIFF tag; None for other formats."""
    value = getattr(image, "tag_v2", {}).get(number)
    return value[0] if isinstance(value, tuple) else value


# ----------------------------------------------------------------------------------------------------- colour profiles

_SRGB_PRIMARIES = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)  # x, y of white, red, green, blue
_P3_PRIMARIES = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
_REC2020_PRIMARIES = (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
_ADOBE_PRIMARIES = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_CINEMA_PRIMARIES = (0.314, 0.351, *_P3_PRIMARIES[2:])
# By their codes in ITU-T H.273. Others are those of sRGB, or hardly differ.
_CODED_PRIMARIES = {9: _REC2020_PRIMARIES, 11: _CINEMA_PRIMARIES, 12: _P3_PRIMARIES}
_CODED_CURVES: dict[int, float | str] = {4: 2.2, 5: 2.8, 8: 1.0, 16: "PQ", 17: 2.6, 18: "HLG"}
_ADOBE_GAMMA = 563 / 256
_EXIF, _COLOUR_SPACE = 0x8769, 0xA001  # EXIF's main directory, and its tag for sRGB (1) and Adobe RGB (2)
_INTEROPERABILITY = 0xA005  # EXIF's directory in which cameras say "R03" for Adobe RGB

# Pillow's mode of a profile's colour space.
_MODE_OF = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
_UNSEEN = 2  # of 255: a profile that changes no colour by more is sRGB under another name
TAKEN_FOR_SRGB = "its colours are taken for sRGB"


@dataclass(frozen=True)
class Conversion:
    """From one colour profile to sRGB. mode: the mode that `apply` takes; "RGB" includes RGBA.

    transform: None if the colours stay.  remark: for the user, why a profile is not used.
    """

    mode: str = "RGB"
    transform: ImageCms.ImageCmsTransform | None = None
    remark: str | None = None

    def apply(self, image: Image.Image) -> Image.Image:
        """A picture of `mode` as RGB."""
        if self.transform is None:
            return image.convert("RGB")
        return ImageCms.applyTransform(image, self.transform) or image


NO_CONVERSION = Conversion()


def profile_of(image: Image.Image, file: BinaryIO | None = None) -> bytes | None:
    """The ICC profile of a picture, embedded or built from other information in its file; None for sRGB.

    In order of precedence: a PNG's cICP, an embedded profile, codes of HEIF or AVIF, a PNG's gAMA and cHRM, EXIF's
    Adobe RGB.
    file: the picture's, open for reading and seeking; needed for cICP, AVIF's codes and JPEG 2000's profile.
    """
    if image.format == "PNG" and file is not None and (numbers := png_chunk(file, b"cICP")):
        return _coded_profile(*numbers[:2])
    profile = image.info.get("icc_profile")
    if profile:
        return bytes(profile)
    if image.format == "JPEG2000" and file is not None and (profile := jp2_profile(file)):
        return profile
    if image.format == "AVIF" and file is not None and (codes := avif_codes(file)):
        return _coded_profile(*codes)
    if coded := image.info.get("nclx_profile"):
        return _coded_profile(coded.get("color_primaries", 0), coded.get("transfer_characteristics", 0))
    if "gamma" in image.info and "srgb" not in image.info:
        return _png_profile(image.info["gamma"], image.info.get("chromaticity", _SRGB_PRIMARIES))
    return matrix_profile(_ADOBE_PRIMARIES, _ADOBE_GAMMA) if _says_adobe_rgb(image) else None


@lru_cache(maxsize=64)
def conversion(profile: bytes | None, grey: bool, mode: str) -> Conversion:
    """The conversion to sRGB of a picture of `mode` with this profile.

    Ignores a profile that cannot be read or has another colour space (such as CMYK in an RGB photo).
    grey: whether the picture is grey, so that a grey profile fits.
    """
    if profile is None:
        return NO_CONVERSION
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        found = _MODE_OF.get(space)
        fitting = {"CMYK": "CMYK", "LAB": "LAB"}.get(mode, "RGB")
        if found != fitting and not (grey and found == "L"):
            what = "grey" if grey else mode
            return Conversion(
                remark=f"its colour profile is for {space}, the picture is {what}; {TAKEN_FOR_SRGB}"
            )
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), found, "RGB")
    except Exception as error:  # littleCMS and Pillow raise several types for a damaged profile
        return Conversion(remark=f"its colour profile cannot be read ({_plain(error)}); {TAKEN_FOR_SRGB}")
    done = Conversion(found, transform)
    return NO_CONVERSION if _changes_nothing(done) else done


@lru_cache(maxsize=16)
def matrix_profile(primaries: Sequence[float], curve: float | str = "sRGB") -> bytes:
    """An ICC profile of three primaries and a curve.

    primaries: x, y of white, red, green, blue.  curve: a gamma, "sRGB", "PQ" or "HLG".
    """
    places = zip(primaries[::2], primaries[1::2], strict=True)
    white, *colours = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in places)
    columns = np.stack(colours, axis=1)
    columns = _adapted_to_d50(white) @ (columns * np.linalg.solve(columns, white))
    packed = _packed_curve(curve)
    tags = {b"wtpt": _xyz(_D50)} | {name + b"TRC": packed for name in (b"r", b"g", b"b")}
    tags |= {name + b"XYZ": _xyz(column) for name, column in zip((b"r", b"g", b"b"), columns.T, strict=True)}
    table, data, start = b"", b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    head = struct.pack(
        ">I4sI4s4s4s12s4s", start + len(data), b"", 0x04000000, b"mntr", b"RGB ", b"XYZ ", b"", b"acsp"
    )
    head = head.ljust(68, b"\0") + struct.pack(">3i", *map(_fixed, _D50))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def _packed_curve(curve: float | str) -> bytes:
    """The transfer curve, from values in the file to light, in ICC format."""
    if curve == "sRGB":
        numbers = map(_fixed, (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
        return b"para\0\0\0\0" + struct.pack(">HH5i", 3, 0, *numbers)
    if isinstance(curve, float | int):
        return b"para\0\0\0\0" + struct.pack(">HHi", 0, 0, _fixed(curve))
    x = np.linspace(0, 1, 1024)
    if curve == "PQ":  # SMPTE ST 2084; the white of an SDR picture is at 203 of 10,000 nits
        root = x ** (1 / 78.84375)
        share = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
        light = share ** (1 / 0.1593017578125) * 10_000 / 203
    else:  # ARIB STD-B67; white is at three quarters
        light = (
            np.where(x <= 0.5, x**2 / 3, (np.exp((x - 0.55991073) / 0.17883277) + 0.28466892) / 12) / 0.265
        )
    table = (light.clip(0, 1) * 65535).round().astype(">u2").tobytes()
    return b"curv\0\0\0\0" + struct.pack(">I", len(x)) + table


_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def _adapted_to_d50(white: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The matrix of chromatic adaptation from `white` to D50, the white of ICC profiles."""
    cones = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    adapted: npt.NDArray[np.float64] = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD
    return adapted


def _fixed(value: float) -> int:
    return round(value * 65536)


def _xyz(values: npt.NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *map(_fixed, values))


def _coded_profile(primaries: int, transfer: int) -> bytes | None:
    """The profile for codes of ITU-T H.273. Standard video gets sRGB's curve; HDR is shown up to its white."""
    curve = _CODED_CURVES.get(transfer, "sRGB")
    if primaries not in _CODED_PRIMARIES and curve == "sRGB":
        return None
    return matrix_profile(_CODED_PRIMARIES.get(primaries, _SRGB_PRIMARIES), curve)


def _png_profile(gamma: float, primaries: Sequence[float]) -> bytes | None:
    """The profile of a PNG's gAMA and cHRM; None if they are sRGB or nonsense."""
    is_srgb = abs(gamma * 2.2 - 1) < 0.05 and np.allclose(primaries, _SRGB_PRIMARIES, atol=0.01)
    if is_srgb or not 0.1 < gamma < 10 or min(primaries[1::2]) <= 0:
        return None
    try:
        return matrix_profile(tuple(primaries), "sRGB" if abs(gamma * 2.2 - 1) < 0.05 else 1 / gamma)
    except np.linalg.LinAlgError:  # primaries on one line
        return None


def _says_adobe_rgb(image: Image.Image) -> bool:
    try:
        exif = image.getexif()
        named = str(exif.get_ifd(_INTEROPERABILITY).get(1, "")).startswith("R03")
        return named or exif.get_ifd(_EXIF).get(_COLOUR_SPACE) == 2
    except Exception:  # Pillow's EXIF parser raises many types for a damaged block
        return False


def _changes_nothing(done: Conversion) -> bool:
    """Whether a conversion keeps all colours of a coarse grid."""
    if done.mode == "L":
        ramp = Image.frombytes("L", (256, 1), bytes(range(256)))
        return _differs_little(done.apply(ramp), ramp.convert("RGB"))
    if done.mode != "RGB":
        return False
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    cube = Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3))
    return _differs_little(done.apply(cube), cube)


def _differs_little(one: Image.Image, other: Image.Image) -> bool:
    return bool(np.abs(np.asarray(one, int) - np.asarray(other, int)).max() <= _UNSEEN)


def _plain(error: Exception) -> str:
    return str(error.args[0] if error.args else error) or type(error).__name__
