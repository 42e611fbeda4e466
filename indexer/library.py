"""A library: photo folders and everything computed from them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any, Self

import numpy as np

from steersearch.core.errors import ArgumentError, PromptError
from steersearch.core.images.limits import DEFAULT_LIMITS, Limits
from steersearch.core.objects import is_uri
from steersearch.core.preprocess import View
from steersearch.core.prompts import checked_prompt
from steersearch.core.vectors import Floats
from steersearch.indexer.build import COMMIT_SECONDS, Build, Counts
from steersearch.indexer.care.export import Exported, export_index, format_of, table_of
from steersearch.indexer.care.optimize import Optimized, optimize, optimize_if_worth_it
from steersearch.indexer.care.remove import remove_library, remove_prompt_index, unfinished_keys
from steersearch.indexer.care.verify import Finding, Verification
from steersearch.indexer.embedder import Embedder, OneModel, Provider
from steersearch.indexer.filters import Filters
from steersearch.indexer.folders import FileState
from steersearch.indexer.galleries import Galleries
from steersearch.indexer.hits import Hits
from steersearch.indexer.library_folders import LibraryFolders
from steersearch.indexer.library_info import LibraryInfo, info_of, skipped_files
from steersearch.indexer.library_models import AUTO, LibraryModels
from steersearch.indexer.library_scan import scan_library
from steersearch.indexer.manifest import PromptIndex, UnsteeredIndex, check_place, unmark_begun_by_query
from steersearch.indexer.place import local_place, photo_folder, place_of, place_or_folder
from steersearch.indexer.progress import ProgressEvent
from steersearch.indexer.prompt_features import is_encoded
from steersearch.indexer.prompt_indexes import PromptIndexes, targets, unsteered_target
from steersearch.indexer.query_photo import QueryPhoto, checked_images, query_photos
from steersearch.indexer.query_terms import AnyFocus, Focus, Sort, checked_sort
from steersearch.indexer.region import AnyRegion, as_region
from steersearch.indexer.regions import region_snapshot_name
from steersearch.indexer.relocation import Likeness
from steersearch.indexer.resolver import Resolver, checked_scale
from steersearch.indexer.scan import Skip, read_patterns, write_patterns
from steersearch.indexer.search import Search
from steersearch.indexer.snapshot import Snapshot, snapshot_name
from steersearch.indexer.work import Engine, LocalEngine, Steering
from steersearch.indexer.writers import alone, writing


class Library:
    """One or several photo folders with their prompt indexes, and the models that made them. Make one with `create` or
    `open`.

    place: where the library keeps its own files. Photos are only read.
    steering: where searches steer photos; see `ray_fleet.Fleet`.
    A model is loaded only when needed: `prompts`, and an `index` with nothing to compute, load none. Here a model is an
    `Embedder`; `steersearch.Library` also takes models by name.
    """

    steering: Steering = LocalEngine()

    def __init__(
        self,
        folders: LibraryFolders,
        model: str | Embedder = AUTO,
        device: str = AUTO,
        precision: str = AUTO,
    ) -> None:
        self._folders, self.place = folders, folders.place
        if isinstance(model, str):
            provider = self._provider(device, precision)
            name = provider.full_name(model)
        else:
            provider = OneModel(model)
            name = provider.model_id or AUTO
        self._galleries = Galleries(folders, provider.views)
        self._indexes = PromptIndexes(self._galleries)
        self._models = LibraryModels(self.place, self._indexes, provider, name)
        self._resolver = Resolver(self._indexes, self._models)

    @classmethod
    def create(
        cls,
        folder: str | Path | Sequence[str | Path],
        model: str | Embedder = AUTO,
        place: str | Path | None = None,
        device: str = AUTO,
        precision: str = AUTO,
    ) -> Self:
        """The library of `folder`, or of several, which need not exist; folders that it lacks are added to it. Nothing
        is written before `index` has something to write.

        model: what `index` uses: a name, a .safetensors or .pth file, a hub id, or an `Embedder`; "auto" is the model
            that the library used last, and for a new one the best available on this machine.
        place: where the library lives; None: where there is one of the first folder, else a folder of its own in the
            user's data directory.
        device: "auto" (the GPU if there is one), "cpu", "cuda".
        precision: "auto" (bfloat16 on a GPU that computes with it, else float32), "float32", "bfloat16".
        Raises FolderError, LibraryPlaceError, SchemaVersionError.
        """
        given = [folder] if isinstance(folder, str | Path) else list(folder)
        if not given:
            raise ArgumentError("folder", given, "name at least one")
        roots = [photo_folder(one) for one in given]
        at = place_of(roots[0]) if place is None else local_place(place)
        check_place(at)
        return cls(LibraryFolders.create(at, roots), model, device, precision)

    @classmethod
    def open(
        cls,
        place: str | Path,
        model: str | Embedder = AUTO,
        device: str = AUTO,
        precision: str = AUTO,
    ) -> Self:
        """The library that lives at `place`, or the one of the photo folder `place`, which need not be there now.

        model, device, precision: see `create`. Raises LibraryMissingError, SchemaVersionError, LibraryDamagedError.
        """
        return cls(LibraryFolders.open(place_or_folder(place)), model, device, precision)

    @classmethod
    def _provider(cls, device: str, precision: str) -> Provider:
        """The source of models by name."""
        return OneModel()

    @property
    def folder(self) -> Path:
        """The photo folder, of several the first: an absolute, real path."""
        return self._folders.now.paths[0]

    @property
    def folders(self) -> list[Path]:
        """All photo folders, where they are now, in the order in which they were added."""
        return self._folders.now.paths

    def file(self, stored: str) -> Path:
        """The file of a photo that the tables name by this path, see `folders.Folders`."""
        return self._folders.now / stored

    def state_of(self, stored: str, indexed: tuple[int, int] | None) -> FileState:
        """As `Folders.state_of`, of the photo that the tables name by this path."""
        return self._folders.now.state_of(self.file(stored), indexed)

    @property
    def added(self) -> list[Path]:
        """Folders that the library on disk lacks; the next `index` adds them."""
        return list(self._folders.new) if self.exists else []

    @property
    def away(self) -> list[tuple[Path, str]]:
        """The photo folders that are not there, and why."""
        local = [folder for folder in self._folders.now.all if not is_uri(folder.path)]
        return [(Path(f.path), f.why_away) for f in local if not os.path.isdir(f.path)]

    @property
    def exists(self) -> bool:
        """Whether it is on disk: False until the first `index`."""
        return self._folders.are_stored

    @property
    def model(self) -> str:
        """The model that `index` uses; for "auto" the one that the library has used last, if any."""
        return self._models.name

    @property
    def view(self) -> View | None:
        """The view that `index` uses: the one used last with this model; None: the model's own."""
        return self._models.view

    @property
    def excluded(self) -> tuple[str, ...]:
        """The patterns of what `index` leaves out, from the last run."""
        return read_patterns(self.place)

    # building

    def index(
        self,
        prompts: Sequence[str] | None = None,
        *,
        gate_scale: float | None = None,
        view: View | None = None,
        batch_size: int | None = None,
        exclude: Sequence[str] | None = None,
        limits: Limits = DEFAULT_LIMITS,
        progress: Callable[[ProgressEvent], None] | None = None,
        regions: bool = True,
        commit_seconds: float = COMMIT_SECONDS,
        engine: Engine | None = None,
    ) -> Counts:
        """Update the library from its folder, under each of `prompts`; nothing is computed twice.

        prompts: None updates all prompt indexes of this model and view, except those that only a query began; where
            there are none, it computes only regions and unsteered vectors, with which any focus can then be searched.
        gate_scale: of the prompts named: 0 no steering, 1 (None) as trained.
        view: how photos are seen: "crop" (the central square), "squash" (all of it) or "tile" (all of it, as
            2 × 2 tiles: small things show better, for four times the work); None is the property `view`.
        batch_size: photos per forward pass; None: as many as suit the model and its device.
        progress: called as photos are finished.
        exclude: patterns as in a .gitignore, such as "*.png" or "drafts/"; matching photos are left out, and count
            as removed if they were indexed. The library stores them: None uses the stored ones, () drops them.
        limits: photos whose reading takes more are skipped; the next run tries them again.
        regions: also keep regions of each photo, which answer a focus that is not indexed at once, and its unsteered
            vector; they take one more forward pass per photo.
        commit_seconds: the most that a killed run loses.
        engine: where photos are read and embedded; None: in this process; see `ray_engine.RayEngine`.
        Raises UnknownModelError, CheckpointError, PromptError, ArgumentError, FolderError (the folder has vanished:
        nothing counts as removed), LibraryPlaceError, ModelMismatchError, ClusterError, SteerSearchError; single
        unusable files raise nothing, see `Counts.skips`.
        """
        named = list(dict.fromkeys(map(checked_prompt, _several("prompts", prompts or ()))))
        scale = _gate_scale(gate_scale, named)
        if batch_size is not None and batch_size < 1:
            raise ArgumentError("batch_size", batch_size, "must be at least 1")
        engine = engine or LocalEngine()
        with engine.ready():
            embedder = self._models.for_run(named, view)
            check_place(self.place)
            patterns = (
                self.excluded if exclude is None else tuple(dict.fromkeys(_several("exclude", exclude)))
            )
            self._folders.reload()
            scan = scan_library(self._folders.now, patterns, self._folders.files_of)
            to_build = targets(self.place, self._indexes, embedder, named, scale)
            if not to_build and not regions:
                reason = (
                    "nothing to index: no prompt is given or known, and regions are left out; name a prompt"
                )
                raise PromptError(f"{reason}: {self._indexes.command('TEXT')}")
            unsteered = unsteered_target(self._indexes, embedder, to_build) if regions else None
            new = [target for target in to_build if not is_encoded(self.place, target)]
            encoded = {target.key: embedder.encode_prompt(target.prompt) for target in new}
            is_as_scanned = self._folders.write([folder for folder, _ in scan.away])
            write_patterns(self.place, patterns)
            if not is_as_scanned:
                scan = scan_library(self._folders.now, patterns, self._folders.files_of)
            with writing(self.place) as writer:
                for target in to_build if named else ():
                    unmark_begun_by_query(self.place, target)
                counts = Build(
                    self._folders.now,
                    self.place,
                    scan,
                    to_build,
                    embedder,
                    encoded,
                    unsteered=unsteered,
                    batch_size=batch_size,
                    commit_seconds=commit_seconds,
                    limits=limits,
                    progress=progress,
                    engine=engine,
                    writer=writer,
                ).run()
            optimize_if_worth_it(self.place)
            return counts

    def read_folders(self) -> None:
        """Take in what other processes have made of the library's folders since."""
        self._folders.reload()

    def relocate(self, old: str | Path, new: str | Path) -> Likeness:
        """Record that the photo folder `old` is at `new` now; nothing is computed.

        Up to 200 of its photos, evenly spread, are compared by content; the next `index` sees to all others.
        Raises FolderError where fewer than half are the same, or `new` overlaps another folder of the library;
        ArgumentError for an `old` that the library does not have, LibraryBusyError.
        """
        return self._folders.relocate(old, new)

    def remove_folder(self, folder: str | Path) -> int:
        """Leave a photo folder out from now on; returns how many photos the library loses. Their vectors are kept until
        `optimize` is to forget removed photos.

        Raises ArgumentError for one that the library does not have, and for the only one; LibraryBusyError.
        """
        return self._folders.remove(folder)

    # searching

    def query(
        self,
        image: str | Path | Sequence[str | Path],
        focus: AnyFocus | None = None,
        k: int = 10,
        *,
        any_of: bool = False,
        region: AnyRegion | None = None,
        gate_scale: float | None = None,
        model: str | None = None,
        view: View | None = None,
        folder: str | Path | None = None,
        after: str | date | None = None,
        before: str | date | None = None,
        where: str | None = None,
        exact: bool = False,
        collapse: bool = False,
        sort: Sort = "score",
        include_query: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        budget_s: float | None = None,
        progress: Callable[[ProgressEvent], None] | None = None,
    ) -> Hits:
        """The k photos most like the one at `image` in what `focus` names, best first; all if there are fewer.

        image: several are searched with by the mean of their embeddings under each focus, at unit length.
        any_of: search with each of several instead: a photo has the best of its scores with them.
        focus: None compares whole photos by their unsteered vectors, and steers nothing. Else any text, or several
            with weights: "sofa", ["sofa", ("cushion", 0.5), ("cat", -1)],
            see `Focus`. Photos that have no vector under a focus are steered now, the likeliest first, for `budget_s`
            seconds (None: 5), and their vectors are kept. `Hits.searched` says how many photos were compared; if they
            are too few to rank, there are no hits.
        region: a box in the query photo: "120,80,300,260" or four numbers (left, top, right, bottom in pixels of the
            upright photo), "10%,20%,50%,60%", or a `Region`; or several boxes with ";" between them; of several photos
            a part of each with "/" between them, nothing for a whole photo. What it shows is looked for in the regions
            of all photos, and nothing is steered; with a focus too, the score is the mean of both, see `Hit.score`.
        gate_scale, model, view: select among several indexes of a prompt, see `resolve`; the photo is embedded under
            the settings of that index. If the library has the photo, its stored embedding is the query and no model is
            loaded.
        folder, after, before, where: only these photos are compared, see `Filters.of`.
        exact: compare every photo, and steer those that have no vector, however long it takes; otherwise large
            galleries are searched through an IVF index, and `Hits.searched` says so.
        collapse: deduplicate: fold copies of a photo (re-encoded, resized, rotated, slightly cropped) into the best of
            them, see `Hit.copies`; photos that only look alike stay.
        sort: how the k best are ordered: "score", "date" (the oldest first) or "-date"; ranks stay those by score.
        include_query: keep query photos, and copies of them, among the hits; without, `Searched.left_out` names them.
        progress: called while photos are steered.
        limits: a query photo whose reading takes more is refused.
        Raises ArgumentError, PromptError, FilterError, ImageError, ModelMismatchError, UnknownModelError.
        """
        checked_sort(sort)
        filters = Filters.of(folder, after, before, where)
        box = None if region is None else as_region(region)
        images = checked_images(image, box, any_of=any_of)
        focuses: list[Focus] = []
        unsteered = None
        if focus is None:
            _refuse_steering(gate_scale, budget_s)
            unsteered = self.unsteered_index(model=model, view=view)
            doubt = self._models.doubt(unsteered)
        else:
            focuses = self.resolve(focus, gate_scale=gate_scale, model=model, view=view)
            unsteered = None if box is None else UnsteeredIndex.beside(focuses[0].index)
            doubt = self._models.doubt(focuses[0].index, [one.text for one in focuses])
        query = query_photos(
            images, focuses, self._galleries, self.embedder_of, limits, unsteered, any_of=any_of
        )
        search = Search(
            self._galleries, focuses, query, self.embedder_of, filters, unsteered, box, doubt, self.steering
        )
        hits = search.run(
            k,
            exact=exact,
            collapse=collapse,
            include_query=include_query,
            budget_s=budget_s,
            progress=progress,
        )
        return hits.sorted_by(sort)

    def find(
        self,
        text: str | Focus,
        k: int = 10,
        *,
        gate_scale: float | None = None,
        model: str | None = None,
        view: View | None = None,
        folder: str | Path | None = None,
        after: str | date | None = None,
        before: str | date | None = None,
        where: str | None = None,
        exact: bool = False,
        collapse: bool = False,
        sort: Sort = "score",
        budget_s: float | None = None,
        progress: Callable[[ProgressEvent], None] | None = None,
    ) -> Hits:
        """The k photos that most surely show what `text` names, best first; all if there are fewer.

        The score of a hit is not a cosine but how far the photo stands above the others, see
        `ranking.find_scores`; `hit.parts[0].score` is its presence, see `Features.presence`.
        text: any. Photos without a vector under it are steered now, for `budget_s` seconds (None: 5), with `exact` all:
            first some from every folder, then the likeliest; their vectors are kept. There are no hits until enough
            photos were compared to rank them, see `Hits.searched`.
        The other arguments, and what is raised: see `query`.
        """
        checked_sort(sort)
        filters = Filters.of(folder, after, before, where)
        focuses = self.resolve([text], gate_scale=gate_scale, model=model, view=view)
        doubt = self._models.doubt(focuses[0].index, [focuses[0].text])
        search = Search(
            self._galleries, focuses, None, self.embedder_of, filters, doubt=doubt, steering=self.steering
        )
        hits = search.run(k, exact=exact, collapse=collapse, budget_s=budget_s, progress=progress)
        return hits.sorted_by(sort)

    def resolve(
        self,
        focus: AnyFocus,
        *,
        gate_scale: float | None = None,
        model: str | None = None,
        view: View | None = None,
    ) -> list[Focus]:
        """The focuses with the prompt indexes that answer them; a focus that has some already is left unchanged.

        gate_scale, model, view: of the index; None: any, the preferred one first, see `PromptIndexes.choices`. A focus
            without a matching index gets the one that a query will begin: under the model and view that the library
            used last, at gate_scale 1, or at the last one if the library has none at 1.
        Raises ArgumentError, PromptError, UnknownModelError.
        """
        return self._resolver.focuses(focus, gate_scale, model, view)

    def find_prompt_index(
        self,
        focus: str,
        *,
        model: str | None = None,
        gate_scale: float | None = None,
        view: View | None = None,
    ) -> PromptIndex:
        """The preferred index of this prompt, see `PromptIndexes.choices`. Raises PromptIndexMissing."""
        return self._resolver.choices(focus, gate_scale, model, view)[0]

    def unsteered_index(self, *, model: str | None = None, view: View | None = None) -> UnsteeredIndex:
        """The unsteered vectors of this model and view that were made last, by weights that the model has now if there
        are such. Raises ArgumentError where there are none."""
        return self._resolver.unsteered(model, view)

    @property
    def galleries(self) -> Galleries:
        """The vectors of all indexes as they are searched."""
        return self._galleries

    @property
    def has_unsteered(self) -> bool:
        """Whether there are unsteered vectors, by which photos are compared without a focus."""
        return bool(self._indexes.unsteered())

    def gallery(self, index: PromptIndex | UnsteeredIndex) -> Snapshot:
        """The vectors of an index as they are searched."""
        if isinstance(index, UnsteeredIndex):
            return self._galleries.unsteered(index)
        return self._galleries.of(index)

    def gallery_name(self, index: PromptIndex | UnsteeredIndex) -> str:
        """`Snapshot.name` of its gallery, without reading it: it changes with the photos and their vectors."""
        named = region_snapshot_name if isinstance(index, UnsteeredIndex) else snapshot_name
        return named(self.place, index.key)

    def heatmap(self, image: str | Path, focus: Focus, limits: Limits = DEFAULT_LIMITS) -> Floats:
        """(Hp, Wp) float32 on the patch grid, sums to 1: where in a photo the model sees a focus from `resolve`.

        The stored heatmap if the library has it, else the model is asked. Raises ImageError, ModelMismatchError.
        """
        return QueryPhoto(image, [focus], self._galleries, self.embedder_of, limits).heatmap(focus.index)

    def embedder_of(self, index: PromptIndex | UnsteeredIndex) -> Embedder:
        """The model that made `index`. Raises ModelMismatchError if it has other weights by now."""
        return self._models.of(index)

    # care

    def verify(self, *, deep: bool = False, repair: bool = False) -> list[Finding]:
        """Check everything in the library: manifests, rows, vectors, thumbnails, prompt features, snapshots.

        Returns [] if nothing is wrong.
        deep: also read the photos again and compare their hashes.
        repair: set aside what is proved damaged; it is recomputed by the next `index`, or at once if that takes no
            model. What cannot be read now is left alone, and photos are never touched.
        Raises LibraryBusyError if repair is wanted while another process is writing.
        """
        with alone(self.place) if repair else nullcontext():
            verification = Verification(self.place, self.command, repair=repair)
            findings = verification.run()
            return findings + (verification.run_deep(self._folders.now) if deep else [])

    def optimize(self, *, forget_removed: bool = False) -> Optimized:
        """Compact the library, so that it is small and opens quickly; thumbnails of removed photos are dropped.
        Concurrent searches are not disturbed.

        forget_removed: also drop the vectors of removed photos; one that returns is embedded again.
        Raises LibraryBusyError where another process is writing, LibraryPlaceError.
        """
        return optimize(self.place, forget=forget_removed)

    def remove(self, index: PromptIndex | str) -> None:
        """Drop a prompt index (one of `prompts`, or the key of one in `unfinished`); photos are never touched.

        Raises ArgumentError, LibraryBusyError where another process is writing, LibraryPlaceError.
        """
        remove_prompt_index(self.place, index if isinstance(index, str) else index.key)

    def delete(self) -> None:
        """Delete the library, but no photo, and its folder if nothing else is in it.

        Raises LibraryBusyError where another process is writing, LibraryPlaceError.
        """
        remove_library(self.place)

    def table(
        self,
        focus: str,
        *,
        model: str | None = None,
        gate_scale: float | None = None,
        view: View | None = None,
    ) -> Any:
        """The prompt index of `focus` as a pyarrow.Table, a row per photo that has a vector, sorted by path: see
        `export.table_of`. Raises PromptIndexMissing."""
        index = self.find_prompt_index(focus, model=model, gate_scale=gate_scale, view=view)
        return table_of(self.place, self._folders.now, index)

    def export(
        self,
        focus: str,
        path: str | Path,
        *,
        format: str | None = None,
        force: bool = False,
        model: str | None = None,
        gate_scale: float | None = None,
        view: View | None = None,
    ) -> Exported:
        """Write `table(focus)` to a file for other programs, atomically.

        format: see `export.FORMATS`; None: by the suffix.  force: replace what is there.
        Raises PromptIndexMissing, ArgumentError, OutputError.
        """
        format_of(Path(path), format)  # before anything is read
        indexes = self._resolver.choices(focus, gate_scale, model, view)
        return export_index(self._galleries, focus, indexes, Path(path), format, force=force)

    # looking

    def prompts(self) -> list[PromptIndex]:
        """The prompt indexes that can be searched, oldest first."""
        return self._indexes.all()

    def unfinished(self) -> list[str]:
        """The keys of prompt indexes whose run ended early: they cannot be searched, `index` completes them."""
        return unfinished_keys(self.place)

    def skipped(self) -> list[Skip]:
        """The files that the last run could not use, sorted by path, each with its reason."""
        return skipped_files(self.place)

    def info(self) -> LibraryInfo:
        """What the library holds and how large it is."""
        return info_of(self._galleries, self._indexes)

    def without_presence(self, index: PromptIndex) -> int:
        """How many photos have a vector of an older version under this prompt, which `find` cannot rank."""
        return int(np.isnan(self._galleries.of(index).presence).sum())

    def command(self, index: PromptIndex | UnsteeredIndex) -> str:
        """The command line that brings an index up to date."""
        return self._indexes.update_command(index)

    def with_other_weights(self, model: str) -> list[PromptIndex]:
        """The prompt indexes that `model` made with other weights than it has now, except prompts indexed since.

        Empty where only loading the model would show.
        """
        return self._models.changed.of(model)

    def in_short(self, changed: Sequence[PromptIndex]) -> str:
        """Explains what `with_other_weights` found and what to do, as a note on an unrelated answer."""
        return self._models.changed.in_short(changed)


def _several(name: str, given: Sequence[str]) -> Sequence[str]:
    """Raises ArgumentError for one text, whose letters would be taken for several."""
    if isinstance(given, str | bytes):
        raise ArgumentError(name, given, f"must be a list, such as [{given!r}]")
    return given


def _gate_scale(given: float | None, prompts: Sequence[str]) -> float:
    """The strength of the steering of a run. Raises ArgumentError."""
    if given is None:
        return 1.0
    if not prompts:
        raise ArgumentError("gate_scale", given, "name the prompts; without, each index keeps its own")
    return checked_scale(given)


def _refuse_steering(gate_scale: float | None, budget_s: float | None) -> None:
    """Raise ArgumentError for options that need a focus, if there is none."""
    for name, value in (("gate_scale", gate_scale), ("budget_s", budget_s)):
        if value is not None:
            raise ArgumentError(name, value, "needs a focus: without one nothing is steered")
