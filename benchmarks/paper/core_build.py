"""Rebuild CORE: photos of scenes, edited once per object, in the layout that `bench core` reads.

The authors edited SUN397 photos of six scenes with FLUX.2, one object per edit. Any pipeline of diffusers that takes a
picture and a text will do. One that also takes a mask repaints a box, chosen by the seed, and keeps everything else;
one without a mask is prompted to add the object and change nothing else.

Every edit is a file, so a stopped build resumes. review.html shows them all; the next run leaves out the files listed
in rejected.txt, one per line.
"""

from __future__ import annotations

import hashlib
import html
import inspect
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from PIL import Image, ImageFilter

from steersearch.benchmarks.harness.benchmark import Report
from steersearch.benchmarks.harness.table_file import read_text
from steersearch.benchmarks.harness.viewing import Progress
from steersearch.core.errors import BenchmarkError, ImageError, MissingExtraError
from steersearch.core.files import drafted, read_json, write_atomically
from steersearch.core.images.pillow import opened
from steersearch.core.preprocess import open_image

# picture, prompt, L mask of the same size (white: where), seed -> edited picture
Editor: TypeAlias = Callable[[Image.Image, str, Image.Image, int], Image.Image]
Objects: TypeAlias = Mapping[str, Mapping[str, str]]  # scene -> object -> prompt

SIDE = 512  # pixels of the longer side, a multiple of 16
BOX = (0.22, 0.36)  # range of the repainted box's side, as a share of the photo's shorter side
_PICTURES = (".jpg", ".jpeg", ".png", ".webp")

# The objects of the paper's Table 5, by scene.
_PUBLISHED = {
    "kitchen": ("black blender with a transparent glass cup", "fruit bowl with fresh red apples",
                "green glass bottle of olive oil", "dark green kitchen towel",
                "gray plate with a slice of pepperoni pizza"),
    "living_room": ("small black TV remote", "small bouquet of red roses in a white and gray vase",
                    "stack of multiple books", "black and white soccer ball", "bottle of red wine"),
    "bathroom": ("small yellow rubber duck", "wet mop with a red handle",
                 "stack of white toilet paper rolls on the floor", "small pink carpet on the floor",
                 "hanging winter coat"),
    "street": ("apple tree with ripe apples", "small metal trash can", "American flag",
               "zebra walking on the street", "puddle with water on the street"),
    "suburb": ("coiled green garden hose", "blue curbside mailbox", "bicycle leaning against something",
               "orange basketball", "red fire hydrant"),
    "park": ("baby stroller", "orange traffic cone", "small birdhouse on a post", "dark blue hiking backpack",
             "colorful kite lying on the grass"),
}  # fmt: skip
OBJECTS: Objects = {
    scene: {text.replace(" ", "_"): f"the {text}." for text in texts} for scene, texts in _PUBLISHED.items()
}


@dataclass(frozen=True)
class Edit:
    """One picture to make: an edit of the photo `source`, and its place in the data set."""

    source: Path
    scene: str
    object: str
    image_id: str
    prompt: str

    @property
    def file(self) -> str:
        """Its name below the build's folder."""
        return f"pictures/{self.scene}/{self.image_id}-{self.object}.png"


def read_objects(path: Path) -> Objects:
    """A JSON file {scene: {object: prompt}}. Raises BenchmarkError."""
    try:
        said = read_json(path)
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{path}: not JSON that can be read ({error})") from error
    good = isinstance(said, dict) and all(isinstance(objects, dict) and objects for objects in said.values())
    prompts = [prompt for objects in said.values() for prompt in objects.values()] if good else []
    if not prompts or not all(isinstance(prompt, str) and prompt.strip() for prompt in prompts):
        raise BenchmarkError(f"{path}: must be {{scene: {{object: prompt}}}}")
    for name in (*said, *(name for objects in said.values() for name in objects)):
        if not re.fullmatch(r"\w[\w .-]*", name):
            raise BenchmarkError(f'{path}: "{name}" cannot be part of the name of a file')
    found: Objects = said
    return found


