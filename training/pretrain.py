"""Pretraining of the mini's trunk, from scratch, on the generated world; afterwards it is frozen.

The trunk learns what a pretrained ViT brings along: patch tokens that say what they lie on, and a CLS token that
says what is most salient. Supervised: the things' names are known.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steersearch.core.errors import RunStateError
from steersearch.core.vit import ViT, ViTConfig
from steersearch.training import scenes
from steersearch.training.corpus import Corpus
from steersearch.training.drawing import PALETTE
from steersearch.training.pictures import Pictures
from steersearch.training.stage import Stage, StageConfig
from steersearch.training.things import Thing

CPU = torch.device("cpu")
PICKLED = "pretrain.pt"  # checkpoint of earlier versions


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(StageConfig):
    """Recipe of the trunk. Loss weights are relative to the patch classification's, which is 1."""

    steps: int = 3800
    warmup: int = 150
    background_weight: float = 0.12  # of a patch without any thing
    colour_weight: float = 0.3
    cls_weight: float = 1.0
    family_weight: float = 0.1


class TrunkHeads(nn.Module):
    """Linear read-outs used only while pretraining."""

    def __init__(self, dim: int, nouns: int) -> None:
        super().__init__()
        self.noun = nn.Linear(dim, nouns + 1)  # the last class is background
        self.colour = nn.Linear(dim, len(PALETTE))
        self.cls_noun = nn.Linear(dim, nouns)
        self.cls_family = nn.Linear(dim, len(scenes.FAMILIES))


@dataclass(frozen=True)
class Batch:
    """pixels (B, 3, S, S) float32 normalised; cover (B, M, N) in 0..1; things (B, M), -1 = none; families (B,).

    All on the device that trains.
    """

    pixels: Tensor
    cover: Tensor
    things: Tensor
    families: Tensor


def batch(corpus: Corpus, pictures: Pictures, size: int, seed: int, step: int) -> Batch:
    """The random batch of a step, half of the pictures mirrored, tones varied."""
    rng = np.random.default_rng([seed, step])
    rows = np.sort(rng.choice(len(pictures), size, replace=False))
    cover = torch.from_numpy(corpus.cover[rows]).float().div_(255)
    flip = rng.random(size) < 0.5
    mirrored = torch.from_numpy(flip)
    cover[mirrored] = cover[mirrored].flip(3)
    gain = torch.from_numpy(rng.normal(1, 0.08, (size, 3, 1, 1))).float()
    shift = torch.from_numpy(rng.normal(0, 0.12, (size, 3, 1, 1))).float()
    pixels = pictures(rows, flip)
    device = pixels.device
    return Batch(
        pixels * gain.to(device) + shift.to(device),
        cover.flatten(2).to(device),
        torch.from_numpy(corpus.things[rows].astype(np.int64)).to(device),
        torch.from_numpy(corpus.families[rows].astype(np.int64)).to(device),
    )


def noun_index(stock: list[Thing]) -> tuple[list[str], Tensor, Tensor]:
    """All nouns, the noun number of each thing (K,), and its colour number (K,), -1 for a stamp."""
    nouns = sorted({thing.noun for thing in stock})
    colours = list(PALETTE)
    noun_of = torch.tensor([nouns.index(thing.noun) for thing in stock])
    colour_of = torch.tensor([colours.index(thing.colour) if thing.colour else -1 for thing in stock])
    return nouns, noun_of, colour_of


