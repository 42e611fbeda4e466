"""`verify`: check everything that a library stores, report what is wrong, and repair what needs no model.

A repair touches only proven damage: a checksum that does not match, or content that is readable and invalid. What
cannot be read now (permissions, too many open files, a missing file) is reported and left alone. Damaged files are set
aside, never deleted; their rows come from a snapshot if one has them, else from the next `index`. Intact vectors stay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from steersearch.core.errors import (
    LibraryDamagedError,
    LibraryUnreadableError,
    SchemaVersionError,
)
from steersearch.core.objects import as_place
from steersearch.indexer.care.optimize import orphaned_snapshots
from steersearch.indexer.care.tables import Rows, Tables, check_contents, check_images
from steersearch.indexer.folders import Folders
from steersearch.indexer.loader import content_hash
from steersearch.indexer.manifest import (
    ROWS_CHECKED_SINCE,
    THUMBNAILS_APART_SINCE,
    PromptIndex,
    features_file,
    manifest_file,
    manifest_keys,
    new_prompt_index,
    read_library,
    read_prompt_index,
    read_unsteered_index,
    unsteered_file,
    unsteered_keys,
)
from steersearch.indexer.place import is_panic, set_aside
from steersearch.indexer.prompt_features import read_features, read_reading
from steersearch.indexer.regions import refresh_region_snapshot, region_snapshot_is_true
from steersearch.indexer.scan import PATTERNS_FILE, changed_at, read_patterns
from steersearch.indexer.schema import (
    CHECKSUMS,
    IMAGES,
    PROMPT,
    THUMBNAILS,
    UNSTEERED,
    FileRecord,
    from_stored,
    prompt_table,
    summed_columns,
    to_stored,
    unsteered_table,
)
from steersearch.indexer.snapshot import (
    kept_vectors,
    refresh_snapshot,
    remove_snapshot,
    set_snapshot_aside,
    snapshot_is_true,
    snapshot_keys,
)
from steersearch.indexer.store import Store

T = TypeVar("T")

_Difference = Literal["vanished", "changed", "hidden", "unreadable"]


class Severity(StrEnum):
    """error: searches fail, or their results are wrong or incomplete; warning: searches are right, but something is
    missing or superfluous; note: nothing is wrong."""

    error = "error"
    warning = "warning"
    note = "note"


@dataclass(frozen=True)
class Finding:
    """subject: the table, file or prompt.  what: the finding.  advice: what to do, or the result of the repair."""

    severity: Severity
    subject: str
    what: str
    advice: str
    is_repaired: bool = False

    @property
    def is_problem(self) -> bool:
        """Whether the user still has to act."""
        return self.severity is not Severity.note and not self.is_repaired


class Verification:
    """One check of the library at `place`. A repair needs the exclusive lock (`writers.alone`).

    command: returns the command line that updates a prompt index.
    """

    def __init__(self, place: Path, command: Callable[[PromptIndex], str], *, repair: bool = False) -> None:
        self._place, self._command, self._repair = place, command, repair
        schema = read_library(place).schema_version
        self._has_checksums = schema >= ROWS_CHECKED_SINCE
        self._has_thumbnails_apart = schema >= THUMBNAILS_APART_SINCE
        self._tables = Tables(place)
        self._findings: list[Finding] = []
        self._photos: set[str] = set()  # image_ids of the usable photos

    def run(self) -> list[Finding]:
        """All findings, in the order of the checks."""
        indexes = self._check_manifests()
        self._check_unsteered_records()
        has_sound_photos = self._check_images(indexes)
        if self._has_thumbnails_apart:
            self._check_thumbnails(has_sound_photos)
        for index in indexes:
            self._check_prompt_table(index)
            self._check_features(index, indexes)
        self._check_other_tables(indexes)
        self._check_patterns()
        for index in indexes:
            self._check_snapshot(
                f'prompt "{index.prompt}"', "search", index.key, prompt_table(index.key),
                partial(snapshot_is_true, self._place, index.key), partial(refresh_snapshot, self._place, index.key),
            )  # fmt: skip
        for name in self._tables.names(unsteered_table("")):
            key = name.removeprefix(unsteered_table(""))
            self._check_snapshot(
                f"table {name}", "region", name, name,
                partial(region_snapshot_is_true, self._place, key), partial(refresh_region_snapshot, self._place, key),
            )  # fmt: skip
        for key in orphaned_snapshots(self._place, indexes, self._tables.names()):
            what = "belongs to no prompt index"
            self._found(
                "warning", f"snapshot {key}", what, "drop it", "dropped", partial(remove_snapshot, self._place, key)
            )  # fmt: skip
        return self._findings

    def run_deep(self, folders: Folders) -> list[Finding]:
        """Read every photo again and compare its hash. Call it after `run`, which repairs the tables."""
        self._findings = []
        away = [folder for folder in folders.all if not as_place(folder.path).is_dir()]
        for folder in away:
            what = f"{folder.path} {folder.why_away} and cannot be reached"
            self._found("warning", "photos", what, "bring it back to compare their hashes")
        paths: dict[_Difference, list[str]] = defaultdict(list)
        for file in Store(self._place).known():
            if folders.of(file.path) not in away and (difference := _compare(folders / file.path, file)):
                paths[difference].append(file.path)
        self._note_photos(paths["vanished"], "no longer there")
        self._note_photos(paths["changed"], "changed since")
        if unread := paths["unreadable"]:
            what = f"{len(unread):,} of them cannot be read now ({_some(unread)})"
            self._found("warning", "photos", what, "look again when they can be read")
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
        """Note a finding; repair it if asked to and `repair` is given.  after: the advice once repaired."""
        is_repaired = self._repair and repair is not None
        if is_repaired and repair is not None:
            repair()
        elif repair is not None:
            advice = f"{advice}: steersearch verify --repair"
        self._findings.append(
            Finding(Severity(severity), subject, what, after if is_repaired else advice, is_repaired)
        )

    def _unreadable(
        self, subject: str, what: str, error: LibraryUnreadableError | OSError, table: str = ""
    ) -> None:
        """Report something that cannot be read now, and leave it alone."""
        reason = error.reason if isinstance(error, LibraryUnreadableError) else error.strerror or str(error)
        advice = "look again when it can be read"
        if table:
            advice += f"; if part of {self._tables.folder(table)} is lost for good, move that folder away and repair"
        self._found("error", subject, f"{what} cannot be read now ({reason})", advice)

    # manifests

    def _check_manifests(self) -> list[PromptIndex]:
        """The prompt indexes with valid manifests, oldest first."""
        indexes = []
        for key in manifest_keys(self._place):
            subject = f"prompt index {key}"
            try:
                index = read_prompt_index(self._place, key)
                if not key == index.key == _key_of(index):
                    raise LibraryDamagedError(key, "its settings do not match its name")
                indexes.append(index)
            except SchemaVersionError as error:
                self._found("error", subject, f"is of format {error.found}", "update steersearch")
            except LibraryUnreadableError as error:
                self._unreadable(subject, "its manifest", error)
            except LibraryDamagedError as error:
                self._found(
                    "error", subject, f"its manifest is damaged ({error.reason})", "set it aside",
                    "manifest set aside; index the folder with the same prompt, its vectors are kept",
                    partial(set_aside, self._place, manifest_file(self._place, key)),
                )  # fmt: skip
        return sorted(indexes, key=lambda index: (index.created_at, index.key))

    def _check_unsteered_records(self) -> None:
        for key in unsteered_keys(self._place):
            subject = f"unsteered vectors {key}"
            try:
                read_unsteered_index(self._place, key)
            except SchemaVersionError as error:
                self._found("error", subject, f"are of format {error.found}", "update steersearch")
            except LibraryUnreadableError as error:
                self._unreadable(subject, "their record", error)
            except LibraryDamagedError as error:
                self._found(
                    "error", subject, f"their record is damaged ({error.reason})", "set it aside",
                    "record set aside; the next index writes it again, the vectors are kept",
                    partial(set_aside, self._place, unsteered_file(self._place, key)),
                )  # fmt: skip

    def _check_patterns(self) -> None:
        try:
            read_patterns(self._place)
        except LibraryUnreadableError as error:
            self._unreadable("excluded", "the patterns of what is left out", error)
        except LibraryDamagedError as error:
            self._found(
                "error", "excluded", f"the patterns of what is left out are damaged ({error.reason})", "set them aside",
                "set aside; give them again with the next index --exclude",
                partial(set_aside, self._place, self._place / PATTERNS_FILE),
            )  # fmt: skip

    # photos

    def _check_images(self, indexes: list[PromptIndex]) -> bool:
        """Whether every row of the photos is sound."""
        is_there = self._is_there("photos", IMAGES, "their table")
        if not is_there:
            if indexes and is_there is False:
                remake = partial(self._rebuild, IMAGES, snapshot_keys(self._place), keep_rows=False)
                self._found("error", "photos", "their table is missing", "make an empty one", _REREAD, remake)
            return False
        columns = [*dict.fromkeys(c for sums in summed_columns(IMAGES).values() for c in sums), *CHECKSUMS]
        check = partial(check_images, has_checksums=self._has_checksums)
        found = self._look(
            "photos", IMAGES, columns, check, snapshot_keys(self._place), "their table", _REREAD
        )
        if found is None:
            return False
        rows, self._photos = found
        again = "read again by the next index"
        self._report_rows("photos", IMAGES, rows, "warning", again, snapshot_keys(self._place))
        return not rows.faults

    def _check_thumbnails(self, has_sound_photos: bool) -> None:
        subject, again = "thumbnails", "the next index makes what is missing"
        is_there = self._is_there(subject, THUMBNAILS, "their table")
        if not is_there:
            if self._photos and is_there is False:
                remake = partial(self._rebuild, THUMBNAILS, [], keep_rows=False)
                what = "their table is missing"
                self._found("error", subject, what, "make an empty one", f"empty; {again}", remake)
            return
        check = partial(check_contents, THUMBNAILS, has_checksums=True)
        rows = self._look(subject, THUMBNAILS, None, check, [], "their table", f"set aside; {again}")
        if rows is None:
            return
        self._report_rows(subject, THUMBNAILS, rows, "warning", again, [])
        has = Store(self._place).thumbnail_ids() if self._repair else set(rows.keys)
        if missing := len(self._photos - has):
            self._found("note", subject, f"{missing:,} of the photos have none", again)
        if has_sound_photos and (unused := has - self._photos):
            self._found(
                "note", subject, f"{len(unused):,} of them belong to no photo any more", "drop them", "dropped",
                partial(self._tables.drop_rows, THUMBNAILS, "image_id", unused),
            )  # fmt: skip

    # vectors

    def _check_prompt_table(self, index: PromptIndex) -> None:
        subject, name = f'prompt "{index.prompt}"', prompt_table(index.key)
        again = f"what was lost is made again by: {self._command(index)}"
        remake = partial(self._rebuild, name, [index.key], index.dim, keep_rows=False)
        is_there = self._is_there(subject, name, "its table")
        if not is_there:
            if is_there is False:
                what = "its table is missing"
                self._found("error", subject, what, "make it again from what is kept", again, remake)
            return
        try:
            if (dim := self._tables.dim(name)) != index.dim:
                what = f"its table holds vectors of length {dim}, its manifest says {index.dim}"
                self._found("error", subject, what, "set it aside", f"set aside; {again}", remake)
                return
        except (LibraryDamagedError, LibraryUnreadableError):
            pass  # of which more below
        rows = self._look_at_vectors(subject, name, [index.key], again, index.dim)
        if rows is None:
            return
        self._report_rows(subject, name, rows, "error", again, [index.key])
        has = Store(self._place).embedded_ids(index.key) if self._repair else set(rows.keys)
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
        """Check the tables of unfinished prompt indexes and of unsteered features."""
        known = {prompt_table(index.key) for index in indexes}
        for name in self._tables.names():
            kind, _, key = name.partition("_")
            if name in known or kind not in (PROMPT, UNSTEERED):
                continue
            subject = f"unfinished prompt index {key}" if kind == PROMPT else f"table {name}"
            again, snapshots = "made again by the next index", [key if kind == PROMPT else name]
            rows = self._look_at_vectors(subject, name, snapshots, again)
            if rows is None:
                continue
            self._report_rows(subject, name, rows, "error", again, snapshots)
            if kind == PROMPT:
                what = f"has {len(rows.keys):,} vectors and no manifest: its build did not finish"
                self._found("note", subject, what, f"index its prompt to go on, or: steersearch remove {key}")
            else:
                self._report_unused(subject, set(rows.keys) - rows.bad_keys)

    # tables

    def _is_there(self, subject: str, name: str, what: str) -> bool | None:
        """Whether the table exists; None, with a finding, if that cannot be read now."""
        try:
            return self._tables.has(name)
        except LibraryUnreadableError as error:
            self._unreadable(subject, what, error, name)
            return None

    def _look_at_vectors(
        self, subject: str, name: str, snapshots: list[str], again: str, dim: int = 0
    ) -> Rows | None:
        check = partial(check_contents, name, has_checksums=self._has_checksums)
        return self._look(subject, name, None, check, snapshots, "its table", f"set aside; {again}", dim)

    def _look(
        self, subject: str, name: str, columns: Sequence[str] | None, check: Callable[[Iterable[Any]], T],
        snapshots: list[str], what: str, after: str, dim: int = 0,
    ) -> T | None:  # fmt: skip
        """The result of `check` on the rows of a table; None, with a finding, if they cannot be read."""
        damaged, unsealed = list[str](), list[str]()
        try:
            damaged, unsealed = self._tables.damaged_files(name)
            found = self._tables.inspect(name, columns, check)
        except OSError as error:
            self._unreadable(subject, what, error, name)
            return None
        except (LibraryDamagedError, LibraryUnreadableError) as error:
            text = f"{what} cannot be read ({error.reason})"
            remake = partial(self._rebuild, name, snapshots, dim, keep_rows=False)
            if damaged and (isinstance(error, LibraryDamagedError) or is_panic(error)):
                self._found("error", subject, text, "set it aside", after, remake)
            elif isinstance(error, LibraryUnreadableError):
                self._unreadable(subject, what, error, name)
            elif unsealed:  # left by a killed run: readable, but never sealed
                self._found("error", subject, text, "set it aside", after, remake)
            else:
                text += ", although all its files match their checksums"
                self._found("error", subject, text, "left as it is; please report it")
            return None
        if not damaged:
            return found
        text = f"{len(damaged)} of the files of {what} do not match their checksums ({_some(damaged)})"
        after, remake = "set aside; the rows that are sound are kept", partial(self._rebuild, name, snapshots)
        self._found("error", subject, text, "set them aside", after, remake)
        return self._tables.inspect(name, columns, check) if self._repair else found

    def _report_rows(
        self, subject: str, name: str, rows: Rows, severity: str, again: str, snapshots: list[str]
    ) -> None:
        """Report invalid rows and duplicate keys."""
        key = "path" if name == IMAGES else "image_id"
        repair: Callable[[], object] = partial(self._rebuild, name, snapshots)
        for what, keys in rows.faults.items():
            self._found(
                severity, subject, f"{_have(len(keys))} {what} ({_some(keys)})", "set them aside",
                f"set aside, {again}", repair,
            )  # fmt: skip
            repair = _nothing  # the first repair rebuilt the table without any bad row
        if rows.twice:
            what = f"{_have(len(rows.twice))} the same {key} as another ({_some(rows.twice)})"
            self._found("error", subject, what, "keep one of each", "one kept of each", repair)

    def _rebuild(self, name: str, snapshots: list[str], dim: int = 0, *, keep_rows: bool = True) -> None:
        """Rebuild a table from its intact rows and those in its snapshots; the old one is set aside.

        So are its snapshots, as versions of the new table may have the same names.
        """
        kind, _, key = name.partition("_")
        for snapshot in snapshots:
            set_snapshot_aside(self._place, snapshot)
        kept = list(kept_vectors(self._place, key)) if kind == PROMPT else []
        self._tables.rebuild(name, dim, kept, keep_rows=keep_rows)

    # prompt features

    def _check_features(self, index: PromptIndex, indexes: list[PromptIndex]) -> None:
        subject, path = f'prompt "{index.prompt}"', features_file(self._place, index.key)
        again = f"only its model can encode it again: {self._command(index)}"
        try:
            features = read_features(self._place, index.key)
            read_reading(self._place, index.key)
        except FileNotFoundError:
            self._found("error", subject, "the text encoder's output for it is missing", again)
        except LibraryUnreadableError as error:
            self._unreadable(subject, "the text encoder's output for it", error)
        except LibraryDamagedError as error:
            what = f"the text encoder's output for it is damaged ({error.reason})"
            self._found("error", subject, what, again)
            if self._repair:  # out of the way, so that `index` makes it anew; until then it stays an error
                set_aside(self._place, path)
        else:
            self._compare_widths(subject, features.shape[1], index, indexes)

    def _compare_widths(
        self, subject: str, width: int, index: PromptIndex, indexes: list[PromptIndex]
    ) -> None:
        widths = {width}
        for other in indexes:
            if other.weights_hash == index.weights_hash:
                with suppress(FileNotFoundError, LibraryDamagedError, LibraryUnreadableError):
                    widths.add(read_features(self._place, other.key).shape[1])
        if len(widths) > 1:
            all_widths = ", ".join(map(str, sorted(widths)))
            what = f"the text encoder's output for it has {width} columns; those of this model's prompts: {all_widths}"
            self._found(
                "error", subject, what, "compare the files features.npy, delete the odd one, and index again"
            )

    # snapshots

    def _check_snapshot(
        self, subject: str, kind: str, key: str, table: str, is_true: Callable[[], bool], refresh: Callable[[], None]
    ) -> None:  # fmt: skip
        if table not in self._tables.names() or IMAGES not in self._tables.names():
            return

        def remake() -> None:
            remove_snapshot(self._place, key)
            refresh()

        try:
            if is_true():
                if self._repair:
                    refresh()
                return
        except OSError as error:
            self._unreadable(subject, f"its {kind} snapshot", error)
            return
        except (LibraryDamagedError, LibraryUnreadableError):  # the tables', already reported
            return
        what = f"its {kind} snapshot differs from the tables"
        self._found("error", subject, what, "make it again", "made again", remake)


def _nothing() -> None:
    """Already repaired."""


_REREAD = "empty; the next index reads the photos again, their vectors are kept"


def _compare(path: Path, file: FileRecord) -> _Difference | None:
    """How a file differs from its record; None if it does not, or the record has no hash."""
    try:
        before = path.stat()
        since = changed_at(before) - file.mtime_ns  # 1 for a time that was too recent to trust
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
        return "unreadable" if file.reason is None else None
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


def _some(names: list[str]) -> str:
    return ", ".join(sorted(map(from_stored, names))[:3]) + (", …" if len(names) > 3 else "")


def _have(number: int) -> str:
    return f"{number:,} row has" if number == 1 else f"{number:,} rows have"
