"""Manifests of a library and its prompt indexes: small JSON files."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar, get_args

from steersearch.core.errors import (
    LibraryDamagedError,
    LibraryPlaceError,
    SchemaVersionError,
    SteerSearchError,
    in_digits,
)
from steersearch.core.objects import ObjectPath, ObjectStoreError, is_uri
from steersearch.core.preprocess import View, view_of
from steersearch.core.vectors import as_hashed, with_versions
from steersearch.indexer.disks import Disk
from steersearch.indexer.folders import PhotoFolder
from steersearch.indexer.place import (
    LIBRARY_FILE,
    checked,
    create_json,
    delete_inside,
    read_json,
    write_inside,
    write_json,
)

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 7  # what changed, and how older libraries are brought forward: see `care.migrate`
CHECKSUMS_SINCE, ROWS_CHECKED_SINCE = 3, 4  # versions: of manifests; of rows and encoded prompts
THUMBNAILS_APART_SINCE = 7
PROMPTS, _MANIFEST, _FEATURES = "prompts", "manifest.json", "features.npy"
UNSTEERED_FOLDER = "unsteered"
_KEY = re.compile(r"[a-z0-9][a-z0-9-]{0,31}-[0-9a-f]{12}")


@dataclass(frozen=True, kw_only=True)
class LibraryManifest:
    """folders: of the photos, at least one."""

    folders: tuple[PhotoFolder, ...]
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True)
class PromptIndex:
    """Library × prompt × gate_scale × model: the settings of a set of vectors.

    key: name of its table and files, derived from all that determines the vectors.  model_id, weights_hash,
    preprocessing: see `Embedder`.  dim: length of an embedding.  created_at: ISO 8601, UTC.
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
        """The view of the pictures, see `core.preprocess.view_of`; None: the model's own."""
        return view_of(self.preprocessing)

    @property
    def settings(self) -> str:
        """A key that is equal for prompt indexes that can share a forward pass."""
        return json.dumps([self.weights_hash, self.preprocessing, self.gate_scale], sort_keys=True)

    def __str__(self) -> str:
        view = "" if self.view is None else f", view {self.view}"
        return f'"{self.prompt}" (model {self.model_id}, gate_scale {in_digits(self.gate_scale)}{view})'

    @property
    def weights(self) -> str:
        """The beginning of their hash, for people."""
        return f"weights {self.weights_hash[:8]}"


@dataclass(frozen=True, kw_only=True)
class UnsteeredIndex:
    """Library × model: the unsteered features of each photo. Fields as in PromptIndex."""

    key: str
    model_id: str
    weights_hash: str
    preprocessing: dict[str, Any] = field(hash=False)
    dim: int
    created_at: str
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def beside(cls, index: PromptIndex | UnsteeredIndex) -> UnsteeredIndex:
        """The one for the model and preprocessing of a prompt index."""
        return new_unsteered_index(
            model_id=index.model_id,
            weights_hash=index.weights_hash,
            preprocessing=index.preprocessing,
            dim=index.dim,
            created_at=index.created_at,
        )

    @property
    def prompt(self) -> str:
        """No prompt."""
        return ""

    @property
    def view(self) -> View | None:
        """As `PromptIndex.view`."""
        return view_of(self.preprocessing)

    def __str__(self) -> str:
        view = "" if self.view is None else f", view {self.view}"
        return f"unsteered vectors (model {self.model_id}{view})"


def new_unsteered_index(
    *, model_id: str, weights_hash: str, preprocessing: Mapping[str, Any], dim: int, created_at: str = ""
) -> UnsteeredIndex:
    """Unsteered features created now, or at `created_at`; equal settings give equal keys."""
    settings = json.loads(json.dumps(preprocessing))
    identity = json.dumps([weights_hash, as_hashed(settings)], sort_keys=True)
    return UnsteeredIndex(
        key=hashlib.sha256(identity.encode()).hexdigest()[:12],
        model_id=model_id,
        weights_hash=weights_hash,
        preprocessing=settings,
        dim=dim,
        created_at=created_at or datetime.now(UTC).isoformat(timespec="microseconds"),
    )


