"""The page of records: self-contained, with every figure, the paper's where they belong and nowhere else."""

from __future__ import annotations

import csv
import importlib
import io
import re
from itertools import islice
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import pytest

from steersearch.benchmarks.harness import report
from steersearch.benchmarks.harness.catalogue import CARDS, Card
from steersearch.benchmarks.harness.plots import Bar, Point, Series, bars, scatter
from steersearch.benchmarks.harness.record import RESULTS, Record
from steersearch.benchmarks.harness.report import Records, build_page, read_records
from steersearch.benchmarks.paper.ablation_tables import ablation_tables
from steersearch.benchmarks.paper.paper_tables import LAYOUTS, figure_2, paper_tables
from steersearch.core.errors import BenchmarkError
from steersearch.core.registry import MODELS, PackageFile
from steersearch.training.curves import Curve, plot
from tests.conftest import Run


def record(model: str, macro: float, source: str = "generated stand-in", **changed: Any) -> Record:
    gate = float(model.partition("gate")[2].partition("+")[0] or 1)
    made = Record.make(
        "core" if source == "real" else "core-world/drawn",
        model,
        {"method": {"gate_scale": gate}, "model": {"aggregation": "cls", "paper_aggregation": "cls"}},
        {"macro": macro, "macro_wrong_prompt": 37.0, "macro_no_prompt": 41.0, "chance": 20.0},
        61.0,
        weights_hash=cast(PackageFile, MODELS["mini"].weights).sha256,
        data={"source": source, "hash": "ab" * 32, "n": 600, "licence": "none"},
        intervals={"macro": [macro - 3, macro + 3], "macro_no_prompt": [39.0, 44.0]},
        rows=[{"scene": "Kitchen & <bath>", "accuracy": macro}],
        answers={"macro": [macro], "macro_no_prompt": [41.0]},
    )
    return Record(**{**vars(made), **changed})


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    folder = tmp_path / "records"
    folder.mkdir()
    for number, each in enumerate(
        (
            record("mini", 84.25),
            record("mini", 11.11, date="2020-01-01"),
            record("mini+gate0", 41.5),
            record("mini+gate0.6", 80.75),
            record("dinov2-base-research", 95.5, "real"),
            Record.make("speed", "mini", {}, {"images_per_s": 77.77}, 1.0, weights_hash=None),
        )
    ):
        (folder / f"{number}.json").write_text(each.to_json())
    return folder


def test_the_page_holds_the_records_and_refers_to_nothing_outside(kept: Path) -> None:
    page = build_page(read_records([kept]), pictures=False)
    for figure in ("84.25", "41.50", "80.75", "95.50", "96.00"):
        assert figure in page
    assert "11.11" not in page  # an older record of the same
    assert "77.77" not in page  # says not on what it was measured
    assert "Kitchen &amp; &lt;bath&gt;" in page
    assert "84.2 against 41.0" in page  # of a claim
    assert "<code>focus</code> finds more" in page
    assert "`" not in page
    assert page.count('role="img"') == 4  # Figure 2, bars of both benchmarks, a curve over three gate scales
    assert not re.search(r'(src|href)="(?!data:)', page)
    real, generated = page.index("<h2>core</h2>"), page.index("<h2>core-world/drawn</h2>")
    assert real < page.index("paper: macro") < generated  # a column of the real data alone
    assert "paper: macro" not in page[generated:]


def test_pictures_of_the_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    from steersearch.benchmarks.paper import core_world

    monkeypatch.setattr(core_world, "OBJECTS", {"kitchen": core_world.OBJECTS["kitchen"][:2]})
    held_out = record("mini", 60.0, benchmark="core-world/held-out-objects")
    page = build_page(Records([record("mini", 84.0), held_out, record("mini", 95.0, "real")]))
    assert page.count("data:image/jpeg;base64,") == 2  # once, whatever sources of objects were measured
    assert (
        page.index("<h2>core-world/drawn</h2>") < page.index("data:image") < page.index("<h2>core-world/held")
    )


