"""The command line as a user meets it: exact results on stdout, remarks on stderr, exit codes."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from PIL import Image

from steersearch.cli import search_options
from steersearch.core.errors import PromptIndexMissing
from tests.conftest import Run, draw_picture, write_tiny_model

PROMPT = "the red mug"


@pytest.fixture
def indexed(run: Run, photos: Path, tiny_model: Path) -> Path:
    """The six photos, indexed under one prompt."""
    assert run("index", photos, "--prompt", PROMPT, "--model", tiny_model).code == 0
    return photos


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that were loaded, in order."""
    from steersearch import api

    loaded: list[str] = []
    load = api.load_model

    def spy(model: str, device: str) -> object:
        loaded.append(model)
        return load(model, device)

    monkeypatch.setattr(api, "load_model", spy)
    return loaded


# -------------------------------------------------------------------------------------------------- index


def test_index_says_what_it_did(run: Run, photos: Path, tiny_model: Path) -> None:
    done = run("index", photos, "--prompt", PROMPT, "--prompt", "bookshelf", "--model", tiny_model)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == "6 files: 6 added, 0 reused, 0 moved, 0 skipped; 0 removed"
    assert lines[1].startswith("12 forward passes; read ")
    assert "library: " not in done.err  # nothing to choose


def test_a_second_run_loads_no_model(run: Run, indexed: Path, tiny_model: Path, loads: list[str]) -> None:
    for arguments in ((), ("--prompt", PROMPT), ("--prompt", PROMPT, "--model", tiny_model)):
        done = run("index", indexed, *arguments)
        assert done.code == 0
        lines = done.out.splitlines()
        assert lines[0] == "6 files: 0 added, 6 reused, 0 moved, 0 skipped; 0 removed"
        assert lines[1].startswith("nothing to compute, no forward pass; ")
    assert loads == []


def test_changes_cost_what_they_must(run: Run, indexed: Path) -> None:
    (indexed / "red.jpg").rename(indexed / "crimson.jpg")
    (indexed / "blue.jpg").unlink()
    draw_picture(indexed / "green.jpg", "black", seed=99)
    done = run("index", indexed)
    assert done.out.splitlines()[0] == "5 files: 1 added, 3 reused, 1 moved, 0 skipped; 1 removed"
    assert done.out.splitlines()[1].startswith("1 forward pass; ")
    paths = run("query", "--include-query", indexed / "white.jpg", "--focus", PROMPT, "--paths").out.split()
    assert {Path(path).name for path in paths} == {
        "crimson.jpg",
        "green.jpg",
        "white.jpg",
        "yellow.jpg",
        "black.jpg",
    }


def test_a_duplicate_is_none_that_moved(run: Run, photos: Path, tiny_model: Path) -> None:
    shutil.copy(photos / "red.jpg", photos / "copy.jpg")
    done = run("index", photos, "--model", tiny_model)
    assert (
        done.out.splitlines()[0] == "7 files: 6 added, 0 reused, 0 moved, 1 duplicate, 0 skipped; 0 removed"
    )
    (photos / "red.jpg").rename(photos / "other.jpg")
    (photos / "blue.jpg").rename(photos / "swapped.jpg")
    (photos / "white.jpg").rename(photos / "blue.jpg")
    (photos / "swapped.jpg").rename(photos / "white.jpg")
    shutil.copy(photos / "blue.jpg", photos / "blue copy.jpg")
    shutil.copy(photos / "blue.jpg", photos / "blue copy 2.jpg")
    done = run("index", photos)
    assert (
        done.out.splitlines()[0] == "9 files: 0 added, 4 reused, 3 moved, 2 duplicates, 0 skipped; 0 removed"
    )


