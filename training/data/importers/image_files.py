"""Find the pictures of published data sets in listings of their folders.

A stat for each candidate of 160,000 pictures takes minutes on a network drive; listings take seconds.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
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
        self._folded_in: dict[Path, dict[str, str]] = {}
        for folder in self.folders:
            self._names_in(folder)

    def find(self, *names: str) -> Path | None:
        """The first of `names` that exists.

        A name may have folders, with / or \\, which are ignored if they do not exist. Case and Unicode composition are
        ignored if there is no exact match and only one other.
        """
        for name in names:
            places = [place for place in self._below(name) if self._names_in(place)] or self.folders
            bases = dict.fromkeys((name.rpartition("/")[2], name.replace("\\", "/").rpartition("/")[2]))
            for match in (self._exact, self._spelt):
                for base in bases:
                    found = match(places, base)
                    if found is not None:
                        return found
        return None

    def _below(self, name: str) -> list[Path]:
        """The folders that the name gives, below ours."""
        above = name.replace("\\", "/").removeprefix("./").rpartition("/")[0]
        if not above or ".." in above.split("/") or above.startswith("/"):
            return []
        return [folder / above for folder in self.folders]

    def _exact(self, places: Sequence[Path], base: str) -> Path | None:
        return next((place / base for place in places if base in self._names_in(place)), None)

    def _spelt(self, places: Sequence[Path], base: str) -> Path | None:
        """The one file whose name differs in case or composition alone."""
        found = {self._folded_names(place).get(_folded(base)): place for place in reversed(places)}
        found.pop(None, None)
        if len(found) != 1 or "" in found:
            return None
        ((name, place),) = found.items()
        return place / str(name)

    def _folded_names(self, folder: Path) -> dict[str, str]:
        """Names by their form in `_folded`, "" for several names of one form; made once."""
        if folder not in self._folded_in:
            names: dict[str, str] = {}
            for name in self._names_in(folder):
                names[_folded(name)] = "" if _folded(name) in names else name
            self._folded_in[folder] = names
        return self._folded_in[folder]

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


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


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
