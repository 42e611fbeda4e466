"""CLIP, SigLIP, MaskCLIP and CLIPSeg as baselines, with random weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from steersearch.benchmarks import baselines
from steersearch.benchmarks.baselines.clip import Clip
from steersearch.benchmarks.baselines.clipseg import ClipSeg
from steersearch.benchmarks.baselines.maskclip import MaskClip
from steersearch.benchmarks.baselines.pretrained import Pretrained
from steersearch.core.errors import BenchmarkError, CheckpointError, HubError
from tests.hub_server import COMMIT, hub_stand_in
from tests.small_baselines import (
    assert_batching_changes_nothing,
    assert_close_in_bfloat16,
    halved,
    pictures,
    randomise,
    word_tokenizer,
)

CPU = torch.device("cpu")
_TEXT = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 12, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
_VISION = {
    "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip


def _tokenizer() -> Any:
    return word_tokenizer(["<pad>", "<s>", "</s>"], bos="<s>", eos="</s>")


def _clip_processor() -> Any:
    from transformers import CLIPImageProcessor, CLIPProcessor

    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return CLIPProcessor(images, _tokenizer())


@pytest.fixture(scope="module")
def clip() -> Pretrained:
    from transformers import CLIPConfig, CLIPModel

    model = randomise(CLIPModel(CLIPConfig(text_config=_TEXT, vision_config=_VISION, projection_dim=20)))
    return Pretrained(model, _clip_processor(), "clip-source", CPU)


@pytest.fixture(scope="module")
def siglip() -> Pretrained:
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    text = _TEXT | {"hidden_size": 24, "projection_size": 24}
    model = randomise(SiglipModel(SiglipConfig(text_config=text, vision_config=_VISION)))
    processor = SimpleNamespace(
        image_processor=SiglipImageProcessor(size={"height": 32, "width": 32}), tokenizer=_tokenizer()
    )
    return Pretrained(model, processor, "siglip-source", CPU)


def _method(loaded: Pretrained, name: str, side: int | None = None) -> Clip:
    return Clip(baselines.CARDS[name], loaded, side)


def test_clip_alone_is_the_models_image_embedding(clip: Pretrained) -> None:
    images = pictures(size=(50, 40))
    seen = assert_batching_changes_nothing(_method(clip, "clip"), images, "the red cat", patches=True)
    pixels = clip.processor(images=images, return_tensors="pt")["pixel_values"]
    assert pixels.shape == (3, 3, 32, 32)
    told = clip.processor.tokenizer(["a cat"], return_tensors="pt")
    with torch.no_grad():
        wanted = clip.model(pixel_values=pixels, **told).image_embeds  # of unit length
        tokens = clip.model.vision_model(pixel_values=pixels).last_hidden_state
        normed = clip.model.vision_model.post_layernorm(tokens[:, 1:])
    np.testing.assert_allclose(F.normalize(torch.from_numpy(seen.vectors), dim=-1), wanted, atol=1e-5)
    assert seen.patches is not None
    assert seen.patches.shape == (3, 4, 4, 24)
    np.testing.assert_allclose(seen.patches.reshape(3, 16, 24), normed, atol=1e-5)
    assert seen.maps is None


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_at_the_papers_size_positions_are_interpolated(family: str, request: pytest.FixtureRequest) -> None:
    loaded = request.getfixturevalue(family)
    seen = assert_batching_changes_nothing(_method(loaded, family, 48), pictures(), None, patches=True)
    assert seen.patches is not None
    assert seen.patches.shape == (3, 6, 6, 24)  # trained on 4 x 4
    own, same = (_method(loaded, family, side).see(pictures(), None).vectors for side in (None, 32))
    np.testing.assert_allclose(own, same, atol=1e-6)


def test_without_text_no_prompt_changes_anything(clip: Pretrained) -> None:
    plain = _method(clip, "clip")
    assert not plain.takes_prompt
    one, other = plain.see(pictures(), "the red cat"), plain.see(pictures(), None)
    np.testing.assert_array_equal(one.vectors, other.vectors)


@pytest.mark.parametrize(("family", "width"), [("clip", 20), ("siglip", 24)])
def test_added_text_is_of_unit_length_like_the_picture(
    family: str, width: int, request: pytest.FixtureRequest
) -> None:
    loaded = request.getfixturevalue(family)
    plain, added = _method(loaded, family), _method(loaded, f"{family}-text")
    images = pictures()
    with_text = assert_batching_changes_nothing(added, images, "the red cat", patches=True)
    other = added.see(images, "the blue dog", patches=True)
    alone = plain.see(images, None).vectors
    unit = alone / np.linalg.norm(alone, axis=1, keepdims=True)
    text = with_text.vectors - unit
    np.testing.assert_allclose(np.linalg.norm(text, axis=1), 1, atol=1e-4)
    # The same for all pictures.
    np.testing.assert_allclose(text, np.broadcast_to(text[0], text.shape), atol=1e-4)
    assert np.abs(with_text.vectors - other.vectors).max() > 1e-3
    assert with_text.patches is not None
    assert other.patches is not None
    assert with_text.patches.shape == (3, 4, 4, width)
    difference = with_text.patches - other.patches
    np.testing.assert_allclose(difference, np.broadcast_to(difference[0, 0, 0], difference.shape), atol=1e-4)
    without = added.see(images, None).vectors
    np.testing.assert_allclose(without, alone, atol=1e-6)


def test_the_text_embedding_is_the_models(clip: Pretrained) -> None:
    added = _method(clip, "clip-text").see(pictures(1), "the red cat").vectors
    told = clip.processor(text=["the red cat"], images=pictures(1), return_tensors="pt")
    with torch.no_grad():
        both = clip.model(**told)
    np.testing.assert_allclose(added, both.image_embeds + both.text_embeds, atol=1e-5)


def test_siglip_reads_texts_padded_to_its_full_length(siglip: Pretrained) -> None:
    added = _method(siglip, "siglip-text").see(pictures(1), "the red cat").vectors
    told = siglip.processor.tokenizer(
        ["the red cat"], padding="max_length", max_length=12, return_tensors="pt"
    )
    pixels = siglip.processor.image_processor(pictures(1), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        both = siglip.model(pixel_values=pixels, input_ids=told["input_ids"])
    np.testing.assert_allclose(added, both.image_embeds + both.text_embeds, atol=1e-5)


def test_a_long_prompt_is_cut(clip: Pretrained) -> None:
    long = "the red cat on a table in the box " * 5
    assert _method(clip, "clip-text").see(pictures(1), long).vectors.shape == (1, 20)


def test_what_clip_cannot_give(clip: Pretrained) -> None:
    with pytest.raises(BenchmarkError, match=r"clip has no heatmap: .*maskclip"):
        _method(clip, "clip").see(pictures(), "the cat", maps=True)
    with pytest.raises(BenchmarkError, match="clip has no attention map"):
        _method(clip, "clip").see(pictures(), "the cat", attention=True)


def test_maskclip_compares_values_of_the_last_layer_with_the_prompt(clip: Pretrained) -> None:
    method = MaskClip(baselines.CARDS["maskclip"], clip)
    images = pictures()
    seen = assert_batching_changes_nothing(method, images, "the red cat", maps=True)
    assert seen.maps is not None
    assert seen.maps.shape == (3, 4, 4)
    assert seen.vectors.shape == (3, 0)
    with torch.no_grad():
        told = clip.processor(text=["the red cat"], images=images, return_tensors="pt")
        vision = clip.model.vision_model
        x = vision.pre_layrnorm(vision.embeddings(told["pixel_values"]))
        for layer in vision.encoder.layers[:-1]:
            x = layer(x, attention_mask=None)
        last = vision.encoder.layers[-1]
        values = last.self_attn.out_proj(last.self_attn.v_proj(last.layer_norm1(x)))[:, 1:]
        patches = F.normalize(clip.model.visual_projection(vision.post_layernorm(values)), dim=-1)
        text = clip.model(**told).text_embeds[0]
        wanted = clip.model.logit_scale.exp() * patches @ text
    np.testing.assert_allclose(seen.maps.reshape(3, 16), wanted, atol=1e-4)
    other = method.see(images, "the blue dog", maps=True).maps
    assert other is not None
    assert np.abs(other - seen.maps).max() > 1e-3
    with pytest.raises(BenchmarkError, match="maskclip has no global feature"):
        method.see(images, "the cat")
    with pytest.raises(BenchmarkError, match="maskclip needs a prompt"):
        method.see(images, None, maps=True)


def test_clipseg_gives_the_logits_of_its_mask() -> None:
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation, CLIPSegProcessor, ViTImageProcessor

    config = CLIPSegConfig(
        text_config=_TEXT, vision_config=_VISION, projection_dim=20, reduce_dim=8, extract_layers=[0, 1],
        decoder_num_attention_heads=2, decoder_intermediate_size=16, conditional_layer=0,
    )  # fmt: skip
    model = randomise(CLIPSegForImageSegmentation(config))
    processor = CLIPSegProcessor(ViTImageProcessor(size={"height": 32, "width": 32}), _tokenizer())
    method = ClipSeg(baselines.CARDS["clipseg"], Pretrained(model, processor, "source", CPU))
    images = pictures(size=(50, 40))
    seen = assert_batching_changes_nothing(method, images, "the red cat", maps=True)
    given = processor(text=["the red cat"] * 3, images=images, return_tensors="pt")
    with torch.no_grad():
        wanted = model(**given).logits
    assert seen.maps is not None
    assert seen.maps.shape == (3, 32, 32)
    np.testing.assert_allclose(seen.maps, wanted, atol=1e-5)
    other = method.see(images, "the blue dog", maps=True).maps
    assert other is not None
    assert np.abs(other - seen.maps).max() > 1e-3
    with pytest.raises(BenchmarkError, match="clipseg has no global feature: its output is a mask"):
        method.see(images, "the cat")


def test_weights_in_bfloat16(clip: Pretrained, siglip: Pretrained) -> None:
    half = halved(clip)
    assert_close_in_bfloat16(_method(clip, "clip-text"), _method(half, "clip-text"), "the cat", patches=True)
    exact, coarse = (MaskClip(baselines.CARDS["maskclip"], loaded) for loaded in (clip, half))
    assert_close_in_bfloat16(exact, coarse, "the cat", maps=True)
    assert_close_in_bfloat16(
        _method(siglip, "siglip"), _method(halved(siglip), "siglip"), "the cat", patches=True
    )


def test_loading_from_a_folder_as_from_the_hub(clip: Pretrained, tmp_path: Path) -> None:
    clip.model.save_pretrained(tmp_path)
    clip.processor.save_pretrained(tmp_path)
    loaded = baselines.load(f"clip-text={tmp_path}", device="cpu")
    kept = _method(clip, "clip-text", 336)
    np.testing.assert_allclose(
        loaded.see(pictures(), "the cat").vectors, kept.see(pictures(), "the cat").vectors, atol=1e-6
    )
    assert loaded.identity != kept.identity
    assert loaded.identity == baselines.load(f"clip-text={tmp_path}", device="cpu").identity
    assert loaded.identity != baselines.load(f"clip={tmp_path}", device="cpu").identity
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=f"{tmp_path}: cannot be loaded"):
        baselines.load(f"clip={tmp_path}", device="cpu")


def test_loading_from_the_hub_once(clip: Pretrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = baselines.CARDS["clip-text"]
    assert card.repo is not None
    clip.model.save_pretrained(tmp_path / "model", max_shard_size=20_000)  # in several files
    clip.processor.save_pretrained(tmp_path / "model")
    with hub_stand_in(monkeypatch, tmp_path / "cache") as server:
        server.add_folder(card.repo, tmp_path / "model")
        for other in ("pytorch_model.bin", "flax_model.msgpack", "onnx/model.safetensors", "README.md"):
            server.add(card.repo, other, b"not needed")
        loaded = baselines.load("clip-text", device="cpu")
        assert loaded.settings["weights"] == f"{card.repo}@{COMMIT}"
        fetched = {path.name for path in (tmp_path / "cache").rglob("snapshots/*/*")}
        assert fetched == {path.name for path in (tmp_path / "model").iterdir()}
        server.requests.clear()
        again = baselines.load("clip-text", device="cpu")
        assert server.requests == []
        assert again.identity == loaded.identity
        (shard, *_) = (tmp_path / "cache").rglob("model-00001-*.safetensors")
        _lose(shard)
        baselines.load("clip-text", device="cpu")  # only what is missing
        assert {
            request.path.partition("?")[0].rpartition("/")[2] for request in server.asked("store", "GET")
        } == {shard.name}
        server.faults.gated.add(card.repo)
        _lose(shard)
        with pytest.raises(HubError, match=card.repo):
            baselines.load("clip-text", device="cpu")
    wanted = _method(clip, "clip-text", 336).see(pictures(), "the cat").vectors
    np.testing.assert_allclose(loaded.see(pictures(), "the cat").vectors, wanted, atol=1e-6)


def _lose(cached: Path) -> None:
    cached.resolve().unlink()
    cached.unlink()


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        baselines.load(f"clip={tmp_path}")


def test_offline_and_not_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"clip-vit-base-patch16.*HF_HUB_OFFLINE is set.*clip=FOLDER"):
        baselines.load("clip")
