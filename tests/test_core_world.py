"""core-world: the stand-in has CORE's structure, and an unsteered model scores the same under every prompt."""

import argparse
import hashlib

import numpy as np
import pytest
from PIL import Image

from steersearch.benchmarks import core_world
from steersearch.core.preprocess import View
from steersearch.core.steervit import SteerViT
from steersearch.training.stamps import HELD_OUT_NOUNS, STAMPS_FOLDER
from steersearch.training.things import HELD_OUT_TEMPLATES, KINDS
from tests.conftest import WordEncoder
from tests.test_training import SMALL

needs_stamps = pytest.mark.skipif(not STAMPS_FOLDER.is_dir(), reason="the stamps' package is not installed")


@pytest.fixture(scope="module")
def pictures() -> list[core_world.Picture]:
    return core_world.build("drawn", bases=2, size=(160, 120))


def test_six_scenes_of_five_objects_on_two_bases(pictures: list[core_world.Picture]) -> None:
    assert len(pictures) == 6 * 5 * 2
    for scene, nouns in core_world.OBJECTS.items():
        objects = {p.object for p in pictures if p.scene == scene}
        assert len(objects) == 5
        assert all(any(name.endswith(noun) for name in objects) for noun in nouns)
        assert set(nouns) <= set(KINDS)
    assert len({(p.object, p.image_id) for p in pictures}) == len(pictures)


def test_variants_of_a_base_differ_in_their_object_only(pictures: list[core_world.Picture]) -> None:
    for image_id in {p.image_id for p in pictures}:
        first, second, *_ = (p for p in pictures if p.image_id == image_id)
        before, after = (np.asarray(p.image).astype(int) for p in (first, second))
        changed = np.abs(before - after).max(axis=2) > 40
        rows, columns = np.nonzero(first.mask | second.mask)
        explained = np.zeros_like(changed)  # around the masks lie shadows and parts that something hides
        top, left = max(0, rows.min() - 20), max(0, columns.min() - 20)
        explained[top : rows.max() + 20, left : columns.max() + 20] = True
        assert changed.any()
        assert not (changed & ~explained).any()
        assert explained.mean() < 0.95


def test_the_object_is_unobtrusive(pictures: list[core_world.Picture]) -> None:
    shares = [p.mask.mean() for p in pictures]
    assert min(shares) >= 0.004
    assert max(shares) < 0.12


