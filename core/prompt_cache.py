"""Encoded prompts on disk, so that a known prompt needs no text encoder.

One file per prompt and text encoder (8 tokens: 12 kB from MiniLM, 33 kB from RoBERTa-large), in the folder "prompts" of
$STEERSEARCH_CACHE or else of the user's cache folder. It may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from steersearch.core.files import CACHE_VARIABLE, DRAFT, cache_folder, read_regular, write_atomically
from steersearch.core.prompts import EncodedPrompt, Reading

logger = logging.getLogger(__name__)

MAX_BYTES = 256 * 2**20  # some 8,000 prompts of RoBERTa-large; beyond it the least recently used are deleted
FILE_FORMAT = 2  # raise it if the same weights encode a prompt differently
SUFFIX = ".safetensors"

# Its files, and drafts that killed processes left.
_OWN_NAME = re.compile(rf"[0-9a-f]{{64}}{re.escape(SUFFIX)}|{re.escape(DRAFT)}[0-9a-f]+")


class PromptCache:
    """Encoded prompts by text encoder and prompt, in `folder`; at most `max_bytes` of files.

    identity: the hash of the text encoder's weights.  prompt: compared exactly, spaces included.
    Processes may share a folder. Never raises: an unreadable file counts as missing, and a folder that cannot be
    written is logged once.
    """

    def __init__(self, folder: Path | None = None, max_bytes: int = MAX_BYTES) -> None:
        """folder: None is `default_folder`. It is created on first use."""
        self.folder = folder if folder is not None else default_folder()
        self.max_bytes = max_bytes

    def get(self, identity: str, prompt: str) -> EncodedPrompt | None:
        """The encoded `prompt`; None if it is missing or damaged."""
        key = _key(identity, prompt)
        path = self._path(key)
        try:
            content = read_regular(path, self.max_bytes)
            metadata, tokens = _metadata(content), load(content)["tokens"]
            kept = EncodedPrompt(tokens, Reading.from_dict(json.loads(metadata["reading"])))
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        if metadata != _about(key, kept):  # flipped bits, or another prompt's file
            return None
        with suppress(OSError):
            os.utime(path)  # marks it as recently used
        return kept

    def put(self, identity: str, prompts: Mapping[str, EncodedPrompt]) -> None:
        """Write encoded prompts, replacing existing ones."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for prompt, encoded in prompts.items():
                if np.isfinite(encoded.tokens).all():  # a bad run must not spoil later ones
                    self._write(_key(identity, prompt), encoded)
            self._drop_oldest()
        except OSError as error:
            _tell_once(self.folder, error.strerror or str(error))

    def _path(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}{SUFFIX}"

    def _write(self, key: str, encoded: EncodedPrompt) -> None:
        tokens = np.ascontiguousarray(encoded.tokens, dtype=np.float32)
        content = save({"tokens": tokens}, _about(key, EncodedPrompt(tokens, encoded.reading)))
        write_atomically(self._path(key), lambda file: file.write(content))

    def _drop_oldest(self) -> None:
        """Delete the least recently used files until the rest fits into `max_bytes`."""
        files = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another process deletes as well
                    if _OWN_NAME.fullmatch(entry.name):
                        status = entry.stat()
                        files.append((status.st_mtime_ns, status.st_size, entry.name))
        total = sum(size for _, size, _ in files)
        for _, size, name in sorted(files):
            if total <= self.max_bytes:
                break
            (self.folder / name).unlink(missing_ok=True)
            total -= size


def default_folder() -> Path:
    """The folder "prompts" of $STEERSEARCH_CACHE, or else of the user's cache folder for steersearch."""
    return cache_folder() / "prompts"


def _key(identity: str, prompt: str) -> str:
    """All that decides the features; each file contains it. ASCII, so that any string can be a prompt.

    The version of the tokenizer's code is not part of it, as its vocabulary belongs to the weights.
    """
    return json.dumps({"format": FILE_FORMAT, "text_encoder": identity, "prompt": prompt})


def _metadata(content: bytes) -> Any:
    """The metadata of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length])["__metadata__"]


def _about(key: str, encoded: EncodedPrompt) -> dict[str, str]:
    """The metadata of a file, with a digest of its content."""
    tokens, reading = encoded.tokens, json.dumps(encoded.reading.to_dict())
    digest = hashlib.sha256(f"{tokens.dtype} {tokens.shape} {reading} ".encode() + tokens.tobytes())
    return {"key": key, "reading": reading, "sha256": digest.hexdigest()}


@cache
def _tell_once(folder: Path, reason: str) -> None:
    logger.warning(
        "%s: prompts cannot be cached here (%s), so every run loads the text encoder; set %s to a writable folder",
        folder,
        reason,
        CACHE_VARIABLE,
    )
