"""Capture the output of a module inside a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def heard(module: nn.Module) -> Iterator[list[tuple[dict[str, Any], Any]]]:
    """(keyword arguments, output) of every call of `module` inside the block, in order."""
    calls: list[tuple[dict[str, Any], Any]] = []
    handle = module.register_forward_hook(
        lambda _, __, given, out: calls.append((given, out)), with_kwargs=True
    )
    try:
        yield calls
    finally:
        handle.remove()
