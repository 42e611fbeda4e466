"""The generated world: exact masks, occlusion, names, held-out words, and the same photo for the same seed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steersearch.core.errors import SteerSearchError
from steersearch.training.world import composition, scenes, stamps
from steersearch.training.world.demo_photos import FOCUSES, demo_photos
from steersearch.training.world.kinds import KINDS
from steersearch.training.world.painting import Look
from steersearch.training.world.things import (
    UNSEEN_STAMP_WORDS,
    UNSEEN_WORDS,
    Thing,
    draw_thing,
    look_names,
)


def block(colour: tuple[int, int, int], name: str, size: tuple[int, int] = (40, 40)) -> Thing:
    """An opaque rectangle as a thing, so that masks can be worked out by hand."""
    return Thing(
        picture=Image.new("RGBA", size, (*colour, 255)), noun=name, phrase=name, category="block",
        names=frozenset({name, "block"}), source="drawn",
    )  # fmt: skip


def plain_scene(size: tuple[int, int] = (200, 100)) -> scenes.Scene:
    return scenes.Scene("kitchen", Image.new("RGB", size, (200, 200, 200)), ())


def test_masks_are_exactly_where_the_thing_is_and_the_nearer_one_hides_the_other() -> None:
    red, blue = block((255, 0, 0), "red block"), block((0, 0, 255), "blue block")
    # Both 40 px; front is 10 px right.
    back, front = (composition.Spot(0.5, 0.6, 0.4), composition.Spot(0.55, 0.8, 0.4))
    photo = composition.compose(plain_scene(), [(blue, front), (red, back)])
    pixels = np.asarray(photo.image).astype(int)
    is_red = (pixels[..., 0] > 200) & (pixels[..., 2] < 60)
    is_blue = (pixels[..., 2] > 200) & (pixels[..., 0] < 60)
    assert photo.mask("blue block").sum() == 40 * 40
    assert (photo.mask("blue block") == is_blue).all()
    assert photo.mask("red block").sum() == 40 * 40 - 20 * 30  # 20 rows and 30 columns of it are covered
    assert (
        photo.mask("red block") & ~is_red
    ).sum() <= 30  # the front one's shadow may fall on its lowest rows
    assert (photo.mask("block") == (photo.mask("red block") | photo.mask("blue block"))).all()
    assert not photo.mask("mug").any()


def test_a_thing_partly_outside_has_the_mask_of_its_visible_part() -> None:
    photo = composition.compose(
        plain_scene(), [(block((255, 0, 0), "red block"), composition.Spot(0.0, 0.5, 0.4))]
    )
    mask = photo.mask("red block")
    assert mask[:, :20].sum() == 20 * 40
    assert not mask[:, 20:].any()


@pytest.mark.parametrize("family", scenes.FAMILIES)
def test_placed_things_stay_visible(family: str) -> None:
    rng = np.random.default_rng(5)
    plate = scenes.draw_scene(family, rng, (160, 120))
    things = [block((250, 20, 20), f"block {i}") for i in range(5)]
    photo = composition.compose(plate, composition.place_things(plate, things, rng, (0.2, 0.35)))
    assert len(photo.placed) >= 3
    for placed in photo.placed:
        area = (placed.box[2] - placed.box[0]) * (placed.box[3] - placed.box[1])
        assert placed.mask.sum() > 0.1 * area


def test_same_seed_same_photo() -> None:
    def photo(seed: int) -> bytes:
        rng = np.random.default_rng(seed)
        plate = scenes.draw_scene("garden", rng, (96, 72))
        things = [draw_thing(KINDS[k].sample_look(rng), rng, 64) for k in ("ball", "mushroom")]
        return composition.compose(plate, composition.place_things(plate, things, rng)).image.tobytes()

    assert photo(3) == photo(3)
    assert photo(3) != photo(4)


def test_names_are_all_true_combinations() -> None:
    names = look_names(Look(kind="mug", colour="red", pattern="striped", shape="tall"), "kitchenware")
    assert names == {
        "mug", "red mug", "striped mug", "tall mug", "striped red mug", "tall red mug", "tall striped mug",
        "tall striped red mug", "kitchenware", "red thing",
    }  # fmt: skip
    assert "plain red mug" not in look_names(Look(kind="mug", colour="red"), "kitchenware")


def test_at_least_24_kinds_each_in_several_colours() -> None:
    assert len(KINDS) >= 24
    assert all(len(kind.colours) >= 4 for kind in KINDS.values())


def test_unseen_words_are_really_unseen() -> None:
    words = {word for kind in KINDS.values() for look in [kind.name, kind.category] for word in look.split()}
    assert set(UNSEEN_WORDS.values()) <= set(KINDS)
    assert not set(UNSEEN_WORDS) & words


needs_stamps = pytest.mark.skipif(
    not stamps.STAMPS_FOLDER.is_dir(), reason="the Debian package tuxpaint-stamps-default is not installed"
)


@needs_stamps
def test_stamps_have_sensible_phrases_and_held_out_ones_are_others() -> None:
    trained, kept = stamps.load_stamps(48), stamps.load_stamps(48, held_out=True)
    assert len(trained) > 300
    assert len(kept) > 15
    phrases = {thing.phrase for thing in trained}
    assert {"sea lion", "green apple", "tennis racket"} <= phrases
    assert all(1 <= len(p.split()) <= 4 for p in phrases)
    names = {name for thing in trained for name in thing.names}
    assert not (set(UNSEEN_WORDS) | set(UNSEEN_STAMP_WORDS)) & names
    assert set(UNSEEN_STAMP_WORDS.values()) <= names
    pixels = {thing.picture.tobytes() for thing in trained}
    assert not [thing.phrase for thing in kept if thing.picture.tobytes() in pixels]


@needs_stamps
def test_a_sea_lion_is_no_lion_but_a_green_apple_is_an_apple() -> None:
    by_phrase = {thing.phrase: thing for thing in stamps.load_stamps(32)}
    assert "lion" not in by_phrase["sea lion"].names
    assert "apple" in by_phrase["green apple"].names
    assert "animal" in by_phrase["sea lion"].names


def test_descriptions_become_noun_phrases(tmp_path: Path) -> None:
    folder = tmp_path / "food" / "fruit"
    folder.mkdir(parents=True)
    lines = {
        "a": "A ripe, red tomato!",
        "b": "Eat your broccoli!",
        "c": "A pair of cherries.",
        "d": "A “Fuji” apple.",
    }
    for name, line in lines.items():
        picture = Image.new("RGBA", (60, 60))
        picture.paste((200, 30, 30, 255), (10, 10, 40, 40))
        picture.putpixel((0, 0), (1, 1, 1, 255))
        picture.save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(line + "\nfr.utf8=...\n", encoding="utf-8")
    things = stamps.load_stamps(48, tmp_path)
    assert [thing.phrase for thing in things] == ["cherries", "fuji apple"]
    assert all(thing.category == "fruit" for thing in things)


def test_missing_stamps_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(SteerSearchError, match="apt-get install tuxpaint-stamps-default"):
        stamps.load_stamps(48, tmp_path / "nowhere")


@pytest.mark.slow
def test_demo_photos_hold_what_the_demo_asks_for(tmp_path: Path) -> None:
    demo = demo_photos(tmp_path, count=12)
    assert len(demo.photos) == 12
    assert sorted(tmp_path.iterdir()) == sorted(demo.photos)
    assert "red-remote-control" in demo.query.name
    assert "green-bookshelf" in demo.query.name
    assert demo.focuses == FOCUSES
    others = [path.name for path in demo.photos if path != demo.query]
    assert sum("red-remote-control" in name for name in others) == 2
    assert sum("green-bookshelf" in name for name in others) == 2
    assert {Image.open(path).size for path in demo.photos} == {(640, 480)}
