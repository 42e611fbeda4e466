"""What the generated world draws: every variant is a filled cutout in its named colour, repeatable by its seed."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from steersearch.training.world.kinds import KINDS, Kind
from steersearch.training.world.painting import PALETTE, Look, path, shade

SIZE = 48
SHAPES = [
    pytest.param(kind, shape, id=f"{shape} {kind.name}".strip())
    for kind in KINDS.values()
    for shape in kind.shapes
]
TONES = [(name, shade(colour, factor)) for name, colour in PALETTE.items() for factor in (0.75, 1.0, 1.2)]


def draw(
    kind: Kind, shape: str, colour: str | None = None, pattern: str = "plain", seed: int = 3
) -> Image.Image:
    look = Look(kind=kind.name, colour=colour or kind.colours[0], pattern=pattern, shape=shape)
    return kind.draw(look, np.random.default_rng(seed), SIZE)


def test_kinds_come_in_several_colours_of_the_palette() -> None:
    assert len(KINDS) == 34
    for kind in KINDS.values():
        assert len(set(kind.colours)) >= 4
        assert set(kind.colours) <= set(PALETTE)
        assert kind.patterns[0] == "plain"


@pytest.mark.parametrize(("kind", "shape"), SHAPES)
def test_every_variant_is_one_filled_cutout(kind: Kind, shape: str) -> None:
    for pattern in kind.patterns:
        picture = draw(kind, shape, pattern=pattern)
        alpha = np.asarray(picture.getchannel("A"))
        assert picture.mode == "RGBA"
        assert SIZE * 0.6 < max(picture.size) <= SIZE
        assert (alpha > 200).mean() > 0.15
        parts = np.bincount(ndimage.label(alpha > 8, np.ones((3, 3)))[0].ravel())[1:]
        assert parts.max() > 0.99 * parts.sum() or kind.name == "telephone"  # whose receiver is lifted


@pytest.mark.parametrize(("kind", "shape"), SHAPES)
def test_a_pattern_shows_on_the_object(kind: Kind, shape: str) -> None:
    plain, *ornamented = (
        np.asarray(draw(kind, shape, pattern=pattern, seed=5).resize((32, 32)), np.float32)
        for pattern in kind.patterns
    )
    assert all(np.abs(pixels - plain).mean() > 0.5 for pixels in ornamented)


@pytest.mark.parametrize(("kind", "shape"), SHAPES)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(kind: Kind, shape: str) -> None:
    first, again, other = (draw(kind, shape, seed=seed) for seed in (7, 7, 8))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


@pytest.mark.parametrize(("kind", "shape"), SHAPES)
def test_the_named_colour_dominates(kind: Kind, shape: str) -> None:
    """More of the object's pixels are nearest to a tone of it than to one of any other colour."""
    tones = np.array([tone for _, tone in TONES], np.float32)
    for colour in kind.colours:
        pixels = np.asarray(draw(kind, shape, colour), np.float32) / 255
        solid = pixels[pixels[..., 3] > 0.9][:, :3]
        nearest = np.linalg.norm(solid[:, None] - tones[None], axis=2).argmin(axis=1)
        names, counts = np.unique(np.array([name for name, _ in TONES])[nearest], return_counts=True)
        assert names[counts.argmax()] == colour, dict(zip(names, counts, strict=True))


def test_a_path_is_in_hundredths() -> None:
    assert path("50,2 84.5,30") == [(0.5, 0.02), (0.845, 0.3)]
