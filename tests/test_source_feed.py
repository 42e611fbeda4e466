"""Batches from sources: what is in them, that they depend on the step alone, and rows that cannot be used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from steersearch.core.errors import ConfigError, DataError, SampleError
from steersearch.core.preprocess import Preprocess
from steersearch.training import source_feed, text_store
from steersearch.training.batch import Alone, Batch
from steersearch.training.data.folder import Folder, FolderWriter
from steersearch.training.data.samples import Sample, Skip, Source
from steersearch.training.source_feed import SourceFeed, evenly, held_back
from steersearch.training.text_store import TextStore
from tests.conftest import WordEncoder

SIZE, PATCH = 32, 8
PREPROCESS = Preprocess(size=SIZE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), crop_pct=0.9)
WORDS = "the red mug on a b c d e f g h".split()


def make_data(folder: Path, pictures: int = 7, each: int = 3, name: str = "data") -> Folder:
    """Pictures of noise with a white box in each row's mask; expressions are all different."""
    (folder / "photos").mkdir(parents=True)
    rng = np.random.default_rng(pictures)
    with FolderWriter(folder / "expressions.jsonl") as rows:
        for i in range(pictures):
            high, wide = rng.integers(36, 60, size=2).tolist()
            pixels = rng.integers(0, 256, (high, wide, 3), np.uint8)
            for j in range(each):
                mask = np.zeros((high, wide), np.bool_)
                top, left = rng.integers(0, 18, size=2).tolist()
                mask[top : top + 15, left : left + 17] = True
                words = " ".join(rng.choice(WORDS, 1 + j).tolist())
                rows.add(f"photos/{i}.png", f"{words} {'abcdefghijklm'[i]} {'xyz'[j]}", mask)
            Image.fromarray(pixels).save(folder / f"photos/{i}.png")
    (folder / "source.json").write_text(f'{{"name": "{name}"}}')
    return Folder(folder)


