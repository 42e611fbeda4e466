"""The tools for agents, through the SDK's own client."""

from __future__ import annotations

import asyncio
import base64
import io
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
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


def test_an_argument_that_a_tool_does_not_have_is_refused(library: Library) -> None:
    refused = call(library, "find_photos", text="the red thing", libary="another")
    assert refused.is_error
    assert "libary" in refused.content[0].text

    async def schemas(client: Client) -> list[Any]:
        return [tool.input_schema["additionalProperties"] for tool in (await client.list_tools()).tools]

    assert set(asked(library, schemas, allow_index=True)) == {False}


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


# --------------------------------------------------------------------------------------------------- streamable HTTP

TOKEN = "secret"
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


@pytest.fixture
def address(library: Library, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of a process that asks for a token."""
    monkeypatch.setenv("STEERSEARCH_TOKEN", TOKEN)
    command = [sys.executable, "-m", "steersearch", "mcp", "--http", "--port", "0", "--library"]
    process = subprocess.Popen([*command, str(library.place)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    yield process.stderr.readline().strip()
    process.terminate()
    assert process.wait(60) == 0


def test_it_speaks_streamable_http_and_refuses_whom_the_page_refuses(address: str, library: Library) -> None:
    async def session() -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            httpx.AsyncClient(headers=headers, timeout=600) as client,
            Client(streamable_http_client(address, http_client=client)) as agent,
        ):
            by_photo = {"photo": "blue.jpg", "focus": ["the red thing"], "k": 3}
            picture = await agent.call_tool("explain", {"photo": "red.jpg", "focus": "the red thing"})
            return {
                "tools": {tool.name for tool in (await agent.list_tools()).tools},
                "found": await agent.call_tool("find_photos", {"text": "the red thing", "k": 3}),
                "queried": await agent.call_tool("query_by_photo", by_photo),
                "status": await agent.call_tool("index_status", {}),
                "picture": picture.content[0],
            }

    assert address.startswith("http://127.0.0.1:")
    said = asyncio.run(session())
    assert said["tools"] == READING
    hits = [hit["path"] for hit in said["found"].structured_content["hits"]]
    assert hits == [hit.path.name for hit in library.find("the red thing", 3)]
    hits = [hit["path"] for hit in said["queried"].structured_content["hits"]]
    assert hits == [hit.path.name for hit in library.query(library.folder / "blue.jpg", "the red thing", 3)]
    assert said["status"].structured_content["photos"] == 6
    assert said["picture"].mime_type == "image/png"

    def asked(**headers: str) -> int:
        accepted = {"Accept": "application/json, text/event-stream", "Authorization": f"Bearer {TOKEN}"}
        return httpx.post(address, json=HELLO, headers=accepted | headers, timeout=600).status_code

    assert asked() == 200
    assert asked(Authorization="Bearer guess") == 401
    assert asked(Host="attacker.example") == 421
    assert asked(Origin="http://attacker.example") == 403
    assert asked(**{"Sec-Fetch-Site": "cross-site"}) == 403
