"""The same libraries as tools for agents: a server of the Model Context Protocol, by its official SDK."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field

import steersearch
from steersearch.core.errors import ArgumentError, in_words
from steersearch.core.heatmaps import overlay, strengths
from steersearch.core.images.reader import read_picture
from steersearch.core.vectors import VectorSettings
from steersearch.indexer.query_terms import as_focuses, parse_focus
from steersearch.web.answers import LibraryRow, SearchAnswer
from steersearch.web.jobs import State
from steersearch.web.routes import JobAnswer, JobRequest, Server, add_job, libraries
from steersearch.web.searches import SearchRequest, rounds
from steersearch.web.shelf import Shelf

_SIDE = 1024  # pixels, longer side, of the picture that `explain` returns
_READ_ONLY = ToolAnnotations(read_only_hint=True)
LibraryId = Annotated[str, Field(description="id from list_libraries; empty: the library used last")]
PhotoName = Annotated[
    str, Field(description="image_id from a result, or the photo's path below the library's folder")
]
Focuses = Annotated[
    list[str],
    Field(
        description='what to look at: "the remote control", with weights as "cat:-1"; none: the photo as a whole'
    ),
]
Count = Annotated[int, Field(ge=1, le=100)]
Seconds = Annotated[float, Field(gt=0, le=300, description="to spend on a focus that is not indexed")]

INSTRUCTIONS = (
    "Search photo libraries by a photo and a focus, words that say what to look at in it, or by words alone. "
    "An answer with is_exact false is approximate: `text` says how many photos were compared."
)


class IndexStatus(BaseModel):
    """How complete a library is under each prompt, and the current jobs."""

    photos: int
    skipped: int
    prompts: dict[str, str] = Field(description='prompt -> "n of m photos"')
    jobs: list[JobAnswer]


def tools(shelf: Shelf, *, allow_index: bool = False) -> MCPServer:
    """The server. allow_index: also offer a tool that indexes; all others only read photos and libraries, and keep the
    vectors that searches compute."""
    server = Server(shelf)
    made = MCPServer("steersearch", version=steersearch.__version__, instructions=INSTRUCTIONS)

    @made.tool(annotations=_READ_ONLY)
    def list_libraries() -> list[LibraryRow]:
        """The photo libraries on this machine, the one used last first."""
        with _in_words():
            return libraries(server)

    @made.tool(annotations=_READ_ONLY)
    def index_status(library: LibraryId = "") -> IndexStatus:
        """What a library holds, and which prompts are indexed: these are answered at once and exactly."""
        with _in_words():
            info = shelf.library(_id(shelf, library)).info()
            covered = {row.index.prompt: f"{row.photos:,} of {info.photos:,} photos" for row in info.prompts}
            jobs = [
                JobAnswer.of(job) for job in server.jobs.all() if job.state in (State.waiting, State.running)
            ]
            return IndexStatus(photos=info.photos, skipped=info.skipped, prompts=covered, jobs=jobs)

    @made.tool(annotations=_READ_ONLY)
    def find_photos(
        text: str, library: LibraryId = "", k: Count = 10, seconds: Seconds = 20.0
    ) -> SearchAnswer:
        """The photos that show what the text names, the most certain first."""
        with _in_words():
            return _searched(server, _id(shelf, library), None, [text], k, seconds)

    @made.tool(annotations=_READ_ONLY)
    def query_by_photo(
        photo: PhotoName, focus: Focuses, library: LibraryId = "", k: Count = 10, seconds: Seconds = 20.0
    ) -> SearchAnswer:
        """The photos most like one of the library's in what the focus names."""
        with _in_words():
            id = _id(shelf, library)
            return _searched(server, id, _photo(shelf, id, photo), focus, k, seconds)

    @made.tool(annotations=_READ_ONLY)
    def explain(photo: PhotoName, focus: str, library: LibraryId = "") -> Image:
        """A picture of where in a photo the model sees the focus: the photo in grey, the heatmap in colour."""
        with _in_words():
            id = _id(shelf, library)
            return _explained(server, id, _photo(shelf, id, photo), focus)

    if allow_index:

        @made.tool(annotations=ToolAnnotations(read_only_hint=False, destructive_hint=False))
        def index_prompts(prompts: list[str], library: LibraryId = "") -> JobAnswer:
            """Index a library under prompts, in the background; index_status says how far it is."""
            with _in_words():
                return add_job(_id(shelf, library), JobRequest(prompts=prompts), server)

    for tool in made._tool_manager.list_tools():
        _refuse_unknown(tool)
    return made


def _refuse_unknown(tool: Tool) -> None:
    """Make a tool refuse arguments that it does not have. The SDK ignores them: a misspelt `library` would search the
    one used last."""
    arguments = tool.fn_metadata.arg_model
    arguments.model_config["extra"] = "forbid"
    arguments.model_rebuild(force=True)
    tool.parameters["additionalProperties"] = False


def _searched(
    server: Server, library: str, image: Path | None, focus: list[str], k: int, seconds: float
) -> SearchAnswer:
    focuses = as_focuses([parse_focus(text) for text in focus]) if focus else []
    request = SearchRequest(images=[] if image is None else [image], focuses=focuses, k=k, seconds=seconds)
    *_, last = rounds(server.shelf.library(library), server.shelf.photos(library), server.engine, request)
    return last


def _explained(server: Server, library: str, file: Path, focus: str) -> Image:
    opened = server.shelf.library(library)
    (wanted,) = opened.resolve([parse_focus(focus)])
    heatmap = server.engine.run(lambda: opened.heatmap(file, wanted))
    image = read_picture(file, at_least=_SIDE).image
    image.thumbnail((_SIDE, _SIDE))
    region = VectorSettings.from_dict(wanted.index.preprocessing).preprocess.region(image.size)
    encoded = io.BytesIO()
    overlay(image, strengths(heatmap), region).save(encoded, "png")
    return Image(data=encoded.getvalue(), format="png")


def _id(shelf: Shelf, library: str) -> str:
    if library:
        return library
    first = next(iter(shelf.places()), None)
    if first is None:
        raise ArgumentError("library", library, "there is none yet; make one: steersearch index FOLDER")
    return first


def _photo(shelf: Shelf, library: str, name: str) -> Path:
    """A photo of the library, by id or path. Raises UnknownIdError."""
    photos = shelf.photos(library)
    by_path = {photo.path: photo.id for photo in photos.now()}
    return photos.file(by_path.get(name, name))


@contextmanager
def _in_words() -> Iterator[None]:
    """The command line's message, as the tool's error."""
    try:
        yield
    except ToolError:
        raise
    except Exception as error:
        said = in_words(error)
        if said is None:
            raise
        raise ToolError(said) from error
