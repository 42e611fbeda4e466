"""Makes the bundled mini model from nothing but this repository and the stamps' package:

    python -m steersearch.training.mini OUT

Corpus, trunk, prompts, steering and the final file each stay in OUT; a run that was interrupted goes on from there.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from steersearch.core.preprocess import Preprocess
from steersearch.core.steervit import SteerViT, SteerViTConfig
from steersearch.core.vit import ViTConfig
from steersearch.training.corpus import Corpus, CorpusConfig, make_corpus
from steersearch.training.pretrain import MEAN, STD, PretrainConfig, pretrain
from steersearch.training.prompts import Vocabulary, encode_vocabulary
from steersearch.training.train import TrainConfig, train

TRUNK = ViTConfig(image_size=128, patch_size=16, stem_channels=(32, 64, 128), dim=128, depth=8, num_heads=4)
MODEL = SteerViTConfig(
    trunk="tiny",
    tiny=TRUNK,
    resolution=TRUNK.image_size,
    aggregation="focus",
    cross_attn_layers=(1, 3, 5, 7),
    num_heads=8,
    head_dim=32,
    text_encoder="minilm",
    text_dim=384,
    connector_hidden=256,
    preprocess=Preprocess(size=TRUNK.image_size, mean=MEAN, std=STD, crop_pct=1.0, mode="squash"),
)


@dataclass(frozen=True, kw_only=True)
class MiniRecipe:
    """All settings of the mini, as recorded in its card."""

    corpus: CorpusConfig = field(
        default_factory=lambda: CorpusConfig(photos=48_000, drawn_per_kind=60, plates=130)
    )
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


def make_mini(recipe: MiniRecipe, folder: Path, compiled: bool = True) -> SteerViT:
    """Run every stage and write `folder`/mini.safetensors; seconds of each stage go to `folder`/seconds.json."""
    torch.set_flush_denormal(True)
    seconds: dict[str, float] = {}

    def timed(stage: str, began: float) -> None:
        seconds[stage] = round(time.monotonic() - began, 1)
        (folder / "seconds.json").write_text(json.dumps(seconds))

    began = time.monotonic()
    corpus: Corpus = make_corpus(recipe.corpus, folder / "corpus")
    timed("corpus", began)
    began = time.monotonic()
    trunk = pretrain(corpus, TRUNK, recipe.pretrain, folder / "trunk", compiled)
    timed("trunk", began)
    began = time.monotonic()
    vocabulary = Vocabulary(corpus.stock)
    encoded = encode_vocabulary(vocabulary.names, MODEL.text_encoder, folder)
    timed("prompts", began)
    began = time.monotonic()
    torch.manual_seed(recipe.train.seed)
    model = train(SteerViT(MODEL, trunk), corpus, encoded, recipe.train, folder / "steering", compiled)
    timed("steering", began)
    model.save(folder / "mini.safetensors")
    (folder / "recipe.json").write_text(json.dumps(asdict(recipe), indent=1))
    return model


def main() -> None:
    """Parse the folder and the few settings that a trial changes, then make the mini."""
    parser = argparse.ArgumentParser(description="Train the bundled mini model.")
    parser.add_argument("folder", type=Path, help="where every stage is kept")
    parser.add_argument("--pretrain", action="append", default=[], metavar="KEY=VALUE", help="of the trunk")
    parser.add_argument("--train", action="append", default=[], metavar="KEY=VALUE", help="of the steering")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    arguments = parser.parse_args()
    recipe = MiniRecipe()
    recipe = replace(
        recipe,
        pretrain=replace(recipe.pretrain, **_settings(arguments.pretrain, parser)),
        train=replace(recipe.train, **_settings(arguments.train, parser)),
    )
    make_mini(recipe, arguments.folder, compiled=not arguments.eager)


def _settings(pairs: list[str], parser: argparse.ArgumentParser) -> dict[str, Any]:
    """["steps=100", "lr=1e-3"] -> numbers by name."""
    known = {f.name for f in (*fields(PretrainConfig), *fields(TrainConfig)) if f.type in ("int", "float")}
    settings = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key not in known:
            parser.error(f'unknown setting "{key}"; known: {", ".join(sorted(known))}')
        try:
            settings[key] = json.loads(value)
        except ValueError:
            parser.error(f'"{pair}": the value must be a number')
    return settings


if __name__ == "__main__":
    main()
