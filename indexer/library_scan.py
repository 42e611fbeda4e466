"""All photo folders of a library listed, and which of them are away."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from steersearch.core.errors import FolderError
from steersearch.core.images.reader import SUFFIXES
from steersearch.core.objects import as_place
from steersearch.indexer.file_lists import FoundFiles
from steersearch.indexer.folders import Folders, PhotoFolder
from steersearch.indexer.relocation import compare_photos
from steersearch.indexer.scan import Scan, Skip, excluder, holds_an_image, scan_folder
from steersearch.indexer.schema import FileRecord


@dataclass(frozen=True)
class LibraryScan(Scan):
    """Paths are those of the tables.  away: folders of which nothing is known now, and why; their photos are neither
    found nor missing."""

    away: tuple[tuple[PhotoFolder, str], ...] = ()

    def is_unseen(self, stored: str) -> bool:
        """Whether the photo at this path may be there, since its folder could not be listed."""
        below = tuple(f"{folder}/" for folder in self.unlisted)
        return stored.startswith(below) or any(folder.owns(stored) for folder, _ in self.away)


def scan_library(
    folders: Folders, patterns: Sequence[str], known: Callable[[PhotoFolder], Sequence[FileRecord]]
) -> LibraryScan:
    """All photos of the folders that are there.

    known: what the library holds of a folder; asked only of one that lies on another disk than before.
    Raises FolderError if none is there, or none holds a photo.
    """
    scans, away = [], []
    for folder in folders.all:
        try:
            scans.append(_scan_one(folder, patterns, known))
        except FolderError as error:
            away.append((folder, error.reason))
    if not any(scan.files or scan.skips for scan in scans):
        folder, reason = away[0] if away else (folders.all[0], _every_photo_excluded(patterns))
        raise FolderError(folder.path, reason)
    return LibraryScan(
        tuple(identity for scan in scans for identity in scan.root_ids),
        FoundFiles.joined([scan.files for scan in scans]),
        tuple(sorted((skip for scan in scans for skip in scan.skips), key=lambda skip: skip.path)),
        tuple(path for scan in scans for path in scan.unlisted),
        away=tuple(away),
    )


def _scan_one(
    folder: PhotoFolder, patterns: Sequence[str], known: Callable[[PhotoFolder], Sequence[FileRecord]]
) -> Scan:
    """Raises FolderError with the reason why nothing is known of it."""
    root = as_place(folder.path)
    if not root.is_dir():
        raise FolderError(root, f"the photo folder {folder.why_away}; {_way_back(folder)}")
    if not folder.is_on_its_disk and not compare_photos(known(folder), folder, root).is_alike:
        raise FolderError(root, f"{folder.why_away}, and another is there; {_way_back(folder)}")
    scan = scan_folder(root, excluder(patterns))
    if "." in scan.unlisted:
        raise FolderError(root, scan.skips[0].reason)
    if scan.replaced is not None:
        raise FolderError(root, "the photo folder was replaced while it was listed; index again")
    if not (scan.files or scan.skips or (patterns and holds_an_image(root))):
        raise FolderError(root, f"{no_image()}; is a disk not mounted? {_way_back(folder)}")
    return Scan(
        scan.root_ids,
        scan.files.below(folder.prefix),
        tuple(Skip(folder.prefix + skip.path, skip.reason) for skip in scan.skips),
        tuple(folder.prefix + path for path in scan.unlisted),
    )


def _way_back(folder: PhotoFolder) -> str:
    return (
        "bring it back to index it; until then its photos can be searched as they are. If it moved: "
        f"steersearch relocate {shlex.quote(folder.path)} NEW"
    )


def no_image() -> str:
    return f"holds no image (looked for {' '.join(SUFFIXES)}; hidden and system folders left out)"


def _every_photo_excluded(patterns: Sequence[str]) -> str:
    quoted = " ".join(f'"{pattern}"' for pattern in patterns)
    return f'every photo is excluded by {quoted}; other patterns replace these, --exclude "" drops them'
