"""The indoor objects of the generated world: every variant is drawn, in its named colour, reproducibly."""

from __future__ import annotations

import numpy as np
import pytest

from steersearch.training.world.objects_home import KINDS
from steersearch.training.world.painting import PALETTE, Kind, Look, shade

LOOKS = [
    (kind, Look(kind=kind.name, colour=kind.colours[0], pattern=pattern, shape=shape))
    for kind in KINDS
    for shape in kind.shapes
    for pattern in kind.patterns
]
VARIANTS = [pytest.param(kind, look, id=look.phrase) for kind, look in LOOKS]
ONE_SHAPE = [
    pytest.param(kind, look, id=look.phrase) for kind, look in LOOKS if look.shape == kind.shapes[-1]
]
ORNAMENTED = [
    pytest.param(kind, look, id=look.phrase)
    for kind, look in LOOKS
    if look.shape == kind.shapes[-1] and look.pattern != "plain"
]
PLAIN = [pytest.param(kind, colour, id=f"{colour} {kind.name}") for kind in KINDS for colour in kind.colours]
TONES = [(name, shade(colour, factor)) for name, colour in PALETTE.items() for factor in (0.75, 1.0, 1.2)]


def named_shares(kind: Kind, look: Look, seed: int = 3) -> dict[str, float]:
    """The share of the object's pixels nearest to a tone of each palette colour."""
    pixels = np.asarray(kind.draw(look, np.random.default_rng(seed), size=48), np.float32) / 255
    solid = pixels[pixels[..., 3] > 0.9][:, :3]
    tones = np.array([tone for _, tone in TONES], np.float32)
    nearest = np.linalg.norm(solid[:, None] - tones[None], axis=2).argmin(axis=1)
    names = np.array([name for name, _ in TONES])[nearest]
    return {name: float(np.mean(names == name)) for name in PALETTE}


def test_kinds_are_named_once_and_come_in_palette_colours() -> None:
    names = [kind.name for kind in KINDS]
    assert len(names) == len(set(names)) == 17
    for kind in KINDS:
        assert len(kind.colours) >= 4
        assert set(kind.colours) <= set(PALETTE)


@pytest.mark.parametrize(("kind", "look"), VARIANTS)
def test_every_variant_is_a_filled_cutout(kind: Kind, look: Look) -> None:
    picture = kind.draw(look, np.random.default_rng(0), size=48)
    alpha = np.asarray(picture.getchannel("A"))
    assert picture.mode == "RGBA"
    assert 30 <= max(picture.size) <= 48
    assert (alpha > 200).mean() > 0.15
    assert (alpha < 50).any() or look.shape == "wide"


@pytest.mark.parametrize(("kind", "look"), ONE_SHAPE)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(kind: Kind, look: Look) -> None:
    first, again, other = (kind.draw(look, np.random.default_rng(seed), size=48) for seed in (7, 7, 8))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


@pytest.mark.parametrize(("kind", "colour"), PLAIN)
def test_the_named_colour_dominates(kind: Kind, colour: str) -> None:
    for shape in kind.shapes:
        shares = named_shares(kind, Look(kind=kind.name, colour=colour, shape=shape))
        assert max(shares, key=lambda name: shares[name]) == colour, (shape, shares)


@pytest.mark.parametrize(("kind", "look"), ORNAMENTED)
def test_a_pattern_shows_on_the_object(kind: Kind, look: Look) -> None:
    plain = Look(kind=look.kind, colour=look.colour, shape=look.shape)
    with_pattern, without = (
        np.asarray(kind.draw(variant, np.random.default_rng(5), size=48).resize((32, 32)), np.float32)
        for variant in (look, plain)
    )
    assert np.abs(with_pattern - without).mean() > 3
