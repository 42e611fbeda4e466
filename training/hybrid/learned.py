"""Writes a file beside a model's weights about what the model has learned, see `core.learned`.

    python -m steersearch.training.hybrid.learned RUN core/mini/mini.safetensors -o core/mini/learned.safetensors

RUN is the folder of the training run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from steersearch.core.files import as_path, file_sha256, read_json
from steersearch.core.learned import Learned, digests, strangeness, whitening
from steersearch.core.predictor import Predictor
from steersearch.core.vectors import Floats
from steersearch.training.hybrid.word_bank import WordBank
from steersearch.training.photographs.folder import folder_wordnet, read_folder
from steersearch.training.photographs.wordnet import class_words
from steersearch.training.world.corpus import SETTINGS, Corpus, make_corpus
from steersearch.training.world.vocabulary import Vocabulary
from steersearch.training.world.world import WorldConfig

BETTER = "dinov2-small"
PICTURES = 3000  # of the corpus
ROUNDS = 8  # in each of which half of the photographs are held out
SHARE = 0.95  # share of held-out photographs that count as like the others


def learned(corpus: Corpus, model: Path) -> Learned:
    """What the model in this file has learned from `corpus`, a corpus on photographs."""
    predictor = Predictor.from_pretrained(model, "cpu").with_aggregation("cls")
    folder, rng = as_path(corpus.config.photographs), np.random.default_rng(0)
    photographs = predictor.embed([photo.photograph for photo in read_folder(folder)]).numpy()
    drawn = np.sort(rng.choice(len(corpus.images), PICTURES, replace=False))
    composed = predictor.embed([Image.fromarray(np.array(corpus.images[row])) for row in drawn]).numpy()
    mean, axes = whitening(np.concatenate([composed, photographs]))
    bank = WordBank(class_words(folder_wordnet(folder)).words, Vocabulary(corpus.stock))
    return Learned(
        weights=file_sha256(model),
        better=BETTER,
        most=_most(composed, photographs, rng),
        mean=mean,
        axes=axes,
        words=digests({*bank.words, *bank.names}),
    )


def _most(composed: Floats, photographs: Floats, rng: np.random.Generator) -> float:
    """The strangeness that SHARE of photographs do not exceed when held out of the whitening."""
    found = []
    for _ in range(ROUNDS):
        held_out, others = np.array_split(photographs[rng.permutation(len(photographs))], 2)
        found.append(strangeness(held_out, *whitening(np.concatenate([composed, others]))))
    return round(float(np.quantile(np.concatenate(found), SHARE)), 4)


def main() -> None:
    """Write the file; print how many words it holds."""
    parser = argparse.ArgumentParser(description="Write what a model has learned beside its weights.")
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of its training run")
    parser.add_argument("model", type=Path, metavar="MODEL", help="the model's file")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    found = learned(_corpus(given.run), given.model)
    found.save(given.output)
    print(f"{len(found.words):,} words, most {found.most}")


def _corpus(run: Path) -> Corpus:
    """The larger of a run's corpora: the one for training."""
    kept = {settings.parent: read_json(settings) for settings in run.glob(f"data/world-*/{SETTINGS}")}
    folder = max(kept, key=lambda each: int(kept[each]["photos"]))
    kept[folder].pop("format")
    return make_corpus(WorldConfig(**kept[folder]), folder)


if __name__ == "__main__":
    main()
