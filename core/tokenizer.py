"""A text encoder's tokenizer: prompts to token ids, read from the files that are published with its weights."""

from __future__ import annotations

import json
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steersearch.core.errors import CheckpointError, PromptError
from steersearch.core.reading import Reading, quoted

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
        unknown = getattr(self._fast.model, "unk_token", None)
        self._unknown = None if unknown is None else self._fast.token_to_id(unknown)
        self._fast.no_padding()
        self._fast.enable_truncation(most)
        self._lock = threading.Lock()  # they refuse a second thread with "Already borrowed"

    def __call__(self, prompts: Sequence[str]) -> list[list[int]]:
        with self._lock:
            return [found.ids for found in self._fast.encode_batch(list(prompts))]

    def read(self, prompt: str) -> Reading:
        """Which words of a prompt have tokens. Raises PromptError where none has."""
        with self._lock:
            found = self._fast.encode(prompt)
        pieces = list(_pieces(found, self._unknown))
        end = max((piece.end for piece in pieces), default=0) if found.overflowing else len(prompt)
        if not any(piece.is_known and _is_word(prompt[piece.start : piece.end]) for piece in pieces):
            raise PromptError(f"the model cannot read a word of {quoted(prompt)}; put it in English words")
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


@dataclass(frozen=True)
class _Piece:
    """A word as the tokenizer parts them: where it stands in the prompt, in how many tokens, and whether it has any."""

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
    """Whether there is more to it than punctuation and what cannot be seen."""
    return any(unicodedata.category(character)[0] in "LNS" for character in text)


def _is_left_out(character: str, has_token: bool) -> bool:
    """Whether a character says nothing to the encoder: it has no token, or cannot be seen."""
    kind = unicodedata.category(character)
    return not character.isspace() and (kind in ("Cc", "Cf") or (not has_token and kind[0] != "M"))


def _is_spelled(word: str, tokens: int) -> bool:
    """Whether a word of another script, or with other letters, is little more than its letters to the encoder."""
    if word.isascii() or len(word) >= 2 * tokens or not _is_word(word):
        return False
    return tokens > 1 or (word.isalpha() and not unicodedata.name(word[0], "").startswith("LATIN"))


def _texts(prompt: str, spans: Sequence[tuple[int, int]]) -> tuple[str, ...]:
    """The texts of these places, each once; what stands side by side is one."""
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
