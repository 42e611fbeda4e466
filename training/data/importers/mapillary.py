"""Mapillary Vistas with the expressions of Describe Anything (https://huggingface.co/datasets/nvidia/describe-anything-dataset).

Its folder `Mapillary` holds `annotations.json`, {picture's id: [{"ann_id", "img_id", "image", "tar_file",
"mask_rle": {"size", "counts"}, "caption", …}, …]}, and the pictures in `images/*.tar`, to be unpacked; those of
Mapillary Vistas have the same names. The expressions are captions of several sentences, made by a model. The other
parts of the data set (LVIS, PACO, COCOStuff, …) have the same layout and can be read too.
"""

from __future__ import annotations

from array import array
from pathlib import Path

from steersearch.core.errors import DataError
from steersearch.training.data.importers.image_files import COCO_FOLDERS, MAPILLARY_FOLDERS, listed
from steersearch.training.data.importers.importer import Importer
from steersearch.training.data.importers.json_stream import Element, elements, read_element
from steersearch.training.data.mask_codec import Mask, MaskError, decode_rle
from steersearch.training.data.samples import Row, Skip, Source, Texts, checked_expression, require_split

ANNOTATIONS = "annotations.json"


class Mapillary(Source):
    """One row per region, in the order of the file; the only split is train.

    path: the folder or its annotations.json.  images: the folder of the pictures; None: `images` beside the file
    """

    def __init__(self, path: Path, images: Path | None = None, split: str | None = None) -> None:
        self._path = path / ANNOTATIONS if path.is_dir() else path
        require_split(path, ["train"], split)
        folder = self._path.parent
        self.name = folder.resolve().name.lower()
        self.skips = []
        files = listed(self._path, images, [folder / "images", folder], (*MAPILLARY_FOLDERS, *COCO_FOLDERS))
        packed = sorted(folder.glob("images/*.tar"))
        self._images, self._texts, self._ids = Texts(), Texts(), Texts()
        self._image, self._offsets, self._lengths = array("i"), array("q"), array("i")
        numbers: dict[str, int] = {}
        for element in elements(self._path):
            try:
                name, expression = _checked(element)
                if name not in numbers:
                    found = files.find(name)
                    numbers[name] = self._images.append(str(found)) if found else -1
                if numbers[name] < 0:
                    raise ValueError(f"its picture {name} was not found")
            except ValueError as error:
                self.skips.append(Skip(self._path, _place(element.section, element.value), str(error)))
                continue
            self._texts.append(expression)
            self._ids.append(_place(element.section, element.value))
            self._image.append(numbers[name])
            self._offsets.append(element.offset)
            self._lengths.append(element.length)
        if not self._texts and packed and images is None:
            raise DataError(packed[0], "its pictures are still packed; unpack the tar files in this folder")

    def __len__(self) -> int:
        return len(self._texts)

    def row(self, index: int) -> Row:
        image = Path(self._images[self._image[index]])
        return Row(
            image,
            self._said(self._texts[index]),
            image.stem,
            "train",
            self.name,
            self._path,
            self._ids[index],
        )

    def annotation(self, index: int) -> Mask:
        found = read_element(self._path, self._offsets[index], self._lengths[index])
        if not isinstance(found, dict):
            raise ValueError("the region has moved")
        code = found.get("mask_rle")
        if not isinstance(code, dict):
            raise MaskError("it has no mask")
        return decode_rle(code)


def _checked(element: Element) -> tuple[str, str]:
    """Name of the picture's file, and expression. Raises ValueError with the reason if there is none."""
    region = element.value
    if not isinstance(region, dict):
        raise ValueError("it is not a region (a JSON object)")
    name = region.get("image")
    if not isinstance(name, str) or not name.rpartition("/")[2]:
        raise ValueError("it names no image")
    return name.rpartition("/")[2], checked_expression(region.get("caption"))


def _place(section: str, region: object) -> str:
    number = region.get("ann_id") if isinstance(region, dict) else None
    return f"image {section}, region {number}"


IMPORTER = Importer(
    expects="Describe Anything's folder Mapillary",
    open=Mapillary,
    holds=lambda path: (path / ANNOTATIONS).is_file(),
    shows=lambda section, value: "mask_rle" in value,
)
