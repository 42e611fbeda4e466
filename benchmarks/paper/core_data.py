"""A CORE data set: scenes, and photos in which objects were put."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steersearch.benchmarks.harness.benchmark import Source
from steersearch.benchmarks.harness.cache import digest_of
from steersearch.benchmarks.harness.embeddings import Gallery
from steersearch.core.errors import BenchmarkError


@dataclass(frozen=True)
class Row:
    """One picture: `object` was added to the photo `image_id` of `scene`; `prompt` names it."""

    scene: str
    object: str
    image_id: str
    prompt: str


@dataclass(frozen=True)
class Scene:
    """One gallery; its pictures in the order of `rows`. masks: files that show each picture's object, or none."""

    name: str
    rows: tuple[Row, ...]
    gallery: Gallery
    masks: tuple[Path, ...] = ()

    @property
    def prompts(self) -> dict[str, str]:
        """object -> its prompt, in the order in which objects appear."""
        return {row.object: row.prompt for row in self.rows}

    @property
    def queries(self) -> list[Row]:
        """The pictures whose object another source photo has too."""
        sources: dict[str, set[str]] = {}
        for row in self.rows:
            sources.setdefault(row.object, set()).add(row.image_id)
        return [row for row in self.rows if len(sources[row.object]) > 1]


@dataclass(frozen=True, kw_only=True)
class CoreData:
    """A CORE data set. remarks: JSON-able, for the record: how it was made, what was left out."""

    name: str
    source: Source
    licence: str
    scenes: tuple[Scene, ...]
    remarks: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n(self) -> int:
        return sum(len(scene.rows) for scene in self.scenes)

    @property
    def data_hash(self) -> str:
        scenes = [[scene.gallery.digest, [vars(row) for row in scene.rows]] for scene in self.scenes]
        return digest_of(scenes)


def check_rows(rows: Sequence[Row]) -> None:
    """Raise BenchmarkError for rows that make no galleries: see the messages."""
    prompts: dict[tuple[str, str], str] = {}
    sources: dict[str, set[str]] = {}
    for row in rows:
        known = prompts.setdefault((row.scene, row.object), row.prompt)
        if known != row.prompt:
            raise BenchmarkError(f'{row.scene}, {row.object}: two prompts, "{known}" and "{row.prompt}"')
        sources.setdefault(row.scene, set()).add(row.image_id)
    if not rows:
        raise BenchmarkError("the data set has no row that can be used")
    for scene, ids in sources.items():
        if len(ids) < 2:
            raise BenchmarkError(
                f"{scene}: all pictures come from one source photo, so no query has a gallery"
            )
