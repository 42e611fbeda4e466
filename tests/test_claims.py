"""The claims, the paper's and ours, judged by records whose verdicts are plain to see."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from steersearch.benchmarks.harness.catalogue import CARDS
from steersearch.benchmarks.harness.record import RESULTS, Record
from steersearch.benchmarks.paper.claims import (
    BEGIN,
    END,
    OUR_CLAIMS,
    PAPER_CLAIMS,
    Verdict,
    claims_tables,
    objective_of,
    verdicts,
    written_into,
)
from steersearch.core.errors import BenchmarkError
from steersearch.core.registry import MODELS, PackageFile

SHIPPED = cast(PackageFile, MODELS["mini"].weights).sha256
OPEN, WIDE_OPEN = [0.5, 0.6], [0.99, 0.98]
HALF, MOST = [100.0, 0.0] * 100, [100.0] * 150 + [0.0] * 50


def record(
    benchmark: str,
    model: str,
    answers: dict[str, Any],
    pooling: str = "cls",
    gate_scale: float = 1.0,
    gates: Sequence[float] = OPEN,
    weights: str = SHIPPED,
    date: str = "2026-12-01",
    **settings: Any,
) -> Record:
    """A record of a model whose own pooling is `focus` and the paper's `cls`."""
    about = {"aggregation": pooling, "paper_aggregation": "cls", "gates": list(gates)}
    made = Record.make(
        benchmark,
        model,
        {"method": {"gate_scale": gate_scale}, "model": about, **settings},
        {},
        1.0,
        weights_hash=weights,
        answers=answers,
    )
    return Record(**{**vars(made), "date": date})


def judged(claims: Sequence[Any], *records: Record, model: str = "mini") -> dict[str, Verdict]:
    return {v.claim.says.partition(": ")[2]: v for v in verdicts(claims, records, model)}


def answers_of(*records: Record, model: str = "mini") -> dict[str, str]:
    return {says: v.answer for says, v in judged(PAPER_CLAIMS, *records, model=model).items()}


STEERING = "steering finds what the unsteered backbone does not"
RIGHT = "the right prompt makes the difference, a wrong one takes it away"
EARLY = "text that meets the picture early beats text after the last block"
GENTLE = "gate_scale 0.6 keeps 95 % of what 1.0 reaches"
FOCUS = "`focus` finds more than the paper's pooling"


def test_three_outcomes_alike_in_both_directions() -> None:
    found = answers_of(
        record("core-world/drawn", "mini+cls", {"macro": MOST, "macro_no_prompt": HALF,
                                                "macro_wrong_prompt": [100.0] * 148 + [0.0] * 52}),
        record("genecis-world", "mini+cls", {"focus_object_r1": HALF, "focus_object_r1_no_prompt": MOST}),
    )  # fmt: skip
    assert found[STEERING] == "holds"
    assert found[RIGHT] == "not decided"  # two of 200 queries more
    assert found["steering beats the unsteered backbone"] == "does not hold"


def test_slightly_less_is_as_undecided_as_slightly_more() -> None:
    slightly = [*MOST[:-1], 100.0]
    for more, less in ((MOST, slightly), (slightly, MOST)):
        found = answers_of(record("core", "mini+cls", {"macro": more, "macro_no_prompt": less}))
        assert found[STEERING] == "not decided"


def test_answers_are_compared_in_pairs() -> None:
    """Each object a little better under one prompt: plain in pairs, lost in what the objects differ in."""
    hard = [float(score) for score in range(5, 85, 5)]
    easier = [score + 3 + score % 2 for score in hard]
    found = answers_of(record("pods-world", "mini+cls", {"pr_auc_description": easier, "pr_auc_name": hard}))
    assert found["a description of the object beats its name"] == "holds"


def test_the_papers_claims_are_tested_in_the_papers_pooling() -> None:
    own = record("core-world/drawn", "mini", {"macro": MOST, "macro_no_prompt": HALF}, pooling="focus")
    assert answers_of(own)[STEERING] == "awaits a record of core (bench all --save)"
    cls = record("core-world/drawn", "mini+cls", {"macro": HALF, "macro_no_prompt": HALF})
    assert answers_of(own, cls)[STEERING] == "not decided"
    found = {v.claim.says: v.answer for v in verdicts(OUR_CLAIMS, [own, cls], "mini")}
    assert found[f"CORE: {FOCUS}"] == "holds"


