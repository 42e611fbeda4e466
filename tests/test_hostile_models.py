"""Model files that lie: refused by name before anything is built, whatever they claim; and damaged ones."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steersearch.core import hub
from steersearch.core.bert import BertConfig
from steersearch.core.checkpoints import (
    METADATA_KEY,
    load_file,
    load_model,
    read_config,
    read_released_pth,
)
from steersearch.core.downloads import parts_of
from steersearch.core.errors import CheckpointError, SteerSearchError
from steersearch.core.preprocess import Preprocess
from steersearch.core.steervit import SteerViTConfig
from steersearch.core.text import load_text_encoder
from tests.test_text import write_tiny_roberta

VISION: dict[str, Any] = {"model_name": "vit_small_patch14_dinov2.lvd142m", "resolution": 56}


def write_pth(path: Path, state: dict[str, Any], config: Any = None) -> Path:
    torch.save({"state_dict": state, "config": config or {"vision_encoder": VISION}}, path)
    return path


def write_pickle(path: Path, code: bytes, **records: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("file/data.pkl", code)
        for name, data in records.items():
            archive.writestr(f"file/data/{name}", data)
    return path


def connector(out: int = 4, inputs: int = 4) -> dict[str, torch.Tensor]:
    return {"connector.mlp.0.weight": torch.ones(out, inputs), "connector.mlp.2.weight": torch.ones(2, out)}


# -------------------------------------------------------------------------------------------- .pth: the pickle


class Rebuilt:
    """Pickles as a call of `_rebuild_tensor_v2` on a storage of four numbers, and a state for what comes of it."""

    def __init__(
        self, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], state: Any = None
    ) -> None:
        self.view, self.state = (offset, shape, stride), state

    def __reduce__(self) -> Any:
        storage = torch.zeros(4)._typed_storage()  # type: ignore[no-untyped-call]
        call = (torch._utils._rebuild_tensor_v2, (storage, *self.view, False, {}))
        return call if self.state is None else (*call, self.state)


def unfolding() -> dict[str, Any]:
    """Nine lists, each ten times in the next: a thousand bytes, and a billion values."""
    values: Any = [1] * 10
    for _ in range(9):
        values = [values] * 10
    return {"vision_encoder": VISION, "extra": values}


def nested(depth: int) -> list[Any]:
    values: list[Any] = []
    for _ in range(depth):
        values = [values]
    return values


@pytest.mark.parametrize(
    ("state", "config", "reason"),
    [
        ({}, unfolding(), "its config unfolds to more than 100,000 values"),
        ({}, {"vision_encoder": nested(150)}, "its config is nested more than 64 deep"),
        (
            {f"connector.extra{i}": view for i, view in enumerate([torch.zeros(100_000)] * 9)},
            None,
            r"its tensors overlap: together 3,600,096 bytes, the file has 40\d,\d+",
        ),
        ({"w": torch.zeros(1).expand(2**20, 2**20)}, None, r"w: shape \(1048576, 1048576\), stride \(0, 0\)"),
        ({"w": Rebuilt(2, (3,), (1,))}, None, r"w: shape \(3,\), stride \(1,\) and offset 2 go beyond"),
        ({"w": Rebuilt(0, (2, 2), (1, 3))}, None, r"w: shape \(2, 2\), stride \(1, 3\) and offset 0 go beyond"),
        ({"w": Rebuilt(-1, (1,), (1,))}, None, "an invalid size or offset"),
        ({"w": Rebuilt(0, (-1,), (1,))}, None, "an invalid size or offset"),
        ({"w": Rebuilt(0, (1,) * 9, (1,) * 9)}, None, "9 dimensions"),
        ({"w": Rebuilt(0, (1,), (1,), state=(0, (9,)))}, None, "a state for StoredTensor"),
        ({"w": nested(1)}, None, "not tensors in its state_dict: w"),
    ],
    ids=[
        "a config that unfolds", "a nested config", "views that overlap", "stride 0 for a terabyte", "an end beyond",
        "strides beyond", "a start before", "a size below 0", "dimensions", "a state for a tensor", "no tensor",
    ],
)  # fmt: skip
def test_a_description_that_is_more_than_the_file_is_refused(
    state: dict[str, Any], config: Any, reason: str, tmp_path: Path
) -> None:
    path = write_pth(tmp_path / "hostile.pth", connector() | state, config)
    for read in (read_config, read_released_pth):
        with pytest.raises(CheckpointError, match=reason) as caught:
            read(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        # {((((...),),),): 1}: hashing such a key has no end but that of the process
        (b"\x80\x02})" + b"\x85" * 100_000 + b"K\x01s.", "a key of type tuple"),
        # a memo index of 2**32 - 1, for which the unpickler in C makes room
        (b"\x80\x02}r\xff\xff\xff\xff.", "needs .state_dict. and .config."),
        # BUILD on a function: (None, {"__defaults__": ...}) would be set on ours
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(N}X\x0c\0\0\0__defaults__(tstb.", "a state for _Name"),
        (b"\x80\x02ccollections\nOrderedDict\n(N}X\x01\0\0\0xNstb.", "a state for _Name"),
        (b"\x80\x02]" + b"]" * 100_000 + b"a" * 100_000 + b".", "holds a list"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "damaged"),
        (b"\x80\x02" + b"(" * 100_000 + b".", "damaged"),
        (b"\x80\x02}" + b"0" * 3 + b".", "damaged"),
        (b"\x80\x02\x82\x01.", "the instruction EXT1"),
        (b"\x80\x02K\x05" * 500_000 + b".", "data.pkl has 2,000,001 bytes|holds a int"),
        (
            b"\x80\x02}" + b"N" * 3_000_000 + b".",
            "data.pkl has 3,000,004 bytes, more than 2,097,152",
        ),
    ],
)
def test_a_pickle_that_would_break_the_machine_is_refused(code: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read_released_pth(write_pickle(tmp_path / "hostile.pth", code))


def test_names_that_share_one_storage_in_the_zip_are_refused(tmp_path: Path) -> None:
    """The directory of a zip may point to the same bytes many times: 400 kB that would be read as 4 MB."""
    state = {f"connector.extra{i}": torch.zeros(100_000) for i in range(10)} | connector()
    whole = write_pth(tmp_path / "whole.pth", state)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(tmp_path / "hostile.pth", "w") as archive:
        for info in source.infolist():
            if "/data/" not in info.filename or info.file_size < 400_000 or info.filename.endswith("/0"):
                archive.writestr(info.filename, source.read(info))
        first = next(info for info in archive.infolist() if info.file_size == 400_000)
        for info in source.infolist():
            if info.file_size == 400_000 and info.filename != first.filename:
                again = zipfile.ZipInfo(info.filename)
                again.header_offset, again.CRC = first.header_offset, first.CRC
                again.file_size = again.compress_size = first.file_size
                archive.filelist.append(again)
        archive._didModify = True  # type: ignore[attr-defined]
    assert (tmp_path / "hostile.pth").stat().st_size < 500_000
    with pytest.raises(
        CheckpointError, match="its tensors overlap: together 4,000,096 bytes, the file has 4"
    ):
        read_released_pth(tmp_path / "hostile.pth")


def test_a_file_with_holes_is_refused(tmp_path: Path) -> None:
    for suffix in (".pth", ".safetensors"):
        path = tmp_path / f"holes{suffix}"
        with path.open("wb") as file:
            file.write(b"PK\x03\x04")
            file.truncate(10 * 2**30)
        if path.stat().st_blocks * 512 > 2**20:
            pytest.skip("this disk knows no holes")
        with pytest.raises(CheckpointError, match="bytes on disk of 10,737,418,240"):
            read_config(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(suffix: str, tmp_path: Path) -> None:
    pipe, folder = tmp_path / f"pipe{suffix}", tmp_path / f"folder{suffix}"
    os.mkfifo(pipe)
    folder.mkdir()
    for path, reason in ((pipe, "a pipe, not a regular file"), (folder, "a folder, not a file")):
        with pytest.raises(CheckpointError, match=reason):
            load_file(path, device="cpu")


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"resolution": 10**9}, "resolution = 1000000000"),
        ({"resolution": "336"}, "resolution = '336'"),
        ({"resolution": float("inf")}, "resolution = inf"),
        ({"feature_aggregation": ["cls"]}, "aggregation"),
        ({"cross_attn_layers": list(range(100_000))}, "values|cross_attn_layers"),
        ({"cross_attn_layers": [10**9]}, "cross_attn_layers = 1000000000"),
        ({"cross_attn_layers": 5}, "cross_attn_layers = 5"),
        ({"cross_attn_ffn_mult": "wide"}, "cross_attn_ffn_mult = 'wide'"),
        ({"cross_attn_ffn_mult": float("nan")}, "cross_attn_ffn_mult = nan"),
        ({"model_name": "x" * 10_000}, "model_name"),
        ({"model_name": "\x1b[2J"}, r"model_name = '\\x1b\[2J'"),
    ],
)
def test_settings_of_a_released_file_have_ranges(changed: dict[str, Any], field: str, tmp_path: Path) -> None:
    path = write_pth(tmp_path / "hostile.pth", connector(), {"vision_encoder": VISION | changed})
    with pytest.raises(CheckpointError, match=field) as caught:
        read_config(path)
    assert len(str(caught.value)) < 2000


# ------------------------------------------------------------------------------------------------ .safetensors


def described(model: Path) -> dict[str, Any]:
    length = struct.unpack("<Q", model.read_bytes()[:8])[0]
    header = json.loads(model.read_bytes()[8 : 8 + length])
    said: dict[str, Any] = json.loads(header["__metadata__"][METADATA_KEY])
    return said


def with_description(model: Path, target: Path, said: str) -> Path:
    from safetensors.torch import load_file as tensors_of
    from safetensors.torch import save_file

    save_file(tensors_of(model), target, metadata={METADATA_KEY: said})
    return target


HOSTILE_SETTINGS: list[tuple[str, Any]] = [
    ("vit.depth", 10**6), ("vit.depth", 0), ("vit.depth", 8.5), ("vit.depth", "8"), ("vit.depth", True),
    ("vit.dim", 10**9), ("vit.dim", -1), ("vit.num_heads", 0), ("vit.mlp_ratio", 1e9), ("vit.mlp_ratio", 0),
    ("vit.image_size", 2**40), ("vit.patch_size", 0), ("vit.stem_channels", [10**9]), ("vit.stem_channels", 3),
    ("vit.stem_channels", [1] * 100), ("vit.class_token", "yes"), ("vit.layer_scale", None), ("vit.extra", 1),
    ("preprocess.crop_pct", 1e-3), ("preprocess.crop_pct", float("nan")), ("preprocess.crop_pct", 1.01),
    ("preprocess.size", 10**6), ("preprocess.mean", [0, 0]), ("preprocess.mean", ["a", "b", "c"]),
    ("preprocess.std", [0, 1, 1]), ("preprocess.std", [1e-30, 1, 1]), ("preprocess.interpolation", ["bicubic"]),
    ("preprocess.mode", {"crop": 1}), ("preprocess.extra", 1),
    ("resolution", 10**9), ("aggregation", "sum"), ("cross_attn_layers", [10**6]), ("cross_attn_layers", "135"),
    ("cross_attn_layers", [1] * 1000), ("fusion", 1), ("num_heads", 10**6), ("head_dim", 10**9), ("head_dim", None),
    ("text_dim", 10**9), ("text_layers", 10**7), ("connector_hidden", 10**9), ("cross_attn_ffn_mult", 10**6),
    ("tanh_gate", 1), ("use_ffn", "no"), ("trunk", 5), ("trunk", "a" * 1000), ("text_encoder", "\x07"),
    ("text_encoder", ["minilm"]), ("unheard_of", 1),
]  # fmt: skip


@pytest.mark.parametrize(("setting", "value"), HOSTILE_SETTINGS)
def test_settings_of_our_file_have_ranges(setting: str, value: Any, tiny_model: Path, tmp_path: Path) -> None:
    said = described(tiny_model)
    section, _, name = ("config." + setting).rpartition(".")
    place = said
    for part in section.split("."):
        place = place[part]
    place[name] = value
    path = with_description(tiny_model, tmp_path / "hostile.safetensors", json.dumps(said))
    with pytest.raises(CheckpointError, match=f"{path}: .*{name}"):
        load_file(path, device="cpu")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deep"),
        ("[" * 5_000 + "]" * 5_000, "nested too deep"),
        (f'{{"format": 1, "config": {{"trunk": {"[" * 900 + "]" * 900}}}}}', "trunk|is missing"),
        ('"' + "x" * 2**20 + '"', "1,048,578 bytes of JSON"),
        ("9" * 10_000, "damaged"),
        ("null", "damaged"),
        ('{"format": "1", "config": {}}', "damaged"),
        ('{"format": 1, "config": []}', "the config"),
    ],
)
def test_a_description_that_is_none_is_refused(
    said: str, reason: str, tiny_model: Path, tmp_path: Path
) -> None:
    path = with_description(tiny_model, tmp_path / "hostile.safetensors", said)
    with pytest.raises(CheckpointError, match=reason) as caught:
        load_file(path, device="cpu")
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("header", "length", "body"),
    [
        ("{}", 2**62, 0),
        ("{}", 2**64 - 1, 0),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, None, 0),
        ('{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,16]}}', None, 16),
        ('{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},'
         '"b":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}', None, 16),
        ('{"a":{"dtype":"C64","shape":[2],"data_offsets":[0,16]}}', None, 16),
        ('{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}', None, 15),
    ],
)  # fmt: skip
def test_a_header_that_lies_is_refused(header: str, length: int | None, body: int, tmp_path: Path) -> None:
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(
        struct.pack("<Q", len(header) if length is None else length) + header.encode() + bytes(body)
    )
    with pytest.raises(CheckpointError, match=r"hostile\.safetensors: "):
        load_file(path, device="cpu")


def test_ranges_hold_what_is_published() -> None:
    """Every backbone that is known, and the settings of the bundled model."""
    config = load_model("mini", device="cpu").config
    assert SteerViTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert Preprocess.from_dict(json.loads(json.dumps(config.preprocess.to_dict()))) == config.preprocess


# ----------------------------------------------------------------------------------------------- text encoders


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders") / "roberta"
    folder.mkdir()
    write_tiny_roberta(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("num_hidden_layers", 10**7, "depth = 10000000"),
        ("num_hidden_layers", "2", "depth = '2'"),
        ("hidden_size", 10**9, "dim = 1000000000"),
        ("num_attention_heads", 0, "num_heads = 0"),
        ("num_attention_heads", 5, "num_heads = 5: must divide dim 32"),
        ("intermediate_size", -1, "hidden = -1"),
        ("vocab_size", 2**40, "vocabulary"),
        ("max_position_embeddings", 2**40, "positions"),
        ("max_position_embeddings", 1, "first_position = 2"),
        ("type_vocab_size", 0, "types = 0"),
        ("layer_norm_eps", "small", "norm_eps = 'small'"),
        ("pad_token_id", -1, "pad_id = -1"),
        ("pad_token_id", 10**9, "pad_id"),
        ("pad_token_id", [1], "cannot be loaded|pad_id"),
        ("model_type", ["roberta"], "cannot be loaded|model_type"),
    ],
)
def test_settings_of_a_text_encoder_have_ranges(
    name: str, value: Any, field: str, roberta: Path, tmp_path: Path
) -> None:
    said = json.loads((roberta / "config.json").read_text()) | {name: value}
    (tmp_path / "config.json").write_text(json.dumps(said))
    with pytest.raises(CheckpointError, match=rf"config\.json: .*({field})"):
        BertConfig.read(tmp_path / "config.json")


def test_a_description_of_a_text_encoder_is_bounded(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    for content, reason in (
        ("[" * 100_000, "nested too deep"),
        ("[]", "cannot be loaded"),
        (" " * (2**20 + 1) + "{}", "larger than the 1,048,576 bytes"),
    ):
        config.write_text(content)
        with pytest.raises(CheckpointError, match=reason):
            BertConfig.read(config)


def test_a_tokenizer_of_another_model_is_refused(roberta: Path, tmp_path: Path) -> None:
    """Its numbers would lie beyond the table of word vectors."""
    folder = shutil.copytree(roberta, tmp_path / "roberta")
    vocabulary = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(vocabulary | {"b": 5000}))
    encoder = load_text_encoder(str(folder))
    assert encoder.encode(["a c"]).tokens.shape[0] == 1
    with pytest.raises(
        CheckpointError, match=r"its tokenizer gives the token 5000, and its weights have \d+"
    ):
        encoder.encode(["ab"])


def test_a_prompt_is_cut_to_the_places_that_a_text_encoder_has(roberta: Path, tmp_path: Path) -> None:
    from transformers import RobertaForMaskedLM

    model = RobertaForMaskedLM.from_pretrained(roberta)
    short = shutil.copytree(roberta, tmp_path / "roberta")
    table = model.roberta.embeddings.position_embeddings
    table.weight = torch.nn.Parameter(table.weight[:20].detach().clone())
    model.config.max_position_embeddings = 20
    model.save_pretrained(short)
    assert load_text_encoder(str(short)).encode(["a" * 100]).tokens.shape[1] == 18


# ----------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name",
    [
        "~nobody-of-this-name/x.pth", "~nobody-of-this-name/roberta", "a" * 5000, "a" * 5000 + ".pth", "x\0y.pth",
        "x\0/y", "", ".", "/", "../x", "a/b/c", "http://x/y", "a/\x1b[2J", "\udcff.pth", "x/\udcff", "/dev/zero",
        "a/" + "b" * 300,
    ],
)  # fmt: skip
def test_names_that_no_model_has_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with contextlib.suppress(SteerSearchError):
        parts_of(name)  # may be a repository that is not here
    for ask in (load_model, load_text_encoder):
        with pytest.raises(SteerSearchError):
            ask(name)


# --------------------------------------------------------------------------------------------------------- bit rot


def rotted(content: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes changed, or a part cut out, doubled or moved."""
    data = bytearray(content)
    start = int(rng.integers(len(data)))
    stop = min(len(data), start + int(rng.integers(1, 64)))
    kind = int(rng.integers(4))
    if kind == 0:
        for _ in range(int(rng.integers(1, 5))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
    elif kind == 1:
        del data[start:stop]
    elif kind == 2:
        data[start:start] = data[start:stop]
    else:
        data = data[:start]
    return bytes(data)


def survives(content: bytes, path: Path, read: Callable[[], object], rounds: int, part: int) -> None:
    """However `content` rots, `read` works or raises one of our errors. part: only so many bytes at its ends rot."""
    rng, longest = np.random.default_rng(len(content)), 0
    for _ in range(rounds):
        if rng.integers(2):
            path.write_bytes(rotted(content[:part], rng) + content[part:])
        else:
            path.write_bytes(content[:-part] + rotted(content[-part:], rng))
        try:
            read()
        except SteerSearchError as error:
            longest = max(longest, len(str(error)))
    assert 0 < longest < 5000


def test_our_files_rot_without_a_traceback(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "rot.safetensors"
    survives(tiny_model.read_bytes(), path, lambda: load_file(path, device="cpu"), 150, 8000)


def test_released_files_rot_without_a_traceback(tmp_path: Path) -> None:
    path = write_pth(tmp_path / "rot.pth", connector() | {"a": torch.ones(300)})
    survives(path.read_bytes(), path, lambda: (read_config(path), read_released_pth(path)), 300, 3000)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "vocab.json", "merges.txt", hub.WEIGHTS])
def test_text_encoders_rot_without_a_traceback(file: str, roberta: Path, tmp_path: Path) -> None:
    from transformers import RobertaTokenizer

    folder = shutil.copytree(roberta, tmp_path / "roberta")
    if file == "tokenizer.json":
        RobertaTokenizer.from_pretrained(roberta).save_pretrained(folder)
    content = (folder / file).read_bytes()
    survives(content, folder / file, lambda: load_text_encoder(str(folder)).encode(["a b"]), 40, 3000)
