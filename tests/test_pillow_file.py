"""Pillow's decoders have one door, and it opens only to the formats that are listed."""

from __future__ import annotations

import ast
import io
import os
from pathlib import Path

import pytest
from PIL import EpsImagePlugin, Image

from steersearch.core.errors import ImageError, ImageRefusedError
from steersearch.core.images.limits import Limits
from steersearch.core.images.pillow import FORMATS, opened
from steersearch.core.images.reader import read_picture
from steersearch.training.data.orientation import read_header
from steersearch.training.world.backgrounds import _is_opaque
from tests.test_imports import ROOT, sources

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n0 0 8 8 rectfill\n"


def calls_of_image_open(path: Path) -> list[str]:
    """Calls of Pillow's `Image.open` in a file, under whatever name: "formats" for one that names them, else "any"."""
    tree = ast.parse(path.read_text("utf-8"))
    names = {"PIL.Image.open"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("PIL", "PIL.Image"):
            wanted = {"PIL": "Image", "PIL.Image": "open"}[node.module]
            found = [alias.asname or alias.name for alias in node.names if alias.name == wanted]
            names.update(f"{name}.open" if wanted == "Image" else name for name in found)
        elif isinstance(node, ast.Import):
            names.update(f"{alias.asname}.open" for alias in node.names if alias.name == "PIL.Image")
    calls = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) in names
    ]
    return ["formats" if any(word.arg == "formats" for word in call.keywords) else "any" for call in calls]


def test_pillow_is_asked_to_open_a_file_in_one_place_and_for_listed_formats_only() -> None:
    doors = {
        path.relative_to(ROOT).as_posix(): calls for path in sources() if (calls := calls_of_image_open(path))
    }
    assert doors == {"core/images/pillow.py": ["formats", "formats"]}
    assert {"EPS", "PPM", "PSD", "WMF"}.isdisjoint(FORMATS)


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "photo.tif", "photo.eps"])
def test_postscript_under_any_suffix_is_no_picture_and_never_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_args, **_options: pytest.fail("ran"))
    path = tmp_path / name
    path.write_bytes(POSTSCRIPT)
    for read in (read_picture, read_header):
        with pytest.raises(Exception, match="not an image, or not of a supported format"):
            read(path)
    with pytest.raises(ImageError, match="not an image"), opened(path) as image:
        image.load()
    assert not _is_opaque(path)


def test_only_the_formats_that_were_requested_are_tried(tmp_path: Path) -> None:
    Image.new("L", (8, 4), 7).save(tmp_path / "mask.png", "GIF")
    with opened(tmp_path / "mask.png") as image:
        assert (image.format, image.size) == ("GIF", (8, 4))
    with pytest.raises(ImageError, match="not an image"), opened(tmp_path / "mask.png", ["PNG"]):
        pass


def test_what_the_decoder_raises_in_the_block_is_an_image_error(tmp_path: Path) -> None:
    noise = Image.frombytes("L", (64, 64), os.urandom(64 * 64))
    noise.save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    with (
        pytest.raises(ImageError, match=r"half\.png: truncated or damaged"),
        opened(tmp_path / "half.png") as image,
    ):
        image.load()
    with pytest.raises(ImageError, match="no such file"), opened(tmp_path / "gone.png"):
        pass
    with pytest.raises(ImageError, match=r"^image: not an image"), opened(io.BytesIO(b"text")):
        pass


def test_what_takes_more_memory_than_a_photo_may_is_refused_undecoded(tmp_path: Path) -> None:
    Image.new("RGB", (1000, 1000)).save(tmp_path / "a.png")
    with (
        pytest.raises(
            ImageRefusedError, match=r"takes 4 MB of memory, more than 3 MB.* --limit memory=4\.8MB"
        ),
        opened(tmp_path / "a.png", limits=Limits(memory=3e6)),
    ):
        pass


def test_a_mask_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mask.png")
    with (
        pytest.raises(ImageError, match=r"mask\.png: a pipe, not a regular file"),
        opened(tmp_path / "mask.png"),
    ):
        pass
