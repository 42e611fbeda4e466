"""What the paper finds, put to the test on records: each claim holds, does not hold, or is not clear, with figures.

A claim compares two figures. It holds if the one is greater and their 95 % intervals lie apart; it does not hold if it
is not greater; between the two it is not clear. The paper's figures are of the real data and have a column of their
own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steersearch.benchmarks.published import (
    CORE,
    CORE_BACKBONES,
    GATE_SWEEP,
    GENECIS_FOCUS_OBJECT,
    core_wrong,
)
from steersearch.benchmarks.record import Record
from steersearch.benchmarks.tables import Table, cell

FROZEN, GENTLE, LATE = "+gate0", "+gate0.6", "late-fusion"


@dataclass(frozen=True)
class Figure:
    """A metric of a benchmark, of the model itself ("") or another version of it (FROZEN, GENTLE, LATE)."""

    metric: str
    version: str = ""


@dataclass(frozen=True)
class Claim:
    """`more` of `benchmark` is greater than `less`. paper: its figures for both.

    share: then `more` is at least this share of `less`, and intervals do not matter.
    """

    says: str
    benchmark: str
    more: Figure
    less: Figure
    paper: tuple[float | None, float | None] | None = None
    share: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What came of a claim. answer: "holds", "does not hold", "not clear", or why it was not measured."""

    claim: Claim
    answer: str
    more: float | None = None
    less: float | None = None
    benchmark: str = ""


_STEERED = CORE["SteerViT"][0]
_LATE = dict(zip(("base", "late", "steered"), CORE_BACKBONES["DINOv2"], strict=True))
CLAIMS = (
    Claim(
        "CORE: steering finds what the frozen trunk does not",
        "core", Figure("macro"), Figure("macro_no_prompt"), (_STEERED, CORE["DINOv2"][0]),
    ),
    Claim(
        "CORE: the right prompt makes the difference, a wrong one takes it away",
        "core", Figure("macro"), Figure("macro_wrong_prompt"), (_STEERED, core_wrong("SteerViT")),
    ),
    Claim(
        "CORE: text that meets the picture early does more than after the last block",
        "core", Figure("macro"), Figure("macro", LATE), (_LATE["steered"], _LATE["late"]),
    ),
    Claim(
        "CORE: gate_scale 0.6 keeps 95 % of what 1.0 reaches",
        "core", Figure("macro", GENTLE), Figure("macro"), (GATE_SWEEP[0.6][1], GATE_SWEEP[1.0][1]), 0.95,
    ),
    Claim(
        "GeneCIS Focus Object: steering beats the frozen trunk",
        "genecis", Figure("focus_object_r1"), Figure("focus_object_r1_no_prompt"),
        (GENECIS_FOCUS_OBJECT["SteerViT"][0], GENECIS_FOCUS_OBJECT["DINOv2"][0]),
    ),
    Claim(
        "MOSAIC: the attention of CLS goes to what the prompt names",
        "mosaic", Figure("ap"), Figure("ap", FROZEN), (50.2, 14.3),
    ),
    Claim(
        "PODS: a description of the object does more than its supercategory",
        "pods", Figure("pr_auc_description"), Figure("pr_auc_supercategory"), (58.1, 27.9),
    ),
    Claim(
        "PODS: steering by a description beats the frozen trunk",
        "pods", Figure("pr_auc_description"), Figure("pr_auc_none"), (58.1, 29.6),
    ),
    Claim(
        "Quality: features at gate_scale 0.6 say more of the picture than at 1.0",
        "quality", Figure("quality", GENTLE), Figure("quality"), (GATE_SWEEP[0.6][0], GATE_SWEEP[1.0][0]),
    ),
)  # fmt: skip


def verdicts(records: Sequence[Record], model: str) -> list[Verdict]:
    """All claims, judged by the records of `model` and its other versions; late fusion by the method of that name."""
    return [_judged(claim, records, model) for claim in CLAIMS]


def claims_table(found: Sequence[Verdict]) -> Table:
    """The verdicts as a table; the paper's figures are in the last column."""
    header = ("the paper's finding", "on", "figures", "so it", "paper, on the real data")
    rows = []
    for verdict in found:
        ours = "" if verdict.more is None else f"{verdict.more:.1f} against {verdict.less:.1f}"
        paper = " against ".join(map(_short, verdict.claim.paper)) if verdict.claim.paper else ""
        rows.append(
            (verdict.claim.says, verdict.benchmark or verdict.claim.benchmark, ours, verdict.answer, paper)
        )
    return Table("What the paper finds", header, tuple(rows))


def _judged(claim: Claim, records: Sequence[Record], model: str) -> Verdict:
    more, less = (_record(records, claim.benchmark, model, figure) for figure in (claim.more, claim.less))
    for figure, record in ((claim.more, more), (claim.less, less)):
        if record is None or record.metrics.get(figure.metric) is None:
            return Verdict(claim, _unmeasured(claim, figure))
    assert more is not None
    assert less is not None
    a, b = float(more.metrics[claim.more.metric]), float(less.metrics[claim.less.metric])
    if claim.share is not None:
        answer = "holds" if a >= claim.share * b else "does not hold"
    elif a <= b:
        answer = "does not hold"
    else:
        low = more.intervals.get(claim.more.metric, [a, a])[0]
        high = less.intervals.get(claim.less.metric, [b, b])[1]
        answer = "holds" if low > high else "not clear"
    return Verdict(claim, answer, a, b, more.benchmark)


def _record(records: Sequence[Record], benchmark: str, model: str, figure: Figure) -> Record | None:
    """The last of the records that measured this."""
    name = LATE if figure.version == LATE else model + figure.version
    fitting = [
        r
        for r in records
        if r.benchmark.split("/")[0].removesuffix("-world") == benchmark and r.model == name
    ]
    return fitting[-1] if fitting else None


def _unmeasured(claim: Claim, figure: Figure) -> str:
    if figure.version == LATE:
        return "not measured: needs a model trained with late fusion (bench all --late FILE)"
    return f"not measured: no record of {claim.benchmark}{figure.version and f' at {figure.version[1:]}'}"


def _short(value: float | None) -> str:
    return cell(value) if value is None else f"{value:.1f}"
