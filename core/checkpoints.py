"""Weights on disk: our .safetensors files and the authors' .pth files, and how a model's name becomes a file.

Both hold the trained parts under the authors' names (`to_released_state`). Ours adds the config as JSON metadata under
"steersearch", and, for a backbone of our own, its weights under "trunk.".
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from steersearch.core import hub
from steersearch.core.backbone import build_trunk, full_name, timm_preprocess
from steersearch.core.errors import (
    CheckpointError,
    CheckpointKeysError,
    ConfigError,
    UnknownModelError,
    listed,
)
from steersearch.core.files import as_path, drafted, remembered_sha256
from steersearch.core.preprocess import MOST_SIDE, Preprocess
from steersearch.core.ranges import check_text, check_whole, read_json, read_list
from steersearch.core.registry import MODELS, HubFile, ModelCard, PackageFile, trunk_file
from steersearch.core.released_pickle import PickledZip, StoredTensor, pickled_zip
from steersearch.core.steervit import SteerViT, SteerViTConfig
from steersearch.core.weights_file import weights_file

logger = logging.getLogger(__name__)

METADATA_KEY = "steersearch"
FILE_FORMAT = 1  # of our .safetensors files; a higher one is refused

# ------------------------------------------------------------------------------------------------- loading


def load_model(
    name_or_path: str | Path,
    *,
    device: str | torch.device = "auto",
    dtype: torch.dtype | Literal["auto"] = "auto",
) -> SteerViT:
    """The model `name_or_path`: a name of `registry.MODELS`, "auto", a .safetensors or .pth file, or a hub id.

    "auto": see `choose_auto`.  device, dtype: see `load_file`.
    Raises UnknownModelError, or CheckpointError for a file that is missing, damaged, unsafe or incompatible.
    """
    name = choose_auto() if name_or_path == "auto" else str(name_or_path)
    model = load_file(_locate(name), device=device, dtype=dtype)
    model.model_id = name
    return model


def choose_auto() -> str:
    """The name that "auto" stands for: `wanted_by_auto` if it is cached or the hub answers, else "mini", which it
    logs."""
    wanted = wanted_by_auto()
    if hub.has_model(wanted) or (reason := hub.why_unreachable()) is None:
        return wanted.name
    way_out = f"for the better one run `steersearch models fetch {wanted.name}` online"
    logger.warning(
        '"%s" is not downloaded and %s: using the bundled model "mini"; %s', wanted.name, reason, way_out
    )
    return "mini"


def wanted_by_auto() -> ModelCard:
    """The first choice of "auto": the authors' base model with a GPU, else their small one."""
    return MODELS["dinov2-base" if torch.cuda.is_available() else "dinov2-small"]


def load_file(
    path: Path,
    *,
    trunk: nn.Module | None = None,
    device: str | torch.device = "auto",
    dtype: torch.dtype | Literal["auto"] = "auto",
) -> SteerViT:
    """The model in a .safetensors file of ours or a .pth file of the authors.

    trunk: a backbone with the config's `dim` and `depth`, instead of timm's pretrained weights.
    device: "auto" is the GPU if there is one.  dtype: see `choose_dtype`.
    Raises CheckpointError; CheckpointKeysError names missing, misshapen and, in our files, unexpected weights.
    Unexpected weights in a released file are logged and ignored.
    """
    if str(device) == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = choose_dtype(torch.device(device)) if dtype == "auto" else dtype
    if not dtype.is_floating_point:
        raise ConfigError("dtype", dtype, "must be a floating-point type, such as torch.float32")
    with _opened(path) as file:
        with torch.device("meta"):  # allocates nothing and draws no random weights
            model = SteerViT(file.config, trunk=trunk)
        wanted = _wanted(model, file, path)
        if trunk is None and not file.holds_trunk:
            model.trunk = _pretrained_trunk(file.config)
        _load_state(model, file.read(wanted), path)
    model.file_hash = remembered_sha256(path)
    model.model_id = str(path)
    return model.to(device, dtype)


