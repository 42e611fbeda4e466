"""When a photo was taken: forms of dates as they are really found, where they stand, and which of several counts."""

from __future__ import annotations

import io
import struct
import time
import zlib
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin, TiffImagePlugin

from steersearch.core.images import reader
from steersearch.core.images.dates import CaptureDate, are_plausible, file_dates, parse_date
from steersearch.core.images.reader import read_date, read_picture

ORIGINAL, DIGITISED, CHANGED = 0x9003, 0x9004, 0x0132
DAY = "2019:05:17 12:00:00"
LATER = "2024:03:03 10:00:00"


def iso(text: object) -> str | None:
    date = parse_date(text)
    return None if date is None else date.iso


@pytest.mark.parametrize(
    ("written", "understood"),
    [
        ("2019:05:17 12:00:00", "2019-05-17T12:00:00"),
        ("2019-05-17T12:00:00", "2019-05-17T12:00:00"),
        ("2019-05-17 12:00:00", "2019-05-17T12:00:00"),
        ("2019/05/17 12.00.00", "2019-05-17T12:00:00"),
        ("2019/05-17", "2019-05-17"),
        ("2019-05-17 12-00-00", "2019-05-17T12:00:00"),
        ("2019:05:17:12:00:00", "2019-05-17T12:00:00"),
        ("2019 05 17", "2019-05-17"),
        ("20190517", "2019-05-17"),
        ("20190517T120000+0200", "2019-05-17T12:00:00"),
        ("20190517120000", "2019-05-17T12:00:00"),
        ("2019:5:17 9:05:00", "2019-05-17T09:05:00"),
        ("2019:05:17 12:00", "2019-05-17T12:00"),
        ("2019-05-17T12:00-05:00", "2019-05-17T12:00"),
        ("2019-05-17-07:00", "2019-05-17"),
        ("2019:05:17 12:00:00.123+02:00", "2019-05-17T12:00:00"),
        ("2019:05:17 12:00:00Z", "2019-05-17T12:00:00"),
        ("2019:05:17", "2019-05-17"),
        ("2019:05:17   :  :  ", "2019-05-17"),
        ("2019:05:17 24:00:00", "2019-05-17"),
        ("2019:05:17 12:61:00", "2019-05-17"),
        ("2019:05:17 23:59:60", "2019-05-17T23:59"),
        ("2019:05:17 9:05:00 PM", "2019-05-17"),
        ("2019:05:17 下午9:05:00", "2019-05-17"),
        ("2019:05:17 12:00:00\0rubbish", "2019-05-17T12:00:00"),
        (b"2019:05:17 12:00:00\0", "2019-05-17T12:00:00"),
        ("2019:05:17".encode("utf-16"), "2019-05-17"),
        ("2019:05:17".encode("utf-16-le").decode("latin-1"), "2019-05-17"),
        ("２０１９：０５：１７　１２：００：００", "2019-05-17T12:00:00"),
        ("２０１９年５月１７日".encode().decode("latin-1"), "2019-05-17"),
        ("2019年05月17日 12時00分00秒", "2019-05-17T12:00:00"),
        ("2019년 5월 17일", "2019-05-17"),
        ("٢٠١٩:٠٥:١٧ ١٢:٠٠:٠٠", "2019-05-17T12:00:00"),
        ("17.05.2019 12:00", "2019-05-17T12:00"),
        ("05/17/2019", "2019-05-17"),
        ("17:05:2019 12:00:00", "2019-05-17T12:00:00"),
        ("05/06/2019", "2019"),  # May or June
        ("Fri, 17 May 2019 12:00:00 GMT", "2019-05-17"),
        ("Fri May 17 12:00:00 2019", "2019-05-17"),
        ("May 17, 2019", "2019-05-17"),
        ("Dec 17th, 2019", "2019-12-17"),
        ("Tue Dec 17 12:00:00 CET 2019", "2019-12-17"),
        ("May 2019", "2019-05"),
        ("2019-05", "2019-05"),
        ("2019:05:00 00:00:00", "2019-05"),
        ("2019:05:  ", "2019-05"),
        ("2019:05 12:00:00", "2019-05"),
        ("2019:02:30 12:00:00", "2019-02"),
        ("2019", "2019"),
        ("2019:00:00 00:00:00", "2019"),
        ("2019:  :     :  :  ", "2019"),
        ("2019:13:01", "2019"),
        ("1850:06:01 00:00:00", "1850-06-01T00:00:00"),
        ("1970", "1970"),  # nobody's clock says no more than this
        ("1970:01:02 00:00:00", "1970-01-02T00:00:00"),
    ],
)
def test_a_date_is_understood_as_far_as_it_goes(written: str | bytes, understood: str) -> None:
    assert iso(written) == understood


