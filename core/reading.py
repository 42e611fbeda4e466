"""What a text encoder makes of a prompt: its tokens, and which words it cannot read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

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
