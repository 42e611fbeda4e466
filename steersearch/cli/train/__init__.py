"""`steersearch train`: train a model; check and prepare training data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

import typer

from steersearch.cli.lazy import PLAIN, LazyGroup, Table
from steersearch.cli.options import Processor, local_folder
from steersearch.cli.train.request import Request


class Commands(LazyGroup):
    table: ClassVar[Table] = {
        "check": ("steersearch.cli.train.check", "Read a whole data set, and list what is broken."),
        "masks": ("steersearch.cli.train.masks", "Make masks from boxes with SAM 2."),
        "photographs": (
            "steersearch.cli.train.photographs",
            "Fetch the photographs that mini learns from.",
        ),
    }


command = typer.Typer(
    cls=Commands, no_args_is_help=True, invoke_without_command=True, subcommand_metavar="[COMMAND]", **PLAIN
)


@command.callback()
def run(
    context: typer.Context,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="paper|release|mini|FILE",
            help="The recipe: of the paper, of its released code, of the bundled mini model, or a recipe.json.",
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DATA",
            help='Training data, as for `train check`; repeatable, and "world" is the generated world. '
            "Short for --set data.train=DATA.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting; repeatable. --dry-run lists all.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="RUN",
            parser=local_folder,
            help="Folder of the run.  [default: run-PRESET]",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in RUN, with its settings.")
    ] = False,
    device: Annotated[Processor, typer.Option(help="Where to train.")] = "auto",
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first unusable row of the data.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the settings of the run, and do not train.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --dry-run: print them as one JSON object.")
    ] = False,
) -> None:
    """Train a model, or check and prepare training data.

    The folder RUN holds the model, model.safetensors, and its settings, recipe.json. Ctrl-C saves; --resume
    continues from there.

    \b
    Examples:
      steersearch train --preset mini -o run
      steersearch train --preset paper --data ./refcoco --set data.images=./coco -o run
      torchrun --nproc-per-node 4 --no-python steersearch train --preset paper --data ./refcoco -o run
    """
    request = Request(
        preset=preset,
        data=tuple(data or ()),
        settings=tuple(settings or ()),
        output=output,
        resume=resume,
        device=device,
        strict=strict,
        dry_run=dry_run,
        as_json=as_json,
    )
    if context.invoked_subcommand is None:
        from steersearch.cli.train.run import run  # loads torch, which the other commands' help does without

        run(request)
    elif request != Request():
        name = context.invoked_subcommand
        raise typer.BadParameter(f"these options are for training; options of `train {name}` follow its name")
