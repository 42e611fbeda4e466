"""The benchmark of `index` against the model alone: its ratios are those of its own seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from steersearch.benchmarks.engineering.pipeline import ShapedEmbedder, encoded_scenes, measure, write_photos
from steersearch.benchmarks.engineering.speed import Settings, named_model


def test_ratios_follow_from_the_seconds() -> None:
    record = measure("mini", 6, 2, "0.2 MP")
    assert record.settings["photos"] == 6
    assert [(row["prompts"], row["regions"]) for row in record.rows] == [(1, False), (1, True), (0, True)]
    for row in record.rows:
        stages, reading = row["ms_per_photo"], row["reading_processor_ms_per_photo"]
        assert 0 < row["ratio_range"][0] <= row["ratio"] <= row["ratio_range"][1]
        processor = stages["model_processor"]
        assert row["ratio_bound"] == pytest.approx(processor / (processor + reading), abs=1e-3)
        assert row["photos_per_second"] == pytest.approx(1000 / stages["index_seconds"], rel=0.01, abs=0.051)
    assert record.metrics["0.2 MP: index / model"] == record.rows[0]["ratio"]


def test_each_photo_is_another_content(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", encoded_scenes((64, 48)), 8, "salt")
    contents = [path.read_bytes() for path in (tmp_path / "photos").iterdir()]
    assert len(set(contents)) == 8


def test_a_model_by_its_shape_needs_no_text_encoder() -> None:
    embedder = ShapedEmbedder(named_model(Settings(model="dinov2-small", resolution=28)))
    assert embedder.encode_prompt("the red mug").tokens.shape == (5, 1024)
