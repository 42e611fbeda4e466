"""`verify`: look at everything that a library keeps, say what is wrong, and repair what needs no model for it.

Repairs only take away: bad rows, damaged files. What is taken away is made again, rows and prompt features by the
next `index`, snapshots at once. Vectors in good order are never dropped.
"""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from steersearch.core.errors import (
    ImageError,
    LibraryDamagedError,
    LibraryUnreadableError,
    SchemaVersionError,
)
from steersearch.core.pillow_file import opened
from steersearch.indexer.compaction import orphaned_snapshots
from steersearch.indexer.features import read_reading
from steersearch.indexer.loader import content_hash
from steersearch.indexer.manifest import (
    PromptIndex,
    features_file,
    manifest_keys,
    new_prompt_index,
    read_prompt_index,
    remove_manifest,
)
from steersearch.indexer.scan import changed_at
from steersearch.indexer.search import refresh_snapshot, remove_snapshot, snapshot_is_true, snapshot_keys
from steersearch.indexer.store import IMAGES, PRESENCE, Floats, KnownFile, Store, prompt_table, unpack_heatmap
from steersearch.indexer.stored_path import from_stored, to_stored
from steersearch.indexer.tables import Tables

_Difference = Literal["vanished", "changed", "hidden"]
_UNIT = {np.dtype(np.float32): 1e-3, np.dtype(np.float16): 1e-2}  # how far a length may be from 1
_UNREADABLE = (LibraryDamagedError, LibraryUnreadableError)


class Severity(StrEnum):
    """error: searches fail, or find what is wrong or not everything; warning: something is missing or in the way,
    searches are right; note: nothing is wrong."""

    error = "error"
    warning = "warning"
    note = "note"


@dataclass(frozen=True)
class Finding:
    """One thing that `verify` found.

    subject: what it is about.  what: what is the matter.  advice: what to do, or what the repair has led to.
    is_repaired: whether it was repaired.
    """

    severity: Severity
    subject: str
    what: str
    advice: str
    is_repaired: bool = False

    @property
    def is_problem(self) -> bool:
        """Whether it is still to be dealt with."""
        return self.severity is not Severity.note and not self.is_repaired


@dataclass
class _Rows:
    """What a table holds. keys: how often each occurs; faults: what is wrong -> the keys of the rows it is wrong in."""

    keys: Counter[str] = field(default_factory=Counter)
    faults: dict[str, list[str]] = field(default_factory=dict)

    def bad(self, what: str, keys: Iterable[str]) -> None:
        if keys := list(keys):
            self.faults.setdefault(what, []).extend(keys)

    @property
    def bad_keys(self) -> set[str]:
        return {key for keys in self.faults.values() for key in keys}


