"""Everything that the commands do, from Python: a `Library` is one photo folder and all that is known."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from steersearch.core.errors import (
    ArgumentError,
    ImageError,
    PromptError,
    PromptIndexMissing,
    WeightsChangedError,
)
from steersearch.core.image_file import read_picture
from steersearch.core.local_path import as_path, why_not_local
from steersearch.core.photo_limits import DEFAULT_LIMITS, Limits
from steersearch.core.pillow_file import opened
from steersearch.core.preprocess import View, least_side, open_image
from steersearch.identity import BUNDLED, identity_of, weights_now
from steersearch.indexer import library as indexed
from steersearch.indexer.compaction import Optimized
from steersearch.indexer.embedder import LazyEmbedder
from steersearch.indexer.export import Exported, export_table, format_of
from steersearch.indexer.filters import Filters
from steersearch.indexer.hits import FocusScore, Searched
from steersearch.indexer.library import (
    Counts,
    Finding,
    LibraryInfo,
    ProgressEvent,
    PromptIndex,
    Skip,
)
from steersearch.indexer.manifest import LIBRARY_FILE
from steersearch.indexer.query_terms import AnyFocus, Focus, as_focuses

if TYPE_CHECKING:
    import pyarrow

    from steersearch.core.steervit import SteerViT
    from steersearch.embedder import SteerViTEmbedder

Heatmap = npt.NDArray[np.float32]
AUTO = "auto"


@dataclass(frozen=True)
class Hit(indexed.Hit):
    """One result; its fields are those of `indexer.query.Hit`."""

    _library: Library = field(repr=False, compare=False, kw_only=True)

    @property
    def heatmap(self) -> Heatmap:
        """(Hp, Wp) float32 on the patch grid, sums to 1: where in this photo the (first) focus was found."""
        return self._library.kept_heatmap(self, self.parts[0])

    @property
    def heatmaps(self) -> tuple[Heatmap, ...]:
        """As `heatmap`, for each focus, in the order of `parts`."""
        return tuple(self._library.kept_heatmap(self, part) for part in self.parts)

    @property
    def picture(self) -> Image.Image:
        """The photo in grey with the heatmap in colour over it, RGB; longer side at most `notebook.SIDE` pixels."""
        from steersearch.views.notebook import hit_picture

        return hit_picture(self, self._library)

    def _repr_html_(self) -> str:
        from steersearch.views.notebook import hit_html

        return hit_html(self, self._library)


class Hits(indexed.Hits[Hit]):
    """A list of hits, best first, which a notebook shows with their pictures. searched: what they were found among."""

    def __init__(self, hits: Iterable[Hit], searched: Searched, library: Library) -> None:
        super().__init__(hits, searched)
        self._library = library

    def _repr_html_(self) -> str:
        from steersearch.views.notebook import hits_html

        return hits_html(self, self._library)


class Library:
    """A photo folder with its prompt indexes, and the models that made them.

    folder: absolute real path of the photos, which are only read.  place: where the library keeps its own
    files. Models are loaded when they are needed: an `index` with nothing to compute and `prompts` load none.
    """

    def __init__(self, library: indexed.Library, model: str, device: str) -> None:
        """Use `create` or `open`."""
        self._library = library
        self._model, self._device = full_name(model), device
        self._embedders: dict[tuple[str, View | None], LazyEmbedder] = {}
        self._models: dict[str, SteerViT] = {}
        self._loading = threading.Lock()

    @classmethod
    def create(
        cls, folder: str | Path, model: str = AUTO, place: str | Path | None = None, device: str = AUTO
    ) -> Library:
        """The library of `folder`, new or as it is.

        model: what `index` uses: a name, a .safetensors or .pth file or a hub id; "auto" is the model that
            the library has used last, and for a new one the best that can be had on this machine.
        place: where the library lives; None is a folder of its own in the user's data directory.
        device: "auto" (the GPU if there is one), "cpu", "cuda".
        Raises FolderError, NoImagesError, LibraryPlaceError.
        """
        return cls(indexed.Library.create(folder, place), model, device)

    @classmethod
    def open(cls, place: str | Path, model: str = AUTO, device: str = AUTO) -> Library:
        """The library that lives at `place`, or the one of the photo folder `place`; see `create`.

        Raises LibraryMissingError.
        """
        if why_not_local(place) is None and not (Path(place) / LIBRARY_FILE).exists():
            of_folder = indexed.default_place(place)
            place = of_folder if of_folder is not None and of_folder.is_dir() else place
        return cls(indexed.Library.open(place), model, device)

    @property
    def folder(self) -> Path:
        return self._library.folder

    @property
    def place(self) -> Path:
        return self._library.place

    @property
    def if_moved(self) -> str:
        """What to do where the photo folder is gone, in plain words."""
        return self._library.if_moved

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
    ) -> Counts:
        """Bring the library up to date with its folder under each of `prompts`; nothing is computed twice.

        prompts: None is all that the library has for this model and view.  gate_scale: of the prompts named: 0 no
            steering, 1 (None) as trained.
        view: how photos are seen: "crop" (the central square), "squash" (all of it) or "tile" (all of it, as
            2 × 2 tiles: small things show better, for four times the work); None is the property `view`.
        batch_size: photos per forward pass.  progress: called after each step over the photos.
        regions: also keep region vectors of each photo, by which a focus that is not indexed is answered at once.
        exclude: patterns as in a .gitignore, such as "*.png" or "drafts/"; what they name is left out, and counts
            as removed if it was indexed. The library remembers them: None is those that it has, () drops them.
        limits: photos that take more to read are skipped; the next run tries them again.
        Raises UnknownModelError, CheckpointError, PromptError, ArgumentError, FolderError, NoImagesError,
        LibraryPlaceError.
        """
        model = self.model
        self._take_over(model)
        view = _checked(view) or self.view
        embedder = self._embedder(model, view)
        named = [] if prompts else self._library.named_prompts()
        changed = [] if prompts else self.with_other_weights(model)
        if changed and not any(index.weights_hash == weights_now(model) for index in named):
            raise PromptError(f"no prompt given, and {self.how_to_go_on(changed)}")
        if named and not any(index.model_id == model and view in (None, index.view) for index in named):
            embedder.loaded()  # only the model itself can tell whether any of them are its own
        return self._library.index(
            embedder,
            prompts,
            gate_scale,
            batch_size,
            progress,
            regions=regions,
            exclude=exclude,
            limits=limits,
        )

    def with_other_weights(self, model: str) -> list[PromptIndex]:
        """The prompt indexes that `model` made with other weights than it has now, but for prompts indexed since.

        None where only loading the model can tell.
        """
        now = weights_now(model)
        made = [index for index in self._library.named_prompts() if index.model_id == model]
        since = {index.prompt for index in made if index.weights_hash == now}
        return [i for i in made if now not in (None, i.weights_hash) and i.prompt not in since]

    def how_to_go_on(self, changed: Sequence[PromptIndex]) -> str:
        """What `with_other_weights` means, and what to do."""
        prompts = list(dict.fromkeys(index.prompt for index in changed))
        names, model = ", ".join(f'"{prompt}"' for prompt in prompts), changed[0].model_id
        return (
            f"the model {model} has other weights now than those that indexed {names}, and their vectors cannot be "
            f"compared; index again: {self._library.command(prompts, model)}; or {self._way_back(model)}"
        )

    def _way_back(self, model: str) -> str:
        where = (
            f"{model}.safetensors of the earlier release"
            if model == BUNDLED
            else "a copy of the earlier file"
        )
        return f"go on with the earlier weights: {self._library.command((), 'FILE')}, where FILE is {where}"

    def _take_over(self, file: str) -> None:
        """Name `file` as the model of prompt indexes that its weights made, if their own model has others by now."""
        others = [index for index in self._library.prompts() if index.model_id != file]
        weights = weights_now(file) if others else None
        made = [index for index in others if index.weights_hash == weights]
        made = [index for index in made if weights_now(index.model_id) not in (None, weights)]
        if made:
            self._library.rename_model(made, file)

    @property
    def excluded(self) -> tuple[str, ...]:
        """The patterns of what `index` leaves out, as it was last told."""
        return self._library.excluded

    def query(
        self,
        image: str | Path,
        focus: AnyFocus,
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
        limits: Limits = DEFAULT_LIMITS,
        budget_s: float | None = None,
        progress: Callable[[ProgressEvent], None] | None = None,
    ) -> Hits:
        """The k photos most like the one at `image` in what `focus` names, best first; all if there are less.

        focus: any text, or several with weights: "sofa", ["sofa", ("cushion", 0.5), ("cat", -1)],
            see `Focus`. Under one that was not indexed, or not for all photos, the likeliest photos are steered now,
            for `budget_s` seconds (None: 5); what is computed is kept. `Hits.searched` says how many were compared, of
            how many; where that is too little for an order there are no hits.
        gate_scale, model, view: which index of a prompt, if there are several (None: see `find_prompt_index`); the
            photo is seen and embedded as that index was made. A focus without an index is given the library's own.
            If the library knows the photo, its stored embedding is the query and no model is loaded. A query photo
            that lies in the folder is itself a hit.
        folder, after, before, where: only these photos are compared, see `Filters.of`.
        exact: compare every photo, however many there are and however many have to be steered for it; otherwise
            large galleries are searched in cells, and `Hits.searched` says so.
        collapse: fold copies of a photo (the same pixels saved anew, resized, turned, a little cut) into the best of
            them, see `Hit.copies`; photos that only look alike are left.
        progress: called while photos are steered.
        limits: a query photo that takes more to read is refused.
        Raises ArgumentError, FilterError, ImageError, WeightsChangedError, UnknownModelError.
        """
        filters = Filters.of(folder, after, before, where)
        focuses = self.resolve(focus, model=model, gate_scale=gate_scale, view=view)
        return self.query_indexes(
            image,
            focuses,
            k,
            filters=filters,
            exact=exact,
            collapse=collapse,
            limits=limits,
            budget_s=budget_s,
            progress=progress,
        )

    def resolve(
        self,
        focus: AnyFocus,
        *,
        model: str | None = None,
        gate_scale: float | None = None,
        view: View | None = None,
    ) -> list[Focus]:
        """As `aims`; for a focus without a prompt index the one that `query_indexes` will begin.

        Its model, view and gate_scale are those given, else the model and the view that the library has used last,
        and 1, as trained, or the last one where the library has no index at 1.
        """
        return [self._any_aim(one, model, gate_scale, view) for one in as_focuses(focus)]

    def _any_aim(self, focus: Focus, model: str | None, gate_scale: float | None, view: View | None) -> Focus:
        try:
            return self._aim(focus, model, gate_scale, view)
        except PromptIndexMissing:
            name = self.model if model is None else full_name(model)
            scales = [i.gate_scale for i in self._library.named_prompts() if i.model_id == name]
            if gate_scale is None:
                gate_scale = 1.0 if 1.0 in scales or not scales else scales[-1]
            embedder = self._embedder(name, view or self._library.view_used(name))
            index = self._library.new_index(embedder, focus.text, gate_scale)
            return Focus.on(
                replace(index, model_id=name), focus.weight
            )  # its weights may have another name there

    def _aim(self, focus: Focus, model: str | None, gate_scale: float | None, view: View | None) -> Focus:
        model = None if model is None else full_name(model)
        found = self._library.choices(focus.text, model, gate_scale, _checked(view))
        return replace(focus, indexes=tuple(_with_weights_of_now(found)))

    def aims(
        self,
        focus: AnyFocus,
        *,
        model: str | None = None,
        gate_scale: float | None = None,
        view: View | None = None,
    ) -> list[Focus]:
        """The prompt index of each focus, with its weight. Raises PromptIndexMissing, ArgumentError."""
        return [self._aim(one, model, gate_scale, view) for one in as_focuses(focus)]

    def query_indexes(
        self,
        image: str | Path,
        focuses: Sequence[Focus],
        k: int = 10,
        *,
        filters: Filters | None = None,
        exact: bool = False,
        collapse: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        budget_s: float | None = None,
        progress: Callable[[ProgressEvent], None] | None = None,
    ) -> Hits:
        """As `query`, in these very prompt indexes."""
        found = self._library.search_any(
            focuses,
            image,
            self._embedder_of,
            k,
            filters=filters,
            exact=exact,
            collapse=collapse,
            limits=limits,
            budget_s=budget_s,
            progress=progress,
        )
        return self._shown(found)

    def find(
        self,
        text: str,
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
        budget_s: float | None = None,
        progress: Callable[[ProgressEvent], None] | None = None,
    ) -> Hits:
        """The k photos that most surely show what `text` names, best first; all if there are less.

        The score of a hit is no cosine: it says how far the photo stands above the others, see
        `indexer.find.find_scores`; `hit.parts[0].score` is its presence, see `core.presence`.
        text: any; under one that was not indexed, or not for all photos, photos are steered now, for `budget_s`
            seconds (None: 5), with `exact` all: first some from all folders, then the likeliest; what is computed is
            kept. There are no hits before so many were compared that an order means something, see `Hits.searched`.
        gate_scale, model, view: which index of this prompt, if there are several (None: see `find_prompt_index`); a
            text without an index is given the library's own.
        folder, after, before, where: only these photos are ranked, see `Filters.of`.
        collapse: fold copies of a photo (the same pixels saved anew, resized, turned, a little cut) into the best of
            them, see `Hit.copies`; photos that only look alike are left.
        progress: called while photos are steered.
        Raises ArgumentError, FilterError, WeightsChangedError, UnknownModelError.
        """
        filters = Filters.of(folder, after, before, where)
        (focus,) = self.resolve([(text, 1)], model=model, gate_scale=gate_scale, view=view)
        return self.find_in(
            focus,
            k,
            filters=filters,
            exact=exact,
            collapse=collapse,
            budget_s=budget_s,
            progress=progress,
        )

    def find_in(
        self,
        focus: Focus,
        k: int = 10,
        *,
        filters: Filters | None = None,
        exact: bool = False,
        collapse: bool = False,
        budget_s: float | None = None,
        progress: Callable[[ProgressEvent], None] | None = None,
    ) -> Hits:
        """As `find`, in the prompt index of this focus, which need not exist yet."""
        found = self._library.find_any(
            focus,
            self._embedder_of,
            k,
            filters=filters,
            exact=exact,
            collapse=collapse,
            budget_s=budget_s,
            progress=progress,
        )
        return self._shown(found)

    def without_presence(self, index: PromptIndex) -> int:
        """How many photos have a vector of an older version here, which `find` cannot rank."""
        return self._library.without_presence(index)

    def query_heatmap(self, image: str | Path, index: PromptIndex) -> Heatmap:
        """As `heatmap`, from the library if that knows the photo."""
        kept = self._library.indexed_heatmap(image, index)
        return self.heatmap(image, index) if kept is None else kept

    def heatmap(self, image: str | Path | Image.Image, index: PromptIndex) -> Heatmap:
        """Where the prompt of `index` is in any photo: (Hp, Wp) float32 on the patch grid, sums to 1."""
        picture = (
            image
            if isinstance(image, Image.Image)
            else read_picture(image, at_least=least_side(index.preprocessing))
        )
        embedder = self._embedder_of(index)
        features = self._library.prompt_features(index, embedder.encode_prompt)
        (found,) = embedder.embed_pixels(embedder.preprocess(picture)[None], [features], index.gate_scale)
        heatmap: Heatmap = found.heatmaps[0]
        return heatmap

    def kept_heatmap(self, hit: Hit, part: FocusScore) -> Heatmap:
        """Where in a hit's photo one of its `parts` was found, as the library keeps it: (Hp, Wp) float32, sums to 1."""
        return self._library.heatmap(hit, part)

    def photo(self, hit: Hit) -> Image.Image:
        """The hit's photo, upright, RGB; where it is gone or cannot be read any more, the thumbnail that was kept."""
        try:
            return open_image(hit.path)
        except ImageError:
            return self.thumbnail(hit)

    def thumbnail(self, hit: Hit) -> Image.Image:
        """A small picture of the hit, kept by the library, for a photo that cannot be read any more."""
        kept = self._library.thumbnail(hit)
        if kept is None:
            raise ImageError(hit.path, "neither the photo nor its thumbnail can be read")
        with opened(io.BytesIO(kept), ["JPEG"]) as image:
            return image.convert("RGB")

    def find_prompt_index(
        self,
        focus: str,
        *,
        model: str | None = None,
        gate_scale: float | None = None,
        view: View | None = None,
    ) -> PromptIndex:
        """The index of this prompt; of several the one of all photos, at gate_scale 1, in the view that `index` used
        last, made last: the first of these that decides. Raises PromptIndexMissing."""
        return self._aim(Focus(focus), model, gate_scale, view).index

    def command(self, index: PromptIndex) -> str:
        """The command line that brings a prompt index up to date."""
        return self._library.command(index.prompt, index.model_id, index.gate_scale, index.view)

    def prompts(self) -> list[PromptIndex]:
        """The prompt indexes that can be searched, oldest first."""
        return self._library.prompts()

    def info(self) -> LibraryInfo:
        """What the library holds and how large it is."""
        return self._library.info()

    def skipped(self) -> list[Skip]:
        """The files that could not be used, each with its reason."""
        return self._library.skipped()

    def verify(self, *, deep: bool = False, repair: bool = False) -> list[Finding]:
        """Check all that the library keeps; [] if all is well.

        deep: also read the photos again and compare their hashes.  repair: set aside what is proved bad, so that
        the next `index` makes it again; photos are never touched.
        Raises LibraryBusyError if repair is wanted while another process is writing.
        """
        return self._library.verify(deep=deep, repair=repair)

    def optimize(self, *, forget_removed: bool = False) -> Optimized:
        """Make the library small and quick to open again; searches meanwhile are not disturbed.

        forget_removed: also drop the vectors of photos that are gone; one that comes back is embedded anew.
        Raises LibraryBusyError where another process is writing, LibraryPlaceError.
        """
        return self._library.optimize(forget_removed=forget_removed)

    def remove(self, index: PromptIndex | str) -> None:
        """Drop a prompt index (one of `prompts`, or the key of one in `unfinished`); photos are never touched.

        Raises LibraryBusyError where another process is writing, LibraryPlaceError.
        """
        self._library.remove(index if isinstance(index, str) else index.key)

    def unfinished(self) -> list[str]:
        """The keys of prompt indexes whose run ended early: they cannot be searched, `index` goes on with them."""
        return self._library.unfinished()

    def delete(self) -> None:
        """Delete the library, not one photo. Raises LibraryBusyError where another process is writing."""
        self._library.delete()

    def table(
        self,
        focus: str,
        *,
        model: str | None = None,
        gate_scale: float | None = None,
        view: View | None = None,
    ) -> pyarrow.Table:
        """The prompt index of `focus` as a pyarrow.Table, a row per photo that has a vector, sorted by path.

        path: relative to `folder`; image_id: string; embedding: fixed_size_list<float32>, unit length; presence:
        float32, width, height: int32, taken_at: timestamp[s] with its precision and source, null where they are not
        known. The schema's metadata say under "steersearch", as JSON, what the vectors are. Raises PromptIndexMissing.
        """
        index = self.find_prompt_index(focus, model=model, gate_scale=gate_scale, view=view)
        return self._library.table(index)

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
        """Write `table(focus)` to a file for other programs; each file that is written is whole or not there.

        format: "parquet", "arrow" or "faiss"; None: by the suffix. The last holds vectors only and gets a second
        file, <stem>.rows.jsonl, whose line i says what vector i is.  force: replace what is there.
        Raises PromptIndexMissing, ArgumentError, OutputError.
        """
        path = Path(path)
        format_of(path, format)  # before anything is read
        (found,) = self.aims([(focus, 1)], model=model, gate_scale=gate_scale, view=view)
        table = self._library.table(found.index)
        files = export_table(table, path, format, force=force)
        missing = self._library.missing(found.index)
        found = replace(found, reading=self._library.reading(found.index))
        return Exported(tuple(files), table.num_rows, table.num_rows + missing, found)

    @property
    def model(self) -> str:
        """The model that `index` uses; for "auto" the one that the library has used last, if any."""
        if self._model == AUTO and self._library.exists:
            named = self._library.named_prompts()
            return named[-1].model_id if named else self._model
        return self._model

    @property
    def view(self) -> View | None:
        """The view that `index` uses: the one used last with this model; None: the model's own."""
        return self._library.view_used(self.model)

    def _embedder(self, model: str, view: View | None) -> LazyEmbedder:
        if (model, view) not in self._embedders:
            known = identity_of(model, view)
            self._embedders[model, view] = LazyEmbedder(
                lambda: self._load(model, view),
                model_id=known.model_id,
                weights_hash=known.weights_hash,
                preprocessing=known.preprocessing,
            )
        return self._embedders[model, view]

    def _load(self, model: str, view: View | None) -> SteerViTEmbedder:
        """The model's weights are in memory once, whatever the number of views."""
        with self._loading:
            if model not in self._models:
                self._models[model] = load_model(model, self._device)
        return _seeing(self._models[model], view)

    def _embedder_of(self, index: PromptIndex) -> LazyEmbedder:
        """The model that made `index`. Raises WeightsChangedError if it has other weights by now."""
        embedder = self._embedder(index.model_id, index.view)
        if embedder.weights_hash != index.weights_hash:
            raise WeightsChangedError(
                index.model_id,
                index.prompt,
                index.weights_hash,
                embedder.weights_hash,
                command=self.command(index),
                way_back=self._way_back(index.model_id),
            )
        return embedder

    def _shown(self, found: indexed.Hits[indexed.Hit]) -> Hits:
        return Hits((Hit(**vars(hit), _library=self) for hit in found), found.searched, self)


