"""Many pictures before a method: batches in order, one result of all, progress, squares."""

from __future__ import annotations

import numpy as np
from PIL import Image

from steersearch.benchmarks.harness.viewing import Progress, batches, digest, kept, see_all, squared
from steersearch.indexer.progress import ProgressEvent
from tests.painted_method import COLOURS, PaintedMethod

PICTURES = [kept(Image.new("RGB", (8, 8), colour)) for colour in COLOURS.values()]  # seven; three at a time


def test_batches_say_which_pictures_they_are_of() -> None:
    found = list(batches(PaintedMethod(2), PICTURES, "red", maps=True))
    assert [part for part, _ in found] == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert [len(seen.vectors) for _, seen in found] == [3, 3, 1]


def test_all_is_what_the_batches_are_together() -> None:
    seen = see_all(PaintedMethod(2), PICTURES, "red", maps=True)
    parts = [found for _, found in batches(PaintedMethod(2), PICTURES, "red", maps=True)]
    np.testing.assert_array_equal(seen.vectors, np.concatenate([part.vectors for part in parts]))
    assert seen.maps is not None
    assert seen.maps.shape == (7, 2, 2)
    assert seen.patches is None
    assert seen.attention is None


def test_progress_counts_over_all_prompts() -> None:
    events: list[ProgressEvent] = []
    progress = Progress(14, events.append)
    for prompt in ("red", "blue"):
        see_all(PaintedMethod(2), PICTURES, prompt, progress)
    assert [event.done for event in events] == [3, 6, 7, 10, 13, 14]
    assert {event.total for event in events} == {14}
    assert all(0 < event.images_per_s <= 1000 * event.done for event in events)


def test_squares_keep_the_whole_picture() -> None:
    wide = Image.new("RGB", (8, 4))
    wide.paste(COLOURS["red"], (7, 0, 8, 4))
    square = squared(kept(wide))()
    assert square.size == (8, 8)
    assert square.getpixel((7, 7))[0] > 200
    assert squared(kept(square))() is square


def test_a_digest_knows_where_one_part_ends() -> None:
    assert digest([b"ab", b"c"]) != digest([b"a", b"bc"])
    assert digest([b"ab"]) == digest(iter([b"ab"]))
