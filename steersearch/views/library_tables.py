"""Output of the maintenance commands."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from steersearch.views.terminal import counted, focus_remarks, json_line, line, readable, remark, table

if TYPE_CHECKING:
    from steersearch.indexer.care.export import Exported
    from steersearch.indexer.care.optimize import Optimized
    from steersearch.indexer.care.verify import Finding
    from steersearch.indexer.library_info import LibraryInfo


def findings(found: Sequence[Finding], *, as_json: bool) -> None:
    """A line for each finding, and a remark that counts the problems."""
    for finding in found:
        if as_json:
            json_line({**asdict(finding), "severity": finding.severity.value})
        else:
            state = "repaired" if finding.is_repaired else finding.severity.value
            line(f"{state}: {readable(finding.subject)}: {finding.what}; {finding.advice}")
    problems = sum(finding.is_problem for finding in found)
    repaired = sum(finding.is_repaired for finding in found)
    parts = [counted(problems, "problem") if problems else "no problem"]
    parts += [f"{repaired:,} repaired"] if repaired else []
    remark(", ".join(parts))


def libraries(shown: Sequence[tuple[LibraryInfo, Mapping[Path, str]]], *, as_json: bool) -> None:
    """A row for each photo folder of each library. The mapping: why folders are away."""
    rows: list[Sequence[str]] = []
    for library, away in shown:
        place, size = os.fspath(library.place), library.bytes_on_disk
        if as_json:
            folders = [{"path": os.fspath(path), "away": away.get(path)} for path in library.folders]
            numbers = {"photos": library.photos, "prompts": len(library.prompts), "bytes_on_disk": size}
            json_line({"place": place, "folders": folders, **numbers})
            continue
        cells = (f"{library.photos:,}", str(len(library.prompts)), f"{size / 1e6:,.1f} MB", readable(place))
        for path in library.folders:
            rows.append((readable(path), away.get(path, "is there"), *cells))
            cells = ("", "", "", "(the same)")
    if rows:
        header = ("folder", "now", "photos", "prompts", "size", "library")
        table(header, rows, right=("photos", "prompts", "size"))
    if not shown:
        remark("no library yet; make one: steersearch index FOLDER")


def exported_remark(done: Exported, update: str) -> None:
    """How much of which prompt index was written. update: the command that brings the index up to date."""
    remark(f"{done.rows:,} of {counted(done.of, 'photo')}, by {done.focus.index}")
    focus_remarks(done.focus)
    if done.rows < done.of:
        missing = done.of - done.rows
        lack = "has no vector yet and is" if missing == 1 else "have no vector yet and are"
        remark(f"{counted(missing, 'photo')} {lack} missing from the file; to add them: {update}")


def optimized(done: Optimized, *, as_json: bool) -> None:
    """Bytes and versions before and after."""
    if as_json:
        json_line(asdict(done))
        return
    line(f"{done.bytes_before / 1e6:,.1f} MB before, {done.bytes_after / 1e6:,.1f} MB after")
    line(f"at most {done.versions_before:,} versions of a table before, {done.versions_after:,} after")
    if done.forgotten:
        line(f"{counted(done.forgotten, 'vector')} of removed photos forgotten")
