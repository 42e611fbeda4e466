"""Figures of the paper (arXiv 2604.02327, version 2) and its sources, in percent. None is ours; they appear only in
columns that name their source.
"""

from __future__ import annotations

from steersearch.benchmarks import baselines
from steersearch.benchmarks.harness.record import Record

PAPER = "arXiv 2604.02327v2"
CORE_SCENES = ("Bathroom", "Kitchen", "Living Room", "Park", "Suburb", "Street")

# Figure 5 and Table 6: mean over scenes with the right prompt, then (right, wrong prompt) in each of CORE_SCENES;
# the wrong one is None for a method without text.
CORE: dict[str, tuple[float, tuple[tuple[float, float | None], ...]]] = {
    "MAE": (21.8, ((22.0, None), (20.0, None), (19.4, None), (25.6, None), (21.7, None), (22.4, None))),
    "DINOv2": (43.7, ((54.8, None), (38.0, None), (30.8, None), (56.7, None), (34.3, None), (47.6, None))),
    "SigLIP": (38.3, ((61.2, 61.6), (31.0, 29.4), (35.2, 35.0), (31.6, 32.6), (30.3, 30.9), (40.4, 39.8))),
    "CLIP": (44.2, ((64.2, 64.2), (37.6, 37.6), (47.6, 47.6), (44.6, 44.2), (26.3, 26.3), (44.8, 44.8))),
    "FLAIR": (81.3, ((95.6, 69.0), (79.6, 42.2), (82.0, 48.0), (74.4, 55.8), (84.6, 54.3), (71.4, 42.2))),
    "InternVL3-1B": (47.0, ((61.8, 54.4), (35.6, 28.4), (43.0, 32.6), (50.2, 42.3), (42.9, 33.1), (48.6, 45.6))),
    "InternVL3-2B": (76.0, ((89.4, 70.2), (70.2, 42.2), (60.6, 36.4), (75.8, 57.7), (81.1, 50.3), (78.8, 57.2))),
    "Qwen3-VL-2B": (64.9, ((81.6, 57.6), (48.8, 30.8), (63.8, 33.6), (66.5, 46.1), (64.0, 34.3), (64.8, 45.4))),
    "LFM2.5-VL-1.6B": (69.7, ((85.0, 73.8), (56.4, 42.0), (64.6, 49.0), (66.5, 48.8), (72.0, 51.4), (73.4, 64.0))),
    "GroundingDINO": (88.5, ((89.4, 30.2), (89.6, 24.8), (91.0, 25.2), (86.5, 33.5), (93.1, 29.7), (81.6, 28.6))),
    "SAM3": (93.3, ((97.8, 35.6), (95.4, 27.0), (91.4, 26.6), (94.0, 33.0), (95.4, 21.7), (85.6, 26.0))),
    "SteerViT": (96.0, ((99.2, 44.4), (98.6, 43.6), (96.6, 49.4), (93.0, 58.1), (97.7, 56.0), (90.8, 34.4))),
}  # fmt: skip

# Table 4, CORE: base, late fusion, SteerViT, by backbone.
CORE_BACKBONES = {"DINOv2": (43.7, 93.3, 96.0), "SigLIP": (38.3, 75.4, 91.3), "MAE": (21.8, 41.0, 74.9)}


def _ablation(metrics: str, rows: dict[str, str]) -> dict[str, dict[str, float]]:
    return {
        row: dict(zip(metrics.split(), map(float, figures.split()), strict=True))
        for row, figures in rows.items()
    }


