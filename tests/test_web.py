"""The REST interface over a library of six pictures and a small random model."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from steersearch.api import Library
from steersearch.core.heatmaps import shared_vmax
from steersearch.indexer.schema import photos_schema
from steersearch.web import engine as engine_module
from steersearch.web import jobs as jobs_module
from steersearch.web import routes, uploads
from steersearch.web.app import create_app
from steersearch.web.engine import Engine
from steersearch.web.gallery_map import gallery_map
from steersearch.web.guard import Access
from steersearch.web.jobs import Jobs
from steersearch.web.likeness import LESS
from steersearch.web.photos import PhotoList
from steersearch.web.problem import BusyError
from steersearch.web.run import listen
from steersearch.web.shelf import Shelf, id_of
from tests.conftest import draw_picture, wait_until

HERE = "http://127.0.0.1:8000"


@pytest.fixture
def library(photos: Path, tmp_path: Path, tiny_model: Path, word_encoder: None) -> Library:
    made = Library.create(photos, str(tiny_model), place=tmp_path / "library")
    made.index(["the red thing"])
    return made


@pytest.fixture
def client(library: Library) -> Iterator[TestClient]:
    app = create_app(Shelf([library.place]))
    with TestClient(app, HERE, raise_server_exceptions=False) as made:
        yield made


@pytest.fixture
def root(library: Library) -> str:
    return f"/api/v1/libraries/{id_of(library.place.resolve())}"


@pytest.fixture
def ids(client: TestClient, root: str) -> dict[str, str]:
    """image_id of each picture, by its colour."""
    rows = client.get(f"{root}/photos").json()["photos"]
    return {Path(row["path"]).stem: row["image_id"] for row in rows}


def events(response: httpx.Response) -> list[dict[str, Any]]:
    return [
        json.loads(line.removeprefix("data: "))
        for line in response.text.splitlines()
        if line.startswith("data: ")
    ]


def is_problem(response: httpx.Response, status: int, said: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status
    assert said in response.json()["detail"]


def table_of_photos(*rows: tuple[str, tuple[str, str] | None, int]) -> pa.Table:
    """Of paths, each with its date and precision, or none, and the time of its file in seconds."""
    records = [
        {
            "path": path,
            "image_id": f"{number:032x}",
            "size": 1,
            "mtime_ns": seconds * 10**9,
            "width": 4,
            "height": 3,
            "taken_at": None if date is None else datetime.fromisoformat(date[0]),
            "taken_at_precision": None if date is None else date[1],
            "taken_at_source": None if date is None else "EXIF DateTimeOriginal",
        }
        for number, (path, date, seconds) in enumerate(rows, start=1)
    ]
    return pa.Table.from_pylist(records, schema=photos_schema())


# ---------------------------------------------------------------------------------------------------- what there is


def test_the_newest_photo_comes_first_then_the_more_precise_date_then_the_path() -> None:
    noon = round(datetime(2020, 5, 1, 12).timestamp())
    listed = PhotoList(
        "now",
        table_of_photos(
            ("no-date.jpg", None, 0),
            ("b.jpg", ("2020-05-01", "second"), noon),
            ("a.jpg", ("2020-05-01", "second"), noon),
            ("of-the-month.jpg", ("2020-05-01", "month"), noon),
            ("of-its-file.jpg", None, noon),
            ("older.jpg", ("2019-12-31", "day"), noon),
        ),
    )
    paths = "of-its-file.jpg a.jpg b.jpg of-the-month.jpg older.jpg no-date.jpg".split()
    assert [photo.path for photo in listed] == paths
    dates = [None if photo.date is None else photo.date.iso for photo in listed[1:4]]
    assert dates == ["2020-05-01T00:00:00", "2020-05-01T00:00:00", "2020-05"]
    assert [photo.number for photo in listed[2:4]] == [2, 3]
    assert listed.of([listed[5].id, listed[0].id]) == [listed[5], listed[0]]
    assert listed[4:2] == listed.of([]) == []


def test_a_list_of_dated_photos_or_of_none() -> None:
    dated = [(f"{day}.jpg", (f"2020-05-0{day}", "second"), 0) for day in (1, 2)]
    assert [photo.path for photo in PhotoList("now", table_of_photos(*dated))] == ["2.jpg", "1.jpg"]
    assert len(PhotoList("now", table_of_photos())) == 0


def test_a_library_that_was_removed_is_named(client: TestClient, root: str, library: Library) -> None:
    assert client.get(f"{root}/photos").json()["total"] == 6
    shutil.rmtree(library.place)
    (row,) = client.get("/api/v1/libraries").json()
    assert (row["is_there"], "no library here" in row["problem"]) == (False, True)
    for path in (root, f"{root}/photos", f"{root}/map", f"{root}/search?focus=the+red+thing"):
        is_problem(client.get(path), 404, "no library here")


def test_a_browser_without_the_token_is_told_in_words(library: Library) -> None:
    app = create_app(Shelf([library.place]), Access.of("0.0.0.0", "photos.local"))
    with TestClient(app, "http://photos.local:8000") as browser:
        answer = browser.get("/", headers={"Accept": "text/html,*/*"})
    assert (answer.status_code, answer.headers["content-type"]) == (401, "text/html; charset=utf-8")
    assert "<h1>A token is needed</h1>" in answer.text
    assert "the address that `steersearch serve` printed" in answer.text


def test_photos_and_map_do_not_read_the_regions(client: TestClient, root: str, library: Library) -> None:
    (vectors,) = (library.place / "snapshots").rglob("*.vectors.npy")
    damaged = bytearray(vectors.read_bytes())
    damaged[200] ^= 1
    vectors.write_bytes(damaged)
    assert client.get(f"{root}/photos").json()["total"] == 6
    assert client.get(f"{root}/map").json()["count"] == 6
    assert vectors.read_bytes() == damaged  # what reads it makes it anew


def test_libraries_photos_and_prompts_are_listed(client: TestClient, root: str, library: Library) -> None:
    (row,) = client.get("/api/v1/libraries").json()
    assert (row["folders"], row["name"]) == ([str(library.folder)], "photos")
    assert row["is_there"] is True
    whole = client.get(root).json()
    assert (whole["photos"], whole["skipped"], whole["has_unsteered"]) == (6, 0, True)
    assert [(one["prompt"], one["photos"], one["missing"]) for one in whole["prompts"]] == [
        ("the red thing", 6, 0)
    ]
    at_once = client.get(root, params={"counts": "false"}).json()
    uncounted = {"photos": None, "skipped": None, "bytes_on_disk": None}
    assert at_once == whole | uncounted | {
        "prompts": [whole["prompts"][0] | {"photos": None, "missing": None}]
    }
    page = client.get(f"{root}/photos", params={"offset": 4, "limit": 10}).json()
    assert page["total"] == 6
    assert len(page["photos"]) == 2


def test_all_folders_of_a_library_are_named(client: TestClient, library: Library, tmp_path: Path) -> None:
    (tmp_path / "camera").mkdir()
    draw_picture(tmp_path / "camera" / "one.jpg", "red", seed=9)
    Library.create([library.folder, tmp_path / "camera"], library.model, library.place).index()
    (row,) = client.get("/api/v1/libraries").json()
    assert row["folders"] == [str(library.folder), str(tmp_path / "camera")]
    assert row["name"] == "photos, camera"


def test_a_new_photo_appears_without_a_restart(
    client: TestClient, root: str, library: Library, photos: Path
) -> None:
    assert client.get(f"{root}/photos").json()["total"] == 6
    draw_picture(photos / "more.jpg", "red", seed=9)
    library.index()
    assert client.get(f"{root}/photos").json()["total"] == 7


def test_thumbnail_and_preview_are_jpegs_of_the_photo(
    client: TestClient, root: str, ids: dict[str, str]
) -> None:
    for kind, side in (("thumbnail", 96), ("preview?side=48", 48)):
        response = client.get(f"{root}/photos/{ids['red']}/{kind}")
        picture = Image.open(io.BytesIO(response.content))
        assert (picture.format, max(picture.size)) == ("JPEG", side)
        red, green, blue = picture.convert("RGB").getpixel((1, 1))
        assert red > 150
        assert max(green, blue) < 90


def test_photos_of_a_folder_that_is_away_are_not_said_to_be_deleted(
    client: TestClient, root: str, photos: Path
) -> None:
    (photos / "red.jpg").unlink()
    hits = client.get(f"{root}/search", params={"focus": "the red thing"}).json()["hits"]
    assert {Path(hit["path"]).stem for hit in hits if hit["is_gone"]} == {"red"}
    assert not any(hit["is_away"] for hit in hits)
    photos.rename(photos.with_name("elsewhere"))
    hits = client.get(f"{root}/search", params={"focus": "the red thing"}).json()["hits"]
    assert [(hit["is_gone"], hit["is_away"]) for hit in hits] == [(True, True)] * 6


def test_copies_say_that_they_are_gone(client: TestClient, root: str, photos: Path, library: Library) -> None:
    for name in ("red again.jpg", "red once more.jpg"):
        shutil.copy(photos / "red.jpg", photos / name)
    library.index()

    def found() -> tuple[list[str], list[str]]:
        asked = {"focus": "the red thing", "collapse": True}
        hits = client.get(f"{root}/search", params=asked).json()["hits"]
        return next((hit["copies"], hit["copies_gone"]) for hit in hits if hit["copies"])

    copies, gone = found()
    assert (len(copies), gone) == (2, [])
    (photos / Path(copies[0]).name).unlink()
    assert found() == (copies, copies[:1])


def test_photos_like_others_say_what_has_become_of_their_files(
    client: TestClient, root: str, ids: dict[str, str], photos: Path
) -> None:
    def found(state: str) -> set[str]:
        hits = client.post(f"{root}/like", json={"more": [ids["red"]]}).json()["hits"]
        return {Path(hit["path"]).stem for hit in hits if hit[state]}

    os.utime(photos / "blue.jpg", (1, 1))
    (photos / "red.jpg").unlink()
    assert (found("is_gone"), found("is_changed"), found("is_away")) == ({"red"}, {"blue"}, set())
    photos.rename(photos.with_name("elsewhere"))
    assert found("is_away") == found("is_gone") == set(ids)


def test_of_a_photo_that_is_gone_the_thumbnail_is_shown(
    client: TestClient, root: str, ids: dict[str, str], photos: Path
) -> None:
    (photos / "red.jpg").unlink()
    response = client.get(f"{root}/photos/{ids['red']}/preview")
    assert Image.open(io.BytesIO(response.content)).size == (96, 64)


# ------------------------------------------------------------------------------------------------------------- search


def test_a_search_gives_what_the_library_gives(
    client: TestClient, root: str, ids: dict[str, str], library: Library, photos: Path
) -> None:
    wanted = library.query(photos / "blue.jpg", "the red thing", 3)
    found = client.get(
        f"{root}/search", params={"image": ids["blue"], "focus": "the red thing", "k": 3}
    ).json()
    assert [hit["path"] for hit in found["hits"]] == [hit.path.name for hit in wanted]
    assert [hit["score"] for hit in found["hits"]] == pytest.approx([hit.score for hit in wanted])
    assert (found["is_exact"], found["compared"], found["of"]) == (True, wanted.compared, wanted.of)
    assert wanted.query is not None
    maps = [hit.heatmap for hit in wanted] + [wanted.query.heatmap(wanted.searched.focuses[0].index)]
    assert found["focuses"][0]["vmax"] == pytest.approx(shared_vmax(maps))


def test_focuses_carry_weights(
    client: TestClient, root: str, ids: dict[str, str], library: Library, photos: Path
) -> None:
    library.index(["a cat"])
    wanted = library.query(photos / "blue.jpg", [("the red thing", 1.0), ("a cat", -0.5)], 6)
    given = {"image": ids["blue"], "focus": ["the red thing:1", "a cat:-0.5"], "k": 6}
    found = client.get(f"{root}/search", params=given).json()
    assert [hit["score"] for hit in found["hits"]] == pytest.approx([hit.score for hit in wanted])
    assert [part["prompt"] for part in found["hits"][0]["parts"]] == ["the red thing", "a cat"]


def test_without_a_photo_words_are_found(client: TestClient, root: str, library: Library) -> None:
    wanted = library.find("the red thing", 6)
    found = client.get(f"{root}/search", params={"focus": "the red thing"}).json()
    assert [hit["path"] for hit in found["hits"]] == [hit.path.name for hit in wanted]


def test_without_a_focus_whole_photos_are_compared(
    client: TestClient, root: str, ids: dict[str, str]
) -> None:
    found = client.get(f"{root}/search", params={"image": ids["blue"]}).json()
    assert found["focuses"] == []
    assert found["unsteered_model"]
    assert found["hits"]


@pytest.mark.parametrize("any_of", [False, True])
@pytest.mark.parametrize("focus", [None, "the red thing"])
def test_several_photos_are_searched_with_as_on_the_command_line(
    client: TestClient,
    root: str,
    ids: dict[str, str],
    library: Library,
    photos: Path,
    focus: str | None,
    any_of: bool,
) -> None:
    blue, red = (photos / f"{colour}.jpg" for colour in ("blue", "red"))
    sent = client.post("/api/v1/uploads", content=red.read_bytes()).json()["id"]
    wanted = library.query([blue, red], focus, 3, any_of=any_of)
    asked = {"image": ids["blue"], "upload": sent, "any": any_of, "k": 3} | (
        {"focus": focus} if focus else {}
    )
    found = client.get(f"{root}/search", params=asked).json()
    assert [hit["path"] for hit in found["hits"]] == [hit.path.name for hit in wanted]
    assert [hit["score"] for hit in found["hits"]] == pytest.approx([hit.score for hit in wanted], abs=1e-5)
    assert f"by {'any' if any_of else 'the mean'} of 2 photos" in found["text"]
    is_problem(
        client.get(f"{root}/search", params=asked | {"region": "0%,0%,50%,50%"}), 422, "a single image"
    )


def test_patches_of_a_photo_can_be_marked(
    client: TestClient, root: str, ids: dict[str, str], library: Library, photos: Path
) -> None:
    grid = client.get(f"{root}/patches", params={"image": ids["red"]}).json()
    shape = library.query(photos / "red.jpg", region="0%,0%,50%,50%")[0].heatmap.shape
    assert (grid["rows"], grid["columns"]) == shape
    assert (grid["width"], grid["height"]) == (96, 64)
    region = "0%,0%,50%,50%;50%,50%,100%,100%"
    wanted = library.query(photos / "red.jpg", region=region)
    asked = {"image": ids["red"], "region": region}
    found = client.get(f"{root}/search", params=asked).json()
    assert [hit["path"] for hit in found["hits"]] == [hit.path.name for hit in wanted]
    beside = client.get(f"{root}/search", params=asked | {"focus": "the red thing"}).json()
    layers = {hit["image_id"]: hit["layer"] for hit in found["hits"]}
    assert all(Image.open(io.BytesIO(base64.b64decode(layer))).format == "PNG" for layer in layers.values())
    assert {hit["image_id"]: hit["layer"] for hit in beside["hits"]} == layers
    is_problem(client.get(f"{root}/patches"), 422, "patches are those of a query photo")


def test_without_a_photo_several_focuses_are_refused(client: TestClient, root: str) -> None:
    is_problem(client.get(f"{root}/search", params={"focus": ["one", "two"]}), 422, "exactly one")
    is_problem(client.get(f"{root}/search"), 422, "exactly one")


def test_a_focus_that_nobody_indexed_ends_in_an_exact_answer(
    client: TestClient, root: str, ids: dict[str, str]
) -> None:
    given = {"image": ids["blue"], "focus": "a green bench"}
    answers = events(client.get(f"{root}/search/stream", params=given))
    assert answers[-1]["is_final"] is True
    assert answers[-1]["is_exact"] is True
    assert all(not answer["is_final"] for answer in answers[:-1])


def test_an_answer_in_rounds_gets_better_until_all_are_compared(
    client: TestClient, root: str, ids: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each round has time for one photo."""
    from steersearch.web import searches

    monkeypatch.setattr(searches, "ROUNDS_S", (1e-9,))
    monkeypatch.setattr("steersearch.indexer.anytime.FIRST", 1, raising=False)
    given = {"image": ids["blue"], "focus": "a green bench"}
    answers = events(client.get(f"{root}/search/stream", params=given))
    compared = [answer["compared"] for answer in answers]
    assert compared == sorted(compared)
    assert compared[-1] == 6
    assert [answer["is_exact"] for answer in answers] == [count == 6 for count in compared]


