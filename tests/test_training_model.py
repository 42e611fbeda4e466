"""The model that a recipe describes, and what its trained parts begin with."""

from pathlib import Path

import pytest
import torch

from steersearch.core.checkpoints import write_safetensors
from steersearch.core.errors import ConfigError
from steersearch.training.model import build_model
from tests.small_recipe import small_recipe


def test_training_begins_with_the_trained_parts_of_a_model_alike(tmp_path: Path) -> None:
    first = build_model(small_recipe(tmp_path).model, seed=1)
    write_safetensors(first, tmp_path / "first.safetensors")
    recipe = small_recipe(tmp_path, f"model.start={tmp_path / 'first.safetensors'}")
    given = dict(build_model(recipe.model, seed=2).trainable_parameters())
    assert all(torch.equal(given[name], value.half().float()) for name, value in first.trainable_parameters())


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (("model.num_heads=4", "model.head_dim=8"), "num_heads"),
        (("model.fusion=late",), "fusion"),
        (("model.text_layers=2",), "text_layers"),
    ],
)
def test_a_start_whose_weights_would_mean_something_else_is_refused(
    tmp_path: Path, settings: tuple[str, ...], field: str
) -> None:
    """All shapes are the same."""
    file = tmp_path / "first.safetensors"
    write_safetensors(build_model(small_recipe(tmp_path).model, seed=1), file)
    with pytest.raises(ConfigError, match=rf"first\.safetensors.*its {field} is"):
        build_model(small_recipe(tmp_path, f"model.start={file}", *settings).model, seed=1)


def test_cross_attention_beyond_the_last_block_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cross_attn_layers.*nothing would steer"):
        build_model(small_recipe(tmp_path, "model.cross_attn_layers=50,60").model, seed=1)
