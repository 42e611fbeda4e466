"""A SAM 2 model of random weights, small enough to run in milliseconds, saved as the published ones are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SIDE = 64
_VISION = {
    "backbone_config": {
        "model_type": "sam2_hiera_det_model",
        "image_size": [SIDE, SIDE],
        "hidden_size": 8,
        "blocks_per_stage": [1, 1, 1, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [4, 4, 4, 4],
        "global_attention_blocks": [],
        "window_positional_embedding_background_size": [2, 2],
    },
    "backbone_channel_list": [64, 32, 16, 8],
    "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    "fpn_hidden_size": 32,
}
_PROMPTS = {"hidden_size": 32, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 4}
_DECODER = {"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16}


def save_small_sam2(folder: Path, seed: int = 0, *, video: bool = False) -> Path:
    """video: as the published files are, with the memory of the video model, which pictures do not need."""
    import torch
    from transformers import (
        Sam2Config,
        Sam2Model,
        Sam2VideoConfig,
        Sam2VideoMaskDecoderConfig,
        Sam2VideoModel,
    )

    parts: dict[str, Any] = {
        "vision_config": _VISION,
        "prompt_encoder_config": _PROMPTS,
        "mask_decoder_config": _DECODER,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if video:
            memory = {
                "memory_attention_hidden_size": 32, "memory_attention_feed_forward_hidden_size": 32,
                "memory_attention_num_layers": 1, "memory_encoder_hidden_size": 32,
                "memory_encoder_output_channels": 16,
                "memory_fuser_embed_dim": 32, "memory_fuser_intermediate_dim": 32, "image_size": SIDE,
            }  # fmt: skip
            # Below 5.15 not from a dict.
            parts["mask_decoder_config"] = Sam2VideoMaskDecoderConfig(**_DECODER)
            model: Any = Sam2VideoModel(Sam2VideoConfig(**parts, **memory))
        else:
            model = Sam2Model(Sam2Config(**parts))
        for parameter in model.parameters():  # larger than a model begins with, so that masks have shapes
            parameter.data += 0.15 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return folder
