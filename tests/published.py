"""Small data sets in exactly the formats in which the big ones are published."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

SIZE = (40, 60)  # (H, W) of the pictures, unless it is said otherwise


def put_picture(path: Path, size: tuple[int, int] = SIZE, *, orientation: int | None = None) -> Path:
    """A noisy picture of `size` (H, W) as it is stored; orientation: as EXIF has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(path.name.encode())
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def box_mask(left: int, top: int, right: int, bottom: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    mask = np.zeros(size, np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def outline(left: float, top: float, right: float, bottom: float) -> list[float]:
    """The polygon of a box, as COCO writes it."""
    return [left, top, right, top, right, bottom, left, bottom]


def put_json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")
    return path


# --------------------------------------------------------------------------------------- pickles of Python 2


class Python2Pickler(pickle._Pickler):
    """Writes texts as Python 2 wrote its `str`: bytes without an encoding."""

    dispatch: ClassVar[Any] = dict(pickle._Pickler.dispatch)

    def save_bytes_string(self, text: str) -> None:
        raw = text.encode("utf-8", "surrogateescape")
        if self.proto == 0:
            self.write(b"S" + repr(raw)[1:].encode("ascii") + b"\n")
        elif len(raw) < 256:
            self.write(b"U" + bytes([len(raw)]) + raw)
        else:
            self.write(b"T" + len(raw).to_bytes(4, "little") + raw)
        self.memoize(text)

    dispatch[str] = save_bytes_string


def python2_pickle(content: object, protocol: int = 2) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol).dump(content)
    return file.getvalue()


# --------------------------------------------------------------------------------------------------- RefCOCO


def coco_image(number: int, size: tuple[int, int] = SIZE, year: str = "train2014") -> dict[str, Any]:
    name = f"COCO_{year}_{number:012d}.jpg"
    return {
        "license": 1, "file_name": name, "coco_url": f"http://mscoco.org/images/{number}", "height": size[0],
        "width": size[1], "date_captured": "2013-11-14 11:18:45", "flickr_url": "http://example.org", "id": number,
    }  # fmt: skip


def coco_annotation(number: int, image: int, segmentation: object, category: int = 1) -> dict[str, Any]:
    return {
        "segmentation": segmentation, "area": 100.5, "iscrowd": 0, "image_id": image, "bbox": [1.5, 2, 3, 4.25],
        "category_id": category, "id": number,
    }  # fmt: skip


def ref(
    number: int, annotation: int, image: int, sentences: Sequence[str], split: str = "train"
) -> dict[str, Any]:
    sent_ids = [10 * number + i for i in range(len(sentences))]
    return {
        "sent_ids": sent_ids,
        "file_name": f"COCO_train2014_{image:012d}_{annotation}.jpg",
        "ann_id": annotation,
        "ref_id": number,
        "image_id": image,
        "split": split,
        "sentences": [
            {"tokens": text.split(), "raw": text.title(), "sent_id": i, "sent": text}
            for i, text in zip(sent_ids, sentences, strict=True)
        ],
        "category_id": 1,
    }


def put_refcoco(
    root: Path,
    refs: Sequence[object],
    images: Sequence[dict[str, Any]],
    annotations: Sequence[dict[str, Any]],
    *,
    name: str = "refcoco",
    split_by: str = "unc",
    protocol: int = 2,
) -> Path:
    """The folder, as REFER expects it below its data folder `root`; the pictures are written elsewhere."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"refs({split_by}).p").write_bytes(python2_pickle(list(refs), protocol))
    instances = {"info": {"version": "1.0"}, "images": list(images), "licenses": [{"id": 1}]}
    categories = [{"supercategory": "person", "id": 1, "name": "person"}]
    put_json(
        folder / "instances.json", instances | {"annotations": list(annotations), "categories": categories}
    )
    return folder


# --------------------------------------------------------------------------------------------- LVIS, MDETR


def lvis_image(number: int, size: tuple[int, int] = SIZE, year: str = "train2017") -> dict[str, Any]:
    return {
        "date_captured": "2013-11-15 02:41:42", "neg_category_ids": [], "id": number, "license": 1,
        "height": size[0], "width": size[1], "flickr_url": "http://example.org",
        "coco_url": f"http://images.cocodataset.org/{year}/{number:012d}.jpg", "not_exhaustive_category_ids": [],
    }  # fmt: skip


def lvis_category(number: int, name: str, *synonyms: str) -> dict[str, Any]:
    return {
        "frequency": "c", "id": number, "synset": f"{name}.n.01", "image_count": 9, "def": "a thing",
        "synonyms": [name, *synonyms], "name": name, "instance_count": 12,
    }  # fmt: skip


def mdetr_image(number: int, name: str, caption: str, source: str = "vg") -> dict[str, Any]:
    return {
        "file_name": name, "height": SIZE[0], "width": SIZE[1], "id": number, "original_id": name.split(".")[0],
        "caption": caption, "tokens_negative": [[0, 3]], "data_source": source, "dataset_name": "mixed",
    }  # fmt: skip


def mdetr_annotation(
    number: int, image: int, box: Sequence[float], spans: Sequence[Sequence[int]]
) -> dict[str, Any]:
    return {
        "area": box[2] * box[3], "iscrowd": 0, "image_id": image, "category_id": 1, "id": number,
        "bbox": list(box), "tokens_positive": [list(span) for span in spans],
    }  # fmt: skip


def put_mdetr(path: Path, images: Sequence[object], annotations: Sequence[object]) -> Path:
    content = {"info": [], "licenses": [], "images": images, "annotations": annotations, "categories": []}
    return put_json(path, content)


# ---------------------------------------------------------------------------------------------------- hub


def png(mask: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return file.getvalue()


def put_parquet(path: Path, rows: Sequence[dict[str, Any]], group: int = 100) -> Path:
    """Rows of image_id, mask (bytes or None), referential_expression, dataset, as `datasets` writes an image."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    mask = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    schema = pa.schema(
        {"image_id": pa.string(), "mask": mask, "referential_expression": pa.string(), "dataset": pa.string()}
    )
    table = pa.Table.from_pylist(
        [row | {"mask": row["mask"] and {"bytes": row["mask"], "path": None}} for row in rows], schema
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)
    return path
