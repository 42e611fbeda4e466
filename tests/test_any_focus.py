"""A focus that nobody indexed: the likeliest photos are steered first, what is computed is kept, and all is said."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from steersearch.core.errors import ArgumentError, FilterError, LibraryPlaceError
from steersearch.core.vectors import Embedded, Floats
from steersearch.indexer import regions
from steersearch.indexer.embedder import LazyEmbedder, QueryFeatures
from steersearch.indexer.filters import Filters
from steersearch.indexer.hits import Hits
from steersearch.indexer.progress import ProgressEvent
from steersearch.indexer.query_terms import Focus
from steersearch.indexer.regions import RegionSnapshot
from steersearch.indexer.store import Store
from tests.random_regions import random_regions
from tests.toy_embedder import Careful, Clock, ToyEmbedder, save_photo
from tests.toy_library import Library

Ask = Callable[..., Hits]

REDS = {f"red{i}.png": (200 + 5 * i, 0, 0) for i in range(4)}
OTHERS = {f"blue{i:02}.png": (0, 0, 40 + 5 * i) for i in range(28)}


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


def aim(library: Library, prompt: str, weight: float = 1.0) -> Focus:
    return Focus.on(library.new_index(ToyEmbedder(), prompt, 1.0), weight)


@pytest.fixture
def ask(library: Library, stranger: Path, clock: Clock) -> Ask:
    """Search with the stranger's photo for `seconds`, in each of which one photo is steered; None: all, exactly."""

    def asked(
        *prompts: str,
        seconds: float | None = 2,
        k: int = 4,
        embedder: ToyEmbedder | None = None,
        filters: Filters | None = None,
    ) -> Hits:
        model = embedder or Careful(clock)
        aims = [aim(library, prompt) for prompt in prompts]
        is_exact = seconds is None
        return library.search_any(
            aims, stranger, lambda _: model, k, budget_s=seconds, exact=is_exact, filters=filters
        )

    return asked


def names(hits: Hits) -> list[str]:
    return [hit.path.name for hit in hits]


def embedded(library: Library, prompt: str) -> set[str]:
    """Names of the photos that have a vector under this prompt."""
    gallery = Store(library.place).gallery(library.find_prompt_index(prompt).key)
    return set(gallery.paths)


def test_the_likeliest_are_steered_first_for_as_long_as_the_budget(library: Library, ask: Ask) -> None:
    hits = ask("red", seconds=4, k=4)
    assert set(names(hits)) == set(REDS)
    assert len(embedded(library, "red")) == 4
    assert not any(hit.exact for hit in hits)
    searched = hits.searched
    assert searched.by_regions
    assert (searched.compared, searched.of, searched.missing) == (4, 32, 28)
    assert str(searched) == "approximate: the likeliest 4 of 32 photos compared under this focus"
    assert {(hit.searched.compared, hit.searched.of) for hit in hits} == {(4, 32)}


def test_a_budget_is_kept_however_many_hits_are_requested(library: Library, ask: Ask) -> None:
    hits = ask("red", seconds=2, k=10)
    assert len(hits) == len(embedded(library, "red")) == 2
    assert ask("red", seconds=1e-9, k=10).searched.compared == 3  # one at least, so that it goes on
    assert ask("red", seconds=1.4, k=10).searched.compared == 4
    assert ask("red", seconds=1.6, k=10).searched.compared == 6


def test_a_batch_is_no_larger_than_half_of_the_time_that_is_left(
    library: Library, ask: Ask, clock: Clock
) -> None:
    embedder = Careful(clock)
    embedder.batch_size = 16  # type: ignore[misc]
    ask("red", seconds=7.5, embedder=embedder)
    query, *batches = [photos for photos, _ in embedder.batches]
    assert (query, batches) == (1, [1, 4, 2])  # the first tells what one takes


def test_several_models_share_the_budget(library: Library, stranger: Path, clock: Clock) -> None:
    other = Careful(clock, "other")
    aims = [aim(library, "red"), Focus.on(library.new_index(other, "red", 1.0))]
    models = {index.index.model_id: model for index, model in zip(aims, (Careful(clock), other), strict=True)}
    library.search_any(aims, stranger, lambda index: models[index.model_id], 2, budget_s=6)
    assert [len(Store(library.place).embedded_ids(one.index.key)) for one in aims] == [3, 3]


