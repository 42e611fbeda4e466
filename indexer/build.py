"""One run over the folder: read, embed and write, in commits from which a later run continues."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from os import cpu_count
from pathlib import Path

import numpy as np
import numpy.typing as npt

from steersearch.core.errors import FolderError, ImageError
from steersearch.core.images.dates import CaptureDate
from steersearch.core.images.limits import DEFAULT_LIMITS, Limits
from steersearch.core.images.reader import read_date
from steersearch.core.prompts import EncodedPrompt, Reading
from steersearch.indexer.contents import Contents, Target
from steersearch.indexer.embedder import Embedder
from steersearch.indexer.file_lists import Paths
from steersearch.indexer.folders import Folders
from steersearch.indexer.heap import trim
from steersearch.indexer.id_map import IdMap, Ids, rows_of
from steersearch.indexer.library_scan import LibraryScan
from steersearch.indexer.loader import BadFile, read_ahead
from steersearch.indexer.long_table import Rows
from steersearch.indexer.manifest import (
    PromptIndex,
    UnsteeredIndex,
    read_library,
    write_prompt_index,
    write_unsteered_index,
)
from steersearch.indexer.place import writing_to
from steersearch.indexer.progress import Progress, ProgressEvent
from steersearch.indexer.prompt_features import read_features, read_reading, write_encoded_prompt
from steersearch.indexer.regions import refresh_region_snapshot
from steersearch.indexer.scan import Skip
from steersearch.indexer.schema import FileRecord
from steersearch.indexer.shards import mark_shards, marked_shards, unmark_shards
from steersearch.indexer.snapshot import refresh_snapshot
from steersearch.indexer.store import Store, chunks
from steersearch.indexer.unfinished import mark_unfinished, unmark_unfinished
from steersearch.indexer.work import (
    Engine,
    Finished,
    IndexedPhoto,
    Job,
    Result,
    ShardReport,
    timed,
)

COMMIT_SECONDS = 20.0  # a killed run loses at most this
_COMMIT_IMAGES, _MOST_COMMITTED = 1024, 4096
_COMMITS = 128  # so many before they grow
_MOST_WAITING = 8 * _COMMIT_IMAGES  # rows of finished shards, until one waits for the writing thread


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The result of a run. files = added + reused + moved + copies + skipped; each file counts once.

    added:   something was computed: a new or changed file, or one without a vector, regions or a thumbnail
    reused:  nothing was computed
    moved:   known content at a new path and no longer at its old one, nothing was computed
    copies:  content that is in the folder already, at another path; nothing was computed
    removed: no longer in the folder, and its content is nowhere else in it
    skipped: unusable, for the reasons in `skips`
    away:    folders of the library that are not there, and why; their photos stay as they are and are not counted
    readings: how the model reads each prompt, by prompt; None: not known
    forward_passes: photos × prompts that went through the model; photos, where only unsteered vectors were computed
    seconds: of the whole run, of which read_seconds waiting for photos and embed_seconds in the model, on a cluster
        the sum over its workers; write_seconds are those of a thread beside them
    """

    files: int
    added: int
    reused: int
    moved: int
    copies: int
    removed: int
    skipped: int
    skips: tuple[Skip, ...]
    away: tuple[Skip, ...]
    readings: Mapping[str, Reading | None]
    forward_passes: int
    seconds: float
    read_seconds: float
    embed_seconds: float
    write_seconds: float


