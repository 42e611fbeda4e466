"""A subspace of texts over fixed vectors, without training: pictures are compared in the directions of a prompt.

The directions are those of the prompt and its nearest words: two pictures are alike if they respond alike to these
words. The gallery's vectors are the same for every prompt. This is our own reading of CLAY's abstract (arXiv
2604.11539): conditional similarity from fixed embeddings, without training, in a space made by the text. Vocabulary,
number of words and rank are ours; no figure of it stands for the paper's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from steersearch.benchmarks.baselines.base import DTYPE, RESOLUTION, FixedVectors
from steersearch.benchmarks.baselines.cards import Card
from steersearch.benchmarks.baselines.clip import text_embedding
from steersearch.benchmarks.baselines.pretrained import Pretrained, pixels_of, pretrained
from steersearch.core.cross_attention import FoldedCrossAttention
from steersearch.core.predictor import Predictor
from steersearch.core.vectors import Aggregation
from steersearch.training.world.kinds import KINDS
from steersearch.training.world.stamps import HELD_OUT_NOUNS

VOCABULARY = tuple(f"the {noun}" for noun in sorted({*KINDS, *HELD_OUT_NOUNS}))
WORDS = 16  # nearest to the prompt, itself among them
RANK = 8

Texts = Callable[[str], Tensor]  # (D',) a text's embedding, by which the nearest words are chosen
Directions = Callable[[str], Tensor]  # (n, D) that a picture's vector is compared with


def load(card: Card, weights: Path | None, device: str) -> TextSubspace:
    """weights: CLIP's folder; for text-subspace a model's file."""
    if card.repo is None:
        return over_steervit(card, Predictor.from_pretrained(weights or "mini", device=device, dtype=DTYPE))
    return over_clip(card, pretrained(card, weights, device, "CLIPModel"))


class TextSubspace(FixedVectors):
    """Fixed vectors; under a prompt, their part in the subspace of its words."""

    def __init__(
        self,
        card: Card,
        model: nn.Module,
        source: str,
        embed: Callable[[Sequence[Image.Image]], Tensor],
        texts: Texts,
        directions: Directions,
        device: torch.device,
        batch_size: int = 16,
    ) -> None:
        chosen = {"vocabulary": VOCABULARY, "words": WORDS, "rank": RANK}
        super().__init__(card, model, source, device, batch_size, **chosen)
        self._embedded, self._texts, self._directions = embed, texts, directions
        self._known: dict[str, Tensor] = {}
        self._bases: dict[str, Tensor] = {}

    def _embed(self, pictures: Sequence[Image.Image]) -> Tensor:
        return F.normalize(self._embedded(pictures), dim=-1)

    def _under(self, vectors: Tensor, prompt: str) -> Tensor:
        """Of the same width, and with the cosines of coordinates."""
        basis = self.basis(prompt).to(vectors)
        return vectors @ basis @ basis.T

    @torch.no_grad()
    def basis(self, prompt: str) -> Tensor:
        """(D, rank) orthonormal: how the prompt and its nearest words differ from all words."""
        if prompt not in self._bases:
            own = F.normalize(self._texts(prompt), dim=-1)
            known = torch.stack([self._text(word) for word in VOCABULARY])
            order = (known @ own).argsort(descending=True).tolist()
            near = [prompt, *(VOCABULARY[i] for i in order if VOCABULARY[i] != prompt)][:WORDS]
            everything = torch.cat([self._directions(word) for word in VOCABULARY])
            away = torch.cat([self._directions(word) for word in near]) - everything.mean(dim=0)
            self._bases[prompt] = torch.linalg.svd(away.float(), full_matrices=False).Vh[:RANK].T
        return self._bases[prompt]

    def _text(self, word: str) -> Tensor:
        if word not in self._known:
            self._known[word] = F.normalize(self._texts(word), dim=-1)
        return self._known[word]


def over_clip(card: Card, loaded: Pretrained, side: int | None = RESOLUTION) -> TextSubspace:
    """CLIP's image embeddings, in directions that are its text embeddings."""

    class Seen:
        model, processor, device = loaded.model, loaded.processor, loaded.device
        dtype = next(loaded.model.parameters()).dtype

    def embed(pictures: Sequence[Image.Image]) -> Tensor:
        pixels = pixels_of(Seen, pictures, side)
        found: Tensor = loaded.model.get_image_features(pixels, interpolate_pos_encoding=True).pooler_output
        return found.float()

    def text(said: str) -> Tensor:
        return text_embedding(Seen, said)[0]

    def direction(said: str) -> Tensor:
        return F.normalize(text(said), dim=-1)[None]

    return TextSubspace(card, loaded.model, loaded.source, embed, text, direction, loaded.device)


def over_steervit(card: Card, model: Predictor) -> TextSubspace:
    """The unsteered backbone's vectors, in the directions of the last cross-attention's keys for a word."""
    kind: Aggregation = "cls" if model.model.num_prefix_tokens else "mean"

    def text(said: str) -> Tensor:
        return torch.from_numpy(model.encode_prompt(said).tokens.copy()).mean(dim=0)

    def directions(said: str) -> Tensor:
        steering = model.steering(model.encode_prompts([said]))
        last = steering.layers[max(steering.layers)][-1]
        assert isinstance(last, FoldedCrossAttention)
        return F.normalize(last.queries.float(), dim=-1)

    return TextSubspace(
        card,
        model.model,
        model.weights_hash,
        lambda pictures: model.embed(pictures, aggregation=kind),
        text,
        directions,
        model.device,
        model.batch_size,
    )