def test_the_time_left_is_that_of_the_budget_or_of_the_photos(library: Library, stranger: Path) -> None:
    events: list[ProgressEvent] = []
    library.search_any(
        [aim(library, "red")], stranger, lambda _: Careful(), 2, budget_s=600, progress=events.append
    )
    assert [event.done for event in events] == list(range(33))
    assert all(0 < event.seconds_given <= 600 for event in events)
    assert events[0].seconds_left == events[0].seconds_given  # how fast it goes is not known yet
    assert events[-1].seconds_left == 0
    assert ProgressEvent(10, 610, 2.0, 3.0).seconds_left == 3.0
    assert ProgressEvent(10, 610, 2.0, 900.0).seconds_left == ProgressEvent(10, 610, 2.0).seconds_left == 300
    assert ProgressEvent(0, 610, 0.0).seconds_left == float("inf")


def test_with_time_enough_the_answer_is_exact(library: Library, stranger: Path, ask: Ask) -> None:
    hits = ask("red", k=32, seconds=600)
    assert all(hit.exact for hit in hits)
    indexed = Library.create(library.folder, library.place.parent / "other")
    indexed.index(ToyEmbedder(), ["red"])
    wanted = indexed.query(ToyEmbedder(), stranger, "red", k=32)
    assert [(hit.path, hit.score) for hit in hits] == [(hit.path, hit.score) for hit in wanted]


def test_exact_compares_all_and_takes_no_budget(library: Library, stranger: Path, ask: Ask) -> None:
    for search in (
        partial(library.search_any, [aim(library, "red")], stranger),
        partial(library.find_any, aim(library, "red")),
    ):
        with pytest.raises(ArgumentError, match="contradicts `exact`"):
            search(lambda _: Careful(), exact=True, budget_s=1.0)
    assert all(hit.exact for hit in ask("red", seconds=None))
    assert len(embedded(library, "red")) == 32


def test_the_next_query_goes_on_and_a_complete_one_computes_nothing(
    library: Library, ask: Ask, clock: Clock
) -> None:
    ask("red", seconds=4)
    before, embedder = embedded(library, "red"), Careful(clock)
    hits = ask("red", seconds=3, embedder=embedder)
    after = embedded(library, "red")
    assert (len(before), len(after)) == (4, 7)
    assert before < after
    assert embedder.batches == [(1, 1)] * (1 + 3)  # the query photo, once, and three others
    assert set(names(hits)) == set(REDS)
    ask("red", seconds=None)
    idle = LazyEmbedder(lambda: pytest.fail("the model was loaded"))
    found = library.search_any([aim(library, "red")], library.folder / "red1.png", lambda _: idle, 2)
    assert found.searched.is_exact


