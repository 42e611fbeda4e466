"""RefCOCO: the published layout, odd references, and pickles that are not what they seem."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steersearch.core.errors import DataError, SampleError
from steersearch.training.data.importers.plain_pickle import read_plain_pickle
from steersearch.training.data.importers.refcoco import RefCoco
from steersearch.training.data.mask_codec import draw_polygon
from steersearch.training.data.samples import Sample, Skip
from tests.published import (
    coco_annotation,
    coco_image,
    outline,
    put_picture,
    put_refcoco,
    python2_pickle,
    ref,
)

NO_IDS = "annotations: no object with id and image_id"
TRAIN = "images/mscoco/images/train2014"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good references with three sentences, among all kinds of bad ones."""
    for number in (1, 2, 4):
        put_picture(tmp_path / TRAIN / f"COCO_train2014_{number:012d}.jpg")
    (tmp_path / TRAIN / "COCO_train2014_000000000005.jpg").write_bytes(b"not a picture")
    put_picture(tmp_path / TRAIN / "COCO_train2014_000000000006.jpg", (20, 30))
    annotations = [
        coco_annotation(11, 1, [outline(2, 3, 20, 30)]),
        coco_annotation(12, 2, [outline(1, 1, 5, 5), outline(30, 10, 50, 20)]),
        coco_annotation(13, 3, [outline(1, 1, 5, 5)]),
        coco_annotation(14, 4, []),
        coco_annotation(15, 5, [outline(1, 1, 5, 5)]),
        coco_annotation(16, 6, [outline(1, 1, 5, 5)]),
        coco_annotation(17, 99, [outline(1, 1, 5, 5)]),
        coco_annotation(18, 1, {"size": [40, 60], "counts": "zz"}),
        {"image_id": 1},
    ]
    refs = [
        ref(1, 11, 1, ["the  left man ", "man in ünïform"]),
        ref(2, 12, 2, ["both dogs"], "testA"),
        ref(3, 13, 3, ["its picture is missing", "also"]),
        ref(4, 14, 4, ["its mask is empty"]),
        ref(5, 15, 5, ["its picture is none"]),
        ref(6, 16, 6, ["its picture is smaller"]),
        ref(7, 17, 99, ["its image is unknown"]),
        ref(8, 77, 1, ["its annotation is unknown"]),
        ref(9, 18, 1, ["its code is damaged"]),
        ref(10, 11, 1, ["", "bytes \udcff", "  \t "]),
        ref(11, 11, 1, []),
        {"ref_id": 12, "ann_id": [1], "sentences": "x"},
        ref(13, 11, 1, ["no split"]) | {"split": None},
    ]
    images = [coco_image(i) for i in range(1, 7)]
    return put_refcoco(tmp_path, refs, images, annotations)


def test_a_row_per_sentence_with_its_mask(folder: Path) -> None:
    source = RefCoco(folder)
    samples = list(source)
    assert [(s.expression, s.image_id, s.split, s.source) for s in samples] == [
        ("the left man", "1", "train", "refcoco"),
        ("man in ünïform", "1", "train", "refcoco"),
        ("both dogs", "2", "testA", "refcoco"),
    ]
    assert samples[0].image == folder.parent / TRAIN / "COCO_train2014_000000000001.jpg"
    assert (samples[1].mask == draw_polygon(outline(2, 3, 20, 30), (40, 60))).all()
    both = draw_polygon(outline(1, 1, 5, 5), (40, 60)) | draw_polygon(outline(30, 10, 50, 20), (40, 60))
    assert (samples[2].mask == both).all()


def test_what_cannot_be_used_is_listed_with_its_place(folder: Path) -> None:
    source = RefCoco(folder)
    refs, instances = folder / "refs(unc).p", folder / "instances.json"
    assert {(s.path, s.row, s.reason, s.rows) for s in source.skips} == {
        (instances, f"byte {last_annotation(instances):,}", NO_IDS, 1),
        (refs, "ref 3", "its picture COCO_train2014_000000000003.jpg was not found", 2),
        (refs, "ref 7", "the picture of its annotation 17 is not in instances.json", 1),
        (refs, "ref 8", "its annotation 77 is not in instances.json", 1),
        (refs, "ref 10", "its expression is empty", 1),
        (refs, "ref 10", "its expression is not UTF-8", 1),
        (refs, "ref 11", "it has no sentences", 1),
        (refs, "ref 12", "its annotation list is not in instances.json", 1),
        (refs, "ref 13", "it belongs to no split", 1),
    }  # fmt: skip
    read = [source.read(i) for i in range(len(source))]
    assert {(s.path.name, s.row, s.reason) for s in read if isinstance(s, Skip)} == {
        (refs.name, "ref 4, sentence 40", "its mask is empty"),
        ("COCO_train2014_000000000005.jpg", "", "not an image, or not of a supported format"),
        (refs.name, "ref 6, sentence 60", "its mask is 60 × 40 pixels, its picture 30 × 20"),
        (refs.name, "ref 9, sentence 90", "its run-length code is damaged (a letter that cannot be in one)"),
    }


