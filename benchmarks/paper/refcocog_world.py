"""refcocog-world: the protocol of `refcocog` on generated photos. A stand-in: no figure of it is the paper's.

Photos of drawn things, four expressions about each, two in five with a relation or a superlative, from the split of
the generated world that no training seed gives. The margin is tuned on other photos than those measured.
"""

from __future__ import annotations

from PIL import Image

from steersearch.benchmarks.harness.viewing import digest
from steersearch.benchmarks.paper.refcocog_data import Expressions, chosen
from steersearch.core.heatmaps import outlined
from steersearch.training.world.source import SourceConfig, WorldSource

VERSION = 1
TUNING, MEASURED = 40, 120  # photos
CONFIG = SourceConfig(
    photos=TUNING + MEASURED,
    size=160,
    seed=96_000,
    relations=0.4,
    drawn_per_kind=4,
    plates=4,
    stamps=False,
    emoji=False,
    split="val",
)


def build(limit: int | None = None) -> Expressions:
    """The stand-in, always the same; `limit`: of its 480 expressions."""
    world = WorldSource(CONFIG)
    first = TUNING * CONFIG.expressions
    tuning, _ = chosen(world, range(first))
    measured, _ = chosen(world, range(first, len(world))[:limit])
    parts = (
        part for one in measured for part in (one.text.encode(), one.mask.tobytes(), one.picture().tobytes())
    )
    return Expressions(
        name="refcocog-world",
        source="generated stand-in",
        licence="Apache-2.0",
        data_hash=digest(parts),
        measured=tuple(measured),
        tuning=tuple(tuning),
    )


def examples() -> list[tuple[str, Image.Image]]:
    """An expression about each of the first four measured photos, with its referent outlined."""
    first = TUNING * CONFIG.expressions
    found, _ = chosen(WorldSource(CONFIG), range(first, first + 16, 5))
    return [(f'"{one.text}"', outlined(one.picture().resize((320, 320)), one.mask)) for one in found]
