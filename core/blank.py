"""Modules without memory, for weights that come from a file: no random ones are made first, nothing is held twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


@contextmanager
def blank_modules() -> Iterator[None]:
    """Modules built in here are on the meta device; give them weights by `load_state_dict(..., assign=True)`."""
    with torch.device("meta"), _NoNormal():
        yield


class _NoNormal(TorchFunctionMode):
    """Skips `normal_`, for which alone the meta device imports sympy: more than a second."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func.__name__ == "normal_":
            return args[0]
        return func(*args, **(kwargs or {}))