def last_annotation(instances: Path) -> int:
    return instances.read_bytes().index(b'{"image_id": 1}')


def test_rows_by_number(folder: Path) -> None:
    source = RefCoco(folder)
    assert len(source) == 7
    assert source[-5].expression == "both dogs"
    with pytest.raises(SampleError, match="its mask is empty") as caught:
        source[3]
    assert caught.value.row == "ref 4, sentence 40"
    with pytest.raises(IndexError):
        source[7]


def test_one_split(folder: Path) -> None:
    assert [s.expression for s in RefCoco(folder, split="testA")] == ["both dogs"]
    with pytest.raises(DataError, match=r'no split "val"; it has: train, testA'):
        RefCoco(folder, split="val")


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_pickles_of_python_2_and_3(tmp_path: Path, protocol: int) -> None:
    put_picture(tmp_path / TRAIN / "COCO_train2014_000000000001.jpg")
    content = [ref(1, 11, 1, ["the café's door"])]
    folder = put_refcoco(
        tmp_path, content, [coco_image(1)], [coco_annotation(11, 1, [outline(1, 1, 9, 9)])], protocol=protocol
    )
    (folder / "refs(google).p").write_bytes(pickle.dumps(content))
    assert [s.expression for s in RefCoco(folder)] == ["the café's door"]
    assert [s.expression for s in RefCoco(folder / "refs(google).p")] == ["the café's door"]


def test_the_pictures_may_lie_elsewhere(folder: Path, tmp_path: Path) -> None:
    there = tmp_path / "elsewhere"
    (folder.parent / "images/mscoco/images").rename(there)
    for images in (there, there / "train2014"):
        assert len(list(RefCoco(folder, images))) == 3
    with pytest.raises(DataError, match="no such folder of pictures"):
        RefCoco(folder, tmp_path / "nowhere")
    assert list(RefCoco(folder)) == []  # the folder of the annotations is looked in, and has none


def test_readers_travel_to_other_processes(folder: Path) -> None:
    """Pickled and read in a process that starts afresh, as DataLoader's workers do with spawn."""
    source = RefCoco(folder)
    code = (
        "import pickle, sys; s = pickle.load(sys.stdin.buffer);"
        "print(len(s), s[2].expression, int(s[2].mask.sum()))"
    )
    packed = pickle.dumps(source)
    done = subprocess.run([sys.executable, "-c", code], input=packed, capture_output=True, check=True)
    assert done.stdout.decode().split() == ["7", "both", "dogs", str(int(source[2].mask.sum()))]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "instances.json").unlink(), "instances.json: No such file"),
        (
            lambda f: (f / "instances.json").write_bytes((f / "instances.json").read_bytes()[:300]),
            "may be truncated",
        ),
        (lambda f: (f / "instances.json").write_text("{}"), 'nothing under "images"'),
        (lambda f: (f / "refs(unc).p").unlink(), r"no refs\(umd\).p"),
        (lambda f: (f / "refs(unc).p").write_bytes((f / "refs(unc).p").read_bytes()[:500]), "damaged"),
        (lambda f: (f / "refs(unc).p").write_bytes(b""), "not a pickle, or damaged"),
        (lambda f: (f / "refs(unc).p").write_bytes(python2_pickle({"a": 1})), "no references"),
    ],
)
def test_damage_of_the_whole(folder: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(folder)
    with pytest.raises(DataError, match=message):
        RefCoco(folder)


# ------------------------------------------------------------------------------------------- hostile pickles


class Runs:
    def __reduce__(self) -> Any:
        return os.system, ("touch caught",)


def test_an_annotation_of_another_picture_is_no_mask(tmp_path: Path) -> None:
    put_picture(tmp_path / TRAIN / "COCO_train2014_000000000001.jpg")
    annotations = [coco_annotation(11, 1, [outline(2, 3, 20, 30)])]
    refs = [ref(1, 11, 1, ["here"]), ref(2, 11, 7, ["there", "there too"])]
    source = RefCoco(put_refcoco(tmp_path, refs, [coco_image(1)], annotations))
    assert [sample.expression for sample in source] == ["here"]
    assert [(skip.row, skip.reason, skip.rows) for skip in source.skips] == [
        ("ref 2", "it is of picture 7, its annotation 11 in instances.json of 1", 2)
    ]


def test_an_annotation_that_is_there_twice_is_no_mask(tmp_path: Path) -> None:
    put_picture(tmp_path / TRAIN / "COCO_train2014_000000000001.jpg")
    twice = [coco_annotation(11, 1, [outline(x, 1, x + 9, 9)]) for x in (1, 30)]
    folder = put_refcoco(
        tmp_path, [ref(1, 11, 1, ["it"])], [coco_image(1)], [*twice, coco_annotation(12, 1, [])]
    )
    assert [s.reason for s in RefCoco(folder).skips] == [
        "its annotation 11 occurs several times in instances.json"
    ]


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_calls_code_is_refused(
    tmp_path: Path, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "refs(unc).p"
    path.write_bytes(pickle.dumps([Runs()], protocol))
    with pytest.raises(DataError, match=r'refused, its pickle calls "posix\.system"'):
        read_plain_pickle(path)
    assert not (tmp_path / "caught").exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",  # GLOBAL, REDUCE
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.",  # STACK_GLOBAL
        b"(S'x'\nibuiltins\neval\n.",  # INST
        b"cnumpy.core.multiarray\nscalar\n.",  # even what other pickles of data need
        b"ccollections\nOrderedDict\n.",
        b"Pid\n.",  # PERSID
        b"(I1\nQ.",  # BINPERSID
        b"\x82\x01.",  # EXT1
        b"S'x'\n)R.",  # a text is called
        b"}S'a'\nb.",  # a state for a dictionary
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a byte array of 2 ** 63 bytes
        b"r\xff\xff\xff\xff.",  # a memo of 4 billion places
        b"(" * 100_000,
    ],
)
def test_hostile_programs_end_in_an_error(tmp_path: Path, program: bytes) -> None:
    path = tmp_path / "refs(unc).p"
    path.write_bytes(program)
    with pytest.raises(DataError):
        read_plain_pickle(path)


