"""What the paper claims and what we add to it, each tested on records by one command that writes docs/benchmarks.md:

    python -m steersearch.benchmarks.paper.claims --into docs/benchmarks.md

A claim compares two figures on the same data, query by query or class by class. It holds if the 95 % interval of
their difference lies above zero, does not hold if it lies below, and is not decided if it includes zero.

The paper's claims are tested with its pooling (`cls`, or `mean` for a backbone without CLS) on a model trained with its
objective, and on the model itself, which may be trained with more. Our additions, `focus` pooling and object-alone
distillation, are tested against it. The paper's figures are of the real data.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from steersearch.benchmarks.harness.intervals import mean_of, paired_interval
from steersearch.benchmarks.harness.record import RESULTS, Record
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
from steersearch.core.errors import BenchmarkError
from steersearch.core.registry import MODELS, PackageFile

Pooling = Literal["paper", "focus"]
# A method; the suffix of a model trained with the paper's objective alone.
LATE, TWIN = "late-fusion", "-paper"
DISTILLED = "with distillation"
LEAST_CHANGE = 0.1  # mean difference of gates below which two gate_scales count as the same experiment
BEGIN, END = "<!-- made by benchmarks/paper/claims.py -->", "<!-- until here -->"


@dataclass(frozen=True)
class Figure:
    """A metric of the model itself (""), of the one trained with the paper's objective alone (TWIN), or of a method.

    metric: {1} stands for the first prompt of the record, which differs on the stand-in.
    pooling: None for attention and heatmaps, which need none.
    """

    metric: str
    gate_scale: float = 1.0
    model: str = ""
    pooling: Pooling | None = "paper"


@dataclass(frozen=True)
class Claim:
    """`more` is greater than `share` times `less` on `benchmark`. paper: its figures for both.

    benchmark: its name in the catalogue, for all data sets; or a record's, for one.
    needs: settings that both records must have.
    """

    says: str
    benchmark: str
    more: Figure
    less: Figure
    paper: tuple[float, float] | None = None
    share: float = 1.0
    needs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The result of a claim on one data set.

    answer: "holds", "does not hold", "not decided", or why it was not tested.  interval: of `more` - share · `less`.
    """

    claim: Claim
    model: str
    answer: str
    more: float | None = None
    less: float | None = None
    interval: tuple[float, float] | None = None
    benchmark: str = ""
    records: tuple[str, ...] = ()


_STEERED = CORE["SteerViT"][0]
_LATE = dict(zip(("base", "late", "steered"), CORE_BACKBONES["DINOv2"], strict=True))
_PODS = OTHERS["pods"]["SteerViT"]
_DESCRIBED = _PODS["pr_auc_description"]
_ADE20K = tuple(OTHERS["quality"][row]["ade20k"] for row in ("SteerViT", "DINOv2"))
_FOCUS_OBJECT = {row: recalls[0] for row, recalls in GENECIS_FOCUS_OBJECT.items()}

