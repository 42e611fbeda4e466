"""The REST interface, `/api/v1`. The page uses nothing else."""

from __future__ import annotations

import asyncio
import base64
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from fastapi import APIRouter, Depends, Query, Request
from fastapi.dependencies.models import Dependant
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from steersearch.api import Library
from steersearch.core.errors import ArgumentError, SteerSearchError
from steersearch.core.heatmaps import shared_vmax
from steersearch.core.vectors import VectorSettings
from steersearch.indexer.folders import FileState
from steersearch.indexer.query_terms import Focus, as_focuses, parse_focus
from steersearch.indexer.regions import patch_grid
from steersearch.indexer.snapshot import Snapshot
from steersearch.web.answers import (
    HitAnswer,
    LibraryAnswer,
    LibraryRow,
    PhotoRow,
    PhotosAnswer,
    PromptRow,
    SearchAnswer,
    SkipRow,
    shown,
    states,
)
from steersearch.web.dial import Dial
from steersearch.web.engine import Engine
from steersearch.web.gallery_map import Maps, Method
from steersearch.web.heat import heat_layer, legend
from steersearch.web.jobs import Job, Jobs
from steersearch.web.likeness import rocchio
from steersearch.web.photos import PREVIEW_SIDE, Photo, preview_of
from steersearch.web.problem import of_error
from steersearch.web.searches import Cancelled, SearchRequest, rounds
from steersearch.web.shelf import Shelf
from steersearch.web.uploads import Uploads

_FOR_GOOD = {"Cache-Control": "private, max-age=31536000, immutable"}
_MOST_HITS = 200
_MOST_PHOTOS = 16  # to search with
_NO_POINT = 65535


class Server:
    """What the routes share: libraries, uploads, the queue before the model, jobs."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf, self.engine, self.uploads = shelf, Engine(), Uploads()
        self.maps, self.dial = Maps(), Dial()
        self.jobs = Jobs(shelf.another)

    def warm_up(self) -> None:
        """Begin to read the library used last, and to load its model, so that its first page and search need not
        wait."""

        def read_and_load() -> None:
            with suppress(Exception):  # a search reports it; and the server may stop meanwhile
                id = next(iter(self.shelf.places()))
                library = self.shelf.library(id)
                self.shelf.photos(id).now()
                self.maps.of(library, None, "pca")
                self.shelf.info(id)
                index = library.unsteered_index()
                self.engine.run(lambda: library.steering.load(library.embedder_of(index)))

        threading.Thread(target=read_and_load, name="warm up", daemon=True).start()

    def close(self) -> None:
        """End jobs, keeping what they computed, and delete uploads."""
        self.jobs.close()
        self.engine.close()
        self.uploads.close()

    def image(self, library: str, image: str | None, upload: str | None) -> Path | None:
        """The query photo: one of the library's, an upload, or none. Raises UnknownIdError, ArgumentError."""
        if image is not None and upload is not None:
            raise ArgumentError("upload", upload, "give image or upload, not both")
        if upload is not None:
            return self.uploads.path(upload)
        return None if image is None else self.shelf.photos(library).file(image)

    def images(self, library: str, images: Sequence[str], uploads: Sequence[str]) -> list[Path]:
        """The query photos. Raises UnknownIdError."""
        return [*map(self.shelf.photos(library).file, images), *map(self.uploads.path, uploads)]

    def size(self, library: str, image: str | None, upload: str | None) -> tuple[int, int]:
        """Width and height of a query photo. Raises UnknownIdError."""
        if upload is not None:
            return self.uploads.size(upload)
        return self.shelf.photos(library).photo(image or "").size


async def server_of(request: Request) -> Server:
    """The server that a request is for. Not a plain function, which would run in another thread."""
    server: Server = request.app.state.server
    return server


