"""Every figure in the documents stands in a record, whose weights are those that are shipped.

A block of a document (a paragraph, a list, a table) that holds measured figures names their records, BENCHMARK__MODEL,
visibly or in a comment; a table may leave that to the block before it. All numbers of such a block must stand in these
records, or in the paper. A block with figures that names none stands under a heading of NOT_MEASURED.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from steersearch.benchmarks.harness.record import RESULTS, Record
from steersearch.benchmarks.paper import published
from steersearch.benchmarks.paper.claims import BEGIN, END, base_of
from steersearch.core.files import file_sha256
from tests.test_docs import PAGES, ROOT

# Headings under which numbers are settings, sizes and facts of others, and in how many blocks.
NOT_MEASURED: dict[str, dict[str, int]] = {
    "README.md": {"Install": 1, "Models and limits": 1},
    "docs/baselines.md": {"What each computes, and what had to be chosen": 1},
    "docs/benchmarks.md": {"The benchmarks": 1, "The claims, tested on `mini`": 1},
    "docs/contributing.md": {"Rules": 1, "A release": 1},
    "docs/library.md": {"Installing": 2, "How photos are read": 1, "Guarantees": 1},
    "docs/model.md": {
        "Which model": 2,
        "Folding: why a prompt costs next to nothing": 1,
        "Views": 1,
        "Measured": 1,
    },
    "docs/scale.md": {"The approximate index at scale": 2, "Object storage": 1, "Bytes per photo": 1},
    "docs/serve.md": {"Who may use it": 1, "Commands use it": 1},
    "docs/peers.md": {"Beside rclip": 2},
    "docs/training.md": {
        "The recipe": 2,
        "Photographs": 2,
        "Training the bundled model": 1,
        "The paper's parts": 1,
        "Data": 1,
        "The published sets": 2,
        "Licences": 1,
    },
    "core/mini/MODEL_CARD.md": {"Model card: mini": 1, "Data": 3, "Recipe": 1},
}

UNIT = r"(?:%|ms\b|s\b|points?\b|[GM]B\b|times\b|(?:photos|pictures|images) (?:a|per) second|(?:pictures|steps)/s)"
NUMBER = re.compile(
    rf"(?<![\w.,/=^])(?<![A-Za-z]-)((?:\d{{1,3}}(?:,\d{{3}})+|\d*\.?\d+)(?:e-?\d+)?)(?![\w]|[.,]\d)(?: ?({UNIT}))?"
)
MEASURED = re.compile(rf"(?<![\w.,/=^-])(?:\d[\d,]*\.\d+(?![.\d])|\.\d+|\d[\d,]*(?= ?{UNIT}))")
NAMED = re.compile(r"(?<![\w/.+-])[a-z](?:[\w.+-](?!__))*\w__[a-z][a-z\d.+-]*(?!\w)")
# From a record's unit to the document's: seconds, bytes; a share may be in percent, and a percentage a share.
SCALES = {"%": (1, 100), "ms": (1, 1e3), "s": (1, 1e-3), "MB": (1e-6,), "GB": (1, 1e-9), "": (1, 100, 0.01)}


@dataclass(frozen=True)
class Block:
    """text: without code, links and comments.  named: the records, as they are called in it."""

    heading: str
    text: str
    named: tuple[str, ...]


def blocks(text: str) -> Iterator[Block]:
    heading, before = "", Block("", "", ())
    text = re.sub(rf"{re.escape(BEGIN)}.*?{re.escape(END)}|```.*?```", "", text, flags=re.S)
    for part in re.split(r"\n\s*\n|\n(?=- )", text):
        heading = next(iter(re.findall(r"^#+ (.*)$", part, re.M)[-1:]), heading)
        named = tuple(NAMED.findall(part))
        plain = re.sub(
            r"<!--.*?-->|`[^`]*`|(?<=\])\([^)]*\)|https?://\S+|arXiv [\d.]+\d|^#.*$", "", part, flags=re.M
        )
        if plain.lstrip().startswith("|") and not named:
            named = before.named
        before = Block(heading, plain, named)
        yield before


def saved_records() -> list[Record]:
    return [Record.read(path) for path in sorted(RESULTS.glob("*.json"))]


def shipped() -> str:
    return file_sha256(Path(str(files("steersearch.core.mini") / "mini.safetensors")))


def meant(name: str, records: list[Record]) -> list[Record]:
    """The records called BENCHMARK__MODEL, of the mini those of the weights that are shipped."""
    found = [record for record in records if short(record) == name]
    return [record for record in found if not superseded(record)]


def short(record: Record) -> str:
    model = re.sub(r"\.(safetensors|pth)(?=\+|$)", "", Path(record.model).name)
    return f"{record.benchmark.replace('/', '-')}__{model}"


def superseded(record: Record) -> bool:
    return record.model.split("+")[0] == "mini" and record.weights_hash not in (None, shipped())


def numbers_in(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from numbers_in(key)
            yield from numbers_in(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from numbers_in(each)
    elif isinstance(value, str):
        yield from (float(n) for n in re.findall(r"\d+\.\d+|\d+", value.replace(",", "")))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield float(value)


def measured(record: Record) -> set[float]:
    gates = record.settings.get("model")
    return {abs(number) for number in numbers_in([record.metrics, record.intervals, record.rows, gates])}


def stated(record: Record) -> set[float]:
    """What was chosen, and with what it was measured."""
    chosen = (record.benchmark, record.model, record.settings, record.data.get("n"))
    return {abs(number) for number in numbers_in([chosen, record.machine, record.date])}


def papers() -> set[str]:
    """What the paper prints, to one digit behind the point."""
    tables = [value for name, value in vars(published).items() if name.isupper() and name != "PAPER"]
    scenes = [published.core_wrong(row) for row in published.CORE]
    return {f"{number:.1f}" for number in numbers_in([tables, scenes])}


def rounds_to(number: float, figure: str) -> bool:
    """Whether the number is the figure, as exactly as that is written."""
    mantissa, _, power = figure.replace(",", "").partition("e")
    digits, order = len(mantissa.partition(".")[2]), 10.0 ** int(power or 0)
    return abs(number - float(mantissa) * order) <= order * 10.0**-digits / 2 * (1 + 1e-6)


def not_in_records(block: Block, records: list[Record]) -> list[str]:
    own = [record for name in block.named for record in meant(name, records)]
    found = {number for record in own for number in measured(record)}
    exact, paper = {number for record in own for number in stated(record)} | {95.0}, papers()
    return [
        figure
        for figure, unit in NUMBER.findall(block.text)
        if figure not in paper
        and float(figure.replace(",", "")) not in exact
        and not any(rounds_to(n * scale, figure) for n in found for scale in SCALES.get(unit, SCALES[""]))
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_figure_stands_in_a_record_of_the_shipped_weights(page: Path) -> None:
    records, loose = saved_records(), Counter[str]()
    for block in blocks(page.read_text("utf-8")):
        for name in block.named:
            assert meant(name, records), f"{name}: no record of the weights that are shipped"
        if block.named:
            assert not_in_records(block, records) == [], f"{block.named}: {block.text.strip()[:300]}"
        elif MEASURED.search(block.text):
            loose[block.heading] += 1
    assert loose == NOT_MEASURED.get(page.relative_to(ROOT).as_posix(), {})


def test_the_record_folder_holds_no_weights_but_the_shipped() -> None:
    assert not [record for record in saved_records() if superseded(record)]


# Methods whose weights are made by a command of ours and not shipped, and the document that has it.
MADE = {
    "mini-paper": "docs/benchmarks.md",
    "mini-late": "docs/benchmarks.md",
    "late-fusion": "docs/benchmarks.md",
    "learned-map": "docs/baselines.md",
}


def test_records_of_weights_that_are_not_shipped_have_their_recipe_in_a_document() -> None:
    others = {
        (base_of(record), record.weights_hash)
        for record in saved_records()
        if record.weights_hash not in (None, shipped())
    }
    for name, weights in others:
        assert f"`{str(weights)[:8]}`" in (ROOT / MADE[name]).read_text("utf-8"), (name, weights)


def test_a_figure_that_no_record_holds_is_found() -> None:
    weights = shipped()
    made = Record.make("core", "mini", {"k": 5}, {"macro": 91.6, "seconds": 2.6}, 1.0, weights_hash=weights)
    for figure, missing in {
        "91.6": [], "92 %": [], ".916": [], "2,600 ms": [], "5": [],
        "91.7": ["91.7"], "91 %": ["91"], "91.60": [], "91.62": ["91.62"], "2,600 s": ["2,600"], "1,330": ["1,330"],
    }.items():  # fmt: skip
        (block,) = blocks(f"It finds {figure} (record `core__mini`).")
        assert not_in_records(block, [made]) == missing, figure
    assert meant("core__mini", [replace(made, weights_hash="ab" * 32)]) == []


def test_a_table_takes_the_records_of_the_block_before_it() -> None:
    plain, table, after = blocks("Record `core__mini`:\n\n| a |\n|---|\n| 1.5 |\n\nAnd 2.5 seconds.")
    assert (plain.named, table.named, after.named) == (("core__mini",), ("core__mini",), ())
    assert NUMBER.findall(table.text) == [("1.5", "")]
    assert MEASURED.search(after.text)
