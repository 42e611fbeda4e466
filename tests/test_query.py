"""Ranking under one focus and several, with filters, from stored vectors: against sums written out by hand."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from steersearch.core.errors import ArgumentError, FilterError, ModelMismatchError
from steersearch.indexer import snapshot as snapshots
from steersearch.indexer.embedder import Embedder, LazyEmbedder, query_features
from steersearch.indexer.faiss_index import FlatIndex, IVFIndex
from steersearch.indexer.filters import Filters
from steersearch.indexer.hits import Hits, Method, Searched
from steersearch.indexer.query_terms import Focus
from steersearch.indexer.ranking import rank
from steersearch.indexer.snapshot import Snapshot
from tests.toy_embedder import CONSTANT, ToyEmbedder, save_photo, vector_of
from tests.toy_library import Library

Floats = npt.NDArray[np.float32]
COLOURS = {
    "red": (200, 0, 0),
    "blue": (0, 0, 200),
    "pink": (200, 0, 200),
    "white": (250, 250, 250),
    "green": (0, 200, 0),
}
FOCUSES = ("red", "green", "blue")


# ------------------------------------------------------------------------------- galleries of small whole numbers


def snapshot(paths: Sequence[str], vectors: Floats, *, with_cells: bool = False) -> Snapshot:
    order = sorted(range(len(paths)), key=lambda row: paths[row])
    schema = pa.schema([("path", pa.string())], metadata={"steersearch:missing": "0"})
    table = pa.table([[paths[row] for row in order]], schema=schema)
    vectors = np.ascontiguousarray(vectors[order])
    cells = IVFIndex.of(vectors) if with_cells else None
    return Snapshot("", FlatIndex(vectors), table, cells, vectors if with_cells else None)


@st.composite
def questions(draw: st.DrawFn) -> tuple[list[tuple[dict[str, list[int]], list[int], float]], set[str], int]:
    """Per focus a gallery (path -> vector), a query and a weight; the paths that pass the filters; k.

    The numbers are small and whole, and the weights powers of two whose sum is one, so that sums are exact and many
    scores are equal.
    """
    dim = draw(st.integers(1, 5))
    vector = st.lists(st.integers(-1, 1), min_size=dim, max_size=dim)
    names = [f"{i:02}" for i in range(draw(st.integers(0, 30)))]
    shares = draw(
        st.sampled_from([[1.0], [4.0], [-1.0], [0.5, 0.5], [0.5, -0.5], [2.0, 1.0, -1.0], [3.0, 1.0]])
    )
    focuses = []
    for share in shares:
        has = draw(st.lists(st.sampled_from(names), unique=True)) if names and draw(st.booleans()) else names
        focuses.append(({name: draw(vector) for name in has}, draw(vector), share))
    passing = set(draw(st.lists(st.sampled_from(names)))) if names and draw(st.booleans()) else set(names)
    return focuses, passing, draw(st.integers(1, 40))


@given(questions())
def test_equals_brute_force_over_several_focuses_and_filters(
    question: tuple[list[tuple[dict[str, list[int]], list[int], float]], set[str], int],
) -> None:
    focuses, passing, k = question
    total = sum(abs(weight) for _, _, weight in focuses)
    shared = set.intersection(*(set(gallery) for gallery, _, _ in focuses))
    scores = {
        path: sum(w * float(np.dot(gallery[path], query)) / 8 for gallery, query, w in focuses) / total
        for path in shared
    }
    expected = sorted((-scores[path], path) for path in shared & passing)[:k]

    galleries = [
        snapshot(list(gallery), np.array(list(gallery.values()), np.float32).reshape(-1, len(query)) / 4)
        for gallery, query, _ in focuses
    ]
    queries = [np.array(query, np.float32) / 2 for _, query, _ in focuses]  # so that no product is beyond 1
    weights = [weight for _, _, weight in focuses]
    paths = galleries[0].table["path"].to_pylist()
    found = rank(galleries, queries, weights, k, np.array([path in passing for path in paths], dtype=bool))
    assert [(-score, paths[row]) for score, row in zip(found.scores, found.rows, strict=True)] == expected
    assert (found.num_photos, found.method) == (len(shared & passing), Method.exact)
    assert found.statistics.mean == pytest.approx(np.mean(list(scores.values()) or [0]), abs=1e-6)
    assert found.statistics.sd == pytest.approx(np.std(list(scores.values()) or [0]), abs=1e-6)


def test_a_large_gallery_is_searched_in_cells_and_scored_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "APPROXIMATE_FROM", 10_000)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(50, 16))
    vectors = (centres[rng.integers(50, size=20_000)] + 0.3 * rng.normal(size=(20_000, 16))).astype(
        np.float32
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[15_000:15_100] = vectors[7]  # copies
    gallery = snapshot([f"{i:05}" for i in range(20_000)], vectors, with_cells=True)
    passing = rng.random(20_000) < 0.7

    def agreed(sign: float, mask: npt.NDArray[np.bool_] | None) -> float:
        shares = []
        for row in range(0, 20_000, 500):
            one = [gallery], [vectors[row]], [sign]
            near, true = rank(*one, 10, mask), rank(*one, 10, mask, exact=True)
            assert near.method is Method.ivf
            assert near.probed is not None
            assert (true.method, true.num_photos) == (Method.exact, near.num_photos)
            assert near.statistics.mean == pytest.approx(true.statistics.mean, abs=1e-3)
            scores = dict(zip(true.rows.tolist(), true.scores.tolist(), strict=True))
            for found, score in zip(near.rows.tolist(), near.scores.tolist(), strict=True):
                assert mask is None or mask[found]
                assert found not in scores or scores[found] == score
            shares.append(len(set(near.rows.tolist()) & set(scores)) / 10)
        return float(np.mean(shares))

    assert agreed(1.0, None) > 0.95
    assert agreed(-2.0, None) > 0.8
    assert agreed(1.0, passing) > 0.95
    copies = rank([gallery], [vectors[7]], [1.0], 8)
    assert copies.rows.tolist() == [7, *range(15_000, 15_007)]
    few = np.arange(20_000) < 9000  # not worth it
    assert rank([gallery], [vectors[7]], [1.0], 10, few).method is Method.exact
    assert rank([gallery], [vectors[7]], [1.0], 5000).method is Method.exact  # more than the cells could give
    assert rank([gallery] * 2, [vectors[7]] * 2, [1.0] * 2, 10).method is Method.exact


IVF = "IVF, 2 of 9 cells"


@pytest.mark.parametrize(
    ("searched", "said", "is_exact"),
    [
        (Searched((), 60, 60, Method.exact), "exact", True),
        (Searched((), 58, 60, Method.exact), "approximate: 58 of 60 photos compared under this focus", False),
        (
            Searched((), 12, 12, Method.exact, None, True),
            "exact over the 12 photos that pass the filters",
            True,
        ),
        (
            Searched((), 1, 1, Method.exact, None, True),
            "exact over the 1 photo that passes the filters",
            True,
        ),
        (
            Searched((), 12, 15, Method.exact, None, True),
            "approximate: 12 of 15 photos that pass the filters compared under this focus",
            False,
        ),
        (Searched((), 9, 9, Method.ivf, (2, 9)), f"approximate ({IVF})", False),
        (
            Searched((), 9, 9, Method.ivf, (2, 9), True),
            f"approximate ({IVF}) over the 9 photos that pass the filters",
            False,
        ),
        (
            Searched((), 9, 10, Method.ivf, (2, 9)),
            f"approximate ({IVF}): 9 of 10 photos compared under this focus",
            False,
        ),
        (
            Searched((), 4, 900, Method.exact, by_regions=True),
            "approximate: the likeliest 4 of 900 photos compared under this focus",
            False,
        ),
        (
            Searched((), 49, 900, Method.exact),
            "no ranking yet: 49 of 900 photos compared under this focus",
            False,
        ),
        (
            Searched((), 0, 900, Method.regions),
            "a guess by regions alone, none of 900 photos compared under this focus",
            False,
        ),
    ],
)
def test_it_is_said_what_was_compared(searched: Searched, said: str, is_exact: bool) -> None:
    assert str(searched) == said
    assert searched.is_exact == is_exact


# ---------------------------------------------------------------------------------------- libraries of plain photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, colour in COLOURS.items():
        save_photo(tmp_path / "photos" / f"{name}.png", colour)
    return tmp_path / "photos"


@pytest.fixture
def library(photos: Path, tmp_path: Path) -> Library:
    library = Library.create(photos, tmp_path / "library")
    library.index(ToyEmbedder(), FOCUSES)
    return library


def never() -> Embedder:
    raise AssertionError("the model was loaded")


def names(hits: Hits) -> list[str]:
    return [hit.path.stem for hit in hits]


def cosine(one: str, other: str, focus: str) -> float:
    return float(vector_of(COLOURS[one], focus) @ vector_of(COLOURS[other], focus))


def test_the_score_is_the_weighted_mean_of_the_cosines(library: Library, photos: Path) -> None:
    """Pink in what is red, half in what is blue, and not in what is green."""
    weights = {"red": 1.0, "blue": 0.5, "green": -1.0}
    hits = library.query(never, photos / "pink.png", [Focus(*one) for one in weights.items()])
    expected = {
        name: sum(w * cosine(name, "pink", focus) for focus, w in weights.items()) / 2.5 for name in COLOURS
    }
    order = sorted(expected, key=lambda name: (-round(expected[name], 6), name))
    assert names(hits) == order
    for hit in hits:
        assert hit.score == pytest.approx(expected[hit.path.stem], abs=1e-6)
        assert sum(part.weight * part.score for part in hit.parts) / 2.5 == pytest.approx(hit.score)
        assert [part.prompt for part in hit.parts] == ["red", "blue", "green"]
        assert hit.prompt == "red, blue:0.5, green:-1"
        assert [library.heatmap(hit, part).shape for part in hit.parts] == [(2, 1)] * 3
    # a black query has the direction (0, 0, 0, 1) under each focus: by hand, 1 / sqrt(1 + (200/255/.25)²) = .30370
    black = save_photo(photos.parent / "black.png", (0, 0, 0))
    (red,) = (h for h in library.query(ToyEmbedder(), black, ["red", ("green", -3)]) if h.path.stem == "red")
    assert red.score == pytest.approx((0.30370 - 3 * 1) / 4, abs=1e-5)


def test_a_single_weight_only_turns_the_score(library: Library, photos: Path) -> None:
    plain = library.query(never, photos / "pink.png", "red")
    doubled = library.query(never, photos / "pink.png", [("red", 2)])
    away = library.query(never, photos / "pink.png", [("red", -0.5)])
    assert [hit.score for hit in doubled] == [hit.score for hit in plain]
    assert sorted(-hit.score for hit in away) == sorted(hit.score for hit in plain)
    assert [hit.z for hit in away] == pytest.approx(sorted((-hit.z for hit in plain), reverse=True), abs=1e-5)


def test_weights_whose_sum_exceeds_all_numbers_still_weigh(library: Library, photos: Path) -> None:
    huge, tiny, plain = (
        library.query(never, photos / "pink.png", [("red", weight), ("blue", -weight)])
        for weight in (1.5e308, 1e-320, 1.0)
    )
    assert [hit.score for hit in huge] == [hit.score for hit in tiny] == [hit.score for hit in plain]
    assert len({hit.score for hit in plain}) > 1


def test_z_is_the_score_s_place_in_the_gallery(library: Library, photos: Path) -> None:
    hits = library.query(never, photos / "red.png", "red", k=2)
    scores = np.array([cosine(name, "red", "red") for name in COLOURS])
    for hit in hits:
        assert hit.z == pytest.approx((hit.score - scores.mean()) / scores.std(), abs=1e-4)


def test_a_photo_without_a_vector_under_one_of_the_focuses_is_counted(library: Library, photos: Path) -> None:
    save_photo(photos / "new.png", (7, 8, 9))
    library.index(ToyEmbedder(), ["red"])
    hits = library.query(ToyEmbedder(), photos / "new.png", ["red", "blue"])
    assert "new" not in names(hits)
    assert (hits.searched.compared, hits.searched.of) == (5, 6)
    assert {hit.exact for hit in hits} == {False}
    assert names(library.query(never, photos / "new.png", "red"))[0] == "new"


def test_a_known_photo_needs_no_model(library: Library, photos: Path, tmp_path: Path) -> None:
    """By path, through a link, as a copy elsewhere, moved and not yet indexed again; but not one that was changed."""
    expected = library.query(ToyEmbedder(), photos / "red.png", "red")
    (tmp_path / "link.png").symlink_to(photos / "red.png")
    shutil.copy(photos / "red.png", tmp_path / "copy.png")
    os.utime(photos / "red.png", (1, 1))  # touched
    for query in (photos / "red.png", tmp_path / "link.png", tmp_path / "copy.png"):
        assert library.query(never, query, "red") == expected
    (photos / "red.png").rename(photos / "moved.png")
    toy = ToyEmbedder()
    assert library.query(toy, photos / "moved.png", "red") == expected
    assert toy.is_untouched
    index = library.find_prompt_index("red")
    np.testing.assert_allclose(library.indexed_heatmap(photos / "moved.png", index), [[0.5], [0.5]])
    save_photo(photos / "moved.png", (20, 0, 0))
    assert library.query(toy, photos / "moved.png", "red") != expected
    assert toy.batches == [(1, 1)]
    assert library.indexed_heatmap(photos / "moved.png", index) is None


def test_a_file_that_was_replaced_by_one_of_its_size_is_not_taken_for_it(
    library: Library, photos: Path
) -> None:
    blue = (photos / "blue.png").read_bytes()
    (photos / "red.png").write_bytes(blue)  # another time, whatever its size
    assert library.query(never, photos / "red.png", "blue") == library.query(
        never, photos / "blue.png", "blue"
    )


def test_the_model_is_loaded_for_the_focus_that_does_not_know_the_photo(
    library: Library, photos: Path
) -> None:
    save_photo(photos / "new.png", (150, 0, 0))
    library.index(ToyEmbedder(), ["red"])
    toy = ToyEmbedder()
    library.query(toy, photos / "new.png", ["red", "green"])
    assert toy.batches == [(1, 1)]
    assert toy.encoded == []  # the prompt's features are kept


def test_a_model_that_turns_out_to_be_another_is_refused(library: Library, tmp_path: Path) -> None:
    stranger = save_photo(tmp_path / "stranger.png", (1, 2, 3))
    with pytest.raises(ModelMismatchError):
        library.query(LazyEmbedder(lambda: ToyEmbedder("other")), stranger, "red")


def test_filters_come_before_the_ranking(library: Library, photos: Path) -> None:
    """k hits among the photos that pass, whatever is nearer and does not pass."""
    for number, name in enumerate(sorted(COLOURS)):
        os.utime(photos / f"{name}.png", (datetime(2020 + number, 6, 1).timestamp(),) * 2)
    (photos / "trip").mkdir()
    save_photo(photos / "trip" / "wide.png", (180, 10, 0), size=(40, 10))
    library.index(ToyEmbedder())

    def found(**filters: str) -> list[str]:
        hits = library.query(never, photos / "red.png", "red", k=3, filters=Filters.of(**filters))
        assert hits.searched.is_filtered
        assert hits.searched.is_exact
        return names(hits)

    everything = names(library.query(never, photos / "red.png", "red"))
    assert found(before="2022") == [name for name in everything if name in ("blue", "green")]
    assert found(after="2021", before="2024")[:3] == [n for n in everything if n in ("green", "pink", "red")]
    assert found(folder="trip") == ["wide"]
    assert found(where="width > 30") == ["wide"]
    assert found(where="path LIKE 'b%' OR path LIKE '%hite%'") == ["white", "blue"]
    assert found(where="width > 30", before="2000") == []
    z = {hit.path: hit.z for hit in library.query(never, photos / "red.png", "red")}
    for hit in library.query(never, photos / "red.png", "red", filters=Filters.of(folder="trip")):
        assert hit.z == z[hit.path]  # of the whole gallery


@pytest.mark.parametrize("condition", ["widht > 30", "width >", "", "width > 'x' AND (", "1) OR (1"])
def test_sql_that_cannot_be_evaluated_is_explained(library: Library, photos: Path, condition: str) -> None:
    with pytest.raises(
        FilterError, match="columns: path, image_id, size, mtime_ns, width, height, taken_at"
    ) as error:
        library.query(never, photos / "red.png", "red", filters=Filters.of(where=condition))
    assert error.value.condition == condition


def test_sql_about_dates(library: Library, photos: Path) -> None:
    for condition, expected in (("taken_at IS NULL", 5), ("taken_at > timestamp '2020-01-01 00:00:00'", 0)):
        hits = library.query(never, photos / "red.png", "red", filters=Filters.of(where=condition))
        assert len(hits) == expected


def test_values_that_make_no_sense(library: Library, photos: Path) -> None:
    with pytest.raises(ArgumentError, match="focus"):
        library.query(never, photos / "red.png", [])
    with pytest.raises(ArgumentError, match="twice"):
        library.query(never, photos / "red.png", ["red", ("red", -1)])


def test_a_query_photo_takes_one_pass_with_or_without_its_unsteered_patches() -> None:
    embedder, photo = ToyEmbedder(), Image.new("RGB", (20, 10), (255, 0, 102))
    red, blue = (embedder.encode_prompt(prompt).tokens for prompt in ("red", "blue"))
    found = query_features(embedder, photo, [red, blue], 1.0, patches=True)
    assert (embedder.preprocessed, embedder.batches) == (1, [(1, 2)])
    for one, prompt in zip(found, ("red", "blue"), strict=True):
        np.testing.assert_allclose(one.embedding, vector_of((255, 0, 102), prompt), atol=1e-6)
        np.testing.assert_allclose(one.heatmap, [[0.5], [0.5]], atol=1e-6)
        assert one.patches is not None
        np.testing.assert_allclose(one.patches, np.full((2, 1, 4), (1.0, 0.0, 0.4, CONSTANT)), atol=1e-6)
    (alone,) = query_features(embedder, photo, [red], 1.0)
    assert alone.patches is None
    np.testing.assert_array_equal(alone.embedding, found[0].embedding)
