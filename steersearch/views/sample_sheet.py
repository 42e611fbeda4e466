"""A sheet of training samples: what the expression names is outlined and in its own colours, the rest pale.

The thing itself has no tint, since an expression may be about its colour.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from steersearch.training.data.samples import Boxed, Sample
from steersearch.views.lettering import font_for, lines_of, printable

Colour = tuple[int, int, int]

PAPER, INK, SOFT, FRAME = (255, 254, 251), (33, 31, 28), (109, 103, 95), (230, 226, 218)
EDGE = (255, 90, 0)
PALE = 0.5  # how far the outside of the mask fades to white
CELL, GAP, MARGIN = 260, 22, 28  # pixels; pictures are fitted into a square cell
CAPTION, NOTE, LINES = 14, 12, 4  # letter sizes, and lines of an expression
COLUMNS = 6


def draw_samples(samples: Sequence[Sample | Boxed], pictures: Iterable[Image.Image]) -> Image.Image:
    """The sheet, RGB, left to right and top to bottom. pictures: of each sample, requested one at a time."""
    photos = iter(pictures)
    columns = min(COLUMNS, max(1, len(samples)))
    lines = [samples[start : start + columns] for start in range(0, len(samples), columns)]
    heights = [CELL + 6 + max(_caption_height(sample) for sample in line) for line in lines]
    width = 2 * MARGIN + columns * (CELL + GAP) - GAP
    sheet = Image.new("RGB", (width, 2 * MARGIN + sum(heights) + GAP * (len(lines) - 1)), PAPER)
    y = MARGIN
    for line, height in zip(lines, heights, strict=True):
        for column, sample in enumerate(line):
            x = MARGIN + column * (CELL + GAP)
            sheet.paste(FRAME, (x, y, x + CELL, y + CELL))
            picture = draw_sample(sample, next(photos), CELL)
            sheet.paste(picture, (x + (CELL - picture.width) // 2, y + (CELL - picture.height) // 2))
            _caption(sheet, sample, x, y + CELL + 6)
        y += height + GAP
    return sheet


def draw_sample(sample: Sample | Boxed, photo: Image.Image, side: int) -> Image.Image:
    """The photo with its longer side at `side` pixels, RGB; what the expression names is marked."""
    scale = side / max(photo.size)
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    small = photo.resize(size, Image.Resampling.LANCZOS)
    if isinstance(sample, Sample):
        return _marked(small, sample.mask)
    draw = ImageDraw.Draw(small)
    for left, top, width, height in (sample.boxes * scale).tolist():
        draw.rectangle((left, top, left + width, top + height), outline=EDGE, width=2)
    return small


def _marked(picture: Image.Image, mask: npt.NDArray[np.bool_]) -> Image.Image:
    """Pale grey outside of the mask, and a line around it, which shows even where the mask is a few pixels."""
    cover = Image.fromarray(mask.astype(np.uint8) * 255).resize(picture.size, Image.Resampling.BOX)
    inside = cover.point([255 * (value >= 128) for value in range(256)])
    if not inside.getbbox():  # too small to keep a pixel
        inside = cover.point([255 * (value > 0) for value in range(256)])
    pale = ImageOps.grayscale(picture).point([round(grey + PALE * (255 - grey)) for grey in range(256)])
    marked = Image.composite(picture, pale.convert("RGB"), inside)
    around = ImageChops.subtract(inside.filter(ImageFilter.MaxFilter(5)), inside)
    marked.paste(EDGE, (0, 0), around)
    return marked


def _lines(sample: Sample | Boxed) -> list[str]:
    text = printable(sample.expression)
    return lines_of(text, font_for(text, CAPTION), CELL, LINES)


def _caption_height(sample: Sample | Boxed) -> int:
    return len(_lines(sample)) * _line_height(CAPTION) + _line_height(NOTE)


def _caption(sheet: Image.Image, sample: Sample | Boxed, x: int, y: int) -> None:
    draw = ImageDraw.Draw(sheet)
    font = font_for(printable(sample.expression), CAPTION)
    for line in _lines(sample):
        draw.text((x, y + CAPTION), line, fill=INK, font=font, anchor="ls")
        y += _line_height(CAPTION)
    what = f"{sample.mask.mean():.1%}" if isinstance(sample, Sample) else "boxes, no mask"
    what = "fits nothing" if isinstance(sample, Sample) and sample.absent else what
    note = printable(f"{what} · {sample.source} · {sample.split} · {sample.image.name}")
    font = font_for(note, NOTE)
    for line in lines_of(note, font, CELL, 1):
        draw.text((x, y + NOTE + 2), line, fill=SOFT, font=font, anchor="ls")


def _line_height(size: int) -> int:
    return round(1.3 * size)
