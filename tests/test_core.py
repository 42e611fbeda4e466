"""CORE on data in its published layout: what is read, and that the figures are those of the protocol."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from huggingface_hub import constants  # here, before a test's folders take the place of the user's
from PIL import Image

from steersearch.benchmarks import core
from steersearch.core import hub
from steersearch.core.errors import BenchmarkError
from steersearch.core.steervit import SteerViT
from tests.hub_server import hub_stand_in

SCENES = {"Kitchen": ("olive oil", "fruit bowl", "towel"), "Street": ("zebra", "flag", "puddle")}
BASES = {"Kitchen": 4, "Street": 2}  # as in CORE, scenes need not be equally large
FEATURES = {name: {"dtype": "string", "_type": "Value"} for name in core.COLUMNS}


def picture(scene: str, base: int, thing: str, seed: int) -> Image.Image:
    """Noise that mostly says which base it is, with a stripe that says which object."""
    rng = np.random.default_rng([len(scene), base])
    pixels = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    stripe = np.random.default_rng([seed, len(thing)]).integers(0, 256, (14, 64, 3), dtype=np.uint8)
    pixels[:14] = stripe
    return Image.fromarray(pixels)


def rows() -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for scene, objects in SCENES.items():
        for base in range(BASES[scene]):
            for thing in objects:
                encoded = io.BytesIO()
                picture(scene, base, thing, seed=7).save(encoded, "PNG")
                found.append(
                    {
                        "image": {"bytes": encoded.getvalue(), "path": None},
                        "scene": scene,
                        "object": thing,
                        "image_id": f"{scene}_{base:04d}",
                        "prompt": f"the {thing}.",
                    }
                )
    return found


def write_shards(folder: Path, content: list[dict[str, object]], split: str = "test") -> None:
    """Parquet as the library `datasets` writes and publishes it, in two files."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    described = {"info": {"features": {"image": {"_type": "Image"}, **FEATURES}}}
    schema = pa.schema([("image", image), *((name, pa.string()) for name in core.COLUMNS)])
    schema = schema.with_metadata({"huggingface": json.dumps(described)})
    (folder / "data").mkdir(parents=True)
    half = len(content) // 2 + 1  # the second scene begins in the first file
    for number, part in enumerate((content[:half], content[half:])):
        table = pa.Table.from_pylist(part, schema=schema)
        parquet.write_table(table, folder / "data" / f"{split}-{number:05d}-of-00002.parquet")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    write_shards(tmp_path / "CORE", rows())
    (tmp_path / "CORE" / "README.md").write_text("a data set")
    return tmp_path / "CORE"


def test_rows_and_pictures_are_read_in_order(published: Path) -> None:
    files = core.parquet_files(published)
    assert [path.name for path in files] == ["test-00000-of-00002.parquet", "test-00001-of-00002.parquet"]
    read = core.read_rows(files)
    assert [(r.scene, r.object, r.image_id, r.prompt) for r in read] == [
        tuple(row[name] for name in core.COLUMNS) for row in rows()
    ]
    for row, image in zip(read, core.read_images(files), strict=True):
        base = int(row.image_id.rpartition("_")[2])
        assert image.tobytes() == picture(row.scene, base, row.object, seed=7).tobytes()
    assert core.prompts_of(read)["Street"] == {
        "zebra": "the zebra.",
        "flag": "the flag.",
        "puddle": "the puddle.",
    }


def test_the_figures_are_those_of_the_protocol(
    published: Path, tiny_model: Path, word_encoder: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the protocol written out query by query, with embeddings made one at a time."""
    monkeypatch.setattr(core, "ROWS_AT_ONCE", 5)  # batches that end within scenes and files
    model = SteerViT.from_pretrained(tiny_model, device="cpu")
    found = core.evaluate(model, published)
    accuracy: dict[tuple[str, bool], list[float]] = {}
    for scene, objects in SCENES.items():
        gallery = [
            (base, thing, picture(scene, base, thing, seed=7))
            for base in range(BASES[scene])
            for thing in objects
        ]
        for steered in objects:
            vectors = [model.embed([image], f"the {steered}.")[0] for _, _, image in gallery]
            for target in objects:
                for i, (base, thing, _) in enumerate(gallery):
                    if thing != target:
                        continue
                    others = [j for j, (other, _, _) in enumerate(gallery) if other != base]
                    best = max(others, key=lambda j: float(torch.dot(vectors[i], vectors[j])))
                    hit = float(gallery[best][1] == target)
                    accuracy.setdefault((scene, steered == target), []).append(hit)
    scenes = {scene: 100 * np.mean(accuracy[scene, True]) for scene in SCENES}
    assert found["scenes"] == pytest.approx(scenes, abs=0.01)
    assert found["right/macro"] == pytest.approx(np.mean(list(scenes.values())), abs=0.01)
    everything = [hit for scene in SCENES for hit in accuracy[scene, True]]
    assert found["right/micro"] == pytest.approx(100 * np.mean(everything), abs=0.01)
    wrong = [100 * np.mean(accuracy[scene, False]) for scene in SCENES]
    assert found["wrong/macro"] == pytest.approx(np.mean(wrong), abs=0.01)
    assert found["pictures"] == 18
    assert 0 < found["right/micro"] < 100  # else this test could not tell right from wrong


def test_other_data_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match='holds no parquet file of the split "test"; it has 0 others'):
        core.parquet_files(tmp_path)
    write_shards(tmp_path / "latest", rows(), split="train")
    with pytest.raises(BenchmarkError, match="it has 2 others"):
        core.parquet_files(tmp_path)
    parquet.write_table(pa.table({"image": ["a"], "label": [1]}), tmp_path / "test.parquet")
    with pytest.raises(
        BenchmarkError, match=r"test\.parquet: lacks the columns scene, .*; it has image, label"
    ):
        core.read_rows([tmp_path / "test.parquet"])
    twice = [core.Row("Street", "flag", "1", "the flag."), core.Row("Street", "flag", "2", "a flag.")]
    with pytest.raises(BenchmarkError, match=r'Street, flag: two prompts, "the flag\." and "a flag\."'):
        core.prompts_of(twice)


def test_the_data_set_is_fetched_from_the_hub(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub_stand_in(monkeypatch, tmp_path / "cache") as server:
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        server.add_folder(f"datasets/{core.REPO}", published)
        server.add_folder(f"datasets/{core.REPO}", published / "data", below="data/")
        folder = core.fetch_core()
    assert [path.name for path in core.parquet_files(folder)] == sorted(os.listdir(published / "data"))
    assert len(core.read_rows(core.parquet_files(folder))) == 18
    assert not (folder / "README.md").exists()


@pytest.mark.hub
def test_core_of_the_papers_model_is_within_a_point_of_the_paper() -> None:
    """14,000 forward passes over 2,800 pictures: minutes on a GPU, hours without, so only with one."""
    assert "pytest" not in constants.HF_HUB_CACHE
    reason = hub.why_unreachable()
    if reason is not None:
        pytest.skip(reason)
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU: 14,000 forward passes of the base model")
    model = SteerViT.from_pretrained("dinov2-base-research")
    found = core.evaluate(model, core.fetch_core())
    assert len(found["scenes"]) == 6
    assert found["right/macro"] == pytest.approx(core.PAPER["dinov2-base-research"], abs=1.0)
