"""What each part of the recipe is worth, on the world and mini-sized: the paper's ablations (Tables 3, 9, 10, 12; facts
C8) and ours. One trunk, one corpus, several seeds; figures of the stand-in `core_world`, none of the paper's.

    python -m steersearch.benchmarks.paper.ablations RUNS --trunk mini --steps 500 --seeds 3

Each run stays in RUNS and is not repeated; without runs to do, the table is made of what is there. All take some four
hours of one core; --jobs does several at once, on a GPU too. A record that was saved before they were all done holds
the figures of each run, and

    python -m steersearch.benchmarks.paper.ablations RUNS --go-on benchmarks/results/ablations_mini_….json --save

does the rest, on another machine too.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from steersearch.benchmarks.harness.record import Record
from steersearch.benchmarks.harness.steervit_method import SteerViTMethod
from steersearch.benchmarks.paper import core_world
from steersearch.benchmarks.paper.core import Core
from steersearch.benchmarks.paper.core_data import CoreData
from steersearch.core.checkpoints import load_file, load_model
from steersearch.core.errors import BenchmarkError, SteerSearchError
from steersearch.core.predictor import Predictor
from steersearch.core.steervit import SteerViT
from steersearch.core.vectors import Aggregation
from steersearch.training.recipe import MINI, Recipe
from steersearch.training.run import train_recipe
from steersearch.training.settings import apply_settings

NO_DISTILLATION = ("objective.alone_cls=0", "objective.alone_focus=0", "objective.absent=0")
BASE = "paper"
VARIANTS: dict[str, tuple[str, ...]] = {
    BASE: NO_DISTILLATION,
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
}
# What the paper found on CORE, against its full model's 96.0 (facts C8). Nothing there is about distillation, nor about
# layers of the text encoder: a smaller one, RoBERTa-Base, reached 95.7.
PUBLISHED = {"late fusion": 93.3, "no tanh gate": 94.6, "linear connector": 95.2, "ffn": 95.0, "pointing": 95.2,
             BASE: 96.0}  # fmt: skip
SOURCES: tuple[core_world.Source, ...] = ("drawn", "stamps")
COLUMNS = ("cls/right", "cls/wrong", "focus/right", "focus/wrong", "pmass", "pointing")
COMPARED = ("cls/right", "focus/right", "pointing")
# Student's t at 97.5 %, 1 to 9 degrees of freedom
T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def recipe_of(variant: str, seed: int, trunk: str, steps: int, data: Path) -> Recipe:
    """The mini's steering on a given trunk and the drawn world, changed by the variant and shortened."""
    shortened = (
        "objective.alignment=0", "model.gate=0", f"world.size={_side(trunk)}",
        f"optimiser.steps={steps}", f"optimiser.decay_steps={steps}", f"model.trunk={trunk}", f"run.seed={seed}",
        f"run.validate_every={steps}", f"run.save_every={steps}", "run.tensorboard=false", "run.compile=false",
        f"data.cache={data}",
    )  # fmt: skip
    return apply_settings(MINI, [*shortened, *VARIANTS[variant]])


@cache
def _side(trunk: str) -> int:
    """Of the pictures that the trunk takes, in pixels."""
    return load_model(trunk, device="cpu").config.resolution


def run_folder(folder: Path, variant: str, seed: int) -> Path:
    """Where a run stays; figures.json in it says what came of it."""
    return folder / f"{variant.replace(', ', '-').replace(' ', '-')}-seed{seed}"


def recall(record: Record, folder: Path, trunk: str, steps: int) -> None:
    """Note the runs of a record below `folder` as done. Raises BenchmarkError if they had another trunk or length."""
    for row in record.rows:
        if (row["trunk"], row["steps"]) != (Path(trunk).name, steps):
            raise BenchmarkError(
                f"the record's runs had {row['steps']} steps on {row['trunk']}, these have {steps} on {trunk}"
            )
        noted = run_folder(folder, row["variant"], row["seed"]) / "figures.json"
        if not noted.is_file():
            noted.parent.mkdir(parents=True, exist_ok=True)
            noted.write_text(json.dumps(row))


