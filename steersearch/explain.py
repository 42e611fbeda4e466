"""Heatmaps and attention maps of one photo, for several focuses and gate_scales."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from steersearch.api import AUTO, full_name, load_embedder
from steersearch.core.errors import ArgumentError, OutputError
from steersearch.core.heatmaps import overlay, strengths
from steersearch.core.images.limits import DEFAULT_LIMITS, Limits
from steersearch.core.objects import is_uri
from steersearch.core.preprocess import View, open_image
from steersearch.indexer.embedder import not_finite
from steersearch.views.output import refuse_impossible, write_output
from steersearch.views.photo_map import MapKind, PhotoMap
from steersearch.views.sheet import Sheet, draw_sheet

if TYPE_CHECKING:
    from steersearch.core.predictor import Predictor
    from steersearch.core.steervit import Features

T = TypeVar("T", str, float, MapKind)

MOST_MAPS = 100  # on one sheet


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What `explain` found. output: the picture; maps: in the order of focus, gate_scale, kind.

    seen: the share of the photo's area that the model saw, in (0, 1]; the rest was cropped away.
    model: the name of the model.
    """

    output: Path
    maps: tuple[PhotoMap, ...]
    seen: float
    model: str


def explain(
    image: str | Path,
    focus: str | Sequence[str],
    output: str | Path,
    *,
    model: str = AUTO,
    gate_scale: float | Sequence[float] = 1.0,
    maps: MapKind | Sequence[MapKind] = "heatmap",
    suppress_sinks: bool = True,
    view: View | None = None,
    device: str = AUTO,
    precision: str = AUTO,
    limits: Limits = DEFAULT_LIMITS,
) -> Explanation:
    """Draw each kind of map of the photo for each focus and gate_scale, and write the picture to `output`.

    A single map is laid over the photo, at the photo's size. Several make a sheet: side by side over small
    copies of the photo, each kind in one range of colours, with captions and a legend. Needs no library.

    output: a .png, .jpg or .webp, not the photo itself.  gate_scale: 0 no steering, 1 as trained.
    maps: "heatmap" of the segmentation head, "attention" of the last block's CLS token (mean over heads).
    suppress_sinks: remove lone strong patches from attention maps, see `core.attention_maps.without_sinks`.
        On a coarse grid that also removes small objects.
    view: "crop", "squash" or "tile", see `Preprocess`; None is the model's own.
    limits: a photo that exceeds them is refused.
    Raises ImageError, OutputError, ArgumentError, PromptError, UnknownModelError, CheckpointError, and
    ConfigError for the attention of a backbone without CLS token.
    """
    output = Path(output)
    file_type = _file_type(output)
    focuses = _distinct([focus] if isinstance(focus, str) else focus, "focus")
    gate_scales = _distinct(gate_scale if isinstance(gate_scale, Sequence) else [gate_scale], "gate_scale")
    kinds = _kinds([maps] if isinstance(maps, str) else maps)
    _refuse_many(len(focuses) * len(gate_scales) * len(kinds))
    photo = open_image(image, limits=limits)
    if output.exists() and not is_uri(image) and output.samefile(image):
        raise OutputError(output, "it is the photo itself")
    steered = load_embedder(full_name(model), device, precision, view)
    region = steered.preprocess.region(photo.size)
    found = tuple(photo_maps(steered, photo, focuses, gate_scales, kinds, suppress_sinks))
    _refuse_broken(Path(image), found, steered.model_id)
    if len(found) == 1:
        drawn = overlay(photo, strengths(found[0].values), region)
    else:
        note = f"model {Path(steered.model_id).name}, {' by '.join(map(str, steered.grid))} patches"
        sheet = Sheet(name=Path(image).name, note=note, photo=photo, region=region, maps=found)
        drawn = draw_sheet(sheet)
    write_output(output, _encoded(drawn, file_type, output))
    area = (region[2] - region[0]) * (region[3] - region[1])
    seen = min(1.0, area / (photo.width * photo.height))
    return Explanation(output=output, maps=found, seen=seen, model=steered.model_id)


def photo_maps(
    model: Predictor,
    photo: Image.Image,
    focuses: Sequence[str],
    gate_scales: Sequence[float],
    kinds: Sequence[MapKind],
    suppress_sinks: bool = True,
) -> Iterator[PhotoMap]:
    """The maps of one photo, by focus, gate_scale and kind; the part that no prompt changes is computed once."""
    import torch

    with torch.inference_mode():
        prompts = [model.encode_prompts([focus]) for focus in focuses]
        ways = list(itertools.product(zip(focuses, prompts, strict=True), gate_scales))
        steerings = [model.steering(prompt, gate_scale) for (_, prompt), gate_scale in ways]
        pixels = model.to_device(model.preprocess(photo)[None])
        features = model.encode(pixels, steerings, attention="attention" in kinds)
        for ((focus, prompt), gate_scale), found in zip(ways, features, strict=True):
            for kind in kinds:
                values, sinks = _values(found, kind, suppress_sinks)
                yield PhotoMap(
                    kind=kind,
                    focus=focus,
                    gate_scale=gate_scale,
                    values=values,
                    sinks=sinks,
                    reading=prompt.readings[0],
                )


def _values(
    found: Features, kind: MapKind, suppress_sinks: bool
) -> tuple[npt.NDArray[np.float32], int | None]:
    """A map of one photo (Hp, Wp), and how many sinks were removed from it."""
    from steersearch.core.attention_maps import attention_maps, without_sinks

    if kind == "heatmap":
        return found.heatmap()[0].float().cpu().numpy(), None
    assert found.attention is not None
    whole = attention_maps(found.attention, found.grid, suppress_sinks=False, normalise=False)[0].cpu()
    if not suppress_sinks:
        return whole.numpy(), None
    clean = without_sinks(whole)
    return clean.numpy(), int((clean != whole).sum())


# --------------------------------------------------------------------------------------------- arguments


def _distinct(given: Sequence[T], name: str) -> list[T]:
    """Each value once, in the order given."""
    if not given:
        raise ArgumentError(name, given, "must name at least one")
    return list(dict.fromkeys(given))


def _file_type(output: Path) -> str:
    """Pillow's name for the file type; refuses what cannot be written."""
    file_type = Image.registered_extensions().get(output.suffix.lower())
    if file_type not in ("PNG", "JPEG", "WEBP"):
        raise OutputError(output, "the name must end in .png, .jpg or .webp")
    refuse_impossible(output)
    return file_type


def _kinds(maps: Sequence[MapKind]) -> list[MapKind]:
    kinds = _distinct(maps, "maps")
    for kind in kinds:
        if kind not in get_args(MapKind):
            raise ArgumentError("maps", kind, f"must be of {get_args(MapKind)}")
    return kinds


def _refuse_many(number: int) -> None:
    if number > MOST_MAPS:
        reason = f"at most {MOST_MAPS} fit on one sheet; give fewer focuses or gate_scales"
        raise ArgumentError("number of maps", number, reason)


def _refuse_broken(image: Path, maps: Sequence[PhotoMap], model: str) -> None:
    for shown in maps:
        if not np.isfinite(shown.values).all():
            raise not_finite(image, shown.focus, model)


def _encoded(picture: Image.Image, file_type: str, output: Path) -> bytes:
    encoded = io.BytesIO()
    try:
        picture.save(encoded, file_type, quality=92)
    except (OSError, ValueError) as error:  # JPEG and WebP have a longest side
        size = f"{picture.width} by {picture.height} pixels"
        raise OutputError(output, f"{file_type} cannot hold {size}; write a .png") from error
    return encoded.getvalue()