def test_a_wrong_value_is_a_problem_in_the_words_of_the_command_line(
    client: TestClient, root: str, ids: dict[str, str]
) -> None:
    blue = {"image": ids["blue"], "focus": "the red thing"}
    is_problem(client.get(f"{root}/search", params=blue | {"after": "soon"}), 422, "after")
    is_problem(client.get(f"{root}/search", params=blue | {"foucs": "cat"}), 422, "foucs")
    is_problem(client.get(f"{root}/photos", params={"page": "2"}), 422, "there are: offset, limit")
    is_problem(client.get(f"{root}/search", params=blue | {"folder": "nowhere"}), 422, "nowhere")
    is_problem(client.get(f"{root}/search", params=blue | {"focus": " "}), 422, "empty")
    is_problem(client.get(f"{root}/search", params=blue | {"focus": "cat:0"}), 422, "weight")
    is_problem(client.get(f"{root}/search", params=blue | {"k": 0}), 422, "k")
    is_problem(client.get(f"{root}/search", params={"image": "0" * 32, "focus": "x"}), 404, "no photo")
    is_problem(client.get("/api/v1/libraries/0123/photos"), 404, "no library")
    is_problem(client.get("/api/v1/nothing"), 404, "Not Found")


def test_a_focus_of_ten_thousand_characters_is_answered(
    client: TestClient, root: str, ids: dict[str, str]
) -> None:
    given = {"image": ids["blue"], "focus": "word " * 2000}
    response = client.get(f"{root}/search", params=given)
    assert response.status_code == 200
    assert response.json()["is_exact"]


