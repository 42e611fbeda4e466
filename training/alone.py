"""The keys of object-alone distillation: embeddings of the world's things, each alone on a plain background."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from steersearch.core.errors import DataError
from steersearch.core.files import drafted, require_regular
from steersearch.core.steervit import SteerViT
from steersearch.core.vectors import Aggregation
from steersearch.training.frozen_tokens import trunk_digest
from steersearch.training.objective import frozen_keys
from steersearch.training.pictures import to_pixels
from steersearch.training.world.things import Thing, thing_alone

GREYS = (110, 128, 150)  # of the empty pictures


@torch.no_grad()
def thing_keys(
    model: SteerViT, stock: Sequence[Thing], kinds: list[Aggregation], views: int, seed: int
) -> dict[Aggregation, Tensor]:
    """Unsteered embeddings of each thing alone, means of `views`, then of an empty picture: (K + 1, D), unit length.

    One matrix per aggregation; "focus" weighs the patches by the thing's mask.
    """
    rng = np.random.default_rng([seed, 4])
    size, preprocess = model.config.resolution, model.config.preprocess
    pictures = [thing_alone(thing, size, rng) for thing in stock for _ in range(views)]
    for grey in GREYS:
        pictures.append((Image.new("RGB", (size, size), (grey,) * 3), Image.new("L", (size, size), 255)))
    rows: dict[Aggregation, list[Tensor]] = {kind: [] for kind in kinds}
    for start in range(0, len(pictures), 128):
        images, masks = zip(*pictures[start : start + 128], strict=True)
        shown = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
        shares = [np.asarray(mask.resize(model.grid[::-1], Image.Resampling.BOX)) for mask in masks]
        cover = torch.from_numpy(np.stack(shares)).float().flatten(1).to(model.device)
        pixels = to_pixels(shown.to(model.device), preprocess.mean, preprocess.std)
        for kind, vectors in frozen_keys(model, pixels, cover, kinds).items():
            rows[kind].append(vectors)
    return {kind: _mean_of_views(torch.cat(vectors), len(stock), views) for kind, vectors in rows.items()}


def kept_thing_keys(
    model: SteerViT,
    stock: Sequence[Thing],
    kinds: list[Aggregation],
    views: int,
    seed: int,
    folder: Path,
    say: Callable[[str], None],
) -> dict[Aggregation, Tensor]:
    """`thing_keys`, cached in `folder` for runs with the same backbone, as they take a minute or two on a CPU."""
    digest = hashlib.sha256(repr((views, seed, kinds, [thing.phrase for thing in stock])).encode())
    digest.update(trunk_digest(model).encode())
    file = folder / f"alone-{digest.hexdigest()[:16]}.safetensors"
    with FileLock(file.with_suffix(".lock")):  # several runs may share the folder
        if not file.is_file():
            say(f"object-alone keys: embedding {len(stock):,} things alone")
            keys = thing_keys(model, stock, kinds, views, seed)
            with drafted(file) as draft:
                save_file({str(kind): values.cpu() for kind, values in keys.items()}, draft)
    try:
        kept = load_file(require_regular(file))
        found = {kind: kept[kind] for kind in kinds}
    except (OSError, SafetensorError, KeyError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(file, f"damaged ({reason}); delete it, it will be rebuilt") from error
    wanted = (len(stock) + 1, model.dim)
    if any(values.shape != wanted or not values.isfinite().all() for values in found.values()):
        raise DataError(file, "damaged (its keys are not of these things); delete it, it will be rebuilt")
    return found


def _mean_of_views(unit: Tensor, things: int, views: int) -> Tensor:
    """(things * views + greys, D) of unit length -> (things + 1, D) of unit length."""
    keys = unit[: things * views].view(things, views, -1).mean(dim=1)
    nothing = unit[things * views :].mean(dim=0, keepdim=True)
    return F.normalize(torch.cat([keys, nothing]), dim=-1)
