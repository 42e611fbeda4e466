"""Photographs of textures as backgrounds: random crops of the pictures in a folder.

Debian's package mate-backgrounds has some under /usr/share/backgrounds/mate. They are read in place and never copied
into this repository.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from steersearch.core.errors import DataError, ImageError
from steersearch.core.images.pillow import opened
from steersearch.core.preprocess import open_image
from steersearch.training.world.painting import pick

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
LARGEST = 1600  # longer side at which pictures are held while crops are cut
# Files of mate-backgrounds that show things the world has names for, or a logo.
LEFT_OUT = frozenset({
    "Elephants", "Elephants_3840x2160", "Elephants_5640x3172", "Float-into-MATE", "FreshFlower", "Garden",
    "GreenTraditional", "LadyBird", "TwoWings", "YellowFlower",
})  # fmt: skip


class Backgrounds:
    """The opaque pictures in a folder and the folders below it.

    No expression is about what they show, so they should show nothing that the world has a name for. Raises DataError
    for a folder that is missing or has no such picture.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DataError(folder, "no such folder of backgrounds")
        files = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES]
        self._files = sorted(path for path in files if path.stem not in LEFT_OUT and _is_opaque(path))
        if not self._files:
            raise DataError(
                folder, f"holds no background (looked for {' '.join(sorted(SUFFIXES))}, opaque ones)"
            )

    def __len__(self) -> int:
        return len(self._files)

    def crop(self, rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
        """A random crop of one of them, RGB, scaled to `size` (width, height); at least 0.3 of the largest fit."""
        photo = _photo(pick(rng, self._files))
        scale = rng.uniform(0.3, 1) * min(photo.width / size[0], photo.height / size[1])
        width, height = size[0] * scale, size[1] * scale
        left = rng.uniform(0, photo.width - width)
        top = rng.uniform(0, photo.height - height)
        box = (left, top, min(photo.width, left + width), min(photo.height, top + height))
        return photo.resize(size, Image.Resampling.BICUBIC, box, reducing_gap=3.0)


def _is_opaque(path: Path) -> bool:
    """Whether the picture has no transparent pixel. Its alpha is read only if the header announces one."""
    try:
        with opened(path) as image:
            if not image.has_transparency_data:
                return True
            least = image.convert("RGBA").getchannel("A").getextrema()[0]
            return isinstance(least, int | float) and least >= 250
    except ImageError:
        return False


@lru_cache(maxsize=64)
def _photo(path: Path) -> Image.Image:
    try:
        photo = open_image(path)
    except ImageError as error:
        raise DataError(path, error.reason) from error
    photo.thumbnail((LARGEST, LARGEST), Image.Resampling.BICUBIC)
    return photo
