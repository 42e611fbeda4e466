"""InternVL3, Qwen3-VL and LFM2.5-VL as baselines, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steersearch.benchmarks import baselines
from steersearch.benchmarks.baselines.chat import INSTRUCTION, Chat
from steersearch.benchmarks.baselines.pretrained import Pretrained
from steersearch.core.errors import BenchmarkError
from tests.small_baselines import (
    assert_batching_changes_nothing,
    assert_close_in_bfloat16,
    halved,
    pictures,
    randomise,
    word_tokenizer,
)

CPU = torch.device("cpu")
SIDE = 64
TEMPLATE = (
    "{% for message in messages %}<user>{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}PICTURE{% else %} {{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}<answer>{% endif %}"
)
_LANGUAGE = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def _tokenizer(*specials: str, **named: str) -> Any:
    return word_tokenizer(["<pad>", "<user>", "<answer>", *specials], extra_special_tokens=named)


def internvl() -> Pretrained:
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
    )

    tokenizer = _tokenizer(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<context>",
        video_token="<video>",
    )
    config = InternVLConfig(
        vision_config={
            "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": SIDE, "patch_size": 8,
        },
        text_config={"model_type": "qwen2", **_LANGUAGE},
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=16,
    )  # fmt: skip
    images = GotOcr2ImageProcessor(size={"height": SIDE, "width": SIDE})
    template = TEMPLATE.replace("PICTURE", "<context>")
    processor = InternVLProcessor(
        images, tokenizer, InternVLVideoProcessor(), image_seq_length=16, chat_template=template
    )
    return Pretrained(randomise(InternVLForConditionalGeneration(config)), processor, "source", CPU)


def qwen3_vl() -> Pretrained:
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    tokenizer = _tokenizer("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in (
            ("image", "image_pad"),
            ("video", "video_pad"),
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        )
    }
    config = Qwen3VLConfig(
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "patch_size": 8,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 32, "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        text_config=_LANGUAGE | {"head_dim": 16, "rope_parameters": {
            "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True,
        }},
        **ids,
    )  # fmt: skip
    images = Qwen2VLImageProcessor(
        patch_size=8,
        merge_size=2,
        temporal_patch_size=2,
        size={"shortest_edge": 16 * 16, "longest_edge": 128 * 128},
    )
    template = TEMPLATE.replace("PICTURE", "<|vision_start|><|image_pad|><|vision_end|>")
    processor = Qwen3VLProcessor(images, tokenizer, Qwen3VLVideoProcessor(), chat_template=template)
    return Pretrained(randomise(Qwen3VLForConditionalGeneration(config)), processor, "source", CPU)


def lfm2_vl() -> Pretrained:
    from transformers import (
        Lfm2VlConfig,
        Lfm2VlForConditionalGeneration,
        Lfm2VlImageProcessor,
        Lfm2VlProcessor,
    )

    tokenizer = _tokenizer("<image>", "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>")
    config = Lfm2VlConfig(
        vision_config={
            "model_type": "siglip2_vision_model", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "patch_size": 8, "num_patches": 16,
        },
        text_config={"model_type": "lfm2", **_LANGUAGE, "layer_types": ["conv", "full_attention"], "block_ff_dim": 48},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        projector_hidden_size=24,
    )  # fmt: skip
    images = Lfm2VlImageProcessor(
        encoder_patch_size=8,
        downsample_factor=2,
        min_image_tokens=4,
        max_image_tokens=64,
        max_num_patches=256,
    )
    processor = Lfm2VlProcessor(images, tokenizer, chat_template=TEMPLATE.replace("PICTURE", "<image>"))
    return Pretrained(randomise(Lfm2VlForConditionalGeneration(config)), processor, "source", CPU)


KINDS: dict[str, Callable[[], Pretrained]] = {
    "internvl3-1b": internvl,
    "qwen3-vl-2b": qwen3_vl,
    "lfm2.5-vl-1.6b": lfm2_vl,
}
_made: dict[str, Pretrained] = {}


@pytest.fixture(params=KINDS)
def method(request: pytest.FixtureRequest) -> Chat:
    name = request.param
    if name not in _made:
        _made[name] = KINDS[name]()
    return Chat(_small(name), _made[name])


def _small(name: str) -> baselines.Card:
    """The card of a model whose pictures have 64 instead of its hundreds of pixels."""
    card = baselines.CARDS[name]
    return replace(card, settings={**card.settings, "side": SIDE})


def test_the_last_state_of_the_last_token(method: Chat) -> None:
    images = pictures(size=(70, 50))
    seen = assert_batching_changes_nothing(method, images, "the red cat", patches=True)
    assert seen.vectors.shape == (3, 32)
    assert seen.patches is not None
    assert seen.patches.shape == (3, 4, 4, 32)

    given = method.processor(
        text=[method._text("the red cat")],
        images=[[images[0].resize((SIDE, SIDE))]],
        return_tensors="pt",
        **({"crop_to_patches": False} if method.kind == "internvl" else {}),
    )
    with torch.no_grad():
        found = method.model(**given, output_hidden_states=True)
    last = found.hidden_states[-1][0]  # after the final norm: what the next word is chosen from
    torch.testing.assert_close(method.model.lm_head(last), found.logits[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(seen.vectors[0], last[-1], rtol=1e-3, atol=1e-4)
    of_picture = given["input_ids"][0] == method.model.config.image_token_id
    np.testing.assert_allclose(seen.patches[0].reshape(16, 32), last[of_picture], rtol=1e-3, atol=1e-4)


def test_the_prompt_comes_before_the_picture_and_changes_all_after_it(method: Chat) -> None:
    text = method._text("the red cat")
    assert text.index("the red cat") < text.index("<", len("<user>")) < text.index(INSTRUCTION)
    assert text.endswith("<answer>")
    images = pictures()
    red, blue = (method.see(images, prompt, patches=True) for prompt in ("the red cat", "the blue dog"))
    assert np.abs(red.vectors - blue.vectors).max() > 1e-3
    assert red.patches is not None
    assert blue.patches is not None
    assert np.abs(red.patches - blue.patches).max() > 1e-3
    without = method.see(images, None)
    assert "the red cat" not in method._text(None)
    assert np.abs(red.vectors - without.vectors).max() > 1e-3
    assert np.abs(red.vectors[0] - red.vectors[1]).max() > 1e-3  # the picture counts too


def test_what_a_chat_cannot_give(method: Chat) -> None:
    with pytest.raises(BenchmarkError, match="has no heatmap: it answers in words"):
        method.see(pictures(1), "the cat", maps=True)


def test_weights_in_bfloat16(method: Chat) -> None:
    half = Chat(method.card, halved(_made[method.name]))
    assert_close_in_bfloat16(method, half, "the red cat", patches=True)


def test_loading_from_a_folder(method: Chat, tmp_path: Path) -> None:
    method.model.save_pretrained(tmp_path)
    method.processor.save_pretrained(tmp_path)
    loaded = baselines.load(f"{method.name}={tmp_path}", device="cpu")
    assert isinstance(loaded, Chat)
    again = Chat(_small(method.name), Pretrained(loaded.model, loaded.processor, "source", CPU))
    wanted = method.see(pictures(1), "the cat").vectors
    np.testing.assert_allclose(again.see(pictures(1), "the cat").vectors, wanted, rtol=1e-3, atol=1e-4)
