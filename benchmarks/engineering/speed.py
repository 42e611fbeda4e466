"""The cost of steering: images per second of the backbone alone, steered, and steered as in the released code.

plain     timm's `forward_features` of the backbone (ours for the mini, whose backbone timm does not have)
folded    ours: one prompt, encoded and folded once for all batches, as in an index run; on a CPU a batch is split into
          parts (`Predictor.encode`), which is itself faster than one pass
unfolded  the released formulation (facts A2, A3) in float32: for every batch the text encoder reads the prompt once per
          image, and every layer projects queries, keys and values

Under another dtype than float32 there is a fourth, unfolded_same_dtype. All weights but the mini's are random: speed
does not depend on them, and nothing is downloaded. Gates are open, so nothing is skipped.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from steersearch.benchmarks.engineering.fresh_process import call_fresh, peak_memory
from steersearch.benchmarks.harness.record import Record
from steersearch.core.backbone import Trunk, timm_preprocess, timm_trunk
from steersearch.core.bert import Bert, BertConfig
from steersearch.core.checkpoints import load_model
from steersearch.core.errors import ArgumentError, BenchmarkError
from steersearch.core.predictor import Predictor
from steersearch.core.registry import MODELS
from steersearch.core.steervit import Features, SteerViT, SteerViTConfig
from steersearch.core.text import PromptFeatures, TextEncoder, load_text_encoder

Dtype = Literal["float32", "bfloat16", "float16"]
Variant = Literal["plain", "folded", "unfolded", "unfolded_same_dtype"]
# One forward of one batch -> final-normed tokens (B, T, D), or features.
Batch = Callable[[], Tensor | Features]
Report = Callable[[str], None]  # takes a line of progress
Seconds = dict[Variant, list[float]]  # per batch, one value for each round

SECONDS_PER_TURN = 0.2  # seconds: a turn repeats the batch until the fastest variant would have run this long
LEAST_COSINE = {"float32": 0.9999, "bfloat16": 0.99, "float16": 0.99}  # between folded and unfolded tokens
RATIOS: tuple[tuple[Variant, Variant], ...] = (
    ("folded", "plain"),
    ("unfolded", "plain"),
    ("unfolded_same_dtype", "plain"),
    ("unfolded", "folded"),
    ("unfolded_same_dtype", "folded"),
)
_SIGLIP = {  # backbones of the shape that the released files name
    "siglip-base-research": "vit_base_patch16_siglip_224.webli",
    "siglip2-base-research": "vit_base_patch16_siglip_224.v2_webli",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a measurement. Raises ArgumentError for invalid ones.

    dtype "auto": bfloat16 on a GPU that supports it, else float32.  resolution: in pixels; None: 336, or the mini's.
    repeats: rounds, in each of which every variant has a turn.  threads: None: torch's default.
    """

    model: str = "dinov2-small"
    batch_size: int = 8
    dtype: Dtype | Literal["auto"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    resolution: int | None = None
    prompt: str = "the remote control"
    repeats: int = 7
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            near = get_close_matches(self.model, MODELS, n=1)
            way_out = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(MODELS)}"
            raise ArgumentError("model", self.model, f"no model of this name; {way_out}")
        for name in ("batch_size", "resolution", "repeats", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ArgumentError(name, value, "must be at least 1")
        own = MODELS[self.model].resolution
        if self.model == "mini" and self.resolution not in (None, own):
            raise ArgumentError(
                "resolution", self.resolution, f"the mini takes {own} pixels, no other number"
            )
        if not self.prompt.strip():
            raise ArgumentError("prompt", self.prompt, "has no word in it")

    def resolved(self) -> Settings:
        """The same with device, dtype and threads chosen. Raises ArgumentError as the class does."""
        has_gpu = torch.cuda.is_available()
        device = self.device if self.device != "auto" else "cuda" if has_gpu else "cpu"
        if device == "cuda" and not has_gpu:
            raise ArgumentError("device", device, "torch sees no GPU; measure on the cpu")
        has_bfloat16 = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        dtype = self.dtype if self.dtype != "auto" else "bfloat16" if has_bfloat16 else "float32"
        if device == "cuda" and dtype == "bfloat16" and not has_bfloat16:
            raise ArgumentError("dtype", dtype, "this GPU lacks it; measure in float16 or float32")
        threads = self.threads or torch.get_num_threads()
        return replace(self, device=device, dtype=dtype, threads=threads)

    @property
    def side(self) -> int:
        """Of the input, in pixels."""
        return self.resolution or MODELS[self.model].resolution

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The variants that these settings compare."""
        return get_args(Variant)[: 3 if self.dtype == "float32" else 4]


# ------------------------------------------------------------------------------------------------ the variants


class Workbench:
    """The models, inputs and variants of resolved settings; each is built on first use and kept."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._models: dict[str, SteerViT] = {}
        self._text_encoders: dict[str, TextEncoder] = {}

    def batch(self, variant: Variant, prompt_tokens: int | None = None) -> Batch:
        """A function for one forward of `variant`; what an index run does only once is done before.

        prompt_tokens: for `folded`, the length of a placeholder prompt; None: encode the real prompt.
        """
        dtype = "float32" if variant == "unfolded" else self.settings.dtype
        pixels = self.pixels.to(getattr(torch, dtype))
        if variant == "plain":
            plain = self._plain_trunk()
            return lambda: plain(pixels)
        model = self.model(dtype)
        if variant == "folded":
            prompts = self.prompts if prompt_tokens is None else blank_prompt(prompt_tokens, model)
            predictor, steering = Predictor(model), model.steering(prompts)
            return lambda: predictor.encode(pixels, [steering])[0]
        text_encoder = self.text_encoder(dtype)
        texts = [self.settings.prompt] * self.settings.batch_size
        return lambda: _unfolded(model, pixels, text_encoder.encode(texts))

    def model(self, dtype: str) -> SteerViT:
        """The model with open gates. Raises ConfigError for a resolution that its backbone cannot take."""
        if dtype not in self._models:
            torch.manual_seed(0)
            model = named_model(self.settings)
            self._models[dtype] = model.to(self.settings.device, getattr(torch, dtype))
        return self._models[dtype]

    def _plain_trunk(self) -> Callable[[Tensor], Tensor]:
        """Pixels to final-normed tokens by timm alone; for the mini, by our backbone."""
        if self.settings.model == "mini":
            return cast(Callable[[Tensor], Tensor], self.model(self.settings.dtype).trunk)
        vit: Any = timm_trunk(_trunk_name(self.settings), self.settings.side).vit
        vit.eval().to(self.settings.device, getattr(torch, self.settings.dtype))
        return cast(Callable[[Tensor], Tensor], vit.forward_features)

    def text_encoder(self, dtype: str) -> TextEncoder:
        """MiniLM for the mini, else random weights in the shape of roberta-large."""
        if dtype not in self._text_encoders:
            small = self.settings.model == "mini"
            encoder = load_text_encoder("minilm") if small else _random_roberta_large(self.settings.device)
            self._text_encoders[dtype] = encoder.to(self.settings.device, getattr(torch, dtype))
        return self._text_encoders[dtype]

    @cached_property
    def pixels(self) -> Tensor:
        """(batch_size, 3, H, W) float32 noise."""
        shape = (self.settings.batch_size, 3, self.settings.side, self.settings.side)
        return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(self.settings.device)

    @cached_property
    def prompts(self) -> PromptFeatures:
        """The prompt, encoded once, in float32."""
        return self.text_encoder("float32").encode([self.settings.prompt])


def _trunk_name(settings: Settings) -> str:
    card = MODELS[settings.model]
    return _SIGLIP[settings.model] if card.trunk is None else card.trunk.name


def named_model(settings: Settings, **text: Any) -> SteerViT:
    """The bundled mini, or random weights in the shape of a released model. text: its settings of the text encoder."""
    if settings.model == "mini":
        return load_model("mini", device="cpu")
    trunk, side = _trunk_name(settings), settings.side
    config = SteerViTConfig(
        trunk=trunk,
        resolution=side,
        aggregation="mean" if settings.model in _SIGLIP else "cls",
        preprocess=timm_preprocess(trunk, side),
        **text,
    )
    model = SteerViT(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("_gate"):
                parameter.fill_(0.5)  # closed when untrained
            elif name.endswith(".gamma"):
                parameter.fill_(1.0)  # DINOv2's LayerScale: 1e-5 when untrained, and no block would matter
    return model


def bundled_hash(model: str) -> str | None:
    """sha256 of the mini's weights; None for the other models, whose weights are random."""
    return load_model("mini", device="cpu").file_hash if model == "mini" else None


def blank_prompt(tokens: int, model: SteerViT) -> PromptFeatures:
    """A placeholder prompt of `tokens` tokens."""
    return PromptFeatures.from_numpy([np.ones((tokens, model.config.text_dim), np.float32)])


def _random_roberta_large(device: str) -> TextEncoder:
    shape = BertConfig(
        vocabulary=50265, dim=1024, depth=24, num_heads=16, hidden=4096, positions=514, types=1, norm_eps=1e-5,
        pad_id=1, first_position=2,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        roberta = Bert(shape)
    return TextEncoder("roberta-large", _words_and_marks, roberta)


def _words_and_marks(prompts: Sequence[str]) -> list[list[int]]:
    """Stands in for RoBERTa's tokenizer, whose files are on the hub: a token per word or mark, and one at each end."""
    return [[0, *map(len, re.findall(r"\w+|[^\w\s]", prompt)), 2] for prompt in prompts]


def _unfolded(model: SteerViT, pixels: Tensor, prompts: PromptFeatures) -> Tensor:
    """The released forward (facts A3): B prompts, and in each steered layer all four projections."""
    trunk = cast(Trunk, model.trunk)
    text = model.connector(prompts.tokens.to(pixels.dtype))  # (B, L, D)
    x = trunk.tokens(pixels)
    for i, block in enumerate(trunk.blocks):
        if str(i) in model.cross_attention:
            x = model.cross_attention[str(i)](x, text, prompts.mask, as_written=True)
        x = block(x)
    x = cast(Tensor, trunk.norm(x))
    model.head(x[:, trunk.num_prefix_tokens :])  # the heatmap's logits, which our forward computes too
    return x


# ------------------------------------------------------------------------------------------------ measuring


@torch.inference_mode()
def measure(settings: Settings, report: Report = lambda line: None) -> Record:
    """Time the variants against each other, and measure the peak memory of each in a fresh process.

    Raises ArgumentError or ConfigError for invalid settings, BenchmarkError if memory runs out, or if folded and
    unfolded tokens differ, since their speeds could not be compared.
    """
    began, load = time.monotonic(), os.getloadavg()[0]
    settings = settings.resolved()
    with _threads(settings), _enough_memory(settings):
        metrics, prompt_tokens = _time(settings, report)
    report("peak memory, each in a fresh process")
    for variant in settings.variants:
        metrics[f"{variant}_peak_memory_bytes"] = call_fresh(
            peak_of_variant, settings=asdict(settings), variant=variant, prompt_tokens=prompt_tokens
        )
    metrics["peak_memory_bytes"] = metrics["folded_peak_memory_bytes"]
    metrics["load_average"] = [round(load, 2), round(os.getloadavg()[0], 2)]
    chosen = asdict(settings) | {"resolution": settings.side, "prompt_tokens": prompt_tokens}
    chosen["float32_matmul_precision"] = torch.get_float32_matmul_precision()
    chosen["peak_memory"] = "resident set" if settings.device == "cpu" else "torch.cuda.max_memory_allocated"
    name = f"speed/{settings.device}-{settings.dtype}-{settings.side}px-b{settings.batch_size}"
    return Record.make(
        name,
        settings.model,
        chosen,
        metrics,
        time.monotonic() - began,
        weights_hash=bundled_hash(settings.model),
    )


def _time(settings: Settings, report: Report) -> tuple[dict[str, Any], int]:
    """Figures of speed and agreement, and the number of prompt tokens. The models are freed at the end."""
    bench = Workbench(settings)
    batches: dict[Variant, Batch] = {}
    for variant in settings.variants:
        report(f"building: {variant}")
        batches[variant] = bench.batch(variant)
    metrics: dict[str, Any] = dict(_differences(bench, batches))
    clock, processor = time_rounds(batches, settings, report)
    metrics |= throughput(clock, settings.batch_size) | ratios(clock)
    if (
        settings.device == "cpu"
    ):  # on a busy machine, wall time of two threads that wait for each other says little
        metrics |= ratios(processor, "_processor")
    metrics["seconds_per_batch"] = {
        variant: np.round(values, 6).tolist() for variant, values in clock.items()
    }
    return metrics, bench.prompts.tokens.shape[1]


def time_rounds(
    batches: Mapping[Variant, Batch], settings: Settings, report: Report
) -> tuple[Seconds, Seconds]:
    """Wall and processor seconds. The variant that goes first changes from round to round.

    Variants that run within the same seconds share the machine with the same other work; see `ratios`.
    """

    def wait() -> None:
        if settings.device == "cuda":
            torch.cuda.synchronize()

    def turn(batch: Batch, times: int) -> tuple[float, float]:
        wait()
        clock, processor = time.perf_counter(), time.process_time()
        for _ in range(times):
            batch()
        wait()
        return (time.perf_counter() - clock) / times, (time.process_time() - processor) / times

    for batch in batches.values():
        turn(batch, 2)  # the first forwards choose kernels and fill caches
    times = math.ceil(SECONDS_PER_TURN / min(turn(batch, 1)[0] for batch in batches.values()))
    order = list(batches)
    clock: Seconds = {variant: [] for variant in order}
    processor: Seconds = {variant: [] for variant in order}
    for number in range(settings.repeats):
        report(f"round {number + 1} of {settings.repeats}")
        first = number % len(order)
        for variant in order[first:] + order[:first]:
            by_clock, on_processors = turn(batches[variant], times)
            clock[variant].append(by_clock)
            processor[variant].append(on_processors)
    return clock, processor


def throughput(seconds: Seconds, batch_size: int) -> dict[str, Any]:
    """Images per second of each variant: median and quartiles."""
    metrics: dict[str, Any] = {}
    for variant, per_batch in seconds.items():
        _put(metrics, f"{variant}_images_per_s", batch_size / np.array(per_batch))
    return metrics


def ratios(seconds: Seconds, suffix: str = "") -> dict[str, Any]:
    """Ratios of times, median and quartiles, under <over>_over_<under><suffix>.

    Each ratio is taken within a round, so a slow spell of the machine cancels.
    """
    metrics: dict[str, Any] = {}
    for over, under in RATIOS:
        if over in seconds and under in seconds:
            _put(metrics, f"{over}_over_{under}{suffix}", np.divide(seconds[over], seconds[under]))
    return metrics


def _put(metrics: dict[str, Any], name: str, values: npt.NDArray[np.float64]) -> None:
    low, middle, high = (float(value) for value in np.percentile(values, (25, 50, 75)).round(4))
    metrics[name], metrics[f"{name}_quartiles"] = middle, [low, high]


def _differences(bench: Workbench, batches: Mapping[Variant, Batch]) -> dict[str, float]:
    """On the same pictures: how far folded and unfolded tokens agree, and how far steered and unsteered ones differ."""
    folded, unfolded = _tokens(batches["folded"]()), _tokens(batches["unfolded"]())
    dtype = bench.settings.dtype
    plain = _tokens(bench.model(dtype)(bench.pixels.to(getattr(torch, dtype))))
    cosine = float(F.cosine_similarity(folded, unfolded, dim=-1).min())
    least = LEAST_COSINE[dtype]
    if not cosine >= least:
        raise BenchmarkError(
            f"folded and unfolded tokens have a cosine of {cosine:.4f} at worst, less than {least}: "
            "not the same computation, so their speeds cannot be compared"
        )
    return {
        "max_difference_folded_unfolded": float((folded - unfolded).abs().max()),
        "min_cosine_folded_unfolded": cosine,
        "max_difference_folded_plain": float((folded - plain).abs().max()),
    }


def _tokens(found: Tensor | Features) -> Tensor:
    tokens = found if isinstance(found, Tensor) else torch.cat([found.prefix, found.patches], dim=1)
    return tokens.float()


@torch.inference_mode()
def peak_of_variant(settings: dict[str, Any], variant: Variant, prompt_tokens: int) -> int:
    """Peak memory in bytes after two batches of one variant, of this process or of torch on a GPU.

    `folded` gets a placeholder of `prompt_tokens` tokens, as from the prompt cache: no text encoder is loaded.
    """
    chosen = Settings(**settings)
    with _threads(chosen):
        bench = Workbench(chosen)
        batch = bench.batch(variant, prompt_tokens)
        for _ in range(2):
            batch()
    return torch.cuda.max_memory_allocated() if chosen.device == "cuda" else peak_memory()


@contextmanager
def _threads(settings: Settings) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _enough_memory(settings: Settings) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error):
            raise BenchmarkError(
                f"{settings.model}, batch {settings.batch_size}: not enough memory on the {settings.device}; "
                "give a smaller --batch-size, --resolution or --model"
            ) from error
        raise
