"""The report of a training run: one self-contained page with figures, curves, examples and settings."""

from __future__ import annotations

import base64
import io
import math
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from steersearch.core.files import write_output
from steersearch.core.heatmaps import outlined, overlay, strengths, times_even
from steersearch.training import curves, sheet
from steersearch.training.curves import Curve, Plot, plot

FILE = "report.html"
SIDE = 288  # pixels, longer side of an example

# Title, explanation and axis range of the usual metrics.
_CHARTS: dict[str, tuple[str, str, float | None, float | None]] = {
    "loss": (
        "Loss",
        "the minimised quantity; for training its moving mean, with the raw curve pale behind it",
        None,
        None,
    ),
    "pmass": ("pmass", "share of the heatmap on patches that the mask touches, 0 to 1", 0, None),
    "pointing": ("Pointing", "how often the strongest patch lies on the object, 0 to 1", 0, None),
    "gate": ("Gates", "tanh of each cross-attention's gate; 0 is closed, the initial value", 0, None),
    "learning_rate": ("Learning rate", "of the first group of parameters", 0, None),
    "gradient": ("Gradient", "its norm before clipping", 0, None),
    "pictures_per_second": ("Speed", "pictures per second, over all processes", 0, None),
}
_FIRST = ("loss", "pmass", "pointing", "gate")  # others follow in the order of the journal
_COUNTS = ("rows",)  # pointless as a curve


@dataclass(frozen=True)
class Example:
    """A validation picture, an expression, the mask and the model's heatmap.

    mask: (H, W) bool, of the picture's shape if not its size; all False if the expression fits nothing
    heatmap: (Hp, Wp) float on the patch grid, summing to 1
    """

    picture: Image.Image
    expression: str
    mask: npt.NDArray[np.bool_]
    heatmap: npt.NDArray[np.float32]


def write_report(
    folder: Path,
    recipe: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    examples: Sequence[Example],
    summary: Mapping[str, Any],
    stages: Mapping[str, Sequence[Mapping[str, Any]]] = MappingProxyType({}),
) -> Path:
    """Write `folder`/report.html atomically; return its path.

    recipe: all settings, nested.  lines: of `journal.read_journal`.  stages: those of earlier stages, by name
    summary: final figures by name, "pmass/lvis" for those of a source; a mapping becomes a table.
    Text from outside is escaped. Raises OutputError if the file cannot be written.
    """
    charts = _charts(lines)
    for name, of_stage in stages.items():
        charts += [(f"{name}: {title}", note, plot) for title, note, plot in _charts(of_stage)]
    page = sheet.render(
        "steersearch.training",
        name=folder.resolve().name,
        lead=_lead(lines),
        tables=[*_tables("Result", _by_source(summary)), ("Machine", _machine())],
        charts=charts,
        examples=[_shown(example) for example in examples],
        recipe=_tables("Recipe", recipe),
    )
    path = folder / FILE
    write_output(path, lambda file: file.write(page.encode()))
    return path


# ------------------------------------------------------------------------------------------ figures in words


def _lead(lines: Sequence[Mapping[str, Any]]) -> str:
    """Duration and result, in a sentence or two."""
    if not lines:
        return "Nothing was measured."
    minutes, seconds = divmod(round(lines[-1]["seconds"]), 60)
    hours, minutes = divmod(minutes, 60)
    took = f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
    lead = f"{lines[-1]['step']:,} steps in {took}."
    known = [
        (line["values"]["pmass"], line)
        for line in lines
        if line["kind"] == "validation" and math.isfinite(line["values"].get("pmass", math.nan))
    ]
    if known:
        last, best = known[-1], max(known, key=lambda pair: pair[0])
        lead += f" Validation pmass {last[0]:.3f}"
        if math.isfinite(pointing := last[1]["values"].get("pointing", math.nan)):
            lead += f", pointing {pointing:.3f}"
        lead += "." if best is last else f"; pmass was best, {best[0]:.3f}, at step {best[1]['step']:,}."
    return lead


def _machine() -> dict[str, str]:
    machine = {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}",
    }
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        machine["GPU"] = ", ".join(names)
    with suppress(PackageNotFoundError):
        machine["steersearch"] = version("steersearch")
    return machine


