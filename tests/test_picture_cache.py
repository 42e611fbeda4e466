"""Decoded pictures kept on disk: what they are, what is shared, stops, changes of the source."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steersearch.core.errors import DataError
from steersearch.core.preprocess import open_image
from steersearch.training import picture_cache
from steersearch.training.data.folder import Folder, FolderWriter
from steersearch.training.picture_cache import PictureCache

SIDE = 24


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five pictures, each with two rows that do not follow each other."""
    folder = tmp_path / "data"
    (folder / "photos").mkdir(parents=True)
    for i in range(5):
        pixels = np.random.default_rng(i).integers(0, 256, (30 + i, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"photos/{i}.png")
    with FolderWriter(folder / "expressions.jsonl") as rows:
        for text in ("one", "another"):
            for i in range(5):
                rows.add(f"photos/{i}.png", text, np.ones((30 + i, 40), np.bool_))
    return folder


def squashed(path: Path) -> np.ndarray:
    return np.asarray(open_image(path).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("workers", [1, 2])
def test_kept_pictures_are_the_squashed_ones(
    data: Path, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_cache, "CHUNK", 2)
    cache = PictureCache(tmp_path / "cache", Folder(data), SIDE)
    assert (len(cache), cache.picture(0)) == (5, None)
    told: list[tuple[int, int]] = []
    cache.fill(workers, lambda *values: told.append(values))
    assert told == [(2, 5), (4, 5), (5, 5)]
    for copy in (cache, pickle.loads(pickle.dumps(cache))):
        for row in range(10):
            found = copy.picture(row)
            assert found is not None
            assert np.array_equal(np.asarray(found), squashed(data / f"photos/{row % 5}.png"))
    assert (cache.folder / "pictures.u8").stat().st_size == 5 * SIDE * SIDE * 3


def test_a_second_call_decodes_nothing_and_a_stopped_one_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_cache, "CHUNK", 2)
    source = Folder(data)
    opened: list[int] = []
    picture = Folder.picture

    def counted(self: Folder, index: int) -> Image.Image:
        if len(opened) == 3:
            opened.append(-1)
            raise KeyboardInterrupt
        opened.append(index)
        return picture(self, index)

    monkeypatch.setattr(Folder, "picture", counted)
    with pytest.raises(KeyboardInterrupt):
        PictureCache(tmp_path / "cache", source, SIDE).fill()
    cache = PictureCache(tmp_path / "cache", source, SIDE)
    assert [cache.picture(row) is not None for row in range(5)] == [True, True, True, False, False]
    cache.fill()
    PictureCache(tmp_path / "cache", source, SIDE).fill()
    assert opened == [0, 1, 2, -1, 3, 4]
    assert all(cache.picture(row) is not None for row in range(10))


def test_a_changed_picture_another_size_and_another_source_are_noticed(data: Path, tmp_path: Path) -> None:
    def folder(side: int = SIDE) -> Path:
        return PictureCache(tmp_path / "cache", Folder(data), side).folder

    first = folder()
    assert folder() == first
    assert folder(32) != first
    os.utime(data / "photos/3.png", (1, 1))
    changed = folder()
    assert changed != first
    with (data / "expressions.jsonl").open("a") as file:
        file.write('{"image": "photos/0.png", "expression": "x", "mask": [[0, 0, 9, 0, 9, 9]]}\n')
    assert folder() == changed  # the same pictures
    lines = (data / "expressions.jsonl").read_text().splitlines()
    (data / "expressions.jsonl").write_text("\n".join(lines[1:]))
    assert folder() != changed  # in another order


def test_a_picture_that_cannot_be_used_is_left_out(data: Path, tmp_path: Path) -> None:
    (data / "photos/2.png").write_bytes(b"no picture")
    cache = PictureCache(tmp_path / "cache", Folder(data), SIDE)
    cache.fill()
    assert [cache.picture(row) is None for row in range(5)] == [False, False, True, False, False]


def test_a_disk_without_room_is_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    cache = PictureCache(tmp_path / "cache", Folder(data), 1_000_000)
    with pytest.raises(DataError, match=r"15000.0 GB .* free; train with data.cache_pictures=false"):
        cache.fill()
    assert [path.name for path in cache.folder.iterdir()] == ["lock"]