PAPER_CLAIMS = (
    Claim(
        "CORE: steering finds what the unsteered backbone does not",
        "core", Figure("macro"), Figure("macro_no_prompt"), (_STEERED, CORE["DINOv2"][0]),
    ),
    Claim(
        "CORE: the right prompt makes the difference, a wrong one takes it away",
        "core", Figure("macro"), Figure("macro_wrong_prompt"), (_STEERED, core_wrong("SteerViT") or 0.0),
    ),
    Claim(
        "CORE: text that meets the picture early beats text after the last block",
        "core", Figure("macro"), Figure("macro", model=LATE), (_LATE["steered"], _LATE["late"]),
    ),
    Claim(
        "CORE: gate_scale 0.6 keeps 95 % of what 1.0 reaches",
        "core", Figure("macro", 0.6), Figure("macro"), (GATE_SWEEP[0.6][1], GATE_SWEEP[1.0][1]), 0.95,
    ),
    Claim(
        "CORE: steering finds more than SAM3",
        "core", Figure("macro"), Figure("macro", model="sam3"), (_STEERED, CORE["SAM3"][0]),
    ),
    Claim(
        "GeneCIS Focus Object: steering beats the unsteered backbone",
        "genecis", Figure("focus_object_r1"), Figure("focus_object_r1_no_prompt"),
        (_FOCUS_OBJECT["SteerViT"], _FOCUS_OBJECT["DINOv2"]),
    ),
    Claim(
        "GeneCIS Focus Object: steering beats the combiner made for it",
        "genecis", Figure("focus_object_r1"), Figure("focus_object_r1", model="genecis-combiner"),
        (_FOCUS_OBJECT["SteerViT"], _FOCUS_OBJECT["GeneCIS combiner"]),
    ),
    Claim(
        "MOSAIC: the attention of CLS goes to what the prompt names",
        "mosaic", Figure("ap", pooling=None), Figure("ap", 0.0, pooling=None), (50.2, 14.3),
        needs={"map": "attention of CLS"},
    ),
    *(
        Claim(
            f"Anomaly, {name}: words for damage find it better than CLIPSeg does",
            data, Figure("pro", pooling=None), Figure("pro", model="clipseg", pooling=None),
            (OTHERS[data]["SteerViT"]["pro"], OTHERS[data]["CLIPSeg"]["pro"]),
        )
        for name, data in (("MVTec AD", "anomaly/mvtec"), ("VisA", "anomaly/visa"))
    ),
    Claim(
        "PODS: a description of the object beats its supercategory",
        "pods", Figure("pr_auc_description"), Figure("pr_auc_supercategory"),
        (_DESCRIBED, _PODS["pr_auc_supercategory"]),
    ),
    Claim(
        "PODS: a description of the object beats its name",
        "pods", Figure("pr_auc_description"), Figure("pr_auc_name"), (_DESCRIBED, _PODS["pr_auc_name"]),
    ),
    Claim(
        "PODS: steering by a description beats the unsteered backbone",
        "pods", Figure("pr_auc_description"), Figure("pr_auc_none"),
        (_DESCRIBED, OTHERS["pods"]["DINOv2"]["pr_auc_none"]),
    ),
    Claim(
        "PODS: a description that meets the picture early beats one after the last block",
        "pods", Figure("pr_auc_description"), Figure("pr_auc_description", model=LATE), (_DESCRIBED, PODS_LATE),
    ),
    Claim(
        "Quality: features at gate_scale 0.6 say more of the picture than at 1.0",
        "quality", Figure("quality", 0.6), Figure("quality"), (GATE_SWEEP[0.6][0], GATE_SWEEP[1.0][0]),
    ),
    Claim(
        "Quality: features at gate_scale 0.6 say more of the picture than unsteered ones",
        "quality", Figure("quality", 0.6), Figure("quality", 0.0), (GATE_SWEEP[0.6][0], DINOV2_QUALITY),
    ),
    Claim(
        "Quality: features at gate_scale 1.0 keep 95 % of what unsteered ones say",
        "quality", Figure("quality"), Figure("quality", 0.0), (GATE_SWEEP[1.0][0], DINOV2_QUALITY), 0.95,
    ),
    Claim(
        "Quality: patches say more of a class under its name than unsteered",
        "quality", Figure("ade20k"), Figure("ade20k", 0.0), (_ADE20K[0], _ADE20K[1]),
    ),
    Claim(
        "Embedding map: the prompt of a group separates it from the rest",
        "embedding-map", Figure("group_{1}"), Figure("group_none"),
    ),
    Claim(
        "Embedding map: the prompt of a class draws it together",
        "embedding-map", Figure("class_{2}"), Figure("class_none"),
    ),
)  # fmt: skip

OUR_CLAIMS = (
    *(
        Claim(
            f"{name}: `focus` finds more than the paper's pooling",
            benchmark, Figure(metric, pooling="focus"), Figure(metric),
        )
        for name, benchmark, metric in (
            ("CORE", "core", "macro"),
            ("GeneCIS Focus Object", "genecis", "focus_object_r1"),
            ("PODS, by name", "pods", "pr_auc_name"),
            ("PODS, by description", "pods", "pr_auc_description"),
        )
    ),
    Claim(
        "Quality: `focus` keeps 95 % of what the paper's pooling says of the picture",
        "quality", Figure("fg_cls", pooling="focus"), Figure("fg_cls"), share=0.95,
    ),
    Claim(
        "CORE: object-alone distillation finds more than the paper's objective alone",
        "core", Figure("macro"), Figure("macro", model=TWIN),
    ),
    Claim(
        "CORE: object-alone distillation keeps 95 % of what `focus` finds under the paper's objective",
        "core", Figure("macro", pooling="focus"), Figure("macro", model=TWIN, pooling="focus"), share=0.95,
    ),
    Claim(
        "RefCOCOg: object-alone distillation keeps 95 % of the heatmap's overlap",
        "refcocog", Figure("mean_iou", pooling=None), Figure("mean_iou", model=TWIN, pooling=None), share=0.95,
    ),
)  # fmt: skip


def twin_of(model: str) -> str:
    """The name of the twin of `model`, trained with the paper's objective alone."""
    return plain_name(model) + TWIN


