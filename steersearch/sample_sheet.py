"""A sheet of training samples: each picture with its mask tinted and outlined, or its boxes, the expression below."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from steersearch.core.preprocess import open_image
from steersearch.lettering import font_for, lines_of, printable
from steersearch.training.data import Boxed, Sample

Colour = tuple[int, int, int]

PAPER, INK, SOFT, FRAME = (255, 254, 251), (33, 31, 28), (109, 103, 95), (230, 226, 218)
TINT, EDGE = (255, 110, 0), (255, 255, 255)
TINT_OPACITY = 0.45
CELL, GAP, MARGIN = 260, 22, 28  # pixels; pictures are fitted into a square cell
CAPTION, NOTE, LINES = 14, 12, 4  # letter sizes, and lines of an expression
COLUMNS = 6


def draw_samples(samples: Sequence[Sample | Boxed]) -> Image.Image:
    """The sheet, RGB, left to right and top to bottom."""
    columns = min(COLUMNS, max(1, len(samples)))
    rows = -(-len(samples) // columns)
    text_height = LINES * _line_height(CAPTION) + _line_height(NOTE) + 8
    across, down = CELL + GAP, CELL + text_height + GAP
    sheet = Image.new("RGB", (2 * MARGIN + columns * across - GAP, 2 * MARGIN + rows * down - GAP), PAPER)
    for number, sample in enumerate(samples):
        x, y = MARGIN + number % columns * across, MARGIN + number // columns * down
        sheet.paste(FRAME, (x, y, x + CELL, y + CELL))
        picture = draw_sample(sample, CELL)
        sheet.paste(picture, (x + (CELL - picture.width) // 2, y + (CELL - picture.height) // 2))
        _caption(sheet, sample, x, y + CELL + 6)
    return sheet


def draw_sample(sample: Sample | Boxed, side: int) -> Image.Image:
    """The picture in at most `side` × `side` pixels, what the expression means marked; RGB."""
    photo = open_image(sample.image)
    scale = side / max(photo.size)
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    small = photo.resize(size, Image.Resampling.LANCZOS)
    if isinstance(sample, Sample):
        return _tinted(small, sample.mask)
    draw = ImageDraw.Draw(small)
    for left, top, width, height in (sample.boxes * scale).tolist():
        for colour, grow in ((EDGE, 1), (TINT, 0)):
            draw.rectangle(
                (left - grow, top - grow, left + width + grow, top + height + grow), outline=colour
            )
    return small


def _tinted(picture: Image.Image, mask: npt.NDArray[np.bool_]) -> Image.Image:
    """Colour over the mask and a line around it, which shows even where the mask is a few pixels."""
    cover = Image.fromarray(mask.astype(np.uint8) * 255).resize(picture.size, Image.Resampling.BOX)
    inside = cover.point([255 * (value >= 96) for value in range(256)])
    if not inside.getbbox():  # so small that no pixel is left of it
        inside = cover.point([255 * (value > 0) for value in range(256)])
    tinted = Image.composite(Image.new("RGB", picture.size, TINT), picture, inside.point(_opacity))
    ring = np.asarray(inside.filter(ImageFilter.MaxFilter(3))) > np.asarray(inside)
    tinted.paste(EDGE, (0, 0), Image.fromarray(ring.astype(np.uint8) * 255))
    return tinted


def _opacity(value: int) -> int:
    return round(TINT_OPACITY * value)


def _caption(sheet: Image.Image, sample: Sample | Boxed, x: int, y: int) -> None:
    draw = ImageDraw.Draw(sheet)
    text = printable(sample.expression)
    font = font_for(text, CAPTION)
    for line in lines_of(text, font, CELL, LINES):
        draw.text((x, y + CAPTION), line, fill=INK, font=font, anchor="ls")
        y += _line_height(CAPTION)
    what = f"{sample.mask.mean():.1%}" if isinstance(sample, Sample) else "boxes, no mask"
    note = printable(f"{what} · {sample.source} · {sample.split} · {sample.image.name}")
    font = font_for(note, NOTE)
    for line in lines_of(note, font, CELL, 1):
        draw.text((x, y + NOTE + 2), line, fill=SOFT, font=font, anchor="ls")


def _line_height(size: int) -> int:
    return round(1.3 * size)
