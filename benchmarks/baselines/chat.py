"""Vision-language models (InternVL3, Qwen3-VL, LFM2.5-VL), instructed to describe a picture in one word under a prompt.

As in E5-V (arXiv 2407.12580), the state from which the first word of the answer would be predicted represents the
picture. The paper gives the order (prompt, picture, instruction), not the words; all words are ours.
Qwen3-VL-Embedding was trained to embed under an instruction, and is given the prompt as one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from steersearch.benchmarks.baselines.base import Outputs, Wanted, on_grid
from steersearch.benchmarks.baselines.cards import Card
from steersearch.benchmarks.baselines.pretrained import Pretrained, PretrainedBaseline, pretrained

INSTRUCTION = "Summarise the above image in one word:"
DEFAULT = "Represent the user's input."  # the instruction of Qwen3-VL-Embedding if none is given

# One view per picture: no tiles at a finer scale.
_IMAGE_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "internvl": {"crop_to_patches": False},
    "qwen3_vl": {},
    "lfm2_vl": {"do_image_splitting": False},
}


def load(card: Card, weights: Path | None, device: str) -> Chat:
    return Chat(card, pretrained(card, weights, device, "AutoModelForImageTextToText"))


class Chat(PretrainedBaseline):
    """Last hidden state of the last token; patches are the last hidden states at the picture's tokens.

    Both are taken after the language model's final norm. Pictures are squashed to `settings["side"]` pixels, so that
    all have the same number of tokens and no batch is padded.
    """

    def __init__(self, card: Card, loaded: Pretrained) -> None:
        said = {"instruction": INSTRUCTION} | dict(card.settings)
        super().__init__(card, loaded, **said)
        self._instruction: str | None = card.settings.get("instruction")
        self.kind, self.side = str(card.settings["kind"]), int(card.settings["side"])

    def _see(self, pictures: Sequence[Image.Image], prompt: str | None, wanted: Wanted) -> Outputs:
        squares = [[picture.resize((self.side, self.side), Image.Resampling.BICUBIC)] for picture in pictures]
        given = self.processor(
            text=[self._text(prompt)] * len(pictures),
            images=squares,
            return_tensors="pt",
            **_IMAGE_OPTIONS[self.kind],
        ).to(self.device)
        given["pixel_values"] = given["pixel_values"].to(self.dtype)
        states = self.model.model(**given, use_cache=False).last_hidden_state.float()  # (B, L, D)
        patches = None
        if wanted.patches:
            of_picture = given["input_ids"] == self.model.config.image_token_id
            seen = states[of_picture].reshape(len(pictures), -1, states.shape[-1])  # row by row
            side = math.isqrt(seen.shape[1])
            patches = on_grid(seen, (side, side))
        return Outputs(vectors=states[:, -1], patches=patches)

    def _text(self, prompt: str | None) -> str:
        """The conversation in the model's template, up to where the answer begins."""
        said = [] if prompt is None else [_text(prompt)]
        turns = [{"role": "user", "content": [*said, {"type": "image"}, _text(INSTRUCTION)]}]
        if self._instruction is not None:
            asked = DEFAULT if prompt is None else self._instruction.format(prompt)
            turns = [
                {"role": "system", "content": [_text(asked)]},
                {"role": "user", "content": [{"type": "image"}]},
            ]
        text: str = self.processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        return text


def _text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said}
