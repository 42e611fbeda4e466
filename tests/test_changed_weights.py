"""A library whose model has other weights by now says so, and how to go on, whatever it is asked."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from steersearch import Library
from steersearch.core.errors import ModelMismatchError, PromptError
from steersearch.core.registry import MODELS
from steersearch.identity import weights_now
from tests.conftest import Run, draw_picture

PROMPTS = ("the mug", "lamp")
CHANGED = 'the model mini has other weights now than those that indexed "the mug", "lamp"'
IN_SHORT = (
    'mini has other weights now than when "the mug", "lamp" was indexed; index again: steersearch index'
)


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    draw_picture(tmp_path / "stranger.jpg", "red", seed=77)
    return tmp_path / "stranger.jpg"


@pytest.fixture
def earlier(photos: Path, tiny_model: Path, word_encoder: None) -> Library:
    """A library as a release with another mini left it: `tiny_model` holds the weights of then."""
    library = Library.create(photos, model=str(tiny_model))
    library.index(prompts=PROMPTS)
    library._models.changed.rename(library.prompts(), "mini")
    return Library.open(photos)


def test_the_weights_of_mini_are_known_without_reading_them() -> None:
    card = MODELS["mini"]
    assert weights_now("mini") == card.weights.sha256


@pytest.mark.parametrize(
    "command",
    [
        ("query", "photos/red.jpg", "--focus", "lamp"),
        ("find", "lamp"),
        ("info",),
    ],
    ids=lambda command: command[0],
)
def test_what_can_be_answered_is_and_the_change_is_reported(
    run: Run, earlier: Library, command: tuple[str, ...]
) -> None:
    done = run(*command)
    assert done.code == 0
    assert done.err.count("weights") == done.err.count(IN_SHORT) == 1


def test_a_photo_from_outside_is_refused(run: Run, earlier: Library, stranger: Path) -> None:
    with pytest.raises(ModelMismatchError) as changed:
        earlier.query(stranger, "lamp")
    command = f'steersearch index {earlier.folder} --prompt "lamp" --model mini --gate-scale 1 --view squash'
    assert str(changed.value).endswith(f"or index the folder again: {command}")
    done = run("query", stranger, "--focus", "lamp")
    assert (done.code, done.out) == (1, "")
    assert f"go on with the earlier weights: steersearch index {earlier.folder} --model FILE" in done.err


def test_a_new_focus_is_steered_by_the_weights_of_now(run: Run, earlier: Library, stranger: Path) -> None:
    done = run("query", stranger, "--focus", "cat", "--exact", "--json")
    assert done.code == 0
    assert done.err.count("weights") == done.err.count(IN_SHORT) == 1
    assert [i.weights_hash for i in earlier.prompts() if i.prompt == "cat"] == [weights_now("mini")]


def test_index_without_prompts_names_both_ways(run: Run, earlier: Library) -> None:
    with pytest.raises(PromptError, match="no prompt given, and the model mini has other weights now"):
        earlier.index()
    done = run("index", earlier.folder)
    assert done.code == 2
    assert CHANGED in done.err
    assert "where FILE is mini.safetensors of the earlier release" in done.err


def test_indexing_again_ends_it(run: Run, earlier: Library, stranger: Path) -> None:
    message = run("info").err.replace("\n", " ")
    again = shlex.split(message.partition("index again: ")[2].partition("; or ")[0])
    assert again[1:] == [
        "index",
        str(earlier.folder),
        "--prompt",
        "the mug",
        "--prompt",
        "lamp",
        "--model",
        "mini",
    ]
    assert run(*again[1:]).code == 0
    done = run("query", stranger, "--focus", "lamp")
    assert done.code == 0
    assert "other weights" not in done.err
    assert "2 indexes" not in done.err
    assert run("index", earlier.folder).code == 0
    rows = run("info").out.splitlines()[-4:]
    for index, row in zip(earlier.prompts(), rows, strict=True):
        assert f"mini (weights {index.weights_hash[:8]})" in row
    done = run("remove", "lamp")
    then, now = (index for index in earlier.prompts() if index.prompt == "lamp")
    assert done.code == 1
    assert f"{then.key}: {then}, weights {then.weights_hash[:8]}, {now.key}: {now}, weights " in done.err
    assert run("remove", then.key).code == 0
    assert [index.key for index in earlier.prompts() if index.prompt == "lamp"] == [now.key]
    assert "(weights " not in next(row for row in run("info").out.splitlines() if "lamp" in row)
    assert run("remove", "lamp").code == 0
    assert run("remove", earlier.prompts()[0].key).code == 0
    assert [index.weights_hash for index in earlier.prompts()] == [weights_now("mini")]


def test_a_release_gone_back_to_takes_its_own_weights(earlier: Library, tiny_model: Path) -> None:
    library = Library.create(earlier.folder, model=str(tiny_model))
    earlier.index(prompts=["lamp"])  # with another mini, made later
    library._models.changed.rename(earlier.prompts(), str(tiny_model))
    chosen = library.find_prompt_index("lamp")
    assert chosen.weights_hash == weights_now(str(tiny_model)) != library.prompts()[-1].weights_hash


def test_the_earlier_file_may_be_named_for_one_query(
    run: Run, earlier: Library, tiny_model: Path, stranger: Path
) -> None:
    for command in (("query", stranger, "--focus", "lamp"), ("find", "lamp")):
        done = run(*command, "--model", tiny_model)
        assert done.code == 0
        assert f'exact, by "lamp" (model {tiny_model}, gate_scale 1, view squash)' in done.err
    assert [index.model_id for index in earlier.prompts()] == ["mini", "mini"]


def test_one_prompt_indexed_again_leaves_the_others_to_tell(run: Run, earlier: Library) -> None:
    done = run("index", earlier.folder, "--prompt", "lamp")
    assert done.code == 0
    assert 'than when "the mug" was indexed; ' in done.err


def test_the_earlier_file_goes_on_as_if_nothing_had_changed(
    run: Run, earlier: Library, tiny_model: Path, stranger: Path
) -> None:
    before = earlier.query(earlier.folder / "red.jpg", "lamp")
    done = run("index", earlier.folder, "--model", tiny_model)
    assert done.code == 0
    assert done.out.splitlines()[0] == "6 files: 0 added, 6 reused, 0 moved, 0 skipped; 0 removed"
    for command in (("query", stranger, "--focus", "lamp"), ("find", "lamp"), ("index", earlier.folder)):
        done = run(*command)
        assert done.code == 0
        assert "other weights" not in done.err
    after = Library.open(earlier.folder).query(earlier.folder / "red.jpg", "lamp")
    assert [(hit.path, hit.score) for hit in after] == [(hit.path, hit.score) for hit in before]
