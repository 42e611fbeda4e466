"""A writer to a bucket that was paused for longer than its lock lasts, while others went on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.backends import get_backend

from steersearch.core.errors import LibraryPlaceError
from steersearch.core.objects import ObjectPath
from steersearch.indexer import leases
from steersearch.indexer.care.verify import Finding, Severity
from steersearch.indexer.leases import Lease, confirm_leases
from steersearch.indexer.schema import FileRecord
from steersearch.indexer.store import Store
from tests.bucket import Emulator, emulator
from tests.conftest import wait_until
from tests.toy_embedder import ToyEmbedder, save_photos
from tests.toy_library import Library


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with emulator(monkeypatch) as running:
        yield running


@pytest.fixture
def place(server: Emulator) -> ObjectPath:
    found = server.create_bucket("photos-of-ours") / "library"
    assert isinstance(found, ObjectPath)
    return found


def paused(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """As if this process had slept."""
    now = leases._now
    monkeypatch.setattr(leases, "_now", lambda: now() + seconds)


def test_after_a_pause_a_lock_is_renewed_before_anything_is_written(
    place: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, held = Store(place), Lease(place / "locks" / "writer-1.lock")  # type: ignore[arg-type]
    store.ensure_images()
    assert held.take()
    before = held.path.stat().version
    store.write_images([FileRecord("a.jpg", "A", 1, 1)])
    assert held.path.stat().version == before
    paused(monkeypatch, 90)
    store.write_images([FileRecord("b.jpg", "B", 1, 1)])
    assert held.path.stat().version != before
    held.release()
    assert not held.path.exists()


def test_a_process_whose_lock_was_taken_over_while_it_was_paused_writes_no_more(
    place: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(place)
    store.ensure_images()
    held, other = (Lease(place / "locks" / "writer-1.lock") for _ in range(2))  # type: ignore[arg-type]
    assert held.take()
    with monkeypatch.context() as patch:
        patch.setattr(leases, "LEASE_S", 0.0)
        assert other.take()
    paused(monkeypatch, 90)
    with pytest.raises(LibraryPlaceError, match=r"another has taken its lock over.*run the command again"):
        store.write_images([FileRecord("a.jpg", "A", 1, 1)])
    assert not store.known()
    held.release()
    assert other.path.exists()  # which is no longer its own
    confirm_leases(place)  # as of the other one
    other.release()


WRITER = """
    import sys
    from steersearch.indexer import leases
    from tests.toy_embedder import ToyEmbedder
    from tests.toy_library import Library
    leases.LEASE_S = 4.0  # of the pause
    print(Library.open(sys.argv[1]).index(ToyEmbedder(), ["red"]).added)
"""


def pause_at(
    monkeypatch: pytest.MonkeyPatch, part: str, process: Callable[[], subprocess.Popen[str]]
) -> list[str]:
    """Stop a process when it stores the first object with `part` in its name; the object is stored, and named."""
    backend, at = get_backend("s3")["123456789012"]["aws"], list[str]()
    put = backend.put_object

    def stop_then_put(bucket: str, name: str, *arguments: Any, **options: Any) -> Any:
        if part in name and not at:
            at.append(name)
            os.kill(process().pid, signal.SIGSTOP)
        return put(bucket, name, *arguments, **options)

    monkeypatch.setattr(backend, "put_object", stop_then_put)
    return at


def problems(place: ObjectPath) -> list[Finding]:
    """What `verify` finds, but for what the next index does anyway."""
    found = Library.open(str(place)).verify(deep=True)
    return [finding for finding in found if finding.severity is not Severity.note]


@pytest.mark.slow  # two processes and hundreds of requests
@pytest.mark.parametrize(
    ("part", "indexes"),
    [
        ("images.lance/data/", False),
        ("images.lance/data/", True),
        pytest.param("lance/prompt_red", True, marks=pytest.mark.soak),
        pytest.param("thumbnails.lance/data/", True, marks=pytest.mark.soak),
    ],
)
def test_a_writer_that_is_stopped_while_it_commits_corrupts_nothing(
    place: ObjectPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, indexes: bool
) -> None:
    """Others index the same photos meanwhile, or none, and compact the tables; then it goes on."""
    photos = save_photos(tmp_path / "photos", 3)
    library = Library.create(photos, str(place))
    library.index(ToyEmbedder(), ["red"])
    save_photos(photos, 12)
    writer: list[subprocess.Popen[str]] = []
    at = pause_at(monkeypatch, part, lambda: writer[0])
    command, root = [sys.executable, "-c", textwrap.dedent(WRITER), str(place)], Path(__file__).parents[1]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    writer.append(subprocess.Popen(command, cwd=root, text=True, **pipes))  # type: ignore[call-overload]
    try:
        wait_until(lambda: at or writer[0].poll() is not None)
        with monkeypatch.context() as patch:
            patch.setattr(leases, "LEASE_S", 0.0)  # as if a minute had passed
            if indexes:
                counts = Library.open(str(place)).index(ToyEmbedder(), ["red"])
                assert (counts.files, counts.skipped) == (12, 0)
            library.optimize()
    finally:
        writer[0].send_signal(signal.SIGCONT)
        _, said = writer[0].communicate(timeout=600)
    assert at
    assert writer[0].returncode == 0 or "taken its lock over" in said, said
    assert problems(place) == []
    counts = Library.open(str(place)).index(ToyEmbedder(), ["red"])
    assert (counts.files, counts.added + counts.reused, counts.skipped) == (12, 12, 0)
    assert problems(place) == []
