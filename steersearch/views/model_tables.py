"""Output of the `models` commands."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from steersearch.views.streams import escaped
from steersearch.views.terminal import (
    SECONDS_BETWEEN_LINES,
    json_line,
    line,
    path_line,
    progress_bar,
    readable,
    remark,
    table,
)

if TYPE_CHECKING:
    from steersearch.core.downloads import FileProgress, ModelParts, Part
    from steersearch.core.registry import HubFile

CONFIG_SHOWN = ("trunk", "resolution", "aggregation", "cross_attn_layers", "fusion", "text_encoder")
WORTH_A_LINE = 5_000_000  # bytes; smaller downloads get no line


def size_in_words(count: int) -> str:
    """Bytes for people: "25 bytes", "456 kB", "48 MB", "1.6 GB"."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return (
                f"{count / unit:.1f} {name}"
                if unit == 1e9 or count < 10 * unit
                else f"{count / unit:,.0f} {name}"
            )
    return f"{count} bytes"


def model_list(models: Sequence[ModelParts], *, as_json: bool) -> None:
    """The models that have a name."""
    rows = []
    for model in models:
        card = model.card
        assert card is not None
        if as_json:
            described = {"licence": card.licence, "research_only": card.research_only, "note": card.note}
            json_line({**_state(model), **described})
        size = size_in_words(model.size) if model.size else "none"
        rows.append((model.name, size, model.here, card.licence, card.note))
    if not as_json:
        table(("name", "download", "here", "licence", "note"), rows, right=("download",))


def _state(model: ModelParts) -> dict[str, Any]:
    return {"name": model.name, "size": model.size, "missing": model.missing, "here": model.here}


def model(shown: ModelParts, *, as_json: bool) -> None:
    """One model, file by file."""
    if as_json:
        json_line(_as_json(shown))
        return
    card = shown.card
    line(shown.name if card is None else f"{shown.name}: {card.note}")
    facts = _facts(shown)
    if card is not None:
        line(card.purpose)
    if facts:
        line()
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        line(f"{name.ljust(width)}  {value}")
    for part in shown.parts:
        _show_part(part)
    if card is None and shown.config is None:
        remark(f"its weights name the other files it needs: steersearch models fetch {shown.name}")


def _facts(shown: ModelParts) -> dict[str, str]:
    facts = {}
    if shown.card is not None:
        facts = {"licence": shown.card.licence, **_numbers(shown)}
    elif shown.config is not None:
        facts = {name.replace("_", " "): str(shown.config[name]) for name in CONFIG_SHOWN}
    if shown.size:
        missing = f"{size_in_words(shown.missing)} of it missing" if shown.missing else "all of it"
        facts["download"] = f"{size_in_words(shown.size)}, {missing} here"
    return facts


def _numbers(shown: ModelParts) -> dict[str, str]:
    card = shown.card
    assert card is not None
    counts = [f"{card.parameters / 1e6:,.1f} million trained"]
    if card.trunk is not None:
        counts.append(f"{card.trunk.parameters / 1e6:,.1f} million in the backbone")
    counts.append(f"{card.text_encoder.parameters / 1e6:,.1f} million in the text encoder")
    side = card.resolution
    return {"resolution": f"{side} × {side} pixels", "parameters": ", ".join(counts)}


def _show_part(part: Part) -> None:
    named = " ".join(filter(None, (part.name, f"({part.note})" if part.note else "")))
    about = f", about {size_in_words(part.about)}" if part.about else ""
    licence = f", {part.licence}" if part.licence else ""
    line()
    line(f"{part.role}: {named}{about}{licence}")
    if part.path is not None:
        line(f"  {readable(part.path)}")
    for place in part.files:
        file = place.file
        size = f"{file.size:,} bytes" if file.size is not None else _unpublished_size(file)
        line(f"  {file.repo}/{file.file}")
        line(f"    revision {file.revision}, {size}, sha256 {file.sha256 or 'not published'}")
        line(f"    {'not here' if place.path is None else readable(place.path)}")


def _unpublished_size(file: HubFile) -> str:
    return "size not published" if file.about is None else f"about {size_in_words(file.about)}"


def _as_json(shown: ModelParts) -> dict[str, Any]:
    card = shown.card
    described: dict[str, Any] = {}
    if card is not None:
        described = {
            "note": card.note,
            "purpose": card.purpose,
            "licence": card.licence,
            "research_only": card.research_only,
            "resolution": card.resolution,
            "parameters": {
                "trained": card.parameters,
                "backbone": None if card.trunk is None else card.trunk.parameters,
                "text_encoder": card.text_encoder.parameters,
            },
        }
    return {
        **_state(shown),
        **described,
        "config": shown.config,
        "parts": [
            {
                "role": part.role,
                "name": part.name,
                "licence": part.licence,
                "note": part.note,
                "here": part.complete,
                "path": None if part.path is None else str(part.path),
                "files": [
                    {**vars(place.file), "path": None if place.path is None else str(place.path)}
                    for place in part.files
                ],
            }
            for part in shown.parts
        ],
    }


def before_fetch(model: ModelParts, free: int, folder: object) -> None:
    """The coming download: its size, its licence, and the free space."""
    card = model.card
    if model.missing == 0 and model.here in ("yes", "bundled"):
        remark(f"{model.name}: complete")
        return
    remark(
        f"{model.name}: {size_in_words(model.missing)} to download, {size_in_words(model.size - model.missing)} "
        f"here; {size_in_words(free)} free in {folder}"
    )
    if card is None or not card.research_only:
        return
    trunk = (
        "" if card.trunk is None or "non" not in card.trunk.licence else f", its trunk {card.trunk.licence}"
    )
    remark(f"{model.name}: licence: {card.licence}{trunk}: not for commercial use")


def fetched(model: ModelParts) -> None:
    """The paths of a model's files, one per line."""
    named = [[part.path] if part.path else [place.path for place in part.files] for part in model.parts]
    for path in dict.fromkeys(path for paths in named for path in paths if path is not None):
        path_line(path)


@contextmanager
def download(missing: int) -> Iterator[FileProgress]:
    """A bar on stderr over all of the `missing` bytes; if stderr is not a terminal, a line now and then."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.progress import DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    done_of: dict[HubFile, int] = {}
    with progress_bar(DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("", total=missing or None)

        def tell(file: HubFile, done: int, total: int | None) -> None:
            done_of[file] = done
            bar.update(task, description=escaped(file.file), completed=sum(done_of.values()))

        yield tell


def _lines() -> FileProgress:
    """A line when a large file begins, and one now and then."""
    last, begun = 0.0, set()

    def tell(file: HubFile, done: int, total: int | None) -> None:
        nonlocal last
        if (total or 0) < WORTH_A_LINE:
            return
        if file in begun and time.monotonic() - last < SECONDS_BETWEEN_LINES:
            return
        begun.add(file)
        last = time.monotonic()
        remark(f"{file.repo}/{file.file}: {done / 1e6:,.0f} of {(total or 0) / 1e6:,.0f} MB")

    return tell