At = Annotated[Server, Depends(server_of)]
Image = Annotated[str | None, Query(description="image_id of a photo of the library, to search with")]
Upload = Annotated[str | None, Query(description="id of an upload, to search with")]
Images = Annotated[list[str], Query(max_length=_MOST_PHOTOS, description="as `image`; repeatable")]
UploadIds = Annotated[list[str], Query(max_length=_MOST_PHOTOS, description="as `upload`; repeatable")]
AnyOf = Annotated[
    bool, Query(alias="any", description="of several photos: by any of them, not by their mean")
]
FocusTexts = Annotated[
    list[str],
    Query(
        max_length=8,
        description="TEXT or TEXT:WEIGHT, what to look at; repeatable; a negative weight steers away",
    ),
]
GateScale = Annotated[
    float, Query(ge=0, le=4, allow_inf_nan=False, description="0: no steering, 1: as trained")
]
Vmax = Annotated[
    float | None,
    Query(gt=0, allow_inf_nan=False, description="top of the colour range; none: that of this heatmap"),
]
Side = Annotated[int, Query(ge=16, le=PREVIEW_SIDE, description="longer side in pixels, at most")]


async def refuse_unknown(request: Request) -> None:
    """Raise ArgumentError for a parameter that the request does not have: a misspelt one would be ignored, and the
    answer be another's."""
    known = list(_parameters(request.scope["route"].dependant))
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise ArgumentError(name, value, f"is no parameter here; there are: {', '.join(known) or 'none'}")


def _parameters(of: Dependant) -> Iterator[str]:
    """The names of a route's parameters in the address, those of its dependencies included."""
    yield from (field.alias for field in of.query_params)
    for dependency in of.dependencies:
        yield from _parameters(dependency)


router = APIRouter(prefix="/api/v1", dependencies=[Depends(refuse_unknown)])

# ------------------------------------------------------------------------------------------------------------ libraries


@router.get("/libraries")
def libraries(server: At) -> list[LibraryRow]:
    """The libraries, the one used last first."""
    rows = []
    for id in server.shelf.places():
        try:
            rows.append(LibraryRow(**_head(id, server.shelf.library(id))))
        except SteerSearchError as error:
            place = server.shelf.places()[id]
            rows.append(
                LibraryRow(
                    id=id,
                    folders=[shown(str(place))],
                    name=shown(place.name),
                    is_there=False,
                    problem=str(error),
                )
            )
    return rows


@router.get("/libraries/{library}")
def library(
    library: str,
    server: At,
    counts: Annotated[bool, Query(description="false: at once, without the numbers of photos")] = True,
) -> LibraryAnswer:
    """What a library holds."""
    opened = server.shelf.library(library)
    info = server.shelf.info(library) if counts else None
    prompts = opened.prompts() if info is None else [row.index for row in info.prompts]
    counted = [(None, None)] * len(prompts) if info is None else [(p.photos, p.missing) for p in info.prompts]
    return LibraryAnswer(
        **_head(library, opened),
        model=opened.model,
        photos=None if info is None else info.photos,
        skipped=None if info is None else info.skipped,
        has_unsteered=opened.has_unsteered,
        bytes_on_disk=None if info is None else info.bytes_on_disk,
        prompts=[
            PromptRow(
                prompt=index.prompt,
                model=index.model_id,
                gate_scale=index.gate_scale,
                view=index.view,
                photos=photos,
                missing=missing,
            )
            for index, (photos, missing) in zip(prompts, counted, strict=True)
        ],
    )


def _head(id: str, library: Library) -> dict[str, Any]:
    folders = library.folders
    return {
        "id": id,
        "folders": [shown(str(folder)) for folder in folders],
        "name": ", ".join(shown(folder.name) for folder in folders),
        "is_there": not library.away,
    }


@router.get("/libraries/{library}/skipped")
def skipped(library: str, server: At) -> list[SkipRow]:
    """The files that the last run could not use."""
    return [
        SkipRow(path=shown(skip.path), reason=skip.reason) for skip in server.shelf.library(library).skipped()
    ]


# --------------------------------------------------------------------------------------------------------------- photos


@router.get("/libraries/{library}/photos")
def photos(
    library: str,
    server: At,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 60,
) -> PhotosAnswer:
    """The photos of a library, the newest first."""
    found = server.shelf.photos(library).now()
    rows = [PhotoRow.of(photo) for photo in found[offset : offset + limit]]
    return PhotosAnswer(list_id=found.id, total=len(found), photos=rows)


