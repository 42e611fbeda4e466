"""Tables of records: cells, Markdown, CSV, and where the paper's numbers stand."""

from __future__ import annotations

import csv
import io
from typing import Any

from steersearch.benchmarks.harness.record import Record
from steersearch.benchmarks.harness.tables import Table, comparison_table, metrics_table, rows_table


def record(model: str = "mini", source: str = "generated stand-in", **more: Any) -> Record:
    metrics = {"macro": 84.1, "micro": 84.0, "macro_no_prompt": None, "chance": 20.0}
    rows = [
        {"scene": "Kitchen", "pictures": 5, "accuracy": 80.0},
        {"scene": "Park", "pictures": 4, "accuracy": None},
    ]
    made = Record.make(
        "core",
        model,
        {},
        metrics,
        61.6,
        weights_hash=None,
        data={"source": source, "hash": "ab" * 32, "n": 9},
        intervals={"macro": [81.0, 87.25]},
        rows=rows,
    )
    return Record(**{**vars(made), "date": "2026-11-25", **more})


def test_figures_with_their_intervals() -> None:
    table = metrics_table(record())
    assert table.header == ("figure", "value", "95 % interval")
    assert table.rows[0] == ("macro", "84.10", "81.00 – 87.25")
    assert table.rows[2] == ("macro no prompt", "", "")


def test_the_paper_stands_beside_the_same_model_on_real_data_only() -> None:
    real = metrics_table(record("dinov2-base-research", "real"))
    assert real.header[-2:] == ("paper", "difference")
    assert real.rows[0][-2:] == ("96.00", "-11.9")
    assert real.rows[1][-2:] == ("", "")
    parts = rows_table(record("dinov2-base-research", "real"))
    assert parts is not None
    assert parts.header == ("scene", "pictures", "accuracy", "paper")
    assert parts.rows == (("Kitchen", "5", "80.00", "98.60"), ("Park", "4", "", "93.00"))
    assert "paper" not in metrics_table(record("dinov2-base-research")).header


def test_methods_side_by_side() -> None:
    frozen = record("mini+gate0", intervals={"macro": [40.0, 44.0]}, metrics={"macro": 41.8})
    table = comparison_table([record(), frozen, record("dinov2-base-research", "real")])
    assert table.header == ("method", "macro", "paper: macro", "seconds", "date")
    assert table.rows == (
        ("mini", "84.10", "", "62", "2026-11-25"),
        ("mini+gate0", "41.80", "", "62", "2026-11-25"),
        ("dinov2-base-research", "84.10", "96.00", "62", "2026-11-25"),
    )


def test_markdown_and_csv_say_the_same() -> None:
    table = Table("core, mini", ("scene", "value"), (("a | b", "1.00"), ('"c", d', "")), frozenset({"value"}))
    assert table.to_markdown() == (
        '### core, mini\n\n| scene | value |\n| --- | ---: |\n| a \\| b | 1.00 |\n| "c", d |  |\n'
    )
    assert list(csv.reader(io.StringIO(table.to_csv()))) == [
        ["scene", "value"],
        ["a | b", "1.00"],
        ['"c", d', ""],
    ]