def run(variant: str, seed: int, arguments: argparse.Namespace) -> None:
    """Train and evaluate one model, and note its figures; a run that is noted is left alone."""
    folder = run_folder(arguments.folder, variant, seed)
    noted = folder / "figures.json"
    if noted.is_file():
        return
    recipe = recipe_of(variant, seed, arguments.trunk, arguments.steps, arguments.folder / "data")
    began = time.monotonic()
    file = train_recipe(
        recipe, folder, resume=folder.is_dir(), device=arguments.device, say=lambda line: None
    )
    trained = time.monotonic() - began
    model = load_file(file, device=arguments.device, dtype=torch.float32)
    pictures = {source: core_world.dataset(source, arguments.bases) for source in SOURCES}
    with _own_cache():
        figures = {source: figures_of(model, pictures[source]) for source in SOURCES}
    noted.write_text(
        json.dumps({"variant": variant, "seed": seed, "seconds": round(trained), "trunk": Path(arguments.trunk).name,
                    "steps": arguments.steps, "figures": figures})
    )  # fmt: skip


@contextmanager
def _own_cache() -> Iterator[None]:
    """What a benchmark keeps, its libraries above all, is kept for this run alone: many at once would wait for them."""
    given = os.environ.get("STEERSEARCH_CACHE")
    with tempfile.TemporaryDirectory(prefix="steersearch-ablation-") as folder:
        os.environ["STEERSEARCH_CACHE"] = folder
        try:
            yield
        finally:
            del os.environ["STEERSEARCH_CACHE"]
            if given is not None:
                os.environ["STEERSEARCH_CACHE"] = given


