"""The hybrid trunk of the bundled model: a published network's feature maps, and blocks that are trained here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from steersearch.core.efficientnet_lite import Classifier, EfficientNetLite2, Maps
from steersearch.core.vit import HybridEmbed, ViT, ViTConfig
from steersearch.training.cnn_maps import Alone, CnnMaps, cnn_pixels
from steersearch.training.distillation import (
    COMPONENTS,
    Components,
    DistillationConfig,
    DistillationHeads,
    Shown,
    distillation_losses,
    thing_keys,
    weighted,
)
from steersearch.training.photographs.wordnet import ClassWords
from steersearch.training.stage import Stage
from steersearch.training.text_store import TextStore
from steersearch.training.world.corpus import Corpus

HYBRID_TRUNK = ViTConfig(
    image_size=224, patch_size=16, cnn="efficientnet-lite2", dim=192, depth=4, num_heads=6
)
# As the network was trained with: cnn_pixels, in the words of `Preprocess`.
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
MEASURED = 1024  # pictures that statistics of features are taken from
SPARE = 32  # channels of the patches that do not begin as directions of the text


@dataclass(frozen=True)
class Seen:
    """A corpus as the network sees it: its maps, what it says of each thing alone, and its classes."""

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
        """The same from deep features: each place of the coarse grid is four patches."""
        found = (deep @ self.classifier.weight.T + self.classifier.bias).softmax(dim=-1)
        side = round(found.shape[1] ** 0.5)
        grid = found.view(len(found), side, side, -1)
        return grid.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2).flatten(1, 2)


def class_vectors(words: ClassWords, store: TextStore) -> Tensor:
    """(C, Dt) of unit length: what the text encoder makes of the classes' names, mean over at most three of each."""
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


def pretrain_hybrid(
    seen: Seen,
    class_words: Tensor,
    config: DistillationConfig,
    folder: Path,
    *,
    shape: ViTConfig,
    settings: Mapping[str, object],
    say: Callable[[str], None],
    device: torch.device | None = None,
    resume: bool = False,
) -> ViT:
    """Train the blocks above the network, which stays as it is; checkpoints and readings go to `folder`.

    class_words (C, Dt): `class_vectors`.  settings: what the corpus was made of.  Raises as `Stage.train`. The trunk
    returned is on the processor.
    """
    torch.manual_seed(config.seed)
    device = device or torch.device("cpu")
    trunk = ViT(shape)
    embed = trunk.patch_embed
    assert isinstance(embed, HybridEmbed)
    embed.cnn.load_state_dict(seen.network.state_dict())
    picture = _measure(seen, embed, config.seed)
    _begin(embed, seen.classifier, class_words)
    keys = thing_keys(seen.alone.deep, seen.alone.fine, seen.alone.colour)
    heads = DistillationHeads(shape.dim, class_words.shape[1], keys.shape[1], picture.axes.shape[1])
    trunk, heads = trunk.to(device), heads.to(device)
    keys, alone_classes, class_words = (part.to(device) for part in (keys, seen.alone.classes, class_words))
    told = {"world": dict(settings), "trunk": shape.to_dict()}
    stage = Stage(
        "distillation", config, folder, {"trunk": trunk, "heads": heads}, lambda name: "blocks." in name, told
    )

    def losses(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        rng = np.random.default_rng([config.seed, step])
        rows = np.sort(rng.choice(len(seen.maps.fine), config.batch, replace=False))
        torch.manual_seed(int(rng.integers(2**31)))  # of the patches that are drawn
        maps = seen.maps(rows)
        shown = _shown(seen, picture, rows, maps)
        pixels = cnn_pixels(torch.from_numpy(seen.corpus.images[rows])).to(device)
        patches = embed.project(Maps(maps.fine.to(device), maps.coarse.to(device)), pixels)
        tokens = trunk.norm(trunk.blocks(trunk.with_positions(patches)))
        shown = Shown(
            *(part.to(device) for part in (shown.cover, shown.things, shown.classes, shown.picture))
        )
        found = distillation_losses(tokens, shown, heads, keys, alone_classes, class_words, config.patches)
        return weighted(found, config), found

    def summary(found: Mapping[str, Tensor]) -> str:
        return ", ".join(f"{name} {value.item():.2f}" for name, value in found.items())

    trunk.train()
    embed.cnn.eval()
    stage.train(losses, resume=resume, say=say, summary=summary)
    return trunk.cpu().eval()


def _measure(seen: Seen, embed: HybridEmbed, seed: int) -> Components:
    """Set the statistics of the features in `embed`; returns the principal components of whole pictures."""
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
    """Let patches begin as directions in which the classes' names differ."""
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
