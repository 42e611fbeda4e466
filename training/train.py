"""Training of what steers: connector, gated cross-attention and head, on a frozen trunk.

The paper's objective is soft cross-entropy over patches (arXiv 2604.02327, Eq. 3). On top of it, as an option,
object-alone distillation: the steered embedding of (picture, prompt) is drawn to what the frozen trunk itself says
of that object alone on a plain background. The masks are there, so it needs no new labels.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from steersearch.core.steervit import Aggregation, Features, SteerViT
from steersearch.core.text import PromptFeatures
from steersearch.training.corpus import Corpus
from steersearch.training.losses import (
    alone_contrastive_loss,
    alone_cosine_loss,
    patch_target,
    pmass,
    pointing,
    segmentation_loss,
)
from steersearch.training.pretrain import Batch, batches, learning_rate, save_state, to_pixels
from steersearch.training.prompts import EncodedPrompts, Vocabulary
from steersearch.training.things import TEMPLATES, Thing


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Recipe of the steering.

    alone:        weight of the object-alone distillation of each aggregation; empty trains the paper's objective
    distillation: contrastive (nearest to its own thing's key among all keys) or cosine (near to its own key)
    alone_views:  jittered views of each thing that its key is the mean of
    absent:       share of prompts that name a thing which is not in the picture; they enter the distillation only,
                  with a plain grey picture as their key, so that the prompt alone cannot write the object
    gate_lr:      factor on the learning rate of the gates, which start at zero and are not decayed
    """

    steps: int = 3000
    batch: int = 32
    lr: float = 1.2e-3
    gate_lr: float = 5.0
    warmup: int = 100
    weight_decay: float = 0.05
    alone: tuple[tuple[Aggregation, float], ...] = (("cls", 1.0), ("focus", 0.5))
    distillation: Literal["contrastive", "cosine"] = "contrastive"
    alone_views: int = 4
    temperature: float = 0.1
    absent: float = 0.1
    seed: int = 1
    save_every: int = 250


@dataclass(frozen=True)
class SteeringBatch:
    """A batch with a prompt for each picture.

    cover: (B, N) share of each patch that things bearing the prompt's name cover, all zero where it is absent
    names: (B,) number of each prompt's name;  things: (B,) the stock number of the one thing meant, -1 where the
    prompt fits several things in the picture, K (one past the stock) where it fits none
    """

    pixels: Tensor
    prompts: PromptFeatures
    cover: Tensor
    names: Tensor
    things: Tensor


def choose_prompts(
    batch: Batch, vocabulary: Vocabulary, encoded: EncodedPrompts, rng: np.random.Generator, absent: float
) -> SteeringBatch:
    """Call one thing in each picture, or with probability `absent` one that is not there."""
    size, stock = len(batch.pixels), len(vocabulary.bears) - 1
    names, targets = [], []
    for i in range(size):
        present = [int(k) for k in batch.things[i] if k >= 0]
        if rng.random() < absent:
            name = vocabulary.call(int(rng.integers(stock)), rng)
        else:
            name = vocabulary.call(present[int(rng.integers(len(present)))], rng)
        bearers = [k for k in present if vocabulary.bears[k, name]]
        names.append(name)
        targets.append(stock if not bearers else bearers[0] if len(bearers) == 1 else -1)
    chosen = torch.tensor(names)
    borne = vocabulary.bears[batch.things.clamp_min(0), chosen[:, None]] & (batch.things >= 0)  # (B, M)
    cover = (batch.cover * borne[..., None]).sum(dim=1).clamp_max(1.0)
    templates = [int(rng.integers(len(TEMPLATES))) for _ in range(size)]
    return SteeringBatch(
        batch.pixels, encoded.features(names, templates), cover, chosen, torch.tensor(targets)
    )


@torch.no_grad()
def alone_keys(
    model: SteerViT, stock: Sequence[Thing], kinds: Sequence[Aggregation], views: int, seed: int
) -> dict[Aggregation, Tensor]:
    """What the frozen trunk says of each thing alone, mean of `views`, and last of nothing: (K + 1, D) unit length.

    One such matrix for each aggregation; for "focus" the patches are weighted by the thing's own mask.
    """
    rng = np.random.default_rng([seed, 4])
    size, grid = model.config.resolution, model.grid
    pictures = [_alone(thing, size, rng) for thing in stock for _ in range(views)]
    for grey in (110, 128, 150):
        pictures.append((Image.new("RGB", (size, size), (grey,) * 3), Image.new("L", (size, size), 255)))
    rows: dict[Aggregation, list[Tensor]] = {kind: [] for kind in kinds}
    for start in range(0, len(pictures), 128):
        part = pictures[start : start + 128]
        found = model(to_pixels(np.stack([np.asarray(image) for image, _ in part])))
        masks = np.stack([np.asarray(mask.resize(grid[::-1], Image.Resampling.BOX)) for _, mask in part])
        weights = torch.from_numpy(masks).float().flatten(1)
        pooled = torch.einsum("bn,bnd->bd", weights / weights.sum(1, keepdim=True), found.patches)
        for kind in kinds:
            rows[kind].append(pooled if kind == "focus" else found.aggregate(kind))
    return {kind: _mean_of_views(torch.cat(vectors), len(stock), views) for kind, vectors in rows.items()}


