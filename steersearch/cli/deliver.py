"""Where hits go besides being printed: a file, a browser, a folder."""

from __future__ import annotations

import tempfile
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from steersearch.api import Hits
from steersearch.collect import collect
from steersearch.views import hits_file, terminal


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """output: the file to write.  in_browser: open it, or without one a page of its own.  copy_to, link_to: folders."""

    output: Path | None
    in_browser: bool
    copy_to: Path | None
    link_to: Path | None

    def __post_init__(self) -> None:
        if (
            self.in_browser
            and self.output is not None
            and self.output.suffix.lower() not in (".html", ".htm")
        ):
            raise typer.BadParameter("opens a page: name a .html file, or none", param_hint="--open")

    def of(self, hits: Hits) -> bool:
        """Deliver the hits, with a remark for each way; return whether every photo could be copied or linked."""
        output = self.output
        if output is None and self.in_browser:
            output = Path(tempfile.mkdtemp(prefix="steersearch-")) / "results.html"
        if output is not None:
            hits_file.write_hits(output, hits)
            what = "page" if output.suffix.lower() in (".html", ".htm") else "file"
            terminal.remark(f"{what}: {terminal.readable(output)}")
        if self.in_browser and output is not None and not webbrowser.open(output.resolve().as_uri()):
            terminal.remark(f"no browser could be started; open {output} in one")
        photos = [hit.path for hit in hits]
        done = [
            _collected(photos, folder, links=links)
            for folder, links in ((self.copy_to, False), (self.link_to, True))
            if folder is not None
        ]
        return all(done)


def _collected(photos: Sequence[Path], folder: Path, *, links: bool) -> bool:
    found = collect(photos, folder, links=links)
    done = "linked in" if links else "copied to"
    terminal.remark(f"{terminal.counted(len(found.kept), 'photo')} {done} {terminal.readable(folder)}")
    for path, reason in found.failed:
        terminal.error(f"{terminal.readable(path)}: {reason}")
    return not found.failed
