"""Searches whose candidates the workers of a Ray cluster steer, as `serve --engine ray` does.

Each worker is an actor that holds its models from one search to the next and runs `work.Worker.steer`, as a search in
this process does. It gets few photos at a time, so that what comes back can change the order of the rest, and a search
that ends leaves the fleet free within a second or two.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Self

from steersearch.core.errors import ClusterError
from steersearch.core.objects import is_uri
from steersearch.indexer.embedder import Embedder
from steersearch.indexer.loader import BadFile
from steersearch.indexer.ray_cluster import (
    DIED,
    Actor,
    Answer,
    connected,
    plain,
    require_folders,
    require_ray,
    sent_model,
    workers,
)
from steersearch.indexer.schema import FileRecord
from steersearch.indexer.work import NOTHING_KNOWN, Candidate, Finished, Job, Worker

logger = logging.getLogger(__name__)

_BATCH_SECONDS = 1.0  # that a worker should take for one: what its death costs, or a search that ends
_AHEAD = 2  # batches that a worker has, so that it never waits for the next
_ATTEMPTS = 2  # deaths of a worker at a photo before it counts as unreadable
_HEARTBEAT_S = 0.5  # between two chances for the caller to stop
_REST_S = 30.0  # after a worker that died before it could begin, until another starts
_PATIENCE_S = 60.0  # for a worker, with photos that may have ended one: this process does not risk them
_ALONE = "no worker of the cluster was ready, so the server's own model steered"


class Fleet:
    """Workers on a Ray cluster, one per GPU or per few processor cores, for one search at a time; a `work.Steering`.

    A context within which this process is connected; entering it raises ClusterError.
    address, uses_gpu: see `ray_engine.RayEngine`.
    """

    def __init__(self, address: str | None = None, *, uses_gpu: bool = True) -> None:
        require_ray()
        self._address, self._uses_gpu = address, uses_gpu
        self.members: list[_Member] = []
        self.paces: dict[str, float] = {}  # seconds that a photo takes a worker, by the name of the model
        self._rests_until = 0.0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(connected(self._address))
        self._stack.callback(self._end)
        self.fill()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def load(self, embedder: Embedder) -> None:
        """Begin to load the model on the workers, and load it here, for prompts and query photos."""
        sent = sent_model(embedder)
        for member in self.members:
            member.load(_name(embedder), sent)
        _ = embedder.dim

    def steer(
        self, job: Job, embedder: Embedder, candidates: Iterable[Candidate], deadline: float
    ) -> Generator[Finished, None, None]:
        """See `work.Steering`. While no worker is ready, the model of this process steers, and a remark says so."""
        self.fill()
        yield from _Round(self, job, embedder, candidates, deadline).run()

    def fill(self) -> None:
        """Start as many workers as the cluster has room for by now."""
        import ray

        if time.monotonic() < self._rests_until:
            return
        try:
            number, options = workers(self._uses_gpu)
        except ClusterError:  # it has lost all its nodes; others may come
            return
        for _ in range(number - len(self.members)):
            self.members.append(_Member(ray.remote(_Steerer).options(**options).remote()))

    def lose(self, member: _Member, error: Exception) -> None:
        """A worker died; another starts."""
        import ray

        logger.warning("a worker died and is replaced; no photo is lost: %s", plain(error))
        self.members.remove(member)
        ray.kill(member.actor)  # one that cannot be reached may live, and keep its cores
        if not member.loaded:
            self._rests_until = time.monotonic() + _REST_S
        self.fill()

    def _end(self) -> None:
        import ray

        for member in self.members:
            ray.kill(member.actor)
        self.members.clear()


# --------------------------------------------------------------------------------------------------- on the workers


class _Steerer(Actor):
    """Steers one batch after the other, by models that it keeps."""

    def __init__(self) -> None:
        super().__init__()
        self._models: dict[str, Embedder] = {}
        self._buckets: set[str] = set()  # known to be readable from here

    def load(self, name: str, embedder: Embedder) -> Answer:
        def load() -> Finished:
            _ = embedder.dim  # loads it
            self._models[name] = embedder
            return Finished()

        return self._answer(load)

    def steer(self, name: str, job: Job, folders: list[str], candidates: list[Candidate]) -> Answer:
        def steer() -> Finished:
            require_folders(folder for folder in folders if folder not in self._buckets)
            self._buckets.update(filter(is_uri, folders))
            return _steered(job, self._models[name], candidates)

        return self._answer(steer)


def _steered(job: Job, embedder: Embedder, candidates: list[Candidate]) -> Finished:
    """All of a batch, on a worker or here."""
    whole = Finished()
    for finished in Worker(job, embedder, NOTHING_KNOWN).steer(candidates):
        whole.add(finished)
    return whole


# ---------------------------------------------------------------------------------------- where the search is started


@dataclass(eq=False)
class _Member:
    """A worker. loaded: the names of its models.  loading: those that it begins to load, with what `ray.wait` knows."""

    actor: Any
    loaded: set[str] = field(default_factory=set)
    loading: dict[str, Any] = field(default_factory=dict)

    def load(self, name: str, sent: Any) -> None:
        if name not in self.loaded and name not in self.loading:
            self.loading[name] = self.actor.load.remote(name, sent)


@dataclass
class _Batch:
    """deaths: of workers that were at it."""

    candidates: list[Candidate]
    deaths: int = 0


class _Round:
    """The part of one search that the fleet has. out: batches with their workers, in the order in which they were
    given, by what `ray.wait` knows."""

    def __init__(
        self, fleet: Fleet, job: Job, embedder: Embedder, candidates: Iterable[Candidate], deadline: float
    ) -> None:
        import ray

        self._fleet, self._job, self._embedder = fleet, job, embedder
        self._candidates, self._deadline = iter(candidates), deadline
        self._name, self._sent_model, self._sent_job = _name(embedder), sent_model(embedder), ray.put(job)
        here = zip(job.folders.all, job.folders.paths, strict=True)
        self._folders = [folder.path for folder, path in here if is_uri(folder.path) or path.is_dir()]
        self._out: dict[Any, tuple[_Member, _Batch]] = {}
        self._again: deque[_Batch] = deque()
        self._is_begun, self._own_pace = False, math.nan
        self._ready_at = time.monotonic()

    def run(self) -> Iterator[Finished]:
        import ray

        try:
            while not self._is_begun or time.monotonic() < self._deadline:
                ready = self._ready()
                for member in ready:
                    self._give(member)
                if self._out:
                    yield self._answered()
                elif ready:
                    return
                elif self._again:
                    yield self._waited()
                elif (batch := self._next(self._own_pace)) is not None:
                    yield self._steered_here(batch)
                else:
                    return
        finally:
            for ref in self._out:
                ray.cancel(ref)

    def _ready(self) -> list[_Member]:
        """The workers that have the model."""
        import ray

        for member in self._fleet.members:
            member.load(self._name, self._sent_model)
        loading = {one.loading[self._name]: one for one in self._fleet.members if self._name in one.loading}
        done, _ = ray.wait([*loading], num_returns=len(loading), timeout=0) if loading else ([], [])
        for ref in done:
            member = loading[ref]
            del member.loading[self._name]
            if self._answer(member, ref) is not None:
                member.loaded.add(self._name)
        ready = [member for member in self._fleet.members if self._name in member.loaded]
        if ready:
            self._ready_at = time.monotonic()
        return ready

    def _give(self, member: _Member) -> None:
        pace = self._fleet.paces.get(self._name, math.nan)
        while True:
            has = [batch for of, batch in self._out.values() if of is member]
            if len(has) == (1 if math.isnan(pace) else _AHEAD):
                return
            # What a worker may have died at is alone with the next, so that this one's death says what it was.
            if has and any(batch.deaths for batch in (*has, *islice(self._again, 1))):
                return
            waiting = sum(len(batch.candidates) for batch in has)
            batch = self._again.popleft() if self._again else self._next(pace, waiting)
            if batch is None:
                return
            answer = member.actor.steer.remote(self._name, self._sent_job, self._folders, batch.candidates)
            self._out[answer] = (member, batch)

    def _next(self, pace: float, waiting: int = 0) -> _Batch | None:
        """What one gets next that takes `pace` seconds for a photo and has some `waiting`: at most half of the time
        that is left for it. NaN: not known yet; one photo tells."""
        size = 1
        if not math.isnan(pace):
            left_s = self._deadline - time.monotonic() - waiting * pace
            if left_s <= pace / 2 and (self._is_begun or self._out):
                return None
            most = self._job.batch_size or self._embedder.batch_size
            size = max(1, math.ceil(min(most, _BATCH_SECONDS / pace, left_s / 2 / pace)))
        candidates = list(islice(self._candidates, size))
        return _Batch(candidates) if candidates else None

    def _answered(self) -> Finished:
        """What the next worker has finished; nothing after a while, or where it died."""
        import ray

        done, _ = ray.wait([*self._out], num_returns=1, timeout=_HEARTBEAT_S)
        if not done:
            return Finished()
        member = self._out[done[0]][0]
        has = {ref: batch for ref, (of, batch) in self._out.items() if of is member}
        answer = self._answer(member, done[0])
        if answer is None:
            for ref in has:
                del self._out[ref]
            first, *others = has.values()
            self._again.extend(others)
            return self._suspect(first)
        _, batch = self._out.pop(done[0])
        assert isinstance(answer.finished, Finished)
        self._fleet.paces[self._name] = max(answer.seconds / len(batch.candidates), 1e-6)
        self._is_begun = True
        return answer.finished

    def _answer(self, member: _Member, ref: Any) -> Answer | None:
        """None where the worker died; raises what it raised."""
        import ray

        try:
            answer: Answer = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except ray.exceptions.RayError as error:
            self._fleet.lose(member, error)
            return None
        for level, message, _ in answer.said:
            logger.log(level, "%s", message)
        if isinstance(answer.finished, Exception):
            raise answer.finished
        return answer

    def _suspect(self, batch: _Batch) -> Finished:
        """Photos at which a worker died: others get them one by one; one that ends a second worker is unreadable."""
        batch.deaths += 1
        if batch.deaths >= _ATTEMPTS:
            return _unreadable([batch])
        self._again.extend(_Batch([candidate], batch.deaths) for candidate in batch.candidates)
        return Finished()

    def _waited(self) -> Finished:
        """There is no worker for photos that may have ended one."""
        time.sleep(_HEARTBEAT_S)
        if time.monotonic() - self._ready_at < _PATIENCE_S:
            return Finished()
        finished = _unreadable(self._again)
        self._again.clear()
        return finished

    def _steered_here(self, batch: _Batch) -> Finished:
        began = time.monotonic()
        finished = _steered(self._job, self._embedder, batch.candidates)
        self._own_pace = max((time.monotonic() - began) / len(batch.candidates), 1e-6)
        self._is_begun = True
        finished.remarks.add(_ALONE)
        return finished


def _unreadable(batches: Iterable[_Batch]) -> Finished:
    return Finished(
        [
            BadFile(FileRecord(path, "", 0, 0), DIED.format(batch.deaths))
            for batch in batches
            for _, path in batch.candidates
        ]
    )


def _name(embedder: Embedder) -> str:
    """What a worker knows a model by: equal names mean equal vectors."""
    return json.dumps([embedder.model_id, embedder.weights_hash, embedder.preprocessing], sort_keys=True)
