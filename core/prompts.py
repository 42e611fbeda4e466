"""What a prompt must be, whichever model reads it."""

from __future__ import annotations

import unicodedata

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