@router.get("/libraries/{library}/photos/{image_id}")
def photo(library: str, image_id: str, server: At) -> PhotoRow:
    """One photo."""
    return PhotoRow.of(server.shelf.photos(library).photo(image_id))


class PictureResponse(Response):
    media_type = "image/jpeg"


class LayerResponse(Response):
    media_type = "image/png"


@router.get("/libraries/{library}/photos/{image_id}/thumbnail", response_class=PictureResponse)
def thumbnail(library: str, image_id: str, server: At) -> PictureResponse:
    """JPEG, longer side at most 256 pixels."""
    return PictureResponse(server.shelf.photos(library).thumbnail(image_id), headers=_FOR_GOOD)


@router.get("/libraries/{library}/photos/{image_id}/preview", response_class=PictureResponse)
def preview(library: str, image_id: str, server: At, side: Side = 1024) -> PictureResponse:
    """JPEG made anew from the photo; of one that is gone its thumbnail."""
    return PictureResponse(server.shelf.photos(library).preview(image_id, side), headers=_FOR_GOOD)


@router.get("/libraries/{library}/photos/{image_id}/heatmap", response_class=LayerResponse)
def heatmap(library: str, image_id: str, focus: str, server: At, vmax: Vmax = None) -> LayerResponse:
    """PNG with transparency in the photo's shape: where in it the model sees the focus."""
    photo = server.shelf.photos(library).photo(image_id)
    file = server.shelf.photos(library).file(image_id)
    return _layer(server, library, file, photo.size, focus, vmax)


@router.post("/libraries/{library}/photos/{image_id}/reveal", status_code=204)
def reveal(library: str, image_id: str, server: At, request: Request) -> None:
    """Show the photo in the file manager of the machine that the server runs on; for a user at that machine alone."""
    if request.app.state.access.token is not None:
        raise ArgumentError("reveal", image_id, "only where the server answers this machine alone")
    typer.launch(os.fspath(server.shelf.photos(library).file(image_id)), locate=True)


# -------------------------------------------------------------------------------------------------------------- uploads


class UploadAnswer(BaseModel):
    id: str


@router.post(
    "/uploads",
    status_code=201,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload(request: Request, server: At) -> UploadAnswer:
    """A photo to search with, the body as it is; kept until 64 newer ones have come."""
    return UploadAnswer(id=await server.uploads.add(request.stream()))


@router.get("/uploads/{upload}/preview", response_class=PictureResponse)
def upload_preview(upload: str, server: At, side: Side = 1024) -> PictureResponse:
    """JPEG made anew from an upload."""
    return PictureResponse(preview_of(server.uploads.path(upload), side), headers=_FOR_GOOD)


@router.get("/uploads/{upload}/heatmap", response_class=LayerResponse)
def upload_heatmap(upload: str, library: str, focus: str, server: At, vmax: Vmax = None) -> LayerResponse:
    """As that of a photo, by the library's model."""
    file = server.uploads.path(upload)
    return _layer(server, library, file, server.uploads.size(upload), focus, vmax)


def _layer(
    server: Server, library: str, file: Path, size: tuple[int, int], focus: str, vmax: float | None
) -> LayerResponse:
    opened = server.shelf.library(library)
    (found,) = opened.resolve([parse_focus(focus)])
    heatmap = server.engine.run(lambda: opened.heatmap(file, found))
    return LayerResponse(
        heat_layer(heatmap, vmax, found.index, size), headers={"Cache-Control": "private, max-age=60"}
    )


@router.get("/legend", response_class=LayerResponse)
def colour_scale() -> LayerResponse:
    """PNG: the colour scale of all heatmaps."""
    return LayerResponse(legend(), headers=_FOR_GOOD)


# --------------------------------------------------------------------------------------------------------------- search


def search_request(
    library: str,
    server: At,
    image: Images = [],  # noqa: B006, FastAPI copies it
    upload: UploadIds = [],  # noqa: B006
    any_of: AnyOf = False,
    focus: FocusTexts = [],  # noqa: B006
    k: Annotated[int, Query(ge=1, le=_MOST_HITS)] = 24,
    region: Annotated[
        str | None,
        Query(
            max_length=20_000,
            description="a part of the query photo: left,top,right,bottom in pixels or percent; several boxes with "
            '";" between them; of several photos a part of each with "/" between them, nothing for a whole photo',
        ),
    ] = None,
    folder: str | None = None,
    after: str | None = None,
    before: str | None = None,
    collapse: bool = False,
    seconds: Annotated[float, Query(gt=0, le=600, allow_inf_nan=False)] = 30.0,
) -> SearchRequest:
    """A search as the address gives it: with photos by focuses or as a whole, without any by one text."""
    return SearchRequest(
        images=server.images(library, image, upload),
        any_of=any_of,
        focuses=_focuses(focus),
        k=k,
        region=region or None,
        folder=folder or None,
        after=after or None,
        before=before or None,
        collapse=collapse,
        seconds=seconds,
    )


def _focuses(texts: Sequence[str]) -> list[Focus]:
    return as_focuses([parse_focus(text) for text in texts]) if texts else []


Wanted = Annotated[SearchRequest, Depends(search_request)]


@router.get("/libraries/{library}/search", response_model=SearchAnswer)
def search(library: str, wanted: Wanted, server: At) -> Response:
    """The last answer: exact, or as good as `seconds` allow."""
    answers = rounds(server.shelf.library(library), server.shelf.photos(library), server.engine, wanted)
    *_, last = answers
    return _json(last)


@router.get(
    "/libraries/{library}/search/stream",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "events `answer`, each a SearchAnswer"}
    },
)
async def search_stream(library: str, wanted: Wanted, server: At) -> Response:
    """Answers as server-sent events, each better than the one before."""
    opened, its_photos = await run_in_threadpool(
        lambda: (server.shelf.library(library), server.shelf.photos(library))
    )
    answers = rounds(opened, its_photos, server.engine, wanted)
    first = await run_in_threadpool(next, answers)
    return StreamingResponse(_events(first, answers, wanted.cancelled), media_type="text/event-stream")


