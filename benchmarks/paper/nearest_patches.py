"""Segmentation without training: a patch is labelled by the patches most like it (Open-Hummingbird, facts C4)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from steersearch.benchmarks.harness.method import Floats

NEIGHBOURS, TEMPERATURE = 30, 0.02
_AT_ONCE = 2048  # queries


def labels_of_nearest(
    memory: Floats,
    labels: Floats,
    queries: Floats,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> Floats:
    """Mean label of each query's nearest patches in memory by cosine, weighted by softmax(cosine / temperature).

    memory (M, D) and queries (Q, D) of any length; labels (M,) in [0, 1], such as the share of a patch that a class
    covers; (Q,).
    """
    keys = F.normalize(torch.from_numpy(memory), dim=1)
    values = torch.from_numpy(labels)
    found = []
    for part in torch.split(torch.from_numpy(queries), _AT_ONCE):
        scores, rows = (F.normalize(part, dim=1) @ keys.T).topk(min(neighbours, len(keys)), dim=1)
        found.append(((scores / temperature).softmax(dim=1) * values[rows]).sum(dim=1))
    return torch.cat(found).numpy() if found else np.zeros(0, np.float32)
