"""A recipe as text: settings from the command line, JSON, lines to read, and what is refused."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersearch.core.errors import (
    ArgumentError,
    ConfigError,
    DataError,
    SteerSearchError,
    UnknownSettingError,
)
from steersearch.core.vectors import Aggregation
from steersearch.training.recipe import MINI, PAPER, PRESETS, RELEASE, Recipe
from steersearch.training.settings import (
    KEYS,
    apply_settings,
    as_text,
    check,
    describe,
    differences,
    flat,
    from_json,
    to_json,
)

anything = st.text(max_size=12)
names = st.lists(st.text(min_size=1, max_size=12), max_size=3).map(tuple)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Any recipe that passes `check`, with values of every kind drawn anew."""
    preset = PRESETS[draw(st.sampled_from(sorted(PRESETS)))]
    lr = draw(st.floats(1e-8, 10))
    layers = draw(st.sets(st.integers(0, 40), min_size=1, max_size=5))
    return replace(
        preset,
        data=replace(
            preset.data,
            train=("world", *draw(names)),
            validation=("elsewhere", *draw(names)),
            images=draw(anything),
            strict=draw(st.booleans()),
            augment=draw(st.sampled_from(["release", "light", "none"])),
        ),
        model=replace(
            preset.model,
            start=draw(anything),
            aggregation=draw(st.sampled_from(get_args(Aggregation))),
            cross_attn_layers=tuple(sorted(layers)),
            text_layers=draw(st.integers(-1, 30)),
        ),
        objective=replace(
            preset.objective, absent=draw(st.floats(0, 0.999)), sigma=draw(st.floats(1e-3, 1e6))
        ),
        optimiser=replace(
            preset.optimiser, lr=lr, final_lr=lr * draw(st.floats(0, 1)), steps=draw(st.integers(1, 2**40))
        ),
        run=replace(preset.run, seed=draw(st.integers(0, 2**32 - 1)), wandb=draw(anything)),
    )


@given(recipes())
def test_json_gives_a_recipe_back(recipe: Recipe) -> None:
    assert from_json(to_json(recipe)) == recipe


@given(recipes())
def test_a_value_as_text_is_read_as_the_same_value(recipe: Recipe) -> None:
    settings = [f"{key}={as_text(value)}" for key, value in flat(recipe).items()]
    assert apply_settings(PAPER, settings) == recipe


@given(recipes(), recipes())
def test_exactly_the_settings_that_differ_are_marked(a: Recipe, b: Recipe) -> None:
    other = {key for key, value in flat(a).items() if flat(b)[key] != value}
    assert {line.partition(":")[0] for line in differences(a, b)} == other
    for (key, value), line in zip(flat(a).items(), describe(a, b), strict=True):
        name, _, shown = line.partition("=")
        assert name.strip() == key
        mark = f"  (preset: {as_text(flat(b)[key]) or 'none'})" if key in other else ""
        assert shown == (f" {as_text(value)}".rstrip() + mark)


@given(st.sampled_from(sorted(KEYS)), st.text(max_size=8))
def test_any_text_is_refused_or_changes_its_own_key_alone(key: str, text: str) -> None:
    try:
        changed = apply_settings(MINI, [f"{key}={text}"])
    except SteerSearchError:
        return
    assert {line.partition(":")[0] for line in differences(MINI, changed)} <= {key}


@given(anything)
def test_no_text_is_a_recipe_by_accident(text: str) -> None:
    try:
        found = from_json(text)
    except SteerSearchError:
        return
    assert json.loads(text) == {}
    assert found == Recipe()


