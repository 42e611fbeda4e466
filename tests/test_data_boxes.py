"""Masks from boxes: a small random SAM 2 through the real code, against transformers' own way, stopped and resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from steersearch.core.errors import CheckpointError, DataError, HubError
from steersearch.core.preprocess import open_image
from steersearch.training.data import masks as boxes_to_masks
from steersearch.training.data.folder import Folder, FolderWriter
from steersearch.training.data.masks import Made, make_masks
from steersearch.training.data.sam2 import Segmenter
from steersearch.training.data.samples import Boxes
from steersearch.training.data.sources import open_source
from tests.conftest import Run
from tests.published import box_mask, mdetr_annotation, mdetr_image, put_mdetr, put_picture
from tests.small_sam2 import SIDE, save_small_sam2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_sam2(tmp_path_factory.mktemp("sam2"))


@pytest.fixture(scope="module")
def segmenter(model: Path) -> Segmenter:
    return Segmenter(str(model), "cpu")


@pytest.fixture
def pictures(tmp_path: Path) -> list[Image.Image]:
    sizes = [(40, 60), (64, 64), (90, 33)]
    return [open_image(put_picture(tmp_path / f"{i}.png", size)) for i, size in enumerate(sizes)]


BOXES = [
    np.array([[5, 5, 40, 30], [1, 2, 59, 39.5], [20, 10, 25, 30]], np.float32),
    np.array([[0, 0, 30, 60]], np.float32),
    np.array([[3, 10, 30, 80], [0, 0, 33, 90]], np.float32),
]


def whole(parts: Iterator[torch.Tensor]) -> np.ndarray:
    return torch.cat(list(parts)).numpy()


def test_masks_are_those_of_transformers(
    segmenter: Segmenter, model: Path, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One picture at a time with all its boxes, through the published processor and the plain forward pass."""
    from transformers import Sam2ImageProcessor, Sam2Model, Sam2Processor

    theirs = Sam2Model.from_pretrained(model)
    processor = Sam2Processor(Sam2ImageProcessor(size={"height": SIDE, "width": SIDE}), target_size=SIDE)
    expected = []
    for picture, boxes in zip(pictures, BOXES, strict=True):
        inputs = processor(images=picture, input_boxes=[boxes.tolist()], return_tensors="pt")
        sizes = inputs.pop("original_sizes")
        with torch.no_grad():
            found = theirs(**inputs, multimask_output=False)
        expected.append(processor.post_process_masks(found.pred_masks, sizes)[0][:, 0].numpy())
    assert all(0.02 < mask.mean() < 0.98 for masks in expected for mask in masks)  # they have shapes
    assert len({mask.tobytes() for mask in expected[0]}) == 3
    for boxes_at_once, pixels_at_once in ((64, 10**8), (2, 2500)):
        monkeypatch.setattr("steersearch.training.data.sam2.BOXES_AT_ONCE", boxes_at_once)
        monkeypatch.setattr("steersearch.training.data.sam2.PIXELS_AT_ONCE", pixels_at_once)
        for mine, masks in zip(segmenter.masks(pictures, BOXES), expected, strict=True):
            got = whole(mine)
            assert got.shape == masks.shape
            assert (got != masks).mean() < 1e-3  # a batch adds up in another order


def test_a_published_file_of_the_video_model(tmp_path: Path, pictures: list[Image.Image]) -> None:
    video = Segmenter(str(save_small_sam2(tmp_path / "video", video=True)), "cpu")
    assert [len(whole(masks)) for masks in video.masks(pictures, BOXES)] == [3, 1, 2]


# ------------------------------------------------------------------------------------------------ a data set


