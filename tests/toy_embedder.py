"""An embedder whose vectors can be worked out by hand, and photos to go with it.

Steered by a prompt, it looks at the colours that the prompt names: "red" keeps the red channel of the mean
colour, "red blue" red and blue; "everything", or no prompt, keeps all three. The vector is that, plus a
constant fourth component so that black photos have a direction, at unit length. What a prompt names is present
as far as its channels outshine the others: a red photo has presence 1 under "red" and -1 under "green".
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from steersearch.core.images.picture import Picture, image_of
from steersearch.core.prompts import EncodedPrompt, Reading
from steersearch.core.vectors import Embedded, Floats, Unsteered

COLOURS = ("red", "green", "blue")
SIZE = 4  # pixels, side of the preprocessed picture
CONSTANT = 0.25


class ToyEmbedder:
    """Counts what is asked of it. seconds: how long a photo takes in `embed`."""

    dim = 4
    batch_size = 16

    def __init__(
        self, name: str = "toy", *, seconds: float = 0.0, preprocessing: Mapping[str, Any] | None = None
    ):
        self.model_id = name
        self.weights_hash = hashlib.sha256(name.encode()).hexdigest()
        self.preprocessing = dict(preprocessing or {"size": SIZE, "mean": (0.0, 0.0, 0.0)})
        self.seconds = seconds
        self.preprocessed = 0
        self.encoded: list[str] = []
        self.batches: list[tuple[int, int]] = []  # photos, prompts

    @property
    def forward_passes(self) -> int:
        return sum(photos * prompts for photos, prompts in self.batches)

    @property
    def is_untouched(self) -> bool:
        return not (self.preprocessed or self.encoded or self.batches)

    def preprocess(self, picture: Picture | Image.Image) -> Floats:
        self.preprocessed += 1
        image = image_of(picture).resize((SIZE, SIZE), Image.Resampling.NEAREST)
        pixels = np.asarray(image, dtype=np.float32) / 255
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def encode_prompt(self, prompt: str) -> EncodedPrompt:
        """Words in capitals are those that cannot be read."""
        self.encoded.append(prompt)
        weights = [float(colour in prompt.split() or prompt == "everything") for colour in COLOURS]
        unread = tuple(word for word in prompt.split() if word.isupper())
        return EncodedPrompt(np.array([weights], dtype=np.float32), Reading(unread))

    def embed_pixels(
        self, pixels: Floats, prompt_features: Sequence[Floats | None], gate_scale: float
    ) -> list[Embedded]:
        self.batches.append((len(pixels), len(prompt_features)))
        time.sleep(self.seconds * len(pixels))
        return [_steered(pixels, features, gate_scale) for features in prompt_features]

    def embed_with_unsteered(
        self, pixels: Floats, prompt_features: Sequence[Floats], gate_scale: float
    ) -> tuple[Unsteered, list[Embedded]]:
        """The frozen patches are the mean colours of the photo's upper and lower half, with the constant."""
        embedded = self.embed_pixels(pixels, prompt_features, gate_scale)
        halves = pixels.reshape(len(pixels), 3, 2, SIZE // 2, SIZE).mean(axis=(3, 4)).transpose(0, 2, 1)
        constant = np.full((len(pixels), 2, 1), CONSTANT, dtype=np.float32)
        patches = np.concatenate([halves, constant], axis=2)[:, :, None]  # (B, 2, 1, 4)
        return Unsteered(_steered(pixels, None, 0.0).embeddings, patches), embedded


class Clock:
    """Time that goes on only when it is told to, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Careful(ToyEmbedder):
    """Steers photo by photo, each in a second of `clock`."""

    batch_size = 1

    def __init__(self, clock: Clock | None = None, name: str = "toy", **settings: Any) -> None:
        super().__init__(name, **settings)
        self.clock = clock or Clock()

    def embed_pixels(
        self, pixels: Floats, prompt_features: Sequence[Floats | None], gate_scale: float
    ) -> list[Embedded]:
        self.clock.now += len(pixels)
        return super().embed_pixels(pixels, prompt_features, gate_scale)


def _steered(pixels: Floats, features: Floats | None, gate_scale: float) -> Embedded:
    weights = np.ones(3, dtype=np.float32) if features is None else features[0]
    weights = 1 + gate_scale * (weights - 1)
    colours = pixels.mean(axis=(2, 3)) * weights
    vectors = np.concatenate([colours, np.full((len(pixels), 1), CONSTANT, dtype=np.float32)], axis=1)
    strength = (pixels * weights[:, None, None]).sum(axis=1) + 1e-6
    halves = strength.reshape(len(pixels), 2, SIZE // 2, SIZE).mean(axis=(2, 3))[:, :, None]  # top, bottom
    return Embedded(
        (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32),
        (halves / halves.sum(axis=(1, 2), keepdims=True)).astype(np.float32),
        (pixels.mean(axis=(2, 3)) * (2 * weights - 1))
        .sum(axis=1)
        .astype(np.float32),  # of any batch the same bits
    )


def vector_of(colour: tuple[int, int, int], prompt: str) -> Floats:
    """What the embedder makes of a photo of one colour, written out again."""
    kept = [
        c / 255 if prompt == "everything" or COLOURS[i] in prompt.split() else 0.0
        for i, c in enumerate(colour)
    ]
    vector: Floats = np.array([*kept, CONSTANT], dtype=np.float32)
    return vector / np.linalg.norm(vector)


def save_photo(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (20, 10)) -> Path:
    """A photo of one colour, without loss whatever the format is (.png, .bmp, .tif)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def save_photos(folder: Path, count: int) -> Path:
    """`count` photos of different colours, 000.png to ..."""
    for i in range(count):
        save_photo(folder / f"{i:03}.png", (i * 7 % 256, i * 31 % 256, i))
    return folder