def objective_of(model: str) -> str:
    """The training objective, according to the model's name."""
    if model.endswith(TWIN) or (model in MODELS and not isinstance(MODELS[model].weights, PackageFile)):
        return "the paper's"
    return DISTILLED if model in MODELS else "not stated"


def verdicts(claims: Sequence[Claim], records: Sequence[Record], model: str) -> list[Verdict]:
    """Each claim on each data set with records of both figures, from the same weights of `model`."""
    model = plain_name(model)
    usable = comparable(records, model)
    return [verdict for claim in claims for verdict in _judged(claim, usable, model)]


def claims_tables(records: Sequence[Record], model: str) -> list[Table]:
    """The paper's claims, then ours, tested on `model`, and on its twin if it has records.

    What both of them await alike stands there once.
    """
    model, twin = plain_name(model), twin_of(model)
    tested = [name for name in (twin, model) if name == model or any(base_of(r) == twin for r in records)]
    paper = [verdict for name in tested for verdict in verdicts(PAPER_CLAIMS, records, name)]
    awaited = {(v.claim.says, v.answer) for v in paper if v.model == model and v.more is None}
    paper = [v for v in paper if v.model == model or (v.claim.says, v.answer) not in awaited]
    paper.sort(key=lambda verdict: PAPER_CLAIMS.index(verdict.claim))
    return [
        _table("What the paper claims, in its own pooling", paper, theirs=True),
        _table("What we add, against the paper's own", verdicts(OUR_CLAIMS, records, model), theirs=False),
    ]


def _table(title: str, found: Sequence[Verdict], *, theirs: bool) -> Table:
    header = ["claim", "objective", "on", "figures", "difference, 95 %", "verdict"]
    rows = []
    for verdict in found:
        claim = verdict.claim
        row = [
            claim.says,
            objective_of(verdict.model),
            verdict.benchmark or claim.benchmark,
            _against(verdict.more, verdict.less),
            _difference(verdict),
            verdict.answer,
        ]
        if theirs:
            row.append(_against(*claim.paper) if claim.paper else "shown, no figure")
        rows.append((*row, ", ".join(verdict.records)))
    return Table(title, (*header, *(["paper, real data"] if theirs else []), "records"), tuple(rows))


# ------------------------------------------------------------------------------------------------ from records


def comparable(records: Sequence[Record], model: str) -> list[Record]:
    """The records with answers, by date; of `model` only those of its current weights."""
    found = sorted((r for r in records if r.answers and "model" in r.settings), key=lambda r: r.date)
    own = [record.weights_hash for record in found if base_of(record) == model]
    if not own:
        return found
    card = MODELS.get(model)
    shipped = card.weights.sha256 if card is not None and isinstance(card.weights, PackageFile) else own[-1]
    return [r for r in found if base_of(r) != model or r.weights_hash == shipped]


def base_of(record: Record) -> str:
    """The model or method, without gate_scale and pooling; of a file its name without folder and ending."""
    return plain_name(record.model.split("+")[0])


def plain_name(model: str) -> str:
    """A file's name without folder and ending; another name as it is."""
    file = Path(model)
    return file.stem if file.suffix in (".safetensors", ".pth") else model


def _judged(claim: Claim, records: Sequence[Record], model: str) -> Iterator[Verdict]:
    on_data: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if claim.benchmark in (record.task, record.benchmark):
            on_data.setdefault((record.benchmark, record.data.get("hash", "")), []).append(record)
    found = [tuple(last_with(own, model, f) for f in (claim.more, claim.less)) for own in on_data.values()]
    pairs = [(more, less) for more, less in found if more is not None and less is not None]
    for more, less in sorted(pairs, key=lambda pair: pair[0].benchmark):
        yield _compared(claim, model, more, less)
    if not pairs:
        missing = [f for i, f in enumerate((claim.more, claim.less)) if not any(pair[i] for pair in found)]
        why = _unmeasured(claim, missing[-1]) if missing else "not tested: each was measured on other data"
        yield Verdict(claim, model, why)


def last_with(records: Sequence[Record], model: str, figure: Figure) -> Record | None:
    """The last record of this version of the model that has the figure."""
    name = {"": model, TWIN: twin_of(model)}.get(figure.model, figure.model)
    for record in reversed(records):
        same = base_of(record) == name and _gate_scale(record) == figure.gate_scale
        if same and _pooled(record, figure.pooling) and _metric(record, figure) in record.answers:
            return record
    return None


def _gate_scale(record: Record) -> float:
    return float(record.settings.get("method", {}).get("gate_scale", 1.0))


def _pooled(record: Record, pooling: Pooling | None) -> bool:
    """Whether the record has this pooling, or needs none; baselines have only the paper's."""
    own = record.settings["model"]
    if pooling is None or "aggregation" not in own:
        return True
    return bool(own["aggregation"] == (own["paper_aggregation"] if pooling == "paper" else pooling))


