"""The tools for agents, through the SDK's own client."""

from __future__ import annotations

import asyncio
import base64
import io
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from PIL import Image

from steersearch.api import Library
from steersearch.web.shelf import Shelf
from steersearch.web.tools import tools

READING = {"list_libraries", "index_status", "find_photos", "query_by_photo", "explain"}


@pytest.fixture
def library(photos: Path, tmp_path: Path, tiny_model: Path, word_encoder: None) -> Library:
    made = Library.create(photos, str(tiny_model), place=tmp_path / "library")
    made.index(["the red thing"])
    return made


def asked(library: Library, ask: Callable[[Client], Awaitable[Any]], **settings: bool) -> Any:
    async def session() -> Any:
        async with Client(tools(Shelf([library.place]), **settings)) as client:
            return await ask(client)

    return asyncio.run(session())


def call(library: Library, name: str, **arguments: object) -> Any:
    return asked(library, lambda client: client.call_tool(name, arguments))


def test_only_reading_is_offered_unless_indexing_is_allowed(library: Library) -> None:
    async def names(client: Client) -> set[str]:
        return {tool.name for tool in (await client.list_tools()).tools}

    assert asked(library, names) == READING
    assert asked(library, names, allow_index=True) == {*READING, "index_prompts"}


def test_the_library_used_last_answers_where_none_is_named(library: Library) -> None:
    found = call(library, "find_photos", text="the red thing", k=3).structured_content
    wanted = library.find("the red thing", 3)
    assert [hit["path"] for hit in found["hits"]] == [hit.path.name for hit in wanted]
    assert found["is_exact"] is True


def test_a_photo_is_named_by_its_path_or_its_id(library: Library, photos: Path) -> None:
    wanted = [hit.path.name for hit in library.query(photos / "blue.jpg", "the red thing", 3)]
    by_path = call(
        library, "query_by_photo", photo="blue.jpg", focus=["the red thing"], k=3
    ).structured_content
    assert [hit["path"] for hit in by_path["hits"]] == wanted
    whole = call(library, "query_by_photo", photo="blue.jpg", focus=[], k=6).structured_content
    id = next(hit["image_id"] for hit in whole["hits"] if hit["path"] == "red.jpg")
    assert call(library, "query_by_photo", photo=id, focus=["the red thing"]).structured_content["hits"]


def test_explain_returns_the_picture(library: Library) -> None:
    (content,) = call(library, "explain", photo="red.jpg", focus="the red thing").content
    assert content.mime_type == "image/png"
    assert Image.open(io.BytesIO(base64.b64decode(content.data))).size == (96, 64)


def test_status_says_what_is_indexed(library: Library) -> None:
    status = call(library, "index_status").structured_content
    assert status == {"photos": 6, "skipped": 0, "prompts": {"the red thing": "6 of 6 photos"}, "jobs": []}


@pytest.mark.parametrize("photo", ["/etc/passwd", "../secret.jpg", "nosuch.jpg"])
def test_no_file_outside_the_library_is_read_and_the_error_says_so(
    library: Library, photos: Path, photo: str
) -> None:
    (photos.parent / "secret.jpg").write_bytes((photos / "red.jpg").read_bytes())
    result = call(library, "explain", photo=photo, focus="x")
    assert result.is_error
    assert "no photo has the id" in result.content[0].text


def test_it_speaks_over_standard_input(library: Library) -> None:
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "steersearch", "mcp", "--library", str(library.place)]
    )

    async def session() -> Any:
        async with Client(command) as client:
            return (await client.call_tool("index_status", {})).structured_content

    assert asyncio.run(session())["photos"] == 6
