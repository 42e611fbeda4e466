"""Libraries of several folders, folders that moved, and disks that are not mounted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from steersearch.core.errors import ArgumentError, FolderError
from steersearch.indexer import folders as photo_folders
from steersearch.indexer.build import Build
from steersearch.indexer.disks import Disk, disk_of, is_local, parse_mounts
from steersearch.indexer.filters import Filters
from steersearch.indexer.folders import PhotoFolder
from steersearch.indexer.manifest import SCHEMA_VERSION, LibraryManifest, read_library, write_library
from tests.toy_embedder import ToyEmbedder, save_photo, save_photos
from tests.toy_library import Library


def never() -> ToyEmbedder:
    raise AssertionError("no model is needed")


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """Of the folders `photos` and `more/photos`, with a photo of the same name in each."""
    save_photo(tmp_path / "photos/a/red.png", (200, 0, 0))
    save_photo(tmp_path / "more/photos/a/red.png", (100, 0, 0))
    library = Library.create([tmp_path / "photos", tmp_path / "more/photos"], tmp_path / "library")
    library.index(ToyEmbedder(), ["red"])
    return library


def paths(library: Library, folder: str | None = None) -> set[Path]:
    photo, filters = library.folder / "a/red.png", Filters.of(folder)
    return {hit.path for hit in library.query(never, photo, "red", filters=filters)}


def test_photos_of_one_name_in_two_folders_are_two(library: Library, tmp_path: Path) -> None:
    first, second = (tmp_path / name / "a/red.png" for name in ("photos", "more/photos"))
    assert paths(library) == {first, second}
    for photo in (first, second):
        hits = library.query(never, photo, "red")
        assert hits[0].path == photo
        assert hits[0].thumbnail.size == hits[0].photo.size
        assert hits[0].name == "photos/a/red.png"
    assert library.folders == [tmp_path / "photos", tmp_path / "more/photos"]
    assert paths(library, folder=str(tmp_path / "more/photos/a")) == {second}
    assert paths(library, folder=".photos") == {second}
    assert paths(library, folder=str(tmp_path / "photos")) == {first}
    assert paths(library, folder=".") == {first, second}
    assert library.table(library.prompts()[0]).column("path").to_pylist() == [
        ".photos/a/red.png",
        "a/red.png",
    ]
    assert library.verify(deep=True) == []


def test_patterns_are_compared_with_paths_in_each_folder(library: Library, tmp_path: Path) -> None:
    save_photo(tmp_path / "more/photos/b/a/blue.png", (0, 0, 100))
    counts = library.index(ToyEmbedder(), exclude=["/a/"])
    assert (counts.files, counts.added, counts.removed) == (1, 1, 2)


def test_overlapping_folders_are_refused(library: Library, tmp_path: Path) -> None:
    for folder, reason in {"photos/a": "lies in", "more": "holds"}.items():
        with pytest.raises(FolderError, match=f"{reason} .*, which the library has already"):
            Library.create(tmp_path / folder, library.place)
    assert len(read_library(library.place).folders) == 2


def test_a_folder_without_photos_is_not_added(library: Library, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FolderError, match="holds no image"):
        Library.create(tmp_path / "empty", library.place)


def test_what_another_process_did_with_the_folders_is_taken_in(library: Library, tmp_path: Path) -> None:
    watching = Library.open(library.place)
    save_photo(tmp_path / "third/blue.png", (0, 0, 200))
    Library.create(tmp_path / "third", library.place).index(ToyEmbedder())
    assert watching.index(never).reused == 3
    Library.open(library.place).remove_folder(tmp_path / "third")
    assert watching.index(never).reused == 2
    assert len(read_library(library.place).folders) == 2


@pytest.mark.parametrize("how", ["gone", "emptied"])
def test_a_folder_that_is_away_loses_no_photo(library: Library, tmp_path: Path, how: str) -> None:
    away = tmp_path / "more/photos"
    away.rename(tmp_path / "unplugged")
    if how == "emptied":  # as the mount point of a disk is
        away.mkdir()
    counts = library.index(never)
    assert (counts.files, counts.reused, counts.removed) == (1, 1, 0)
    assert [skip.path for skip in counts.away] == [str(away)]
    hits = {hit.path: hit for hit in library.query(never, library.folder / "a/red.png", "red")}
    assert hits[away / "a/red.png"].state == ("away" if how == "gone" else "gone")
    library.folder.rename(tmp_path / "unplugged too")
    with pytest.raises(FolderError, match="the photo folder is gone"):
        library.index(never)
    assert len(library.table(library.prompts()[0])) == 2


def test_a_folder_that_is_removed_takes_its_photos_along_and_returns_for_nothing(
    library: Library, tmp_path: Path
) -> None:
    assert library.remove_folder(library.folder) == 1
    assert library.folders == [tmp_path / "more/photos"]
    assert paths(library) == {tmp_path / "more/photos/a/red.png"}
    with pytest.raises(ArgumentError, match="is the only one"):
        library.remove_folder(tmp_path / "more/photos")
    with pytest.raises(ArgumentError, match="is not a folder of the library, which has: "):
        library.remove_folder(tmp_path / "photos")
    again = Library.create(tmp_path / "photos", library.place)
    assert again.index(never).forward_passes == 0
    assert len(paths(again)) == 2
    assert (tmp_path / "photos/a/red.png").exists()


def test_a_folder_that_moved_is_known_by_its_photos(library: Library, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "more/photos", moved)
    save_photo(moved / "new.png", (3, 3, 3))
    shutil.rmtree(tmp_path / "more")
    with pytest.raises(FolderError, match=r"steersearch relocate .*more/photos .*moved$"):
        Library.create(moved, library.place)
    likeness = library.relocate(tmp_path / "more/photos", moved)
    assert (likeness.same, likeness.missing, likeness.different) == (1, 0, 0)
    assert library.folders == [tmp_path / "photos", moved]
    assert moved / "a/red.png" in paths(library)
    with pytest.raises(FolderError, match=r"lies in .*, which the library has already"):
        library.relocate(tmp_path / "photos", moved / "a")
    (moved / "a/red.png").write_bytes((tmp_path / "photos/a/red.png").read_bytes())
    with pytest.raises(FolderError, match=r"0 are the same.*nothing was changed"):
        library.relocate(moved, save_photos(tmp_path / "other", 2))


# ------------------------------------------------------------------------------------------------------------- disks

MOUNTINFO = r"""
21 1 8:2 / / rw,relatime shared:1 - ext4 /dev/root rw
22 21 8:17 / /media/me/MY\040PHOTOS rw,nosuid shared:2 - exfat /dev/sdb1 rw
23 21 8:17 /2019 /srv/year rw shared:3 - exfat /dev/sdb1 rw
24 21 0:44 / /mnt/nas rw shared:4 - nfs4 server:/export/photos rw,vers=4.2
25 21 0:45 / /tmp rw - tmpfs tmpfs rw
garbage
""".replace(chr(92) * 2, chr(92))


def test_a_disk_is_known_by_its_uuid_and_a_share_by_its_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mounts = list(parse_mounts(MOUNTINFO.splitlines(), {"/dev/sdb1": "1234-ABCD", "/dev/root": "system"}))
    monkeypatch.setattr("steersearch.indexer.disks.mounts", lambda: mounts)
    found = disk_of(Path("/media/me/MY PHOTOS/2019/trip"))
    assert found == Disk(id="uuid:1234-ABCD", name="MY PHOTOS", path="/2019/trip")
    assert disk_of(Path("/srv/year/trip")) == Disk(id="uuid:1234-ABCD", name="year", path="/2019/trip")
    assert disk_of(Path("/mnt/nas")) == Disk(id="share:server:/export/photos", name="nas", path="/")
    assert disk_of(Path("/tmp/a")) is None  # nothing tells it from others
    assert disk_of(Path("/home/me")) is None  # of the system, always there
    places = ["/home/me", "/media/me/MY PHOTOS", "/tmp/a", "/mnt/nas/2019"]
    assert [is_local(Path(place)) for place in places] == [True, True, True, False]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[Path, Disk]:
    """Which disks are mounted where, by the folder."""
    mounted: dict[Path, Disk] = {}
    monkeypatch.setattr(photo_folders, "disk_of", lambda folder: mounted.get(folder))
    monkeypatch.setattr(
        photo_folders,
        "folder_on",
        lambda disk: next((f for f, d in mounted.items() if d.id == disk.id), None),
    )
    return mounted


def test_a_library_remembers_the_disk_of_its_folder(
    library: Library, disk: dict[Path, Disk], tmp_path: Path
) -> None:
    here = tmp_path / "more/photos"
    card = Disk(id="uuid:1", name="CARD", path="/photos")
    disk[here] = card
    library.index(never)
    assert [folder.disk for folder in read_library(library.place).folders] == [None, card]
    # another disk is mounted in its place
    here.rename(tmp_path / "card")
    save_photos(here, 3)
    disk[here] = Disk(id="uuid:2", name="CARD", path="/photos")
    counts = Library.open(library.place).index(never)
    assert (counts.reused, counts.removed) == (1, 0)
    assert 'is on the disk "CARD", which is not mounted, and another is there' in counts.away[0].reason
    assert read_library(library.place).folders[1].disk == card
    # it is mounted elsewhere
    disk[tmp_path / "card"] = card
    opened = Library.open(library.place)
    assert opened.folders == [tmp_path / "photos", tmp_path / "card"]
    assert opened.index(never).reused == 2
    assert read_library(library.place).folders[1].path == str(tmp_path / "card")
    # not mounted at all
    del disk[tmp_path / "card"]
    (tmp_path / "card").rename(tmp_path / "drawer")
    opened = Library.open(library.place)
    assert opened.away == [(tmp_path / "card", 'is on the disk "CARD", which is not mounted')]
    # the photos were copied to a new disk, which is mounted in its place
    shutil.copytree(tmp_path / "drawer", tmp_path / "card")
    disk[tmp_path / "card"] = Disk(id="uuid:3", name="CARD", path="/photos")
    assert Library.open(library.place).index(never).reused == 2
    assert read_library(library.place).folders[1].disk == disk[tmp_path / "card"]


def test_a_library_of_before_has_one_folder(library: Library, tmp_path: Path) -> None:
    one = PhotoFolder(path=str(tmp_path / "photos"))
    write_library(library.place, LibraryManifest(folders=(one,)))
    assert Library.open(library.place).folders == [tmp_path / "photos"]
    (library.place / "library.json").write_text(f'{{"folder": "{tmp_path / "photos"}", "schema_version": 5}}')
    assert read_library(library.place) == LibraryManifest(folders=(one,), schema_version=5)
    assert Library.open(library.place).index(never).reused == 1
    assert read_library(library.place).schema_version == SCHEMA_VERSION


def test_a_folder_that_another_run_adds_meanwhile_loses_no_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are there when this run recalls what the library holds, and its folder is none that this run listed."""
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, level in ((one, 10), (other, 200)):
        folder.mkdir()
        Image.new("RGB", (8, 8), (level, 0, 0)).save(folder / "a.png")
    place = tmp_path / "library"
    Library.create(one, place).index(ToyEmbedder(), ["red"])
    recall = Build._recall

    def add_another(build: Build) -> None:
        monkeypatch.setattr(Build, "_recall", recall)
        Library.create(other, place).index(ToyEmbedder(), ["red"])
        recall(build)

    monkeypatch.setattr(Build, "_recall", add_another)
    assert Library.open(place).index(ToyEmbedder(), ["red"]).removed == 0
    counts = Library.open(place).index(ToyEmbedder(), ["red"])
    assert (counts.files, counts.reused, counts.added) == (2, 2, 0)