@pytest.mark.parametrize(
    "written",
    [
        "0000:00:00 00:00:00", "0001:01:01 00:00:00", "1799:01:01 00:00:00", "2562:05:17 12:00:00", "9999",
        "1904:01:01 00:00:00", "1970:01:01 00:00:00", "1970:01:01 01:00:00", "1969:12:31 19:00:00",
        "1980:01:01 00:00:12", "1980:01:06", "1558094400", "    :  :     :  :  ", "yesterday", "", "\0\0\0\0", None,
        5, (),
        "mardi 17 décembre 2019", "martes 17 de diciembre de 2019", "Mar 17 dic 2019 10:00", "17. marraskuuta 2019",
    ],
)  # fmt: skip
def test_what_is_no_date_or_of_a_clock_that_was_never_set(written: object) -> None:
    """Nor one of another language, whose Tuesday begins like an English March."""
    assert parse_date(written) is None


def test_the_future_is_no_date_but_another_time_zone_is() -> None:
    now = datetime.now()
    assert parse_date(str(now + timedelta(days=2))) is None
    assert parse_date(str(now.year + 1)) is None
    assert parse_date(str(now + timedelta(hours=14))) is not None


@given(st.text(max_size=40) | st.binary(max_size=40) | st.text("0123456789: -/.T年月PM\0", max_size=40))
def test_any_text_is_a_plausible_date_or_none(written: str | bytes) -> None:
    date = parse_date(written)
    assert date is None or datetime(1826, 1, 1) <= date.moment <= datetime.now() + timedelta(days=1)


# ------------------------------------------------------------------------------------------ where dates stand


def block(
    camera: dict[int, str] | None = None, main: dict[int, str] | None = None, gps: str = ""
) -> Image.Exif:
    exif = Image.Exif()
    exif.update(main or {})
    if camera:
        exif[0x8769] = camera
    if gps:
        exif[0x8825] = {0x1D: gps}
    return exif


def dated(path: Path, **options: object) -> str:
    """The date of a small picture that is saved so, which is the same however it is asked for."""
    Image.new("RGB", (16, 8)).save(path, **options)  # type: ignore[arg-type]
    found = read_picture(path).taken_at
    assert read_date(path) == found
    return str(found)


@pytest.mark.parametrize(
    ("exif", "found"),
    [
        (block({ORIGINAL: DAY, DIGITISED: LATER}, {CHANGED: LATER}, "2020:01:01"), "EXIF DateTimeOriginal"),
        (block({DIGITISED: DAY}, {CHANGED: LATER}, "2020:01:01"), "EXIF DateTimeDigitized"),
        (block(main={ORIGINAL: DAY, CHANGED: LATER}), "EXIF DateTimeOriginal"),
        (block({ORIGINAL: "0000:00:00 00:00:00"}, {ORIGINAL: DAY, CHANGED: LATER}), "EXIF DateTimeOriginal"),
        (block({ORIGINAL: "1980:01:01 00:00:00"}, {CHANGED: DAY}), "EXIF DateTime"),
        (block(main={CHANGED: DAY}), "EXIF DateTime"),
    ],
)
def test_the_best_source_that_is_plausible_counts(exif: Image.Exif, found: str, tmp_path: Path) -> None:
    assert dated(tmp_path / "a.jpg", exif=exif) == f"2019-05-17T12:00:00 ({found})"


