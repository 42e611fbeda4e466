from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steersearch.core.errors import (
    ArgumentError,
    FolderError,
    ImageError,
    LibraryDamagedError,
    LibraryMissingError,
    LibraryPlaceError,
    LibraryUnreadableError,
    ModelMismatchError,
    PromptError,
    PromptIndexMissing,
    SchemaVersionError,
    SteerSearchError,
)
from steersearch.core.preprocess import View
from steersearch.core.prompts import Reading
from steersearch.indexer.embedder import Embedder, LazyEmbedder
from steersearch.indexer.filters import Filters
from steersearch.indexer.folders import PhotoFolder
from steersearch.indexer.library_info import Coverage
from steersearch.indexer.manifest import SCHEMA_VERSION, LibraryManifest, write_library
from steersearch.indexer.place import default_place
from steersearch.indexer.query_terms import Focus
from steersearch.indexer.scan import SUFFIXES
from tests.toy_embedder import ToyEmbedder, save_photo, save_photos, vector_of
from tests.toy_library import Library

RED, PINK, BLUE = (200, 0, 0), (200, 0, 200), (0, 0, 200)


@pytest.fixture(autouse=True)
def _user_data_below_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, colour in {"red.png": RED, "sub/pink.png": PINK, "blue.png": BLUE}.items():
        save_photo(tmp_path / "photos" / name, colour)
    return tmp_path / "photos"


@pytest.fixture
def library(photos: Path, tmp_path: Path) -> Library:
    library = Library.create(photos, tmp_path / "library")
    library.index(ToyEmbedder(), ["red", "blue"])
    return library


def everything_below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


# building


def test_a_run_without_prompts_asks_a_model_of_unknown_identity_which_are_its_own(
    library: Library, photos: Path
) -> None:
    other = partial(ToyEmbedder, preprocessing={"size": 4, "mode": "tile"})
    library.index(other, ["red"])
    save_photo(photos / "new.png", (90, 0, 0))
    assert library.index(other).forward_passes == 1
    assert [library.missing(index) for index in library.prompts()] == [1, 1, 0]
    assert str(library.prompts()[2]) == '"red" (model toy, gate_scale 1, view tile)'
    assert library.index(partial(ToyEmbedder, "stranger")).forward_passes == 4  # of its unsteered vectors
    assert len(library.prompts()) == 3


# searching


def test_two_focuses_rank_the_same_gallery_differently(library: Library, photos: Path) -> None:
    def ranking(focus: str) -> list[tuple[str, float]]:
        hits = library.query(ToyEmbedder(), photos / "sub" / "pink.png", focus)
        assert [hit.rank for hit in hits] == [1, 2, 3]
        assert {hit.exact for hit in hits} == {True}
        assert {hit.prompt for hit in hits} == {focus}
        return [(hit.path.relative_to(photos).as_posix(), hit.score) for hit in hits]

    def cosine(colour: tuple[int, int, int], focus: str) -> float:
        return float(vector_of(colour, focus) @ vector_of(PINK, focus))

    for focus, second, third in (("red", "red.png", "blue.png"), ("blue", "blue.png", "red.png")):
        # seen in one colour, pink and that colour are the same: equal scores, in the order of their paths
        tied = sorted(["sub/pink.png", second])
        other = RED if third == "red.png" else BLUE
        names, scores = zip(*ranking(focus), strict=True)
        assert list(names) == [*tied, third]
        assert scores == pytest.approx([1, 1, cosine(other, focus)], abs=1e-6)


def test_k_cuts_the_list_and_may_exceed_the_gallery(library: Library, photos: Path) -> None:
    assert [len(library.query(ToyEmbedder(), photos / "red.png", "red", k=k)) for k in (1, 2, 3, 1000)] == [
        1,
        2,
        3,
        3,
    ]


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_refused_before_anything_is_loaded(library: Library, photos: Path, k: int) -> None:
    with pytest.raises(ArgumentError, match="must be at least 1") as error:
        library.query(never, photos / "red.png", "red", k=k)
    assert (error.value.name, error.value.value) == ("k", k)


def never() -> Embedder:
    raise AssertionError("the model was loaded")