class Verification:
    """One look at the library at `place`. Those who repair must be `alone` with it.

    command: the command line that brings a prompt index up to date.
    """

    def __init__(self, place: Path, command: Callable[[PromptIndex], str], *, repair: bool = False) -> None:
        self._place, self._command, self._repair = place, command, repair
        self._tables = Tables(place)
        self._findings: list[Finding] = []
        self._photos: set[str] = set()  # contents of the usable photos

    def run(self) -> list[Finding]:
        """All findings, in the order in which the library is looked through."""
        indexes = self._check_manifests()
        self._check_images(indexes)
        for index in indexes:
            self._check_prompt_table(index)
            self._check_features(index, indexes)
        self._check_other_tables(indexes)
        for index in indexes:
            self._check_snapshot(index)
        for key in orphaned_snapshots(self._place, indexes, self._tables.names()):
            what = "belongs to no prompt index"
            self._found(
                "warning", f"snapshot {key}", what, "drop it", "dropped", partial(remove_snapshot, self._place, key)
            )  # fmt: skip
        return self._findings

    def run_deep(self, folder: Path) -> list[Finding]:
        """Findings on the photos themselves, each read again. Call it after `run`, which repairs the tables."""
        self._findings = []
        if not folder.is_dir():
            self._found(
                "warning", "photos", f"{folder} cannot be reached", "bring it back to compare their hashes"
            )
            return self._findings
        paths: dict[_Difference | None, list[str]] = defaultdict(list)
        for file in Store(self._place).known_files():
            paths[_compare(folder, file)].append(file.path)
        self._note_photos(paths["vanished"], "no longer there")
        self._note_photos(paths["changed"], "changed since")
        for path in paths["hidden"]:
            what = "has another content than when it was indexed, at the same size and time (a damaged disk?)"
            self._found(
                "error", path, what, "compare it with a copy, then", "its row is dropped, the next index reads it anew",
                partial(self._tables.drop_rows, IMAGES, "path", [to_stored(path)]),
            )  # fmt: skip
        return self._findings

    def _note_photos(self, paths: list[str], what: str) -> None:
        if paths:
            self._found(
                "note",
                "photos",
                f"{len(paths):,} of them {what}",
                f"the next index sees to that ({_some(paths)})",
            )

    def _found(
        self, severity: str, subject: str, what: str, advice: str,
        after: str = "", repair: Callable[[], object] | None = None,
    ) -> None:  # fmt: skip
        """Note a finding, repaired if that is wanted and there is a way. after: the advice once it is repaired."""
        is_repaired = self._repair and repair is not None
        if is_repaired and repair is not None:
            repair()
        elif repair is not None:
            advice = f"{advice}: steersearch verify --repair"
        self._findings.append(
            Finding(Severity(severity), subject, what, after if is_repaired else advice, is_repaired)
        )

    # manifests

    def _check_manifests(self) -> list[PromptIndex]:
        """The prompt indexes whose manifests are in order, oldest first."""
        indexes = []
        for key in manifest_keys(self._place):
            try:
                index = read_prompt_index(self._place, key)
                if not key == index.key == _key_of(index):
                    raise LibraryDamagedError(key, "its settings are not those that its name was made from")
                indexes.append(index)
            except SchemaVersionError as error:
                self._found(
                    "error", f"prompt index {key}", f"is of format {error.found}", "update steersearch"
                )
            except _UNREADABLE as error:
                self._found(
                    "error", f"prompt index {key}", f"its manifest is damaged ({error.reason})", "drop the manifest",
                    "manifest dropped; index the folder with the same prompt, its vectors are kept",
                    partial(remove_manifest, self._place, key),
                )  # fmt: skip
        return sorted(indexes, key=lambda index: (index.created_at, index.key))

    # photos

    def _check_images(self, indexes: list[PromptIndex]) -> None:
        def remake() -> None:
            self._tables.drop(IMAGES)
            Store(self._place).ensure_images()
            for key in snapshot_keys(self._place):
                remove_snapshot(self._place, key)  # the new table's versions may have the old one's names

        if IMAGES not in self._tables.names():
            if indexes:
                self._found("error", "photos", "their table is missing", "make an empty one", _REREAD, remake)
            return
        columns = ["path", "image_id", "width", "height", "status", "thumbnail"]
        try:
            rows, usable = self._tables.inspect(IMAGES, columns, _checked_images)
        except _UNREADABLE as error:
            what = f"their table cannot be read ({_plain(error)})"
            self._found("error", "photos", what, "empty it", _REREAD, remake)
            return
        self._photos = usable
        self._report_rows("photos", IMAGES, "path", rows, "warning", "read again by the next index")

    def _report_rows(
        self, subject: str, table: str, key: str, rows: _Rows, severity: str, again: str
    ) -> None:
        """Findings on single rows: what is wrong with them, and keys that occur several times."""
        for what, keys in rows.faults.items():
            self._found(
                severity, subject, f"{_have(len(keys))} {what} ({_some(keys)})", "drop them", f"dropped, {again}",
                partial(self._tables.drop_rows, table, key, keys),
            )  # fmt: skip
        twice = [k for k, number in rows.keys.items() if number > 1 and k not in rows.bad_keys]
        if twice:
            what = f"{_have(len(twice))} the same {key} as another ({_some(twice)})"
            repair = partial(self._tables.keep_one_each, table, key, twice)
            self._found("error", subject, what, "keep one of each", "one kept of each", repair)

    # vectors

    def _check_prompt_table(self, index: PromptIndex) -> None:
        subject, name = f'prompt "{index.prompt}"', prompt_table(index.key)
        again = f"made again by: {self._command(index)}"

        def remake() -> None:
            self._tables.drop(name)
            remove_snapshot(self._place, index.key)  # as above
            Store(self._place).ensure_prompt_table(index.key, index.dim)

        if name not in self._tables.names():
            self._found("error", subject, "its table is missing", "make an empty one", again, remake)
            return
        try:
            if (dim := self._tables.dim(name)) != index.dim:
                what = f"its table holds vectors of length {dim}, its manifest says {index.dim}"
                self._found("error", subject, what, "empty it", again, remake)
                return
            columns = ["image_id", "embedding", "heatmap", PRESENCE]
            rows = self._tables.inspect(name, columns, _checked_vectors)
        except _UNREADABLE as error:
            what = f"its table cannot be read ({_plain(error)})"
            self._found("error", subject, what, "empty it", again, remake)
            return
        self._report_rows(subject, name, "image_id", rows, "error", again)
        has = set(rows.keys) - rows.bad_keys if self._repair else set(rows.keys)
        if missing := len(self._photos - has):
            self._found(
                "note", subject, f"{missing:,} without a vector yet", f"go on: {self._command(index)}"
            )
        self._report_unused(subject, has)

    def _report_unused(self, subject: str, keys: set[str]) -> None:
        if unused := len(keys - self._photos):
            what = f"{unused:,} of its vectors belong to no photo any more"
            advice = "kept in case they come back; to drop them: steersearch optimize --forget-removed"
            self._found("note", subject, what, advice)

    def _check_other_tables(self, indexes: list[PromptIndex]) -> None:
        """Tables of unfinished prompt indexes, and what the frozen trunk says of the photos."""
        known = {IMAGES, *(prompt_table(index.key) for index in indexes)}
        for name in self._tables.names():
            kind, _, key = name.partition("_")
            if name in known or kind not in ("prompt", "frozen"):
                continue
            subject = f"unfinished prompt index {key}" if kind == "prompt" else f"table {name}"
            again = "made again by the next index"

            drop = partial(self._drop_with_snapshot, name, key if kind == "prompt" else name)
            try:
                rows = self._tables.inspect(
                    name, ["image_id", "embedding", "heatmap", "regions"], _checked_vectors
                )
            except _UNREADABLE as error:
                what = f"its table cannot be read ({_plain(error)})"
                self._found("error", subject, what, "drop it", f"dropped, {again}", drop)
                continue
            self._report_rows(subject, name, "image_id", rows, "error", again)
            if kind == "prompt":
                what = f"has {len(rows.keys):,} vectors and no manifest: it was not built to the end"
                self._found("note", subject, what, f"index its prompt to go on, or: steersearch remove {key}")
            else:
                self._report_unused(subject, set(rows.keys) - rows.bad_keys)

    def _drop_with_snapshot(self, table: str, snapshot: str) -> None:
        self._tables.drop(table)
        remove_snapshot(self._place, snapshot)

    # prompt features

    def _check_features(self, index: PromptIndex, indexes: list[PromptIndex]) -> None:
        subject, path = f'prompt "{index.prompt}"', features_file(self._place, index.key)
        again = f"only its model can encode it again: {self._command(index)}"
        if not path.exists():
            self._found("error", subject, "the text encoder's output for it is missing", again)
            return
        what = _fault_of_features(path) or self._fault_of_reading(index)
        if what is not None:
            self._found("error", subject, f"the text encoder's output for it {what}", again)
            if self._repair:  # out of the way, so that `index` makes it anew; until then it stays an error
                path.unlink(missing_ok=True)
            return
        width = np.load(path).shape[1]
        same = [features_file(self._place, i.key) for i in indexes if i.weights_hash == index.weights_hash]
        widths = {np.load(p).shape[1] for p in same if p.exists() and _fault_of_features(p) is None}
        if len(widths) > 1:
            all_widths = ", ".join(map(str, sorted(widths)))
            what = f"the text encoder's output for it has {width} columns; those of this model's prompts: {all_widths}"
            self._found(
                "error", subject, what, "compare the files features.npy, delete the odd one, and index again"
            )

    def _fault_of_reading(self, index: PromptIndex) -> str | None:
        try:
            read_reading(self._place, index.key)
        except LibraryDamagedError as error:
            return f"does not say how it was read ({error.reason})"
        except LibraryUnreadableError as error:
            self._found("error", f'prompt "{index.prompt}"', str(error), "look again when it can be read")
        return None

    # snapshots

    def _check_snapshot(self, index: PromptIndex) -> None:
        if prompt_table(index.key) not in self._tables.names() or IMAGES not in self._tables.names():
            return
        try:
            is_true = snapshot_is_true(self._place, index.key)
        except _UNREADABLE:  # the tables, of which that has been said
            return

        def remake() -> None:
            remove_snapshot(self._place, index.key)
            refresh_snapshot(self._place, index.key)

        if not is_true:
            what = "its search snapshot is not what the tables say"
            self._found("error", f'prompt "{index.prompt}"', what, "make it again", "made again", remake)
        elif self._repair:
            refresh_snapshot(self._place, index.key)


