"""Whether a folder holds the photos that a library knows of another: after a folder or a disk has moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steersearch.indexer.folders import PhotoFolder
from steersearch.indexer.loader import content_hash
from steersearch.indexer.schema import FileRecord

COMPARED = 200  # photos, evenly spread


@dataclass(frozen=True)
class Likeness:
    """Of the photos compared, those that are the same, missing, and different; example: a path of one that is not the
    same."""

    same: int
    missing: int
    different: int
    example: str = ""

    @property
    def compared(self) -> int:
        return self.same + self.missing + self.different

    @property
    def is_alike(self) -> bool:
        """Whether at least half are the same; where nothing is known, nothing contradicts."""
        return 2 * self.same >= self.compared

    def __str__(self) -> str:
        said = f"of {self.compared:,} photos compared, {self.same:,} are the same, {self.missing:,} missing, "
        return said + f"{self.different:,} different" + (f" (such as {self.example})" if self.example else "")


def compare_photos(
    files: Sequence[FileRecord], folder: PhotoFolder, at: Path, *, by_content: bool = False
) -> Likeness:
    """Compare photos of `folder` with the files at the same relative paths below `at`, by size or by content."""
    photos = [file for file in files if file.image_id and file.reason is None]
    step = max(1, -(-len(photos) // COMPARED))
    counts, example = {"same": 0, "missing": 0, "different": 0}, ""
    for file in photos[::step]:
        path = at / file.path.removeprefix(folder.prefix)
        try:
            is_same = path.stat().st_size == file.size
            if is_same and by_content:
                is_same = content_hash(path) == file.image_id
            outcome = "same" if is_same else "different"
        except OSError:
            outcome = "missing"
        counts[outcome] += 1
        if outcome != "same":
            example = example or path.relative_to(at).as_posix()
    return Likeness(**counts, example=example)
