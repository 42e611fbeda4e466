"""Records of benchmarks: figures, and everything needed to measure them again."""

from __future__ import annotations

import itertools
import json
import os
import platform
import re
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from platformdirs import user_data_path

from steersearch.core.errors import BenchmarkError, OutputError
from steersearch.core.files import cache_folder, read_json, user_folder

_CHECKOUT = Path(__file__).resolve().parents[2]


def results_of(root: Path) -> Path:
    """Where records are kept: in the checkout at `root`, or, for an installed package, in the user's data directory."""
    if is_checkout(root):
        return root / "benchmarks" / "results"
    return (user_folder(user_data_path) or cache_folder()) / "results"


def is_checkout(root: Path) -> bool:
    """Whether this code lies in a clone of its repository."""
    return (root / "pyproject.toml").is_file()


RESULTS = results_of(_CHECKOUT)
_NOT_RESULTS = (":(top,exclude)benchmarks/results",)  # new records do not make a commit dirty
_PACKAGES = ("torch", "timm", "transformers", "lancedb", "faiss-cpu", "numpy", "pillow")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One result.

    benchmark, model: names
    weights_hash: sha256 of the weights' file, or their pinned commit; None for random weights or no model
    settings: choices made;  metrics: the figures;  seconds: of the whole run
    data: source, licence, n, hash of the data set; partial: why it is not the whole, if so
    intervals: 95 % intervals [low, high] of some metrics
    rows: figures of the parts, such as scenes
    commit: of the checkout; of an installed package its version
    answers: the value of each query or class, for paired comparisons (`intervals.Answers`)
    data, intervals, rows and answers are empty without a data set; `settings` then describes what was drawn.
    `make` fills in the rest: machine, versions, commit.
    """

    benchmark: str
    model: str
    weights_hash: str | None
    settings: dict[str, Any]
    metrics: dict[str, Any]
    seconds: float
    command: str
    commit: str
    dirty: bool
    date: str
    machine: dict[str, Any]
    versions: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    intervals: dict[str, list[float]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.data and not self.data.keys() >= {"source", "n", "hash"}:
            raise ValueError(f"data without source, n or hash: {sorted(self.data)}")

    @classmethod
    def make(
        cls,
        benchmark: str,
        model: str,
        settings: dict[str, Any],
        metrics: dict[str, Any],
        seconds: float,
        *,
        weights_hash: str | None,
        data: dict[str, Any] | None = None,
        intervals: dict[str, list[float]] | None = None,
        rows: list[dict[str, Any]] | None = None,
        answers: dict[str, Any] | None = None,
    ) -> Record:
        """A record of a run in this process."""
        commit, dirty = _code(_CHECKOUT)
        return cls(
            benchmark=benchmark,
            model=model,
            weights_hash=weights_hash,
            settings=settings,
            metrics=metrics,
            seconds=round(seconds, 1),
            command=_command(),
            commit=commit,
            dirty=dirty,
            date=datetime.now(UTC).date().isoformat(),
            machine=machine(),
            versions={name: _version(name) for name in _PACKAGES},
            data=data or {},
            intervals=intervals or {},
            rows=rows or [],
            answers=answers or {},
        )

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read a saved record. Raises BenchmarkError."""
        try:
            return cls(**read_json(path))
        except (OSError, ValueError, TypeError) as error:
            raise BenchmarkError(f"{path}: not a record of a benchmark ({error})") from error

    def to_json(self) -> str:
        """The record as one JSON object, a key per line; the answers share one."""
        plain = asdict(self)
        answers = json.dumps(plain.pop("answers"), separators=(",", ":"))
        return json.dumps(plain, indent=1).removesuffix("\n}") + f',\n "answers": {answers}\n}}'

    @property
    def task(self) -> str:
        """The catalogue's name of what was measured, on real data or a stand-in."""
        return re.sub("-(world|photographs)$", "", self.benchmark.split("/")[0])

    @property
    def partial(self) -> list[str]:
        """Why the figures are of a part of the data set; [] if they are of all of it."""
        return list(self.data.get("partial", ()))

    @property
    def name(self) -> str:
        """<benchmark>__<model>-<first 8 digits of weights_hash>__<machine>__<yyyymmdd>."""
        model = re.sub(r"\.(safetensors|pth)(?=\+|$)", "", Path(self.model).name)
        weights = "" if self.weights_hash is None else f"-{self.weights_hash[:8]}"
        benchmark, date = self.benchmark.replace("/", "-"), self.date.replace("-", "")
        return f"{benchmark}__{model}{weights}__{self.machine['name']}__{date}"

    def save(self, folder: Path = RESULTS) -> Path:
        """Write it under its `name`. Raises OutputError.

        It replaces a record of the same day, settings and data; any other record of this name stays, and it gets a
        number.
        """
        names = (f"{self.name}-{number}" if number else self.name for number in itertools.count())
        paths = (folder / f"{each}.json" for each in names)
        path = next(path for path in paths if not path.exists() or self._repeats(path))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(self.to_json() + "\n", encoding="utf-8")
        except OSError as error:  # an installed package may not be writable
            raise OutputError(folder, error.strerror or str(error)) from error
        return path

    def _repeats(self, path: Path) -> bool:
        """Whether `path` holds a record with the same settings and data."""
        try:
            other = Record.read(path)
        except BenchmarkError:
            return False
        own = json.loads(self.to_json())  # as it will be read back
        return bool(own["settings"] == other.settings and own["data"] == other.data)


def machine() -> dict[str, Any]:
    """Processor, cores, memory in GiB, and the GPU, if torch is loaded and sees one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = None
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        gpu = torch.cuda.get_device_name()
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "name": gpu.replace(" ", "-").lower() if gpu else f"cpu{cores}",
        "processor": _processor(),
        "cores": cores,
        "memory_gib": round(pages / 2**30),
        "gpu": gpu,
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _command() -> str:
    """The command line as typed, without this machine's paths."""
    module = getattr(sys.modules.get("__main__"), "__spec__", None)
    program = f"python -m {module.name}" if module is not None else Path(sys.argv[0]).name
    program = program.replace("python -m steersearch.__main__", "steersearch")
    return " ".join([program, *map(_without_folder, sys.argv[1:])])


def _without_folder(argument: str) -> str:
    """Reduce an absolute path, also after "name=", to its last part."""
    before, equals, path = argument.rpartition("=")
    return before + equals + (Path(path).name if os.path.isabs(path) else path)


def _code(root: Path) -> tuple[str, bool]:
    """The commit of the checkout at `root`, and whether it has changes. For an installed package its version, since a
    repository around it, if any, is another's."""
    if not is_checkout(root):
        return _version("steersearch"), False
    status = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ":/", *_NOT_RESULTS)
    return _git(root, "rev-parse", "--short", "HEAD"), bool(status)


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def run_script(parser: ArgumentParser, measure: Callable[..., Record]) -> None:
    """Call `measure` with the options of `parser`, print its record as JSON and, with --save, save it."""
    parser.add_argument("--save", action="store_true", help="keep the record")
    arguments = vars(parser.parse_args())
    save = arguments.pop("save")
    record = measure(**arguments)
    print(record.to_json())
    if save:
        print(record.save(), file=sys.stderr)