def test_what_we_add_is_tested_against_the_papers_objective() -> None:
    distilled = record("core-world/drawn", "mini+cls", {"macro": MOST})
    says = "object-alone distillation finds more than the paper's objective alone"
    awaits = "awaits a model trained with the paper's objective alone (bench all --paper FILE)"
    assert judged(OUR_CLAIMS, distilled)[says].answer == awaits
    for name in (
        "mini-paper+cls",
        "runs/mini-paper.safetensors+cls",
    ):  # of bench all, of bench core --model FILE
        twin = record("core-world/drawn", name, {"macro": HALF}, weights="ab" * 32)
        assert judged(OUR_CLAIMS, distilled, twin)[says].answer == "holds"


def test_the_papers_claims_stand_beside_each_objective() -> None:
    made = [
        record("core-world/drawn", model, {"macro": figure, "macro_no_prompt": HALF})
        for model, figure in (("mini+cls", MOST), ("mini-paper+cls", HALF))
    ]
    table = claims_tables(made, "mini")[0]
    steering = [row for row in table.rows if row[0].endswith(STEERING)]
    assert [(row[1], row[5]) for row in steering] == [
        ("the paper's", "not decided"),
        ("with distillation", "holds"),
    ]
    assert [row[1] for row in table.rows if "more than SAM3" in row[0]] == [
        "with distillation"
    ]  # both await it
    assert objective_of("dinov2-base") == "the paper's"
    assert objective_of("mine.safetensors") == "not stated"


def test_gates_that_hardly_change_decide_nothing() -> None:
    def kept(gates: Sequence[float], gentle: Sequence[float]) -> str:
        return answers_of(
            record("core", "mini+cls", {"macro": MOST}, gates=gates),
            record("core", "mini+gate0.6+cls", {"macro": MOST}, gate_scale=0.6, gates=gentle),
        )[GENTLE]

    assert kept(WIDE_OPEN, [0.93, 0.92]) == "not tested: the gates hardly differ (0.93 and 0.98)"
    assert kept(WIDE_OPEN, OPEN) == "holds"


def test_a_share_is_missed_only_where_that_is_sure() -> None:
    full = record("core", "mini+cls", {"macro": MOST})
    for right, answer in ((150, "holds"), (143, "not decided"), (120, "does not hold")):
        gentle = [100.0] * right + [0.0] * (200 - right)
        found = answers_of(full, record("core", "mini+gate0.6+cls", {"macro": gentle}, gate_scale=0.6,
                                        gates=[0.2, 0.3]))  # fmt: skip
        assert found[GENTLE] == answer


def test_attention_of_cls_is_not_mistaken_for_a_heads_map() -> None:
    def seen(which: str) -> str:
        return answers_of(
            record("mosaic-world", "mini", {"ap": MOST}, map=which),
            record("mosaic-world", "mini+gate0", {"ap": HALF}, gate_scale=0.0, gates=[0.0], map=which),
        )["the attention of CLS goes to what the prompt names"]

    assert seen("attention of CLS") == "holds"
    assert seen("score map of the head").startswith("not tested: measured was the score map of the head")


def test_late_fusion_is_compared_in_the_same_pooling() -> None:
    early = record("core-world/drawn", "mini-paper+cls", {"macro": MOST})
    late = record("core-world/drawn", "late-fusion", {"macro": MOST}, pooling="focus")
    awaits = "awaits a model trained with late fusion (bench all --late FILE)"
    assert answers_of(early, late, model="mini-paper")[EARLY] == awaits
    late = record("core-world/drawn", "late-fusion+cls", {"macro": HALF}, weights="cd" * 32)
    assert answers_of(early, late, model="mini-paper")[EARLY] == "holds"
    distilled = record("core-world/drawn", "mini+cls", {"macro": MOST})
    assert answers_of(distilled, late)[EARLY].endswith("so two things differ")


def test_a_baseline_is_compared_where_it_was_measured() -> None:
    maps = record("anomaly/mvtec", "mini", {"pro": [80.0, 82.0, 90.0, 75.0]}, pooling="focus")
    says = "words for damage find it better than CLIPSeg does"
    assert answers_of(maps)[says] == "awaits a record of clipseg (bench anomaly --method clipseg --save)"
    theirs = record("anomaly/mvtec", "clipseg", {"pro": [30.0, 42.0, 50.0, 35.0]})
    assert [v.answer for v in verdicts(PAPER_CLAIMS, [maps, theirs], "mini") if "MVTec" in v.claim.says] == [
        "holds"
    ]


