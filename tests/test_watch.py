"""`index --watch`, as a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Run, draw_picture, wait_until

PROMPT = "the red mug"


class Watching:
    """A process that watches `photos`."""

    def __init__(self, photos: Path, *options: object) -> None:
        self._out, self._err = (photos.parent / name for name in ("out.txt", "err.txt"))
        command = [sys.executable, "-m", "steersearch", "index", photos, "--watch", *options]
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=err)

    @property
    def said(self) -> str:
        return self._err.read_text()

    @property
    def lines(self) -> list[str]:
        """What it did, without the time of day."""
        return [line.partition("  ")[2] for line in self._out.read_text().splitlines() if line[2:3] == ":"]

    def until(self, *lines: str) -> None:
        wait_until(lambda: self.lines == list(lines) or self.process.poll() is not None)
        assert self.lines == list(lines), self.said

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait()


@pytest.fixture
def watching(photos: Path, tiny_model: Path) -> Iterator[Watching]:
    started = Watching(photos, "--prompt", PROMPT, "--model", tiny_model)
    wait_until(
        lambda: "watching 1 folder; Ctrl-C ends it" in started.said or started.process.poll() is not None
    )
    yield started
    started.process.kill()
    started.process.wait()


@pytest.mark.slow
def test_changes_are_taken_in_beside_another_writer_until_sigterm(
    run: Run, photos: Path, watching: Watching
) -> None:
    draw_picture(photos / "new.jpg", "red", seed=50)
    watching.until("1 added; 7 files")
    (photos / "notes.txt").write_text("no photo")
    assert run("index", photos, "--prompt", "lamp").code == 0  # a second writer, and a second prompt
    (photos / "new.jpg").rename(photos / "trip.jpg")
    watching.until("1 added; 7 files", "1 moved; 7 files")
    (photos / "trip.jpg").unlink()
    watching.until("1 added; 7 files", "1 moved; 7 files", "1 removed; 6 files")
    shutil.copy(photos / "red.jpg", photos / "red copy.jpg")
    watching.until("1 added; 7 files", "1 moved; 7 files", "1 removed; 6 files", "1 duplicate; 7 files")
    (photos / "broken.jpg").write_text("no photo")
    wait_until(lambda: "skipped broken.jpg: " in watching.said)
    prompts = json.loads(run("info", "--json").out)["prompts"]
    assert [(row["prompt"], row["photos"], row["missing"]) for row in prompts] == [
        (PROMPT, 7, 0),
        ("lamp", 7, 0),
    ]
    assert watching.end(signal.SIGTERM) == 0
    assert watching.said.endswith("stopped; the library is up to date\n")
    assert "no problem" in run("verify").err


@pytest.mark.slow
def test_a_folder_that_goes_away_loses_nothing_and_its_return_is_seen(
    run: Run, photos: Path, watching: Watching
) -> None:
    photos.rename(photos.with_name("unplugged"))
    wait_until(lambda: "the photo folder is gone" in watching.said)
    draw_picture(photos.with_name("unplugged") / "new.jpg", "red", seed=50)
    photos.with_name("unplugged").rename(photos)
    watching.until("1 added; 7 files")
    photos.rename(photos.with_name("moved"))
    assert run("relocate", photos, photos.with_name("moved")).code == 0
    (photos.with_name("moved") / "new.jpg").unlink()
    watching.until("1 added; 7 files", "1 removed; 6 files")
    assert watching.end(signal.SIGINT) == 0


@pytest.mark.slow
def test_a_library_that_is_deleted_is_not_made_again(run: Run, photos: Path, watching: Watching) -> None:
    assert run("remove", "--all", "--yes").code == 0
    draw_picture(photos / "new.jpg", "red", seed=50)
    assert watching.process.wait() == 1
    assert "no library here" in watching.said
    assert not list(Path(os.environ["XDG_DATA_HOME"]).glob("steersearch/libraries/*"))
