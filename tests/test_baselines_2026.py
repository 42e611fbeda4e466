"""Baselines that the paper lacks: with random weights where they need some, else with the bundled model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from steersearch.benchmarks import baselines
from steersearch.benchmarks.baselines import learned_map, learned_map_data
from steersearch.benchmarks.baselines.chat import DEFAULT, Chat
from steersearch.benchmarks.baselines.detect_crop import (
    WHOLE,
    DetectCrop,
    box_of,
    cropped,
    grounding_dino_boxes,
)
from steersearch.benchmarks.baselines.learned_map import PromptMap
from steersearch.benchmarks.baselines.pretrained import Pretrained
from steersearch.benchmarks.baselines.text_subspace import RANK, TextSubspace, over_clip
from steersearch.benchmarks.baselines.tipsv2 import Tipsv2
from steersearch.benchmarks.harness.embeddings import pair_vectors
from steersearch.core.errors import BenchmarkError, CheckpointError
from steersearch.core.predictor import Predictor
from tests.conftest import Run
from tests.small_baselines import assert_batching_changes_nothing, pictures, randomise, word_tokenizer
from tests.test_baseline_chat import qwen3_vl
from tests.test_baseline_clip import clip
from tests.test_baseline_detectors import grounding_dino

__all__ = ["clip", "grounding_dino"]  # fixtures
CPU = torch.device("cpu")


def test_every_baseline_that_the_paper_lacks_says_why_it_is_here() -> None:
    ours = {card.name for card in baselines.CARDS.values() if card.why}
    assert ours == {
        "qwen3-vl-embedding", "tipsv2", "detect-crop", "heatmap-crop", "clip-subspace", "text-subspace", "learned-map",
    }  # fmt: skip
    document = Path(__file__).parents[1] / "docs" / "baselines.md"
    assert [name for name in baselines.NAMES if f"`{name}`" not in document.read_text("utf-8")] == []


# ------------------------------------------------------------------------------------------ with random weights


def test_an_instruction_embedder_is_given_the_prompt_as_its_instruction() -> None:
    loaded = qwen3_vl()
    loaded.processor.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'][0]['text'] }}{% else %}<user>"
        "<|vision_start|><|image_pad|><|vision_end|>{% endif %}{% endfor %}<answer>"
    )
    method = Chat(baselines.CARDS["qwen3-vl-embedding"], loaded)
    method.side = 64
    pictured = "<user><|vision_start|><|image_pad|><|vision_end|><answer>"
    assert method._text("the cat") == f"Represent the image by what it shows of: the cat{pictured}"
    assert method._text(None) == f"{DEFAULT}{pictured}"
    images = pictures(3)
    seen = assert_batching_changes_nothing(method, images, "the cat", patches=True)
    assert np.abs(method.see(images, "the dog").vectors - seen.vectors).max() > 1e-4
    with pytest.raises(BenchmarkError, match="has no heatmap: it answers with a vector"):
        method.see(images, "the cat", maps=True)


@pytest.fixture(scope="module")
def tipsv2() -> Pretrained:
    from transformers import Tipsv2Config, Tipsv2ImageProcessor, Tipsv2Model, Tipsv2Processor

    config = Tipsv2Config(
        text_config={
            "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 12,
        },
        vision_config={
            "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 7,
        },
    )  # fmt: skip
    tokenizer = word_tokenizer(["<pad>", "<s>", "</s>"], bos="<s>", eos="</s>")
    images = Tipsv2ImageProcessor(size={"height": 28, "width": 28})
    return Pretrained(randomise(Tipsv2Model(config)), Tipsv2Processor(images, tokenizer), "source", CPU)


def test_tipsv2_pools_its_patches_by_its_own_heatmap(tipsv2: Pretrained) -> None:
    method = Tipsv2(baselines.CARDS["tipsv2"], tipsv2)
    images = pictures(3)
    seen = assert_batching_changes_nothing(method, images, "the red cat", patches=True, maps=True)
    assert seen.patches is not None
    assert seen.maps is not None
    assert seen.patches.shape == (3, 4, 4, 16)
    weights = torch.from_numpy(seen.maps.reshape(3, 16)).softmax(dim=1).numpy()
    np.testing.assert_allclose(
        seen.vectors, (weights[..., None] * seen.patches.reshape(3, 16, 16)).sum(axis=1), rtol=1e-3, atol=1e-4
    )
    told = tipsv2.processor(text=["the red cat"], images=images, return_tensors="pt", max_length=12)
    with torch.no_grad():
        out = tipsv2.model(**told)
    plain = method.see(images, None)
    np.testing.assert_allclose(plain.vectors, out.vision_model_output.pooler_output, atol=1e-4)
    text = torch.nn.functional.normalize(out.text_embeds[0], dim=-1).numpy()
    unit = seen.patches / np.linalg.norm(seen.patches, axis=-1, keepdims=True)
    np.testing.assert_allclose(
        seen.maps, unit @ text / tipsv2.model.config.temperature_init_value, rtol=1e-3, atol=2e-2
    )
    with pytest.raises(BenchmarkError, match="tipsv2 has no heatmap without a prompt"):
        method.see(images, None, maps=True)


def test_tipsv2_loads_from_a_folder(tipsv2: Pretrained, tmp_path: Path) -> None:
    tipsv2.model.save_pretrained(tmp_path)
    tipsv2.processor.image_processor.save_pretrained(tmp_path)
    tipsv2.processor.tokenizer.save_pretrained(tmp_path)
    tipsv2.processor.save_pretrained(tmp_path)
    loaded: Any = baselines.load(f"tipsv2={tmp_path}", device="cpu")
    assert loaded.side == 336
    loaded.side = None
    wanted = Tipsv2(baselines.CARDS["tipsv2"], tipsv2).see(pictures(1), "the red cat").vectors
    np.testing.assert_allclose(loaded.see(pictures(1), "the red cat").vectors, wanted, atol=1e-4)


def test_the_box_that_grounding_dino_is_surest_of(grounding_dino: Pretrained) -> None:
    detect = grounding_dino_boxes(grounding_dino, 128)
    images = pictures(2, size=(60, 50))
    with torch.inference_mode():
        boxes = detect(images, "the red cat")
    assert len(boxes) == 2
    assert all(0 <= left <= right <= 1 and 0 <= top <= bottom <= 1 for left, top, right, bottom in boxes)
    with torch.inference_mode():
        given = grounding_dino.processor(
            images=[image.resize((128, 128), Image.Resampling.BICUBIC) for image in images],
            text=["the red cat."] * 2, size={"height": 128, "width": 128}, return_tensors="pt",
        )  # fmt: skip
        found = grounding_dino.model(**given)
        best = found.logits[0].sigmoid().amax(dim=-1).argmax()
    x, y, width, height = found.pred_boxes[0, best].tolist()
    np.testing.assert_allclose(
        boxes[0],
        np.clip([x - width / 2, y - height / 2, x + width / 2, y + height / 2], 0, 1), atol=1e-5,
    )  # fmt: skip


def test_a_subspace_of_clips_texts(clip: Pretrained) -> None:
    method = over_clip(baselines.CARDS["clip-subspace"], clip, 32)
    _is_a_subspace(method, pictures(4), clip.model.config.projection_dim)


# --------------------------------------------------------------------------------------------- crops and maps


def test_the_box_around_the_strongest_patch() -> None:
    heat = np.zeros((4, 8), np.float32)
    heat[1, 2], heat[1, 3], heat[2, 3] = 1.0, 0.6, 0.5
    heat[3, 7] = 0.9  # as warm, but elsewhere
    heat[1, 4] = 0.4
    assert box_of(heat) == (2 / 8, 1 / 4, 4 / 8, 3 / 4)


def test_a_crop_has_a_margin_and_is_never_empty() -> None:
    picture = Image.new("RGB", (200, 100))
    assert cropped(picture, WHOLE) is picture
    assert cropped(picture, (0.25, 0.2, 0.75, 0.6)).size == (120, 48)
    assert cropped(picture, (0.0, 0.0, 0.5, 1.0)).size == (110, 100)  # cut off at the border
    assert cropped(picture, (1.0, 1.0, 1.0, 1.0)).size == (5, 2)


def test_what_lies_in_the_box_is_embedded_and_nothing_else() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

    def colours(pictures: Any) -> Any:
        return np.stack([np.asarray(p, np.float32).mean(axis=(0, 1)) for p in pictures])

    card = baselines.CARDS["heatmap-crop"]
    method = DetectCrop(
        card, Net(), "none", lambda p, prompt: [(0.5, 0.5, 0.9, 0.9)] * len(p), colours, CPU, 2
    )
    picture = Image.new("RGB", (100, 100), (0, 0, 255))
    picture.paste((255, 0, 0), (40, 40, 100, 100))
    np.testing.assert_array_equal(method.see([picture] * 3, "the mug").vectors, [[255, 0, 0]] * 3)
    assert method.see([picture], None).vectors[0, 2] == pytest.approx(255 * 0.64)


def test_the_bundled_model_crops_to_what_the_prompt_names() -> None:
    method = baselines.load("heatmap-crop", device="cpu")
    images = pictures(2, size=(64, 48))
    named, plain = method.see(images, "the mug").vectors, method.see(images, None).vectors
    assert named.shape == plain.shape == (2, 192)
    assert np.abs(named - plain).max() > 1e-3
    assert method.weights_hash == baselines.load("text-subspace", device="cpu").weights_hash


def test_a_subspace_of_the_bundled_models_words() -> None:
    method: Any = baselines.load("text-subspace", device="cpu")
    _is_a_subspace(method, pictures(3, size=(64, 48)), 192)


def _is_a_subspace(method: TextSubspace, images: list[Image.Image], dim: int) -> None:
    basis = method.basis("the cat")
    assert basis.shape == (dim, RANK)
    torch.testing.assert_close(basis.T @ basis, torch.eye(RANK), atol=1e-4, rtol=0)
    plain, named = method.see(images, None).vectors, method.see(images, "the cat").vectors
    np.testing.assert_allclose(named @ basis.numpy(), plain @ basis.numpy(), atol=1e-4)
    assert named.shape == plain.shape
    assert not torch.allclose(
        basis @ basis.T, method.basis("the ball") @ method.basis("the ball").T, atol=1e-2
    )


def test_a_learned_map_brings_together_what_is_alike_under_the_prompt(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    texts = torch.eye(2, 384)
    vectors = torch.nn.functional.normalize(torch.randn(64, 192, generator=generator), dim=-1)
    shape, colour = (vectors[:, 0] > 0).long(), (vectors[:, 1] > 0).long()
    learned = learned_map.fit([(texts[0], vectors, shape), (texts[1], vectors, colour)], steps=60)
    learned.save(tmp_path / "map.safetensors", "ab" * 32)
    with pytest.raises(
        CheckpointError, match=r"vectors of other weights \(abababab, not cdcdcdcd\); fit it again"
    ):
        PromptMap.read(tmp_path / "map.safetensors", "cd" * 32)
    kept = PromptMap.read(tmp_path / "map.safetensors", "ab" * 32)
    for text, labels in ((texts[0], shape), (texts[1], colour)):
        with torch.no_grad():
            mapped = torch.nn.functional.normalize(kept(vectors, text), dim=-1)
        before, after = (
            (labels[(each @ each.T).fill_diagonal_(-1).argmax(dim=1)] == labels).float().mean()
            for each in (vectors, mapped)
        )
        assert before < 0.7
        assert after > 0.9


def test_a_learned_map_needs_a_file(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"learned-map: fit a map .* give its file: learned-map=FILE"):
        baselines.load("learned-map", device="cpu")
    (tmp_path / "none.safetensors").write_bytes(b"no map")
    with pytest.raises(CheckpointError, match=r"no map that learned_map\.fit made"):
        baselines.load(f"learned-map={tmp_path / 'none.safetensors'}", device="cpu")


def test_one_command_fits_the_map_that_the_baseline_takes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"SIZE": 64, "LOOKS": 2, "PLATES": 1, "LEAST_SHOWN": 2}.items():
        monkeypatch.setattr(learned_map_data, name, value)
    done = run("bench", "build", "learned-map", "-o", "map.safetensors", "--photos", 12, "--steps", 3)
    assert done.code == 0, done.err
    assert re.search(r"\d+ names in 12 photos: map\.safetensors", done.err)
    method = baselines.load(f"learned-map={tmp_path / 'map.safetensors'}", device="cpu")
    images = pictures(2, size=(64, 48))
    plain = method.see(images, None).vectors
    assert plain.shape == (2, 192)
    assert np.abs(method.see(images, "the mug").vectors - plain).max() > 1e-4
    assert run("bench", "build", "learned-map", "-o", "map.pth").code == 2


@pytest.mark.parametrize("name", ["text-subspace", "learned-map"])
def test_fixed_vectors_are_embedded_once_whatever_the_prompts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEERSEARCH_CACHE", str(tmp_path / "cache"))
    model = Predictor.from_pretrained("mini", device="cpu")
    torch.manual_seed(0)
    PromptMap(384, 192).save(tmp_path / "map.safetensors", model.weights_hash)
    given = f"{name}={tmp_path / 'map.safetensors'}" if name == "learned-map" else name
    method: Any = baselines.load(given, device="cpu")
    images = pictures(5, size=(64, 48))
    seen = {prompt: method.see(images, prompt).vectors for prompt in (None, "the mug", "the cat")}
    counted, embed = [], method._embed
    monkeypatch.setattr(method, "_embed", lambda batch: counted.extend(batch) or embed(batch))

    class Listed:
        digest = "ab" * 32

        def __len__(self) -> int:
            return len(images)

        def read(self, number: int) -> Image.Image:
            return images[number]

    wanted: dict[str | None, Any] = {None: [0], "the mug": range(5), "the cat": [4, 1]}
    found = pair_vectors(method, Listed(), wanted)
    assert len(counted) == 5
    for prompt, numbers in wanted.items():
        assert list(found[prompt]) == list(numbers)
        for number in numbers:
            np.testing.assert_allclose(found[prompt][number], seen[prompt][number], atol=1e-5)
    assert np.abs(found["the cat"][1] - found["the mug"][1]).max() > 1e-3
