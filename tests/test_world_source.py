"""The generated world as a source: the corpus' photos, and rows that follow from their number alone."""

import hashlib
import itertools
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from steersearch.core.errors import ArgumentError, ConfigError, DataError
from steersearch.training.data.check import check_source
from steersearch.training.data.samples import Joined, Sample
from steersearch.training.data.sources import open_source
from steersearch.training.world import composition, corpus, drawings, emoji, stamps
from steersearch.training.world import source as world_source
from steersearch.training.world.backgrounds import Backgrounds
from steersearch.training.world.corpus import make_corpus
from steersearch.training.world.kinds import KINDS
from steersearch.training.world.source import SourceConfig, WorldSource, open_world
from steersearch.training.world.things import TEMPLATES
from steersearch.training.world.world import World, WorldConfig, with_packages
from tests.conftest import Run

SMALL = WorldConfig(photos=12, size=64, drawn_per_kind=1, plates=1, stamps=False, emoji=False)
WORLD = SourceConfig(photos=12, size=64, drawn_per_kind=1, plates=1, stamps=False, emoji=False)
NAME = "world:photos=12,size=64,drawn_per_kind=1,plates=1,stamps=false,emoji=false"
# Of the arrays of SMALL, and with both packages, as commit c585d4f made them: backbones were trained on such pictures.
MADE_BEFORE = {
    False: "a977368c2f8ef3c4fa3db154dbd21908012e43e439a5ea9439ffcca2e808497f",
    True: "999e30c1e0d5c736e375cbd9e0908937349cda0b45814d9135c0b494223d6162",
}

have_packages = stamps.STAMPS_FOLDER.is_dir() and emoji.EMOJI_FONT.is_file()
needs_packages = pytest.mark.skipif(not have_packages, reason="stamps or emoji are not installed")


@pytest.fixture(autouse=True)
def shared_drawings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEERSEARCH_CACHE", str(tmp_path_factory.getbasetemp() / "drawings"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> corpus.Corpus:
    return make_corpus(SMALL, tmp_path_factory.mktemp("corpus"))


@pytest.mark.skipif(PIL.__version__.split(".")[0] != "13", reason="another Pillow may round otherwise")
@pytest.mark.parametrize("packages", [False, pytest.param(True, marks=needs_packages)])
def test_a_corpus_is_bit_for_bit_what_it_was(packages: bool, tmp_path: Path) -> None:
    made = make_corpus(replace(SMALL, stamps=packages, emoji=packages), tmp_path)
    arrays = (made.images, made.cover, made.things, made.families)
    assert hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest() == MADE_BEFORE[packages]