def test_a_query_photo_need_not_lie_in_the_folder(library: Library, tmp_path: Path) -> None:
    outside = save_photo(tmp_path / "dark red.png", (150, 0, 0))
    hits = library.query(ToyEmbedder(), outside, "red", k=2)
    assert [hit.path.name for hit in hits] == ["red.png", "pink.png"]


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "no such file"), (b"", "empty"), (b"hello", "not an image")]
)
def test_a_query_that_is_no_image_is_named_before_the_model_is_loaded(
    library: Library, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    query = tmp_path / "query.jpg"
    if content is not None:
        query.write_bytes(content)
    with pytest.raises(ImageError, match=reason) as error:
        library.query(never, query, "red")
    assert error.value.path == query


def test_deleted_photos_leave_the_results_and_new_ones_join_them(library: Library, photos: Path) -> None:
    (photos / "red.png").unlink()
    save_photo(photos / "dark.png", (180, 0, 0))
    library.index(ToyEmbedder())
    hits = library.query(ToyEmbedder(), photos / "sub" / "pink.png", "red")
    assert [hit.path.name for hit in hits] == ["pink.png", "dark.png", "blue.png"]


def test_a_gallery_without_a_usable_photo_has_no_hits(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no")
    library = Library.create(tmp_path / "photos", tmp_path / "library")
    assert library.index(ToyEmbedder(), ["red"]).skipped == 1
    assert library.query(ToyEmbedder(), save_photo(tmp_path / "q.png", RED), "red") == []


def test_heatmap_and_thumbnail_of_a_hit(library: Library, photos: Path) -> None:
    (hit, *_) = library.query(ToyEmbedder(), photos / "red.png", "red")
    heatmap = library.heatmap(hit)
    assert heatmap.shape == (2, 1)
    np.testing.assert_allclose(heatmap, [[0.5], [0.5]])
    thumbnail = library.thumbnail(hit)
    assert thumbnail is not None
    assert thumbnail.startswith(b"\xff\xd8")
    hit.path.unlink()
    library.index(ToyEmbedder())
    with pytest.raises(ArgumentError, match="has no heatmap: it left the library"):
        library.heatmap(hit)


def test_gate_scale_chooses_among_indexes_and_1_is_the_default(library: Library, photos: Path) -> None:
    library.index(ToyEmbedder(), ["red"], gate_scale=0.0)
    assert library.find_prompt_index("red").gate_scale == 1.0
    assert library.find_prompt_index("red", gate_scale=0.0).gate_scale == 0.0
    query = photos / "sub" / "pink.png"
    steered = library.query(ToyEmbedder(), query, "red")
    plain = library.query(ToyEmbedder(), query, "red", gate_scale=0.0)
    assert steered[1].score == pytest.approx(1)
    assert plain[1].score == pytest.approx(
        float(vector_of(RED, "everything") @ vector_of(PINK, "everything"))
    )


SQUASH, TILE = ({"size": 4, "mode": mode, "crop_pct": 1} for mode in ("squash", "tile"))


def index_under(library: Library, mode: dict[str, Any], gate_scale: float) -> None:
    library.index(ToyEmbedder(preprocessing=mode), ["red"], gate_scale=gate_scale)


def chosen(library: Library, **asked: Any) -> list[tuple[View | None, float, int]]:
    """View, gate_scale and missing photos of the indexes that fit, the one to be preferred first."""
    return [(i.view, i.gate_scale, library.missing(i)) for i in library.choices("red", **asked)]


def test_of_several_indexes_the_complete_one_is_preferred_then_scale_1_then_the_view_then_the_last(
    tmp_path: Path,
) -> None:
    library = Library.create(save_photos(tmp_path / "few", 3), tmp_path / "library")
    index_under(library, SQUASH, 1.0)
    index_under(library, TILE, 0.5)
    index_under(library, SQUASH, 0.5)  # the view that is used from now on
    wanted: list[tuple[View | None, float, int]] = [("squash", 1, 0), ("squash", 0.5, 0), ("tile", 0.5, 0)]
    assert chosen(library) == wanted
    assert chosen(library, gate_scale=0.5) == wanted[1:]
    assert chosen(library, view="tile") == wanted[2:]
    save_photo(library.folder / "new.png", (1, 2, 3))
    index_under(library, TILE, 0.5)  # alone complete
    assert chosen(library) == [("tile", 0.5, 0), ("squash", 1, 1), ("squash", 0.5, 1)]
    for number in range(9):
        save_photo(library.folder / f"more{number}.png", (number, 9, 9))
    library.index(ToyEmbedder(preprocessing=SQUASH), ["green"])
    assert chosen(library) == [("squash", 1, 10), ("squash", 0.5, 10), ("tile", 0.5, 9)]  # all lack most


def test_an_index_that_is_damaged_is_the_last_choice(tmp_path: Path) -> None:
    library = Library.create(save_photos(tmp_path / "few", 3), tmp_path / "library")
    index_under(library, SQUASH, 0.5)
    index_under(library, SQUASH, 1.0)
    (broken, _) = library.choices("red")
    shutil.rmtree(library.place / "snapshots" / broken.key)
    for file in (library.place / "lance" / f"prompt_{broken.key}.lance" / "data").iterdir():
        file.write_bytes(b"not what it was")
    again = Library.open(library.place)
    assert [index.gate_scale for index in again.choices("red")] == [0.5, 1.0]
    with pytest.raises((LibraryDamagedError, LibraryUnreadableError)):
        again.missing(broken)


def test_an_index_that_has_most_photos_is_preferred_to_one_that_has_hardly_any(tmp_path: Path) -> None:
    """As when another gate_scale was tried out on a few photos."""
    library = Library.create(save_photos(tmp_path / "some", 8), tmp_path / "library")
    index_under(library, SQUASH, 0.5)
    tried = ToyEmbedder(preprocessing=SQUASH)
    aim = Focus.on(library.new_index(tried, "red", 1.0))
    one = Filters.of(where="path = '001.png'")
    library.search_any([aim], library.folder / "000.png", lambda _: tried, 1, filters=one)
    save_photo(library.folder / "new.png", (1, 2, 3))
    library.index(tried, ["green"])
    assert chosen(library) == [("squash", 0.5, 1), ("squash", 1, 8)]


def test_only_the_model_that_made_an_index_can_search_it(library: Library, tmp_path: Path) -> None:
    stranger = save_photo(tmp_path / "stranger.png", (150, 0, 0))
    with pytest.raises(ModelMismatchError) as error:
        library.query(ToyEmbedder("other"), stranger, "red")
    assert "was made by the model toy, not by other;" in str(error.value)
    library.index(ToyEmbedder("other"), ["red"])
    for name in ("toy", "other"):
        hits = library.query(LazyEmbedder(partial(ToyEmbedder, name)), stranger, "red", model=name)
        index = library.find_prompt_index("red", model=name)
        assert {part.focus.index.key for hit in hits for part in hit.parts} == {index.key}


def test_a_missing_prompt_index_says_what_exists_and_how_to_build_it(library: Library, photos: Path) -> None:
    with pytest.raises(PromptIndexMissing) as error:
        library.query(never, photos / "red.png", "the remote control")
    real = os.path.realpath(photos)
    command = f'steersearch index {real} --prompt "the remote control" --library {library.place}'
    assert error.value.command == command
    assert error.value.existing == (
        '"red" (model toy, gate_scale 1)',
        '"blue" (model toy, gate_scale 1)',
    )
    assert str(error.value) == (
        f'no index of {real} for "the remote control"; have: "red" (model toy, gate_scale 1), '
        f'"blue" (model toy, gate_scale 1); build it: {command}'
    )


def test_the_command_survives_a_shell(tmp_path: Path) -> None:
    folder = tmp_path / "my photos; rm"
    save_photo(folder / "a.png", RED)
    library = Library.create(folder)
    prompt = 'a "red" $HOME `mug` \\ back'
    command = library._indexes.command(prompt, "my model", 0.5)
    said = subprocess.run(
        ["bash", "-c", command.replace("steersearch", "printf '%s\\n'", 1)], capture_output=True, text=True
    )
    assert said.stdout.splitlines() == [
        "index",
        os.path.realpath(folder),
        "--prompt",
        prompt,
        "--model",
        "my model",
        "--gate-scale",
        "0.5",
    ]


# bad input creates nothing


@pytest.mark.parametrize(
    ("prompts", "reason"),
    [
        ([""], "is empty"),
        (["   "], "is empty"),
        (["red", "\t"], "is empty"),
        (["\u200b\u200d"], "only invisible characters"),
        (["red", "\x07\ufe0f"], "only invisible characters"),
        (["caf\udce9"], "not valid Unicode"),
        (["red\0mug"], "contains a NUL character"),
    ],
)
def test_a_prompt_that_is_none_creates_nothing(
    photos: Path, tmp_path: Path, prompts: list[str], reason: str
) -> None:
    before = everything_below(tmp_path)
    library = Library.create(photos)
    with pytest.raises(PromptError, match=reason):
        library.index(never, prompts)
    assert everything_below(tmp_path) == before


def test_folders_that_cannot_be_indexed_create_nothing(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "notes.txt").write_text("no image")
    before = everything_below(tmp_path)
    with pytest.raises(FolderError, match="no such folder") as missing:
        Library.create(tmp_path / "gone")
    assert missing.value.folder == tmp_path / "gone"
    with pytest.raises(FolderError, match="is a file, not a folder; did you mean"):
        Library.create(photos / "red.png")
    with pytest.raises(FolderError, match=r"holds no image \(looked for \.jpg") as bare:
        Library.create(tmp_path / "bare")
    assert " ".join(SUFFIXES) in str(bare.value)
    assert everything_below(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({"gate_scale": float("nan")}, "gate_scale"), ({"batch_size": 0}, "batch_size")],
)
def test_values_that_make_no_sense(photos: Path, arguments: dict[str, float], name: str) -> None:
    with pytest.raises(ArgumentError) as error:
        Library.create(photos).index(never, ["red"], **arguments)  # type: ignore[arg-type]
    assert error.value.name == name


def test_places_where_no_library_can_live(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    for place, reason in {
        tmp_path / "file": "cannot be used",
        tmp_path / "file" / "below": "cannot be used",
        tmp_path / "full": "is a folder with other things in it",
    }.items():
        with pytest.raises(LibraryPlaceError, match=f"{reason}.*name another place with --library"):
            Library.create(photos, place)
    assert (tmp_path / "full" / "thesis.tex").read_text() == "precious"


def test_a_place_without_permission(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(LibraryPlaceError, match=f"no permission in {tmp_path}"):
        Library.create(photos, tmp_path / "library")


def test_a_place_that_proves_unwritable_when_it_is_written(photos: Path) -> None:
    with pytest.raises(LibraryPlaceError, match="cannot be written"):  # not even root can
        Library.create(photos, "/proc/steersearch").index(ToyEmbedder(), ["red"])


def test_opening_what_is_not_there(tmp_path: Path, photos: Path) -> None:
    for place in (tmp_path / "gone", photos / "red.png", photos):
        with pytest.raises(LibraryMissingError, match="make one: steersearch index "):
            Library.open(place)


@pytest.mark.parametrize("file", ["library.json", "prompts/*/manifest.json"])
def test_a_newer_format_is_refused(library: Library, file: str) -> None:
    for path in library.place.glob(file):
        path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99, "novelty": 1}))
    with pytest.raises(SchemaVersionError, match="pip install --upgrade") as error:
        Library.open(library.place).prompts()
    assert (error.value.found, error.value.supported) == (99, SCHEMA_VERSION)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"schema_version": 1}'])
