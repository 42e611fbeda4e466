"""What a prompt does to CLS and to the patches: how far it moves them, and how much of that depends on the picture.

What a prompt adds to the CLS of every picture alike changes no ranking by cosine to speak of; only what differs from
picture to picture can. Measured on pictures of core-photographs, each under every prompt of its scene:

    python -m steersearch.benchmarks.paper.text_in_cls --model mini-late.safetensors --save
"""

from __future__ import annotations

import argparse
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from steersearch.benchmarks.harness.record import Record, run_script
from steersearch.benchmarks.harness.steervit_method import SteerViTMethod
from steersearch.benchmarks.paper import core_photographs
from steersearch.core.predictor import Predictor

PICTURES = 10  # of each scene


def moved(plain: Tensor, steered: Tensor) -> float:
    """(..., D) each -> mean of 1 - cosine."""
    return float((1 - F.cosine_similarity(plain, steered, dim=-1)).mean())


def shared(changes: Tensor) -> float:
    """(pictures, D), the changes under one prompt -> the part of them that all pictures have in common, 0 to 1.

    Of the mean square of the changes, that of their mean.
    """
    return float(changes.mean(dim=0).square().sum() / changes.square().sum(dim=-1).mean())


@torch.inference_mode()
def measure(model: str, device: str) -> Record:
    """The record of one model."""
    began = time.monotonic()
    predictor = Predictor.from_pretrained(model, device=device)
    data = core_photographs.dataset()
    found: dict[str, list[float]] = {
        "cls_moved": [],
        "patches_moved": [],
        "cls_shared": [],
        "patches_shared": [],
    }
    for scene in data.scenes:
        pictures = [scene.gallery.read(number) for number in range(PICTURES)]
        plain = predictor.features(pictures, None)
        for prompt in scene.prompts.values():
            steered = predictor.features(pictures, prompt)
            for name, before, after in (
                ("cls", plain.prefix[:, 0], steered.prefix[:, 0]),
                ("patches", plain.patches, steered.patches),
            ):
                found[f"{name}_moved"].append(moved(before, after))
                found[f"{name}_shared"].append(shared((after - before).reshape(-1, before.shape[-1])))
    return Record.make(
        "text-in-cls",
        model,
        {"pictures": PICTURES * len(data.scenes), "prompts": len(found["cls_moved"]),
         "fusion": predictor.model.config.fusion, "model": {"gates": SteerViTMethod(predictor).gates}},
        {name: round(sum(values) / len(values), 4) for name, values in found.items()},
        time.monotonic() - began,
        weights_hash=predictor.weights_hash,
    )  # fmt: skip


def main() -> None:
    """Measure one model, print the record and, with --save, keep it."""
    parser = argparse.ArgumentParser(description="What a prompt does to CLS and to the patches.")
    parser.add_argument("--model", default="mini", help="a model's name or file")
    parser.add_argument("--device", default="auto")
    run_script(parser, measure)


if __name__ == "__main__":
    main()
