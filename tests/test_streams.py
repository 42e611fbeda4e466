"""Standard streams that are closed, full, without a reader, or a terminal that obeys what it is sent."""

from __future__ import annotations

import errno
import io
import logging
import os
import pty
import re
import shlex
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from steersearch.indexer.progress import ProgressEvent
from steersearch.views import terminal
from steersearch.views.streams import escaped
from steersearch.views.terminal import show_remarks
from tests.conftest import Run

STEERSEARCH = f"{shlex.quote(sys.executable)} -m steersearch"
REWRITES = "mug\x1b[2K\rKeep\u202e it\n[red]all"  # the line that names it, in colour and from right to left
SHOWN = "mug\\x1b[2K\\rKeep\\u202e it\\n[red]all"


@pytest.fixture
def library(run: Run, photos: Path, tiny_model: Path, tmp_path: Path) -> Path:
    """Of six photos, one with a name that takes control of a terminal, under a prompt of the same kind."""
    (photos / "red.jpg").rename(photos / "\x1b[31mred\u2066.jpg")
    place = tmp_path / "library"
    made = run(
        "index", photos, "--prompt", REWRITES, "--model", tiny_model, "--library", place, "--no-regions"
    )
    assert made.code == 0
    return place


def shell(command: str, **streams: int) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["bash", "-c", command], capture_output=not streams, timeout=300, **streams)


# ---------------------------------------------------------------------------------------- closed, full, left


@pytest.mark.parametrize(
    ("arguments", "redirected", "code", "said"),
    [
        ("--help", ">/dev/full", 1, "error: standard output cannot be written (No space left on device); "),
        ("find --help", ">&-", 1, "error: standard output cannot be written (it is closed); "),
        ("--version", ">/dev/full 2>/dev/full", 1, ""),
        ("--version", ">&- 2>&- <&-", 1, ""),
        ("models list --json", ">/dev/full", 1, "error: standard output cannot be written (No space left on"),
        ("models list --json", "2>&- <&-", 0, ""),
        ("models list", "2>/dev/full", 0, ""),
        ("models list", "| true", 0, ""),
        ("models list", "2> >(true)", 0, ""),
        ("no-such-command", ">&-", 2, "Error: No such command"),
        ("no-such-command", "2>/dev/full", 2, ""),
    ],
)
def test_nothing_is_lost_without_a_word(arguments: str, redirected: str, code: int, said: str) -> None:
    done = shell(f"{STEERSEARCH} {arguments} {redirected}; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == code
    assert said in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert b"ignored" not in done.stderr


def test_hits_that_cannot_be_printed_are_a_failure(library: Path) -> None:
    find = f"{STEERSEARCH} find {shlex.quote(REWRITES)} --library {library}"
    for form in ("--paths", "--print0", "--json", ""):
        done = shell(f"{find} {form} >/dev/full")
        assert done.returncode == 1
        assert b"results are lost" in done.stderr.splitlines()[-1]
    done = shell(f"{find} --print0 2>&-")
    assert done.returncode == 0
    assert done.stdout.count(b"\0") == 6


def test_no_file_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from steersearch.views.streams import safe_streams\n"
        "with safe_streams() as results:\n"
        f"    with open({str(tmp_path / 'data')!r}, 'w') as file:\n"
        "        print('result'); print('remark', file=sys.stderr); os.write(2, b'of a library')\n"
        "    sys.stdout.flush()\n"
        "    os._exit(results.loss != 'it is closed' or sys.stdin.read() != '')"
    )
    assert shell(f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} <&- >&- 2>&-").returncode == 0
    assert (tmp_path / "data").read_bytes() == b""


def test_a_pipe_that_does_not_block_gets_all(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    printing = (
        "from steersearch.views.streams import safe_streams\nwith safe_streams(): print('x' * 1_000_000)"
    )
    with subprocess.Popen([sys.executable, "-c", printing], stdout=writing) as process:
        os.close(writing)
        with open(reading, "rb") as pipe:
            assert len(pipe.read()) == 1_000_001
    assert process.returncode == 0


# --------------------------------------------------------------------------------------------- a terminal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain.jpg", "plain.jpg"),
        ("Ünïcôde 图 👩\u200d🔬 می\u200cخواهم\u00a0.jpg", "Ünïcôde 图 👩\u200d🔬 می\u200cخواهم\u00a0.jpg"),
        ("line\nbreak\ttab\x1b[31m.jpg", "line\\nbreak\\ttab\\x1b[31m.jpg"),
        (b"not utf-8 \xff.jpg".decode("utf-8", "surrogateescape"), "not utf-8 \\udcff.jpg"),
        ("\u202eright to left.jpg", "\\u202eright to left.jpg"),
        ("[red]{\\x1b}", "[red]{\\x1b}"),
    ],
)
def test_what_a_terminal_obeys_is_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_all_that_controls_or_reorders_is_escaped() -> None:
    controls = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.bidirectional(chr(code)) in (
        "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI",
    ) or unicodedata.category(chr(code)) in ("Cc", "Zl", "Zp")]  # fmt: skip
    assert len(controls) == 76
    assert all(escaped(control).isascii() and escaped(control).startswith("\\") for control in controls)
    assert escaped("\u200b\u200e\u061c\ufeff\U000e0041") == "\\u200b\\u200e\\u061c\\ufeff\\U000e0041"