def choose_dtype(device: torch.device) -> torch.dtype:
    """The dtype for "auto": bfloat16 on a GPU that supports it, else float32."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            if torch.cuda.is_bf16_supported(including_emulation=False):
                return torch.bfloat16
    return torch.float32


def _pretrained_trunk(config: SteerViTConfig) -> nn.Module:
    weights = hub.fetch(trunk_file(full_name(config.trunk)))
    trunk = build_trunk(config.trunk, config.resolution, pretrained=True, weights=weights)
    return trunk.requires_grad_(False)


def read_config(path: Path) -> tuple[SteerViTConfig, bool]:
    """The config of a .safetensors or .pth file, and whether it holds its backbone. Raises CheckpointError."""
    with _opened(path) as file:
        return file.config, file.holds_trunk


@dataclass(frozen=True)
class _ModelFile:
    """The description of a model file. shapes: of its weights;  read: returns the named ones."""

    config: SteerViTConfig
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[Iterable[str]], dict[str, Tensor]]

    @property
    def holds_trunk(self) -> bool:
        return any(name.startswith("trunk.") for name in self.shapes)


@contextmanager
def _opened(path: Path) -> Iterator[_ModelFile]:
    """Read the description of the model file `path`. Raises CheckpointError, also for a ConfigError in the block,
    where the model is built from it."""
    if not os.path.exists(path):
        raise CheckpointError(f"{path}: no such file")
    try:
        with _opened_released(path) if _is_released(path) else _opened_safetensors(path) as file:
            if file.config.vit is not None and not file.holds_trunk:
                raise CheckpointError(f"{path}: it describes a backbone of our own without its weights")
            yield file
    except ConfigError as error:
        raise CheckpointError(f"{path}: invalid config: {error}") from error


def _is_released(path: Path) -> bool:
    return path.suffix != ".safetensors"


def _wanted(model: SteerViT, file: _ModelFile, path: Path) -> list[str]:
    """Names of the weights that `model` takes from `file`; strict on names and shapes."""
    weights = to_released_state(model)
    if file.holds_trunk:
        weights |= _trunk_state(model)
    unexpected = sorted(set(file.shapes) - set(weights))
    missing = sorted(set(weights) - set(file.shapes))
    misshapen = sorted(k for k in set(weights) & set(file.shapes) if weights[k].shape != file.shapes[k])
    if missing or misshapen or (unexpected and not _is_released(path)):
        raise CheckpointKeysError(path, missing=missing, unexpected=unexpected, misshapen=misshapen)
    if unexpected:
        logger.warning("%s: ignored weights that the model does not have: %s", path, listed(unexpected))
    return list(weights)


def _load_state(model: SteerViT, state: Mapping[str, Tensor], path: Path) -> None:
    """Load `state`, in the layout of our files, into `model`."""
    own = from_released_state(state) | {n: value for n, value in state.items() if n.startswith("trunk.")}
    types = {name: value.is_floating_point() for name, value in model.state_dict().items()}
    for name, value in own.items():
        if value.is_floating_point() != types[name]:
            raise CheckpointError(f"{path}: {name} has the dtype {value.dtype}")
    model.load_state_dict(
        {name: _for_memory(value) for name, value in own.items()}, strict=False, assign=True
    )


def _for_memory(value: Tensor) -> Tensor:
    """float16 on disk becomes float32 in memory; a view becomes a tensor with memory of its own."""
    if value.is_floating_point():
        value = value.float()
    alone = value.is_contiguous() and value.untyped_storage().nbytes() == value.nbytes
    return value if alone else value.clone(memory_format=torch.contiguous_format)


# --------------------------------------------------------------------------------------- the authors' layout

_OWN_TO_RELEASED = {"connector.": "connector.", "head.": "lin_seg_head."}
_BLOCKS, _GATED = "vision_model.trunk.blocks.", "gated_cross_attn."


def to_released_state(model: SteerViT) -> dict[str, Tensor]:
    """The trained parts of `model` under the names of the authors' files, without copying."""
    state = {}
    for name, value in model.state_dict().items():
        if name.startswith("cross_attention."):
            _, block, rest = name.split(".", 2)
            state[f"{_BLOCKS}{block}.{_GATED}{rest}"] = value
        for own, released in _OWN_TO_RELEASED.items():
            if name.startswith(own):
                state[released + name.removeprefix(own)] = value
    return state


def from_released_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of `to_released_state`: names as in `SteerViT.state_dict`. Other names are dropped."""
    own_state = {}
    for name, value in state.items():
        block, gated, rest = name.removeprefix(_BLOCKS).partition(f".{_GATED}")
        if name.startswith(_BLOCKS) and gated:
            own_state[f"cross_attention.{block}.{rest}"] = value
        for own, released in _OWN_TO_RELEASED.items():
            if name.startswith(released):
                own_state[own + name.removeprefix(released)] = value
    return own_state


def read_released_pth(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights (authors' names) and config (plain data) of a released .pth, read without running its pickle.

    Raises CheckpointError if it is damaged, lacks "state_dict" or "config", or names anything but tensors, plain data
    and OmegaConf's classes.
    """
    with pickled_zip(Path(path)) as archive:
        tensors, config = _released_parts(archive)
        return {name: archive.read(tensor) for name, tensor in tensors.items()}, config


