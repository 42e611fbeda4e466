"""CORE on data in its published layout: what is read, and that the figures are those of the protocol."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from huggingface_hub import constants  # here, before a test's folders take the place of the user's
from PIL import Image

from steersearch.benchmarks.harness.benchmark import DataMissingError, run
from steersearch.benchmarks.harness.method import Seen
from steersearch.benchmarks.harness.steervit_method import SteerViTMethod
from steersearch.benchmarks.harness.tables import comparison_table, figures_table
from steersearch.benchmarks.paper import core_data, published
from steersearch.benchmarks.paper.ablations import AGGREGATIONS, figures_of
from steersearch.benchmarks.paper.core import Core
from steersearch.benchmarks.paper.core_data import Row, check_rows
from steersearch.core import hub
from steersearch.core.errors import BenchmarkError
from steersearch.core.predictor import Predictor
from tests.hub_server import hub_stand_in

SCENES = {"Kitchen": ("olive oil", "fruit bowl", "towel"), "Living room": ("zebra", "flag", "puddle")}
SOURCES = {"Kitchen": 4, "Living room": 2}  # as in CORE, scenes need not be equally large
FEATURES = {name: {"dtype": "string", "_type": "Value"} for name in core_data.COLUMNS}
Content = list[dict[str, object]]


def picture(scene: str, base: int, thing: str) -> Image.Image:
    """Noise that mostly says which base it is, with a stripe that says which object."""
    rng = np.random.default_rng([len(scene), base])
    pixels = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    stripe = np.random.default_rng([7, len(thing)]).integers(0, 256, (14, 64, 3), dtype=np.uint8)
    pixels[:14] = stripe
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str = "PNG") -> dict[str, object]:
    file = io.BytesIO()
    image.save(file, kind)
    return {"bytes": file.getvalue(), "path": None}


def rows() -> Content:
    return [
        {
            "image": encoded(picture(scene, base, thing)),
            "scene": scene,
            "object": thing,
            "image_id": f"{scene}_{base:04d}",
            "prompt": f"the {thing}.",
        }
        for scene, objects in SCENES.items()
        for base in range(SOURCES[scene])
        for thing in objects
    ]


def write_shards(folder: Path, content: Content, split: str = "test") -> None:
    """Parquet as the library `datasets` writes and publishes it, in two files."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    described = {"info": {"features": {"image": {"_type": "Image"}, **FEATURES}}}
    schema = pa.schema([("image", image), *((name, pa.string()) for name in core_data.COLUMNS)])
    schema = schema.with_metadata({"huggingface": json.dumps(described)})
    (folder / "data").mkdir(parents=True)
    half = len(content) // 2 + 1  # the second scene begins in the first file
    for number, part in enumerate((content[:half], content[half:])):
        table = pa.Table.from_pylist(part, schema=schema)
        parquet.write_table(table, folder / "data" / f"{split}-{number:05d}-of-00002.parquet")


@pytest.fixture
def published_data(tmp_path: Path) -> Path:
    write_shards(tmp_path / "CORE", rows())
    (tmp_path / "CORE" / "README.md").write_text("a data set")
    return tmp_path / "CORE"


# ------------------------------------------------------------------------------------- figures worked out by hand

# Picture number -> its direction in degrees, under each prompt. Pictures 1 to 5 are the kitchen's: source k1 with a
# mug and with a jug, k2 with both, k3 with a mug; 6 to 9 the park's: p1 and p2, each with a kite and with a ball.
DEGREES: dict[str | None, dict[int, float]] = {
    "the mug.": {1: 0, 2: 1, 3: 10, 4: 4, 5: 13},
    "the jug.": {1: 20, 2: 0, 3: 40, 4: 5, 5: 50},
    "the kite.": {6: 0, 7: 50, 8: 30, 9: 10},
    "the ball.": {6: 0, 7: 10, 8: 60, 9: 30},
    None: {1: 0, 2: 1, 3: 40, 4: 41, 5: 80, 6: 0, 7: 1, 8: 20, 9: 21},
}
PICTURES = {
    1: ("Kitchen", "mug", "k1"),
    2: ("Kitchen", "jug", "k1"),
    6: ("Park", "kite", "p1"),
    3: ("Kitchen", "mug", "k2"),
    4: ("Kitchen", "jug", "k2"),
    7: ("Park", "ball", "p1"),
    5: ("Kitchen", "mug", "k3"),
    8: ("Park", "kite", "p2"),
    9: ("Park", "ball", "p2"),
}


