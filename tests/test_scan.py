from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from steersearch.indexer.scan import FoundFile, Skip, changed_at, holds_an_image, scan_folder


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))


def found(root: Path) -> list[str]:
    return [file.path for file in scan_folder(root).files]


def test_finds_images_at_any_depth_sorted_with_their_size_and_time(tmp_path: Path) -> None:
    put(tmp_path, "b.jpg", "a/deep/er/c.png", "a.webp")
    os.utime(tmp_path / "b.jpg", ns=(1, 1_700_000_000_123_456_789))
    scan = scan_folder(tmp_path)
    assert [file.path for file in scan.files] == ["a.webp", "a/deep/er/c.png", "b.jpg"]
    assert scan.files[2] == FoundFile("b.jpg", 5, 1_700_000_000_123_456_789)
    assert scan.skips == ()


def test_suffixes_count_in_any_case_and_other_files_are_not_images(tmp_path: Path) -> None:
    images = [
        "0.HEIC",
        "0.dng",
        "1.JPG",
        "2.Jpeg",
        "3.png",
        "4.WebP",
        "5.gif",
        "6.tif",
        "7.TIFF",
        "8.bmp",
        "9.avif",
        "a.jp2",
        "b.MPO",
        "c.apng",
    ]
    put(tmp_path, *images, "notes.txt", "jpg", "movie.mp4", "picture.jpg.part", "x.xmp")
    scan = scan_folder(tmp_path)
    assert [file.path for file in scan.files] == images
    assert scan.skips == ()


def test_hidden_and_appledouble_names_are_left_out(tmp_path: Path) -> None:
    put(tmp_path, ".hidden.jpg", "._photo.jpg", ".cache/thumb.jpg", "seen/.git/x.png", "seen/yes.png")
    assert found(tmp_path) == ["seen/yes.png"]


def test_a_hidden_root_is_scanned(tmp_path: Path) -> None:
    put(tmp_path / ".photos", "a.jpg")
    assert found(tmp_path / ".photos") == ["a.jpg"]


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    put(outside, "far.jpg")
    put(root, "z/near.jpg")
    (root / "a_to_z").symlink_to(root / "z")  # sorts before z, yet the path without links wins
    (root / "loop").symlink_to(root)
    (root / "z" / "up").symlink_to("..")
    (root / "to_outside").symlink_to(outside)
    (outside / "back").symlink_to(root)
    (root / "file_link.jpg").symlink_to(outside / "far.jpg")
    assert found(root) == ["file_link.jpg", "to_outside/far.jpg", "z/near.jpg"]


def test_links_that_lead_nowhere_and_special_files_are_skipped_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").symlink_to("gone.jpg")
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    os.mkfifo(tmp_path / "pipe.png")
    scan = scan_folder(tmp_path)
    assert not scan.files
    assert scan.skips == (
        Skip("broken.jpg", "a broken link"),
        Skip("circle.jpg", "a broken link"),
        Skip("pipe.png", "not a regular file"),
    )


def test_a_name_is_taken_in_whatever_bytes_it_has(tmp_path: Path) -> None:
    """No UTF-8 at all, line ends, and one letter in its composed and its decomposed form, which are two files."""
    raw = os.fsencode(tmp_path)
    os.mkdir(raw + b"/caf\xe9")
    for name in (b"/na\xefve.jpg", b"/caf\xe9/in.jpg", b"/caf\xe9/notes.txt"):
        with open(raw + name, "wb"):
            pass
    put(tmp_path, "日本 😀\n.jpg", "\u00e9.jpg", "e\u0301.jpg")
    scan = scan_folder(tmp_path)
    assert {os.fsencode(file.path) for file in scan.files} == {
        b"na\xefve.jpg", b"caf\xe9/in.jpg", "日本 😀\n.jpg".encode(), b"\xc3\xa9.jpg", b"e\xcc\x81.jpg",
    }  # fmt: skip
    assert scan.skips == ()


@pytest.mark.parametrize(
    ("mtime_ns", "kept"), [(15 * 10**18, 2**63 - 1), (-12 * 10**18, 1 - 2**63), (-5, -5), (0, 0)]
)
def test_a_file_time_fits_64_bits(tmp_path: Path, mtime_ns: int, kept: int) -> None:
    """NTFS counts from 1601, ext4 to 2446."""
    kind, (fields, times) = os.stat(tmp_path).__reduce__()
    assert changed_at(kind(fields, {**times, "st_mtime_ns": mtime_ns})) == kept


def test_folders_of_the_system_are_left_out(tmp_path: Path) -> None:
    for name in (
        "@eaDir",
        "$RECYCLE.BIN",
        "System Volume Information",
        "__MACOSX",
        "lost+found",
        "#recycle",
        "node_modules",
    ):
        put(tmp_path, f"{name}/a.jpg", f"sub/{name}/b.jpg", f"{name} of ours/c.jpg")
    put(tmp_path, "recycler.jpg")
    assert all("of ours" in path or path == "recycler.jpg" for path in found(tmp_path))
    assert len(found(tmp_path)) == 8
    assert found(tmp_path / "@eaDir") == ["a.jpg"]  # asked for by name


def test_of_a_photo_library_the_originals_are_taken(tmp_path: Path) -> None:
    put(
        tmp_path,
        "My.photoslibrary/originals/0/a.heic",
        "My.photoslibrary/resources/derivatives/0/a.jpg",
        "My.photoslibrary/cover.jpg",
        "old/Mine.photolibrary/Masters/2010/b.jpg",
        "old/Mine.photolibrary/Thumbnails/2010/b.jpg",
        "originals/c.jpg",
    )
    assert found(tmp_path) == [
        "My.photoslibrary/originals/0/a.heic",
        "old/Mine.photolibrary/Masters/2010/b.jpg",
        "originals/c.jpg",
    ]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "open/a.jpg", "closed/b.jpg")
    scandir = os.scandir

    def refusing(path: os.PathLike[str]) -> object:
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    scan = scan_folder(tmp_path)
    assert [file.path for file in scan.files] == ["open/a.jpg"]
    assert scan.unlisted == ("closed",)
    assert scan.skips == (Skip("closed", "the folder cannot be listed (Permission denied)"),)


def test_a_folder_is_listed_entry_by_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, *(f"{number}.jpg" for number in range(100)))
    scandir, taken = os.scandir, list[str]()

    @contextmanager
    def watched(path: os.PathLike[str]) -> Iterator[Iterator[os.DirEntry[str]]]:
        with scandir(path) as listing:
            yield (taken.append(entry.name) or entry for entry in listing)  # type: ignore[func-returns-value]

    monkeypatch.setattr(os, "scandir", watched)
    assert holds_an_image(tmp_path)
    assert len(taken) == 1


def test_holds_an_image(tmp_path: Path) -> None:
    put(tmp_path, "notes.txt", ".hidden/a.jpg")
    assert not holds_an_image(tmp_path)
    put(tmp_path, "deep/er/a.JPG")
    assert holds_an_image(tmp_path)
