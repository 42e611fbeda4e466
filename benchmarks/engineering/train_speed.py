"""Training steps per second, ours and the released formulation's on the same batch.

ours      text tokens encoded beforehand; no graph for blocks that no expression changes; short expressions joined with
          the weights before they meet the tokens; bfloat16 on GPUs that support it
released  facts B3 and B4: every step runs the frozen text encoder on the batch's expressions, padded to the longest,
          and the whole model from the pixels on, in float32. Frozen parameters need no gradients here either, so
          torch keeps no graph before the first gate, and none of the weights that are not trained

Both end in the same soft cross-entropy, clipped gradients and AdamW on the same parameters; before anything is timed,
loss and gradients are checked to agree. Also timed: `text`, the text encoder; `data`, decoding and augmenting the
batch in one thread, the same for both; and `kept`, the same from cached pictures (`data.cache_pictures=true`). All
weights but the mini's are random: speed does not depend on them, and nothing is downloaded.
"""

from __future__ import annotations

import argparse
import io
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from steersearch.benchmarks.engineering import speed
from steersearch.benchmarks.engineering.speed import Report, Workbench
from steersearch.benchmarks.harness.record import Record, run_script
from steersearch.core.backbone import Trunk
from steersearch.core.errors import BenchmarkError
from steersearch.core.images.pillow import opened
from steersearch.core.steervit import SteerViT
from steersearch.core.text import PromptFeatures, TextEncoder
from steersearch.training.augment import augment, patch_cover, to_pixels
from steersearch.training.data.mask_codec import Mask
from steersearch.training.losses import patch_target, segmentation_loss
from steersearch.training.optimiser import build_optimisers
from steersearch.training.recipe import RELEASE
from steersearch.training.steering import Steered
from steersearch.training.world import composition, scenes
from steersearch.training.world.kinds import KINDS
from steersearch.training.world.things import TEMPLATES, draw_stock

VERSION = 1
SEED = 92_000
PHOTO = (480, 360)  # of the JPEGs, in pixels
MODELS = ("mini", "dinov2-small", "dinov2-base")
LEAST_COSINE = {"float32": 0.9999, "bfloat16": 0.9, "float16": 0.9}  # of ours to the released gradient

Formulation = Literal["ours", "released"]
Seconds = Mapping[str, Sequence[float]]  # name -> one value per round


# ------------------------------------------------------------------------------------------------- data


@dataclass(frozen=True)
class Sample:
    """A photo as a JPEG, an expression, and the mask (H, W) of what it names."""

    jpeg: bytes
    expression: str
    mask: Mask


def draw_samples(count: int, size: tuple[int, int] = PHOTO) -> list[Sample]:
    """`count` photos of the generated world of `size` (width, height) pixels, always the same."""
    rng = np.random.default_rng([SEED, VERSION])
    stock = draw_stock(rng, 1, 160, [list(KINDS)[int(i)] for i in rng.choice(len(KINDS), 8, replace=False)])
    samples: list[Sample] = []
    while len(samples) < count:
        plate = scenes.draw_scene(scenes.FAMILIES[len(samples) % len(scenes.FAMILIES)], rng, size)
        things = [stock[int(i)] for i in rng.choice(len(stock), 4, replace=False)]
        photo = composition.compose(plate, composition.place_things(plate, things, rng))
        mask = photo.mask(things[0].phrase)
        if mask.any():
            file = io.BytesIO()
            photo.image.save(file, "JPEG", quality=90)
            template = TEMPLATES[len(samples) % len(TEMPLATES)]
            samples.append(Sample(file.getvalue(), template.format(things[0].phrase), mask))
    return samples