# ------------------------------------------------------------------------------------------------------------ uploads


def test_an_upload_is_searched_with_like_its_twin_in_the_library(
    client: TestClient, root: str, ids: dict[str, str], photos: Path
) -> None:
    id = client.post("/api/v1/uploads", content=(photos / "blue.jpg").read_bytes()).json()["id"]
    by_upload = client.get(f"{root}/search", params={"upload": id, "focus": "the red thing"}).json()
    by_id = client.get(f"{root}/search", params={"image": ids["blue"], "focus": "the red thing"}).json()
    assert by_upload["hits"] == by_id["hits"]
    layer = {"focus": "the red thing", "vmax": by_id["focuses"][0]["vmax"]}
    of_upload = client.get(
        f"/api/v1/uploads/{id}/heatmap", params=layer | {"library": root.rpartition("/")[2]}
    )
    of_photo = client.get(f"{root}/photos/{ids['blue']}/heatmap", params=layer)
    assert of_upload.content == of_photo.content


def test_what_is_no_picture_is_refused_and_not_kept(client: TestClient, tmp_path: Path) -> None:
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    for content in (b"", b"hello", svg, b"%PDF-1.7"):
        is_problem(client.post("/api/v1/uploads", content=content), 415, "image: ")
    folder = client.app.state.server.uploads.folder  # type: ignore[attr-defined]
    assert list(folder.iterdir()) == []


