"""bench build core: edits that go on where they were, the review, the data set, and a tiny random pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from steersearch.benchmarks.paper import core_build, core_data
from steersearch.benchmarks.paper.core_build import (
    OBJECTS,
    box_mask,
    build,
    editor_of,
    plan,
    read_objects,
    scaled,
)
from steersearch.core.errors import BenchmarkError, ImageError, MissingExtraError
from tests.conftest import Run

TWO = {
    "kitchen": {"ball": "the red ball.", "cup": "the blue cup."},
    "park": {"ball": "the red ball.", "kite": "the kite."},
}


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """As SUN397 has them, with a file that is not a photo."""
    for scene, number in (("k/kitchen", 3), ("p/park", 2)):
        folder = tmp_path / "SUN397" / scene
        folder.mkdir(parents=True)
        for i in range(number):
            Image.new("RGB", (90, 60), (40 * i, 90, 90)).save(folder / f"sun_{i}.jpg")
        (folder / "notes.txt").write_text("none")
    return tmp_path / "SUN397"


class Painter:
    """An editor that fills the mask with a colour of the seed."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, photo: Image.Image, prompt: str, mask: Image.Image, seed: int) -> Image.Image:
        self.asked.append(prompt)
        return Image.composite(Image.new("RGB", photo.size, (seed % 200 + 50, 9, 9)), photo, mask)


def test_a_build_is_what_bench_core_reads(scenes: Path, tmp_path: Path) -> None:
    edits = plan(scenes, TWO, limit=2)
    made = build(edits, tmp_path / "core", Painter(), side=64)
    table = parquet.read_table(made)
    assert table.column_names == ["image", "scene", "object", "image_id", "prompt"]
    assert table.num_rows == 8
    data = core_data.load(tmp_path / "core", None)
    assert (data.source, data.n) == ("real", 8)
    review = (tmp_path / "core/review.html").read_text()
    assert review.count("<figure>") == 8
    assert "pictures/kitchen/kitchen-0000-ball.png" in review


def test_it_goes_on_where_it_was_stopped(scenes: Path, tmp_path: Path) -> None:
    edits, folder = plan(scenes, TWO), tmp_path / "core"

    def breaks(photo: Image.Image, prompt: str, mask: Image.Image, seed: int) -> Image.Image:
        if len(list(folder.rglob("*.png"))) == 3:
            raise KeyboardInterrupt
        return Painter()(photo, prompt, mask, seed)

    with pytest.raises(KeyboardInterrupt):
        build(edits, folder, breaks, side=64)
    assert not (folder / "data").exists()
    painter = Painter()
    build(edits, folder, painter, side=64)
    assert len(painter.asked) == len(edits) - 3 == 7
    whole = tmp_path / "whole"
    build(edits, whole, Painter(), side=64)
    for edit in edits:
        assert (folder / edit.file).read_bytes() == (whole / edit.file).read_bytes()
    with pytest.raises(BenchmarkError, match="other photos, prompts, side or seed"):
        build(edits, folder, Painter(), side=64, seed=1)


def test_what_is_rejected_is_left_out(scenes: Path, tmp_path: Path) -> None:
    edits, folder = plan(scenes, TWO, limit=1), tmp_path / "core"
    build(edits, folder, Painter(), side=64)
    (folder / "rejected.txt").write_text("\ufeffpictures/park/park-0000-kite.png\n\n", "utf-8")
    painter = Painter()
    made = build(edits, folder, painter, side=64)
    assert painter.asked == []
    assert parquet.read_table(made, columns=["object"]).to_pydict()["object"] == ["ball", "cup", "ball"]


def test_what_cannot_be_built_is_named(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match='no folder "bathroom"'):
        plan(scenes, {"bathroom": {"duck": "the duck."}})
    (scenes / "empty").mkdir()
    with pytest.raises(BenchmarkError, match="holds no photo"):
        plan(scenes, {"empty": {"duck": "the duck."}})
    black = lambda photo, prompt, mask, seed: Image.new("RGB", photo.size)  # noqa: E731
    with pytest.raises(ImageError, match=r"made a black picture for 'the red ball\.'"):
        build(plan(scenes, TWO), tmp_path / "black", black, side=64)


