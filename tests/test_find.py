"""Photos found by a text: the ranking, the command, the hits in a notebook."""

from __future__ import annotations

import base64
import io
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from steersearch import Library
from steersearch.core.errors import ArgumentError, LibraryPlaceError
from steersearch.indexer.filters import Filters
from steersearch.indexer.query_terms import Focus
from steersearch.indexer.ranking import find_scores
from steersearch.indexer.schema import FileRecord
from steersearch.indexer.store import Store, Vector
from steersearch.views import notebook
from tests import toy_library as indexed
from tests.conftest import Run, draw_picture
from tests.random_regions import random_regions
from tests.toy_embedder import Careful, Clock, ToyEmbedder, save_photo, save_photos

PROMPT = "the red mug"

# ------------------------------------------------------------------------------------------------ ranking


def test_scores_by_hand() -> None:
    """Three photos, one of which is the surest; likeness to it 1, 0.6 and 0, presence 3, 1 and 2."""
    embeddings = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    presence = np.array([3, 1, 2], np.float32)
    likeness = np.array([1, 0.6, 0])
    expected = ((likeness - likeness.mean()) / likeness.std() + 0.5 * (presence - 2) / presence.std()) / 1.5
    found = find_scores(presence, embeddings, ["a", "b", "c"])
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_the_surest_are_weighed_by_how_sure_they_are() -> None:
    """Of twenty photos two are the surest, the second e times less than the first."""
    embeddings = np.tile(np.array([[0, 0, 1]], np.float32), (20, 1))
    embeddings[0], embeddings[1] = [1, 0, 0], [0, 1, 0]
    presence = np.full(20, -5, np.float32)
    presence[0], presence[1] = 4, 3
    together = np.array([1, np.exp(-1)]) / np.hypot(1, np.exp(-1))
    likeness = np.array([*together, *np.zeros(18)])
    expected = (
        (likeness - likeness.mean()) / likeness.std() + 0.5 * (presence - presence.mean()) / presence.std()
    ) / 1.5
    found = find_scores(presence, embeddings, list(map(str, range(20))))
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_copies_are_one_of_the_surest_not_all() -> None:
    """With copies of one photo as the surest, the second surest still has its say."""
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(40, 8)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    embeddings[:6] = embeddings[0]
    presence = np.linspace(2, 0, 40).astype(np.float32)
    presence[:6] = 2
    ids = ["copy"] * 6 + [str(i) for i in range(6, 40)]
    once = find_scores(presence, embeddings, ids)
    assert len(set(once[:6].tolist())) == 1  # copies have equal scores
    assert once[6] > find_scores(presence, embeddings, [str(i) for i in range(40)])[6]


