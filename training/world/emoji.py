"""Emoji as things, from Debian's package fonts-noto-color-emoji (SIL Open Font License 1.1).

They are rendered from the installed font and never copied into this repository. Their Unicode names say what they
show ("RABBIT FACE" is a rabbit).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from steersearch.core.errors import SteerSearchError
from steersearch.training.world.things import Thing

EMOJI_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
PIXELS = 109  # the only size in which the font has its pictures
BLOCKS = (range(0x2600, 0x27C0), range(0x1F300, 0x1F650), range(0x1F680, 0x1F700), range(0x1F900, 0x1FB00))


class EmojiMissingError(SteerSearchError):
    """The emoji font is not installed. Field: `font`, the file that is missing."""

    def __init__(self, font: Path) -> None:
        self.font = font
        super().__init__(
            f"no emoji in {font}; install them with: apt-get install fonts-noto-color-emoji; "
            "or make the world without them: emoji=false"
        )


def load_emoji(size: int, others: Sequence[Thing]) -> list[Thing]:
    """Emoji of the nouns of `others`, as further pictures of them; longer side at most `size` pixels.

    An emoji gets the noun and category of the things it resembles, but none of their adjectives.
    """
    if not EMOJI_FONT.is_file():
        raise EmojiMissingError(EMOJI_FONT)
    category = {thing.noun: thing.category for thing in others}
    face = ImageFont.truetype(str(EMOJI_FONT), PIXELS)
    found = []
    for block in BLOCKS:
        for letter in map(chr, block):
            noun = _noun(letter, category)
            picture = _picture(letter, face, size) if noun else None
            if picture is not None:
                found.append(_emoji(noun, category[noun], picture))
    return found


def _emoji(noun: str, category: str, picture: Image.Image) -> Thing:
    names = frozenset({noun, category} - {""})
    return Thing(
        picture=picture, noun=noun, phrase=noun, category=category, names=names, source="emoji", stands="floor"
    )  # fmt: skip


def _noun(letter: str, known: Collection[str]) -> str:
    """The known noun in this emoji's Unicode name, or ""."""
    noun = unicodedata.name(letter, "").lower().removesuffix(" face")
    return noun if noun in known else ""


def _picture(letter: str, face: ImageFont.FreeTypeFont, size: int) -> Image.Image | None:
    """The emoji as RGBA, cropped to what is visible; None where the font has no colour picture of it."""
    canvas = Image.new("RGBA", (PIXELS * 3 // 2, PIXELS * 3 // 2))
    ImageDraw.Draw(canvas).text((8, 8), letter, font=face, embedded_color=True)
    box = canvas.getchannel("A").point(lambda a: 255 if a > 40 else 0).getbbox()
    if box is None or min(box[2] - box[0], box[3] - box[1]) < 24:
        return None
    picture = canvas.crop(box)
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    return picture
