"""Parts of a batch side by side on the cores of a processor, instead of each of them on all cores in turn."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}  # by workers, and PyTorch's threads for each
_making = threading.Lock()


def side_by_side(run: Callable[[T], R], parts: Sequence[T], workers: int) -> list[R]:
    """run(part) for each part, in order, without gradients, on up to `workers` threads that share PyTorch's own.

    Threads of PyTorch wait for one another several times a block, spinning, and each waits longer where other work
    has a core: decoding photos, say. Parts need not wait. Calls from several threads take turns on the same workers.
    An exception of `run` is raised here.
    """
    workers = min(workers, len(parts))
    if workers <= 1:
        return [run(part) for part in parts]
    is_inference = torch.is_inference_mode_enabled()

    def alone(part: T) -> R:
        with torch.inference_mode() if is_inference else torch.no_grad():
            return run(part)

    return list(make_workers(workers).map(alone, parts))


def make_workers(number: int) -> ThreadPoolExecutor:
    """The threads for `side_by_side`, each with its share of PyTorch's threads; made once, then kept.

    PyTorch has a number for each thread and one for threads that are new to it, and `set_num_threads` sets both.
    So workers never set theirs again, and the other is set back before they work. Whoever calls this before threads
    are started that are new to PyTorch keeps these from beginning in between.
    """
    with _making:
        threads = torch.get_num_threads()
        share = max(1, threads // number)
        if (number, share) not in _pools:
            pool = ThreadPoolExecutor(number, "steersearch-model", _begin, (share,))
            all_there = threading.Barrier(number + 1)
            for _ in range(number):
                pool.submit(all_there.wait)
            all_there.wait()
            torch.set_num_threads(threads)
            _pools[number, share] = pool
        return _pools[number, share]


def _begin(share: int) -> None:
    torch.get_num_threads()  # PyTorch gives a new thread its number when it first asks, and would later
    torch.set_num_threads(share)


if hasattr(os, "register_at_fork"):  # a forked process has none of these threads
    os.register_at_fork(after_in_child=_pools.clear)
