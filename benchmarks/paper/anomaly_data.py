"""Reader of the published MVTec AD and VisA: test pictures with the masks of their damage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from steersearch.benchmarks.harness.benchmark import Source, short_of
from steersearch.benchmarks.harness.label_file import read_mask
from steersearch.benchmarks.harness.table_file import read_table
from steersearch.benchmarks.harness.viewing import Opener, digest, evenly
from steersearch.core.errors import BenchmarkError
from steersearch.core.preprocess import open_image
from steersearch.training.data.mask_codec import Mask

SIDE = 448  # pixels of the square in which maps and masks are compared
MVTEC_LICENCE, VISA_LICENCE = "CC BY-NC-SA 4.0", "CC BY 4.0"
PUBLISHED = {"anomaly/mvtec": 1725, "anomaly/visa": 2162}  # test pictures
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
_VISA_LIST = "split_csv/1cls.csv"


@dataclass(frozen=True)
class Item:
    """A test picture of a class of objects. defect: its kind, "" for a sound one.

    mask: (H, W), True where it is damaged, of the picture's size or a scaled one; None for a sound one.
    """

    object: str
    defect: str
    picture: Opener
    mask: Callable[[], Mask] | None


@dataclass(frozen=True, kw_only=True)
class Items:
    """Test pictures, class by class. side: of the square in pixels in which maps and masks are compared; partial: see
    Dataset."""

    name: str
    source: Source
    licence: str
    data_hash: str
    items: tuple[Item, ...]
    side: int = SIDE
    partial: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        return len(self.items)

    @property
    def objects(self) -> dict[str, list[Item]]:
        """The pictures of each class."""
        found: dict[str, list[Item]] = {}
        for item in self.items:
            found.setdefault(item.object, []).append(item)
        return found


def read_mvtec(root: Path, limit: int | None = None) -> Items:
    """MVTec AD: CLASS/test/good, CLASS/test/DEFECT, and CLASS/ground_truth/DEFECT/NAME_mask.png.

    limit: pictures of each class, half of them damaged.  Raises BenchmarkError for a mask that is missing.
    """
    items: list[tuple[Item, list[Path]]] = []
    for folder in sorted(path for path in root.iterdir() if (path / "test").is_dir()):
        name = folder.name.replace("_", " ")
        found = []
        for defects in sorted(path for path in (folder / "test").iterdir() if path.is_dir()):
            for file in sorted(path for path in defects.iterdir() if path.suffix.lower() in _PICTURES):
                if file.name.startswith("."):
                    continue
                mask = None
                if defects.name != "good":
                    mask = folder / "ground_truth" / defects.name / f"{file.stem}_mask.png"
                found.append(_item(name, defects.name if mask else "", file, mask))
        items += _some(found, limit)
    return _items("anomaly/mvtec", MVTEC_LICENCE, root, items)


def read_visa(root: Path, limit: int | None = None) -> Items:
    """VisA: the rows of split_csv/1cls.csv with the split test; columns object, split, label, image, mask.

    limit: pictures of each class, half of them damaged.  Raises BenchmarkError for another table, or a file
    that is missing.
    """
    listed = root / _VISA_LIST
    by_object: dict[str, list[tuple[Item, list[Path]]]] = {}
    for number, row in read_table(listed, ("object", "split", "label", "image", "mask")):
        if row["split"] != "test":
            continue
        if row["label"] not in ("normal", "anomaly"):
            raise BenchmarkError(
                f'{listed}, line {number}: label "{row["label"]}", neither normal nor anomaly'
            )
        damaged = row["label"] == "anomaly"
        if damaged and not row["mask"]:
            raise BenchmarkError(f"{listed}, line {number}: an anomaly without a mask")
        mask = root / row["mask"] if damaged else None
        name = row["object"].rstrip("0123456789").replace("_", " ")
        item = _item(name, "anomaly" if damaged else "", root / row["image"], mask)
        by_object.setdefault(row["object"], []).append(item)
    items = [item for found in by_object.values() for item in _some(found, limit)]
    return _items("anomaly/visa", VISA_LICENCE, root, items)


def kind_of(root: Path) -> Callable[[Path, int | None], Items] | None:
    """The reader for the data in this folder, or None."""
    if (root / _VISA_LIST).is_file():
        return read_visa
    if root.is_dir() and any((path / "test").is_dir() for path in root.iterdir()):
        return read_mvtec
    return None


def _item(name: str, defect: str, picture: Path, mask: Path | None) -> tuple[Item, list[Path]]:
    files = [picture] if mask is None else [picture, mask]
    for file in files:
        if not file.is_file():
            raise BenchmarkError(f"{file}: is missing")
    marked = None if mask is None else partial(read_mask, mask, picture)
    return Item(name, defect, partial(open_image, picture), marked), files


def _some(found: Sequence[tuple[Item, list[Path]]], limit: int | None) -> list[tuple[Item, list[Path]]]:
    """At most `limit` of a class, half of them damaged, evenly spread."""
    if limit is None or limit >= len(found):
        return list(found)
    whole = [pair for pair in found if pair[0].mask is None]
    damaged = [pair for pair in found if pair[0].mask is not None]
    least = max(1, min(len(damaged), limit - min(len(whole), limit // 2)))
    return [*evenly(whole, limit - least), *evenly(damaged, least)]


def _items(name: str, licence: str, root: Path, found: Iterable[tuple[Item, list[Path]]]) -> Items:
    pairs = list(found)
    if not pairs:
        raise BenchmarkError(f"{root}: holds no test picture")
    return Items(
        name=name,
        source="real",
        licence=licence,
        data_hash=digest(file.read_bytes() for _, files in pairs for file in files),
        items=tuple(item for item, _ in pairs),
        partial=short_of(len(pairs), PUBLISHED[name], "test pictures"),
    )