def trunk_loss(
    trunk: Callable[[Tensor], Tensor],
    heads: TrunkHeads,
    batch: Batch,
    noun_of: Tensor,
    colour_of: Tensor,
    config: PretrainConfig,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Patch nouns and colours, the salient noun and the scene's family from CLS. Returns the loss and readings, ()."""
    tokens = trunk(batch.pixels)
    cls, patches = tokens[:, 0], tokens[:, 1:]
    present = batch.things >= 0
    nouns = noun_of[batch.things.clamp_min(0)]  # (B, M)
    cover = batch.cover * present[..., None]

    share, which = cover.max(dim=1)  # (B, N): the thing that covers most of the patch
    background = heads.noun.out_features - 1
    label = torch.where(share >= 0.35, nouns.gather(1, which), background)
    label = torch.where((share >= 0.12) & (share < 0.35), -1, label)  # edges: neither
    weight = torch.where(label == background, config.background_weight, 1.0) * (label >= 0)
    logits = heads.noun(patches)
    losses = F.cross_entropy(logits.transpose(1, 2), label.clamp_min(0), reduction="none")
    patch_loss = (losses * weight).sum() / weight.sum()

    colour = colour_of[batch.things.clamp_min(0)].gather(1, which)
    coloured = (share >= 0.35) & (colour >= 0)
    colour_loss = F.cross_entropy(heads.colour(patches[coloured]), colour[coloured])

    salience = (cover.sum(dim=2) ** 1.5) * present  # larger things count more than their share
    nothing = torch.zeros(len(cls), heads.cls_noun.out_features, device=cls.device)
    target = nothing.scatter_add_(1, nouns, salience)
    target = target / target.sum(dim=1, keepdim=True).clamp_min(1e-6)
    cls_loss = F.cross_entropy(heads.cls_noun(cls), target)
    in_scene = batch.families >= 0
    family_loss = F.cross_entropy(heads.cls_family(cls[in_scene]), batch.families[in_scene])

    loss = (
        patch_loss
        + config.colour_weight * colour_loss
        + config.cls_weight * cls_loss
        + config.family_weight * family_loss
    )
    on_thing = (label >= 0) & (label != background)
    readings = {
        "patch": patch_loss,
        "cls": cls_loss,
        "colour": colour_loss,
        "family": family_loss,
        "patch_accuracy": (logits.argmax(-1) == label)[on_thing].float().mean(),
        "salient_accuracy": (heads.cls_noun(cls).argmax(1) == target.argmax(1)).float().mean(),
    }
    return loss, readings


def pretrain(
    corpus: Corpus,
    trunk_config: ViTConfig,
    config: PretrainConfig,
    folder: Path,
    compiled: bool = True,
    say: Callable[[str], None] = lambda line: None,
    device: torch.device = CPU,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    resume: bool = False,
) -> ViT:
    """Train the trunk on `device`; checkpoints and readings go to `folder`, from which a stopped run goes on.

    A checkpoint of another configuration is never gone on from: a new run begins anew, one that is resumed refuses.
    autocast: the context of the forward pass, for one in bfloat16. The trunk returned is on the CPU.
    Raises KeyboardInterrupt when it was asked to stop and has saved its state, NotFiniteError for a loss or gradient
    that is none, RunStateError for checkpoints that cannot be used.
    """
    if resume and (folder / PICKLED).exists():
        reason = "of an earlier version, which is not read; begin the run anew in another folder"
        raise RunStateError(folder / PICKLED, reason)
    torch.manual_seed(config.seed)
    nouns, *numbers = noun_index(corpus.stock)
    noun_of, colour_of = (each.to(device) for each in numbers)
    trunk = ViT(trunk_config).to(memory_format=torch.channels_last).to(device)
    heads = TrunkHeads(trunk_config.dim, len(nouns)).to(device)
    settings = {"world": asdict(corpus.config), "trunk": trunk_config.to_dict()}
    stage = Stage("pretrain", config, folder, {"trunk": trunk, "heads": heads}, _is_of_a_block, settings)
    model = torch.compile(trunk) if compiled else trunk
    trunk.train()
    pictures = Pictures(corpus.images, device)

    def losses(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        drawn = batch(corpus, pictures, config.batch, config.seed, step)
        with autocast():
            return trunk_loss(model, heads, drawn, noun_of, colour_of, config)

    stage.train(
        losses,
        resume=resume,
        say=say,
        summary=lambda found: f"{found['patch_accuracy']:.0%} of patches right",
    )
    return trunk.cpu().eval()


def _is_of_a_block(name: str) -> bool:
    return name.startswith("trunk.blocks.")
