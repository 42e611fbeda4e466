"""The photo folders of a library, and how a path in its tables leads to a file.

Rows name a photo by its path below its folder. In a folder that was added to a library the path begins with a dot and
the folder's name, such as ".camera/2019/a.jpg": names that begin with a dot are never indexed, so that no photo of the
first folder has such a path.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from steersearch.core.errors import FolderError
from steersearch.core.objects import ObjectPath, as_place, is_uri
from steersearch.indexer.disks import Disk, disk_of, folder_on
from steersearch.indexer.scan import changed_at

# Of an indexed file: as it was; other size or time; deleted or moved; or its folder is, as with a disk that is away.
FileState = Literal["", "changed", "gone", "away"]


@dataclass(frozen=True, kw_only=True)
class PhotoFolder:
    """path: absolute and real.  name: see above, "" of the first.  disk: that it lies on, None: not known."""

    path: str
    name: str = ""
    disk: Disk | None = None

    @property
    def prefix(self) -> str:
        """How the paths of its rows begin."""
        return f".{self.name}/" if self.name else ""

    def owns(self, stored: str) -> bool:
        """Whether the photo at this path in the tables is of this folder."""
        return stored.startswith(self.prefix) if self.name else not stored.startswith(".")

    def found(self) -> PhotoFolder:
        """This folder where its disk is mounted now; as it was, if it is there or nowhere else."""
        if self.disk is None or is_uri(self.path) or self.is_on_its_disk:
            return self
        now = folder_on(self.disk)
        return self if now is None else replace(self, path=os.fspath(now))

    @property
    def is_on_its_disk(self) -> bool:
        """Whether what lies at `path` lies on the disk that is remembered, if one is."""
        if not as_place(self.path).is_dir():
            return False
        here = None if self.disk is None else disk_of(Path(self.path))
        return self.disk is None or (here is not None and here.id == self.disk.id)

    @property
    def why_away(self) -> str:
        """Why it is not there, in words."""
        return "is gone" if self.disk is None else f'is on the disk "{self.disk.name}", which is not mounted'


class Folders:
    """The photo folders of one library, in the order in which they were added, each where it is now.

    `folders / path` is the file of a path in the tables.
    """

    def __init__(self, folders: Iterable[PhotoFolder]) -> None:
        self.all = tuple(folder.found() for folder in folders)

    @property
    def paths(self) -> list[Path]:
        return [as_place(folder.path) for folder in self.all]

    @property
    def are_gone(self) -> bool:
        """Whether none of them is there."""
        return not any(isinstance(path, ObjectPath) or path.is_dir() for path in self.paths)

    def __truediv__(self, stored: str) -> Path:
        folder = self.of(stored)
        return as_place(folder.path) / stored.removeprefix(folder.prefix)

    def of(self, stored: str) -> PhotoFolder:
        """The folder of a path in the tables."""
        return next((folder for folder in self.all if folder.owns(stored)), self.all[0])

    def stored(self, file: Path) -> str | None:
        """The path in the tables of a file or folder, "" of the first folder itself; None if it lies in none."""
        for folder in self.all:
            if file.is_relative_to(folder.path):
                relative = file.relative_to(folder.path).as_posix()
                return folder.prefix.rstrip("/") if relative == "." else folder.prefix + relative
        return None

    def state_of(self, file: Path, indexed: tuple[int, int] | None) -> FileState:
        """What has become of an indexed file; nobody asks a bucket for each.

        indexed: its size in bytes and mtime_ns then; None: not known.
        """
        if isinstance(file, ObjectPath):
            return ""
        try:
            status = os.stat(file)
        except (OSError, ValueError):
            return "away" if self.is_away(file) else "gone"
        return "" if indexed in (None, (status.st_size, changed_at(status))) else "changed"

    def is_away(self, file: Path) -> bool:
        """Whether the photo folder of this file is not there."""
        return any(
            file.is_relative_to(root) and not root.is_dir()
            for root in self.paths
            if not isinstance(root, ObjectPath)
        )

    def shown(self, file: Path) -> str:
        """A photo's name for people: its path below its folder, and of several folders which."""
        folder = next((as_place(one.path) for one in self.all if file.is_relative_to(one.path)), None)
        if folder is None:
            return os.fspath(file)
        return os.fspath(file.relative_to(folder.parent if len(self.all) > 1 else folder))

    def with_disks(self, away: Collection[PhotoFolder]) -> tuple[PhotoFolder, ...]:
        """These, each with the disk that it lies on now; those that are away keep the one that is remembered."""
        return tuple(
            folder
            if folder in away or is_uri(folder.path)
            else replace(folder, disk=disk_of(Path(folder.path)))
            for folder in self.all
        )

    def with_added(self, paths: Sequence[Path]) -> Folders:
        """These and those at `paths` that are not among them. Raises FolderError for one that lies in another."""
        folders = list(self.all)
        for path in paths:
            if os.fspath(path) in (folder.path for folder in folders):
                continue
            for other in [as_place(folder.path) for folder in folders]:
                if path.is_relative_to(other):
                    raise FolderError(path, f"lies in {other}, which the library has already")
                if other.is_relative_to(path):
                    reason = f"holds {other}, which the library has already; give {path} a library of its own"
                    raise FolderError(path, reason)
            names = {folder.name for folder in folders}
            folders.append(PhotoFolder(path=os.fspath(path), name=_new_name(path, names) if folders else ""))
        return Folders(folders)


def _new_name(path: Path, taken: set[str]) -> str:
    base = path.name or "root"
    names = [base, *(f"{base}-{number}" for number in range(2, len(taken) + 3))]
    return next(name for name in names if name not in taken)
