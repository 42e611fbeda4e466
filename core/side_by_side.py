"""Parts of a batch side by side on the cores of a processor, instead of each of them on all cores in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def side_by_side(run: Callable[[T], R], parts: Sequence[T], workers: int) -> list[R]:
    """run(part) for each part, in order, without gradients, on up to `workers` threads that share PyTorch's own.

    Threads of PyTorch wait for one another several times a block, spinning, and each waits longer where other work
    has a core: decoding photos, say. Parts need not wait. An exception of `run` is raised here.
    """
    workers = min(workers, len(parts))
    if workers <= 1:
        return [run(part) for part in parts]
    threads, is_inference = torch.get_num_threads(), torch.is_inference_mode_enabled()

    def alone(part: T) -> R:
        torch.set_num_threads(max(1, threads // workers))  # of the thread that calls it
        with torch.inference_mode() if is_inference else torch.no_grad():
            return run(part)

    try:
        with ThreadPoolExecutor(workers, thread_name_prefix="steersearch-model") as pool:
            return list(pool.map(alone, parts))
    finally:
        torch.set_num_threads(threads)  # also what threads begin with that are new to PyTorch
