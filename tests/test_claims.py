"""The paper's findings judged by records whose verdicts are plain to see."""

from __future__ import annotations

from typing import Any

from steersearch.benchmarks.claims import CLAIMS, claims_table, verdicts
from steersearch.benchmarks.record import Record


def record(benchmark: str, model: str, metrics: dict[str, Any], **intervals: list[float]) -> Record:
    return Record.make(benchmark, model, {}, metrics, 1.0, intervals=intervals)


def answers(*records: Record) -> dict[str, str]:
    return {
        verdict.claim.says.partition(":")[2].strip(): verdict.answer for verdict in verdicts(records, "mini")
    }


def test_apart_is_holds_overlapping_is_not_clear_and_less_does_not_hold() -> None:
    metrics = {"macro": 84.0, "macro_wrong_prompt": 83.0, "macro_no_prompt": 42.0}
    found = answers(
        record("core-world/drawn", "mini", metrics, macro=[82.0, 86.0], macro_wrong_prompt=[81.0, 85.0],
               macro_no_prompt=[40.0, 44.0]),
        record("mosaic-world", "mini", {"ap": 10.0}, ap=[9.0, 11.0]),
        record("mosaic-world", "mini+gate0", {"ap": 12.0}, ap=[11.0, 13.0]),
    )  # fmt: skip
    assert found["steering finds what the frozen trunk does not"] == "holds"
    assert found["the right prompt makes the difference, a wrong one takes it away"] == "not clear"
    assert found["the attention of CLS goes to what the prompt names"] == "does not hold"
    late = found["text that meets the picture early does more than after the last block"]
    assert late == "not measured: needs a model trained with late fusion (bench all --late FILE)"
    assert (
        found["gate_scale 0.6 keeps 95 % of what 1.0 reaches"] == "not measured: no record of core at gate0.6"
    )
    assert found["steering beats the frozen trunk"].startswith("not measured: no record of genecis")


def test_a_share_and_late_fusion() -> None:
    steered = record("core-world/drawn", "mini", {"macro": 80.0}, macro=[78.0, 82.0])
    late = record("core-world/drawn", "late-fusion", {"macro": 70.0}, macro=[68.0, 72.0])
    for gentle, answer in ((76.0, "holds"), (75.9, "does not hold")):
        found = answers(steered, late, record("core-world/drawn", "mini+gate0.6", {"macro": gentle}))
        assert found["gate_scale 0.6 keeps 95 % of what 1.0 reaches"] == answer
        assert found["text that meets the picture early does more than after the last block"] == "holds"


def test_records_of_other_models_do_not_count() -> None:
    found = answers(record("core-world/drawn", "dinov2-small", {"macro": 80.0, "macro_no_prompt": 1.0}))
    assert (
        set(found.values()) - {answer for answer in found.values() if answer.startswith("not measured")}
        == set()
    )


def test_the_papers_figures_have_a_column_of_their_own() -> None:
    table = claims_table(verdicts([], "mini"))
    assert table.header[-1] == "paper, on the real data"
    assert len(table.rows) == len(CLAIMS)
    assert table.rows[0][-1] == "96.0 against 43.7"
    assert table.rows[0][2] == ""