_REREAD = "empty; the next index reads the photos again, their vectors are kept"


def _compare(folder: Path, file: KnownFile) -> _Difference | None:
    """How a file differs from what is known of it; None if it does not, or is not known by its content."""
    path = folder / file.path
    try:
        before = path.stat()
        since = changed_at(before) - file.mtime_ns  # 1 for a time that was not trusted when the file was read
        if before.st_size != file.size or since not in (0, 1):
            return "changed" if file.image_id else None
        if not file.image_id:
            return None
        if content_hash(path) == file.image_id:
            return None
        after = path.stat()
    except FileNotFoundError:
        return "vanished" if file.reason is None else None
    except OSError:
        return "hidden" if file.reason is None else None
    return "hidden" if (after.st_size, changed_at(after)) == (file.size, file.mtime_ns) else "changed"


def _key_of(index: PromptIndex) -> str:
    return new_prompt_index(
        index.prompt,
        index.gate_scale,
        model_id=index.model_id,
        weights_hash=index.weights_hash,
        preprocessing=index.preprocessing,
        dim=index.dim,
    ).key


def _checked_images(batches: Iterable[Any]) -> tuple[_Rows, set[str]]:
    """The rows of `images`, and the contents of those that are usable photos and in order."""
    rows, usable = _Rows(), set()
    for batch in batches:
        for row in batch.to_pylist():
            path = row["path"]
            rows.keys[path] += 1
            if row["status"] == "skipped":
                continue
            if row["status"] != "ok":
                rows.bad(f'the status "{row["status"]}"', [path])
            elif not row["image_id"]:
                rows.bad("no content hash", [path])
            elif not (row["width"] or 0) > 0 or not (row["height"] or 0) > 0:
                rows.bad("no size in pixels", [path])
            elif not _decodes(row["thumbnail"]):
                rows.bad("a thumbnail that does not decode", [path])
            else:
                usable.add(row["image_id"])
    return rows, usable


