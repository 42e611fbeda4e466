"""Text encoders in plain PyTorch against transformers: the same token ids, the same hidden states."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from steersearch.core import hub
from steersearch.core.bert import Bert, BertConfig, load_bert
from steersearch.core.errors import CheckpointError
from steersearch.core.registry import MINILM
from steersearch.core.text import Tokenizer, load_text_encoder
from tests.test_text import write_tiny_roberta

SENTENCES = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@pytest.fixture(scope="module")
def minilm() -> Path:
    folder = hub.text_encoder_in_package(MINILM)
    assert folder is not None
    return folder


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders") / "tiny-roberta"
    folder.mkdir()
    write_tiny_roberta(folder)
    return folder


def of_transformers(kind: str, folder: Path) -> Any:
    import transformers

    return getattr(transformers, kind).from_pretrained(folder)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("which", ["minilm", "roberta"])
def test_hidden_states_are_those_of_transformers(
    which: str, padded: bool, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(which)
    theirs = of_transformers({"minilm": "BertModel", "roberta": "RobertaModel"}[which], folder).eval()
    ours = load_bert(folder, hub.WEIGHTS)
    ids = torch.randint(4, ours.config.vocabulary, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids, dtype=torch.bool)
    if padded:
        mask[1, 5:], mask[2, 2:] = False, False
        ids[~mask] = ours.config.pad_id
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        found = ours(ids, mask if padded else None)
    assert (found - expected)[mask].abs().max() < 1e-5
    assert not any(parameter.requires_grad for parameter in ours.parameters())


@pytest.mark.parametrize(
    ("which", "prompt"),
    [
        ("roberta", "a <pad> b"),
        ("roberta", "<pad><pad>ab <pad>"),
        ("roberta", "a <s> b</s> <mask> <unk> c"),
        ("minilm", "a [PAD] mug [PAD]"),
        ("minilm", "[CLS] the [MASK] [SEP] mug [UNK]"),
    ],
)
def test_special_tokens_in_a_prompt_are_what_transformers_makes_of_them(
    which: str, prompt: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(which)
    classes = {"minilm": ("AutoTokenizer", "BertModel"), "roberta": ("RobertaTokenizer", "RobertaModel")}
    tokenizer, model = (of_transformers(kind, folder) for kind in classes[which])
    found = load_text_encoder(which if which == "minilm" else str(folder)).encode([prompt, "a"])
    with torch.no_grad():
        expected = model.eval()(**tokenizer([prompt], return_tensors="pt")).last_hidden_state
    assert (found.tokens[:1] - expected).abs().max() < 1e-5
    assert found.mask[0].all()


@given(text=SENTENCES)
@example(text="Der Schlüssel — naïve café, 遥控器 & e\u0301 [MASK] [SEP] ##ing")
@example(text="mug " * 600)
def test_word_pieces_are_those_of_transformers(text: str, minilm: Path) -> None:
    ours, theirs = _tokenizers(minilm, "AutoTokenizer")
    assert ours([text, "a mug"]) == theirs([text, "a mug"], truncation=True, max_length=512)["input_ids"]


@given(text=SENTENCES | st.text("abz <>/maskspdu", max_size=40))
@example(text="a <mask> b</s>c <pad>")
@example(text="a" * 900)
def test_byte_pairs_are_those_of_transformers(text: str, roberta: Path) -> None:
    ours, theirs = _tokenizers(roberta, "RobertaTokenizer")
    assert ours([text, "ab"]) == theirs([text, "ab"], truncation=True, max_length=512)["input_ids"]


_KEPT: dict[Path, tuple[Tokenizer, Any]] = {}


def _tokenizers(folder: Path, kind: str) -> tuple[Tokenizer, Any]:
    if folder not in _KEPT:
        _KEPT[folder] = Tokenizer(folder, 512), of_transformers(kind, folder)
    return _KEPT[folder]


def test_tokenizer_json_and_the_two_files_before_it_say_the_same(roberta: Path, tmp_path: Path) -> None:
    of_transformers("RobertaTokenizer", roberta).save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()
    texts = ["ab c", "a <mask> z", "", "Ä b"]
    assert Tokenizer(tmp_path, 512)(texts) == Tokenizer(roberta, 512)(texts)


def test_a_prompt_is_encoded_without_transformers() -> None:
    code = (
        "import sys; from steersearch.core.text import load_text_encoder;"
        "print(load_text_encoder('minilm').encode(['a mug']).tokens.shape, 'transformers' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split("\n")[0] == "torch.Size([1, 4, 384]) False"


def test_other_architectures_are_refused(roberta: Path, tmp_path: Path) -> None:
    said = json.loads((roberta / "config.json").read_text())
    for changed, told in (
        ({"model_type": "deberta"}, "model_type deberta"),
        ({"hidden_act": "relu"}, "hidden_act relu"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type relative_key"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(said | changed))
        with pytest.raises(CheckpointError, match=told):
            BertConfig.read(tmp_path / "config.json")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match=r"cannot be loaded .*vocab_size"):
        BertConfig.read(tmp_path / "config.json")


def test_weights_of_another_shape_are_named(roberta: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(roberta, tmp_path / "roberta")
    said = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(said | {"intermediate_size": 50}))
    with pytest.raises(
        CheckpointError, match=r"another shape: .*encoder\.layer\.0\.intermediate\.dense\.weight"
    ):
        load_bert(copy, hub.WEIGHTS)


def test_fewer_layers_are_the_first_ones() -> None:
    torch.manual_seed(0)
    shape = BertConfig(
        vocabulary=9, dim=8, depth=3, num_heads=2, hidden=16, positions=9, types=1, norm_eps=1e-5
    )
    model, ids = Bert(shape).eval(), torch.tensor([[1, 2, 3]])
    second: list[torch.Tensor] = []
    handle = model.layers[1].register_forward_hook(lambda module, inputs, output: second.append(output))
    whole = model(ids)
    handle.remove()
    model.cut(2)
    assert torch.equal(model(ids), second[0])
    assert not torch.equal(whole, second[0])
