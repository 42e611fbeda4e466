"""core-world: the stand-in has CORE's structure, and an unsteered model scores the same under every prompt."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from steersearch.benchmarks.harness.method import Seen
from steersearch.benchmarks.harness.steervit_method import SteerViTMethod
from steersearch.benchmarks.paper import core_world
from steersearch.benchmarks.paper.core import Core
from steersearch.benchmarks.paper.core_data import CoreData
from steersearch.core.errors import ArgumentError, BenchmarkError
from steersearch.core.predictor import Predictor
from steersearch.core.preprocess import View
from steersearch.core.steervit import SteerViT
from steersearch.training.photographs.wordnet import WORDNET_FOLDER, WordNet, class_words
from steersearch.training.world.kinds import KINDS
from steersearch.training.world.stamps import HELD_OUT_NOUNS, STAMPS_FOLDER
from tests.test_training import SMALL

needs_stamps = pytest.mark.skipif(not STAMPS_FOLDER.is_dir(), reason="the stamps' package is not installed")


@pytest.mark.skipif(not WORDNET_FOLDER.is_dir(), reason="WordNet is not installed")
def test_how_many_held_out_nouns_the_minis_words_know() -> None:
    """As docs/benchmarks.md says: held out from the world is not new to a backbone of ImageNet."""
    known = {word for word, _ in class_words(WordNet(WORDNET_FOLDER)).words}
    assert (len(HELD_OUT_NOUNS & known), len(HELD_OUT_NOUNS)) == (16, 30)


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


# ------------------------------------------------------------------------------------------- as a data set


@pytest.fixture
def small_data(
    word_encoder: None, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> CoreData:
    """Two scenes on two bases, drawn once."""
    few = {name: core_world.OBJECTS[name] for name in ("kitchen", "street")}
    monkeypatch.setattr(core_world, "OBJECTS", few)
    monkeypatch.setenv("STEERSEARCH_CACHE", str(tmp_path_factory.getbasetemp() / "two scenes"))
    return core_world.dataset("drawn", bases=2, size=(64, 48))


def test_a_data_set_is_what_was_built(small_data: CoreData, monkeypatch: pytest.MonkeyPatch) -> None:
    built = core_world.build("drawn", bases=2, size=(64, 48))
    kept = [
        (row.object, row.image_id, scene.gallery.read(i), Image.open(scene.masks[i]), row.prompt)
        for scene in small_data.scenes
        for i, row in enumerate(scene.rows)
    ]
    assert len(kept) == len(built) == small_data.n == 20
    for made, (name, image_id, image, mask, prompt) in zip(built, kept, strict=True):
        assert (made.object, made.image_id, f"the {made.object}") == (name, image_id, prompt)
        assert made.image.tobytes() == image.tobytes()
        assert np.array_equal(np.asarray(mask) > 0, made.mask)
    assert (small_data.source, small_data.name) == ("generated stand-in", "core-world/drawn")
    monkeypatch.setattr(core_world, "_pictures", None)  # nothing is drawn again
    again = core_world.dataset("drawn", bases=2, size=(64, 48), template="find the {}")
    assert again.scenes[0].gallery == small_data.scenes[0].gallery
    assert again.scenes[0].rows[0].prompt.startswith("find the ")
    assert again.data_hash != small_data.data_hash


def test_a_run_that_was_killed_while_drawing_leaves_no_data_set(
    small_data: CoreData, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = core_world._pictures

    def killed(*settings: object) -> Iterator[core_world.Picture]:
        yield from islice(pictures(*settings), 3)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(core_world, "_pictures", killed)
    with pytest.raises(KeyboardInterrupt):
        core_world.dataset("drawn", bases=3, size=(64, 48))
    monkeypatch.setattr(core_world, "_pictures", pictures)
    assert core_world.dataset("drawn", bases=3, size=(64, 48)).n == 30


def test_closed_gates_make_every_prompt_the_same(small_data: CoreData) -> None:
    for kind in ("cls", "focus"):
        method = SteerViTMethod(Predictor(SteerViT(SMALL)), aggregation=kind)  # gates start at zero
        metrics = Core().evaluate(method, small_data).metrics
        cases = {metrics[f"macro{case}"] for case in ("", "_wrong_prompt", "_no_prompt")}
        assert len(cases) == 1
        assert 0 <= cases.pop() <= 100
        assert 0 < metrics["pmass"] < 100


@pytest.mark.parametrize("view", ["crop", "tile"])
def test_every_view_is_measured(small_data: CoreData, view: View) -> None:
    metrics = Core().evaluate(SteerViTMethod(Predictor(SteerViT(SMALL)), view=view), small_data).metrics
    assert 0 < metrics["pmass"] < 100
    assert metrics["macro"] == metrics["macro_wrong_prompt"]  # gates start at zero


class Oracle:
    """Embeds a picture by its object under any prompt, and by its base under none."""

    weights_hash = None
    name, identity, licence = "oracle", "oracle", "none"
    takes_prompt, gallery_takes_prompt, batch_size = True, True, 7

    def __init__(self, pictures: list[core_world.Picture]) -> None:
        self.rows = {p.image.tobytes(): p for p in pictures}
        self.objects = sorted({p.object for p in pictures})
        self.bases = sorted({p.image_id for p in pictures})

    def see(self, pictures: Sequence[Image.Image], prompt: str | None, **wanted: bool) -> Seen:
        axes = np.eye(len(self.objects) + len(self.bases), dtype=np.float32)
        found = [self.rows.get(p.tobytes()) for p in pictures]  # a grey one is seen to learn what is possible
        said = [0 if p is None else self.objects.index(p.object) for p in found]
        shown = [0 if p is None else len(self.objects) + self.bases.index(p.image_id) for p in found]
        return Seen(vectors=axes[said if prompt else shown])


def test_a_perfect_embedding_scores_100(small_data: CoreData) -> None:
    method = Oracle(core_world.build("drawn", bases=2, size=(64, 48)))
    metrics = Core().evaluate(method, small_data).metrics
    assert metrics["macro"] == metrics["macro_wrong_prompt"] == 100.0
    assert metrics["macro_no_prompt"] < 50.0
    assert "pointing" not in metrics  # it has no heatmap


def test_settings_that_cannot_be_intended_are_refused() -> None:
    for name, settings in (
        ("source", {"source": "photos"}),
        ("template", {"template": "the thing"}),
        ("template", {"template": "the {} and the {}"}),
        ("object_size", {"object_size": 0.7}),
        ("limit", {"bases": 1}),
    ):
        with pytest.raises(ArgumentError, match=name):
            core_world.dataset(**settings)


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
    assert len({p.object for p in pictures}) == 6 * each  # no object in two scenes


@needs_stamps
def test_held_out_objects_are_in_no_trained_stock() -> None:
    targets = core_world.held_out_pictures("held-out-objects")
    assert set(targets) == HELD_OUT_NOUNS
    trained = {noun for thing in core_world._trained() for noun in (thing.noun, thing.phrase)}
    assert not trained & set(targets)


@needs_stamps
def test_held_out_pictures_are_second_pictures_of_trained_nouns() -> None:
    targets = core_world.held_out_pictures("held-out-pictures")
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
    beside_a_fortress = {thing.noun for thing in core_world.others_than(["fortress"])}
    assert not beside_a_fortress & {"fort", "fairytale castle"}
    assert "windmill" in beside_a_fortress


@needs_stamps
def test_look_alikes_are_trained() -> None:
    nouns = {thing.noun for thing in core_world._trained()}
    assert {noun for alike in core_world.LOOK_ALIKES.values() for noun in alike} <= nouns


def test_a_base_that_finds_no_room_at_first_is_tried_again_and_often(monkeypatch: pytest.MonkeyPatch) -> None:
    place, tried = core_world.composition.place_things, list[int]()

    def crowded(*given: object, **named: object) -> object:
        tried.append(1)
        return [] if len(tried) <= 60 else place(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(core_world.composition, "place_things", crowded)
    assert len(list(islice(core_world._pictures("drawn", 1, (80, 60), (0.2, 0.3)), 5))) == 5
    assert len(tried) > 60


def test_objects_that_fit_nowhere_are_reported_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_world.composition, "place_things", lambda *given, **named: [])
    monkeypatch.setattr(core_world, "PLATES", 3)
    with pytest.raises(BenchmarkError, match=r"kitchen have no room for objects of 0\.2 to 0\.3 .* smaller"):
        next(core_world._pictures("drawn", 1, (80, 60), (0.2, 0.3)))
