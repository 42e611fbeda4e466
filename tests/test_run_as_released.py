"""The preset `release` on the authors' own set, in small: what it trains and validates on, and what comes out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steersearch.core.backbone import timm_preprocess
from steersearch.core.checkpoints import load_file, write_released_pth
from steersearch.core.errors import ConfigError, DataError
from steersearch.training import preparation
from steersearch.training.journal import read_journal
from steersearch.training.recipe import PAPER, RELEASE, Recipe
from steersearch.training.run import train_recipe
from steersearch.training.settings import apply_settings
from tests.hub_server import HubServer, hub_stand_in
from tests.published import box_mask, png, put_parquet, put_picture
from tests.released_stand_in import RESOLUTION, TEXT_DIM, TRUNK, publish

pytest.importorskip("accelerate")

NOTHING = np.zeros((40, 60), np.bool_)


def put_hub_set(root: Path) -> Path:
    """Four rows to train on and five to validate on, of two data sets; one of these has an empty mask."""
    put_picture(root / "coco/train2014/COCO_train2014_000000000001.jpg")
    put_picture(root / "visual_genome/VG_100K/7.jpg", orientation=3)

    def row(image_id: str, dataset: str, said: str, mask: np.ndarray) -> dict[str, object]:
        return {"image_id": image_id, "mask": png(mask), "referential_expression": said, "dataset": dataset}

    coco, genome = ("COCO_train2014_000000000001", "refcoco"), ("7", "visual genome")
    thing = box_mask(5, 5, 45, 30)
    train = [row(*coco, f"a {n}", thing) for n in "bc"] + [row(*genome, f" the  {n}", thing) for n in "de"]
    held = [row(*coco, "a cat", thing), row(*coco, "no dog", NOTHING)]
    held += [row(*genome, n, thing) for n in ("a b", "a  b", "x")]
    put_parquet(root / "data/train-00000-of-00001.parquet", train)
    put_parquet(root / "data/validation-00000-of-00001.parquet", held)
    return root


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with hub_stand_in(monkeypatch, tmp_path / "cache") as server:
        publish(server, monkeypatch)
        yield server


def small(recipe: Recipe, data: Path, *more: str) -> Recipe:
    settings = (
        f"model.trunk={TRUNK}", f"model.resolution={RESOLUTION}", f"model.connector_hidden={TEXT_DIM}",
        f"data.train={data}", "data.workers=0", "optimiser.steps=2", "optimiser.batch=4", "run.log_every=1",
        "run.tensorboard=false",
    )  # fmt: skip
    return apply_settings(recipe, [*settings, *more])


def trained(recipe: Recipe, folder: Path) -> tuple[Path, list[str], dict[str, float]]:
    """The model's file, what was said, and the last validation."""
    said: list[str] = []
    file = train_recipe(recipe, folder, resume=False, device="cpu", say=said.append)
    lines = read_journal(folder)
    return file, said, next(line["values"] for line in reversed(lines) if line["kind"] == "validation")


def test_the_authors_set_is_trained_and_validated_on_as_they_do(
    hub: HubServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = put_hub_set(tmp_path / "set")
    file, said, found = trained(small(RELEASE, data), tmp_path / "run")
    assert "steervit: validates on 5 of 5 rows" in said
    assert found["rows"] == 5  # the empty mask counts
    assert {"pmass", "pmass/refcoco", "pmass/visual genome"} <= set(found)
    by_set = (2 * found["pmass/refcoco"] + 3 * found["pmass/visual genome"]) / 5
    assert found["pmass"] == pytest.approx(by_set)
    (store,) = (tmp_path / "run/data/text").iterdir()
    assert store.name.endswith("-float32")
    model = load_file(file, device="cpu")
    assert model.config.preprocess == timm_preprocess(TRUNK, RESOLUTION)  # as `bench core` then crops
    with caplog.at_level(logging.WARNING):
        write_released_pth(model, tmp_path / "model.pth")
    assert caplog.text == ""


def test_the_paper_skips_empty_masks_and_reads_what_a_viewer_shows(hub: HubServer, tmp_path: Path) -> None:
    data = put_hub_set(tmp_path / "set")
    _, said, found = trained(
        small(PAPER, data, "optimiser.warmup=1", "data.validation_rows=4"), tmp_path / "run"
    )
    assert "steervit: validates on 4 of 5 rows" in said  # those of the split, evenly spread
    assert found["rows"] == 3


def test_pictures_are_as_the_preset_says(tmp_path: Path) -> None:
    data = put_hub_set(tmp_path / "set")
    for recipe, stored in ((RELEASE, True), (PAPER, False)):
        (source,), _ = preparation.open_sources(
            apply_settings(recipe, [f"data.train={data}"]), lambda line: None
        )
        picture = np.asarray(source.picture(2))
        as_stored = np.asarray(Image.open(source.row(2).image))
        assert np.array_equal(picture, as_stored if stored else np.rot90(as_stored, 2))
        assert np.array_equal(source[2].mask, box_mask(5, 5, 45, 30) if stored else box_mask(15, 10, 55, 35))
        assert source[2].expression == (" the  d" if stored else "the d")


def test_without_a_validation_split_it_is_said_what_is_held_back(tmp_path: Path) -> None:
    data = put_hub_set(tmp_path / "set")
    (data / "data/validation-00000-of-00001.parquet").unlink()
    said: list[str] = []
    (training,), (held,) = preparation.open_sources(
        apply_settings(RELEASE, [f"data.train={data}"]), said.append
    )
    assert (len(training), len(held)) == (2, 2)
    assert said == [
        f'{data} has no split "val": 2 of its rows are held back to validate on, and not trained on'
    ]


def test_a_damaged_validation_split_is_no_missing_one(tmp_path: Path) -> None:
    data = put_hub_set(tmp_path / "set")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"caption": ["x"]}), data / "data/validation-00000-of-00001.parquet")
    with pytest.raises(DataError, match="it has no column image_id"):
        preparation.open_sources(apply_settings(RELEASE, [f"data.train={data}"]), lambda line: None)


def test_a_composed_world_needs_a_number_of_pictures_to_validate_on() -> None:
    with pytest.raises(ConfigError, match=r"data\.validation_rows"):
        apply_settings(PAPER, ["data.cache_pictures=true", "data.validation_rows=0"])
