"""Checkpoints: both layouts, safe against code in a pickle, strict on names; how a model's name is found."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import pickle
import re
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file as tensors_of
from torch import Tensor

from steersearch.core import checkpoints, hub
from steersearch.core.backbone import timm_preprocess
from steersearch.core.checkpoints import (
    choose_dtype,
    from_released_state,
    load_file,
    load_model,
    read_released_pth,
    to_released_state,
    write_released_pth,
    write_safetensors,
)
from steersearch.core.errors import CheckpointError, CheckpointKeysError, ConfigError, UnknownModelError
from steersearch.core.files import file_sha256
from steersearch.core.predictor import Predictor
from steersearch.core.registry import MODELS, PackageFile
from steersearch.core.steervit import SteerViT
from steersearch.training.world.composition import Spot, compose
from steersearch.training.world.painting import Look
from steersearch.training.world.scenes import draw_scene
from steersearch.training.world.things import draw_thing
from tests.hub_server import hub_files
from tests.small_models import TEXT_DIM, pixels_for, prompts_of, small_model, small_trunk

CONFIG: dict[str, Any] = {
    "vision_encoder": {
        "model_name": "vit_base_patch14_dinov2",
        "resolution": 56,
        "feature_aggregation": "cls",
        "cross_attn_layers": list(range(1, 26, 2)),
        "use_ffn": False,
        "cross_attn_ffn_mult": 2,
    },
    "text_encoder": "roberta-large",
    "training": {"lr": 1e-4, "name": None},
}


@pytest.fixture
def released() -> SteerViT:
    """A model whose backbone's weights, as the authors', live elsewhere."""
    return small_released()


def small_released(**changes: Any) -> SteerViT:
    settings = {"aggregation": "cls", "text_encoder": "roberta-large", "connector_hidden": TEXT_DIM} | changes
    return small_model("dinov2", **settings)


def load_over_small_trunk(path: Path) -> SteerViT:
    return load_file(path, trunk=small_trunk("dinov2"), device="cpu")


def assert_same_model(one: SteerViT, other: SteerViT) -> None:
    assert one.config.to_dict() | {"preprocess": None} == other.config.to_dict() | {"preprocess": None}
    pixels, prompts = pixels_for(one), prompts_of(5)
    with torch.inference_mode():
        first, second = one(pixels, prompts), other(pixels, prompts)
    assert torch.equal(first.patches, second.patches)
    assert torch.equal(first.logits, second.logits)


# --------------------------------------------------------------------------------------- the released layout


def test_released_names_and_back(released: SteerViT) -> None:
    state = to_released_state(released)
    expected = {
        "connector.mlp.0.weight",
        "connector.mlp.0.bias",
        "connector.mlp.2.weight",
        "connector.mlp.2.bias",
    }
    expected |= {"lin_seg_head.weight", "lin_seg_head.bias"}
    for i in (1, 3):
        prefix = f"vision_model.trunk.blocks.{i}.gated_cross_attn."
        expected |= {prefix + "attn_gate"}
        expected |= {f"{prefix}cross_attn.{n}.weight" for n in ("norm", "to_q", "to_kv", "to_out")}
        expected |= {prefix + "cross_attn.norm.bias"}
    assert set(state) == expected
    back = from_released_state(state)
    own = {name: value for name, value in released.state_dict().items() if not name.startswith("trunk.")}
    assert set(back) == set(own)
    assert all(torch.equal(back[name], own[name]) for name in own)


@pytest.mark.parametrize("with_omegaconf", [False, True])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_released_file_loads(
    released: SteerViT, tmp_path: Path, with_omegaconf: bool, protocol: int
) -> None:
    config: Any = CONFIG
    if with_omegaconf:
        from omegaconf import OmegaConf

        config = OmegaConf.create(CONFIG)
        OmegaConf.set_readonly(config, True)
    content = {
        "state_dict": OrderedDict(to_released_state(released)),
        "optim_state_dict": {
            "state": {0: {"step": torch.tensor(3.0)}},
            "param_groups": [{"betas": (0.9, 0.95)}],
        },
        "training_step": 450_001,
        "scheduler_state_dict": None,
        "save_metric": 0.96,
        "config": config,
    }
    torch.save(content, tmp_path / "released.pth", pickle_protocol=protocol)
    state, plain = read_released_pth(tmp_path / "released.pth")
    assert plain == CONFIG
    assert all(torch.equal(state[name], value) for name, value in to_released_state(released).items())
    loaded = load_over_small_trunk(tmp_path / "released.pth")
    assert_same_model(loaded, released)
    assert loaded.config.preprocess.size == 56
    assert loaded.file_hash == file_sha256(tmp_path / "released.pth")


def test_omegaconf_is_not_imported_to_read_its_config(released: SteerViT, tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    content = {"state_dict": to_released_state(released), "config": OmegaConf.create(CONFIG)}
    torch.save(content, tmp_path / "released.pth")
    script = (
        "import sys; from steersearch.core.checkpoints import read_released_pth;"
        "print(read_released_pth(sys.argv[1])[1]['text_encoder'], 'omegaconf' in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "released.pth")]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed.split() == ["roberta-large", "False"]


def test_what_we_write_loads_here_and_with_torch_alone(released: SteerViT, tmp_path: Path) -> None:
    write_released_pth(released, tmp_path / "ours.pth")
    assert_same_model(load_over_small_trunk(tmp_path / "ours.pth"), released)
    content = torch.load(tmp_path / "ours.pth", weights_only=True)
    assert content["config"]["vision_encoder"]["model_name"] == "vit_base_patch14_dinov2"
    assert set(content["state_dict"]) == set(to_released_state(released))


def test_numbers_of_other_kinds_survive(tmp_path: Path) -> None:
    base = torch.arange(24, dtype=torch.float16).reshape(4, 6)
    tensors: dict[str, Any] = {
        "half": base,
        "view": base[1:3, ::2],
        "transposed": base.T,
        "bfloat": base.bfloat16(),
        "long": torch.tensor(7),
        "bool": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    torch.save({"state_dict": tensors, "config": {}}, tmp_path / "file.pth")
    state, _ = read_released_pth(tmp_path / "file.pth")
    for name, tensor in tensors.items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name], tensor), name


def test_missing_and_misshapen_weights_are_named(released: SteerViT, tmp_path: Path) -> None:
    state = dict(to_released_state(released))
    del state["vision_model.trunk.blocks.3.gated_cross_attn.attn_gate"]
    state["lin_seg_head.weight"] = torch.zeros(1, 65)
    torch.save({"state_dict": state, "config": CONFIG}, tmp_path / "part.pth")
    with pytest.raises(CheckpointKeysError) as caught:
        load_over_small_trunk(tmp_path / "part.pth")
    assert caught.value.missing == ("vision_model.trunk.blocks.3.gated_cross_attn.attn_gate",)
    assert caught.value.misshapen == ("lin_seg_head.weight",)
    assert "blocks.3.gated_cross_attn.attn_gate" in str(caught.value)


def test_unexpected_weights_of_a_released_file_are_named_and_ignored(
    released: SteerViT, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = to_released_state(released) | {"connector.mlp.4.weight": torch.zeros(2)}
    torch.save({"state_dict": state, "config": CONFIG}, tmp_path / "more.pth")
    with caplog.at_level(logging.WARNING):
        assert_same_model(load_over_small_trunk(tmp_path / "more.pth"), released)
    assert "connector.mlp.4.weight" in caplog.text
    assert "more.pth" in caplog.text


def test_a_connector_of_one_layer_is_seen_in_the_weights(tmp_path: Path) -> None:
    model = small_model("dinov2", aggregation="cls", text_encoder="roberta-large", connector_hidden=None)
    torch.save({"state_dict": to_released_state(model), "config": CONFIG}, tmp_path / "linear.pth")
    assert_same_model(load_over_small_trunk(tmp_path / "linear.pth"), model)


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ({"fusion": "late"}, "no late fusion"),
        ({"connector_hidden": None}, "no linear connector"),
        ({"connector_hidden": 24}, "no connector 24 wide, only as wide as its text tokens, 20"),
        ({"tanh_gate": False}, "no missing gates"),
        ({"num_heads": 8}, "no cross-attention of 8 heads of 72, only 16 of 72"),
        ({"head_dim": 32}, "no cross-attention of 16 heads of 32"),
        ({"aggregation": "focus"}, 'no aggregation "focus", only cls and mean'),
        ({"text_encoder": "minilm"}, "no text encoder minilm, only RoBERTa"),
        ({"text_layers": 3}, "no text encoder cut to 3 layers"),
        ({"fusion": "late", "text_layers": 0}, "no late fusion, no text encoder cut to 0 layers"),
    ],
)
def test_what_the_authors_code_would_refuse_or_lose_goes_to_safetensors_only(
    variant: dict[str, Any], words: str, tmp_path: Path
) -> None:
    model = small_released(**variant)
    with pytest.raises(CheckpointError, match=f"the authors' code knows {words}.*; save as .safetensors"):
        write_released_pth(model, tmp_path / "variant.pth")
    assert not (tmp_path / "variant.pth").exists()
    write_safetensors(model, tmp_path / "variant.safetensors")
    assert_same_model(load_over_small_trunk(tmp_path / "variant.safetensors"), model)


def test_a_backbone_without_a_cls_token_has_no_cls_in_the_authors_code(tmp_path: Path) -> None:
    settings = {"text_encoder": "roberta-large", "connector_hidden": TEXT_DIM}
    with pytest.raises(CheckpointError, match="no aggregation cls of a backbone without a CLS token"):
        write_released_pth(small_model("siglip", aggregation="cls", **settings), tmp_path / "siglip.pth")
    write_released_pth(small_model("siglip", aggregation="mean", **settings), tmp_path / "siglip.pth")


def test_a_view_that_the_file_cannot_say_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = timm_preprocess("vit_base_patch14_dinov2", 56)
    with caplog.at_level(logging.WARNING):
        write_released_pth(small_released(preprocess=own), tmp_path / "own.pth")
        assert caplog.text == ""
        write_released_pth(small_released(preprocess=own.with_view("squash")), tmp_path / "other.pth")
    assert (
        "other.pth: the authors' code prepares pictures as the backbone's own transform does (crop"
        in caplog.text
    )
    assert "not as this model (squash" in caplog.text


@pytest.mark.parametrize(
    "value",
    [{"resolution": "${data.size}"}, {"cross_attn_layers": ["${first}", 3]}, {"model_name": "${name}"}],
)
def test_an_interpolation_is_named(released: SteerViT, tmp_path: Path, value: dict[str, Any]) -> None:
    """OmegaConf looks such a value up when it is asked for, elsewhere in the config or in the environment."""
    from omegaconf import OmegaConf

    config = OmegaConf.create(CONFIG | {"vision_encoder": CONFIG["vision_encoder"] | value})
    torch.save({"state_dict": to_released_state(released), "config": config}, tmp_path / "file.pth")
    with pytest.raises(
        CheckpointError, match=rf"config's vision_encoder\.{next(iter(value))} is .*OmegaConf\.resolve"
    ):
        load_over_small_trunk(tmp_path / "file.pth")
    config = OmegaConf.create(CONFIG | {"text_encoder": "${oc.env:TEXT}"})
    torch.save({"state_dict": to_released_state(released), "config": config}, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match="config's text_encoder is "):
        load_over_small_trunk(tmp_path / "file.pth")


def test_weights_that_share_memory_in_the_file_do_not_in_the_model(
    released: SteerViT, tmp_path: Path
) -> None:
    state = dict(to_released_state(released))
    gates = [name for name in state if name.endswith("attn_gate")]
    together = torch.tensor([0.25, 0.5])
    state |= {name: together[i : i + 1] for i, name in enumerate(gates)}
    state["connector.mlp.2.weight"] = state["connector.mlp.2.weight"].T.contiguous().T
    torch.save({"state_dict": state, "config": CONFIG}, tmp_path / "views.pth")
    loaded = to_released_state(load_over_small_trunk(tmp_path / "views.pth"))
    assert [loaded[name].item() for name in gates] == [0.25, 0.5]
    assert len({loaded[name].untyped_storage().data_ptr() for name in gates}) == 2
    assert loaded["connector.mlp.2.weight"].is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_loaded_in_the_dtype_requested(
    dtype: torch.dtype, released: SteerViT, tmp_path: Path
) -> None:
    write_released_pth(released, tmp_path / "model.pth")
    loaded = load_file(tmp_path / "model.pth", trunk=small_trunk("dinov2"), device="cpu", dtype=dtype)
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    with pytest.raises(ConfigError, match="must be a floating-point type"):
        load_file(tmp_path / "model.pth", trunk=small_trunk("dinov2"), device="cpu", dtype=torch.int8)


@pytest.mark.parametrize(("has_bf16", "chosen"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_bfloat16_on_gpus_that_have_it(
    has_bf16: bool, chosen: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    assert choose_dtype(torch.device("cuda")) == chosen
    assert choose_dtype(torch.device("cpu")) == torch.float32


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list"),
        ({"model": {}}, 'needs "state_dict" and "config", has model'),
        ({"state_dict": {"a": 3}, "config": {}}, "not tensors in its state_dict: a"),
        ({"state_dict": {}, "config": {"vision_encoder": {}}}, r"lacks vision_encoder\.model_name"),
        ({"state_dict": {}, "config": CONFIG}, r"missing: connector\.mlp\.0\.weight"),
        (
            {
                "state_dict": {"connector.mlp.0.weight": torch.zeros(2, 2)},
                "config": {"vision_encoder": {"model_name": "hf-hub:someone/something"}},
            },
            "timm knows no model",
        ),
    ],
)
def test_files_that_are_no_released_checkpoint_say_why(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_file(tmp_path / "file.pth")
    assert "file.pth" in str(caught.value)


# ------------------------------------------------------------------------------------ code in the pickle

RAN: list[str] = []  # what a hostile pickle managed to do; must stay empty


def confess(what: str) -> dict[str, Any]:
    RAN.append(what)
    return {}


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


HOSTILE_SHAPES = (
    "reduce to os.system",
    "builtins",
    "torch classes that load files",
    "nested in the config",
    "in the values of the state_dict",
)


def hostile_file(shape: str, model: SteerViT, witness: Path) -> dict[str, Any]:
    """A released checkpoint, whole but for one thing that creates `witness` when it is unpickled as usual."""
    state, config = dict(to_released_state(model)), copy.deepcopy(CONFIG)
    content: dict[str, Any] = {"state_dict": state, "config": config, "training_step": 1}
    harm = Calls(os.system, f"touch {witness}")
    if shape == "reduce to os.system":
        content["training_step"] = harm
    elif shape == "builtins":
        content["save_metric"] = Calls(exec, f"open({str(witness)!r}, 'w').close()")
    elif shape == "torch classes that load files":
        inner = io.BytesIO()
        torch.save(harm, inner)
        content["optim_state_dict"] = Calls(torch.storage._load_from_bytes, inner.getvalue())
    elif shape == "nested in the config":
        config["vision_encoder"]["extra"] = [{"deep": ("deeper", OrderedDict(deepest=harm))}]
    elif shape == "in the values of the state_dict":
        state["lin_seg_head.bias"] = harm
    return content


@pytest.mark.parametrize("shape", HOSTILE_SHAPES)
def test_a_hostile_file_in_each_of_five_shapes_never_runs_anything(
    shape: str, released: SteerViT, tmp_path: Path
) -> None:
    witness, path = tmp_path / "witness", tmp_path / "hostile.pth"
    torch.save(hostile_file(shape, released, witness), path)
    for read in (read_released_pth, load_file, lambda p: load_model(p, device="cpu")):
        with pytest.raises(CheckpointError, match=r"hostile\.pth: refused, its pickle calls"):
            read(path)
    assert not witness.exists()
    torch.load(path, weights_only=False)  # the tests could not fail if this did no harm
    assert witness.exists()


def hostile_contents(witness: Path) -> dict[str, tuple[Any, str]]:
    """Files that would do harm, each with the name that must be refused."""
    touch = f"touch {witness}"
    state = {"a": torch.zeros(2)}
    return {
        "os.system at the top": (Calls(os.system, touch), "posix.system"),
        "eval in the config": ({"state_dict": state, "config": {"x": [Calls(eval, "1 + 1")]}}, "eval"),
        "exec in the state": ({"state_dict": {"a": Calls(exec, "pass")}, "config": {}}, "exec"),
        "own function": ({"config": {"a": Calls(confess, "called")}}, "tests.test_checkpoints.confess"),
        "getattr": ({"config": Calls(getattr, "x", "upper")}, "getattr"),
        "import": ({"config": Calls(__import__, "antigravity")}, "__import__"),
        "subprocess": (Calls(subprocess.check_output, ["touch", str(witness)]), "check_output"),
        "open": ({"state_dict": {"a": Calls(open, str(witness), "w")}}, "open"),
        "torch.load": ({"state_dict": {"a": Calls(torch.load, "other.pth")}}, "torch.serialization.load"),
        "torch.hub": ({"config": Calls(torch.hub.load, "someone/code", "entry")}, "torch.hub.load"),
        "a torch module": ({"state_dict": {"a": torch.nn.Linear(2, 2)}}, "torch.nn.modules.linear.Linear"),
        "pickle in a pickle": ({"config": Calls(pickle.loads, b"N.")}, "pickle.loads"),
        "a torch storage loader": (
            {"a": Calls(torch.storage._load_from_bytes, b"")},
            "torch.storage._load_from_bytes",
        ),
    }


@pytest.mark.parametrize("case", hostile_contents(Path()))
@pytest.mark.parametrize("protocol", [2, 4])
def test_code_in_a_pickle_is_refused_by_name_and_not_run(case: str, protocol: int, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    content, wanted = hostile_contents(witness)[case]
    torch.save(content, tmp_path / "hostile.pth", pickle_protocol=protocol)
    RAN.clear()
    with pytest.raises(CheckpointError) as caught:
        load_file(tmp_path / "hostile.pth")
    assert "refused, its pickle calls" in str(caught.value)
    assert f'{wanted}", which weights do not need' in str(caught.value)
    assert "hostile.pth" in str(caught.value)
    assert not witness.exists()
    assert RAN == []


@pytest.mark.parametrize(
    ("opcodes", "wanted"),
    [
        (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"(S'true'\nios\nsystem\n.", "os.system"),
        (b"(cos\nsystem\nS'true'\no.", "os.system"),
        (b"\x80\x04\x8c\x09omegaconf\x8c\x09os.system\x93.", "omegaconf.os.system"),
        (b"comegaconf._utils\nload_yaml\n.", "omegaconf._utils.load_yaml"),
        (b"ctorch\nload\n.", "torch.load"),
        (b"ctorch._utils\n_rebuild_wrapper_subclass\n.", "torch._utils._rebuild_wrapper_subclass"),
        (b"ccopyreg\n_reconstructor\n.", "copyreg._reconstructor"),
        (b"cnumpy\nload\n.", "numpy.load"),
    ],
)
def test_hand_made_opcodes_are_refused_by_name(opcodes: bytes, wanted: str, tmp_path: Path) -> None:
    write_zip(tmp_path / "hostile.pth", opcodes)
    with pytest.raises(CheckpointError) as caught:
        read_released_pth(tmp_path / "hostile.pth")
    assert f'refused, its pickle calls "{wanted}"' in str(caught.value)


def write_zip(
    path: Path, pickled: bytes, records: dict[str, bytes] | None = None, *, deflate: bool = False
) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED) as archive:
        archive.writestr("file/data.pkl", pickled)
        for name, data in (records or {}).items():
            archive.writestr(f"file/{name}", data)


def test_damaged_files_say_so(released: SteerViT, tmp_path: Path) -> None:
    write_released_pth(released, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    storage = io.BytesIO()
    torch.save({"state_dict": {"a": torch.zeros(4)}, "config": {}}, storage)
    with zipfile.ZipFile(storage) as archive:
        pickled = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pth").write_text("no checkpoint")
    write_zip(tmp_path / "short.pth", pickled, {"data/0": b"\0" * 8})
    write_zip(tmp_path / "lost.pth", pickled)
    write_zip(tmp_path / "bomb.pth", pickled, {"data/0": b"\0" * 16}, deflate=True)
    write_zip(tmp_path / "stop.pth", b"\x80\x02}")
    write_zip(tmp_path / "big.pth", pickled, {"byteorder": b"big", "data/0": b"\0" * 16})
    reasons = {
        "cut.pth": "not a zip file",
        "text.pth": "not a zip file",
        "short.pth": "has 2 of 4 numbers",
        "lost.pth": "damaged",
        "bomb.pth": "is compressed",
        "stop.pth": "damaged",
        "big.pth": "big-endian",
        "gone.pth": "no such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(CheckpointError, match=reason) as caught:
            load_file(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_a_view_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    class Beyond:
        def __reduce__(self) -> Any:
            storage = torch.zeros(2)._typed_storage()  # type: ignore[no-untyped-call]
            return torch._utils._rebuild_tensor_v2, (storage, 0, (100,), (1,), False, OrderedDict())

    torch.save({"state_dict": {"a": Beyond()}, "config": {}}, tmp_path / "beyond.pth")
    with pytest.raises(CheckpointError, match="damaged"):
        read_released_pth(tmp_path / "beyond.pth")


# --------------------------------------------------------------------------------------------- our own files


def as_half(model: SteerViT) -> SteerViT:
    return model.half().float()


def test_a_tiny_model_goes_through_a_file_with_its_backbone(tmp_path: Path) -> None:
    model = small_model("tiny", use_ffn=True)
    write_safetensors(model, tmp_path / "mini.safetensors")
    loaded = load_model(tmp_path / "mini.safetensors", device="cpu")
    assert_same_model(loaded, as_half(model))
    assert loaded.config == model.config
    assert next(loaded.parameters()).dtype == torch.float32
    assert loaded.model_id == str(tmp_path / "mini.safetensors")
    assert loaded.file_hash == file_sha256(tmp_path / "mini.safetensors")
    on_disk = (tmp_path / "mini.safetensors").stat().st_size
    numbers = sum(value.numel() for value in model.state_dict().values())
    assert 2 * numbers < on_disk < 2 * numbers + 20_000  # half precision and a header
    assert os.listdir(tmp_path) == ["mini.safetensors"]
    trainable = {name for name, _ in loaded.trainable_parameters()}
    assert trainable == {name for name, _ in model.trainable_parameters()}


def test_a_model_over_timm_is_saved_without_the_backbone(released: SteerViT, tmp_path: Path) -> None:
    write_safetensors(released, tmp_path / "model.safetensors")
    assert_same_model(load_over_small_trunk(tmp_path / "model.safetensors"), released)
    state = tensors_of(tmp_path / "model.safetensors")
    assert set(state) == set(to_released_state(released))


def test_our_files_are_strict_both_ways(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = small_model()
    write_safetensors(model, tmp_path / "model.safetensors")
    state = tensors_of(tmp_path / "model.safetensors")
    described = metadata_of(tmp_path / "model.safetensors")
    del state["trunk.norm.bias"]
    state["trunk.extra"] = torch.zeros(1)
    save_file(state, tmp_path / "changed.safetensors", metadata=described)
    with pytest.raises(CheckpointKeysError) as caught:
        load_file(tmp_path / "changed.safetensors")
    assert (caught.value.missing, caught.value.unexpected) == (("trunk.norm.bias",), ("trunk.extra",))


def metadata_of(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as opened:
        metadata: dict[str, str] = opened.metadata()
    return metadata


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (None, "not a steersearch model"),
        ("{not json", "damaged"),
        ('{"config": {}}', "damaged"),
        ('{"format": 99, "config": {}}', "newer version"),
        ('{"format": 1, "config": {"trunk": "tiny"}}', "damaged"),
    ],
)
def test_foreign_and_newer_safetensors_are_refused(
    described: str | None, message: str, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    metadata = None if described is None else {"steersearch": described}
    save_file({"a": torch.zeros(1)}, tmp_path / "file.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_file(tmp_path / "file.safetensors")
    assert str(tmp_path / "file.safetensors") in str(caught.value)


def test_weights_that_half_precision_cannot_hold_are_not_written(tmp_path: Path) -> None:
    model = small_model()
    torch.nn.init.constant_(model.head.bias, 1e6)
    with pytest.raises(CheckpointError, match=r"lin_seg_head\.bias"):
        write_safetensors(model, tmp_path / "model.safetensors")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be written"):
        write_safetensors(small_model(), tmp_path / "gone" / "model.safetensors")
    with pytest.raises(CheckpointError, match="no backbone but timm's"):
        write_released_pth(small_model(), tmp_path / "model.pth")


def test_loading_a_tiny_model_imports_nothing_that_takes_seconds(tmp_path: Path) -> None:
    write_safetensors(small_model(), tmp_path / "model.safetensors")
    script = (
        "import sys; from steersearch import SteerViT;"
        "from PIL import Image; model = SteerViT.from_pretrained(sys.argv[1]);"
        "model.embed([Image.new('RGB', (80, 60))]);"
        "slow = ('timm', 'torchvision', 'transformers', 'huggingface_hub', 'sympy');"
        "print([m for m in slow if m in sys.modules])"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "model.safetensors")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == "[]"


# ----------------------------------------------------------------------------------------------- model names


def test_every_named_model_is_described() -> None:
    names = list(MODELS)
    assert names[:4] == ["mini", "dinov2-small", "dinov2-base", "dinov2-large"]
    assert {name for name in names if MODELS[name].research_only} == {
        n for n in names if n.endswith("-research")
    }
    published = [card.weights.sha256 for card in MODELS.values() if card.weights.sha256]
    assert len(set(published)) == len(published) == 5  # the bundled one and four of the authors'


def test_pinned_files_are_fully_described() -> None:
    """A slip of the pen in a hash or a commit would make a file unusable."""
    files = {file for card in MODELS.values() for file in hub_files(card)}
    for file in files:
        assert re.fullmatch("main|[0-9a-f]{40}", file.revision), file
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256), file
        assert (file.size is None) == (file.sha256 is None), file
        assert file.likely_size, file
    unknown = {file.file for file in files if file.sha256 is None}
    assert unknown == {
        "model.safetensors",  # MAE's backbone
        *(f"steervit_{family}_base.pth" for family in ("mae", "siglip", "siglip2")),
    }
    assert len({file.sha256 for file in files if file.sha256}) == len(files) - len(unknown)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownModelError, match=r"dinov2-huge.*known: auto, mini, dinov2-small") as caught:
        load_model("dinov2-huge")
    assert caught.value.known == ("auto", *MODELS)
    with pytest.raises(UnknownModelError, match=r'"dino-v2-base", did you mean "dinov2-base"\?') as caught:
        load_model("dino-v2-base")
    assert caught.value.nearest == "dinov2-base"


@pytest.mark.parametrize(
    ("cached", "answers", "chosen"),
    [(True, False, "dinov2-small"), (False, True, "dinov2-small"), (False, False, "mini")],
)
def test_auto_takes_the_released_model_where_it_can(
    cached: bool,
    answers: bool,
    chosen: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(hub, "has_model", lambda card: cached)
    monkeypatch.setattr(hub, "why_unreachable", lambda: None if answers else "the hub does not answer")
    with caplog.at_level(logging.WARNING):
        assert checkpoints.choose_auto() == chosen
    assert ('using the bundled model "mini"' in caplog.text) == (chosen == "mini")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert checkpoints.choose_auto() == chosen.replace("small", "base")


def test_a_named_model_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_safetensors(small_model(), tmp_path / "mini.safetensors")
    monkeypatch.setattr(PackageFile, "path", property(lambda file: tmp_path / file.file))
    assert load_model("mini", device="cpu").model_id == "mini"


def test_tensors_keep_their_place_in_the_model(released: SteerViT) -> None:
    state: dict[str, Tensor] = to_released_state(released)
    state["lin_seg_head.bias"].fill_(0.5)
    assert released.head.bias.item() == 0.5


def test_the_bundled_model_is_the_one_in_the_registry_and_steers() -> None:
    """The shipped weights: small enough, the registered file, and they find a thing where it is."""
    weights = MODELS["mini"].weights
    assert isinstance(weights, PackageFile)
    path = Path(str(resources.files("steersearch.core.mini") / weights.file))
    assert path.stat().st_size == weights.size < 25e6
    assert file_sha256(path) == weights.sha256
    model = Predictor.from_pretrained("mini", device="cpu")
    rng = np.random.default_rng(3)
    looks = (Look(kind="bookshelf", colour="brown"), Look(kind="rubber duck", colour="yellow"))
    shelf, duck = (draw_thing(look, rng, 128) for look in looks)
    plate = draw_scene("kitchen", rng, (160, 120))
    photo = compose(plate, [(shelf, Spot(0.25, 0.9, 0.45)), (duck, Spot(0.75, 0.9, 0.45))])
    left, right = (model.heatmaps([photo.image], f"the {look.kind}")[0] for look in looks)
    middle = left.shape[1] // 2
    assert left[:, :middle].sum() > 0.7
    assert right[:, middle:].sum() > 0.7
