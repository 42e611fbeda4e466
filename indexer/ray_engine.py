"""The work on photos, done by the workers of a Ray cluster.

Each worker is an actor that holds the model and runs `work.Worker`, as a local run does. This process hands out shards
of paths and gets finished rows, which `build` commits: one writer, so that keys stay unique without a lock that spans
machines, and workers need no access to the library. Ray Data would batch as well, but repeats a task whose process
dies without end, and does not say which photos it had; here a shard whose worker dies twice is cut in pieces, down to
the photo that ends every worker, which is skipped.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from steersearch.core.errors import ClusterError
from steersearch.core.objects import as_place
from steersearch.indexer.contents import Contents
from steersearch.indexer.embedder import Embedder
from steersearch.indexer.id_map import IdMap
from steersearch.indexer.loader import BadFile
from steersearch.indexer.ray_cluster import (
    DIED,
    REACH_S,
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
from steersearch.indexer.work import Finished, Job, ShardReport, Worker

logger = logging.getLogger(__name__)

_SHARD = range(32, 1024)  # photos
_SHARD_SECONDS = 10.0  # that a worker should take for one: what its death costs
_AHEAD = 2  # shards that a worker has, so that it never waits for the next
_ATTEMPTS = 2  # deaths of a worker at a shard before it is divided, or at a photo before it is skipped
_STARTS = 3  # deaths in a row of workers that have not begun
_PATIENCE_S = 300.0  # without any worker


class RayEngine:
    """Workers on a Ray cluster, one per GPU, or per few processor cores.

    address: of the cluster, as `ray.init` takes it; None: one on this machine, for as long as the run takes. A
        connection that the process has already is used.
    uses_gpu: whether workers take GPUs where there are some.
    """

    def __init__(self, address: str | None = None, *, uses_gpu: bool = True) -> None:
        require_ray()
        self._address, self._uses_gpu = address, uses_gpu

    def ready(self) -> AbstractContextManager[None]:
        """See `work.Engine`. Without an address the cluster starts when there is work."""
        return nullcontext() if self._address is None else connected(self._address)

    def work(
        self, job: Job, embedder: Embedder, contents: Contents, paths: Sequence[str]
    ) -> Generator[Finished, None, None]:
        """As `work.Worker.work`, a shard at a time.

        Raises ClusterError, and what a worker raises.
        """
        with connected(self._address):
            crew = _Crew(job, embedder, contents, paths, uses_gpu=self._uses_gpu)
            try:
                yield from crew.run()
            finally:
                crew.end()


# --------------------------------------------------------------------------------------------------- on the workers


class _RayWorker(Actor):
    """Works on shards, one at a time."""

    def __init__(self, job: Job, embedder: Embedder, contents: Contents, register: Any) -> None:
        self._job, self._embedder, self._contents, self._register = job, embedder, contents, register
        super().__init__()

    def begin(self, folders: Sequence[str]) -> Answer:
        """Load the model and look for these photo folders."""

        def begin() -> Finished:
            require_folders(folders)
            _ = self._embedder.dim  # loads it
            return Finished()

        return self._answer(begin)

    def work(self, number: int, paths: Sequence[str]) -> Answer:
        """The rows of a shard. number: by which its contents are claimed."""

        def work() -> Finished:
            whole = Finished()
            worker = Worker(self._job, self._embedder, self._contents, self._owned_by(number))
            for finished in worker.work(paths):
                whole.add(finished)
            return whole

        return self._answer(work)

    def _owned_by(self, number: int) -> Callable[[set[str]], set[str]]:
        import ray

        return lambda image_ids: ray.get(self._register.claim.remote(number, image_ids))


class _Register:
    """Which shard computes a content, so that copies in several shards are computed once."""

    def __init__(self) -> None:
        self._owners = IdMap()

    def claim(self, number: int, image_ids: set[str]) -> set[str]:
        """Those of these contents that shard `number` is to compute."""
        owned = set()
        for image_id in image_ids:
            owner = self._owners.get(image_id)
            if owner is None:
                self._owners[image_id] = owner = number
            if owner == number:
                owned.add(image_id)
        return owned


# ------------------------------------------------------------------------------------------ where the run is started


@dataclass
class _Shard:
    """number: by which its contents are claimed, also by the parts of a divided one.

    is_suspect: a worker died that had it; it is then the only one that a worker has.  deaths: of workers that had only
    this one.
    """

    number: int
    paths: tuple[str, ...]
    is_suspect: bool = False
    deaths: int = 0


@dataclass(eq=False)
class _Member:
    """A worker. shards: that it has, in its order, by what `ray.wait` knows; empty until it has begun."""

    actor: Any
    begun: Any
    is_ready: bool = False
    shards: dict[Any, _Shard] = field(default_factory=dict)


class _Crew:
    """The workers of one run, and the shards that they have."""

    def __init__(
        self, job: Job, embedder: Embedder, contents: Contents, paths: Sequence[str], *, uses_gpu: bool
    ) -> None:
        import ray

        self._number, self._options = workers(uses_gpu)
        self._number = min(self._number, math.ceil(len(paths) / _SHARD.start))
        self._paths, self._left = iter(paths), len(paths)
        self._folders = [folder.path for folder in job.folders.all if as_place(folder.path).is_dir()]
        self._again: deque[_Shard] = deque()
        self._shards, self._rate = 0, 0.0
        self._said: set[str] = set()
        self._deaths_at_start = 0
        self._alive_at = time.monotonic()
        # On the node of this process: elsewhere it could be lost with its node, and copies be computed twice.
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        register = ray.remote(_Register).options(
            num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here
        )
        self._register = register.remote()
        self._arguments = [ray.put(job), sent_model(embedder), ray.put(contents)]
        self._members = [self._new_member() for _ in range(self._number)]

    def run(self) -> Iterator[Finished]:
        import ray

        while True:
            for member in self._members:
                self._give(member)
            if not self._left and not self._again and not any(m.shards for m in self._members):
                return
            waiting = [ref for m in self._members for ref in (m.shards if m.is_ready else [m.begun])]
            ready, _ = ray.wait(waiting, num_returns=1, timeout=REACH_S)
            self._refuse_to_wait_for_ever()
            for ref in ready:
                yield from self._taken(ref)

    def end(self) -> None:
        import ray

        for actor in (*(member.actor for member in self._members), self._register):
            ray.kill(actor)

    def _new_member(self) -> _Member:
        import ray

        actor = ray.remote(_RayWorker).options(**self._options).remote(*self._arguments, self._register)
        return _Member(actor, actor.begin.remote(self._folders))

    def _give(self, member: _Member) -> None:
        while (
            member.is_ready
            and len(member.shards) < self._room(member)
            and (shard := self._next()) is not None
        ):
            member.shards[member.actor.work.remote(shard.number, shard.paths)] = shard

    def _room(self, member: _Member) -> int:
        is_suspicious = self._again or any(shard.is_suspect for shard in member.shards.values())
        return 1 if is_suspicious else _AHEAD

    def _next(self) -> _Shard | None:
        if self._again:
            return self._again.popleft()
        paths = tuple(islice(self._paths, self._size()))
        if not paths:
            return None
        self._left -= len(paths)
        self._shards += 1
        return _Shard(self._shards, paths)

    def _size(self) -> int:
        """Of the next shard: a few seconds of work, and at the end of the run less, so that all workers end at once."""
        even = math.ceil(self._left / (_AHEAD * self._number))
        wanted = int(self._rate * _SHARD_SECONDS) if self._rate else 2 * _SHARD.start
        return max(_SHARD.start, min(wanted, even, _SHARD.stop))

    def _taken(self, ref: Any) -> Iterator[Finished]:
        """What a worker has answered."""
        import ray

        member = next(m for m in self._members if ref is m.begun or ref in m.shards)
        try:
            answer = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except ray.exceptions.RayError as error:
            yield from self._died(member, error)
            return
        for level, message, kind in answer.said:
            if kind not in self._said:
                self._said.add(kind)
                logger.log(level, "%s", message)
        if isinstance(answer.finished, Exception):
            raise answer.finished
        self._alive_at, self._deaths_at_start = time.monotonic(), 0
        if ref is member.begun:
            member.is_ready = True
            return
        shard = member.shards.pop(ref)
        finished = answer.finished
        photos, rate = len(finished.results), len(finished.results) / max(answer.seconds, 1e-3)
        self._rate = rate if not self._rate else (self._rate + rate) / 2
        skipped = sum(isinstance(result, BadFile) for result in finished.results)
        finished.shard = ShardReport(shard.number, photos, skipped, answer.seconds)
        yield finished

    def _died(self, member: _Member, error: Exception) -> Iterator[Finished]:
        """A worker died, perhaps because of its shard, if it had only one."""
        import ray

        self._members.remove(member)
        ray.kill(member.actor)  # one that cannot be reached may live, and keep its cores
        if not member.is_ready:
            self._deaths_at_start += 1
            if self._deaths_at_start >= _STARTS:
                raise ClusterError(
                    f"{_STARTS} workers in a row died before they could begin; does every node have this version of "
                    f"steersearch, and memory for the model? {plain(error)}"
                )
        logger.warning("a worker died and is replaced; no photo is lost: %s", plain(error))
        self._members.append(self._new_member())
        shards = list(member.shards.values())
        for shard in shards:
            shard.is_suspect = True
            shard.deaths += len(shards) == 1
            if shard.deaths < _ATTEMPTS:
                self._again.append(shard)
            elif len(shard.paths) > 1:
                self._again.extend(_pieces(shard))
            else:
                bad = BadFile(FileRecord(shard.paths[0], "", 0, 0), DIED.format(shard.deaths))
                yield Finished([bad], shard=ShardReport(shard.number, 1, 1, 0.0))

    def _refuse_to_wait_for_ever(self) -> None:
        import ray

        if any(member.is_ready for member in self._members):
            self._alive_at = time.monotonic()
        elif time.monotonic() - self._alive_at > _PATIENCE_S:
            resources = ray.cluster_resources()
            has = ", ".join(f"{resources[name]:g} {name}" for name in ("CPU", "GPU") if name in resources)
            raise ClusterError(
                f"no worker could begin in {_PATIENCE_S:.0f} s; the cluster has {has or 'no node'}; "
                "run the same command again to continue"
            )


def _pieces(shard: _Shard) -> Iterator[_Shard]:
    """Parts of a shard that ends workers: of a small one the photos, of a large one small ones, which are divided at
    the next death."""
    is_small = len(shard.paths) <= _SHARD.start
    length = 1 if is_small else math.isqrt(len(shard.paths))
    for start in range(0, len(shard.paths), length):
        deaths = 0 if is_small else _ATTEMPTS - 1
        yield _Shard(shard.number, shard.paths[start : start + length], True, deaths)
