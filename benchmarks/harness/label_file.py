"""Segmentation PNGs: masks, and label maps whose pixels are class numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from steersearch.core.errors import BenchmarkError, ImageError, SampleError
from steersearch.core.images.pillow import opened
from steersearch.training.data.mask_codec import Mask, MaskError
from steersearch.training.data.mask_file import read_mask_file
from steersearch.training.data.orientation import fit, read_header, turn

Labels = npt.NDArray[np.uint8]  # (H, W): 0 no class, else the number of a class in its list, from 1
Colour = tuple[int, int, int]

VOID = 255


def read_mask(path: Path, picture: Path) -> Mask:
    """The mask in a PNG, upright like its picture in a viewer, (H, W) bool, perhaps at another scale.

    Raises BenchmarkError.
    """
    try:
        mask, header = read_mask_file(path), read_header(picture)
        if mask.shape in (header.stored, header.shown):
            return fit(mask, header, "stored", "shown")
        return turn(mask, header.orientation)
    except MaskError as error:
        raise BenchmarkError(f"{path}: {error}") from error
    except SampleError as error:
        raise BenchmarkError(f"{picture}: {error.reason}") from error


def read_labels(
    path: Path,
    classes: int,
    picture: Path | None = None,
    colours: Sequence[Colour] = (),
    *,
    void: bool = False,
) -> Labels:
    """The class numbers in a PNG: 0 to `classes`, and VOID if `void`.

    picture: the labelled picture; labels get its upright size and orientation
    colours: of each class, if the data set defines them, for palettes in another order
    Raises BenchmarkError.
    """
    try:
        with opened(path, ["PNG"]) as image:
            image.load()
            values = _numbers(image, classes, colours)
        if values is None:
            raise BenchmarkError(f"{path}: its pixels are {image.mode}, not numbers of classes")
        wrong = values[(values > classes) & ~(void & (values == VOID))]
        if wrong.size:
            raise BenchmarkError(f"{path}: class {wrong[0]}, and there are {classes}")
        labels = values.astype(np.uint8)
        return labels if picture is None else fit(labels, read_header(picture), "stored", "shown")
    except ImageError as error:
        raise BenchmarkError(f"{path}: cannot be read ({error.reason})") from error
    except MaskError as error:
        raise BenchmarkError(f"{path}: {error}") from error
    except SampleError as error:
        raise BenchmarkError(f"{picture}: {error.reason}") from error


def voc_colours() -> list[Colour]:
    """VOC's palette: the bits of a number go to red, green and blue in turn, each filled from its highest bit."""
    bits = [[(n >> (3 * i + c) & 1) << (7 - i) for i in range(3)] for n in range(256) for c in range(3)]
    channels = [sum(part) for part in bits]
    return [(channels[3 * n], channels[3 * n + 1], channels[3 * n + 2]) for n in range(VOID)] + [
        (224, 224, 192)
    ]


def _numbers(image: Image.Image, classes: int, colours: Sequence[Colour]) -> npt.NDArray[np.integer] | None:
    """The class numbers of an image's pixels; None for unknown colours."""
    if image.mode == "RGB" and colours:
        return _by_colour(image, colours)
    if image.mode in ("1", "L", "I;16", "I"):
        return np.asarray(image).astype(np.int64)
    if image.mode != "P":
        return None
    values = np.asarray(image)
    palette = np.array(image.getpalette("RGB") or [], np.int64).reshape(-1, 3)
    used = np.unique(values)
    if len(palette) <= used[-1]:
        return values
    by_colour = _by_colour(image.convert("RGB"), colours) if colours else None
    if by_colour is not None:
        return by_colour
    greys = palette[used, 0]
    used_greys = set(greys.tolist()) - {0, VOID}
    if (palette[used] == greys[:, None]).all() and used_greys and max(used_greys) <= classes:
        numbers: npt.NDArray[np.integer] = palette[values, 0]
        return numbers
    return values


def _by_colour(image: Image.Image, colours: Sequence[Colour]) -> npt.NDArray[np.integer] | None:
    """None if there are other colours, or only black, which every palette has."""
    pixels = np.asarray(image).astype(np.int64) @ (1 << 16, 1 << 8, 1)
    keys = np.array(colours) @ (1 << 16, 1 << 8, 1)
    order = np.argsort(keys, kind="stable")
    places = np.searchsorted(keys, pixels, sorter=order).clip(max=len(keys) - 1)
    numbers: npt.NDArray[np.integer] = order[places]
    return numbers if (keys[numbers] == pixels).all() and numbers.any() else None
