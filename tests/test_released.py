"""The released files: what facts say of them, and that they steer. `pytest -m hub` asks the real hub, 10 GB of it.

Without the mark the same checks run on small files of the same layout, from a stand-in for the hub.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants  # here, before a test's folders take the place of the user's
from PIL import Image

from steersearch.core import hub
from steersearch.core.checkpoints import read_released_pth
from steersearch.core.downloads import fetch_model, parts_of
from steersearch.core.errors import CheckpointError
from steersearch.core.files import file_sha256
from steersearch.core.predictor import Predictor
from steersearch.core.registry import MODELS, HubFile, ModelCard
from tests import released_stand_in
from tests.hub_server import HubServer, hub_stand_in
from tests.released_stand_in import RESOLUTION, TEXT_DIM, publish

RELEASED = [card.name for card in MODELS.values() if isinstance(card.weights, HubFile)]
SHAPES = {"small": (384, 12), "base": (768, 12), "large": (1024, 24)}  # width and depth of the backbones
HEADS, HEAD_DIM = 16, 72  # of the cross-attention, whatever the backbone


# -------------------------------------------------------------------------------------- what is checked of a file


def expected_shapes(dim: int, depth: int, text_dim: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a released state_dict, written out from what is known of the authors' code."""
    inner = HEADS * HEAD_DIM
    shapes: dict[str, tuple[int, ...]] = {
        "connector.mlp.0.weight": (text_dim, text_dim),
        "connector.mlp.0.bias": (text_dim,),
        "connector.mlp.2.weight": (dim, text_dim),
        "connector.mlp.2.bias": (dim,),
        "lin_seg_head.weight": (1, dim),
        "lin_seg_head.bias": (1,),
    }
    for i in range(1, depth, 2):
        block = f"vision_model.trunk.blocks.{i}.gated_cross_attn"
        shapes |= {
            f"{block}.attn_gate": (1,),
            f"{block}.cross_attn.norm.weight": (dim,),
            f"{block}.cross_attn.norm.bias": (dim,),
            f"{block}.cross_attn.to_q.weight": (inner, dim),
            f"{block}.cross_attn.to_kv.weight": (2 * inner, dim),
            f"{block}.cross_attn.to_out.weight": (dim, inner),
        }
    return shapes


def check_file(card: ModelCard, path: Path, dim: int, depth: int, text_dim: int) -> None:
    """The file is the published one, and holds exactly the weights that were described, in float32."""
    assert card.weights.sha256 in (None, file_sha256(path))
    assert card.weights.size in (None, path.stat().st_size)
    state, config = read_released_pth(path)
    expected = expected_shapes(dim, depth, text_dim)
    assert {name: tuple(value.shape) for name, value in state.items() if name in expected} == expected
    surplus = set(state) - set(expected)
    if "research" not in card.name:  # of the research files it is known that they hold more, but not what
        assert surplus == set()
    assert {state[name].dtype for name in expected} == {torch.float32}
    assert all(torch.isfinite(state[name]).all() for name in expected)
    gates = [state[name].item() for name in expected if name.endswith("attn_gate")]
    assert any(abs(math.tanh(gate)) > 0.01 for gate in gates), "no gate was ever opened"
    assert config["vision_encoder"]["resolution"] == card.resolution
    assert "roberta" in config["text_encoder"]


def check_steering(model: Predictor, images: list[Image.Image], prompts: tuple[str, str]) -> None:
    """Embeddings are finite and of unit length, follow the prompt, and with gate_scale 0 are the backbone's own."""
    plain = model.embed(images)
    first, second = (model.embed(images, prompt) for prompt in prompts)
    for embeddings in (plain, first, second):
        assert embeddings.shape == (len(images), model.dim)
        assert torch.isfinite(embeddings).all()
        assert embeddings.norm(dim=1).tolist() == pytest.approx([1.0] * len(images), abs=1e-4)
    for one, other in ((plain, first), (plain, second), (first, second)):
        assert (one * other).sum(dim=1).max() < 0.99, "the prompt changes next to nothing"
    assert torch.equal(model.embed(images, prompts[0], gate_scale=0.0), plain)
    maps = model.heatmaps(images, prompts[0])
    assert maps.shape == (len(images), *model.grid)
    assert maps.sum(dim=(1, 2)).tolist() == pytest.approx([1.0] * len(images), abs=1e-3)


