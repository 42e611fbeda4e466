from __future__ import annotations

import threading

import pytest

from steersearch.indexer.write_behind import WriteBehind


def test_jobs_are_done_in_their_order_and_all_before_the_end() -> None:
    done: list[int] = []
    with WriteBehind() as writer:
        for number in range(20):
            writer.submit(lambda number=number: done.append(number))
    assert done == list(range(20))


def test_work_goes_on_while_a_job_is_done_but_not_far_ahead() -> None:
    gate = threading.Event()
    submitted: list[int] = []

    def submit_all(writer: WriteBehind) -> None:
        for number in range(4):
            writer.submit(lambda: gate.wait(60))
            submitted.append(number)

    with WriteBehind() as writer:
        ahead = threading.Thread(target=submit_all, args=(writer,))
        ahead.start()
        ahead.join(0.2)
        assert submitted in ([0], [0, 1])  # one is done, one waits; the third is still in `submit`
        gate.set()
        ahead.join(60)
    assert submitted == [0, 1, 2, 3]


def test_what_a_job_raises_comes_out_once_and_later_jobs_are_dropped() -> None:
    done: list[str] = []

    def fail() -> None:
        raise OSError("disk full")

    def submit_both() -> None:
        with WriteBehind() as writer:
            writer.submit(fail)
            writer.submit(lambda: done.append("after"))

    with pytest.raises(OSError, match="disk full"):
        submit_both()
    assert done == []


def test_an_error_of_the_body_waits_for_what_was_handed_over() -> None:
    done: list[str] = []

    def submit_and_stop() -> None:
        with WriteBehind() as writer:
            writer.submit(lambda: done.append("kept"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        submit_and_stop()
    assert done == ["kept"]
