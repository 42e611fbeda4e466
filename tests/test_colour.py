"""A picture is read as a colour-managed viewer shows it, whatever profile its numbers are for."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from steersearch.core.images import reader
from steersearch.core.images.colour import conversion, matrix_profile, to_rgb
from steersearch.core.images.reader import read_picture

D65 = (0.3127, 0.3290)
D50 = (0.3457, 0.3585)
P3 = matrix_profile((*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060))
ADOBE_RGB = matrix_profile((*D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06), 563 / 256)
PROPHOTO = matrix_profile((*D50, 0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001), 1.8)
LINEAR = matrix_profile((*D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06), 1.0)
SRGB = matrix_profile((*D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06))


def grey_profile(gamma: float) -> bytes:
    """For pictures without colour: one curve."""
    tags = {
        b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061),
        b"kTRC": b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0",
    }
    return with_head(tags, b"mntr", b"GRAY", b"XYZ ")


def press_profile() -> bytes:
    """For four inks, a table from the sixteen full mixtures to Lab: paper is cream, black is brown."""
    mixtures = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), axis=-1).reshape(16, 4)
    lab = np.array([0.95, 0.5, 0.55]) + mixtures @ np.array(
        [[-0.2, -0.1, -0.2], [-0.2, 0.25, 0.0], [-0.05, 0.0, 0.3], [-0.6, 0.02, 0.03]]
    )
    table = (lab.clip(0, 1) * 255).round().astype(np.uint8).tobytes()
    head = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(65536 * np.eye(3, dtype=int)).ravel())
    ramps = bytes(range(256))
    return with_head({b"A2B0": head + ramps * 4 + table + ramps * 3}, b"prtr", b"CMYK", b"Lab ")


def with_head(tags: dict[bytes, bytes], kind: bytes, space: bytes, connection: bytes) -> bytes:
    table, data, start = b"", b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    head = struct.pack(
        ">I4sI4s4s4s12s4s", start + len(data), b"", 0x02400000, kind, space, connection, b"", b"acsp"
    )
    head = head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def photo() -> Image.Image:
    """Soft colours of all kinds."""
    rng = np.random.default_rng(5)
    return Image.fromarray(rng.integers(30, 226, (6, 8, 3), dtype=np.uint8)).resize(
        (96, 72), Image.Resampling.BICUBIC
    )


def shown(image: Image.Image, profile: bytes) -> Image.Image:
    """As littleCMS shows it."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    found = ImageCms.profileToProfile(image, opened, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert found is not None
    return found


