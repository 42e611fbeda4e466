"""Bootstrap intervals: against a resampling written out, and where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from steersearch.benchmarks.harness.intervals import macro_interval, mean_of, micro_interval, paired_interval


def test_values_without_spread_have_an_interval_without_width() -> None:
    parts = {"kitchen": [1.0] * 7, "park": [0.0] * 3}
    assert macro_interval(parts) == pytest.approx((0.5, 0.5))
    assert micro_interval(parts) == pytest.approx((0.7, 0.7))


def test_as_wide_as_the_normal_approximation_says() -> None:
    """Two parts of unequal size, shares 0.8 of 100 and 0.5 of 400."""
    parts = {"kitchen": [1.0] * 80 + [0.0] * 20, "park": [1.0, 0.0] * 200}
    variance = np.array([0.8 * 0.2 / 100, 0.5 * 0.5 / 400])
    for interval, weights, mean in (
        (macro_interval(parts), np.array([0.5, 0.5]), 0.65),
        (micro_interval(parts), np.array([0.2, 0.8]), 0.56),
    ):
        half = 1.96 * np.sqrt((weights**2 * variance).sum())
        assert interval == pytest.approx((mean - half, mean + half), abs=0.006)


def test_against_a_resampling_query_by_query() -> None:
    rng = np.random.default_rng(3)
    parts = {"a": rng.random(30).tolist(), "b": (2 + rng.random(10)).tolist()}
    means = [
        np.mean([np.mean(rng.choice(values, len(values))) for values in parts.values()]) for _ in range(4000)
    ]
    assert macro_interval(parts) == pytest.approx(tuple(np.percentile(means, (2.5, 97.5))), abs=0.01)


def test_it_is_the_same_every_time() -> None:
    parts = {"a": [0.0, 1.0, 1.0], "b": [1.0, 0.0]}
    assert macro_interval(parts) == macro_interval(parts)


def wilson(right: int, queries: int) -> tuple[float, float]:
    """Wilson's interval of a share, as it is printed in textbooks."""
    z, share = 1.959964, right / queries
    middle = share + z**2 / (2 * queries)
    half = z * np.sqrt(share * (1 - share) / queries + z**2 / (4 * queries**2))
    return (middle - half) / (1 + z**2 / queries), (middle + half) / (1 + z**2 / queries)


@pytest.mark.parametrize("top", [1.0, 100.0])
def test_where_every_answer_agrees_the_interval_is_wilsons(top: float) -> None:
    for right in (0, 20):
        expected = pytest.approx([top * end for end in wilson(right, 20)], abs=1e-6)
        answers = [top if right else 0.0] * 20
        assert list(micro_interval({"a": answers[:5], "b": answers[5:]}, top)) == expected
        assert list(macro_interval({"a": answers[:10], "b": answers[10:]}, top)) == expected
    low, _ = macro_interval({"a": [1.0] * 2, "b": [1.0] * 198})
    assert low == pytest.approx(wilson(8, 8)[0], abs=0.01)  # two queries decide half of the figure


def test_the_difference_is_paired() -> None:
    """Both answer the same hard and easy questions: what they share is no doubt about their difference."""
    rng = np.random.default_rng(5)
    hard = rng.uniform(0, 80, 100)
    gain = rng.normal(4, 2, 100)
    more, less = {"a": (hard + gain).tolist()}, {"a": hard.tolist()}
    low, high = paired_interval(more, less)
    half = 1.96 * gain.std() / 10
    assert (low, high) == pytest.approx((gain.mean() - half, gain.mean() + half), abs=0.1)
    assert macro_interval(more)[0] < macro_interval(less)[1]  # which overlap widely
    assert paired_interval(less, more) == pytest.approx((-high, -low), abs=0.1)


def test_the_difference_to_a_share() -> None:
    answers = {"a": [90.0, 100.0, 80.0]}
    low, high = paired_interval(answers, answers, 0.5)
    assert low < mean_of(answers) / 2 < high


def test_few_answers_that_all_differ_alike_decide_nothing() -> None:
    assert paired_interval([100.0] * 3, [0.0] * 3)[0] < 0 < paired_interval([100.0] * 4, [0.0] * 4)[0]
    low, high = paired_interval([100.0] * 50, [100.0] * 50)
    assert low == pytest.approx(-high)
    assert high > 0


def test_answers_to_different_queries_are_not_paired() -> None:
    for other in ({"a": [1.0]}, {"b": [1.0, 0.0]}, [1.0, 0.0]):
        with pytest.raises(ValueError, match="different queries"):
            paired_interval({"a": [1.0, 0.0]}, other)


def test_parts_of_parts_count_alike() -> None:
    answers = {"probes": {"dogs": [1.0], "birds": [0.0, 0.0]}, "classes": [1.0, 1.0]}
    assert mean_of(answers) == 0.75
