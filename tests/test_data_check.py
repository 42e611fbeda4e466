"""`train check`: recognising formats, counting, listing what is broken, drawing samples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steersearch.cli.train.check import _random_samples
from steersearch.core.errors import ArgumentError, DataError
from steersearch.training.data.check import Spread, check_source
from steersearch.training.data.folder import Folder, FolderWriter
from steersearch.training.data.samples import Boxed, Sample
from steersearch.training.data.sources import open_source, recognise
from steersearch.views.sample_sheet import EDGE, draw_sample, draw_samples
from tests.conftest import Run
from tests.published import (
    SIZE,
    box_mask,
    coco_annotation,
    coco_image,
    lvis_category,
    lvis_image,
    mdetr_annotation,
    mdetr_image,
    outline,
    png,
    put_json,
    put_mdetr,
    put_parquet,
    put_picture,
    put_refcoco,
    ref,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine lines: five samples of three pictures, one a repetition; one box; a mask that does not fit; two bad."""
    data = tmp_path / "data"
    for name in ("a.png", "b.png", "c.png"):
        put_picture(data / name)
    whole = put_picture(data / "cut.jpg").read_bytes()
    (data / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with FolderWriter(data / "expressions.jsonl") as rows:
        rows.add("a.png", "one two three", box_mask(0, 0, 30, 40))
        rows.add("a.png", "one", box_mask(0, 0, 6, 4))
        rows.add("b.png", "one two", box_mask(0, 0, 60, 40), split="val")
        rows.add("a.png", "one", box_mask(0, 0, 6, 4))
        rows.add("c.png", "one two three four", box_mask(0, 0, 12, 40))
        rows.add("cut.jpg", "a cut picture", box_mask(0, 0, 6, 4))
        rows.add("a.png", "a mask of another size", box_mask(0, 0, 6, 4, (20, 20)))
        rows.add("none.png", "a missing picture", box_mask(0, 0, 6, 4))
    with (data / "expressions.jsonl").open("a") as lines:
        lines.write('{"image": "b.png", "expression": "a box", "box": [1, 2, 30, 20]}\n')
    return data


def test_the_report(folder: Path) -> None:
    steps: list[tuple[int, int]] = []
    report = check_source(Folder(folder), progress=lambda done, total: steps.append((done, total)))
    assert (report.rows, report.read, report.samples, report.boxes, report.images) == (8, 8, 5, 1, 3)
    assert report.duplicates == 1
    assert report.splits == {"train": 5, "val": 1}
    assert report.words == Spread(1, 1, 2, 3.75, 4, pytest.approx(13 / 6))
    assert report.areas == Spread(0.01, 0.01, pytest.approx(0.2), pytest.approx(0.9), 1, pytest.approx(0.344))
    assert report.skipped == 3
    assert {skip.row: skip.reason for skip in report.skips if skip.row} == {
        "line 7": "its mask is 20 × 20 pixels, its picture 60 × 40",
        "line 8": "its picture none.png was not found",
    }
    (cut,) = (skip for skip in report.skips if not skip.row)
    assert cut.path == folder / "cut.jpg"
    assert cut.reason.startswith("truncated or damaged")
    assert steps[-1] == (8, 8)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_the_same_report_on_any_number_of_threads(folder: Path) -> None:
    reports = [check_source(Folder(folder), threads=threads) for threads in (1, 5)]
    assert reports[0] == reports[1]


def test_a_limit_is_spread_evenly(folder: Path) -> None:
    report = check_source(Folder(folder), limit=2)
    assert (report.rows, report.read, report.samples) == (8, 2, 2)  # rows 0 and 4
    assert report.images == 2
    assert check_source(Folder(folder), limit=100).read == 8


# ------------------------------------------------------------------------------------------- command line


def test_check_prints_counts_and_what_is_broken(run: Run, folder: Path) -> None:
    done = run("train", "check", folder)
    assert done.code == 0
    assert done.out.splitlines() == [
        "data: 5 samples of 3 pictures",
        "1 row has boxes but no mask",
        "split    train 5, val 1",
        "words    1 to 4, median 2, 90 % within 1 to 3.75",
        "mask     1.00% to 100.00%, median 20.00%, 90 % within 1.00% to 90.00% of the picture",
        "repeated 1 (same picture and expression)",
        "large    1 masks cover more than 90% of their picture",
        "skipped  3",
    ]
    assert "skipped data/expressions.jsonl, line 8: its picture none.png was not found\n" in done.err
    assert "line 3: its mask covers 100.0% of its picture; is it inverted?" in done.err
    assert "masks from boxes: steersearch train masks DATA -o FOLDER" in done.err


def test_check_as_json_lists_all(run: Run, folder: Path) -> None:
    with (folder / "expressions.jsonl").open("a") as lines:
        lines.write("no JSON\n" * 30)
    done = run("train", "check", folder, "--json")
    report, *skips = (json.loads(line) for line in done.out.splitlines())
    assert (report["samples"], report["boxes"], report["large"], report["skipped"]) == (5, 1, 1, 33)
    assert report["words"]["median"] == 2
    (large,) = (line for line in skips if "share" in line)
    assert large == {
        "index": 2, "path": str(folder / "expressions.jsonl"), "row": "line 3", "share": 1.0,
    }  # fmt: skip
    skips.remove(large)
    assert len(skips) == 33
    assert skips[1] == {
        "path": str(folder / "expressions.jsonl"), "row": "line 10", "reason": "it is not JSON", "rows": 1,
    }  # fmt: skip
    short = run("train", "check", folder)
    assert short.err.count("skipped ") == 10
    assert "and 23 more; all of them: --json" in short.err


def test_check_of_a_part(run: Run, folder: Path) -> None:
    assert (
        run("train", "check", folder, "--split", "val").out.splitlines()[0] == "data: 1 sample of 1 picture"
    )
    done = run("train", "check", folder, "--limit", 2, "--format", "folder")
    assert "2 of 8 rows were read" in done.out


def test_check_fails_if_nothing_can_be_used(run: Run, tmp_path: Path) -> None:
    (tmp_path / "expressions.jsonl").write_text("no JSON\n")
    done = run("train", "check", tmp_path, "-o", tmp_path / "samples.png")
    assert done.code == 1
    assert "error: no row can be used" in done.err
    assert "was not drawn: no usable row" in done.err
    assert not (tmp_path / "samples.png").exists()


def test_misuse(run: Run, folder: Path, tmp_path: Path) -> None:
    done = run("train", "check", tmp_path / "nowhere")
    assert done.code == 1
    assert "no such file or folder; expected one of: a folder with expressions.jsonl;" in done.err
    done = run("train", "check", folder.parent)
    assert done.code == 1
    assert "not a data set of a known format" in done.err
    done = run("train", "check", folder, "--split", "test")
    assert done.code == 1
    assert 'it has no split "test"; it has: train, val' in done.err
    done = run("train", "check", folder, "-o", tmp_path / "no/where.png")
    assert done.code == 1
    assert "there is no folder" in done.err
    assert run("train", "check", folder, "--format", "coco").code == 2
    assert run("train", "check", folder, "--limit", 0).code == 2
    assert run("train", "check").code == 2


# ------------------------------------------------------------------------------------------------ picture


def test_check_draws_samples(run: Run, folder: Path, tmp_path: Path) -> None:
    done = run("train", "check", folder, "-o", "samples.png")
    assert "picture: samples.png" in done.err
    first = (tmp_path / "samples.png").read_bytes()
    run("train", "check", folder, "-o", "samples.png")
    assert (tmp_path / "samples.png").read_bytes() == first
    assert Image.open(tmp_path / "samples.png").width > 1000


def test_an_inverted_mask_is_warned_of_and_drawn(run: Run, tmp_path: Path) -> None:
    """Black on white is a mask of all but the thing: nobody can know, but a look at it shows."""
    (tmp_path / "data").mkdir()
    put_picture(tmp_path / "data/a.png")
    mask = np.zeros(SIZE, np.bool_)
    mask[10:20, 10:20] = True
    lines = []
    for i in range(40):
        Image.fromarray(~mask if i == 33 else mask).save(tmp_path / f"data/{i}.png")
        lines.append(json.dumps({"image": "a.png", "expression": f"thing {i}", "mask": f"{i}.png"}))
    (tmp_path / "data/expressions.jsonl").write_text("\n".join(lines))
    done = run("train", "check", tmp_path / "data", "-o", tmp_path / "samples.png")
    assert done.err.count("warning: ") == 1
    assert "line 34: its mask covers 95.8% of its picture; is it inverted?" in done.err
    source = Folder(tmp_path / "data")
    (large,) = check_source(source).large
    assert next(iter(_random_samples(source, [large.index]))) == 33


def test_a_mask_keeps_its_colours_and_the_rest_fades(tmp_path: Path) -> None:
    path = tmp_path / "green.png"
    Image.new("RGB", (60, 40), (0, 200, 0)).save(path)
    sample = Sample(path, "the left", box_mask(0, 0, 30, 40), "data", "1", "train")
    pixels = np.asarray(draw_sample(sample, Image.open(path), 120))
    assert pixels.shape == (80, 120, 3)
    assert pixels[40, 20].tolist() == [0, 200, 0]
    assert pixels[40, 60].tolist() == list(EDGE)
    red, green, blue = pixels[40, 100].tolist()
    assert red == green == blue > 150


def test_the_smallest_mask_shows(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    Image.new("RGB", (3000, 2000), (100, 100, 100)).save(path)
    sample = Sample(path, "a dot", box_mask(1500, 1000, 1502, 1002, (2000, 3000)), "data", "1", "train")
    assert (np.asarray(draw_sample(sample, Image.open(path), 120)) == EDGE).all(axis=2).sum() > 10


def test_boxes_are_drawn(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    Image.new("RGB", (60, 40), (100, 100, 100)).save(path)
    boxed = Boxed(path, "x" * 500, np.array([[10, 10, 20, 10]], np.float32), "data", "1", "train")
    pixels = np.asarray(draw_sample(boxed, Image.open(path), 60))
    assert pixels[15, 10].tolist() == list(EDGE)
    assert pixels[15, 20].tolist() == [100, 100, 100]
    six, seven = (draw_samples([boxed] * count, [Image.open(path)] * count) for count in (6, 7))
    assert seven.width == six.width
    assert seven.height > 2 * 260


# ------------------------------------------------------------------------------------------------- formats


def test_formats_are_recognised(tmp_path: Path) -> None:
    put_picture(tmp_path / "p/train2014/COCO_train2014_000000000001.jpg")
    put_picture(tmp_path / "p/1.jpg")
    annotation = coco_annotation(11, 1, [outline(1, 1, 9, 9)], 3)
    refcoco = put_refcoco(tmp_path, [ref(1, 11, 1, ["a"])], [coco_image(1)], [annotation], name="refcoco+")
    lvis = put_json(
        tmp_path / "lvis/lvis_v1_val.json",
        {
            "info": {},
            "annotations": [annotation],
            "images": [lvis_image(1)],
            "categories": [lvis_category(3, "a")],
        },
    )
    mdetr = put_mdetr(
        tmp_path / "vg/final_mixed_train.json",
        [mdetr_image(0, "1.jpg", "a dog")],
        [mdetr_annotation(0, 0, [1, 1, 5, 5], [[0, 5]])],
    )
    region = {
        "ann_id": 1,
        "image": "1.jpg",
        "caption": "a",
        "mask_rle": {"size": [40, 60], "counts": [0, 2400]},
    }
    dam = put_json(tmp_path / "Mapillary/annotations.json", {"1": [region]})
    rows = [
        {"image_id": "COCO_train2014_000000000001", "mask": png(box_mask(0, 0, 9, 9)),
         "referential_expression": "a", "dataset": "refcoco"}
    ]  # fmt: skip
    parquet = put_parquet(tmp_path / "hub/data/train-00000-of-00001.parquet", rows)
    with FolderWriter(tmp_path / "ours/expressions.jsonl") as writer:
        writer.add("1.jpg", "a", box_mask(0, 0, 9, 9))
    for path, name in (
        (refcoco, "refcoco"),
        (refcoco / "refs(unc).p", "refcoco"),
        (lvis, "lvis"),
        (lvis.parent, "lvis"),
        (mdetr, "visual-genome"),
        (mdetr.parent, "visual-genome"),
        (dam, "mapillary"),
        (dam.parent, "mapillary"),
        (parquet, "hub"),
        (tmp_path / "hub", "hub"),
        (tmp_path / "ours", "folder"),
        (tmp_path / "ours/expressions.jsonl", "folder"),
    ):
        assert recognise(path) == name, path
        assert len(open_source(path, images=tmp_path / "p")) == 1, path
        assert len(open_source(path, name, images=tmp_path / "p")) == 1, path


def test_what_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text('{"a": 1, "b": {"c": 2}}')
    (tmp_path / "notes.txt").write_text("x")
    for path in (tmp_path, tmp_path / "notes.json", tmp_path / "notes.txt"):
        with pytest.raises(DataError, match="not a data set of a known format"):
            open_source(path)
    with pytest.raises(ArgumentError, match="must be auto or one of folder, refcoco, hub"):
        open_source(tmp_path, "coco")
