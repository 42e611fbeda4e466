"""The paper's tables in its own layout: its methods as rows, its figures and ours in separate columns.

A column is named after its data set: figures on a stand-in do not compare with published ones.
Figure 2's two axes are drawn from the same records.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from steersearch.benchmarks.harness.plots import Point, Series
from steersearch.benchmarks.harness.record import Record
from steersearch.benchmarks.paper import published
from steersearch.benchmarks.paper.comparison import Comparison, Figures, Line

SCENE = "scene: "  # prefix of the name of one of CORE's scenes among metrics


@dataclass(frozen=True)
class Layout:
    """One of the paper's tables. task: a record's benchmark, or what stands before its "-world" or "/".

    columns: metric -> heading, in the paper's order.  paper: row -> its figures.
    """

    title: str
    task: str
    columns: Mapping[str, str]
    paper: Mapping[str, Figures]


def _right_and_wrong(right: float, wrong: float | None) -> str:
    return f"{right:.1f}" if wrong is None else f"{right:.1f} / {wrong:.1f}"


def _anomaly(data: str, name: str) -> Layout:
    metrics = {"auroc": "AUROC", "pro": "PRO", "f1": "F1max"}
    return Layout(f"Table 8, {name}: anomaly segmentation", data, metrics, published.OTHERS[data])


LAYOUTS = (
    Layout(
        "Figure 5: CORE",
        "core",
        {"macro": "mean over scenes", "macro_wrong_prompt": "wrong prompt"},
        {
            row: {"macro": average, "macro_wrong_prompt": published.core_wrong(row)}
            for row, (average, _) in published.CORE.items()
        },
    ),
    Layout(
        "Table 6: CORE by scene, right / wrong prompt",
        "core",
        {SCENE + scene: scene for scene in published.CORE_SCENES},
        {
            row: {
                SCENE + scene: _right_and_wrong(*pair)
                for scene, pair in zip(published.CORE_SCENES, scenes, strict=True)
            }
            for row, (_, scenes) in published.CORE.items()
        },
    ),
    Layout(
        "Section 4.2: MOSAIC", "mosaic", {"ap": "area under precision-recall"}, published.OTHERS["mosaic"]
    ),
    Layout(
        "Figure 8: PODS",
        "pods",
        {
            f"{metric}_{prompt}": f"{name}, {said}"
            for metric, name in (("pr_auc", "PR-AUC"), ("ndcg", "NDCG"))
            for prompt, said in (
                ("none", "no prompt"),
                ("supercategory", "supercategory"),
                ("name", "name"),
                ("description", "description"),
            )
        },
        published.OTHERS["pods"],
    ),
    Layout(
        "Table 7: GeneCIS, Focus Object",
        "genecis",
        {f"focus_object_r{k}": f"R@{k}" for k in (1, 2, 3)},
        {
            row: {f"focus_object_r{k}": recall for k, recall in zip((1, 2, 3), recalls, strict=True)}
            for row, recalls in published.GENECIS_FOCUS_OBJECT.items()
        },
    ),
    _anomaly("anomaly/mvtec", "MVTec AD"),
    _anomaly("anomaly/visa", "VisA"),
    Layout(
        "Tables 3 and 13: representation quality",
        "quality",
        {
            "waterbirds": "Birds",
            "cars": "Cars",
            "imagewoof": "Dogs",
            "fg_cls": "FG-CLS",
            "ade20k": "ADE20k",
            "cityscapes": "Cityscapes",
            "ucf101": "UCF101",
            "hmdb51": "HMDB51",
        },
        published.OTHERS["quality"],
    ),
    Layout("Appendix C.2: RefCOCOg", "refcocog", {"mean_iou": "mean IoU"}, published.OTHERS["refcocog"]),
)


def paper_tables(records: Sequence[Record]) -> list[Comparison]:
    """Each of LAYOUTS, with the records of its task."""
    return [_table(layout, [r for r in records if _is_of(r, layout.task)]) for layout in LAYOUTS]


def _table(layout: Layout, records: Sequence[Record]) -> Comparison:
    """Each figure of the paper, and beside it the same of each data set on which it was measured."""
    sets = list(dict.fromkeys(record.benchmark for record in sorted(records, key=_real_first)))
    measured = {(record.benchmark, record.model): _figures(record) for record in records}
    lines = []
    for row, model in _rows(layout, records):
        ours = {data: measured[data, model] for data in sets if (data, model) in measured} if model else {}
        if row in layout.paper or any(set(found) & set(layout.columns) for found in ours.values()):
            name = row if model in (None, row) else f"{row} ({model})"
            lines.append(Line(name, layout.paper.get(row, {}), ours))
    return Comparison(layout.title, layout.columns, sets, lines)


def _rows(layout: Layout, records: Sequence[Record]) -> Iterator[tuple[str, str | None]]:
    """(row, model): the paper's rows in its order, each with the models that are compared with it; then the others."""
    models = sorted({record.model for record in records})
    for row in layout.paper:
        own: list[str | None] = [model for model in models if published.row_named(model) == row]
        yield from ((row, model) for model in own or [None])
    for model in models:
        row = published.row_named(model) or model
        if row not in layout.paper:
            yield row, model