def test_a_bomb_is_refused(client: TestClient) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 10_000_000)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    response = client.post("/api/v1/uploads", content=bomb)
    assert response.status_code == 415
    assert response.json()["detail"].startswith("image: ")


def test_an_upload_that_is_too_large_is_cut_off(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MOST_BYTES", 1000)
    is_problem(client.post("/api/v1/uploads", content=b"x" * 1001), 415, "more than")


def test_of_a_picture_that_is_also_a_page_only_pixels_go_out(client: TestClient, photos: Path) -> None:
    polyglot = (photos / "red.jpg").read_bytes() + b"<script>alert(1)</script>"
    id = client.post("/api/v1/uploads", content=polyglot).json()["id"]
    response = client.get(f"/api/v1/uploads/{id}/preview")
    assert b"script" not in response.content
    assert response.headers["content-type"] == "image/jpeg"
    assert response.headers["x-content-type-options"] == "nosniff"


def test_the_oldest_upload_goes_first(
    client: TestClient, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "KEPT", 2)
    ids = [
        client.post("/api/v1/uploads", content=(photos / "red.jpg").read_bytes()).json()["id"]
        for _ in range(3)
    ]
    assert [client.get(f"/api/v1/uploads/{id}/preview").status_code for id in ids] == [404, 200, 200]


def test_uploads_are_deleted_with_the_server(library: Library, photos: Path) -> None:
    app = create_app(Shelf([library.place]))
    with TestClient(app, HERE) as client:
        client.post("/api/v1/uploads", content=(photos / "red.jpg").read_bytes())
        folder = app.state.server.uploads.folder
        assert len(list(folder.iterdir())) == 1
    assert not folder.exists()


# -------------------------------------------------------------------------------------------- heatmaps, dial, likeness


def test_a_heatmap_is_a_layer_in_the_photos_shape(client: TestClient, root: str, ids: dict[str, str]) -> None:
    response = client.get(f"{root}/photos/{ids['red']}/heatmap", params={"focus": "the red thing"})
    layer = Image.open(io.BytesIO(response.content))
    assert (layer.format, layer.mode) == ("PNG", "RGBA")
    assert layer.width / layer.height == pytest.approx(96 / 64, rel=0.02)


def test_the_dial_at_one_gives_the_scores_of_the_search(
    client: TestClient, root: str, ids: dict[str, str]
) -> None:
    library_focus = {"image": ids["blue"], "focus": "the red thing"}
    found = client.get(f"{root}/search", params=library_focus).json()
    photos = [hit["image_id"] for hit in found["hits"]]
    dialled = client.get(f"{root}/dial", params=library_focus | {"photos": photos, "gate_scale": 1.0}).json()
    assert dialled["scores"] == pytest.approx([hit["score"] for hit in found["hits"]], abs=2e-3)
    assert len(dialled["layers"][0]) == len(photos)
    Image.open(io.BytesIO(base64.b64decode(dialled["query_layers"][0][0])))


@pytest.mark.parametrize("any_of", [False, True], ids=["mean", "any"])
def test_the_dial_steers_all_query_photos(
    client: TestClient, root: str, ids: dict[str, str], photos: Path, any_of: bool
) -> None:
    sent = client.post("/api/v1/uploads", content=(photos / "red.jpg").read_bytes()).json()["id"]
    asked = {"image": ids["blue"], "upload": sent, "any": any_of, "focus": ["the red thing", "a cat:-0.5"]}
    found = client.get(f"{root}/search", params=asked).json()
    dialled = client.get(
        f"{root}/dial", params=asked | {"photos": [hit["image_id"] for hit in found["hits"]]}
    ).json()
    assert dialled["scores"] == pytest.approx([hit["score"] for hit in found["hits"]], abs=2e-3)
    assert [len(layers) for layers in dialled["query_layers"]] == [2, 2]
    assert [len(layers) for layers in dialled["layers"]] == [len(found["hits"])] * 2


def test_the_dial_steers_at_the_scale_that_it_says(
    client: TestClient, root: str, ids: dict[str, str], library: Library, photos: Path
) -> None:
    library.index(["the red thing"], gate_scale=0.5)
    wanted = {
        hit.path.stem: hit.score
        for hit in library.query(photos / "blue.jpg", "the red thing", gate_scale=0.5)
    }
    given = {"image": ids["blue"], "focus": "the red thing", "photos": list(ids.values()), "gate_scale": 0.5}
    scores = dict(zip(ids, client.get(f"{root}/dial", params=given).json()["scores"], strict=True))
    for name, score in wanted.items():
        assert scores[name] == pytest.approx(score, abs=2e-3)
    is_problem(client.get(f"{root}/dial", params=given | {"gate_scale": 5}), 422, "gate_scale")
    is_problem(client.get(f"{root}/dial", params=given | {"gate_scale": "nan"}), 422, "gate_scale")
    del given["image"]
    is_problem(client.get(f"{root}/dial", params=given), 422, "query photo")


def test_likeness_is_rocchios_rule(
    client: TestClient, root: str, ids: dict[str, str], library: Library
) -> None:
    gallery = library.gallery(library.unsteered_index())
    names = [Path(path).stem for path in gallery.table.column("path").to_pylist()]
    vector = dict(zip(names, gallery.flat.all, strict=True))
    query = (vector["red"] + vector["blue"]) / 2 - LESS * vector["green"]
    wanted = {name: float(one @ query / np.linalg.norm(query)) for name, one in vector.items()}
    chosen = {"more": [ids["red"], ids["blue"]], "less": [ids["green"]]}
    found = client.post(f"{root}/like", json=chosen).json()
    assert {Path(hit["path"]).stem: hit["score"] for hit in found["hits"]} == pytest.approx(wanted, abs=1e-5)
    assert [hit["score"] for hit in found["hits"]] == pytest.approx(
        sorted(wanted.values(), reverse=True), abs=1e-5
    )
    assert "Rocchio" in found["text"]
    is_problem(client.post(f"{root}/like", json={"more": ["0" * 32]}), 422, "none of these photos")
    is_problem(client.post(f"{root}/like", json={}), 422, "choose a photo")
    partly = {"more": [ids["red"], ids["red"], "0" * 32], "less": [ids["green"]]}
    assert (
        client.post(f"{root}/like", json=partly)
        .json()["text"]
        .startswith(
            "near the mean of 1 (of 2; the others have no vector here) chosen and far from the mean of 1 chosen"
        )
    )


def test_a_map_has_a_point_for_each_photo_and_lies_like_the_unsteered_one(
    client: TestClient, root: str, library: Library
) -> None:
    plain = client.get(f"{root}/map").json()
    steered = client.get(f"{root}/map", params={"focus": "the red thing"}).json()
    assert (plain["count"], plain["total"], steered["count"]) == (6, 6, 6)
    listed = client.get(f"{root}/photos").json()
    assert plain["list_id"] == steered["list_id"] == listed["list_id"]
    assert [photo["number"] for photo in listed["photos"]] == list(range(6))
    whole = np.frombuffer(base64.b64decode(plain["points"]), "<u2").reshape(-1, 2)
    unsteered = library.gallery(library.unsteered_index())
    rows = [unsteered.row_of(photo["image_id"]) for photo in listed["photos"]]
    wanted = gallery_map(unsteered, "pca").points[rows]
    assert whole / 32767 - 1 == pytest.approx(wanted, abs=1e-4)
    gallery = library.gallery(library.find_prompt_index("the red thing"))
    alone, like = gallery_map(gallery, "pca"), gallery_map(library.gallery(library.unsteered_index()), "pca")
    turned = gallery_map(gallery, "pca", like)
    assert ((turned.points - like.points) ** 2).sum() <= ((alone.points - like.points) ** 2).sum() + 1e-4
    is_problem(client.get(f"{root}/map", params={"focus": "unheard of"}), 404, "unheard of")


def test_umap_of_too_many_photos_is_refused(
    client: TestClient, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steersearch.web.gallery_map.UMAP_MOST", 5)
    is_problem(client.get(f"{root}/map", params={"method": "umap"}), 422, "offered up to 5")
    assert client.get(f"{root}/map").json()["count"] == 6


def test_a_photo_without_a_vector_has_no_point(client: TestClient, root: str, library: Library) -> None:
    photos = PhotoList("now", table_of_photos(("new.jpg", None, 1)))
    points = gallery_map(library.gallery(library.unsteered_index()), "pca").of(photos)
    assert np.isnan(points).all()


# --------------------------------------------------------------------------------------------------------------- jobs


def test_a_job_indexes_a_prompt(client: TestClient, root: str, library: Library) -> None:
    job = client.post(f"{root}/jobs", json={"prompts": ["a cat"]}).json()
    wait_until(lambda: client.get(f"/api/v1/jobs/{job['id']}").json()["state"] in ("done", "failed"))
    done = client.get(f"/api/v1/jobs/{job['id']}").json()
    assert (done["state"], done["added"], done["error"]) == ("done", 6, None)
    assert "a cat" in [index.prompt for index in library.prompts()]


def test_a_job_that_fails_says_why(client: TestClient, root: str, photos: Path) -> None:
    photos.rename(photos.with_name("elsewhere"))
    job = client.post(f"{root}/jobs", json={}).json()
    wait_until(lambda: client.get(f"/api/v1/jobs/{job['id']}").json()["state"] == "failed")
    assert "gone" in client.get(f"/api/v1/jobs/{job['id']}").json()["error"]


def test_jobs_wait_can_be_cancelled_and_are_refused_when_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    held = threading.Event()

    class Slow:
        def index(self, prompts: object, progress: Any) -> None:
            held.wait(60)
            progress(None)

    monkeypatch.setattr(jobs_module, "WAITING", 2)
    jobs = Jobs(lambda _: Slow())  # type: ignore[arg-type, return-value]
    running = jobs.add("a", [])
    wait_until(lambda: running.state is jobs_module.State.running)
    waiting = [jobs.add("a", []) for _ in range(2)]
    with pytest.raises(BusyError):
        jobs.add("a", [])
    assert jobs.cancel(waiting[0].id).state is jobs_module.State.cancelled
    jobs.cancel(running.id)
    held.set()
    wait_until(lambda: running.state is jobs_module.State.cancelled)
    jobs.close()


def test_beyond_the_queue_a_search_is_refused_with_a_time_to_come_back(
    client: TestClient, root: str, ids: dict[str, str]
) -> None:
    client.app.state.server.engine = engine = Engine(waiting=0)  # type: ignore[attr-defined]
    held, begun = threading.Event(), threading.Event()
    holder = threading.Thread(target=engine.run, args=(lambda: begun.set() or held.wait(60),))
    holder.start()
    begun.wait(60)
    response = client.get(f"{root}/search", params={"image": ids["red"], "focus": "the red thing"})
    held.set()
    holder.join()
    is_problem(response, 503, "busy")
    assert response.headers["retry-after"] == str(engine_module.RETRY_S)
    assert (
        client.get(f"{root}/search", params={"image": ids["red"], "focus": "the red thing"}).status_code
        == 200
    )


# -------------------------------------------------------------------------------------------------------------- guard


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "", "[::2]"]
)
def test_another_host_is_refused(client: TestClient, host: str) -> None:
    is_problem(client.get("/api/v1/libraries", headers={"Host": host}), 421, "host")


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:9"])
def test_this_machine_is_answered(client: TestClient, host: str) -> None:
    assert client.get("/api/v1/libraries", headers={"Host": host}).status_code == 200


