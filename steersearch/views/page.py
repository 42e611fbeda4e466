"""One HTML page of results: per search the query photo, if there is one, and the hits with their heatmaps."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

import steersearch
from steersearch.core.heatmaps import OUTLINE, layer, overlay, shared_vmax, strengths
from steersearch.core.images.dates import CaptureDate
from steersearch.core.objects import ObjectPath
from steersearch.core.vectors import VectorSettings
from steersearch.indexer.hits import Hit, Hits
from steersearch.indexer.manifest import PromptIndex, UnsteeredIndex
from steersearch.indexer.query_photo import QueryPhoto
from steersearch.indexer.query_terms import Focus
from steersearch.indexer.region import Part, parts_of
from steersearch.views.output import refuse_impossible, write_output
from steersearch.views.page_pictures import Beside, Inside, Pictures, link
from steersearch.views.streams import escaped

Heatmap = npt.NDArray[np.float32]
Region = tuple[float, float, float, float]  # left, top, right, bottom, as parts of the picture's sides

MOST_INSIDE = 50  # hits whose pictures are in the page itself
REGION = "the region"
PHOTO_SIDE = 480  # pixels, longer side of a photo
HEAT_SIDE = 160  # heatmaps are smooth; the browser enlarges them


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A photo, at most PHOTO_SIDE pixels each way, and its heatmaps.

    heatmaps: (Hp, Wp) on the patch grid, all of the search; on a query photo perhaps fewer.
    regions: the part of the photo that each covers.  link: its file; "" where it is gone.
    """

    name: str
    image: Image.Image
    heatmaps: Sequence[Heatmap] = ()
    regions: Sequence[Region] = ()
    link: str = ""


@dataclass(frozen=True, kw_only=True)
class ShownHit:
    """scores: its cosine under each focus.  presences: under each focus; NaN where it is not known.

    month: the heading it stands under, "" for none.
    """

    shot: Shot
    rank: int
    score: float
    scores: Sequence[float] = ()
    presences: Sequence[float] = ()
    date: CaptureDate | None = None
    month: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class ShownSearch:
    """The hits for one or several focuses or none, and the query photo, unless the search was by text.

    hits: iterated once, so that only one photo is in memory at a time.
    status: how they were found, exactly or not.  remarks: what else to know.  method: which indexes, and which others.
    maps: names of the heatmaps, of each focus and then of the marked region; none if nothing was steered.
    more: further query photos.
    tops: the upper ends of their colour scales, see `shared_vmax`.  full: the score whose bar is full.
    is_marked: whether a region of the query photo was searched with.
    """

    focuses: Sequence[Focus]
    status: str
    is_exact: bool = True
    remarks: Sequence[str] = ()
    method: Sequence[str] = ()
    query: Shot | None
    more: Sequence[Shot] = ()
    hits: Iterable[ShownHit]
    maps: Sequence[str] = ()
    tops: Sequence[float] = ()
    full: float = 1.0
    is_marked: bool = False


def write_page(file: Path, results: Sequence[Hits]) -> None:
    """Write the hits of queries, each with its query photo, or those of a find, as one page.

    It needs no other file, except that more than MOST_INSIDE hits have their pictures in a folder beside it.
    Raises OutputError if that cannot be written, ImageError if a query photo cannot be read.
    """
    refuse_impossible(file)
    beside = Beside(file)
    pictures = beside if sum(map(len, results)) > MOST_INSIDE else Inside()
    folder = file.parent.resolve()
    write_output(file, render_page([_shown(hits, folder) for hits in results], pictures).encode())
    beside.sweep()


def render_page(searches: Sequence[ShownSearch], pictures: Pictures) -> str:
    """The page as HTML."""
    import jinja2  # a search without a page does not load it

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"score": _in_digits, "bar": _bar}
    template = environment.from_string(
        (files("steersearch.views") / "templates" / "page.html").read_text("utf-8")
    )
    title, lead = _headline(searches)
    return template.render(
        title=title,
        lead=lead,
        version=steersearch.__version__,
        legend=_legend(pictures) if any(search.maps for search in searches) else "",
        most_maps=max(len(search.maps) for search in searches),
        searches=[_fields(search, pictures) for search in searches],
    )


# ----------------------------------------------------------------------------------------------------- its content


def _shown(hits: Hits, folder: Path) -> ShownSearch:
    """folder: of the page."""
    searched, full = hits.searched, 1.0
    focuses = () if searched.is_guess else searched.focuses
    if hits.query is None or (searched.region and focuses):  # scores in standard deviations
        full = max((hit.score for hit in hits if hit.score > 0), default=full)
    photos = () if hits.query is None else hits.query.photos
    parts = [None] * len(photos) if searched.region is None else parts_of(searched.region)
    queries = [_shown_query(photo, part, focuses, folder) for photo, part in zip(photos, parts, strict=True)]
    shown = [_heatmaps(hit, focuses) for hit in hits]
    names = [focus.text for focus in focuses] + ([REGION] if searched.region else [])
    names = names if hits or queries else []
    return ShownSearch(
        focuses=searched.focuses,
        status=_status(hits),
        is_exact=searched.is_exact,
        remarks=_remarks(hits),
        method=_method(hits),
        query=queries[0] if queries else None,
        more=queries[1:],
        hits=(_shown_hit(hit, focuses, folder, by_month=hits.sorted != "score") for hit in hits),
        maps=names,
        tops=[
            shared_vmax([maps[i] for maps in (*shown, *(one.heatmaps for one in queries)) if i < len(maps)])
            for i in range(len(names))
        ],
        full=full,
        is_marked=searched.region is not None,
    )


