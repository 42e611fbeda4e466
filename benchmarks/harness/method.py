"""The interface of a method: it takes pictures and a prompt and gives numbers.

Letters: B pictures, D width of a global feature, D' that of a patch feature, Hp Wp the patch grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The output of a method for B pictures under one prompt.

    vectors (B, D) float32: global features of any length, compared by cosine.
    patches (B, Hp, Wp, D') float32, if requested.
    maps (B, Hp, Wp) float32, if requested: raw score map of the prompt (logits if there are any), higher where a
        patch matches the prompt better.
    attention (B, Hp, Wp) float32, if requested: the attention of CLS in the last block, mean over heads, with sinks,
        not normalised.
    """

    vectors: Floats
    patches: Floats | None = None
    maps: Floats | None = None
    attention: Floats | None = None


class Method(Protocol):
    """A way to embed pictures: `SteerViTMethod` and the baselines.

    name: on the command line and in records.
    weights_hash: sha256 of the weights' file, or their pinned commit; None without weights.
    identity: a hash, or pinned revisions, of all weights and settings that determine the output; part of cache keys.
    licence: of the weights.  takes_prompt: False if the prompt has no effect.
    gallery_takes_prompt: False if only the query is seen under the prompt, the gallery under None (the combiner).
    batch_size: a good number of pictures for one call of `see`.
    A method whose grid covers only part of a square picture has `part_of_square`, see `viewing.part_seen`.
    """

    @property
    def name(self) -> str: ...
    @property
    def weights_hash(self) -> str | None: ...
    @property
    def identity(self) -> str: ...
    @property
    def licence(self) -> str: ...
    @property
    def takes_prompt(self) -> bool: ...
    @property
    def gallery_takes_prompt(self) -> bool: ...
    @property
    def batch_size(self) -> int: ...

    def see(
        self,
        pictures: Sequence[Image.Image],
        prompt: str | None,
        *,
        patches: bool = False,
        maps: bool = False,
        attention: bool = False,
    ) -> Seen:
        """`pictures` (PIL, RGB, of any sizes) under one prompt; None: without text, if the method allows that.

        Raises BenchmarkError ("NAME has no heatmap: reason") for an output that the method lacks.
        """
        ...


@runtime_checkable
class FixedVectors(Protocol):
    """A method whose vectors under a prompt follow from those without one, so a picture is embedded once for all."""

    def under(self, vectors: Floats, prompt: str) -> Floats:
        """(B, D), the vectors of `see(pictures, None)` -> those of `see(pictures, prompt)`."""
        ...
