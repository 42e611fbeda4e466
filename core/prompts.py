"""What a prompt must be, whichever model reads it, and how a text encoder reads it."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from steersearch.core.errors import PromptError

_EXAMPLE = 'name what to look at, such as "the remote control"'


def checked_prompt(text: object) -> str:
    """A prompt in the form in which it is kept, see `as_prompt`. Raises PromptError for what is none."""
    check_prompt(text)
    return as_prompt(str(text))


def check_prompt(prompt: object) -> None:
    """Raise PromptError unless the prompt is valid Unicode without NUL, with something in it that can be seen."""
    if not isinstance(prompt, str):
        raise PromptError(f"the prompt {prompt!r} is no text; {_EXAMPLE}")
    if not prompt.strip():
        raise PromptError(f"the prompt is empty; {_EXAMPLE}")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:  # bytes from a command line that are not UTF-8
        raise PromptError(f"the prompt {prompt!r} is not valid Unicode; type it again") from error
    if "\0" in prompt:
        raise PromptError(f"the prompt {prompt!a} holds a NUL character; type it again")
    if all(unicodedata.category(character)[0] in "CMZ" for character in prompt):
        raise PromptError(f"the prompt {prompt!a} holds only invisible characters; {_EXAMPLE}")


def as_prompt(text: str) -> str:
    """A text in the one form in which prompts are kept and compared: composed (NFC), without space around it."""
    return unicodedata.normalize("NFC", text).strip()


# ----------------------------------------------------------------------------------------- how a text encoder reads it

_SHOWN = 60  # characters of what was cut


@dataclass(frozen=True)
class Reading:
    """How a text encoder reads a prompt.

    unread: what it has no token for; to the encoder all of it is the same.  spelled: words of which it knows little
    more than the letters.  cut: the end of the prompt, beyond the longest that it reads; "" where it reads all.
    """

    unread: tuple[str, ...] = ()
    spelled: tuple[str, ...] = ()
    cut: str = ""

    def __bool__(self) -> bool:
        """Whether anything is to be said about it."""
        return bool(self.unread or self.spelled or self.cut)

    def remarks(self) -> list[str]:
        """What is to be said, a sentence each; nothing where every word is read."""
        said = []
        if self.unread:
            said.append(f"the model cannot read {_listed(self.unread)}")
        if self.spelled:
            said.append(f"the model knows little more than the letters of {_listed(self.spelled)}")
        if self.cut:
            more = "…" if len(self.cut) > _SHOWN else ""
            said.append(
                f"the prompt is too long for the model, which does not read {quoted(self.cut[:_SHOWN] + more)}"
            )
        return said

    def to_dict(self) -> dict[str, Any]:
        """What is to be said, as JSON has it; empty where every word is read."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Reading:
        """Inverse of `to_dict`. Raises ValueError, TypeError or KeyError for what is none."""
        words = {name: tuple(map(str, said.get(name, ()))) for name in ("unread", "spelled")}
        return cls(**words, cut=str(said.get("cut", "")))


READ_WHOLE = Reading()


@dataclass(frozen=True)
class EncodedPrompt:
    """tokens: (L, Dt) float32, the text encoder's output, special tokens included."""

    tokens: npt.NDArray[np.float32]
    reading: Reading = READ_WHOLE


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join(map(quoted, words))


def quoted(text: str) -> str:
    """A text in quotation marks, escaped where it cannot be seen."""
    return f'"{text}"' if text.isprintable() else ascii(text)
