"""Text tokens kept for training: what is read back, what is encoded, kills, writers at once, hash collisions."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from steersearch.core.errors import ConfigError, DataError, PromptError
from steersearch.core.text import PromptFeatures, TextEncoder, load_text_encoder
from steersearch.training import text_store
from steersearch.training.text_store import TextStore
from tests.test_text import write_tiny_roberta

TEXTS = ["a mug", "the red mug on the left", "b", "ab c", "a mug "]


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("hub") / "tiny-roberta"
    folder.mkdir()
    write_tiny_roberta(folder)
    return str(folder)


@pytest.fixture
def store(tmp_path: Path, roberta: str) -> TextStore:
    return TextStore.open(tmp_path / "texts", roberta)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What text encoders were asked for."""
    asked: list[str] = []
    encode = TextEncoder.encode

    def recording(self: TextEncoder, prompts: Sequence[str]) -> PromptFeatures:
        asked.extend(prompts)
        return encode(self, prompts)

    monkeypatch.setattr(TextEncoder, "encode", recording)
    return asked


def assert_same(store: TextStore, texts: Sequence[str], encoder: TextEncoder) -> None:
    found, expected = store.features(texts), encoder.encode(texts)
    assert torch.equal(found.mask, expected.mask)
    assert found.tokens.dtype == torch.float32
    assert_half(found.tokens, expected.tokens)


def assert_half(found: torch.Tensor, exact: torch.Tensor) -> None:
    """Rounded to 11 bits, of what was encoded in a batch of other texts: its last bits may be others."""
    torch.testing.assert_close(found, exact, rtol=2**-11, atol=1e-5)


def test_texts_are_read_back_as_they_were_encoded(store: TextStore, roberta: str) -> None:
    assert (len(store), store.longest) == (0, 0)
    told: list[tuple[int, int]] = []
    store.add(TEXTS, lambda *values: told.append(values))
    encoder = load_text_encoder(roberta)
    assert_same(store, [TEXTS[3], TEXTS[0], TEXTS[3]], encoder)
    assert_same(TextStore.open(store.folder.parent, roberta), TEXTS, encoder)
    assert_same(pickle.loads(pickle.dumps(store)), TEXTS, encoder)
    longest = int(encoder.encode(TEXTS).mask.sum(dim=1).max())
    assert (len(store), store.longest, told) == (5, longest, [(5, 5)])


def test_each_text_is_encoded_once(store: TextStore, encoded: list[str], roberta: str) -> None:
    store.add(iter(["b", "a", "b"]))
    store.add(["c", "a"])
    TextStore.open(store.folder.parent, roberta).add(["b", "c"])
    assert sorted(encoded) == ["a", "b", "c"]
    assert [path.name for path in store.folder.iterdir() if path.is_dir()] == ["0"]


def test_a_text_met_again_much_later_is_not_encoded_again(
    store: TextStore, encoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_store, "TEXTS_AT_ONCE", 2)
    for pause in (0.0, 60.0):  # in the index already, and not yet
        monkeypatch.setattr(text_store, "SECONDS_BETWEEN_ENTRIES", pause)
        encoded.clear()
        store.add([f"{text} {int(pause)}" for text in ("a", "b", "c", "a", "b", "d")])
        assert sorted(text[0] for text in encoded) == ["a", "b", "c", "d"]


def test_new_texts_that_are_not_read_whole_are_counted_and_the_first_is_quoted(tmp_path: Path) -> None:
    store = TextStore.open(tmp_path, "minilm")
    long = "a cup, " * 300
    remark = store.add(["a cup", "die Tasse \U0001f9cc", long, "\U0001f9cc"])
    assert remark.startswith("3 of 4 new expressions are not read whole, such as ")
    assert "\U0001f9cc" in remark
    assert store.add(["a cup", "a spoon"]) == ""
    assert store.features([long]).mask.sum() == 512


def test_padding_to_a_given_length(store: TextStore) -> None:
    store.add(TEXTS)
    found = store.features(["b", "ab c"], length=40)
    assert found.tokens.shape == (2, 40, 32)
    assert found.mask.sum(dim=1).tolist() == [3, 5]
    assert not found.tokens[0, 3:].any()
    with pytest.raises(DataError, match="has 5 tokens, more than 4"):
        store.features(["ab c"], length=4)


def test_a_text_that_was_not_added_is_named(store: TextStore) -> None:
    for _ in range(2):
        with pytest.raises(DataError, match='"a cup" was not encoded yet'):
            store.features(["a mug", "a cup"] if len(store) else ["a cup"])
        store.add(["a mug"])
    with pytest.raises(PromptError):
        store.add(["a mug", " "])
    assert len(store) == 1