def in_profile(image: Image.Image, profile: bytes, mode: str = "RGB") -> Image.Image:
    """The numbers that show the same picture under a profile."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    found = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), opened, outputMode=mode)
    assert found is not None
    return found


def difference(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg", "avif"])
@pytest.mark.parametrize(
    "profile", [P3, ADOBE_RGB, PROPHOTO, LINEAR], ids=["P3", "Adobe", "ProPhoto", "linear"]
)
def test_a_photo_under_any_rgb_profile_is_its_twin_in_srgb(
    profile: bytes, suffix: str, tmp_path: Path
) -> None:
    numbers = in_profile(photo(), profile)
    assert difference(numbers, photo()) > 3
    options = {"jpg": {"quality": 98, "subsampling": 0}, "webp": {"lossless": True}, "avif": {"quality": 98}}
    numbers.save(tmp_path / f"a.{suffix}", icc_profile=profile, **options.get(suffix, {}))
    with Image.open(tmp_path / f"a.{suffix}") as stored:
        assert (
            difference(read_picture(tmp_path / f"a.{suffix}").image, shown(stored.convert("RGB"), profile))
            < 0.01
        )
    lossy = {"jpg": 3.0, "avif": 4.0}.get(suffix, 1.5)
    assert difference(read_picture(tmp_path / f"a.{suffix}").image, photo()) < lossy


def test_the_profile_made_of_primaries_is_the_published_one() -> None:
    found = ImageCms.ImageCmsProfile(io.BytesIO(P3)).profile
    expected = {
        "red": (0.51512, 0.24120, -0.00105),
        "green": (0.29198, 0.69225, 0.04189),
        "blue": (0.15710, 0.06657, 0.78407),
    }
    for name, xyz in expected.items():
        np.testing.assert_allclose(getattr(found, f"{name}_colorant")[0], xyz, atol=2e-4)
    assert difference(shown(photo(), SRGB), photo()) < 0.1


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_a_press_photo_looks_as_printed(suffix: str, tmp_path: Path) -> None:
    inks = photo().convert("CMYK")
    inks.save(tmp_path / f"a.{suffix}", icc_profile=press_profile())
    with Image.open(tmp_path / f"a.{suffix}") as stored:
        expected = shown(stored.copy(), press_profile())
    assert difference(read_picture(tmp_path / f"a.{suffix}").image, expected) < 0.01
    assert difference(expected, photo()) > 10


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_has_profiles_of_its_own(mode: str, tmp_path: Path) -> None:
    profile, ramp = grey_profile(1.0), Image.frombytes("L", (256, 1), bytes(range(256)))
    picture = ramp if mode == "L" else ramp.convert("LA")
    if mode == "I;16":
        picture = Image.fromarray((np.arange(256, dtype=np.uint16) * 257)[None])
    picture.save(tmp_path / "a.png", icc_profile=profile)
    assert difference(read_picture(tmp_path / "a.png").image, shown(ramp, profile)) < 0.6
    assert difference(shown(ramp, profile), ramp.convert("RGB")) > 20


def test_a_grey_photo_may_have_a_profile_for_colours(tmp_path: Path) -> None:
    ramp = Image.frombytes("L", (256, 1), bytes(range(256)))
    ramp.save(tmp_path / "a.png", icc_profile=PROPHOTO)
    assert difference(read_picture(tmp_path / "a.png").image, shown(ramp.convert("RGB"), PROPHOTO)) < 0.01


def test_lab_is_converted_with_and_without_profile(tmp_path: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    stored = in_profile(photo(), lab.tobytes(), "LAB")
    stored.save(tmp_path / "bare.tif", icc_profile=None)
    stored.save(tmp_path / "told.tif", icc_profile=lab.tobytes())
    for name in ("bare.tif", "told.tif"):
        assert difference(read_picture(tmp_path / name).image, photo()) < 2


def test_hidden_colours_stay_hidden_and_white_stays_white(tmp_path: Path) -> None:
    numbers = in_profile(photo(), PROPHOTO).convert("RGBA")
    numbers.putalpha(Image.linear_gradient("L").resize(numbers.size))
    numbers.save(tmp_path / "a.png", icc_profile=PROPHOTO)
    white = Image.new("RGB", numbers.size, "white")
    expected = Image.composite(photo(), white, numbers.getchannel("A"))
    assert difference(read_picture(tmp_path / "a.png").image, expected) < 1


def test_a_palette_is_converted(tmp_path: Path) -> None:
    few = in_profile(photo(), PROPHOTO).quantize(64)
    few.save(tmp_path / "a.png", icc_profile=PROPHOTO)
    assert difference(read_picture(tmp_path / "a.png").image, shown(few.convert("RGB"), PROPHOTO)) < 0.01


def test_srgb_under_another_name_costs_nothing() -> None:
    assert conversion(SRGB, False, "RGB").transform is None
    assert conversion(grey_profile(2.2), True, "L").transform is not None
    image = photo()
    assert to_rgb(image, SRGB) is image


@pytest.mark.parametrize(
    ("profile", "remark"),
    [
        (b"no profile at all", "its colour profile cannot be read"),
        (P3[:200], "its colour profile cannot be read"),
        (press_profile(), "its colour profile is for CMYK, the picture is RGB"),
        (grey_profile(1.8), "its colour profile is for GRAY, the picture is RGB"),
    ],
    ids=["text", "cut off", "press", "grey"],
)
def test_a_profile_that_cannot_be_used_is_said_once(
    profile: bytes,
    remark: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader, "_warned", set())
    for name in ("a.png", "b.png"):
        photo().save(tmp_path / name, icc_profile=profile)
        picture = read_picture(tmp_path / name)
        assert difference(picture.image, photo()) == 0
        assert picture.remark is not None
        assert picture.remark.startswith(remark)
        assert picture.remark.endswith("its colours are taken for sRGB")
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == [remark] or len(
        caplog.records
    ) == 1


def png_with(chunks: bytes, image: Image.Image, path: Path) -> Path:
    content = io.BytesIO()
    image.save(content, "PNG")
    path.write_bytes(content.getvalue()[:33] + chunks + content.getvalue()[33:])
    return path


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_a_png_may_say_gamma_and_primaries_instead(tmp_path: Path) -> None:
    wide = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
    gamma = chunk(b"gAMA", struct.pack(">I", 45455))
    numbers = in_profile(photo(), P3)
    told = png_with(gamma + chunk(b"cHRM", wide), numbers, tmp_path / "wide.png")
    assert difference(read_picture(told).image, photo()) < 1.5
    linear = png_with(
        chunk(b"gAMA", struct.pack(">I", 100000)), in_profile(photo(), LINEAR), tmp_path / "linear.png"
    )
    assert difference(read_picture(linear).image, photo()) < 1.5
    plain = png_with(gamma, photo(), tmp_path / "plain.png")
    assert difference(read_picture(plain).image, photo()) == 0
    srgb = png_with(
        chunk(b"sRGB", b"\0") + chunk(b"gAMA", struct.pack(">I", 100000)), photo(), tmp_path / "srgb.png"
    )
    assert difference(read_picture(srgb).image, photo()) == 0


def test_a_png_may_say_its_colours_by_number(tmp_path: Path) -> None:
    """The chunk cICP, which comes before an embedded profile."""
    told = png_with(chunk(b"cICP", bytes([12, 13, 0, 1])), in_profile(photo(), P3), tmp_path / "wide.png")
    assert difference(read_picture(told).image, photo()) < 1.5
    rec2020 = matrix_profile((*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046))
    both = io.BytesIO()
    in_profile(photo(), rec2020).save(both, "PNG", icc_profile=P3)
    with_both = both.getvalue()[:33] + chunk(b"cICP", bytes([9, 1, 0, 1])) + both.getvalue()[33:]
    (tmp_path / "both.png").write_bytes(with_both)
    assert difference(read_picture(tmp_path / "both.png").image, photo()) < 2
    srgb = png_with(chunk(b"cICP", bytes([1, 13, 0, 1])), photo(), tmp_path / "srgb.png")
    assert difference(read_picture(srgb).image, photo()) == 0


@pytest.mark.parametrize(("transfer", "white"), [(16, 0.5806), (18, 0.75)], ids=["PQ", "HLG"])
def test_hdr_is_shown_up_to_the_white_of_other_pictures(transfer: int, white: float, tmp_path: Path) -> None:
    values = np.array([0, 0.3, 0.45, white, 1.0])
    stored = Image.fromarray(np.repeat((values * 255).round().astype(np.uint8)[None, :, None], 3, axis=2))
    path = png_with(chunk(b"cICP", bytes([9, transfer, 0, 1])), stored, tmp_path / "hdr.png")
    found = np.asarray(read_picture(path).image, int)[0, :, 1]
    assert found[0] == 0
    assert (np.diff(found[:4]) > 20).all()
    assert found[3:].tolist() == pytest.approx([255, 255], abs=3)


@pytest.mark.parametrize(("transfer", "gamma"), [(4, 2.2), (5, 2.8), (8, 1.0), (17, 2.6)])
def test_curves_by_number(transfer: int, gamma: float, tmp_path: Path) -> None:
    curved = in_profile(photo(), matrix_profile((*D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06), gamma))
    path = png_with(chunk(b"cICP", bytes([1, transfer, 0, 1])), curved, tmp_path / "curved.png")
    assert difference(read_picture(path).image, photo()) < 1.5


def test_an_avif_may_say_its_colours_by_number(tmp_path: Path) -> None:
    written = io.BytesIO()
    in_profile(photo(), P3).save(written, "AVIF", quality=100, subsampling="4:4:4", icc_profile=None)
    codes = b"colrnclx" + struct.pack(">2H", 1, 13)  # what Pillow writes, which is sRGB
    assert written.getvalue().count(codes) == 1
    path = tmp_path / "wide.avif"
    path.write_bytes(written.getvalue().replace(codes, b"colrnclx" + struct.pack(">2H", 12, 13)))
    assert difference(read_picture(path).image, photo()) < 2
    path.write_bytes(written.getvalue())
    assert difference(read_picture(path).image, in_profile(photo(), P3)) < 2


def test_a_jpeg_2000_may_have_a_profile(tmp_path: Path) -> None:
    """In its box colr, in place of the number of a colour space, of 15 bytes."""
    written = io.BytesIO()
    in_profile(photo(), ADOBE_RGB).save(written, "JPEG2000")
    head, content = written.getvalue().split(b"jp2h", 1)
    size = int.from_bytes(head[-4:])
    start = content.index(b"colr") - 4
    box = struct.pack(">I4s3B", 11 + len(ADOBE_RGB), b"colr", 2, 0, 0) + ADOBE_RGB
    content = content[:start] + box + content[start + 15 :]
    (tmp_path / "a.jp2").write_bytes(head[:-4] + struct.pack(">I", size + len(box) - 15) + b"jp2h" + content)
    assert difference(read_picture(tmp_path / "a.jp2").image, photo()) < 1.5


@pytest.mark.parametrize("said", [{0xA005: {1: "R03"}}, {0xA001: 2}])
def test_a_camera_may_say_adobe_rgb_in_exif_alone(said: dict[int, object], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x8769] = said
    in_profile(photo(), ADOBE_RGB).save(tmp_path / "a.jpg", quality=98, subsampling=0, exif=exif)
    assert difference(read_picture(tmp_path / "a.jpg").image, photo()) < 3


def test_pictures_in_memory_are_converted_alike() -> None:
    numbers = in_profile(photo(), PROPHOTO)
    numbers.info["icc_profile"] = PROPHOTO
    assert difference(to_rgb(numbers), photo()) < 1
