"""The files that a model needs, which of them this machine has, and fetching the rest. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

from steersearch.core import hub
from steersearch.core.errors import CheckpointError, UnknownModelError
from steersearch.core.files import as_path
from steersearch.core.registry import (
    MODELS,
    HubFile,
    ModelCard,
    PackageFile,
    known_text_encoder,
    known_trunk,
    trunk_file,
)

Role = Literal["weights", "backbone", "text encoder"]
FileProgress: TypeAlias = Callable[[HubFile, int, int | None], None]  # the file, bytes fetched, bytes in all


@dataclass(frozen=True, kw_only=True)
class Place:
    """A file of the hub and its local path; None if it is missing or incomplete."""

    file: HubFile
    path: Path | None


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of the three parts of a model.

    name: of the backbone or text encoder, or the weights' file; None if only the weights name it.
    path: of a part that needs no hub: a file or folder of the user, of this package or of another one.
    files: of the hub.  about: bytes to fetch, estimated, if the files are unknown.
    """

    role: Role
    name: str | None
    licence: str | None = None
    path: Path | None = None
    files: tuple[Place, ...] = ()
    about: int = 0
    note: str = ""

    @property
    def complete(self) -> bool:
        return self.path is not None or (bool(self.files) and all(place.path for place in self.files))


@dataclass(frozen=True, kw_only=True)
class ModelParts:
    """All parts of a model. card: of a named one;  config: from its file, if that is here."""

    name: str
    card: ModelCard | None
    parts: tuple[Part, ...]
    config: dict[str, Any] | None = None

    @property
    def size(self) -> int:
        """Bytes of all hub files, as far as known."""
        return _bytes(part.files for part in self.parts) + sum(part.about for part in self.parts)

    @property
    def missing(self) -> int:
        """Bytes of the hub files that are not here."""
        lacking = [[place for place in part.files if place.path is None] for part in self.parts]
        return _bytes(lacking) + sum(part.about for part in self.parts)

    @property
    def here(self) -> Literal["bundled", "yes", "partly", "no"]:
        """Whether this machine can run it without the network."""
        if all(part.complete for part in self.parts):
            return "yes" if any(part.files for part in self.parts) else "bundled"
        partly = any(part.path or any(place.path for place in part.files) for part in self.parts)
        return "partly" if partly else "no"


def _bytes(groups: Any) -> int:
    return sum(place.file.likely_size or 0 for group in groups for place in group)


# ------------------------------------------------------------------------------------------- what is needed


def parts_of(name: str) -> ModelParts:
    """The parts of the model `name`: of `registry.MODELS`, a .safetensors or .pth file, or a hub id. No network.

    An unnamed model's file is opened to see what it needs, which imports torch and takes seconds.
    Raises UnknownModelError, and CheckpointError for a file that cannot be read.
    """
    card = MODELS.get(name)
    if card is not None:
        return _parts_of_card(card)
    path = as_path(name)
    if os.path.isfile(path) or path.suffix in (".safetensors", ".pth"):
        return _parts_of_file(name, Part(role="weights", name=path.name, path=path), path)
    if not hub.is_repository(name) or os.path.exists(path):
        raise UnknownModelError(name, list(MODELS))
    weights = _from_hub("weights", hub.WEIGHTS, None, (HubFile(repo=name, file=hub.WEIGHTS),))
    return _parts_of_file(name, weights, weights.files[0].path)


def _parts_of_card(card: ModelCard) -> ModelParts:
    if isinstance(card.weights, PackageFile):
        weights = Part(
            role="weights",
            name=card.weights.file,
            licence=card.licence,
            path=card.weights.path,
            note="comes with steersearch",
        )
    else:
        weights = _from_hub("weights", card.weights.file, card.licence, (card.weights,))
    trunk = Part(role="backbone", name=None, about=card.trunk_about or 0, note=card.trunk_note)
    if card.trunk is not None:
        trunk = _from_hub("backbone", card.trunk.name, card.trunk.licence, (card.trunk.weights,))
    elif isinstance(card.weights, PackageFile):
        trunk = replace(trunk, path=weights.path, licence=card.licence)
    elif weights.complete:  # a backbone that only the file names
        read = _parts_of_file(card.name, weights, weights.files[0].path)
        return replace(read, card=card)
    return ModelParts(
        name=card.name, card=card, parts=(weights, trunk, _text_encoder(card.text_encoder.name))
    )


def _parts_of_file(name: str, weights: Part, path: Path | None) -> ModelParts:
    """The parts of a model that has no card. path: of its weights; None if they are not here yet."""
    if path is None:
        unknown = "named in its weights"
        parts = (
            Part(role="backbone", name=None, note=unknown),
            Part(role="text encoder", name=None, note=unknown),
        )
        return ModelParts(name=name, card=None, parts=(weights, *parts))
    from steersearch.core.backbone import full_name
    from steersearch.core.checkpoints import read_config  # here, because importing torch takes a second

    config, holds_trunk = read_config(path)
    trunk = Part(role="backbone", name=config.trunk, path=path, note="in the same file")
    if not holds_trunk:
        trunk_name = full_name(config.trunk)
        known = known_trunk(trunk_name)
        licence = None if known is None else known.licence
        trunk = _from_hub("backbone", trunk_name, licence, (trunk_file(trunk_name),))
    return ModelParts(
        name=name,
        card=None,
        parts=(weights, trunk, _text_encoder(config.text_encoder)),
        config=config.to_dict(),
    )


def _text_encoder(name: str) -> Part:
    card = known_text_encoder(name)
    if os.path.isdir(as_path(name)):
        return Part(role="text encoder", name=name, path=as_path(name))
    if card is None:
        return _from_hub("text encoder", name, None, (HubFile(repo=name, file=hub.WEIGHTS),))
    if (folder := hub.text_encoder_in_package(card)) is not None:
        note = f"comes with the package {card.package}"
        return Part(role="text encoder", name=name, licence=card.licence, path=folder, note=note)
    files = hub.cached_text_encoder(card) or card.files
    return _from_hub("text encoder", name, card.licence, files)


def _from_hub(role: Role, name: str, licence: str | None, files: Sequence[HubFile]) -> Part:
    places = tuple(Place(file=file, path=hub.find(file)) for file in files)
    return Part(role=role, name=name, licence=licence, files=places)


# ------------------------------------------------------------------------------------------------- fetching


def fetch_model(name: str, progress: FileProgress | None = None) -> ModelParts:
    """Fetch the missing files of the model `name` and check all hashes; returns its parts.

    Raises as `parts_of` and `hub.fetch`; HubError before the first download if the disk is too small.
    """
    needed = parts_of(name)
    folder = hub.cache_folder()
    if needed.missing > (free := hub.free_space(folder)):
        raise hub.disk_full("model", name, needed=needed.missing, free=free)
    for _ in range(3):  # weights may name the other parts, which the next round then fetches
        for part in needed.parts:
            _fetch_part(part, progress)
        needed = parts_of(name)
        if needed.here in ("yes", "bundled"):
            return needed
    raise CheckpointError(f"{name}: fetched, and yet missing in {folder}")


def _fetch_part(part: Part, progress: FileProgress | None) -> None:
    for place in part.files:
        tell = None if progress is None else partial(progress, place.file)
        if part.role == "text encoder" and known_text_encoder(part.name or "") is None:
            hub.text_encoder_folder(part.name or "", tell)  # with whatever tokenizer files it has
        else:
            hub.fetch(place.file, tell)