def test_in_float32_tokens_are_the_encoders_own(tmp_path: Path, roberta: str) -> None:
    own = load_text_encoder(roberta).encode(TEXTS)
    for kind, exact in (("float32", True), ("float16", False)):
        store = TextStore.open(tmp_path, roberta, -1, kind)  # type: ignore[arg-type]
        store.add(TEXTS)
        found = pickle.loads(pickle.dumps(store)).features(TEXTS)
        assert torch.equal(found.mask, own.mask)
        furthest = (found.tokens - own.tokens)[own.mask].abs().max().item()
        assert (furthest < 3e-6) == exact, furthest
    assert len(list(tmp_path.iterdir())) == 2


def test_what_a_killed_process_left_is_used_up_to_its_last_entry(store: TextStore, roberta: str) -> None:
    store.add(TEXTS[:2])
    killed = text_store._Writer(store.folder, 32, "float16")
    killed.append(["b"], [np.ones((3, 32), np.float16)])
    killed._tokens.flush()  # on disk, and not in the index
    (store.folder / "0" / "index.draft").write_bytes(b"half an ind")
    killed._lock.release()  # as the system does
    encoder = load_text_encoder(roberta)
    again = TextStore.open(store.folder.parent, roberta)
    assert len(again) == 2
    again.add(TEXTS)
    assert_same(again, TEXTS, encoder)
    assert (store.folder / "0" / "tokens.f16").stat().st_size == sum(
        int(encoder.encode([text]).mask.sum()) * 32 * 2 for text in TEXTS
    )


def test_writers_at_once_have_files_of_their_own(store: TextStore, encoded: list[str], roberta: str) -> None:
    store.add(["a"])
    other = text_store._Writer(store.folder, 32, "float16")
    other.append(["elsewhere"], [np.full((4, 32), 2, np.float16)])
    store.add(["b", "a"])
    other.close()
    assert sorted(path.name for path in store.folder.iterdir() if path.is_dir()) == ["0", "1"]
    store.add(["c", "elsewhere", "b"])
    assert encoded == ["a", "b", "c"]
    assert (store.features(["elsewhere"]).tokens == 2).all()
    assert_same(store, ["a", "b", "c"], load_text_encoder(roberta))


def test_texts_whose_hashes_agree_in_64_bits_are_distinguished(
    store: TextStore, roberta: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keys(texts: Sequence[str]) -> np.ndarray:
        return np.array([[7 for _ in texts], [ord(text[-1]) for text in texts]], np.uint64)

    monkeypatch.setattr(text_store, "_keys", keys)
    store.add(["a", "b"])
    store.add(["z", "c", "a"])
    assert_same(store, ["c", "z", "a", "b"], load_text_encoder(roberta))
    with pytest.raises(DataError, match='"d"'):
        store.features(["a", "d"])


def test_damaged_files_are_named(store: TextStore, roberta: str) -> None:
    store.add(TEXTS)
    with (store.folder / "0" / "tokens.f16").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(DataError, match=r"0: damaged .* delete it"):
        TextStore.open(store.folder.parent, roberta)


def test_tokens_that_are_no_numbers_are_refused(store: TextStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def huge(self: TextEncoder, prompts: Sequence[str]) -> PromptFeatures:
        return PromptFeatures(torch.full((len(prompts), 3, 32), 1e6), torch.ones(len(prompts), 3).bool())

    monkeypatch.setattr(TextEncoder, "encode", huge)
    with pytest.raises(DataError, match='"a" are not finite'):
        store.add(["a"])
    assert not store.folder.exists()


def test_fewer_layers_are_the_first_layers(tmp_path: Path, roberta: str) -> None:
    from transformers import RobertaModel

    whole = load_text_encoder(roberta)
    ids = torch.tensor(whole.tokenize(["ab c"]))
    language = RobertaModel.from_pretrained(roberta, add_pooling_layer=False)
    states = language(ids, output_hidden_states=True).hidden_states  # embeddings, then each layer
    kept = {layers: TextStore.open(tmp_path, roberta, layers) for layers in (-1, 0, 1, 2)}
    for layers, store in kept.items():
        store.add(["ab c"])
        assert_half(store.features(["ab c"]).tokens, states[layers])
    assert not torch.equal(kept[0].features(["ab c"]).tokens, kept[1].features(["ab c"]).tokens)
    with pytest.raises(ConfigError, match="0 to 2"):
        TextStore.open(tmp_path, roberta, 3).add(["a"])