@pytest.fixture
def small_stocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few drawings to choose from, where a stand-in makes all of them for its first photo."""
    from dataclasses import replace

    from steersearch.benchmarks.ours import icir_world, words
    from steersearch.benchmarks.paper import genecis_world, quality_world, refcocog_world
    from steersearch.training.world.kinds import KINDS

    monkeypatch.setitem(quality_world.PROBE_LOOKS, "test", 1)
    small = replace(refcocog_world.CONFIG, drawn_per_kind=1, plates=1)
    monkeypatch.setattr(refcocog_world, "CONFIG", small)
    monkeypatch.setattr(genecis_world, "KINDS", dict(islice(KINDS.items(), 8)))
    monkeypatch.setattr(genecis_world, "SIZE", (96, 72))
    monkeypatch.setattr(icir_world, "SIZE", (96, 72))
    monkeypatch.setattr(icir_world, "DRAWING", 32)
    needed = ("mug", "armchair", "cushion", "book", "kite", "clock", "bird")
    monkeypatch.setattr(words, "KINDS", {kind: KINDS[kind] for kind in needed})


@pytest.mark.usefixtures("small_stocks")
@pytest.mark.parametrize(
    "card", [card for card in CARDS.values() if card.stand_in], ids=lambda card: card.name
)
def test_every_stand_in_shows_what_it_asks(card: Card) -> None:
    examples = importlib.import_module(f"steersearch.benchmarks.{card.module}").examples()
    assert 3 <= len(examples) <= 6
    for caption, image in examples:
        assert caption.strip()
        assert image.mode == "RGB"
        assert max(image.size) <= 320
    assert len({image.tobytes() for _, image in examples}) == len(examples)


def test_the_papers_tables_have_its_figures_and_ours_in_columns_of_their_own() -> None:
    scenes = [{"scene": "living_room", "accuracy": 71.25, "accuracy_wrong_prompt": 33.0}]
    core, by_scene, *_ = (
        each.to_table()
        for each in paper_tables(
            [
                record("dinov2-base", 95.5, "real", rows=scenes),
                record("clip-text", 40.5, "real", rows=[]),
                record("mini", 84.25),
                record("dinov2", 41.0),
            ]
        )
    )
    mean = "mean over scenes"
    assert core.title == "Figure 5: CORE"
    assert core.header[:5] == (
        "method", f"paper: {mean}", f"core: {mean}", f"core-world/drawn: {mean}", "paper: wrong prompt",
    )  # fmt: skip
    rows = {row[0]: dict(zip(core.header, row, strict=True)) for row in core.rows}
    assert [name for name in rows if "(" in name or name == "mini"] == [
        "DINOv2 (dinov2)", "CLIP (clip-text)", "SteerViT (dinov2-base)", "mini",
    ]  # fmt: skip
    ours = rows["SteerViT (dinov2-base)"]
    assert [ours[f"{data}: {mean}"] for data in ("paper", "core", "core-world/drawn")] == [
        "96.0", "95.5", "not measured",
    ]  # fmt: skip
    assert (rows["mini"][f"paper: {mean}"], rows["mini"][f"core-world/drawn: {mean}"]) == ("", "84.2")
    assert [*rows["GroundingDINO"].values()][:4] == ["GroundingDINO", "88.5", "not measured", "not measured"]
    assert [row[0] for row in by_scene.rows][-1] == "SteerViT (dinov2-base)"  # of mini no scene has this name
    scene = dict(zip(by_scene.header, by_scene.rows[-1], strict=True))
    assert (scene["paper: Living Room"], scene["core: Living Room"]) == ("96.6 / 49.4", "71.2 / 33.0")
    assert (scene["paper: Park"], scene["ours: Park"]) == ("93.0 / 58.1", "not measured")


def study(**figures: float) -> Record:
    """The record of the paper's ablations: the mean of each variant on drawings, in CLS under the right prompt."""
    found = {
        name.replace("_", " "): {"drawn": {"cls/right": {"mean": value}}} for name, value in figures.items()
    }
    made = Record.make("ablations", "mini", {}, found, 1.0, weights_hash=None)
    return Record(**{**vars(made), "date": "2026-11-26"})