def check_trunk(model: Predictor, trunk: Path, images: list[Image.Image]) -> None:
    """Unsteered patches equal those of timm's own model with the same weights."""
    import timm

    vit = timm.create_model(
        model.model.config.trunk,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(trunk), "custom_load": False},
        img_size=model.model.config.resolution,
        num_classes=0,
    ).eval()
    pixels = torch.from_numpy(np.stack([model.preprocess(image) for image in images]))
    with torch.inference_mode():
        theirs = vit.forward_features(pixels)[:, vit.num_prefix_tokens :]
        ours = model.model.float().cpu()(pixels).patches
    assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.abs().max()))


def pictures() -> list[Image.Image]:
    """Two generated photos with several things each."""
    from steersearch.training.world.composition import Spot, compose
    from steersearch.training.world.painting import Look
    from steersearch.training.world.scenes import draw_scene
    from steersearch.training.world.things import draw_thing

    rng = np.random.default_rng(5)
    shelf, duck, mug = (
        draw_thing(Look(kind=kind, colour=colour), rng, 128)
        for kind, colour in (("bookshelf", "brown"), ("rubber duck", "yellow"), ("mug", "red"))
    )
    kitchen = compose(
        draw_scene("kitchen", rng, (400, 300)), [(shelf, Spot(0.25, 0.9, 0.45)), (duck, Spot(0.75, 0.9, 0.4))]
    )
    beach = compose(
        draw_scene("beach", rng, (300, 400)), [(mug, Spot(0.3, 0.9, 0.4)), (duck, Spot(0.7, 0.8, 0.35))]
    )
    return [kitchen.image, beach.image]


# ------------------------------------------------------------------------------------------------ the real files


@pytest.fixture
def real_hub() -> None:
    """Skips where the hub cannot be reached. The user's own cache is used: what it has is not fetched again."""
    assert "pytest" not in constants.HF_HUB_CACHE
    reason = hub.why_unreachable()
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.hub
@pytest.mark.parametrize("name", RELEASED)
def test_a_released_file_is_as_described_and_steers(real_hub: None, name: str) -> None:
    parts = fetch_model(name)
    card, weights = MODELS[name], parts.parts[0].files[0].path
    assert weights is not None
    check_file(card, weights, *SHAPES[name.split("-")[1]], text_dim=1024)
    model = Predictor.from_pretrained(name, device="auto")
    check_steering(model, pictures(), ("the rubber duck", "the bookshelf"))
    trunk = parts.parts[1].files[0].path
    assert trunk is not None
    check_trunk(model, trunk, pictures())


# --------------------------------------------------------------------------------------- the same on small files


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with hub_stand_in(monkeypatch, tmp_path / "cache") as server:
        yield server


