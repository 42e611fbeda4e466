"""What a large job costs: computing, disk, memory, the time of a query, and what breaks first. See docs/scale.md.

Figures of hardware come from records in benchmarks/results, which `Hardware.source` names, or from the paper. A model
that was not measured on some hardware is scaled by its work from one that was, and `Cost.guessed` says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from steersearch.core.errors import ArgumentError
from steersearch.core.registry import MODELS, ModelCard
from steersearch.indexer.faiss_index import choose_nlist, choose_nprobe
from steersearch.indexer.regions import NUMBERS
from steersearch.indexer.snapshot import APPROXIMATE_FROM

HOUR, DAY, MONTH = 3600.0, 86_400.0, 30 * 86_400.0  # seconds
GIB = 2**30
MOST = 10**12  # photos, prompts, machines

# Bytes a photo, of what is not vectors; the tests compare them with a library on disk.
THUMBNAIL = 12_000  # JPEG, 256 pixels; of photographs, each content once
NAMES = 150  # a row of `images`: path, hash, size, dates, checksums
KEY = 64  # hash and checksum of a row of vectors
SHOWN = 150  # what the snapshot of a prompt repeats of `images`

# Memory of an index run, for each file that is no copy of another (LOG, 1 December 2026); copies take that of the
# record ray-memory__instant.
FILE_IN_MEMORY = 337

BUSY = 0.95  # share of the time in which an index run has all cores at work (engineering/pipeline.py)

# Seconds for each number that is compared, on two cores (engineering/search_scale.py, 100,000 and 1,000,000 vectors of
# 384 and 768 numbers): they agree with the records within 35 %.
IVF_SECONDS = 0.52e-9
EXACT_SECONDS = 0.24e-9
BUILD_SECONDS = 0.06e-9
SHORTLIST_SECONDS = 17e-6  # a photo's regions, on two cores (engineering/any_focus.py, 100,000 photos)
PATIENCE = 10  # seconds
KMEANS = 6 * 40  # rounds × vectors per cell, see `IVFIndex`


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Milliseconds that a photo takes in a model.

    shared: what no prompt changes.  prompt: under each prompt.  unsteered: unsteered features. All of a GPU, or of all
    cores of a machine.  regions: grouping the patches, of one core.
    """

    shared: float
    prompt: float
    unsteered: float
    regions: float

    def scaled(self, factor: float) -> Pace:
        return Pace(**{name: value * factor for name, value in asdict(self).items()})


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Milliseconds of one core for a JPEG: reading, hashing, decoding, thumbnail, preprocessing."""

    fixed: float
    per_megapixel: float


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """A kind of machine. paces: by model.  memory: in bytes.  gpus: on which the models run; 0: on all cores."""

    name: str
    cores: int
    memory: int
    gpus: int
    paces: Mapping[str, Pace]
    reading: Reading
    source: str


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is planned. photos, prompts, machines: at least 1.  megapixels: of a photo.  Raises ArgumentError."""

    photos: int
    prompts: int = 1
    megapixels: float = 12.0
    regions: bool = True
    machines: int = 1

    def __post_init__(self) -> None:
        for name in ("photos", "prompts", "machines"):
            if not 1 <= getattr(self, name) <= MOST:
                raise ArgumentError(name, getattr(self, name), f"must be between 1 and {MOST:,}")
        if not 0 < self.megapixels <= 1000:
            raise ArgumentError("megapixels", self.megapixels, "must be above 0 and at most 1000")


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A limit. photos: the number at which it is reached.  way_out: what to do then."""

    what: str
    photos: int
    way_out: str


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Seconds and bytes of a `Job`.

    model_seconds: of one GPU, or of all cores of a machine.  reading_seconds: of one core.
    seconds: from begin to end on the job's machines.  bound: what they wait for, "model" or "reading".
    vectors, regions, photo_rows, thumbnails, snapshots: bytes on disk; the first four are the library's tables.
    index_memory: bytes in memory that a search of one prompt touches.  query_seconds: comparing, without the model.
    shortlist_seconds: to choose candidates for a focus that was not indexed; 0 without regions.
    build_seconds: of one prompt's IVF index, 0 where a search compares all vectors.
    limits: sorted, the first to be reached first.  guessed: why the paces are not measured ones; "" if they are.
    """

    forward_passes: int
    model_seconds: float
    reading_seconds: float
    seconds: float
    bound: str
    vectors: int
    regions: int
    photo_rows: int
    thumbnails: int
    snapshots: int
    index_memory: int
    is_approximate: bool
    query_seconds: float
    shortlist_seconds: float
    build_seconds: float
    limits: tuple[Limit, ...]
    guessed: str

    @property
    def bytes(self) -> int:
        return self.vectors + self.regions + self.photo_rows + self.thumbnails + self.snapshots