@pytest.fixture
def boxed(tmp_path: Path) -> Path:
    """Seven pictures with one to three boxes each, one row of two boxes, and odd rows."""
    data = tmp_path / "boxed"
    for i in range(7):
        put_picture(data / f"photos/{i}.png", (40 + i, 60 - i))
    whole_file = put_picture(data / "photos/cut.jpg", (80, 80)).read_bytes()
    (data / "photos/cut.jpg").write_bytes(whole_file[: len(whole_file) // 2])
    with FolderWriter(data / "expressions.jsonl") as rows:
        for i in range(7):
            for k in range(1 + i % 3):
                box = np.array([[2 + 5 * k, 3, 30, 20 + k]], np.float32)
                rows.add(
                    f"photos/{i}.png", f"thing {k} of {i}", Boxes(box), split="val" if i == 6 else "train"
                )
        two = np.array([[1, 1, 20, 20], [30, 10, 20, 20]], np.float32)
        rows.add("photos/0.png", "both", Boxes(two))
        rows.add("photos/0.png", "it has a mask", box_mask(1, 1, 9, 9))
        rows.add("photos/1.png", "outside", Boxes(np.array([[500, 500, 20, 20]], np.float32)))
        rows.add("photos/cut.jpg", "a cut picture", Boxes(two))
    return data


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_folder_has_the_masks_of_all_boxes(boxed: Path, segmenter: Segmenter, tmp_path: Path) -> None:
    source = Folder(boxed)
    made = make_masks(source, tmp_path / "made", segmenter, batch_size=3)
    assert (made.pictures, made.masks, made.kept) == (7, 14, 0)
    assert sorted((skip.row, skip.reason.partition(" (")[0]) for skip in made.skips) == [
        ("", "truncated or damaged"),
        ("line 16", "its box lies outside of the picture"),
    ]
    samples = list(Folder(tmp_path / "made"))
    assert [s.expression for s in samples[:4]] == ["thing 0 of 0", "both", "thing 0 of 1", "thing 1 of 1"]
    assert {s.source for s in samples} == {"boxed"}
    assert [s.split for s in samples if s.split == "val"] == ["val"]
    assert samples[0].image.resolve() == boxed / "photos/0.png"
    picture = open_image(boxed / "photos/0.png")
    (parts,) = segmenter.masks(
        [picture], [np.array([[2, 3, 32, 23], [1, 1, 21, 21], [30, 10, 50, 30]], np.float32)]
    )
    one, left, right = whole(parts)
    assert (samples[0].mask != one).mean() < 1e-3
    assert (samples[1].mask != (left | right)).mean() < 1e-3


def test_a_run_that_is_stopped_goes_on(
    boxed: Path, segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boxes_to_masks, "PICTURES_PER_FILE", 2)
    source = Folder(boxed)
    make_masks(source, tmp_path / "whole", segmenter, batch_size=2)
    seen: list[int] = []
    masks = segmenter.masks

    def stop_at_the_third(*batch: object) -> object:
        seen.append(len(seen))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return masks(*batch)  # type: ignore[arg-type]

    monkeypatch.setattr(segmenter, "masks", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        make_masks(source, tmp_path / "made", segmenter, batch_size=2)
    assert sorted(folder_bytes(tmp_path / "made")) == [
        "expressions-00000.jsonl", "expressions-00001.jsonl", "source.json",
    ]  # fmt: skip
    (tmp_path / "made/.expressions-00002.jsonl.123").write_text("half a li")  # as a killed process leaves it
    steps: list[tuple[int, int]] = []
    made = make_masks(
        source, tmp_path / "made", segmenter, batch_size=2, progress=lambda *step: steps.append(step)
    )
    assert (made.pictures, made.kept) == (3, 4)
    assert len(seen) == 3 + 2
    assert steps == [(2, 8), (4, 8), (6, 8), (8, 8)]
    (tmp_path / "made/.expressions-00002.jsonl.123").unlink()
    assert folder_bytes(tmp_path / "made") == folder_bytes(tmp_path / "whole")
    again = make_masks(source, tmp_path / "made", segmenter)
    assert again == Made(kept=8)


def test_another_run_does_not_mix_with_it(boxed: Path, segmenter: Segmenter, tmp_path: Path) -> None:
    make_masks(Folder(boxed), tmp_path / "made", segmenter)
    with pytest.raises(
        DataError, match=r"started with other data or another model \(rows 17, here 1; pictures 8, here 1\)"
    ):
        make_masks(Folder(boxed, split="val"), tmp_path / "made", segmenter)
    lines = (boxed / "expressions.jsonl").read_text()
    (boxed / "expressions.jsonl").write_text(lines.replace('"expression": "', '"expression": "not '))
    with pytest.raises(
        DataError, match=r"other data or another model .the same number of rows, but other ones"
    ):
        make_masks(Folder(boxed), tmp_path / "made", segmenter)
    (boxed / "expressions.jsonl").write_text(lines)
    (tmp_path / "made/source.json").write_text('{"name": "boxed"}')
    with pytest.raises(DataError, match=r"it holds something else \(source\.json\)"):
        make_masks(Folder(boxed), tmp_path / "made", segmenter)
    with pytest.raises(DataError, match="nothing to do: boxed has no row with a box and no mask"):
        make_masks(Folder(tmp_path / "made", boxed), tmp_path / "again", segmenter)
    assert not (tmp_path / "again").exists()
    with pytest.raises(DataError, match="it is not empty; choose another folder"):
        make_masks(Folder(boxed), boxed, segmenter)


def test_visual_genome_from_boxes_to_samples(run: Run, model: Path, tmp_path: Path) -> None:
    put_picture(tmp_path / "VG_100K/1.jpg")
    put_picture(tmp_path / "VG_100K_2/2.jpg")
    images = [mdetr_image(0, "1.jpg", "a dog on a mat"), mdetr_image(1, "2.jpg", "the sky")]
    annotations = [
        mdetr_annotation(0, 0, [5, 5, 30, 20], [[2, 5]]),
        mdetr_annotation(1, 0, [1, 20, 58, 19], [[11, 14]]),
        mdetr_annotation(2, 1, [0, 0, 60, 20], [[0, 7]]),
    ]
    file = put_mdetr(tmp_path / "final_mixed_train.json", images, annotations)
    done = run("train", "masks", file, "-o", "masks", "--model", model, "--device", "cpu")
    assert (done.code, done.out) == (0, "masks: 3 masks of 2 pictures\n")
    assert f"model: {model}, on cpu; licence of its weights: unknown, see their source" in done.err
    again = run("train", "masks", file, "-o", "masks", "--model", model, "--device", "cpu")
    assert again.out == "masks: 0 masks of 0 pictures; 2 pictures were already done\n"
    assert json.loads((tmp_path / "masks/source.json").read_text())["images"] == ".."
    joined = list(open_source(file, masks=tmp_path / "masks"))
    alone = list(open_source(tmp_path / "masks"))
    assert [s.expression for s in joined] == ["a dog on a mat", "mat", "the sky"]
    for one, two in zip(joined, alone, strict=True):
        assert (one.mask == two.mask).all()
        assert (one.expression, one.source, one.split) == (two.expression, two.source, two.split)
    checked = run("train", "check", file, "--masks", "masks", "-o", "samples.png")
    assert checked.out.splitlines()[0] == "visual genome: 3 samples of 2 pictures"
    assert run("train", "check", "masks").code == 0


# ------------------------------------------------------------------------------------------------- the model


def test_no_hub_within_seconds(
    run: Run, boxed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = run("train", "masks", boxed, "-o", "made")
    assert done.code == 1
    assert (
        "error: facebook/sam2.1-hiera-large/model.safetensors: not downloaded yet and HF_HUB_OFFLINE is set"
        in done.err
    )
    assert "or name its folder: --model FOLDER" in done.err
    assert not (tmp_path / "made").exists()
    with pytest.raises(HubError):
        Segmenter()


def test_what_is_no_model(model: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder, and not an id of the model hub"):
        Segmenter("sam2", "cpu")
    with pytest.raises(CheckpointError, match=r"it lacks config\.json and model\.safetensors"):
        Segmenter(str(tmp_path), "cpu")
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.json", "model.safetensors"):
        (copy / name).write_bytes((model / name).read_bytes())
    (copy / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        Segmenter(str(copy), "cpu")
    from safetensors.torch import load_file, save_file

    state = load_file(model / "model.safetensors")
    del state["mask_decoder.iou_token.weight"]
    save_file(state, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"its weights lack mask_decoder\.iou_token\.weight"):
        Segmenter(str(copy), "cpu")
    (copy / "config.json").write_text('{"model_type": "roberta"}')
    with pytest.raises(CheckpointError, match='a model of the kind "roberta"'):
        Segmenter(str(copy), "cpu")