@pytest.fixture
def published(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> ModelCard:
    return publish(server, monkeypatch)


def test_a_small_released_model_goes_the_whole_way(
    published: ModelCard, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = fetch_model(published.name)
    assert fetched.here == "yes"
    weights, trunk = (part.files[0].path for part in fetched.parts[:2])
    assert weights is not None
    assert trunk is not None
    check_file(published, weights, 64, 6, text_dim=TEXT_DIM)
    server.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model = Predictor.from_pretrained(published.name, device="cpu")
    assert (model.model_id, model.model.config.resolution, model.weights_hash) == (
        published.name,
        RESOLUTION,
        published.weights.sha256,
    )
    check_steering(model, pictures(), ("a b c", "x y"))
    check_trunk(model, trunk, pictures())
    assert server.requests == []


def test_a_model_is_fetched_when_it_is_first_used(
    published: ModelCard, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Predictor.from_pretrained(published.name, device="cpu")
    assert parts_of(published.name).here == "partly"  # the text encoder is fetched for the first prompt
    model.embed(pictures(), "a b")
    assert parts_of(published.name).here == "yes"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    server.requests.clear()
    assert Predictor.from_pretrained("auto", device="cpu").model_id == published.name == "dinov2-small"
    assert server.requests == []


def test_a_model_that_names_its_backbone_only_in_its_file_is_fetched_whole(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = publish(server, monkeypatch, "siglip-base-research")
    monkeypatch.setitem(MODELS, card.name, replace(card, trunk=None, trunk_about=1_500_000))
    before = parts_of(card.name)
    assert (before.here, before.parts[1].name) == ("no", None)
    after = fetch_model(card.name)
    assert (after.here, after.missing, after.parts[1].name) == ("yes", 0, released_stand_in.TRUNK)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert Predictor.from_pretrained(card.name, device="cpu").model.config.trunk == released_stand_in.TRUNK


def test_what_is_checked_can_fail(published: ModelCard, server: HubServer, tmp_path: Path) -> None:
    """Each check says no to a file or a model that is not as it should be."""
    path = hub.fetch(published.weights) if isinstance(published.weights, HubFile) else Path()
    state, config = read_released_pth(path)

    def changed(**changes: torch.Tensor) -> Path:
        content = {"state_dict": {**state, **changes}, "config": config}
        torch.save(content, tmp_path / "changed.pth")
        return tmp_path / "changed.pth"

    anonymous = replace(published, weights=replace(published.weights, sha256=None, size=None))
    check_file(anonymous, changed(), 64, 6, TEXT_DIM)
    with pytest.raises(AssertionError):
        check_file(published, changed(), 64, 6, TEXT_DIM)  # another hash
    with pytest.raises(AssertionError):
        check_file(anonymous, changed(surplus=torch.zeros(1)), 64, 6, TEXT_DIM)
    with pytest.raises(AssertionError):
        check_file(anonymous, changed(**{"lin_seg_head.bias": torch.zeros(2)}), 64, 6, TEXT_DIM)
    with pytest.raises(AssertionError):
        check_file(anonymous, changed(), 64, 8, TEXT_DIM)  # a deeper backbone has more weights
    closed = {name: torch.zeros(1) for name in state if name.endswith("attn_gate")}
    with pytest.raises(AssertionError, match="no gate was ever opened"):
        check_file(anonymous, changed(**closed), 64, 6, TEXT_DIM)
    (tmp_path / "no.pth").write_bytes(b"no checkpoint")
    with pytest.raises(Exception, match="not a zip file"):
        check_file(anonymous, tmp_path / "no.pth", 64, 6, TEXT_DIM)
    with pytest.raises(AssertionError, match="changes next to nothing"):
        check_steering(Predictor.from_pretrained(changed(**closed), device="cpu"), pictures(), ("a b", "c"))


def test_the_shapes_written_out_are_those_of_the_paper() -> None:
    """21.2 million parameters of cross-attention in the base model, and the file sizes that were published."""
    for name, (dim, depth) in SHAPES.items():
        shapes = expected_shapes(dim, depth, 1024)
        numbers = sum(math.prod(shape) for shape in shapes.values())
        card = MODELS[f"dinov2-{name}"]
        assert numbers == card.parameters
        assert isinstance(card.weights, HubFile)
        assert card.weights.size is not None
        assert 4 * numbers < card.weights.size < 4 * numbers + 40_000
    gated = sum(
        math.prod(shape)
        for name, shape in expected_shapes(768, 12, 1024).items()
        if "gated_cross_attn" in name
    )
    assert gated == 21_242_886


def test_hostile_weights_from_the_hub_run_nothing(
    server: HubServer, published: ModelCard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tests.test_checkpoints import Calls

    torch.save({"state_dict": Calls(open, str(tmp_path / "witness"), "w"), "config": {}}, tmp_path / "x.pth")
    assert isinstance(published.weights, HubFile)
    file = server.add(published.weights.repo, published.weights.file, (tmp_path / "x.pth").read_bytes())
    monkeypatch.setitem(MODELS, published.name, replace(published, weights=file))
    with pytest.raises(CheckpointError, match="refused, its pickle calls"):
        Predictor.from_pretrained(published.name)
    assert not (tmp_path / "witness").exists()