class Directions:
    """A method that looks up each picture's direction by the number that its first pixel shows."""

    weights_hash = None
    name, identity, licence = "directions", "directions-1", "none"
    takes_prompt, gallery_takes_prompt, batch_size = True, True, 2

    def __init__(self, needs_prompt: bool = False) -> None:
        self.needs_prompt = needs_prompt
        self.seen: list[tuple[str | None, int]] = []

    def see(self, pictures: Sequence[Image.Image], prompt: str | None, **wanted: bool) -> Seen:
        if prompt is None and self.needs_prompt:
            raise BenchmarkError("directions needs a prompt: it is a test")
        numbers = [int(np.asarray(picture)[0, 0, 0]) for picture in pictures]
        self.seen += [(prompt, number) for number in numbers]
        turned = np.radians([DEGREES[prompt].get(number, 0) for number in numbers])
        return Seen(vectors=np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32) * 3)


def numbered(number: int) -> dict[str, object]:
    scene, thing, image_id = PICTURES[number]
    image = encoded(Image.new("RGB", (8, 8), (number, 0, 0)))
    return {"image": image, "scene": scene, "object": thing, "image_id": image_id, "prompt": f"the {thing}."}


def odd_rows() -> Content:
    """Rows that cannot count: no prompt, no picture, a damaged one, and one that is there already."""
    whole = numbered(4)
    return [
        {**whole, "image_id": "k9", "prompt": None},
        {**whole, "image_id": "k9", "scene": "  "},
        {**whole, "image_id": "k9", "image": None},
        {**whole, "image_id": "k9", "image": {"bytes": b"\x89PNG damaged", "path": "a.png"}},
        {**whole, "image": encoded(Image.new("RGB", (8, 8), (5, 0, 0)))},
    ]


def write_by_hand(folder: Path) -> Path:
    """The pictures above in the hub's layout, odd rows among them."""
    content = [numbered(number) for number in PICTURES]
    content[3] = {**content[3], "scene": " Kitchen "}
    odd = odd_rows()
    write_shards(folder, [*odd[:2], *content[:4], *odd[2:4], *content[4:], odd[4]])
    return folder


@pytest.fixture
def by_hand(tmp_path: Path) -> Path:
    return write_by_hand(tmp_path / "by-hand")


def test_figures_worked_out_by_hand(by_hand: Path) -> None:
    """Kitchen: of the mugs 1 finds the jug 4 (2 is its own source), 3 and 5 find each other; the jugs find each other.
    Park: 6 finds 9 and 8 finds 7, the balls find each other. So 4 of 5 and 2 of 4."""
    method = Directions()
    record = run(Core(k=2), method, lambda: Core().load(by_hand, None))
    assert record.benchmark == "core"
    metrics = record.metrics
    assert metrics["macro"] == 65.0  # (80 + 50) / 2
    assert metrics["micro"] == 66.67  # 6 / 9
    assert (
        metrics["macro_wrong_prompt"] == 40.0
    )  # mugs: 3 and 5 right, jugs both; in the park none: (80 + 0) / 2
    assert metrics["micro_wrong_prompt"] == 44.44  # 4 / 9
    assert metrics["macro_wrong_prompt_mean_of_all"] == 40.0  # there is only one other object
    assert metrics["macro_no_prompt"] == 35.0  # only 1, 6 and 9: (20 + 50) / 2
    assert metrics["micro_no_prompt"] == 33.33
    assert metrics["drop"] == 25.0
    assert metrics["macro_precision_at_2"] == 50.0  # each query finds one of two
    assert metrics["chance"] == 50.0  # kitchen (2/3 + 2/3 + 1/2 + 1/3 + 1/3) / 5
    kitchen, park = record.rows
    assert (kitchen["scene"], kitchen["pictures"], kitchen["sources"], kitchen["accuracy"]) == (
        "Kitchen",
        5,
        3,
        80.0,
    )
    assert (park["scene"], park["accuracy"], park["accuracy_wrong_prompt"]) == ("Park", 50.0, 0.0)
    assert record.data["n"] == 9
    assert record.data["source"] == "real"
    assert record.settings["left_out"] == 5
    low, high = record.intervals["macro"]
    assert low < 65.0 < high


