"""The bundled model and the generated photos, as a user meets them: the demo, a query, the README's Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


class Machine:
    """A user's home and current folder; runs programs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        places = ("XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")
        home = {name: str(folder / name.lower()) for name in places}
        self._environment = {**os.environ, **home, "HF_HUB_OFFLINE": "1"}
        self._environment.pop("STEERSEARCH_LIBRARY", None)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command], cwd=self.folder, env=self._environment, capture_output=True, text=True
        )


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine"))


@pytest.fixture(scope="module")
def demo(machine: Machine) -> subprocess.CompletedProcess[str]:
    done = machine.run("-m", "steersearch", "demo")
    assert done.returncode == 0, done.stderr
    return done


def rankings(output: str) -> dict[str, list[str]]:
    """For each search the names of the hits, best first."""
    parts = re.split(r'^focus (".*", query photo .*)$', output, flags=re.M)[1:]
    return {
        focus: re.findall(r"^ +\d+  \d\.\d{4}  .*/(.+)$", table, re.M)
        for focus, table in zip(parts[::2], parts[1::2], strict=True)
    }


def test_the_demo_ranks_by_the_focus(machine: Machine, demo: subprocess.CompletedProcess[str]) -> None:
    found = list(rankings(demo.stdout).values())
    assert [len(ranking) for ranking in found] == [8] * 4
    for ranking, thing, least in zip(
        found, ("remote-control", "cat", "remote-control", "bookshelf"), (6, 2, 6, 6), strict=True
    ):
        assert all(thing in name for name in ranking[:least]), ranking
    assert (machine.folder / "steersearch-demo" / "results.html").stat().st_size > 100_000


def test_a_query_answers_from_the_demos_library(
    machine: Machine, demo: subprocess.CompletedProcess[str]
) -> None:
    focus = next(iter(rankings(demo.stdout))).split('"')[1]
    photo = next((machine.folder / "steersearch-demo" / "photos").glob("*.jpg"))
    done = machine.run(
        "-m", "steersearch", "query", str(photo), "--focus", focus, "--paths", "--include-query"
    )
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 10), done.stderr
    assert done.stdout.splitlines()[0] == str(photo.resolve())  # a photo of the gallery finds itself first


def test_the_readmes_python_works_when_pasted(
    machine: Machine, demo: subprocess.CompletedProcess[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    photo = next((machine.folder / "steersearch-demo" / "photos").glob("*.jpg"))
    shutil.copy(photo, machine.folder / "img.jpg")
    done = machine.run(
        "-c", code + '\nprint([hit.rank for hit in hits], *vectors.shape, f"{vectors.norm():.4f}")'
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[1, 2, 3, 4, 5] 1 192 1.0000\n"
