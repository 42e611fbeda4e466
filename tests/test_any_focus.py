"""A focus that nobody indexed: the likeliest photos are steered first, what is computed is kept, and all is said."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from steersearch.core.errors import ArgumentError, LibraryPlaceError, PromptError
from steersearch.indexer.embedder import Embedded, Floats, LazyEmbedder
from steersearch.indexer.filters import Filters
from steersearch.indexer.library import Aim, Hit, Hits, Library
from steersearch.indexer.store import Store
from tests.toy_embedder import ToyEmbedder, save_photo

REDS = {f"red{i}.png": (200 + 5 * i, 0, 0) for i in range(4)}
OTHERS = {f"blue{i:02}.png": (0, 0, 40 + 5 * i) for i in range(28)}


class Careful(ToyEmbedder):
    """Steers photo by photo."""

    batch_size = 1


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """Thirty-two photos, four of them red; indexed under "green", that is with their regions."""
    for name, colour in {**REDS, **OTHERS}.items():
        save_photo(tmp_path / "photos" / name, colour)
    made = Library.create(tmp_path / "photos", tmp_path / "library")
    made.index(ToyEmbedder(), ["green"])
    return made


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    return save_photo(tmp_path / "stranger.png", (212, 0, 0))


def aim(library: Library, prompt: str, weight: float = 1.0) -> Aim:
    return Aim(library.new_index(ToyEmbedder(), prompt, 1.0), weight)


def ask(
    library: Library,
    image: Path,
    *prompts: str,
    k: int = 2,
    budget_s: float = 1e-9,
    embedder: ToyEmbedder | None = None,
    exact: bool = False,
    filters: Filters | None = None,
) -> Hits[Hit]:
    model = embedder or Careful()
    aims = [aim(library, prompt) for prompt in prompts]
    seconds = None if exact else budget_s
    return library.search_any(aims, image, lambda _: model, k, budget_s=seconds, exact=exact, filters=filters)


def names(hits: Hits[Hit]) -> list[str]:
    return [hit.path.name for hit in hits]


def embedded(library: Library, prompt: str) -> set[str]:
    """Names of the photos that have a vector under this prompt."""
    gallery = Store(library.place).gallery(library.find_prompt_index(prompt).key)
    return set(gallery.paths)


def test_the_likeliest_are_steered_first_and_never_fewer_than_k(library: Library, stranger: Path) -> None:
    hits = ask(library, stranger, "red", k=4)
    assert set(names(hits)) == set(REDS)
    assert len(embedded(library, "red")) in (4, 5)  # one more may have been on its way
    assert not any(hit.exact for hit in hits)
    searched = hits.searched
    assert searched.by_regions
    assert searched.photos + searched.missing == 32
    assert (
        str(searched)
        == f"approximate: the likeliest {searched.photos} of 32 photos compared under this focus"
    )


def test_with_time_enough_the_answer_is_exact(library: Library, stranger: Path) -> None:
    hits = ask(library, stranger, "red", k=32, budget_s=600, embedder=ToyEmbedder())
    assert all(hit.exact for hit in hits)
    indexed = Library.create(library.folder, library.place.parent / "other")
    indexed.index(ToyEmbedder(), ["red"])
    wanted = indexed.query(ToyEmbedder(), stranger, "red", k=32)
    assert [(hit.path, hit.score) for hit in hits] == [(hit.path, hit.score) for hit in wanted]


def test_exact_compares_all_and_takes_no_budget(library: Library, stranger: Path) -> None:
    for search in (
        partial(library.search_any, [aim(library, "red")], stranger),
        partial(library.find_any, aim(library, "red").index),
    ):
        with pytest.raises(ArgumentError, match="contradicts `exact`"):
            search(lambda _: Careful(), exact=True, budget_s=1.0)
    assert all(hit.exact for hit in ask(library, stranger, "red", exact=True))
    assert len(embedded(library, "red")) == 32


def test_the_next_query_goes_on_and_a_complete_one_computes_nothing(library: Library, stranger: Path) -> None:
    ask(library, stranger, "red", k=4)
    before, embedder = embedded(library, "red"), Careful()
    hits = ask(library, stranger, "red", k=4, embedder=embedder)
    after = embedded(library, "red")
    assert before < after
    assert sum(photos for photos, _ in embedder.batches) == 1 + len(after) - len(before) + 1  # query, twice
    assert set(names(hits)) == set(REDS)
    ask(library, stranger, "red", exact=True)
    idle = LazyEmbedder(lambda: pytest.fail("the model was loaded"))
    found = library.search_any([aim(library, "red")], library.folder / "red1.png", lambda _: idle, 2)
    assert found.searched.is_exact


def test_several_focuses_share_one_order_and_one_pass(library: Library, stranger: Path) -> None:
    embedder = Careful()
    hits = ask(library, stranger, "red", "red blue", k=3, embedder=embedder)
    assert set(names(hits)) < set(REDS)
    steered = len(embedded(library, "red"))
    assert (
        embedder.batches == [(1, 2)] * (1 + steered) + [(1, 1)] * 2
    )  # the query, photos; the query under each
    assert embedded(library, "red") == embedded(library, "red blue")


def test_a_focus_that_leads_away_orders_the_other_way(library: Library, stranger: Path) -> None:
    aims = [aim(library, "everything", -1.0)]
    hits = library.search_any(aims, stranger, lambda _: Careful(), 3, budget_s=1e-9)
    assert not set(names(hits)) & set(REDS)


def test_only_photos_that_pass_the_filters_are_steered(library: Library, stranger: Path) -> None:
    for i in range(3):
        save_photo(library.folder / f"trip/{i}.png", (100, 0, 10 * i))
    library.index(ToyEmbedder(), ["green"])
    hits = ask(library, stranger, "red", k=2, filters=Filters.of("trip"))
    assert len(hits) == 2
    assert all(name.startswith("trip/") for name in embedded(library, "red"))


def test_an_index_run_without_prompts_leaves_what_a_query_began(library: Library, stranger: Path) -> None:
    ask(library, stranger, "red")
    began = embedded(library, "red")
    assert library.index(ToyEmbedder()).forward_passes == 0
    assert embedded(library, "red") == began
    assert library.index(ToyEmbedder(), ["red"]).forward_passes == 32 - len(began)
    save_photo(library.folder / "new.png", (1, 2, 3))
    assert library.index(ToyEmbedder()).forward_passes == 1 + 1  # it is kept up to date from now on


def test_a_library_that_has_only_what_queries_began_is_told_to_name_a_prompt(tmp_path: Path) -> None:
    save_photo(tmp_path / "photos/red.png", (200, 0, 0))
    library = Library.create(tmp_path / "photos", tmp_path / "library")
    library.index(ToyEmbedder(), ["green"])
    ask(library, tmp_path / "photos/red.png", "red")
    library.remove(library.find_prompt_index("green").key)
    with pytest.raises(PromptError):
        library.index(ToyEmbedder())


def test_an_interrupted_query_keeps_what_it_computed(library: Library, stranger: Path) -> None:
    class Interrupted(Careful):
        def embed(
            self,
            pixels: Floats,
            prompt_features: list[Floats | None],
            gate_scale: float,  # type: ignore[override]
        ) -> list[Embedded]:
            if len(self.batches) == 4:
                raise KeyboardInterrupt
            return super().embed(pixels, prompt_features, gate_scale)

    with pytest.raises(KeyboardInterrupt):
        ask(library, stranger, "red", exact=True, embedder=Interrupted())
    assert len(embedded(library, "red")) == 3
    assert ask(library, stranger, "red", exact=True).searched.is_exact


def test_without_regions_photos_are_steered_by_path(tmp_path: Path, stranger: Path) -> None:
    for name, colour in {**REDS, **OTHERS}.items():
        save_photo(tmp_path / "photos" / name, colour)
    library = Library.create(tmp_path / "photos", tmp_path / "library")
    library.index(ToyEmbedder(), ["green"], regions=False)
    hits = ask(library, stranger, "red", k=3)
    assert not hits.searched.by_regions
    assert embedded(library, "red") >= {"blue00.png", "blue01.png", "blue02.png"}
    assert len(embedded(library, "red")) < 6


def test_photos_that_are_out_of_reach_are_ordered_by_regions_alone(library: Library, stranger: Path) -> None:
    shutil.move(library.folder, library.folder.with_name("away"))
    hits = ask(library, stranger, "red", k=4)
    assert set(names(hits)) == set(REDS)
    assert hits.searched.is_guess
    assert not any(hit.exact for hit in hits)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    shutil.move(library.folder.with_name("away"), library.folder)
    assert not ask(library, stranger, "red", k=4).searched.is_guess


def test_a_photo_whose_name_is_no_utf_8_is_steered_like_any_other(library: Library, stranger: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    (library.folder / "red0.png").rename(library.folder / name)
    library.index(ToyEmbedder())
    assert name in names(ask(library, stranger, "red", k=4))
    (library.folder).rename(library.folder.with_name("away"))
    guessed = ask(library, stranger, "red green", k=4)
    assert guessed.searched.is_guess
    assert name in names(guessed)


def test_a_file_that_changed_since_it_was_indexed_is_not_taken_for_the_old_one(
    library: Library, stranger: Path
) -> None:
    save_photo(library.folder / "red2.png", (0, 0, 7))
    hits = ask(library, stranger, "red", exact=True)
    assert "red2.png" not in embedded(library, "red")
    assert not any(hit.exact for hit in hits)


def test_a_library_that_cannot_be_written_is_searched_as_it_is(
    library: Library, stranger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(library, stranger, "red", k=4)
    began = embedded(library, "red")

    @contextmanager
    def refused(place: Path) -> Iterator[None]:
        raise LibraryPlaceError(place, "cannot be written (Read-only file system)")
        yield

    monkeypatch.setattr("steersearch.indexer.any_focus.writing", refused)
    hits = ask(library, stranger, "red", k=4)
    assert hits.searched.photos == len(began)
    assert not any(hit.exact for hit in hits)
    with pytest.raises(LibraryPlaceError):
        ask(library, stranger, "blue")


@pytest.mark.parametrize(("k", "budget_s"), [(0, 1.0), (1, 0.0), (1, float("nan"))])
def test_values_that_cannot_be_meant(library: Library, stranger: Path, k: int, budget_s: float) -> None:
    with pytest.raises(ArgumentError):
        ask(library, stranger, "red", k=k, budget_s=budget_s)


def test_what_was_steered_teaches_the_order_of_the_rest() -> None:
    """The query matches the wrong regions best; steered photos say so, and the right ones come next."""
    from steersearch.indexer.region_snapshot import RegionArrays
    from steersearch.indexer.shortlist import FIRST_LESSON, Aimed, Shortlist

    rng = np.random.default_rng(0)
    count, dim = 600, 16
    unit = rng.normal(size=(count, 4, dim)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=2, keepdims=True)
    vectors = np.rint(unit * 127).astype(np.int8)
    patches = np.tile(np.arange(4, dtype=np.uint8).reshape(2, 2), (count, 1, 1))
    zeros = np.zeros(dim, np.float32)
    arrays = RegionArrays(vectors, np.ones(1, np.float32), patches, zeros, np.zeros((count, dim), np.float16))
    query = np.zeros((2, 2, dim), np.float32)
    query[..., 0] = 1
    asked = Aimed(query, np.full((2, 2), 0.25, np.float32), 1.0)
    heat = np.exp(6 * unit[..., 2])
    heat /= heat.sum(axis=1, keepdims=True)
    truth = (heat * unit[..., 1]).sum(axis=1)
    rows = np.arange(count)
    shortlist = Shortlist(arrays, rows, [asked])
    best, taken = set(np.argsort(-truth)[:20].tolist()), list[int]()
    for row in shortlist:
        taken.append(row)
        if len(taken) % FIRST_LESSON == 0:
            last = taken[-FIRST_LESSON:]
            shortlist.learn(last, [heat[last].reshape(-1, 2, 2)], [truth[last]])
    assert sorted(taken) == list(range(count))
    static = set(np.argsort(-unit[..., 0].max(axis=1))[:200].tolist())
    assert len(best & set(taken[:200])) >= 15 > len(best & static)
