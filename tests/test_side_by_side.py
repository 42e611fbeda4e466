"""Parts of a batch side by side: in order, on their share of the threads, and nothing of PyTorch's settings changed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
import torch

from steersearch.core.predictor import Predictor
from steersearch.core.side_by_side import side_by_side
from steersearch.core.steervit import NO_STEERING
from tests.small_models import pixels_for, small_model


@pytest.fixture(params=[4, 1])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_and_the_workers_do_work_at_once() -> None:
    both_there = threading.Barrier(2, timeout=600)

    def wait_for_the_other(part: int) -> int:
        if part < 2:
            both_there.wait()
        return 10 * part

    assert side_by_side(wait_for_the_other, range(7), 2) == [0, 10, 20, 30, 40, 50, 60]
    assert side_by_side(wait_for_the_other, [], 2) == []


def test_threads_are_shared_and_as_many_as_before_afterwards(threads: int) -> None:
    def ask(_: int) -> tuple[int, bool, bool]:
        return torch.get_num_threads(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    with torch.no_grad():
        assert set(side_by_side(ask, range(6), 3)) == {(max(1, threads // 3), False, False)}
    with torch.inference_mode():
        assert set(side_by_side(ask, range(6), 3)) == {(max(1, threads // 3), False, True)}
        assert side_by_side(ask, range(1), 3) == [(threads, False, True)]  # alone, it has them all
    assert torch.get_num_threads() == threads
    later = list[int]()
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [threads]


def test_threads_that_share_a_model_leave_pytorch_the_threads_that_it_had(threads: int) -> None:
    model = small_model()
    predictor = Predictor(model)
    pixels, numbers = pixels_for(model, batch=4), list[int]()

    def use() -> None:
        with torch.inference_mode():
            for _ in range(30):
                predictor.encode(pixels, [NO_STEERING])
        numbers.append(torch.get_num_threads())

    for users in (4, 1):  # the one is new to PyTorch when the others are done
        sharing = [threading.Thread(target=use) for _ in range(users)]
        for thread in sharing:
            thread.start()
        for thread in sharing:
            thread.join()
    assert numbers == [threads] * 5
    assert torch.get_num_threads() == threads


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_makes_workers_of_its_own() -> None:
    assert side_by_side(abs, [-1, -2], 2) == [1, 2]
    child = os.fork()
    if child == 0:
        os._exit(0 if side_by_side(abs, [-1, -2], 2) == [1, 2] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_an_error_in_a_part_is_raised_and_the_threads_are_as_before(threads: int) -> None:
    def fail(part: int) -> int:
        if part == 1:
            raise RuntimeError("part one")
        return part

    with pytest.raises(RuntimeError, match="part one"):
        side_by_side(fail, range(4), 2)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("number", [1, 2, 5, 19])
def test_features_are_those_of_one_pass(number: int, threads: int) -> None:
    predictor = Predictor.from_pretrained("mini", "cpu")
    model, side = predictor.model, predictor.preprocess.side
    pixels = torch.randn(number, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        steering = predictor.steering(predictor.encode_prompts(["the red mug"]))
        tokens = model.before_steering(pixels)
        for found, under in zip(
            predictor.encode(pixels, [steering, NO_STEERING]), (steering, NO_STEERING), strict=True
        ):
            expected = model.steer(tokens, under)
            for name in ("prefix", "patches", "logits"):
                torch.testing.assert_close(
                    getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-4
                )
