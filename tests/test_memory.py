"""The files that the memory benchmark writes are taken for fetched and checked ones, as after a user's first run."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from steersearch.benchmarks.engineering import memory
from steersearch.core import files, hub
from steersearch.core.registry import MODELS, HubFile


@pytest.mark.parametrize("revision", ["main", "4685c99dabffe5affac90bd99dbffd25801ae58d"])
def test_a_placed_file_counts_as_fetched_and_checked(
    revision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(files, "WORTH_REMEMBERING", 0)  # so that a small file stands for a large one
    published = MODELS["dinov2-base"].weights
    assert isinstance(published, HubFile)
    file = replace(published, revision=revision)
    memory._place(file, lambda path: path.write_bytes(b"not the published weights") and None)
    assert hub.fetch(file).read_bytes() == b"not the published weights"


@pytest.mark.slow
def test_a_small_model_stays_small_and_its_text_encoder_on_the_disk() -> None:
    record = memory.measure("dinov2-small", photos=2, width=800)
    peaks = record.metrics["peak_memory_bytes_after"]
    stages = list(peaks.values())  # the kernel's own counts lag by some pages
    assert all(before < after + 1e6 for before, after in itertools.pairwise(stages))
    assert record.metrics["peak_memory_bytes"] == max(peaks.values()) < 1.2e9
