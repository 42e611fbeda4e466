"""CORE's precision at k against hand-worked cases and a naive version."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersearch.benchmarks.harness.metrics import core_precision


def test_by_hand() -> None:
    # Two bases with the objects mug and key each, on a line: the mug of base a is nearest to the key of base b.
    angles = np.array([0.0, 1.0, 0.2, 0.1])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    objects, bases = ["mug", "key", "mug", "key"], ["a", "a", "b", "b"]
    # query 0 (mug, a): gallery is rows 2 (mug, .2 away) and 3 (key, .1 away): key wins, a miss
    # query 2 (mug, b): gallery is rows 0 (mug, .2) and 1 (key, .8): mug wins, a hit
    assert core_precision(vectors, objects, bases, "mug").tolist() == [0.0, 1.0]
    assert core_precision(vectors, objects, bases, "mug", k=2).tolist() == [0.5, 0.5]


def test_length_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(12, 5)).astype(np.float32)
    objects, bases = ["a", "b", "c"] * 4, [str(i // 3) for i in range(12)]
    scaled = vectors * rng.uniform(0.1, 9, (12, 1)).astype(np.float32)
    assert (core_precision(vectors, objects, bases, "a") == core_precision(scaled, objects, bases, "a")).all()


def test_refuses_what_it_cannot_answer() -> None:
    vectors = np.eye(4, dtype=np.float32)
    with pytest.raises(ValueError, match="no picture has the object"):
        core_precision(vectors, ["a"] * 4, list("wxyz"), "b")
    with pytest.raises(ValueError, match="k is 4"):
        core_precision(vectors, ["a"] * 4, list("wxyz"), "a", k=4)


def test_embeddings_that_are_not_finite_are_refused() -> None:
    vectors = np.eye(4, dtype=np.float32)
    vectors[3] = np.nan  # of the gallery alone: it would count as a miss
    with pytest.raises(ValueError, match="not finite"):
        core_precision(vectors, ["a", "a", "a", "b"], list("wxyz"), "a")


def test_queries_without_a_right_picture_are_left_out() -> None:
    vectors = np.eye(4, dtype=np.float32)
    objects = ["mug", "key", "key", "jar"]
    assert core_precision(vectors, objects, ["a", "a", "b", "b"], "mug").tolist() == []
    assert len(core_precision(vectors, objects, ["a", "a", "b", "b"], "key")) == 2


def test_ties_are_broken_by_chance_whatever_the_order() -> None:
    vectors = np.ones((4, 3), np.float32)
    for objects in (["a", "b", "a", "b"], ["b", "a", "b", "a"]):
        assert core_precision(vectors, objects, ["x", "x", "y", "y"], "a").tolist() == [0.5, 0.5]
    # behind one key that is nearest, a mug and two keys score alike for the second and third place
    close = np.array([[1, 0], [0.9, 0.1], [0, 1], [0, 1], [0, 1]], np.float32)
    objects, bases = ["mug", "key", "mug", "key", "key"], list("abcde")
    found = core_precision(close, objects, bases, "mug", k=3)
    assert found[0] == pytest.approx((2 / 3) / 3)


@given(seed=st.integers(0, 10_000), bases=st.integers(2, 6), k=st.integers(1, 3))
def test_equals_a_naive_version(seed: int, bases: int, k: int) -> None:
    objects = ["a", "b", "c"] * bases
    ids = [str(i // 3) for i in range(3 * bases)]
    vectors = np.random.default_rng(seed).normal(size=(3 * bases, 6)).astype(np.float32)
    expected = []
    for query in (i for i, name in enumerate(objects) if name == "a"):
        rest = [i for i in range(len(objects)) if ids[i] != ids[query]]
        length = np.linalg.norm
        rest.sort(
            key=lambda i: -(vectors[query] @ vectors[i]) / (length(vectors[query]) * length(vectors[i]))
        )
        expected.append(sum(objects[i] == "a" for i in rest[:k]) / k)
    assert core_precision(vectors, objects, ids, "a", k) == pytest.approx(expected)