def test_bad_files_among_good_ones(run: Run, photos: Path, tiny_model: Path) -> None:
    (photos / "empty.jpg").touch()
    (photos / "text.png").write_text("not an image")
    whole = (photos / "red.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    done = run("index", photos, "--prompt", PROMPT, "--model", tiny_model)
    assert done.code == 0
    assert done.out.splitlines()[0] == "9 files: 6 added, 0 reused, 0 moved, 3 skipped; 0 removed"
    assert "skipped empty.jpg: the file is empty\n" in done.err
    listed = run("info", "--skipped")
    reasons = dict(line.split(": ", 1) for line in listed.out.splitlines())
    assert set(reasons) == {"cut.jpg", "empty.jpg", "text.png"}
    assert reasons["cut.jpg"].startswith("truncated")
    rows = [json.loads(line) for line in run("info", "--skipped", "--json").out.splitlines()]
    assert {row["path"]: row["reason"] for row in rows} == reasons


def test_what_one_photo_may_take_is_bounded_and_can_be_lifted(
    run: Run, photos: Path, tiny_model: Path
) -> None:
    Image.effect_noise((1000, 800), 60).convert("RGB").save(photos / "large.png")
    index = ("index", photos, "--prompt", PROMPT, "--model", tiny_model)
    done = run(*index, "--limit", "memory=5MB")
    assert done.out.splitlines()[0] == "7 files: 6 added, 0 reused, 0 moved, 1 skipped; 0 removed"
    assert "6.4 MB of memory, more than 5 MB; --limit memory=7.68MB allows it" in done.out + done.err
    done = run(*index, "--limit", "memory=7.68MB", "--limit", "seconds=5")
    assert done.out.splitlines()[0] == "7 files: 1 added, 6 reused, 0 moved, 0 skipped; 0 removed"
    for command in (index, ("query", photos / "red.jpg", "--focus", PROMPT)):
        assert "write it like file=4GB, memory=2GB or seconds=60" in misused(
            run, *command, "--limit", "pixels=3"
        )


def test_a_pipe_as_query_photo_is_refused_at_once(run: Run, indexed: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "photo.jpg")
    for image in (tmp_path / "photo.jpg", Path("/dev/zero")):
        said = failed(run, "query", image, "--focus", PROMPT)
        assert re.search(r"a (pipe|device), not a regular file; save it to a file first", said)


def test_an_interrupted_run_says_how_to_go_on(
    run: Run, photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **_options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("steersearch.indexer.library.Library.index", interrupt)
        done = run("index", photos, "--prompt", PROMPT, "--model", tiny_model)
    assert (done.code, done.out) == (130, "")
    assert "stopped; what was computed is kept, the same command continues from there" in done.err


# -------------------------------------------------------------------------------------------------- query


def test_query_prints_a_table(run: Run, indexed: Path) -> None:
    done = run("query", "--include-query", indexed / "red.jpg", "--focus", PROMPT, "-k", "3")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == "rank   score    z  date               photo"
    assert re.fullmatch(r"   1  1\.0000  [12]\.\d  \d{4}-\d\d-\d\d \(file\)  photos/red\.jpg", lines[1])
    assert len(lines) == 4
    row = r" +\d  0\.\d{4} {1,2}-?\d\.\d  \d{4}-\d\d-\d\d \(file\)  photos/\w+\.jpg"
    assert all(re.fullmatch(row, line) for line in lines[2:])
    assert f'exact, by "{PROMPT}"' in done.err


def test_query_prints_json_lines(run: Run, indexed: Path, tiny_model: Path) -> None:
    done = run("query", "--include-query", indexed / "red.jpg", "--focus", PROMPT, "--json", "-k", "2")
    first, second = (json.loads(line) for line in done.out.splitlines())
    assert first.pop("score") == pytest.approx(1)
    assert first.pop("z") > second["z"]
    changed = datetime.fromtimestamp(int((indexed / "red.jpg").stat().st_mtime))
    assert (first.pop("taken_at"), first.pop("taken_at_source")) == (changed.isoformat(), "file time")
    asked = {"prompt": PROMPT, "model": str(tiny_model), "gate_scale": 1.0, "view": "squash"}
    compared = {"exact": True, "compared": 6, "of": 6}
    assert first == {"path": str(indexed / "red.jpg"), "rank": 1, **compared, **asked}
    assert second["rank"] == 2
    assert second["score"] < 1


def test_query_prints_paths_as_the_bytes_they_are(run: Run, indexed: Path) -> None:
    odd = ["white\nwith a line break.jpg", "ünï côde.jpg", "two  spaces.jpg"]
    for seed, name in enumerate(odd):
        draw_picture(indexed / name, "white", seed=100 + seed)
    run("index", indexed)
    done = run("query", "--include-query", indexed / "white.jpg", "--focus", PROMPT, "--paths")
    expected = [os.fsencode(path) + b"\n" for path in indexed.iterdir()]
    assert sorted(done.out_bytes.splitlines(keepends=True)) == sorted(
        b"".join(expected).splitlines(keepends=True)
    )
    assert (
        "photos/white\\nwith a line break.jpg"
        in run("query", "--include-query", indexed / "white.jpg", "--focus", PROMPT).out
    )
    hits = run(
        "query", "--include-query", indexed / "white.jpg", "--focus", PROMPT, "--json"
    ).out.splitlines()
    assert {json.loads(hit)["path"] for hit in hits} == {str(path) for path in indexed.iterdir()}


def test_hits_have_their_date_and_can_be_sorted_by_it(run: Run, indexed: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x9003] = "2019:05:17 12:00:00"
    Image.new("RGB", (96, 64), "red").save(indexed / "may.jpg", exif=exif)
    Image.new("RGB", (96, 64), "red").save(indexed / "june.png")
    for name, day in {"june.png": datetime(2019, 6, 1), "red.jpg": datetime(2021, 1, 1)}.items():
        os.utime(indexed / name, (day.timestamp(), day.timestamp()))
    os.utime(indexed / "white.jpg", (0, 0))  # when clocks begin
    run("index", indexed)
    asked = ("query", indexed / "red.jpg", "--focus", PROMPT, "--include-query")
    table = {line.split()[-1][len("photos/") :]: line for line in run(*asked).out.splitlines()[1:]}
    assert " 2019-05-17         photos" in table["may.jpg"]
    assert " 2019-06-01 (file)  photos" in table["june.png"]
    assert re.search(r"\d  +photos", table["white.jpg"])
    rows = {
        sort: [json.loads(line) for line in run(*asked, "--sort", sort, "--json").out.splitlines()]
        for sort in ("score", "date", "-date")
    }
    names = {sort: [Path(row["path"]).name for row in ordered] for sort, ordered in rows.items()}
    assert names["date"][:3] == ["may.jpg", "june.png", "red.jpg"]
    assert names["-date"][-4:] == ["red.jpg", "june.png", "may.jpg", "white.jpg"]
    assert names["date"][-1] == "white.jpg"
    for ordered in rows.values():
        assert sorted(ordered, key=lambda row: row["rank"]) == rows["score"]
    run(*asked, "--sort", "date", "--html", "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    months = re.findall(r'<li class="month">(.*?)</li>', page)
    assert months[:3] == ["May 2019", "June 2019", "January 2021"]
    assert months[-1] == "No date"
    assert len(months) == len(set(months))
    assert "2019-05-17T12:00:00 (EXIF DateTimeOriginal)" in page
    assert "2019-06-01T00:00:00 (file time)" in page
    assert (
        'class="month"' not in (run(*asked, "--html", "page.html"), (tmp_path / "page.html").read_text())[1]
    )
    assert "one of score, date, -date" in misused(run, *asked, "--sort", "size").replace("'", "")


def test_k_larger_than_the_gallery(run: Run, indexed: Path) -> None:
    done = run("query", "--include-query", indexed / "red.jpg", "--focus", PROMPT, "-k", "500", "--paths")
    assert done.code == 0
    assert len(done.out.splitlines()) == 6
    assert "the gallery has only 6 photos" in done.err


def test_query_writes_a_page(run: Run, indexed: Path, tmp_path: Path) -> None:
    done = run("query", indexed / "red.jpg", "--focus", PROMPT, "-k", "4", "--html", tmp_path / "page.html")
    assert done.code == 0
    assert len(done.out.splitlines()) == 5
    assert "page: page.html\n" in done.err
    assert (tmp_path / "page.html").read_text("utf-8").count('<li class="hit">') == 4


def test_several_focuses_are_weighed(run: Run, indexed: Path) -> None:
    run("index", indexed, "--prompt", "bookshelf", "--prompt", "ratio 16:9")
    query = (
        "query",
        "--include-query",
        indexed / "red.jpg",
        "--focus",
        f"{PROMPT}:2",
        "--focus",
        "bookshelf:-0.5",
    )
    done = run(*query, "-k", "2", "--html", "page.html")
    assert done.code == 0
    assert done.out.splitlines()[0].split()[-6:] == ["the", "red", "mug", "bookshelf", "date", "photo"]
    assert 'exact, by 2 × "the red mug" (model ' in done.err
    assert '; -0.5 × "bookshelf" (model ' in done.err
    page = Path("page.html").read_text("utf-8")
    assert "Photos similar in “the red mug”, different in “bookshelf”" in page
    assert page.count('alt="Heatmap of bookshelf on it"') == 3  # the query photo and two hits
    first = json.loads(run(*query, "--json").out.splitlines()[0])
    parts = first["focuses"]
    assert [(part["prompt"], part["weight"]) for part in parts] == [(PROMPT, 2), ("bookshelf", -0.5)]
    assert first["score"] == pytest.approx((2 * parts[0]["score"] - 0.5 * parts[1]["score"]) / 2.5)
    assert first["prompt"] == "the red mug:2, bookshelf:-0.5"
    assert (
        'exact, by 9 × "ratio 16" (model '
        in run("query", "--include-query", indexed / "red.jpg", "--focus", "ratio 16:9").err
    )
    assert run("query", "--include-query", indexed / "red.jpg", "--focus", "ratio 16:9:1").code == 0


def test_only_photos_that_pass_are_compared(run: Run, indexed: Path) -> None:
    (indexed / "trip").mkdir()
    draw_picture(indexed / "trip" / "large.jpg", "red", seed=50, size=(200, 100))
    os.utime(indexed / "green.jpg", (8e8, 8e8))  # in 1995
    os.utime(indexed / "white.jpg", (0, 0))
    run("index", indexed)
    query = ("query", indexed / "red.jpg", "--focus", PROMPT, "--paths")
    for filters, expected in {
        ("--in", "trip"): ["large.jpg"],
        ("--in", "photos/trip", "--after", "2000"): ["large.jpg"],
        ("--before", "1999-12-31"): ["green.jpg"],
        ("--where", "width >= 200 AND path LIKE 'trip/%'"): ["large.jpg"],
    }.items():
        done = run(*query, *filters)
        assert [Path(path).name for path in done.out.split()] == expected
        assert "exact over the 1 photo that passes the filters" in done.err
        is_dated = {"--after", "--before"} & set(filters)
        assert ("the filters (not 1 without a plausible date), by " in done.err) == bool(is_dated)
        assert ("1 of these 1 photo has no capture date" in done.err) == bool(is_dated)
        assert "the gallery has only 1 photo\n" in done.err
    (hit,) = map(json.loads, run(*query[:-1], "--before", "1999", "--json").out.splitlines())
    assert (hit["taken_at"][:4], hit["taken_at_source"], hit["undated"]) == ("1995", "file time", 1)
    assert "its folders: trip" in failed(run, *query, "--in", "tri")
    message = failed(run, *query, "--where", "colour = 'red'")
    assert message.startswith("colour = 'red': ")
    assert "columns: path, image_id, size" in message


def test_rankings_follow_the_model_of_the_prompt_index(
    run: Run, indexed: Path, tiny_model: Path, tmp_path: Path
) -> None:
    other = write_tiny_model(tmp_path / "other.safetensors", seed=1)
    run("index", indexed, "--prompt", PROMPT, "--model", other)
    scores = {
        model: run("query", indexed / "red.jpg", "--focus", PROMPT, "--model", model, "--json").out
        for model in (other, "other.safetensors")
    }
    assert scores[other] == scores["other.safetensors"]  # a file may be named from anywhere
    last = run("query", indexed / "red.jpg", "--focus", PROMPT, "--json")  # of these two the one made last
    rows, same = ([json.loads(row) for row in out.splitlines()] for out in (last.out, scores[other]))
    for row in rows:
        (unused,) = row.pop("other_indexes")
        assert unused == {"model": str(tiny_model), "gate_scale": 1.0, "view": "squash"}
    assert rows == same
    assert f'"{PROMPT}" has 2 indexes; the others: "{PROMPT}" (model {tiny_model}, gate_scale 1' in last.err
    assert "has 2 indexes" not in run("query", indexed / "red.jpg", "--focus", PROMPT, "--model", other).err


def test_photos_are_seen_as_the_prompt_index_was_made(run: Run, indexed: Path) -> None:
    done = run("index", indexed, "--prompt", PROMPT, "--view", "tile")
    assert done.out.splitlines()[1].startswith("6 forward passes; ")
    answers = {
        view: run(
            "query", "--include-query", indexed / "red.jpg", "--focus", PROMPT, "--json", "--view", view
        )
        for view in ("squash", "tile")
    }
    assert answers["squash"].out != answers["tile"].out
    last = run(
        "query", "--include-query", indexed / "red.jpg", "--focus", PROMPT, "--json", "--html", "page.html"
    )
    scores = [[json.loads(row)["score"] for row in ran.out.splitlines()] for ran in (last, answers["tile"])]
    assert scores[0] == scores[1]
    assert "gate_scale 1, view tile)" in last.err
    page = Path("page.html").read_text("utf-8")
    assert "<li>model tiny.safetensors, gate scale 1, view tile</li>" in page
    assert f"<li>others of “{PROMPT}”: model tiny.safetensors, gate scale 1, view squash</li>" in page
    rows = json.loads(run("info", "--json").out)["prompts"]
    assert [row["view"] for row in rows] == ["squash", "tile"]
    assert re.findall(rf'^"{PROMPT}" .* (squash|tile) ', run("info").out, re.M) == ["squash", "tile"]


def test_a_query_steers_a_new_photo_where_its_view_was_not_brought_up_to_date(
    run: Run, indexed: Path
) -> None:
    run("index", indexed, "--prompt", PROMPT, "--view", "tile")
    draw_picture(indexed / "new.jpg", "red", seed=99)
    done = run("index", indexed)
    assert "view: tile, as in the last run; --view chooses another\n" in done.err
    query = ("query", "--include-query", indexed / "new.jpg", "--focus", PROMPT, "--view")
    assert "exact, by " in run(*query, "tile").err
    assert '"missing": 1' in run("info", "--json").out
    assert "exact, by " in run(*query, "squash").err
    assert '"missing": 1' not in run("info", "--json").out


def test_a_closed_pipe_is_no_error(indexed: Path) -> None:
    command = f"{shlex.quote(sys.executable)} -m steersearch info --json"
    done = subprocess.run(
        ["bash", "-c", f"( sleep 2; {command}; echo code $? >&2 ) | true"], capture_output=True, text=True
    )
    assert done.stderr.splitlines()[-1] == "code 0"
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def loaded_by(*arguments: object) -> set[str]:
    """The modules that a command loads in a process of its own."""
    code = (
        "import sys\n"
        f"sys.argv = {['', *map(str, arguments)]}\n"
        "from steersearch.cli import main\n"
        "try: main()\n"
        "except SystemExit as stopped: print('CODE', stopped.code)\n"
        "print('LOADED', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "CODE 0" in done.stdout
    return set(done.stdout.rpartition("LOADED")[2].split())


NEVER_LOADED = {"timm", "torchvision", "transformers", "lancedb", "pandas", "jinja2", "rich"}


@pytest.mark.parametrize("is_indexed", [True, False])
def test_a_cold_query_loads_no_more_than_it_needs(indexed: Path, tmp_path: Path, is_indexed: bool) -> None:
    """Of a photo that is indexed not even the model, of another neither the text encoder nor the store."""
    draw_picture(tmp_path / "stranger.jpg", "red", seed=77)
    photo = indexed / "red.jpg" if is_indexed else tmp_path / "stranger.jpg"
    loaded = loaded_by("query", photo, "--focus", PROMPT, "--in", ".", "--before", "2100", "--paths")
    assert ("torch" in loaded) != is_indexed
    assert "pyarrow" in loaded
    assert loaded & NEVER_LOADED == set()


def test_an_indexed_photo_is_searched_without_computing_columns(indexed: Path) -> None:
    unneeded = {*NEVER_LOADED, "torch", "pyarrow.compute", "pyarrow.parquet"}
    assert loaded_by("query", indexed / "red.jpg", "--focus", PROMPT) & unneeded == set()


def test_a_cold_find_loads_no_more_than_it_needs(indexed: Path) -> None:
    assert loaded_by("find", PROMPT) & {*NEVER_LOADED, "torch"} == set()


# ------------------------------------------------------------------------------- explain, info, models, help


def test_explain_draws_over_the_photo(run: Run, photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "overlay.png"
    done = run("explain", photos / "red.jpg", "--focus", PROMPT, "-o", output, "--model", tiny_model)
    assert (done.code, done.out) == (0, "overlay.png\n")
    with Image.open(output) as drawn, Image.open(photos / "red.jpg") as photo:
        assert (drawn.format, drawn.size) == ("PNG", photo.size)
        assert drawn.tobytes() != photo.tobytes()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("overlay.txt", "must end in .png"),
        ("photos/red.jpg", "the photo itself"),
        ("no/o.png", "no folder no"),
    ],
)
def test_explain_refuses_what_it_cannot_write(
    run: Run, photos: Path, tiny_model: Path, name: str, reason: str
) -> None:
    before = (photos / "red.jpg").read_bytes()
    done = run("explain", photos / "red.jpg", "--focus", PROMPT, "-o", name, "--model", tiny_model)
    assert (done.code, done.out) == (1, "")
    assert f"error: {name}: cannot be written (" in done.err
    assert reason in done.err
    assert (photos / "red.jpg").read_bytes() == before


def test_info_shows_what_the_library_holds(run: Run, indexed: Path, tiny_model: Path) -> None:
    shown = run("info").out
    assert re.search(r"^folder   photos$", shown, re.M)
    assert re.search(r"^photos   6$", shown, re.M)
    assert re.search(rf'^"{PROMPT}" +6 of 6 +1 +squash +\S*tiny\.safetensors +\d{{4}}-', shown, re.M)
    (held,) = (json.loads(line) for line in run("info", "--json").out.splitlines())
    assert (held["folders"], held["photos"], held["skipped"]) == ([str(indexed)], 6, 0)
    (prompt,) = held["prompts"]
    assert (prompt["prompt"], prompt["gate_scale"], prompt["photos"]) == (PROMPT, 1.0, 6)
    assert (prompt["model"], prompt["missing"]) == (str(tiny_model), 0)


def test_models_are_listed(run: Run) -> None:
    from steersearch.core.registry import MODELS

    names = list(MODELS)
    assert [line.split()[0] for line in run("models", "list").out.splitlines()[1:]] == names
    assert [json.loads(line)["name"] for line in run("models", "list", "--json").out.splitlines()] == names


def test_help_lists_what_exists_and_no_more(run: Run) -> None:
    done = run("--help")
    commands = re.findall(r"^  (\w+) ", done.out.partition("Commands:")[2], re.M)
    own = "index query find explain serve mcp info libraries relocate verify optimize remove export plan demo".split()
    assert commands == [*own, "config", "models", "bench", "train"]
    grouped = (
        ["models", "list"],
        ["models", "show"],
        ["models", "fetch"],
        ["bench", "speed"],
        ["train", "check"],
    )
    for command in (*([name] for name in own), *grouped):
        shown = run(*command, "--help")
        assert shown.code == 0
        assert f"  steersearch {' '.join(command)}" in shown.out.partition("Example:")[2]


def test_version(run: Run) -> None:
    from importlib.metadata import version

    assert run("--version").out == f"steersearch {version('steersearch')}\n"


# ---------------------------------------------------------------------------------- which library is meant


def test_the_library_is_found_and_named_only_where_nothing_but_its_last_use_speaks_for_it(
    run: Run, indexed: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "elsewhere" / "library"
    other = tmp_path / "more" / "others"
    other.mkdir(parents=True)
    draw_picture(other / "one.jpg", "red")
    run("index", other, "--prompt", "cat", "--model", tiny_model, "--library", own)

    def used(*arguments: object) -> tuple[str, str]:
        done = run("info", *arguments, "--json")
        return json.loads(done.out)["folders"][0], done.err

    assert used("--library", own) == (str(other), "")
    message = failed(run, "info")
    assert message.startswith(f"2 libraries lie below {tmp_path}: {own} (of {other}), ")
    assert message.endswith("; name one with --library PLACE, or change into its photo folder")
    assert run("query", indexed / "red.jpg", "--focus", PROMPT).code == 0  # the photo's own
    monkeypatch.chdir(tmp_path / "more")
    assert used() == (str(other), "")
    monkeypatch.chdir(indexed)
    assert used() == (str(indexed), "")
    monkeypatch.setenv("STEERSEARCH_LIBRARY", str(own))
    assert used() == (str(other), "")


def test_the_library_used_last(
    run: Run, indexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside = tmp_path / "aside"
    aside.mkdir()
    monkeypatch.chdir(aside)
    done = run("find", PROMPT, "--paths")
    assert done.code == 0
    assert done.err.splitlines()[0].endswith(f"(the most recently used, of {indexed})")


def test_a_state_folder_that_cannot_be_written_is_no_failure(
    run: Run, photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file" / "state"))
    assert run("index", photos, "--prompt", PROMPT, "--model", tiny_model).code == 0
    assert run("query", photos / "red.jpg", "--focus", PROMPT).code == 0  # found in its default place


# ----------------------------------------------------------------------------------------------- bad input


def failed(run: Run, *arguments: object) -> str:
    """The message of a command that fails with exit code 1 and prints no result."""
    done = run(*arguments)
    assert (done.code, done.out) == (1, "")
    assert "Traceback" not in done.err
    (message,) = (line for line in done.err.splitlines() if line.startswith("error: "))
    return message.removeprefix("error: ")


def misused(run: Run, *arguments: object) -> str:
    """The message of a command that cannot be meant: exit code 2 and no result."""
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "Traceback" not in done.err
    return done.err


def test_a_folder_that_does_not_exist(run: Run, tiny_model: Path, own_user_folders: Path) -> None:
    message = failed(run, "index", "nowhere", "--prompt", PROMPT, "--model", tiny_model)
    assert message == "nowhere: no such folder; give the folder that holds your photos"
    assert list(own_user_folders.rglob("*")) == []  # nothing was made


def test_a_folder_without_images(run: Run, tmp_path: Path, tiny_model: Path, own_user_folders: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "notes.txt").write_text("nothing to see")
    message = failed(run, "index", "bare", "--prompt", PROMPT, "--model", tiny_model)
    assert message.startswith(f"{tmp_path / 'bare'}: holds no image (looked for .jpg ")
    assert list(own_user_folders.rglob("*")) == []


def test_a_file_instead_of_a_folder(run: Run, photos: Path) -> None:
    message = failed(run, "index", photos / "red.jpg", "--prompt", PROMPT)
    assert message == f"{photos / 'red.jpg'}: is a file, not a folder; did you mean {photos}?"


def test_a_focus_that_was_not_indexed_is_answered(run: Run, indexed: Path) -> None:
    done = run("query", "--include-query", indexed / "red.jpg", "--focus", "teapot", "--json", "-k", "3")
    hits = [json.loads(line) for line in done.out.splitlines()]
    assert [hit["exact"] for hit in hits] == [True] * 3  # six photos are steered in no time
    assert hits[0]["path"] == str(indexed / "red.jpg")
    assert 'exact, by "teapot" (model ' in done.err
    again = run("query", "--include-query", indexed / "red.jpg", "--focus", "teapot", "--json", "-k", "3")
    assert again.out == done.out
    run("index", indexed, "--prompt", "kettle")
    kettle = ("query", "--include-query", indexed / "red.jpg", "--focus", "kettle", "--json", "--exact")
    assert run(*kettle).out.count('"exact": true') == 6


def test_a_budget_of_no_time_compares_one_and_says_of_how_many(run: Run, indexed: Path) -> None:
    for number in range(60):
        draw_picture(indexed / f"more{number}.jpg", "green", seed=number)
    run("index", indexed, "--batch-size", "8")
    done = run(
        "query",
        "--include-query",
        indexed / "red.jpg",
        "--focus",
        "teapot",
        "--budget",
        "0.001ms",
        "-k",
        "2",
        "--json",
    )
    (row,) = map(json.loads, done.out.splitlines())
    assert (row["exact"], row["compared"], row["of"]) == (False, 1, 66)
    assert "approximate: the likeliest 1 of 66 photos compared under this focus" in done.err
    (command,) = re.findall(r"to compare all, add --exact or run: (.*)", done.err)
    assert run(*shlex.split(command)[1:]).code == 0
    assert "exact, by " in run("query", "--include-query", indexed / "red.jpg", "--focus", "teapot").err


def test_copies_are_folded_and_named(run: Run, indexed: Path) -> None:
    shutil.copy(indexed / "red.jpg", indexed / "red again.jpg")
    Image.open(indexed / "red.jpg").save(indexed / "red anew.png")
    run("index", indexed)
    reds = {str(indexed / name) for name in ("red.jpg", "red again.jpg", "red anew.png")}
    for command in (("query", "--include-query", indexed / "red.jpg", "--focus", PROMPT), ("find", PROMPT)):
        hits = [json.loads(line) for line in run(*command, "--collapse", "--json").out.splitlines()]
        assert len(hits) == 6
        (folded,) = (hit for hit in hits if "copies" in hit)
        assert {folded["path"], *folded["copies"]} == reds
        lines = run(*command, "--collapse", "--html", "page.html").out.splitlines()
        assert [line.split(" = photos/")[1] for line in lines if " = " in line] == [
            Path(path).name for path in folded["copies"]
        ]
        also = ", ".join(Path(path).name for path in folded["copies"])
        assert f">also {also}</div>" in Path("page.html").read_text()
        paths = run(*command, "--collapse", "--paths")
        assert paths.out.splitlines() == [hit["path"] for hit in hits]
        assert "2 copies folded into these; --json lists them" in paths.err
        assert '"copies"' not in run(*command, "--json").out


def test_copies_that_are_gone_are_named_so(run: Run, indexed: Path) -> None:
    for name in ("red again.jpg", "red once more.jpg"):
        shutil.copy(indexed / "red.jpg", indexed / name)
    run("index", indexed)
    command = ("find", PROMPT, "--collapse")
    hits = map(json.loads, run(*command, "--json").out.splitlines())
    lost, kept = next(hit["copies"] for hit in hits if "copies" in hit)
    Path(lost).unlink()
    found = next(hit for hit in map(json.loads, run(*command, "--json").out.splitlines()) if "copies" in hit)
    assert (found["copies"], found["copies_gone"]) == ([lost, kept], [lost])
    lines = run(*command, "--html", "page.html").out.splitlines()
    assert [line.split("/")[-1] for line in lines if " = " in line] == [
        f"{Path(lost).name} (gone)",
        Path(kept).name,
    ]
    assert f">also {Path(lost).name} (gone), {Path(kept).name}</div>" in Path("page.html").read_text()


def test_a_focus_that_was_not_indexed_is_guessed_where_the_photos_are_gone(run: Run, indexed: Path) -> None:
    shutil.copy(indexed / "red.jpg", "elsewhere.jpg")
    shutil.move(indexed, "away")
    done = run(
        "query", "--include-query", "elsewhere.jpg", "--focus", "teapot", "--json", "--html", "page.html"
    )
    hits = [json.loads(line) for line in done.out.splitlines()]
    assert len(hits) == 6
    assert {(hit["exact"], hit["z"]) for hit in hits} == {(False, None)}
    why = "no photo can be read, the photo folder is gone"
    assert hits[0]["remarks"] == [why]
    said = f"a guess by regions alone, none of 6 photos compared under this focus; {why}"
    assert f"{said}, by " in done.err
    page = Path("page.html").read_text("utf-8")
    assert f"{said}; 6 of 6 photos shown" in page
    assert 'class="heat' not in page
    assert run("query", "--include-query", "elsewhere.jpg", "--focus", "teapot").code == 0


def test_a_photo_folder_that_moved_is_said_and_can_be_followed(run: Run, indexed: Path) -> None:
    (place,) = Path(os.environ["XDG_DATA_HOME"]).glob("steersearch/libraries/*")
    moved = indexed.with_name("moved")
    indexed.rename(moved)
    for command in (("find", PROMPT), ("query", "--include-query", moved / "red.jpg", "--focus", PROMPT)):
        done = run(*command, "--paths", "--library", place)
        assert done.out.count("\n") == 6
        assert (
            f"the photo folder {indexed.name} is gone; if it moved: steersearch relocate {indexed} NEW"
            in done.err
        )
        assert "6 of these 6 photos are in a folder that is away" in done.err
        hits = [json.loads(line) for line in run(*command, "--json", "--library", place).out.splitlines()]
        assert [(hit["gone"], hit["away"]) for hit in hits] == [(True, True)] * 6
        assert run(*command, "--library", place, "--html", "page.html").out.count(" (away)\n") == 6
        assert Path("page.html").read_text().count(">away</div>") == 6
    refused = failed(run, "index", moved, "--library", place)
    assert refused.endswith(f"which is gone; if it moved: steersearch relocate {indexed} {moved}")
    done = run("relocate", indexed, moved)
    assert "photos is moved now: of 6 photos compared, 6 are the same, 0 missing, 0 different" in done.err
    done = run("index", moved)  # finds the library by its folder
    assert "6 files: 0 added, 6 reused" in done.out
    assert "nothing to compute" in done.out
    found = run("find", PROMPT, "--json")
    assert "gone" not in found.out + found.err
    indexed.mkdir()
    draw_picture(indexed / "one.jpg", "red", seed=90)
    assert "1 added" in run("index", indexed).out  # a new folder in the old place is another library
    assert len(run("libraries").out.splitlines()) == 3


def test_a_folder_with_other_photos_is_no_moved_one(run: Run, indexed: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for photo in indexed.iterdir():
        draw_picture(other / photo.name, "green", seed=7)
    refused = failed(run, "relocate", indexed, other)
    assert f"{other}: does not hold the photos of {indexed}: of 6 photos compared, 0 are the same" in refused
    assert "6 different (such as " in refused
    assert refused.endswith("nothing was changed")
    assert "6 reused" in run("index", indexed).out
    assert "is not a photo folder of a library" in failed(run, "relocate", other, indexed)
    assert "no such folder" in failed(run, "relocate", indexed, tmp_path / "nowhere")


def test_a_disk_that_moved_takes_all_its_folders_along(
    run: Run, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "media" / "disk"
    for name in ("one", "two"):
        shutil.copytree(photos, disk / name)
        run("index", disk / name, "--prompt", PROMPT, "--model", tiny_model)
    (disk / "two" / "red.jpg").unlink()
    disk.rename(disk.with_name("disk1"))
    done = run("relocate", disk, disk.with_name("disk1"))
    assert "media/disk/one is media/disk1/one now: of 6 photos compared, 6 are the same" in done.err
    assert (
        "media/disk/two is media/disk1/two now: of 6 photos compared, 5 are the same, 1 missing" in done.err
    )
    assert (
        "5 files: 0 added, 5 reused, 0 moved, 0 skipped; 1 removed"
        in run("index", disk.with_name("disk1") / "two").out
    )


def test_one_library_of_several_folders(run: Run, photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    scans, camera = tmp_path / "scans", tmp_path / "camera"
    scans.mkdir()
    (camera / "trip").mkdir(parents=True)
    draw_picture(scans / "scan.jpg", "red", seed=70)
    draw_picture(camera / "trip" / "shot.jpg", "red", seed=71)
    done = run("index", photos, scans, "--prompt", PROMPT, "--model", tiny_model)
    assert done.out.startswith("7 files: 7 added")
    (place,) = Path(os.environ["XDG_DATA_HOME"]).glob("steersearch/libraries/*")
    done = run("index", camera, "--library", place)
    assert "added to the library: camera\n" in done.err
    assert done.out.startswith("8 files: 1 added, 7 reused")
    for again in (("index", "--library", place), ("index", scans), ("index", photos, camera)):
        assert run(*again).out.startswith("8 files: 0 added, 8 reused")
    paths = run(
        "query", camera / "trip" / "shot.jpg", "--focus", PROMPT, "--paths", "--include-query"
    ).out.splitlines()
    assert paths[0] == str(camera / "trip" / "shot.jpg")
    assert {str(scans / "scan.jpg"), str(photos / "red.jpg")} < set(paths)
    for below in ("trip", camera / "trip", camera):
        assert run("find", PROMPT, "--in", below, "--paths").out == f"{camera / 'trip' / 'shot.jpg'}\n"
    held = json.loads(run("info", "--library", place, "--json").out)
    assert held["folders"] == [str(photos), str(scans), str(camera)]
    (listed,) = (json.loads(line) for line in run("libraries", "--json").out.splitlines())
    assert [(folder["path"], folder["away"]) for folder in listed["folders"]] == [
        (str(folder), None) for folder in (photos, scans, camera)
    ]
    assert (listed["photos"], listed["prompts"], listed["place"]) == (8, 1, str(place))
    scans.rename(tmp_path / "unmounted")
    done = run("index", "--library", place)
    assert done.out.startswith("7 files: 0 added, 7 reused, 0 moved, 0 skipped; 0 removed")
    assert "scans: the photo folder is gone; bring it back to index it; until then" in done.err
    table = run("libraries").out.splitlines()
    assert [row.split("  ")[0] for row in table] == ["folder ", "photos ", "scans", "camera "] or len(
        table
    ) == 4
    assert "is gone" in table[2]
    assert str(scans / "scan.jpg") in run("find", PROMPT, "--paths", "--library", place).out
    done = run("remove", "--folder", scans, "--library", place)
    assert "removed scans with 1 photo; the files are untouched" in done.err
    assert str(scans) not in run("find", PROMPT, "--paths", "--library", place).out
    run("remove", "--folder", photos, "--library", place)
    assert run("find", PROMPT, "--paths", "--library", place).out == f"{camera / 'trip' / 'shot.jpg'}\n"
    assert "is the only one" in failed(run, "remove", "--folder", camera, "--library", place)
    assert "nothing to compute" in run("index", photos, "--library", place).out
    assert len(run("find", PROMPT, "--paths", "--library", place).out.splitlines()) == 7


def test_index_without_a_folder_updates_the_library_of_the_current_one(
    run: Run, indexed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    draw_picture(indexed / "new.jpg", "green")
    monkeypatch.chdir(indexed)
    assert run("index").out.startswith("7 files: 1 added, 6 reused")
    monkeypatch.chdir(tmp_path.parent)
    shutil.rmtree(os.environ["XDG_DATA_HOME"])
    assert "no library holds" in failed(run, "index")


def test_a_photo_that_was_deleted_is_said(run: Run, indexed: Path) -> None:
    (indexed / "red.jpg").unlink()
    done = run("find", PROMPT)
    assert "1 of these 6 photos no longer exist" in done.err
    assert done.out.count("red.jpg (gone)\n") == 1


def test_paths_with_line_breaks_are_kept_apart(run: Run, indexed: Path) -> None:
    (indexed / "red.jpg").rename(indexed / "a\nb.jpg")
    (indexed / "blue.jpg").rename(indexed / os.fsdecode(b"caf\xe9.jpg"))
    run("index", indexed)
    for command in (("find", PROMPT), ("query", indexed / "a\nb.jpg", "--focus", PROMPT, "--include-query")):
        done = run(*command, "--print0")
        assert set(done.out_bytes.split(b"\0")) == {*map(os.fsencode, indexed.iterdir()), b""}
        assert "--print0" not in done.err
        assert "use --print0" in run(*command, "--paths").err
    assert "--print0" in misused(run, "find", PROMPT, "--print0", "--json")


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("5s", 5), ("2m", 120), ("1.5", 1.5)])
def test_budgets(text: str, seconds: float) -> None:
    assert search_options.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1s", "5 minutes", "nan"])
def test_budgets_that_are_none(run: Run, indexed: Path, text: str) -> None:
    message = misused(run, "query", indexed / "red.jpg", "--focus", PROMPT, "--budget", text)
    assert "is not a duration above 0" in message


@pytest.mark.parametrize("prompt", ["", "   ", "\t\n"])
def test_an_empty_prompt(
    run: Run, photos: Path, tiny_model: Path, own_user_folders: Path, prompt: str
) -> None:
    message = misused(run, "index", photos, "--prompt", PROMPT, "--prompt", prompt, "--model", tiny_model)
    assert "--prompt" in message
    assert "is empty; name what to look at" in " ".join(message.split())
    assert "--focus" in misused(run, "query", photos / "red.jpg", "--focus", prompt)
    assert list(own_user_folders.rglob("*")) == []


def test_a_focus_that_was_not_indexed_in_this_view(run: Run, indexed: Path) -> None:
    done = run("query", indexed / "red.jpg", "--focus", PROMPT, "--view", "tile")
    assert (
        "the likeliest are not known: this library keeps no regions" not in done.err
    )  # all six were steered
    assert "gate_scale 1, view tile)" in done.err
    assert "view: tile" not in run("index", indexed).err  # a query does not change how `index` sees
    assert "'--view'" in misused(run, "index", indexed, "--view", "fisheye")


def test_no_prompt_the_first_time(run: Run, photos: Path, tiny_model: Path) -> None:
    done = run("index", photos, "--model", tiny_model)
    assert done.code == 0
    assert "6 forward passes" in done.out
    done = run("query", "--include-query", photos / "red.jpg", "--json", "-k", 2)
    first = json.loads(done.out.splitlines()[0])
    assert (first["prompt"], first["unsteered"], first["exact"]) == (None, True, True)
    assert (first["model"], first["view"]) == (str(tiny_model), "squash")
    assert "exact; no focus: plain similarity, by unsteered vectors (model" in done.err
    assert "nothing is steered" in misused(
        run, "query", "--include-query", photos / "red.jpg", "--budget", "2s"
    )
    assert run("query", "--include-query", photos / "red.jpg", "--focus", PROMPT, "-k", 2).code == 0
    message = misused(run, "index", photos, "--no-regions", "--model", "mini")
    assert "nothing to index: no prompt is given or known" in message


def test_words_without_quotes(run: Run, indexed: Path) -> None:
    assert 'several words need quotes, as in "red flower"' in misused(run, "find", "red", "flower")
    message = misused(run, "query", indexed / "red.jpg", "--focus", "red", "flower")
    assert 'several words need quotes, as in "red flower"' in message


def test_a_prompt_that_is_not_there_names_the_five_nearest() -> None:
    have = [
        f'"{word}" (model mini)'
        for word in ("dog", "lamps", "lamp", "a lamp", "the lamp", "lampshade", "sky")
    ]
    said = str(PromptIndexMissing("lamp", "photos", have, "steersearch index photos"))
    assert '"lamp" (model mini)' in said
    assert "dog" not in said
    assert "sky" not in said
    assert "and 2 more (steersearch info)" in said


def test_photos_that_nobody_indexed(run: Run, photos: Path, indexed: Path, tmp_path: Path) -> None:
    other = tmp_path / "my photos"
    other.mkdir()
    stranger = shutil.copy(photos / "red.jpg", other / "red.jpg")
    done = run("query", stranger, "--focus", PROMPT, "--paths")
    assert done.code == 0  # below the current folder lies one library
    assert "library: " not in done.err
    assert run("remove", "--all", "--yes").code == 0
    message = failed(run, "query", stranger, "--focus", PROMPT)
    assert f"index your photos: steersearch index '{other}'" in message
    message = failed(run, "find", PROMPT)
    assert "index your photos: steersearch index FOLDER" in message


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("y\n", 0)])
def test_a_terminal_offers_to_index_photos_that_nobody_indexed(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    monkeypatch.setattr("steersearch.cli.library._can_ask", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = run("query", photos / "red.jpg", "--paths", "-k", 2)
    assert done.code == code
    assert f"No library holds these photos. Index {photos} now? [y/N]" in done.err
    assert ("6 files: 6 added" in done.err) == (code == 0)
    assert len(done.out.split()) == (2 if code == 0 else 0)


def test_a_query_image_that_is_none(run: Run, indexed: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.jpg").write_text("Dear photo,")
    focus = ("--focus", PROMPT)
    assert failed(run, "query", "gone.jpg", *focus) == "gone.jpg: no such file"
    assert (
        failed(run, "query", "letter.jpg", *focus) == "letter.jpg: not an image, or not of a supported format"
    )
    assert failed(run, "query", indexed, *focus) == f"{indexed}: a folder, not a file"


def test_an_unwritable_place(run: Run, photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    arguments = ("index", photos, "--prompt", PROMPT, "--model", tiny_model, "--library")
    message = failed(run, *arguments, tmp_path / "file" / "library")
    assert message.startswith(f"{tmp_path / 'file' / 'library'}: cannot be ")
    assert message.endswith("name another place with --library PLACE")
    assert (tmp_path / "file").read_text() == "in the way"
    message = failed(run, *arguments, photos)
    assert (
        message == f"{photos}: is a folder with other things in it; name another place with --library PLACE"
    )


def test_an_unknown_model(run: Run, photos: Path) -> None:
    from steersearch.core.registry import MODELS

    message = failed(run, "index", photos, "--prompt", PROMPT, "--model", "dino")
    assert message.startswith('unknown model "dino"; known: ')
    assert all(name in message for name in MODELS)


def test_a_model_whose_weights_have_changed(run: Run, photos: Path, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model.safetensors", seed=3)
    run("index", photos, "--prompt", PROMPT, "--model", model)
    write_tiny_model(model, seed=4)
    draw_picture(tmp_path / "stranger.jpg", "red", seed=77)
    query = ("query", tmp_path / "stranger.jpg", "--focus", PROMPT)
    assert run("query", photos / "red.jpg", "--focus", PROMPT).code == 0  # needs no model
    message = failed(run, *query)
    assert f'the index for "{PROMPT}" was made with other weights of {model}' in message
    command = shlex.split(message.partition("or index the folder again: ")[2])
    assert run(*command[1:]).code == 0
    assert run(*query).code == 0


def test_no_library(run: Run, photos: Path, tmp_path: Path) -> None:
    message = failed(run, "info")
    assert message.startswith(f"no library holds {tmp_path} or lies below it, and none was used before; ")
    message = failed(run, "query", photos / "red.jpg", "--focus", PROMPT, "--library", "nowhere")
    assert message.startswith(f"{tmp_path / 'nowhere'}: no library here; ")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("query", "x.jpg", "--focus", "cat", "--json", "--paths"), "--json / --paths"),
        (("query", "x.jpg", "--focus", "cat", "-k", "0"), "-k"),
        (("query", "x.jpg", "--focus", "cat", "-k", "many"), "-k"),
        (("query", "--focus", "cat"), "IMAGE"),
        (("query", "x.jpg", "--focus", "cat", "--gate-scale", "nan"), "--gate-scale"),
        (("query", "x.jpg", "--focus", "cat:0"), "--focus"),
        (("query", "x.jpg", "--focus", "cat", "--focus", "cat:2"), "given twice"),
        (("query", "x.jpg", "--focus", "cat", "--after", "yesterday"), "--after"),
        (("query", "x.jpg", "--focus", "cat", "--before", "2024-13"), "--before"),
        (("index", "x", "--prompt", "cat", "--gate-scale", "-1"), "--gate-scale"),
        (("index", "x", "--prompt", "cat", "--batch-size", "0"), "--batch-size"),
        (("index", "x", "--prompt", "cat", "--device", "abacus"), "--device"),
        (("explain", "x.jpg", "--focus", "cat"), "-o"),
        (("find", "cat", "-k", "0"), "-k"),
        (("query", "x.jpg", "--focus", "fish:abc"), "--focus"),
        (("query", "x.jpg", "--focus", "cat", "--exact", "--budget", "1s"), "--exact / --budget"),
        (("find", "cat", "--exact", "--budget", "5s"), "--exact / --budget"),
        (("index", "x", "--gate-scale", "0.5"), "--gate-scale"),
        (("remove", "--all", "--yes", "--model", "nosuch"), "--model"),
        (("remove", "--all", "--yes", "--view", "tile"), "--view"),
        (("remove", "--all", "--gate-scale", "0.5"), "--gate-scale"),
        (("remove", "cat", "--yes"), "--yes"),
        (("bench", "report", "-o", "x.csv", "--pictures"), "--pictures"),
        (("bench", "all", "--data", "nowhere"), "--data"),
    ],
)
def test_misuse(run: Run, own_user_folders: Path, arguments: tuple[str, ...], named: str) -> None:
    assert named in misused(run, *arguments)
    assert list(own_user_folders.rglob("*")) == []


def test_windows_is_refused_with_the_way_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steersearch.cli.sys.platform", "win32")
    done = run("info")
    assert done.code == 1
    assert "does not run on Windows itself; use WSL" in done.err


def test_a_current_folder_that_was_deleted(indexed: Path, tmp_path: Path) -> None:
    """Even where each path is absolute: PyTorch would end the process."""
    gone = tmp_path / "gone"
    for arguments in ("info", f"index {indexed} --prompt {shlex.quote(PROMPT)}"):
        command = (
            f"mkdir {gone} && cd {gone} && rmdir {gone} && {shlex.quote(sys.executable)} -P -m steersearch"
        )
        done = subprocess.run(["bash", "-c", f"{command} {arguments}"], capture_output=True, text=True)
        assert done.returncode == 1
        words = "error: the current folder: was deleted or cannot be entered; change into another\n"
        assert done.stderr.endswith(words)
        assert "Traceback" not in done.stderr


# ------------------------------------------------------------------------------------------- help, completion


def all_commands() -> list[tuple[str, ...]]:
    from steersearch.benchmarks.harness.catalogue import CARDS

    own = "index query find explain info verify optimize remove export demo models bench train".split()
    models = [("models", name) for name in ("list", "show", "fetch")]
    bench = [("bench", name) for name in (*CARDS, "speed", "all", "list", "methods", "report", "build")]
    build = [("bench", "build", name) for name in ("mosaic", "core")]
    train = [("train", name) for name in ("check", "masks", "photographs")]
    return [*((name,) for name in own), *models, *bench, *build, *train]


@pytest.mark.parametrize("command", all_commands(), ids=" ".join)
def test_every_command_explains_itself(run: Run, command: tuple[str, ...]) -> None:
    done = run(*command, "-h")
    assert (done.code, done.out) == (0, run(*command, "--help").out)
    usage = done.out.partition("\n\n")[0]
    assert re.findall(r"[{}<>]|\[(?!OPTIONS\]|COMMAND\]|ARGS\]|[A-Z]+\])", usage) == []
    options = done.out.partition("Options:")[2].partition("Commands:")[0]
    assert re.findall(r"<[^>]*>(?=  )", options) == []  # choices are a|b, as other values have their names
    assert ("-q, --quiet" in options, "-v, --verbose" in options) == (True, True)


@pytest.mark.parametrize(
    "command", [(), ("models",), ("bench",), ("bench", "build"), ("train",)], ids=" ".join
)
def test_summaries_fit_a_line(run: Run, command: tuple[str, ...]) -> None:
    listed = run(*command, "--help").out.partition("Commands:\n")[2].splitlines()
    assert listed
    for line in listed:
        assert len(line) < 80
        assert re.fullmatch(r"  [\w-]+ +[A-Z].*[.?]", line) is not None, line  # one line each, not cut


def test_quiet_leaves_results_and_errors(run: Run, indexed: Path) -> None:
    loud, quiet = (run("find", PROMPT, *flags) for flags in ((), ("-q",)))
    assert loud.err
    assert (quiet.out, quiet.err) == (loud.out, "")
    assert run("-q", "find", PROMPT).err == ""
    assert run("find", PROMPT, "--library", "nowhere", "--quiet").err.startswith("error: ")
    assert run("find", PROMPT).err == loud.err  # the next command speaks again


def test_verbose_adds_the_traceback_of_an_error(run: Run, tmp_path: Path) -> None:
    short, long = (run("find", PROMPT, "--library", tmp_path / "no", *flags) for flags in ((), ("-v",)))
    assert "Traceback" not in short.err
    assert long.err.startswith("Traceback (most recent call last)")
    assert long.err.endswith(short.err)
    assert (short.code, long.code) == (1, 1)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("steersearch qu", ["query"]),
        ("steersearch bench bui", ["build"]),
        ("steersearch train ", ["check", "masks", "photographs"]),
        ("steersearch query --fo", ["--focus", "--folder"]),
        ("steersearch index --view ", ["crop", "squash", "tile"]),
    ],
)
def test_the_shell_completes_commands_options_and_choices(typed: str, offered: list[str]) -> None:
    words = typed.split(" ")
    asked = {"_STEERSEARCH_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "steersearch"], env={**os.environ, **asked}, capture_output=True, text=True
    )
    assert (done.stdout.split(), done.stderr) == (offered, "")


def test_a_folder_of_the_library_has_one_name_in_the_shell_and_in_python(run: Run, indexed: Path) -> None:
    assert run("find", PROMPT, "--folder", "nowhere").out == run("find", PROMPT, "--in", "nowhere").out == ""
    assert len(run("find", PROMPT, "--folder", ".", "--paths").out.splitlines()) == 6