# Tables 3, 9 to 12 and appendix C.2: title -> row -> FG-CLS, ADE20k, CORE, PODS' PR-AUC under descriptions.
ABLATIONS: dict[str, dict[str, dict[str, float]]] = {
    "Table 3: parts of the model": _ablation(
        "fg_cls ade20k core pods",
        {
            "vanilla": "89.0 53.7 43.7 29.6",
            "full model": "87.7 55.4 96.0 58.1",
            "late fusion": "91.8 55.5 93.3 36.6",
            "no tanh gate": "83.5 55.3 94.6 47.1",
            "linear connector": "86.7 54.5 95.2 56.4",
        },
    ),
    "Table 9: training objective": _ablation(
        "fg_cls ade20k core pods",
        {"pointing": "80.4 47.4 95.2 45.7", "segmentation": "87.7 55.4 96.0 58.1"},
    ),
    "Table 10: size of backbone and text encoder": _ablation(
        "fg_cls ade20k core pods",
        {
            "ViT-S": "80.0 50.8 93.6 44.1",
            "ViT-B": "87.7 55.4 96.0 58.1",
            "ViT-L": "85.8 55.5 96.8 62.8",
            "ViT-B, RoBERTa-Base": "87.9 53.6 95.7 57.4",
        },
    ),
    "Table 11: training data, 200,000 steps": _ablation(
        "fg_cls ade20k core pods",
        {
            "25 %": "88.4 53.2 95.3 55.6",
            "50 %": "88.0 54.0 95.2 52.8",
            "100 %": "89.5 55.3 95.5 55.4",
        },
    ),
    "Table 12: gated FFN": _ablation(
        "fg_cls ade20k core pods pro",
        {
            "DINOv2": "87.7 55.4 96.0 58.1 82.1",
            "DINOv2, FFN": "86.0 54.3 95.0 55.2 79.3",
            "SigLIP": "82.6 47.7 91.3 27.4 74.8",
            "SigLIP, FFN": "80.5 48.5 89.1 26.9 80.8",
            "MAE": "67.3 35.9 74.9 23.8 77.3",
            "MAE, FFN": "67.8 35.5 67.7 21.8 73.9",
        },
    ),
    "Appendix C.2: training steps": {
        "50,000": {"fg_cls": 89.6, "core": 95.3, "pods": 49.9, "refcocog": 63.4},
        "450,000": {"pods": 58.1, "refcocog": 70.6},
    },
}
PODS_LATE = ABLATIONS["Table 3: parts of the model"]["late fusion"]["pods"]

# The gate_scale sweep of DINOv2, read off a figure: gate_scale -> (representation quality, CORE).
GATE_SWEEP = {0.2: (74.7, 62.0), 0.4: (75.1, 82.5), 0.6: (74.9, 93.9), 0.8: (73.7, 95.5), 1.0: (71.6, 96.0)}
# Representation quality of the other methods, off the same figure, to some 0.3.
QUALITY = {
    "GroundingDINO": 41.2,
    "SAM3": 57.5,
    "FLAIR": 61.3,
    "InternVL3-2B": 62.7,
    "InternVL3-1B": 63.0,
    "LFM2.5-VL-1.6B": 64.1,
    "Qwen3-VL-2B": 64.2,
    "SigLIP": 66.4,
    "CLIP": 66.6,
    "DINOv2": 71.5,
    "SteerViT": 71.6,
}
DINOV2_QUALITY = QUALITY["DINOv2"]