def load_batch(
    model: SteerViT, samples: Sequence[Sample], kept: Sequence[Image.Image] = ()
) -> tuple[Tensor, Tensor]:
    """Decoded and augmented as released: pixels (B, 3, S, S), and covered share of each patch (B, N).

    kept: the pictures as `PictureCache` keeps them, which need no decoding
    """
    rng = np.random.default_rng([SEED, 2, 0])
    side, pixels, covers = model.config.resolution, [], []
    for i, sample in enumerate(samples):
        image = kept[i].copy() if kept else _decoded(sample)
        view = augment(image, sample.mask, sample.expression, side, "release", rng)
        pixels.append(to_pixels(view.image, model.config.preprocess))
        covers.append(patch_cover(view.mask, side // model.grid[0]))
    return torch.from_numpy(np.stack(pixels)), torch.from_numpy(np.stack(covers))


def _decoded(sample: Sample) -> Image.Image:
    with opened(io.BytesIO(sample.jpeg), ["JPEG"]) as image:
        return image.convert("RGB")


# ------------------------------------------------------------------------------------------- the formulations


class Released(nn.Module):
    """The released forward: all four projections in each steered block, one expression per picture."""

    def __init__(self, model: SteerViT) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, 3, S, S) pixels, text tokens (B, L, Dt) and which are real (B, L) -> logits (B, N)."""
        trunk = cast(Trunk, self.model.trunk)
        text = self.model.connector(tokens)
        x = trunk.tokens(pixels)
        for i, block in enumerate(trunk.blocks):
            if str(i) in self.model.cross_attention:
                x = self.model.cross_attention[str(i)](x, text, mask, as_written=True)
            x = block(x)
        patches = trunk.norm(x)[:, trunk.num_prefix_tokens :]
        logits: Tensor = self.model.head(patches).squeeze(-1)
        return logits


def encode_padded(encoder: TextEncoder, texts: Sequence[str]) -> PromptFeatures:
    """Encode a batch of texts as the released code does: one forward, all padded to the longest."""
    language, rows = encoder.model, encoder.tokenize(texts)
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), language.config.pad_id)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), True
    ids, mask = ids.to(language.device), mask.to(language.device)
    return PromptFeatures(language(ids, mask), mask)


class Bench:
    """A model, a batch, and a training step of each formulation; both train the same parameters.

    dtype: of ours under autocast; the released formulation, and all weights, are float32.
    """

    def __init__(
        self,
        model: SteerViT,
        encoder: TextEncoder,
        samples: Sequence[Sample],
        dtype: str = "float32",
        compiled: bool = False,
    ) -> None:
        self.model, self.encoder, self.samples = model.train(), encoder, samples
        self.dtype = getattr(torch, dtype)
        pixels, cover = load_batch(model, samples)
        self.pixels, self.target = pixels.to(model.device), patch_target(cover).to(model.device)
        side = model.config.resolution
        self.kept = [_decoded(s).resize((side, side), Image.Resampling.BICUBIC) for s in samples]
        self.texts = [sample.expression for sample in samples]
        self.prompts = encoder.encode(self.texts).to(model.device)
        self.trained = dict(model.trainable_parameters())
        self.optimisers = build_optimisers(self.trained, RELEASE.optimiser)
        prepare: Callable[[nn.Module], Any] = torch.compile if compiled else lambda module: module
        self._ours, self._released = prepare(Steered(model)), prepare(Released(model))

    def loss(self, formulation: Formulation) -> Tensor:
        """The loss () of the batch, with its graph."""
        if formulation == "ours":
            device = self.model.device.type
            with torch.autocast(device, self.dtype, enabled=self.dtype != torch.float32):
                logits = self._ours(self.pixels, self.prompts).logits
        else:
            text = encode_padded(self.encoder, self.texts)
            logits = self._released(self.pixels, text.tokens, text.mask)
        return segmentation_loss(logits.float(), self.target)

    def gradients(self, formulation: Formulation) -> tuple[float, dict[str, Tensor]]:
        """The loss, and the gradient of every trained parameter."""
        loss = self.loss(formulation)
        found = torch.autograd.grad(loss, list(self.trained.values()))
        return loss.item(), dict(zip(self.trained, found, strict=True))

    def step(self, formulation: Formulation) -> Tensor:
        """One step of training: loss, gradients, clipping, AdamW. Returns the loss before it."""
        loss = self.loss(formulation)
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.trained.values(), RELEASE.optimiser.clip)
        for optimiser in self.optimisers:
            optimiser.step()
        return loss.detach()

    def parts(self) -> dict[str, Callable[[], Any]]:
        """The timed functions, by name."""
        return {
            "ours": lambda: self.step("ours"),
            "released": lambda: self.step("released"),
            "text": lambda: encode_padded(self.encoder, self.texts),
            "data": lambda: load_batch(self.model, self.samples),
            "kept": lambda: load_batch(self.model, self.samples, self.kept),
        }


def differences(bench: Bench, dtype: str = "float32") -> dict[str, float]:
    """How far the two formulations agree. Raises BenchmarkError if they do not: speeds could not be compared."""
    (our_loss, ours), (released_loss, released) = bench.gradients("ours"), bench.gradients("released")
    joined = [torch.cat([g.flatten().double() for g in found.values()]) for found in (ours, released)]
    cosine = float(F.cosine_similarity(joined[0], joined[1], dim=0))
    if not cosine >= LEAST_COSINE[dtype]:
        raise BenchmarkError(
            f"the gradients have a cosine of {cosine:.4f}, less than {LEAST_COSINE[dtype]}: "
            "not the same training step, so their speeds cannot be compared"
        )
    return {
        "loss_difference": abs(our_loss - released_loss),
        "gradient_cosine": cosine,
        "max_gradient_difference": float((joined[0] - joined[1]).abs().max() / joined[1].abs().max()),
    }


# ------------------------------------------------------------------------------------------------ measuring


def measure(settings: speed.Settings, compiled: bool = False, report: Report = lambda line: None) -> Record:
    """Time a step of each formulation, in rounds with a turn for both.

    Raises ArgumentError or ConfigError for invalid settings, BenchmarkError if memory runs out or the formulations
    disagree.
    """
    began, load = time.monotonic(), os.getloadavg()[0]
    settings = settings.resolved()
    # weights stay in float32; only the products of a bfloat16 step do not
    workbench = Workbench(replace(settings, dtype="float32"))
    with speed._threads(settings), speed._enough_memory(settings):
        report("building model and text encoder")
        samples = draw_samples(settings.batch_size)
        model, encoder = workbench.model("float32"), workbench.text_encoder("float32")
        bench = Bench(model, encoder, samples, settings.dtype, compiled)
        metrics: dict[str, Any] = dict(differences(bench, settings.dtype))
        clock, processor = _time(bench, settings, report)
    metrics |= figures(clock)
    if settings.device == "cpu":  # on a busy machine, processor time says more than wall time
        metrics |= ratios(processor, "_processor")
    metrics["load_average"] = [round(load, 2), round(os.getloadavg()[0], 2)]
    metrics["seconds"] = {name: np.round(values, 5).tolist() for name, values in clock.items()}
    chosen = {
        "version": VERSION,
        "batch_size": settings.batch_size,
        "resolution": settings.side,
        "device": settings.device,
        "dtype": settings.dtype,
        "compiled": compiled,
        "threads": settings.threads,
        "repeats": settings.repeats,
        "text_tokens": tuple(bench.prompts.mask.shape),
        "text_encoder": model.config.text_encoder,
        "weights": "the mini's and MiniLM's own"
        if settings.model == "mini"
        else "random, trunk and RoBERTa-large",
        "photo": PHOTO,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }
    name = f"train-speed/{settings.device}-{settings.dtype}-{settings.side}px-b{settings.batch_size}"
    name += "/compiled" if compiled else ""
    return Record.make(
        name,
        settings.model,
        chosen,
        metrics,
        time.monotonic() - began,
        weights_hash=speed.bundled_hash(settings.model),
    )


def _time(bench: Bench, settings: speed.Settings, report: Report) -> tuple[Seconds, Seconds]:
    """Wall and processor seconds. Steps and their parts, which may be far faster, have separate rounds."""
    parts = bench.parts()
    clock: dict[str, Sequence[float]] = {}
    processor: dict[str, Sequence[float]] = {}
    for names in (("ours", "released"), ("text", "data", "kept")):
        timed = cast(Any, {name: parts[name] for name in names})
        by_clock, on_processors = speed.time_rounds(timed, settings, report)
        clock |= cast(Any, by_clock)
        processor |= cast(Any, on_processors)
    return clock, processor


def figures(seconds: Seconds) -> dict[str, Any]:
    """Steps per second of both, milliseconds of their parts, and ratios: medians over rounds, with quartiles."""
    found: dict[str, Any] = {}
    for name in ("ours", "released"):
        speed._put(found, f"{name}_steps_per_s", 1 / np.array(seconds[name]))
    for name in ("text", "data", "kept"):
        speed._put(found, f"{name}_ms", 1000 * np.array(seconds[name]))
    return found | ratios(seconds)


def ratios(seconds: Seconds, suffix: str = "") -> dict[str, Any]:
    """Time of the released step over ours: alone, with the same data loading, and with cached pictures in ours only.

    The ratio is taken within a round, so a slow spell of the machine cancels.
    """
    ours, released, data, kept = (np.array(seconds[name]) for name in ("ours", "released", "data", "kept"))
    found: dict[str, Any] = {}
    speed._put(found, f"released_over_ours{suffix}", released / ours)
    speed._put(found, f"released_over_ours_with_data{suffix}", (released + data) / (ours + data))
    speed._put(found, f"released_over_ours_with_kept_pictures{suffix}", (released + data) / (ours + kept))
    return found


def main() -> None:
    """Measure, print the record and, with --save, keep it."""
    parser = argparse.ArgumentParser(
        description="Training steps per second, ours beside the released formulation. On two cores the mini takes "
        "half a minute, dinov2-small with its 12 pictures of 336 pixels eight minutes (with --repeats 3 four)."
    )
    parser.add_argument("--model", default="mini", choices=MODELS)
    parser.add_argument(
        "--batch-size", type=int, default=RELEASE.optimiser.batch // 4, help="default: %(default)s"
    )
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=["auto", "float32", "bfloat16"],
        help="of ours; auto: bfloat16 on a GPU that has it, else float32",
    )
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument(
        "--resolution", type=int, help="side of the input in pixels; default: the model's own"
    )
    parser.add_argument("--repeats", type=int, default=7, help="rounds; default: %(default)s")
    parser.add_argument("--threads", type=int, help="of the processor; default: one per core")
    parser.add_argument("--compile", action="store_true", help="torch.compile both")
    run_script(parser, lambda compile, **settings: measure(speed.Settings(**settings), compile))


if __name__ == "__main__":
    main()
