"""Hits in a notebook: photo with heatmap, rank, score and path, as self-contained HTML."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

from PIL import Image

from steersearch.core.heatmaps import overlay, shared_vmax, strengths
from steersearch.core.vectors import VectorSettings
from steersearch.indexer.hits import Hit, Hits
from steersearch.views.lettering import printable

SIDE = 320  # pixels, longer side of a picture
SHOWN = 24  # hits shown of a list, since a notebook stores every picture in its file
_FONT = "font:13px/1.4 system-ui,sans-serif"
_CARD = f"display:inline-block;vertical-align:top;margin:0 12px 12px 0;{_FONT}"
_SMALL = "color:#888;overflow-wrap:anywhere"


def hit_html(hit: Hit, vmax: float | None = None) -> str:
    """One hit. vmax: end of the colour scale, see `heatmaps.shared_vmax`; None: that of its own heatmap."""
    picture = hit_picture(hit, vmax)
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=85)
    source = f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"
    prompt = html.escape(printable(hit.prompt))
    path = html.escape(printable(hit.name))
    return (
        f'<figure style="{_CARD};width:{picture.width}px">'
        f'<img src="{source}" width="{picture.width}" height="{picture.height}" alt="{prompt}">'
        f"<figcaption><b>{hit.rank}</b> · {hit.score:.3f} · {prompt}"
        f'<br><span style="{_SMALL}">{path}</span></figcaption></figure>'
    )


def hits_html(hits: Hits) -> str:
    """Hits side by side on one colour scale, and below them how they were found."""
    shown = hits[:SHOWN]
    vmax = vmax_of(shown)
    notes = [
        str(hits.searched),
        *([printable(str(hits.searched.doubt))] if hits.searched.doubt else []),
        *(printable(said) for focus in hits.searched.focuses for said in focus.remarks),
    ]
    if len(hits) > SHOWN:
        notes.append(f"{len(hits) - SHOWN:,} more hits are in the list")
    figures = "".join(hit_html(hit, vmax) for hit in shown)
    return f'<div style="{_FONT}">{figures}<div style="{_SMALL}">{html.escape("; ".join(notes))}</div></div>'


def vmax_of(hits: Sequence[Hit]) -> float | None:
    """One colour scale for all heatmaps of `hits`, see `shared_vmax`; None where there are none."""
    mapped = [hit.heatmap for hit in hits if hit.parts or hit.match is not None]
    return shared_vmax(mapped) if mapped else None


def hit_picture(hit: Hit, vmax: float | None = None, *, is_small: bool = False) -> Image.Image:
    """The photo in grey under the coloured heatmap of its first focus or of the region, else the photo alone; RGB, at
    most SIDE pixels each way. is_small: the thumbnail in the library is enough; the photo is not opened."""
    photo = hit.thumbnail if is_small else hit.photo_within(SIDE)
    if not hit.parts and hit.match is None:
        return photo
    region = VectorSettings.from_dict(hit.searched.index.preprocessing).preprocess.region(photo.size)
    return overlay(photo, strengths(hit.heatmap, vmax), region)