def test_figures_of_different_data_are_never_compared() -> None:
    full = record("core-world/stamps", "mini+cls", {"macro": MOST, "macro_no_prompt": MOST})
    gentle = record("core-world/drawn", "mini+gate0.6+cls", {"macro": MOST}, gate_scale=0.6, gates=[0.2])
    drawn = record("core-world/drawn", "mini+cls", {"macro": MOST, "macro_no_prompt": HALF})
    assert answers_of(full, gentle)[GENTLE] == "not tested: each was measured on other data"
    found = {
        (v.claim.says, v.benchmark): v.answer for v in verdicts(PAPER_CLAIMS, [full, gentle, drawn], "mini")
    }
    assert found[f"CORE: {STEERING}", "core-world/drawn"] == "holds"
    assert found[f"CORE: {STEERING}", "core-world/stamps"] == "not decided"
    assert found[f"CORE: {GENTLE}", "core-world/drawn"] == "holds"
    assert (f"CORE: {GENTLE}", "core-world/stamps") not in found


def test_records_of_other_weights_or_without_answers_do_not_count() -> None:
    other = record(
        "core", "mini+cls", {"macro": MOST, "macro_no_prompt": HALF}, weights="ef" * 32, date="2027-01-01"
    )
    silent = record("core", "mini+cls", {})
    assert set(answers_of(other, silent).values()) == set(answers_of().values())
    tested = [
        record("core", "mine+cls", {"macro": figure, "macro_no_prompt": HALF}, weights=weights, date=date)
        for figure, weights, date in ((MOST, "12" * 32, "2026-12-02"), (HALF, "34" * 32, "2026-12-01"))
    ]
    assert answers_of(*tested, model="mine")[STEERING] == "holds"  # by the newest weights


def test_a_map_is_judged_by_the_prompts_of_its_data() -> None:
    answers = {
        "group_none": [0.1] * 30, "group_vehicle": [0.2, 0.1, 0.3] * 10,
        "class_none": [0.5, 0.6] * 15, "class_car": [0.3, 0.5] * 15,
    }  # fmt: skip
    made = record("embedding-map-world", "mini+cls", answers, prompts=["none", "vehicle", "car", "striped"])
    found = judged(PAPER_CLAIMS, made)
    assert found["the prompt of a group separates it from the rest"].answer == "holds"
    assert found["the prompt of a class draws it together"].answer == "does not hold"
    row = next(row for row in claims_tables([made], "mini")[0].rows if row[3] == "0.20 against 0.10")
    assert row[4].startswith("+0.10 (+0.0")
    assert row[6:] == ("shown, no figure", made.name)


def test_every_benchmark_of_the_paper_has_a_claim_and_none_that_it_does_not_make() -> None:
    claims = {claim.benchmark.split("/")[0] for claim in (*PAPER_CLAIMS, *OUR_CLAIMS)}
    assert claims == {card.name for card in CARDS.values() if card.module.startswith("paper.")}
    for claim in PAPER_CLAIMS:
        assert claim.paper is not None or claim.benchmark == "embedding-map"
        assert "focus" not in (claim.more.pooling, claim.less.pooling)
    heads = [claim for claim in PAPER_CLAIMS if claim.benchmark.split("/")[0] in ("anomaly", "refcocog")]
    assert 0.0 not in [claim.less.gate_scale for claim in heads]  # no head on features it was not trained on


def test_tables_are_written_between_their_marks() -> None:
    tables = claims_tables([], "mini")
    before = f"# Title\n\n{BEGIN}\nold\n{END}\n\nthe end\n"
    once = written_into(before, tables)
    assert written_into(once, tables) == once
    assert once.startswith(f"# Title\n\n{BEGIN}\n\n### What the paper claims")
    assert once.endswith(f"{END}\n\nthe end\n")
    assert "old" not in once
    with pytest.raises(BenchmarkError, match="no line"):
        written_into("# Title\n", tables)


def test_the_tables_in_the_docs_are_those_of_the_records() -> None:
    document = Path(__file__).parents[1] / "docs" / "benchmarks.md"
    records = [Record.read(path) for path in sorted(RESULTS.glob("*.json"))]
    text = document.read_text(encoding="utf-8")
    again = "python -m steersearch.benchmarks.paper.claims --into docs/benchmarks.md"
    assert text == written_into(text, claims_tables(records, "mini")), f"make them again: {again}"