def new_prompt_index(
    prompt: str,
    gate_scale: float,
    *,
    model_id: str,
    weights_hash: str,
    preprocessing: dict[str, Any],
    dim: int,
) -> PromptIndex:
    """A prompt index created now; equal settings give equal keys."""
    preprocessing = json.loads(json.dumps(preprocessing))  # as read back, with lists for tuples
    identity = json.dumps([prompt, gate_scale, weights_hash, as_hashed(preprocessing)], sort_keys=True)
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
    """Raises FileNotFoundError where there is no library, SchemaVersionError, LibraryDamagedError,
    LibraryUnreadableError."""
    fields = _read(place / LIBRARY_FILE, LibraryManifest, _LIBRARY)
    return LibraryManifest(**{**fields, "folders": tuple(map(_photo_folder, fields["folders"]))})


def _photo_folder(fields: Mapping[str, Any]) -> PhotoFolder:
    disk = fields["disk"]
    return PhotoFolder(**{**fields, "disk": None if disk is None else Disk(**disk)})


def create_library(place: Path, manifest: LibraryManifest) -> bool:
    """Make the library's own file; False if there is one."""
    return create_json(place, place / LIBRARY_FILE, asdict(manifest))


def write_library(place: Path, manifest: LibraryManifest) -> None:
    write_json(place, place / LIBRARY_FILE, asdict(manifest))


def _has_things(place: Path) -> bool:
    if isinstance(place, ObjectPath):
        return place.is_dir()
    try:
        return any(not path.name.startswith(".writing-") for path in place.iterdir())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise LibraryPlaceError(place, f"cannot be used ({error.strerror})") from error


def check_place(place: Path) -> None:
    """Raise LibraryPlaceError unless `place` has a library or can get one."""
    if (place / LIBRARY_FILE).exists():
        return
    if _has_things(place):
        if (place / LIBRARY_FILE).exists():  # another process has made it meanwhile
            return
        raise LibraryPlaceError(place, "is a folder with other things in it")
    if isinstance(place, ObjectPath):
        return
    ancestor = next(path for path in (place, *place.parents) if path.exists())
    if not ancestor.is_dir():
        raise LibraryPlaceError(place, f"cannot be created: {ancestor} is a file")
    if not os.access(ancestor, os.W_OK | os.X_OK):
        raise LibraryPlaceError(place, f"cannot be written: no permission in {ancestor}")


_Index = TypeVar("_Index", PromptIndex, UnsteeredIndex)


def is_key(name: str) -> bool:
    """Whether this is a valid key of a prompt index, which becomes part of paths."""
    return _KEY.fullmatch(name) is not None


def read_prompt_indexes(place: Path) -> list[PromptIndex]:
    """All finished prompt indexes, oldest first, without those whose manifests are unusable, with a warning. Raises
    SchemaVersionError."""
    return _readable(place, manifest_keys(place), manifest_file, read_prompt_index, "prompt index")


_State = tuple[int, ...]
_kept: dict[Path, tuple[_State, Any]] = {}  # manifests that this process has read, and the files as they were


def _readable(
    place: Path,
    keys: Sequence[str],
    file: Callable[[Path, str], Path],
    read: Callable[[Path, str], _Index],
    what: str,
) -> list[_Index]:
    """Those of `keys` that `read` can read, oldest first; warns of the others. Raises SchemaVersionError."""
    found = []
    for key in keys:
        try:
            found.append(_read_if_changed(file(place, key), partial(read, place, key)))
        except (SchemaVersionError, ObjectStoreError):
            raise
        except FileNotFoundError:  # just removed
            continue
        except SteerSearchError as error:
            _warn_once(f"this {what} is left out: {error}")
    return sorted(found, key=lambda index: (index.created_at, index.key))


