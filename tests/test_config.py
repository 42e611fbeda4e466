"""The user's settings: `steersearch config`, what commands make of them, and what is refused; the log."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from steersearch.cli import Commands
from steersearch.config import NAMES, Settings, change, read_settings, settings_file
from tests.conftest import Run, draw_picture


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the settings file is; it does not exist."""
    monkeypatch.setattr("steersearch.config.user_config_path", lambda name: tmp_path / "settings" / name)
    found = settings_file()
    assert found is not None
    return found


def test_without_a_file_everything_is_as_shipped(run: Run, file: Path) -> None:
    assert read_settings() == Settings()
    rows = [json.loads(line) for line in run("config", "--json").out.splitlines()]
    assert [row["name"] for row in rows] == list(NAMES)
    assert {row["from"] for row in rows} == {"default"}
    assert (
        run("config", "path").out == "settings/steersearch/config.toml\n"
        or str(file) in run("config", "path").out
    )
    assert not file.exists()


def test_settings_are_set_shown_with_their_source_and_unset(
    run: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, *values in (
        ("model", "mini"),
        ("device", "cpu"),
        ("precision", "bfloat16"),
        ("budget", "2m"),
        ("library", "lib"),
        ("exclude", "*.png", 'dra"fts/'),
        ("log_file", "~/log"),
        ("snapshot_cache", "1.5GB"),
    ):
        assert run("config", "set", name, *values).code == 0
    home = Path("~").expanduser()
    expected = Settings(
        model="mini",
        device="cpu",
        precision="bfloat16",
        budget="2m",
        library=str(tmp_path / "lib"),
        exclude=("*.png", 'dra"fts/'),
        log_file=str(home / "log"),
        snapshot_cache="1.5GB",
    )
    assert read_settings() == expected
    assert read_settings().snapshot_cache_bytes == 1_500_000_000
    assert read_settings().budget_s == 120
    assert run("config", "get", "exclude").out == '*.png dra"fts/\n'
    monkeypatch.setenv("STEERSEARCH_LIBRARY", "elsewhere")
    table = {line.split()[0]: line for line in run("config").out.splitlines()}
    assert table["library"].split() == ["library", "elsewhere", "STEERSEARCH_LIBRARY"]
    assert table["model"].split() == ["model", "mini", str(file)]
    for name in NAMES:
        assert run("config", "unset", name).code == 0
    assert read_settings() == Settings()


def test_changes_keep_comments_and_values_over_several_lines_are_replaced(file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_text('# mine\nexclude = [\n  "a",  # one\n  "b",\n]\nmodel = "mini" # small\n')
    change("exclude", ["c"])
    assert file.read_text() == '# mine\nexclude = ["c"]\nmodel = "mini" # small\n'
    change("budget", "3s")
    change("model", None)
    assert file.read_text() == '# mine\nexclude = ["c"]\nbudget = "3s"\n'


def test_a_byte_order_mark_and_line_ends_of_windows_are_no_damage(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes('model = "mini"\r\n'.encode("utf-8-sig"))
    change("device", "cpu")
    assert (read_settings().model, read_settings().device) == ("mini", "cpu")


def test_a_link_to_the_file_stays_a_link(file: Path, tmp_path: Path) -> None:
    file.parent.mkdir(parents=True)
    (tmp_path / "dotfiles.toml").write_text("")
    file.symlink_to(tmp_path / "dotfiles.toml")
    change("model", "mini")
    assert file.is_symlink()
    assert (tmp_path / "dotfiles.toml").read_text() == 'model = "mini"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('modle = "mini"', "modle = 'mini': no such setting (did you mean \"model\"?)"),
        ("model = 3", "model = 3: must be a text"),
        ('device = "gpu"', "device = 'gpu': must be one of auto, cpu, cuda, mps"),
        ('precision = "half"', "precision = 'half': must be one of auto, float32, bfloat16"),
        ('budget = "soon"', "budget = 'soon': soon is not a duration"),
        ("budget = 5", "budget = 5: must be a text"),
        ('snapshot_cache = "much"', "snapshot_cache = 'much': much is not a size"),
        ('library = "lib"', "library = 'lib': must be an absolute path"),
        ('exclude = "*.png"', "exclude = '*.png': must be a list of patterns"),
        ("[model]\nname = 1", "model = {'name': 1}: must be a text"),
    ],
)
def test_a_wrong_value_is_named_with_its_file_and_the_way_out(
    run: Run, file: Path, text: str, said: str
) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(text + "\n")
    done = run("models", "list")
    assert (done.code, done.out) == (1, "")
    assert f"error: {file}: {said}" in done.err
    name = re.split(r"\W+", text.strip("["))[0]
    assert f"steersearch config unset {name}" in done.err
    if "[" not in text[:1]:
        assert run("config", "unset", name).code == 0
        assert run("models", "list").code == 0


@pytest.mark.parametrize("content", [b"model = ", b"\xff\xfe", b"a=" + b"[" * 100_000])
def test_a_file_that_is_no_toml_is_refused_with_its_name(run: Run, file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    for command in (("models", "list"), ("config",), ("config", "set", "model", "mini")):
        done = run(*command)
        assert (done.code, done.err.startswith(f"error: {file}: ")) == (1, True)
        assert "mend or delete it" in done.err
    assert file.read_bytes() == content
    assert run("config", "path").code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("set", "model"),
        ("set",),
        ("get",),
        ("unset", "model", "mini"),
        ("show", "model"),
        ("set", "model", "a", "b"),
        ("sat", "model", "mini"),
    ],
)
def test_misuse_of_config_is_refused(run: Run, file: Path, arguments: tuple[str, ...]) -> None:
    assert run("config", *arguments).code == 2
    assert not file.exists()


