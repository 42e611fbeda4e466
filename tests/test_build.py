"""What a run counts, computes and leaves behind, seen through `Library.index`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steersearch.core.errors import (
    FolderError,
    LibraryPlaceError,
    ModelMismatchError,
    SteerSearchError,
)
from steersearch.core.images.limits import Limits
from steersearch.core.vectors import Embedded, Floats
from steersearch.indexer import build, loader
from steersearch.indexer.build import Counts
from steersearch.indexer.embedder import Embedder, LazyEmbedder
from steersearch.indexer.manifest import new_prompt_index, write_prompt_index
from steersearch.indexer.progress import ProgressEvent
from steersearch.indexer.scan import Skip
from steersearch.indexer.store import Store
from tests.conftest import wait_until
from tests.toy_embedder import ToyEmbedder, save_photo, save_photos, vector_of
from tests.toy_library import Library

RED, GREEN, BLUE, GREY = (200, 0, 0), (0, 200, 0), (0, 0, 200), (90, 90, 90)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name, colour in {"red.png": RED, "sub/green.png": GREEN, "sub/blue.bmp": BLUE}.items():
        save_photo(folder / name, colour)
    return folder


@pytest.fixture
def library(photos: Path, tmp_path: Path) -> Library:
    return Library.create(photos, tmp_path / "library")


def tally(counts: Counts) -> dict[str, int]:
    """The counts that are not 0, after a look whether they add up."""
    assert counts.files == counts.added + counts.reused + counts.moved + counts.copies + counts.skipped
    assert len(counts.skips) == counts.skipped
    names = ("added", "reused", "moved", "copies", "removed", "skipped", "forward_passes")
    return {name: getattr(counts, name) for name in names if getattr(counts, name)}


def gallery(library: Library, prompt: str) -> dict[str, Floats]:
    """Embeddings by relative path, as a query would find them."""
    index = library.find_prompt_index(prompt)
    found = Store(library.place).gallery(index.key)
    return dict(zip(found.paths, found.embeddings, strict=True))


def never() -> Embedder:
    raise AssertionError("the model was loaded")


def test_a_first_run_embeds_every_photo_under_every_prompt_decoding_each_once(library: Library) -> None:
    embedder = ToyEmbedder()
    counts = library.index(embedder, ["red", "green blue"])
    assert tally(counts) == {"added": 3, "forward_passes": 6}
    assert embedder.batches == [(3, 2)]
    assert embedder.preprocessed == 3
    assert embedder.encoded == ["red", "green blue"]
    for prompt in ("red", "green blue"):
        vectors = gallery(library, prompt)
        assert list(vectors) == ["red.png", "sub/blue.bmp", "sub/green.png"]
        for name, colour in zip(vectors, (RED, BLUE, GREEN), strict=True):
            np.testing.assert_allclose(vectors[name], vector_of(colour, prompt), atol=1e-6)


def test_presence_is_kept_for_each_photo(library: Library) -> None:
    library.index(ToyEmbedder(), ["red"])
    found = Store(library.place).gallery(library.find_prompt_index("red").key)
    kept = dict(zip(found.paths, found.presence.tolist(), strict=True))
    expected = {"red.png": 200 / 255, "sub/green.png": -200 / 255, "sub/blue.bmp": -200 / 255}
    assert kept == pytest.approx(expected)


@pytest.mark.parametrize("prompts", [["red"], ["  red "], None])
def test_a_second_run_asks_the_embedder_for_nothing_opens_nothing_writes_nothing(
    photos: Path, tmp_path: Path, prompts: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = ToyEmbedder()
    Library.create(photos, tmp_path / "library").index(toy, ["red"])
    before = disk(tmp_path / "library")
    monkeypatch.setattr(loader, "read_picture", lambda *_args, **_options: pytest.fail("opened"))
    monkeypatch.setattr(loader, "content_hash", lambda path: pytest.fail("hashed"))

    lazy = LazyEmbedder(never, model_id="toy", weights_hash=toy.weights_hash)
    counts = Library.create(photos, tmp_path / "library").index(lazy, prompts)
    assert tally(counts) == {"reused": 3}
    assert not lazy.is_loaded
    loaded = ToyEmbedder()
    assert tally(Library.open(tmp_path / "library").index(loaded, prompts)) == {"reused": 3}
    assert loaded.is_untouched
    assert disk(tmp_path / "library") == before


def disk(folder: Path) -> dict[str, bytes]:
    """All files of a library but its locks, which say since when they are held."""
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "locks"
    }


def test_a_prompt_is_one_index_however_it_is_typed(library: Library) -> None:
    library.index(ToyEmbedder(), ["caf\u00e9", " cafe\u0301 "])
    assert [index.prompt for index in library.prompts()] == ["caf\u00e9"]
    assert tally(library.index(ToyEmbedder(), ["cafe\u0301"])) == {"reused": 3}
    assert library.find_prompt_index("cafe\u0301\n").prompt == "caf\u00e9"


def test_a_prompt_that_an_older_version_kept_as_it_was_typed_is_found(library: Library) -> None:
    library.index(ToyEmbedder(), ["red"])
    (index,) = library.prompts()
    typed = new_prompt_index(
        "cafe\u0301", 1.0, model_id=index.model_id, weights_hash=index.weights_hash,
        preprocessing=index.preprocessing, dim=index.dim,
    )  # fmt: skip
    write_prompt_index(library.place, typed)
    assert library.find_prompt_index("caf\u00e9") == typed
    assert tally(library.index(ToyEmbedder(), ["caf\u00e9"])) == {"added": 3, "forward_passes": 3}
    assert len(library.prompts()) == 2
    assert not any(finding.is_problem for finding in library.verify())


def test_a_function_that_gives_the_embedder_is_not_called_without_need(
    library: Library,
) -> None:
    library.index(ToyEmbedder, ["red"])  # named prompts: which model it is, has to be known
    assert tally(library.index(never)) == {"reused": 3}


def test_a_rename_is_moved_and_costs_neither_forward_pass_nor_decoding(
    library: Library, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.index(ToyEmbedder(), ["red"])
    green = gallery(library, "red")["sub/green.png"]
    (photos / "sub" / "green.png").rename(photos / "renamed.png")
    store = Store(library.place)
    thumbnails = store.thumbnails(store.thumbnail_ids())
    monkeypatch.setattr(loader, "read_picture", lambda *_args, **_options: pytest.fail("decoded"))
    assert tally(library.index(never)) == {"reused": 2, "moved": 1}
    assert list(gallery(library, "red")) == ["red.png", "renamed.png", "sub/blue.bmp"]
    np.testing.assert_array_equal(gallery(library, "red")["renamed.png"], green)
    assert store.thumbnails(store.thumbnail_ids()) == thumbnails
    assert tally(library.index(never)) == {"reused": 3}


def test_a_renamed_folder_and_copies(library: Library, photos: Path) -> None:
    library.index(ToyEmbedder(), ["red"])
    (photos / "sub").rename(photos / "other")
    shutil.copy(photos / "red.png", photos / "red copy.png")
    shutil.copy(photos / "red.png", photos / "red copy 2.png")
    assert tally(library.index(never)) == {"reused": 1, "moved": 2, "copies": 2}
    assert len(gallery(library, "red")) == 5
    (photos / "red copy.png").unlink()
    (photos / "red copy 2.png").rename(photos / "red copy 3.png")
    assert tally(library.index(never)) == {"reused": 3, "moved": 1, "removed": 1}


def test_copies_in_a_first_run_are_embedded_once(library: Library, photos: Path) -> None:
    for i in range(20):
        shutil.copy(photos / "red.png", photos / f"red {i:02}.png")
    assert tally(library.index(ToyEmbedder(), ["red"], batch_size=2)) == {
        "added": 3,
        "copies": 20,
        "forward_passes": 3,
    }
    assert len(gallery(library, "red")) == 23


def test_an_edit_in_place_is_embedded_again_whatever_its_size(library: Library, photos: Path) -> None:
    library.index(ToyEmbedder(), ["red"])
    size = (photos / "sub" / "blue.bmp").stat().st_size
    save_photo(photos / "sub" / "blue.bmp", GREY)
    assert (photos / "sub" / "blue.bmp").stat().st_size == size
    later(photos / "sub" / "blue.bmp")
    embedder = ToyEmbedder()
    assert tally(library.index(embedder)) == {"added": 1, "reused": 2, "forward_passes": 1}
    np.testing.assert_allclose(gallery(library, "red")["sub/blue.bmp"], vector_of(GREY, "red"), atol=1e-6)
    assert len(gallery(library, "red")) == 3


def later(path: Path, seconds: int = 5) -> None:
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + seconds * 10**9))


def test_a_touched_file_is_hashed_once_and_reused(
    library: Library, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.index(ToyEmbedder(), ["red"])
    later(photos / "red.png")
    assert tally(library.index(never)) == {"reused": 3}
    monkeypatch.setattr(loader, "content_hash", lambda path: pytest.fail("hashed again"))
    assert tally(library.index(never)) == {"reused": 3}


def test_a_deleted_file_leaves_the_gallery_and_comes_back_without_a_forward_pass(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    library.index(ToyEmbedder(), ["red"])
    shutil.move(photos / "red.png", tmp_path / "red.png")
    assert tally(library.index(never)) == {"reused": 2, "removed": 1}
    assert list(gallery(library, "red")) == ["sub/blue.bmp", "sub/green.png"]
    shutil.move(tmp_path / "red.png", photos / "red.png")
    assert tally(library.index(never)) == {"added": 1, "reused": 2}
    assert len(gallery(library, "red")) == 3


def test_a_further_prompt_embeds_all_and_leaves_the_first_alone(library: Library) -> None:
    library.index(ToyEmbedder(), ["red"])
    before = gallery(library, "red")
    assert tally(library.index(ToyEmbedder(), ["red", "blue"])) == {"added": 3, "forward_passes": 3}
    for name, embedding in gallery(library, "red").items():
        np.testing.assert_array_equal(embedding, before[name])
    assert tally(library.index(never)) == {"reused": 3}


def test_each_photo_is_embedded_under_the_prompts_it_lacks(library: Library, photos: Path) -> None:
    library.index(ToyEmbedder(), ["red"])
    save_photo(photos / "grey.png", GREY)
    assert tally(library.index(ToyEmbedder(), ["blue"])) == {"added": 4, "forward_passes": 4}
    embedder = ToyEmbedder()
    assert tally(library.index(embedder)) == {"added": 1, "reused": 3, "forward_passes": 1}
    save_photo(photos / "black.png", (0, 0, 0))
    embedder = ToyEmbedder()
    assert tally(library.index(embedder)) == {"added": 1, "reused": 4, "forward_passes": 2}
    assert embedder.batches == [(1, 2)]


def test_gate_scales_are_kept_apart_and_rescanned_each_at_its_own(library: Library, photos: Path) -> None:
    library.index(ToyEmbedder(), ["red"])
    library.index(ToyEmbedder(), ["red"], gate_scale=0.0)
    save_photo(photos / "grey.png", GREY)
    assert tally(library.index(ToyEmbedder())) == {"added": 1, "reused": 3, "forward_passes": 2}
    steered, plain = (library.find_prompt_index("red", gate_scale=scale) for scale in (1.0, 0.0))
    for index, prompt in ((steered, "red"), (plain, "everything")):
        found = Store(library.place).gallery(index.key)
        np.testing.assert_allclose(found.embeddings[0], vector_of(GREY, prompt), atol=1e-6)


def test_batches_are_full_but_for_the_last(library: Library, photos: Path) -> None:
    save_photos(photos, 20)
    embedder = ToyEmbedder()
    library.index(embedder, ["red"], batch_size=8)
    assert [photos for photos, _ in embedder.batches] == [8, 8, 7]


def test_unusable_files_are_skipped_with_their_reason_and_not_tried_again(
    library: Library, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "empty.jpg").touch()
    (photos / "letter.jpg").write_text("dear photographer")
    (photos / "notes.txt").write_text("no image, and no wish to be one")
    counts = library.index(ToyEmbedder(), ["red"])
    assert tally(counts) == {"added": 3, "skipped": 2, "forward_passes": 3}
    assert counts.skips[0] == Skip("empty.jpg", "the file is empty")
    assert counts.skips[1].path == "letter.jpg"
    assert library.skipped() == list(counts.skips)
    monkeypatch.setattr(loader, "read_picture", lambda *_args, **_options: pytest.fail("decoded again"))
    again = library.index(never)
    assert tally(again) == {"reused": 3, "skipped": 2}
    assert again.skips == counts.skips
    shutil.copy(photos / "letter.jpg", photos / "letter copy.jpg")  # known to be bad by its content
    assert tally(library.index(never)) == {"reused": 3, "skipped": 3}


def test_a_file_is_tried_again_once_it_changed(library: Library, photos: Path) -> None:
    (photos / "late.png").write_bytes(b"")
    library.index(ToyEmbedder(), ["red"])
    save_photo(photos / "late.png", GREY)
    assert tally(library.index(ToyEmbedder())) == {"added": 1, "reused": 3, "forward_passes": 1}
    assert library.skipped() == []
    (photos / "late.png").write_bytes(b"")
    assert tally(library.index(never)) == {"reused": 3, "skipped": 1}
    assert "late.png" not in gallery(library, "red")


def test_a_file_that_could_not_be_read_is_tried_again_though_it_looks_the_same(
    library: Library, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_file = loader.open_regular

    def no_permission(path: Path) -> Any:
        if path.name == "red.png":
            raise PermissionError(13, "Permission denied")
        return open_file(path)

    with monkeypatch.context() as patch:
        patch.setattr(loader, "open_regular", no_permission)
        counts = library.index(ToyEmbedder(), ["red"])
    assert counts.skips == (Skip("red.png", "it cannot be read (Permission denied)"),)
    assert tally(library.index(ToyEmbedder())) == {"added": 1, "reused": 2, "forward_passes": 1}


def test_names_of_any_bytes_are_indexed_moved_and_removed(library: Library, photos: Path) -> None:
    names = [
        os.fsdecode(name)
        for name in (b"caf\xe9.png", b"it's \xff\xfe.png", b"e\xcc\x81.png", b"\xc3\xa9.png")
    ]
    for shade, name in enumerate(names):
        save_photo(photos / name, (shade, 99, 0))
    save_photo(photos / "caf\\xe9.png", GREY)  # the name that is printed for the first of them
    assert tally(library.index(ToyEmbedder(), ["red"])) == {"added": 8, "forward_passes": 8}
    vectors = gallery(library, "red")
    for shade, name in enumerate(names):
        np.testing.assert_allclose(vectors[name], vector_of((shade, 99, 0), "red"), atol=1e-6)
    assert len(Store(library.place).thumbnail_ids()) == 8
    assert tally(library.index(never)) == {"reused": 8}
    hits = library.query(ToyEmbedder(), photos / names[0], "red", 8)
    assert {hit.path for hit in hits} == {photos / name for name in vectors}
    assert all(hit.path.exists() and library.thumbnail(hit) for hit in hits)
    (photos / names[0]).rename(photos / os.fsdecode(b"\xe9.png"))
    (photos / names[1]).unlink()
    assert tally(library.index(never)) == {"reused": 6, "moved": 1, "removed": 1}
    assert sorted(gallery(library, "red")) == sorted(
        {*vectors, os.fsdecode(b"\xe9.png")} - {names[0], names[1]}
    )


def test_file_times_beyond_64_bits_are_indexed_and_never_taken_for_unchanged(
    library: Library, photos: Path
) -> None:
    times = {"red.png": 15_000_000_000, "sub/green.png": 14_000_000_000}
    for name, seconds in times.items():
        os.utime(photos / name, (seconds, seconds))
    assert tally(library.index(ToyEmbedder(), ["red"])) == {"added": 3, "forward_passes": 3}
    assert tally(library.index(never)) == {"reused": 3}
    save_photo(photos / "red.png", GREY)
    os.utime(photos / "red.png", (15_100_000_000, 15_100_000_000))
    assert tally(library.index(ToyEmbedder())) == {"added": 1, "reused": 2, "forward_passes": 1}
    assert not any(finding.is_problem for finding in library.verify(deep=True))
    hits = library.query(ToyEmbedder(), photos / "red.png", "red", 3)
    assert {hit.path.name: hit.taken_at_source for hit in hits} == {
        "red.png": None, "green.png": None, "blue.bmp": "file time",
    }  # fmt: skip


def test_a_subfolder_that_cannot_be_listed_keeps_its_photos(
    library: Library, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.index(ToyEmbedder(), ["red"])
    scandir = os.scandir

    def refusing(path: os.PathLike[str]) -> object:
        if os.fspath(path).endswith("sub"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refusing)
        counts = library.index(never)
    assert tally(counts) == {"reused": 1, "skipped": 1}
    assert counts.skips[0].path == "sub"
    assert len(gallery(library, "red")) == 3
    assert tally(library.index(never)) == {"reused": 3}


def test_a_folder_that_vanished_is_refused_and_nothing_removed(library: Library, photos: Path) -> None:
    library.index(ToyEmbedder(), ["red"])
    photos.rename(photos.with_name("elsewhere"))
    with pytest.raises(FolderError, match="the photo folder is gone") as gone:
        library.index(never)
    assert gone.value.folder == photos
    photos.mkdir()  # as an unmounted disk leaves it
    with pytest.raises(FolderError, match="is a disk not mounted"):
        library.index(never)
    assert len(gallery(library, "red")) == 3


def test_progress_counts_what_has_to_be_read_up_to_the_end(library: Library, photos: Path) -> None:
    save_photos(photos, 9)
    (photos / "empty.jpg").touch()
    events: list[ProgressEvent] = []
    library.index(ToyEmbedder(), ["red"], batch_size=4, progress=events.append)
    assert {event.total for event in events} == {13}
    done = [event.done for event in events]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 13)
    assert events[-1].images_per_s > 0
    events.clear()
    library.index(never, progress=events.append)
    assert events == []


def test_a_rescan_without_any_prompt_of_this_model_computes_its_unsteered_vectors(library: Library) -> None:
    library.index(ToyEmbedder(), ["red"])
    assert tally(library.index(ToyEmbedder("other"))) == {"added": 3, "forward_passes": 3}
    assert tally(library.index(ToyEmbedder("other"))) == {"reused": 3}
    assert [(index.prompt, index.model_id) for index in library.prompts()] == [("red", "toy")]


def test_models_are_kept_apart(library: Library, photos: Path) -> None:
    library.index(ToyEmbedder("one"), ["red"])
    assert tally(library.index(ToyEmbedder("two"), ["red"])) == {"added": 3, "forward_passes": 3}
    resized = ToyEmbedder("one", preprocessing={"size": 8})
    assert tally(library.index(resized, ["red"])) == {"added": 3, "forward_passes": 3}
    assert [index.model_id for index in library.prompts()] == ["one", "two", "one"]
    assert len({index.key for index in library.prompts()}) == 3
    save_photo(photos / "grey.png", GREY)
    assert library.index(ToyEmbedder("two")).forward_passes == 1  # of its own index, not of the others


def test_a_lazy_embedder_that_is_another_model_is_refused(library: Library, photos: Path) -> None:
    library.index(ToyEmbedder("one"), ["red"])
    save_photo(photos / "grey.png", GREY)
    announced = ToyEmbedder("one").weights_hash
    with pytest.raises(ModelMismatchError):
        library.index(LazyEmbedder(lambda: ToyEmbedder("two"), model_id="one", weights_hash=announced))
    with pytest.raises(ModelMismatchError) as mismatch:
        library.index(lambda: ToyEmbedder("two"))
    assert str(mismatch.value).startswith('the index for "red" was made by the model one, not by two;')
    assert len(gallery(library, "red")) == 3


class Failing(ToyEmbedder):
    """Fails at its third batch."""

    def embed_pixels(self, pixels: Floats, prompt_features: object, gate_scale: float) -> list[Embedded]:
        results = super().embed_pixels(pixels, prompt_features, gate_scale)  # type: ignore[arg-type]
        if len(self.batches) == 3:
            raise RuntimeError("out of memory")
        return results


def test_a_run_that_fails_keeps_what_it_computed(library: Library, photos: Path) -> None:
    save_photos(photos, 17)
    with pytest.raises(RuntimeError, match="out of memory"):
        library.index(Failing(), ["red"], batch_size=4)
    assert library.prompts() == []  # the manifest comes last
    assert tally(library.index(ToyEmbedder(), ["red"], batch_size=4)) == {
        "added": 12,
        "reused": 8,
        "forward_passes": 12,
    }
    assert len(gallery(library, "red")) == 20


class NotFinite(ToyEmbedder):
    def embed_pixels(self, pixels: Floats, prompt_features: object, gate_scale: float) -> list[Embedded]:
        (result,) = super().embed_pixels(pixels, prompt_features, gate_scale)  # type: ignore[arg-type]
        return [replace(result, embeddings=result.embeddings * np.float32("nan"))]


def test_an_embedding_that_is_not_finite_names_the_photo(library: Library, photos: Path) -> None:
    with pytest.raises(SteerSearchError, match="not finite") as error:
        library.index(NotFinite(), ["red"])
    assert str(error.value).startswith(f"{photos / 'red.png'}: ")


SLOW_RUN = """
    import sys
    from pathlib import Path
    from tests.toy_library import Library
    from tests.toy_embedder import ToyEmbedder

    folder, place, *prompts = sys.argv[1:]
    embedder = ToyEmbedder(seconds=0.03)
    counts = Library.create(folder, place).index(embedder, prompts, batch_size=2, commit_seconds=0)
    print(counts.forward_passes)
