"""Everything that steersearch raises on purpose. The library raises; only the command line prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class SteerSearchError(Exception):
    """Base of all errors whose message is written for the user."""


class ImageError(SteerSearchError):
    """A file that cannot be used as an image. Fields: `path` (or None for an image in memory), `reason`."""

    def __init__(self, path: Path | str | None, reason: str) -> None:
        self.path = None if path is None else Path(path)
        self.reason = reason
        super().__init__(f"{path if path is not None else 'image'}: {reason}")


class PromptError(SteerSearchError):
    """A prompt that cannot steer: empty or only white space."""


class UnknownModelError(SteerSearchError):
    """No model, file or hub id of this name. Fields: `name`, `known` (the names that exist)."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        self.name, self.known = name, tuple(known)
        super().__init__(
            f'unknown model "{name}"; known: {", ".join(known)}; or give a .safetensors or .pth file'
        )


class CheckpointError(SteerSearchError):
    """A checkpoint that is damaged, unsafe or does not fit the model."""


class ConfigError(SteerSearchError):
    """A model setting that cannot work. Fields: `field`, `value`, `reason`."""

    def __init__(self, field: str, value: object, reason: str) -> None:
        self.field, self.value, self.reason = field, value, reason
        super().__init__(f"{field} = {value!r}: {reason}")
