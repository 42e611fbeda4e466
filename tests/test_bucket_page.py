"""The page and its REST interface on a library in a bucket, of photos in a bucket."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from steersearch import Library
from steersearch.core.objects import ObjectPath
from steersearch.web.app import create_app
from steersearch.web.shelf import Shelf, id_of
from tests.bucket import emulator

HERE = "http://127.0.0.1:8000"
pytestmark = pytest.mark.slow  # a model, and hundreds of requests


@pytest.fixture
def library(
    photos: Path, tiny_model: Path, word_encoder: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Library]:
    with emulator(monkeypatch) as server:
        bucket = server.create_bucket("photos-of-ours")
        for path in photos.iterdir():
            there = bucket / "photos" / path.name
            assert isinstance(there, ObjectPath)
            there.upload(path)
        made = Library.create(str(bucket / "photos"), str(tiny_model), place=bucket / "library")
        made.index(["the red thing"])
        server.only_read_from_now_on()
        yield made


def test_a_page_on_a_machine_that_may_only_read(library: Library) -> None:
    """Lists, shows, previews from the bucket, searches, and answers a focus that was not indexed."""
    with TestClient(create_app(Shelf([library.place])), HERE) as client:
        (row,) = client.get("/api/v1/libraries").json()
        assert row["folders"] == ["s3://photos-of-ours/photos"]
        assert row["is_there"] is True
        root = f"/api/v1/libraries/{id_of(library.place)}"
        ids = {one["path"]: one["image_id"] for one in client.get(f"{root}/photos").json()["photos"]}
        for kind, side in (("thumbnail", 96), ("preview?side=48", 48)):
            response = client.get(f"{root}/photos/{ids['red.jpg']}/{kind}")
            picture = Image.open(io.BytesIO(response.content))
            assert (picture.format, max(picture.size)) == ("JPEG", side)
        for focus in ("the red thing", "a blue thing"):
            given = {"image": ids["blue.jpg"], "focus": focus, "k": 3}
            found = client.get(f"{root}/search", params=given).json()
            wanted = library.query("s3://photos-of-ours/photos/blue.jpg", focus, 3)
            assert [hit["path"] for hit in found["hits"]] == [hit.path.name for hit in wanted]