def _processor() -> str:
    with suppress(OSError, StopIteration):
        described = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in described if line.startswith("model name"))
    return platform.processor() or "unknown"


def _tables(title: str, values: Mapping[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """`values` as a table, and each mapping in it as a further table."""
    plain = {name: _text(value) for name, value in values.items() if not isinstance(value, Mapping)}
    tables = [(title, plain)] if plain else []
    for name, value in values.items():
        if isinstance(value, Mapping):
            tables += _tables(name, value)
    return tables


def _by_source(figures: Mapping[str, Any]) -> dict[str, Any]:
    """ "pmass/lvis" and "loss/lvis" as one mapping "lvis"; other figures as they are."""
    grouped: dict[str, Any] = {}
    for name, value in figures.items():
        figure, _, source = name.partition("/")
        if source:
            grouped.setdefault(source, {})[figure] = value
        else:
            grouped[name] = value
    return grouped


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_text, value)) or "none"
    return "none" if value is None or value == "" else str(value)


# --------------------------------------------------------------------------------------------------- curves


def _charts(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, Plot]]:
    """Title, explanation and curves of each metric: "loss", and beside it "loss/refcoco" of one source."""
    found: dict[str, dict[tuple[str, str], list[curves.Point]]] = {}
    for line in lines:
        for name, value in line["values"].items():
            measured, _, part = name.partition("/")
            if measured not in _COUNTS:
                of_it = found.setdefault(measured, {})
                of_it.setdefault((line["kind"], part), []).append((line["step"], value))
    order = sorted(found, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    # The same in all charts except that of the gates.
    colours: dict[str, int] = {"training": 0, "validation": 1}
    charts = []
    for name in order:
        title, note, lowest, highest = _CHARTS.get(name, (name.replace("_", " "), "", None, None))
        lonely = len({kind for kind, _ in found[name]}) == 1
        made: list[Curve] = []
        for (kind, part), points in sorted(found[name].items(), key=lambda pair: _by_number(pair[0])):
            label = _label(kind, part, lonely)
            colour = len(made) if name == "gate" else colours.setdefault(label, len(colours))
            made.append(Curve(label, points, noisy=kind == "train" and name != "gate", colour=colour))
        if (drawn := plot(made, lowest, highest)) is not None:
            charts.append((title, note, drawn))
    return charts


def _label(kind: str, part: str, lonely: bool) -> str:
    """The label of a curve: that of its part alone where all curves are of one kind."""
    whole = "training" if kind == "train" else kind
    return part if part and (lonely or kind == "validation") else f"{whole}, {part}" if part else whole


def _by_number(key: tuple[str, str]) -> tuple[str, list[tuple[int, str]]]:
    """A sort key that puts "9" before "11"."""
    return key[0], [(int(word), "") if word.isdigit() else (-1, word) for word in key[1].split(".")]


# ------------------------------------------------------------------------------------------------- examples


def _shown(example: Example) -> dict[str, Any]:
    """The template's values for an example."""
    picture = example.picture.convert("RGB")
    scale = SIDE / max(picture.size)
    size = (max(1, round(scale * picture.width)), max(1, round(scale * picture.height)))
    picture = picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    heat = np.nan_to_num(np.asarray(example.heatmap, np.float32))
    return {
        "expression": example.expression,
        "width": size[0],
        "height": size[1],
        "photo": _png(outlined(picture, example.mask)),
        "heat": _png(outlined(overlay(picture, strengths(heat)), example.mask)),
        "found": _found(example.mask, heat),
    }


def _found(mask: npt.NDArray[np.bool_], heat: npt.NDArray[np.float32]) -> str:
    """A sentence on how well the heatmap fits the mask."""
    peak = f"strongest patch {float(times_even(heat).max()):.0f} × an even spread"
    if not mask.any():
        return f"not in the picture; {peak}"
    shares = Image.fromarray(mask.astype(np.float32)).resize(
        (heat.shape[1], heat.shape[0]), Image.Resampling.BOX
    )
    touched = np.asarray(shares) > 0
    return f"{float(heat[touched].sum()):.0%} on the mask; {peak}"


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