class Build:
    """Updates the prompt indexes `targets` of the library at `place` from what `scan` found in its folders.

    encoded: the encoded prompts of targets that have no prompt features yet, by key.
    unsteered: where to keep unsteered features, for queries under a focus that is not indexed; None: nowhere.
    engine: where photos are read and embedded; it is ready.
    writer: the name that `writing` gave this process.
    """

    def __init__(
        self,
        folders: Folders,
        place: Path,
        scan: LibraryScan,
        targets: Sequence[PromptIndex],
        embedder: Embedder,
        encoded: Mapping[str, EncodedPrompt],
        *,
        unsteered: UnsteeredIndex | None = None,
        batch_size: int | None = None,
        commit_seconds: float = COMMIT_SECONDS,
        limits: Limits = DEFAULT_LIMITS,
        progress: Callable[[ProgressEvent], None] | None = None,
        engine: Engine,
        writer: str,
    ) -> None:
        self._folders, self._place, self._scan = folders, place, scan
        self._targets, self._encoded, self._unsteered = tuple(targets), encoded, unsteered
        self._embedder, self._batch_size = embedder, batch_size
        self._engine, self._name = engine, writer
        self._commit_seconds, self._limits = commit_seconds, limits
        self._progress = Progress(progress)

        self._outcomes: Counter[str] = Counter()
        self._elsewhere = IdMap()  # how often known contents are at new paths
        self._replaced = IdMap()  # how often a file has another content by now, by the earlier one
        self._skips: list[Skip] = []
        self._forward_passes = 0
        self._unseen = 0  # files that the library does not know as they are
        self._seconds = {"read": 0.0, "embed": 0.0, "write": 0.0}

        self._finished = Finished()  # and not yet handed to the writing thread
        self._shards: list[ShardReport] = []
        self._records: list[FileRecord] = []
        self._copies: list[FileRecord] = []  # rows to be written from another row of the same content
        self._committed, self._committed_at = 0, time.monotonic()  # files, and when the last were
        self._writer = ThreadPoolExecutor(1, "steersearch-write")
        self._written: Future[None] | None = None  # of the previous commit

    def run(self) -> Counts:
        started = time.monotonic()
        with self._writing():
            self._store = Store(self._place)
            self._store.ensure_images()
        self._prepare_targets()
        self._recall()
        self._ask_dates()
        paths = self._settle_unchanged()
        if self._unseen:
            with self._writing():
                mark_unfinished(self._place, self._name, self._unseen)
        self._read_and_embed(paths)
        self._remove_vanished()
        del self._known, self._contents, self._store
        with self._writing():
            for target in self._targets:
                write_prompt_index(self._place, target)
                refresh_snapshot(self._place, target.key)
            if self._unsteered is not None:
                write_unsteered_index(self._place, self._unsteered)
                refresh_region_snapshot(self._place, self._unsteered.key)
            unmark_shards(self._place)
            unmark_unfinished(self._place, self._name)
        return self._counts(time.monotonic() - started)

    # before reading

    @property
    def _all_targets(self) -> tuple[Target, ...]:
        return self._targets if self._unsteered is None else (*self._targets, self._unsteered)

    def _prepare_targets(self) -> None:
        if self._unsteered is not None:
            with self._writing():
                self._store.ensure_unsteered_table(self._unsteered.key, self._unsteered.dim)
        with self._writing():
            for target in self._targets:
                if target.key in self._encoded:
                    write_encoded_prompt(self._place, target.key, self._encoded[target.key])
                self._store.ensure_prompt_table(target.key, target.dim)

    def _recall(self) -> None:
        """Load the state of the library: files by path, contents that decode or do not, vectors by prompt index."""
        self._known = known = self._store.known()
        usable = known.usable
        usable = usable[rows_of(self._store.contents_with_thumbnails(), usable) >= 0]
        self._contents = Contents(self._all_targets, usable, known.bad, self._embedded())

    def _embedded(self) -> Iterator[tuple[str, Ids]]:
        """See `Contents`."""
        for target in self._targets:
            yield target.key, self._store.contents_with_vectors(target.key)
        if self._unsteered is not None:
            yield self._unsteered.key, self._store.contents_with_features(self._unsteered.key)

    def _ask_dates(self) -> None:
        """Read the capture dates that an older version did not record."""
        undated = map(self._known.path, np.flatnonzero(~(self._known.is_bad | self._known.is_dated)).tolist())
        with self._writing():
            complete_dates(self._folders, self._store, list(filter(self._scan.files.has, undated)))

    def _settle_unchanged(self) -> Paths:
        """Count the unchanged files; return the paths of the others."""
        for skip in self._scan.skips:
            self._skip(skip.path, skip.reason)
            if skip.path not in self._scan.unlisted and not self._scan.files.has(skip.path):
                self._record(FileRecord(skip.path, "", 0, 0, reason=skip.reason))
        files = self._scan.files
        to_read = [part[~self._are_settled(part)] for part in files.parts()]
        return files.paths(np.concatenate([np.empty(0, np.int64), *to_read]))

    def _are_settled(self, part: Rows) -> npt.NDArray[np.bool_]:
        """(n,) Whether nothing is to be read of each of these files; counts them. Where a file could not be read (its
        image_id is ""), it is tried again."""
        files, known = self._scan.files, self._known
        rows = known.rows_of(files, part)
        settled: npt.NDArray[np.bool_] = rows >= 0
        rows = np.maximum(rows, 0)
        if settled.any():
            for now, before in zip(files.states(part), known.states(rows), strict=True):
                settled &= now == before
        self._unseen += int((~settled).sum())
        if settled.any():
            image_ids = known.image_ids(rows)
            is_bad = known.is_bad[rows]
            settled &= (image_ids != b"") & (is_bad | self._contents.are_whole(image_ids))
            for row in rows[settled & is_bad].tolist():
                self._skip(known.path(row), known[row].reason or "")
            self._outcomes["reused"] += int((settled & ~is_bad).sum())
        return settled

    # reading and embedding

    def _read_and_embed(self, paths: Sequence[str]) -> None:
        self._progress.start(len(paths))
        with self._writer:
            try:
                if paths:
                    with closing(self._work(paths)) as batches:
                        for finished in batches:
                            self._take(finished)
            finally:  # also after an interruption
                self._commit()
                self._wait_for_write()

    def _work(self, paths: Sequence[str]) -> Generator[Finished, None, None]:
        if done := marked_shards(self._place):
            photos = sum(shard.photos for shard in done)
            logger.info(
                "an earlier run finished %s photos in %s shards; they stay", f"{photos:,}", f"{len(done):,}"
            )
        job = Job(
            folders=self._folders,
            prompts=self._targets,
            features={target.key: read_features(self._place, target.key) for target in self._targets},
            unsteered=self._unsteered,
            batch_size=self._batch_size,
            limits=self._limits,
        )
        return self._engine.work(job, self._embedder, self._contents, paths)

    def _take(self, finished: Finished) -> None:
        for result in finished.results:
            self._take_result(result)
        self._progress.advance(len(finished.results))
        self._forward_passes += finished.forward_passes
        for stage, seconds in finished.seconds.items():
            self._seconds[stage] += seconds
        finished.results = []
        self._finished.add(finished)
        if finished.shard is not None:
            self._shards.append(finished.shard)
        if self._is_due():
            self._commit()

    def _is_due(self) -> bool:
        """Whether to commit now: whole shards as soon as the last commit has ended."""
        if self._shards:
            return self._written is None or self._written.done() or self._pending() >= _MOST_WAITING
        waited = time.monotonic() - self._committed_at
        # a commit lists the files of all before it: in a large library there are fewer and larger ones
        rows = min(max(_COMMIT_IMAGES, self._committed // _COMMITS), _MOST_COMMITTED)
        return waited > self._commit_seconds or self._pending() >= rows

    def _take_result(self, result: Result) -> None:
        known = self._known.get(result.file.path)
        if known is not None and known.image_id != result.file.image_id:
            self._replaced.count(known.image_id)
        if isinstance(result, BadFile):
            self._take_bad_file(result)
        elif isinstance(result, IndexedPhoto):
            self._outcomes[self._unmoved_or_moved(result.file) if result.is_copy else "added"] += 1
            self._record(result.file)
        else:
            self._outcomes[self._unmoved_or_moved(result.file)] += 1
            if self._is_news(result.file):
                self._copies.append(result.file)

    def _take_bad_file(self, bad: BadFile) -> None:
        file = bad.file
        if not file.image_id:
            self._refuse_another_root()
        self._skip(file.path, bad.reason)
        if not bad.is_gone:  # else the next run removes its row
            self._record(replace(file, reason=bad.reason))

    def _refuse_another_root(self) -> None:
        """Raise FolderError if a photo folder is not the one that was scanned: its photos are not removed."""
        if (replaced := self._scan.replaced) is not None:
            reason = (
                "the photo folder vanished or was replaced while it was indexed; is its disk still there? "
                "Nothing was marked as removed; run the same command again to continue"
            )
            raise FolderError(replaced, reason)

    def _unmoved_or_moved(self, file: FileRecord) -> str:
        """The count for a file for which nothing was computed."""
        known = self._known.get(file.path)
        if known is not None and known.image_id == file.image_id:
            return "reused"
        self._elsewhere.count(file.image_id)
        return "moved"  # or a copy: `_remove_vanished` knows

    # writing

    def _skip(self, path: str, reason: str) -> None:
        self._outcomes["skipped"] += 1
        self._skips.append(Skip(path, reason))

    def _record(self, file: FileRecord) -> None:
        if self._is_news(file):
            self._records.append(file)

    def _is_news(self, file: FileRecord) -> bool:
        """Whether the library's row for this file is missing or differs."""
        return file != self._known.get(file.path)

    def _pending(self) -> int:
        """Rows of the longest table."""
        files = len(self._records) + len(self._copies)
        return max(files, len(self._finished.unsteered), *map(len, self._finished.vectors.values()), 0)

    def _commit(self) -> None:
        """Hand what is computed to the writing thread; reading and embedding go on.

        Waits for the previous commit, so that memory stays bounded, and raises what that one raised.
        """
        self._wait_for_write()
        finished, self._finished = self._finished, Finished()
        records, self._records = self._records, []
        copies, self._copies = self._copies, []
        shards, self._shards = self._shards, []
        self._committed += len(records) + len(copies)
        self._written = self._writer.submit(self._write, finished, records, copies, shards)
        self._committed_at = time.monotonic()

    def _wait_for_write(self) -> None:
        if self._written is not None:
            self._written.result()

    def _write(
        self,
        finished: Finished,
        records: list[FileRecord],
        copies: list[FileRecord],
        shards: list[ShardReport],
    ) -> None:
        """Photos last, so that none is recorded without its thumbnail and vectors; a kill costs an embedding."""
        with self._writing():
            for key, vectors in finished.vectors.items():
                self._store.write_vectors(key, vectors)
            if self._unsteered is not None:
                self._store.write_unsteered(self._unsteered.key, finished.unsteered)
            self._store.write_thumbnails(finished.thumbnails)
            self._store.write_images(records)
            self._store.write_images(self._rows_for_copies(copies))
            mark_shards(self._place, shards)
        trim()

    def _rows_for_copies(self, copies: list[FileRecord]) -> list[FileRecord]:
        originals = self._store.records(file.image_id for file in copies)
        return [
            replace(originals[f.image_id], path=f.path, size=f.size, mtime_ns=f.mtime_ns)
            if f.image_id in originals
            else f  # its row was removed by another run
            for f in copies
        ]

    def _remove_vanished(self) -> None:
        """Delete the rows of removed files. Their vectors stay: a photo that returns costs no forward pass."""
        self._refuse_another_root()
        unusable = {skip.path for skip in self._scan.skips}
        names = {folder.name for folder in self._folders.all}
        # by other runs since this one listed the folders; their first rows may be known here
        added = [folder for folder in read_library(self._place).folders if folder.name not in names]
        gone = IdMap()

        def vanished() -> Iterator[FileRecord]:
            for part in self._known.parts():
                for row in part[self._scan.files.rows_of(self._known, part) < 0].tolist():
                    file = self._known[row]
                    is_anothers = any(folder.owns(file.path) for folder in added)
                    if not (is_anothers or file.path in unusable or self._scan.is_unseen(file.path)):
                        gone.count(file.image_id)
                        yield file

        for some in chunks(vanished(), _COMMIT_IMAGES):
            with self._writing():
                self._store.remove_images(some)
        self._outcomes["removed"] = sum(
            max(0, count - (self._elsewhere.get(image_id) or 0)) for image_id, count in gone.items()
        )
        for image_id, count in self._elsewhere.items():
            left = max(0, count - (gone.get(image_id) or 0))
            self._outcomes["copies"] += max(0, left - (self._replaced.get(image_id) or 0))
        self._outcomes["moved"] -= self._outcomes["copies"]

    # the result

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with timed(self._seconds, "write"), writing_to(self._place):
            yield

    def _counts(self, seconds: float) -> Counts:
        return Counts(
            files=len(self._scan.files) + len(self._scan.skips),
            added=self._outcomes["added"],
            reused=self._outcomes["reused"],
            moved=self._outcomes["moved"],
            copies=self._outcomes["copies"],
            removed=self._outcomes["removed"],
            skipped=self._outcomes["skipped"],
            skips=tuple(sorted(self._skips, key=lambda skip: skip.path)),
            away=tuple(Skip(folder.path, reason) for folder, reason in self._scan.away),
            readings={target.prompt: read_reading(self._place, target.key) for target in self._targets},
            forward_passes=self._forward_passes,
            seconds=seconds,
            read_seconds=self._seconds["read"],
            embed_seconds=self._seconds["embed"],
            write_seconds=self._seconds["write"],
        )


logger = logging.getLogger(__name__)
_COMMIT = 1024  # photos


def complete_dates(root: Path | Folders, store: Store, paths: Sequence[str]) -> None:
    """Set the dates of the photos at these relative paths; the next run retries unreadable ones."""
    if not paths:
        return
    logger.info(
        "reading the dates of %s photos: this version knows more forms and sources of them", f"{len(paths):,}"
    )

    def ask(path: str) -> tuple[str, CaptureDate | None] | None:
        try:
            return path, read_date(root / path)
        except ImageError:
            return None

    threads = max(2, min(8, cpu_count() or 2))
    with closing(read_ahead(paths, ask, threads=threads, look_ahead=8 * threads)) as asked:
        for some in chunks(asked, _COMMIT):
            store.write_dates(dict(one for one in some if one is not None))
