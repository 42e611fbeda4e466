"""`steersearch train` without a subcommand: build the recipe, then train, alone or as one of torchrun's processes."""

from __future__ import annotations

import json
import logging
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
import typer

from steersearch.cli.train.request import Request
from steersearch.core.errors import ArgumentError, ConfigError, OutputError, RunError, UnknownSettingError
from steersearch.training import checkpoint
from steersearch.training.photographs.folder import is_whole
from steersearch.training.preparation import photographs_to_make
from steersearch.training.recipe import PRESETS, Recipe
from steersearch.training.run import missing_for_run, train_recipe
from steersearch.training.settings import (
    apply_settings,
    check_processes,
    describe,
    flat,
    from_json,
    may_change,
    other_settings,
    to_json,
)
from steersearch.views import output, terminal

RECIPE = "recipe.json"  # in the run's folder


@dataclass(frozen=True)
class Settled:
    """The recipe of the run. base, base_name: the recipe before its changes, and its name in messages."""

    recipe: Recipe
    base: Recipe
    base_name: str


def run(request: Request) -> None:
    """Train, or print the settings. Raises typer.BadParameter for misuse, errors of training."""
    _refuse_contradictions(request)
    try:
        rank, size = rank_and_size()
        settled = settle(request)
        check_processes(settled.recipe, size)
        _check_gpus(request, int(os.environ.get("LOCAL_WORLD_SIZE", size)))
    except (ArgumentError, ConfigError, UnknownSettingError) as error:
        raise typer.BadParameter(str(error)) from error
    if request.dry_run:
        if rank == 0:
            _print(settled, request, size)
        return
    if rank == 0 and not request.resume and (request.folder / RECIPE).exists():
        raise RunError.exists(request.folder)
    _train(settled, request, rank, size)


def _train(settled: Settled, request: Request, rank: int, size: int) -> None:
    """Train in this process, the first of several or the only one if `rank` is 0."""
    if rank:
        logging.getLogger("steersearch").setLevel(logging.ERROR)
        _trained(settled, request, _silent)
        return
    for line in _lines(settled, size):
        terminal.remark(line)
    with _kept(settled.recipe, request.folder):
        try:
            model = _trained(settled, request, terminal.remark)
        except KeyboardInterrupt:
            terminal.remark()
            terminal.remark(f"continue with: {_command_to_resume(request, size)}")
            raise
    terminal.line(terminal.readable(model))


def _trained(settled: Settled, request: Request, say: Callable[[str], None]) -> Path:
    """The file of the final model."""
    return train_recipe(settled.recipe, request.folder, resume=request.resume, device=request.device, say=say)


@contextmanager
def _kept(recipe: Recipe, folder: Path) -> Iterator[None]:
    """Save the recipe with the run; a new run that fails before its first checkpoint leaves no recipe."""
    file, is_new = folder / RECIPE, not (folder / RECIPE).exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(folder, error.strerror or str(error)) from error
    output.write_output(file, to_json(recipe).encode())
    try:
        yield
    except Exception:
        if is_new and not (folder / checkpoint.FOLDER).exists():
            file.unlink(missing_ok=True)
            with suppress(OSError):  # it holds something else
                folder.rmdir()
        raise


# ------------------------------------------------------------------------------------------------- the recipe


def settle(request: Request) -> Settled:
    """The requested recipe; to resume a run, the run's own with the allowed changes.

    Raises ArgumentError for a preset, what `settings.apply_settings` raises, RunError, DataError for a file that is
    not a recipe.
    """
    changes = _changes(request)
    if not request.resume:
        preset = _preset(request.preset or "")
        return Settled(apply_settings(preset, changes), preset, "preset")
    file = request.folder / RECIPE
    if not file.is_file():
        reason = "no run here that could be resumed (there is no recipe.json); name its folder with -o, or begin one"
        raise RunError(request.folder, f"{reason} by leaving out --resume")
    saved = from_json(file)
    # The same command with --resume is compared in full; a preset alone only names the folder.
    is_whole = request.preset is not None and (changes or request.output is not None)
    recipe = apply_settings(_preset(request.preset or "") if is_whole else saved, changes)
    before, now = flat(saved), flat(recipe)
    other = [(key, before[key], now[key]) for key in now if now[key] != before[key] and not may_change(key)]
    if other:
        raise other_settings(file, other)
    return Settled(recipe, saved, "before")