def test_a_vague_date_of_the_shot_comes_before_a_precise_one_of_a_change(tmp_path: Path) -> None:
    exif = block({ORIGINAL: "2019:05:00 00:00:00"}, {CHANGED: LATER})
    assert dated(tmp_path / "a.jpg", exif=exif) == "2019-05 (EXIF DateTimeOriginal)"
    exif = block(main={CHANGED: LATER}, gps="2019:05:17")
    assert dated(tmp_path / "b.jpg", exif=exif) == "2019-05-17 (GPS date)"
    exif = block({ORIGINAL: "2019-05-17T12:00:00"}, {CHANGED: LATER})
    assert dated(tmp_path / "c.jpg", exif=exif) == "2019-05-17T12:00:00 (EXIF DateTimeOriginal)"


def test_a_photo_that_says_nothing(tmp_path: Path) -> None:
    assert dated(tmp_path / "a.jpg") == "None"
    assert (
        dated(tmp_path / "b.jpg", exif=block({ORIGINAL: "    :  :     :  :  "}), xmp=b"<rdf:RDF/>") == "None"
    )


def xmp(*properties: str) -> bytes:
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>'
        f"<rdf:Description {' '.join(p for p in properties if '=' in p)}>"
        f"{''.join(p for p in properties if '=' not in p)}</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


@pytest.mark.parametrize(
    ("packet", "found"),
    [
        (xmp('exif:DateTimeOriginal="2019-05-17T12:00:00.00+02:00"', 'xmp:ModifyDate="2024-01-01"'),
         "2019-05-17T12:00:00 (XMP exif:DateTimeOriginal)"),
        (xmp("<photoshop:DateCreated>2019-05</photoshop:DateCreated>", "xmp:CreateDate='2024-01-01'"),
         "2019-05 (XMP photoshop:DateCreated)"),
        (xmp('xap:CreateDate = "2019-05-17"', "<xmp:ModifyDate>2024</xmp:ModifyDate>"),
         "2019-05-17 (XMP xmp:CreateDate)"),
        (xmp('<exif:DateTimeOriginal rdf:datatype="date">\n 2019-05-17\n</exif:DateTimeOriginal>'),
         "2019-05-17 (XMP exif:DateTimeOriginal)"),
        (xmp('xmp:ModifyDate="2019-05-17"'), "2019-05-17 (XMP xmp:ModifyDate)"),
        (xmp('xmp:CreateDate="2019-05-17"')[:-40], "2019-05-17 (XMP xmp:CreateDate)"),  # damaged
        (b"\xff\xfe" + xmp('xmp:CreateDate="2019-05-17"').decode().encode("utf-16-le"),
         "2019-05-17 (XMP xmp:CreateDate)"),
    ],
)  # fmt: skip
def test_xmp(packet: bytes, found: str, tmp_path: Path) -> None:
    assert dated(tmp_path / "a.jpg", xmp=packet) == found
    assert dated(tmp_path / "b.jpg", xmp=packet, exif=block({ORIGINAL: LATER})).startswith("2024-03-03")
    assert dated(tmp_path / "a.webp", xmp=packet) == found
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[700], tags.tagtype[700] = packet, 1
    assert dated(tmp_path / "a.tif", tiffinfo=tags) == found


