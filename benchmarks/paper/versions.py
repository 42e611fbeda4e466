"""The versions of a model that claims compare: other pooling, other gate_scales, other training."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from steersearch.benchmarks.harness.method import Method
from steersearch.benchmarks.paper.claims import LATE, OUR_CLAIMS, PAPER_CLAIMS, TWIN, Figure

if TYPE_CHECKING:  # both import torch
    from steersearch.benchmarks.baselines.late_fusion import LateFusion
    from steersearch.benchmarks.harness.steervit_method import SteerViTMethod


def versions(
    benchmark: str, model: SteerViTMethod, twin: SteerViTMethod | None, fused: LateFusion | None
) -> list[Method]:
    """`model` itself, then all versions that claims about this benchmark compare.

    twin: the model trained with the paper's objective alone;  fused: one with late fusion.
    """
    found: dict[str, Method] = {model.name: model}
    for claims, trained in ((PAPER_CLAIMS, (model, twin)), (OUR_CLAIMS, (model,))):
        for claim in claims:
            if claim.benchmark.split("/")[0] != benchmark:
                continue
            for figure in (claim.more, claim.less):
                chosen = {"": trained, TWIN: (twin,), LATE: (fused,)}.get(figure.model, ())
                for version in (_version(one, figure) for one in chosen if one is not None):
                    found.setdefault(version.name, version)
    return list(found.values())


def _version(model: SteerViTMethod | LateFusion, figure: Figure) -> Method:
    if figure.model != LATE:
        model = cast("SteerViTMethod", model).at(figure.gate_scale)
    if figure.pooling is None:
        return model
    return model.pooled(model.paper_aggregation if figure.pooling == "paper" else figure.pooling)
