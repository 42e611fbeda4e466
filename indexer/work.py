"""The work on photos: read, embed, make rows of the tables. A local run and the workers of a cluster do the same."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from os import cpu_count
from time import monotonic
from typing import Protocol

import numpy as np

from steersearch.core.errors import ModelMismatchError
from steersearch.core.images.limits import DEFAULT_LIMITS, Limits
from steersearch.core.preprocess import least_side
from steersearch.core.vectors import Embedded, Floats, Unsteered
from steersearch.indexer.contents import Claims, Contents, Target
from steersearch.indexer.embedder import Embedder, known_identity, not_finite
from steersearch.indexer.folders import Folders
from steersearch.indexer.id_map import sorted_ids
from steersearch.indexer.loader import BadFile, KnownPhoto, Photo, PhotoReader, read_ahead
from steersearch.indexer.manifest import PromptIndex, UnsteeredIndex
from steersearch.indexer.regions import pack_regions, regions_of
from steersearch.indexer.schema import FileRecord
from steersearch.indexer.store import UnsteeredVector, Vector

Candidate = tuple[str, str]  # image_id, and a path of the tables at which it was
NOTHING_KNOWN = Contents((), sorted_ids(()), {}, ())
THREADS = max(2, min(8, cpu_count() or 2))  # that read photos


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to compute of each photo.

    features: prompt features of the prompt indexes among the targets, by key.
    unsteered: the target that gets unsteered features, if any.
    batch_size: photos per forward pass; None: as many as suit the model and its device.
    """

    folders: Folders
    prompts: tuple[PromptIndex, ...]
    features: Mapping[str, Floats]
    unsteered: UnsteeredIndex | None = None
    batch_size: int | None = None
    limits: Limits = DEFAULT_LIMITS

    @property
    def targets(self) -> tuple[Target, ...]:
        return self.prompts if self.unsteered is None else (*self.prompts, self.unsteered)


@dataclass(frozen=True)
class IndexedPhoto:
    """A decoded photo that has its vectors. is_copy: they were computed for another photo of the same content."""

    file: FileRecord
    is_copy: bool = False


Result = IndexedPhoto | KnownPhoto | BadFile


@dataclass(frozen=True)
class ShardReport:
    """How the work on a shard went. photos: of these, `skipped` are unusable.  seconds: that its worker took."""

    number: int
    photos: int
    skipped: int
    seconds: float


@dataclass
class Finished:
    """Finished photos, with the rows to write.

    thumbnails: those that the library lacks, by content.  vectors: by key.
    seconds: waiting for photos ("read"), in the model ("embed").
    shard: that ends with them, if they come from a cluster.
    remarks: on where they were steered, for whoever searched.
    """

    results: list[Result] = field(default_factory=list)
    thumbnails: dict[str, bytes] = field(default_factory=dict)
    vectors: dict[str, list[Vector]] = field(default_factory=dict)
    unsteered: list[UnsteeredVector] = field(default_factory=list)
    forward_passes: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "embed": 0.0})
    shard: ShardReport | None = None
    remarks: set[str] = field(default_factory=set)

    def add(self, more: Finished) -> None:
        """Take in others."""
        self.results += more.results
        self.thumbnails |= more.thumbnails
        for key, vectors in more.vectors.items():
            self.vectors.setdefault(key, []).extend(vectors)
        self.unsteered += more.unsteered
        self.forward_passes += more.forward_passes
        for stage, seconds in more.seconds.items():
            self.seconds[stage] += seconds


class Engine(Protocol):
    """Where photos are worked on."""

    def ready(self) -> AbstractContextManager[None]:
        """Entered before anything is written, for as long as `work` may be called. Raises ClusterError."""

    def work(
        self, job: Job, embedder: Embedder, contents: Contents, paths: Sequence[str]
    ) -> Generator[Finished, None, None]:
        """Each file at these paths of the tables, once, as they are finished."""


class Steering(Protocol):
    """Where searches steer photos."""

    def load(self, embedder: Embedder) -> None:
        """Load the model, or begin to, so that the first search need not wait."""

    def steer(
        self, job: Job, embedder: Embedder, candidates: Iterable[Candidate], deadline: float
    ) -> Generator[Finished, None, None]:
        """As `Worker.steer`; candidates are taken when they are about to be read, so that their order may change until
        then. May give nothing finished, for the caller to stop. Raises ClusterError, and what `Worker.steer` raises."""


class LocalEngine:
    """In this process: an Engine, and a Steering."""

    def ready(self) -> AbstractContextManager[None]:
        return nullcontext()

    def work(
        self, job: Job, embedder: Embedder, contents: Contents, paths: Sequence[str]
    ) -> Generator[Finished, None, None]:
        return Worker(job, embedder, contents).work(paths)

    def load(self, embedder: Embedder) -> None:
        _ = embedder.dim

    def steer(
        self, job: Job, embedder: Embedder, candidates: Iterable[Candidate], deadline: float
    ) -> Generator[Finished, None, None]:
        return Worker(job, embedder, NOTHING_KNOWN).steer(candidates, deadline)