def test_a_query_that_no_other_source_can_answer_is_left_out(by_hand: Path) -> None:
    """Without the jug 4 no source but k1 has one: 1, 3 and 5 remain, and all find a mug. The park is as before."""
    files = core_data.parquet_files(by_hand)
    for path in files:
        table = parquet.read_table(path)
        kept = [row for row in table.to_pylist() if (row["object"], row["image_id"]) != ("jug", "k2")]
        parquet.write_table(pa.Table.from_pylist(kept, schema=table.schema), path)
    record = run(Core(k=2), Directions(), lambda: Core().load(by_hand, None))
    assert record.settings["queries_left_out"] == 1
    kitchen = record.rows[0]
    assert (kitchen["pictures"], kitchen["queries"], kitchen["accuracy"]) == (4, 3, 100.0)
    assert (record.metrics["macro"], record.metrics["micro"]) == (75.0, 71.43)  # 3 of 3, 2 of 4; 5 of 7
    # 1 finds both mugs; 3 has 1, 2 and 5 to find: 5 and the jug; so has 5. In the park one of two each.
    assert record.metrics["macro_precision_at_2"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2, abs=0.01)
    assert record.metrics["micro_precision_at_2"] == pytest.approx(100 * (2 + 2) / 7, abs=0.01)
    assert record.metrics["chance"] == pytest.approx(100 * ((1 + 2 / 3 + 2 / 3) / 3 + 1 / 2) / 2, abs=0.01)


def test_precision_at_k_keeps_its_k(by_hand: Path) -> None:
    """A query of the park has two others to find, so at 3 the park has no precision; no scene has one at 5."""
    record = run(Core(k=3), Directions(), lambda: Core().load(by_hand, None))
    kitchen, park = record.rows
    assert park["precision_at_3"] is None
    assert kitchen["precision_at_3"] is not None or "macro_precision_at_3" not in record.metrics
    none = run(Core(k=5), Directions(), lambda: Core().load(by_hand, None))
    assert not [name for name in none.metrics if "precision" in name]
    assert none.metrics["macro"] == record.metrics["macro"]


def test_data_in_which_nothing_can_be_found_is_refused(tmp_path: Path) -> None:
    content = [numbered(number) for number in (1, 4, 6, 9)]  # each object once
    write_shards(tmp_path / "none", content)
    with pytest.raises(BenchmarkError, match="core: no object was added to two source photos of a scene"):
        Core().evaluate(Directions(), Core().load(tmp_path / "none", None))


def test_each_picture_is_seen_once_under_each_prompt_of_its_scene(by_hand: Path) -> None:
    method = Directions()
    first = run(Core(), method, lambda: Core().load(by_hand, None))
    seen = [pair for pair in method.seen if pair[1] in PICTURES]
    kitchen = {(prompt, n) for prompt in ("the mug.", "the jug.", None) for n in range(1, 6)}
    park = {(prompt, n) for prompt in ("the kite.", "the ball.", None) for n in range(6, 10)}
    assert sorted(seen, key=str) == sorted(kitchen | park, key=str)
    method.seen.clear()
    again = run(Core(k=1), method, lambda: Core().load(by_hand, None))
    assert [pair for pair in method.seen if pair[1] in PICTURES] == []
    assert again.metrics["macro"] == first.metrics["macro"]