def plan(scenes: Path, objects: Objects, limit: int | None = None) -> list[Edit]:
    """All edits, scene by scene. scenes: a folder with one of each scene's name in it or below, as SUN397 has them.

    limit: photos per scene.  Raises BenchmarkError for a scene without a folder or photos.
    """
    edits = []
    for scene, prompts in objects.items():
        folder = next((path for path in sorted(scenes.rglob(scene)) if path.is_dir()), None)
        if folder is None:
            raise BenchmarkError(f'{scenes}: no folder "{scene}" in it or below')
        photos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _PICTURES)
        if not photos:
            raise BenchmarkError(f"{folder}: holds no photo")
        for number, photo in enumerate(photos[:limit]):
            image_id = f"{scene}-{number:04d}"
            edits += [Edit(photo, scene, name, image_id, prompt) for name, prompt in prompts.items()]
    return edits


def build(
    edits: list[Edit],
    folder: Path,
    editor: Editor,
    side: int = SIDE,
    seed: int = 0,
    report: Report | None = None,
) -> Path:
    """Make the missing edits, the review page and the data set. Returns its parquet file.

    Raises BenchmarkError for a folder with a build of other prompts, photos, side or seed, ImageError for an
    unreadable photo.
    """
    _same_as_before(edits, folder, side, seed)
    progress = Progress(len(edits), report)
    for edit in edits:
        path = folder / edit.file
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = _edited(edit, editor, side, seed)
            write_atomically(path, partial(picture.save, format="PNG"))
        progress.add(1)
    (folder / "review.html").write_text(_review(edits), encoding="utf-8")
    return _write_parquet([edit for edit in edits if edit.file not in rejected(folder)], folder)


def rejected(folder: Path) -> set[str]:
    """The files named in rejected.txt, as the review page shows them."""
    listed = folder / "rejected.txt"
    return set(map(str.strip, read_text(listed).splitlines())) if listed.is_file() else set()