def run_all(variants: Sequence[str], arguments: argparse.Namespace) -> None:
    """The runs of every seed, `arguments.jobs` at once, each in a process of its own if there are several."""
    for source in SOURCES:
        core_world.dataset(source, arguments.bases)  # drawn once, before several want it
    runs = [(variant, seed) for seed in range(1, arguments.seeds + 1) for variant in variants]
    if arguments.jobs == 1:
        for variant, seed in runs:
            run(variant, seed, arguments)
        return
    threads = max(1, (os.cpu_count() or 1) // arguments.jobs)
    fresh = get_context("spawn")  # a GPU cannot be used by forks
    with ProcessPoolExecutor(arguments.jobs, fresh, torch.set_num_threads, (threads,)) as pool:
        for done in as_completed([pool.submit(_run_apart, *each, arguments) for each in runs]):
            if reason := done.result():
                raise BenchmarkError(reason)


def _run_apart(variant: str, seed: int, arguments: argparse.Namespace) -> str:
    """`run` in a process of its own, whence errors return as text: not all can be pickled."""
    try:
        run(variant, seed, arguments)
    except (SteerSearchError, OSError, RuntimeError) as error:
        return f"{variant}, seed {seed}: {error}"
    return ""


def figures_of(model: SteerViT, pictures: CoreData) -> dict[str, float]:
    """Shares of core-world by "<aggregation>/<right or wrong prompt>/macro", and where the heatmap points."""
    aggregations: tuple[Aggregation, ...] = ("cls", "focus")
    found: dict[str, float] = {}
    for kind in aggregations:
        metrics = Core().evaluate(SteerViTMethod(Predictor(model), aggregation=kind), pictures).metrics
        found |= {
            f"{kind}/right/macro": metrics["macro"] / 100,
            f"{kind}/wrong/macro": metrics["macro_wrong_prompt"] / 100,
            "pointing": metrics["pointing"] / 100,
            "pmass": metrics["pmass"] / 100,
        }
    return found


def table(noted: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over seeds, in points, of each variant and source; and its difference to BASE."""
    found: dict[str, Any] = {}
    base = {each["seed"]: each["figures"] for each in noted if each["variant"] == BASE}
    for variant in VARIANTS:
        runs = {each["seed"]: each["figures"] for each in noted if each["variant"] == variant}
        if not runs:
            continue
        found[variant] = {"seeds": len(runs), "published_core": PUBLISHED.get(variant)}
        for source in SOURCES:
            spreads = {column: _spread([_figure(each[source], column) for each in runs.values()])
                       for column in COLUMNS}  # fmt: skip
            both = [] if variant == BASE else sorted(runs.keys() & base.keys())
            differences = {
                column: difference([_figure(runs[seed][source], column) for seed in both],
                                   [_figure(base[seed][source], column) for seed in both])
                for column in COMPARED if len(both) > 1
            }  # fmt: skip
            found[variant][source] = spreads | ({"difference": differences} if differences else {})
    return found


def difference(figures: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """Of the same seeds, pair by pair: its mean, and the 95 % interval of Student's t over 2 to 10 seeds."""
    found = [one - other for one, other in zip(figures, base, strict=True)]
    half = T975[len(found) - 2] * stdev(found) / len(found) ** 0.5
    middle = mean(found)
    return {"mean": round(middle, 1), "low": round(middle - half, 1), "high": round(middle + half, 1)}


def verdict(found: Mapping[str, float], published: float | None) -> str:
    """What a difference says: better or worse where its interval leaves zero out, and whether the paper has it so."""
    if found["low"] <= 0 <= found["high"]:
        return "not decided"
    said = "better" if found["mean"] > 0 else "worse"
    if published is None:
        return said
    agrees = (found["mean"] > 0) == (published > PUBLISHED[BASE])
    return f"{said}, as in the paper" if agrees else f"{said}, not as in the paper"


def _figure(figures: Mapping[str, float], column: str) -> float:
    return 100 * figures[f"{column}/macro" if "/" in column else column]


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": round(mean(values), 1), "sd": round(stdev(values), 1) if len(values) > 1 else 0.0}


def as_text(found: Mapping[str, Any]) -> str:
    """The table in Markdown, a part for each source; then the differences to BASE."""
    lines = []
    for source in SOURCES:
        lines += [
            f"| {source} | seeds | {' | '.join(COLUMNS)} | paper's CORE |",
            "|---" * (len(COLUMNS) + 3) + "|",
        ]
        for variant, row in found.items():
            cells = [f"{row[source][c]['mean']:.1f} ± {row[source][c]['sd']:.1f}" for c in COLUMNS]
            published = "" if row["published_core"] is None else f"{row['published_core']}"
            lines.append(f"| {variant} | {row['seeds']} | {' | '.join(cells)} | {published} |")
        lines.append("")
    for source in SOURCES:
        lines += [f"| {source}, less {BASE} | {' | '.join(COMPARED)} |", "|---" * (len(COMPARED) + 1) + "|"]
        for variant, row in found.items():
            if "difference" in row[source]:
                cells = [
                    f"{each['mean']:+.1f} ({each['low']:+.1f} to {each['high']:+.1f}): "
                    + verdict(each, row["published_core"] if column != "pointing" else None)
                    for column, each in row[source]["difference"].items()
                ]
                lines.append(f"| {variant} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Do the runs that are missing, then print the table."""
    parser = argparse.ArgumentParser(description="Ablations of the recipe on the generated world.")
    parser.add_argument("folder", type=Path, help="where the runs stay")
    parser.add_argument(
        "--trunk", default="mini", help="a model whose trunk all share: mini, or a .safetensors file"
    )
    parser.add_argument("--steps", type=int, default=500, help="of each run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="variants, separated by ;  default: all")
    parser.add_argument("--bases", type=int, default=20, help="base pictures per scene of core-world")
    parser.add_argument(
        "--device", default="cpu", choices=["auto", "cpu", "cuda"], help="default: %(default)s"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at once; default: %(default)s")
    parser.add_argument("--go-on", type=Path, metavar="RECORD", help="a record whose runs are not repeated")
    parser.add_argument("--table", action="store_true", help="only make the table of what is there")
    parser.add_argument("--save", action="store_true", help="keep the record in benchmarks/results")
    arguments = parser.parse_args()
    chosen = [name for name in arguments.only.split(";") if name] or list(VARIANTS)
    unknown = set(chosen) - set(VARIANTS)
    if unknown:
        parser.error(f"no variant {sorted(unknown)[0]!r}; there are: {'; '.join(VARIANTS)}")
    if arguments.go_on is not None:
        recall(Record.read(arguments.go_on), arguments.folder, arguments.trunk, arguments.steps)
    if not arguments.table:
        run_all(chosen, arguments)
    noted = [json.loads(file.read_text()) for file in sorted(arguments.folder.glob("*/figures.json"))]
    found = table(noted)
    print(as_text(found))
    if arguments.save:
        settings = {
            "steps": sorted({each["steps"] for each in noted}),
            "trunk": sorted({each["trunk"] for each in noted}),
            "batch": MINI.optimiser.batch,
            "device": arguments.device,
            "pictures": 30 * arguments.bases,
        }
        seconds = sum(each["seconds"] for each in noted)
        Record.make("ablations", "mini", settings, found, seconds, weights_hash=None, rows=noted).save()


if __name__ == "__main__":
    main()