def test_a_damaged_manifest_is_named(library: Library, content: str) -> None:
    (library.place / "library.json").write_text(content)
    with pytest.raises(LibraryDamagedError) as error:
        Library.open(library.place)
    assert error.value.path == library.place / "library.json"


def test_every_error_is_one_that_the_command_line_shows() -> None:
    for kind in (FolderError, LibraryPlaceError, PromptIndexMissing, ArgumentError, ModelMismatchError):
        assert issubclass(kind, SteerSearchError)


# looking


def test_info_counts_what_there_is(library: Library, photos: Path) -> None:
    (photos / "broken.jpg").touch()
    save_photo(photos / "new.png", (4, 5, 6))
    save_photo(photos / "newer.png", (1, 2, 3))
    library.index(ToyEmbedder(), ["blue"])
    info = Library.open(library.place).info()
    assert (info.place, info.folders) == (library.place, (Path(os.path.realpath(photos)),))
    assert (info.photos, info.skipped) == (5, 1)
    red, blue = library.prompts()
    assert info.prompts == (Coverage(red, 3, 2, Reading()), Coverage(blue, 5, 0, Reading()))
    assert info.bytes_on_disk > 1000


def test_a_library_that_was_never_written_is_empty(photos: Path) -> None:
    library = Library.create(photos)
    assert not library.exists
    assert library.prompts() == []
    assert library.skipped() == []