def _same_as_before(edits: list[Edit], folder: Path, side: int, seed: int) -> None:
    said = {"side": side, "seed": seed, "edits": [[str(e.source.name), e.file, e.prompt] for e in edits]}
    noted = folder / "build.json"
    try:
        is_other = noted.exists() and read_json(noted) != said
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{noted}: cannot be read ({error}); name another folder") from error
    if is_other:
        raise BenchmarkError(
            f"{folder}: it holds a build of other photos, prompts, side or seed; name another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    noted.write_text(json.dumps(said), encoding="utf-8")


def _edited(edit: Edit, editor: Editor, side: int, seed: int) -> Image.Image:
    own = int.from_bytes(hashlib.sha256(f"{seed}/{edit.file}".encode()).digest()[:4], "big")
    photo = scaled(open_image(edit.source), side)
    made = editor(photo, edit.prompt, box_mask(photo.size, own), own)
    if made.size != photo.size:
        made = made.resize(photo.size, Image.Resampling.LANCZOS)
    if made.convert("L").getextrema() == (0, 0):
        raise ImageError(edit.source, f"the pipeline made a black picture for {edit.prompt!r}")
    return made.convert("RGB")


def scaled(photo: Image.Image, side: int) -> Image.Image:
    """The photo with `side` pixels on its longer side, and multiples of 16 on both."""
    factor = side / max(photo.size)
    width, height = (max(16, round(length * factor / 16) * 16) for length in photo.size)
    return photo.resize((width, height), Image.Resampling.LANCZOS)


def box_mask(size: tuple[int, int], seed: int) -> Image.Image:
    """An L mask of `size`, white where the object goes: a box in the lower two thirds, where things stand."""
    rng = np.random.default_rng(seed)
    width, height = (round(float(rng.uniform(*BOX)) * min(size)) for _ in range(2))
    left = int(rng.integers(0, size[0] - width + 1))
    top = int(rng.integers(size[1] // 3, max(size[1] // 3, size[1] - height) + 1))
    mask = Image.new("L", size)
    mask.paste(255, (left, top, left + width, top + height))
    return mask


def load_editor(name: str, device: str = "auto", steps: int | None = None) -> Editor:
    """A pipeline of diffusers by its hub id or folder. steps: of denoising; None: the pipeline's default.

    Raises MissingExtraError without diffusers, BenchmarkError for a pipeline that takes no picture.
    """
    import torch

    try:
        import diffusers
    except ImportError as error:
        raise MissingExtraError("diffusers", "build", "editing photos") from error
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    try:
        pipeline = diffusers.DiffusionPipeline.from_pretrained(name, torch_dtype=dtype).to(device)
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{name}: not a pipeline of diffusers that can be loaded ({error})") from error
    pipeline.set_progress_bar_config(disable=True)
    return editor_of(pipeline, steps)


def editor_of(pipeline: Any, steps: int | None = None) -> Editor:
    """An editor that calls this pipeline. Raises BenchmarkError for one that takes no picture."""
    import torch

    takes = inspect.signature(pipeline.__call__).parameters
    if "image" not in takes:
        raise BenchmarkError(f"{type(pipeline).__name__}: takes no picture to edit")
    has_mask = "mask_image" in takes

    def edit(photo: Image.Image, prompt: str, mask: Image.Image, seed: int) -> Image.Image:
        asked: dict[str, Any] = {"image": photo, "generator": torch.Generator().manual_seed(seed)}
        asked["prompt"] = prompt if has_mask else f"Add {prompt.rstrip('.')} and change nothing else."
        if has_mask:
            asked["mask_image"] = mask
        if steps is not None:
            asked["num_inference_steps"] = steps
        sizes = {"width": photo.width, "height": photo.height}
        asked |= {key: value for key, value in sizes.items() if key in takes}
        made: Image.Image = pipeline(**asked).images[0]
        if not has_mask:
            return made
        soft = mask.filter(ImageFilter.GaussianBlur(4))
        return Image.composite(made.resize(photo.size), photo, soft)

    return edit


# ------------------------------------------------------------------------------------------------ what is written


def _write_parquet(edits: list[Edit], folder: Path) -> Path:
    """In the layout of JonaRuthardt/CORE: image, scene, object, image_id, prompt; one row group for 100 pictures."""
    text = pa.string()
    image = pa.struct([("bytes", pa.binary()), ("path", text)])
    columns = [("image", image), ("scene", text), ("object", text), ("image_id", text), ("prompt", text)]
    schema = pa.schema(columns)
    path = folder / "data/test-00000-of-00001.parquet"
    path.parent.mkdir(exist_ok=True)
    with drafted(path) as draft, parquet.ParquetWriter(draft, schema) as writer:
        for start in range(0, len(edits), 100):
            rows = [_row(edit, folder) for edit in edits[start : start + 100]]
            writer.write_table(pa.Table.from_pylist(rows, schema))
    return path


def _row(edit: Edit, folder: Path) -> dict[str, Any]:
    packed = io.BytesIO()
    with opened(folder / edit.file) as picture:
        picture.save(packed, "JPEG", quality=95)
    image = {"bytes": packed.getvalue(), "path": None}
    return {
        "image": image,
        "scene": edit.scene,
        "object": edit.object,
        "image_id": edit.image_id,
        "prompt": edit.prompt,
    }


def _review(edits: list[Edit]) -> str:
    """A row of all edits of a photo, with their names for rejected.txt."""
    by_photo: dict[str, list[Edit]] = {}
    for edit in edits:
        by_photo.setdefault(edit.image_id, []).append(edit)
    return "\n".join(
        [
            '<!doctype html><meta charset="utf-8"><title>CORE: review</title>',
            "<style>body{font:14px sans-serif;margin:2em}figure{display:inline-block;margin:4px;width:220px}"
            "img{width:100%}figcaption{overflow-wrap:anywhere;color:#444}</style>",
            f"<h1>{len(edits)} edits of {len(by_photo)} photos</h1>",
            "<p>Is the object there, once, and is all else as in the other pictures of its row? Write the names of "
            "those where it is not into rejected.txt, a line each, and run the same command again.</p>",
            *(line for image_id, group in by_photo.items() for line in _review_row(image_id, group)),
        ]
    )


def _review_row(image_id: str, group: list[Edit]) -> Iterator[str]:
    yield f"<h2>{html.escape(image_id)}</h2>"
    for edit in group:
        name, prompt = html.escape(edit.file, quote=True), html.escape(edit.prompt)
        yield f'<figure><img loading="lazy" src="{name}"><figcaption>{prompt}<br>{name}</figcaption></figure>'