@given(
    presence=st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=60),
    seed=st.integers(0, 99),
)
def test_scores_are_finite_and_centred(presence: list[float], seed: int) -> None:
    embeddings = np.random.default_rng(seed).normal(size=(len(presence), 3)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    found = find_scores(np.array(presence, np.float32), embeddings, list(map(str, range(len(presence)))))
    assert np.isfinite(found).all()
    assert abs(found.mean()) < 1e-5
    assert found.std() < 1.001


def test_no_photos_no_scores() -> None:
    assert find_scores(np.empty(0, np.float32), np.empty((0, 3), np.float32), []).shape == (0,)


def test_photos_that_show_it_come_first(tmp_path: Path) -> None:
    colours = {
        "a/green.png": (0, 200, 0),
        "a/red.png": (250, 0, 0),
        "b/brick.png": (180, 20, 20),
        "b/sea.png": (0, 0, 90),
    }
    for name, colour in colours.items():
        save_photo(tmp_path / "photos" / name, colour)
    library = indexed.Library.create(tmp_path / "photos", tmp_path / "library")
    library.index(ToyEmbedder(), ["red", "blue"])
    hits = library.find(aim_at(library, "red"))
    assert [hit.path.name for hit in hits] == ["red.png", "brick.png", "sea.png", "green.png"]
    assert [hit.parts[0].score for hit in hits] == pytest.approx(
        [250 / 255, 140 / 255, -90 / 255, -200 / 255]
    )
    assert [hit.rank for hit in hits] == [1, 2, 3, 4]
    assert str(hits.searched) == "exact"
    assert library.find(aim_at(library, "blue"), k=1)[0].path.name == "sea.png"
    below = Filters.of(folder="b")
    filtered = library.find(aim_at(library, "red"), filters=below)
    assert [(hit.path.name, hit.score) for hit in filtered] == [
        (hit.path.name, hit.score) for hit in hits[1:3]
    ]
    with pytest.raises(ArgumentError, match="at least 1"):
        library.find(aim_at(library, "red"), k=0)


def test_photos_without_presence_cannot_be_found_and_are_counted(tmp_path: Path) -> None:
    save_photo(save_photos(tmp_path / "photos", 49) / "red.png", (250, 0, 0))
    library = indexed.Library.create(tmp_path / "photos", tmp_path / "library")
    library.index(ToyEmbedder(), ["red"])
    index = library.find_prompt_index("red")
    store = Store(library.place)
    old = Vector("old", np.array([1, 0, 0, 0], np.float32), np.ones((2, 1), np.float32))
    store.write_vectors(index.key, [old])
    store.write_images([FileRecord("old.png", "old", 1, 1)])
    hits = library.find(Focus.on(index))
    assert [(hit.path.name, hit.exact) for hit in hits[:1]] == [("red.png", False)]
    assert (hits.searched.compared, hits.searched.of) == (50, 51)


# ------------------------------------------------------------------------------------------------ command


@pytest.fixture
def indexed_photos(run: Run, photos: Path, tiny_model: Path) -> Path:
    assert run("index", photos, "--prompt", PROMPT, "--model", tiny_model).code == 0
    return photos


def test_find_prints_a_table(run: Run, indexed_photos: Path) -> None:
    done = run("find", PROMPT, "-k", "3")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == "rank  score  presence  date               photo"
    assert len(lines) == 4
    pattern = r" +\d  +-?\d\.\d\d  +-?\d+\.\d\d  \d{4}-\d\d-\d\d \(file\)  photos/\w+\.jpg"
    assert all(re.fullmatch(pattern, line) for line in lines[1:])
    assert f'exact, by "{PROMPT}"' in done.err


def test_find_prints_json_lines_and_paths(run: Run, indexed_photos: Path) -> None:
    rows = [json.loads(line) for line in run("find", PROMPT, "--json", "-k", "2").out.splitlines()]
    names = "path rank score presence exact compared of prompt model gate_scale view taken_at taken_at_source"
    assert [list(row) for row in rows] == [names.split()] * 2
    assert {(row["exact"], row["compared"], row["of"]) for row in rows} == {(True, 6, 6)}
    paths = run("find", PROMPT, "--paths", "-k", "2").out.splitlines()
    assert [row["path"] for row in rows] == paths


def test_find_writes_a_page(run: Run, indexed_photos: Path, tmp_path: Path) -> None:
    done = run("find", PROMPT, "--html", "page.html", "-k", "4")
    assert "page: page.html" in done.err
    page = (tmp_path / "page.html").read_text("utf-8")
    assert f"<title>Photos that show “{PROMPT}”</title>" in page
    assert page.count('<li class="hit">') == 4
    assert "query photo" not in page
    assert page.count(">presence ") == 4


def test_find_loads_neither_model_nor_tables(
    run: Run, indexed_photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("it was loaded")

    monkeypatch.setattr("steersearch.api.load_model", forbidden)
    monkeypatch.setattr("steersearch.indexer.snapshot.Store", forbidden)
    assert run("find", PROMPT).code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["  "], 2, "is empty; name what to look at"),
        (["bookshelf", "--model", "unheard-of"], 1, "unheard-of"),
        ([PROMPT, "--json", "--paths"], 2, "exclude each other"),
        ([PROMPT, "--in", "nowhere"], 1, "contains no photo of the library"),
    ],
)
def test_find_says_what_is_wrong(
    run: Run, indexed_photos: Path, arguments: list[str], code: int, said: str
) -> None:
    done = run("find", *arguments)
    assert (done.code, done.out) == (code, "")
    assert said in " ".join(done.err.replace("│", " ").split())


