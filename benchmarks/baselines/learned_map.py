"""A learned map over fixed vectors, after QuARI's idea (arXiv 2505.21647): the text makes a linear map of the space.

A small network turns the prompt's embedding into a map of low rank, y = x + U(Vᵀ x), for query and gallery; the
pictures are embedded once for all prompts. Its authors map by the query's own embedding and train on their own
retrieval data; ours maps by the prompt, and `fit` trains it on any vectors; `bench build learned-map` on those of
generated photos. Our own code and file format: {"hidden.weight", "hidden.bias", "left.weight", "right.weight"} as
safetensors, with the hash of the model whose vectors it maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from steersearch.benchmarks.baselines.base import DTYPE, FixedVectors
from steersearch.benchmarks.baselines.cards import Card
from steersearch.core.errors import BenchmarkError, CheckpointError, OutputError
from steersearch.core.files import remembered_sha256, write_atomically
from steersearch.core.predictor import Predictor

HIDDEN, RANK, TEMPERATURE = 256, 16, 0.07
UNDER = "under"  # in a file's metadata


class PromptMap(nn.Module):
    """(B, D) vectors and one (Dt,) text embedding -> (B, D) vectors under the prompt."""

    def __init__(self, text_dim: int, dim: int, hidden: int = HIDDEN, rank: int = RANK) -> None:
        super().__init__()
        self.rank = rank
        self.hidden = nn.Linear(text_dim, hidden)
        self.left, self.right = (nn.Linear(hidden, dim * rank, bias=False) for _ in range(2))

    def forward(self, vectors: Tensor, text: Tensor) -> Tensor:
        inner = F.gelu(self.hidden(F.normalize(text, dim=-1)))
        left, right = (each(inner).view(-1, self.rank) for each in (self.left, self.right))  # (D, rank)
        mapped: Tensor = vectors + (vectors @ right) @ left.T
        return mapped

    def save(self, file: Path, under: str) -> None:
        """under: hash of the weights whose vectors it was fitted on. Raises OutputError."""
        try:
            write_atomically(file, lambda part: part.write(save(self.state_dict(), {UNDER: under})))
        except OSError as error:
            raise OutputError(file, error.strerror or str(error)) from error

    @classmethod
    def read(cls, file: Path, under: str) -> PromptMap:
        """under: hash of the weights whose vectors it is to map. Raises CheckpointError for a file that is not one for
        them."""
        try:
            with safe_open(file, "pt") as opened:
                fitted = (opened.metadata() or {}).get(UNDER)
            state = load_file(file)
            hidden, text_dim = state["hidden.weight"].shape
            wide = state["left.weight"].shape[0]
            made = cls(text_dim, wide // RANK, hidden)
            made.load_state_dict(state)
        except Exception as error:  # safetensors raises an error of its own
            raise CheckpointError(f"{file}: no map that learned_map.fit made ({error})") from error
        if fitted != under:
            raise CheckpointError(
                f"{file}: fitted on vectors of other weights ({str(fitted)[:8]}, not {under[:8]}); fit it again"
            )
        return made


def fit(groups: Sequence[tuple[Tensor, Tensor, Tensor]], steps: int = 300, rate: float = 3e-3) -> PromptMap:
    """Train on groups: (text (Dt,), vectors (n, D) of unit length, labels (n,) of what each shows of the prompt).

    By InfoNCE: under the prompt, vectors of one label should lie nearer to each other than to the others.
    """
    text, vectors, _ = groups[0]
    torch.manual_seed(0)
    learned = PromptMap(len(text), vectors.shape[1])
    nn.init.normal_(learned.left.weight, std=0.02)
    optimiser = torch.optim.AdamW(learned.parameters(), rate)
    for step in range(steps):
        text, vectors, labels = groups[step % len(groups)]
        mapped = F.normalize(learned(vectors, text), dim=-1)
        itself = torch.eye(len(mapped), dtype=torch.bool)
        scores = (mapped @ mapped.T / TEMPERATURE).masked_fill(itself, -torch.inf)
        same = (labels[:, None] == labels) & ~itself
        chances = scores.softmax(dim=1)[same.any(dim=1)]
        loss = -(chances * same[same.any(dim=1)]).sum(dim=1).clamp_min(1e-9).log().mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return learned.eval()


def load(card: Card, weights: Path | None, device: str) -> LearnedMap:
    """weights: the map's file. Raises BenchmarkError without one."""
    if weights is None:
        raise BenchmarkError(
            f"{card.name}: fit a map (steersearch bench build learned-map -o FILE) and give its file: {card.name}=FILE"
        )
    model = Predictor.from_pretrained("mini", device=device, dtype=DTYPE)
    return LearnedMap(card, PromptMap.read(weights, model.weights_hash), model, remembered_sha256(weights))


class LearnedMap(FixedVectors):
    """The unsteered vectors of our model, mapped under the prompt."""

    def __init__(self, card: Card, learned: PromptMap, model: Predictor, source: str) -> None:
        super().__init__(
            card, learned.to(model.device), source, model.device, model.batch_size, under=model.weights_hash
        )
        self._unsteered = model

    def _embed(self, pictures: Sequence[Image.Image]) -> Tensor:
        return unsteered(self._unsteered, pictures)

    def _under(self, vectors: Tensor, prompt: str) -> Tensor:
        mapped: Tensor = self.model(vectors, text_of(self._unsteered, prompt).to(self.device))
        return mapped


def unsteered(model: Predictor, pictures: Sequence[Image.Image]) -> Tensor:
    """(B, D) at unit length: what the map takes."""
    return model.embed(pictures, aggregation="cls").to(model.device)


def text_of(model: Predictor, prompt: str) -> Tensor:
    """(Dt,): the mean of the prompt's tokens, what `fit` takes too."""
    return torch.from_numpy(model.encode_prompt(prompt).tokens.copy()).mean(dim=0)