@pytest.fixture(autouse=True, scope="module")
def quick_texts() -> Iterator[None]:
    """Real text encoders take seconds to load, and are tested with the store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_store, "load_text_encoder", lambda name: WordEncoder())
        yield


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, Folder, TextStore]:
    """Two sources (21 rows and 6) and a store that has their expressions."""
    folder = tmp_path_factory.mktemp("shared")
    first, second = make_data(folder / "first", name="first"), make_data(folder / "second", 3, 2, "second")
    store = TextStore.open(folder / "texts", "minilm")
    SourceFeed([first], [second], store, PREPROCESS, PATCH, batch=4, seed=0).prepare()
    return first, second, store


def feed_of(shared: tuple[Folder, Folder, TextStore], **changes: object) -> SourceFeed:
    first, second, store = shared
    return SourceFeed(
        [first, second],
        [second],
        store,
        PREPROCESS,
        PATCH,
        **({"batch": 4, "seed": 5, "alone": True, "tokens": store.longest} | changes),  # type: ignore[arg-type]
    )


def parts(batch: Batch) -> list[torch.Tensor]:
    assert isinstance(batch.alone, Alone)
    return [
        batch.pixels, batch.prompts.tokens, batch.prompts.mask, batch.cover, batch.centre, batch.source,
        batch.alone.pixels, batch.alone.cover, batch.alone.names,
    ]  # fmt: skip


def assert_equal(found: Sequence[Batch], expected: Sequence[Batch]) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.texts == theirs.texts
        for one, other in zip(parts(ours), parts(theirs), strict=True):
            assert torch.equal(one.nan_to_num(), other.nan_to_num())


def test_batches_are_as_the_contract_says(shared: tuple[Folder, Folder, TextStore]) -> None:
    feed = feed_of(shared)
    assert feed.sources == ("first", "second")
    batches = list(feed.training(0, 8))
    assert len(batches) == 8
    for batch in batches:
        assert isinstance(batch.alone, Alone)
        shapes = [tuple(part.shape) for part in parts(batch)]
        length = shared[2].longest
        assert shapes == [
            (4, 3, 32, 32), (4, length, 384), (4, length), (4, 16), (4, 2), (4,), (4, 3, 32, 32), (4, 16), (4,)
        ]  # fmt: skip
        assert {part.dtype for part in parts(batch)} == {torch.float32, torch.bool, torch.int64}
        assert (batch.cover.sum(dim=1) > 0).all()
        assert batch.cover.max() <= 1
        expected = shared[2].features(batch.texts, shared[2].longest)
        assert torch.equal(batch.prompts.tokens, expected.tokens)
        grid = batch.cover.view(4, 4, 4) > 0
        for cells, (x, y) in zip(grid, batch.centre.tolist(), strict=True):
            across, down = cells.any(0).nonzero(), cells.any(1).nonzero()
            assert across.min() < x < across.max() + 1
            assert down.min() < y < down.max() + 1
        assert ((batch.alone.cover > 0).sum(dim=1) >= 4).all()
    assert Counter(torch.cat([batch.source for batch in batches]).tolist())[1] >= 6


def test_batches_depend_on_seed_and_step_alone(shared: tuple[Folder, Folder, TextStore]) -> None:
    """27 rows: the steps cross into the second epoch."""
    expected = list(feed_of(shared).training(0, 8))
    assert_equal(list(feed_of(shared, workers=2).training(0, 8)), expected)
    assert_equal(list(feed_of(shared).training(5, 8)), expected[5:])
    ranks = [list(feed_of(shared, rank=rank, ranks=2, workers=rank).training(0, 8)) for rank in (0, 1)]
    for step, whole in enumerate(expected):
        for rank in (0, 1):
            for one, other in zip(parts(ranks[rank][step]), parts(whole), strict=True):
                assert torch.equal(one, other[rank::2])
    others = list(feed_of(shared, seed=6).training(0, 8))
    assert not torch.equal(others[0].prompts.tokens, expected[0].prompts.tokens)
    assert not torch.equal(others[0].pixels, expected[0].pixels)


def test_the_generator_that_training_goes_on_with_is_not_drawn_from(
    shared: tuple[Folder, Folder, TextStore],
) -> None:
    state = torch.get_rng_state()
    assert len(list(feed_of(shared, workers=1).training(0, 2))) == 2
    assert torch.equal(torch.get_rng_state(), state)


def test_every_row_is_seen_once_in_each_epoch_in_another_order(
    shared: tuple[Folder, Folder, TextStore],
) -> None:
    feed = feed_of(shared, batch=3, augment="none")
    batches = list(feed.training(0, 18))  # two epochs of 9 steps
    names = [torch.cat([part for b in batches[i : i + 9] for part in [b.alone.names]]) for i in (0, 9)]  # type: ignore[union-attr]
    first, second, _ = shared
    expected = sorted(
        source_feed._number(source.row(i).expression)
        for source in (first, second)
        for i in range(len(source))
    )
    assert sorted(names[0].tolist()) == sorted(names[1].tolist()) == expected
    assert names[0].tolist() != names[1].tolist()
    assert min(expected) >= 0


def test_alone_changes_nothing_else(shared: tuple[Folder, Folder, TextStore]) -> None:
    with_it, without = (next(iter(feed_of(shared, alone=alone).training(2, 3))) for alone in (True, False))
    assert without.alone is None
    assert torch.equal(with_it.pixels, without.pixels)
    assert torch.equal(with_it.cover, without.cover)


def test_validation_has_each_row_once_over_all_ranks(shared: tuple[Folder, Folder, TextStore]) -> None:
    first, second, store = shared
    feeds = [
        SourceFeed([first], [second, first], store, PREPROCESS, PATCH, batch=4, seed=0, rank=r, ranks=2,
                   validation_rows=10, workers=r)
        for r in (0, 1)
    ]  # fmt: skip
    parts_of = [list(feed.validation()) for feed in feeds]
    assert [[len(batch) for batch in part] for part in parts_of] == [[2, 2, 2, 2], [2, 2, 2, 2]]
    assert feeds[0].sources == ("first", "second")
    batches = [batch for part in parts_of for batch in part]
    assert Counter(torch.cat([batch.source for batch in batches]).tolist()) == {0: 10, 1: 6}
    chosen = [second[i] for i in range(6)] + [first[i * 21 // 10] for i in range(10)]
    found = torch.cat([batch.pixels for batch in batches])
    plain = replace(PREPROCESS, mode="squash", crop_pct=1.0)
    for sample in chosen:
        wanted = torch.from_numpy(plain(Image.open(sample.image)))
        assert (found == wanted).flatten(1).all(dim=1).any()
    assert [batch.alone for batch in batches] == [None] * 8
    again = list(feeds[0].validation())
    assert torch.equal(again[0].pixels, parts_of[0][0].pixels)


# ------------------------------------------------------------------------------------- rows that cannot be used


@pytest.fixture
def broken(tmp_path: Path) -> tuple[Folder, TextStore]:
    """20 rows, of which 8 cannot be used: of a missing picture, of a damaged one, and two by themselves."""
    make_data(tmp_path / "data", 6)
    with (tmp_path / "data/expressions.jsonl").open("a") as file:
        file.write(
            '{"image": "photos/0.png", "expression": "e", "mask": {"size": [3, 3], "counts": [1, 8]}}\n'
        )
        file.write('{"image": "photos/0.png", "expression": "f", "box": [0, 0, 9, 9]}\n')
    source = Folder(tmp_path / "data")
    (tmp_path / "data/photos/2.png").unlink()
    content = (tmp_path / "data/photos/4.png").read_bytes()
    (tmp_path / "data/photos/4.png").write_bytes(content[: len(content) // 2])
    store = TextStore.open(tmp_path / "texts", "minilm")
    store.add(source.row(i).expression for i in range(len(source)))
    return source, store


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_that_cannot_be_used_are_reported_and_replaced(
    broken: tuple[Folder, TextStore], workers: int
) -> None:
    source, store = broken
    told: list[Skip] = []
    feed = SourceFeed(
        [source], [source], store, PREPROCESS, PATCH, batch=5, seed=1, workers=workers, report=told.append,
        alone=True, tokens=store.longest,
    )  # fmt: skip
    batches = list(feed.training(0, 10))  # two epochs and more
    assert [len(batch) for batch in batches] == [5] * 10
    assert_equal(list(feed.training(3, 10)), batches[3:])
    for batch in batches:
        assert isinstance(batch.alone, Alone)
        assert len(set(batch.alone.names.tolist())) == 5
    path = source.row(0).path
    missing = f"its picture {source.row(6).image} cannot be used: no such picture"
    assert Skip(path, "line 7", missing) in told
    assert sorted((skip.path, skip.row) for skip in told) == sorted(
        (path, f"line {line}") for line in (7, 8, 9, 13, 14, 15, 19, 20)
    )
    assert sum(feed.skipped.values()) == 8
    assert feed.skipped["its picture … cannot be used: no such picture"] == 3
    assert feed.skipped["its mask is … × … pixels, its picture … × …"] == 1
    assert len(list(feed.validation())) == 4  # of 5 rows, less those
    assert sum(len(batch) for batch in feed.validation()) == 12
    assert sum(feed.skipped.values()) == 16  # of both sides, each told once


@pytest.mark.parametrize("workers", [0, 1])
def test_strict_stops_at_the_first(broken: tuple[Folder, TextStore], workers: int) -> None:
    source, store = broken
    feed = SourceFeed(
        [source], [source], store, PREPROCESS, PATCH, batch=5, seed=1, workers=workers, strict=True
    )
    with pytest.raises(SampleError, match=r"expressions.jsonl, line \d+: its") as caught:
        list(feed.training(0, 10))
    assert caught.value.path == source.row(0).path
    with pytest.raises(SampleError):
        list(feed.validation())


def test_where_no_row_can_be_used_that_is_an_error(
    broken: tuple[Folder, TextStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, store = broken
    monkeypatch.setattr(source_feed, "TRIES", 12)
    for path in (tmp_path / "data/photos").iterdir():
        path.unlink()
    feed = SourceFeed([source], [], store, PREPROCESS, PATCH, batch=5, seed=1, workers=1)
    with pytest.raises(DataError, match="12 consecutive rows are unusable; the last: "):
        list(feed.training(0, 2))


def test_a_mask_too_small_and_an_unread_word_are_reported(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "photos").mkdir(parents=True)
    Image.new("RGB", (320, 320)).save(folder / "photos/one.png")
    mask = np.zeros((320, 320), np.bool_)
    mask[0, 0] = True
    with FolderWriter(folder / "expressions.jsonl") as rows:
        rows.add("photos/one.png", "a speck", mask)
        rows.add("photos/one.png", "a B", ~mask)
    store = TextStore.open(tmp_path / "texts", "minilm")
    feed = SourceFeed([Folder(folder)], [Folder(folder)], store, PREPROCESS, PATCH, batch=1, seed=0)
    assert feed.prepare() == [
        '1 of 2 new expressions are not read whole, such as "a B": the model cannot read "B"'
    ]
    assert sum(len(batch) for batch in feed.validation()) == 1
    assert feed.skipped == {"nothing of its mask is left at … × … pixels": 1}


class Absent(Folder):
    """Of which every expression fits nothing."""

    def read(self, index: int) -> Sample:
        found = super().read(index)
        assert isinstance(found, Sample)
        return replace(found, mask=np.zeros_like(found.mask), absent=True)


def test_what_fits_nothing_has_an_empty_mask_and_a_grey_picture(
    shared: tuple[Folder, Folder, TextStore], tmp_path: Path
) -> None:
    source: Source = Absent(Path(shared[0].row(0).path).parent)
    feed = SourceFeed([source], [], shared[2], PREPROCESS, PATCH, batch=6, seed=0, alone=True)
    batch = next(iter(feed.training(0, 1)))
    assert isinstance(batch.alone, Alone)
    assert not batch.cover.any()
    assert batch.centre.isnan().all()
    assert (batch.alone.cover == 1).all()
    assert (batch.alone.names == 0).all()
    assert (batch.alone.pixels.flatten(2).std(dim=2) < 1e-5).all()
    assert not feed.skipped


# ------------------------------------------------------------------------------------------ preparing, splitting


def test_prepare_encodes_and_keeps_pictures_once(tmp_path: Path) -> None:
    source, other = make_data(tmp_path / "a", name="a"), make_data(tmp_path / "b", 3, name="b")
    store = TextStore.open(tmp_path / "texts", "minilm")
    told: list[tuple[str, int, int]] = []

    def feed(**changes: object) -> SourceFeed:
        settings = {"batch": 4, "seed": 0, "validation_rows": 4, "tokens": 30, "alone": True} | changes
        return SourceFeed([source], [other], store, PREPROCESS, PATCH, **settings)  # type: ignore[arg-type]

    cached = feed(cache=tmp_path / "cache")
    cached.prepare(lambda *values: told.append(values))
    last = {what: (done, total) for what, done, total in told}
    assert last == {
        "expressions": (21, 21), "expressions to validate on": (4, 4), "pictures of a": (7, 7), "pictures of b": (3, 3)
    }  # fmt: skip
    assert len(store) == 25
    plain = list(feed().validation())
    for found, expected in zip(cached.validation(), plain, strict=True):
        assert torch.equal(found.pixels, expected.pixels)  # squashed either way
        assert torch.equal(found.cover, expected.cover)
    one, two = list(cached.training(0, 3)), list(feed(cache=tmp_path / "cache", workers=1).training(0, 3))
    assert_equal(one, two)
    for found, expected in zip(one, feed().training(0, 3), strict=True):
        assert torch.equal(found.cover, expected.cover)  # the geometry of augmentation is the mask's own


def test_held_back_pictures_are_on_one_side_only(tmp_path: Path) -> None:
    source = make_data(tmp_path / "data", 13, 2)
    training, validation = held_back(source)
    assert len(validation) == 2  # of so few pictures one
    sides = [{part.row(i).image_id for i in range(len(part))} for part in (training, validation)]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 13
    assert training[0].expression in {source[0].expression, source[2].expression}
    assert np.array_equal(validation[1].mask, source[int(validation._rows[1])].mask)
    assert (training.name, held_back(source)[1].row(0)) == ("data", validation.row(0))
    with pytest.raises(DataError, match="fewer than two pictures"):
        held_back(make_data(tmp_path / "one", 1))


def test_one_picture_in_a_hundred_is_held_back_of_many() -> None:
    class Many(Folder):
        name, skips = "many", []

        def __init__(self) -> None: ...

        def __len__(self) -> int:
            return 20_000

        def row(self, index: int) -> object:  # type: ignore[override]
            return type("", (), {"image_id": str(index // 2)})

    training, validation = held_back(Many())
    assert len(training) + len(validation) == 20_000
    assert 140 <= len(validation) <= 260  # 100 of 10,000 pictures, ± 3 standard deviations


def test_rows_are_taken_evenly() -> None:
    class Ten(Folder):
        name, skips = "ten", []

        def __init__(self) -> None: ...

        def __len__(self) -> int:
            return 10

    part = evenly(Ten(), 4)
    assert isinstance(part, source_feed.Part)
    assert part._rows.tolist() == [0, 2, 5, 7]
    whole = Ten()
    assert evenly(whole, 10) is whole


def test_settings_that_cannot_work_are_refused(shared: tuple[Folder, Folder, TextStore]) -> None:
    first, _, store = shared
    with pytest.raises(ConfigError, match="must divide the side of 32"):
        SourceFeed([first], [], store, PREPROCESS, 7, batch=4, seed=0)
    with pytest.raises(ConfigError, match="at least 1 for each of 8"):
        feed_of(shared, ranks=8)
    with pytest.raises(DataError, match="first: there is no row"):
        SourceFeed([evenly(first, 0)], [], store, PREPROCESS, PATCH, batch=4, seed=0)


STOPPED = """
import signal, sys
from pathlib import Path
from steersearch.core.preprocess import Preprocess
from steersearch.training.data.folder import Folder
from steersearch.training.source_feed import SourceFeed
from steersearch.training.text_store import TextStore

