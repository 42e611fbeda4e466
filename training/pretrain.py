"""Pretraining of the mini's trunk, from scratch, on the generated world; afterwards it is frozen.

The trunk learns what a pretrained ViT brings along: patch tokens that say what they lie on, and a CLS token that
says what is most salient. Supervised: the things' names are known.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steersearch.core.errors import NotFiniteError, RecipeDiffersError, RunStateError
from steersearch.core.regular_file import never_a_link
from steersearch.core.vit import ViT, ViTConfig
from steersearch.training import run_state, scenes
from steersearch.training.corpus import Corpus
from steersearch.training.drawing import PALETTE
from steersearch.training.interruption import Interruption
from steersearch.training.muon import Muon
from steersearch.training.pictures import Pictures
from steersearch.training.things import Thing

CPU = torch.device("cpu")
LOG = "pretrain.jsonl"
PICKLED = "pretrain.pt"  # checkpoint of earlier versions


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Recipe of the trunk. Loss weights are relative to the patch classification's, which is 1.

    lr: of AdamW;  matrix_lr: of Muon, which takes the matrices of the blocks, or 0: AdamW takes all
    """

    steps: int = 3800
    batch: int = 32
    lr: float = 1.2e-3
    matrix_lr: float = 0.02
    warmup: int = 150
    weight_decay: float = 0.05
    background_weight: float = 0.12  # of a patch without any thing
    colour_weight: float = 0.3
    cls_weight: float = 1.0
    family_weight: float = 0.1
    seed: int = 0
    save_every: int = 250


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


def batches(
    corpus: Corpus, pictures: Pictures, size: int, steps: int, seed: int, start: int = 0
) -> Iterator[Batch]:
    """`steps` random batches, each a function of (seed, its step), half of the pictures mirrored, tones varied."""
    for step in range(start, steps):
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
        yield Batch(
            pixels * gain.to(device) + shift.to(device),
            cover.flatten(2).to(device),
            torch.from_numpy(corpus.things[rows].astype(np.int64)).to(device),
            torch.from_numpy(corpus.families[rows].astype(np.int64)).to(device),
        )


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up, then a cosine to 1 % of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


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
    torch.manual_seed(config.seed)
    nouns, *numbers = noun_index(corpus.stock)
    noun_of, colour_of = (each.to(device) for each in numbers)
    trunk = ViT(trunk_config).to(memory_format=torch.channels_last).to(device)
    heads = TrunkHeads(trunk_config.dim, len(nouns)).to(device)
    stage = _Stage(
        folder, trunk, heads, _optimizers(trunk, heads, config), _settings(corpus, trunk_config, config)
    )
    start = stage.restore(resume, say)
    model = torch.compile(trunk) if compiled else trunk
    trunk.train()
    pictures = Pictures(corpus.images, device)
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    with (
        Interruption(say) as interruption,
        open(folder / LOG, "a" if start else "w", opener=never_a_link) as log,
    ):
        drawn = batches(corpus, pictures, config.batch, config.steps, config.seed, start)
        for step, batch in enumerate(drawn, start):
            for optimizer in stage.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(step, config.steps, group["peak"], config.warmup)
            with autocast():
                loss, readings = trunk_loss(model, heads, batch, noun_of, colour_of, config)
            _require_finite(loss, step, folder, "loss")
            trunk.zero_grad(set_to_none=True)
            heads.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            norm = torch.nn.utils.clip_grad_norm_([*trunk.parameters(), *heads.parameters()], 1.0)
            _require_finite(norm, step, folder, "gradient")
            for optimizer in stage.optimizers:
                optimizer.step()
            if step % 25 == 0:
                rate = (step - start + 1) * config.batch / (time.monotonic() - began)
                told = {name: value.item() for name, value in readings.items()}
                log.write(json.dumps({"step": step, "pictures_per_s": rate, **told}) + "\n")
                log.flush()
            if (step + 1) % config.save_every == 0 or step + 1 == config.steps or interruption.asked:
                stage.save(step + 1)
                say(
                    f"trunk: step {step + 1:,} of {config.steps:,}, {readings['patch_accuracy']:.0%} of patches right"
                )
            if interruption.asked:
                raise KeyboardInterrupt
    return trunk.cpu().eval()