def test_what_cannot_be_set_is_refused_and_changes_nothing(run: Run, file: Path) -> None:
    for name, value, said in (
        ("modle", "mini", 'no such setting (did you mean "model"?)'),
        ("device", "gpu", "must be one of auto, cpu, cuda, mps"),
        ("budget", "soon", "is not a duration"),
        ("model", "", "not empty"),
        ("snapshot_cache", "much", "is not a size"),
    ):
        done = run("config", "set", name, value)
        assert (done.code, said in " ".join(done.err.split())) == (2, True)
    for action in ("get", "unset"):
        assert run("config", action, "modle").code == 2
    assert not file.exists()


def test_commands_follow_the_settings_unless_the_command_line_says_otherwise(
    run: Run, photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("config", "set", "model", tiny_model)
    run("config", "set", "exclude", "red.jpg", "blue.jpg")
    done = run("index", photos)
    assert "excluded, by the settings: red.jpg blue.jpg" in done.err
    assert done.out.startswith("4 files: 4 added")
    assert run("index", photos, "--exclude", "red.jpg").out.startswith("5 files: 1 added")
    run("config", "set", "model", "no-such-model")
    assert run("index", photos).code == 0  # a library keeps its own model
    assert "no-such-model" in run("index", photos, "--library", tmp_path / "other").err
    assert run("index", photos, "--library", tmp_path / "other", "--model", tiny_model).code == 0
    assert run("config", "set", "budget", "1ms").code == 0
    short = run("find", "a cup", "--json", "--library", tmp_path / "other")
    assert json.loads(short.out.splitlines()[0])["exact"] is False
    assert run("find", "a cup", "--json", "--library", tmp_path / "other", "--exact").code == 0


def test_the_library_of_the_settings_is_searched_where_no_other_is_near(
    run: Run, photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "small").mkdir()
    draw_picture(tmp_path / "small" / "one.jpg", "red")
    run("index", photos, "--model", tiny_model, "--library", tmp_path / "main")
    run("index", tmp_path / "small", "--model", tiny_model)  # the one used last
    run("config", "set", "library", tmp_path / "main")
    for folder, photo_count in ((tmp_path / "away", 6), (tmp_path / "small", 1)):
        monkeypatch.chdir(folder)
        assert json.loads(run("info", "--json").out)["photos"] == photo_count


def test_messages_go_to_a_log_quiet_or_not(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log.txt"
    assert run("info", "-q", "--library", "nowhere", "--log-file", log).code == 1
    lines = log.read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[\d+\] steersearch info -q --library .*", lines[0])
    assert any("Traceback" in line for line in lines)
    assert f"error: {tmp_path / 'nowhere'}: no library here" in lines[-1]
    run("config", "set", "log_file", log)
    run("info", "--library", "no\nwhere")
    assert len(log.read_text().splitlines()) > len(lines)
    done = run("info", "--log-file", tmp_path)
    assert (done.code, str(tmp_path) in done.err) == (1, True)


def test_every_command_takes_the_options_of_messages(run: Run) -> None:
    for name in Commands.table:
        help_text = run(name, "--help").out
        assert all(option in help_text for option in ("-q, --quiet", "-v, --verbose", "--log-file FILE")), (
            name
        )


def test_a_library_in_a_bucket_is_kept_as_it_is(run: Run) -> None:
    assert run("config", "set", "library", "s3://bucket/library").code == 0
    assert read_settings().library == "s3://bucket/library"
