"""What was steered for a search, before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from steersearch.core.images.dates import CaptureDate
from steersearch.core.prompts import Reading
from steersearch.indexer.store import Vector


@dataclass(frozen=True)
class Guess:
    """A photo by its regions alone. path: relative to the library's folder; score: its match with the query; date: see
    `store.date_at`."""

    path: str
    image_id: str
    score: float
    date: CaptureDate | None


@dataclass(frozen=True)
class Unkept:
    """What was computed for a prompt index and could not be written.

    reading: how the text encoder read the prompt; None where it was read before.
    """

    vectors: Sequence[Vector]
    reading: Reading | None


@dataclass(frozen=True)
class Steered:
    """What was done before a search.

    photos: contents steered just now.  missing: contents that have no vector under some focus yet, and pass.
    unreadable: of those missing, the contents that were tried in vain.
    by_regions: whether the likeliest came first, by the regions of most of these contents. Without a query photo that
        is only known once some were steered.
    guesses: the best photos by regions alone, where no photo could be read and none was steered before.
    unkept: what was computed for each prompt index, by its key, and may not have been written.
    """

    photos: int = 0
    missing: int = 0
    unreadable: int = 0
    by_regions: bool = False
    guesses: tuple[Guess, ...] = ()
    unkept: Mapping[str, Unkept] = field(default_factory=dict)

    @classmethod
    def together(cls, several: Sequence[Steered]) -> Steered:
        """What was done for all focuses of a search, without guesses."""
        return cls(
            photos=sum(one.photos for one in several),
            missing=max((one.missing for one in several), default=0),
            unreadable=max((one.unreadable for one in several), default=0),
            by_regions=bool(several) and all(one.by_regions for one in several if one.missing),
        )


NOTHING = Steered()