def _read_if_changed(file: Path, read: Callable[[], _Index]) -> _Index:
    """What `read` reads from this file, or read before. Raises FileNotFoundError, and what `read` raises."""
    try:
        state = file.stat()
    except OSError:
        return read()
    now = (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    kept = _kept.get(file)
    if kept is None or kept[0] != now:
        kept = _kept[file] = now, read()
    index: _Index = kept[1]
    return index


def prompt_keys(place: Path) -> list[str]:
    """The keys of all prompt indexes, unfinished ones included, sorted."""
    return sorted(path.name for path in (place / PROMPTS).glob("*") if is_key(path.name))


def manifest_keys(place: Path) -> list[str]:
    """The keys of prompt indexes with a manifest, valid or not, sorted."""
    return sorted(path.parent.name for path in (place / PROMPTS).glob(f"*/{_MANIFEST}"))


def read_prompt_index(place: Path, key: str) -> PromptIndex:
    """Raises FileNotFoundError, SchemaVersionError, LibraryDamagedError, LibraryUnreadableError."""
    path = manifest_file(place, key)
    content = _read(path, PromptIndex, _PROMPT_INDEX)
    if not (is_key(key) and content["key"] == key):
        raise LibraryDamagedError(path, f"its key is {content['key']!r}, not the name of its folder")
    return PromptIndex(**{**content, "preprocessing": with_versions(content["preprocessing"])})


def remove_manifest(place: Path, key: str) -> None:
    """Delete the prompt index's manifest, and with it the index; a new build finds its vectors."""
    delete_inside(place, manifest_file(place, key))


def write_prompt_index(place: Path, index: PromptIndex) -> None:
    """Create the prompt index, as the last write of a build. An existing one stays as it is."""
    if not manifest_file(place, index.key).exists():
        replace_prompt_index(place, index)


def replace_prompt_index(place: Path, index: PromptIndex) -> None:
    """Write the manifest of a prompt index, replacing an existing one."""
    write_json(place, manifest_file(place, index.key), asdict(index))


def read_unsteered_indexes(place: Path) -> list[UnsteeredIndex]:
    """The recorded unsteered features, oldest first, without damaged records, with a warning. Raises
    SchemaVersionError."""
    keys, what = unsteered_keys(place), "record of unsteered vectors"
    return _readable(place, keys, unsteered_file, read_unsteered_index, what)


def unsteered_keys(place: Path) -> list[str]:
    """The keys of recorded unsteered features, valid or not, sorted."""
    return sorted(path.stem for path in (place / UNSTEERED_FOLDER).glob("*.json"))


def read_unsteered_index(place: Path, key: str) -> UnsteeredIndex:
    """Raises FileNotFoundError, SchemaVersionError, LibraryDamagedError, LibraryUnreadableError."""
    path = unsteered_file(place, key)
    index = UnsteeredIndex(**_read(path, UnsteeredIndex, _UNSTEERED_INDEX))
    if index.key != key or UnsteeredIndex.beside(index).key != key:
        raise LibraryDamagedError(path, "its settings do not match its name")
    return index


def write_unsteered_index(place: Path, index: UnsteeredIndex) -> None:
    """Record that these unsteered features are complete. An existing record stays as it is."""
    if not unsteered_file(place, index.key).exists():
        replace_unsteered_index(place, index)


def replace_unsteered_index(place: Path, index: UnsteeredIndex) -> None:
    """Write a record of unsteered features, replacing an existing one."""
    write_json(place, unsteered_file(place, index.key), asdict(index))


def unsteered_file(place: Path, key: str) -> Path:
    """The record of unsteered features."""
    return place / UNSTEERED_FOLDER / f"{key}.json"


def manifest_file(place: Path, key: str) -> Path:
    """The manifest of a prompt index."""
    return place / PROMPTS / key / _MANIFEST


def has_manifest(place: Path, index: PromptIndex) -> bool:
    """Whether this prompt index is finished."""
    return (place / PROMPTS / index.key / _MANIFEST).exists()


def mark_begun_by_query(place: Path, index: PromptIndex) -> None:
    """Mark a prompt index as begun by a query: `index` without prompts does not update it."""
    if not has_manifest(place, index):
        write_inside(place, _begun_by_query(place, index.key), lambda file: file.write(b""))


def is_begun_by_query(place: Path, index: PromptIndex) -> bool:
    return _begun_by_query(place, index.key).exists()


def unmark_begun_by_query(place: Path, index: PromptIndex) -> None:
    """Remove that mark, as `index` has named the prompt."""
    delete_inside(place, _begun_by_query(place, index.key))


def _begun_by_query(place: Path, key: str) -> Path:
    return place / PROMPTS / key / "begun-by-query"


def features_file(place: Path, key: str) -> Path:
    """The file of the text encoder's output for a prompt index, (L, Dt) float32 as .npy."""
    return place / PROMPTS / key / _FEATURES


def _read(
    path: Path,
    kind: type[LibraryManifest] | type[PromptIndex] | type[UnsteeredIndex],
    fits: Mapping[str, Callable[[Any], bool]],
) -> dict[str, Any]:
    """The fields of a manifest, each validated."""
    content = read_json(path)
    if not isinstance(content, dict) or type(content.get("schema_version")) is not int:
        raise LibraryDamagedError(path, "not a manifest, it has no schema_version")
    if content["schema_version"] > SCHEMA_VERSION:
        raise SchemaVersionError(path, content["schema_version"], SCHEMA_VERSION)
    if content["schema_version"] >= CHECKSUMS_SINCE:
        checked(path, content)
    if "folder" in content:  # of a library before version 6
        content["folders"] = [{"path": content.pop("folder"), "name": "", "disk": None}]
    if set(content) - {"checksum"} != set(kind.__dataclass_fields__):
        raise LibraryDamagedError(path, "a manifest with other fields than expected")
    content = {name: content[name] for name in kind.__dataclass_fields__}
    for name, value in content.items():
        if not fits[name](value):
            raise LibraryDamagedError(path, f"its {name} cannot be {str(value)[:80]!r}")
    return content


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != "" and "\0" not in value


def _is_folder(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != set(PhotoFolder.__dataclass_fields__):
        return False
    disk, name = value["disk"], value["name"]
    is_disk = disk is None or (
        isinstance(disk, dict)
        and set(disk) == set(Disk.__dataclass_fields__)
        and all(map(_is_text, disk.values()))
    )
    is_name = name == "" or (_is_text(name) and "/" not in name and name != ".")
    return is_disk and is_name and _is_text(value["path"]) and _is_whole(value["path"])


def _is_whole(path: str) -> bool:
    """Whether it means the same wherever it is read."""
    return os.path.isabs(path) or is_uri(path)


def _is_finite(value: Any) -> bool:
    # math.isfinite fails for integers of 400 digits.
    return type(value) in (int, float) and abs(value) < math.inf


def _is_time(value: Any) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False


def _is_preprocessing(value: Any) -> bool:
    """Whether `view_of`, `least_side` and `as_hashed` can read these settings; others are the model's own."""
    if not isinstance(value, dict) or value.get("mode") not in (None, *get_args(View)):
        return False
    aggregation = value.get("aggregation", "")
    if isinstance(aggregation, dict) and not (
        set(aggregation) == {"kind", "version"}
        and _is_text(aggregation["kind"])
        and _is_positive(aggregation["version"])
        and _is_positive(value.get("version"))
    ):
        return False
    size, share = value.get("size", 1), value.get("crop_pct", 1)
    return _is_finite(size) and _is_finite(share) and 1 <= size < 2**16 and 0.01 <= share < 100


def _is_positive(value: Any) -> bool:
    return type(value) is int and 1 <= value < 2**16


_LIBRARY: dict[str, Callable[[Any], bool]] = {
    "folders": lambda value: isinstance(value, list) and len(value) > 0 and all(map(_is_folder, value)),
    "schema_version": _is_positive,
}
_PROMPT_INDEX: dict[str, Callable[[Any], bool]] = {
    "key": _is_text,
    "prompt": _is_text,
    "gate_scale": _is_finite,
    "model_id": _is_text,
    "weights_hash": _is_text,
    "preprocessing": _is_preprocessing,
    "dim": _is_positive,
    "dtype": lambda value: value == "float32",
    "created_at": _is_time,
    "schema_version": _is_positive,
}
_UNSTEERED_INDEX = {name: _PROMPT_INDEX[name] for name in UnsteeredIndex.__dataclass_fields__}


@cache
def _warn_once(text: str) -> None:
    logger.warning("%s", text)
