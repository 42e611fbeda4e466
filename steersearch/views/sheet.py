"""A sheet of maps of one photo: one colour scale for each kind of map, and a legend.

The photo and the legend stand at the top, the maps below, each over the photo with its caption. Parts are
pictures on paper, put together by `_beside` and `_below`; all measures are pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from steersearch.core.heatmaps import overlay, shared_vmax, strengths
from steersearch.views.lettering import font_for, lines_of, printable
from steersearch.views.photo_map import MapKind, PhotoMap

Region = tuple[float, float, float, float]
Colour = tuple[int, int, int]

PAPER, INK, SOFT = (255, 254, 251), (33, 31, 28), (109, 103, 95)
UNDER_BAR = (150, 150, 150)  # the grey photo over which the legend shows the colours
MARGIN, GAP, GROUP_GAP, LINE_GAP, TEXT_GAP, BETWEEN_LINES = 32, 20, 44, 28, 6, 2
TITLE, CAPTION, NOTE = 20, 15, 13  # letter sizes
CELL_SIDES = (320, 280, 240, 200, 180)  # of a square photo; of others the same area
LARGEST_CELL = (560, 480)
LEAST_COLUMN = 184  # of a cell with its caption
LARGEST_SHEET = (2000, 6000)  # size that cells shrink for, as far as they can
CAPTION_HEIGHT = 66
MAPS_IN_A_LINE = 4
LEGEND_WIDTH, BAR_HEIGHT = 430, 14

_TITLES: dict[MapKind, str] = {
    "heatmap": "Heatmap: where the segmentation head sees the focus",
    "attention": "Attention: what the CLS token looks at in the last block",
}
_UNIT = "times an even spread over the photo; up to 1 there is no colour"
_SUMS_TO_ONE = "A heatmap sums to 1 in every photo: it says where, not whether."
_NO_SINKS = "Mean over heads; lone strong patches (sinks) are removed."
_WITH_SINKS = "Mean over heads; lone strong patches (sinks) are kept."
_UNSTEERED = "Gate scale 0: no steering, so each focus gives the same map."
_UNSEEN = "Pale: the model did not see this part of the photo."


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """name: of the photo; note: a line below it; region: what the model saw, in pixels."""

    name: str
    note: str
    photo: Image.Image
    region: Region
    maps: Sequence[PhotoMap]


def draw_sheet(sheet: Sheet) -> Image.Image:
    """The whole sheet, RGB."""
    lines = in_lines(sheet.maps)
    small = _scaled(sheet, _cell_size(sheet.photo.size, lines))
    vmax = {kind: shared_vmax(m.values for m in sheet.maps if m.kind == kind) for kind in _kinds(sheet.maps)}
    drawn = [_line(small, line, vmax) for line in lines]
    below = _below(drawn, LINE_GAP)
    return _framed(_below([_header(small, vmax, below.width), below], LINE_GAP), MARGIN)


def in_lines(maps: Sequence[PhotoMap]) -> list[list[PhotoMap]]:
    """Rows of maps: a row per focus, heatmaps first, by gate_scale.

    A single focus has a row per kind; a single column is broken into rows instead.
    """
    focuses = list(dict.fromkeys(m.focus for m in maps))
    kinds = _kinds(maps)
    lines = [[m for kind in kinds for m in maps if (m.focus, m.kind) == (focus, kind)] for focus in focuses]
    if len(focuses) == 1 and len(lines[0]) > len(kinds):
        return [[m for m in maps if m.kind == kind] for kind in kinds]
    if len(lines[0]) > 1:
        return lines
    count = math.ceil(len(lines) / MAPS_IN_A_LINE)
    length = math.ceil(len(lines) / count)
    column = [line[0] for line in lines]
    return [column[start : start + length] for start in range(0, len(column), length)]


def _kinds(maps: Sequence[PhotoMap]) -> list[MapKind]:
    return list(dict.fromkeys(m.kind for m in maps))


# ------------------------------------------------------------------------------------------------ parts


def _header(sheet: Sheet, vmax: dict[MapKind, float], width: int) -> Image.Image:
    """The photo with its title and legends to the right; `width`: of the maps below."""
    about = [_text(sheet.name, TITLE, INK, LEGEND_WIDTH, 2), _text(sheet.note, NOTE, SOFT, LEGEND_WIDTH, 2)]
    if any(m.gate_scale == 0 for m in sheet.maps):
        about.append(_text(_UNSTEERED, NOTE, SOFT, LEGEND_WIDTH, 1))
    if _is_cropped(sheet.region, sheet.photo.size):
        about.append(_text(_UNSEEN, NOTE, SOFT, LEGEND_WIDTH, 1))
    patches = sheet.maps[0].values.size
    legends = [_legend(kind, top * patches, _note(kind, sheet.maps)) for kind, top in vmax.items()]
    fit = sheet.photo.width + len(legends) * (GROUP_GAP + LEGEND_WIDTH) <= width
    keys = _beside(legends, GROUP_GAP) if fit else _below(legends, GAP)
    return _beside([sheet.photo, _below([_below(about, TEXT_GAP), keys], GAP)], GROUP_GAP)


def _note(kind: MapKind, maps: Sequence[PhotoMap]) -> str:
    if kind == "heatmap":
        return _SUMS_TO_ONE
    return _WITH_SINKS if all(m.sinks is None for m in maps) else _NO_SINKS


def _legend(kind: MapKind, top: float, note: str) -> Image.Image:
    """The colours up to `top` times an even spread, as they look over a grey photo."""
    ramp = np.linspace(0, 1, LEGEND_WIDTH, dtype=np.float32)[None]
    bar = overlay(Image.new("RGB", (LEGEND_WIDTH, BAR_HEIGHT), UNDER_BAR), ramp)
    notes = [_text(text, NOTE, SOFT, LEGEND_WIDTH, 1) for text in (_UNIT, note)]
    return _below(
        [
            _text(_TITLES[kind], CAPTION, INK, LEGEND_WIDTH, 1),
            _below([bar, _ticks(top), *notes], BETWEEN_LINES),
        ],
        TEXT_GAP,
    )


def _ticks(top: float) -> Image.Image:
    """Labels 1, 2, 4, … up to `top`, below the bar at equal distances; see `heatmaps.strengths`."""
    picture = Image.new("RGB", (LEGEND_WIDTH, NOTE + 5), PAPER)
    draw = ImageDraw.Draw(picture)
    for doubling in range(int(math.log2(top)) + 1):
        label = f"{2**doubling}"
        font = font_for(label, NOTE)
        place = LEGEND_WIDTH * doubling / math.log2(top) - font.getlength(label) / 2
        place = min(max(place, 0), LEGEND_WIDTH - font.getlength(label))
        draw.text((place, NOTE), label, fill=SOFT, font=font, anchor="ls")
    return picture


def _line(sheet: Sheet, maps: Sequence[PhotoMap], vmax: dict[MapKind, float]) -> Image.Image:
    parts: list[Image.Image] = []
    for i, shown in enumerate(maps):
        if i and shown.kind != maps[i - 1].kind:
            parts.append(Image.new("RGB", (GROUP_GAP - 2 * GAP, 1), PAPER))
        parts.append(_cell(sheet, shown, vmax[shown.kind]))
    return _beside(parts, GAP)


def _cell(sheet: Sheet, shown: PhotoMap, vmax: float) -> Image.Image:
    """A map over the photo, its caption below."""
    width = max(sheet.photo.width, LEAST_COLUMN)
    lines = [
        _text(shown.title, CAPTION, INK, width, 2),
        _text(f"{shown.kind}, gate scale {shown.gate_scale:g}", NOTE, SOFT, width, 2),
        _text(shown.in_short, NOTE, SOFT, width, 2),
    ]
    over = overlay(sheet.photo, strengths(shown.values, vmax), sheet.region)
    return _below([over, _below(lines, BETWEEN_LINES)], TEXT_GAP)


def _is_cropped(region: Region, size: tuple[int, int]) -> bool:
    """Whether `region` leaves out a pixel or more of a picture of `size` (width, height)."""
    return region[0] >= 1 or region[1] >= 1 or region[2] <= size[0] - 1 or region[3] <= size[1] - 1


# ---------------------------------------------------------------------------------------------- measures


def _cell_size(photo: tuple[int, int], lines: Sequence[Sequence[PhotoMap]]) -> tuple[int, int]:
    """The largest of CELL_SIDES for which the sheet fits LARGEST_SHEET, in the photo's shape."""
    columns = max(len(line) for line in lines)
    for side in CELL_SIDES:
        scale = min(
            side / math.sqrt(photo[0] * photo[1]), LARGEST_CELL[0] / photo[0], LARGEST_CELL[1] / photo[1]
        )
        width, height = (max(1, round(scale * length)) for length in photo)
        across = columns * (max(width, LEAST_COLUMN) + GAP)
        down = len(lines) * (height + CAPTION_HEIGHT + LINE_GAP)
        if across <= LARGEST_SHEET[0] and down <= LARGEST_SHEET[1]:
            break
    return width, height