def test_other_sites_pages_are_refused(client: TestClient, root: str) -> None:
    is_problem(
        client.post(f"{root}/jobs", json={}, headers={"Origin": "http://evil.example"}), 403, "evil.example"
    )
    is_problem(client.post(f"{root}/jobs", json={}, headers={"Origin": "null"}), 403, "null")
    is_problem(client.post(f"{root}/jobs", json={}, headers={"Origin": "http://[::1"}), 403, "may not use")
    is_problem(client.get("/api/v1/libraries", headers={"Sec-Fetch-Site": "cross-site"}), 403, "other sites")
    assert client.post("/api/v1/uploads", headers={"Origin": HERE}).status_code == 415
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/", headers=link).status_code == 200
    assert client.post(f"{root}/jobs", json={}, headers=link).status_code == 403


def test_elsewhere_a_token_is_needed(library: Library) -> None:
    access = Access.of("0.0.0.0", "photos.local")
    assert access.token is not None
    assert len(access.token) >= 32
    app = create_app(Shelf([library.place]), access)
    with TestClient(app, "http://photos.local", follow_redirects=False) as client:
        for token in ("", "guess", access.token[:-1], access.token + "x"):
            is_problem(
                client.get("/api/v1/libraries", headers={"Authorization": f"Bearer {token}"}), 401, "token"
            )
        is_problem(client.get("/static/app.js"), 401, "token")
        assert (
            client.get("/api/v1/libraries", headers={"Authorization": f"Bearer {access.token}"}).status_code
            == 200
        )
        taken = client.get("/", params={"token": access.token, "library": "x"})
        assert (taken.status_code, taken.headers["location"]) == (303, "/?library=x")
        assert "httponly" in taken.headers["set-cookie"].lower()
        assert "samesite=strict" in taken.headers["set-cookie"].lower()
        assert client.get("/api/v1/libraries").status_code == 200
    assert Access.of("127.0.0.1").token is None


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2f..%2fapi.py",
        "/static//etc/passwd",
        "/../../etc/passwd",
    ],
)
def test_no_file_outside_the_static_ones_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code in (404, 405)


