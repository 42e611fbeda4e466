"""What each part of a recipe contributes, over several seeds, in two studies.

`paper`: the paper's ablations (Tables 3, 9, 10, 12; facts C8) and ours, on the drawn world over one backbone.
`ingredients`: the mini's training ingredients, each left out in turn, over the backbone, the words and the data of one
run of its preset. It is measured on held-out test photographs: base no choice on its figures.

    python -m steersearch.benchmarks.paper.ablations paper RUNS --trunk mini --steps 500
    python -m steersearch.benchmarks.paper.ablations ingredients RUNS --of MINI --steps 200 --bases 10

Each run stays in RUNS with its figures and is not repeated: the same command continues where it was stopped. Seeds are
run one after the other, so that complete ones already make a table.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch

from steersearch.benchmarks.harness.method import Floats
from steersearch.benchmarks.harness.record import Record
from steersearch.benchmarks.harness.steervit_method import SteerViTMethod
from steersearch.benchmarks.harness.tables import Table
from steersearch.benchmarks.ours.photographs import PhotographData, Photographs, pointed, quadrants
from steersearch.benchmarks.paper import core_photographs, core_world
from steersearch.benchmarks.paper.core import Core
from steersearch.benchmarks.paper.core_data import CoreData, Scene
from steersearch.core.checkpoints import load_file, load_model
from steersearch.core.errors import BenchmarkError, SteerSearchError
from steersearch.core.predictor import Predictor
from steersearch.core.steervit import NO_STEERING, Steering, SteerViT
from steersearch.core.vectors import Aggregation
from steersearch.training.hybrid.preparation import TRUNK, WORDS
from steersearch.training.preparation import cache_folder
from steersearch.training.recipe import MINI, Recipe
from steersearch.training.run import train_recipe
from steersearch.training.settings import apply_settings, from_json

NO_DISTILLATION = ("objective.alone_cls=0", "objective.alone_focus=0", "objective.absent=0")
NO_TEACHER = ("alignment.steps=0", "objective.alignment=0")
AGGREGATIONS: tuple[Aggregation, ...] = ("cls", "focus")
ON_CORE = tuple(f"{kind}/{prompt}" for kind in AGGREGATIONS for prompt in ("right", "wrong", "none"))
AT_ONCE = 32  # pictures
MOST_PHOTOS = 8000  # photos of the drawn world: 4 GB with their tokens at the mini's 320 pixels


@dataclass(frozen=True, kw_only=True)
class Study:
    """variants: settings of each.  grids: side in pixels at which the base's own models are evaluated as well

    base: the variant that the others are compared with.  columns: of each source, and compared: those of interest
    published: CORE in the paper
    """

    base: str
    variants: Mapping[str, tuple[str, ...]]
    columns: Mapping[str, tuple[str, ...]]
    compared: tuple[str, ...]
    grids: Mapping[str, int] = field(default_factory=dict)
    published: Mapping[str, float] = field(default_factory=dict)


STUDIES = {
    "paper": Study(
        base="paper",
        variants={
            "paper": NO_DISTILLATION,
            "late fusion": (*NO_DISTILLATION, "model.fusion=late"),
            "no tanh gate": (*NO_DISTILLATION, "model.tanh_gate=false"),
            "linear connector": (*NO_DISTILLATION, "model.connector=linear"),
            "ffn": (*NO_DISTILLATION, "model.ffn=true"),
            "pointing": (*NO_DISTILLATION, "objective.kind=pointing"),
            "3 text layers": (*NO_DISTILLATION, "model.text_layers=3"),
            "0 text layers": (*NO_DISTILLATION, "model.text_layers=0"),
            "alone, cosine": ("objective.absent=0", "objective.distillation=cosine"),
            "alone, contrastive": ("objective.absent=0",),
            "alone, contrastive, absent prompts": (),
        },
        columns={"drawn": ON_CORE, "stamps": ON_CORE},
        compared=("cls/right", "focus/right"),
        # Facts C8. Nothing there is about distillation, nor about layers of the text encoder: a smaller one,
        # RoBERTa-Base, reached 95.7.
        published={"late fusion": 93.3, "no tanh gate": 94.6, "linear connector": 95.2, "ffn": 95.0,
                   "pointing": 95.2, "paper": 96.0},
    ),
    "ingredients": Study(
        base="mini",
        variants={
            "mini": (),
            "no teacher": NO_TEACHER,
            "no composites": ("data.without=composites",),
            "no instances": ("data.without=instances",),
            "no object-alone": ("objective.alone_cls=0", "objective.alone_focus=0"),
            "no drawings": ("data.without=drawings",),
        },
        grids={"8 × 8 patches": 128, "20 × 20 patches": 320},
        columns={
            "photographs": ("mosaic, trained nouns", "mosaic, new nouns", "cluttered"),
            "core-photographs": ON_CORE,
            "drawn": ON_CORE,
        },
        compared=("mosaic, trained nouns", "mosaic, new nouns", "cls/right", "focus/right"),
    ),
}  # fmt: skip
# Student's t at 97.5 %, 1 to 9 degrees of freedom
T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def recipe_of(variant: str, seed: int, arguments: argparse.Namespace) -> Recipe:
    """The recipe of the study, changed by the variant and shortened.

    `paper`: the mini's steering on a given backbone and the drawn world; `ingredients`: that of the run `arguments.of`.
    """
    steps = arguments.steps
    shortened = (
        f"optimiser.steps={steps}", f"optimiser.decay_steps={steps}", f"optimiser.warmup={steps // 10}",
        f"run.seed={seed}", f"run.validate_every={steps}", f"run.save_every={steps}", "run.tensorboard=false",
        "run.compile=false", "model.test_resolution=0",
    )  # fmt: skip
    own = STUDIES[arguments.study].variants[variant]
    if arguments.study == "ingredients":
        whole = from_json(arguments.of / "recipe.json")
        data = cache_folder(whole, arguments.of)
        return apply_settings(whole, [*shortened, f"data.cache={data}", *own])
    on_trunk = (
        "objective.alignment=0", "model.gate=0", f"world.size={_side(arguments.trunk)}",
        f"model.trunk={arguments.trunk}", f"data.cache={arguments.folder / 'data'}",
        f"world.photos={min(MOST_PHOTOS, MINI.world.photos)}",
    )  # fmt: skip
    return apply_settings(MINI, [*shortened, *on_trunk, *own])


@cache
def _side(trunk: str) -> int:
    """Side in pixels of the pictures that the backbone takes."""
    return load_model(trunk, device="cpu").config.resolution


def run_folder(folder: Path, variant: str, seed: int) -> Path:
    """The folder of a run, with its figures in figures.json."""
    return folder / f"{variant.replace(', ', '-').replace(' ', '-')}-seed{seed}"


def run(variant: str, seed: int, arguments: argparse.Namespace) -> None:
    """Train and evaluate one model, and save its figures; skip a run that has them."""
    study = STUDIES[arguments.study]
    folder = run_folder(arguments.folder, variant, seed)
    noted = folder / "figures.json"
    if noted.is_file():
        return
    began = time.monotonic()
    side = study.grids.get(variant)
    file = trained(study.base if side else variant, seed, arguments)
    seconds = time.monotonic() - began
    model = load_file(file, device=arguments.device, dtype=torch.float32)
    if side:
        model = model.at_resolution(side)
    data = {source: data_of(source, arguments.bases, arguments.data) for source in study.columns}
    figures = {source: figures_of(model, each) for source, each in data.items()}
    folder.mkdir(exist_ok=True)
    noted.write_text(
        json.dumps({"study": arguments.study, "variant": variant, "seed": seed, "seconds": round(seconds),
                    "steps": arguments.steps, "figures": figures})
    )  # fmt: skip


def trained(variant: str, seed: int, arguments: argparse.Namespace) -> Path:
    """The model of a run, trained if it is missing."""
    folder = run_folder(arguments.folder, variant, seed)
    file = folder / "model.safetensors"
    if file.is_file():
        return file
    recipe = recipe_of(variant, seed, arguments)
    resume = folder.is_dir()
    if arguments.study == "ingredients":
        folder.mkdir(parents=True, exist_ok=True)
        for stage in (TRUNK, WORDS) if recipe.alignment.steps else (TRUNK,):
            given = arguments.of / stage
            if not given.is_dir():
                raise BenchmarkError(f"{given}: there is no such stage; finish the run first")
            if not (folder / stage).exists():
                (folder / stage).symlink_to(given.absolute())  # complete, so it is only read
        resume = True  # or it would make a stage of other settings again
    return train_recipe(recipe, folder, resume=resume, device=arguments.device, say=lambda line: None)


def run_all(variants: Sequence[str], arguments: argparse.Namespace) -> None:
    """The runs of all seeds, `arguments.jobs` at once, each in its own process if there are several."""
    study = STUDIES[arguments.study]
    for source in study.columns:
        data_of(source, arguments.bases, arguments.data)  # made once, before several processes need it
    seeds = range(1, arguments.seeds + 1)
    if arguments.jobs == 1:
        for seed in seeds:
            for variant in variants:
                run(variant, seed, arguments)
        return
    threads = max(1, (os.cpu_count() or 1) // arguments.jobs)
    fresh = get_context("spawn")  # forked processes cannot use a GPU
    with ProcessPoolExecutor(arguments.jobs, fresh, torch.set_num_threads, (threads,)) as pool:
        for finer in (False, True):  # grids after their models
            runs = [(each, seed) for seed in seeds for each in variants if (each in study.grids) == finer]
            for done in as_completed([pool.submit(_run_apart, *each, arguments) for each in runs]):
                if reason := done.result():
                    raise BenchmarkError(reason)


def _run_apart(variant: str, seed: int, arguments: argparse.Namespace) -> str:
    """`run` in its own process; errors return as text, since not all can be pickled."""
    try:
        run(variant, seed, arguments)
    except (SteerSearchError, OSError, RuntimeError) as error:
        return f"{variant}, seed {seed}: {error}"
    return ""


@cache
def data_of(source: str, bases: int, packages: Path | None) -> CoreData | PhotographData:
    """The data of a source. packages: a folder with the unpacked test packages; None: fetched"""
    if source == "photographs":
        return Photographs().load(packages, None)
    if source == "core-photographs":
        package = packages / core_photographs.PACKAGE.name if packages else None
        return core_photographs.dataset(bases, package=package)
    return core_world.dataset(source, bases)


def figures_of(model: SteerViT, data: CoreData | PhotographData) -> dict[str, float]:
    """In percent, by column: of CORE "<aggregation>/<right, wrong or none>" prompt."""
    predictor = Predictor(model)
    if isinstance(data, PhotographData):
        method = SteerViTMethod(predictor)
        found = quadrants(method, data.mosaics, lambda prompts: None)
        cluttered = pointed(method, data.photographs, lambda prompts: None)
        return {
            "mosaic, trained nouns": found["mosaic_trained"],
            "mosaic, new nouns": found["mosaic_new"],
            "cluttered": 100 * mean(cluttered),
        }
    kept = {scene.name: pooled(predictor, scene) for scene in data.scenes}
    figures: dict[str, float] = {}
    for kind in AGGREGATIONS:
        method = SteerViTMethod(predictor, aggregation=kind)
        vectors = {name: found[kind] for name, found in kept.items()}
        metrics = Core().judge(method, data, vectors).metrics
        figures |= {
            f"{kind}/right": metrics["macro"],
            f"{kind}/wrong": metrics["macro_wrong_prompt"],
            f"{kind}/none": metrics["macro_no_prompt"],
        }
    return figures


@torch.inference_mode()
def pooled(model: Predictor, scene: Scene) -> dict[Aggregation, dict[str | None, Floats]]:
    """(G, D) in each aggregation under each prompt and without; a picture passes the backbone once for all of them."""
    steerings: dict[str | None, Steering] = {
        prompt: model.steering(model.encode_prompts([prompt])) for prompt in scene.prompts.values()
    } | {None: NO_STEERING}
    parts: dict[Aggregation, dict[str | None, list[Floats]]] = {
        kind: {prompt: [] for prompt in steerings} for kind in AGGREGATIONS
    }
    numbers = range(len(scene.gallery))
    for start in range(0, len(numbers), AT_ONCE):
        pictures = [scene.gallery.read(number) for number in numbers[start : start + AT_ONCE]]
        pixels = model.to_device(np.stack([model.preprocess(picture) for picture in pictures]))
        for prompt, found in zip(steerings, model.encode(pixels, list(steerings.values())), strict=True):
            for kind in AGGREGATIONS:
                parts[kind][prompt].append(found.embedding(kind).cpu().numpy())
    return {
        kind: {prompt: np.concatenate(vectors) for prompt, vectors in by_prompt.items()}
        for kind, by_prompt in parts.items()
    }


def table(study: Study, noted: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean over seeds of each variant, source and column, and of its difference to the base; with intervals."""
    found: dict[str, Any] = {}
    for variant in (*study.variants, *study.grids):
        runs = {each["seed"]: each["figures"] for each in noted if each["variant"] == variant}
        base = {each["seed"]: each["figures"] for each in noted if each["variant"] == study.base}
        if not runs:
            continue
        found[variant] = {"seeds": len(runs), "published_core": study.published.get(variant)}
        both = [] if variant == study.base else sorted(runs.keys() & base.keys())
        for source, columns in study.columns.items():
            found[variant][source] = {
                column: spread([each[source][column] for each in runs.values()]) for column in columns
            }
            if len(both) > 1:
                found[variant][source]["difference"] = {
                    column: spread([runs[seed][source][column] - base[seed][source][column] for seed in both])
                    for column in columns if column in study.compared
                }  # fmt: skip
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, and half of its 95 % interval, Student's t over 2 to 10 seeds; of one, the mean alone."""
    middle = mean(values)
    if len(values) == 1:
        return {"mean": round(middle, 1)}
    half = T975[len(values) - 2] * stdev(values) / len(values) ** 0.5
    return {"mean": round(middle, 1), "half": round(half, 1)}


