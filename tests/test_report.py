"""The report of a training run: everything is on one page, escaped, and drawn where it belongs."""

from __future__ import annotations

import base64
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example as case
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from steersearch.core.errors import OutputError
from steersearch.core.heatmaps import OUTLINE
from steersearch.training import curves
from steersearch.training.curves import Curve, plot
from steersearch.training.report import Example, write_report

RECIPE = {
    "optimiser": {"lr": 3e-4, "steps": 500_000, "clip": 0.0},
    "data": {"train": ["<world>"], "strict": False},
}


def line(step: int, kind: str, **values: float) -> dict[str, Any]:
    named = {name.replace("__", "/"): value for name, value in values.items()}
    return {"step": step, "kind": kind, "seconds": 2.0 * step, "values": named}


LINES = [
    line(0, "validation", loss=4.0, pmass=0.1, pointing=0.05, pmass__lvis=0.2, rows=7),
    line(25, "train", loss=3.5, gate__1=0.0),
    line(50, "train", loss=math.nan, gate__1=0.25),
    line(50, "validation", loss=3.0, pmass=0.4, pointing=0.5, pmass__lvis=0.5, rows=7),
    line(100, "validation", loss=2.5, pmass=0.3, pointing=0.6, pmass__lvis=0.4, rows=7),
]


def example(expression: str = "the red mug") -> Example:
    mask = np.zeros((60, 80), np.bool_)
    mask[30:45, 40:60] = True  # of the 3 x 4 patches of 20 pixels: rows 1, 2 and column 2
    heatmap = np.zeros((3, 4), np.float32)
    heatmap[1, 2], heatmap[2, 2], heatmap[0, 0] = 0.5, 0.25, 0.25
    return Example(Image.new("RGB", (80, 60), (0, 128, 0)), expression, mask, heatmap)