def test_regions_are_checked_once_and_again_when_they_change(
    library: Library, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []

    def read(place: Path, key: str, name: str) -> RegionSnapshot:
        checked.append(name)
        return read_regions(place, key, name)

    read_regions = regions._read
    monkeypatch.setattr(regions, "_read", read)
    ask("red")
    ask("blue")
    assert len(checked) == 1
    save_photo(library.folder / "new.png", (9, 200, 9))
    library.index(ToyEmbedder(), ["green"])
    checked.clear()
    ask("red")
    assert "new.png" in names(ask("blue", seconds=None, k=40))
    assert len(set(checked)) == 1


def test_several_focuses_share_one_order_and_one_pass(library: Library, ask: Ask, clock: Clock) -> None:
    embedder = Careful(clock)
    hits = ask("red", "red blue", seconds=3, k=3, embedder=embedder)
    assert set(names(hits)) < set(REDS)
    assert embedder.batches == [(1, 2)] * (1 + 3)  # the query photo, and three others
    assert embedded(library, "red") == embedded(library, "red blue")


def test_a_focus_that_leads_away_orders_the_other_way(library: Library, stranger: Path, clock: Clock) -> None:
    aims = [aim(library, "everything", -1.0)]
    hits = library.search_any(aims, stranger, lambda _: Careful(clock), 3, budget_s=3)
    assert len(hits) == 3
    assert not set(names(hits)) & set(REDS)


def test_only_photos_that_pass_the_filters_are_steered_and_counted(library: Library, ask: Ask) -> None:
    for i in range(3):
        save_photo(library.folder / f"trip/{i}.png", (100, 0, 10 * i))
    library.index(ToyEmbedder(), ["green"])
    hits = ask("red", seconds=2, filters=Filters.of("trip"))
    assert len(hits) == 2
    assert all(name.startswith("trip/") for name in embedded(library, "red"))
    said = "approximate: the likeliest 2 of 3 photos that pass the filters compared under this focus"
    assert str(hits.searched) == said
    hits = ask("red", seconds=2, filters=Filters.of("trip"))
    assert str(hits.searched) == "exact over the 3 photos that pass the filters"
    assert all(hit.exact for hit in hits)


@pytest.mark.parametrize(
    "filters",
    [Filters.of(folder="nowhere"), Filters.of(where="width = 'wide'"), Filters.of(where="width < 0")],
)
def test_a_search_that_steers_nothing_begins_no_prompt_index(
    library: Library, ask: Ask, filters: Filters
) -> None:
    with suppress(ArgumentError, FilterError):
        assert str(ask("red", filters=filters).searched) == "exact over the 0 photos that pass the filters"
    assert [index.prompt for index in library.prompts()] == ["green"]


def test_an_index_run_without_prompts_leaves_what_a_query_began(library: Library, ask: Ask) -> None:
    ask("red")
    began = embedded(library, "red")
    assert library.index(ToyEmbedder()).forward_passes == 0
    assert embedded(library, "red") == began
    assert library.index(ToyEmbedder(), ["red"]).forward_passes == 32 - len(began)
    save_photo(library.folder / "new.png", (1, 2, 3))
    assert library.index(ToyEmbedder()).forward_passes == 1 + 1  # it is kept up to date from now on


def test_a_run_without_prompts_leaves_what_queries_began_where_there_is_nothing_else(
    library: Library, ask: Ask
) -> None:
    ask("red", seconds=2)
    library.remove(library.find_prompt_index("green").key)
    assert library.index(ToyEmbedder()).forward_passes == 0
    assert len(embedded(library, "red")) == 2


def test_an_interrupted_query_keeps_what_it_computed(library: Library, ask: Ask, clock: Clock) -> None:
    class Interrupted(Careful):
        def embed_pixels(
            self,
            pixels: Floats,
            prompt_features: list[Floats | None],
            gate_scale: float,  # type: ignore[override]
        ) -> list[Embedded]:
            if len(self.batches) == 4:
                raise KeyboardInterrupt
            return super().embed_pixels(pixels, prompt_features, gate_scale)

    with pytest.raises(KeyboardInterrupt):
        ask("red", seconds=None, embedder=Interrupted(clock))
    assert len(embedded(library, "red")) == 3
    assert ask("red", seconds=None).searched.is_exact


def test_without_regions_photos_of_all_folders_are_steered_and_too_few_are_not_ranked(
    tmp_path: Path, stranger: Path, clock: Clock
) -> None:
    """Six folders of ten photos, of which an order by path would take the first one alone."""
    for number in range(60):
        save_photo(tmp_path / f"photos/{number // 10}/{number}.png", (4 * number, 0, 40))
    library = Library.create(tmp_path / "photos", tmp_path / "library")
    library.index(ToyEmbedder(), ["green"], regions=False)
    red = aim(library, "red")
    hits = library.search_any([red], stranger, lambda _: Careful(clock), 3, budget_s=12)
    assert hits == []
    assert hits.searched.is_too_little
    assert (hits.searched.compared, hits.searched.of) == (12, 60)
    said = "no ranking yet: 12 of 60 photos compared under this focus"
    assert str(hits.searched) == said
    steered = Counter(Path(path).parent.name for path in embedded(library, "red"))
    assert set(steered) == set("012345")
    assert max(steered.values()) <= 3
    hits = library.search_any([red], stranger, lambda _: Careful(clock), 3, budget_s=33)
    assert len(hits) == 3
    assert str(hits.searched) == "approximate: 45 of 60 photos compared under this focus"
    assert not hits.searched.by_regions


def test_photos_that_cannot_be_read_are_no_reason_to_wait(library: Library, ask: Ask) -> None:
    """Twenty-two of thirty-two are gone since they were indexed: there is no more to be compared than ten."""
    for name in list(OTHERS)[:22]:
        (library.folder / name).unlink()
    hits = library.find_any(aim(library, "red"), lambda _: ToyEmbedder(), exact=True)
    assert set(names(hits[:4])) == set(REDS)
    assert (hits.compared, hits.of, hits.exact, hits.searched.unreadable) == (10, 32, False, 22)
    assert str(hits.searched) == (
        "approximate: 10 of 32 photos (22 cannot be read) compared under this focus"
    )
    assert str(ask("blue", seconds=None).searched).endswith("(22 cannot be read) compared under this focus")


def test_photos_that_are_out_of_reach_are_ordered_by_regions_alone(library: Library, ask: Ask) -> None:
    shutil.move(library.folder, library.folder.with_name("away"))
    hits = ask("red")
    assert set(names(hits)) == set(REDS)
    assert hits.searched.is_guess
    assert not any(hit.exact for hit in hits)
    assert all(hit.is_gone for hit in hits)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    shutil.move(library.folder.with_name("away"), library.folder)
    assert not any(hit.is_gone for hit in hits)
    assert not ask("red").searched.is_guess


def test_a_photo_whose_name_is_no_utf_8_is_steered_like_any_other(library: Library, ask: Ask) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    (library.folder / "red0.png").rename(library.folder / name)
    library.index(ToyEmbedder())
    assert name in names(ask("red", seconds=4))
    (library.folder).rename(library.folder.with_name("away"))
    guessed = ask("red green")
    assert guessed.searched.is_guess
    assert name in names(guessed)


def test_a_file_that_changed_since_it_was_indexed_is_not_taken_for_the_old_one(
    library: Library, ask: Ask
) -> None:
    save_photo(library.folder / "red2.png", (0, 0, 7))
    hits = ask("red", seconds=None)
    assert "red2.png" not in embedded(library, "red")
    assert (hits.searched.compared, hits.searched.of) == (31, 32)
    assert not any(hit.exact for hit in hits)


def test_a_library_that_cannot_be_written_answers_all_the_same(
    library: Library, ask: Ask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ask("red", seconds=20)
    began = embedded(library, "red")
    before = {path: path.stat().st_mtime_ns for path in library.place.rglob("*")}

    @contextmanager
    def refused(place: Path) -> Iterator[None]:
        raise LibraryPlaceError(place, "cannot be written (Read-only file system)")
        yield

    monkeypatch.setattr("steersearch.indexer.anytime.writing", refused)
    assert ask("red").searched.compared == len(began) + 2
    assert "could not be kept" in caplog.text
    hits = ask("blue", seconds=None)
    assert (hits.searched.compared, hits.searched.is_exact) == (32, True)
    assert not hits.searched.is_kept
    assert library.heatmap(hits[0]).sum() == pytest.approx(1)
    assert library.reading(aim(library, "blue").index) is not None
    after = {path: path.stat().st_mtime_ns for path in library.place.rglob("*")}
    kept = {
        path: time
        for path, time in after.items()
        if "prompts" not in path.parts and "snapshots" not in path.parts
    }
    assert kept.items() <= before.items()


@pytest.mark.parametrize(("k", "seconds"), [(0, 1.0), (1, 0.0), (1, float("nan"))])
def test_values_that_cannot_be_intended(ask: Ask, k: int, seconds: float) -> None:
    with pytest.raises(ArgumentError):
        ask("red", k=k, seconds=seconds)


def test_what_was_steered_teaches_the_order_of_the_rest() -> None:
    """The query matches the wrong regions best; steered photos say so, and the right ones come next."""
    from steersearch.indexer.shortlist import FIRST_LESSON, Shortlist

    count, dim = 600, 16
    unit, arrays = random_regions(count, dim)
    query = np.zeros((2, 2, dim), np.float32)
    query[..., 0] = 1
    asked = QueryFeatures(query[0, 0], np.full((2, 2), 0.25, np.float32), query)
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
