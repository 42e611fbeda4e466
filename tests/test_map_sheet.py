"""The sheet of maps: one range of colours, flat maps without colour, captions that fit whatever they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from steersearch.core.heatmaps import overlay, shared_vmax, strengths
from steersearch.views import lettering
from steersearch.views.lettering import font_for, lines_of, printable, shortened
from steersearch.views.photo_map import MapKind, PhotoMap
from steersearch.views.sheet import CELL_SIDES, GAP, LARGEST_CELL, MARGIN, PAPER, Sheet, draw_sheet, in_lines

DARK = Image.new("RGB", (100, 100), (60, 60, 60))
UNDER_MAP = (89, 89, 89)  # 60, lightened by 0.15 of the way to white
CELL = (CELL_SIDES[0], CELL_SIDES[0])
FLAT = np.full((5, 6), 1 / 30, np.float32)
LONG = "the small red remote control that lies on the white table left of the old brown lamp " * 20


def spot(strength: float = 1.0) -> np.ndarray:
    """A map that is flat but for one patch, which holds `strength` more."""
    values = FLAT.copy()
    values[1, 2] += strength
    return values / values.sum()


def photo_map(
    values: np.ndarray = FLAT,
    focus: str = "cat",
    gate_scale: float = 1.0,
    kind: MapKind = "heatmap",
    **more: Any,
) -> PhotoMap:
    return PhotoMap(kind=kind, focus=focus, gate_scale=gate_scale, values=values, **more)


def drawn(maps: list[PhotoMap], photo: Image.Image = DARK, **changes: Any) -> np.ndarray:
    whole = (0, 0, *photo.size)
    settings = {"name": "a.jpg", "note": "model mini", "photo": photo, "region": whole, "maps": maps}
    return np.asarray(draw_sheet(Sheet(**(settings | changes))))


def pixels_of(sheet: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((sheet == colour).all(axis=-1).sum())


def place_of(sheet: np.ndarray, part: Image.Image, left: int) -> int:
    """The only row of `sheet` at which `part` begins, at the column `left`."""
    wanted = np.asarray(part)
    column = sheet[:, left : left + part.width]
    rows = [y for y in range(len(sheet) - part.height) if np.array_equal(column[y : y + part.height], wanted)]
    assert len(rows) == 1
    return rows[0]


# ------------------------------------------------------------------------------------------------- sheets


def test_every_cell_is_an_overlay_in_the_range_of_all() -> None:
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (*CELL, 3), dtype=np.uint8))
    values = [spot(), spot(0.3), FLAT]
    sheet = drawn([photo_map(v, gate_scale=i) for i, v in enumerate(values)], photo)
    vmax = shared_vmax(values)
    tops = [
        place_of(sheet, overlay(photo, strengths(v, vmax)), MARGIN + i * (CELL[0] + GAP))
        for i, v in enumerate(values)
    ]
    assert len(set(tops)) == 1
    assert place_of(sheet, photo, MARGIN) == MARGIN  # the photo itself, once, in its colours


def test_flat_maps_have_no_colour_even_if_all_are_flat() -> None:
    flat = [photo_map(gate_scale=gate_scale) for gate_scale in (0, 0.6, 1)]
    assert pixels_of(drawn(flat), UNDER_MAP) == 3 * CELL[0] * CELL[1]
    beside_a_peak = drawn([*flat[:2], photo_map(spot())])
    assert 2 * CELL[0] * CELL[1] < pixels_of(beside_a_peak, UNDER_MAP) < 2.9 * CELL[0] * CELL[1]


def test_kinds_have_a_range_each() -> None:
    """A strong heatmap does not make the attention beside it pale."""
    attention = photo_map(spot(0.3), kind="attention")
    alone, beside = (
        drawn([photo_map(heat), attention], Image.new("RGB", CELL, (60, 60, 60))) for heat in (FLAT, spot(30))
    )
    cell = overlay(Image.new("RGB", CELL, (60, 60, 60)), strengths(attention.values))
    for sheet in (alone, beside):
        column = next(x for x in range(CELL[0] + MARGIN, sheet.shape[1]) if tuple(sheet[-200, x]) != PAPER)
        place_of(sheet, cell, column)


def test_what_the_model_did_not_see_is_pale() -> None:
    sheet = drawn([photo_map(), photo_map(gate_scale=0)], region=(25, 0, 75, 100))
    assert pixels_of(sheet, UNDER_MAP) == 2 * (CELL[0] // 2) * CELL[1]
    assert pixels_of(sheet, (196, 196, 196)) >= 2 * (CELL[0] // 2) * CELL[1]  # 60, 0.7 of the way to white


def shown_in_lines(maps: list[PhotoMap]) -> list[list[tuple[str, str, float]]]:
    return [[(m.focus, m.kind, m.gate_scale) for m in line] for line in in_lines(maps)]


def all_maps(focuses: str, gate_scales: tuple[float, ...], kinds: tuple[MapKind, ...]) -> list[PhotoMap]:
    return [
        photo_map(focus=focus, gate_scale=gate_scale, kind=kind)
        for focus in focuses.split()
        for gate_scale in gate_scales
        for kind in kinds
    ]


def test_a_line_is_a_focus_with_heatmaps_first() -> None:
    assert shown_in_lines(all_maps("cat dog", (0, 1), ("heatmap", "attention"))) == [
        [("cat", "heatmap", 0), ("cat", "heatmap", 1), ("cat", "attention", 0), ("cat", "attention", 1)],
        [("dog", "heatmap", 0), ("dog", "heatmap", 1), ("dog", "attention", 0), ("dog", "attention", 1)],
    ]


def test_one_focus_has_a_line_for_each_kind() -> None:
    assert shown_in_lines(all_maps("cat", (0, 1), ("heatmap", "attention"))) == [
        [("cat", "heatmap", 0), ("cat", "heatmap", 1)],
        [("cat", "attention", 0), ("cat", "attention", 1)],
    ]
    assert [len(line) for line in in_lines(all_maps("cat", (1,), ("heatmap", "attention")))] == [2]


@pytest.mark.parametrize(
    ("focuses", "lengths"), [(2, [2]), (4, [4]), (5, [3, 2]), (9, [3, 3, 3]), (6, [3, 3])]
)
def test_a_single_column_becomes_lines(focuses: int, lengths: list[int]) -> None:
    maps = all_maps(" ".join(map(str, range(focuses))), (1,), ("heatmap",))
    lines = in_lines(maps)
    assert [len(line) for line in lines] == lengths
    assert [m for line in lines for m in line] == maps


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (9000, 1), (1, 9000), (4000, 3000), (600, 6000)])
def test_any_photo_makes_a_sheet_of_sensible_size(size: tuple[int, int]) -> None:
    sheet = drawn([photo_map(), photo_map(spot())], Image.new("RGB", size, (60, 60, 60)))
    height, width = sheet.shape[:2]
    assert 500 < width < 2 * LARGEST_CELL[0] + LARGEST_CELL[0]
    assert 300 < height < 1300
    assert pixels_of(sheet, UNDER_MAP) > 100


@pytest.mark.parametrize(
    "focus", [LONG, "x" * 3000, "一只黑猫", "🐈", "Käse über dem Fluß", "a\nb\x00\u202e", "\ud800", ""]
)
def test_any_focus_and_name_can_be_written(focus: str) -> None:
    sheet = drawn([photo_map(focus=focus), photo_map(gate_scale=0, focus=focus)], name=focus, note=focus)
    assert sheet.shape[1] == drawn([photo_map(), photo_map(gate_scale=0)]).shape[1]
    margins = np.concatenate([sheet[:MARGIN].reshape(-1, 3), sheet[:, -MARGIN:].reshape(-1, 3)])
    assert (margins == PAPER).all()


def test_many_maps_shrink() -> None:
    few, many = (drawn(all_maps("cat", tuple(range(n)), ("heatmap",))) for n in (3, 9))
    assert pixels_of(few, UNDER_MAP) == 3 * CELL[0] ** 2
    assert pixels_of(many, UNDER_MAP) == 9 * CELL_SIDES[3] ** 2


# --------------------------------------------------------------------------------------------- what is said


def test_a_map_in_words() -> None:
    half = np.zeros((4, 5), np.float32)
    half[0, :2], half[3] = 0.3, 0.08  # 0.6 in two patches, 0.4 in five
    shown = photo_map(half, "the red mug", 0.6)
    assert shown.peak == pytest.approx(6)
    assert (shown.patches_of_half, shown.is_flat) == (2, False)
    assert str(shown) == (
        "heatmap of “the red mug”, gate scale 0.6: peak 6.0 times an even spread, half of it in 2 of 20 patches"
    )
    assert shown.in_short == "peak 6.0"


def test_a_flat_map_in_words() -> None:
    flat = photo_map(kind="attention", sinks=1)
    assert (flat.patches_of_half, flat.is_flat) == (15, True)
    assert str(flat) == (
        "attention of “cat”, gate scale 1: flat, no patch reaches 2 times an even spread; 1 sink removed"
    )
    assert flat.in_short == "flat: peak 1.0 (1 sink removed)"
    assert photo_map(kind="attention", sinks=0).in_short == "flat: peak 1.0"


# ----------------------------------------------------------------------------------------------- lettering


def test_lines_fit_and_lose_nothing_but_the_end() -> None:
    font = font_for(LONG, 15)
    for width in (60, 200, 430):
        lines = lines_of(LONG.strip(), font, width, 3)
        assert len(lines) == 3
        assert all(font.getlength(line) <= width for line in lines)
        assert lines[-1].endswith("…")
        assert LONG.startswith(" ".join(lines)[:-1].rstrip())
    assert lines_of("a short one", font, 430, 3) == ["a short one"]
    assert lines_of("", font, 430, 3) == []


def test_lines_end_between_words_and_at_hyphens() -> None:
    font = font_for("a", 15)
    width = round(font.getlength("remote-contr"))
    assert lines_of("red remote-control", font, width, 3) == ["red remote-", "control"]
    assert lines_of("red remote-control", font, width, 2) == ["red remote-", "control"]
    assert lines_of("red remote-control_x_of_the_television", font, width, 2)[1].startswith("control_x")
    assert lines_of("remotecontrolling", font, width, 3)[0].startswith("remotecon")


def test_what_is_too_wide_is_cut() -> None:
    font = font_for("a", 15)
    assert shortened("abc", font, 500) == "abc"
    cut = shortened("a" * 100, font, 100)
    assert cut.endswith("a…")
    assert 100 - font.getlength("aa") < font.getlength(cut) <= 100


def test_only_what_can_be_drawn_is_kept() -> None:
    assert printable("a\n\tb\x00\u202ec\ud800") == "a bc"
    assert len(printable("x" * 10_000)) == 400


def test_pillows_own_font_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without fonts, such as a small container: our own words have all their letters."""
    monkeypatch.setattr(lettering, "_PLAIN", ())
    monkeypatch.setattr(lettering, "_WIDE", ())
    font_for.cache_clear()
    try:
        words = printable("“cat” times an even spread over the photo; up to 1… (2 sinks taken out): 0.6")
        font = font_for(words, 15)
        assert "Aileron" in font.getname()
        assert all(lettering._has(font, letter) for letter in words)
        assert not lettering._has(font, "猫")
        assert drawn([photo_map(focus="猫"), photo_map()]).shape[0] > CELL[1]
    finally:
        font_for.cache_clear()