def _released_parts(archive: PickledZip) -> tuple[dict[str, StoredTensor], dict[str, Any]]:
    """The state dict, its tensors checked against the file, and the config."""
    path, content = archive.path, archive.content
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: not a released checkpoint (holds a {type(content).__name__}, not a dict)"
        )
    state, config = content.get("state_dict"), archive.plain(content.get("config"), "config")
    if not isinstance(state, dict) or not isinstance(config, dict):
        have = listed([str(name) for name in content])
        raise CheckpointError(
            f'{path}: not a released checkpoint: needs "state_dict" and "config", has {have}'
        )
    strangers = [str(name) for name, value in state.items() if not isinstance(value, StoredTensor)]
    if strangers:
        raise CheckpointError(f"{path}: not tensors in its state_dict: {listed(strangers)}")
    archive.check(state)
    return state, config


@contextmanager
def _opened_released(path: Path) -> Iterator[_ModelFile]:
    with pickled_zip(path) as archive:
        tensors, config = _released_parts(archive)
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        read = config_from_released(config, shapes, path)
        yield _ModelFile(read, shapes, lambda names: {name: archive.read(tensors[name]) for name in names})


def config_from_released(
    config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], path: Path
) -> SteerViTConfig:
    """Our config for a released file: sizes of the connector from its weights, preprocessing from timm.

    shapes: of its weights.  Raises CheckpointError, and ConfigError for a setting out of its range.
    """
    vision = config.get("vision_encoder")
    _refuse_interpolation({"vision_encoder": vision, "text_encoder": config.get("text_encoder")}, path)
    if not isinstance(vision, dict) or not isinstance(vision.get("model_name"), str):
        raise CheckpointError(f"{path}: its config lacks vision_encoder.model_name")
    first = shapes.get("connector.mlp.0.weight", ())
    if len(first) != 2:
        raise CheckpointKeysError(path, missing=["connector.mlp.0.weight"])
    name, resolution = vision["model_name"], vision.get("resolution") or 336
    check_text("model_name", name)
    check_whole("resolution", resolution, 1, MOST_SIDE)
    return SteerViTConfig(
        trunk=name,
        resolution=resolution,
        aggregation=vision.get("feature_aggregation") or "cls",
        cross_attn_layers=read_list(
            "cross_attn_layers", vision.get("cross_attn_layers") or tuple(range(1, 26, 2))
        ),
        use_ffn=bool(vision.get("use_ffn")),
        cross_attn_ffn_mult=vision.get("cross_attn_ffn_mult") or 2.0,
        text_encoder=config.get("text_encoder") or "roberta-large",
        text_dim=first[1],
        connector_hidden=first[0] if "connector.mlp.2.weight" in shapes else None,
        preprocess=timm_preprocess(name, resolution),
    )


def _refuse_interpolation(values: Mapping[str, Any], path: Path, above: str = "") -> None:
    for name, value in values.items():
        if isinstance(value, Mapping):
            _refuse_interpolation(value, path, f"{above}{name}.")
            continue
        texts = value if isinstance(value, (list, tuple)) else [value]
        if any(isinstance(text, str) and "${" in text for text in texts):
            raise CheckpointError(
                f"{path}: its config's {above}{name} is {value!r}, an interpolation; save the file with its config "
                "resolved: OmegaConf.resolve(config)"
            )


def write_released_pth(model: SteerViT, path: Path | str) -> None:
    """Write `model` as the authors' code reads it: state_dict and config, plain data.

    Logs a difference in preprocessing, which the file cannot express. Raises CheckpointError, with all reasons, for a
    model that their code would refuse or compute differently.
    """
    config = model.config
    unfit = list(_unknown_to_released(model))
    if unfit:
        raise CheckpointError(
            f"{path}: the authors' code knows no {', no '.join(unfit)}; save as .safetensors"
        )
    own = timm_preprocess(config.trunk, config.resolution)
    if config.preprocess != own:
        logger.warning(
            "%s: the authors' code prepares pictures as the backbone's own transform does (%s), not as this model (%s)",
            path,
            _in_words(own),
            _in_words(config.preprocess),
        )
    vision = {
        "model_name": config.trunk,
        "resolution": config.resolution,
        "feature_aggregation": config.aggregation,
        "cross_attn_layers": list(config.cross_attn_layers),
        "use_ffn": config.use_ffn,
        "cross_attn_ffn_mult": config.cross_attn_ffn_mult,
    }
    state = {name: value.detach().float().cpu() for name, value in to_released_state(model).items()}
    content = {"state_dict": state, "config": {"vision_encoder": vision, "text_encoder": config.text_encoder}}
    with _writing(Path(path)) as draft, draft.open("r+b") as file:
        torch.save(content, file)


