"""Find the pictures of published data sets in listings of their folders.

A stat for each candidate of 160,000 pictures takes minutes on a network drive; listings take seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from steersearch.core.errors import DataError

# Folders in the archives.
COCO_FOLDERS = ("train2014", "val2014", "train2017", "val2017")
VISUAL_GENOME_FOLDERS = ("VG_100K", "VG_100K_2")
MAPILLARY_FOLDERS = ("training/images", "validation/images", "testing/images")


class ImageFiles:
    """The files in some folders, by name; the first folder wins.

    folders: the existing ones
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = [folder for folder in dict.fromkeys(folders) if os.path.isdir(folder)]
        self._listed: dict[Path, frozenset[str]] = {}
        self._folder_of: dict[str, Path] = {}
        for folder in self.folders:
            for name in self._names_in(folder):
                self._folder_of.setdefault(name, folder)

    @cached_property
    def _spelt(self) -> dict[str, str]:
        """Names by their case-folded form, unless it is ambiguous."""
        found: dict[str, str] = {}
        twice: set[str] = set()
        for name in self._folder_of:
            if found.setdefault(name.casefold(), name) != name:
                twice.add(name.casefold())
        return {folded: name for folded, name in found.items() if folded not in twice}

    def find(self, *names: str) -> Path | None:
        """The first of `names` that exists.

        A name may have folders, with / or \\, which are ignored if they do not exist. Case is ignored if there is no
        exact match and only one other.
        """
        for name in names:
            found = self._below(name) or self._flat(name)
            if found is not None:
                return found
        return None

    def _below(self, name: str) -> Path | None:
        """The file in the folder that the name gives, below one of ours."""
        above, _, base = name.replace("\\", "/").rpartition("/")
        if not above or ".." in above.split("/") or above.startswith("/"):
            return None
        places = (folder / above for folder in self.folders)
        return next((place / base for place in places if base in self._names_in(place)), None)

    def _flat(self, name: str) -> Path | None:
        for base in (name.rpartition("/")[2], name.replace("\\", "/").rpartition("/")[2]):
            spelt = base if base in self._folder_of else self._spelt.get(base.casefold())
            if spelt is not None:
                return self._folder_of[spelt] / spelt
        return None

    def _names_in(self, folder: Path) -> frozenset[str]:
        """The names in a folder, none if it does not exist; listed once."""
        if folder not in self._listed:
            try:
                with os.scandir(folder) as entries:
                    self._listed[folder] = frozenset(entry.name for entry in entries)
            except (OSError, ValueError) as error:  # ValueError for an impossible name
                if folder in self.folders:
                    raise DataError(folder, getattr(error, "strerror", None) or str(error)) from error
                self._listed[folder] = frozenset()
        return self._listed[folder]

    def __len__(self) -> int:
        return len(self._folder_of)


def listed(
    annotations: Path, images: Path | None, likely: Sequence[Path], folders: Sequence[str]
) -> ImageFiles:
    """The pictures of `annotations`, in `images` if given, else in one of the `likely` places.

    Searches the `folders` below each place, and the place itself. Raises DataError if no place exists.
    """
    if images is not None and not os.path.isdir(images):
        raise DataError(images, "no such folder of pictures")
    places = likely if images is None else [images]
    files = ImageFiles(place / folder for place in places for folder in (*folders, "."))
    if not files.folders:
        looked = ", ".join(str(place) for place in places)
        raise DataError(
            annotations, f"its pictures were not found (looked in {looked}); name their folder: --images"
        )
    return files