def _figures(record: Record) -> Figures:
    """The metrics; of CORE the scenes too, right and wrong prompt."""
    scenes = {}
    if record.benchmark == "core":
        known = {published.plain(scene): scene for scene in published.CORE_SCENES}
        for row in record.rows:
            if (scene := known.get(published.plain(str(row["scene"])))) is not None:
                scenes[SCENE + scene] = _right_and_wrong(row["accuracy"], row.get("accuracy_wrong_prompt"))
    return {**record.metrics, **scenes}


def _is_of(record: Record, task: str) -> bool:
    """Whether a record is of this task, on the real data or a stand-in for it."""
    real = record.data.get("source") == "real"
    return record.benchmark == task if real else record.task == task.split("/")[0]


def _real_first(record: Record) -> tuple[bool, str]:
    return record.data.get("source") != "real", record.benchmark


# ------------------------------------------------------------------------------------------------------ Figure 2


def figure_2(records: Sequence[Record]) -> list[tuple[str, list[Series]]]:
    """(title, series) of the paper's figure, and of CORE's data sets on which three versions or more were measured.

    Across: representation quality, the mean of FG-CLS and ADE20k; up: steerability, CORE under the right prompt.
    """
    methods = [
        Point(row, quality, published.CORE[row][0])
        for row, quality in published.QUALITY.items()
        if row != "SteerViT"
    ]
    swept = [Point(f"{scale:g}", *at) for scale, at in published.GATE_SWEEP.items()]
    title = f"Figure 2 as published ({published.PAPER}); on the line SteerViT at gate_scale 0.2 to 1"
    planes = [(title, [Series(methods), Series(swept, joined=True)])]
    quality = {
        (record.data["source"], record.model): record.metrics["quality"]
        for record in records
        if _is_of(record, "quality") and record.metrics.get("quality") is not None
    }
    for name in dict.fromkeys(r.benchmark for r in sorted(records, key=_real_first) if _is_of(r, "core")):
        own = [record for record in records if record.benchmark == name]
        steered = _steerability(own)
        found = {model: quality.get((own[0].data["source"], model)) for model in steered}
        points = [Point(model, x, steered[model]) for model, x in found.items() if x is not None]
        if len(points) > 2:
            planes.append((f"The same, measured on {name}", [Series(points)]))
    return planes


def _steerability(records: Sequence[Record]) -> dict[str, float]:
    """Each version's figure; that of the unsteered one is also what a version reaches without a prompt."""
    found = {}
    for record in records:
        model, *version = record.model.split("+")
        if record.metrics.get("macro_no_prompt") is not None and not any("gate" in v for v in version):
            found["+".join([model, "gate0", *version])] = record.metrics["macro_no_prompt"]
    return found | {record.model: record.metrics["macro"] for record in records}
