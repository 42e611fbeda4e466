"""The interface of a benchmark: its data, real or generated, and the evaluation of a method."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast

from steersearch.benchmarks.harness.catalogue import Card, Value
from steersearch.benchmarks.harness.intervals import Answers, mean_of
from steersearch.benchmarks.harness.method import Method
from steersearch.benchmarks.harness.record import Record
from steersearch.core.errors import BenchmarkError
from steersearch.indexer.progress import ProgressEvent

Source = Literal["real", "generated stand-in"]
Report = Callable[[ProgressEvent], None]
D = TypeVar("D", bound="Dataset")
_OF_MODELS = ("aggregation", "paper_aggregation", "gates")  # optional properties of a method


class Dataset(Protocol):
    """The data of one benchmark, complete or limited.

    name: for records, such as "core" or "core-world/drawn"; generated data has "-world" in it.
    n: number of pictures.  data_hash: sha256 of all that determines the figures, pictures included.
    A data set of which a part may be missing also has `partial`: why figures on it are not those of the whole.
    """

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> Source: ...
    @property
    def licence(self) -> str: ...
    @property
    def n(self) -> int: ...
    @property
    def data_hash(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a method.

    metrics: the figures; shares in percent.  intervals: 95 % intervals (low, high) of some of them.
    rows: one dictionary per scene, class or split: names first, then figures under the metrics' names.
    answers: the values whose mean is a metric, per query or class in the order of the data.
    settings: choices made, JSON-able.
    """

    metrics: dict[str, Any]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[str, Answers] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, answers in self.answers.items():
            if not abs(self.metrics[name] - mean_of(answers)) < 0.01:  # metrics may be rounded
                raise ValueError(f"{name} is {self.metrics[name]}, and its answers are {mean_of(answers)}")


def short_of(found: int, published: int, what: str) -> tuple[str, ...]:
    """Why figures on `found` of the published data are not those of the whole; () if they are."""
    return () if found == published else (f"{found:,} {what}, published are {published:,}",)


class Benchmark(Protocol[D]):
    """One benchmark with its options. A module makes it: `create(options: Mapping[str, Value]) -> Benchmark`."""

    def load(self, place: Path | None, limit: int | None) -> D:
        """The real data at `place`; None: from its default source.

        limit: number of what the card's `limit` names; None: all. Raises DataMissingError, BenchmarkError.
        """
        ...

    def world(self, limit: int | None) -> D:
        """The generated stand-in. Raises BenchmarkError if there is none."""
        ...

    def evaluate(self, method: Method, dataset: D, progress: Report | None = None) -> Outcome:
        """Raises BenchmarkError for a method that lacks an output."""
        ...


class DataMissingError(BenchmarkError):
    """The real data is missing. Fields: `benchmark` (its name), `command` (of the stand-in, or None)."""

    def __init__(self, card: Card, reason: str) -> None:
        assert card.data is not None
        self.benchmark = card.name
        self.command = None if card.stand_in is None else f"steersearch bench {card.name} --world"
        lines = [
            f"{card.name}: the real data is not here: {reason}",
            f"  what:     {card.data.what}",
            f"  size:     {card.data.size}",
            f"  licence:  {card.data.licence}",
            f"  get it:   {card.data.how}",
        ]
        if self.command is not None:
            lines.append(f"  stand-in: {self.command}   ({card.stand_in})")
        super().__init__("\n".join(lines))


def create(card: Card, options: Mapping[str, Value]) -> Benchmark[Any]:
    """The benchmark of this card with all its options, see `Card.settings`."""
    module = importlib.import_module(f"steersearch.benchmarks.{card.module}")
    return cast(Benchmark[Any], module.create(options))


def run(
    benchmark: Benchmark[D],
    method: Method,
    load: Callable[[], D],
    progress: Report | None = None,
    limit: int | None = None,
) -> Record:
    """Measure `method` on the data of `load`; the record suffices to repeat it. limit: of the data, for the record."""
    return measure(benchmark, lambda: method, load, progress, limit)


def measure(
    benchmark: Benchmark[D],
    make: Callable[[], Method],
    load: Callable[[], D],
    progress: Report | None = None,
    limit: int | None = None,
) -> Record:
    """As `run`, but the method is created, and perhaps downloaded, after the data is loaded."""
    began = time.monotonic()
    dataset = load()
    loaded = time.monotonic()
    method = make()
    made = time.monotonic()
    outcome = benchmark.evaluate(method, dataset, progress)
    settings = dict(outcome.settings) | {
        "method": getattr(method, "settings", {}),
        "identity": method.identity,
        "licence": method.licence,
        "model": {
            name: getattr(method, name) for name in _OF_MODELS if getattr(method, name, None) is not None
        },
    }
    data = {
        "source": dataset.source,
        "licence": dataset.licence,
        "n": dataset.n,
        "hash": dataset.data_hash,
        "seconds": round(loaded - began, 1),
    }
    partial = [*getattr(dataset, "partial", ()), *([] if limit is None else [f"--limit {limit}"])]
    if partial:
        data["partial"] = partial
    seconds = time.monotonic() - made + loaded - began
    return Record.make(
        dataset.name,
        method.name,
        settings,
        outcome.metrics,
        seconds,
        weights_hash=method.weights_hash,
        data=data,
        intervals={name: list(pair) for name, pair in outcome.intervals.items()},
        rows=outcome.rows,
        answers={name: _rounded(answers) for name, answers in outcome.answers.items()},
    )


def _rounded(answers: Answers) -> Any:
    """Round to four decimals; whole numbers become int, since most answers are right or wrong."""
    if isinstance(answers, Mapping):
        return {name: _rounded(part) for name, part in answers.items()}
    return [int(value) if value == int(value) else round(value, 4) for value in map(float, answers)]
