"""Several training processes from one command, on one machine.

They find each other as under torchrun, through the variables of `torch.distributed`'s env:// method, so that the
training code cannot tell which of the two started it. torchrun itself kills processes that take more than 30 s to
end after a signal; here they may finish a validation and save, however long that takes.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import IO

from steersearch.core.errors import ArgumentError

GRACE = 30.0  # seconds that the others have to end after one died, or after the first has saved and ended
POLL = 0.05  # seconds
SHOWN = 20  # last lines of a process that died
STOPPED = {
    0,
    130,
    128 + signal.SIGTERM,
    -signal.SIGINT,
    -signal.SIGTERM,
}  # how a process ends that was asked to

SIGNALS = [signal.SIGINT, signal.SIGTERM]
if hasattr(signal, "SIGHUP"):
    SIGNALS.append(signal.SIGHUP)  # the terminal is closed, which does not reach processes of other sessions


def launch(processes: int, arguments: Sequence[str], say: Callable[[str], None]) -> int:
    """Run `steersearch train ARGUMENTS` in so many processes; returns the exit code of what ended them.

    See `run_together`. Not to be called where `is_launched`. Raises ArgumentError for less than one process.
    """
    # -P: a folder of the user's that is called as one of our modules must not be taken for it
    return run_together([sys.executable, "-P", "-m", "steersearch", "train", *arguments], processes, say)


def is_launched() -> bool:
    """Whether this is one of several processes already, started here or by torchrun or accelerate launch."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def rank_and_size() -> tuple[int, int]:
    """Number of this process and of all, (0, 1) where nothing was launched."""
    if not is_launched():
        return 0, 1
    try:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except ValueError:
        named = f"{os.environ['RANK']} / {os.environ['WORLD_SIZE']}"
        raise ArgumentError(
            "RANK / WORLD_SIZE", named, "these variables must be numbers; unset them"
        ) from None


def run_together(command: Sequence[str], processes: int, say: Callable[[str], None]) -> int:
    """Run `command` so many times at once, as ranks 0, 1, ... of one group; returns an exit code.

    Rank 0 has our stdout and stderr; what the others print is not shown, but `say` is told the last lines of one
    that dies. Then the rest is asked to end, and the exit code is that of the first that died, 128 + its number
    for a signal. SIGINT and SIGTERM are passed on to every process, so that they can save and end in their own time;
    the third kills them. The exit code is then rank 0's. Only the main thread may call this.
    """
    if processes < 1:
        raise ArgumentError("processes", processes, "must be at least 1")
    ranks: list[_Rank] = []
    with ExitStack() as stack:
        stack.callback(_end, ranks, 0.0)
        received = stack.enter_context(_passed_on(ranks))
        for environment in _environments(processes):
            ranks.append(stack.enter_context(_rank(command, environment)))
        if received:  # before all of them were there to be told
            _send(ranks, received[0])
        return _code(_watch(ranks, received, say).process.returncode)


# ---------------------------------------------------------------------------------------------- the processes


@dataclass(frozen=True)
class _Rank:
    number: int
    process: subprocess.Popen[bytes]
    errors: IO[bytes] | None  # what it writes to stderr, unless that is ours

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def last_lines(self) -> list[str]:
        if self.errors is None:
            return []
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace").splitlines()[-SHOWN:]


def _environments(processes: int) -> Iterator[dict[str, str]]:
    """The variables of each process."""
    threads = max(1, (os.cpu_count() or 1) // processes)
    shared = {
        "OMP_NUM_THREADS": str(threads),
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
    }
    for number in range(processes):
        yield shared | {"RANK": str(number), "LOCAL_RANK": str(number)}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def _rank(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[_Rank]:
    """A process of its own session: a terminal's Ctrl-C reaches it through us alone, and once."""
    number = int(environment["RANK"])
    with ExitStack() as stack:
        errors = stack.enter_context(tempfile.TemporaryFile()) if number else None
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if number else None,
            stderr=errors,
            start_new_session=True,
        )
        yield _Rank(number, process, errors)


# ------------------------------------------------------------------------------------------------- their end


@contextmanager
def _passed_on(ranks: Sequence[_Rank]) -> Iterator[list[int]]:
    """While this is entered, SIGINT and SIGTERM go to the processes; gives the list of those that came."""
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number if number == signal.SIGINT else signal.SIGTERM)
        _send(ranks, received[-1] if len(received) < 3 else signal.SIGKILL)

    # nohup has the end of the terminal ignored; SIGINT counts even if a shell in the background had it ignored
    is_ignored = {number: signal.getsignal(number) is signal.SIG_IGN for number in SIGNALS}
    heard = [
        number for number in SIGNALS if number in (signal.SIGINT, signal.SIGTERM) or not is_ignored[number]
    ]
    before = {number: signal.signal(number, receive) for number in heard}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(ranks: Sequence[_Rank], received: Sequence[int], say: Callable[[str], None]) -> _Rank:
    """Wait until all have ended. Returns the one whose exit code counts."""
    while True:
        ended = [rank for rank in ranks if rank.has_ended]
        fine = STOPPED if received else {0}
        died = [rank for rank in ended if rank.process.returncode not in fine]
        if died:
            _tell(died, len(ranks), say)
            _end(ranks, GRACE)
            return died[0]
        if len(ended) == len(ranks):
            return ranks[0]
        if received and ranks[0].has_ended:  # it has saved; what still runs may wait for it in vain
            _end(ranks, GRACE)
            return ranks[0]
        time.sleep(POLL)


def _tell(died: Sequence[_Rank], processes: int, say: Callable[[str], None]) -> None:
    for rank in died:
        code = rank.process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        lines = rank.last_lines()
        if rank.number or code < 0:  # rank 0 has said why itself, unless it was killed
            say(f"process {rank.number} of {processes} {how}{', its last lines:' if lines else ''}")
        for line in lines:
            say(line)


def _end(ranks: Sequence[_Rank], grace: float) -> None:
    """See to it that no process is left: those that run are asked to end, and killed after `grace` seconds."""
    if grace:
        _send(ranks, signal.SIGTERM)
    last = time.monotonic() + grace
    while time.monotonic() < last and not all(rank.has_ended for rank in ranks):
        time.sleep(POLL)
    _send(ranks, signal.SIGKILL)
    for rank in ranks:
        rank.process.wait()


def _send(ranks: Sequence[_Rank], number: int) -> None:
    """A signal to those processes that have not ended; what they have started themselves is killed with them."""
    for rank in ranks:
        if number == signal.SIGKILL and hasattr(os, "killpg") and not rank.has_ended:
            with suppress(ProcessLookupError):
                os.killpg(rank.process.pid, number)
        else:
            rank.process.send_signal(number)


def _code(returned: int) -> int:
    return 128 - returned if returned < 0 else returned
