"""Feature maps of a corpus by EfficientNet-Lite2, computed once, since the network is frozen, and kept beside it.

The network would take most of a training step on a processor. In half precision its maps take 82 kB a picture of 224
pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from steersearch.core.efficientnet_lite import (
    COARSE,
    FINE,
    STRIDE,
    Classifier,
    EfficientNetLite2,
    Maps,
)
from steersearch.core.errors import DataError
from steersearch.core.files import drafted, read_json, require_regular, write_atomically
from steersearch.core.side_by_side import side_by_side
from steersearch.training.npy_file import begin_array, map_rows, write_rows
from steersearch.training.photographs.packages import Say
from steersearch.training.world.things import Thing, thing_alone

FORMAT = 1  # format of the stored maps; others are rebuilt
VIEWS, SEED = 2, 0  # pictures of each thing alone
CHUNK = 256  # pictures after which progress is kept
PICTURES = 8  # pictures at a time on each core of a processor
STATE, FILES = "cnn-maps.json", {"fine": "cnn-fine.npy", "coarse": "cnn-coarse.npy"}

Progress = Callable[[int, int], None]


def cnn_pixels(images: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) float32, as the network was trained with."""
    return (images.permute(0, 3, 1, 2).float() - 127) / 128


# ------------------------------------------------------------------------------------------------------ maps


@dataclass(frozen=True)
class CnnMaps:
    """Maps of P pictures of S pixels a side, float16: fine (P, 120, S/16, S/16) and coarse (P, 352, S/32, S/32)."""

    fine: npt.NDArray[np.float16]
    coarse: npt.NDArray[np.float16]

    def __call__(self, rows: npt.NDArray[np.int64]) -> Maps:
        """The maps of pictures `rows`, in float32."""
        return Maps(torch.from_numpy(self.fine[rows]).float(), torch.from_numpy(self.coarse[rows]).float())


def kept_maps(
    images: npt.NDArray[np.uint8], network: EfficientNetLite2, folder: Path, progress: Progress
) -> CnnMaps:
    """The maps of `images` (P, S, S, 3), mapped from `folder`; missing ones are computed first.

    A stopped run continues after the last CHUNK that was done. Maps of other pictures or weights are computed
    again. Raises DataError for files that are damaged, OSError where nothing can be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "cnn-maps.lock"):  # several runs may share the folder
        made_of = {"format": FORMAT, "pictures": _digest(images), "weights": _weights(network)}
        done = _done(folder, made_of)
        if not done:
            (folder / STATE).unlink(missing_ok=True)
            for name, shape in _shapes(images).items():
                begin_array(folder / FILES[name], np.float16, shape)
        for start in range(done, len(images), CHUNK):
            maps = feature_maps(images[start : start + CHUNK], network)
            for name, file in FILES.items():
                write_rows(folder / file, start, getattr(maps, name).numpy())
            stop = min(start + CHUNK, len(images))
            state = json.dumps({**made_of, "done": stop}).encode()
            write_atomically(folder / STATE, lambda file, state=state: file.write(state))  # type: ignore[misc]
            progress(stop, len(images))
    return _opened(folder, images)


def feature_maps(images: npt.NDArray[np.uint8], network: EfficientNetLite2) -> Maps:
    """Maps of images (B, S, S, 3), computed on the network's device; float16, on the CPU."""
    device = next(network.parameters()).device
    each = PICTURES if device.type == "cpu" else CHUNK
    parts = [images[start : start + each] for start in range(0, len(images), each)]

    def run(part: npt.NDArray[np.uint8]) -> Maps:
        maps = network(cnn_pixels(torch.from_numpy(np.array(part)).to(device)))
        return Maps(maps.fine.half().cpu().contiguous(), maps.coarse.half().cpu().contiguous())

    with torch.inference_mode():
        found = side_by_side(run, parts, (os.cpu_count() or 1) if device.type == "cpu" else 1)
    return Maps(torch.cat([maps.fine for maps in found]), torch.cat([maps.coarse for maps in found]))


def _done(folder: Path, made_of: dict[str, object]) -> int:
    """How many of these pictures already have maps by these weights."""
    try:
        state = read_json(folder / STATE)
    except (OSError, ValueError):
        return 0
    if not isinstance(state, dict) or {**state, "done": None} != {**made_of, "done": None}:
        return 0
    return state["done"] if isinstance(state["done"], int) else 0


