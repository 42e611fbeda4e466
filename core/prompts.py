"""What makes a valid prompt for any model, and how a text encoder read it."""

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
    """A valid prompt in stored form, see `as_prompt`. Raises PromptError."""
    check_prompt(text)
    return as_prompt(str(text))


def check_prompt(prompt: object) -> None:
    """Raise PromptError unless the prompt is valid Unicode with visible characters and without NUL."""
    if not isinstance(prompt, str):
        raise PromptError(f"the prompt {prompt!r} is not a text; {_EXAMPLE}")
    if not prompt.strip():
        raise PromptError(f"the prompt is empty; {_EXAMPLE}")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:  # bytes from a command line that are not UTF-8
        raise PromptError(f"the prompt {prompt!r} is not valid Unicode; type it again") from error
    if "\0" in prompt:
        raise PromptError(f"the prompt {prompt!a} contains a NUL character; type it again")
    if all(unicodedata.category(character)[0] in "CMZ" for character in prompt):
        raise PromptError(f"the prompt {prompt!a} has only invisible characters; {_EXAMPLE}")


def as_prompt(text: str) -> str:
    """The form in which prompts are stored and compared: composed (NFC), stripped."""
    return unicodedata.normalize("NFC", text).strip()


# ----------------------------------------------------------------------------------------- how a text encoder reads it

_SHOWN = 60  # characters of the part that was cut off


@dataclass(frozen=True)
class Reading:
    """How a text encoder reads a prompt.

    unread: parts without a token.  spelled: words that it splits nearly into letters.
    cut: the end of a prompt that is too long, else "".
    """

    unread: tuple[str, ...] = ()
    spelled: tuple[str, ...] = ()
    cut: str = ""

    def __bool__(self) -> bool:
        """Whether there is a remark."""
        return bool(self.unread or self.spelled or self.cut)

    def remarks(self) -> list[str]:
        """One sentence for each shortcoming; empty if every word is read."""
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
        """For JSON; empty if every word is read."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Reading:
        """Inverse of `to_dict`. Raises ValueError, TypeError or KeyError."""
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
    """A text in quotation marks, escaped if it is not printable."""
    return f'"{text}"' if text.isprintable() else ascii(text)