def _settings(corpus: Corpus, trunk: ViTConfig, config: PretrainConfig) -> dict[str, Any]:
    """All that decides what is learnt."""
    own = {name: value for name, value in asdict(config).items() if name != "save_every"}
    return {"pretrain": own, "world": asdict(corpus.config), "trunk": trunk.to_dict()}


def _require_finite(value: Tensor, step: int, folder: Path, what: str) -> None:
    if not torch.isfinite(value):
        raise NotFiniteError(value.item(), step, folder, what, setting="pretrain.lr and pretrain.matrix_lr")


class _Stage:
    """What is trained, and its checkpoints in `folder`, which belong to `settings` and no others."""

    def __init__(
        self,
        folder: Path,
        trunk: ViT,
        heads: TrunkHeads,
        optimizers: list[torch.optim.Optimizer],
        settings: dict[str, Any],
    ) -> None:
        self.optimizers = optimizers
        self._folder, self._parts, self._settings = folder, {"trunk": trunk, "heads": heads}, settings
        self._names = {
            parameter: f"{part}.{name}"
            for part, module in self._parts.items()
            for name, parameter in module.named_parameters()
        }

    def save(self, step: int) -> None:
        """Raises CheckpointNotSavedError."""
        tensors = {
            f"{part}.{k}": v for part, module in self._parts.items() for k, v in module.state_dict().items()
        }
        for optimizer in self.optimizers:
            tensors |= run_state.optimiser_tensors(optimizer, self._names)
        run_state.save(self._folder, step, tensors, {"settings": self._settings}, keep=1)

    def restore(self, resume: bool, say: Callable[[str], None]) -> int:
        """Take up the last checkpoint if it is of these settings; returns the steps done."""
        if resume and (self._folder / PICKLED).exists():
            reason = "of an earlier version, which is not read; begin the run anew in another folder"
            raise RunStateError(self._folder / PICKLED, reason)
        found = run_state.latest(self._folder)
        if found is None:
            return 0
        step, tensors, state = run_state.load(found)
        other = run_state.differences(state.get("settings", {}), self._settings)
        if other and resume:
            raise RecipeDiffersError(found, other)
        if other:
            name, was, now = other[0]
            say(f"trunk: {found} is of another run ({name} was {was}, is now {now}): beginning anew")
            return 0
        self._take(tensors, found)
        say(f"trunk: going on at step {step:,}")
        return step

    def _take(self, tensors: Mapping[str, Tensor], found: Path) -> None:
        try:
            for part, module in self._parts.items():
                own = {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")}
                module.load_state_dict(own)
        except RuntimeError as error:  # how torch names what is missing or of another shape
            raise RunStateError(found, f"it does not fit the trunk ({error})") from error
        for optimizer in self.optimizers:
            run_state.restore_optimiser(optimizer, self._names, tensors)


def _optimizers(trunk: ViT, heads: TrunkHeads, config: PretrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the rest; biases and norms are not decayed."""
    matrices = [p for name, p in trunk.named_parameters() if p.ndim == 2 and name.startswith("blocks.")]
    matrices = matrices if config.matrix_lr else []
    taken = {id(p) for p in matrices}
    rest = [p for p in (*trunk.parameters(), *heads.parameters()) if id(p) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": config.weight_decay, "peak": config.lr},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0, "peak": config.lr},
    ]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups)]
    if matrices:
        muon = Muon(matrices, weight_decay=config.weight_decay)
        muon.param_groups[0]["peak"] = config.matrix_lr
        optimizers.append(muon)
    return optimizers