def on_terminal(command: str, answer: bytes = b"", **streams: int) -> str:
    """What a terminal is sent when a command runs in it, its own line ends made plain."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        ["bash", "-c", f"export TERM=dumb; {command}"],
        **{"stdin": its, "stdout": its, "stderr": its, **streams},
        start_new_session=True,
    )
    os.close(its)
    os.write(ours, answer)
    sent = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the last program has left it
            break
        if not part:
            break
        sent += part
    os.close(ours)
    process.wait()
    return sent.decode().replace("\r\n", "\n")


def test_a_terminal_is_sent_no_control_characters(library: Path, photos: Path, tmp_path: Path) -> None:
    """Neither from names and prompts, nor from what was typed and is said again in an error."""
    prompt, of_library = REWRITES, ("--library", str(library))
    commands = [
        ("info", *of_library),
        ("find", prompt, *of_library),
        ("find", prompt, "--paths", *of_library),
        ("remove", f"{prompt}x", *of_library),
        ("query", prompt, "--focus", "x", *of_library),
        ("find", "x", "--where", prompt, *of_library),
        ("index", prompt, "--prompt", "x"),
        ("models", "show", prompt),
        (prompt,),
    ]
    code = (
        "import sys\nfrom steersearch.cli import main\n"
        f"for arguments in {commands!r}:\n"
        "    sys.argv = ['steersearch', *arguments]\n"
        "    try: main()\n"
        "    except SystemExit as end: print('CODE', end.code, flush=True)\n"
    )
    sent = on_terminal(f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}")
    answers = re.split(r"CODE \d\n", sent)[:-1]
    assert "".join(re.findall(r"CODE (\d)", sent)) == "000111112"
    assert all("mug\\x1b[2K" in answer for answer in answers)
    assert [character for character in sent if character != "\n" and not character.isprintable()] == []


def test_a_prompt_cannot_change_the_question_before_a_library_is_deleted(library: Path, photos: Path) -> None:
    sent = on_terminal(f"{STEERSEARCH} remove --all --library {library}", answer=b"n\n")
    assert f'Delete this library of {photos} (prompts: "{SHOWN}")? [y/N]: ' in sent
    assert library.is_dir()
    on_terminal(f"{STEERSEARCH} remove --all --library {library} >{library.parent / 'out'}", answer=b"n\n")
    assert (library.parent / "out").read_bytes() == b""


def test_a_slow_work_says_how_long_an_image_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "SECONDS_BETWEEN_LINES", 0.0)
    with terminal.progress("photographs") as report:
        for rate in (0.0, 0.04, 25.0):
            report(ProgressEvent(50, 100, rate))
    assert capsys.readouterr().err.splitlines() == [
        "photographs: 50 of 100",
        "photographs: 50 of 100, 25.0 s an image, about 1,250 s left",
        "photographs: 50 of 100, 25.0 images/s, about 2 s left",
    ]


def test_pipes_and_json_get_names_and_prompts_as_they_are(library: Path) -> None:
    done = shell(f"{STEERSEARCH} info --library {library}; {STEERSEARCH} find x --where $'\\x1b[31m' || true")
    assert "mug\x1b[2K\\rKeep\u202e it\\n[red]all" in done.stdout.decode()  # a row stays a line
    assert b"\x1b[31m" in done.stderr
    find = f"{STEERSEARCH} find {shlex.quote(REWRITES)} --library {library}"
    assert "/\x1b[31mred\u2066.jpg\0".encode() in shell(f"{find} --print0").stdout
    sent = on_terminal(f"{find} --json 2>/dev/null")
    assert '/\\u001b[31mred\\u2066.jpg"' in sent


def test_a_progress_bar_takes_names_literally(tmp_path: Path) -> None:
    """The bar itself steers the terminal; remarks above it are escaped."""
    code = (
        "from steersearch.views import terminal\n"
        "from steersearch.views.streams import safe_streams\n"
        "with safe_streams(), terminal.progress('[red]a bar'):\n"
        "    terminal.remark('[red]\\x1b[31m.jpg')\n"
        "    print('a result')"
    )
    sent = on_terminal(f"TERM=xterm {shlex.quote(sys.executable)} -c {shlex.quote(code)} >{tmp_path / 'out'}")
    assert "\x1b[?25l" in sent  # no cursor while it moves
    assert "[red]a bar" in sent
    assert "[red]\\x1b[31m.jpg\n" in sent
    assert (tmp_path / "out").read_text() == "a result\n"


class _Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_log_line_that_stderr_cannot_take_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    show_remarks()
    monkeypatch.setattr(sys, "stderr", _Full())
    logging.getLogger("steersearch.core.prompt_cache").warning("prompts cannot be cached here")