def _decodes(thumbnail: bytes | None) -> bool:
    try:
        with opened(io.BytesIO(thumbnail or b""), ["JPEG"]) as image:
            image.load()
    except ImageError:
        return False
    return True


def _checked_vectors(batches: Iterable[Any]) -> _Rows:
    """The rows of a prompt table or a frozen one."""
    rows = _Rows()
    for batch in batches:
        ids = np.array(batch.column("image_id").to_pylist(), dtype=object)
        rows.keys.update(ids)
        embeddings = batch.column("embedding")
        stored: Floats = (
            embeddings.flatten().to_numpy(zero_copy_only=False).reshape(-1, embeddings.type.list_size)
        )
        vectors = stored.astype(np.float64)
        finite = np.isfinite(vectors).all(axis=1)
        rows.bad("a vector that is not finite", ids[~finite])
        with np.errstate(invalid="ignore"):
            is_unit = np.abs(np.linalg.norm(vectors, axis=1) - 1) < _UNIT[stored.dtype]
        rows.bad("a vector whose length is not 1", ids[finite & ~is_unit])
        names = batch.schema.names
        if "heatmap" in names:
            bad = [not _unpacks(packed) for packed in batch.column("heatmap").to_pylist()]
            rows.bad("a damaged heatmap", ids[bad])
        if PRESENCE in names:
            presence = np.array(batch.column(PRESENCE).fill_null(0).to_pylist(), dtype=np.float64)
            rows.bad("a presence that is not finite", ids[~np.isfinite(presence)])
    return rows


def _unpacks(packed: bytes) -> bool:
    try:
        return unpack_heatmap(packed).size > 0
    except ValueError:
        return False


def _fault_of_features(path: Path) -> str | None:
    try:
        features = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        return f"cannot be read ({_plain(error)})"
    if features.ndim != 2 or features.size == 0 or features.dtype != np.float32:
        return f"has the shape {features.shape} and the type {features.dtype}, not (tokens, width) float32"
    return None if np.isfinite(features).all() else "is not finite"


def _some(names: list[str]) -> str:
    return ", ".join(sorted(map(from_stored, names))[:3]) + (", …" if len(names) > 3 else "")


def _have(number: int) -> str:
    return f"{number:,} row has" if number == 1 else f"{number:,} rows have"


def _plain(error: Exception) -> str:
    return str(error).split(", /")[0].splitlines()[0] if str(error) else type(error).__name__
