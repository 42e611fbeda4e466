"""Every format as a viewer shows it, at the scale that is needed; what is refused says why."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from steersearch.core.errors import ImageError, ImageRefusedError
from steersearch.core.images import raw, reader
from steersearch.core.images.limits import Limits
from steersearch.core.images.reader import SUFFIXES, read_date, read_picture
from steersearch.core.preprocess import open_image
from tests.small_dng import write_dng

TEAL = (20, 140, 150)


def exif(orientation: int = 1) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def mean_colour(image: Image.Image) -> list[float]:
    colour: list[float] = np.asarray(image).mean(axis=(0, 1)).tolist()
    return colour


# ------------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize(
    "name",
    ["a.jpg", "a.jfif", "a.png", "a.webp", "a.gif", "a.tif", "a.bmp", "a.avif", "a.jp2", "a.j2k", "a.heic"],
)
def test_every_format_gives_its_picture_and_its_size(name: str, tmp_path: Path) -> None:
    if name.endswith("heic"):
        pytest.importorskip("pillow_heif").register_heif_opener()  # to write one
    kind = {".jfif": "JPEG", ".j2k": "JPEG2000", ".heic": "HEIF"}.get(Path(name).suffix)
    Image.new("RGB", (64, 48), TEAL).save(tmp_path / name, kind)
    picture = read_picture(tmp_path / name)
    assert (picture.image.mode, picture.size, picture.image.size) == ("RGB", (64, 48), (64, 48))
    assert mean_colour(picture.image) == pytest.approx(TEAL, abs=6)
    assert picture.taken_at is None


def test_of_several_pages_or_frames_the_first_is_taken(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (8, 8), colour) for colour in ("lime", "blue", "red")]
    for name in (
        "scan.tiff",
        "moving.gif",
        "moving.webp",
        "moving.png",
        "moving.apng",
        "moving.avif",
        "two.mpo",
    ):
        assert name.endswith(SUFFIXES)
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:], lossless=True)
        assert mean_colour(open_image(tmp_path / name)) == pytest.approx([0, 255, 0], abs=6), name


def test_the_content_decides_the_format(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), TEAL).save(tmp_path / "a.jpg", "PNG")
    assert mean_colour(open_image(tmp_path / "a.jpg")) == list(TEAL)


@pytest.mark.usefixtures("without_extras")
@pytest.mark.parametrize("name", ["a.heic", "a.NEF", "a.dng"])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_plain_picture_called_heic_or_raw_needs_neither(name: str, format: str, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), TEAL).save(tmp_path / name, format)
    assert mean_colour(open_image(tmp_path / name)) == pytest.approx(list(TEAL), abs=6)


def test_a_print_in_four_colours(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "cyan.jpg", quality=95)
    Image.new("CMYK", (8, 8), (0, 0, 0, 255)).save(tmp_path / "black.tif")
    assert mean_colour(open_image(tmp_path / "cyan.jpg")) == pytest.approx([0, 255, 255], abs=6)
    assert mean_colour(open_image(tmp_path / "black.tif")) == [0, 0, 0]


def test_sixteen_bits_a_channel_and_palettes_with_several_see_through_colours(tmp_path: Path) -> None:
    write_png16(tmp_path / "deep.png", (65535, 32768, 0))
    assert mean_colour(open_image(tmp_path / "deep.png")) == pytest.approx([255, 128, 0], abs=1)
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putdata([0, 1])
    palette.save(tmp_path / "half.png", transparency=bytes([128, 0]))
    assert np.asarray(open_image(tmp_path / "half.png"))[0].tolist() == [[255, 127, 127], [255, 255, 255]]


def write_png16(path: Path, colour: tuple[int, int, int]) -> None:
    """Pillow writes no PNG of 16 bits a channel in colour."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + struct.pack(">3H", *colour) * 4) * 4
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


# ---------------------------------------------------------------------------------------------------- turns


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "a.avif"])
def test_every_format_is_turned_upright_with_its_size(name: str, tmp_path: Path) -> None:
    stored = Image.new("RGB", (32, 16), TEAL)
    stored.paste((255, 255, 255), (0, 0, 16, 16))  # the left half, which is on top once it is turned
    stored.save(tmp_path / name, exif=exif(orientation=6), quality=95)
    picture = read_picture(tmp_path / name)
    assert picture.size == picture.image.size == (16, 32)
    assert mean_colour(picture.image.crop((0, 0, 16, 12))) == pytest.approx([255, 255, 255], abs=6)
    assert mean_colour(picture.image.crop((0, 20, 16, 32))) == pytest.approx(TEAL, abs=6)