def _shown_query(photo: QueryPhoto, part: Part | None, focuses: Sequence[Focus], folder: Path) -> Shot:
    """part: that is marked."""
    image = photo.picture.image.copy()
    image.thumbnail((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.LANCZOS)
    if part is not None:
        size = photo.picture.size
        boxes = [box.in_pixels(size) for box in part.boxes]
        frames = [[side * image.size[i % 2] / size[i % 2] for i, side in enumerate(box)] for box in boxes]
        for line, width in zip(reversed(OUTLINE), (7, 4), strict=True):  # seen on anything, in grey too
            for frame in frames:
                ImageDraw.Draw(image).rectangle(frame, outline=line, width=width)
    heatmaps = [photo.heatmap(focus.index) for focus in focuses]
    return Shot(
        name=escaped(photo.path.name),
        image=image,
        heatmaps=heatmaps,
        regions=[_region(focus.index, image) for focus in focuses],
        link=_link(photo.path, folder),
    )


def _heatmaps(hit: Hit, focuses: Sequence[Focus]) -> list[Heatmap]:
    """Under each focus, then of the marked region."""
    return [*(hit.heatmaps if focuses else ()), *(() if hit.match is None else (hit.match,))]


def _shown_hit(hit: Hit, focuses: Sequence[Focus], folder: Path, *, by_month: bool) -> ShownHit:
    copies = []
    for path in hit.copies:
        state = hit.state_of_copy(path)
        copies.append(escaped(hit.shown(path)) + (f" ({state})" if state else ""))
    notes = ([hit.state] if hit.state else []) + ([f"also {', '.join(copies)}"] if copies else [])
    image, heatmaps = hit.photo_within(PHOTO_SIDE), _heatmaps(hit, focuses)
    indexes: list[PromptIndex | UnsteeredIndex] = [focus.index for focus in focuses]
    indexes = indexes or [hit.searched.index]
    regions = [_region(index, image) for index, _ in zip([*indexes, indexes[0]], heatmaps)]  # noqa: B905
    return ShownHit(
        shot=Shot(
            name=escaped(hit.name),
            image=image,
            heatmaps=heatmaps,
            regions=regions,
            link=_link(hit.path, folder),
        ),
        rank=hit.rank,
        score=hit.score,
        scores=[part.score for part in hit.parts],
        presences=hit.presences if focuses else (),
        date=hit.date,
        month=_month(hit) if by_month else "",
        note="; ".join(notes),
    )


def _link(path: Path, folder: Path) -> str:
    """Relative if below the page's folder, so that both can be moved together; "" for a file that is gone."""
    if isinstance(path, ObjectPath):  # which a browser cannot open
        return ""
    path = Path(os.path.realpath(path.parent)) / path.name
    if not os.path.exists(path):
        return ""
    return link(path.relative_to(folder)) if path.is_relative_to(folder) else path.as_uri()


def _region(index: PromptIndex | UnsteeredIndex, image: Image.Image) -> Region:
    """The part of the picture that the model saw."""
    left, top, right, bottom = VectorSettings.from_dict(index.preprocessing).preprocess.region(image.size)
    return left / image.width, top / image.height, right / image.width, bottom / image.height


# ------------------------------------------------------------------------------------------------------------ in words


def _headline(searches: Sequence[ShownSearch]) -> tuple[str, str]:
    """The title, and in what sense hits are similar."""
    if len(searches) > 1:
        photos = len({search.query.name for search in searches if search.query})
        counts = f"{_in_words(len(searches))} {'focuses' if photos < 2 else 'searches'}"
        title = "One photo" if photos < 2 else f"{_in_words(photos).capitalize()} photos"
        return (
            f"{title}, {counts}",
            "The prompt steers the image encoder itself, so each ranking follows its focus.",
        )
    (search,) = searches
    if search.is_marked:
        also = f" and are similar in “{search.focuses[0].text}”" if search.focuses else ""
        return (
            f"Photos that match the marked region{also}",
            "The patches of the region are compared with the regions of each photo.",
        )
    if not search.focuses:
        return "Photos similar as a whole", "Whole photos are compared: the image encoder is not steered."
    if search.query is None:
        return (
            f"Photos that show “{search.focuses[0].text}”",
            "The surest first: photos in which the steered image encoder sees what the prompt names, and photos that "
            "resemble them.",
        )
    wanted, unwanted = (
        [f"“{focus.text}”" for focus in search.focuses if sign * focus.weight > 0] for sign in (1, -1)
    )
    like = [f"similar in {_listed(wanted)}"] if wanted else []
    unlike = [f"different in {_listed(unwanted)}"] if unwanted else []
    several = "Each focus steers the image encoder, and the score is the weighted mean."
    one = "Photos are compared in the focus, not overall: the prompt steers the image encoder itself."
    return f"Photos {', '.join(like + unlike)}", several if len(search.focuses) > 1 else one


def _in_words(count: int) -> str:
    return {2: "two", 3: "three", 4: "four"}.get(count, str(count))


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _month(hit: Hit) -> str:
    """The group of a hit in the order of dates: "May 2019", or the year alone if no more is known."""
    if hit.date is None:
        return "No date"
    return hit.date.moment.strftime("%Y" if hit.date.precision == "year" else "%B %Y")


def _status(hits: Hits) -> str:
    """Exact, or approximate over how many photos, and how many are shown."""
    searched = hits.searched
    return f"{searched}; {len(hits):,} of {searched.of:,} {'photo' if searched.of == 1 else 'photos'} shown"


def _remarks(hits: Hits) -> list[str]:
    """Why the answer may be wrong, and what the model did not read."""
    searched = hits.searched
    doubts = [escaped(str(searched.doubt))] if searched.doubt else []
    return doubts + [escaped(said) for focus in searched.focuses for said in focus.remarks]


def _method(hits: Hits) -> list[str]:
    """The prompt indexes that were searched, and the alternatives."""
    searched = hits.searched
    indexes: list[PromptIndex | UnsteeredIndex] = [focus.index for focus in searched.focuses]
    notes = [_described(index) for index in indexes or [searched.index]]
    for focus in searched.focuses:
        if focus.others:
            notes.append(f"others of “{focus.index.prompt}”: " + ", ".join(map(_described, focus.others)))
    return list(dict.fromkeys(notes))


def _described(index: PromptIndex | UnsteeredIndex) -> str:
    view = "" if index.view is None else f", view {index.view}"
    if isinstance(index, UnsteeredIndex):
        return f"unsteered vectors of model {Path(index.model_id).name}{view}"
    return f"model {Path(index.model_id).name}, gate scale {index.gate_scale:g}{view}"


def _term(focus: Focus, *, is_first: bool) -> str:
    """A focus as a term of a sum: its sign (none before the first, unless it is a minus), its weight unless 1."""
    sign = "− " if focus.weight < 0 else "" if is_first else "+ "
    size = abs(focus.weight)
    return f"{sign}{'' if size == 1 else f'{size:g} × '}{focus.text}"


def _in_digits(value: float, digits: int = 3) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


# ------------------------------------------------------------------------------------------------- for the template


def _fields(search: ShownSearch, pictures: Pictures) -> dict[str, Any]:
    """The template's variables."""
    terms = [_term(focus, is_first=i == 0) for i, focus in enumerate(search.focuses)]
    return {
        "terms": terms,
        "maps": search.maps,
        "is_marked": search.is_marked,
        "status": search.status,
        "is_exact": search.is_exact,
        "remarks": search.remarks,
        "method": search.method,
        "queries": [_shot_fields(shot, search, pictures) for shot in (search.query, *search.more) if shot],
        "hits": _hit_fields(search, terms, pictures),
    }


def _hit_fields(search: ShownSearch, terms: Sequence[str], pictures: Pictures) -> Iterator[dict[str, Any]]:
    for hit in search.hits:
        presences = hit.presences or [math.nan] * len(terms)
        yield {
            **_shot_fields(hit.shot, search, pictures),
            "rank": hit.rank,
            "score": hit.score,
            "bar": hit.score / search.full,
            "parts": list(zip(terms, hit.scores, presences, strict=True)),
            "presence": presences[0] if len(terms) == 1 else math.nan,
            "date": hit.date,
            "month": hit.month,
            "note": hit.note,
        }


def _shot_fields(shot: Shot, search: ShownSearch, pictures: Pictures) -> dict[str, Any]:
    heat = zip(shot.heatmaps, shot.regions, search.tops)  # noqa: B905, a query photo may have fewer
    return {
        "name": shot.name,
        "link": shot.link,
        "photo": pictures.source(shot.image.convert("RGB"), "jpeg", quality=84),
        "layers": [pictures.source(_layer(shot.image, *one), "webp", quality=80) for one in heat],
        "size": shot.image.size,
    }


def _layer(photo: Image.Image, heatmap: Heatmap, seen: Region, top: float) -> Image.Image:
    """The heatmap that the page lays over the grey photo, in the photo's shape."""
    scale = HEAT_SIDE / max(photo.size)
    width, height = (max(1, round(scale * side)) for side in photo.size)
    left, upper, right, lower = seen
    region = (left * width, upper * height, right * width, lower * height)
    return layer(strengths(heatmap, top), (width, height), region)


def _bar(score: float) -> float:
    """A score as the length of its bar, in %; nothing for a negative one."""
    return 100 * min(max(score, 0.0), 1.0)


def _legend(pictures: Pictures) -> str:
    """The colour scale, over mid grey."""
    ramp = np.linspace(0, 1, 128, dtype=np.float32)[None]
    return pictures.source(overlay(Image.new("RGB", (128, 4), (150, 150, 150)), ramp), "webp", lossless=True)
