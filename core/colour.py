"""What the numbers of a picture look like: its colour profile, and the conversion to sRGB through littleCMS."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from steersearch.core.png_chunk import png_chunk

_SRGB_PRIMARIES = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)  # x, y of white, red, green, blue
_P3_PRIMARIES = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
_REC2020_PRIMARIES = (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
_ADOBE_PRIMARIES = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_CODED_PRIMARIES = {9: _REC2020_PRIMARIES, 12: _P3_PRIMARIES}  # by their numbers in ITU-T H.273
_ADOBE_GAMMA = 563 / 256
_INTEROPERABILITY = 0xA005  # EXIF's directory in which cameras say "R03" for Adobe RGB

_MODE_OF = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}  # of a profile's colour space, in Pillow
_UNSEEN = 2  # of 255: a profile that moves no colour further is sRGB under another name
TAKEN_FOR_SRGB = "its colours are taken for sRGB"


@dataclass(frozen=True)
class Conversion:
    """From one colour profile to sRGB. mode: of the pictures that `apply` takes, "RGB" also takes RGBA.

    transform: None where nothing is to be done.  remark: why nothing can be done, in words for the user.
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
    """The ICC profile that a picture carries, or one made of what its file says in other ways; None for sRGB.

    In their order: a PNG's cICP, an embedded profile, the numbers of HEIF, a PNG's gAMA and cHRM, EXIF's Adobe RGB.
    file: the picture's, open for reading and seeking; only cICP is read from it.
    """
    if image.format == "PNG" and file is not None and (numbers := png_chunk(file, b"cICP")):
        return _coded_profile(*numbers[:2])
    profile = image.info.get("icc_profile")
    if profile:
        return bytes(profile)
    if coded := image.info.get("nclx_profile"):
        return _coded_profile(coded.get("color_primaries", 0), coded.get("transfer_characteristics", 0))
    if "gamma" in image.info and "srgb" not in image.info:
        return _png_profile(image.info["gamma"], image.info.get("chromaticity", _SRGB_PRIMARIES))
    return matrix_profile(_ADOBE_PRIMARIES, _ADOBE_GAMMA) if _says_adobe_rgb(image) else None


@lru_cache(maxsize=64)
def conversion(profile: bytes | None, grey: bool, mode: str) -> Conversion:
    """How a picture of `mode` with this profile becomes sRGB.

    A profile that cannot be read, or is for other pictures (that of a press in an RGB photo), is not used.
    grey: whether the picture has no colours, so that a profile for grey fits.
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
    except Exception as error:  # littleCMS and Pillow fail in several ways at a damaged profile
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
    """From a number in the file to light, as ICC profiles have it."""
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
    """The matrix that takes colours seen under `white` to those seen under the white of ICC profiles."""
    cones = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    adapted: npt.NDArray[np.float64] = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD
    return adapted


def _fixed(value: float) -> int:
    return round(value * 65536)


def _xyz(values: npt.NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *map(_fixed, values))


def _coded_profile(primaries: int, transfer: int) -> bytes | None:
    """By their numbers in ITU-T H.273. The curves of standard video are shown as sRGB's is, HDR up to its white."""
    curve = {16: "PQ", 18: "HLG"}.get(transfer, "sRGB")
    if primaries not in _CODED_PRIMARIES and curve == "sRGB":
        return None
    return matrix_profile(_CODED_PRIMARIES.get(primaries, _SRGB_PRIMARIES), curve)


def _png_profile(gamma: float, primaries: Sequence[float]) -> bytes | None:
    """Of a PNG without ICC profile; None where what it says is sRGB, or nonsense."""
    is_srgb = abs(gamma * 2.2 - 1) < 0.05 and np.allclose(primaries, _SRGB_PRIMARIES, atol=0.01)
    if is_srgb or not 0.1 < gamma < 10 or min(primaries[1::2]) <= 0:
        return None
    try:
        return matrix_profile(tuple(primaries), "sRGB" if abs(gamma * 2.2 - 1) < 0.05 else 1 / gamma)
    except np.linalg.LinAlgError:  # primaries on one line
        return None


def _says_adobe_rgb(image: Image.Image) -> bool:
    try:
        return str(image.getexif().get_ifd(_INTEROPERABILITY).get(1, "")).startswith("R03")
    except Exception:  # Pillow's EXIF parser raises whatever the damage leads it to
        return False


def _changes_nothing(done: Conversion) -> bool:
    """Whether all colours, looked at in steps, stay where they are."""
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
