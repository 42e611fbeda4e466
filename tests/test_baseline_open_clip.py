"""FLAIR, WinCLIP and the GeneCIS combiner as baselines, with random weights in OpenCLIP's layout."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steersearch.benchmarks import baselines
from steersearch.benchmarks.baselines import combiner, flair, winclip
from steersearch.benchmarks.baselines.open_clip_models import MEAN, STD, clip_model, read_weights
from steersearch.core.errors import BenchmarkError, CheckpointError, CheckpointKeysError
from tests.small_baselines import assert_batching_changes_nothing, pictures, randomise

open_clip = pytest.importorskip("open_clip")

CPU = torch.device("cpu")
LENGTH = 20  # of texts, in tokens
SHAPE: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": LENGTH, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def _pixels(images: list[Any], *, squash: bool = False) -> Tensor:
    """As open_clip prepares pictures."""
    mode = {"resize_mode": "squash"} if squash else {}
    transform = open_clip.image_transform(64, is_train=False, mean=MEAN, std=STD, **mode)
    return torch.stack([transform(image) for image in images])


# ------------------------------------------------------------------------------------------------ FLAIR


@pytest.fixture(scope="module")
def flair_model() -> flair.FlairModel:
    model: flair.FlairModel = randomise(flair.FlairModel(baselines.CARDS["flair"], SHAPE))
    return model


def test_flair_pools_local_tokens_by_the_text(flair_model: flair.FlairModel) -> None:
    method = flair.Flair(baselines.CARDS["flair"], flair_model, "source", CPU)
    images = pictures(size=(90, 70))
    seen = assert_batching_changes_nothing(method, images, "the red cat", patches=True)
    assert seen.vectors.shape == (3, 32)
    assert seen.patches is not None
    assert seen.patches.shape == (3, 4, 4, 32)

    with torch.no_grad():
        pooled, tokens = flair_model.visual(_pixels(images))
        local = tokens @ flair_model.image_post.proj
        query = flair_model.text(open_clip.tokenize(["the red cat"], LENGTH))
        wanted = torch.stack([_pooled_by_hand(flair_model.visual_proj, query[0], each) for each in local])
    np.testing.assert_allclose(seen.patches.reshape(3, 16, 32), local, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(seen.vectors, wanted, rtol=1e-3, atol=1e-4)

    other = method.see(images, "the blue dog", patches=True)
    assert np.abs(other.vectors - seen.vectors).max() > 1e-3
    assert other.patches is not None
    np.testing.assert_allclose(other.patches, seen.patches, rtol=1e-4, atol=1e-5)  # no text in them
    without = method.see(images, None).vectors
    np.testing.assert_allclose(without, pooled @ flair_model.image_post.proj, rtol=1e-3, atol=1e-4)
    with pytest.raises(BenchmarkError, match="flair has no heatmap"):
        method.see(images, "the cat", maps=True)


def _pooled_by_hand(layer: Any, query: Tensor, tokens: Tensor) -> Tensor:
    """Attention of one query (D,) over tokens (N, D), 8 heads, with a key and a value of zeros at the end."""
    weight, bias = layer.attn.in_proj_weight, layer.attn.in_proj_bias
    dim, heads = len(query), 8
    q = F.linear(layer.ln_q(query), weight[:dim], bias[:dim])
    k = F.linear(layer.ln_k(tokens), weight[dim : 2 * dim], bias[dim : 2 * dim])
    v = F.linear(layer.ln_v(tokens), weight[2 * dim :], bias[2 * dim :])
    k, v = (torch.cat([each, torch.zeros(1, dim)]) for each in (k, v))
    out = []
    for head in range(heads):
        part = slice(head * dim // heads, (head + 1) * dim // heads)
        out.append((k[:, part] @ q[part] / (dim / heads) ** 0.5).softmax(dim=0) @ v[:, part])
    return F.linear(torch.cat(out), layer.attn.out_proj.weight, layer.attn.out_proj.bias)


def test_flairs_text_is_clips_with_a_projection(flair_model: flair.FlairModel) -> None:
    clip = clip_model(baselines.CARDS["flair"], SHAPE).eval()
    shared = {key: value for key, value in flair_model.state_dict().items() if key in clip.state_dict()}
    clip.load_state_dict(shared | {"text_projection": flair_model.text_post.proj}, strict=False)
    ids = open_clip.tokenize(["the red cat", "a dog"], LENGTH)
    with torch.no_grad():
        np.testing.assert_allclose(flair_model.text(ids), clip.encode_text(ids), rtol=1e-3, atol=1e-4)


def test_flair_reads_its_published_file(
    flair_model: flair.FlairModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = set(flair_model.state_dict())
    # As published: a CLIP without projections, then the layers of FLAIR's own.
    assert names >= {
        "visual.conv1.weight", "visual.class_embedding", "visual.positional_embedding", "visual.ln_pre.weight",
        "visual.transformer.resblocks.1.attn.in_proj_weight", "visual.ln_post.bias", "positional_embedding",
        "transformer.resblocks.0.mlp.c_fc.weight", "token_embedding.weight", "ln_final.weight", "logit_scale",
        "logit_bias", "image_post.proj", "text_post.proj", "visual_proj.attn.in_proj_weight",
        "visual_proj.attn.out_proj.bias", "visual_proj.ln_q.weight", "visual_proj.ln_k.weight", "visual_proj.ln_v.bias",
    }  # fmt: skip
    assert not {"visual.proj", "text_projection", "attn_mask"} & names
    state = {f"module.{key}": value for key, value in flair_model.state_dict().items()}
    torch.save(
        {"epoch": 30, "name": "flair", "state_dict": state | {"module.extra": torch.ones(2)}},
        tmp_path / "f.pt",
    )
    monkeypatch.setattr(flair, "VIT_B_16", SHAPE)
    loaded = baselines.load(f"flair={tmp_path / 'f.pt'}", device="cpu")
    assert "holds weights that are not known and not used: extra" in caplog.text
    kept = flair.Flair(baselines.CARDS["flair"], flair_model, "source", CPU)
    wanted = kept.see(pictures(), "the cat").vectors
    np.testing.assert_allclose(loaded.see(pictures(), "the cat").vectors, wanted, rtol=1e-4, atol=1e-5)

    del state["module.image_post.proj"]
    torch.save({"state_dict": state}, tmp_path / "f.pt")
    with pytest.raises(CheckpointKeysError, match=r"image_post\.proj"):
        baselines.load(f"flair={tmp_path / 'f.pt'}", device="cpu")


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.pt"
    torch.save({"state_dict": nn.Linear(2, 2)}, path)  # a whole object, not weights
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_weights(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_weights(path)


# ---------------------------------------------------------------------------------------------- WinCLIP


@pytest.fixture(scope="module")
def clip() -> Any:
    return randomise(clip_model(baselines.CARDS["winclip"], SHAPE))


def test_winclip_equals_a_slow_direct_version(clip: Any) -> None:
    method = winclip.WinClip(baselines.CARDS["winclip"], clip, "source", CPU)
    images = pictures(size=(90, 70))
    seen = assert_batching_changes_nothing(method, images, "metal nut", maps=True)
    assert seen.maps is not None
    assert seen.maps.shape == (3, 4, 4)
    assert seen.vectors.shape == (3, 0)
    with torch.no_grad():
        texts = torch.stack([_mean_text(clip, states) for states in (winclip.NORMAL, winclip.DAMAGED)])
        wanted = _slow_winclip(clip, _pixels(images[:1], squash=True), texts)
    np.testing.assert_allclose(seen.maps[0], wanted, rtol=1e-3, atol=1e-5)
    other = method.see(images, "bottle", maps=True).maps
    assert other is not None
    assert np.abs(other - seen.maps).max() > 1e-4
    assert seen.maps.min() >= 0
    assert seen.maps.max() <= 1


def _mean_text(clip: Any, states: tuple[str, ...]) -> Tensor:
    sentences = [
        sentence.format(state.format("metal nut")) for sentence in winclip.SENTENCES for state in states
    ]
    each = F.normalize(clip.encode_text(open_clip.tokenize(sentences, LENGTH)), dim=-1)
    return F.normalize(each.mean(dim=0), dim=-1)


def _slow_winclip(clip: Any, pixels: Tensor, texts: Tensor) -> Tensor:
    visual = clip.visual
    x = visual.conv1(pixels).flatten(2).transpose(1, 2)
    x = visual.ln_pre(torch.cat([visual.class_embedding[None, None], x], dim=1) + visual.positional_embedding)

    def score(tokens: Tensor) -> float:
        out = visual.ln_post(visual.transformer(tokens))[0, 0] @ visual.proj
        shares = (F.normalize(out, dim=0) @ texts.T / 0.07).softmax(dim=0)
        return float(shares[1])

    whole = score(x)
    torch.testing.assert_close(  # the whole picture is CLIP's own embedding
        torch.tensor(whole),
        (F.normalize(clip.encode_image(pixels)[0], dim=0) @ texts.T / 0.07).softmax(dim=0)[1],
    )
    result = torch.zeros(4, 4)
    for row in range(4):
        for column in range(4):
            parts = [whole]
            for side in (2, 3):
                inverse = []
                for top in range(5 - side):
                    for left in range(5 - side):
                        if top <= row < top + side and left <= column < left + side:
                            members = [
                                1 + r * 4 + c
                                for r in range(top, top + side)
                                for c in range(left, left + side)
                            ]
                            inverse.append(1 / score(x[:, [0, *members]]))
                parts.append(len(inverse) / sum(inverse))
            result[row, column] = 3 / sum(1 / part for part in parts)
    return result


def test_winclips_ensembles_are_those_of_its_paper() -> None:
    assert len(winclip.SENTENCES) == 22
    assert len(set(winclip.SENTENCES)) == 22
    normal = [
        sentence.format(state.format("nut")) for sentence in winclip.SENTENCES for state in winclip.NORMAL
    ]
    damaged = [
        sentence.format(state.format("nut")) for sentence in winclip.SENTENCES for state in winclip.DAMAGED
    ]
    assert (len(normal), len(damaged)) == (154, 88)
    assert "a photo of the large nut without defect." in normal
    assert "a jpeg corrupted photo of a damaged nut." in damaged


def test_windows_and_harmonic_means_by_hand() -> None:
    windows = winclip.windows_of((2, 3), 2)
    assert windows.tolist() == [[0, 1, 3, 4], [1, 2, 4, 5]]
    scores = torch.tensor([[0.2, 0.6]])
    found = winclip.patch_scores(scores, windows, (2, 3))
    both = 2 / (1 / 0.2 + 1 / 0.6)
    torch.testing.assert_close(found, torch.tensor([[[0.2, both, 0.6], [0.2, both, 0.6]]]))
    torch.testing.assert_close(
        winclip.harmonic_mean(torch.tensor([[0.2], [0.6]]), dim=0), torch.tensor([both])
    )


def test_winclip_loads_from_a_file(clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    save_file(clip.state_dict(), tmp_path / "clip.safetensors")
    monkeypatch.setattr(winclip, "VIT_B_16_PLUS_240", SHAPE)
    loaded = baselines.load(f"winclip={tmp_path / 'clip.safetensors'}", device="cpu")
    kept = winclip.WinClip(baselines.CARDS["winclip"], clip, "source", CPU)
    wanted = kept.see(pictures(1), "nut", maps=True).maps
    found = loaded.see(pictures(1), "nut", maps=True).maps
    assert wanted is not None
    assert found is not None
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    assert loaded.card.prompt_is_object


# ------------------------------------------------------------------------------------- GeneCIS's combiner


def _combiner_head() -> combiner.CombinerHead:
    head: combiner.CombinerHead = randomise(combiner.CombinerHead(dim=32, projected=12, hidden=24))
    return head


def test_the_combiner_joins_the_query_with_its_text(clip: Any) -> None:
    head = _combiner_head()
    method = combiner.Combiner(baselines.CARDS["genecis-combiner"], clip, head, "source", CPU)
    images = pictures(size=(90, 70))
    seen = assert_batching_changes_nothing(method, images, "the red cat")
    with torch.no_grad():
        image = clip.encode_image(_pixels(images))
        text = clip.encode_text(open_clip.tokenize(["the red cat"], LENGTH)).expand(3, -1)
        wanted = [_combined_by_hand(dict(head.state_dict()), *pair) for pair in zip(image, text, strict=True)]
    np.testing.assert_allclose(seen.vectors, torch.stack(wanted), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(seen.vectors, axis=1), 1, atol=1e-5)
    # The gallery's side.
    np.testing.assert_allclose(method.see(images, None).vectors, image, rtol=1e-3, atol=1e-4)
    assert np.abs(method.see(images, "the blue dog").vectors - seen.vectors).max() > 1e-4
    assert not method.card.gallery_takes_prompt


def _combined_by_hand(w: dict[str, Tensor], image: Tensor, text: Tensor) -> Tensor:
    def linear(name: str, x: Tensor) -> Tensor:
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    both = torch.cat(
        [
            linear("text_projection_layer", text).clamp(min=0),
            linear("image_projection_layer", image).clamp(min=0),
        ]
    )
    share = 1 / (1 + torch.exp(-linear("dynamic_scalar.3", linear("dynamic_scalar.0", both).clamp(min=0))))
    out = (
        linear("output_layer", linear("combiner_layer", both).clamp(min=0))
        + share * text
        + (1 - share) * image
    )
    return out / out.norm()


def test_the_combiner_needs_both_its_files(
    clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        BenchmarkError, match=r"download https://.*vitb16_backbone\.pt and .*genecis-combiner=FOLDER"
    ):
        baselines.load("genecis-combiner")
    torch.save(
        {f"module.{key}": value for key, value in clip.state_dict().items()}, tmp_path / combiner.BACKBONE
    )
    with pytest.raises(BenchmarkError, match="download"):
        baselines.load(f"genecis-combiner={tmp_path}")
    head = combiner.CombinerHead(dim=32, projected=12, hidden=24)
    assert set(head.state_dict()) == {
        f"{layer}.{kind}"
        for layer in (
            "text_projection_layer", "image_projection_layer", "combiner_layer", "output_layer", "dynamic_scalar.0",
            "dynamic_scalar.3",
        )
        for kind in ("weight", "bias")
    }  # fmt: skip
    torch.save(head.state_dict(), tmp_path / combiner.HEAD)
    monkeypatch.setattr(combiner, "VIT_B_16", SHAPE)
    monkeypatch.setattr(combiner, "PROJECTED", 12)
    monkeypatch.setattr(combiner, "HIDDEN", 24)
    loaded = baselines.load(f"genecis-combiner={tmp_path}", device="cpu")
    assert loaded.see(pictures(1), "the cat").vectors.shape == (1, 32)
    assert loaded.settings["weights"].count("+") == 1


def test_without_open_clip_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    for name in ("flair", "winclip"):
        with pytest.raises(
            BenchmarkError, match=rf"{name} needs open_clip: pip install 'steersearch\[baselines\]'"
        ):
            baselines.load(name)
