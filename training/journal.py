"""The metrics of a training run: always as JSON lines, optionally for TensorBoard and Weights & Biases."""

from __future__ import annotations

import json
import logging
import math
import secrets
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Protocol, Self

from steersearch.core.errors import MissingExtraError, RunError
from steersearch.core.files import parse_json, read_regular, write_atomically

logger = logging.getLogger(__name__)

Kind = Literal["train", "validation"]

FILE = "metrics.jsonl"
MOST_BYTES = 2**31
TENSORBOARD = "tensorboard"  # folder of its event files
WANDB_ID = "wandb-id.txt"  # keeps the id for a resumed run


class Recorder(Protocol):
    """A further destination of metrics."""

    def log(self, step: int, kind: Kind, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class Journal:
    """The metrics of one run, in `folder`/metrics.jsonl; only one process may write them.

    A line is {"step": 500, "kind": "train", "seconds": 81.2, "values": {"loss": 3.1}}. step: how many are done, 0
    before the first.  seconds: of training, including those before a resume.  A value that is not finite is null.
    Each line is flushed: a killed run loses none, and truncates at most its last.

    step: where a resumed run continues; later lines are dropped, since they will be logged again. 0 for a new run,
        which renames an existing journal to metrics.jsonl.old.
    tensorboard: also write event files to `folder`/tensorboard.  wandb: project at Weights & Biases, "" for none
    recipe: plain data, shown there.
    Raises RunError if it cannot write or W&B refuses, MissingExtraError if TensorBoard or W&B is missing.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tensorboard: bool = False,
        wandb: str = "",
        step: int = 0,
        recipe: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = folder / FILE
        with ExitStack() as opening:
            kept = _kept_lines(self.path, step)
            self._recorders: list[Recorder] = []
            if tensorboard:
                self._recorders.append(_TensorBoard(folder / TENSORBOARD, step))
                opening.callback(self._recorders[-1].close)
            if wandb:
                self._recorders.append(_WeightsAndBiases(folder, wandb, step, recipe or {}))
                opening.callback(self._recorders[-1].close)
            self._file = _begin(self.path, kept)
            opening.pop_all()
        self._began = time.monotonic() - (kept[-1]["seconds"] if kept else 0.0)

    def log(self, step: int, kind: Kind, values: Mapping[str, float]) -> None:
        """Write `values` after `step` steps. "pmass/refcoco" is pmass of the source refcoco. Raises RunError."""
        line = {
            "step": step,
            "kind": kind,
            "seconds": round(time.monotonic() - self._began, 3),
            "values": {
                name: float(value) if math.isfinite(value) else None for name, value in values.items()
            },
        }
        try:
            self._file.write(_as_line(line))
            self._file.flush()
        except OSError as error:
            raise RunError(self.path, f"cannot be written ({error.strerror or error})") from error
        for recorder in self._recorders:
            recorder.log(step, kind, values)

    def close(self) -> None:
        """Flush and close all files."""
        with ExitStack() as closing:
            closing.callback(self._file.close)
            for recorder in self._recorders:
                closing.callback(recorder.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """The lines of the run in `folder` as {"step", "kind", "seconds", "values"}, in order; null values as nan.

    Skips lines that are not metrics, such as the truncated last one of a killed run, and logs them.
    Raises RunError if the file is missing or unreadable.
    """
    lines = _read(folder / FILE)
    for line in lines:
        line["values"] = {name: math.nan if v is None else v for name, v in line["values"].items()}
    return lines


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        content = read_regular(path, MOST_BYTES)
    except OSError as error:
        raise RunError(path, f"cannot be read ({error.strerror or error})") from error
    lines = []
    for number, text in enumerate(content.splitlines(), start=1):
        try:
            lines.append(_checked(parse_json(text)))
        except (ValueError, KeyError, TypeError):
            logger.warning("%s, line %d: skipped, since it holds no metrics", path, number)
    return lines


def _checked(line: Any) -> dict[str, Any]:
    """`line`, validated. Raises KeyError, TypeError or ValueError."""
    values = {str(name): None if value is None else float(value) for name, value in line["values"].items()}
    return {
        "step": int(line["step"]),
        "kind": str(line["kind"]),
        "seconds": float(line["seconds"]),
        "values": values,
    }


def _kept_lines(path: Path, step: int) -> list[dict[str, Any]]:
    """The lines up to `step` of a resumed run; none for a new one, which renames an existing journal."""
    if not path.exists():
        return []
    if step > 0:
        return [line for line in _read(path) if line["step"] <= step]
    aside = path.with_name(f"{path.name}.old")
    logger.warning("%s is of an earlier run: renamed to %s", path, aside.name)
    path.replace(aside)
    return []


def _begin(path: Path, kept: Iterable[Mapping[str, Any]]) -> IO[str]:
    """Rewrite `path` with the lines `kept` and open it for more; a process killed here leaves the old file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: file.writelines(_as_line(line).encode() for line in kept))
        return path.open("a", encoding="utf-8", newline="\n")
    except OSError as error:
        raise RunError(path, f"cannot be written ({error.strerror or error})") from error


def _as_line(line: Mapping[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"


class _TensorBoard:
    """Event files. Hides steps that the run will repeat after a resume, and an earlier run."""

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("tensorboard", "train", "run.tensorboard = true") from error
        try:
            self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else 0, flush_secs=10)
        except OSError as error:
            raise RunError(folder, f"cannot be written ({error.strerror or error})") from error

    def log(self, step: int, kind: Kind, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    """A run at Weights & Biases, or with WANDB_MODE=offline below `folder`.

    A resumed run keeps its id. W&B ignores steps that it has seen before; their values are the same.
    """

    def __init__(self, folder: Path, project: str, step: int, recipe: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingExtraError("wandb", "wandb", f'run.wandb = "{project}"') from error
        file = folder / WANDB_ID
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if step == 0 or not file.exists():
                file.write_text(secrets.token_hex(8))
            self._run = wandb.init(
                project=project,
                id=file.read_text().strip(),
                resume="allow",
                dir=str(folder),
                config=dict(recipe),
                settings=wandb.Settings(console="off"),
            )
        except OSError as error:
            raise RunError(file, f"cannot be written ({error.strerror or error})") from error
        except wandb.Error as error:
            raise RunError(
                folder,
                f"Weights & Biases refuses ({error}); log in with `wandb login`, keep it on this disk with "
                'WANDB_MODE=offline, or set run.wandb to ""',
            ) from error

    def log(self, step: int, kind: Kind, values: Mapping[str, float]) -> None:
        self._run.log({f"{kind}/{name}": value for name, value in values.items()}, step=step)

    def close(self) -> None:
        self._run.finish()
