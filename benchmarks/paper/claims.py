"""What the paper finds, put to the test on records: each claim holds, does not hold, or is not clear, with figures.

A claim compares two figures. It holds if the one is greater and their 95 % intervals lie apart; it does not hold if it
is not greater; between the two, or without intervals, it is not clear. The paper's figures are of the real data and
have a column of their own; where it prints none for the frozen trunk, or none at all, the comparison is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steersearch.benchmarks.harness.record import Record
from steersearch.benchmarks.harness.tables import Table
from steersearch.benchmarks.paper.published import (
    CORE,
    CORE_BACKBONES,
    DINOV2_QUALITY,
    GATE_SWEEP,
    GENECIS_FOCUS_OBJECT,
    OTHERS,
    PODS_LATE,
    core_wrong,
)

FROZEN, GENTLE, LATE = "+gate0", "+gate0.6", "late-fusion"


@dataclass(frozen=True)
class Figure:
    """A metric of a benchmark, of the model itself ("") or another version of it (FROZEN, GENTLE, LATE).

    metric: {1} in it stands for the first prompt of the record, after none: on the stand-in it is another one.
    """

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
_PODS = OTHERS["pods"]["SteerViT"]
_DESCRIBED = _PODS["pr_auc_description"]
_ADE20K = tuple(OTHERS["quality"][row]["ade20k"] for row in ("SteerViT", "DINOv2"))
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
        "Anomaly: phrases for damage find it better than the frozen trunk's map",
        "anomaly", Figure("pro"), Figure("pro", FROZEN), (OTHERS["anomaly/mvtec"]["SteerViT"]["pro"], None),
    ),
    Claim(
        "PODS: a description of the object does more than its supercategory",
        "pods", Figure("pr_auc_description"), Figure("pr_auc_supercategory"), (58.1, 27.9),
    ),
    Claim(
        "PODS: a description of the object does more than its name",
        "pods", Figure("pr_auc_description"), Figure("pr_auc_name"), (_DESCRIBED, _PODS["pr_auc_name"]),
    ),
    Claim(
        "PODS: steering by a description beats the frozen trunk",
        "pods", Figure("pr_auc_description"), Figure("pr_auc_none"), (58.1, 29.6),
    ),
    Claim(
        "PODS: a description that meets the picture early does more than after the last block",
        "pods", Figure("pr_auc_description"), Figure("pr_auc_description", LATE), (_DESCRIBED, PODS_LATE),
    ),
    Claim(
        "RefCOCOg: the heatmap covers what a sentence refers to, the frozen trunk's less",
        "refcocog", Figure("mean_iou"), Figure("mean_iou", FROZEN), (OTHERS["refcocog"]["SteerViT"]["mean_iou"], None),
    ),
    Claim(
        "Quality: features at gate_scale 0.6 say more of the picture than at 1.0",
        "quality", Figure("quality", GENTLE), Figure("quality"), (GATE_SWEEP[0.6][0], GATE_SWEEP[1.0][0]),
    ),
    Claim(
        "Quality: features at gate_scale 0.6 say more of the picture than the frozen trunk's",
        "quality", Figure("quality", GENTLE), Figure("quality", FROZEN), (GATE_SWEEP[0.6][0], DINOV2_QUALITY),
    ),
    Claim(
        "Quality: features at gate_scale 1.0 keep 95 % of what the frozen trunk's say",
        "quality", Figure("quality"), Figure("quality", FROZEN), (GATE_SWEEP[1.0][0], DINOV2_QUALITY), 0.95,
    ),
    Claim(
        "Quality: patches say more of a class under its name than in the frozen trunk",
        "quality", Figure("ade20k"), Figure("ade20k", FROZEN), (_ADE20K[0], _ADE20K[1]),
    ),
    Claim(
        "Embedding map: the prompt of a group parts it from the rest",
        "embedding-map", Figure("group_{1}"), Figure("group_none"),
    ),
    Claim(
        "Embedding map: the prompt of a class draws it together",
        "embedding-map", Figure("class_{2}"), Figure("class_none"),
    ),
)  # fmt: skip


def verdicts(records: Sequence[Record], model: str) -> list[Verdict]:
    """All claims, judged by the records of `model` and its other versions; late fusion by the method of that name.

    On each data set that both figures of a claim were measured on, so a claim may be judged several times. Late fusion
    itself is not compared with late fusion.
    """
    claims = [c for c in CLAIMS if not (model == LATE and LATE in (c.more.version, c.less.version))]
    return [verdict for claim in claims for verdict in _judged(claim, records, model)]


def claims_table(found: Sequence[Verdict]) -> Table:
    """The verdicts as a table; the paper's figures are in the last column."""
    header = ("the paper's finding", "on", "figures", "so it", "paper, on the real data")
    rows = []
    for verdict in found:
        ours = "" if verdict.more is None else _against(verdict.more, verdict.less)
        paper = _against(*verdict.claim.paper) if verdict.claim.paper else "shown, no figure"
        rows.append(
            (verdict.claim.says, verdict.benchmark or verdict.claim.benchmark, ours, verdict.answer, paper)
        )
    return Table("What the paper finds", header, tuple(rows))


