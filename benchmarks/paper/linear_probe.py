"""A linear classifier on frozen features, trained as the paper says of its fine-grained probes (facts C4).

300 epochs, learning rate 1e-3, batches of 128. The paper says no more; here the optimiser is Adam without weight
decay, there is no augmentation, and features are standardised by mean and deviation of the training rows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from steersearch.benchmarks.harness.method import Floats

EPOCHS, LEARNING_RATE, BATCH = 300, 1e-3, 128
SEED = 97_000


def predict(
    train: Floats, labels: npt.NDArray[np.int64], test: Floats, classes: int, epochs: int = EPOCHS
) -> npt.NDArray[np.int64]:
    """The class (n,) that a probe trained on `train` (m, D) and its labels (m,) gives each row of `test` (n, D).

    Always the same for the same rows: weights begin at 0, and batches come in the order of a fixed seed.
    """
    mean, deviation = train.mean(axis=0), np.maximum(train.std(axis=0), 1e-6)
    inputs, targets = torch.from_numpy((train - mean) / deviation), torch.from_numpy(labels)
    weight = torch.zeros(train.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.Adam([weight, bias], lr=LEARNING_RATE)
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(inputs), generator=generator), BATCH):
            optimiser.zero_grad()
            loss = F.cross_entropy(inputs[rows] @ weight + bias, targets[rows])
            torch.autograd.backward(loss)
            optimiser.step()
    with torch.inference_mode():
        scores = torch.from_numpy((test - mean) / deviation) @ weight + bias
        best: npt.NDArray[np.int64] = scores.argmax(dim=1).numpy()
        return best
