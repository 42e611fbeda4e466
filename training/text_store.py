"""Token features of training's expressions, each encoded once by the frozen text encoder and stored on disk.

    <folder>/<text encoder>-<layers>/store.json      which text encoder, and the width of its tokens
    <folder>/<text encoder>-<layers>/0/tokens.f16    (T, Dt) float16, only ever appended to
    <folder>/<text encoder>-<layers>/0/index.npy     (3, n) uint64: hash, check, and place of each text

Tokens in float32 have another folder, <text encoder>-<layers>-float32, with tokens.f32.

An index is replaced as a whole, after its tokens are on disk, at least once a minute; a killed process loses later
ones. Each concurrent writer has a folder of its own, 0, 1, …, which later writers continue. Both files are
memory-mapped: a million texts take 24 MB of index and, from RoBERTa-large, some 20 GB of tokens.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from itertools import count, islice
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock, Timeout

from steersearch.core import hub
from steersearch.core.errors import DataError, PromptError
from steersearch.core.files import never_a_link, read_json, require_regular, write_atomically
from steersearch.core.prompts import quoted
from steersearch.core.text import MAX_TOKENS, PromptFeatures, TextEncoder, check_prompts, load_text_encoder

TEXTS_AT_ONCE = 2048  # looked up together, and sorted by length for encoding
TEXTS_IN_BATCH = 256  # encoded together
SECONDS_BETWEEN_ENTRIES = 60.0  # between updates of the index
_LENGTH_BITS = 16
_LENGTH = (1 << _LENGTH_BITS) - 1

TokenType: TypeAlias = Literal["float16", "float32"]
Tokens: TypeAlias = npt.NDArray[np.float16] | npt.NDArray[np.float32]
_FILES = {"float16": "tokens.f16", "float32": "tokens.f32"}

Index = npt.NDArray[np.uint64]
Keys = npt.NDArray[np.uint64]


class TextStore:
    """Token features by exact text; created by `TextStore.open`.

    Can be pickled; the copy maps the files again. Additions by other processes become visible when a store is opened,
    copied or added to.
    """

    def __init__(self, folder: Path, text_encoder: str, layers: int, tokens: TokenType = "float16") -> None:
        self.folder, self.text_encoder, self.layers, self._tokens = folder, text_encoder, layers, tokens
        self._encoder: TextEncoder | None = None
        self._parts: list[_Part] = []
        self._dim: int | None = None
        self._look()

    @classmethod
    def open(
        cls, folder: Path, text_encoder: str, layers: int = -1, tokens: TokenType = "float16"
    ) -> TextStore:
        """The store of one text encoder below `folder`, created by the first `add`.

        layers: number of transformer layers to use, 0 for word embeddings alone, -1 for all
        tokens: the stored type; float16 takes half the space and changes gradients by some 5e-4 of their size
        Raises DataError for damaged files, and as `hub.text_encoder_identity`.
        """
        identity = hub.text_encoder_identity(text_encoder)
        used = "all" if layers < 0 else str(layers)
        kind = "" if tokens == "float16" else f"-{tokens}"
        return cls(folder / f"{identity[:24]}-{used}{kind}", text_encoder, layers, tokens)

    def __reduce__(self) -> tuple[type[TextStore], tuple[Path, str, int, TokenType]]:
        return TextStore, (self.folder, self.text_encoder, self.layers, self._tokens)

    def __len__(self) -> int:
        """Number of texts; one that two processes added at once counts twice."""
        return sum(part.index.shape[1] for part in self._parts)

    @property
    def longest(self) -> int:
        """Tokens of the longest text, special ones included; 0 without texts."""
        return max((part.longest for part in self._parts), default=0)

    def require_width(self, dim: int) -> None:
        """Raise DataError if the stored tokens are not `dim` wide, the width of this text encoder."""
        if self._dim not in (None, dim):
            reason = f"damaged (its tokens are {self._dim} wide, the encoder's {dim}); delete it, it will be rebuilt"
            raise DataError(self.folder, reason)

    def add(self, texts: Iterable[str], progress: Callable[[int, int], None] | None = None) -> str:
        """Encode the missing texts, on a GPU if there is one, and store them.

        progress: called with the number of texts processed and in all (0 if unknown)
        Returns a remark if the text encoder does not read all of these texts whole, else "".
        Raises PromptError for an empty text, DataError, OSError.
        """
        self._look()
        partly = _PartlyRead()
        total, done = len(texts) if isinstance(texts, Sized) else 0, 0
        remaining = iter(texts)
        writer: _Writer | None = None
        try:
            while chunk := list(islice(remaining, TEXTS_AT_ONCE)):
                for batch in self._new(chunk, writer):
                    tokens = self._encode(batch)
                    partly.look(batch, self._loaded())
                    if writer is None:
                        writer = _Writer(self.folder, self._settled(tokens[0].shape[1]), self._tokens)
                    writer.append(batch, tokens)
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
        finally:
            if writer is not None:
                writer.close()
                self._look()
            self._encoder = None  # RoBERTa-large is 1.4 GB
        return partly.remark()

    def features(self, texts: Sequence[str], length: int | None = None) -> PromptFeatures:
        """Tokens of the texts, (B, L, Dt) float32, padded with zeros to `length`, or else to the longest.

        Raises DataError for a missing text, or one longer than `length`.
        """
        check_prompts(texts)
        rows: list[Tokens | None] = [None] * len(texts)
        keys = _keys(texts)
        for part in self._parts:
            places = _places(part.index, keys)
            for i in np.flatnonzero(places >= 0).tolist():
                place = int(places[i])
                first, number = place >> _LENGTH_BITS, place & _LENGTH
                rows[i] = part.tokens[first : first + number]
        found = [row for row in rows if row is not None]
        if len(found) < len(rows):
            missing = texts[[row is None for row in rows].index(True)]
            raise DataError(self.folder, f'"{missing}" was not encoded yet; add it first')
        longest = max(map(len, found))
        if length is not None and longest > length:
            raise DataError(self.folder, f"a text has {longest} tokens, more than {length}")
        tokens = torch.zeros(len(found), length or longest, found[0].shape[1])
        mask = torch.zeros(tokens.shape[:2], dtype=torch.bool)
        for i, row in enumerate(found):
            tokens[i, : len(row)] = torch.from_numpy(row.astype(np.float32))
            mask[i, : len(row)] = True
        return PromptFeatures(tokens, mask)

    def _look(self) -> None:
        """Map the current files."""
        try:
            dim = read_json(self.folder / "store.json")["dim"]
            if type(dim) is not int or dim < 1:
                raise ValueError(f"tokens {dim!r} wide")
        except FileNotFoundError:
            self._dim, self._parts = None, []
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(self.folder, f"damaged ({error}); delete it, it will be rebuilt") from error
        self._dim = dim
        folders = (path.parent for path in sorted(self.folder.glob("*/index.npy")))
        self._parts = [_Part(folder, dim, self._tokens) for folder in folders]

    def _settled(self, dim: int) -> int:
        """Write store.json unless it exists; returns the width of the tokens."""
        self.require_width(dim)
        path = self.folder / "store.json"
        if self._dim is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            about = {"text_encoder": self.text_encoder, "layers": self.layers, "dim": dim}
            write_atomically(path, lambda file: file.write(json.dumps(about).encode()))
        return dim

    def _new(self, texts: Sequence[str], writer: _Writer | None) -> Iterator[list[str]]:
        """The missing ones of `texts`, without duplicates, in batches of similar length."""
        check_prompts(texts)
        unique = list(dict.fromkeys(texts))
        keys = _keys(unique)
        known = np.zeros(len(unique), np.bool_)
        for part in self._parts:
            known |= _places(part.index, keys) >= 0
        if writer is not None:
            known |= writer.has(keys)
        new = sorted((text for text, there in zip(unique, known, strict=True) if not there), key=len)
        yield from (new[i : i + TEXTS_IN_BATCH] for i in range(0, len(new), TEXTS_IN_BATCH))

    def _loaded(self) -> TextEncoder:
        if self._encoder is None:
            self._encoder = load_text_encoder(self.text_encoder)
            if self.layers >= 0:
                self._encoder.cut(self.layers)
            self._encoder.to("cuda" if torch.cuda.is_available() else "cpu")
        return self._encoder

    def _encode(self, texts: Sequence[str]) -> list[Tokens]:
        with np.errstate(over="ignore"):
            rows: list[Tokens] = [row.astype(self._tokens) for row in self._loaded().encode(texts).numpy()]
        for text, row in zip(texts, rows, strict=True):
            if not np.isfinite(row).all():
                raise DataError(self.folder, f'the tokens of "{text}" are not finite in {self._tokens}')
        return rows


class _PartlyRead:
    """Counts new texts that a text encoder does not read whole, and keeps the first remark."""

    def __init__(self) -> None:
        self._new, self._count, self._first = 0, 0, ""

    def look(self, texts: Sequence[str], encoder: TextEncoder) -> None:
        for text in texts:
            try:
                remarks = encoder.read(text).remarks()
            except PromptError as error:  # no word of it
                remarks = [str(error)]
            self._new += 1
            self._count += bool(remarks)
            if remarks and not self._first:
                self._first = f"{quoted(text)}: {remarks[0]}"

    def remark(self) -> str:
        if not self._count:
            return ""
        return f"{self._count:,} of {self._new:,} new expressions are not read whole, such as {self._first}"


class _Part:
    """The folder of one writer at a time, as its index describes it."""

    def __init__(self, folder: Path, dim: int, tokens: TokenType) -> None:
        try:
            self.index: Index = np.load(require_regular(folder / "index.npy"), mmap_mode="r")
            if self.index.ndim != 2 or len(self.index) != 3 or self.index.dtype != np.uint64:
                raise ValueError("not an index")
            places = self.index[2].astype(np.int64)
            lengths = places & _LENGTH
            if (places < 0).any():
                raise ValueError("impossible places")
            rows = int(((places >> _LENGTH_BITS) + lengths).max(initial=0))
            self.longest, self.rows = int(lengths.max(initial=0)), rows
            self.tokens: Tokens = np.zeros((0, dim), tokens)
            if rows:
                file = require_regular(folder / _FILES[tokens])
                self.tokens = np.memmap(file, tokens, "r", shape=(rows, dim))
        except (OSError, ValueError, OverflowError, EOFError) as error:
            raise DataError(folder, f"damaged ({error}); delete it, it will be rebuilt") from error


class _Writer:
    """Appends to a part, which it has locked."""

    def __init__(self, folder: Path, dim: int, tokens: TokenType) -> None:
        self._folder, self._lock = _lock_free_part(folder)
        path = self._folder / "index.npy"
        part = _Part(self._folder, dim, tokens) if path.is_file() else None
        self._index: Index = np.zeros((3, 0), np.uint64) if part is None else np.array(part.index)
        self._rows = 0 if part is None else part.rows
        # cut where a killed writer's index ends
        self._tokens = open(self._folder / _FILES[tokens], "ab", opener=never_a_link)  # noqa: SIM115
        self._tokens.truncate(self._rows * dim * np.dtype(tokens).itemsize)
        self._new: list[tuple[int, int, int]] = []
        self._entered = time.monotonic()

    def has(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Which of `keys` (2, B) were appended by this writer."""
        new = {(key, check) for key, check, _ in self._new}
        pairs = zip(keys[0].tolist(), keys[1].tolist(), strict=True)
        waiting = np.array([pair in new for pair in pairs], np.bool_)
        return waiting | (_places(self._index, keys) >= 0)

    def append(self, texts: Sequence[str], tokens: Sequence[Tokens]) -> None:
        keys = _keys(texts)
        for key, check, row in zip(keys[0].tolist(), keys[1].tolist(), tokens, strict=True):
            self._tokens.write(row.tobytes())
            self._new.append((key, check, self._rows << _LENGTH_BITS | len(row)))
            self._rows += len(row)
        if time.monotonic() - self._entered > SECONDS_BETWEEN_ENTRIES:
            self._enter()

    def close(self) -> None:
        try:
            self._enter()
            self._tokens.close()
        finally:
            self._lock.release()

    def _enter(self) -> None:
        """Flush the appended tokens, then add them to the index."""
        self._tokens.flush()
        os.fsync(self._tokens.fileno())
        new = np.array(self._new, np.uint64).reshape(-1, 3).T
        joined = np.concatenate([self._index, new], axis=1)
        self._index = np.ascontiguousarray(joined[:, np.lexsort(joined[:2][::-1])])
        self._new.clear()
        write_atomically(self._folder / "index.npy", lambda file: np.save(file, self._index))
        self._entered = time.monotonic()


