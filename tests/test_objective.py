"""The terms of the loss against their equations, and the optimiser's groups and schedule against the recipes."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from steersearch.core.steervit import Features
from steersearch.core.text import PromptFeatures
from steersearch.training.batch import Alone, Batch, Keyed
from steersearch.training.objective import Objective, measure
from steersearch.training.optimiser import build_optimisers, learning_rate, set_learning_rate
from steersearch.training.recipe import PAPER, RELEASE, ObjectiveSettings, OptimiserSettings
from tests.small_models import small_model

GRID = (4, 4)


def a_batch(size: int, alone: Alone | Keyed | None = None, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    cover = torch.rand(size, 16, generator=g) * (torch.rand(size, 16, generator=g) > 0.6)
    cover[0] = 0
    centre = torch.rand(size, 2, generator=g) * 4
    centre[0] = math.nan
    prompts = PromptFeatures(torch.zeros(size, 1, 8), torch.ones(size, 1, dtype=torch.bool))
    return Batch(
        torch.zeros(size, 3, 32, 32), prompts, cover, centre, torch.zeros(size, dtype=torch.long), alone
    )


def some_features(size: int, dim: int, seed: int = 1) -> Features:
    g = torch.Generator().manual_seed(seed)
    tensors = (torch.randn(size, n, dim, generator=g) for n in (1, 16))
    prefix, patches = tensors
    return Features(prefix=prefix, patches=patches, logits=torch.randn(size, 16, generator=g), grid=GRID)


def test_the_papers_objective_is_cross_entropy_over_the_pictures_that_show_the_thing() -> None:
    model = small_model("tiny")
    batch, found = a_batch(5), some_features(5, model.dim)
    terms = Objective(ObjectiveSettings(), model)(found, batch)
    assert list(terms) == ["segmentation"]
    expected = 0.0
    for logits, cover in list(zip(found.logits, batch.cover, strict=True))[1:]:
        p, y = logits.double().softmax(0), cover.double() / cover.double().sum()
        expected -= float((y * p.log()).sum())
    assert terms["segmentation"].total.item() == pytest.approx(expected, rel=1e-5)
    assert terms["segmentation"].count.item() == 4


def test_things_are_distinguished_by_keys_made_beforehand() -> None:
    model = small_model("tiny")
    keys = F.normalize(torch.randn(7, model.dim, generator=torch.Generator().manual_seed(2)), dim=-1)
    excluded = torch.zeros(4, 7, dtype=torch.bool)
    excluded[0, 3] = True
    things = torch.tensor([2, -1, 6, 0])  # the second means several, the third nothing
    settings = ObjectiveSettings(alone_cls=2.0)
    batch, found = a_batch(4, Keyed(things, excluded)), some_features(4, model.dim)
    term = Objective(settings, model, {"cls": keys})(found, batch)["alone_cls"]
    expected = 0.0
    for i in (0, 2, 3):
        score = F.normalize(found.prefix[i, 0], dim=0) @ keys.T / 0.1
        score[excluded[i]] = -math.inf
        expected -= float(score.log_softmax(0)[things[i]])
    assert (term.weight, term.count.item()) == (2.0, 3)
    assert term.total.item() == pytest.approx(expected, rel=1e-4)


def test_the_cosine_needs_only_its_own_key() -> None:
    model = small_model("tiny")
    keys = F.normalize(torch.randn(3, model.dim), dim=-1)
    batch = a_batch(2, Keyed(torch.tensor([0, 2]), torch.zeros(2, 3, dtype=torch.bool)))
    found = some_features(2, model.dim)
    settings = ObjectiveSettings(alone_mean=1.0, distillation="cosine")
    term = Objective(settings, model, {"mean": keys})(found, batch)["alone_mean"]
    mean = F.normalize(found.patches.mean(dim=1), dim=-1)
    assert term.total.item() == pytest.approx(float((1 - (mean * keys[[0, 2]]).sum(1)).sum()), rel=1e-4)


def alone(model_dim: int, names: list[int], seed: int) -> Alone:
    g = torch.Generator().manual_seed(seed)
    return Alone(torch.randn(len(names), 3, 64, 64, generator=g), torch.rand(len(names), 16, generator=g),
                 torch.tensor(names))  # fmt: skip


def test_other_pictures_of_the_batch_and_of_earlier_ones_are_the_negatives() -> None:
    model = small_model("tiny")
    settings = ObjectiveSettings(alone_focus=1.0, queue=3)
    objective = Objective(settings, model)
    first, second = alone(model.dim, [1, 2, 3], 5), alone(model.dim, [2, 4, 4], 6)
    objective(some_features(3, model.dim), a_batch(3, first))
    found = some_features(3, model.dim, seed=9)
    term = objective(found, a_batch(3, second))["alone_focus"]
    keys = torch.cat([objective.alone_keys(part)["focus"] for part in (second, first)])
    names, expected = [2, 4, 4, 1, 2, 3], 0.0
    for i in range(3):
        steered = torch.einsum("n,nd->d", found.logits[i].softmax(0), found.patches[i])
        score = F.normalize(steered, dim=0) @ keys.T / 0.1
        allowed = [j for j, name in enumerate(names) if j == i or name != names[i]]
        expected -= float(score[allowed].log_softmax(0)[allowed.index(i)])
    assert term.total.item() == pytest.approx(expected, rel=1e-4)


def test_a_queue_is_carried_over_a_stop() -> None:
    model = small_model("tiny")
    settings = ObjectiveSettings(alone_cls=1.0, queue=4)
    whole, cut = Objective(settings, model), Objective(settings, model)
    for objective in (whole, cut):
        objective(some_features(3, model.dim), a_batch(3, alone(model.dim, [1, 2, 3], 5)))
    resumed = Objective(settings, model)
    resumed.restore(cut.tensors())
    last = (some_features(2, model.dim), a_batch(2, alone(model.dim, [7, 8], 6)))
    expected, found = (o(*last)["alone_cls"].total.item() for o in (whole, resumed))
    assert found == expected


def test_processes_together_see_the_negatives_that_one_would() -> None:
    model = small_model("tiny")
    settings = ObjectiveSettings(alone_cls=1.0, queue=0)
    everything, found = alone(model.dim, [1, 2, 3, 1], 5), some_features(4, model.dim)
    one = Objective(settings, model)(found, a_batch(4, everything))["alone_cls"].total.item()
    rows = [[0, 1], [2, 3]]
    shares = [Alone(everything.pixels[r], everything.cover[r], everything.names[r]) for r in rows]
    own = [Objective(settings, model).alone_keys(share)["cls"] for share in shares]
    total = 0.0
    for rank, share in enumerate(shares):

        def gather(values: Tensor) -> Tensor:  # what a collective would give to every process
            return everything.names if values.dtype == torch.int64 else torch.cat(own)

        mine = Features(prefix=found.prefix[rows[rank]], patches=found.patches[rows[rank]],
                        logits=found.logits[rows[rank]], grid=GRID)  # fmt: skip
        objective = Objective(settings, model, gather=gather, rank=rank)
        total += objective(mine, a_batch(2, share))["alone_cls"].total.item()
    assert total == pytest.approx(one, rel=1e-5)


def test_metrics_leave_out_pictures_without_the_thing() -> None:
    model = small_model("tiny")
    found, batch = some_features(5, model.dim), a_batch(5)
    values = measure(found, batch, ObjectiveSettings())
    assert {len(value) for value, _ in values.values()} == {4}
    assert {int(rows.sum()) for _, rows in values.values()} == {4}
    touched = batch.cover[1:] > 0
    assert torch.allclose(values["pmass"][0], (found.logits[1:].softmax(1) * touched).sum(1))


def test_rows_without_a_mask_count_with_nothing_where_they_are_kept() -> None:
    """As in the released code: the mean of the loss, and of pmass, is over them as well."""
    model = small_model("tiny")
    found, batch = some_features(5, model.dim), a_batch(5)
    kept = replace(batch, counts_empty=True)
    assert (batch.cover.sum(1) > 0).tolist() == [False, True, True, True, True]
    one, other = (
        Objective(ObjectiveSettings(), model)(found, each)["segmentation"] for each in (batch, kept)
    )
    assert torch.isclose(one.total, other.total)
    assert (int(one.count), int(other.count)) == (4, 5)
    values = measure(found, kept, ObjectiveSettings())
    assert values["loss"][0][0] == values["pmass"][0][0] == 0
    assert values["pmass"][1].all()
    assert values["pointing"][1].tolist() == [False, True, True, True, True]


# ---------------------------------------------------------------------------------------------- optimiser


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 3e-4 / 5000),
        (4999, 3e-4),
        (5000, 3e-4),
        (22_500, (3e-4 + 3e-5) / 2),
        (40_000, 3e-5),
        (499_999, 3e-5),
    ],
)
def test_the_papers_schedule(step: int, rate: float) -> None:
    assert learning_rate(step, PAPER.optimiser) == pytest.approx(rate, rel=1e-9)


@pytest.mark.parametrize(("step", "rate"), [(0, 6e-4), (12_500, 3.3e-4), (25_000, 6e-5), (400_000, 6e-5)])
def test_the_released_schedule(step: int, rate: float) -> None:
    assert learning_rate(step, RELEASE.optimiser) == pytest.approx(rate, rel=1e-9)


def test_each_parameter_is_in_one_group_and_only_matrices_are_decayed() -> None:
    model = small_model("tiny")
    named = dict(model.trainable_parameters())
    settings = OptimiserSettings(gate_lr=5.0, decay_connector=0.01, decay_rest=0.1)
    for vectors in (False, True):
        (optimiser,) = build_optimisers(named, replace(settings, decay_vectors=vectors))
        of = {id(p): g for g in optimiser.param_groups for p in g["params"]}
        assert sum(len(g["params"]) for g in optimiser.param_groups) == len(named) == len(of)
        for name, p in named.items():
            decay = 0.01 if name.startswith("connector.") else 0.1
            assert of[id(p)]["weight_decay"] == (decay if p.ndim > 1 or vectors else 0.0), name
            assert of[id(p)]["factor"] == (5.0 if name.endswith("gate") else 1.0), name
    trunk = {id(p) for p in model.trunk.parameters()}
    assert trunk.isdisjoint(of)


def test_muon_takes_matrices_and_leaves_gates_biases_and_the_head() -> None:
    named = dict(small_model("tiny").trainable_parameters())
    adamw, muon = build_optimisers(named, OptimiserSettings(matrix_lr=0.02, lr=1e-3))
    taken = {id(p) for g in muon.param_groups for p in g["params"]}
    rest = {id(p) for g in adamw.param_groups for p in g["params"]}
    assert {name for name, p in named.items() if id(p) in rest} == {
        name for name in named if name.endswith(("gate", "bias")) or "norm" in name or name == "head.weight"
    }
    assert len(taken) + len(rest) == len(named)
    set_learning_rate([adamw, muon], 5e-4)
    assert {g["lr"] for g in muon.param_groups} == {0.01}
