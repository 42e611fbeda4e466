"""Answers of the REST interface as typed records, which OpenAPI describes."""

from __future__ import annotations

import math
from typing import TypedDict

from pydantic import BaseModel, Field

from steersearch.indexer.folders import FileState
from steersearch.indexer.hits import Hit, Hits
from steersearch.indexer.manifest import PromptIndex, UnsteeredIndex
from steersearch.indexer.query_terms import Focus
from steersearch.web.photos import Photo, PhotoList


class PromptRow(BaseModel):
    """A prompt index of a library."""

    prompt: str
    model: str
    gate_scale: float
    view: str | None
    photos: int | None = Field(description="photos that have a vector under it; null: not counted")
    missing: int | None = Field(description="photos that have none yet")


class LibraryRow(BaseModel):
    """A library in the list."""

    id: str
    folders: list[str] = Field(description="all its photo folders; of one that cannot be opened its place")
    name: str
    is_there: bool = Field(description="whether all its photo folders can be reached now")
    problem: str | None = Field(None, description="why it cannot be opened")


class LibraryAnswer(LibraryRow):
    """What a library holds."""

    model: str
    photos: int | None = Field(description="null: not counted")
    skipped: int | None
    has_unsteered: bool = Field(
        description="whether any focus can be searched at once, and whole photos compared"
    )
    bytes_on_disk: int | None
    prompts: list[PromptRow]


class PhotoRow(BaseModel):
    """A photo. path: relative to the library's folder."""

    image_id: str
    number: int = Field(description="in the list of photos, from 0, the newest first")
    path: str
    width: int
    height: int
    date: str | None
    date_source: str | None

    @classmethod
    def of(cls, photo: Photo) -> PhotoRow:
        date = photo.date
        return cls(
            image_id=photo.id,
            number=photo.number,
            path=shown(photo.path),
            width=photo.width,
            height=photo.height,
            date=None if date is None else date.iso,
            date_source=None if date is None else date.source,
        )


class PhotosAnswer(BaseModel):
    """A page of photos, the newest first."""

    list_id: str = Field(description="of the list of all photos; numbers hold for it alone")
    total: int
    photos: list[PhotoRow]


class SkipRow(BaseModel):
    path: str
    reason: str


class FocusAnswer(BaseModel):
    """A focus of a search, and the prompt index that answered."""

    prompt: str
    weight: float
    model: str
    gate_scale: float
    view: str | None
    remarks: list[str] = Field(description="what the model cannot read of the prompt")
    vmax: float = Field(description="the top of the one colour range of its heatmaps")


class PartAnswer(BaseModel):
    """A photo under one focus: its cosine, of a find its presence."""

    prompt: str
    score: float


class HitAnswer(PhotoRow):
    """A result, best first."""

    rank: int
    score: float
    z: float | None
    parts: list[PartAnswer]
    copies: list[str]
    copies_gone: list[str] = Field([], description="those of `copies` whose files are gone")
    is_gone: bool
    is_away: bool = Field(False, description="whether it is gone because its photo folder is")
    is_changed: bool = Field(
        False, description="whether its file has another size or time than when it was indexed"
    )
    layer: str | None = Field(
        None, description="where it matches the marked region: PNG in base64, to be laid over the photo"
    )


class SearchAnswer(BaseModel):
    """The hits of a search, and among what: `is_exact` is false if some photos were not compared; `text` says how many
    were, and why the model may well be wrong. `is_final`: nothing better will follow."""

    is_exact: bool
    is_guess: bool
    is_enough: bool
    is_final: bool
    compared: int
    of: int
    unreadable: int
    undated: int
    text: str
    seconds: float
    list_id: str = Field(description="of the list of photos that the numbers of the hits hold for")
    focuses: list[FocusAnswer]
    unsteered_model: str | None
    hits: list[HitAnswer]


def search_answer(
    hits: Hits,
    photos: PhotoList,
    vmax: list[float],
    layers: list[str | None],
    seconds: float,
    *,
    is_final: bool,
) -> SearchAnswer:
    """`hits` as an answer. photos: of the library.  vmax: of the heatmaps under each focus.  layers: see
    `HitAnswer.layer`."""
    searched = hits.searched
    return SearchAnswer(
        is_exact=searched.is_exact,
        is_guess=searched.is_guess,
        is_enough=not searched.is_too_little,
        is_final=is_final,
        compared=searched.compared,
        of=searched.of,
        unreadable=searched.unreadable,
        undated=searched.undated,
        text=str(searched) if searched.doubt is None else f"{searched}; {searched.doubt}",
        seconds=seconds,
        list_id=photos.id,
        focuses=[_focus(focus, top) for focus, top in zip(searched.focuses, vmax, strict=True)],
        unsteered_model=None if searched.unsteered is None else searched.unsteered.model_id,
        hits=list(map(_hit, hits, photos.of([hit.image_id for hit in hits]), layers)),
    )


def _focus(focus: Focus, vmax: float) -> FocusAnswer:
    index: PromptIndex | UnsteeredIndex = focus.index
    return FocusAnswer(
        prompt=focus.text,
        weight=focus.weight,
        model=index.model_id,
        gate_scale=focus.index.gate_scale,
        view=index.view,
        remarks=focus.remarks,
        vmax=vmax,
    )


def _hit(hit: Hit, photo: Photo, layer: str | None) -> HitAnswer:
    row = PhotoRow.of(photo).model_dump()
    row["path"] = shown(hit.name)
    return HitAnswer(
        **row,
        rank=hit.rank,
        score=hit.score,
        z=None if math.isnan(hit.z) else hit.z,
        parts=[PartAnswer(prompt=part.prompt, score=part.score) for part in hit.parts],
        copies=[shown(hit.shown(path)) for path in hit.copies],
        copies_gone=[shown(hit.shown(path)) for path in hit.copies if hit.state_of_copy(path)],
        **states(hit.state),
        layer=layer,
    )


class States(TypedDict):
    """The fields of a `HitAnswer` for what has become of its file."""

    is_gone: bool
    is_away: bool
    is_changed: bool


def states(state: FileState) -> States:
    return States(is_gone=state in ("gone", "away"), is_away=state == "away", is_changed=state == "changed")


def shown(path: str) -> str:
    """A path as text for JSON, whatever bytes it has."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
