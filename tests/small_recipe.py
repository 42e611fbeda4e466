"""A recipe whose whole run takes seconds: the drawn world in thumbnails, over a small random backbone."""

from __future__ import annotations

from pathlib import Path

from steersearch.core.checkpoints import write_safetensors
from steersearch.training.recipe import (
    DataSettings,
    ModelSettings,
    ObjectiveSettings,
    OptimiserSettings,
    Recipe,
    RunSettings,
)
from steersearch.training.settings import apply_settings, to_json
from steersearch.training.world.world import WorldConfig
from tests.small_models import TINY, small_model

RECIPE = Recipe(
    data=DataSettings(augment="light", cache_pictures=True, validation=("world",), validation_rows=12),
    world=WorldConfig(photos=40, size=TINY.image_size, drawn_per_kind=1, plates=1, stamps=False, emoji=False),
    model=ModelSettings(
        trunk="trunk.safetensors",
        resolution=TINY.image_size,
        aggregation="focus",
        cross_attn_layers=(1, 3),
        num_heads=2,
        head_dim=16,
        text_encoder="minilm",
        connector_hidden=32,
    ),
    objective=ObjectiveSettings(alone_cls=1.0, alone_focus=0.5, absent=0.1, views=1),
    optimiser=OptimiserSettings(
        steps=4, batch=4, lr=1.2e-3, final_lr=1.2e-5, warmup=1, decay_steps=4, gate_lr=5.0, matrix_lr=0.01
    ),
    run=RunSettings(seed=1, validate_every=2, save_every=2, log_every=1),
)


def small_recipe(folder: Path, *settings: str) -> Recipe:
    """`RECIPE` with its backbone in `folder`, changed by settings "section.key=value"."""
    trunk = folder / RECIPE.model.trunk
    if not trunk.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_safetensors(small_model("tiny"), trunk)
    return apply_settings(RECIPE, [f"model.trunk={trunk}", *settings])


def small_recipe_file(folder: Path, *settings: str) -> Path:
    """The same as a file for --preset."""
    file = folder / "small.json"
    file.write_text(to_json(small_recipe(folder, *settings)))
    return file