def _lock_free_part(folder: Path) -> tuple[Path, FileLock]:
    """The first unlocked part, now locked. A killed process leaves no lock."""
    for number in count():
        part = folder / f"{number}"
        part.mkdir(parents=True, exist_ok=True)
        lock = FileLock(part / "lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        return part, lock
    raise AssertionError("numbers do not end")


def _keys(texts: Sequence[str]) -> Keys:
    """(2, B) uint64: a 128-bit hash of each text."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts)
    return np.frombuffer(digests, "<u8").reshape(-1, 2).T.astype(np.uint64)


def _places(index: Index, keys: Keys) -> npt.NDArray[np.int64]:
    """The place of each of `keys` (2, B): first row of its tokens << 16, plus their number; -1 if missing."""
    found = np.full(keys.shape[1], -1, np.int64)
    at = np.searchsorted(index[0], keys[0])
    waiting = np.arange(keys.shape[1])
    while len(waiting):  # repeats only for texts that share 64 bits of hash
        waiting = waiting[at[waiting] < index.shape[1]]
        waiting = waiting[index[0][at[waiting]] == keys[0][waiting]]
        same = index[1][at[waiting]] == keys[1][waiting]
        found[waiting[same]] = index[2][at[waiting[same]]].astype(np.int64)
        waiting = waiting[~same]
        at[waiting] += 1
    return found


assert MAX_TOKENS <= _LENGTH
