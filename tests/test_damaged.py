from __future__ import annotations

import pytest

from steersearch.benchmarks.engineering.damaged import FAULTS, GOOD, measure


@pytest.mark.slow
def test_sixty_damaged_files_crash_nothing_and_are_each_counted_once() -> None:
    record = measure(60, 7)
    metrics = record.metrics
    assert metrics["files"] == 60 + GOOD
    assert metrics["skipped"] >= 15
    assert {row["fault"] for row in record.rows} == set(FAULTS)
    assert sum(row["files"] for row in record.rows) == 60