def test_iptc(tmp_path: Path) -> None:
    def dataset(number: int, text: bytes) -> bytes:
        return b"\x1c\x02" + bytes([number]) + struct.pack(">H", len(text)) + text

    iptc = dataset(55, b"20190517") + dataset(60, b"120000+0200")
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
    segment = b"Photoshop 3.0\0" + resource
    Image.new("RGB", (16, 8)).save(tmp_path / "plain.jpg")
    plain = (tmp_path / "plain.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(
        plain[:2] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + plain[2:]
    )
    assert str(read_picture(tmp_path / "a.jpg").taken_at) == "2019-05-17T12:00:00 (IPTC DateCreated)"


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "a.avif", "a.heic"])
def test_exif_is_read_from_every_format_that_has_it(name: str, tmp_path: Path) -> None:
    if name.endswith("heic"):
        pytest.importorskip("pillow_heif")
        pytest.importorskip("pillow_heif").register_heif_opener()  # to write one
    options: dict[str, object] = {"exif": block({ORIGINAL: DAY}, {CHANGED: LATER}).tobytes()}
    if name == "a.tif":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[0x8769] = {ORIGINAL: DAY}
        options = {"tiffinfo": tags}
    assert dated(tmp_path / name, **options) == "2019-05-17T12:00:00 (EXIF DateTimeOriginal)"


def test_what_a_png_says(tmp_path: Path) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Creation Time", "Fri, 17 May 2019 12:00:00 GMT")
    texts.add_itxt("XML:com.adobe.xmp", xmp('xmp:CreateDate="2020-01-01"').decode())
    assert dated(tmp_path / "a.png", pnginfo=texts) == "2019-05-17 (PNG Creation Time)"
    texts = PngImagePlugin.PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", xmp('xmp:CreateDate="2020-01-01"').decode())
    assert dated(tmp_path / "b.png", pnginfo=texts) == "2020-01-01 (XMP xmp:CreateDate)"


@pytest.mark.parametrize("is_last", [True, False])
def test_when_a_png_was_changed(tmp_path: Path, is_last: bool) -> None:
    plain = io.BytesIO()
    Image.new("RGB", (16, 8)).save(plain, "PNG")
    data = b"tIME" + struct.pack(">H5B", 2019, 5, 17, 12, 0, 0)
    chunk = struct.pack(">I", 7) + data + struct.pack(">I", zlib.crc32(data))
    place = len(plain.getvalue()) - 12 if is_last else 33
    (tmp_path / "a.png").write_bytes(plain.getvalue()[:place] + chunk + plain.getvalue()[place:])
    assert str(read_picture(tmp_path / "a.png").taken_at) == "2019-05-17T12:00:00 (PNG tIME)"
    for cut in (40, 20, 9):
        (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk[:cut])
        with pytest.raises(reader.ImageError):
            read_date(tmp_path / "b.png")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data|Truncated File Read")
def test_a_damaged_block_says_nothing(tmp_path: Path) -> None:
    good = block({ORIGINAL: DAY}).tobytes()
    for length in range(8, len(good)):
        assert dated(tmp_path / "a.jpg", exif=good[:length]) in (
            "None",
            "2019-05-17T12:00:00 (EXIF DateTimeOriginal)",
        )


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/Los_Angeles"])
def test_a_clock_that_was_never_set_begins_in_local_time(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        begin = [datetime(1980, 1, 1), datetime(1980, 1, 1, 23, 59)]  # as ZIP and FAT have it
        new_year = datetime(1990, 1, 1)
        times = [0, *(round(moment.timestamp() * 1e9) for moment in (*begin, new_year))]
        assert file_dates(np.array(times)) == [None] * 3 + [CaptureDate(new_year, "second", "file time")]
    time.tzset()


def test_the_time_of_a_file() -> None:
    noon = round(datetime(2019, 5, 17, 12).timestamp() * 1e9)
    implausible = [0, 315532800 * 10**9, 15 * 10**18 // 2, 2**63 - 1, 1 - 2**63, -(10**19) // 2]
    first, *others = file_dates(np.array([noon, *implausible]))
    assert str(first) == "2019-05-17T12:00:00 (file time)"
    assert others == [None] * len(implausible)
    assert are_plausible(np.array([noon, *implausible])).tolist() == [True] + [False] * len(implausible)