def test_the_presets_are_sound_and_every_field_is_a_setting() -> None:
    for preset in PRESETS.values():
        assert check(preset) is preset
    assert list(KEYS) == [
        f"{s.name}.{f.name}" for s in fields(Recipe) for f in fields(getattr(PAPER, s.name))
    ]


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("model.fusion=late", "model.fusion", "late"),
        ("fusion=late", "model.fusion", "late"),
        ("optimiser.lr=1e-3", "optimiser.lr", 0.001),
        ("optimiser.lr=1", "optimiser.lr", 1.0),
        ("optimiser.steps=5e5", "optimiser.steps", 500_000),
        ("optimiser.steps=10_000", "optimiser.steps", 10_000),
        ("data.train=a, b", "data.train", ("a", "b")),
        ('data.train=["a,b", "c d"]', "data.train", ("a,b", "c d")),
        ("data.train=./one=two", "data.train", ("./one=two",)),
        ("model.cross_attn_layers=[1,3]", "model.cross_attn_layers", (1, 3)),
        ("cross_attn_layers=1", "model.cross_attn_layers", (1,)),
        ("run.compile=true", "run.compile", True),
        ("run.compile= Off", "run.compile", False),
        ("model.connector_hidden=256", "model.connector_hidden", 256),
        ("data.split=", "data.split", ""),
        ("data.validation=", "data.validation", ()),
        ("run.wandb=a b ", "run.wandb", "a b "),
        ("model.text_layers=-1", "model.text_layers", -1),
    ],
)
def test_a_setting_is_read_as_its_kind(setting: str, key: str, value: Any) -> None:
    found = flat(apply_settings(RELEASE, [setting]))
    assert found[key] == value
    assert type(found[key]) is type(value)
    assert {k: v for k, v in found.items() if k != key} == {
        k: v for k, v in flat(RELEASE).items() if k != key
    }


def test_the_later_setting_counts() -> None:
    changed = apply_settings(MINI, ["optimiser.steps=5", "optimiser.steps=6"])
    assert changed == replace(MINI, optimiser=replace(MINI.optimiser, steps=6))


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("optimizer.lr", "optimiser.lr"),
        ("optimizer.steps", "optimiser.steps"),
        ("model.fusoin", "model.fusion"),
        ("fusoin", "model.fusion"),
        ("model.lr", "optimiser.lr"),
        ("training.batch", "optimiser.batch"),
        ("data.worker", "data.workers"),
        ("run.wandb_project", "run.wandb"),
        ("zzz", None),
        ("", None),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(key: str, nearest: str | None) -> None:
    with pytest.raises(UnknownSettingError) as caught:
        apply_settings(PAPER, [f"{key}=1"])
    assert (caught.value.key, caught.value.nearest) == (key, nearest)
    section, _, name = key.rpartition(".")
    if section:
        with pytest.raises(UnknownSettingError) as caught:
            from_json(json.dumps({section: {name: 1}}))
        assert caught.value.nearest == nearest or caught.value.key == section


def test_a_section_is_no_setting_but_its_own_are_listed() -> None:
    with pytest.raises(UnknownSettingError) as caught:
        apply_settings(PAPER, ["run=fast"])
    assert "run.compile" in caught.value.known


def test_a_key_that_several_sections_have_wants_its_section() -> None:
    with pytest.raises(ArgumentError) as caught:
        apply_settings(PAPER, ["batch=3"])
    assert "distillation.batch, alignment.batch, optimiser.batch" in caught.value.reason