def _judged(claim: Claim, records: Sequence[Record], model: str) -> list[Verdict]:
    on_data: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if record.benchmark.split("/")[0].removesuffix("-world") == claim.benchmark:
            on_data.setdefault((record.benchmark, record.data.get("hash", "")), []).append(record)
    pairs = {
        benchmark: (_measured(own, model, claim.more), _measured(own, model, claim.less))
        for (benchmark, _), own in on_data.items()
    }
    found = [
        Verdict(claim, _answer(claim, more, less), more.value, less.value, benchmark)
        for benchmark, (more, less) in pairs.items()
        if more is not None and less is not None
    ]
    if found:
        return found
    missing = [
        figure for i, figure in enumerate((claim.more, claim.less)) if not any(p[i] for p in pairs.values())
    ]
    return [Verdict(claim, _unmeasured(claim, missing[0]) if missing else "not measured: each on other data")]


@dataclass(frozen=True)
class _Measured:
    """A figure as a record has it; interval: empty where that says none."""

    value: float
    interval: Sequence[float]


def _measured(records: Sequence[Record], model: str, figure: Figure) -> _Measured | None:
    """By the last of the records that measured it."""
    name = LATE if figure.version == LATE else model + figure.version
    for record in reversed(records):
        metric = _metric(record, figure) if record.model == name else ""
        if record.metrics.get(metric) is not None:
            return _Measured(float(record.metrics[metric]), record.intervals.get(metric, ()))
    return None


def _answer(claim: Claim, more: _Measured, less: _Measured) -> str:
    if claim.share is not None:
        return "holds" if more.value >= claim.share * less.value else "does not hold"
    if more.value <= less.value:
        return "does not hold"
    known = more.interval and less.interval
    return "holds" if known and more.interval[0] > less.interval[1] else "not clear"


def _metric(record: Record, figure: Figure) -> str:
    """The metric's name in this record; its prompts begin with none."""
    return figure.metric.format(*record.settings["prompts"]) if "{" in figure.metric else figure.metric


def _unmeasured(claim: Claim, figure: Figure) -> str:
    if figure.version == LATE:
        return "not measured: needs a model trained with late fusion (bench all --late FILE)"
    return f"not measured: no record of {claim.benchmark}{figure.version and f' at {figure.version[1:]}'}"


def _against(more: float | None, less: float | None) -> str:
    """Shares in percent to one digit behind the point, silhouettes to two."""
    digits = 2 if max(abs(value or 0) for value in (more, less)) <= 1 else 1
    return " against ".join("–" if value is None else f"{value:.{digits}f}" for value in (more, less))
