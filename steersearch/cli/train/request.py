"""What `steersearch train` was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for, as it was typed."""

    preset: str | None = None
    data: tuple[Path, ...] = ()
    settings: tuple[str, ...] = ()
    output: Path | None = None
    resume: bool = False
    processes: int = 1
    device: str = "auto"
    strict: bool = False
    dry_run: bool = False
    as_json: bool = False

    @property
    def folder(self) -> Path:
        """Where the run lives."""
        if self.output is not None:
            return self.output
        return Path(f"run-{Path(self.preset).stem}" if self.preset else "run")

    def arguments(self) -> list[str]:
        """The command line of one of several processes."""
        told = ["-o", str(self.folder), "--device", self.device]
        if self.preset is not None:
            told += ["--preset", self.preset]
        told += [f"--data={place}" for place in self.data]
        told += [f"--set={setting}" for setting in self.settings]
        told += ["--strict"] if self.strict else []
        return [*told, "--resume"] if self.resume else told
