"""One self-contained HTML page of results: the query photo, if there is one, and per search the hits with their
heatmaps."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

import steersearch
from steersearch.core.heatmaps import layer, overlay, shared_vmax, strengths
from steersearch.core.vectors import VectorSettings
from steersearch.indexer.hits import Hit, Hits
from steersearch.indexer.manifest import PromptIndex, UnsteeredIndex
from steersearch.indexer.query_terms import Focus
from steersearch.views.output import write_output
from steersearch.views.streams import escaped

Heatmap = npt.NDArray[np.float32]
Region = tuple[float, float, float, float]  # left, top, right, bottom, as parts of the picture's sides

PHOTO_SIDE = 720  # pixels, longer side, of the query photo
HIT_SIDE = 440
SMALL_SIDE = 128  # of a hit's photo under one of several focuses
FRAME = (255, 60, 172)  # of the marked region of the query photo
HEAT_SIDE = 160  # heatmaps are smooth, the browser enlarges them


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A photo and its heatmap, (Hp, Wp) on the patch grid, or None; region: the part of the photo that it covers."""

    name: str
    image: Image.Image
    heatmap: Heatmap | None
    region: Region = (0, 0, 1, 1)


@dataclass(frozen=True, kw_only=True)
class ShownHit:
    """shots: the photo under each focus of its search, without a focus once; scores: its cosine under each; month: the
    heading it stands under, "" for none; date: when it was taken, and what says so."""

    rank: int
    score: float
    shots: Sequence[Shot]
    scores: Sequence[float]
    month: str = ""
    date: str = ""


@dataclass(frozen=True, kw_only=True)
class ShownSearch:
    """The hits for one or several focuses or none, and the query photo under each, unless the search was by text.

    note: how they were found.  full: the score whose bar is full.  is_marked: whether a region of the query photo was
    searched with.
    """

    focuses: Sequence[Focus]
    note: str
    query: Sequence[Shot]
    hits: Sequence[ShownHit]
    full: float = 1.0
    is_marked: bool = False


def write_page(file: Path, results: Sequence[Hits]) -> None:
    """Write the hits of queries, each with its query photo, or those of a find, as one page.

    Raises OutputError if `file` cannot be written, ImageError if a query photo cannot be read.
    """
    write_output(file, render_page([_shown(hits) for hits in results]).encode())


def render_page(searches: Sequence[ShownSearch]) -> str:
    """The page as HTML that needs no other file. Its head shows the query photo, if all searches have the same one."""
    import jinja2  # which a search without a page does not load

    query = searches[0].query[0] if len(_queried(searches)) == 1 else None
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        (files("steersearch.views") / "templates" / "page.html").read_text("utf-8")
    )
    title, lead = _headline(searches)
    return template.render(
        title=title,
        lead=lead,
        version=steersearch.__version__,
        photo=_photo_uri(query.image, PHOTO_SIDE) if query else "",
        photo_name=query.name if query else "",
        legend=_legend_uri(),
        searches=[_fields(search) for search in searches],
    )


def _queried(searches: Sequence[ShownSearch]) -> set[str]:
    """The names of the query photos."""
    return {search.query[0].name for search in searches if search.query}


def _headline(searches: Sequence[ShownSearch]) -> tuple[str, str]:
    """Title and opening sentence."""
    if len(searches) > 1:
        count, photos = _in_words(len(searches)), len(_queried(searches))
        if photos > 1:
            return (
                f"{_in_words(photos).capitalize()} photos, {count} searches",
                "Each query photo, searched once for each focus. The prompt steers the image encoder itself, "
                "so each ranking follows its focus.",
            )
        return (
            f"One photo, {count} focuses",
            "The same query photo, searched once for each focus. The prompt steers the image encoder itself, "
            "so each ranking follows its focus.",
        )
    focuses = searches[0].focuses
    if searches[0].is_marked:
        also = f" and are similar in “{focuses[0].text}”" if focuses else ""
        return (
            f"Photos that match the marked region{also}",
            "The patches of the region are compared with the regions of each photo.",
        )
    if not focuses:
        return (
            "Photos similar as a whole",
            "Ranked by plain similarity of whole photos, without a focus: the image encoder was not steered.",
        )
    if not searches[0].query:
        return (
            f"Photos that show “{focuses[0].text}”",
            "The most certain first: photos in which the steered image encoder finds what the prompt names, and "
            "photos that resemble them.",
        )
    if len(focuses) > 1:
        wanted = [f"“{focus.text}”" for focus in focuses if focus.weight > 0]
        unwanted = [f"“{focus.text}”" for focus in focuses if focus.weight < 0]
        like = [f"similar in {_listed(wanted)}"] if wanted else []
        unlike = [f"different in {_listed(unwanted)}"] if unwanted else []
        return (
            f"Photos {', '.join(like + unlike)}",
            "Ranked by all focuses at once: each steers the image encoder separately, and the score is the "
            "weighted mean.",
        )
    return (
        f"Photos similar in “{focuses[0].text}”",
        "Ranked by similarity in the focus, not overall: the prompt steers the image encoder itself.",
    )