def verdict(study: Study, found: Mapping[str, float], published: float | None) -> str:
    """The verdict on a difference: better or worse if its interval excludes zero, and whether the paper agrees."""
    if abs(found["mean"]) <= found["half"]:
        return "not decided"
    said = "better" if found["mean"] > 0 else "worse"
    if published is None:
        return said
    agrees = (found["mean"] > 0) == (published > study.published[study.base])
    return f"{said}, as in the paper" if agrees else f"{said}, not as in the paper"


def as_text(study: Study, found: Mapping[str, Any]) -> str:
    """Tables in Markdown, one for each source, then the differences to the base."""
    figures, differences = [], []
    paper = ["paper's CORE"] if study.published else []
    for source, columns in study.columns.items():
        rows, compared = [], []
        for variant, row in found.items():
            cells = [variant, str(row["seeds"]), *(_with_half(row[source][column]) for column in columns)]
            rows.append((*cells, *[str(row["published_core"] or "") for _ in paper]))
            if "difference" in row[source]:
                said = (
                    f"{each['mean']:+.1f} ± {each['half']:.1f}: {verdict(study, each, row['published_core'])}"
                    for each in row[source]["difference"].values()
                )
                compared.append((variant, *said))
        figures.append(Table(source, ("variant", "seeds", *columns, *paper), tuple(rows)))
        header = ("variant", *(column for column in columns if column in study.compared))
        differences.append(Table(f"{source}, less {study.base}", header, tuple(compared)))
    return "\n".join(table.to_markdown() for table in (*figures, *differences))