def test_photos_are_the_ones_of_the_corpus(small: corpus.Corpus) -> None:
    source = WorldSource(WORLD)
    assert len(source) == 48
    for index in range(0, 48, 3):
        assert (np.asarray(source.picture(index)) == small.images[index // 4]).all()


def test_masks_without_painting_are_those_of_the_painted_photo() -> None:
    made = WorldSource(WORLD).world
    for number in range(12):
        plan = made.plan(number)
        painted = composition.compose(plan.plate, plan.spots)
        seen = composition.visible_masks(plan.plate.image.size, plan.spots)
        assert [thing for thing, _ in seen] == [placed.thing for placed in painted.placed]
        for (_, mask), placed in zip(seen, painted.placed, strict=True):
            assert (mask == placed.mask).all()


def same(one: Sample, other: Sample) -> bool:
    return replace(one, mask=()) == replace(other, mask=()) and (one.mask == other.mask).all()  # type: ignore[arg-type]


def test_a_row_depends_on_its_number_alone() -> None:
    config = replace(WORLD, absent=0.3, relations=0.5)
    forwards, backwards = WorldSource(config), WorldSource(config)
    copied = pickle.loads(pickle.dumps(forwards))
    longer = WorldSource(replace(config, photos=500))
    for index in reversed(range(48)):
        backwards.read(index)
    for index in range(48):
        sample = forwards[index]
        assert same(sample, backwards[index])
        assert same(sample, copied[index])
        assert sample.expression == longer[index].expression
        row = forwards.row(index)
        assert (row.image, row.expression, row.split) == (sample.image, sample.expression, sample.split)
        assert (np.asarray(copied.picture(index)) == np.asarray(forwards.picture(index))).all()
    other = WorldSource(replace(config, seed=1))
    assert [other.row(i).expression for i in range(8)] != [forwards.row(i).expression for i in range(8)]


def test_pictures_are_the_callers_own() -> None:
    source = WorldSource(WORLD)
    before = np.asarray(source.picture(0)).copy()
    source.picture(0).paste((0, 0, 0), (0, 0, 64, 64))
    assert (np.asarray(source.picture(1)) == before).all()


def test_the_mask_is_the_union_of_what_bears_the_name(small: corpus.Corpus) -> None:
    """By the corpus' own record of what lies where, on its patch grid."""
    source = WorldSource(replace(WORLD, relations=0.0, expressions=8))
    prefixes = [template.split("{}") for template in TEMPLATES]
    several = 0
    for index in range(len(source)):
        sample = source[index]
        photo = index // 8
        names = {
            sample.expression.removeprefix(a).removesuffix(b)
            for a, b in prefixes
            if sample.expression.startswith(a) and sample.expression.endswith(b)
        }
        bears = [k >= 0 and bool(names & small.stock[k].names) for k in small.things[photo]]
        several += sum(bears) > 1
        expected = small.cover[photo][bears].sum(axis=0) / 255
        cover = sample.mask.reshape(4, 16, 4, 16).mean(axis=(1, 3))
        assert np.abs(cover - expected).max() < 0.15  # edges are squashed to whole pixels
        assert sample.mask.any()
        assert not sample.absent
    assert several > 0


def test_several_expressions_of_a_photo_differ() -> None:
    source = WorldSource(replace(WORLD, photos=40))
    texts = [{source.row(4 * photo + k).expression for k in range(4)} for photo in range(40)]
    assert np.mean([len(said) for said in texts]) > 3.9


def test_what_is_absent_has_an_empty_mask_and_is_counted() -> None:
    source = WorldSource(replace(WORLD, photos=100, absent=0.25))
    samples = [source[index] for index in range(len(source))]
    absent = sum(sample.absent for sample in samples)
    assert 60 < absent < 140  # 100 ± 4.6 standard deviations
    assert all(sample.absent != sample.mask.any() for sample in samples)
    report = check_source(source, limit=200)
    assert report.absent == sum(sample.absent for sample in samples[::2])
    assert (report.samples, report.images, report.skipped) == (200, 100, 0)
    assert report.areas is not None
    assert report.areas.least > 0
    assert not any(WorldSource(WORLD)[index].absent for index in range(48))


def test_validation_shares_neither_drawings_nor_backgrounds_nor_placements() -> None:
    train, val = WorldSource(WORLD).world, WorldSource(replace(WORLD, split="val")).world
    assert len(train.stock) == len(val.stock) == len(KINDS)
    drawn = {thing.picture.tobytes() for thing in train.stock}
    assert not [thing.noun for thing in val.stock if thing.picture.tobytes() in drawn]
    painted = {plate.image.tobytes() for plate in train.plates}
    assert not [plate.family for plate in val.plates if plate.image.tobytes() in painted]
    spots = {spot for number in range(12) for _, spot in train.plan(number).spots}
    assert not spots & {spot for number in range(12) for _, spot in val.plan(number).spots}
    assert WorldSource(replace(WORLD, split="val"))[0].split == "val"


@needs_packages
def test_no_training_picture_shows_a_held_out_noun() -> None:
    trained = with_packages([], WorldConfig(size=32))
    assert len(trained) > 300
    assert not {thing.noun for thing in trained} & stamps.HELD_OUT_NOUNS


# ------------------------------------------------------------------------------------- materials and backgrounds


def test_what_was_drawn_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STEERSEARCH_CACHE", str(tmp_path))
    first = World(WORLD.world, keep=True)
    for name in ("draw_things", "draw_plates"):
        monkeypatch.setattr(drawings, name, lambda *settings: pytest.fail("drawn again"))
    again = World(WORLD.world, keep=True)
    for one, other in zip(first.stock, again.stock, strict=True):
        assert replace(one, picture=other.picture) == other
        assert (np.asarray(one.picture) == np.asarray(other.picture)).all()
    for a, b in zip(first.plates, again.plates, strict=True):
        assert (a.family, a.places, a.image.tobytes()) == (b.family, b.places, b.image.tobytes())
    monkeypatch.undo()
    monkeypatch.setenv("STEERSEARCH_CACHE", str(tmp_path))
    for file in tmp_path.rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:1000])  # damaged: drawn again
    assert [thing.names for thing in drawings.kept_things(0, 64, 1)] == [thing.names for thing in first.stock]