def _scaled(sheet: Sheet, size: tuple[int, int]) -> Sheet:
    x, y = size[0] / sheet.photo.width, size[1] / sheet.photo.height
    left, top, right, bottom = sheet.region
    photo = sheet.photo.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    return replace(sheet, photo=photo, region=(left * x, top * y, right * x, bottom * y))


# ----------------------------------------------------------------------------------------------- layout


def _text(text: str, size: int, colour: Colour, width: int, most: int) -> Image.Image:
    """`text` on at most `most` lines of `width`."""
    text = printable(text)
    font = font_for(text, size)
    lines = lines_of(text, font, width, most)
    height = round(1.35 * size)
    picture = Image.new("RGB", (width, height * max(1, len(lines))), PAPER)
    draw = ImageDraw.Draw(picture)
    for i, line in enumerate(lines):
        draw.text((0, height * i + (height + size * 0.7) / 2), line, fill=colour, font=font, anchor="ls")
    return picture


def _beside(parts: Sequence[Image.Image], gap: int) -> Image.Image:
    """From left to right, tops aligned."""
    width = sum(part.width for part in parts) + gap * (len(parts) - 1)
    picture = Image.new("RGB", (width, max(part.height for part in parts)), PAPER)
    x = 0
    for part in parts:
        picture.paste(part, (x, 0))
        x += part.width + gap
    return picture


def _below(parts: Sequence[Image.Image], gap: int) -> Image.Image:
    """From top to bottom, aligned on the left."""
    height = sum(part.height for part in parts) + gap * (len(parts) - 1)
    picture = Image.new("RGB", (max(part.width for part in parts), height), PAPER)
    y = 0
    for part in parts:
        picture.paste(part, (0, y))
        y += part.height + gap
    return picture


def _framed(picture: Image.Image, margin: int) -> Image.Image:
    framed = Image.new("RGB", (picture.width + 2 * margin, picture.height + 2 * margin), PAPER)
    framed.paste(picture, (margin, margin))
    return framed
