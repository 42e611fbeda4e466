"""What a user installs: one top-level package with everything that the program reads at run time."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import steersearch

ROOT = Path(__file__).parent.parent
PACKAGES = ("steersearch", "core", "indexer", "training", "benchmarks")
SUBPACKAGES = (
    "indexer/care",
    "steersearch/cli",
    "steersearch/cli/bench",
    "steersearch/cli/train",
    "steersearch/views",
    "benchmarks/harness",
    "benchmarks/paper",
    "benchmarks/ours",
    "benchmarks/engineering",
    "training/world",
    "benchmarks/baselines",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy so that nothing is left in the checkout."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        shutil.copytree(
            ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    build = "import sys, setuptools.build_meta as build; build.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(dist)], cwd=source, check=True, capture_output=True)
    (built,) = dist.glob("*.whl")
    return zipfile.ZipFile(built)


def test_one_top_level_package(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"steersearch"}


def test_all_code_is_inside(wheel: zipfile.ZipFile) -> None:
    sources = [path for name in (*PACKAGES, *SUBPACKAGES) for path in (ROOT / name).glob("*.py")]
    relative = [path.relative_to(ROOT).as_posix() for path in sources]
    expected = {name if name.startswith("steersearch/") else f"steersearch/{name}" for name in relative}
    assert expected <= set(wheel.namelist())


def test_data_files_are_inside(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    templates = {
        f"steersearch/views/templates/{p.name}" for p in (ROOT / "steersearch/views/templates").iterdir()
    }
    templates |= {
        f"steersearch/benchmarks/harness/templates/{p.name}"
        for p in (ROOT / "benchmarks/harness/templates").iterdir()
    }
    mini = {f"steersearch/core/mini/{path.name}" for path in (ROOT / "core/mini").glob("*.[sm][ad]*")}
    photographs = {f"steersearch/photographs/{p.name}" for p in (ROOT / "steersearch/photographs").iterdir()}
    assert templates | mini | photographs | {"steersearch/py.typed"} <= names
    assert "steersearch/photographs/CREDITS.md" in photographs
    assert templates


def test_the_wheel_is_small(wheel: zipfile.ZipFile) -> None:
    assert sum(entry.compress_size for entry in wheel.infolist()) <= 30e6


def test_the_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    (entry_points,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert b"steersearch = steersearch.cli:main" in wheel.read(entry_points)
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


def test_the_page_of_the_package_is_complete(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    about = email.message_from_bytes(wheel.read(name))
    assert all(about[field] for field in ("Author", "Summary", "Keywords", "License-Expression"))
    urls = dict(str(line).split(", ") for line in about.get_all("Project-URL", []))
    assert urls.keys() >= {"Repository", "Documentation", "Issues"}
    assert any("Operating System" in line for line in about.get_all("Classifier", []))
    assert about["Description-Content-Type"] == "text/markdown"
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)\s]+)\)", about.get_payload())
    assert "!" in dict(links)
    for picture, link in links:
        path = link.removeprefix(f"{urls['Repository']}/{'raw' if picture else 'blob'}/main/")
        assert path == link if "://" in path else (ROOT / path.partition("#")[0]).exists(), link
        assert link.startswith("https://")


def test_an_installed_package_keeps_records_among_the_users_data(
    wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    """Also where the environment lies in somebody else's repository, whose commit says nothing."""
    site = tmp_path / "project" / "site-packages"
    wheel.extractall(site)
    subprocess.run(["git", "init", "-q", tmp_path / "project"], check=True)
    shown = (
        "from steersearch.benchmarks.harness import record as r;"
        "print(r.RESULTS); print(r.Record.make('a', 'b', {}, {}, 1.0, weights_hash=None).commit)"
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "XDG_DATA_HOME": str(tmp_path / "data")}
    done = subprocess.run(
        [sys.executable, "-c", shown],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    results, commit = done.stdout.splitlines()
    assert Path(results) == tmp_path / "data" / "steersearch" / "results"
    assert commit == steersearch.__version__


def test_links_of_the_checkout() -> None:
    """Type checkers and `python -m` in a checkout see the same names as an installed package."""
    links = {path.name: path.readlink() for path in (ROOT / "steersearch").iterdir() if path.is_symlink()}
    assert links == {name: Path("..") / name for name in PACKAGES[1:]}