def test_no_path_is_taken_from_outside(client: TestClient, root: str) -> None:
    for id in ("/etc/passwd", "../../etc/passwd", "..%2f..%2fetc%2fpasswd", "x" * 5000):
        assert client.get(f"{root}/photos/{id}/preview").status_code == 404
        is_problem(client.get(f"{root}/search", params={"image": id}), 404, "no photo")
        is_problem(client.get(f"{root}/search", params={"upload": id}), 404, "no upload")


def test_a_link_that_leads_out_of_the_library_shows_its_thumbnail_alone(
    client: TestClient, root: str, ids: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.jpg"
    draw_picture(secret, "white", size=(400, 300))
    (photos / "red.jpg").unlink()
    (photos / "red.jpg").symlink_to(secret)
    shown = Image.open(io.BytesIO(client.get(f"{root}/photos/{ids['red']}/preview").content))
    assert shown.size == (96, 64)
    is_problem(client.get(f"{root}/search", params={"image": ids["red"]}), 415, "leads out")


def test_the_page_allows_its_own_files_only(client: TestClient) -> None:
    response = client.get("/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"https?://", response.text)
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", response.text)


def test_openapi_names_every_route_of_the_interface(client: TestClient) -> None:
    paths = client.get("/api/v1/openapi.json").json()["paths"]
    assert {f"/api/v1{route.path.removeprefix('/api/v1')}" for route in routes.router.routes} == set(paths)  # type: ignore[attr-defined]


# -------------------------------------------------------------------------------------------------- the real process


@pytest.fixture
def served(library: Library) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "steersearch", "serve", "--port", "0", "--library", str(library.place)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process, process.stdout.readline().strip()
    process.kill()
    process.wait()


def test_it_serves_refuses_a_huge_header_and_stops_cleanly(served: tuple[subprocess.Popen[str], str]) -> None:
    process, address = served

    def is_up() -> bool:
        try:
            return httpx.get(address).status_code == 200
        except (httpx.ConnectError, httpx.ReadTimeout):
            return False

    wait_until(is_up)
    with contextlib.suppress(httpx.TransportError):  # it may close before all is sent
        long = httpx.get(f"{address}api/v1/libraries", headers={"X-Long": "x" * 200_000})
        assert long.status_code in (400, 431)
    assert httpx.get(f"{address}api/v1/libraries").status_code == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) in (0, -signal.SIGTERM)
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()


def test_a_port_that_is_taken_is_named(run: Any, library: Library) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = run("serve", "--port", port, "--library", library.place)
    assert ran.code == 1
    assert str(port) in ran.err
    assert "--port 0" in ran.err


def test_answers_on_a_kept_connection_are_sent_at_once() -> None:
    async def has_no_delay() -> int:
        accepted = asyncio.get_running_loop().create_future()
        server = await asyncio.start_server(
            lambda _, writer: accepted.set_result(writer), sock=listen("127.0.0.1", 0)
        )
        async with server:
            _, ours = await asyncio.open_connection(*server.sockets[0].getsockname())
            theirs = await accepted
            found: int = theirs.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            ours.close()
            theirs.close()
            return found

    assert asyncio.run(has_no_delay())


def test_uploads_lie_in_a_folder_of_their_own(client: TestClient) -> None:
    folder = client.app.state.server.uploads.folder  # type: ignore[attr-defined]
    assert os.stat(folder).st_mode & 0o077 == 0
    assert time.time() - folder.stat().st_mtime < 3600


# ------------------------------------------------------------------------------------------------------------- region


def test_a_marked_part_is_searched_by(
    client: TestClient, root: str, ids: dict[str, str], library: Library, photos: Path
) -> None:
    wanted = library.query(photos / "blue.jpg", region="30%,30%,70%,70%", k=5)
    given = {"image": ids["blue"], "region": "30%,30%,70%,70%", "k": 5}
    found = client.get(f"{root}/search", params=given).json()
    assert [hit["score"] for hit in found["hits"]] == pytest.approx([hit.score for hit in wanted])
    assert "by the region" in found["text"]
    assert all(Image.open(io.BytesIO(base64.b64decode(hit["layer"]))).mode == "RGBA" for hit in found["hits"])
    both = client.get(f"{root}/search", params=given | {"focus": "the red thing"}).json()
    assert "and the focus" in both["text"]
    is_problem(client.get(f"{root}/search", params=given | {"region": "9,9"}), 422, "region")
    is_problem(
        client.get(f"{root}/search", params={"focus": "x", "region": given["region"]}), 422, "query photo"
    )
