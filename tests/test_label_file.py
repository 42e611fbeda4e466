"""Masks and maps of labels of the benchmarks: as tools rewrite them, and on pictures that EXIF turns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from steersearch.benchmarks.harness.label_file import read_labels, voc_colours
from steersearch.benchmarks.paper.anomaly_data import read_mvtec, read_visa
from steersearch.core.errors import BenchmarkError
from tests.test_mask_file import DRAWN, SIZE, TRUE, WAYS

NUMBERS = np.zeros((40, 60), np.uint8)  # two classes and a void border
NUMBERS[5:20, 5:30], NUMBERS[25:35, 40:55], NUMBERS[5:20, 30:32] = 8, 15, 255


def with_palette(numbers: np.ndarray, colours: list[tuple[int, int, int]]) -> Image.Image:
    image = Image.fromarray(numbers)
    image.putpalette([value for colour in colours for value in colour])
    return image


def reordered() -> Image.Image:
    """What a tool makes of a palette that keeps its colours and not their numbers: the most frequent first."""
    used = [0, 8, 15, 255]
    return with_palette(np.searchsorted(used, NUMBERS).astype(np.uint8), [voc_colours()[n] for n in used])


VOC = with_palette(NUMBERS, voc_colours())


@pytest.mark.parametrize(
    "image", [VOC, Image.fromarray(NUMBERS), VOC.convert("RGB"), reordered(), VOC.convert("RGB").quantize(4)]
)
def test_classes_of_voc_are_known_by_number_or_colour(image: Image.Image, tmp_path: Path) -> None:
    image.save(tmp_path / "labels.png")
    assert np.array_equal(read_labels(tmp_path / "labels.png", 20, colours=voc_colours(), void=True), NUMBERS)


@pytest.mark.parametrize("image", [Image.fromarray(NUMBERS), Image.fromarray(NUMBERS).quantize(4)])
def test_numbers_survive_a_palette_of_greys(image: Image.Image, tmp_path: Path) -> None:
    image.save(tmp_path / "labels.png")
    assert np.array_equal(read_labels(tmp_path / "labels.png", 150, void=True), NUMBERS)


def test_what_is_no_number_of_a_class_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.png"
    for image, reason in (
        (VOC.convert("RGBA"), "RGBA, not numbers"),
        (Image.new("RGB", (9, 9), "pink"), "RGB, not numbers"),
        (Image.new("L", (9, 9), 21), "class 21, and there are 20"),
        (Image.fromarray(np.full((9, 9), 300, np.uint16)), "class 300"),
        (Image.fromarray(NUMBERS), "class 255"),
    ):
        image.save(path)
        with pytest.raises(BenchmarkError, match=f"labels.png: .*{reason}"):
            read_labels(path, 20, colours=voc_colours())
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(BenchmarkError, match=r"labels.png: cannot be read"):
        read_labels(path, 20)


def put(path: Path, image: Image.Image, orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, "PNG", exif=exif)


@pytest.mark.parametrize("way", WAYS)
def test_mvtec_and_visa_read_a_mask_however_it_is_written(way: str, tmp_path: Path) -> None:
    mvtec, visa = tmp_path / "mvtec", tmp_path / "visa"
    put(mvtec / "nut/test/good/0.png", Image.new("RGB", SIZE))
    put(mvtec / "nut/test/scratch/0.png", Image.new("RGB", SIZE))
    put(mvtec / "nut/ground_truth/scratch/0_mask.png", WAYS[way])
    put(visa / "0.png", Image.new("RGB", SIZE))
    put(visa / "mask.png", WAYS[way])
    (visa / "split_csv").mkdir()
    (visa / "split_csv/1cls.csv").write_text("object,split,label,image,mask\na,test,anomaly,0.png,mask.png\n")
    for items in (read_mvtec(mvtec).items, read_visa(visa).items):
        (mask,) = (item.mask for item in items if item.mask is not None)
        assert np.array_equal(mask(), TRUE)


def test_a_mask_is_turned_with_its_picture(tmp_path: Path) -> None:
    for orientation in range(1, 9):
        root = tmp_path / str(orientation)
        put(root / "nut/test/scratch/0.png", DRAWN.convert("RGB"), orientation)
        half = DRAWN.resize((SIZE[0] // 2, SIZE[1] // 2))  # of the same shape
        for mask in (DRAWN, half):
            put(root / "nut/ground_truth/scratch/0_mask.png", mask)
            (item,) = read_mvtec(root).items
            assert item.mask is not None
            picture = item.picture().convert("L").resize(item.mask().shape[::-1], Image.Resampling.BOX)
            agreement = (np.asarray(picture) > 127) == item.mask()
            assert agreement.mean() > 0.98, orientation
        put(root / "labels.png", Image.fromarray(TRUE.astype(np.uint8)))
        found = read_labels(root / "labels.png", 20, root / "nut/test/scratch/0.png")
        shown = ImageOps.exif_transpose(Image.open(root / "nut/test/scratch/0.png"))
        assert np.array_equal(found > 0, np.asarray(shown.convert("L")) > 127)
