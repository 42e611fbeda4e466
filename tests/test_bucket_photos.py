"""Photos in a bucket: found, read, skipped and searched as those in a folder."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from steersearch.collect import collect
from steersearch.core.errors import FolderError, ImageError, OutputError
from steersearch.core.images.limits import Limits
from steersearch.core.objects import ObjectPath, ObjectStoreError
from steersearch.explain import explain
from steersearch.indexer import loader
from steersearch.indexer.scan import excluder, scan_folder
from tests.bucket import Emulator, emulator
from tests.conftest import COLOURS, Run
from tests.toy_embedder import ToyEmbedder
from tests.toy_library import Library


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    with pytest.MonkeyPatch.context() as patched, emulator(patched) as running:
        yield running


def png(colour: tuple[int, int, int]) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(content, "PNG")
    return content.getvalue()


def put(path: Path, content: bytes) -> None:
    assert isinstance(path, ObjectPath)
    path.write(lambda file: file.write(content))


@pytest.fixture
def photos(server: Emulator, request: pytest.FixtureRequest) -> ObjectPath:
    folder = server.create_bucket("photos-of-ours") / str(abs(hash(request.node.name)))
    for name, colour in COLOURS.items():
        put(folder / f"{'2024/' if name == 'red' else ''}{name}.png", png(colour))
    assert isinstance(folder, ObjectPath)
    return folder


def found(library: Library, photo: Path, focus: str = "red") -> list[tuple[str, float]]:
    hits = library.query(ToyEmbedder(), photo, focus, k=3)
    return [(str(hit.path), round(hit.score, 5)) for hit in hits]


def test_the_same_photos_are_found_as_in_a_folder(photos: ObjectPath, tmp_path: Path) -> None:
    names = (
        "a.png", "b/c.JPG", "b/e e%20+é.jpeg", ".hidden/d.png", "b/.e.png", "@eaDir/f.png", "drafts/g.png", "h.txt",
        "b/no.png", "folder.png/i.png",
    )  # fmt: skip
    there, here = photos / "names", tmp_path / "names"
    for name in names:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(b"12345")
        put(there / name, b"12345")
    excludes = excluder(["drafts/", "no.*"])
    in_bucket, in_folder = scan_folder(there, excludes), scan_folder(here, excludes)
    assert [(f.path, f.size) for f in in_bucket.files] == [(f.path, f.size) for f in in_folder.files]
    assert [f.path for f in in_bucket.files] == ["a.png", "b/c.JPG", "b/e e%20+é.jpeg", "folder.png/i.png"]


def test_they_are_indexed_and_searched_by_uri(photos: ObjectPath, tmp_path: Path) -> None:
    library = Library.create(str(photos), tmp_path / "library")
    counts = library.index(ToyEmbedder(), ["red"])
    assert (counts.files, counts.added, counts.skipped) == (6, 6, 0)
    assert found(library, photos / "2024" / "red.png")[0] == (str(photos / "2024" / "red.png"), 1.0)
    elsewhere = photos.bucket / "another.png"
    put(elsewhere, png((250, 5, 5)))
    assert found(library, elsewhere)[0][0] in {
        str(photos / name) for name in ("2024/red.png", "yellow.png", "white.png")
    }
    again = Library.open(tmp_path / "library")
    assert again.folders == [photos]
    assert again.away == []
    assert library.verify(deep=True) == []


def test_a_rerun_reads_only_what_changed(
    photos: ObjectPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object replaced in the same second by one of the same size is noticed by its version."""
    library = Library.create(str(photos), tmp_path / "library")
    library.index(ToyEmbedder(), ["red"])
    read: list[str] = []
    hashed = loader._hash_of
    monkeypatch.setattr(loader, "_hash_of", lambda *given: read.append("") or hashed(*given))
    counts = library.index(ToyEmbedder(), ["red"])
    assert (counts.reused, len(read)) == (6, 0)
    before = (photos / "blue.png").stat()
    put(photos / "blue.png", png((200, 40, 31)))
    assert (photos / "blue.png").stat().st_size == before.st_size
    (photos / "green.png").rename(photos / "moved.png")
    (photos / "white.png").unlink()
    counts = library.index(ToyEmbedder(), ["red"])
    assert (counts.added, counts.moved, counts.removed, counts.reused) == (1, 1, 1, 3)
    assert len(read) == 2


