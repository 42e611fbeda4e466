"""Text on pictures: choosing a font that has the letters, and breaking lines. Pillow only.

Pillow's own font has little more than ASCII; most machines have a better one, under a few names.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from functools import lru_cache

from PIL import ImageFont
from PIL.ImageFont import FreeTypeFont

_PLAIN = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial.ttf", "arial.ttf", "Helvetica.ttc")
_WIDE = (  # for the scripts of East Asia, by system: Linux, macOS, Windows
    "NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc", "PingFang.ttc", "Hiragino Sans GB.ttc", "Arial Unicode.ttf",
    "msyh.ttc", "YuGothM.ttc", "malgun.ttf", "unifont.otf",
)  # fmt: skip
_LONGEST = 400  # letters that are checked; no label shows more
_NO_LETTER = "\U0010ffff"  # no font has it, so it is drawn as the missing glyph


def printable(text: str) -> str:
    """`text` on one line, without control characters, directional marks and surrogates."""
    kept = "".join(c for c in " ".join(text.split()) if unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    return kept[: _LONGEST - 1] + "…" if len(kept) > _LONGEST else kept


@lru_cache(maxsize=256)
def font_for(text: str, size: int) -> FreeTypeFont:
    """The installed font that lacks the fewest letters of `text`; size in pixels."""
    fewest, best = len(text) + 1, None
    for name in (*_PLAIN, "", *_WIDE):
        font = _font(name, size)
        if font is None:
            continue
        lacking = sum(not _has(font, letter) for letter in set(text))
        if lacking < fewest:
            fewest, best = lacking, font
        if fewest == 0:
            break
    assert best is not None  # the bundled font is always there
    return best


def lines_of(text: str, font: FreeTypeFont, width: int, most: int) -> list[str]:
    """`text` broken into at most `most` lines of `width` pixels; what does not fit ends in "…"."""
    lines: list[str] = []
    rest = text
    while rest and len(lines) < most - 1:
        line = _beginning(rest, font, width)
        rest = rest[len(line) :].lstrip()
        lines.append(line.rstrip())
    return [*lines, shortened(rest, font, width)] if rest else lines


def shortened(text: str, font: FreeTypeFont, width: int) -> str:
    """`text` shortened with "…" to `width` pixels."""
    if font.getlength(text) <= width:
        return text
    kept = _fitting(text, font, width - font.getlength("…"))
    return f"{text[:kept].rstrip()}…"


def _beginning(text: str, font: FreeTypeFont, width: int) -> str:
    """As much as fits on a line, up to a space or hyphen, or cut within a word if necessary."""
    if font.getlength(text) <= width:
        return text
    fits = max(1, _fitting(text, font, width))
    ends = [i + 1 for i in range(fits) if text[i] in " -_/"]
    if fits < len(text) and text[fits] == " ":
        ends.append(fits)
    return text[: ends[-1] if ends else fits]


def _fitting(text: str, font: FreeTypeFont, width: float) -> int:
    """How many of the first letters fit in `width`."""
    lengths = range(len(text) + 1)
    beyond = bisect_right(lengths, width, key=lambda length: font.getlength(text[:length]))
    return max(0, beyond - 1)


@lru_cache(maxsize=64)
def _font(name: str, size: int) -> FreeTypeFont | None:
    """The font with this file name, wherever the system keeps it, or None; "" is Pillow's own."""
    try:
        font = ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
    except OSError:
        return None
    return font if isinstance(font, FreeTypeFont) else None


def _has(font: FreeTypeFont, letter: str) -> bool:
    if letter.isspace() or unicodedata.combining(letter):
        return True
    return _drawn(font, letter) != _drawn(font, _NO_LETTER)


def _drawn(font: FreeTypeFont, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)