def test_a_method_that_needs_a_prompt_is_not_asked_without(by_hand: Path) -> None:
    record = run(Core(), Directions(needs_prompt=True), lambda: Core().load(by_hand, None))
    assert record.metrics["macro"] == 65.0
    assert record.metrics["macro_no_prompt"] is None
    assert record.settings["no_prompt"] == "directions needs a prompt: it is a test"


def test_a_gallery_without_prompt(by_hand: Path) -> None:
    """Queries under their prompt among pictures without one; 1 (0 degrees) finds 3 (40) before 4 (41)."""
    method = Directions()
    method.gallery_takes_prompt = False
    record = run(Core(), method, lambda: Core().load(by_hand, None))
    # mugs at 0, 10, 13: 3 (hit), 2 (miss), 3 at 40 before 2 at 1 is 27 to 12: miss; jugs at 0, 5: 3, 2 (hit)
    assert record.rows[0]["accuracy"] == 40.0


def test_a_limit_takes_the_first_sources_of_each_scene(by_hand: Path) -> None:
    data = Core().load(by_hand, 2)
    assert [(scene.name, len(scene.rows)) for scene in data.scenes] == [("Kitchen", 4), ("Park", 4)]
    assert data.data_hash != Core().load(by_hand, None).data_hash
    with pytest.raises(BenchmarkError, match="Kitchen: all pictures come from one source photo"):
        Core().load(by_hand, 1)


# ------------------------------------------------------------------------------------------------ what is read


def test_rows_and_pictures_are_read_in_order(published_data: Path) -> None:
    files = core_data.parquet_files(published_data)
    assert [path.name for path in files] == ["test-00000-of-00002.parquet", "test-00001-of-00002.parquet"]
    data = core_data.load(published_data, None)
    read = [(row, scene.gallery.read(i)) for scene in data.scenes for i, row in enumerate(scene.rows)]
    assert [tuple(vars(row).values()) for row, _ in read] == [
        tuple(row[name] for name in core_data.COLUMNS) for row in rows()
    ]
    for row, image in read:
        base = int(row.image_id.rpartition("_")[2])
        assert image.tobytes() == picture(row.scene, base, row.object).tobytes()
    assert data.scenes[1].prompts == {"zebra": "the zebra.", "flag": "the flag.", "puddle": "the puddle."}


def test_pictures_of_other_kinds_are_kept_as_they_look(tmp_path: Path) -> None:
    content = rows()[:6]
    for row, kind in zip(content, ("JPEG", "WEBP", "BMP", "GIF", "TIFF", "PNG"), strict=True):
        row["image"] = encoded(Image.new("RGB", (9, 5), "teal"), kind)
    write_shards(tmp_path / "kinds", content)
    (scene,) = core_data.load(tmp_path / "kinds", None).scenes
    suffixes = [Path(file).suffix for file in scene.gallery.files]
    assert suffixes == [".jpg", ".webp", ".png", ".png", ".png", ".png"]
    teal = np.array([0, 128, 128])
    for i in range(6):
        assert np.abs(np.asarray(scene.gallery.read(i)).astype(int) - teal).max() < 6


