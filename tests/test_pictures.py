"""Pictures of a corpus, as a training step gets them."""

import numpy as np
import torch

from steersearch.training.pictures import Pictures

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def test_a_batch_is_the_rows_requested_normalised_and_some_of_them_mirrored() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    found = Pictures(images, torch.device("cpu"), MEAN, STD)(np.array([4, 1]), np.array([False, True]))
    wanted = (np.stack([images[4], images[1][:, ::-1]]) / 255 - MEAN) / STD
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), wanted.transpose(0, 3, 1, 2), atol=1e-5)