# ---------------------------------------------------------------------------------------------------- scale


def soft(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(3)
    return Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((width, height))


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_far_too_large_is_decoded_at_a_reduced_scale(orientation: int, tmp_path: Path) -> None:
    soft(1600, 1200).save(tmp_path / "a.jpg", quality=95, exif=exif(orientation=orientation))
    whole = read_picture(tmp_path / "a.jpg")
    for at_least, side in (
        (1200, 1200),
        (601, 1200),
        (600, 600),
        (300, 300),
        (299, 300),
        (150, 150),
        (20, 150),
    ):
        picture = read_picture(tmp_path / "a.jpg", at_least=at_least)
        assert picture.size == whole.size == ((1600, 1200) if orientation == 1 else (1200, 1600))
        assert min(picture.image.size) == side
        expected = whole.image.resize(picture.image.size, Image.Resampling.BOX)
        assert np.abs(np.asarray(picture.image).astype(int) - np.asarray(expected)).mean() < 1.5


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_other_formats_are_reduced_where_they_are_large(name: str, tmp_path: Path) -> None:
    soft(800, 600).save(tmp_path / name)
    assert read_picture(tmp_path / name, at_least=10).image.size == (800, 600)
    soft(2305, 1801).save(tmp_path / name)
    whole = read_picture(tmp_path / name).image
    for at_least, shrink in ((None, 1), (451, 1), (450, 2), (225, 4)):  # twice as much is left as is needed
        picture = read_picture(tmp_path / name, at_least=at_least)
        assert picture.size == whole.size
        assert picture.box == (0, 0, 2305 / shrink, 1801 / shrink)
        expected = whole.reduce(shrink)
        assert picture.image.size == expected.size
        assert np.abs(np.asarray(picture.image, int) - np.asarray(expected)).max() <= 1


# --------------------------------------------------------------------------------------------------- limits


def test_a_picture_that_says_it_is_huge_is_refused_at_once(tmp_path: Path) -> None:
    small = io.BytesIO()
    Image.new("L", (8, 8)).save(small, "GIF")
    huge = small.getvalue()[:6] + b"\xff\xff\xff\xff" + small.getvalue()[10:]
    (tmp_path / "a.gif").write_bytes(huge)
    with pytest.raises(ImageRefusedError, match=r"too large: decoding takes .* GB of memory, more than 1 GB"):
        read_picture(tmp_path / "a.gif")


def test_a_strip_longer_than_can_be_resized_is_refused(tmp_path: Path) -> None:
    Image.new("L", (1, 200_001)).save(tmp_path / "a.png")
    with pytest.raises(ImageRefusedError, match=r"a side of 200,001 pixels, more than 200,000"):
        read_picture(tmp_path / "a.png")


def test_a_file_larger_than_a_photo_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "a.jpg").open("wb") as sparse:
        sparse.truncate(10**12)
    with pytest.raises(ImageRefusedError, match=r"too large: 1 TB, more than 2 GB; --limit file=1\.2TB"):
        read_picture(tmp_path / "a.jpg")


def test_memory_is_requested_before_the_picture_is_decoded(tmp_path: Path) -> None:
    soft(1000, 800).save(tmp_path / "a.png")  # four bytes a pixel, for it and for a copy
    assert read_picture(tmp_path / "a.png", limits=Limits(memory=6.4e6)).size == (1000, 800)
    with pytest.raises(
        ImageRefusedError, match=r"6\.4 MB of memory, more than 6 MB.* --limit memory=7\.68MB"
    ):
        read_picture(tmp_path / "a.png", limits=Limits(memory=6e6))