def _preset(name: str) -> Recipe:
    """A preset, or the recipe in a file."""
    if name in PRESETS:
        return PRESETS[name]
    if Path(name).suffix == ".json":
        return from_json(Path(name))
    raise ArgumentError("--preset", name, f"must be one of {', '.join(PRESETS)}, or a recipe.json")


def _changes(request: Request) -> list[str]:
    """--data, --set and --strict as settings; --data drops the preset's validation data."""
    settings = [*request.settings, *(["data.strict=true"] if request.strict else [])]
    if not request.data:
        return settings
    train = json.dumps([str(place) for place in request.data])
    return [f"data.train={train}", "data.validation=[]", *settings]


def _refuse_contradictions(request: Request) -> None:
    if request.preset is None and not request.resume:
        raise typer.BadParameter("choose a recipe: --preset paper, release, mini or a recipe.json")
    if request.preset is None and request.output is None:
        raise typer.BadParameter("name the run to resume: -o RUN")
    if request.as_json and not request.dry_run:
        raise typer.BadParameter("--json prints what --dry-run prints: give both")
    named = [setting.partition("=")[0].strip() for setting in request.settings]
    if request.data and ("data.train" in named or "train" in named):
        raise typer.BadParameter("--data and --set data.train both name the training data; give one of them")


def rank_and_size() -> tuple[int, int]:
    """The number of this process, and of all, from torchrun or accelerate launch; else (0, 1). Raises ArgumentError."""
    rank, size = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    try:
        return int(rank), int(size)
    except ValueError:
        reason = "these variables must be numbers; unset them"
        raise ArgumentError("RANK / WORLD_SIZE", f"{rank} / {size}", reason) from None


def _check_gpus(request: Request, processes: int) -> None:
    """Raises ArgumentError if this machine has fewer GPUs than processes."""
    if processes > 1 and request.device != "cpu" and 0 < torch.cuda.device_count() < processes:
        reason = f"this machine has {torch.cuda.device_count()} GPUs; or train with --device cpu"
        raise ArgumentError("--nproc-per-node", processes, reason)


# -------------------------------------------------------------------------------------------------- output


def _lines(settled: Settled, size: int) -> list[str]:
    """The configuration, the batch and the schedule of the learning rate."""
    optimiser = settled.recipe.optimiser
    shares = f" ({size} processes with {optimiser.batch // size} each)" if size > 1 else ""
    warmup = f"up to it in {terminal.counted(optimiser.warmup, 'step')}, " if optimiser.warmup else ""
    return [
        *describe(settled.recipe, settled.base, settled.base_name),
        f"effective batch: {optimiser.batch:,}{shares}; {terminal.counted(optimiser.steps, 'step')}",
        f"learning rate: {optimiser.lr:g}, {warmup}down to {optimiser.final_lr:g} by step {optimiser.decay_steps:,}",
    ]


def _print(settled: Settled, request: Request, size: int) -> None:
    """On stdout, for --dry-run."""
    if request.as_json:
        terminal.json_line(json.loads(to_json(settled.recipe)))
        return
    for line in _lines(settled, size):
        terminal.line(line)
    made = photographs_to_make(settled.recipe, request.folder)
    if made is not None:
        terminal.line(
            f"photographs: {'there' if is_whole(made) else 'made first'}, in {terminal.readable(made)}"
        )
    for missing in missing_for_run(settled.recipe, request.folder):
        terminal.line(f"not installed: {missing}")


def _command_to_resume(request: Request, size: int) -> str:
    launcher = ["torchrun", "--nproc-per-node", str(size), "--no-python"] if size > 1 else []
    command = [*launcher, "steersearch", "train", "--resume", "-o", str(request.folder)]
    if request.device != "auto":
        command += ["--device", request.device]
    return shlex.join(command)


def _silent(line: str) -> None:
    """For the lines of processes other than the first."""
