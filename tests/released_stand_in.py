"""A released model in small, on a stand-in hub: the authors' file, a backbone as timm publishes one, a RoBERTa."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from steersearch.core import registry
from steersearch.core.backbone import TimmTrunk, timm_preprocess
from steersearch.core.checkpoints import write_released_pth
from steersearch.core.registry import MODELS, HubFile, ModelCard, TrunkCard
from steersearch.core.steervit import SteerViT, SteerViTConfig
from tests.hub_server import COMMIT, HubServer
from tests.small_models import randomise
from tests.test_text import write_tiny_roberta

TRUNK = "test_vit.r160_in1k"  # of timm's, made for tests: 64 wide, 6 blocks, patches of 16 pixels
RESOLUTION = 96
TEXT_DIM = 32


def small_released_model() -> tuple[SteerViT, nn.Module]:
    """A random model with open gates, and timm's model under it, at timm's own resolution and with its head."""
    import timm

    vit = timm.create_model(TRUNK)
    randomise(vit, seed=1)
    trunk = timm.create_model(TRUNK, img_size=RESOLUTION, num_classes=0)
    config = SteerViTConfig(
        trunk=TRUNK,
        resolution=RESOLUTION,
        text_dim=TEXT_DIM,
        connector_hidden=TEXT_DIM,
        preprocess=timm_preprocess(TRUNK, RESOLUTION),
    )
    model = SteerViT(config, trunk=TimmTrunk(trunk))
    randomise(nn.ModuleList([model.connector, model.cross_attention, model.head]), seed=2, std=0.4)
    with torch.no_grad():
        for name, parameter in model.trainable_parameters():
            if name.endswith("_gate"):
                parameter.fill_(0.8)
    return model, vit


def publish(server: HubServer, monkeypatch: pytest.MonkeyPatch, name: str = "dinov2-small") -> ModelCard:
    """Put a small model on `server` under the released model's name; returns its card in the registry.

    Everything goes through the registry as for the real model: other files, other hashes.
    """
    from safetensors.torch import save

    model, vit = small_released_model()
    card = MODELS[name]
    assert isinstance(card.weights, HubFile)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pth"
        write_released_pth(model, path)
        weights = server.add(card.weights.repo, card.weights.file, path.read_bytes())
        roberta = Path(folder) / "roberta"
        roberta.mkdir()
        write_tiny_roberta(roberta)
        repo = "FacebookAI/roberta-large"
        texts = [server.add(repo, p.name, p.read_bytes(), revision=COMMIT) for p in sorted(roberta.iterdir())]
    trunk = TrunkCard(
        name=TRUNK,
        weights=server.add(f"timm/{TRUNK}", "model.safetensors", save(vit.state_dict())),
        licence="Apache-2.0",
        parameters=371_240,
    )
    texts.sort(key=lambda file: file.file == "model.safetensors")  # the weights last
    encoder = replace(registry.ROBERTA_LARGE, files=tuple(texts))
    card = replace(card, weights=weights, trunk=trunk, text_encoder=encoder, resolution=RESOLUTION)
    monkeypatch.setitem(MODELS, name, card)
    monkeypatch.setitem(registry._TRUNKS, TRUNK, trunk)
    monkeypatch.setitem(registry._TEXT_ENCODERS, "roberta-large", encoder)
    return card
