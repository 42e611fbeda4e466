"""Photographs that packages carry, what is known of each, and their masks: the material of the bundled model.

`photographs.tsv` lists every one of them with its noun, where it shows one thing, and its licence. They are fetched
with their packages (`collect`), and none is in this repository. What benchmarks test on is not among them:
`is_test_only`.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath

from steersearch.core.atomic import write_atomically
from steersearch.core.errors import DataError
from steersearch.training.packages import Package, fetch
from steersearch.training.qt_resources import read_resources

PACKAGES = {
    package.name: package
    for package in (
        Package("gcompris-qt-data", "debian", "", "GPL-3+; each photograph has a licence of its own"),
        Package("mvtb-data", "pypi", "1.6.1", "MIT"),
        Package("scikit-image", "pypi", "", "BSD-3-Clause"),
        Package("mate-backgrounds", "debian", "", "GPL-2+"),
        Package("plasma-workspace-wallpapers", "debian", "", "GPL-2+"),
        Package("palapeli-data", "debian", "", "GPL-2+"),
        Package("lomiri-wallpapers-16.04", "debian", "", "CC-BY-4.0, CC-BY-SA-4.0, CC0-1.0"),
        Package("lomiri-wallpapers-20.04", "debian", "", "CC-BY-SA-4.0"),
    )
}
TEST_ONLY_PACKAGES = frozenset({"darknet", "opencv-doc"})
MANIFEST = "photographs.jsonl"


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


@cache
def listed() -> Sequence[Listed]:
    """All photographs to train on, in a stable order. Raises DataError if one of them is kept for tests."""
    text = resources.files("steersearch.training").joinpath("photographs.tsv").read_text(encoding="utf-8")
    rows = [Listed(**row) for row in csv.DictReader(text.splitlines(), delimiter="\t")]
    for row in rows:
        if is_test_only(row.package, row.file):
            raise DataError("photographs.tsv", f"{row.package} {row.file} is kept for tests")
    return rows


def read_listed(rows: Sequence[Listed], packages: dict[str, Path]) -> Iterator[tuple[Listed, bytes]]:
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


def collect(folder: Path, say: Callable[[str], None]) -> Path:
    """Fetch every listed photograph into `folder`; returns the manifest, a line of JSON for each.

    What is there already is kept. Raises DataError for what cannot be fetched or has changed its layout.
    """
    manifest = folder / MANIFEST
    if manifest.is_file():
        return manifest
    packages = {name: fetch(package, folder / "packages", say) for name, package in PACKAGES.items()}
    pictures = folder / "photographs"
    pictures.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (row, content) in enumerate(read_listed(listed(), packages)):
        name = f"{number:04d}{PurePosixPath(row.file.split(':')[-1]).suffix.lower()}"
        (pictures / name).write_bytes(content)
        about = {
            "photograph": f"photographs/{name}",
            **vars(row),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        lines.append(json.dumps(about, ensure_ascii=False))
    content = ("\n".join(lines) + "\n").encode()
    write_atomically(manifest, lambda file: file.write(content))
    say(f"{len(lines)} photographs in {pictures}")
    return manifest


def _find(package: Path, file: str) -> Path:
    if (package / file).is_file():
        return package / file
    found = [path for path in package.rglob(PurePosixPath(file).name) if path.as_posix().endswith(f"/{file}")]
    if len(found) != 1:
        raise DataError(
            package, f"{len(found)} files in it end in {file}; is it another version of the package?"
        )
    return found[0]