def _mean_of_views(vectors: Tensor, things: int, views: int) -> Tensor:
    """(things * views + greys, D) -> (things + 1, D), every row of unit length."""
    unit = F.normalize(vectors, dim=-1)
    keys = unit[: things * views].view(things, views, -1).mean(dim=1)
    nothing = unit[things * views :].mean(dim=0, keepdim=True)
    return F.normalize(torch.cat([keys, nothing]), dim=-1)


def _alone(thing: Thing, size: int, rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """The thing large on plain grey, and its mask (L)."""
    side = rng.uniform(0.5, 0.75) * size
    scale = side / max(thing.picture.size)
    shape = (max(2, round(thing.picture.width * scale)), max(2, round(thing.picture.height * scale)))
    cutout = thing.picture.resize(shape, Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        cutout = ImageOps.mirror(cutout)
    grey = int(rng.integers(100, 160))
    image, mask = Image.new("RGB", (size, size), (grey, grey, grey)), Image.new("L", (size, size))
    corner = tuple(int((size - s) / 2 + rng.uniform(-0.08, 0.08) * size) for s in shape)
    image.paste(cutout, (corner[0], corner[1]), cutout)
    mask.paste(255, (corner[0], corner[1]), cutout)
    return image, mask


def steering_loss(
    found: Features,
    batch: SteeringBatch,
    vocabulary: Vocabulary,
    keys: dict[Aggregation, Tensor],
    config: TrainConfig,
) -> tuple[Tensor, dict[str, float]]:
    """The paper's loss and, weighted, the object-alone distillation. Returns the sum and readings."""
    target = patch_target(batch.cover)
    present = batch.cover.sum(dim=1) > 0
    named = present.sum().clamp_min(1)  # the mean is over pictures that show what is named
    loss = segmentation_loss(found.logits, target) * len(present) / named
    readings = {
        "segmentation": loss.item(),
        "pmass": pmass(found.logits, target)[present].mean().item(),
        "pointing": pointing(found.logits, batch.cover)[present].float().mean().item(),
    }
    single = batch.things >= 0  # one thing is meant, or none is there
    things, excluded = batch.things[single], vocabulary.bears[:, batch.names[single]].T
    for kind, weight in config.alone:
        steered = found.aggregate(kind)[single]
        if config.distillation == "cosine":
            alone = alone_cosine_loss(steered, keys[kind][things])
        else:
            alone = alone_contrastive_loss(steered, keys[kind], things, excluded, config.temperature)
        loss = loss + weight * alone
        readings[f"alone_{kind}"] = alone.item()
    return loss, readings


def steering_batches(
    corpus: Corpus, vocabulary: Vocabulary, encoded: EncodedPrompts, config: TrainConfig, start: int = 0
) -> Iterator[SteeringBatch]:
    """Random batches with their prompts, each a function of (seed, its step)."""
    drawn = batches(corpus, config.batch, config.steps, config.seed, start)
    for step, batch in enumerate(drawn, start):
        rng = np.random.default_rng([config.seed, 5, step])
        yield choose_prompts(batch, vocabulary, encoded, rng, config.absent if config.alone else 0.0)


def train(
    model: SteerViT,
    corpus: Corpus,
    encoded: EncodedPrompts,
    config: TrainConfig,
    folder: Path,
    compiled: bool = True,
) -> SteerViT:
    """Train the steering of `model`; state and readings go to `folder`, from which an interrupted run goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = Vocabulary(corpus.stock)
    kinds = [kind for kind, _ in config.alone]
    keys = alone_keys(model, corpus.stock, kinds, config.alone_views, config.seed) if kinds else {}
    parameters = dict(model.named_parameters())
    trained = {name: p for name, p in parameters.items() if p.requires_grad}
    gates = [p for name, p in trained.items() if name.endswith("gate")]
    decayed = [p for name, p in trained.items() if p.ndim > 1]
    plain = [p for name, p in trained.items() if p.ndim <= 1 and not name.endswith("gate")]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": config.weight_decay, "factor": 1.0},
            {"params": plain, "weight_decay": 0.0, "factor": 1.0},
            {"params": gates, "weight_decay": 0.0, "factor": config.gate_lr},
        ]
    )
    state_file = folder / "train.pt"
    start = 0
    if state_file.is_file():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    forward = torch.compile(model) if compiled else model
    began = time.monotonic()
    with (folder / "train.jsonl").open("a") as log:
        for step, batch in enumerate(steering_batches(corpus, vocabulary, encoded, config, start), start):
            for group in optimizer.param_groups:
                group["lr"] = group["factor"] * learning_rate(step, config.steps, config.lr, config.warmup)
            found = forward(batch.pixels, batch.prompts)
            loss, readings = steering_loss(found, batch, vocabulary, keys, config)
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"loss is {loss.item()} at step {step}; the last good state is {state_file}"
                )
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
            optimizer.step()
            if step % 25 == 0:
                rate = (step - start + 1) * config.batch / (time.monotonic() - began)
                opened = [round(float(torch.tanh(g.detach())), 3) for g in gates]
                log.write(
                    json.dumps({"step": step, "pictures_per_s": rate, **readings, "gates": opened}) + "\n"
                )
                log.flush()
            if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
                save_state(
                    state_file,
                    model=model.state_dict(),
                    optimizer=optimizer.state_dict(),
                    step=step + 1,
                    config=asdict(config),
                )
    return model.eval()