def test_the_figures_are_those_of_the_protocol(
    published_data: Path, tiny_model: Path, word_encoder: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SteerViT, through the indexer, against the protocol written out query by query, a picture at a time."""
    monkeypatch.setattr(core_data, "ROWS_AT_ONCE", 5)  # batches that end within scenes and files
    model = Predictor.from_pretrained(tiny_model, device="cpu")
    found = run(Core(), SteerViTMethod(model), lambda: core_data.load(published_data, None))
    accuracy: dict[tuple[str, str], list[float]] = {}
    for scene, objects in SCENES.items():
        gallery = [
            (base, thing, picture(scene, base, thing)) for base in range(SOURCES[scene]) for thing in objects
        ]
        for steered in (*objects, None):
            prompt = None if steered is None else f"the {steered}."
            vectors = [model.embed([image], prompt)[0] for _, _, image in gallery]
            for target in objects:
                for i, (base, thing, _) in enumerate(gallery):
                    if thing != target:
                        continue
                    others = [j for j, (other, _, _) in enumerate(gallery) if other != base]
                    best = max(others, key=lambda j: float(torch.dot(vectors[i], vectors[j])))
                    case = "none" if steered is None else "right" if steered == target else "wrong"
                    accuracy.setdefault((scene, case), []).append(float(gallery[best][1] == target))
    means = {key: 100 * np.mean(values) for key, values in accuracy.items()}
    assert {row["scene"]: row["accuracy"] for row in found.rows} == pytest.approx(
        {scene: means[scene, "right"] for scene in SCENES}, abs=0.01
    )
    metrics = found.metrics
    for name, case in (("", "right"), ("_wrong_prompt_mean_of_all", "wrong"), ("_no_prompt", "none")):
        macro = np.mean([means[scene, case] for scene in SCENES])
        micro = 100 * np.mean([hit for scene in SCENES for hit in accuracy[scene, case]])
        assert metrics[f"macro{name}"] == pytest.approx(macro, abs=0.01)
        assert metrics[f"micro{name}"] == pytest.approx(micro, abs=0.01)
    assert found.data["n"] == 18
    assert 0 < metrics["micro"] < 100  # else this test could not tell right from wrong


def test_an_ablation_finds_the_same_though_it_sees_each_picture_once(
    published_data: Path, tiny_model: Path, word_encoder: None
) -> None:
    model = Predictor.from_pretrained(tiny_model, device="cpu")
    data = core_data.load(published_data, None)
    figures = figures_of(model.model, data)
    for kind in AGGREGATIONS:
        metrics = Core().evaluate(SteerViTMethod(model, aggregation=kind), data).metrics
        assert figures[f"{kind}/right"] == metrics["macro"]
        assert figures[f"{kind}/wrong"] == metrics["macro_wrong_prompt"]
        assert figures[f"{kind}/none"] == metrics["macro_no_prompt"]


def test_pictures_may_be_plain_bytes(tmp_path: Path) -> None:
    pictures = [b"one", None]
    parquet.write_table(pa.table({"image": pa.array(pictures, pa.binary())}), tmp_path / "test.parquet")
    assert list(core_data.read_images([tmp_path / "test.parquet"])) == pictures


def test_other_data_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match='holds no parquet file of the split "test"; it has 0 others'):
        core_data.parquet_files(tmp_path)
    write_shards(tmp_path / "latest", rows(), split="train")
    with pytest.raises(BenchmarkError, match="it has 2 others"):
        core_data.parquet_files(tmp_path)
    parquet.write_table(pa.table({"image": ["a"], "label": [1]}), tmp_path / "test.parquet")
    with pytest.raises(
        BenchmarkError, match=r"test\.parquet: lacks the columns scene, .*; it has image, label"
    ):
        core_data.read_rows([tmp_path / "test.parquet"])
    whole = (tmp_path / "test.parquet").read_bytes()
    (tmp_path / "test.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BenchmarkError, match=r"test\.parquet: damaged, or not a Parquet file"):
        core_data.read_rows([tmp_path / "test.parquet"])
    twice = [Row("Street", "flag", "1", "the flag."), Row("Street", "flag", "2", "a flag.")]
    with pytest.raises(BenchmarkError, match=r'Street, flag: two prompts, "the flag\." and "a flag\."'):
        check_rows(twice)
    with pytest.raises(BenchmarkError, match="no row that can be used"):
        check_rows([])


# --------------------------------------------------------------------------------------------------- the hub


def test_the_data_set_is_fetched_from_the_hub(
    published_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub_stand_in(monkeypatch, tmp_path / "cache") as server:
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        server.add_folder(f"datasets/{core_data.REPO}", published_data)
        server.add_folder(f"datasets/{core_data.REPO}", published_data / "data", below="data/")
        folder = core_data.fetch_core()
        server.requests.clear()
        assert core_data.fetch_core() == folder
        assert server.requests == []  # it is there
    assert [path.name for path in core_data.parquet_files(folder)] == sorted(
        os.listdir(published_data / "data")
    )
    assert len(core_data.read_rows(core_data.parquet_files(folder))) == 18
    assert not (folder / "README.md").exists()


def test_without_hub_and_data_it_says_how_to_get_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core_data, "why_unreachable", lambda: "the model hub does not answer")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(DataMissingError, match="the model hub does not answer") as missing:
        core_data.load(None, None)
    for words in ("JonaRuthardt/CORE", "licence:", "--data FOLDER", "steersearch bench core --world"):
        assert words in str(missing.value)
    with pytest.raises(DataMissingError, match=r"nowhere is not a folder"):
        core_data.load(tmp_path / "nowhere", None)


def test_the_papers_numbers_stand_beside_real_data_only(by_hand: Path) -> None:
    real = run(Core(), Directions(), lambda: Core().load(by_hand, None))
    assert published.beside(real) == {}
    named = {**vars(real), "model": "dinov2-base-research"}
    assert real.partial == ["5 rows left out"]
    assert published.beside(type(real)(**named)) == {}
    named["data"] = {name: value for name, value in real.data.items() if name != "partial"}
    assert published.beside(type(real)(**named)) == {"macro": 96.0, "macro_wrong_prompt": 47.7}
    assert published.beside_rows(type(real)(**named)) == {"Kitchen": 98.6, "Park": 93.0}
    assert published.beside(type(real)(**{**named, "model": "siglip-text"})) == {
        "macro": 38.3,
        "macro_wrong_prompt": 38.2,
    }
    generated = {**named, "data": {**real.data, "source": "generated stand-in"}}
    assert published.beside(type(real)(**generated)) == {}


def test_macro_means_of_the_papers_scenes_are_its_averages() -> None:
    for row, (macro, scenes) in published.CORE.items():
        assert np.mean([right for right, _ in scenes]) == pytest.approx(macro, abs=0.06), row


def test_figures_of_a_part_of_the_data_say_so(tmp_path: Path) -> None:
    write_shards(tmp_path, [numbered(number) for number in sorted(PICTURES)])
    whole = run(Core(), Directions(), lambda: Core().load(tmp_path, None))
    assert (whole.partial, "partial" in whole.data) == ([], False)
    gone = sorted((tmp_path / "data").iterdir())[-1]
    gone.unlink()
    for limit, more in ((None, []), (2, ["--limit 2"])):
        record = run(Core(), Directions(), lambda limit=limit: Core().load(tmp_path, limit), limit=limit)
        assert record.partial == [f"{gone.name} is missing", *more]
        assert comparison_table([record]).rows[0][0] == "directions (part of the data)"
        assert {row[6] for row in figures_table([record]).rows} == {"real, a part"}


@pytest.mark.hub
def test_core_of_the_papers_model_is_within_a_point_of_the_paper() -> None:
    """14,000 forward passes over 2,800 pictures: minutes on a GPU, hours without, so only with one."""
    assert "pytest" not in constants.HF_HUB_CACHE
    reason = hub.why_unreachable()
    if reason is not None:
        pytest.skip(reason)
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU: 14,000 forward passes of the base model")
    model = Predictor.from_pretrained("dinov2-base-research")
    found = run(Core(), SteerViTMethod(model), lambda: core_data.load(None, None))
    assert len(found.rows) == 6
    assert found.metrics["macro"] == pytest.approx(published.CORE["SteerViT"][0], abs=1.0)
