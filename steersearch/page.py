"""One self-contained HTML page of results: the query photo, and per focus the hits with their heatmaps."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import numpy.typing as npt
from PIL import Image

import steersearch
from steersearch.core.errors import ImageError
from steersearch.core.heatmaps import STRONGEST_OPACITY, colour, normalise, shared_vmax, upsample
from steersearch.core.preprocess import open_image
from steersearch.identity import preprocess_of
from steersearch.indexer.manifest import PromptIndex
from steersearch.output import write_output

if TYPE_CHECKING:
    from steersearch.api import Hit, Library

Heatmap = npt.NDArray[np.float32]
Region = tuple[float, float, float, float]  # left, top, right, bottom, as parts of the picture's sides

PHOTO_SIDE = 720  # pixels, longer side, of the query photo
HIT_SIDE = 440
LEAST_OPACITY = 0.35  # dims the photo where there is nothing, so that what was found stands out
HEAT_SIDE = 160  # heatmaps are smooth, the browser enlarges them


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A photo and its heatmap, (Hp, Wp) on the patch grid; region: the part of the photo that it covers."""

    name: str
    image: Image.Image
    heatmap: Heatmap
    region: Region = (0, 0, 1, 1)


@dataclass(frozen=True, kw_only=True)
class ShownHit:
    rank: int
    score: float
    shot: Shot


@dataclass(frozen=True, kw_only=True)
class ShownFocus:
    """The hits for one focus, and the query photo as it was seen under it. note: how they were found."""

    prompt: str
    note: str
    query: Shot
    hits: Sequence[ShownHit]


def write_page(
    file: Path, library: Library, image: Path, results: Sequence[tuple[PromptIndex, Sequence[Hit]]]
) -> None:
    """Write the hits of one query photo, for one or several prompt indexes of `library`, as one page.

    Raises OutputError if `file` cannot be written, ImageError if `image` cannot be read.
    """
    photo = open_image(image)
    focuses = [_shown(library, image.name, photo, index, hits) for index, hits in results]
    write_output(file, render_page(focuses).encode())


def render_page(focuses: Sequence[ShownFocus]) -> str:
    """The page as HTML that needs no other file. All focuses show one and the same query photo."""
    query = focuses[0].query
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        (files("steersearch") / "templates" / "page.html").read_text("utf-8")
    )
    title, lead = _headline([focus.prompt for focus in focuses])
    return template.render(
        title=title,
        lead=lead,
        version=steersearch.__version__,
        photo=_photo_uri(query.image, PHOTO_SIDE),
        photo_name=query.name,
        legend=_legend_uri(),
        focuses=[_fields(focus) for focus in focuses],
    )


def _headline(prompts: Sequence[str]) -> tuple[str, str]:
    """Title and opening sentence."""
    if len(prompts) == 1:
        return (
            f"Photos alike in “{prompts[0]}”",
            "Ranked by how alike the photos are in what was asked for, not as a whole: "
            "the prompt steers the image encoder itself.",
        )
    count = {2: "two", 3: "three", 4: "four"}.get(len(prompts), str(len(prompts)))
    return (
        f"One photo, {count} focuses",
        "The same query photo, searched once for each focus. The prompt steers the image encoder itself, "
        "so each ranking follows what was asked for.",
    )


def _shown(
    library: Library, name: str, photo: Image.Image, index: PromptIndex, hits: Sequence[Hit]
) -> ShownFocus:
    view = "" if index.view is None else f", view {index.view}"
    note = f"model {Path(index.model_id).name}, gate scale {index.gate_scale:g}{view}"
    query = Shot(name=name, image=photo, heatmap=library.heatmap(photo, index), region=_region(index, photo))
    shown = []
    for hit in hits:
        image = _hit_image(library, hit)
        shot = Shot(
            name=str(hit.path.relative_to(library.folder)),
            image=image,
            heatmap=hit.heatmap,
            region=_region(index, image),
        )
        shown.append(ShownHit(rank=hit.rank, score=hit.score, shot=shot))
    return ShownFocus(prompt=index.prompt, note=note, query=query, hits=shown)


def _hit_image(library: Library, hit: Hit) -> Image.Image:
    """The photo, or if it is gone or changed beyond reading, the thumbnail that the library kept."""
    try:
        return open_image(hit.path)
    except ImageError:
        return library.thumbnail(hit)


def _region(index: PromptIndex, image: Image.Image) -> Region:
    """The part of the picture that the model saw."""
    left, top, right, bottom = preprocess_of(index.preprocessing).region(image.size)
    return left / image.width, top / image.height, right / image.width, bottom / image.height


def _fields(focus: ShownFocus) -> dict[str, Any]:
    """What the template reads; one range of colours for the query photo and all hits."""
    vmax = shared_vmax([focus.query.heatmap, *(hit.shot.heatmap for hit in focus.hits)])
    return {
        "prompt": focus.prompt,
        "note": focus.note,
        "heat": _heat_uri(focus.query, vmax),
        "hits": [
            {
                "rank": hit.rank,
                "score": hit.score,
                "bar": 100 * min(max(hit.score, 0.0), 1.0),
                "name": hit.shot.name,
                "photo": _photo_uri(hit.shot.image, HIT_SIDE),
                "heat": _heat_uri(hit.shot, vmax),
            }
            for hit in focus.hits
        ],
    }


def _photo_uri(image: Image.Image, side: int) -> str:
    image = image.convert("RGB")
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _data_uri(image, "jpeg", quality=84)


def _heat_uri(shot: Shot, vmax: float) -> str:
    """The heatmap alone, in the shape of its photo; 0 where the model did not look."""
    scale = HEAT_SIDE / max(shot.image.size)
    width, height = (max(1, round(scale * side)) for side in shot.image.size)
    left, right = (round(width * edge) for edge in (shot.region[0], shot.region[2]))
    top, bottom = (round(height * edge) for edge in (shot.region[1], shot.region[3]))
    values = np.zeros((height, width), np.float32)
    seen = (max(1, bottom - top), max(1, right - left))
    values[top : top + seen[0], left : left + seen[1]] = normalise(upsample(shot.heatmap, seen), vmax)
    return _data_uri(_layer(values), "webp", quality=80)


def _legend_uri() -> str:
    """The colours from nothing to the strongest, as they look over a mid grey photo."""
    ramp = _layer(np.tile(np.linspace(0, 1, 128, dtype=np.float32), (4, 1)))
    grey = Image.new("RGBA", ramp.size, (150, 150, 150, 255))
    return _data_uri(Image.alpha_composite(grey, ramp).convert("RGB"), "png")


def _layer(values: Heatmap) -> Image.Image:
    """Values in [0, 1] as colours over a photo that is dimmed where they are low; opacity grows with them.

    Shown by their square root: a large object shares the sum of 1 among many patches and would look pale.
    """
    shown = np.sqrt(values)
    opacity = LEAST_OPACITY + (STRONGEST_OPACITY - LEAST_OPACITY) * shown
    alpha = (255 * opacity).round().astype(np.uint8)
    return Image.fromarray(np.concatenate([colour(shown), alpha[..., None]], axis=-1), "RGBA")


def _data_uri(image: Image.Image, kind: str, **options: Any) -> str:
    encoded = io.BytesIO()
    image.save(encoded, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(encoded.getvalue()).decode()}"