_READING = Reading(fixed=4.24, per_megapixel=3.7)  # record pace__mini; of GPUs' hosts nobody measured it
_PACES = "records pace__mini, pace__dinov2-small, pace__dinov2-base"
HARDWARE = {
    kind.name: kind
    for kind in (
        Hardware(
            name="cpu2",
            cores=2,
            memory=24 * GIB,
            gpus=0,
            paces={
                "mini": Pace(shared=21.15, prompt=8.4, unsteered=7.0, regions=2.75),
                "dinov2-small": Pace(shared=14.25, prompt=123.02, unsteered=120.08, regions=3.28),
                "dinov2-base": Pace(shared=25.83, prompt=409.6, unsteered=404.85, regions=4.11),
            },
            reading=_READING,
            source=_PACES,
        ),
        Hardware(
            name="a100",
            cores=16,
            memory=128 * GIB,
            gpus=1,
            paces={"dinov2-base": Pace(shared=0, prompt=9.5, unsteered=6.6, regions=4.11)},
            reading=_READING,
            source="the paper's Table 14, batch 16; assumed: a host of 16 cores, which read as cpu2's, and 128 GB",
        ),
        Hardware(
            name="h200",
            cores=16,
            memory=126 * GIB,
            gpus=1,
            paces={"dinov2-base": Pace(shared=0, prompt=1.99, unsteered=1.99, regions=4.11)},
            reading=_READING,
            source="at most: a training step, forward and backward, for a photo "
            "(record train-speed-cuda-bfloat16-336px-b12__dinov2-base); assumed: its cores read as cpu2's",
        ),
    )
}


def cost_of(job: Job, model: str, hardware: Hardware) -> Cost:
    """The cost of `job` with a named model. Raises ArgumentError for a name that `models list` does not have."""
    card = _card(model)
    pace, guessed = _pace(model, hardware)
    per_photo = pace.shared + job.prompts * pace.prompt + (pace.unsteered if job.regions else 0)
    reading = hardware.reading.fixed + job.megapixels * hardware.reading.per_megapixel
    reading += pace.regions if job.regions else 0
    model_seconds, reading_seconds = job.photos * per_photo / 1e3, job.photos * reading / 1e3
    on_cores = reading_seconds / hardware.cores
    busy = max(model_seconds / hardware.gpus, on_cores) if hardware.gpus else model_seconds + on_cores
    seconds = busy / BUSY
    n, approximate = job.photos, job.photos >= APPROXIMATE_FROM
    return Cost(
        forward_passes=n * (job.prompts + job.regions),
        model_seconds=model_seconds,
        reading_seconds=reading_seconds,
        seconds=seconds / job.machines,
        bound="reading" if hardware.gpus and on_cores > model_seconds / hardware.gpus else "model",
        vectors=n * job.prompts * (4 * card.dim + card.patches + KEY),
        regions=n * (2 * card.dim + _region_bytes(card) + KEY) if job.regions else 0,
        photo_rows=n * NAMES,
        thumbnails=n * THUMBNAIL,
        snapshots=n * (job.prompts * _snapshot_bytes(card, approximate) + job.regions * _region_bytes(card)),
        index_memory=n * (card.dim + 8 if approximate else 4 * card.dim),
        is_approximate=approximate,
        query_seconds=_query_seconds(n, card.dim, approximate),
        shortlist_seconds=n * SHORTLIST_SECONDS if job.regions else 0.0,
        build_seconds=_build_seconds(n, card.dim) if approximate else 0.0,
        limits=_limits(job, card, hardware, seconds / job.photos),
        guessed=guessed,
    )


