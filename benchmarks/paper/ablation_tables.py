"""The paper's Table 4 and its ablations, with ours beside.

Ours are of two kinds. Models trained with the paper's objective alone, as `bench all` measures them, are tested
unsteered, steered, and, where one was measured, with late fusion. The study of `paper.ablations` trains every part over
one backbone; its figures are CORE's in `cls`, means over its seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from steersearch.benchmarks.harness.record import Record
from steersearch.benchmarks.paper import published
from steersearch.benchmarks.paper.claims import (
    LATE,
    TWIN,
    Figure,
    base_of,
    comparable,
    last_with,
    objective_of,
)
from steersearch.benchmarks.paper.comparison import Comparison, Figures, Line

STUDY = "ablations"  # of the paper's parts, as a record
HEADINGS = {
    "fg_cls": "FG-CLS",
    "ade20k": "ADE20k",
    "core": "CORE",
    "pods": "PODS",
    "pro": "MVTec AD, PRO",
    "refcocog": "RefCOCOg",
}
TASKS = {"fg_cls": "quality", "ade20k": "quality", "pro": "anomaly"}  # the others are their metric's name

STEERED = {
    "fg_cls": Figure("fg_cls"),
    "ade20k": Figure("ade20k"),
    "core": Figure("macro"),
    "pods": Figure("pr_auc_description"),
    "pro": Figure("pro", pooling=None),
    "refcocog": Figure("mean_iou", pooling=None),
}
UNSTEERED = {
    "fg_cls": Figure("fg_cls", 0.0),
    "ade20k": Figure("ade20k", 0.0),
    "core": Figure("macro_no_prompt"),
    "pods": Figure("pr_auc_none"),
}
FUSED_LATE = {name: Figure(each.metric, model=LATE, pooling=each.pooling) for name, each in STEERED.items()}
BACKBONES = {"dinov2-base": "DINOv2", "siglip-base": "SigLIP", "mae-base": "MAE"}
SIZES = {"dinov2-small": "ViT-S", "dinov2-base": "ViT-B", "dinov2-large": "ViT-L"}


@dataclass(frozen=True)
class Own:
    """Our figures for a row. variant: of the study.  models: those that the row is about; none: all."""

    figures: Mapping[str, Figure] = field(default_factory=dict)
    variant: str = ""
    models: Sequence[str] = ()


OWN: dict[str, dict[str, Own]] = {
    "Table 3: parts of the model": {
        "vanilla": Own(UNSTEERED),
        "full model": Own(STEERED, "paper"),
        "late fusion": Own(FUSED_LATE, "late fusion"),
        "no tanh gate": Own(variant="no tanh gate"),
        "linear connector": Own(variant="linear connector"),
    },
    "Table 9: training objective": {
        "pointing": Own(variant="pointing"),
        "segmentation": Own(STEERED, "paper"),
    },
    "Table 10: size of backbone and text encoder": {
        size: Own(STEERED, models=(name, f"{name}-research")) for name, size in SIZES.items()
    },
    "Table 12: gated FFN": {
        row: Own(STEERED, models=(name, f"{name}-research")) for name, row in BACKBONES.items()
    },
}
# Rows of the study over a backbone that the table has not: title -> row -> variant.
UNPUBLISHED = {"Table 12: gated FFN": {"no FFN": "paper", "FFN": "ffn"}}


def ablation_tables(records: Sequence[Record], studies: Sequence[Record]) -> list[Comparison]:
    """Table 3, Table 4, and the others of `published.ABLATIONS`. studies: records of STUDY."""
    models = list(dict.fromkeys(base_of(r) for r in records if objective_of(base_of(r)) == "the paper's"))
    measured = {model: comparable(records, model) for model in models}
    first, *others = (_ablation(title, measured, studies) for title in published.ABLATIONS)
    return [first, _table_4(measured, studies), *others]


def _table_4(measured: Mapping[str, Sequence[Record]], studies: Sequence[Record]) -> Comparison:
    columns = {"base": "CORE, unsteered", "late": "CORE, late fusion", "steered": "CORE, SteerViT"}
    figures = {"base": UNSTEERED["core"], "late": FUSED_LATE["core"], "steered": STEERED["core"]}
    variants = {"base": ("paper", "none"), "late": ("late fusion", "right"), "steered": ("paper", "right")}
    row_of = {name: row for plain, row in BACKBONES.items() for name in (plain, f"{plain}-research")}
    lines = []
    for row, paper in published.CORE_BACKBONES.items():
        own = [model for model in measured if row_of.get(model) == row]
        found = [(model, _of_model(figures, model, measured[model], task="core")) for model in own]
        lines += _lines(row, dict(zip(columns, paper, strict=True)), found)
    for model in (each for each in measured if each not in row_of):
        lines.append(Line(model, {}, _of_model(figures, model, measured[model], task="core")))
    for study in studies:
        lines.append(Line(_name(study), {}, _of_study(study, variants)))
    return _comparison("Table 4: backbones, early and late fusion", columns, lines)


def _ablation(title: str, measured: Mapping[str, Sequence[Record]], studies: Sequence[Record]) -> Comparison:
    lines: list[Line] = []
    for row, paper in published.ABLATIONS[title].items():
        own = OWN.get(title, {}).get(row, Own())
        found = [
            (LATE if own.figures is FUSED_LATE else model, _of_model(own.figures, model, records))
            for model, records in measured.items()
            if not own.models or model in own.models
        ]
        found += [(_name(study), _of_study(study, {"core": (own.variant, "right")})) for study in studies]
        lines += _lines(row, paper, found)
    columns = {name: HEADINGS[name] for name in HEADINGS if any(name in line.paper for line in lines)}
    for row, variant in UNPUBLISHED.get(title, {}).items():
        for study in studies:
            lines.append(Line(f"{row} ({_name(study)})", {}, _of_study(study, {"core": (variant, "right")})))
    return _comparison(title, columns, lines)


def _lines(row: str, paper: Figures, found: Sequence[tuple[str, Mapping[str, Figures]]]) -> list[Line]:
    """A line for each of our measured figures, or a line without any."""
    return [Line(f"{row} ({name})", paper, ours) for name, ours in found if ours] or [Line(row, paper, {})]


def _comparison(title: str, columns: Mapping[str, str], lines: Sequence[Line]) -> Comparison:
    return Comparison(
        title, columns, list(dict.fromkeys(data for line in lines for data in line.ours)), lines
    )


def _of_model(
    figures: Mapping[str, Figure], model: str, records: Sequence[Record], task: str = ""
) -> Mapping[str, Figures]:
    """data set -> metric -> figure. task: of all figures. Late fusion is compared with a model trained beside it."""
    found: dict[str, dict[str, Any]] = {}
    for name, figure in figures.items():
        if figure.model == LATE and not model.endswith(TWIN):
            continue
        own = [r for r in records if r.task == (task or TASKS.get(name, name))]
        for data in dict.fromkeys(record.benchmark for record in own):
            last = last_with([record for record in own if record.benchmark == data], model, figure)
            if last is not None:
                found.setdefault(data, {})[name] = last.metrics[figure.metric]
    return found


def _of_study(study: Record, variants: Mapping[str, tuple[str, str]]) -> Mapping[str, Figures]:
    """variants: metric -> variant, and prompt."""
    found: dict[str, dict[str, Any]] = {}
    for name, (variant, prompt) in variants.items():
        for source in ("drawn", "stamps"):
            figure = study.metrics.get(variant, {}).get(source, {}).get(f"cls/{prompt}")
            if figure is not None:
                found.setdefault(f"core-world/{source}", {})[name] = figure["mean"]
    return found


def _name(study: Record) -> str:
    return f"ablations of {study.model}, {study.date}"