def test_a_number_in_the_file_takes_no_memory(tmp_path: Path) -> None:
    """Nothing, kept at place two billion of the memo: 32 GB for an unpickler that makes room for the places before."""
    path = tmp_path / "refs(unc).p"
    path.write_bytes(b"Nr\xff\xff\xff\x7f.")
    assert read_plain_pickle(path) is None


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "refs(unc).p")
    with pytest.raises(DataError, match="a pipe, not a regular file"):
        read_plain_pickle(tmp_path / "refs(unc).p")


def test_lists_that_hold_one_another_end(folder: Path) -> None:
    """A few hundred bytes that would be 2 ** 60 sentences, or an endless message."""
    bomb: list[Any] = ["x"]
    for _ in range(60):
        bomb = [bomb, bomb]
    (folder / "refs(unc).p").write_bytes(
        pickle.dumps([ref(1, 11, 1, ["a"]) | {"ann_id": bomb, "ref_id": bomb}])
    )
    (skip,) = (s for s in RefCoco(folder).skips if s.path.name == "refs(unc).p")
    assert (skip.row, skip.reason) == ("ref list", "its annotation list is not in instances.json")
    one = ref(1, 11, 1, ["a"])
    one["sentences"] *= 100_000
    (folder / "refs(unc).p").write_bytes(pickle.dumps([one] * 100_000))
    with pytest.raises(DataError, match="more sentences than bytes"):
        RefCoco(folder)


def test_masks_fit_the_picture_as_it_is_shown(tmp_path: Path) -> None:
    """A picture that EXIF turns by a quarter: its mask is turned with it, as Pillow turns the picture."""
    from PIL import Image, ImageOps

    for orientation in (5, 6, 7, 8):
        root = tmp_path / str(orientation)
        image = put_picture(root / TRAIN / "COCO_train2014_000000000001.jpg", orientation=orientation)
        annotation = coco_annotation(11, 1, [outline(2, 3, 20, 30)])
        folder = put_refcoco(root, [ref(1, 11, 1, ["turned"])], [coco_image(1)], [annotation])
        stored = Image.fromarray(draw_polygon(outline(2, 3, 20, 30), (40, 60)))
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored.info["exif"] = exif.tobytes()
        shown = np.asarray(ImageOps.exif_transpose(stored))
        (sample,) = list(RefCoco(folder))
        assert isinstance(sample, Sample)
        assert sample.mask.shape == (60, 40)
        assert (sample.mask == shown).all()
        assert image.exists()
