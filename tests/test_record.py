"""A record holds what is needed to repeat a measurement, and nothing of the machine's folders."""

import json
from pathlib import Path

from steersearch.benchmarks.record import Record


def test_a_record_is_saved_under_its_own_name(tmp_path: Path) -> None:
    record = Record.make("core-world/drawn", "runs/my model.safetensors", {"k": 1}, {"macro": 0.5}, 1.26)
    path = record.save(tmp_path)
    assert path.name.startswith("core-world-drawn_my model_")
    kept = json.loads(path.read_text())
    assert kept["metrics"] == {"macro": 0.5}
    assert kept["seconds"] == 1.3
    assert kept["machine"]["cores"] >= 1
    assert kept["versions"]["numpy"]
    assert str(Path.home()) not in path.read_text()