# Table 7, GeneCIS Focus Object: recall at 1, 2, 3.
GENECIS_FOCUS_OBJECT = {
    "DINOv2": (9.6, 19.5, 28.4),
    "SteerViT": (25.4, 39.1, 49.9),
    "GeneCIS combiner": (18.7, 30.3, 37.4),
}
# The other benchmarks: record's name -> row -> metric, if the paper measures the same.
# Section 4.2; Tables 3 and 13; Figure 8; Table 8; appendix C.2.
OTHERS: dict[str, dict[str, dict[str, float]]] = {
    "mosaic": {"DINOv2": {"ap": 14.3}, "SteerViT": {"ap": 50.2}},
    "quality": {
        "DINOv2": {
            "waterbirds": 94.7, "cars": 83.8, "imagewoof": 89.1, "ade20k": 53.7,
            "cityscapes": 52.8, "ucf101": 92.3, "hmdb51": 62.3,
        },
        "SteerViT": {
            "waterbirds": 91.2, "cars": 77.7, "imagewoof": 94.3, "fg_cls": 87.7, "ade20k": 55.4,
            "cityscapes": 53.8, "ucf101": 89.4, "hmdb51": 60.0,
        },
    },
    "pods": {
        "DINOv2": {"pr_auc_none": 29.6, "ndcg_none": 67.0},
        "SteerViT": {
            "pr_auc_supercategory": 27.9, "ndcg_supercategory": 59.3, "pr_auc_name": 44.0, "ndcg_name": 68.3,
            "pr_auc_description": 58.1, "ndcg_description": 77.3,
        },
    },
    "anomaly/mvtec": {
        "MaskCLIP": {"auroc": 63.7, "pro": 40.5, "f1": 18.5},
        "CLIPSeg": {"auroc": 69.0, "pro": 34.6, "f1": 12.5},
        "SAM3": {"auroc": 79.9, "pro": 54.5, "f1": 24.1},
        "WinCLIP": {"auroc": 85.1, "pro": 64.6, "f1": 31.7},
        "DIVAD": {"auroc": 88.0, "pro": 73.3, "f1": 35.5},
        "FADE": {"auroc": 89.6, "pro": 84.5, "f1": 39.8},
        "SteerViT": {"auroc": 87.8, "pro": 82.1, "f1": 35.6},
    },
    "anomaly/visa": {
        "MaskCLIP": {"auroc": 60.9, "pro": 27.3, "f1": 7.3},
        "CLIPSeg": {"auroc": 89.5, "pro": 62.4, "f1": 13.9},
        "SAM3": {"auroc": 89.8, "pro": 65.9, "f1": 15.5},
        "WinCLIP": {"auroc": 79.6, "pro": 59.8, "f1": 14.8},
        "DIVAD": {"auroc": 93.4, "pro": 78.2, "f1": 24.0},
        "FADE": {"auroc": 91.5, "pro": 79.3, "f1": 16.7},
        "SteerViT": {"auroc": 92.1, "pro": 82.0, "f1": 18.3},
    },
    "refcocog": {"SteerViT": {"mean_iou": 70.6}},
}  # fmt: skip

# Our models, and the paper's row for each; baselines have theirs on their cards.
ROWS = {
    "dinov2-base-research": "SteerViT",
    "dinov2-base-research+gate0": "DINOv2",
    "dinov2-base": "SteerViT",
    "dinov2-base+gate0": "DINOv2",
}


def core_wrong(row: str) -> float | None:
    """Mean over the printed scenes with a wrong prompt; None for a method without text."""
    wrong = [other for _, other in CORE[row][1] if other is not None]
    return round(sum(wrong) / len(wrong) + 1e-9, 1) if wrong else None  # rounds half up


def row_of(record: Record) -> str | None:
    """The paper's row with the data and method of a record; None if there is none, as for a part of the data."""
    return row_named(record.model) if record.data.get("source") == "real" and not record.partial else None


def row_named(model: str) -> str | None:
    """The paper's row for a model or baseline; None if it has none."""
    if model in baselines.CARDS:
        return baselines.CARDS[model].row.removesuffix(" + text")  # implied in the paper's tables
    return ROWS.get(model)


def beside(record: Record) -> dict[str, float]:
    """The paper's figures for the metrics of a record, by name."""
    row = row_of(record)
    if record.benchmark == "core" and row in CORE:
        wrong = core_wrong(row)
        return {"macro": CORE[row][0]} | ({} if wrong is None else {"macro_wrong_prompt": wrong})
    return OTHERS.get(record.benchmark, {}).get(row or "", {})


def beside_rows(record: Record) -> dict[str, float]:
    """The paper's main figure for the parts of a record, by the part's name."""
    row = row_of(record)
    if record.benchmark == "core" and row in CORE:
        known = dict(zip(map(plain, CORE_SCENES), CORE[row][1], strict=True))
        scenes = [str(each["scene"]) for each in record.rows]
        return {scene: known[plain(scene)][0] for scene in scenes if plain(scene) in known}
    return {}


def plain(name: str) -> str:
    """A scene's name in one spelling: "living_room" is "Living Room"."""
    return "".join(c for c in name.lower() if c.isalpha())