@pytest.mark.parametrize(
    ("setting", "field", "reason"),
    [
        ("model.fusion=latte", "model.fusion", "one of early, late"),
        ("model.aggregation=max", "model.aggregation", "one of cls, mean, focus"),
        ("optimiser.lr=fast", "optimiser.lr", "a finite number"),
        ("optimiser.lr=inf", "optimiser.lr", "a finite number"),
        ("optimiser.lr=0", "optimiser.lr", "above 0"),
        ("optimiser.steps=0", "optimiser.steps", "at least 1"),
        ("optimiser.steps=1.5", "optimiser.steps", "a whole number"),
        ("optimiser.steps=1e999", "optimiser.steps", "a whole number"),
        ("optimiser.steps=true", "optimiser.steps", "a whole number"),
        ("optimiser.batch=-1", "optimiser.batch", "at least 1"),
        ("optimiser.clip=-1", "optimiser.clip", "at least 0"),
        ("run.compile=maybe", "run.compile", "true or false"),
        ("run.compile=", "run.compile", "true or false"),
        ("run.seed=4294967296", "run.seed", "below 2"),
        ("data.workers=-1", "data.workers", "at least 0"),
        ("data.train=", "data.train", "name data sets"),
        ("data.train=a,,b", "data.train", "empty"),
        ('data.train=["a", 1]', "data.train", "a list"),
        ('data.train=["a"', "data.train", "a list"),
        ("data.format=lviss", "data.format", "mapillary,"),
        ("data.images=photos", "data.images", "data.train"),
        ("model.cross_attn_layers=", "model.cross_attn_layers", "one block"),
        ("model.cross_attn_layers=3,1", "model.cross_attn_layers", "ascending"),
        ("model.cross_attn_layers=1,1", "model.cross_attn_layers", "without duplicates"),
        ("model.cross_attn_layers=-1", "model.cross_attn_layers", "from 0 up"),
        ("model.cross_attn_layers=1,x", "model.cross_attn_layers", "a list"),
        ("model.cross_attn_layers=[true]", "model.cross_attn_layers", "a list"),
        ("model.text_layers=-2", "model.text_layers", "at least -1"),
        ("model.trunk=", "model.trunk", "a name"),
        ("objective.absent=1", "objective.absent", "below 1"),
        ("objective.absent=-0.1", "objective.absent", "at least 0"),
        ("objective.temperature=0", "objective.temperature", "above 0"),
        ("optimiser.lr=1e-9", "optimiser.final_lr", "set both"),
        ("optimiser.warmup=40000", "optimiser.warmup", "set both"),
        ("objective.alignment=1", "objective.alignment", "set it to 0 for other backbones"),
        ("world.size=100", "world.size", "multiple of world.patch"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_what_can(setting: str, field: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_settings(PAPER, [setting])
    assert caught.value.field == field
    assert reason in caught.value.reason


def test_absent_expressions_are_of_the_world_alone() -> None:
    with pytest.raises(ConfigError) as caught:
        apply_settings(MINI, ["data.train=photos"])
    assert caught.value.field == "objective.absent"
    assert apply_settings(MINI, ["data.train=photos", "objective.absent=0"]).data.train == ("photos",)
    assert apply_settings(MINI, ["data.train=photos,world:seed=3"]).objective.absent == MINI.objective.absent


@pytest.mark.parametrize("setting", ["", "optimiser.lr", "fast"])
def test_a_setting_needs_a_value(setting: str) -> None:
    with pytest.raises(ArgumentError, match=r"section\.key=value"):
        apply_settings(PAPER, [setting])


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"optimiser": {"steps": 1.5}}', ConfigError),
        ('{"optimiser": {"steps": true}}', ConfigError),
        ('{"optimiser": {"lr": "1e-3"}}', ConfigError),
        ('{"optimiser": {"lr": NaN}}', ConfigError),
        ('{"optimiser": {"lr": 1' + 400 * "0" + "}}", ConfigError),
        ('{"run": {"compile": 1}}', ConfigError),
        ('{"model": {"cross_attn_layers": 3}}', ConfigError),
        ('{"model": {"fusion": ["early"]}}', ConfigError),
        ('{"model": 3}', DataError),
        ("[]", DataError),
        ("{", DataError),
    ],
)
def test_json_is_checked_as_strictly(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        from_json(text)


def test_a_recipe_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    with pytest.raises(DataError, match=r"recipe\.json: No such file"):
        from_json(file)
    file.write_text(to_json(MINI))
    assert from_json(file) == MINI
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        from_json(file)
    file.write_text('{"optimiser": {"steps": 7}}')
    assert from_json(file) == replace(PAPER, optimiser=replace(PAPER.optimiser, steps=7))
