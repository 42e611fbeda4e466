"""What people see: names made readable, tables, and the page of results."""

from __future__ import annotations

import base64
import io
import math
import re
from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from steersearch.core.heatmaps import overlay, shared_vmax, strengths
from steersearch.core.images.dates import CaptureDate
from steersearch.indexer.query_terms import Focus
from steersearch.views import terminal
from steersearch.views.page import HEAT_SIDE, Shot, ShownHit, ShownSearch, render_page
from steersearch.views.page_pictures import Inside

LEAST, UNSEEN = 0.15, 0.7  # opacities where there is nothing, and where the model did not look
STRONGEST = 1 - 0.3 * 0.85  # 0.7 of the colour, and the white below it


def test_paths_below_the_current_folder_are_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert terminal.readable(tmp_path / "a" / "b.jpg") == "a/b.jpg"
    assert terminal.readable(tmp_path.parent / "b.jpg") == str(tmp_path.parent / "b.jpg")


def test_tables_line_up(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.table(("name", "n"), [("a", "1"), ("long one", "1,000")], right=("n",))
    assert capsys.readouterr().out == "name          n\na             1\nlong one  1,000\n"


# --------------------------------------------------------------------------------------------------- page


class Images(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.text += data

    def decoded(self, alt: str) -> Image.Image:
        (source,) = {image["src"] for image in self.images if image["alt"] == alt}
        assert source is not None
        return Image.open(io.BytesIO(base64.b64decode(source.partition("base64,")[2])))


def shot(name: str, peak: float, size: tuple[int, int] = (400, 300), **options: Any) -> Shot:
    """A grey photo whose heatmap is `peak` in its upper left cell and 0 elsewhere."""
    heatmap = np.zeros((4, 4), np.float32)
    heatmap[0, 0] = peak
    seen = {"heatmaps": [heatmap], "regions": [(0, 0, 1, 1)], **options}
    return Shot(name=name, image=Image.new("RGB", size, "grey"), **seen)


def focus(prompt: str, *hits: Shot, query: Shot | None = None) -> ShownSearch:
    """The search for one focus."""
    shown = [
        ShownHit(shot=hit, rank=i, score=1 - i / 10, scores=[1 - i / 10])
        for i, hit in enumerate(hits, start=1)
    ]
    seen = query or shot("query.jpg", 0.5)
    top = shared_vmax([one.heatmaps[0] for one in (seen, *hits)])
    return ShownSearch(
        focuses=[Focus(prompt)], status="exact", query=seen, hits=shown, maps=[prompt], tops=[top]
    )


def rendered(*searches: ShownSearch) -> str:
    return render_page(searches, Inside())


def opacity(image: Image.Image, x: float, y: float) -> float:
    """Of a heatmap layer, at a place given as parts of its sides."""
    pixel = image.convert("RGBA").getpixel((round(x * (image.width - 1)), round(y * (image.height - 1))))
    assert isinstance(pixel, tuple)
    return pixel[3] / 255


def test_the_page_needs_no_other_file() -> None:
    page = rendered(focus("mug", shot("a.jpg", 1)), focus("cat", shot("b.jpg", 1)))
    found = Images(page)
    assert found.tags.isdisjoint({"script", "link", "iframe"})
    assert all((image["src"] or "").startswith("data:image/") for image in found.images)
    assert all("alt" in image for image in found.images)
    assert set(re.findall(r"url\([^)]*", page)) == {"url(#grey"}
    assert "http" not in page


def test_the_page_shows_every_hit_with_rank_score_and_name() -> None:
    found = Images(rendered(focus("mug", shot("a.jpg", 1), shot("b.jpg", 1)), focus("cat", shot("c.jpg", 1))))
    assert found.text.count("0.900") == 2
    assert found.text.count("0.800") == 1
    assert all(name in found.text for name in ("a.jpg", "b.jpg", "c.jpg", "mug", "cat", "query.jpg"))
    assert "One photo, two focuses" in found.text


def test_the_page_of_one_search_shows_its_query_photo_once() -> None:
    found = Images(rendered(focus("mug", shot("a.jpg", 1))))
    assert [image["alt"] for image in found.images if "query" in (image["alt"] or "")] == [
        "The query photo, query.jpg"
    ]


def test_several_focuses_have_a_heatmap_weight_score_and_presence_each() -> None:
    focuses = [Focus("sofa"), Focus("cushion", 0.5), Focus("cat", -1)]
    heat = np.full((4, 4), 1 / 16, np.float32)
    seen = Shot(
        name="a.jpg",
        image=Image.new("RGB", (40, 30)),
        heatmaps=[heat] * 3,
        regions=[(0, 0, 1, 1)] * 3,
    )
    hit = ShownHit(
        shot=seen, rank=1, score=0.345, scores=[0.987, 0.654, 0.321], presences=[1.5, -0.25, math.nan]
    )
    found = Images(
        rendered(
            ShownSearch(
                focuses=focuses,
                status="exact",
                query=seen,
                hits=[hit],
                maps=[f.text for f in focuses],
                tops=[1.0] * 3,
            )
        )
    )
    text = " ".join(found.text.split())
    assert "Photos similar in “sofa” and “cushion”, different in “cat”" in text
    assert "Photo sofa + 0.5 × cushion − cat even" in text  # the switch
    assert (
        "0.345 sofa 0.987 presence 1.50 + 0.5 × cushion 0.654 presence −0.25 − cat 0.321 presence – a.jpg"
        in text
    )
    for i, name in enumerate(("sofa", "cushion", "cat")):
        layers = [image["class"] for image in found.images if image["alt"] == f"Heatmap of {name} on it"]
        assert layers == [f"heat heat-{i}"] * 2  # on the query photo and on the hit


def test_without_heatmaps_there_is_neither_a_legend_nor_a_switch() -> None:
    plain = Shot(name="a.jpg", image=Image.new("RGB", (40, 30)))
    hit = ShownHit(shot=plain, rank=1, score=0.5)
    page = rendered(ShownSearch(focuses=[], status="exact", query=plain, hits=[hit]))
    assert "strongest" not in page
    assert 'type="radio"' not in page
    assert "strongest" in rendered(focus("mug", shot("a.jpg", 1)))


@pytest.mark.parametrize(
    ("date", "said"),
    [
        (CaptureDate(datetime(2019, 5, 1), "month", "EXIF DateTimeOriginal"), ">2019-05<"),
        (CaptureDate(datetime(2019, 5, 2, 8, 30, 1), "second", "IPTC DateCreated"), ">2019-05-02 08:30<"),
        (CaptureDate(datetime(2019, 5, 2, 8, 30, 1), "second", "file time"), ">2019-05-02 (file)<"),
        (None, ""),
    ],
)
def test_a_hit_has_its_date_and_says_which_date_it_is(date: CaptureDate | None, said: str) -> None:
    hit = ShownHit(shot=shot("a.jpg", 1), rank=1, score=0.5, scores=[0.5], presences=[0.125], date=date)
    search = focus("mug")
    page = rendered(replace(search, hits=[hit]))
    assert said in page
    assert page.count("<time") == (date is not None)
    assert "presence 0.12" in page


def test_names_and_prompts_cannot_inject_html() -> None:
    found = Images(rendered(focus("<script>alert(1)</script>", shot('"><b>.jpg', 1))))
    assert found.tags.isdisjoint({"script", "b"})
    assert "<script>alert(1)</script>" in found.text


def test_heatmaps_of_one_focus_share_one_range() -> None:
    found = Images(rendered(focus("mug", shot("strong.jpg", 0.8), shot("weak.jpg", 0.2))))
    layers = [image for image in found.images if image["alt"] == "Heatmap of mug on it"]
    _, strong, weak = (  # the first is the query photo's
        Image.open(io.BytesIO(base64.b64decode((layer["src"] or "").partition("base64,")[2])))
        for layer in layers
    )
    assert opacity(strong, 0, 0) == pytest.approx(STRONGEST, abs=0.03)
    # By doublings of an even spread, 1/16.
    half = 1 - (1 - 0.7 * np.log2(0.2 * 16) / np.log2(0.8 * 16)) * 0.85
    assert opacity(weak, 0, 0) == pytest.approx(half, abs=0.03)
    assert opacity(weak, 1, 1) == pytest.approx(LEAST, abs=0.03)


def test_a_heatmap_looks_as_explain_draws_it() -> None:
    """The photo in grey, as the page's style shows it, under the page's layer."""
    heatmap = np.random.default_rng(0).dirichlet(np.ones(16) / 4).reshape(4, 4).astype(np.float32)
    photo = Image.new("RGB", (HEAT_SIDE, HEAT_SIDE // 2), (40, 90, 160))
    seen = Shot(name="a.jpg", image=photo, heatmaps=[heatmap], regions=[(0.25, 0, 0.75, 1)])
    page = rendered(focus("mug", seen, query=seen))
    layer = Images(page).decoded("Heatmap of mug on it").convert("RGBA")
    grey = ImageOps.grayscale(photo).convert("RGBA")
    shown = np.asarray(Image.alpha_composite(grey, layer).convert("RGB"), int)
    expected = overlay(photo, strengths(heatmap), (HEAT_SIDE / 4, 0, 3 * HEAT_SIDE / 4, HEAT_SIDE // 2))
    assert np.abs(shown - np.asarray(expected, int)).mean() < 3
    assert ".shot:has(.heat) img:not(.heat) { filter: url(#grey)" in page
    assert 'values=".299 .587 .114 0 0 ' in page  # Pillow's grey


def test_a_heatmap_lies_on_the_part_that_the_model_saw() -> None:
    """A wide photo of which the model saw the middle: the map's left edge is a quarter of the way in."""
    wide = shot("wide.jpg", 1, (400, 200), regions=[(0.25, 0, 0.75, 1)])
    layer = Images(rendered(focus("mug", wide, query=wide))).decoded("Heatmap of mug on it")
    assert layer.size == (HEAT_SIDE, HEAT_SIDE // 2)
    assert opacity(layer, 0.1, 0.05) == pytest.approx(UNSEEN, abs=0.05)
    assert opacity(layer, 0.29, 0.05) == pytest.approx(STRONGEST, abs=0.05)
    assert opacity(layer, 0.7, 0.95) == pytest.approx(LEAST, abs=0.05)
    assert opacity(layer, 0.9, 0.05) == pytest.approx(UNSEEN, abs=0.05)
