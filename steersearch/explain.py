"""Maps over one photo: where the model sees a focus."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from steersearch.api import AUTO, full_name, load_embedder
from steersearch.core.errors import OutputError
from steersearch.core.heatmaps import overlay
from steersearch.core.preprocess import open_image
from steersearch.identity import preprocess_of
from steersearch.output import write_output


def explain(
    image: str | Path,
    focus: str,
    output: str | Path,
    *,
    model: str = AUTO,
    gate_scale: float = 1.0,
    device: str = AUTO,
) -> Path:
    """Write the photo with a heatmap of where the model sees `focus` to `output`; returns its path.

    Needs no library. Raises ImageError, OutputError, UnknownModelError, CheckpointError.
    """
    output = Path(output)
    kind = Image.registered_extensions().get(output.suffix.lower())
    if kind not in ("PNG", "JPEG", "WEBP"):
        raise OutputError(output, "the name must end in .png, .jpg or .webp")
    if output.exists() and output.samefile(image):
        raise OutputError(output, "it is the photo itself")
    picture = open_image(image)
    embedder = load_embedder(full_name(model), device)
    features = embedder.encode_prompt(focus)
    (found,) = embedder.embed(embedder.preprocess(picture)[None], [features], gate_scale)
    region = preprocess_of(embedder.preprocessing).region(picture.size)
    encoded = io.BytesIO()
    overlay(picture, found.heatmaps[0], region=region).save(encoded, kind, quality=92)
    write_output(output, encoded.getvalue())
    return output