def _with_half(found: Mapping[str, float]) -> str:
    return " ± ".join(f"{each:.1f}" for each in found.values())


def main() -> None:
    """Do the missing runs, then print the table."""
    parser = argparse.ArgumentParser(description="What each part of a recipe contributes.")
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("folder", type=Path, help="folder of the runs")
    parser.add_argument(
        "--trunk",
        default="mini",
        help="for paper: a model whose backbone all share: mini, or a .safetensors file",
    )
    parser.add_argument("--of", type=Path, metavar="RUN", help="for ingredients: a run of the preset mini")
    parser.add_argument(
        "--data",
        type=Path,
        help="for ingredients: folder of the unpacked test packages; default: fetch them",
    )
    parser.add_argument("--steps", type=int, default=500, help="of each run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="variants, separated by ;  default: all")
    parser.add_argument("--bases", type=int, default=20, help="base pictures per scene of core-world")
    parser.add_argument(
        "--device", default="cpu", choices=["auto", "cpu", "cuda"], help="default: %(default)s"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at once; default: %(default)s")
    parser.add_argument("--table", action="store_true", help="only print the table of existing runs")
    parser.add_argument("--save", action="store_true", help="keep the record in benchmarks/results")
    arguments = parser.parse_args()
    study = STUDIES[arguments.study]
    known = [*study.variants, *study.grids]
    chosen = [name for name in arguments.only.split(";") if name] or known
    unknown = set(chosen) - set(known)
    if unknown:
        parser.error(f"no variant {sorted(unknown)[0]!r}; there are: {'; '.join(known)}")
    if arguments.study == "ingredients" and arguments.of is None:
        parser.error("ingredients needs --of RUN, a run of the preset mini")
    if not arguments.table:
        run_all(chosen, arguments)
    noted = [json.loads(file.read_text()) for file in sorted(arguments.folder.glob("*/figures.json"))]
    found = table(study, noted)
    print(as_text(study, found))
    if arguments.save:
        settings = {
            "study": arguments.study,
            "steps": sorted({each["steps"] for each in noted}),
            "batch": MINI.optimiser.batch,
            "device": arguments.device,
            "bases": arguments.bases,
        }
        seconds = sum(each["seconds"] for each in noted)
        name = "ablations" if arguments.study == "paper" else f"ablations-{arguments.study}"
        Record.make(name, "mini", settings, found, seconds, weights_hash=None, rows=noted).save()


if __name__ == "__main__":
    main()
