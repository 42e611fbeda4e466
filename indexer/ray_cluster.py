"""A Ray cluster: reaching one, or starting one on this machine; and what all workers on it share.

Ray is imported by the `ray_…` files alone, and only when it is used.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from steersearch.core.errors import ArgumentError, ClusterError, FolderError, MissingExtraError
from steersearch.core.objects import ObjectStoreError, as_place
from steersearch.indexer.embedder import Embedder
from steersearch.indexer.work import Finished

REACH_S = 5.0  # to connect
_CORES = 4  # of a worker without a GPU; more threads hardly make a small model faster
DIED = "the process that read it died {} times"


def require_ray() -> None:
    """Raises MissingExtraError."""
    if find_spec("ray") is None:
        raise MissingExtraError("ray", "ray", "--engine ray")


# --------------------------------------------------------------------------------------------------- on the workers


@dataclass(frozen=True)
class Answer:
    """finished: the rows of some photos, or the error that ends the run.  said: what was logged: level, message, and
    what makes it different from others.  seconds: that it took."""

    finished: Finished | Exception
    said: list[tuple[int, str, str]]
    seconds: float = 0.0


class Actor:
    """What is the same for all workers: errors and warnings become part of the answer."""

    def __init__(self) -> None:
        self._log = _Log()
        logging.getLogger("steersearch").addHandler(self._log)

    def _answer(self, work: Callable[[], Finished]) -> Answer:
        began = time.monotonic()
        found: Finished | Exception
        try:
            found = work()
        except Exception as error:  # it is raised where the run was started
            found = error
        return Answer(found, self._log.take(), time.monotonic() - began)


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


def require_folders(folders: Iterable[str]) -> None:
    """Raise FolderError for a photo folder that this node of the cluster cannot read."""
    for folder in folders:
        try:
            is_there = as_place(folder).is_dir()
        except ObjectStoreError as error:
            reason = f"{error.strerror} (on {platform.node()}; every node needs its own way into the bucket)"
            raise FolderError(folder, reason) from error
        if not is_there:
            reason = f"is not on {platform.node()}; every node of the cluster must see it at this path"
            raise FolderError(folder, reason)


# ------------------------------------------------------------------------------------------ where the run is started


def workers(uses_gpu: bool) -> tuple[int, dict[str, Any]]:
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


def sent_model(embedder: Embedder) -> Any:
    """What workers get instead of the model: the way to load it. Raises ArgumentError for one that has none."""
    import ray

    try:
        return ray.put(embedder)
    except TypeError as error:
        reason = "cannot be sent to the workers of a cluster; give its name or its file instead"
        raise ArgumentError("model", embedder.model_id, reason) from error


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Within, this process is connected to a cluster. Raises ClusterError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is not None:
        os.environ.setdefault("RAY_py_gcs_connect_timeout_s", f"{REACH_S:.0f}")
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
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        where = "on this machine" if address is None else f"at {address}"
        raise ClusterError(f"no Ray cluster {where}: {plain(error)}") from error
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
    """Raise at once where `ray.init` would retry for long: where nobody listens, or something else does."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), REACH_S).close()
        if not address.startswith("ray://"):
            from ray._raylet import GcsClient  # type: ignore[attr-defined]

            GcsClient(address=address)


def plain(error: BaseException) -> str:
    """Ray's message on one line, without colours and fields of its own."""
    lines = (line for line in str(error).splitlines() if line.strip() and not line.startswith(("\t", " ")))
    return re.sub(r"\x1b\[\d+m", "", " ".join(lines)) or type(error).__name__
