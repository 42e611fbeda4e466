"""The work on photos, done by the workers of a Ray cluster. The one file that imports Ray, and only when it is used.

Each worker is an actor that holds the model and runs `work.Worker`, as a local run does. This process hands out shards
of paths and gets finished rows, which `build` commits: one writer, so that keys stay unique without a lock that spans
machines, and workers need no access to the library. Ray Data would batch as well, but repeats a task whose process
dies without end, and does not say which photos it had; here a shard whose worker dies twice is cut in pieces, down to
the photo that ends every worker, which is skipped.
"""

from __future__ import annotations

import logging
import math
import os
import platform
import re
import signal
import socket
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from typing import Any

from steersearch.core.errors import ArgumentError, ClusterError, FolderError, MissingExtraError
from steersearch.core.objects import as_place
from steersearch.indexer.contents import Contents
from steersearch.indexer.embedder import Embedder
from steersearch.indexer.loader import BadFile
from steersearch.indexer.schema import FileRecord
from steersearch.indexer.work import Finished, Job, ShardReport, Worker

logger = logging.getLogger(__name__)

_SHARD = range(32, 1024)  # photos
_SHARD_SECONDS = 10.0  # that a worker should take for one: what its death costs
_CORES = 4  # of a worker without a GPU; more threads hardly make a small model faster
_AHEAD = 2  # shards that a worker has, so that it never waits for the next
_ATTEMPTS = 2  # deaths of a worker at a shard before it is divided, or at a photo before it is skipped
_STARTS = 3  # deaths in a row of workers that have not begun
_PATIENCE_S = 300.0  # without any worker
_REACH_S = 5.0  # to connect
_DIED = "the process that read it died {} times"


class RayEngine:
    """Workers on a Ray cluster, one per GPU, or per few processor cores.

    address: of the cluster, as `ray.init` takes it; None: one on this machine, for as long as the run takes. A
        connection that the process has already is used.
    uses_gpu: whether workers take GPUs where there are some.
    """

    def __init__(self, address: str | None = None, *, uses_gpu: bool = True) -> None:
        if find_spec("ray") is None:
            raise MissingExtraError("ray", "ray", "--engine ray")
        self._address, self._uses_gpu = address, uses_gpu

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


@dataclass(frozen=True)
class _Answer:
    """finished: the rows of a shard, or the error that ends the run.  said: what was logged: level, message, and what
    makes it different from others."""

    finished: Finished | Exception
    said: list[tuple[int, str, str]]
    seconds: float = 0.0


class _RayWorker:
    """Works on shards, one at a time."""

    def __init__(self, job: Job, embedder: Embedder, contents: Contents, register: Any) -> None:
        self._job, self._embedder, self._contents, self._register = job, embedder, contents, register
        self._log = _Log()
        logging.getLogger("steersearch").addHandler(self._log)

    def begin(self, folders: Sequence[str]) -> _Answer:
        """Load the model and look for these photo folders."""

        def begin() -> Finished:
            for folder in folders:
                if not as_place(folder).is_dir():
                    reason = (
                        f"is not on {platform.node()}; every node of the cluster must see it at this path"
                    )
                    raise FolderError(folder, reason)
            _ = self._embedder.dim  # loads it
            return Finished()

        return self._answer(begin)

    def work(self, number: int, paths: Sequence[str]) -> _Answer:
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

    def _answer(self, work: Callable[[], Finished]) -> _Answer:
        began = time.monotonic()
        found: Finished | Exception
        try:
            found = work()
        except Exception as error:  # it is raised where the run was started
            found = error
        return _Answer(found, self._log.take(), time.monotonic() - began)


class _Register:
    """Which shard computes a content, so that copies in several shards are computed once."""

    def __init__(self) -> None:
        self._owners: dict[bytes, int] = {}

    def claim(self, number: int, image_ids: set[str]) -> set[str]:
        """Those of these contents that shard `number` is to compute."""
        return {
            image_id
            for image_id in image_ids
            if self._owners.setdefault(bytes.fromhex(image_id), number) == number
        }


