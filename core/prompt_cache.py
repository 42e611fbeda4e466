"""Prompts as text encoders read them, kept on disk, so that a prompt seen before needs no text encoder.

One small file per prompt and text encoder (an 8-token prompt: 12 kB from MiniLM, 33 kB from RoBERTa-large), in
the folder "prompts" of $STEERSEARCH_CACHE or else of the user's cache folder. It may be deleted at any time.
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

MAX_BYTES = 256 * 2**20  # some 8,000 prompts of RoBERTa-large; beyond it the prompts longest unused go
FILE_FORMAT = 2  # raise it when the same weights shall make other tokens of a prompt
SUFFIX = ".safetensors"

# Its files, and drafts of them that killed processes left.
_OWN_NAME = re.compile(rf"[0-9a-f]{{64}}{re.escape(SUFFIX)}|{re.escape(DRAFT)}[0-9a-f]+")


class PromptCache:
    """Encoded prompts by text encoder and prompt, in `folder`; at most `max_bytes` of files.

    `identity` is the hash of the text encoder's weights; `prompt` counts exactly as given, blanks included.
    Any number of processes may share a folder. It never raises: what cannot be read is not there, and where
    nothing can be written that is logged once.
    """

    def __init__(self, folder: Path | None = None, max_bytes: int = MAX_BYTES) -> None:
        """`folder` None: the user's, see `default_folder`. It is made when something is first put into it."""
        self.folder = folder if folder is not None else default_folder()
        self.max_bytes = max_bytes

    def get(self, identity: str, prompt: str) -> EncodedPrompt | None:
        """What was put for `prompt`; None if that never was, was dropped, or its file is damaged."""
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
            os.utime(path)  # used now: what is dropped first is what was not used for longest
        return kept

    def put(self, identity: str, prompts: Mapping[str, EncodedPrompt]) -> None:
        """Keep what each prompt was encoded to, replacing what is there."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for prompt, encoded in prompts.items():
                if np.isfinite(encoded.tokens).all():  # the fault of one run must not outlive it
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
        """Delete files of ours, those longest unused first, until the rest is within `max_bytes`."""
        files = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another process drops as well
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
    """All that decides the tokens. In full in each file, so that a name's hash need not be trusted.

    The tokenizer's version is not in it: its vocabulary belongs to the weights, and releases of the tokenizer's
    code are not meant to change what it makes of a text. ASCII, so that any string can be a prompt.
    """
    return json.dumps({"format": FILE_FORMAT, "text_encoder": identity, "prompt": prompt})


def _metadata(content: bytes) -> Any:
    """What a safetensors file says of itself beside its tensors."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length])["__metadata__"]


def _about(key: str, encoded: EncodedPrompt) -> dict[str, str]:
    """What a file says beside the tokens, with a digest of all that it holds."""
    tokens, reading = encoded.tokens, json.dumps(encoded.reading.to_dict())
    digest = hashlib.sha256(f"{tokens.dtype} {tokens.shape} {reading} ".encode() + tokens.tobytes())
    return {"key": key, "reading": reading, "sha256": digest.hexdigest()}


@cache
def _tell_once(folder: Path, reason: str) -> None:
    logger.warning(
        "%s: prompts cannot be kept here (%s), so the text encoder is loaded in every run; set %s to a folder "
        "that can be written",
        folder,
        reason,
        CACHE_VARIABLE,
    )