def _card(model: str) -> ModelCard:
    if model not in MODELS:
        raise ArgumentError("model", model, f"no model of this name; known: {', '.join(MODELS)}")
    return MODELS[model]


def _pace(model: str, hardware: Hardware) -> tuple[Pace, str]:
    """The pace of a model, and why it is a guess."""
    if model in hardware.paces:
        return hardware.paces[model], ""
    measured = min(hardware.paces, key=lambda name: abs(math.log(_work(MODELS[name]) / _work(MODELS[model]))))
    factor = _work(MODELS[model]) / _work(MODELS[measured])
    return hardware.paces[measured].scaled(factor), f"scaled by {factor:.2g} from {measured}, by work"


def _work(card: ModelCard) -> float:
    """The work of a forward pass, up to a factor: applied weights times tokens."""
    return (card.backbone_parameters + card.parameters) * (card.patches + 1)


def _region_bytes(card: ModelCard) -> int:
    count = min(card.patches, 256, max(8, NUMBERS // card.dim))
    return card.patches + count * (card.dim + 2)


def _snapshot_bytes(card: ModelCard, approximate: bool) -> int:
    return 4 * card.dim + card.patches + SHOWN + (card.dim + 8 if approximate else 0)


def _query_seconds(n: int, dim: int, approximate: bool) -> float:
    if not approximate:
        return n * dim * EXACT_SECONDS
    nlist = choose_nlist(n)
    return (nlist + choose_nprobe(nlist, dim) * n / nlist) * dim * IVF_SECONDS


def _build_seconds(n: int, dim: int) -> float:
    nlist = choose_nlist(n)
    return (KMEANS * nlist * nlist + n * nlist) * dim * BUILD_SECONDS


def _limits(job: Job, card: ModelCard, hardware: Hardware, seconds_per_photo: float) -> tuple[Limit, ...]:
    """The limits of indexing on the job's machines, and of everything else on one of them."""
    building = card.dim + 8  # the index alone: vectors are read from their file
    limits = [
        Limit(
            what="indexing takes more than 30 days on these machines",
            photos=int(MONTH * job.machines / seconds_per_photo),
            way_out="more machines (--engine ray), fewer prompts, or a smaller model",
        ),
        Limit(
            what="building the IVF index of a prompt outgrows the memory of a machine",
            photos=hardware.memory // building,
            way_out="a library for each part of the photos",
        ),
        Limit(
            what="building the IVF index of a prompt takes more than a day",
            photos=_first_beyond(lambda n: _build_seconds(n, card.dim) > DAY),
            way_out="a library for each part of the photos",
        ),
        Limit(
            what="what an index run knows of its files outgrows the memory of a machine",
            photos=hardware.memory // FILE_IN_MEMORY,
            way_out="a library for each part of the photos",
        ),
    ]
    if job.regions:
        limits.append(
            Limit(
                what=f"choosing candidates for a focus that was not indexed takes more than {PATIENCE} s",
                photos=int(PATIENCE / SHORTLIST_SECONDS),
                way_out="index the prompts that matter; a library for each part of the photos",
            )
        )
    return tuple(sorted(limits, key=lambda limit: limit.photos))


def _first_beyond(is_beyond: Callable[[int], bool]) -> int:
    """The least power of 10^(1/20) at which it is."""
    return next(n for n in (round(10 ** (step / 20)) for step in range(80, 400)) if is_beyond(n))
