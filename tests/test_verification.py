"""`verify`: a sound library has nothing to be said of; each kind of damage is found, named and, if asked, repaired."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from steersearch.core.errors import LibraryBusyError
from steersearch.indexer import snapshot
from steersearch.indexer.care.tables import Tables
from steersearch.indexer.care.verify import Finding
from steersearch.indexer.manifest import features_file
from steersearch.indexer.prompt_features import write_features
from steersearch.indexer.query_terms import Focus
from steersearch.indexer.store import Store
from steersearch.indexer.writers import writing
from tests.toy_embedder import ToyEmbedder, save_photo, save_photos
from tests.toy_library import Library


@pytest.fixture
def library(tmp_path: Path) -> Library:
    library = Library.create(save_photos(tmp_path / "photos", 6), tmp_path / "library")
    library.index(ToyEmbedder(), ["red", "blue"])
    return library


def said(findings: list[Finding]) -> list[tuple[str, str, str]]:
    return [(f"{f.severity}{' repaired' if f.is_repaired else ''}", f.subject, f.what) for f in findings]


def table(library: Library, prompt: str | None = None) -> lancedb.table.Table:
    name = prompt or "images"
    if prompt in ("red", "blue"):
        name = f"prompt_{library.find_prompt_index(prompt).key}"
    return lancedb.connect(library.place / "lance").open_table(name)


def change(library: Library, prompt: str | None, row: int, **values: object) -> str:
    """Write other values into one row (in the order of the keys) as no run would; returns its key."""
    damaged = table(library, prompt)
    column = "path" if prompt is None else "image_id"
    rows = damaged.to_arrow().sort_by(column)
    key: str = rows.column(column)[row].as_py()
    damaged.delete(f"{column} = '{key}'")
    changed = pa.Table.from_pylist([{**rows.to_pylist()[row], **values}], schema=damaged.schema)
    damaged.add(changed)
    return key


def assert_sound_again(library: Library, forward_passes: int = 0) -> None:
    """The next index brings back what a repair has dropped; then all is as in a library without damage."""
    assert library.index(ToyEmbedder()).forward_passes == forward_passes
    assert library.verify(deep=True) == []
    undisturbed = Library.create(library.folder, library.place.with_name("undisturbed"))
    undisturbed.index(ToyEmbedder(), ["red", "blue"])
    for prompt in ("red", "blue"):
        one, other = (
            Store(of.place).gallery(of.find_prompt_index(prompt).key) for of in (library, undisturbed)
        )
        assert (one.paths, one.image_ids, one.heatmaps) == (other.paths, other.image_ids, other.heatmaps)
        np.testing.assert_array_equal(one.embeddings, other.embeddings)


@pytest.mark.parametrize("repair", [False, True])
def test_of_a_sound_library_there_is_nothing_to_say_and_nothing_changes(
    library: Library, repair: bool
) -> None:
    before = {path: path.read_bytes() for path in library.place.rglob("*") if path.is_file()}
    assert library.verify(deep=True, repair=repair) == []
    assert {path: path.read_bytes() for path in library.place.rglob("*") if path.is_file()} == before


def test_bad_vectors_are_set_aside_and_taken_from_the_snapshot(library: Library) -> None:
    infinite, long = ([float("inf"), 0, 0, 1], [0.6, 0.8, 0.1, 0.0])  # LanceDB itself refuses NaN
    first = change(library, "red", 0, embedding=infinite)
    second = change(library, "red", 1, embedding=long)
    third = change(library, "red", 2, heatmap=b"\2\0\2\0abc")
    fourth = change(library, "red", 3, presence=float("inf"))
    expected = [
        ("error", 'prompt "red"', f"1 row has a vector that is not finite ({first})"),
        ("error", 'prompt "red"', f"1 row has a vector whose length is not 1 ({second})"),
        ("error", 'prompt "red"', f"1 row has a damaged heatmap ({third})"),
        ("error", 'prompt "red"', f"1 row has a presence that is not finite ({fourth})"),
    ]
    found = library.verify()
    assert said(found) == expected
    assert all(f.is_problem and f.advice == "set them aside: steersearch verify --repair" for f in found)
    repaired = library.verify(repair=True)
    assert [f.is_problem for f in repaired] == [False] * 4
    assert repaired[0].advice.startswith("set aside, what was lost is made again by: steersearch index ")
    assert_sound_again(library)


def test_what_a_snapshot_has_is_copied_some_rows_at_a_time(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "_ROWS", 2)
    key = library.find_prompt_index("red").key
    assert [len(rows) for rows in snapshot.kept_vectors(library.place, key)] == [2, 2, 2]
    shutil.rmtree(library.place / "lance" / f"prompt_{key}.lance")
    assert [finding.is_repaired for finding in library.verify(repair=True)] == [True]
    assert_sound_again(library)


def test_bad_vectors_of_which_no_snapshot_is_left_are_made_again(library: Library) -> None:
    change(library, "red", 0, embedding=[0.6, 0.8, 0.1, 0.0])
    shutil.rmtree(library.place / "snapshots")
    repaired = library.verify(repair=True)
    assert said(repaired)[1] == ("note", 'prompt "red"', "1 without a vector yet")
    assert_sound_again(library, forward_passes=1)


def test_keys_that_occur_twice_are_left_once(library: Library) -> None:
    for prompt in (None, "blue"):
        twice = table(library, prompt)
        twice.add(twice.to_arrow().slice(0, 2))
    assert [(f.subject, f.what.split(" (")[0]) for f in library.verify()] == [
        ("photos", "2 rows have the same path as another"),
        ('prompt "blue"', "2 rows have the same image_id as another"),
    ]
    assert [f.is_problem for f in library.verify(repair=True)] == [False, False]
    assert_sound_again(library)


def test_rows_of_photos_that_cannot_be_right_are_read_again(library: Library) -> None:
    change(library, None, 1, width=None)
    change(library, None, 2, status="perhaps")
    change(library, None, 3, image_id="")
    assert [f.what.split(" (")[0] for f in library.verify() if f.is_problem] == [
        "1 row has no size in pixels",
        '1 row has the status "perhaps"',
        "1 row has no content hash",
    ]
    assert not any(f.is_problem for f in library.verify(repair=True))
    assert_sound_again(library)


@pytest.mark.parametrize("prompt", [None, "red"])
@pytest.mark.parametrize("damage", ["data", "all"])
def test_a_table_that_cannot_be_read_is_made_anew(library: Library, prompt: str | None, damage: str) -> None:
    folder = library.place / "lance" / f"{table(library, prompt).name}.lance"
    for path in folder.rglob("*") if damage == "all" else folder.glob("data/*"):
        if path.is_file():
            path.write_bytes(b"nothing")
    subject = "photos" if prompt is None else 'prompt "red"'
    worst = library.verify()[0]
    assert (worst.severity, worst.subject) == ("error", subject)
    assert "table cannot be read" in worst.what
    assert not any(f.is_problem for f in library.verify(repair=True))
    assert_sound_again(library)  # vectors are in the snapshot as well


def test_a_missing_table_and_one_of_another_length(library: Library) -> None:
    red, blue = (f"prompt_{library.find_prompt_index(prompt).key}" for prompt in ("red", "blue"))
    database = lancedb.connect(library.place / "lance")
    database.drop_table(red)
    schema = database.open_table(blue).schema
    database.drop_table(blue)
    wider = schema.set(schema.get_field_index("embedding"), pa.field("embedding", pa.list_(pa.float32(), 7)))
    database.create_table(blue, schema=wider)
    assert said(library.verify()) == [
        ("error", 'prompt "red"', "its table is missing"),
        ("error", 'prompt "blue"', "its table holds vectors of length 7, its manifest says 4"),
    ]
    assert not any(f.is_problem for f in library.verify(repair=True))
    assert_sound_again(library)


def test_a_damaged_manifest_is_dropped_and_its_vectors_found_again(library: Library) -> None:
    key = library.find_prompt_index("red").key
    path = library.place / "prompts" / key / "manifest.json"
    sound = path.read_text()
    for damage in ("{}", sound.replace('"prompt": "red"', '"prompt": "green"')):
        path.write_text(damage)
        (finding, unfinished) = library.verify()
        assert (finding.severity, finding.subject) == ("error", f"prompt index {key}")
        assert "its manifest is damaged" in finding.what
        assert said([unfinished]) == [
            (
                "note",
                f"unfinished prompt index {key}",
                "has 6 vectors and no manifest: its build did not finish",
            )
        ]
    path.write_text(json.dumps({**json.loads(sound), "schema_version": 99}))
    assert said(library.verify())[0] == ("error", f"prompt index {key}", "is of format 99")
    path.write_text("{}")
    assert [f.is_problem for f in library.verify(repair=True)] == [False, False]
    assert library.index(ToyEmbedder(), ["red"]).forward_passes == 0
    assert_sound_again(library)


def test_prompt_features_need_their_model(library: Library) -> None:
    red, blue = (library.find_prompt_index(prompt) for prompt in ("red", "blue"))
    features_file(library.place, red.key).unlink()
    np.save(features_file(library.place, blue.key), np.zeros((2, 3)))
    for repair in (False, True):  # no repair can do without the model, so they stay problems
        findings = library.verify(repair=repair)
        assert [f.subject for f in findings if f.is_problem] == ['prompt "red"', 'prompt "blue"']
        assert "the text encoder's output for it is missing" in findings[0].what
        assert findings[0].advice.startswith("only its model can encode it again: steersearch index ")
    assert_sound_again(library)
    features_file(library.place, blue.key).write_bytes(b"\x93NUMPY")
    assert "is damaged" in library.verify()[0].what
    write_features(library.place, blue.key, np.ones((1, 5), np.float32))
    assert [f.what for f in library.verify()] == [
        "the text encoder's output for it has 3 columns; those of this model's prompts: 3, 5",
        "the text encoder's output for it has 5 columns; those of this model's prompts: 3, 5",
    ]


def test_a_snapshot_that_lies_is_made_again(library: Library, tmp_path: Path) -> None:
    red, blue = (library.place / "snapshots" / library.find_prompt_index(p).key for p in ("red", "blue"))
    for file in blue.iterdir():  # rightly named, wrongly filled
        (red / f"{next(red.iterdir()).stem}{file.suffix}").write_bytes(file.read_bytes())
    assert said(library.verify()) == [
        ("error", 'prompt "red"', "its search snapshot differs from the tables")
    ]
    assert said(library.verify(repair=True))[0][0] == "error repaired"
    assert_sound_again(library)


def test_what_belongs_to_nothing(library: Library) -> None:
    gone = library.place / "snapshots" / "gone-0123456789ab"
    gone.mkdir()
    (library.folder / "000.png").unlink()
    (library.folder / "003.png").unlink()
    library.index(ToyEmbedder(), ["red", "blue"])
    lost = ("note", "thumbnails", "2 of them belong to no photo any more")
    kept = "2 of its vectors belong to no photo any more"
    (frozen,) = Tables(library.place).names("frozen_")
    expected = [("note", subject, kept) for subject in ('prompt "red"', 'prompt "blue"', f"table {frozen}")]
    orphan = ("warning", "snapshot gone-0123456789ab", "belongs to no prompt index")
    assert said(library.verify()) == [lost, *expected, orphan]
    assert [f.is_problem for f in library.verify(repair=True)] == [False] * 5
    assert not gone.exists()
    assert said(library.verify()) == expected


def test_a_query_leaves_nothing_that_belongs_to_nothing_where_no_regions_are_kept(tmp_path: Path) -> None:
    library = Library.create(save_photos(tmp_path / "photos", 4), tmp_path / "library")
    library.index(ToyEmbedder(), ["red"], regions=False)
    aim = Focus.on(library.new_index(ToyEmbedder(), "blue", 1.0), 1.0)
    library.search_any([aim], library.folder / "000.png", lambda _: ToyEmbedder(), 4)
    assert library.verify() == []


def test_deep_reads_the_photos_again(library: Library) -> None:
    rotten, edited, gone = (library.folder / name for name in ("001.png", "002.png", "003.png"))
    before = rotten.stat()
    content = bytearray(rotten.read_bytes())
    content[-1] ^= 1  # of the last chunk's checksum
    rotten.write_bytes(content)
    os.utime(rotten, ns=(before.st_atime_ns, before.st_mtime_ns))
    save_photo(edited, (9, 9, 9), size=(30, 30))
    gone.unlink()
    assert library.verify() == []
    found = library.verify(deep=True)
    assert [(f.severity, f.subject, f.what.split(",")[0]) for f in found] == [
        ("note", "photos", "1 of them no longer there"),
        ("note", "photos", "1 of them changed since"),
        ("error", "001.png", "has another content than when it was indexed"),
    ]
    assert [f.is_problem for f in library.verify(deep=True, repair=True)] == [False] * 3
    assert library.index(ToyEmbedder()).forward_passes == 4  # two photos, two prompts
    assert [f.severity for f in library.verify(deep=True)] == [
        "note"
    ] * 4  # old vectors are kept, and thumbnails
    library.folder.rename(library.folder.with_name("away"))
    assert said(library.verify(deep=True))[-1][0] == "warning"


def test_repairing_needs_the_library_for_itself_and_looking_does_not(library: Library) -> None:
    with writing(library.place):
        assert library.verify(deep=True) == []
        with pytest.raises(LibraryBusyError):
            library.verify(repair=True)


def flip(path: Path, value: np.ndarray) -> None:
    """Another bit in a file, where this vector stands."""
    content = bytearray(path.read_bytes())
    content[content.index(value.astype(np.float32).tobytes()) + 1] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("in_table", "in_snapshot", "passes"), [(True, False, 0), (False, True, 0), (True, True, 1)]
)
def test_where_table_and_snapshot_differ_the_checksum_says_which_is_right(
    library: Library, in_table: bool, in_snapshot: bool, passes: int
) -> None:
    index = library.find_prompt_index("red")
    gallery = Store(library.place).gallery(index.key)
    vector = gallery.embeddings[gallery.paths.index("003.png")]
    if in_table:
        (data,) = library.place.glob(f"lance/prompt_{index.key}.lance/data/*")
        flip(data, vector)
    if in_snapshot:
        (npy,) = library.place.glob(f"snapshots/{index.key}/*.npy")
        flip(npy, vector)
    assert any(finding.is_problem for finding in library.verify())
    assert not any(finding.is_problem for finding in library.verify(repair=True))
    assert_sound_again(library, forward_passes=passes)


@pytest.mark.parametrize("kind", ["vectors.npy", "mean.npy", "embeddings.npy", "patches.npy", "arrow"])
def test_the_region_snapshot_is_looked_through(library: Library, kind: str) -> None:
    (path,) = (path for path in library.place.glob("snapshots/frozen_*/*") if path.name.endswith(kind))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (finding,) = library.verify()
    assert finding.what == "its region snapshot differs from the tables"
    assert [f.is_repaired for f in library.verify(repair=True)] == [True]
    assert library.verify() == []


def test_patterns_that_are_damaged_are_set_aside(library: Library) -> None:
    library.index(ToyEmbedder(), exclude=["drafts/"])
    path = library.place / "exclude.json"
    path.write_text(path.read_text().replace("drafts", "drifts"))
    assert said(library.verify())[0][:2] == ("error", "excluded")
    assert [f.is_repaired for f in library.verify(repair=True)] == [True]
    assert library.excluded == ()
    assert library.verify() == []