def put(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def test_backgrounds_are_crops_of_the_opaque_photographs(tmp_path: Path) -> None:
    ramp = np.stack([*np.meshgrid(np.arange(200), np.arange(120)), np.full((120, 200), 7)], axis=-1)
    put(tmp_path / "deep" / "ramp.png", ramp)
    put(tmp_path / "clear.png", np.zeros((90, 90, 4)))
    put(tmp_path / "LadyBird.png", np.zeros((90, 90, 3)))
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    found = Backgrounds(tmp_path)
    assert len(found) == 1
    scales = set()
    for seed in range(20):
        crop = np.asarray(found.crop(np.random.default_rng(seed), (40, 30))).astype(float)
        assert crop.shape == (30, 40, 3)
        across, down = np.diff(crop[15, 2:-2, 0]).mean(), np.diff(crop[2:-2, 20, 1]).mean()
        assert abs(across - down) < 0.15  # not distorted
        scales.add(round(across, 1))
        assert (crop[..., 2] == 7).all()
    assert min(scales) < 2.2 < 3 < max(scales) <= 4
    one, two = (np.asarray(found.crop(np.random.default_rng(3), (40, 30))) for _ in range(2))
    assert (one == two).all()


def test_backgrounds_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        WorldSource(replace(WORLD, backgrounds=str(tmp_path / "gone")))
    with pytest.raises(DataError, match="holds no background"):
        Backgrounds(tmp_path)
    good = tmp_path / "good.png"
    put(good, np.random.default_rng(0).integers(0, 256, (99, 99, 3)))
    good.write_bytes(good.read_bytes()[:9000])
    with pytest.raises(DataError, match=r"good\.png: truncated"):
        WorldSource(replace(WORLD, backgrounds=str(tmp_path)))


def test_photographs_are_some_of_the_backgrounds(tmp_path: Path) -> None:
    put(tmp_path / "green.png", np.full((100, 100, 3), (10, 250, 20)))
    plates = WorldSource(replace(WORLD, backgrounds=str(tmp_path))).world.plates
    assert len(plates) == len(WorldSource(WORLD).world.plates) + 1
    assert plates[-1].image.getpixel((9, 9)) == (10, 250, 20)


# ------------------------------------------------------------------------------------------------- by its name


def test_a_world_is_opened_by_its_name() -> None:
    source = open_source(Path(NAME + ",seed=3,absent=0.5"), split="val")
    assert isinstance(source, WorldSource)
    assert source.config == replace(WORLD, seed=3, absent=0.5, split="val")
    assert (
        open_world("world:stamps=false,emoji=false,size=64,drawn_per_kind=1,plates=1").config.photos == 40_000
    )
    joined = Joined("both", [source, WorldSource(WORLD)])
    assert (np.asarray(joined.picture(50)) == np.asarray(WorldSource(WORLD).picture(2))).all()
    assert isinstance(joined.read(50), Sample)


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("world:photo=3", ArgumentError, 'did you mean "photos"'),
        ("world:photos=many", ArgumentError, "must be a whole number"),
        ("world:relations=half", ArgumentError, "must be a number"),
        ("world:emoji=no", ArgumentError, "must be true or false"),
        ("world:emoji", ArgumentError, "emoji=..."),
        ("world:photos=0", ConfigError, "at least 1"),
        ("world:absent=1.5", ConfigError, "from 0 to 1"),
        ("world:absent=nan", ConfigError, "from 0 to 1"),
        ("world:seed=-1", ConfigError, "must be from 0"),
        ("world:split=test", ConfigError, "train, val"),
    ],
)
def test_settings_that_cannot_be(name: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        open_source(Path(name))


def test_it_takes_no_folders_and_one_split() -> None:
    with pytest.raises(ArgumentError, match="makes its own"):
        open_source(Path(NAME), images=Path("photos"))
    with pytest.raises(ArgumentError, match="of the split train"):
        open_source(Path(NAME + ",split=train"), split="val")


def test_missing_packages_say_how_to_do_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(world_source, "_made", {})
    monkeypatch.setattr(stamps.load_stamps, "__defaults__", (tmp_path / "none", False))
    with pytest.raises(stamps.StampsMissingError, match="stamps=false"):
        WorldSource(replace(WORLD, stamps=True))


def test_train_check_reads_and_draws_it(run: Run, tmp_path: Path) -> None:
    done = run("train", "check", NAME + ",absent=0.2", "-o", "sheet.png")
    assert done.code == 0, done.err
    assert "48 samples of 12 pictures" in done.out
    assert "fit nothing in their picture" in done.out
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 1000
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 24) or []}
    assert len(colours) > 1000  # the photos themselves
    refused = run("train", "check", "world:emojis=false")
    assert refused.code != 0
    assert 'did you mean "emoji"' in refused.err


def test_forked_workers_give_the_same_rows() -> None:
    from torch.utils.data import DataLoader

    source = WorldSource(WORLD)
    texts = list(itertools.chain.from_iterable(DataLoader(_Texts(source), batch_size=8, num_workers=2)))
    assert texts == [source.row(index).expression for index in range(48)]


class _Texts:
    def __init__(self, source: WorldSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> str:
        return self.source.row(index).expression
