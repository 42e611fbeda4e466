"""A corpus' pictures on the training device: memory-mapped for a CPU, copied whole to a GPU.

A GPU would otherwise wait for conversion to floats and transfer. There 24,000 of mini's pictures take 3.6 GB as
bytes, and a batch takes a fraction of a millisecond.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Channels = tuple[float, float, float]
GPU_SHARE = 0.5  # of free GPU memory, at most


class Pictures:
    """images (P, S, S, 3) uint8, of which batches are made on `device`.  mean, std: of the backbone's input."""

    varies = True  # pixels can be mirrored and change tones

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        device: torch.device,
        mean: Channels,
        std: Channels,
    ) -> None:
        self._images, self._device, self._mean, self._std = images, device, mean, std
        self._kept: Tensor | None = None
        if device.type == "cuda" and images.nbytes <= GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
            self._kept = torch.from_numpy(np.array(images)).to(device)

    def __len__(self) -> int:
        return len(self._images)

    def __call__(self, rows: npt.NDArray[np.int64], mirrored: npt.NDArray[np.bool_]) -> Tensor:
        """Pictures `rows` (B,), those of `mirrored` (B,) flipped: (B, 3, S, S) float32, normalised."""
        if self._kept is None:
            taken = torch.from_numpy(self._images[rows]).to(self._device)
        else:
            taken = self._kept[torch.from_numpy(rows).to(self._device)]
        flip = torch.from_numpy(mirrored).to(self._device)
        taken = torch.where(flip[:, None, None, None], taken.flip(2), taken)
        return to_pixels(taken, self._mean, self._std)


def to_pixels(images: Tensor, mean: Channels, std: Channels) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) float32, scaled to 0..1 and normalised."""
    pixels = images.permute(0, 3, 1, 2).float().div_(255)
    means, stds = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (mean, std))
    return (pixels - means) / stds