async def _events(
    first: SearchAnswer, answers: Iterator[SearchAnswer], cancelled: threading.Event
) -> AsyncIterator[str]:
    try:
        answer: SearchAnswer | None = first
        while answer is not None:
            yield f"event: answer\ndata: {answer.model_dump_json()}\n\n"
            answer = await run_in_threadpool(next, answers, None)
    except asyncio.CancelledError:  # nobody listens any more
        cancelled.set()
        raise
    except Cancelled:
        return
    except Exception as error:
        yield f"event: problem\ndata: {bytes(of_error(error).body).decode()}\n\n"


def _json(answer: BaseModel) -> Response:
    """An answer as it is: FastAPI would check it again, and write it by way of dictionaries."""
    return Response(answer.model_dump_json(), media_type="application/json")


class PatchesAnswer(BaseModel):
    """The grid in which the model sees a photo. left, top, right, bottom: of the part it sees, in percent."""

    rows: int
    columns: int
    left: float
    top: float
    right: float
    bottom: float
    width: int = Field(description="of the photo, in pixels")
    height: int


@router.get("/libraries/{library}/patches")
def patches(library: str, server: At, image: Image = None, upload: Upload = None) -> PatchesAnswer:
    """Where the patches of a photo lie, of which some can be marked as `region`."""
    opened = server.shelf.library(library)
    index = opened.unsteered_index()
    grid = patch_grid(opened.place, index.key)
    if server.image(library, image, upload) is None or grid is None:
        raise ArgumentError("image", image, "patches are those of a query photo, in a library with regions")
    width, height = server.size(library, image, upload)
    seen = VectorSettings.from_dict(index.preprocessing).preprocess.region((width, height))
    left, top, right, bottom = (
        100 * side / whole for side, whole in zip(seen, (width, height) * 2, strict=True)
    )
    rows, columns = grid
    return PatchesAnswer(
        rows=rows,
        columns=columns,
        left=left,
        top=top,
        right=right,
        bottom=bottom,
        width=width,
        height=height,
    )


# ------------------------------------------------------------------------------------------------------- dial and map


class DialAnswer(BaseModel):
    """Photos at one gate_scale, every one of them steered."""

    gate_scale: float
    seconds: float
    image_ids: list[str]
    scores: list[float | None] = Field(description="null of a photo that cannot be read")
    vmax: list[float]
    query_layers: list[list[str]] = Field(
        description="under each focus the heatmaps of the query photos, PNG in base64"
    )
    layers: list[list[str | None]] = Field(description="under each focus those of the photos")