def test_objects_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "objects.json"
    path.write_text(json.dumps(TWO))
    assert read_objects(path) == TWO
    for text, reason in (
        ("{", "not JSON"),
        ("[]", "must be"),
        ('{"kitchen": {}}', "must be"),
        ('{"kitchen": {"ball": 3}}', "must be"),
        ('{"kitchen": {"../ball": "the ball."}}', '"../ball" cannot be part'),
    ):
        path.write_text(text)
        with pytest.raises(BenchmarkError, match=reason):
            read_objects(path)
    assert {len(objects) for objects in OBJECTS.values()} == {5}
    assert OBJECTS["park"]["baby_stroller"] == "the baby stroller."


def test_sizes_and_boxes_suit_a_pipeline() -> None:
    assert scaled(Image.new("RGB", (300, 200)), 512).size == (512, 336)
    assert scaled(Image.new("RGB", (3000, 20)), 64).size == (64, 16)
    for seed in range(50):
        box = box_mask((512, 336), seed).getbbox()
        assert box is not None
        assert box[1] >= 112
        assert 70 <= box[2] - box[0] <= 125
    assert box_mask((512, 336), 3).tobytes() == box_mask((512, 336), 3).tobytes()


class Instructed:
    """What an editing pipeline without a mask looks like."""

    def __call__(
        self, image: Image.Image, prompt: str, generator: object, num_inference_steps: int = 50
    ) -> object:
        self.prompt, self.steps = prompt, num_inference_steps
        return type("Made", (), {"images": [image.rotate(180)]})()


def test_a_pipeline_without_a_mask_is_asked_to_add() -> None:
    pipeline, photo = Instructed(), Image.effect_noise((32, 32), 50).convert("RGB")
    made = editor_of(pipeline, steps=4)(photo, "the red ball.", box_mask(photo.size, 0), 1)
    assert (pipeline.prompt, pipeline.steps) == ("Add the red ball and change nothing else.", 4)
    assert made.tobytes() == photo.rotate(180).tobytes()
    with pytest.raises(BenchmarkError, match="takes no picture"):
        editor_of(lambda prompt: None)


@pytest.mark.slow
def test_a_tiny_random_pipeline_of_diffusers(tmp_path: Path, scenes: Path, run: Run) -> None:
    pytest.importorskip("diffusers")
    write_tiny_inpainting(tmp_path / "tiny")
    (tmp_path / "objects.json").write_text(json.dumps(TWO))
    done = run(
        "bench", "build", "core", scenes, "-o", tmp_path / "core", "--pipeline", tmp_path / "tiny",
        "--objects", tmp_path / "objects.json", "--limit", 1, "--side", 64, "--steps", 2, "--device", "cpu",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "4 edits, 0 rejected" in done.err
    edit = plan(scenes, TWO, 1)[0]
    before = np.asarray(scaled(Image.open(edit.source), 64), int)
    changed = np.abs(np.asarray(Image.open(tmp_path / "core" / edit.file), int) - before).max(axis=-1) > 12
    assert changed.any()
    assert changed.mean() < 0.4  # only in and around its box


def write_tiny_inpainting(folder: Path) -> None:
    """A Stable Diffusion inpainting pipeline with random weights, some hundred thousand of them."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    folder.mkdir()
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=40)
    text = CLIPTextConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=40, projection_dim=16, bos_token_id=len(words) - 2, eos_token_id=len(words) - 1,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=9, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), norm_num_groups=4, attention_head_dim=2,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=16,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, sample_size=16,
    )  # fmt: skip
    StableDiffusionInpaintPipeline(
        vae=vae, text_encoder=CLIPTextModel(text), tokenizer=tokenizer, unet=unet, scheduler=DDIMScheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip


def test_without_diffusers_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingExtraError, match=r"steersearch\[build\]"):
        core_build.load_editor("any")
