"""Pretraining of the bundled model's hybrid backbone: a published network's feature maps, and blocks above them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from steersearch.core.efficientnet_lite import Classifier, EfficientNetLite2, Maps
from steersearch.core.vit import HybridEmbed, ViT, ViTConfig
from steersearch.training.hybrid.cnn_maps import Alone, CnnMaps, cnn_pixels
from steersearch.training.hybrid.distillation import (
    COMPONENTS,
    LOSSES,
    Components,
    DistillationHeads,
    Shown,
    distillation_losses,
    thing_keys,
)
from steersearch.training.photographs.wordnet import ClassWords
from steersearch.training.recipe import DistillationSettings
from steersearch.training.stage import Stage, Terms, weighted
from steersearch.training.text_store import TextStore
from steersearch.training.world.corpus import Corpus

HYBRID_TRUNK = ViTConfig(
    image_size=224, patch_size=16, cnn="efficientnet-lite2", dim=192, depth=4, num_heads=6
)
# The network's own preprocessing, `cnn_pixels`, as a `Preprocess`.
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
MEASURED = 1024  # pictures for the statistics of features
SPARE = 32  # channels of the patches that keep their random initial values


@dataclass(frozen=True)
class Seen:
    """The network's view of a corpus: feature maps, each thing alone, and classes."""

    corpus: Corpus
    maps: CnnMaps
    alone: Alone
    network: EfficientNetLite2
    classifier: Classifier

    def deep(self, maps: Maps) -> Tensor:
        """(B, 49, 1280) of maps on the processor."""
        with torch.inference_mode():
            return self.network.deep(maps).flatten(2).transpose(1, 2).clone()

    def classes(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """(B, N, C): probabilities of the classes at each patch of the finer grid."""
        return self.classes_of(self.deep(self.maps(rows)))

    def classes_of(self, deep: Tensor) -> Tensor:
        """The same from deep features; a place of the coarse grid is four patches."""
        found = (deep @ self.classifier.weight.T + self.classifier.bias).softmax(dim=-1)
        side = round(found.shape[1] ** 0.5)
        grid = found.view(len(found), side, side, -1)
        return grid.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2).flatten(1, 2)


def class_vectors(words: ClassWords, store: TextStore) -> Tensor:
    """(C, Dt) of unit length: embeddings of the classes' names, the mean of at most three each."""
    names = [[word.lower() for word in words.wordnet.synsets[offset].words[:3]] for offset in words.offsets]
    flat = [name for each in names for name in each]
    store.add(sorted(set(flat)))
    vectors = []
    for start in range(0, len(flat), 512):
        features = store.features(flat[start : start + 512])
        mask = features.mask[..., None]
        vectors.append(F.normalize((features.tokens.float() * mask).sum(1) / mask.sum(1), dim=-1))
    parts = torch.split(torch.cat(vectors), [len(each) for each in names])
    return F.normalize(torch.stack([part.mean(dim=0) for part in parts]), dim=-1)


class Distillation(Stage):
    """Trains the blocks of `trunk` above the network, which stays frozen.

    class_words (C, Dt): `class_vectors`.  corpus: what the corpus was made of
    """

    name = "distillation"
    rates = "distillation.lr and distillation.matrix_lr"

    def __init__(
        self,
        seen: Seen,
        class_words: Tensor,
        config: DistillationSettings,
        shape: ViTConfig,
        corpus: Mapping[str, object],
        device: torch.device,
    ) -> None:
        torch.manual_seed(config.seed)
        self.trunk = ViT(shape)
        embed = self.trunk.patch_embed
        assert isinstance(embed, HybridEmbed)
        embed.cnn.load_state_dict(seen.network.state_dict())
        self._picture = _measure(seen, embed, config.seed)
        _begin(embed, seen.classifier, class_words)
        keys = thing_keys(seen.alone.deep, seen.alone.fine, seen.alone.colour)
        heads = DistillationHeads(shape.dim, class_words.shape[1], keys.shape[1], self._picture.axes.shape[1])
        self.trunk.to(device)
        self._seen, self._config, self._embed, self._heads = seen, config, embed, heads.to(device)
        self._keys, self._alone_classes = keys.to(device), seen.alone.classes.to(device)
        self._class_words, self._device = class_words.to(device), device
        self.optimiser = config.optimiser
        self.modules = {"trunk": self.trunk, "heads": self._heads}
        self.settings = {self.name: config.learnt(), "world": dict(corpus), "trunk": shape.to_dict()}

    def is_matrix(self, name: str) -> bool:
        return "blocks." in name

    def losses(self, start: int, stop: int) -> Iterator[Terms]:
        config = self._config
        weights = {name: getattr(config, f"{name}_weight") for name in LOSSES}
        self.trunk.train()
        self._embed.cnn.eval()
        for step in range(start, stop):
            rng = np.random.default_rng([config.seed, step])
            rows = np.sort(rng.choice(len(self._seen.maps.fine), config.batch, replace=False))
            torch.manual_seed(int(rng.integers(2**31)))  # of the patches that are drawn
            yield weighted(self._losses(rows), weights)

    def _losses(self, rows: npt.NDArray[np.int64]) -> dict[str, Tensor]:
        device, seen = self._device, self._seen
        maps = seen.maps(rows)
        shown = _shown(seen, self._picture, rows, maps)
        pixels = cnn_pixels(torch.from_numpy(seen.corpus.images[rows])).to(device)
        patches = self._embed.project(Maps(maps.fine.to(device), maps.coarse.to(device)), pixels)
        tokens = self.trunk.norm(self.trunk.blocks(self.trunk.with_positions(patches)))
        shown = Shown(*(part.to(device) for part in vars(shown).values()))
        return distillation_losses(
            tokens,
            shown,
            self._heads,
            self._keys,
            self._alone_classes,
            self._class_words,
            self._config.patches,
        )


def _measure(seen: Seen, embed: HybridEmbed, seed: int) -> Components:
    """Set the feature statistics in `embed`; returns the principal components of whole pictures."""
    count = len(seen.maps.fine)
    rows = np.sort(np.random.default_rng([seed, 1]).choice(count, min(MEASURED, count), replace=False))
    maps = seen.maps(rows)
    deep, fine = seen.deep(maps), maps.fine.flatten(2).transpose(1, 2)
    for name, features in (("deep", deep), ("fine", fine)):
        flat = features.flatten(0, 1)
        getattr(embed, f"{name}_mean").copy_(flat.mean(dim=0))
        getattr(embed, f"{name}_std").copy_(flat.std(dim=0) + 0.05)
    return Components.of(deep.mean(dim=1), COMPONENTS["deep"])


@torch.no_grad()
def _begin(embed: HybridEmbed, classifier: Classifier, class_words: Tensor) -> None:
    """Initialise the patch embedding with directions in which the classes' names differ."""
    wanted = class_words.T @ (classifier.weight - classifier.weight.mean(dim=0))
    _, _, axes = torch.linalg.svd(wanted * embed.deep_std, full_matrices=False)
    first = min(embed.deep.out_features - SPARE, 128, len(axes))
    if first > 0:
        embed.deep.weight[:first] = 0.5 * axes[:first]


def _shown(seen: Seen, picture: Components, rows: npt.NDArray[np.int64], maps: Maps) -> Shown:
    deep = seen.deep(maps)
    return Shown(
        torch.from_numpy(seen.corpus.cover[rows]).float().flatten(2) / 255,
        torch.from_numpy(seen.corpus.things[rows].astype(np.int64)),
        seen.classes_of(deep),
        picture(deep.mean(dim=1)),
    )
