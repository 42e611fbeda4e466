"""Run the parts of a batch in parallel, one per core, instead of each in turn on all cores."""

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
    """run(part) for each part, in order, without gradients, on up to `workers` threads that share PyTorch's threads.

    Within an operation PyTorch's threads wait for one another, spinning, and longer if other work, such as decoding,
    takes a core; parts do not wait. Calls from several threads share the workers. Raises what `run` raises.
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
    """The threads for `side_by_side`, each with its share of PyTorch's threads; created once.

    `set_num_threads` sets the number of the calling thread and the default of new threads. So workers set it once, and
    the default is restored before they work. Call this before starting other threads that use PyTorch, which could
    otherwise start with the wrong default.
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
    torch.get_num_threads()  # initialises the thread's number, which would otherwise happen later and override
    torch.set_num_threads(share)


if hasattr(os, "register_at_fork"):  # a forked process has none of these threads
    os.register_at_fork(after_in_child=_pools.clear)