def _shapes(images: npt.NDArray[np.uint8]) -> dict[str, tuple[int, int, int, int]]:
    pictures, side = images.shape[0], images.shape[1] // STRIDE
    return {"fine": (pictures, FINE, side, side), "coarse": (pictures, COARSE, side // 2, side // 2)}


def _opened(folder: Path, images: npt.NDArray[np.uint8]) -> CnnMaps:
    """The complete files, mapped. Raises DataError."""
    arrays = {}
    for name, shape in _shapes(images).items():
        file = folder / FILES[name]
        try:
            arrays[name] = map_rows(file)
            if arrays[name].dtype != np.float16 or arrays[name].shape != shape:
                raise ValueError(f"it is {arrays[name].dtype} {arrays[name].shape}, not float16 {shape}")
        except (OSError, ValueError, EOFError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(file, f"damaged ({reason}); delete {STATE}, it will be rebuilt") from error
    return CnnMaps(**arrays)


def _digest(images: npt.NDArray[np.uint8]) -> str:
    """Hash of the shape and of 64 pictures, evenly spread: other pictures differ in these too."""
    digest = hashlib.sha256(repr(images.shape).encode())
    for row in np.linspace(0, len(images) - 1, num=min(64, len(images)), dtype=np.int64):
        digest.update(np.ascontiguousarray(images[row]).tobytes())
    return digest.hexdigest()


def _weights(network: EfficientNetLite2) -> str:
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    return digest.hexdigest()


# -------------------------------------------------------------------------------------------------- things alone


@dataclass(frozen=True)
class Alone:
    """The network's output for K things, each alone on plain grey.

    deep (K, 1280) and fine (K, 120): features, pooled over the picture and over the thing;  colour (K, 3) in 0..1, mean
    over the thing;  classes (K, 1000): probabilities
    """

    deep: Tensor
    fine: Tensor
    colour: Tensor
    classes: Tensor


def things_alone(
    stock: Sequence[Thing],
    network: EfficientNetLite2,
    classifier: Classifier,
    size: int,
    views: int,
    seed: int,
) -> Alone:
    """Means over `views` pictures of `size` pixels of each thing; a function of (stock, seed)."""
    rng = np.random.default_rng([seed, 7])
    shown = [thing_alone(thing, size, rng) for thing in stock for _ in range(views)]
    parts = [shown[start : start + PICTURES] for start in range(0, len(shown), PICTURES)]
    device = next(network.parameters()).device
    with torch.inference_mode():
        run = _alone_by(network, classifier)
        found = side_by_side(run, parts, (os.cpu_count() or 1) if device.type == "cpu" else 1)
    names = [field.name for field in fields(Alone)]
    rows = {name: torch.cat([getattr(part, name) for part in found]) for name in names}
    return Alone(**{name: values.view(len(stock), views, -1).mean(dim=1) for name, values in rows.items()})


def kept_things_alone(
    stock: Sequence[Thing],
    network: EfficientNetLite2,
    classifier: Classifier,
    folder: Path,
    *,
    size: int,
    say: Say,
) -> Alone:
    """`things_alone`, kept in `folder`. Raises DataError for a file that is damaged."""
    digest = hashlib.sha256(repr((size, VIEWS, SEED, _weights(network))).encode())
    for thing in stock:
        digest.update(thing.phrase.encode() + thing.picture.tobytes())
    file = folder / f"cnn-alone-{digest.hexdigest()[:16]}.safetensors"
    with FileLock(file.with_suffix(".lock")):  # several runs may share the folder
        if not file.is_file():
            say(f"things alone: classes and features of {len(stock):,} things")
            alone = things_alone(stock, network, classifier, size, VIEWS, SEED)
            with drafted(file) as draft:
                save_file(asdict(alone), draft)
    try:
        found = Alone(**load_file(require_regular(file)))
    except (OSError, SafetensorError, TypeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(file, f"damaged ({reason}); delete it, it will be rebuilt") from error
    if any(len(getattr(found, field.name)) != len(stock) for field in fields(Alone)):
        raise DataError(file, "damaged (it is not of these things); delete it, it will be rebuilt")
    return found


def _alone_by(
    network: EfficientNetLite2, classifier: Classifier
) -> Callable[[Sequence[tuple[Image.Image, Image.Image]]], Alone]:
    """For each picture and mask, a row of each kind."""
    device = next(network.parameters()).device
    weight, bias = classifier.weight.to(device), classifier.bias.to(device)

    def run(part: Sequence[tuple[Image.Image, Image.Image]]) -> Alone:
        images = torch.from_numpy(np.stack([np.asarray(image) for image, _ in part])).to(device)
        maps = network(cnn_pixels(images))
        deep = network.deep(maps).mean(dim=(2, 3))
        side = maps.fine.shape[-1]
        masks = [np.asarray(mask.resize((side, side), Image.Resampling.BOX), np.float32) for _, mask in part]
        share = torch.from_numpy(np.stack(masks)).to(device).flatten(1) + 1e-3
        share = (share / share.sum(dim=1, keepdim=True)).unsqueeze(2)  # (B, N, 1)
        fine = (maps.fine.flatten(2) @ share).squeeze(2)
        pixels = torch.nn.functional.adaptive_avg_pool2d(images.permute(0, 3, 1, 2).float() / 255, side)
        colour = (pixels.flatten(2) @ share).squeeze(2)
        classes = (deep @ weight.T + bias).softmax(dim=1)
        return Alone(deep.cpu(), fine.cpu(), colour.cpu(), classes.cpu())

    return run
