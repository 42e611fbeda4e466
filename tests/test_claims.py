"""The paper's findings judged by records whose verdicts are plain to see."""

from __future__ import annotations

from typing import Any

from steersearch.benchmarks.harness.catalogue import CARDS
from steersearch.benchmarks.harness.record import Record
from steersearch.benchmarks.paper.claims import CLAIMS, LATE, claims_table, verdicts
from steersearch.cli.bench.all import AT_OTHER_SCALES, WITH_LATE_FUSION


def record(benchmark: str, model: str, metrics: dict[str, Any], **intervals: list[float]) -> Record:
    return Record.make(benchmark, model, {}, metrics, 1.0, weights_hash=None, intervals=intervals)


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


def test_figures_of_different_data_are_never_compared() -> None:
    drawn = record("core-world/drawn", "mini", {"macro": 80.0, "macro_no_prompt": 40.0}, macro=[78.0, 82.0])
    stamps = record("core-world/stamps", "mini", {"macro": 90.0, "macro_no_prompt": 95.0})
    gentle = record("core-world/drawn", "mini+gate0.6", {"macro": 77.0})
    found = {(v.claim.says, v.benchmark): v for v in verdicts([stamps, drawn, gentle], "mini")}
    kept = found["CORE: gate_scale 0.6 keeps 95 % of what 1.0 reaches", "core-world/drawn"]
    assert (kept.answer, kept.more, kept.less) == ("holds", 77.0, 80.0)
    steering = "CORE: steering finds what the frozen trunk does not"
    assert found[steering, "core-world/drawn"].answer == "not clear"
    assert found[steering, "core-world/stamps"].answer == "does not hold"
    apart = [record("core-world/stamps", "mini", {"macro": 80.0}), gentle]
    (unmeasured,) = [v for v in verdicts(apart, "mini") if v.claim.says == kept.claim.says]
    assert unmeasured.answer == "not measured: each on other data"


def test_figures_without_intervals_are_not_clear() -> None:
    found = answers(
        record("quality-world", "mini", {"quality": 60.0}, quality=[59.0, 61.0]),
        record("quality-world", "mini+gate0", {"quality": 64.0}, quality=[63.0, 65.0]),
        record("quality-world", "mini+gate0.6", {"quality": 70.0}),
        record(
            "quality/gates", "mini", {"quality_gate0": 64.0}
        ),  # of a sweep: says nothing of the model as it is
    )
    assert found["features at gate_scale 0.6 say more of the picture than at 1.0"] == "not clear"
    assert found["features at gate_scale 0.6 say more of the picture than the frozen trunk's"] == "not clear"
    assert (
        found["features at gate_scale 1.0 keep 95 % of what the frozen trunk's say"] == "does not hold"
    )  # 60.8


def test_a_map_is_judged_by_the_prompts_of_its_data() -> None:
    prompts = ["none", "vehicle", "car", "striped"]
    metrics = {
        "group_none": 0.15,
        "group_vehicle": 0.21,
        "class_none": 0.5,
        "class_car": 0.4,
        "class_striped": 0.9,
    }
    intervals = {"group_none": [0.14, 0.16], "group_vehicle": [0.2, 0.22]}
    made = Record.make(
        "embedding-map-world",
        "mini",
        {"prompts": prompts},
        metrics,
        1.0,
        weights_hash=None,
        intervals=intervals,
    )
    assert answers(made)["the prompt of a group parts it from the rest"] == "holds"
    assert answers(made)["the prompt of a class draws it together"] == "does not hold"
    rows = claims_table(verdicts([made], "mini")).rows
    assert ("embedding-map-world", "0.21 against 0.15", "holds", "shown, no figure") in [
        row[1:] for row in rows
    ]


def test_what_the_frozen_trunk_reaches_without_the_words() -> None:
    found = answers(
        record("anomaly/mvtec", "mini", {"pro": 82.0}, pro=[70.0, 90.0]),
        record("anomaly/mvtec", "mini+gate0", {"pro": 68.0}, pro=[40.0, 80.0]),
        record("refcocog-world", "mini", {"mean_iou": 52.0}, mean_iou=[50.0, 54.0]),
        record("refcocog-world", "mini+gate0", {"mean_iou": 20.0}, mean_iou=[18.0, 22.0]),
    )
    assert found["phrases for damage find it better than the frozen trunk's map"] == "not clear"
    assert found["the heatmap covers what a sentence refers to, the frozen trunk's less"] == "holds"


def test_every_benchmark_of_the_paper_has_a_claim() -> None:
    assert {claim.benchmark for claim in CLAIMS} == {
        card.name for card in CARDS.values() if card.data is not None and card.name != "photographs"
    }


def test_all_measures_every_version_that_a_claim_is_about() -> None:
    for claim in CLAIMS:
        for figure in (claim.more, claim.less):
            if figure.version == LATE:
                assert claim.benchmark in WITH_LATE_FUSION
            elif figure.version:
                assert float(figure.version.removeprefix("+gate")) in AT_OTHER_SCALES[claim.benchmark]


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
    assert "82.1 against –" in [row[-1] for row in table.rows]


def test_late_fusion_is_not_compared_with_itself() -> None:
    named = {verdict.claim.says for verdict in verdicts([], "mini")} - {
        v.claim.says for v in verdicts([], LATE)
    }
    assert named == {claim.says for claim in CLAIMS if "after the last block" in claim.says} != set()