class Page(HTMLParser):
    """Tags in order, each closed in its turn, their attributes, and the text between them."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"

    def all(self, name: str) -> list[str]:
        return [value or "" for attribute, value in self.attributes if attribute == name]


def page(folder: Path, **given_: Any) -> Page:
    content = {"recipe": RECIPE, "lines": LINES, "examples": [], "summary": {}} | given_
    path = write_report(folder, **content)
    assert path == folder / "report.html"
    return Page(path.read_text("utf-8"))


def test_the_curves_of_earlier_stages_are_shown_too(tmp_path: Path) -> None:
    words = [{"step": n, "kind": "train", "seconds": 1.0, "values": {"which": 6.0 - n}} for n in (1, 2)]
    plain, staged = page(tmp_path), page(tmp_path, stages={"Words": words})
    assert "Words: which" not in plain.text
    assert "Words: which" in staged.text


def pictures(shown: Page) -> list[Image.Image]:
    kind = "data:image/png;base64,"
    sources = shown.all("src")
    assert all(source.startswith(kind) for source in sources)
    return [Image.open(io.BytesIO(base64.b64decode(source.removeprefix(kind)))) for source in sources]


def test_the_page_tells_settings_figures_and_machine(tmp_path: Path) -> None:
    folder = tmp_path / "my run"
    folder.mkdir()
    shown = page(
        folder, summary={"pmass": 0.31234, "pmass/lvis": 0.4, "loss/lvis": 2.0, "timing": {"hours": 3}}
    )
    words = " ".join(shown.text.split())
    assert "my run" in words
    assert (
        "100 steps in 3 min 20 s. Validation pmass 0.300, pointing 0.600; pmass was best, 0.400, at step 50."
        in words
    )
    for told in (
        "lr 0.0003",
        "steps 500,000",
        "train <world>",
        "strict no",
        "pmass 0.3123",
        "hours 3",
        "torch",
    ):
        assert told in words
    assert "lvis pmass 0.4 loss 2 timing hours 3" in words


def test_nothing_is_loaded_and_nothing_runs(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script><img src=x onerror=alert(2)> & “ü”'
    lines = [line(1, "train", loss=1.0), {**line(2, "train"), "values": {f"loss/{evil}": 2.0, evil: 3.0}}]
    shown = page(
        tmp_path, lines=lines, examples=[example(evil)], summary={evil: evil}, recipe={evil: {evil: evil}}
    )
    assert "script" not in shown.tags
    assert shown.tags.count("img") == 2
    assert shown.text.count(evil) >= 6
    assert not [name for name, _ in shown.attributes if name.startswith("on")]
    assert "link" not in shown.tags
    assert not [v for v in shown.all("href") + shown.all("src") if not v.startswith("data:")]
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) == {"#"}


def test_each_measurement_has_its_chart_and_each_source_its_curve(tmp_path: Path) -> None:
    shown = page(tmp_path)
    charts = [label for label in shown.all("aria-label") if label.endswith("over steps")]
    assert charts == [f"{name} over steps" for name in ("Loss", "pmass", "Pointing", "Gates")]
    words = " ".join(shown.text.split())
    assert "training 3.5 validation 2.5" in words  # the last finite value of each
    assert "validation 0.3 lvis 0.4" in words
    assert "1 0.25" in words


def test_a_run_without_measurements_and_examples_has_a_report(tmp_path: Path) -> None:
    shown = page(tmp_path, lines=[])
    assert "Nothing was measured." in shown.text
    assert "svg" not in shown.tags
    assert "img" not in shown.tags


def test_an_example_shows_where_it_is_and_where_it_was_found(tmp_path: Path) -> None:
    absent = example("no such thing")
    absent.mask[:] = False
    shown = page(tmp_path, examples=[example(), absent])
    photo, heat, plain, _ = pictures(shown)
    assert photo.size == heat.size == (288, 216)  # 3.6 times as large
    assert photo.getpixel((int(50 * 3.6), int(30 * 3.6) + 1)) == OUTLINE[0]  # within the mask's upper edge
    assert photo.getpixel((int(50 * 3.6), int(30 * 3.6) - 1)) == OUTLINE[1]  # above it
    assert photo.getpixel((int(50 * 3.6), int(38 * 3.6))) == (0, 128, 0)
    assert plain.getcolors() == [(288 * 216, (0, 128, 0))]
    strongest, nothing = heat.getpixel((180, 130)), heat.getpixel((20, 200))
    assert isinstance(strongest, tuple)
    assert isinstance(nothing, tuple)
    assert max(strongest) - min(strongest) > 80  # coloured
    assert max(nothing) - min(nothing) == 0  # grey
    words = " ".join(shown.text.split())
    assert "“the red mug”" not in words  # the quotes are the style sheet's
    assert "the red mug 75% on the mask; strongest patch 6 × an even spread" in words
    assert "no such thing not in the picture; strongest" in words


def test_a_page_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as found:
        page(tmp_path / "missing")
    assert found.value.path == tmp_path / "missing" / "report.html"


# --------------------------------------------------------------------------------------------------- curves


def test_a_curve_lies_where_its_ticks_say() -> None:
    drawn = plot([Curve("a", [(0, 0.0), (50, 1.0), (100, 0.5)])])
    assert drawn is not None
    across, up = {label: x for x, label in drawn.across}, {label: y for y, label in drawn.up}
    assert (
        drawn.curves[0].path == f"M{across['0']:g} {up['0']:g}L{340:g} {up['1']:g}L{across['100']:g} {133:g}"
    )
    assert (across["0"], across["100"], up["0"], up["1"]) == (
        52,
        628,
        254,
        12,
    )  # the margins; 340, 133: half way


def test_small_values_have_ticks_that_fit_the_margin() -> None:
    drawn = plot([Curve("a", [(0, 0.0), (100, 1.2e-3)])])
    assert drawn is not None
    assert [label for _, label in drawn.up] == ["0", "2.5e-4", "0.0005", "7.5e-4", "0.001", "1.25e-3"]


def test_values_that_are_not_finite_are_gaps_and_lone_points_are_dots() -> None:
    nan = math.nan
    drawn = plot(
        [
            Curve("a", [(0, 1.0), (1, nan), (2, 2.0), (3, 3.0), (4, math.inf), (5, 1.0)]),
            Curve("b", [(0, nan)]),
        ]
    )
    assert drawn is not None
    assert [curve.label for curve in drawn.curves] == ["a"]
    assert drawn.curves[0].path.count("M") == 1
    assert drawn.curves[0].path.count("L") == 1
    assert len(drawn.curves[0].dots) == 2
    assert plot([Curve("b", [(0, nan)])]) is None
    assert plot([]) is None


def test_noise_is_shown_pale_and_its_mean_in_front() -> None:
    points = [(float(step), 1.0 + (-1) ** step) for step in range(20_000)]  # 0 and 2 in turn
    drawn = plot([Curve("loss", points, noisy=True)])
    assert drawn is not None
    curve = drawn.curves[0]
    assert curve.pale
    assert curve.path.count("L") == curves.MOST_POINTS - 1
    assert curve.last == 0.0
    heights = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", curve.path)]
    assert max(heights[:-20]) - min(heights[:-20]) < 0.2 * curves.HEIGHT


@given(
    values=st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=30),
    start=st.integers(0, 10**6),
    distance=st.integers(1, 5000),
)
@case(values=[0.0, 1.2e-126], start=0, distance=1)
@case(values=[0.0, 2e-10], start=0, distance=1)
def test_everything_lies_within_the_picture(values: list[float], start: int, distance: int) -> None:
    points = [(float(start + i * distance), value) for i, value in enumerate(values)]
    drawn = plot([Curve("a", points)])
    assert drawn is not None
    for x, y in re.findall(r"([\d.e+-]+) ([\d.e+-]+)", drawn.curves[0].path) + drawn.curves[0].dots:
        assert curves.LEFT - 0.5 <= float(x) <= curves.WIDTH - curves.RIGHT + 0.5
        assert curves.TOP - 0.5 <= float(y) <= curves.HEIGHT - curves.BOTTOM + 0.5
    assert 2 <= len(drawn.up) <= 9
    assert 1 <= len(drawn.across) <= 9
    assert len({label for _, label in drawn.up}) == len(drawn.up)