def load_embedder(model: str, device: str, view: View | None = None) -> SteerViTEmbedder:
    """The model of this name on this device, with its own view of pictures (None) or another.

    Raises ArgumentError for a device that is not there, and a view that is none.
    """
    return _seeing(load_model(model, device), _checked(view))


def load_model(model: str, device: str) -> SteerViT:
    """The model of this name on this device. Raises ArgumentError for a device that is not there."""
    import torch

    from steersearch.core.steervit import SteerViT

    if device not in (AUTO, "cpu"):
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:  # torch raises either, or a kind of it
            raise ArgumentError("device", device, 'cannot be used on this machine; try "auto"') from error
    return SteerViT.from_pretrained(model, device)


def _seeing(model: SteerViT, view: View | None) -> SteerViTEmbedder:
    from steersearch.embedder import SteerViTEmbedder

    return SteerViTEmbedder(model if view is None else model.with_view(view))


def _with_weights_of_now(indexes: Sequence[PromptIndex]) -> list[PromptIndex]:
    """Of indexes that differ in weights alone the one whose weights the model has now, else the first; in order."""
    kept: dict[tuple[str, float, View | None], PromptIndex] = {}
    for index in indexes:
        settings = index.model_id, index.gate_scale, index.view
        if settings not in kept or index.weights_hash == weights_now(index.model_id):
            kept[settings] = index
    return [index for index in indexes if index in kept.values()]


def _checked(view: View | None) -> View | None:
    if view is not None and view not in get_args(View):
        raise ArgumentError("view", view, f"must be one of {get_args(View)}")
    return view


def full_name(model: str) -> str:
    """A model file by its full path, since a prompt index remembers its model; other names as they are."""
    path = as_path(model)
    return os.path.realpath(path) if path.suffix in (".safetensors", ".pth") else model