class _Log(logging.Handler):
    """Keeps warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._kept: list[tuple[int, str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        last = record.args[-1] if isinstance(record.args, tuple) and record.args else ""
        self._kept.append((record.levelno, record.getMessage(), f"{record.msg} {last}"))

    def take(self) -> list[tuple[int, str, str]]:
        kept, self._kept = self._kept, []
        return kept


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

        self._number, self._options = _workers(uses_gpu)
        self._number = min(self._number, math.ceil(len(paths) / _SHARD.start))
        self._paths, self._left = iter(paths), len(paths)
        self._folders = [folder.path for folder in job.folders.all if as_place(folder.path).is_dir()]
        self._again: deque[_Shard] = deque()
        self._shards, self._rate = 0, 0.0
        self._said: set[str] = set()
        self._deaths_at_start = 0
        self._alive_at = time.monotonic()
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=True
        )
        register = ray.remote(_Register).options(
            num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here
        )
        self._register = register.remote()
        try:
            self._arguments = [ray.put(one) for one in (job, embedder, contents)]
        except TypeError as error:
            reason = "cannot be sent to the workers of a cluster; give its name or its file instead"
            raise ArgumentError("model", embedder.model_id, reason) from error
        self._members = [self._new_member() for _ in range(self._number)]

    def run(self) -> Iterator[Finished]:
        import ray

        while True:
            for member in self._members:
                self._give(member)
            if not self._left and not self._again and not any(m.shards for m in self._members):
                return
            waiting = [ref for m in self._members for ref in (m.shards if m.is_ready else [m.begun])]
            ready, _ = ray.wait(waiting, num_returns=1, timeout=_REACH_S)
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
        """A worker is no more, perhaps because of its shard, if it had but one."""
        import ray

        self._members.remove(member)
        ray.kill(member.actor)  # one that cannot be reached may live, and keep its cores
        if not member.is_ready:
            self._deaths_at_start += 1
            if self._deaths_at_start >= _STARTS:
                raise ClusterError(
                    f"{_STARTS} workers in a row died before they could begin; does every node have this version of "
                    f"steersearch, and memory for the model? {_plain(error)}"
                )
        logger.warning("a worker died and is replaced; no photo is lost: %s", _plain(error))
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
                bad = BadFile(FileRecord(shard.paths[0], "", 0, 0), _DIED.format(shard.deaths))
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
                "the same command goes on from here"
            )


def _pieces(shard: _Shard) -> Iterator[_Shard]:
    """Parts of a shard that ends workers: of a small one the photos, of a large one small ones, which are divided at
    the next death."""
    is_small = len(shard.paths) <= _SHARD.start
    length = 1 if is_small else math.isqrt(len(shard.paths))
    for start in range(0, len(shard.paths), length):
        deaths = 0 if is_small else _ATTEMPTS - 1
        yield _Shard(shard.number, shard.paths[start : start + length], True, deaths)


def _workers(uses_gpu: bool) -> tuple[int, dict[str, Any]]:
    """How many workers the cluster has room for, and what each takes."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = sum(int(node.get("GPU", 0)) for node in nodes) if uses_gpu else 0
    if gpus:
        return gpus, {"num_gpus": 1, "num_cpus": 1}
    cores = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
    if not cores:
        raise ClusterError("the cluster has no processor core and no GPU for a worker")
    each = min([_CORES, *cores])
    return sum(node // each for node in cores), {"num_cpus": each}


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Within, this process is connected to a cluster. Raises ClusterError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.ERROR}
    logging.getLogger("ray").setLevel(logging.ERROR)  # it says how it guards the cluster
    before = signal.getsignal(signal.SIGTERM)
    try:
        if address is None:
            with _to_itself(), warnings.catch_warnings():
                # What is forked starts another program at once.
                warnings.filterwarnings("ignore", "lancedb fork")
                ray.init("local", include_dashboard=False, **quiet)
        else:
            _reach(address)
            ray.init(address, **quiet)
    except (ConnectionError, OSError, RuntimeError, ValueError, TimeoutError) as error:
        where = "on this machine" if address is None else f"at {address}"
        raise ClusterError(f"no Ray cluster {where}: {_plain(error)}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray has put its own
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _to_itself() -> Iterator[None]:
    """Within, a cluster that is started listens on the loopback interface only, and its workers have the priority of
    this process: on Linux Ray has no other way to say so."""
    from ray._private import ray_constants

    settings = {ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0", "RAY_worker_niceness": "0"}
    before = {name: os.environ.get(name) for name in settings}
    was_enabled, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    os.environ.update(settings)
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = was_enabled
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _reach(address: str) -> None:
    """Raise OSError at once where Ray would retry for long."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), _REACH_S).close()


def _plain(error: BaseException) -> str:
    """What Ray says in many lines and colours, but for the fields of its own."""
    lines = (line for line in str(error).splitlines() if line.strip() and not line.startswith(("\t", " ")))
    return re.sub(r"\x1b\[\d+m", "", " ".join(lines)) or type(error).__name__
