"""What a library and a prompt index are, as small JSON files that say so."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from steersearch.core.errors import LibraryDamagedError, SchemaVersionError
from steersearch.core.preprocess import View, view_of

SCHEMA_VERSION = 2  # what changed, and how older libraries are brought forward: see `migration`
LIBRARY_FILE = "library.json"
_DRAFT = ".writing-"
_ABANDONED_S = 3600
PROMPTS, _MANIFEST, _FEATURES = "prompts", "manifest.json", "features.npy"


@dataclass(frozen=True, kw_only=True)
class LibraryManifest:
    """folder: absolute real path of the photos."""

    folder: str
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True)
class PromptIndex:
    """Library × prompt × gate_scale × model: the settings under which a set of vectors was made.

    key: name of its table and files, derived from what decides the vectors.  model_id, weights_hash,
    preprocessing: the model's, see `Embedder`.  dim: length of an embedding.  created_at: ISO 8601, UTC.
    """

    key: str
    prompt: str
    gate_scale: float
    model_id: str
    weights_hash: str
    preprocessing: dict[str, Any] = field(hash=False)
    dim: int
    dtype: str = "float32"
    created_at: str
    schema_version: int = SCHEMA_VERSION

    @property
    def view(self) -> View | None:
        """How pictures were seen, see `core.preprocess.view_of`; None: in a way of the model's own."""
        return view_of(self.preprocessing)

    def __str__(self) -> str:
        view = "" if self.view is None else f", view {self.view}"
        return f'"{self.prompt}" (model {self.model_id}, gate_scale {self.gate_scale:g}{view})'


def new_prompt_index(
    prompt: str,
    gate_scale: float,
    *,
    model_id: str,
    weights_hash: str,
    preprocessing: dict[str, Any],
    dim: int,
) -> PromptIndex:
    """A prompt index of now; equal settings give an equal key, whenever and wherever."""
    preprocessing = json.loads(json.dumps(preprocessing))  # as it will be read back: tuples are lists
    identity = json.dumps([prompt, gate_scale, weights_hash, preprocessing], sort_keys=True)
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:32]
    return PromptIndex(
        key=f"{words or 'prompt'}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}",
        prompt=prompt,
        gate_scale=gate_scale,
        model_id=model_id,
        weights_hash=weights_hash,
        preprocessing=preprocessing,
        dim=dim,
        created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
    )


def read_library(place: Path) -> LibraryManifest:
    """Raises FileNotFoundError where there is no library, SchemaVersionError, LibraryDamagedError."""
    return LibraryManifest(**_read(place / LIBRARY_FILE, LibraryManifest))


def write_library(place: Path, manifest: LibraryManifest) -> None:
    _write_json(place / LIBRARY_FILE, asdict(manifest))


def read_prompt_indexes(place: Path) -> list[PromptIndex]:
    """All prompt indexes that are complete, oldest first."""
    indexes = [read_prompt_index(place, key) for key in manifest_keys(place)]
    return sorted(indexes, key=lambda index: (index.created_at, index.key))


def manifest_keys(place: Path) -> list[str]:
    """The keys of the prompt indexes that have a manifest, sorted, whatever is in it."""
    return sorted(path.parent.name for path in (place / PROMPTS).glob(f"*/{_MANIFEST}"))


def read_prompt_index(place: Path, key: str) -> PromptIndex:
    """Raises FileNotFoundError, SchemaVersionError, LibraryDamagedError."""
    return PromptIndex(**_read(_manifest(place, key), PromptIndex))


def remove_manifest(place: Path, key: str) -> None:
    """From here on the prompt index does not exist; its vectors do, and building it again finds them."""
    _manifest(place, key).unlink(missing_ok=True)


def write_prompt_index(place: Path, index: PromptIndex) -> None:
    """The last write of a build: from here on the prompt index exists. One that exists stays as it is."""
    if not _manifest(place, index.key).exists():
        replace_prompt_index(place, index)


def replace_prompt_index(place: Path, index: PromptIndex) -> None:
    """Write the manifest of a prompt index, also over one that exists."""
    _write_json(_manifest(place, index.key), asdict(index))


def _manifest(place: Path, key: str) -> Path:
    return place / PROMPTS / key / _MANIFEST


def has_manifest(place: Path, index: PromptIndex) -> bool:
    """Whether this prompt index exists; where it does not, one may have been begun."""
    return (place / PROMPTS / index.key / _MANIFEST).exists()


def mark_begun_by_query(place: Path, index: PromptIndex) -> None:
    """Note that no `index` run asked for this prompt index: a run that names no prompts leaves it as it is."""
    if not has_manifest(place, index):
        write_atomically(_begun_by_query(place, index.key), lambda file: file.write(b""))


def is_begun_by_query(place: Path, index: PromptIndex) -> bool:
    return _begun_by_query(place, index.key).exists()


def unmark_begun_by_query(place: Path, index: PromptIndex) -> None:
    """Note that an `index` run has asked for it."""
    _begun_by_query(place, index.key).unlink(missing_ok=True)


def _begun_by_query(place: Path, key: str) -> Path:
    return place / PROMPTS / key / "begun-by-query"


def features_file(place: Path, key: str) -> Path:
    """Where the text encoder's output for a prompt index is kept, (L, Dt) float32 as .npy."""
    return place / PROMPTS / key / _FEATURES


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """The file at `path` is whole or is not there, whenever the process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_DRAFT}{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sweep_drafts(place: Path) -> None:
    """Delete files that killed processes left half written, anywhere in a library."""
    for path in place.rglob(f"{_DRAFT}*"):
        if is_abandoned(path):
            path.unlink(missing_ok=True)


def is_abandoned(draft: Path) -> bool:
    """Whether a file is so old that whoever wrote it must have been killed."""
    try:
        return time.time() - draft.stat().st_mtime > _ABANDONED_S
    except FileNotFoundError:  # it has just been finished
        return False


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, lambda file: file.write(json.dumps(content, indent=1).encode()))


def _read(path: Path, kind: type[LibraryManifest] | type[PromptIndex]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
        version = content["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise LibraryDamagedError(path, f"not a manifest ({error})") from error
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise SchemaVersionError(path, version, SCHEMA_VERSION)
    if set(content) != set(kind.__dataclass_fields__):
        raise LibraryDamagedError(path, "a manifest with other fields than expected")
    return dict(content)
