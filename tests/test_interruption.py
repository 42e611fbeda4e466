"""Stop signals while training: noted once, obeyed at once the second time, and gone afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from steersearch.training.interruption import SIGNALS, Interruption


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_the_second_ends(number: signal.Signals) -> None:
    said: list[str] = []
    with Interruption(said.append) as interruption:
        assert not interruption.asked
        signal.raise_signal(number)
        assert interruption.asked
        assert interruption.asked  # says it once
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert len(said) == 1
    assert number.name in said[0]


def test_one_signal_of_each_kind_ends_too() -> None:
    with Interruption():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_handlers_are_as_before_also_after_an_error() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with suppress(ZeroDivisionError), Interruption():
        assert [signal.getsignal(number) for number in SIGNALS] != before
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_it_can_be_entered_again_and_has_forgotten() -> None:
    interruption = Interruption()
    with interruption:
        signal.raise_signal(signal.SIGINT)
        assert interruption.asked
    with interruption:
        assert not interruption.asked


def test_in_another_thread_nothing_is_changed() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    seen: list[object] = []

    def train() -> None:
        with Interruption() as interruption:
            seen.append(interruption.asked)
            seen.append([signal.getsignal(number) for number in SIGNALS] == before)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [False, True]


def test_what_cannot_be_said_within_the_signal_is_said_when_asked() -> None:
    said: list[str] = []

    def busy(words: str) -> None:
        if not said:
            said.append("tried")
            raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")
        said.append(words)

    with Interruption(busy) as interruption:
        signal.raise_signal(signal.SIGTERM)
        assert said == ["tried"]
        assert interruption.asked
        assert "SIGTERM" in said[1]
        assert interruption.asked
        assert len(said) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forked_workers_end_on_sigterm_and_leave_ctrl_c_to_their_parent() -> None:
    with Interruption() as interruption:
        worker = os.fork()
        if worker == 0:
            time.sleep(30)
            os._exit(3)
        time.sleep(0.05)
        os.kill(worker, signal.SIGINT)
        os.kill(worker, signal.SIGINT)
        time.sleep(0.05)
        assert os.waitpid(worker, os.WNOHANG) == (0, 0)  # still at work
        os.kill(worker, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == -signal.SIGTERM
        assert not interruption.asked


def test_a_process_that_is_asked_to_stop_ends_its_step_and_exits_by_itself() -> None:
    program = (
        "import sys, time\n"
        "from steersearch.training.interruption import Interruption\n"
        "with Interruption(lambda words: print(words, flush=True)) as interruption:\n"
        "    print('running', flush=True)\n"
        "    for step in range(60_000):\n"
        "        time.sleep(0.01)\n"
        "        if interruption.asked:\n"
        "            break\n"
        "print('saved', step < 59_999)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
    assert process.returncode == 0
    assert rest.startswith("SIGTERM: stopping after this step")
    assert rest.endswith("saved True\n")