def test_a_library_whose_first_run_was_killed_before_it_made_a_table(photos: Path, tmp_path: Path) -> None:
    write_library(tmp_path / "begun", LibraryManifest(folders=(PhotoFolder(path=os.path.realpath(photos)),)))
    library = Library.open(tmp_path / "begun")
    assert (library.info().photos, library.prompts(), library.skipped(), library.verify()) == (0, [], [], [])
    assert library.index(ToyEmbedder(), ["red"]).added == 3


def test_a_photo_without_a_vector_is_no_hit_and_the_others_say_so(library: Library, photos: Path) -> None:
    save_photo(photos / "new.png", (4, 5, 6))
    library.index(ToyEmbedder(), ["blue"])
    found = {}
    for focus, missing in (("red", 1), ("blue", 0)):
        assert library.missing(library.find_prompt_index(focus)) == missing
        hits = library.query(ToyEmbedder(), photos / "red.png", focus)
        assert {hit.exact for hit in hits} == {missing == 0}
        found[focus] = {hit.path.name for hit in hits}
    assert found["blue"] - found["red"] == {"new.png"}
    library.index(ToyEmbedder())
    assert len(library.query(ToyEmbedder(), photos / "red.png", "red")) == 4


def test_the_manifest_says_how_the_vectors_were_made(library: Library) -> None:
    index = library.prompts()[0]
    toy = ToyEmbedder()
    assert (index.prompt, index.gate_scale, index.model_id, index.dim) == ("red", 1.0, "toy", 4)
    assert index.weights_hash == toy.weights_hash
    assert index.preprocessing == {"size": 4, "mean": [0.0, 0.0, 0.0]}
    np.testing.assert_array_equal(library.prompt_features(index, never), toy.encode_prompt("red").tokens)


