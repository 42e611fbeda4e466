"""What `plan` reckons: against sums by hand, a library on disk, the models, and the records that it quotes."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import steersearch
from steersearch.api import Library
from steersearch.benchmarks.engineering import cost, pace
from steersearch.benchmarks.engineering.cost import GIB, HARDWARE, Hardware, Job, Pace, Reading, cost_of
from steersearch.benchmarks.engineering.speed import Settings, named_model
from steersearch.benchmarks.harness.record import RESULTS, Record
from steersearch.cli import app
from steersearch.core.errors import ArgumentError
from steersearch.core.registry import MODELS
from steersearch.indexer.faiss_index import choose_nlist, choose_nprobe

PLAIN = Hardware(
    name="plain", cores=4, memory=8 * GIB, gpus=0, source="made up",
    paces={"dinov2-base": Pace(shared=1, prompt=10, unsteered=5, regions=6)}, reading=Reading(fixed=4, per_megapixel=2),
)  # fmt: skip
PLAIN_MINI = replace(PLAIN, paces={"mini": Pace(shared=1, prompt=1, unsteered=1, regions=1)})
PHOTOGRAPHS = Path(steersearch.__file__).parent / "photographs"
WITH_GPU = replace(PLAIN, gpus=1)


def record(benchmark: str, model: str) -> Record:
    (path,) = RESULTS.glob(f"{benchmark}__{model}{'-*' if model == 'mini' else '__*'}.json")
    return Record.read(path)


def test_hours_of_a_processor_are_those_by_hand() -> None:
    job = Job(photos=1_000, prompts=3, megapixels=12)
    found = cost_of(job, "dinov2-base", PLAIN)
    assert found.forward_passes == 4_000
    assert found.model_seconds == pytest.approx(
        1 + 30 + 5
    )  # seconds for 1,000 photos are milliseconds for one
    assert found.reading_seconds == pytest.approx(4 + 24 + 6)
    assert found.seconds == pytest.approx((36 + 34 / 4) / cost.BUSY)
    assert cost_of(replace(job, machines=4), "dinov2-base", PLAIN).seconds == pytest.approx(found.seconds / 4)
    assert (found.bound, found.guessed) == ("model", "")


def test_a_gpu_waits_for_the_slower_of_model_and_reading() -> None:
    few, many = (cost_of(Job(photos=1_000, prompts=n), "dinov2-base", WITH_GPU) for n in (1, 20))
    assert many.bound == "model"
    assert many.seconds == pytest.approx(206 / cost.BUSY)
    slow = replace(WITH_GPU, cores=1)
    starved = cost_of(Job(photos=1_000), "dinov2-base", slow)
    assert starved.bound == "reading"
    assert starved.seconds == pytest.approx(34 / cost.BUSY)
    assert few.bound == "model"


def test_without_regions_nothing_is_paid_for_them() -> None:
    found = cost_of(Job(photos=1_000, regions=False), "dinov2-base", PLAIN)
    assert (found.forward_passes, found.regions, found.shortlist_seconds) == (1_000, 0, 0)
    assert found.model_seconds == pytest.approx(11)
    assert found.reading_seconds == pytest.approx(28)
    assert not any("not indexed" in limit.what for limit in found.limits)


def test_another_model_is_scaled_by_its_work_and_said_to_be_a_guess() -> None:
    found = cost_of(Job(photos=1_000), "dinov2-small", PLAIN)
    factor = (22_056_192 + 12_065_031) / (86_579_712 + 23_080_455)
    assert found.model_seconds == pytest.approx(16 * factor)
    assert "scaled by 0.31 from dinov2-base" in found.guessed


def test_the_gpu_hours_of_100_million_photos_are_those_of_the_paper() -> None:
    """264 A100-hours for each prompt: 9.5 ms a photo."""
    found = cost_of(Job(photos=10**8, regions=False), "dinov2-base", HARDWARE["a100"])
    assert found.model_seconds / 3600 == pytest.approx(264, abs=0.5)


@given(
    st.integers(1, 10**9),
    st.integers(1, 50),
    st.sampled_from(sorted(MODELS)),
    st.sampled_from(sorted(HARDWARE)),
)
def test_more_photos_never_cost_less(photos: int, prompts: int, model: str, hardware: str) -> None:
    job = Job(photos=photos, prompts=prompts)
    less, more = (
        cost_of(each, model, HARDWARE[hardware])
        for each in (job, replace(job, photos=photos + photos // 7 + 1))
    )
    for name in ("model_seconds", "reading_seconds", "seconds", "bytes", "shortlist_seconds"):
        assert getattr(less, name) < getattr(more, name), name
    assert [limit.photos for limit in less.limits] == sorted(limit.photos for limit in less.limits)
    assert all(limit.photos > 0 for limit in less.limits)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """The photographs of the demo, under two prompts, searched once."""
    folder = tmp_path_factory.mktemp("cost") / "photos"
    shutil.copytree(PHOTOGRAPHS, folder, ignore=lambda _, names: [n for n in names if not n.endswith(".jpg")])
    made = Library.create(folder, model="mini", place=folder.parent / "library")
    made.index(["the cat", "the hammer"])
    made.query(next(folder.glob("*.jpg")), "the cat")
    return made


def data_bytes(place: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in place.glob(pattern) if path.is_file())


def test_bytes_are_those_of_a_library_on_disk(library: Library) -> None:
    """The data files alone: versions and transactions of a table are a few kilobytes for each commit."""
    place = library.info().place
    planned = cost_of(Job(photos=library.info().photos, prompts=2), "mini", HARDWARE["cpu2"])
    for name, pattern in {
        "vectors": "lance/prompt_*.lance/data/*",
        "regions": "lance/frozen_*.lance/data/*",
        "thumbnails": "lance/thumbnails.lance/data/*",
        "snapshots": "snapshots/*/*",
    }.items():
        assert getattr(planned, name) == pytest.approx(data_bytes(place, pattern), rel=0.25), name
    rows = data_bytes(place, "lance/images.lance/data/*")
    assert planned.photo_rows == pytest.approx(rows, rel=0.25)


def test_a_search_takes_the_memory_of_its_vectors_and_an_ivf_index_that_of_its_codes() -> None:
    few, many = (cost_of(Job(photos=n), "mini", PLAIN_MINI) for n in (1_000, 1_000_000))
    assert (few.is_approximate, few.index_memory) == (False, 1_000 * 192 * 4)
    assert many.is_approximate
    assert many.index_memory == 1_000_000 * (192 + 8)


@pytest.mark.parametrize("name", ["mini", "dinov2-small", "siglip-base-research"])
def test_the_cards_say_the_shape_of_the_models(name: str) -> None:
    model, card = (
        named_model(Settings(model=name, resolution=None if name == "mini" else MODELS[name].resolution)),
        MODELS[name],
    )
    assert (model.dim, math.prod(model.grid)) == (card.dim, card.patches)
    backbone = sum(p.numel() for key, p in model.named_parameters() if key.startswith(("trunk", "_trunk")))
    assert backbone == pytest.approx(card.backbone_parameters, rel=0.1)


@pytest.mark.parametrize("model", ["mini", "dinov2-small", "dinov2-base"])
def test_the_paces_of_two_cores_are_those_of_their_records(model: str) -> None:
    found, pace = record("pace", model).metrics, HARDWARE["cpu2"].paces[model]
    names = ("shared_ms", "prompt_ms", "unsteered_ms", "regions_core_ms")
    assert tuple(asdict(pace).values()) == tuple(found[name] for name in names)


def test_reading_is_that_of_its_record() -> None:
    found, reading = record("pace", "mini").metrics, HARDWARE["cpu2"].reading
    names = ("reading_fixed_core_ms", "reading_core_ms_per_megapixel")
    assert tuple(asdict(reading).values()) == tuple(found[name] for name in names)


def test_a_file_takes_no_less_memory_than_a_copy_in_its_record() -> None:
    (path,) = RESULTS.glob("ray-memory__instant__*")
    metrics = Record.read(path).metrics
    assert max(metrics[f"{engine}: bytes per path"] for engine in ("local", "ray")) < cost.FILE_IN_MEMORY


def test_an_h200_takes_at_most_a_training_step() -> None:
    (path,) = RESULTS.glob("train-speed-cuda-bfloat16-336px-b12__dinov2-base__*")
    steps = Record.read(path).metrics["ours_steps_per_s"]
    assert HARDWARE["h200"].paces["dinov2-base"].prompt == pytest.approx(1e3 / steps / 12, abs=0.01)


@pytest.mark.parametrize("count", [100_000, 1_000_000])
@pytest.mark.parametrize("dim", [384, 768])
def test_a_query_takes_about_what_was_measured(count: int, dim: int) -> None:
    (path,) = RESULTS.glob(f"search-scale-{count}x{dim}-ours_exact-ours_cells__*")
    found = Record.read(path).metrics
    ivf = (choose_nlist(count) + choose_nprobe(choose_nlist(count), dim) * count / choose_nlist(count)) * dim
    assert 1e3 * ivf * cost.IVF_SECONDS == pytest.approx(found["ours_cells"]["p50_ms"], rel=0.35)
    assert 1e3 * count * dim * cost.EXACT_SECONDS == pytest.approx(found["ours_exact"]["p50_ms"], rel=0.35)
    built = cost_of(Job(photos=count), {384: "dinov2-small", 768: "dinov2-base"}[dim], PLAIN)
    if count >= 200_000:
        assert built.build_seconds == pytest.approx(found["ours_cells"]["build_seconds"], rel=0.35)
        assert 1e3 * built.query_seconds == pytest.approx(found["ours_cells"]["p50_ms"], rel=0.35)


def plan(*options: str) -> Result:
    return CliRunner().invoke(app, ["plan", *options])


def test_json_has_all_of_it_and_says_that_it_is_an_estimate() -> None:
    done = plan(
        "--photos", "1e8", "--prompts", "20", "--model", "dinov2-base", "--hardware", "h200", "--json"
    )
    found = json.loads(done.stdout)
    assert (found["photos"], found["prompts"], found["hardware"]) == (100_000_000, 20, "h200")
    assert found["is_estimate"] is True
    assert "at most" in found["source"]
    job = Job(photos=10**8, prompts=20)
    assert found["seconds"] == cost_of(job, "dinov2-base", HARDWARE["h200"]).seconds


def test_the_table_names_what_breaks_and_the_source() -> None:
    done = plan("--photos", "200,000,000", "--model", "dinov2-large", "--hardware", "a100")
    assert "200,000,000 photos of 12 MP, 1 prompt, dinov2-large, 1 GPU (a100)" in done.stdout
    assert "reached  building the IVF index of a prompt outgrows the memory of a machine" in done.stdout
    assert "scaled by" in done.stderr
    assert "Table 14" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--photos", "many"], '"many" is not a number of photos'),
        (["--photos", "0.5"], '"0.5" is not a number of photos'),
        (["--photos", "nan"], '"nan" is not a number of photos'),
        (["--photos", "1,5"], '"1,5" is not a number of photos'),
        (["--photos", "1,5000"], '"1,5000" is not a number of photos'),
        (["--photos", "10", "--hardware", "abacus"], "must be one of here, cpu2, a100, h200"),
        (["--photos", "10", "--model", "nano", "--hardware", "a100"], "no model of this name"),
        (["--photos", "10", "--megapixels", "-3", "--hardware", "a100"], "must be above 0"),
        (["--photos", "10", "--prompts", "0", "--hardware", "a100"], "greater than or equal to 1"),
        (
            ["--photos", "10", "--machines", "9" * 400, "--hardware", "a100"],
            "must be between 1 and 1,000,000",
        ),
        ([], "--photos"),
    ],
)
def test_a_wrong_value_is_named(options: list[str], said: str) -> None:
    done = plan(*options)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_a_job_of_nothing_is_refused() -> None:
    with pytest.raises(ArgumentError, match="must be between 1 and"):
        Job(photos=0)


@pytest.mark.slow
def test_this_machine_is_measured_where_no_other_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "this_machine", partial(pace.this_machine, rounds=1))
    done = plan("--photos", "5000", "--json")
    found = json.loads(done.stdout)
    assert (found["hardware"], found["source"], found["guessed"]) == ("here", "measured now", "")
    assert "measuring" in done.stderr
    per_photo = 1e3 * found["model_seconds"] / 5_000
    assert 1 < per_photo < 60_000  # milliseconds
    assert found["reading_seconds"] > 0
