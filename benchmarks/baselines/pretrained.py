"""Models and processors of transformers, from the hub at a card's revision or from a folder.

The only file of the baselines that imports transformers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from steersearch.benchmarks.baselines.base import DTYPE, Baseline, chosen_device
from steersearch.benchmarks.baselines.cards import Card
from steersearch.core import hub
from steersearch.core.errors import BenchmarkError, CheckpointError, HubError
from steersearch.core.files import read_json, remembered_sha256
from steersearch.core.registry import HubFile
from steersearch.training.data.sam2 import quiet_transformers

# Safetensors if a repository has them; torch loads the others without running code from them.
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
_DESCRIPTIONS = ("*.json", "*.txt", "*.model", "*.jinja")


@dataclass(frozen=True)
class Pretrained:
    """A model on its device, its processor, and `source`: the commit or hash of its weights."""

    model: Any
    processor: Any
    source: str
    device: torch.device


class PretrainedBaseline(Baseline):
    """A baseline over a model and a processor of transformers. pictures_at_once: for one call of `_see`."""

    pictures_at_once = 4

    def __init__(self, card: Card, loaded: Pretrained, **settings: Any) -> None:
        super().__init__(card, loaded.model, loaded.source, loaded.device, self.pictures_at_once, **settings)
        self.processor = loaded.processor


def pretrained(card: Card, weights: Path | None, device: str, model_kind: str) -> Pretrained:
    """transformers' class `model_kind` and the processor, as published.

    weights: a folder that holds both, instead of the hub.  Raises CheckpointError.
    """
    folder, source = (weights, _hash_of(weights)) if weights is not None else _from_hub(card)
    place = chosen_device(device)
    import transformers

    with _as_our_error(card, folder), quiet_transformers():
        model, report = getattr(transformers, model_kind).from_pretrained(
            folder, dtype=DTYPE, output_loading_info=True
        )
        processor = transformers.AutoProcessor.from_pretrained(folder)
    if missing := sorted(report["missing_keys"]):  # they were initialised at random
        raise CheckpointError(f"{folder}: its weights lack {', '.join(missing[:5])}; download it again")
    return Pretrained(model.to(place), processor, source, place)


def pixels_of(method: Any, pictures: Sequence[Image.Image], side: int | None = None) -> Tensor:
    """The pictures after the processor of `method`: (B, 3, H, W) in the model's dtype, on its device.

    side: of the squares in pixels, instead of the processor's own; cropped or squashed as it does.
    """
    processor = method.processor.image_processor
    square = {"height": side, "width": side}
    crops = "shortest_edge" in processor.size
    sizes = {"size": {"shortest_edge": side}, "crop_size": square} if crops else {"size": square}
    pixels: Tensor = processor(list(pictures), return_tensors="pt", **(sizes if side else {}))["pixel_values"]
    return pixels.to(method.device, method.dtype)


@contextmanager
def _as_our_error(card: Card, folder: Path) -> Iterator[None]:
    try:
        yield
    except ImportError as error:  # a tokenizer that needs another package
        raise BenchmarkError(f"{card.name}: {error}; try pip install 'steersearch[baselines]'") from error
    except Exception as error:  # transformers raises anything for a damaged file
        raise CheckpointError(f"{folder}: cannot be loaded ({error})") from error


def _hash_of(folder: Path) -> str:
    """sha256 over the hashes of all weights in a local folder."""
    files = _weights_in(folder)
    if not (folder / "config.json").is_file() or not files:
        raise CheckpointError(f"{folder}: no model, it holds no config.json with weights beside it")
    return hashlib.sha256("".join(remembered_sha256(file) for file in files).encode()).hexdigest()


def _weights_in(folder: Path) -> list[Path]:
    found = (sorted(folder.glob(pattern)) for pattern in _WEIGHTS)
    return next((files for files in found if files), [])


def _from_hub(card: Card) -> tuple[Path, str]:
    """The folder of a repository in the hub's cache, and "repo@commit"; fetched if it is not there."""
    assert card.repo is not None
    folder = _in_cache(card)
    if folder is None:
        if (reason := hub.why_unreachable()) is not None:
            way_out = f"go online once, or give a folder that holds it: {card.name}=FOLDER"
            raise HubError(card.repo, "config.json", f"not downloaded yet and {reason}; {way_out}")
        folder = hub.fetch(HubFile(repo=card.repo, file="config.json", revision=card.revision)).parent
        for name in _wanted(card, commit := folder.name):
            hub.fetch(HubFile(repo=card.repo, file=name, revision=commit))
    return folder, f"{card.repo}@{folder.name}"


def _wanted(card: Card, commit: str) -> list[str]:
    """The files of a repository that transformers reads, weights last: if they are there, so are the others."""
    assert card.repo is not None
    top = [name for name in hub.list_files(card.repo, commit) if "/" not in name]
    described = [name for name in top if any(fnmatch(name, pattern) for pattern in _DESCRIPTIONS)]
    weights = [[name for name in top if fnmatch(name, pattern)] for pattern in _WEIGHTS]
    return described + next((found for found in weights if found), [])


def _in_cache(card: Card) -> Path | None:
    """The cached folder if all of it is there: an index of weights names files, which must be there too."""
    import huggingface_hub

    assert card.repo is not None
    try:
        found = huggingface_hub.snapshot_download(card.repo, revision=card.revision, local_files_only=True)
    except (OSError, ValueError):  # huggingface_hub's errors for "not here" are of these
        return None
    folder = Path(found)
    weights = {file.name for file in _weights_in(folder)}
    processor = any(
        (folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")
    )
    if not weights or not processor or not (folder / "config.json").is_file():
        return None
    index = folder / "model.safetensors.index.json"
    if index.is_file() and "model.safetensors" not in weights:
        try:
            named = read_json(index)["weight_map"].values()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{index}: no list of weights ({error!r})") from error
        return folder if set(named) <= weights else None
    return folder