def test_the_default_place_follows_the_real_path(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(photos)
    place = default_place(photos)
    assert place.parent == tmp_path / "user" / "steersearch" / "libraries"
    assert place.name.startswith("photos-")
    assert default_place(tmp_path / "link") == place
    assert default_place(tmp_path / "other" / "photos") != place
    assert Library.create(tmp_path / "link").place == place


# what is imported when

COLD_QUERY = """
    import sys
    from tests.toy_library import Library
    heavy = {"lancedb", "torch", "pandas", "timm", "transformers", "torchvision"}
    assert not heavy & set(sys.modules), heavy & set(sys.modules)

    from tests.toy_embedder import ToyEmbedder
    place, query = sys.argv[1:]
    library = Library.open(place)
    hits = library.query(ToyEmbedder(), query, "red")
    library.heatmap(hits[0])
    print(len(hits), *sorted(heavy & set(sys.modules)))
"""


def cold_query(library: Library, query: Path) -> str:
    command = [sys.executable, "-c", textwrap.dedent(COLD_QUERY), str(library.place), str(query)]
    run = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_a_cold_query_imports_lancedb_only_when_the_snapshot_is_out_of_date(
    library: Library, photos: Path
) -> None:
    assert cold_query(library, photos / "red.png") == "3"
    (photos / "blue.png").unlink()
    library.index(ToyEmbedder(), ["blue"])  # brings its own snapshot up to date, not that of "red"
    assert cold_query(library, photos / "red.png").split()[:2] == ["2", "lancedb"]
    assert cold_query(library, photos / "red.png") == "2"
