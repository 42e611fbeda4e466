"""The outdoor objects of the generated world: each draws, keeps its colour and repeats with its seed."""

from __future__ import annotations

import numpy as np
import pytest

from steersearch.training.world.objects_outside import KINDS
from steersearch.training.world.painting import PALETTE, Canvas, Kind, Look

SIZE = 64
VARIANTS = [(kind, shape) for kind in KINDS for shape in kind.shapes]
VARIANT_IDS = [f"{shape} {kind.name}".strip() for kind, shape in VARIANTS]


def _look(kind: Kind, shape: str, colour: str, pattern: str = "plain") -> Look:
    return Look(kind=kind.name, colour=colour, pattern=pattern, shape=shape)


def test_offers_seventeen_kinds_with_known_colours() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS) == 17
    for kind in KINDS:
        assert len(set(kind.colours)) >= 4
        assert set(kind.colours) <= set(PALETTE)
        assert kind.patterns[0] == "plain"


@pytest.mark.parametrize(("kind", "shape"), VARIANTS, ids=VARIANT_IDS)
def test_every_pattern_draws_a_filled_cutout(kind: Kind, shape: str) -> None:
    plain: bytes | None = None
    for pattern in kind.patterns:
        picture = kind.draw(_look(kind, shape, kind.colours[0], pattern), np.random.default_rng(3), SIZE)
        assert picture.mode == "RGBA"
        assert SIZE * 0.7 <= max(picture.size) <= SIZE
        alpha = np.asarray(picture.getchannel("A"))
        assert (alpha > 200).mean() > 0.2
        if pattern == "plain":
            plain = picture.tobytes()
        else:
            assert picture.tobytes() != plain


@pytest.mark.parametrize(("kind", "shape"), VARIANTS, ids=VARIANT_IDS)
def test_is_one_connected_thing(kind: Kind, shape: str) -> None:
    picture = kind.draw(_look(kind, shape, kind.colours[0]), np.random.default_rng(4), SIZE)
    covered = np.asarray(picture.getchannel("A")) > 8
    reached = np.zeros_like(covered)
    start = np.argwhere(covered)[0]
    reached[start[0], start[1]] = True
    while True:
        padded = np.pad(reached, 1)
        spread = covered & np.logical_or.reduce(
            [
                padded[dy : dy + covered.shape[0], dx : dx + covered.shape[1]]
                for dy in range(3)
                for dx in range(3)
            ]
        )
        if (spread == reached).all():
            break
        reached = spread
    assert reached.sum() == covered.sum()


@pytest.mark.parametrize(("kind", "shape"), VARIANTS, ids=VARIANT_IDS)
def test_the_named_colour_dominates(kind: Kind, shape: str) -> None:
    for colour in kind.colours:
        canvas = Canvas(SIZE)
        kind.paint(canvas, _look(kind, shape, colour), PALETTE[colour], np.random.default_rng(5))
        pixels = np.asarray(canvas.finish(), np.float64).reshape(-1, 4) / 255
        typical = np.median(pixels[pixels[:, 3] > 0.9, :3], axis=0)
        assert np.abs(typical - PALETTE[colour]).max() < 0.2, (colour, typical)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_seed_gives_the_same_bytes_and_another_seed_does_not(kind: Kind) -> None:
    look = _look(kind, kind.shapes[0], kind.colours[0])
    first, again, other = (kind.draw(look, np.random.default_rng(seed), SIZE) for seed in (7, 7, 8))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()
