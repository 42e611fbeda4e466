"""Build a recipe's model: a frozen backbone, and new or given parts that steer it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from steersearch.core import hub
from steersearch.core.backbone import build_trunk, full_name, timm_preprocess
from steersearch.core.checkpoints import load_file, load_model
from steersearch.core.errors import CheckpointError, ConfigError
from steersearch.core.files import read_json
from steersearch.core.preprocess import Preprocess
from steersearch.core.registry import MINILM, trunk_file
from steersearch.core.steervit import OWN_BACKBONE, SteerViT, SteerViTConfig
from steersearch.core.vit import ViT, ViTConfig
from steersearch.training.hybrid import pretraining
from steersearch.training.recipe import HYBRID, ModelSettings

# What the trained parts compute with the same shapes depends on these.
_MEANING = ("num_heads", "head_dim", "fusion", "text_encoder", "text_layers")


def build_model(settings: ModelSettings, seed: int, trunk: ViT | None = None) -> SteerViT:
    """A SteerViT in float32 on the CPU: its backbone frozen, its other parts random from `seed` or those of `start`.

    It has the backbone's own preprocessing, for evaluation; training shows whole pictures even if that crops.
    trunk: the trained one for settings.trunk "hybrid". Raises ConfigError for incompatible parts, CheckpointError,
    HubError.
    """
    config, module = _trunk(settings, trunk)
    config = replace(
        config,
        aggregation=settings.aggregation,
        cross_attn_layers=settings.cross_attn_layers,
        fusion=settings.fusion,
        num_heads=settings.num_heads,
        head_dim=settings.head_dim,
        tanh_gate=settings.tanh_gate,
        use_ffn=settings.ffn,
        text_encoder=settings.text_encoder,
        text_dim=text_width(settings.text_encoder),
        text_layers=settings.text_layers,
        connector_hidden=settings.connector_hidden if settings.connector == "mlp" else None,
    )
    torch.manual_seed(seed)
    model = SteerViT(config, module)
    if not model.cross_attention:
        layers = settings.cross_attn_layers
        raise ConfigError(
            "model.cross_attn_layers", layers, "lie all beyond the backbone's last block: nothing would steer"
        )
    with torch.no_grad():
        for parameter_name, parameter in model.trainable_parameters():
            if parameter_name.endswith("gate"):
                parameter.fill_(settings.gate)
    if settings.start:
        _begin_with(model, settings.start)
    finished(model, settings)  # fails before training rather than after
    return model


def finished(model: SteerViT, settings: ModelSettings) -> SteerViT:
    """The trained `model` at `test_resolution`. Raises ConfigError if the backbone does not support that."""
    side = settings.test_resolution
    return model.at_resolution(side) if side else model


def _trunk(settings: ModelSettings, trunk: ViT | None) -> tuple[SteerViTConfig, torch.nn.Module]:
    """The backbone, and a config that describes it; the caller replaces the other fields."""
    name = settings.trunk
    if name == HYBRID:
        assert trunk is not None
        size = trunk.config.image_size
        plain = Preprocess(size=size, mean=pretraining.MEAN, std=pretraining.STD, crop_pct=1.0, mode="squash")
        return _described(OWN_BACKBONE, trunk.config, plain), trunk
    if name == "mini" or Path(name).suffix == ".safetensors":
        whole = load_model(name, device="cpu") if name == "mini" else load_file(Path(name), device="cpu")
        config = whole.config
        own = config.preprocess if config.vit else timm_preprocess(config.trunk, config.resolution)
        return replace(config, preprocess=own), whole.trunk
    known = full_name(name)
    preprocess = timm_preprocess(known, settings.resolution)
    weights = hub.fetch(trunk_file(known))
    module = build_trunk(known, settings.resolution, pretrained=True, weights=weights)
    return _described(known, None, preprocess), module


def _described(trunk: str, vit: ViTConfig | None, preprocess: Preprocess) -> SteerViTConfig:
    return SteerViTConfig(trunk=trunk, vit=vit, resolution=preprocess.size, preprocess=preprocess)


def _begin_with(model: SteerViT, start: str) -> None:
    """Copy the trained parts of the model `start`."""
    begun = load_model(start, device="cpu")
    for field in _MEANING:
        its, ours = getattr(begun.config, field), getattr(model.config, field)
        if its != ours:
            raise ConfigError(
                "model.start", start, f"its {field} is {its}, here {ours}; its weights would mean nothing"
            )
    given, wanted = dict(begun.trainable_parameters()), dict(model.trainable_parameters())
    unfit = sorted(
        name for name in wanted.keys() | given.keys()
        if name not in given or name not in wanted or given[name].shape != wanted[name].shape
    )  # fmt: skip
    if unfit:
        raise ConfigError("model.start", start, f"its parts do not fit this recipe: {unfit[0]} differs")
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(given[name])


def text_width(text_encoder: str) -> int:
    """Dt, the width of the text encoder's tokens, from its configuration alone."""
    installed = hub.text_encoder_in_package(MINILM) if text_encoder == MINILM.name else None
    folder = installed or hub.text_encoder_folder(text_encoder)
    file = folder / "config.json"
    try:
        return int(read_json(file)["hidden_size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: does not give the width of its tokens ({error!r})") from error
