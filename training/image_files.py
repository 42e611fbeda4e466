"""Where the pictures of the published data sets lie: their folders are listed once, and names looked up.

A stat for each candidate of each of 160,000 pictures takes minutes on a network drive; the listings take seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from steersearch.core.errors import DataError

# Folders as the archives unpack, below whatever folder somebody keeps them in.
COCO_FOLDERS = ("train2014", "val2014", "train2017", "val2017")
VISUAL_GENOME_FOLDERS = ("VG_100K", "VG_100K_2")
MAPILLARY_FOLDERS = ("training/images", "validation/images", "testing/images")


class ImageFiles:
    """The files in some folders, by name. Of two with one name the first folder's counts.

    folders: those that exist and are looked in
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = [folder for folder in dict.fromkeys(folders) if folder.is_dir()]
        self._folder_of: dict[str, Path] = {}
        for folder in self.folders:
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        self._folder_of.setdefault(entry.name, folder)
            except OSError as error:
                raise DataError(folder, error.strerror or str(error)) from error

    def find(self, *names: str) -> Path | None:
        """The first of `names` that is there. Names are file names; folders before them do not count."""
        for name in names:
            base = name.rpartition("/")[2]
            if base in self._folder_of:
                return self._folder_of[base] / base
        return None

    def __len__(self) -> int:
        return len(self._folder_of)


def listed(
    annotations: Path, images: Path | None, likely: Sequence[Path], folders: Sequence[str]
) -> ImageFiles:
    """The pictures of `annotations`, which lie in `images` if it is given, else in one of the `likely` places.

    In each place the `folders` below it are looked in, and the place itself. Raises DataError if no place exists.
    """
    if images is not None and not images.is_dir():
        raise DataError(images, "there is no such folder of pictures")
    places = likely if images is None else [images]
    files = ImageFiles(place / folder for place in places for folder in (*folders, "."))
    if not files.folders:
        looked = ", ".join(str(place) for place in places)
        raise DataError(
            annotations, f"its pictures were not found (looked in {looked}); name their folder: --images"
        )
    return files