def test_the_papers_ablations_have_ours_beside_where_they_were_measured() -> None:
    measured = [record("mini-paper", 71.5), record("late-fusion", 45.5), record("mini", 96.0)]
    tables = {
        each.title.partition(":")[0]: each
        for each in ablation_tables(measured, [study(paper=49.5, late_fusion=44.8, ffn=51.8)])
    }
    assert [*tables] == [
        "Table 3", "Table 4", "Table 9", "Table 10", "Table 11", "Table 12", "Appendix C.2",
    ]  # fmt: skip
    of = "ablations of mini, 2026-11-26"
    assert tables["Table 4"].to_table().rows == (
        ("DINOv2", "43.7", "not measured", "93.3", "not measured", "96.0", "not measured"),
        ("SigLIP", "38.3", "not measured", "75.4", "not measured", "91.3", "not measured"),
        ("MAE", "21.8", "not measured", "41.0", "not measured", "74.9", "not measured"),
        ("mini-paper", "", "41.0", "", "45.5", "", "71.5"),
        (of, "", "", "", "44.8", "", "49.5"),
    )
    parts = tables["Table 3"].to_table()
    core = parts.header.index("core-world/drawn: CORE")
    assert {row[0]: row[core - 1 : core + 1] for row in parts.rows} == {
        "vanilla (mini-paper)": ("43.7", "41.0"),
        "full model (mini-paper)": ("96.0", "71.5"),
        f"full model ({of})": ("96.0", "49.5"),
        "late fusion (late-fusion)": ("93.3", "45.5"),
        f"late fusion ({of})": ("93.3", "44.8"),
        "no tanh gate": ("94.6", "not measured"),
        "linear connector": ("95.2", "not measured"),
    }
    assert parts.rows[-1][1:3] == ("86.7", "not measured")
    assert tables["Table 12"].to_table().rows[-1][:1] == (f"FFN ({of})",)
    steps = tables["Appendix C.2"].to_figures()
    assert (steps[0][1:4], steps[0][6], steps[0][8]) == (("50,000", "FG-CLS", ""), "not measured", "89.6")
    assert ("Table 4: backbones, early and late fusion", "mini-paper", "CORE, late fusion", "45.5", "", "",
            "core-world/drawn", "", "") in tables["Table 4"].to_figures()  # fmt: skip


def test_steerability_against_quality_as_published_and_as_measured() -> None:
    measured = [
        record(model, figure, benchmark="quality-world", metrics={"quality": figure})
        for model, figure in (("mini+cls", 78.0), ("mini+gate0+cls", 82.0), ("mini+gate0.6+cls", 80.0))
    ]
    steered = [record("mini+cls", 96.0), record("mini+gate0.6+cls", 90.0), record("unpaired", 50.0)]
    published_, (title, (own,)) = figure_2([*measured, *steered])
    methods, sweep = published_[1]
    assert Point("SAM3", 57.5, 93.3) in methods.points
    assert [point.name for point in sweep.points] == ["0.2", "0.4", "0.6", "0.8", "1"]
    assert title == "The same, measured on core-world/drawn"
    assert set(own.points) == {
        Point("mini+cls", 78.0, 96.0),
        Point("mini+gate0.6+cls", 80.0, 90.0),
        Point("mini+gate0+cls", 82.0, 41.0),  # without a prompt
    }
    assert len(figure_2([*measured, steered[1]])) == 1  # one point says nothing


def test_points_lie_where_the_ticks_of_their_axes_say() -> None:
    drawn = ElementTree.fromstring(
        scatter([Series([Point("a <b>", 40.0, 50.0), Point("c", 80.0, 70.0)])], "x", "y")
    )
    first, second = ([float(each.get(at, "")) for at in ("cx", "cy")] for each in drawn.iter("circle"))
    at = {each.text: each for each in drawn.iter("text")}
    for tick, centre in (("40", first[0]), ("80", second[0])):
        assert float(at[tick].get("x", "")) == pytest.approx(centre, abs=0.2)
    for tick, centre in (("50", first[1]), ("70", second[1])):
        assert float(at[tick].get("y", "")) == pytest.approx(centre + 4, abs=0.2)