@pytest.mark.parametrize(
    ("kind", "options", "megabytes"),
    [("JPEG", {}, 3.2), ("MPO", {}, 3.2), ("JPEG", {"progressive": True}, 8.0)],
)
def test_a_jpeg_in_several_scans_is_kept_whole_by_its_decoder(
    kind: str, options: dict[str, Any], megabytes: float, tmp_path: Path
) -> None:
    """Six bytes a pixel, at whatever scale it is decoded, beside the four of the picture."""
    soft(1000, 800).save(tmp_path / "a.jpg", kind, **options)
    assert read_picture(tmp_path / "a.jpg", limits=Limits(memory=megabytes * 1e6)).size == (1000, 800)
    with pytest.raises(ImageRefusedError, match=f"{megabytes:g} MB of memory"):
        read_picture(tmp_path / "a.jpg", limits=Limits(memory=megabytes * 1e6 - 1e5))


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    def refuse(*_args: object) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(ImageError, match=r"Permission denied$"):
        read_picture(tmp_path / "a.png")


# -------------------------------------------------------------------------------------------- optional kinds


@pytest.fixture
def without_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    """pillow-heif and rawpy as if they were not installed."""
    for module in (reader, raw):
        monkeypatch.setattr(module, "find_spec", lambda _: None)


@pytest.mark.parametrize("head", [b"\xff\x0a\xfa\x7f", b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl "])
def test_jpeg_xl_is_refused_by_its_name(head: bytes, tmp_path: Path) -> None:
    assert ".jxl" in reader.SUFFIXES  # so that `index` lists it
    for name in ("a.jxl", "a.jpg"):
        (tmp_path / name).write_bytes(head + bytes(100))
        with pytest.raises(ImageRefusedError, match="JPEG XL cannot be read yet"):
            read_picture(tmp_path / name)


@pytest.mark.usefixtures("without_extras")
@pytest.mark.parametrize(
    ("name", "extra"),
    [("a.heic", "heic"), ("a.HIF", "heic"), ("a.jpg", "heic"), ("a.NEF", "raw"), ("a.dng", "raw")],
)
def test_a_kind_whose_decoder_is_missing_names_the_extra(name: str, extra: str, tmp_path: Path) -> None:
    content = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" if extra == "heic" else b"II*\0"
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageRefusedError, match=rf'install it with: pip install "steersearch\[{extra}\]"'):
        read_picture(tmp_path / name)


def test_a_raw_photo_is_its_preview_where_that_is_large_enough(tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    preview = Image.new("RGB", (640, 480), (250, 10, 10))
    path = write_dng(tmp_path / "a.dng", (30, 90, 200), (1024, 768), preview=preview)
    shown = read_picture(path, at_least=256)
    assert (shown.image.size, shown.size) == ((640, 480), (1024, 768))
    assert mean_colour(shown.image) == pytest.approx([250, 10, 10], abs=4)
    developed = read_picture(path, at_least=600)
    assert developed.image.size == developed.size == (1024, 768)
    assert np.argmax(mean_colour(developed.image)) == 2


def test_a_raw_photo_without_preview_is_developed_upright(tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    path = write_dng(tmp_path / "a.dng", (200, 60, 20), orientation=6, taken_at="2021:03:04 05:06:07")
    picture = read_picture(path)
    assert picture.image.size == picture.size == (64, 96)
    red, green, blue = mean_colour(picture.image)
    assert red > green > blue
    assert str(picture.taken_at) == "2021-03-04T05:06:07 (RAW timestamp)"
    assert read_date(path) == picture.taken_at


def test_the_preview_of_a_raw_photo_is_turned_as_the_photo(tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    preview = Image.new("RGB", (640, 480), "red")
    preview.paste((0, 0, 255), (0, 0, 320, 480))  # the left half, which is on top once it is turned
    path = write_dng(tmp_path / "a.dng", (30, 90, 200), (1024, 768), preview=preview, orientation=6)
    picture = read_picture(path, at_least=256)
    assert (picture.image.size, picture.size) == ((480, 640), (768, 1024))
    pixels = np.asarray(picture.image)
    assert pixels[100, 240, 2] > 200
    assert pixels[500, 240, 0] > 200


def test_a_damaged_raw_photo_says_so(tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    whole = write_dng(tmp_path / "a.dng", (30, 90, 200)).read_bytes()
    for name, content in {
        "text.nef": b"dear photographer",
        "half.dng": whole[:4000],
        "none.cr2": b"II*\0",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match="truncated or damaged"):
            read_picture(tmp_path / name)


def test_suffixes_of_raw_photos_are_no_other_kinds() -> None:
    assert set(raw.SUFFIXES).isdisjoint({*reader.PILLOW_SUFFIXES, *reader.HEIC_SUFFIXES})