def _compared(claim: Claim, model: str, more: Record, less: Record) -> Verdict:
    answers = more.answers[_metric(more, claim.more)], less.answers[_metric(less, claim.less)]
    figures = mean_of(answers[0]), mean_of(answers[1])
    names = tuple(dict.fromkeys((more.name, less.name)))
    if why := _beside_the_point(claim, model, more, less):
        return Verdict(claim, model, why, *figures, None, more.benchmark, names)
    try:
        low, high = paired_interval(*answers, claim.share)
    except ValueError as error:
        return Verdict(claim, model, f"not tested: {error}", *figures, None, more.benchmark, names)
    answer = "holds" if low > 0 else "does not hold" if high < 0 else "not decided"
    return Verdict(claim, model, answer, *figures, (low, high), more.benchmark, names)


def _beside_the_point(claim: Claim, model: str, more: Record, less: Record) -> str:
    """Why these records cannot test the claim, although they have its figures; "" if they can."""
    if claim.less.model == LATE and objective_of(model) == DISTILLED:
        return "not tested: late fusion was trained with the paper's objective, so two things differ"
    for name, value in claim.needs.items():
        for record in (more, less):
            if record.settings.get(name) != value:
                return f"not tested: measured was the {record.settings.get(name)}, not the {value}"
    if claim.more.gate_scale == claim.less.gate_scale or 0 in (claim.more.gate_scale, claim.less.gate_scale):
        return ""
    gates = [record.settings["model"].get("gates") for record in (more, less)]
    if not all(gates):
        return "not tested: the model has no gates"
    means = [sum(each) / len(each) for each in gates]
    if abs(means[0] - means[1]) < LEAST_CHANGE:
        return f"not tested: the gates hardly differ ({means[0]:.2f} and {means[1]:.2f})"
    return ""


def _metric(record: Record, figure: Figure) -> str:
    """The metric's name in this record, whose first prompt is none."""
    prompts: Any = record.settings.get("prompts", ())
    return figure.metric.format(*prompts) if "{" in figure.metric else figure.metric


def _unmeasured(claim: Claim, figure: Figure) -> str:
    task = claim.benchmark.split("/")[0]
    if figure.model == TWIN:
        return "awaits a model trained with the paper's objective alone (bench all --paper FILE)"
    if figure.model == LATE:
        return "awaits a model trained with late fusion (bench all --late FILE)"
    if figure.model:
        return f"awaits a record of {figure.model} (bench {task} --method {figure.model} --save)"
    at = "" if figure.gate_scale == 1 else f" at gate_scale {figure.gate_scale:g}"
    return f"awaits a record of {task}{at} (bench all --save)"


# -------------------------------------------------------------------------------------------------- as text


def _against(more: float | None, less: float | None) -> str:
    """Percentages with one decimal, silhouettes with two."""
    if more is None or less is None:
        return ""
    digits = 2 if max(abs(more), abs(less)) <= 1 else 1
    return f"{more:.{digits}f} against {less:.{digits}f}"


def _difference(verdict: Verdict) -> str:
    if verdict.interval is None or verdict.more is None or verdict.less is None:
        return ""
    low, high = verdict.interval
    digits = 2 if max(abs(verdict.more), abs(verdict.less)) <= 1 else 1
    apart = verdict.more - verdict.claim.share * verdict.less
    share = "" if verdict.claim.share == 1 else f" to {100 * verdict.claim.share:g} %"
    return f"{apart:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f}){share}"


def written_into(text: str, tables: Sequence[Table]) -> str:
    """`text` with the tables between the lines BEGIN and END. Raises BenchmarkError without these."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchmarkError(f"no line {BEGIN} with a line {END} after it")
    return f"{before}{BEGIN}\n\n" + "\n".join(table.to_markdown() for table in tables) + f"\n{END}{after}"


def main() -> None:
    """Print the tables in Markdown, or write them into a document."""
    parser = argparse.ArgumentParser(description="What the paper claims and what we add, tested on records.")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--from", type=Path, default=RESULTS, dest="folder", help="the records")
    parser.add_argument("--into", type=Path, metavar="FILE", help=f"replace what it has from {BEGIN} on")
    arguments = parser.parse_args()
    records = [Record.read(path) for path in sorted(arguments.folder.glob("*.json"))]
    tables = claims_tables(records, arguments.model)
    if arguments.into is None:
        print("\n".join(table.to_markdown() for table in tables))
    else:
        text = written_into(arguments.into.read_text(encoding="utf-8"), tables)
        arguments.into.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