def test_what_cannot_be_used_is_skipped_with_its_reason(
    photos: ObjectPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(photos / "damaged.png", png((1, 2, 3))[:40])
    put(photos / "large.png", png((1, 2, 3)) + bytes(10**6))
    put(photos / "vanishes.png", png((3, 2, 1)))
    read = loader.PhotoReader.__call__

    def vanish(self: Any, path: str) -> Any:
        (photos / "vanishes.png").unlink(missing_ok=True)
        return read(self, path)

    monkeypatch.setattr(loader.PhotoReader, "__call__", vanish)
    fetched: list[str] = []
    download = ObjectPath.download_version
    monkeypatch.setattr(
        ObjectPath,
        "download_version",
        lambda self, *given: fetched.append(self.name) or download(self, *given),
    )
    library = Library.create(str(photos), tmp_path / "library")
    counts = library.index(ToyEmbedder(), ["red"], limits=Limits(file=10**5))
    reasons = {skip.path: skip.reason for skip in counts.skips}
    assert sorted(reasons) == ["damaged.png", "large.png", "vanishes.png"]
    assert "too large" in reasons["large.png"]
    assert reasons["vanishes.png"] == "it vanished before it could be read"
    assert "large.png" not in fetched
    assert counts.added == 6
    with pytest.raises(ImageError, match="too large"):
        library.query(ToyEmbedder(), photos / "large.png", "red", limits=Limits(file=10**5))
    assert "large.png" not in fetched


def test_an_object_that_changes_while_it_is_fetched_is_read_again(
    photos: ObjectPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = png((7, 7, 7))
    status = ObjectPath.stat
    changed: list[bool] = []

    def change(self: ObjectPath, **given: Any) -> Any:
        known = status(self, **given)
        if self.name == "blue.png" and not changed:
            changed.append(True)
            put(self, new)
        return known

    library = Library.create(str(photos), tmp_path / "library")
    monkeypatch.setattr(ObjectPath, "stat", change)
    assert library.index(ToyEmbedder(), ["red"]).added == 6
    monkeypatch.undo()
    assert changed
    assert library.verify(deep=True) == []


def test_a_store_that_is_cut_off_removes_nothing(
    photos: ObjectPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library.create(str(photos), tmp_path / "library")
    library.index(ToyEmbedder(), ["red"])
    before = found(library, photos / "2024" / "red.png")
    put(photos / "new.png", png((9, 9, 9)))

    def cut(self: ObjectPath, *_: Any) -> None:
        raise ObjectStoreError(101, str(self), "the store does not answer", "check the network")

    with monkeypatch.context() as patched:
        patched.setattr(ObjectPath, "download_version", cut)
        with pytest.raises(ObjectStoreError, match=r"new\.png: the store does not answer"):
            library.index(ToyEmbedder(), ["red"])
        patched.setattr(ObjectPath, "_call", cut)
        with pytest.raises(ObjectStoreError):
            library.index(ToyEmbedder(), ["red"])
        hits = library.query(ToyEmbedder(), tmp_path_photo(tmp_path), "red", k=3)
        assert len(hits) == 3  # what is indexed can be searched without the store
    counts = library.index(ToyEmbedder(), ["red"])
    assert (counts.added, counts.reused, counts.removed) == (1, 6, 0)
    assert found(library, photos / "2024" / "red.png") == before


def tmp_path_photo(folder: Path) -> Path:
    path = folder / "query.png"
    path.write_bytes(png((200, 40, 30)))
    return path


def test_a_folder_without_objects_is_refused(photos: ObjectPath, tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="name begins like this"):
        Library.create(str(photos / "nothing"), tmp_path / "library")
    library = Library.create(str(photos), tmp_path / "library")
    library.index(ToyEmbedder(), ["red"])
    photos.delete_all()
    with pytest.raises(FolderError):  # and nothing counts as removed
        library.index(ToyEmbedder(), ["red"])
    assert library.info().photos == 6


@pytest.mark.parametrize("name", ["2024//b.png", "2024/../b.png", "2024/./b.png", "2024/tab\n.png"])
def test_a_folder_with_a_name_that_is_no_path_is_skipped_and_its_photos_are_kept(
    name: str, photos: ObjectPath, server: Emulator, tmp_path: Path
) -> None:
    library = Library.create(str(photos), tmp_path / "library")
    before = library.index(ToyEmbedder(), ["red"])
    server.put("photos-of-ours", f"{photos.object_name}/{name}", b"123")
    put(photos / "new.png", png((1, 2, 3)))
    counts = library.index(ToyEmbedder(), ["red"])
    assert (counts.added, counts.removed, library.info().photos) == (1, 0, before.added + 1)
    (skip,) = (skip for skip in counts.skips if skip.path == "2024")
    assert skip.reason.startswith("the folder cannot be listed (there is an object ")
    assert "/2024/" in skip.reason
    assert "which is not a path; rename it" in skip.reason
    assert library.verify() == []
    assert not any(
        "cannot be listed" in skip.reason for skip in scan_folder(photos, excluder(["2024/"])).skips
    )


def test_beside_a_name_that_is_no_path_every_object_is_found_once(
    photos: ObjectPath, server: Emulator
) -> None:
    names = {f"a/{number:04}.png" for number in range(1010)} | {"b/c/1.png", "d.png", "e/é.png"}
    for name in names | {"b/!.png", "b//2.png"}:  # on the second page of the store
        server.put("photos-of-ours", f"{photos.object_name}/many/{name}", b"123")
    scan = scan_folder(photos / "many")
    assert {file.path for file in scan.files} == names - {"b/c/1.png"}
    assert len(scan.files) == len(names) - 1
    assert [skip.path for skip in scan.skips] == ["b"]


def test_a_name_that_is_no_path_beside_all_others_ends_the_run(
    photos: ObjectPath, server: Emulator, tmp_path: Path
) -> None:
    server.put("photos-of-ours", f"{photos.object_name}//b.png", b"123")
    with pytest.raises(ObjectStoreError, match=r"//b\.png', which is not a path; rename it"):
        Library.create(str(photos), tmp_path / "library").index(ToyEmbedder(), ["red"])


def test_a_uri_with_credentials_or_without_a_name_is_refused_and_not_repeated(photos: ObjectPath) -> None:
    secret = ObjectPath(str(photos).replace("s3://", "s3://me:secret@"))
    with pytest.raises(
        ObjectStoreError, match=r"s3://…: a URI holds no credentials; name the bucket"
    ) as raised:
        secret.is_dir()
    assert "secret" not in str(raised.value)
    for name in ("../red.png", "a/./../b.png", "tab\t.png"):
        with pytest.raises(ObjectStoreError, match=r"no object has such a name; write it without"):
            ObjectPath(f"{photos}/{name}").read_bytes()


def test_found_photos_are_copied_from_a_bucket_and_links_refused(photos: ObjectPath, tmp_path: Path) -> None:
    names = [photos / "blue.png", photos / "2024/red.png", photos / "blue.png"]
    done = collect(names, tmp_path / "copies")
    assert not done.failed
    assert [path.name for path in done.kept] == ["blue.png", "red.png", "blue.png"]
    assert done.kept[0].read_bytes() == (photos / "blue.png").read_bytes()
    assert int(done.kept[0].stat().st_mtime) == (photos / "blue.png").stat().second
    linked = collect(names[:1], tmp_path / "links", links=True)
    assert [reason for _, reason in linked.failed] == [
        "an object in a bucket, to which no link leads; copy it"
    ]


def test_a_photo_of_a_bucket_is_explained_into_a_file_that_exists(photos: ObjectPath, tmp_path: Path) -> None:
    for _ in range(2):
        explain(photos / "blue.png", "red", tmp_path / "map.png", model="mini")
    assert (tmp_path / "map.png").exists()
    with pytest.raises(OutputError, match="it is a URL; give the path of a file on this machine"):
        explain(photos / "blue.png", "red", f"{photos}/map.png", model="mini")


@pytest.mark.slow  # a model
def test_commands_take_photos_by_uri(photos: ObjectPath, run: Run, tmp_path: Path) -> None:
    """`index` makes a library on this machine; hits are URIs; a page and `--in` work as with a folder."""
    done = run("index", str(photos), "--prompt", "red", "--model", "mini", "--no-regions")
    assert done.code == 0, done.err
    query = ["query", str(photos / "blue.png"), "--focus", "red"]
    hits = run(*query, "--paths").out.splitlines()
    assert len(hits) == 5
    assert str(photos / "2024" / "red.png") in hits
    assert run(*query, "--paths", "--in", str(photos / "2024")).out.splitlines() == [
        str(photos / "2024" / "red.png")
    ]
    page = tmp_path / "page.html"
    assert run(*query, "--html", page).code == 0
    assert page.exists()
    assert str(photos) in run("info").out
    assert run("verify", "--deep").code == 0