class Worker:
    """Computes what a job wants of photos.

    contents: what the library has.  owned: called with the contents of a batch, returns those that no other worker
    computes.
    """

    def __init__(
        self,
        job: Job,
        embedder: Embedder,
        contents: Contents,
        owned: Callable[[set[str]], set[str]] = lambda image_ids: image_ids,
    ) -> None:
        self._job, self._contents, self._owned = job, contents, owned
        self._embedder_unchecked, self._check = embedder, threading.Lock()
        self._is_checked = False

    def work(self, paths: Iterable[str]) -> Generator[Finished, None, None]:
        """Read and embed the files at these paths of the tables; gives each a result once, as photos are finished.

        Raises what the embedder raises, and ModelMismatchError.
        """
        self._claims = claims = Claims(self._contents)
        self._waiting: dict[tuple[Target, ...], list[Photo]] = {}  # for a full batch
        self._finished = Finished()
        reader = self._reader(
            is_known=claims.is_known,
            bad_reason=self._contents.bad_reason,
            needs_pixels=lambda image_id: bool(claims.missing(image_id)),
        )

        def look_ahead() -> int:  # one batch more than the model has, so that reading never pauses
            return 4 * THREADS + (self._batch() if self._is_checked else 0)

        with closing(read_ahead(paths, reader, threads=THREADS, look_ahead=look_ahead)) as results:
            while (result := self._next(results)) is not None:
                self._take(result)
                yield from self._handed_over()
            for missing in list(self._waiting):
                self._embed(missing)
            yield from self._handed_over()

    def steer(
        self, candidates: Iterable[Candidate], deadline: float = math.inf
    ) -> Generator[Finished, None, None]:
        """Embed these contents under all targets until the deadline, by `monotonic`, but one at least.

        The first photo goes alone, to measure the time per photo; a batch takes at most half of the time left. A file
        that holds something else by now is a KnownPhoto: another photo, and left to the next `index`.
        Raises what the embedder raises, and ModelMismatchError.
        """
        wanted = set[str]()
        self._finished = Finished()

        def paths() -> Iterator[str]:
            for image_id, path in candidates:
                wanted.add(image_id)
                yield path

        reader = self._reader(
            is_known=lambda image_id: image_id not in wanted,
            bad_reason=lambda _: None,
            needs_pixels=lambda _: True,
        )
        size, batch, is_begun = self._batch(), list[Photo](), False
        each_s = np.inf if deadline < np.inf else 0.0  # seconds per photo in the model

        def look_ahead() -> int:  # reads no more than is steered
            left_s = max(0.0, deadline - monotonic())
            return THREADS + (size if size * each_s <= left_s else int(left_s / each_s))

        with closing(read_ahead(paths(), reader, threads=THREADS, look_ahead=look_ahead)) as results:
            while (result := self._next(results)) is not None:
                if isinstance(result, Photo):
                    batch.append(result)
                else:
                    self._finished.results.append(result)
                left_s = deadline - monotonic()
                if is_begun and left_s <= each_s / 2:  # one more would overrun by more than is left
                    batch = []
                    break
                if len(batch) == size or (batch and len(batch) * each_s >= left_s / 2):
                    began = monotonic()
                    self._steer(batch)
                    yield from self._handed_over()
                    each_s = (monotonic() - began) / len(batch)
                    is_begun, batch = True, []
            if batch:
                self._steer(batch)
            yield from self._handed_over()

    def _steer(self, photos: list[Photo]) -> None:
        self._embed_now(self._job.targets, photos)
        self._finished.results += [IndexedPhoto(photo.file) for photo in photos]

    def _reader(
        self,
        *,
        is_known: Callable[[str], bool],
        bad_reason: Callable[[str], str | None],
        needs_pixels: Callable[[str], bool],
    ) -> PhotoReader:
        return PhotoReader(
            self._job.folders,
            is_known=is_known,
            bad_reason=bad_reason,
            needs_pixels=needs_pixels,
            preprocess=lambda picture: self._embedder().preprocess(picture),
            prepare=self._embedder,
            at_least=least_side(self._job.targets[0].preprocessing),  # all targets share the embedder's
            limits=self._job.limits,
        )

    def _handed_over(self) -> Iterator[Finished]:
        if self._finished.results:
            finished, self._finished = self._finished, Finished()
            yield finished

    def _next(self, results: Iterator[Photo | KnownPhoto | BadFile]) -> Photo | KnownPhoto | BadFile | None:
        with timed(self._finished.seconds, "read"):
            return next(results, None)

    def _take(self, result: Photo | KnownPhoto | BadFile) -> None:
        if not isinstance(result, Photo):
            self._finished.results.append(result)
            return
        image_id = result.file.image_id
        is_copy = self._claims.is_claimed(image_id)
        missing = self._claims.claim(image_id)
        if not missing:
            self._finish(result, is_copy)
            return
        batch = self._waiting.setdefault(missing, [])
        batch.append(result)
        if len(batch) >= self._batch():
            self._embed(missing)

    def _embed(self, missing: tuple[Target, ...]) -> None:
        """Embed the photos that wait for these targets."""
        waited = self._waiting.pop(missing)
        owned = self._owned({photo.file.image_id for photo in waited})
        photos = [photo for photo in waited if photo.file.image_id in owned]
        if photos:
            self._embed_now(missing, photos)
        self._claims.settle({photo.file.image_id for photo in waited}, missing)
        for photo in waited:
            self._finish(photo, is_copy=photo.file.image_id not in owned)

    def _finish(self, photo: Photo, is_copy: bool) -> None:
        self._finished.results.append(IndexedPhoto(photo.file, is_copy))
        if not self._contents.is_usable(photo.file.image_id):
            self._finished.thumbnails[photo.file.image_id] = photo.thumbnail

    def _embed_now(self, targets: tuple[Target, ...], photos: list[Photo]) -> None:
        pixels = np.stack([photo.pixels for photo in photos if photo.pixels is not None])
        assert len(pixels) == len(photos), "a photo without pixels cannot be embedded"
        with timed(self._finished.seconds, "embed"):
            self._embed_under(targets, photos, pixels)

    def _embed_under(self, targets: tuple[Target, ...], photos: list[Photo], pixels: Floats) -> None:
        steered = [target for target in targets if isinstance(target, PromptIndex)]
        wants_unsteered = len(steered) < len(targets)
        for gate_scale in sorted({target.gate_scale for target in steered}) or [0.0]:
            prompts = [target for target in steered if target.gate_scale == gate_scale]
            self._embed_at(gate_scale, prompts, photos, pixels, wants_unsteered)
            wants_unsteered = False  # once, with the first of them

    def _embed_at(
        self,
        gate_scale: float,
        prompts: list[PromptIndex],
        photos: list[Photo],
        pixels: Floats,
        wants_unsteered: bool,
    ) -> None:
        features = [self._job.features[prompt.key] for prompt in prompts]
        if wants_unsteered:
            unsteered, results = self._embedder().embed_with_unsteered(pixels, features, gate_scale)
            self._keep_unsteered(unsteered, photos)
        else:
            results = self._embedder().embed_pixels(pixels, features, gate_scale)
        for prompt, result in zip(prompts, results, strict=True):
            self._keep(prompt, result, photos)
        self._finished.forward_passes += len(photos) * max(1, len(prompts))

    def _keep(self, prompt: PromptIndex, result: Embedded, photos: list[Photo]) -> None:
        embeddings = np.asarray(result.embeddings, dtype=np.float32)
        assert embeddings.shape == (len(photos), prompt.dim), embeddings.shape
        kept = self._finished.vectors.setdefault(prompt.key, [])
        each = zip(photos, embeddings, result.heatmaps, result.presence, strict=True)
        for photo, embedding, heatmap, presence in each:
            if not np.isfinite(embedding).all():
                raise not_finite(self._job.folders / photo.file.path, prompt.prompt, prompt.model_id)
            kept.append(Vector(photo.file.image_id, embedding, heatmap, float(presence)))

    def _keep_unsteered(self, unsteered: Unsteered, photos: list[Photo]) -> None:
        for photo, embedding, patches in zip(photos, unsteered.embeddings, unsteered.patches, strict=True):
            regions = pack_regions(regions_of(patches))
            self._finished.unsteered.append(UnsteeredVector(photo.file.image_id, embedding, regions))

    def _batch(self) -> int:
        """Photos per forward pass."""
        return self._job.batch_size or self._embedder().batch_size

    def _embedder(self) -> Embedder:
        """The loaded embedder, which is checked against the targets once."""
        with self._check:
            if not self._is_checked:
                embedder = self._embedder_unchecked
                _ = embedder.dim  # loads it
                identity = known_identity(embedder)
                for target in self._job.targets:
                    if not identity.fits(target.weights_hash, target.preprocessing):
                        raise ModelMismatchError.of(target.prompt, target.model_id, embedder.model_id)
                self._is_checked = True
            return self._embedder_unchecked


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Adds the time that passes within to the seconds of this stage."""
    started = time.monotonic()
    try:
        yield
    finally:
        seconds[stage] += time.monotonic() - started
