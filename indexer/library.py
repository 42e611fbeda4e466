"""A library: one photo folder and all that is known about it."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import platformdirs

from steersearch.core.digits import in_digits
from steersearch.core.errors import (
    ArgumentError,
    EmbeddingError,
    FolderError,
    LibraryDamagedError,
    LibraryMissingError,
    LibraryPlaceError,
    LibraryUnreadableError,
    ModelMismatchError,
    NoImagesError,
    PromptError,
    PromptIndexMissing,
)
from steersearch.core.image_file import SUFFIXES, read_picture
from steersearch.core.local_path import user_folder, why_not_local
from steersearch.core.photo_limits import DEFAULT_LIMITS, Limits
from steersearch.core.picture import Picture
from steersearch.core.preprocess import View, least_side, view_of
from steersearch.core.prompts import as_prompt, checked_prompt
from steersearch.core.reading import EncodedPrompt, Reading
from steersearch.indexer.any_focus import BUDGET_S, NOTHING, LikeliestFirst, Steered
from steersearch.indexer.build import COMMIT_SECONDS, Build, Counts, ProgressEvent
from steersearch.indexer.compaction import Optimized, bytes_below, optimize, optimize_if_worth_it
from steersearch.indexer.copies import folded
from steersearch.indexer.embedder import (
    Embedder,
    Floats,
    Identity,
    QueryFeatures,
    as_embedder,
    known_identity,
    query_features,
)
from steersearch.indexer.exclude import excluder, read_patterns, write_patterns
from steersearch.indexer.export import table_of
from steersearch.indexer.features import features_of, is_encoded, read_reading
from steersearch.indexer.filters import Filters, Mask, is_in
from steersearch.indexer.find import rank_by_presence
from steersearch.indexer.hits import FocusScore, Hit, Hits, Method, Searched, is_enough
from steersearch.indexer.loader import content_hash
from steersearch.indexer.manifest import (
    LIBRARY_FILE,
    LibraryManifest,
    PromptIndex,
    is_begun_by_query,
    new_prompt_index,
    read_library,
    read_prompt_indexes,
    replace_prompt_index,
    unmark_begun_by_query,
    write_library,
)
from steersearch.indexer.query_terms import AnyFocus, Focus, as_focuses
from steersearch.indexer.ranking import Ranking, rank
from steersearch.indexer.region_snapshot import open_region_snapshot
from steersearch.indexer.regions import FrozenIndex
from steersearch.indexer.removal import remove_library, remove_prompt_index, unfinished_keys
from steersearch.indexer.scan import Scan, Skip, changed_at, holds_an_image, root_id, scan_folder
from steersearch.indexer.search import Snapshot, open_snapshot, snapshot_name, snapshot_with
from steersearch.indexer.store import Store, date_at
from steersearch.indexer.verification import Finding, Verification
from steersearch.indexer.writers import alone, writing

logger = logging.getLogger(__name__)

__all__ = [
    "Counts",
    "Coverage",
    "Finding",
    "Focus",
    "Hit",
    "Hits",
    "Library",
    "LibraryInfo",
    "ProgressEvent",
    "PromptIndex",
    "Skip",
]


@dataclass(frozen=True)
class Coverage:
    """photos of the library have a vector under this prompt; missing have none yet. reading: see `Library.reading`."""

    index: PromptIndex
    photos: int
    missing: int
    reading: Reading | None = None


@dataclass(frozen=True)
class LibraryInfo:
    """What a library holds. photos: the usable ones; skipped: the others; bytes_on_disk: of the library."""

    place: Path
    folder: Path
    photos: int
    skipped: int
    prompts: tuple[Coverage, ...]
    bytes_on_disk: int


class Library:
    """A photo folder with its prompt indexes. Make one with `create` or `open`.

    folder: absolute real path of the photos, which are only read.
    place:  folder in which the library keeps its own files.
    """

    def __init__(self, folder: Path, place: Path) -> None:
        self.folder, self.place = folder, place
        self._snapshots: dict[str, Snapshot] = {}
        self._readings: dict[str, Reading] = {}  # of prompts that may not have been written

    @classmethod
    def create(cls, folder: str | Path, place: str | Path | None = None) -> Library:
        """The library of `folder`, new or as it is. Nothing is written before `index` has something to write.

        place: where it lives; None is `default_place(folder)`. Raises FolderError, NoImagesError,
        LibraryPlaceError, SchemaVersionError.
        """
        root = _real_folder(folder)
        library = cls(root, _user_place(root) if place is None else _local_place(place))
        library._check_place()
        if not library.exists and not holds_an_image(root):
            raise NoImagesError(root, SUFFIXES)
        return library

    @classmethod
    def open(cls, place: str | Path) -> Library:
        """The library at `place`, whether or not its photos can be reached. Raises LibraryMissingError,
        SchemaVersionError, LibraryDamagedError."""
        local = _local_place(place)
        try:
            manifest = read_library(local)
        except (FileNotFoundError, NotADirectoryError):
            raise LibraryMissingError(local) from None
        return cls(Path(manifest.folder), local)

    @property
    def exists(self) -> bool:
        """Whether it was written: False until the first `index`."""
        return (self.place / LIBRARY_FILE).exists()

    @property
    def if_moved(self) -> str:
        """What to do where the photo folder is gone."""
        file = self.place / LIBRARY_FILE
        return f'if it moved, write its new path as "folder" into {file}: nothing has to be computed again'

    # building

    def index(
        self,
        embedder: Embedder | Callable[[], Embedder],
        prompts: Sequence[str] | None = None,
        gate_scale: float | None = None,
        batch_size: int | None = None,
        progress: Callable[[ProgressEvent], None] | None = None,
        *,
        exclude: Sequence[str] | None = None,
        limits: Limits = DEFAULT_LIMITS,
        commit_seconds: float = COMMIT_SECONDS,
        regions: bool = True,
    ) -> Counts:
        """Bring the library up to date with its folder, under each of `prompts` at `gate_scale` (None: 1, as trained).

        Without prompts: under every prompt the library has for this model, each at its own gate_scale, but for
        those that were never named here and only begun by a query (`search_any`).
        embedder: may be lazy (`LazyEmbedder`, or a function that gives an embedder): it is only loaded when a
            photo or a prompt has to be embedded, and for a function also to learn which model it is when
            prompts are named.
        batch_size: photos per forward pass; None: as many as suit the model and its device.
        progress: called after each finished step over the photos that have to be read.
        exclude: patterns of files and folders to leave out, see `exclude.excluder`; the library remembers them, and
            None means those it remembers. A photo that is left out from now on counts as removed.
        limits: photos that take more are skipped, and tried again by the next run.
        commit_seconds: what a run that is killed loses at most.
        regions: also keep what the frozen trunk says of each photo, for queries of a focus that is not indexed;
            one more pass of the model per photo that lacks it.

        Raises PromptError, FolderError (the folder has vanished: nothing is marked as removed),
        NoImagesError, LibraryPlaceError, ModelMismatchError, EmbeddingError; single unusable files raise
        nothing, see `Counts.skips`.
        """
        named = _checked_prompts(prompts or ())
        if gate_scale is not None and not named:
            raise ArgumentError(
                "gate_scale", gate_scale, "name the prompts; without, each index keeps its own"
            )
        gate_scale = 1.0 if gate_scale is None else gate_scale
        if not math.isfinite(gate_scale):
            raise ArgumentError("gate_scale", gate_scale, "must be a finite number, 1.0 is as trained")
        if batch_size is not None and batch_size < 1:
            raise ArgumentError("batch_size", batch_size, "must be at least 1")
        self._check_place()
        patterns = self.excluded if exclude is None else tuple(dict.fromkeys(exclude))
        scan = self._scan(patterns)
        embedder = as_embedder(embedder)
        targets = self._targets(embedder, named, gate_scale)
        new = [target for target in targets if not is_encoded(self.place, target)]
        encoded = {target.key: embedder.encode_prompt(target.prompt) for target in new}
        self._write(patterns)
        with writing(self.place):
            for target in targets if named else ():
                unmark_begun_by_query(self.place, target)
            counts = Build(
                self.folder,
                self.place,
                scan,
                targets,
                embedder,
                encoded,
                frozen=FrozenIndex.beside(targets[0]) if regions else None,
                batch_size=batch_size,
                commit_seconds=commit_seconds,
                limits=limits,
                progress=progress,
            ).run()
        optimize_if_worth_it(self.place)
        return counts

    @property
    def excluded(self) -> tuple[str, ...]:
        """The patterns of what is left out, as `index` was last told."""
        return read_patterns(self.place)

    def _write(self, patterns: Sequence[str]) -> None:
        if not self.exists:
            write_library(self.place, LibraryManifest(folder=os.fspath(self.folder)))
        write_patterns(self.place, patterns)

    def _scan(self, patterns: Sequence[str]) -> Scan:
        if not self.folder.is_dir():
            reason = "the photo folder is gone; bring it back to index it"
            if self.exists:
                reason += f". Its library can be searched as it is; {self.if_moved}"
            raise FolderError(self.folder, reason)
        scan = scan_folder(self.folder, excluder(patterns))
        if "." in scan.unlisted:
            raise FolderError(self.folder, scan.skips[0].reason)
        if root_id(self.folder) != scan.root_id:
            raise FolderError(self.folder, "the photo folder was replaced while it was listed; index again")
        if not scan.files and not scan.skips:
            self._refuse_emptiness(patterns)
        return scan

    def _refuse_emptiness(self, patterns: Sequence[str]) -> NoReturn:
        if patterns and holds_an_image(self.folder):
            quoted = " ".join(f'"{pattern}"' for pattern in patterns)
            reason = (
                f'every photo is excluded by {quoted}; other patterns replace these, --exclude "" drops them'
            )
            raise FolderError(self.folder, reason)
        question = f"; is a disk not mounted? If the photos are gone for good, delete {self.place}"
        raise NoImagesError(self.folder, SUFFIXES, question if self.exists else "")

    def _targets(self, embedder: Embedder, prompts: Sequence[str], gate_scale: float) -> list[PromptIndex]:
        """The prompt indexes that this run builds or brings up to date."""
        identity = known_identity(embedder)
        existing = [i for i in self.prompts() if identity.fits(i.weights_hash, i.preprocessing)]
        if not prompts:
            existing = [index for index in existing if not is_begun_by_query(self.place, index)]
            if len({(i.weights_hash, repr(i.preprocessing)) for i in existing}) > 1:
                _ = embedder.dim  # loads it: only the model itself can tell which are its own
                identity = known_identity(embedder)
                existing = [i for i in existing if identity.fits(i.weights_hash, i.preprocessing)]
            if not existing:
                raise PromptError(self._no_prompt(identity))
            return existing
        targets = []
        for prompt in prompts:
            same = [i for i in existing if (as_prompt(i.prompt), i.gate_scale) == (prompt, gate_scale)]
            if identity.weights_hash is not None and len(same) == 1:  # known without loading the model
                targets.append(same[0])
            else:
                targets.append(self._target(embedder, prompt, gate_scale))
        return targets

    def _target(self, embedder: Embedder, prompt: str, gate_scale: float) -> PromptIndex:
        index = new_prompt_index(
            prompt,
            gate_scale,
            model_id=embedder.model_id,
            weights_hash=embedder.weights_hash,
            preprocessing=embedder.preprocessing,
            dim=embedder.dim,
        )
        return next((existing for existing in self.prompts() if existing.key == index.key), index)

    def _no_prompt(self, identity: Identity) -> str:
        have = self.prompts()
        if not have:
            return f"no prompt given and none known; name one: {self.command('TEXT')}"
        names = ", ".join(map(str, have))
        view = view_of(identity.preprocessing or {})
        own = f"the model {identity.model_id}" + ("" if view is None else f" and the view {view}")
        return f"no prompt given, and none known for {own}; the library has: {names}"

    def _check_place(self) -> None:
        """Raise LibraryPlaceError unless this library is at its place, or could be put there."""
        place = self.place
        if self.exists:
            other = read_library(place).folder
            if other != os.fspath(self.folder):
                reason = f"holds the library of another folder, {other}"
                if not Path(other).is_dir():
                    reason += f", which is gone; {self.if_moved}"
                raise LibraryPlaceError(place, reason)
            return
        try:
            if any(not path.name.startswith(".writing-") for path in place.iterdir()):
                raise LibraryPlaceError(place, "is a folder with other things in it")
        except FileNotFoundError:
            pass
        except OSError as error:
            raise LibraryPlaceError(place, f"cannot be used ({error.strerror})") from error
        ancestor = next(path for path in (place, *place.parents) if path.exists())
        if not ancestor.is_dir():
            raise LibraryPlaceError(place, f"cannot be created: {ancestor} is a file")
        if not os.access(ancestor, os.W_OK | os.X_OK):
            raise LibraryPlaceError(place, f"cannot be written: no permission in {ancestor}")

    # searching

    def query(
        self,
        embedder: Embedder | Callable[[], Embedder],
        image_path: str | Path,
        focus: AnyFocus,
        k: int = 10,
        gate_scale: float | None = None,
        model: str | None = None,
        *,
        filters: Filters | None = None,
        exact: bool = False,
        limits: Limits = DEFAULT_LIMITS,
    ) -> Hits[Hit]:
        """`search` in the prompt index of each focus that this embedder made.

        gate_scale, model: which of several indexes of a prompt is meant; None: of those of this embedder the first
            of `choices`.
        Raises ArgumentError, PromptIndexMissing, ImageError, ModelMismatchError.
        """
        embedder = as_embedder(embedder)
        focuses = [
            replace(one, indexes=(self._fitting(self.choices(one.text, model, gate_scale), embedder),))
            for one in as_focuses(focus)
        ]
        return self.search(
            focuses,
            image_path,
            lambda _: embedder,
            k,
            filters=filters,
            exact=exact,
            limits=limits,
        )

    def search(
        self,
        focuses: Sequence[Focus],
        image_path: str | Path,
        embedder_of: Callable[[PromptIndex], Embedder],
        k: int = 10,
        *,
        filters: Filters | None = None,
        exact: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        after: Steered = NOTHING,
    ) -> Hits[Hit]:
        """The k photos most similar to the one at `image_path` in what the focuses name; all, if fewer.

        A query photo that lies in the gallery is itself a hit, as a rule the first. Photos with equal scores
        come in the order of their paths. Photos that have no vector yet under one of the focuses cannot be found:
        `Hits.searched` counts them, no hit is exact then, and there is none where `Searched.is_too_little`.
        embedder_of: gives the model that made a prompt index; asked only if the library does not know the photo,
            else its stored vectors are the query.
        filters: only photos that pass are compared.  exact: compare all of them, however many there are.
        limits: a query photo that takes more to read, and that the library does not know, is refused.
        after: what was steered for this search.
        Raises ArgumentError, FilterError, ImageError, ModelMismatchError.
        """
        if k < 1:
            raise ArgumentError("k", k, "must be at least 1")
        if not focuses:
            raise ArgumentError("focus", focuses, "name nothing to look at")
        galleries = [self.snapshot(focus.index) for focus in focuses]
        passing, of, undated = self._passing_rows(filters, galleries[0], focuses[0].index)
        embeddings = self._query_embeddings(
            focuses, galleries, Path(image_path), embedder_of, limits, after.queries
        )
        weights = [focus.weight for focus in focuses]
        ranking = rank(galleries, embeddings, weights, k, passing, exact=exact)
        searched = Searched(
            self._read(focuses),
            ranking.num_photos,
            max(of, ranking.num_photos),
            ranking.method,
            ranking.probed,
            is_filtered=bool(filters),
            by_regions=after.by_regions,
            unreadable=after.unreadable,
            undated=undated,
        )
        return self._found(searched, galleries[0], ranking)

    def find(
        self, focus: Focus, k: int = 10, *, filters: Filters | None = None, after: Steered = NOTHING
    ) -> Hits[Hit]:
        """The k photos that most surely show what the prompt of the focus names; all, if fewer.

        The score of a hit says how far it stands above the gallery, see `find_scores`, that of its part is the
        photo's presence; equal ones come in the order of their paths. Photos without presence yet cannot be found:
        `Hits.searched` counts them, no hit is exact then, and there is none where `Searched.is_too_little`.
        filters: only photos that pass are ranked.
        after: what was steered for this search.
        Raises ArgumentError, FilterError.
        """
        if k < 1:
            raise ArgumentError("k", k, "must be at least 1")
        gallery = self.snapshot(focus.index)
        passing, of, undated = self._passing_rows(filters, gallery, focus.index)
        ranking = rank_by_presence(gallery, k, passing)
        searched = Searched(
            self._read([focus]),
            ranking.num_photos,
            max(of, ranking.num_photos),
            ranking.method,
            is_filtered=bool(filters),
            by_regions=after.by_regions
            and is_enough(ranking.num_photos, of),  # the first were chosen blindly
            unreadable=after.unreadable,
            undated=undated,
        )
        return self._found(searched, gallery, ranking)

    def without_presence(self, index: PromptIndex) -> int:
        """How many photos have a vector but no presence: made by a version that had none."""
        return int(np.isnan(self.snapshot(index).presence).sum())

    def find_any(
        self,
        focus: Focus,
        embedder_of: Callable[[PromptIndex], Embedder],
        k: int = 10,
        *,
        filters: Filters | None = None,
        exact: bool = False,
        collapse: bool = False,
        budget_s: float | None = None,
        progress: Callable[[ProgressEvent], None] | None = None,
    ) -> Hits[Hit]:
        """`find`, after photos that lack a vector under this prompt were given one: the likeliest first.

        The index need not exist. What is computed is kept, also when this is interrupted; the options are those of
        `search_any`. Raises ArgumentError, FilterError, ModelMismatchError, EmbeddingError.
        """
        if k < 1:
            raise ArgumentError("k", k, "must be at least 1")
        seconds = _seconds(exact, budget_s)
        after = NOTHING
        if self._incomplete([focus]):
            likeliest = LikeliestFirst(
                self.folder,
                self.place,
                [focus],
                embedder_of(focus.index),
                None,
                lambda snapshot: self._passing(filters, snapshot.photos),
            )
            after = likeliest.steer(k, seconds, progress)
            self._take_unkept([focus], after)
        search = partial(self.find, focus, filters=filters, after=after)
        return folded(search, k, Store(self.place).thumbnails) if collapse else search(k)

    def _passing(self, filters: Filters | None, photos: Any) -> Mask | None:
        """Which of `photos`, see `Filters.passing`, pass; None: all."""
        if not filters:
            return None
        return filters.passing(photos, self.folder)

    def _passing_rows(
        self, filters: Filters | None, gallery: Snapshot, index: PromptIndex
    ) -> tuple[Mask | None, int, int]:
        """Which rows of a gallery pass (None: all), how many photos of the library pass, with a vector or not, and how
        many do not for want of a plausible date."""
        if not filters:
            return None, len(gallery) + gallery.missing, 0
        if not gallery.missing:
            passing = self._passing(filters, gallery.table)
            assert passing is not None
            return passing, int(passing.sum()), filters.num_undated(gallery.table)
        photos = open_region_snapshot(self.place, FrozenIndex.beside(index).key).photos
        passing = self._passing(filters, photos)
        paths = photos.column("path").filter(passing)
        return is_in(gallery.table.column("path"), paths), len(paths), filters.num_undated(photos)

    def _read(self, focuses: Sequence[Focus]) -> tuple[Focus, ...]:
        """The focuses with what is known of how the model read their prompts."""
        return tuple(replace(focus, reading=self.reading(focus.index)) for focus in focuses)

    def reading(self, index: PromptIndex) -> Reading | None:
        """How the model that made this index read its prompt; None: not known."""
        try:
            kept = read_reading(self.place, index.key)
            return self._readings.get(index.key) if kept is None else kept
        except (LibraryDamagedError, LibraryUnreadableError) as error:
            logger.warning("%s", error)
            return None

    def _found(self, searched: Searched, gallery: Snapshot, ranking: Ranking) -> Hits[Hit]:
        """The ranked photos of the first focus' gallery as hits; none where their order would be noise."""
        return Hits(
            () if searched.is_too_little else _hits(self.folder, searched, gallery, ranking), searched
        )

    def search_any(
        self,
        focuses: Sequence[Focus],
        image_path: str | Path,
        embedder_of: Callable[[PromptIndex], Embedder],
        k: int = 10,
        *,
        filters: Filters | None = None,
        exact: bool = False,
        collapse: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        budget_s: float | None = None,
        progress: Callable[[ProgressEvent], None] | None = None,
    ) -> Hits[Hit]:
        """`search`, after photos that lack a vector under a focus were given one: the likeliest first.

        The prompt index of a focus need not exist. What is computed is kept, also when this is interrupted; where it
        cannot be written, that is logged, and this object alone knows it.
        budget_s: how long photos are steered, at least one is (None: BUDGET_S); with `exact` all are.
        Where no photo can be read and none has a vector under a focus, the hits are those of the photos' regions
        alone: `Searched.method` says so.
        collapse: fold copies of a photo into the best of them, see `copies.folded`; k are left where there are so many.
        Raises what `search` raises, and EmbeddingError.
        """
        if k < 1:
            raise ArgumentError("k", k, "must be at least 1")
        if not focuses:
            raise ArgumentError("focus", focuses, "name nothing to look at")
        seconds = _seconds(exact, budget_s)
        groups = self._incomplete(focuses)
        each_s = None if seconds is None else seconds / max(len(groups), 1)
        done = []
        for group in groups:
            likeliest = LikeliestFirst(
                self.folder,
                self.place,
                group,
                embedder_of(group[0].index),
                read_picture(image_path, at_least=least_side(group[0].index.preprocessing), limits=limits),
                lambda snapshot: self._passing(filters, snapshot.photos),
            )
            done.append(likeliest.steer(k, each_s, progress))
            self._take_unkept(group, done[-1])
        for steered in done:
            if steered.guesses:
                return self._guessed(focuses, steered)
        search = partial(
            self.search,
            focuses,
            image_path,
            embedder_of,
            filters=filters,
            exact=exact,
            limits=limits,
            after=Steered.together(done),
        )
        return folded(search, k, Store(self.place).thumbnails) if collapse else search(k)

    def _take_unkept(self, focuses: Sequence[Focus], steered: Steered) -> None:
        """Know what was computed and could not be written, for this search and those to come."""
        for focus in focuses:
            index, unkept = focus.index, steered.unkept.get(focus.index.key)
            if unkept is None:
                continue
            if unkept.reading is not None:
                self._readings[index.key] = unkept.reading
            if unkept.vectors:
                made = snapshot_with(self.place, index.key, index.dim, unkept.vectors)
                self._snapshots[index.key] = made

    def _lacks_vectors(self, index: PromptIndex) -> bool:
        gallery = self.snapshot(index)
        return (
            gallery.missing > gallery.damaged
        )  # what is damaged has one, which only `verify --repair` takes away

    def _incomplete(self, focuses: Sequence[Focus]) -> list[list[Focus]]:
        """The focuses under which photos lack a vector; those that can share a forward pass together."""
        known = {index.key for index in self.prompts()} | {
            *self._snapshots
        }  # these may be of what could not be written
        groups: dict[str, list[Focus]] = {}
        for focus in focuses:
            if focus.index.key not in known or self._lacks_vectors(focus.index):
                same = (focus.index.weights_hash, focus.index.preprocessing, focus.index.gate_scale)
                groups.setdefault(repr(same), []).append(focus)
        return list(groups.values())

    def _guessed(self, focuses: Sequence[Focus], steered: Steered) -> Hits[Hit]:
        """Hits by regions alone: their score is how well these match, and nothing is known of the steered photo."""
        searched = Searched(self._read(focuses), 0, steered.missing, Method.regions)
        hits = (
            Hit(
                path=self.folder / guess.path,
                score=guess.score,
                rank=number,
                image_id=guess.image_id,
                z=float("nan"),
                parts=tuple(FocusScore(focus, guess.score) for focus in searched.focuses),
                searched=searched,
                date=guess.date,
            )
            for number, guess in enumerate(steered.guesses, start=1)
        )
        return Hits(hits, searched)

    def _query_embeddings(
        self,
        focuses: Sequence[Focus],
        galleries: Sequence[Snapshot],
        image_path: Path,
        embedder_of: Callable[[PromptIndex], Embedder],
        limits: Limits,
        queries: Mapping[str, QueryFeatures],
    ) -> list[Floats]:
        """The query under each focus: its stored vector if the library knows the photo, else through the model."""
        row_of = self._row_finder(image_path, limits)
        picture: Picture | None = None
        embeddings = []
        for focus, gallery in zip(focuses, galleries, strict=True):
            row = row_of(gallery)
            if row is not None:
                embeddings.append(gallery.flat.vectors[np.array([row])][0])
                continue
            if focus.index.key in queries:
                embeddings.append(queries[focus.index.key].embedding)
                continue
            if picture is None:
                needed = max((least_side(focus.index.preprocessing) or 0) for focus in focuses) or None
                picture = read_picture(image_path, at_least=needed, limits=limits)
            index, embedder = focus.index, embedder_of(focus.index)
            _ = embedder.dim  # loads it: now it is known which model it is
            if not known_identity(embedder).fits(index.weights_hash, index.preprocessing):
                raise ModelMismatchError(index.prompt, index.model_id, embedder.model_id)
            features = self.prompt_features(index, embedder.encode_prompt)
            (found,) = query_features(embedder, picture, [features], index.gate_scale)
            embedding = found.embedding
            if embedding.shape != (index.dim,):
                raise ModelMismatchError(index.prompt, index.model_id, embedder.model_id)
            if not np.isfinite(embedding).all():
                raise EmbeddingError(image_path, index.prompt, index.model_id)
            embeddings.append(embedding)
        return embeddings

    def indexed_heatmap(self, image_path: str | Path, index: PromptIndex) -> Floats | None:
        """The heatmap that is stored for this photo, wherever it lies; None if the index does not know it."""
        gallery = self.snapshot(index)
        row = self._row_finder(Path(image_path), DEFAULT_LIMITS)(gallery)
        return None if row is None else gallery.heatmap_at(row)

    def _row_finder(self, image_path: Path, limits: Limits) -> Callable[[Snapshot], int | None]:
        """Finds a photo in a gallery: by its path if its size and time are unchanged, else by its content."""
        real = Path(os.path.realpath(image_path))
        path = real.relative_to(self.folder).as_posix() if real.is_relative_to(self.folder) else None
        content: str | None = None

        def find(gallery: Snapshot) -> int | None:
            nonlocal content
            try:
                state = real.stat()
                row = None if path is None else gallery.row_at(path)
                if row is not None:
                    known = (gallery.value("size", row), gallery.value("mtime_ns", row))
                    if known == (state.st_size, changed_at(state)):
                        return row
                content = content or content_hash(real, limits.file)
            except OSError:  # whoever opens it says what is wrong with it
                return None
            return gallery.row_of(content)

        return find

    def snapshot(self, index: PromptIndex) -> Snapshot:
        """The gallery of this prompt index as it is now; kept in memory until it changes."""
        return self._open(index.key, index.dim)

    def _open(self, key: str, dim: int | None = None) -> Snapshot:
        kept = self._snapshots.get(key)
        if kept is None or kept.name != snapshot_name(self.place, key):
            kept = self._snapshots[key] = open_snapshot(self.place, key, dim)
        return kept

    def missing(self, index: PromptIndex) -> int:
        """How many photos have no vector under this prompt yet; `index` without prompts makes them."""
        return self.snapshot(index).missing

    def prompt_features(self, index: PromptIndex, encode: Callable[[str], EncodedPrompt]) -> Floats:
        """The text encoder's output for this prompt, (L, Dt) float32, as it is kept, or else as `encode` makes it."""
        return features_of(self.place, index, encode)

    def heatmap(self, hit: Hit, part: FocusScore | None = None) -> Floats:
        """Where in the hit's photo a focus was found: (Hp, Wp) float32 on the patch grid, sums to 1.

        part: one of `hit.parts`; None: the first. Raises ArgumentError if the photo has left the library since.
        """
        gallery = self._open((part or hit.parts[0]).focus.index.key)
        heatmap = gallery.heatmap(hit.image_id)
        if heatmap is None:
            raise ArgumentError(
                "hit", os.fspath(hit.path), "has no heatmap: it left the library, or was not compared"
            )
        return heatmap

    def thumbnail(self, hit: Hit) -> bytes | None:
        """A JPEG of the hit's photo, upright, longer side at most 256 pixels; None if there is none."""
        return Store(self.place).thumbnail(hit.path.relative_to(self.folder).as_posix())

    def new_index(self, embedder: Embedder, prompt: str, gate_scale: float) -> PromptIndex:
        """The prompt index of these settings, the one that exists or one that `search_any` would begin."""
        (prompt,) = _checked_prompts([prompt])
        return self._target(embedder, prompt, gate_scale)

    def find_prompt_index(
        self,
        focus: str,
        model: str | None = None,
        gate_scale: float | None = None,
        view: View | None = None,
    ) -> PromptIndex:
        """The prompt index for this focus, of several the first of `choices`. Raises PromptIndexMissing."""
        return self.choices(focus, model, gate_scale, view)[0]

    def choices(
        self,
        focus: str,
        model: str | None = None,
        gate_scale: float | None = None,
        view: View | None = None,
    ) -> list[PromptIndex]:
        """The prompt indexes for this focus, at least one, the one to be preferred first.

        Those of all photos come before those of half of them and more, and these before the others; then those of
        gate_scale 1, then those in the view that `index` used last with their model, then the ones made last.
        Raises PromptIndexMissing, which says what there is and the command that builds this one.
        """
        (focus,) = _checked_prompts([focus])
        existing = self.prompts()
        fitting = [
            index
            for index in reversed(existing)
            if as_prompt(index.prompt) == focus  # older libraries kept a prompt as it was typed
            and model in (None, index.model_id)
            and gate_scale in (None, index.gate_scale)
            and view in (None, index.view)
        ]
        if not fitting:
            command = self.command(focus, model, gate_scale, view)
            raise PromptIndexMissing(focus, self.folder, [str(index) for index in existing], command)
        return sorted(fitting, key=self._preference) if len(fitting) > 1 else fitting

    def _preference(self, index: PromptIndex) -> tuple[int, bool, bool]:
        """Less is better."""
        try:
            gallery = self.snapshot(index)
            lacks = min(2, -(-gallery.missing // max(len(gallery), 1)))
        except (LibraryDamagedError, LibraryUnreadableError):  # whoever asks for this very one is told
            lacks = 3
        return lacks, index.gate_scale != 1, index.view != self.view_used(index.model_id)

    def view_used(self, model_id: str) -> View | None:
        """The view that `index` used last with this model; None: never, or one of the model's own."""
        named = (index.view for index in reversed(self.named_prompts()) if index.model_id == model_id)
        return next(named, None)

    def _fitting(self, candidates: Sequence[PromptIndex], embedder: Embedder) -> PromptIndex:
        """The first of the candidates that this embedder made, which is loaded only if nothing else can tell."""
        origins = {(index.weights_hash, repr(index.preprocessing)) for index in candidates}
        if len(origins) > 1 and known_identity(embedder).weights_hash is None:
            _ = embedder.dim  # loads it
        identity = known_identity(embedder)
        for index in candidates:
            if identity.fits(index.weights_hash, index.preprocessing):
                return index
        raise ModelMismatchError(candidates[0].prompt, candidates[0].model_id, embedder.model_id)

    def rename_model(self, indexes: Sequence[PromptIndex], model_id: str) -> None:
        """Record that the weights which made these indexes go by the name `model_id` now."""
        with writing(self.place):
            for index in indexes:
                replace_prompt_index(self.place, replace(index, model_id=model_id))

    def command(
        self,
        prompt: str | Sequence[str],
        model: str | None = None,
        gate_scale: float | None = None,
        view: View | None = None,
    ) -> str:
        """The command line that indexes this library's folder under a prompt, several, or () those that it has."""
        command = f"steersearch index {shlex.quote(os.fspath(self.folder))}"
        for text in [prompt] if isinstance(prompt, str) else prompt:
            quoted = "".join(f"\\{c}" if c in '\\"$`' else c for c in text)
            command += f' --prompt "{quoted}"'
        if model is not None:
            command += f" --model {shlex.quote(model)}"
        if gate_scale is not None:
            command += f" --gate-scale {in_digits(gate_scale)}"
        if view is not None:
            command += f" --view {view}"
        if self.place != default_place(self.folder):
            command += f" --library {shlex.quote(os.fspath(self.place))}"
        return command

    # care

    def optimize(self, *, forget_removed: bool = False) -> Optimized:
        """Compact the tables and delete what nobody needs; searches meanwhile are not disturbed.

        forget_removed: also drop the vectors of photos that are gone; one that comes back is embedded anew.
        Raises LibraryBusyError where another process is writing, LibraryPlaceError.
        """
        return optimize(self.place, forget=forget_removed)

    def remove(self, key: str) -> None:
        """Drop the prompt index of this key, finished or not. Raises LibraryBusyError, LibraryPlaceError."""
        remove_prompt_index(self.place, key)

    def unfinished(self) -> list[str]:
        """The keys of prompt indexes whose run ended early: they cannot be searched, `index` goes on with them."""
        return unfinished_keys(self.place)

    def delete(self) -> None:
        """Delete the library, not one photo, and its folder if nothing else is in there.

        Raises LibraryBusyError where another process is writing, LibraryPlaceError.
        """
        remove_library(self.place)

    def table(self, index: PromptIndex) -> Any:
        """A prompt index as a pyarrow.Table, see `export.table_of`."""
        return table_of(self.place, self.folder, index)

    def verify(self, *, deep: bool = False, repair: bool = False) -> list[Finding]:
        """Look at all that the library keeps: manifests, rows, vectors, thumbnails, prompt features, snapshots.

        deep: also read the photos again and compare their hashes.
        repair: set aside what is proved bad, so that it is made again (by the next `index`, or at once where no
            model is needed); what cannot be read now is left as it is.
        Raises LibraryBusyError where another process is writing.
        """
        with alone(self.place) if repair else nullcontext():
            verification = Verification(self.place, self._update_command, repair=repair)
            findings = verification.run()
            return findings + (verification.run_deep(self.folder) if deep else [])

    def _update_command(self, index: PromptIndex) -> str:
        return self.command(index.prompt, index.model_id, index.gate_scale, index.view)

    # looking

    def prompts(self) -> list[PromptIndex]:
        """The prompt indexes that can be searched, oldest first."""
        return read_prompt_indexes(self.place)

    def named_prompts(self) -> list[PromptIndex]:
        """Those of `prompts` that an `index` run was asked for; the others were only begun by a query."""
        return [index for index in self.prompts() if not is_begun_by_query(self.place, index)]

    def skipped(self) -> list[Skip]:
        """The files that the last run could not use, sorted by path, each with its reason."""
        known = Store(self.place).known_files() if self.exists else []
        skips = [Skip(file.path, file.reason) for file in known if file.reason is not None]
        return sorted(skips, key=lambda skip: skip.path)

    def info(self) -> LibraryInfo:
        """What the library holds and how large it is."""
        store = Store(self.place) if self.exists else None
        known = store.known_files() if store else []
        contents = [file.image_id for file in known if file.reason is None]
        coverage = []
        for index in self.prompts():
            embedded = store.embedded_ids(index.key) if store else set()
            photos = sum(image_id in embedded for image_id in contents)
            coverage.append(Coverage(index, photos, len(contents) - photos, self.reading(index)))
        return LibraryInfo(
            self.place,
            self.folder,
            len(contents),
            len(known) - len(contents),
            tuple(coverage),
            bytes_below(self.place),
        )


def _hits(folder: Path, searched: Searched, gallery: Snapshot, ranking: Ranking) -> Iterator[Hit]:
    found = zip(ranking.rows.tolist(), ranking.scores.tolist(), ranking.cosines.tolist(), strict=True)
    for number, (row, score, cosines) in enumerate(found, start=1):
        yield Hit(
            path=folder / gallery.value("path", row),
            score=score,
            rank=number,
            image_id=gallery.value("image_id", row),
            z=ranking.statistics.z(score),
            parts=tuple(FocusScore(*pair) for pair in zip(searched.focuses, cosines, strict=True)),
            searched=searched,
            date=date_at(gallery.table, row),
        )


def default_place(folder: str | Path) -> Path | None:
    """Where the library of a photo folder lives unless another place is named: in the user's data directory,
    under the folder's name and a hash of its real path. None for a user without a home folder."""
    real = os.path.realpath(folder)
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in os.path.basename(real)) or "root"
    digest = hashlib.sha256(os.fsencode(real)).hexdigest()[:12]
    data = user_folder(platformdirs.user_data_path)
    return None if data is None else data / "libraries" / f"{name}-{digest}"


def _real_folder(given: str | Path) -> Path:
    folder = Path(given)
    reason = why_not_local(given)
    if reason is not None:
        raise FolderError(folder, reason)
    if not folder.exists():
        raise FolderError(folder, "no such folder; give the folder that holds your photos")
    if not folder.is_dir():
        raise FolderError(folder, f"is a file, not a folder; did you mean {folder.absolute().parent}?")
    return Path(os.path.realpath(folder))


def _user_place(folder: Path) -> Path:
    place = default_place(folder)
    if place is None:
        raise LibraryPlaceError(folder, "there is no home folder (HOME is not set) for its library")
    return _valid_place(place)


def _local_place(place: str | Path) -> Path:
    reason = why_not_local(place)
    if reason is not None:
        raise LibraryPlaceError(place, reason)
    return _valid_place(Path(os.path.abspath(place)))


def _valid_place(place: Path) -> Path:
    """Raises LibraryPlaceError for a name that LanceDB does not take."""
    try:
        os.fspath(place).encode()
    except UnicodeEncodeError as error:
        raise LibraryPlaceError(place, "is not valid UTF-8, which the tables need") from error
    return place


def _seconds(exact: bool, budget_s: float | None) -> float | None:
    """How long photos are steered; None: as long as it takes. Raises ArgumentError."""
    if exact and budget_s is not None:
        reason = "contradicts `exact`, which compares all however long it takes; give one of the two"
        raise ArgumentError("budget_s", budget_s, reason)
    if budget_s is not None and not budget_s > 0:
        raise ArgumentError("budget_s", budget_s, "must be a number of seconds above 0")
    return None if exact else budget_s or BUDGET_S


def _checked_prompts(prompts: Sequence[str]) -> list[str]:
    """Prompts as they are kept, each once, in their order."""
    return list(dict.fromkeys(map(checked_prompt, prompts)))
