"""The disk that a folder lies on: what tells it from others, and where it is mounted now.

Known of Linux by the file system's UUID or the share of a file server, of macOS by the volume's name, of Windows by the
volume's serial number.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_MOUNTS, _UUIDS = Path("/proc/self/mountinfo"), Path("/dev/disk/by-uuid")
_SHARES = re.compile(r"nfs4?|cifs|smb3?|smbfs|fuse\.sshfs|9p")
_LOCAL = re.compile(
    r"ext[234]|xfs|btrfs|zfs|f2fs|bcachefs|jfs|tmpfs|overlay|vfat|exfat|ntfs3?|hfsplus|fuseblk"
)
_VOLUMES = Path("/Volumes")


@dataclass(frozen=True, kw_only=True)
class Disk:
    """id: the same wherever it is mounted.  name: what people call it.  path: of a folder, from the disk's root."""

    id: str
    name: str
    path: str


@dataclass(frozen=True)
class Mount:
    """at: where it is mounted.  root: which folder of the disk is.  is_local: see `is_local`."""

    id: str
    at: Path
    root: str = "/"
    is_local: bool = False

    def disk(self, folder: Path) -> Disk:
        """This disk, with a folder below `at`."""
        path = PurePosixPath(self.root) / folder.relative_to(self.at).as_posix()
        return Disk(id=self.id, name=self.at.name or self.id, path=str(path))

    def find(self, disk: Disk) -> Path | None:
        """Where the folder of this disk is now; None if it is not below `at`."""
        if disk.id != self.id or not PurePosixPath(disk.path).is_relative_to(self.root):
            return None
        found = self.at / PurePosixPath(disk.path).relative_to(self.root)
        return found if found.is_dir() else None


def disk_of(folder: Path) -> Disk | None:
    """The disk under a folder (a real path); None where it is not known, or is that of the system, always there."""
    mount = _mount_of(folder)
    return mount.disk(folder) if mount and mount.id and mount.at != Path(mount.at.anchor) else None


def is_local(folder: Path) -> bool:
    """Whether a folder (a real path) is surely on a disk of this machine, which no other machine writes to."""
    mount = _mount_of(folder)
    return mount is not None and mount.is_local


def _mount_of(folder: Path) -> Mount | None:
    around = [mount for mount in mounts() if folder.is_relative_to(mount.at)]
    # Of several at one place the last covers the others.
    return max(reversed(around), key=lambda mount: len(mount.at.parts), default=None)


def folder_on(disk: Disk) -> Path | None:
    """Where the folder of this disk is now; None: the disk is not mounted, or the folder is gone from it."""
    return next((found for mount in mounts() if (found := mount.find(disk)) is not None), None)


def mounts() -> list[Mount]:
    """Everything mounted now, in the order of mounting; id "": not known."""
    if sys.platform == "darwin":
        return list(_volumes_of_macos())
    if sys.platform == "win32":
        return list(_drives())
    try:
        lines = _MOUNTS.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []
    return list(parse_mounts(lines, _uuids()))


def parse_mounts(lines: list[str], uuids: dict[str, str]) -> Iterator[Mount]:
    """The lines of /proc/self/mountinfo. uuids: of file systems, by the real path of their device."""
    for line in lines:
        fields, _, about = line.partition(" - ")
        with suppress(ValueError):
            root, at = map(_unescaped, fields.split(" ")[3:5])
            kind, source = map(_unescaped, about.split(" ")[:2])
            uuid = uuids.get(os.path.realpath(source)) if source.startswith("/dev/") else None
            share = f"share:{source}" if _SHARES.fullmatch(kind) else ""
            yield Mount(f"uuid:{uuid}" if uuid else share, Path(at), root, bool(_LOCAL.fullmatch(kind)))


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _uuids() -> dict[str, str]:
    try:
        return {os.path.realpath(link): link.name for link in _UUIDS.iterdir()}
    except OSError:
        return {}


def _volumes_of_macos() -> Iterator[Mount]:
    yield Mount("", Path("/"), is_local=True)
    with suppress(OSError):
        yield from (Mount(f"volume:{at.name}", at) for at in _VOLUMES.iterdir() if at.is_mount())


def _drives() -> Iterator[Mount]:
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        at = Path(f"{letter}:\\")
        with suppress(OSError):
            yield Mount(f"serial:{at.stat().st_dev:x}", at)