store = TextStore(Path(sys.argv[2]), sys.argv[3], -1)
preprocess = Preprocess(size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
feed = SourceFeed([Folder(Path(sys.argv[1]))], [], store, preprocess, 8, batch=4, seed=0, workers=2)
noted = []
signal.signal(signal.SIGTERM, lambda *_: noted.append(0))
for step, batch in enumerate(feed.training(0, 100_000)):
    if step == 1:
        print("running", flush=True)
    if noted:
        noted.append(step)
    if len(noted) == 20:
        print("went on", flush=True)
"""


@pytest.mark.slow
def test_signals_to_all_processes_neither_hang_nor_end_the_workers_first(
    shared: tuple[Folder, Folder, TextStore],
) -> None:
    """Ctrl-C, and a scheduler's SIGTERM, go to the workers as well; the run that saves its state still needs them."""
    first, _, store = shared
    started = subprocess.Popen(
        [sys.executable, "-c", STOPPED, first.row(0).path.parent, store.folder, store.text_encoder],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert started.stdout is not None
    for expected, number in (("running", signal.SIGTERM), ("went on", signal.SIGINT)):
        assert started.stdout.readline() == f"{expected}\n"
        os.killpg(started.pid, number)
    try:
        _, err = started.communicate()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
    assert started.returncode == -signal.SIGINT
    # Of the main process alone. If that was just about to take a picture from a worker, the worker's
    # multiprocessing says that it lost the connection, which is another exception.
    assert err.splitlines().count("KeyboardInterrupt") == 1
    assert err.rstrip().endswith("KeyboardInterrupt")