def _unknown_to_released(model: SteerViT) -> Iterator[str]:
    """The parts of `model` that the authors' code or file format lacks."""
    config = model.config
    if config.vit is not None:
        yield "backbone but timm's (their files hold none)"
    if config.fusion != "early":
        yield "late fusion"
    if not config.tanh_gate:
        yield "missing gates"
    if (config.num_heads, config.head_dim) != (16, 72):
        yield f"cross-attention of {config.num_heads} heads of {config.head_dim}, only 16 of 72"
    if config.connector_hidden is None:
        yield "linear connector"
    elif config.connector_hidden != config.text_dim:
        yield f"connector {config.connector_hidden} wide, only as wide as its text tokens, {config.text_dim}"
    if config.aggregation == "focus":
        yield 'aggregation "focus", only cls and mean'
    elif config.aggregation == "cls" and not model.trunk.num_prefix_tokens:
        yield "aggregation cls of a backbone without a CLS token"
    if "roberta" not in config.text_encoder.lower():
        yield f"text encoder {config.text_encoder}, only RoBERTa"
    if config.text_layers >= 0:
        yield f"text encoder cut to {config.text_layers} layers"


def _in_words(preprocess: Preprocess) -> str:
    return f"{preprocess.mode}, crop_pct {preprocess.crop_pct:g}, {preprocess.interpolation}"


# ------------------------------------------------------------------------------------------ our own layout


def write_safetensors(model: SteerViT, path: Path, config: SteerViTConfig | None = None) -> None:
    """Write `model` to `path`: in float16 with a backbone of our own, else in float32 without backbone.

    config: the one to write; None: the model's own.
    Raises CheckpointError if the file cannot be written, or a weight does not fit into float16.
    """
    state = to_released_state(model)
    dtype = torch.float32
    if model.config.vit is not None:
        state |= _trunk_state(model)
        dtype = torch.float16
    stored = {name: _for_disk(name, value, dtype, path) for name, value in state.items()}
    described = json.dumps({"format": FILE_FORMAT, "config": (config or model.config).to_dict()})
    with _writing(path) as draft:
        save_file(stored, draft, metadata={METADATA_KEY: described})


@contextmanager
def _opened_safetensors(path: Path) -> Iterator[_ModelFile]:
    with weights_file(path) as file:
        described = file.metadata.get(METADATA_KEY)
        if described is None:
            raise CheckpointError(f'{path}: not a steersearch model (its metadata lacks "{METADATA_KEY}")')
        yield _ModelFile(_described_config(described, path), file.shapes, file.read)


def _described_config(described: str, path: Path) -> SteerViTConfig:
    try:
        data = read_json(described)
        if data["format"] > FILE_FORMAT:
            raise CheckpointError(
                f"{path}: written by a newer version (format {data['format']}); update steersearch"
            )
        return SteerViTConfig.from_dict(data["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: its description is damaged ({error!r})") from error


def _trunk_state(model: SteerViT) -> dict[str, Tensor]:
    return {f"trunk.{name}": value for name, value in model.trunk.state_dict().items()}


def _for_disk(name: str, value: Tensor, dtype: torch.dtype, path: Path) -> Tensor:
    value = value.detach().cpu()
    if not value.is_floating_point():  # batch norm's counter
        return value.contiguous()
    stored = value.to(dtype).contiguous()
    if not torch.isfinite(stored).all():
        raise CheckpointError(f"{path}: not written, {name} holds values that are not finite in {dtype}")
    return stored


@contextmanager
def _writing(path: Path) -> Iterator[Path]:
    """`drafted`, with CheckpointError instead of OSError."""
    try:
        with drafted(path) as draft:
            yield draft
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error.strerror or error})") from error


# ----------------------------------------------------------------------------------------- files and the hub


def _locate(name: str) -> Path:
    """The file of a model name, path or hub id; fetches it if necessary."""
    if name in MODELS:
        file = MODELS[name].weights
        return file.path if isinstance(file, PackageFile) else _fetch_weights(MODELS[name], file)
    path = as_path(name)
    if os.path.isfile(path) or path.suffix in (".safetensors", ".pth"):
        return path
    if hub.is_repository(name) and not os.path.exists(path):
        return hub.fetch(HubFile(repo=name, file=hub.WEIGHTS))
    raise UnknownModelError(name, ["auto", *MODELS])


def _fetch_weights(card: ModelCard, file: HubFile) -> Path:
    if hub.find(file) is None and card.research_only:
        logger.warning('model "%s": licence: %s', card.name, card.licence)
    path = hub.fetch(file)
    if file.sha256 is None:
        logger.info('model "%s": no published sha256 to check %s against', card.name, file.file)
    return path
