"""Batches from any `Source`: worker processes shuffle, read, augment and normalise rows.

Position p of a run has row p mod n in the shuffle of epoch p div n, augmented with seed (seed, p); step k takes
positions k B .. (k + 1) B - 1. So a batch is a function of (seed, k) for any number of workers and processes, and a run
can start at any step.
"""

from __future__ import annotations

import atexit
import hashlib
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from steersearch.core.errors import ConfigError, DataError, ImageError, SampleError
from steersearch.core.preprocess import Preprocess
from steersearch.training.augment import (
    Augment,
    Floats,
    augment,
    cut_out,
    mask_box,
    patch_cover,
    to_pixels,
)
from steersearch.training.batch import Alone, Batch
from steersearch.training.data.mask_codec import Mask
from steersearch.training.data.samples import Boxed, Boxes, Row, Sample, Skip, Source
from steersearch.training.picture_cache import PictureCache
from steersearch.training.text_store import TextStore

TRIES = 100  # replacements of an unusable row before training stops
HELD_BACK = 100  # one picture in this many is held back if there is no validation split

Rows = npt.NDArray[np.int64]


class SourceFeed:
    """A `Feed` of any sources, with equal probability for all rows.

    training, validation: samples with the same name form one data set in `sources`, even from several sources
    preprocess: the backbone's; its size S is the side of the pictures; its crop is ignored
    patch: side of a patch in pixels, divides S.  alone: whether training batches have `Alone`
    validation_rows: at most this many rows of each validation source, evenly spread; 0: all
    workers: processes that read, 0 for this one.  cache: the folder for decoded pictures; None: no cache
    tokens: length that texts are padded to; None: that of the longest in the batch
    strict: the first unusable row raises SampleError.  report: called once for each skipped row
    Unusable rows are replaced in training, deterministically, and left out of validation; so are rows whose mask
    vanishes at S × S, unless the sources keep empty masks, which count with a loss of 0.
    """

    def __init__(
        self,
        training: Sequence[Source],
        validation: Sequence[Source],
        store: TextStore,
        preprocess: Preprocess,
        patch: int,
        *,
        batch: int,
        seed: int,
        augment: Augment = "release",
        alone: bool = False,
        validation_rows: int = 2000,
        workers: int = 0,
        cache: Path | None = None,
        tokens: int | None = None,
        strict: bool = False,
        rank: int = 0,
        ranks: int = 1,
        report: Callable[[Skip], None] | None = None,
    ) -> None:
        if preprocess.size % patch:
            raise ConfigError("patch", patch, f"must divide the side of {preprocess.size} pixels")
        if batch < ranks:
            raise ConfigError("batch", batch, f"must be at least 1 for each of {ranks} processes")
        given = [*training, *validation]
        self.sources = tuple(dict.fromkeys(name for source in given for name in source.data_sets))
        self._training = _Rows(training)
        self._validation = _Rows([evenly(source, validation_rows or len(source)) for source in validation])
        if not len(self._training):
            raise DataError(", ".join(self.sources) or "training data", "there is no row to train on")
        self._store, self._workers, self._strict, self._report = store, workers, strict, report
        keep_empty = any(source.reading.keep_empty for source in given)
        self._reader = _Reader(store, preprocess, patch, tokens, strict, self.sources, keep_empty)
        self._batch, self._seed, self._augment, self._alone = batch, seed, augment, alone
        self._rank, self._ranks = rank, ranks
        if cache is not None:
            self._training.keep_pictures(cache, preprocess.size)
            self._validation.keep_pictures(cache, preprocess.size)
        self.skipped: Counter[str] = Counter()  # number of unusable rows so far, by reason
        self._told: set[tuple[str, int]] = set()

    def prepare(self, progress: Callable[[str, int, int], None] | None = None) -> list[str]:
        """Encode missing expressions and fill the picture cache.

        progress: called with a name ("expressions", "pictures of NAME"), the number done and the number in all
        Call it in one process first, then in the others, which will find everything done.
        Returns remarks on expressions that the text encoder does not read whole (`TextStore.add`).
        """

        def reporter(what: str) -> Callable[[int, int], None] | None:
            return None if progress is None else lambda done, total: progress(what, done, total)

        remarks = [
            self._store.add(_Expressions(self._training), reporter("expressions")),
            self._store.add(_Expressions(self._validation), reporter("expressions to validate on")),
        ]
        for rows in (self._training, self._validation):
            for source, kept in zip(rows.sources, rows.caches, strict=True):
                if kept is not None:
                    kept.fill(max(1, self._workers), reporter(f"pictures of {source.name}"))
        return list(filter(None, remarks))

    def training(self, start: int, stop: int) -> Iterator[Batch]:
        """This rank's part of the batches of steps start..stop-1, shuffled and augmented.

        Raises SampleError if strict; DataError if hardly any row is usable.
        """
        steps = _TrainingSteps(
            self._reader,
            self._training,
            self._batch,
            self._seed,
            self._augment,
            self._alone,
            self._rank,
            self._ranks,
        )
        yield from self._loaded(steps, range(start, stop), "training")

    def validation(self) -> Iterator[Batch]:
        """This rank's part of the validation rows, squashed without augmentation."""
        mine = range(self._rank, len(self._validation), self._ranks)
        size = max(1, self._batch // self._ranks)
        steps = _ValidationSteps(self._reader, self._validation, mine, size)
        yield from self._loaded(steps, range(-(-len(mine) // size)), "validation")

    def _loaded(self, steps: Dataset[_Made], numbers: range, part: str) -> Iterator[Batch]:
        """The steps in order. Workers end with the iterator, and ignore Ctrl-C."""
        with_workers: dict[str, Any] = {
            "num_workers": min(self._workers, len(numbers)),
            "multiprocessing_context": "fork",
            "worker_init_fn": _outlive_signals,
        }
        loader: DataLoader[_Made] = DataLoader(
            steps,
            batch_size=None,
            sampler=numbers,
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # otherwise it would draw from training's generator
            **(with_workers if self._workers and len(numbers) else {}),
        )
        with _ended(iter(loader)) as loaded:
            for made in loaded:
                for row, skip in made.skipped:
                    self._note(part, row, skip)
                if made.exhausted:
                    last = made.skipped[-1][1]
                    reason = f"{TRIES} consecutive rows are unusable; the last: {last}"
                    raise DataError(last.path, reason)
                if made.batch is not None:
                    yield made.batch

    def _note(self, part: str, row: int, skip: Skip) -> None:
        if self._strict:
            raise SampleError(skip.path, skip.row, skip.reason)
        if (part, row) not in self._told:
            self._told.add((part, row))
            self.skipped[_kind(skip.reason)] += 1
            if self._report is not None:
                self._report(skip)


class Part(Source):
    """Some rows of a source. rows: their numbers, in order"""

    def __init__(self, source: Source, rows: Rows) -> None:
        self.name, self.skips, self.has_boxes = source.name, source.skips, source.has_boxes
        self.reading = source.reading
        self._source, self._rows = source, rows

    @property
    def data_sets(self) -> tuple[str, ...]:
        return self._source.data_sets

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> Row:
        return self._source.row(int(self._rows[index]))

    def annotation(self, index: int) -> Mask | Boxes:
        return self._source.annotation(int(self._rows[index]))

    def read(self, index: int) -> Sample | Boxed | Skip:
        return self._source.read(int(self._rows[index]))

    def picture(self, index: int) -> Image.Image:
        return self._source.picture(int(self._rows[index]))


def evenly(source: Source, most: int) -> Source:
    """At most `most` rows of a source, evenly spread."""
    size = len(source)
    return source if size <= most else Part(source, np.arange(most, dtype=np.int64) * size // most)


def held_back(source: Source) -> tuple[Part, Part]:
    """Split a source into training rows and, for validation, those of one picture in HELD_BACK, chosen by a hash of
    `image_id`, at least one.

    No picture is on both sides, or changes sides when the source grows. Raises DataError for a single picture.
    """
    ids = (source.row(index).image_id for index in range(len(source)))
    keys = np.fromiter((_number(image_id) for image_id in ids), np.int64, len(source))
    held = keys % HELD_BACK == 0
    if len(keys) and not held.any():
        held = keys == keys.min()
    if held.all():
        raise DataError(
            source.name, "it has fewer than two pictures, so none can be held back for validation"
        )
    training, validation = Part(source, np.flatnonzero(~held)), Part(source, np.flatnonzero(held))
    validation.skips = []  # reported once, with the training part
    return training, validation


# ------------------------------------------------------------------------------------------ rows of several sources


class _Rows:
    """The rows of several sources, one source after the other."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = list(sources)
        self.caches: list[PictureCache | None] = [None] * len(self.sources)
        self._ends = np.cumsum([0, *map(len, sources)], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def place(self, row: int) -> tuple[int, int]:
        """The number of a row's source, and its number within it."""
        which = int(np.searchsorted(self._ends, row, side="right")) - 1
        return which, row - int(self._ends[which])

    def keep_pictures(self, folder: Path, size: int) -> None:
        self.caches = [PictureCache(folder, source, size) for source in self.sources]


class _Expressions:
    """The expressions of all rows, as a lazy collection."""

    def __init__(self, rows: _Rows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        for source in self._rows.sources:
            for index in range(len(source)):
                yield source.row(index).expression


# ----------------------------------------------------------------------------------------------------- one row


@dataclass(frozen=True)
class _Example:
    """A row as model input; fields as in `Batch` and `Alone`."""

    expression: str
    pixels: Floats
    cover: Floats
    centre: tuple[float, float]
    source: int
    alone: tuple[Floats, Floats, int] | None  # pixels, cover, name


@dataclass(frozen=True)
class _Made:
    """A worker's result for a step. skipped: unusable rows;  exhausted: no replacement was found."""

    batch: Batch | None
    skipped: list[tuple[int, Skip]]
    exhausted: bool = False


@dataclass(frozen=True)
class _Reader:
    """Turns rows into examples."""

    store: TextStore
    preprocess: Preprocess
    patch: int
    tokens: int | None
    strict: bool
    data_sets: tuple[str, ...]
    keep_empty: bool

    def example(
        self, rows: _Rows, row: int, kind: Augment, alone: bool, rng: np.random.Generator
    ) -> _Example | Skip:
        which, index = rows.place(row)
        source, cache, size = rows.sources[which], rows.caches[which], self.preprocess.size
        found = source.read(index)
        if isinstance(found, Skip):
            return _with_row(found, source.row(index))
        if isinstance(found, Boxed):
            where = source.row(index)
            return Skip(
                where.path, where.row, "it has boxes and no mask; make masks: steersearch train masks"
            )
        try:
            image = cache.picture(index) if cache is not None else None
            image = source.picture(index) if image is None else image
        except (ImageError, SampleError) as error:
            return _with_row(Skip(found.image, "", error.reason), source.row(index))
        view = augment(image, found.mask, found.expression, size, kind, rng)
        if not (view.mask.any() or found.absent or self.keep_empty):
            where = source.row(index)
            return Skip(where.path, where.row, f"nothing of its mask is left at {size} × {size} pixels")
        return _Example(
            found.expression,
            to_pixels(view.image, self.preprocess),
            patch_cover(view.mask, self.patch),
            self._centre(view.mask),
            self.data_sets.index(found.source),
            self._alone(image, found, rng) if alone else None,
        )

    def batch(self, examples: Sequence[_Example]) -> Batch:
        alone = [example.alone for example in examples if example.alone is not None]
        texts = tuple(example.expression for example in examples)
        return Batch(
            torch.from_numpy(np.stack([example.pixels for example in examples])),
            self.store.features(texts, self.tokens),
            torch.from_numpy(np.stack([example.cover for example in examples])),
            torch.tensor([example.centre for example in examples], dtype=torch.float32),
            torch.tensor([example.source for example in examples]),
            _joined(alone) if alone else None,
            texts,
            counts_empty=self.keep_empty,
        )

    def _centre(self, mask: Mask) -> tuple[float, float]:
        if not mask.any():
            return float("nan"), float("nan")
        left, top, right, bottom = mask_box(mask)
        return (left + right) / 2 / self.patch, (top + bottom) / 2 / self.patch

    def _alone(
        self, image: Image.Image, sample: Sample, rng: np.random.Generator
    ) -> tuple[Floats, Floats, int]:
        picture, share = cut_out(image, sample.mask, sample.expression, self.preprocess.size, rng)
        name = 0 if sample.absent else _number(sample.expression.casefold())  # 0 stands for nothing
        return to_pixels(picture, self.preprocess), patch_cover(share, self.patch), name


def _joined(alone: Sequence[tuple[Floats, Floats, int]]) -> Alone:
    pixels, cover, names = zip(*alone, strict=True)
    return Alone(torch.from_numpy(np.stack(pixels)), torch.from_numpy(np.stack(cover)), torch.tensor(names))


def _with_row(skip: Skip, row: Row) -> Skip:
    """Name the row in a skip that names only the picture."""
    if skip.row or skip.path != row.image:
        return skip
    return Skip(row.path, row.row, f"its picture {row.image} cannot be used: {skip.reason}")


def _number(text: str) -> int:
    """A hash of a text in 0..2^63 - 1, the same in every process."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _kind(reason: str) -> str:
    """A reason without paths and numbers, which differ from row to row."""
    words = ["…" if re.search(r"[\d/\\]", word) else word for word in reason.split()]
    return re.sub(r"…( …)+", "…", " ".join(words))


# ---------------------------------------------------------------------------------------------- one step's rows


class _TrainingSteps(Dataset[_Made]):
    """Item k is this rank's part of batch k."""

    def __init__(
        self,
        reader: _Reader,
        rows: _Rows,
        batch: int,
        seed: int,
        kind: Augment,
        alone: bool,
        rank: int,
        ranks: int,
    ) -> None:
        self._reader, self._rows, self._batch, self._seed = reader, rows, batch, seed
        self._kind, self._alone, self._rank, self._ranks = kind, alone, rank, ranks
        self._orders: dict[int, Rows] = {}  # of the last batch's epochs

    def __getitem__(self, step: int) -> _Made:
        examples: list[_Example] = []
        skipped: list[tuple[int, Skip]] = []
        for position in range(step * self._batch + self._rank, (step + 1) * self._batch, self._ranks):
            example = self._usable(position, skipped)
            if example is None:
                return _Made(None, skipped, exhausted=not self._reader.strict)
            examples.append(example)
        return _Made(self._reader.batch(examples), skipped)

    def _usable(self, position: int, skipped: list[tuple[int, Skip]]) -> _Example | None:
        """The row at `position`, or else the first usable one at the same place of a later batch; a neighbour could
        occur twice in this batch."""
        epoch, place = divmod(position, len(self._rows))
        order = self._order(epoch)
        for attempt in range(TRIES):
            steps = attempt * self._batch
            row = int(order[(place + steps + steps // len(order)) % len(order)])
            rng = np.random.default_rng([self._seed, 2, position])
            found = self._reader.example(self._rows, row, self._kind, self._alone, rng)
            if isinstance(found, _Example):
                return found
            skipped.append((row, found))
            if self._reader.strict:
                return None
        return None

    def _order(self, epoch: int) -> Rows:
        """The shuffle of an epoch."""
        if epoch not in self._orders:
            self._orders = {e: order for e, order in self._orders.items() if e == epoch - 1}
            self._orders[epoch] = np.random.default_rng([self._seed, 1, epoch]).permutation(len(self._rows))
        return self._orders[epoch]


class _ValidationSteps(Dataset[_Made]):
    """Item k has the usable ones among the k-th `size` rows."""

    def __init__(self, reader: _Reader, rows: _Rows, chosen: range, size: int) -> None:
        self._reader, self._rows, self._chosen, self._size = reader, rows, chosen, size

    def __getitem__(self, number: int) -> _Made:
        examples: list[_Example] = []
        skipped: list[tuple[int, Skip]] = []
        unused = np.random.default_rng(0)  # the squash uses no random numbers
        for row in self._chosen[number * self._size : (number + 1) * self._size]:
            found = self._reader.example(self._rows, row, "none", False, unused)
            if isinstance(found, _Example):
                examples.append(found)
            else:
                skipped.append((row, found))
        return _Made(self._reader.batch(examples) if examples else None, skipped)


@contextmanager
def _ended(loaded: Any) -> Iterator[Any]:
    """End the workers of a DataLoader's iterator with the block, or with this process if that comes first.

    They would otherwise end when the iterator is collected, which a traceback may prevent, and the interpreter would
    wait for them at exit.
    """
    end: Callable[[], None] = getattr(loaded, "_shutdown_workers", lambda: None)  # missing without workers
    atexit.register(end)
    try:
        yield loaded
    finally:
        end()
        atexit.unregister(end)


def _as_it_is(made: Any) -> Any:
    return made


def _outlive_signals(worker: int) -> None:
    """Ignore the signals that stop a run: the main process saves first, and then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