def test_objects_of_half_the_size_have_a_quarter_of_the_area(
    pictures: list[core_world.Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core_world, "OBJECTS", {"kitchen": core_world.OBJECTS["kitchen"]})
    small = core_world.build("drawn", bases=2, size=(160, 120), object_size=(0.1, 0.15))
    areas = [p.mask.mean() for p in small]
    usual = [p.mask.mean() for p in pictures if p.scene == "kitchen"]
    assert len(areas) == len(usual) == 10
    assert 0.15 < np.mean(areas) / np.mean(usual) < 0.4
    assert min(areas) >= 0.001


@pytest.mark.parametrize("view", ["crop", "squash", "tile"])
def test_masks_are_seen_as_the_pictures_are(view: View) -> None:
    """A picture that is its own mask: where its patches are bright, they are covered."""
    model = SteerViT(SMALL).with_view(view)
    mask = np.zeros((90, 150), np.bool_)
    mask[10:40, 60:130] = True
    seen = model.preprocess(Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB"))[0]
    rows, columns = model.grid
    bright = seen.reshape(rows, -1, columns, seen.shape[1] // columns).mean(axis=(1, 3)).flatten()
    cover = core_world._patch_cover(mask, model)
    assert cover.shape == (rows * columns,)
    assert np.corrcoef(bright, cover)[0, 1] > 0.99
    whole = float(mask.mean())
    assert float(cover.mean()) == pytest.approx(whole if view != "crop" else 70 / 90 * 30 / 90, rel=0.2)


def test_every_view_is_measured(pictures: list[core_world.Picture]) -> None:
    scene = [p for p in pictures if p.scene == "kitchen"]
    for view in ("crop", "tile"):
        result = core_world.evaluate(SteerViT(SMALL).with_view(view), scene)
        assert 0 < result["pmass"] < 1  # type: ignore[operator]
        assert result["cls/right/macro"] == result["cls/wrong/macro"]  # gates start at zero


@pytest.fixture(scope="module")
def smallest() -> list[core_world.Picture]:
    return core_world.build("drawn", bases=1, size=(64, 48))


def test_the_same_pictures_every_time(
    smallest: list[core_world.Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core_world, "OBJECTS", {"kitchen": core_world.OBJECTS["kitchen"]})
    again = core_world.build("drawn", bases=1, size=(64, 48))
    first = [p for p in smallest if p.scene == "kitchen"]
    assert all(a.image.tobytes() == b.image.tobytes() for a, b in zip(first, again, strict=True))


def test_closed_gates_make_every_prompt_the_same(pictures: list[core_world.Picture]) -> None:
    result = core_world.evaluate(SteerViT(SMALL), pictures)  # gates start at zero
    for kind in ("cls", "mean", "focus"):
        cases = {result[f"{kind}/{case}/macro"] for case in ("right", "wrong", "none")}
        assert len(cases) == 1
        assert 0 <= cases.pop() <= 1  # type: ignore[operator]


def test_a_perfect_embedding_scores_one(
    pictures: list[core_world.Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An oracle that embeds a picture by its object under the right prompt, and by its base under none."""
    model = SteerViT(SMALL)
    by_pixels = {model.preprocess(p.image).tobytes(): p for p in pictures}
    bases = sorted({p.image_id for p in pictures})
    objects = sorted({p.object for p in pictures})
    plain_embed = core_world._embed

    def oracle(model: SteerViT, pixels: object, prompt: str | None) -> core_world._Embedded:
        found = plain_embed(model, pixels, None)  # type: ignore[arg-type]
        rows = [by_pixels[row.numpy().tobytes()] for row in pixels]  # type: ignore[attr-defined]
        axes = np.eye(len(bases) + len(objects), dtype=np.float32)
        said = [objects.index(p.object) for p in rows]
        shown = [len(objects) + bases.index(p.image_id) for p in rows]
        vectors = axes[shown] if prompt is None else axes[said]
        return core_world._Embedded(dict.fromkeys(("cls", "mean", "focus"), vectors), found.logits)

    monkeypatch.setattr(core_world, "_embed", oracle)
    result = core_world.evaluate(model, pictures)
    assert result["focus/right/macro"] == 1.0
    assert result["focus/none/macro"] < 0.5  # type: ignore[operator]


# -------------------------------------------------------------------------------- figures stay comparable


def _fingerprint(pictures: list[core_world.Picture]) -> tuple[str, float, float]:
    """Digest of what stands where, mean brightness, and mean part of the masks: all that no library rounds."""
    said = repr([(p.scene, p.object, p.image_id) for p in pictures])
    brightness = np.mean([np.asarray(p.image).mean() for p in pictures])
    masked = np.mean([p.mask.mean() for p in pictures])
    return hashlib.sha256(said.encode()).hexdigest()[:16], float(brightness), float(masked)


def test_drawn_pictures_are_those_of_the_published_figures(smallest: list[core_world.Picture]) -> None:
    digest, brightness, masked = _fingerprint(smallest)
    assert digest == "25552bff72a14dde"
    assert brightness == pytest.approx(155.971, rel=1e-3)
    assert masked == pytest.approx(0.01759, rel=0.02)


@needs_stamps
def test_stamps_are_those_of_the_published_figures() -> None:
    digest, brightness, masked = _fingerprint(core_world.build("stamps", bases=1, size=(64, 48)))
    assert digest == "93ed53b5ba14649b"
    assert brightness == pytest.approx(151.404, rel=1e-3)
    assert masked == pytest.approx(0.01872, rel=0.02)


# -------------------------------------------------------------------------------------- held-out sources


@needs_stamps
@pytest.mark.parametrize(("source", "each"), [("held-out-objects", 5), ("held-out-pictures", 4)])
def test_held_out_scenes(source: core_world.Source, each: int) -> None:
    pictures = core_world.build(source, bases=1, size=(64, 48))
    assert len(pictures) == 6 * each
    assert core_world._chance(pictures) == pytest.approx(1 / each)
    assert len({p.object for p in pictures}) == 6 * each  # no object in two scenes


@needs_stamps
def test_held_out_objects_are_in_no_trained_stock() -> None:
    targets = core_world._held_out_pictures("held-out-objects")
    assert set(targets) == HELD_OUT_NOUNS
    trained = {noun for thing in core_world._trained() for noun in (thing.noun, thing.phrase)}
    assert not trained & set(targets)


@needs_stamps
def test_held_out_pictures_are_second_pictures_of_trained_nouns() -> None:
    targets = core_world._held_out_pictures("held-out-pictures")
    trained = core_world._trained()
    shown = {thing.picture.tobytes() for thing in trained}
    assert len(targets) == 24
    assert set(targets) <= {thing.noun for thing in trained}
    assert not shown & {thing.picture.tobytes() for things in targets.values() for thing in things}


@needs_stamps
@pytest.mark.parametrize("source", ["held-out-objects", "held-out-pictures"])
def test_a_prompt_means_one_object_of_its_scene_and_no_distractor(source: core_world.Source) -> None:
    for number in range(6):
        targets, distractors = core_world._held_out(source, number)
        for noun in targets:
            assert not any(noun in thing.names or noun in thing.noun for thing in distractors)
            others = [thing for name, things in targets.items() if name != noun for thing in things]
            assert not any(core_world._could_mean(noun, thing) for thing in others)
        assert len(distractors) > 200
    beside_a_fortress = {thing.noun for thing in core_world._others(["fortress"])}
    assert not beside_a_fortress & {"fort", "fairytale castle"}
    assert "windmill" in beside_a_fortress


@needs_stamps
def test_look_alikes_and_unseen_words_are_what_they_are_said_to_be() -> None:
    trained = core_world._trained()
    nouns, said = {thing.noun for thing in trained}, {name for thing in trained for name in thing.names}
    assert {noun for alike in core_world.LOOK_ALIKES.values() for noun in alike} <= nouns
    said |= {kind.category for kind in KINDS.values()} | set(KINDS)
    for source, words in core_world.UNSEEN_HELD_OUT_WORDS.items():
        assert set(words.values()) <= set(core_world._held_out_pictures(source))
        assert not set(words) & said


@needs_stamps
@pytest.mark.parametrize("source", ["held-out-objects", "held-out-pictures"])
def test_unseen_words_of_held_out_sources(source: core_world.Source, monkeypatch: pytest.MonkeyPatch) -> None:
    word, noun = next(iter(core_world.UNSEEN_HELD_OUT_WORDS[source].items()))
    monkeypatch.setattr("steersearch.core.steervit.CachedTextEncoder", lambda *_: WordEncoder())
    monkeypatch.setitem(core_world.UNSEEN_HELD_OUT_WORDS, source, {word: noun})
    found = core_world.unseen_words(SteerViT(SMALL), source, pictures_each=1)
    known = "held_out" if source == "held-out-objects" else "trained"
    assert set(found) == {known, "unseen", f"{known}_pmass", "unseen_pmass", "n", "each"}
    assert found["n"] == 1
    assert found[known] == found["unseen"] == found["each"][word][noun]  # closed gates
    assert 0 < found["unseen_pmass"] == found[f"{known}_pmass"] < 1


# -------------------------------------------------------------------------------------------- command line


def test_templates_of_the_command_line() -> None:
    assert core_world._templates("held-out") == HELD_OUT_TEMPLATES
    assert core_world._templates("find the {}") == ("find the {}",)
    for wrong in ("the thing", "{} and {}", "the {0}", "the {} {"):
        with pytest.raises(argparse.ArgumentTypeError, match="must have one"):
            core_world._templates(wrong)
