"""One self-contained HTML page of results: the query photo, and per focus the hits with their heatmaps."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import jinja2
import numpy as np
import numpy.typing as npt
from PIL import Image

Heatmap = npt.NDArray[np.float32]

PHOTO_SIDE = 720  # pixels, longer side, of the query photo
HIT_SIDE = 400


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A photo, what to call it, and its heatmap over the whole photo: (H, W) from 0, in any resolution."""

    name: str
    image: Image.Image
    heatmap: Heatmap


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


def render_page(title: str, lead: str, focuses: Sequence[ShownFocus]) -> str:
    """The page as HTML that needs no other file. All focuses show one and the same query photo."""
    query = focuses[0].query
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        (files("steersearch") / "templates" / "page.html").read_text("utf-8")
    )
    return template.render(
        title=title,
        lead=lead,
        version=_version(),
        photo=_photo_uri(query.image, PHOTO_SIDE),
        photo_name=query.name,
        legend=_legend_uri(),
        focuses=[_focus_fields(focus) for focus in focuses],
    )