def _in_words(count: int) -> str:
    return {2: "two", 3: "three", 4: "four"}.get(count, str(count))


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _shown(hits: Hits) -> ShownSearch:
    focuses, photo = hits.searched.focuses, hits.query
    query, full = [], 1.0
    if photo is None:
        full = max((hit.score for hit in hits if hit.score > 0), default=full)
    else:
        name, image = escaped(photo.path.name), photo.picture.image
        if hits.searched.region is not None:
            image = _framed(image, hits.searched.region.in_pixels(photo.picture.size), photo.picture.size)
            if focuses:  # then scores are standard deviations
                full = max((hit.score for hit in hits if hit.score > 0), default=full)
        query = [_shot(name, image, photo.heatmap(focus.index), focus.index) for focus in focuses]
        query = query or [Shot(name=name, image=image, heatmap=None)]
    return ShownSearch(
        focuses=focuses,
        note=_note(hits),
        query=query,
        hits=_shown_hits(hits),
        full=full,
        is_marked=hits.searched.region is not None,
    )


def _framed(image: Image.Image, box: Region, size: tuple[int, int]) -> Image.Image:
    """A copy of the photo, which has `size` in full, with a frame around the box."""
    copy = image.copy()
    x, y = image.width / size[0], image.height / size[1]
    frame = (box[0] * x, box[1] * y, box[2] * x, box[3] * y)
    ImageDraw.Draw(copy).rectangle(frame, outline=FRAME, width=max(2, max(image.size) // 150))
    return copy


def _shown_hits(hits: Hits) -> list[ShownHit]:
    shown = []
    for hit in hits:
        image = hit.photo
        name, *copies = (escaped(hit.shown(path)) for path in (hit.path, *hit.copies))
        name += (f" ({hit.lost})" if hit.lost else "") + (f" (also {', '.join(copies)})" if copies else "")
        shots = [
            _shot(name, image, heatmap, part.focus.index)
            for heatmap, part in zip(hit.heatmaps, hit.parts, strict=True)
        ]
        if not shots and hit.match is not None:
            shots = [_shot(name, image, hit.match, hits.searched.index)]
        shots = shots or [Shot(name=name, image=image, heatmap=None)]
        scores = [part.score for part in hit.parts] or [hit.score]
        month = "" if hits.sorted == "score" else _month(hit)
        date = "" if hit.date is None else str(hit.date)
        shown.append(
            ShownHit(rank=hit.rank, score=hit.score, shots=shots, scores=scores, month=month, date=date)
        )
    return shown


def _month(hit: Hit) -> str:
    """What hits in the order of their dates are grouped by: "May 2019"; the year alone where no more is known."""
    if hit.date is None:
        return "No date"
    return hit.date.moment.strftime("%Y" if hit.date.precision == "year" else "%B %Y")


def _note(hits: Hits) -> str:
    """What was compared, in which prompt indexes, and the alternatives."""
    indexes = (
        [focus.index for focus in hits.searched.focuses] if hits.searched.focuses else [hits.searched.index]
    )
    notes = [str(hits.searched), *map(_described, indexes)]
    notes += [escaped(str(hits.searched.doubt))] if hits.searched.doubt else []
    for focus in hits.searched.focuses:
        notes += map(escaped, focus.remarks)
        if focus.others:
            notes.append(f"others of “{focus.index.prompt}”: " + ", ".join(map(_described, focus.others)))
    return "; ".join(dict.fromkeys(notes))


def _described(index: PromptIndex | UnsteeredIndex) -> str:
    view = "" if index.view is None else f", view {index.view}"
    if isinstance(index, UnsteeredIndex):
        return f"unsteered vectors of model {Path(index.model_id).name}{view}"
    return f"model {Path(index.model_id).name}, gate scale {index.gate_scale:g}{view}"


def _shot(name: str, image: Image.Image, heatmap: Heatmap, index: PromptIndex | UnsteeredIndex) -> Shot:
    return Shot(name=name, image=image, heatmap=heatmap, region=_region(index, image))


def _region(index: PromptIndex | UnsteeredIndex, image: Image.Image) -> Region:
    """The part of the picture that the model saw."""
    left, top, right, bottom = VectorSettings.from_dict(index.preprocessing).preprocess.region(image.size)
    return left / image.width, top / image.height, right / image.width, bottom / image.height


def _fields(search: ShownSearch) -> dict[str, Any]:
    """The template's variables; under each focus the query photo and all hits share one colour scale."""
    several = len(search.focuses) > 1
    shown = [*([search.query] if search.query else []), *(hit.shots for hit in search.hits)]
    maps = ([shots[i].heatmap for shots in shown] for i in range(len(search.focuses) or 1))
    ranges = [shared_vmax([heatmap for heatmap in of_one if heatmap is not None]) for of_one in maps]
    names = [_focus_fields(focus, is_first=i == 0) for i, focus in enumerate(search.focuses)]
    names = names or [{"prompt": "the region" if search.is_marked else ""}]

    def parts(shots: Sequence[Shot], scores: Sequence[float | None]) -> list[dict[str, Any]]:
        return [
            {**name, "heat": _heat_uri(shot, vmax), "score": score, "bar": _bar(score or 0.0)}
            for name, shot, vmax, score in zip(names, shots, ranges, scores, strict=True)
        ]

    return {
        "several": several,
        "note": search.note,
        "is_marked": search.is_marked,
        "focuses": names if search.focuses else [],
        "photo": _photo_uri(search.query[0].image, PHOTO_SIDE) if search.query else "",
        "photo_name": search.query[0].name if search.query else "",
        "query": parts(search.query, [None] * len(names)) if search.query else [],
        "hits": [
            {
                "rank": hit.rank,
                "score": hit.score,
                "bar": _bar(hit.score / search.full),
                "name": hit.shots[0].name,
                "month": hit.month,
                "date": hit.date,
                "photo": _photo_uri(hit.shots[0].image, HIT_SIDE),
                "small": _photo_uri(hit.shots[0].image, SMALL_SIDE) if several else "",
                "parts": parts(hit.shots, hit.scores),
            }
            for hit in search.hits
        ],
    }


def _focus_fields(focus: Focus, *, is_first: bool) -> dict[str, str]:
    """A focus as a term of a sum: its sign (none before the first, unless it is a minus), its weight unless 1."""
    sign = "−" if focus.weight < 0 else "" if is_first else "+"
    size = abs(focus.weight)
    return {"prompt": focus.text, "sign": sign, "weight": "" if size == 1 else f"{size:g} ×"}


def _bar(score: float) -> float:
    """A score as the length of its bar, in %; nothing for a negative one."""
    return 100 * min(max(score, 0.0), 1.0)


def _photo_uri(image: Image.Image, side: int) -> str:
    image = image.convert("RGB")
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _data_uri(image, "jpeg", quality=84)


def _heat_uri(shot: Shot, vmax: float) -> str:
    """The heatmap layer that the page lays over the grey photo, in the photo's shape; "" where there is none."""
    if shot.heatmap is None:
        return ""
    scale = HEAT_SIDE / max(shot.image.size)
    width, height = (max(1, round(scale * side)) for side in shot.image.size)
    left, top, right, bottom = shot.region
    region = (left * width, top * height, right * width, bottom * height)
    return _data_uri(layer(strengths(shot.heatmap, vmax), (width, height), region), "webp", quality=80)


def _legend_uri() -> str:
    """The colour scale, over mid grey."""
    ramp = np.linspace(0, 1, 128, dtype=np.float32)[None]
    return _data_uri(overlay(Image.new("RGB", (128, 4), (150, 150, 150)), ramp), "png")


def _data_uri(image: Image.Image, kind: str, **options: Any) -> str:
    encoded = io.BytesIO()
    image.save(encoded, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(encoded.getvalue()).decode()}"
