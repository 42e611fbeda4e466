"""The generated world's background plates: repeatable, varied, and with usable places."""

from __future__ import annotations

import numpy as np
import pytest

from steersearch.training.world.scenes import FAMILIES, Scene, draw_scene, draw_texture

SIZES = ((128, 128), (160, 120), (120, 160), (256, 144), (101, 77))


def scene(family: str, seed: int, size: tuple[int, int] = (160, 120)) -> Scene:
    return draw_scene(family, np.random.default_rng(seed), size)


def distance(first: Scene, second: Scene) -> float:
    """Mean absolute difference of two plates, 0..255."""
    pixels = [np.asarray(s.image, np.float32) for s in (first, second)]
    return float(np.abs(pixels[0] - pixels[1]).mean())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", SIZES)
def test_a_plate_has_the_size_requested_and_is_painted_all_over(family: str, size: tuple[int, int]) -> None:
    drawn = scene(family, 3, size)
    assert (drawn.image.size, drawn.image.mode, drawn.family) == (size, "RGB", family)
    pixels = np.asarray(drawn.image)
    assert 70 < pixels.mean() < 225
    assert pixels.reshape(-1, 3).std(axis=0).min() > 10
    bare = (pixels == 255).all(axis=2).mean()  # the sheet itself is white
    assert bare < 0.05


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_draws_the_same_plate(family: str) -> None:
    first, again = scene(family, 5), scene(family, 5)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.places == again.places


@pytest.mark.parametrize("family", FAMILIES)
def test_other_seeds_draw_clearly_different_plates(family: str) -> None:
    plates = [scene(family, seed) for seed in range(6)]
    apart = [distance(a, b) for i, a in enumerate(plates) for b in plates[:i]]
    assert min(apart) > 8
    assert np.mean(apart) > 20


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(160, 120), (90, 120), (192, 108)])
def test_objects_fit_into_the_picture_at_every_place(family: str, size: tuple[int, int]) -> None:
    for seed in range(8):
        places = scene(family, seed, size).places
        assert 10 <= len(places) <= 24
        for place in places:
            assert place.kind in ("floor", "table", "wall", "air")
            assert 0.15 <= place.size <= 0.45
            half = 0.5 * place.size * size[1] / size[0]
            assert half - 1e-9 <= place.x <= 1 - half + 1e-9
            hangs = place.kind in ("wall", "air")
            top = place.y - place.size * (0.5 if hangs else 1.0)
            bottom = place.y + (0.5 * place.size if hangs else 0.0)
            assert top >= 0
            assert bottom <= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_places_are_spread_over_the_picture_and_grow_towards_the_viewer(family: str) -> None:
    for seed in range(8):
        places = scene(family, seed).places
        xs, ys = [p.x for p in places], [p.y for p in places]
        assert max(xs) - min(xs) > 0.5
        assert max(ys) - min(ys) > 0.3
        floor = sorted((p for p in places if p.kind == "floor"), key=lambda p: p.y)
        assert len(floor) >= 4
        assert floor[-1].size > floor[0].size


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(KeyError):
        scene("volcano", 0)


def test_textures_are_repeatable_and_varied() -> None:
    drawn = [draw_texture(np.random.default_rng(seed), (60, 40)) for seed in range(20)]
    assert {image.size for image in drawn} == {(60, 40)}
    assert {image.mode for image in drawn} == {"RGB"}
    assert len({image.tobytes() for image in drawn}) == 20
    assert draw_texture(np.random.default_rng(4), (60, 40)).tobytes() == drawn[4].tobytes()
