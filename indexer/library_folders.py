"""The photo folders of one library, as its manifest lists them: read, added to, moved, left out."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from steersearch.core.errors import ArgumentError, FolderError, LibraryMissingError, listed
from steersearch.core.objects import ObjectPath, is_uri, real_path
from steersearch.indexer.disks import disk_of
from steersearch.indexer.folders import Folders, PhotoFolder
from steersearch.indexer.library_scan import no_image
from steersearch.indexer.manifest import LibraryManifest, create_library, read_library, write_library
from steersearch.indexer.place import LIBRARY_FILE, photo_folder, writing_to
from steersearch.indexer.relocation import Likeness, compare_photos
from steersearch.indexer.scan import holds_an_image
from steersearch.indexer.schema import FileRecord
from steersearch.indexer.store import Store
from steersearch.indexer.writers import alone, changing, writing


class LibraryFolders:
    """The photo folders of the library at `place`, which need not exist yet.

    now: where they are.  new: those of them that the manifest lacks; the next `write` adds them.
    """

    def __init__(self, place: Path, now: Folders, new: Sequence[Path] = ()) -> None:
        self.place, self.now, self.new = place, now, tuple(new)

    @classmethod
    def create(cls, place: Path, roots: Sequence[Path]) -> Self:
        """The folders that the library has, if there is one, and those at `roots`.

        Raises FolderError for one that holds no image, overlaps another, or is one of the library's that moved.
        """
        stored = _stored(place) or Folders([])
        new = [root for root in roots if root not in stored.paths]
        for root in new:
            _refuse_moved(place, stored, root)
            if not holds_an_image(root):
                raise FolderError(root, no_image())
        return cls(place, stored.with_added(roots), new)

    @classmethod
    def open(cls, place: Path) -> Self:
        """Raises LibraryMissingError."""
        stored = _stored(place)
        if stored is None:
            raise LibraryMissingError(place)
        return cls(place, stored)

    @property
    def are_stored(self) -> bool:
        """Whether the library is on disk."""
        return (self.place / LIBRARY_FILE).exists()

    def reload(self) -> None:
        """Take in what other processes have changed since."""
        if (stored := _stored(self.place)) is not None:
            self.now = stored.with_added(self.new)

    def write(self, away: Collection[PhotoFolder]) -> bool:
        """Write the manifest where it differs: new folders, and the disk of each that is not `away`.

        Returns whether the folders are still those of `now`: another process may have added some meanwhile, or made
        the library.
        """
        before = self.now
        if not create_library(self.place, LibraryManifest(folders=before.with_disks(away))):
            with changing(self.place):
                self.reload()
                folders = self.now.with_disks(away)
                if folders != read_library(self.place).folders:
                    write_library(self.place, LibraryManifest(folders=folders))
        self.new = ()
        return [(one.path, one.name) for one in self.now.all] == [(one.path, one.name) for one in before.all]

    def files_of(self, folder: PhotoFolder) -> list[FileRecord]:
        """What the library holds of a folder."""
        return _files_of(self.place, folder) if self.are_stored else []

    def relocate(self, old: str | Path, new: str | Path) -> Likeness:
        """See `Library.relocate`."""
        folder = self._at(old)
        root = photo_folder(new)
        others = Folders(one for one in self.now.all if one is not folder)
        others.with_added([root])  # refuses an overlap
        likeness = compare_photos(self.files_of(folder), folder, root, by_content=True)
        if not likeness.is_alike:
            raise FolderError(
                root, f"does not hold the photos of {folder.path}: {likeness}; nothing was changed"
            )
        moved = replace(
            folder, path=os.fspath(root), disk=None if isinstance(root, ObjectPath) else disk_of(root)
        )
        self._replace([moved if one is folder else one for one in self.now.all])
        return likeness

    def remove(self, path: str | Path) -> int:
        """See `Library.remove_folder`."""
        folder = self._at(path)
        if len(self.now.all) == 1:
            raise ArgumentError("folder", os.fspath(path), "is the only one; delete the library instead")
        files = _files_of(self.place, folder)
        self._replace([one for one in self.now.all if one is not folder])
        with writing(self.place), writing_to(self.place):
            Store(self.place).remove_images(files)
        return sum(file.reason is None for file in files)

    def _at(self, path: str | Path) -> PhotoFolder:
        names = {os.fspath(path), os.fspath(real_path(path))}
        for folder in self.now.all:
            if folder.path in names:
                return folder
        have = listed([folder.path for folder in self.now.all])
        raise ArgumentError("folder", os.fspath(path), f"is not a folder of the library, which has: {have}")

    def _replace(self, folders: Sequence[PhotoFolder]) -> None:
        with alone(self.place):
            write_library(self.place, LibraryManifest(folders=tuple(folders)))
        self.now = Folders(folders)


def _stored(place: Path) -> Folders | None:
    """The photo folders of the library at `place`; None if there is none."""
    try:
        return Folders(read_library(place).folders)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _files_of(place: Path, folder: PhotoFolder) -> list[FileRecord]:
    return [file for file in Store(place).known() if folder.owns(file.path)]


def _refuse_moved(place: Path, stored: Folders, root: Path) -> None:
    """Raise FolderError if `root` is a folder of the library under a new path."""
    for folder in stored.all:
        if os.path.isdir(folder.path) or is_uri(folder.path):
            continue
        likeness = compare_photos(_files_of(place, folder), folder, root)
        if likeness.same and likeness.is_alike:
            command = f"steersearch relocate {shlex.quote(folder.path)} {shlex.quote(os.fspath(root))}"
            raise FolderError(
                root, f"holds the photos of {folder.path}, which is gone; if it moved: {command}"
            )