@router.get("/libraries/{library}/dial")
def dial(
    library: str,
    server: At,
    photos: Annotated[list[str], Query(max_length=60)],
    focus: FocusTexts,
    image: Images = [],  # noqa: B006
    upload: UploadIds = [],  # noqa: B006
    any_of: AnyOf = False,
    gate_scale: GateScale = 1.0,
) -> DialAnswer:
    """The query photos and some others, steered anew at another gate_scale."""
    began = time.monotonic()
    opened, its_photos = server.shelf.library(library), server.shelf.photos(library)
    queries = server.images(library, image, upload)
    focuses = opened.resolve(_focuses(focus))
    files = [its_photos.file(id) for id in photos]
    found = server.engine.run(
        lambda: server.dial.turn(opened, queries, focuses, files, gate_scale, any_of=any_of)
    )
    listed = its_photos.now()
    sizes = [one.size for one in listed.of(image)] + list(map(server.uploads.size, upload))
    sizes += [one.size for one in listed.of(photos)]
    ranges = [shared_vmax([one for one in maps if one is not None]) for maps in found.heatmaps]
    layers = [
        [
            None if one is None else _base64(heat_layer(one, top, of.index, shape))
            for one, shape in zip(maps, sizes, strict=True)
        ]
        for maps, top, of in zip(found.heatmaps, ranges, focuses, strict=True)
    ]
    return DialAnswer(
        gate_scale=gate_scale,
        seconds=time.monotonic() - began,
        image_ids=photos,
        scores=[float(score) if np.isfinite(score) else None for score in found.scores],
        vmax=ranges,
        query_layers=[[layer or "" for layer in row[: len(queries)]] for row in layers],
        layers=[row[len(queries) :] for row in layers],
    )


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


class MapAnswer(BaseModel):
    """A map: a point for each photo, in the order of the list of photos."""

    list_id: str = Field(description="of the list of photos")
    focus: str | None
    method: Method
    explained: float | None = Field(description="share of the variance that the two axes show; null for UMAP")
    total: int = Field(description="photos of the library")
    count: int = Field(description="photos that have a vector, and so a point")
    points: str = Field(
        description="(total, 2) uint16, little-endian, in base64: 0 is -1, 65534 is 1; 65535: the photo has no point"
    )


@router.get("/libraries/{library}/map", response_model=MapAnswer)
def map_of(library: str, server: At, focus: str | None = None, method: Method = "pca") -> Response:
    """The library in the plane, under an indexed prompt or by unsteered vectors, turned to lie like these."""
    its_photos = server.shelf.photos(library).now()
    found = server.maps.of(server.shelf.library(library), focus, method)
    points = found.of(its_photos)
    has_point = np.isfinite(points[:, 0])
    whole = np.where(has_point[:, None], np.rint((np.nan_to_num(points) + 1) * 32767), _NO_POINT)
    return _json(
        MapAnswer(
            list_id=its_photos.id,
            focus=focus or None,
            method=method,
            explained=found.explained,
            total=len(its_photos),
            count=int(has_point.sum()),
            points=_base64(whole.astype("<u2").tobytes()),
        )
    )


class LikeRequest(BaseModel):
    more: list[str] = Field(default=[], max_length=1000, description="image_ids to lead to")
    less: list[str] = Field(default=[], max_length=1000, description="image_ids to lead away from")
    focus: str | None = Field(
        default=None, description="compare under this indexed prompt; null: whole photos"
    )
    k: Annotated[int, Field(ge=1, le=_MOST_HITS)] = 24


