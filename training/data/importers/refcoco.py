"""RefCOCO, RefCOCO+ and RefCOCOg, as published with the REFER interface (https://github.com/lichengunc/refer).

A folder holds `instances.json`, COCO's annotations of its pictures, and `refs(google).p`, `refs(umd).p` or
`refs(unc).p`: a pickled list of references, each {ref_id, ann_id, image_id, category_id, file_name, split, sent_ids,
sentences: [{sent_id, sent, raw, tokens}]}. An expression is `sent`, the cleaned text. A reference's file name is not
the picture's. Splits: train, val, test, and in unc testA, testB.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from steersearch.core.errors import DataError
from steersearch.training.data.importers.coco_json import AMBIGUOUS, CocoJson
from steersearch.training.data.importers.image_files import COCO_FOLDERS, listed
from steersearch.training.data.importers.importer import Importer
from steersearch.training.data.importers.plain_pickle import read_plain_pickle
from steersearch.training.data.mask_codec import Mask
from steersearch.training.data.samples import (
    Row,
    Skip,
    Source,
    Texts,
    checked_expression,
    is_split,
    require_split,
)

# Google's split of RefCOCOg has no test, and the same pictures in train and val.
SPLITS_BY = ("umd", "unc", "google")


def refs_file(path: Path) -> Path | None:
    """The pickle of references at `path`, a folder or the file itself; None if it is neither."""
    if path.is_file():
        return path if path.name.startswith("refs(") and path.suffix == ".p" else None
    candidates = (path / f"refs({split_by}).p" for split_by in SPLITS_BY)
    return next((found for found in candidates if found.is_file()), None)


class RefCoco(Source):
    """One row per sentence, in the order of the pickle; its mask is that of the object it refers to.

    path: one `refs(…).p`, or the folder, which prefers umd to unc to google
    images: the folder of COCO's train2014, or that folder itself; None: images/mscoco/images beside `path`
    """

    def __init__(self, path: Path, images: Path | None = None, split: str | None = None) -> None:
        refs = refs_file(path)
        if refs is None:
            raise DataError(path, "no refs(umd).p, refs(unc).p or refs(google).p in it")
        folder = refs.parent
        self.name = folder.resolve().name
        self._path = refs
        self._coco = CocoJson(folder / "instances.json")
        self.skips = list(self._coco.skips)
        likely = [folder.parent / "images/mscoco/images", folder / "images", folder]
        files = listed(refs, images, likely, COCO_FOLDERS)
        names = self._coco.image_names
        self._images = Texts(str(files.find(name) or "") for name in (names[i] for i in range(len(names))))

        self._texts, self._ids, self._splits = Texts(), Texts(), list[str]()
        rows: list[tuple[int, int]] = []  # the number of the annotation, that of the split
        for text, place, annotation, of_split in self._sentences(read_plain_pickle(refs)):
            if of_split not in self._splits:
                self._splits.append(of_split)
            if is_split(of_split, split):
                self._texts.append(text)
                self._ids.append(place)
                rows.append((annotation, self._splits.index(of_split)))
        require_split(refs, self._splits, split)
        self._rows = np.array(rows, np.int32).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> Row:
        annotation, of_split = self._rows[index].tolist()
        image = int(self._coco.annotation_images[annotation])
        image_id = str(self._coco.image_ids[image])
        row, split = self._ids[index], self._splits[of_split]
        return Row(
            Path(self._images[image]),
            self._said(self._texts[index]),
            image_id,
            split,
            self.name,
            self._path,
            row,
        )

    def annotation(self, index: int) -> Mask:
        annotation = int(self._rows[index, 0])
        return self._coco.mask(annotation, Path(self._images[int(self._coco.annotation_images[annotation])]))

    def _sentences(self, refs: Any) -> Iterator[tuple[str, str, int, str]]:
        """Expression, place, number of the annotation and split of each usable sentence."""
        if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
            raise DataError(self._path, "no references (a pickled list of dictionaries was expected)")
        if sum(len(_sentences_of(ref)) for ref in refs) > self._path.stat().st_size:
            raise DataError(self._path, "damaged (more sentences than bytes)")  # shared lists
        annotations = self._coco.annotation_numbers(
            np.array([_id(ref.get("ann_id")) for ref in refs], np.int64)
        )
        for number, (ref, annotation) in enumerate(zip(refs, annotations.tolist(), strict=True)):
            place = f"ref {_shown(ref.get('ref_id', f'number {number}'))}"
            reason = self._wrong(ref, annotation)
            if reason is not None:
                self.skips.append(Skip(self._path, place, reason, max(1, len(_sentences_of(ref)))))
                continue
            for sentence in _sentences_of(ref):
                try:
                    text = checked_expression(sentence.get("sent", sentence.get("raw")))
                except (AttributeError, ValueError) as error:
                    self.skips.append(Skip(self._path, place, str(error)))
                    continue
                yield (
                    text,
                    f"{place}, sentence {sentence.get('sent_id', '?')}",
                    annotation,
                    str(ref.get("split")),
                )

    def _wrong(self, ref: dict[str, Any], annotation: int) -> str | None:
        """Why a reference is unusable; None if it is usable."""
        if annotation == AMBIGUOUS:
            return f"its annotation {_shown(ref.get('ann_id'))} occurs several times in instances.json"
        if annotation < 0:
            return f"its annotation {_shown(ref.get('ann_id'))} is not in instances.json"
        image = int(self._coco.annotation_images[annotation])
        if image == AMBIGUOUS:
            return f"the picture of its annotation {_shown(ref.get('ann_id'))} is one of several with its id"
        if image < 0:
            return f"the picture of its annotation {_shown(ref.get('ann_id'))} is not in instances.json"
        if "image_id" in ref and _id(ref["image_id"]) != self._coco.image_ids[image]:
            its, other = _shown(ref["image_id"]), self._coco.image_ids[image]
            return f"it is of picture {its}, its annotation {_shown(ref.get('ann_id'))} in instances.json of {other}"
        if not self._images[image]:
            return f"its picture {self._coco.image_names[image]} was not found"
        if not _sentences_of(ref):
            return "it has no sentences"
        if not isinstance(ref.get("split"), str):
            return "it belongs to no split"
        return None


def _sentences_of(ref: dict[str, Any]) -> list[Any]:
    sentences = ref.get("sentences")
    return sentences if isinstance(sentences, list) else []


def _shown(value: object) -> str:
    """A number or a short text; of anything else only its type, as nested lists may be endless."""
    return str(value)[:40] if isinstance(value, (int, str)) else type(value).__name__


def _id(value: object) -> int:
    return value if type(value) is int and abs(value) < 2**63 else -1


IMPORTER = Importer(expects="a folder with refs(unc).p and instances.json", open=RefCoco, holds=refs_file)
