"""Embedders for the workers of a cluster, which import them by name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from steersearch.core.errors import SteerSearchError
from steersearch.core.images.picture import Picture, image_of
from steersearch.core.vectors import Embedded, Floats
from tests.toy_embedder import ToyEmbedder

POISON = (13, 200, 13)  # the colour of a photo that ends every process which prepares it


class Noted(ToyEmbedder):
    """Notes in a folder which process embedded how many photos. Takes `seconds` for each, and begins when so many
    `processes` do."""

    def __init__(self, notes: Path, seconds: float = 0.0, processes: int = 1) -> None:
        super().__init__(seconds=seconds)
        self.notes, self.processes = notes, processes

    def embed_pixels(
        self, pixels: Floats, prompt_features: Sequence[Floats | None], gate_scale: float
    ) -> list[Embedded]:
        with open(self.notes / str(os.getpid()), "a") as file:
            file.write(f"{len(pixels)}\n")
        while len(os.listdir(self.notes)) < self.processes:
            time.sleep(0.01)
        return super().embed_pixels(pixels, prompt_features, gate_scale)


def embedded(notes: Path) -> dict[int, int]:
    """Photos embedded, by process."""
    return {int(file.name): sum(map(int, file.read_text().split())) for file in notes.iterdir()}


class Poisoned(ToyEmbedder):
    def preprocess(self, picture: Picture | Image.Image) -> Floats:
        if np.array_equal(np.asarray(image_of(picture))[0, 0], POISON):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().preprocess(picture)


class Failing(ToyEmbedder):
    def embed_pixels(
        self, pixels: Floats, prompt_features: Sequence[Floats | None], gate_scale: float
    ) -> list[Embedded]:
        raise SteerSearchError("this model fails")


def noted_load(notes: Path) -> ToyEmbedder:
    """A model whose loading is noted, by process."""
    with open(notes / str(os.getpid()), "a") as file:
        file.write("loaded\n")
    return ToyEmbedder()