# ----------------------------------------------------------------------------------------------- notebook


class Pictures(HTMLParser):
    """The pictures in a piece of HTML, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.pictures: list[Image.Image] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            source = dict(attrs)["src"] or ""
            prefix = "data:image/jpeg;base64,"
            assert source.startswith(prefix)
            self.pictures.append(Image.open(io.BytesIO(base64.b64decode(source.removeprefix(prefix)))))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def library(photos: Path, tiny_model: Path, word_encoder: None) -> Library:
    library = Library.create(photos, model=str(tiny_model))
    library.index(prompts=[PROMPT, "<b>"])
    return library


def test_a_hit_shows_itself(library: Library) -> None:
    hit = library.find(PROMPT)[0]
    shown = Pictures(hit._repr_html_())
    (picture,) = shown.pictures
    assert picture.size == (96, 64)  # that of the photo
    expected = np.asarray(hit.picture, np.float32)
    assert np.abs(np.asarray(picture, np.float32) - expected).mean() < 8  # but for JPEG
    assert f"1 · {hit.score:.3f} · {PROMPT}" in shown.text
    assert hit.path.name in shown.text


def test_hits_show_themselves_and_are_a_list(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    hits = library.find("<b>")
    assert hits == list(hits)
    shown = Pictures(hits._repr_html_())
    assert len(shown.pictures) == 6
    assert "· <b>" in shown.text
    assert shown.text.endswith("exact")
    monkeypatch.setattr(notebook, "SHOWN", 2)
    shown = Pictures(hits._repr_html_())
    assert len(shown.pictures) == 2
    assert shown.text.endswith("exact; 4 more hits are in the list")


def test_a_large_photo_is_shown_small_and_a_lost_one_by_its_thumbnail(library: Library) -> None:
    hit = library.find(PROMPT)[0]
    Image.new("RGB", (2000, 1000)).save(hit.path)
    assert hit.picture.size == (320, 160)
    hit.path.unlink()
    assert hit.picture.size == (96, 64)


def test_a_query_shows_itself_too(library: Library, photos: Path) -> None:
    hits = library.query(photos / "red.jpg", focus=[PROMPT, ("<b>", -0.5)], include_query=True)
    assert len(Pictures(hits._repr_html_()).pictures) == 6


def test_find_from_python(library: Library) -> None:
    assert len(library.find(PROMPT, k=2)) == 2
    found = library.find("a text that was not indexed", budget_s=600)
    assert [hit.exact for hit in found] == [True] * 6
    assert library.prompts()[-1].prompt == "a text that was not indexed"


# ------------------------------------------------------------------------------- a text that was not indexed


@pytest.fixture
def reds(tmp_path: Path) -> indexed.Library:
    """Sixty-four photos, four of them red; indexed under "green", that is with their regions."""
    for i in range(60):
        save_photo(tmp_path / "photos" / f"blue{i:02}.png", (0, 0, 40 + 3 * i))
    for i in range(4):
        save_photo(tmp_path / "photos" / f"red{i}.png", (200 + 5 * i, 0, 0))
    library = indexed.Library.create(tmp_path / "photos", tmp_path / "library")
    library.index(ToyEmbedder(), ["green"])
    return library


def aim_at(library: indexed.Library, prompt: str) -> Focus:
    return Focus.on(library.new_index(ToyEmbedder(), prompt, 1.0))


def test_with_time_enough_any_text_is_found_exactly(reds: indexed.Library) -> None:
    red = aim_at(reds, "red")
    hits = reds.find_any(red, lambda _: ToyEmbedder(), k=64, budget_s=600)
    assert {hit.path.name for hit in hits[:4]} == {f"red{i}.png" for i in range(4)}
    assert str(hits.searched) == "exact"
    other = indexed.Library.create(reds.folder, reds.place.parent / "other")
    other.index(ToyEmbedder(), ["red"])
    assert [(h.path, h.score) for h in hits] == [(h.path, h.score) for h in other.find(red, k=64)]


def test_too_few_are_not_ranked_and_what_is_computed_is_kept(reds: indexed.Library, clock: Clock) -> None:
    red, embedder = aim_at(reds, "red"), Careful(clock)
    hits = reds.find_any(red, lambda _: embedder, k=3, budget_s=47)
    assert (hits, embedder.forward_passes) == ([], 47)
    assert hits.searched.is_too_little  # although it is known which are the likeliest by now
    assert (hits.searched.compared, hits.searched.of, hits.searched.is_exact) == (47, 64, False)
    assert str(hits.searched) == "no ranking yet: 47 of 64 photos compared under this focus"
    hits = reds.find_any(red, lambda _: embedder, k=3, budget_s=1)
    assert (len(hits), embedder.forward_passes) == (3, 48)  # none twice
    assert hits.searched.by_regions
    assert str(hits.searched) == "approximate: the likeliest 48 of 64 photos compared under this focus"
    assert {(hit.exact, hit.compared, hit.of) for hit in [*hits, hits]} == {(False, 48, 64)}
    hits = reds.find_any(red, lambda _: embedder, exact=True)
    assert embedder.forward_passes == 64
    assert hits.searched.is_exact


def test_a_small_gallery_needs_no_more_than_it_has(reds: indexed.Library, clock: Clock) -> None:
    """Eight photos pass the filters: five of them are not enough, six are."""
    for i in range(8):
        save_photo(reds.folder / "trip" / f"red{i}.png", (220, 10 * i, 0))
    reds.index(ToyEmbedder())
    red, trip = aim_at(reds, "red"), Filters.of(folder="trip")
    hits = reds.find_any(red, lambda _: Careful(clock), budget_s=5, filters=trip)
    assert hits == []
    assert (
        str(hits.searched) == "no ranking yet: 5 of 8 photos that pass the filters compared under this focus"
    )
    hits = reds.find_any(red, lambda _: Careful(clock), budget_s=1, filters=trip)
    assert (len(hits), hits.searched.compared, hits.searched.of) == (6, 6, 8)
    hits = reds.find_any(red, lambda _: Careful(clock), budget_s=7, filters=trip)
    assert (len(hits), str(hits.searched)) == (8, "exact over the 8 photos that pass the filters")


def test_the_first_come_from_all_folders_in_every_view(tmp_path: Path, clock: Clock) -> None:
    """With regions, and in a view of which there are none."""
    for number in range(240):
        save_photo(tmp_path / f"photos/{number // 20:02}/{number}.png", (number, 0, 40))
    library = indexed.Library.create(tmp_path / "photos", tmp_path / "library")
    library.index(ToyEmbedder(), ["green"])
    for view in (None, {"size": 4, "mode": "tile"}):
        embedder = Careful(clock, preprocessing=view)
        red = Focus.on(library.new_index(embedder, "red", 1.0))
        assert library.find_any(red, lambda _, e=embedder: e, budget_s=24) == []
        steered = Counter(
            Path(path).parent.name for path in Store(library.place).gallery(red.index.key).paths
        )
        assert len(steered) == 12
        assert max(steered.values()) <= 3


def test_filters_say_which_are_steered(reds: indexed.Library) -> None:
    for i in range(3):
        save_photo(reds.folder / "trip" / f"red{i}.png", (220, 10 * i, 0))
    reds.index(ToyEmbedder())
    embedder = ToyEmbedder()
    hits = reds.find_any(
        aim_at(reds, "red"), lambda _: embedder, exact=True, filters=Filters.of(folder="trip")
    )
    assert embedder.forward_passes == 3
    assert {hit.path.parent.name for hit in hits} == {"trip"}


def test_what_was_steered_teaches_what_is_likely() -> None:
    """Presence follows one direction of the regions: most of the best are among the first steered."""
    from steersearch.indexer.shortlist import FIRST_LESSON, Known, Shortlist

    count, dim = 600, 16
    unit, arrays = random_regions(count, dim)
    presence = unit[..., 2].max(axis=1)
    heat = np.exp(6 * unit[..., 2])
    heat = (heat / heat.sum(axis=1, keepdims=True)).reshape(-1, 2, 2)
    best = set(np.argsort(-presence)[:20].tolist())

    def taken_first(shortlist: Shortlist, limit: int, rows: list[int] | range = range(count)) -> list[int]:
        numbers, taken = list[int](), list[int]()
        for number in shortlist:
            numbers.append(number)
            taken.append(rows[number])
            if len(taken) % FIRST_LESSON == 0:
                last = taken[-FIRST_LESSON:]
                shortlist.learn(numbers[-FIRST_LESSON:], [heat[last]], [presence[last]])
            if len(taken) == limit:
                break
        return taken

    blind = Shortlist(arrays, np.arange(count), None)
    assert not blind.is_informed
    taken = taken_first(blind, 150)
    assert blind.is_informed
    assert len(set(taken)) == 150
    assert len(best & set(taken)) >= 15

    known = np.array(taken[:100])
    left = np.setdiff1d(np.arange(count), known)
    informed = Shortlist(arrays, left, None, steered=Known(known, heat[known], presence[known]))
    assert informed.is_informed
    after = taken_first(informed, 50, left.tolist())
    assert not set(after) & set(known.tolist())
    assert len(best & {*after, *known.tolist()}) >= 15
    assert sorted([*after, *(left[number] for number in informed)]) == left.tolist()


def test_any_text_is_found_from_the_command_line(run: Run, indexed_photos: Path) -> None:
    done = run("find", "bookshelf", "-k", "2", "--budget", "10m")
    assert (done.code, len(done.out.splitlines())) == (0, 3)
    assert 'exact, by "bookshelf"' in done.err
    assert 'exact, by "bookshelf"' in run("find", "bookshelf", "--exact").err
    assert "is not a duration above 0" in run("find", "bookshelf", "--budget", "soon").err.replace("\n", " ")


def test_too_few_photos_are_no_result_and_it_says_so(
    run: Run, photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(60):
        draw_picture(photos / f"{i}.jpg", "red", seed=100 + i)
    assert run("index", photos, "--prompt", PROMPT, "--model", tiny_model).code == 0
    command = ("find", "bookshelf", "-k", "1", "--budget", "0.001ms")
    done = run(*command)
    assert (done.code, done.out) == (0, "")
    said = r'no ranking yet: \d+ of 66 photos compared under this focus, by "bookshelf" \(model '
    assert re.search(said, done.err)
    assert "the same command continues from here; a larger --budget gives it more time\n" in done.err
    assert re.search(r"\d+ photos have no vector yet; to compare all, add --exact or run: ", done.err)
    with monkeypatch.context() as full:
        refusal = LibraryPlaceError(photos, "cannot be written (No space left on device)")
        full.setattr("steersearch.indexer.anytime.writing", Mock(side_effect=refusal))
        done = run(*command)
        assert "could not be kept" in done.err
        assert "continues" not in done.err
        assert "a larger --budget gives it more time\n" in done.err
        assert json.loads(run(*command, "--json").out)["kept"] is False
    assert run(*command, "--paths").out == ""
    (row,) = map(json.loads, run(*command, "--json", "--html", "page.html").out.splitlines())
    assert (row["enough"], row["exact"], row["of"], row["prompt"]) == (False, False, 66, "bookshelf")
    assert 0 < row["compared"] < 50
    page = Path("page.html").read_text("utf-8")
    assert f"no ranking yet: {row['compared']} of 66 photos compared under this focus" in page
    assert '<li class="hit">' not in page
    rows = [json.loads(line) for line in run(*command[:4], "--exact", "--json").out.splitlines()]
    assert [(row["exact"], row["compared"], row["of"]) for row in rows] == [(True, 66, 66)]