"""


def start_slow_run(folder: Path, place: Path, *prompts: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(SLOW_RUN), str(folder), str(place), *prompts]
    root = Path(__file__).parents[1]
    return subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )


def wait_for_commits(place: Path, run: subprocess.Popen[str], commits: int) -> None:
    versions = place / "lance" / "images.lance" / "_versions"
    wait_until(lambda: run.poll() is not None or len(list(versions.glob("*.manifest"))) >= commits)
    assert run.poll() is None, run.communicate()[1]


def contents(library: Library, prompt: str) -> dict[str, list[float]]:
    return {path: embedding.tolist() for path, embedding in gallery(library, prompt).items()}


@pytest.mark.slow
def test_a_run_killed_at_any_moment_leaves_a_readable_library_that_the_next_run_completes(
    tmp_path: Path,
) -> None:
    photos, place = save_photos(tmp_path / "photos", 40), tmp_path / "library"
    killed = 0
    for commits in (1, 4, 9):  # before the first photo, early, later
        run = start_slow_run(photos, place, "red", "blue")
        wait_for_commits(place, run, commits)
        run.send_signal(signal.SIGKILL)
        run.communicate()
        killed += run.returncode == -signal.SIGKILL
        interrupted = Library.open(place)
        assert interrupted.prompts() == []
        assert 0 <= interrupted.info().photos < 40
    assert killed == 3

    counts = Library.open(place).index(ToyEmbedder(), ["red", "blue"])
    assert counts.added + counts.reused == 40
    assert 0 < counts.forward_passes < 80  # what the killed runs embedded was kept
    undisturbed = Library.create(photos, tmp_path / "undisturbed")
    undisturbed.index(ToyEmbedder(), ["red", "blue"])
    for prompt in ("red", "blue"):
        assert contents(Library.open(place), prompt) == contents(undisturbed, prompt)
    assert tally(Library.open(place).index(never)) == {"reused": 40}


@pytest.mark.slow
def test_two_runs_at_once_lose_nothing(tmp_path: Path) -> None:
    photos, place = save_photos(tmp_path / "photos", 24), tmp_path / "library"
    runs = [start_slow_run(photos, place, "red"), start_slow_run(photos, place, "red", "blue")]
    for run in runs:
        _, errors = run.communicate()
        assert run.returncode == 0, errors
    library = Library.open(place)
    assert library.info().photos == 24
    assert {index.prompt for index in library.prompts()} == {"red", "blue"}
    undisturbed = Library.create(photos, tmp_path / "undisturbed")
    undisturbed.index(ToyEmbedder(), ["red", "blue"])
    for prompt in ("red", "blue"):
        assert contents(library, prompt) == contents(undisturbed, prompt)
    assert tally(library.index(never)) == {"reused": 24}


def test_a_full_disk_is_said_plainly(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    library.index(ToyEmbedder(), ["red"])

    def full(self: Store, key: str, vectors: object) -> None:
        raise RuntimeError(
            "lance error: LanceError(IO): No space left on device (os error 28), /src/writer.rs:9"
        )

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_vectors", full)
        with pytest.raises(
            LibraryPlaceError, match=r"No space left on device \(os error 28\)\); what was"
        ) as error:
            library.index(ToyEmbedder(), ["blue"])
    assert error.value.place == library.place
    assert tally(library.index(never)) == {"reused": 3}
    assert tally(library.index(ToyEmbedder(), ["blue"])) == {"added": 3, "forward_passes": 3}


def test_a_run_commits_in_steps(library: Library, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_photos(photos, 20)
    monkeypatch.setattr(build, "_COMMIT_IMAGES", 8)
    written: list[int] = []
    write_images = Store.write_images

    def counting(self: Store, records: list[object]) -> None:
        written.append(len(records))
        write_images(self, records)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "write_images", counting)
    library.index(ToyEmbedder(), ["red"], batch_size=4)
    assert [n for n in written if n] == [8, 8, 7]


# -------------------------------------------------------------------------------- what is left out, and limits


def test_what_is_excluded_later_is_removed_and_stays_out_until_the_pattern_goes(
    library: Library, photos: Path
) -> None:
    library.index(ToyEmbedder(), ["red"])
    assert tally(library.index(never, exclude=["sub/"])) == {"reused": 1, "removed": 2}
    assert library.excluded == ("sub/",)
    assert tally(library.index(never)) == {"reused": 1}  # remembered
    assert tally(library.index(never, exclude=["*.bmp"])) == {"added": 1, "reused": 1}  # its vector was kept
    assert tally(library.index(never, exclude=[])) == {"added": 1, "reused": 2}
    assert library.excluded == ()


def test_excluding_every_photo_is_refused_and_forgotten(library: Library, photos: Path) -> None:
    library.index(ToyEmbedder(), ["red"])
    with pytest.raises(FolderError, match=r'every photo is excluded by "\*"'):
        library.index(never, exclude=["*"])
    assert library.excluded == ()
    assert len(gallery(library, "red")) == 3


def test_a_photo_above_the_limit_is_tried_again_under_a_higher_one(library: Library, photos: Path) -> None:
    save_photo(photos / "large.png", GREY, (1500, 1000))
    counts = library.index(ToyEmbedder(), ["red"], limits=Limits(memory=8e6))
    assert tally(counts) == {"added": 3, "skipped": 1, "forward_passes": 3}
    assert counts.skips[0].reason.startswith("too large: decoding takes 12 MB of memory, more than 8 MB")
    assert tally(library.index(never, limits=Limits(memory=9e6))) == {"reused": 3, "skipped": 1}
    assert tally(library.index(ToyEmbedder())) == {"added": 1, "reused": 3, "forward_passes": 1}
    assert tally(library.index(never, limits=Limits(memory=8e6))) == {"reused": 4}  # what is indexed stays so


# ------------------------------------------------------------------------------------------- times that lie


def set_time(path: Path, ns: int) -> None:
    os.utime(path, ns=(ns, ns))


def test_a_file_changed_twice_within_one_tick_is_not_missed(
    library: Library, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "RACY_NS", 3 * 10**9)
    changed, same_time = photos / "sub" / "blue.bmp", time.time_ns()
    for path in (photos / "red.png", photos / "sub" / "green.png"):
        set_time(path, same_time - 3600 * 10**9)
    set_time(changed, same_time)
    library.index(ToyEmbedder(), ["red"])
    save_photo(changed, GREY)  # as large as it was
    set_time(changed, same_time)
    assert tally(library.index(ToyEmbedder())) == {"added": 1, "reused": 2, "forward_passes": 1}
    np.testing.assert_allclose(gallery(library, "red")["sub/blue.bmp"], vector_of(GREY, "red"), atol=1e-6)
    monkeypatch.setattr(loader, "RACY_NS", -(10**12))  # much later: hashed for the last time
    assert tally(library.index(never)) == {"reused": 3}
    monkeypatch.setattr(loader, "_hash_of", lambda _: pytest.fail("hashed again"))
    assert tally(library.index(never)) == {"reused": 3}


@pytest.mark.parametrize("year", [1901, 1969, 2090])
def test_times_before_1970_and_in_the_future_are_times_like_others(
    library: Library, photos: Path, year: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_time(photos / "red.png", (year - 1970) * 365 * 24 * 3600 * 10**9)
    library.index(ToyEmbedder(), ["red"])
    with monkeypatch.context() as patch:
        patch.setattr(loader, "_hash_of", lambda _: pytest.fail("hashed"))
        assert tally(library.index(never)) == {"reused": 3}
    save_photo(photos / "red.png", GREY)
    set_time(photos / "red.png", (year - 1970) * 365 * 24 * 3600 * 10**9 + 1)
    assert tally(library.index(ToyEmbedder())) == {"added": 1, "reused": 2, "forward_passes": 1}


# ------------------------------------------------------------------------------- folders that come and go


class Vanishing(ToyEmbedder):
    """While the first batch is embedded, the photo folder goes elsewhere, and an empty one may take its place."""

    def __init__(self, photos: Path, *, leaves_empty: bool):
        super().__init__()
        self.photos, self.leaves_empty = photos, leaves_empty

    def embed_pixels(self, pixels: Floats, prompt_features: Any, gate_scale: float) -> list[Embedded]:
        if not self.batches:
            self.photos.rename(self.photos.with_name("elsewhere"))
            if self.leaves_empty:
                self.photos.mkdir()
        return super().embed_pixels(pixels, prompt_features, gate_scale)


@pytest.mark.parametrize("leaves_empty", [False, True])
@pytest.mark.parametrize("number", [1, 60])
def test_a_folder_that_vanishes_during_a_run_ends_it_and_nothing_is_removed(
    library: Library, photos: Path, leaves_empty: bool, number: int
) -> None:
    library.index(ToyEmbedder(), ["red"], regions=False)
    save_photos(photos, number)
    before = gallery(library, "red")
    with pytest.raises(FolderError, match="vanished or was replaced while it was indexed"):
        library.index(Vanishing(photos, leaves_empty=leaves_empty), batch_size=1, regions=False)
    assert set(gallery(library, "red")) > set(before)  # and what was embedded is kept
    assert library.skipped() == []
    if leaves_empty:
        photos.rmdir()
    photos.with_name("elsewhere").rename(photos)
    counts = library.index(ToyEmbedder(), regions=False)
    assert (counts.added + counts.reused, counts.removed) == (3 + number, 0)


def test_the_photo_folder_is_only_read(library: Library, photos: Path) -> None:
    def everything() -> dict[str, tuple[int, int]]:
        return {str(p): (p.stat().st_mtime_ns, p.stat().st_mode) for p in [photos, *photos.rglob("*")]}

    for path in (*photos.rglob("*"), photos):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = everything()
    assert tally(library.index(ToyEmbedder(), ["red"])) == {"added": 3, "forward_passes": 3}
    assert everything() == before
    photos.chmod(0o755)
    (photos / "sub").chmod(0o755)
