"""A text encoder's tokenizer: prompts to token ids, read from the files that are published with its weights."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steersearch.core.errors import CheckpointError

FILES = ("tokenizer.json", "vocab.json", "merges.txt")  # the first, or the other two


class Tokenizer:
    """Callable: prompts -> their token ids, special tokens at both ends included, without padding.

    most: a prompt's tokens beyond so many are cut off, all but the special one at the end.
    """

    def __init__(self, folder: Path, most: int) -> None:
        """Raises CheckpointError where `folder` holds no tokenizer, or a damaged one."""
        whole, vocabulary, merges = (folder / name for name in FILES)
        if not whole.is_file() and not (vocabulary.is_file() and merges.is_file()):
            raise CheckpointError(
                f"{folder}: it holds no tokenizer ({whole.name}, or {vocabulary.name} and {merges.name})"
            )
        from tokenizers import Tokenizer as Fast

        try:
            self._fast = Fast.from_file(str(whole)) if whole.is_file() else _byte_level(vocabulary, merges)
        except Exception as error:  # tokenizers raise nothing more special
            raise CheckpointError(f"{folder}: its tokenizer cannot be loaded ({error})") from error
        self._fast.no_padding()
        self._fast.enable_truncation(most)
        self._lock = threading.Lock()  # they refuse a second thread with "Already borrowed"

    def __call__(self, prompts: Sequence[str]) -> list[list[int]]:
        with self._lock:
            return [found.ids for found in self._fast.encode_batch(list(prompts))]


def _byte_level(vocabulary: Path, merges: Path) -> Any:
    """RoBERTa's, from the two files of the time before tokenizer.json."""
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
