"""Output of `plan`."""

from __future__ import annotations

from dataclasses import asdict

from steersearch.benchmarks.engineering.cost import DAY, HOUR, Cost, Hardware, Job
from steersearch.views.terminal import counted, json_line, line, remark, table


def show(job: Job, model: str, hardware: Hardware, cost: Cost, *, as_json: bool) -> None:
    """A row for each quantity, then the limits."""
    if as_json:
        named = {"model": model, "hardware": hardware.name, "source": hardware.source}
        json_line({**asdict(job), **named, **asdict(cost), "bytes": cost.bytes, "is_estimate": True})
        return
    machines = counted(job.machines, "GPU" if hardware.gpus else "machine")
    photos = f"{counted(job.photos, 'photo')} of {job.megapixels:g} MP"
    line(f"{photos}, {counted(job.prompts, 'prompt')}, {model}, {machines} ({hardware.name})")
    line()
    table(("what", "cost", ""), _rows(job, hardware, cost, machines), right=("cost",))
    line()
    line(f"What breaks first, on {machines}:")
    limits = [
        (
            _two_digits(limit.photos),
            "reached" if limit.photos <= job.photos else "",
            limit.what,
            limit.way_out,
        )
        for limit in cost.limits
    ]
    table(("photos", "", "what", "way out"), limits, right=("photos",))
    source = "; ".join(part for part in (hardware.source, cost.guessed) if part)
    remark(f"estimates; speed of {hardware.name}: {source}; formulae: docs/scale.md")


def _rows(job: Job, hardware: Hardware, cost: Cost, machines: str) -> list[tuple[str, str, str]]:
    pass_is = "each photo under each prompt" + (", and once for its regions" if job.regions else "")
    how, index = "comparing all vectors", "all vectors of a prompt"
    if cost.is_approximate:
        how, index = "by the IVF index", "the IVF index of a prompt"
    rows = [
        ("forward passes", f"{cost.forward_passes:.3g}", pass_is),
        ("model", _hours(cost.model_seconds), "of a GPU" if hardware.gpus else f"of {hardware.cores} cores"),
        ("reading", _hours(cost.reading_seconds), f"of a core, of which a machine has {hardware.cores}"),
        ("all of it", _time(cost.seconds), f"on {machines}, which wait for the {cost.bound}"),
        ("disk", _bytes(cost.bytes), "of which:"),
        ("  vectors", _bytes(cost.vectors), "and heatmaps, of all prompts"),
        (
            "  search snapshots",
            _bytes(cost.snapshots),
            "vectors and regions once more, made by the first search",
        ),
        ("  regions", _bytes(cost.regions), "of unsteered features"),
        ("  thumbnails", _bytes(cost.thumbnails), "in a table of their own, each content once"),
        ("  photos", _bytes(cost.photo_rows), "paths, dates, checksums"),
        ("memory of a search", _bytes(cost.index_memory), index),
        ("a query", _time(cost.query_seconds), f"{how}, on two cores; and a forward pass"),
    ]
    if job.regions:
        rows.append(("a new focus", _time(cost.shortlist_seconds), "to choose candidates, on two cores"))
    if cost.is_approximate:
        rows.append(("building the index", _time(cost.build_seconds), "of a prompt, on two cores"))
    return rows


def _two_digits(number: int) -> str:
    return f"{float(f'{number:.2g}'):,.0f}"


def _hours(seconds: float) -> str:
    return _time(seconds) if seconds < 2 * DAY else f"{seconds / HOUR:,.0f} h"


def _time(seconds: float) -> str:
    for size, unit in ((DAY, "days"), (HOUR, "h"), (60.0, "min"), (1.0, "s")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{1e3 * seconds:,.1f} ms"


def _bytes(number: int) -> str:
    for size, unit in ((10**15, "PB"), (10**12, "TB"), (10**9, "GB")):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number / 1e6:,.1f} MB"