def test_names_in_a_plane_do_not_lie_on_one_another() -> None:
    near = [Point("mini+cls", 78.0, 96.2), Point("mini+gate0.6+cls", 78.6, 96.0), Point("far", 60.0, 96.1)]
    drawn = ElementTree.fromstring(scatter([Series(near)], "x", "y"))
    lines = [float(each.get("y", "")) for each in drawn.iter("text") if each.get("class") == "name"]
    assert abs(lines[0] - lines[1]) >= 12
    assert abs(lines[0] - lines[2]) < 6  # which has room beside its point


def test_plots_are_well_formed_and_to_scale() -> None:
    figures = [Bar("a <b>", 50.0, (40.0, 100.0)), Bar("x" * 40, 25.0, kind="paper")]
    drawn = ElementTree.fromstring(bars(figures, chance=20.0))
    first, second = (float(each.get("width", "")) for each in drawn.iter("rect"))
    assert first == pytest.approx(2 * second, abs=0.2)


def test_a_curve_over_gate_scale_has_a_dot_and_a_tick_at_each() -> None:
    scales = [0.0, 0.5, 1.0]
    drawn = plot([Curve("x", [(0.0, 40.0), (0.5, 60.0), (1.0, 80.0)], marked=True)], lowest=0.0, ticks=scales)
    assert drawn is not None
    (x0, y0), (x1, y1), (x2, y2) = drawn.curves[0].dots
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert drawn.across == [(x0, "0"), (x1, "0.5"), (x2, "1")]


def test_what_cannot_be_shown_is_said(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="no such folder of records"):
        read_records([tmp_path / "nowhere"])


def test_all_records_of_the_repository_can_be_read() -> None:
    read = read_records([RESULTS])
    assert all(record.data for record in read.measured)
    assert [record.benchmark for record in read.studies] == ["ablations"]


def test_the_command_writes_what_its_ending_says(
    run: Run, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steersearch.cli.bench.report.RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()
    done = run("bench", "report", "-o", "page.html", "--no-pictures", "--from", kept)
    assert (done.code, done.out.strip()) == (0, "page.html"), done.err
    assert "4 records" in done.err
    assert "<!doctype html>" in (tmp_path / "page.html").read_text()
    assert run("bench", "report", "-o", "tables.md", "--from", kept).code == 0
    assert "| mini | 84.25 | 41.00 |" in (tmp_path / "tables.md").read_text()
    assert run("bench", "report", "-o", "figures.csv", "--from", kept).code == 0
    read = list(csv.DictReader(io.StringIO((tmp_path / "figures.csv").read_text())))
    assert {"benchmark": "core", "figure": "macro", "value": "95.5", "paper": "96.00"}.items() <= next(
        row for row in read if row["benchmark"] == "core"
    ).items()
    (late,) = (row for row in read if row["benchmark"].startswith("Table 3") and row["method"] == "late fusion"
               and row["figure"] == "CORE")  # fmt: skip
    assert (late["value"], late["data"], late["paper"]) == ("", "not measured", "93.3")
    assert "| MAE | 21.8 | not measured |" in (tmp_path / "tables.md").read_text()
    assert run("bench", "report", "-o", "page.pdf").code == 2
    for name in ("none.html", "none.md", "none.csv"):
        failed = run("bench", "report", "-o", name)
        assert failed.code == 1
        assert "there is no record with a data set; make one" in failed.err
        assert not (tmp_path / name).exists()


def test_tables_of_the_page(kept: Path) -> None:
    titles = [table.title for table in report.tables(read_records([kept]))]
    papers = len(LAYOUTS) + 7
    assert titles[papers : papers + 2] == ["core", "core-world/drawn"]
    assert len(titles) == papers + 2 + 4
