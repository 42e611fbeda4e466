"""The options of `steersearch train`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options as typed."""

    preset: str | None = None
    data: tuple[Path, ...] = ()
    settings: tuple[str, ...] = ()
    output: Path | None = None
    resume: bool = False
    device: str = "auto"
    strict: bool = False
    dry_run: bool = False
    as_json: bool = False

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        if self.output is not None:
            return self.output
        return Path(f"run-{Path(self.preset).stem}" if self.preset else "run")