@router.post("/libraries/{library}/like")
def like(library: str, wanted: LikeRequest, server: At) -> SearchAnswer:
    """Photos near the mean of some and far from that of others (Rocchio), by vectors alone: no photo is searched
    with, and nothing is steered."""
    began = time.monotonic()
    opened, its_photos = server.shelf.library(library), server.shelf.photos(library).now()
    index = opened.find_prompt_index(wanted.focus) if wanted.focus else opened.unsteered_index()
    gallery = opened.gallery(index)
    cosines = rocchio(gallery, wanted.more, wanted.less)
    spread = float(cosines.std()) or 1.0
    best = np.argsort(-cosines, kind="stable")[: wanted.k].tolist()
    photos = its_photos.of([gallery.value("image_id", row) for row in best])
    known = set(gallery.table.column("image_id").to_pylist())
    chosen = " and ".join(
        f"{what} the mean of {_counted(ids, known)} chosen"
        for what, ids in (("near", wanted.more), ("far from", wanted.less))
        if ids
    )
    under = f" under “{wanted.focus}”" if wanted.focus else ", unsteered vectors"
    return SearchAnswer(
        is_exact=not gallery.missing,
        is_guess=False,
        is_enough=True,
        is_final=True,
        compared=len(gallery),
        of=len(gallery) + gallery.missing,
        unreadable=0,
        undated=0,
        text=f"{chosen}{under} (Rocchio’s rule)",
        seconds=time.monotonic() - began,
        list_id=its_photos.id,
        focuses=[],
        unsteered_model=None if wanted.focus else index.model_id,
        hits=[
            HitAnswer(
                **PhotoRow.of(photo).model_dump(),
                rank=rank,
                score=float(cosines[row]),
                z=(float(cosines[row]) - float(cosines.mean())) / spread,
                parts=[],
                copies=[],
                **states(_state(opened, photo, gallery, row)),
            )
            for rank, (photo, row) in enumerate(zip(photos, best, strict=True), start=1)
        ],
    )


def _state(library: Library, photo: Photo, gallery: Snapshot, row: int) -> FileState:
    """What has become of the file of a photo. row: of the gallery, that of the photo or of a copy."""
    path, size, mtime_ns = (gallery.value(column, row) for column in ("path", "size", "mtime_ns"))
    return library.state_of(photo.path, (size, mtime_ns) if path == photo.path else None)


def _counted(ids: Sequence[str], known: set[str]) -> str:
    """How many different ids there are, and how many of them have a vector."""
    count, lacking = len(set(ids)), len(set(ids) - known)
    return (
        f"{count:,}" if not lacking else f"{count - lacking:,} (of {count:,}; the others have no vector here)"
    )


# ----------------------------------------------------------------------------------------------------------------- jobs


class JobRequest(BaseModel):
    prompts: list[Annotated[str, Field(min_length=1, max_length=20_000)]] = Field(
        default=[], max_length=64, description="to index; none: bring all prompts of the library up to date"
    )


class JobAnswer(BaseModel):
    id: str
    library: str
    prompts: list[str]
    state: str
    done: int
    total: int
    images_per_s: float
    added: int | None
    skipped: int | None
    error: str | None

    @classmethod
    def of(cls, job: Job) -> JobAnswer:
        event, counts = job.progress, job.counts
        return cls(
            id=job.id,
            library=job.library,
            prompts=list(job.prompts),
            state=job.state.value,
            done=0 if event is None else event.done,
            total=0 if event is None else event.total,
            images_per_s=0.0 if event is None else event.images_per_s,
            added=None if counts is None else counts.added,
            skipped=None if counts is None else counts.skipped,
            error=job.error,
        )


@router.post("/libraries/{library}/jobs", status_code=202)
def add_job(library: str, wanted: JobRequest, server: At) -> JobAnswer:
    """Index the library under prompts, in the background."""
    server.shelf.library(library)
    prompts = [focus.text for focus in as_focuses(wanted.prompts)] if wanted.prompts else []
    return JobAnswer.of(server.jobs.add(library, prompts))


@router.get("/jobs")
def jobs(server: At) -> list[JobAnswer]:
    """The newest first."""
    return [JobAnswer.of(job) for job in server.jobs.all()]


@router.get("/jobs/{job}")
def job(job: str, server: At) -> JobAnswer:
    """How far a job is."""
    return JobAnswer.of(server.jobs.job(job))


@router.delete("/jobs/{job}")
def cancel_job(job: str, server: At) -> JobAnswer:
    """Stop a job; what was computed is kept."""
    return JobAnswer.of(server.jobs.cancel(job))
