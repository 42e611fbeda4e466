"""Output of the benchmark commands for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from steersearch.benchmarks.baselines.cards import Card as BaselineCard
from steersearch.benchmarks.harness.catalogue import Card
from steersearch.benchmarks.harness.record import Record
from steersearch.benchmarks.harness.tables import Table, comparison_table, metrics_table, rows_table
from steersearch.views import terminal


def table(shown: Table) -> None:
    terminal.table(shown.header, shown.rows, right=shown.numbers)


def record(measured: Record) -> None:
    """A record's figures, then those of its parts; the data set is a remark."""
    data = measured.data
    terminal.line(f"{measured.benchmark}, {measured.model}")
    table(metrics_table(measured))
    parts = rows_table(measured)
    if parts is not None:
        terminal.line()
        table(parts)
    terminal.remark(
        f"{data['n']:,} pictures, {data['source']}, data {data['hash'][:12]}; {measured.seconds:,.0f} s; "
        "shares are in percent"
    )
    if measured.partial:
        terminal.remark(f"the figures are of a part of the data: {'; '.join(measured.partial)}")


def comparisons(records: Sequence[Record]) -> None:
    """A table for each benchmark, its methods side by side."""
    for name in dict.fromkeys(record.benchmark for record in records):
        shown = comparison_table([record for record in records if record.benchmark == name])
        terminal.line(shown.title)
        table(shown)
        terminal.line()


def cards(known: Iterable[Card]) -> None:
    """The benchmarks."""
    for card in known:
        terminal.line(card.name)
        terminal.line(f"  {card.asks}")
        if card.data is not None:
            terminal.line(f"  data:     {card.data.what}; {card.data.size}; licence: {card.data.licence}")
            terminal.line(f"  get it:   {card.data.how}")
        if card.stand_in is not None:
            terminal.line(f"  stand-in: {card.stand_in}: steersearch bench {card.name} --world")
    terminal.line("speed")
    terminal.line(
        "  What does steering cost in images/s and memory? Random weights, no data: steersearch bench speed"
    )
    terminal.remark("`steersearch bench methods` lists the baselines for --method")


def methods(known: Iterable[BaselineCard]) -> None:
    """The baselines, one per line."""
    header = ("method", "in the paper", "gives", "licence", "weights")
    rows = [
        (
            card.name,
            "" if card.why else card.row,
            ", ".join(card.gives) or "cannot be run",
            card.licence.split(" (")[0],
            card.weights,
        )
        for card in known
    ]
    terminal.table(header, rows)
    terminal.remark("`steersearch bench methods NAME` explains one, and why it may not run")


def method(card: BaselineCard) -> None:
    """All about one method."""
    said = {
        "method": card.name,
        "in the paper": "no" if card.why else card.row,
        "here because": card.why,
        "computes": card.computes,
        "aggregation": card.aggregation,
        "prompt": "used" if card.takes_prompt else "ignored",
        "gives": ", ".join(card.gives),
        **{f"no {part}": reason for part, reason in card.lacks.items()},
        "weights": card.weights,
        "licence": card.licence,
        "needs": f"pip install 'steersearch[{card.extra}]'" if card.extra else "",
        "cannot be run": card.cannot or "",
    }
    width = max(map(len, said))
    for name, words in said.items():
        if words:
            terminal.line(f"{name:<{width}}  {words}")
