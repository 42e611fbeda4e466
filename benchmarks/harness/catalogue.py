"""The named benchmarks. Plain data, so that `bench list` and help texts import nothing heavy.

A benchmark is an entry here and a module with a function `create(options) -> Benchmark` (see benchmark.py).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from steersearch.core.errors import ArgumentError

Value = str | int | float


@dataclass(frozen=True, kw_only=True)
class Option:
    """A setting of one benchmark, given as --set NAME=VALUE, of the type of `default`. world_only: of the stand-in."""

    name: str
    default: Value
    help: str
    choices: tuple[Value, ...] = ()
    world_only: bool = False


@dataclass(frozen=True, kw_only=True)
class PublishedData:
    """The real data. how: how to get it, and what --data must name."""

    what: str
    size: str
    licence: str
    how: str


@dataclass(frozen=True, kw_only=True)
class Card:
    """The description of a benchmark.

    module: its name in this package.  summary: for a list.  asks: what it measures, one sentence.  data: None for our
    own.  stand_in: what --world generates; None without one.  cost: time and memory at the real size, and their
    source.  limit: what --limit N counts.  options: its own settings.
    """

    name: str
    module: str
    summary: str
    asks: str
    data: PublishedData | None = None
    stand_in: str | None = None
    cost: str = ""
    limit: str = "pictures"
    options: tuple[Option, ...] = ()

    def settings(self, given: Mapping[str, str] | None = None, *, world: bool = True) -> dict[str, Value]:
        """All options, with those `given` parsed. Raises ArgumentError. world: whether they are for the stand-in."""
        given = given or {}
        known = {option.name: option for option in self.options}
        for name, text in given.items():
            if name not in known:
                have = ", ".join(known) or "none"
                raise ArgumentError("--set", f"{name}={text}", f"bench {self.name} has the settings: {have}")
            if known[name].world_only and not world:
                raise ArgumentError("--set", f"{name}={text}", "belongs to the stand-in; add --world")
        return {o.name: _read(o, given[o.name]) if o.name in given else o.default for o in self.options}


def _read(option: Option, text: str) -> Value:
    kind = type(option.default)
    try:
        value = kind(text)
    except ValueError:
        words = {int: "a whole number", float: "a number"}.get(kind, "a text")
        raise ArgumentError("--set", f"{option.name}={text}", f"must be {words}") from None
    if option.choices and value not in option.choices:
        raise ArgumentError(
            "--set", f"{option.name}={text}", f"must be one of {', '.join(map(str, option.choices))}"
        )
    return value


def check_template(template: str) -> str:
    """Return the template. Raises ArgumentError unless it contains one {}."""
    if template.count("{}") != 1 or set(template.replace("{}", "")) & set("{}"):
        raise ArgumentError("template", template, "must contain one {}, for the name of the thing")
    return template


def card(name: str) -> Card:
    """The benchmark of this name. Raises ArgumentError, with the nearest name, if there is none."""
    if name not in CARDS:
        nearest = difflib.get_close_matches(name, CARDS, 1)
        meant = f'did you mean "{nearest[0]}"? ' if nearest else ""
        raise ArgumentError("benchmark", name, f"{meant}known: {', '.join(CARDS)}")
    return CARDS[name]


_SOURCES = ("drawn", "stamps", "held-out-pictures", "held-out-objects")
_CORE = Card(
    name="core",
    module="paper.core",
    summary="Find the photos with the same small object.",
    asks="Does a photo find the others with the same small object, among photos that otherwise look alike?",
    data=PublishedData(
        what="CORE, JonaRuthardt/CORE on the Hugging Face hub: some 2,800 edited photos of six scenes (SUN397)",
        size="some gigabytes",
        licence="not stated where we could read it; the photos below the edits are SUN397's, for research",
        how="`bench core` fetches it from the hub; or --data FOLDER for a copy (parquet files of the split test)",
    ),
    stand_in="600 generated photos of six scenes, five objects in each",
    cost="some 16,700 forward passes (2,780 photos under five prompts and none). Estimated from 2.93 and "
    "0.98 images/s on two CPU cores: dinov2-small 1.6 hours, dinov2-base 4.7; on an A100, by the paper's 9.5 ms, "
    "three minutes and the decoding. Memory, measured on photos of 1024 pixels: 1.4 GB at most with dinov2-small; it "
    "does not grow with the photos (mini: 1.1 GB on 30, 0.9 on 240). Disk: the photos once more, and under 0.1 GB of "
    "vectors, heatmaps and thumbnails",
    limit="source photos per scene, each with all its variants",
    options=(
        Option(name="k", default=5, help="also say the share of right photos among the first K"),
        Option(
            name="source",
            default="drawn",
            choices=(*_SOURCES, "photographs"),
            help="what the objects are, from easy to hard; photographs: held-out ones on held-out photographs",
            world_only=True,
        ),
        Option(name="template", default="the {}", help="the prompt, with {} for the object", world_only=True),
        Option(
            name="object_size",
            default=0.2,
            help="least longer side of an object, as part of the photo's height; the greatest is 1.5 times that",
            world_only=True,
        ),
    ),
)

_MOSAIC = Card(
    name="mosaic",
    module="paper.mosaic",
    summary="Attend to the prompt's class among four photos.",
    asks="Does the attention of CLS go to the prompt's class among four photos stitched together?",
    data=PublishedData(
        what="PASCAL VOC2012, segmentation val: 1,449 photos with masks, stitched here to 363 composites",
        size="2 GB",
        licence="VOC's terms; photos from Flickr under their own, for research",
        how="VOCtrainval_11-May-2012.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2012, unpacked; --data "
        "VOCdevkit/VOC2012, or the folder that `bench build mosaic` made of it",
    ),
    stand_in="60 composites of 240 generated photos, 34 kinds of things",
    cost="one forward pass for each composite and class in it, about 1,800 in all",
    limit="composites",
    options=(Option(name="template", default="the {}", help="the prompt, with {} for the class"),),
)

_GENECIS = Card(
    name="genecis",
    module="paper.genecis",
    summary="Find the picture that is similar under a condition.",
    asks="Which picture is like the reference in what the condition names: an object, an attribute, a change?",
    data=PublishedData(
        what="GeneCIS: 2,000, 2,112, 1,960 and 1,960 rows on COCO val2017 and Visual Genome 1.2",
        size="3 MB of rows; 1 GB of COCO; 15 GB of Visual Genome for the attribute splits",
        licence="CC BY-NC 4.0; photos from Flickr under their own terms",
        how="the four JSON files from https://github.com/facebookresearch/genecis (genecis/), val2017.zip from "
        "https://images.cocodataset.org/zips, images.zip and images2.zip from https://cs.stanford.edu/people/"
        "rak248/VG_100K_2; --data a folder that holds the JSON files, val2017, VG_100K and VG_100K_2; what is there "
        "of the four splits is measured",
    ),
    stand_in="240 rows on 360 generated photos",
    cost="about 30,000 forward passes for each split and prompt",
    limit="rows of each split",
    options=(
        Option(
            name="split",
            default="all",
            choices=("all", "focus_attribute", "change_attribute", "focus_object", "change_object"),
            help="which to measure",
        ),
        Option(
            name="template",
            default="both",
            help='the prompt, with {} for the condition; both: "the {}", and the bare condition beside it',
        ),
    ),
)

_WORDS = Card(
    name="words",
    module="ours.words",
    summary="Localise things by words that training did not use.",
    asks="Does the heatmap find a thing named by a word that no training prompt used?",
    stand_in="some 140 generated photos; this benchmark is our own and has no other data",
    limit="photos of each word",
    options=(
        Option(
            name="source", default="drawn", choices=_SOURCES, help="what the things are, from easy to hard"
        ),
        Option(name="template", default="the {}", help="the prompt, with {} for the word"),
    ),
)

_PHOTOGRAPHS = Card(
    name="photographs",
    module="ours.photographs",
    summary="Localise and search in real photographs.",
    asks="What does the model know of real photographs? Mosaics, clutter, nearest photographs, `find`, colours.",
    data=PublishedData(
        what="some 140 photographs that nothing is trained on, labelled here; cutouts for the colours",
        size="300 MB of packages",
        licence="each photograph its own; see its package",
        how="`bench photographs` fetches Debian's gcompris-qt-data and darknet by apt-get; or --data FOLDER with both, "
        "unpacked; apt-get install tuxpaint-stamps-default for the cutouts",
    ),
    cost="some 3,500 forward passes",
    limit="mosaics, and pairs of cutouts",
)

_ATTRIBUTE_FLIP = Card(
    name="attribute-flip",
    module="ours.attribute_flip",
    summary="Follow the colour that the prompt names.",
    asks="Of two things that differ only in colour, does the heatmap choose the one that the prompt names?",
    data=PublishedData(
        what="PhraseCut (VGPhraseCut_v0): phrases about pictures of Visual Genome, in pairs that differ only in colour",
        size="50 MB of phrases for val or test, and their 3,000 pictures each",
        licence="CC BY 4.0 (Visual Genome); not stated for the phrases; photos from Flickr under their own terms",
        how="download_dataset.py of https://github.com/ChenyunWu/PhraseCutDataset with -s val_test; --data "
        "VGPhraseCut_v0, which holds refer_val.json, refer_test.json and images",
    ),
    stand_in="120 generated photos of two things of a kind in two colours",
    cost="two forward passes for each pair",
    limit="pairs",
    options=(
        Option(name="split", default="test", choices=("test", "val", "miniv"), help="of PhraseCut"),
        Option(name="template", default="the {}", help="the prompt, with {} for the phrase"),
    ),
)

_ICIR = Card(
    name="icir",
    module="ours.icir",
    summary="Find a particular object as a text wants it.",
    asks="Which pictures show the object of the query as the text says? Mean average precision.",
    data=PublishedData(
        what="i-CIR: 1,883 queries of 202 instances, and a database of some 3,700 pictures for each",
        size="some 750,000 pictures",
        licence="CC BY-NC-SA 4.0; the pictures' own terms",
        how="https://vrg.fel.cvut.cz/icir/icir_v1.0.0.tar.gz, unpacked; --data icir, which holds query_files.csv, "
        "database_files.csv and the pictures",
    ),
    stand_in="30 queries of 10 drawn things, each among 24 generated photos: it, where a text places it",
    cost="a forward pass for each picture of an instance's database and each of its texts, some 2.5 million",
    limit="instances",
    options=(Option(name="template", default="{}", help="the prompt, with {} for the text"),),
)

_ANOMALY = Card(
    name="anomaly",
    module="paper.anomaly",
    summary="Find where an object is damaged.",
    asks="Where is an object damaged, by ten phrases for damage alone?",
    data=PublishedData(
        what="MVTec AD (1,725 test pictures of 15 objects) or VisA (2,162 of 12)",
        size="5 GB, or 2 GB",
        licence="CC BY-NC-SA 4.0, or CC BY 4.0",
        how="MVTec AD from https://www.mvtec.com/company/research/datasets/mvtec-ad, or VisA_20220922.tar from "
        "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com with the folder split_csv of "
        "https://github.com/amazon-science/spot-diff in it; unpacked, --data its folder",
    ),
    stand_in="144 drawn pictures of eight kinds of objects, two thirds of them damaged",
    cost="ten forward passes for each test picture; 3 GB of memory for the maps of a class at 448 pixels",
    limit="test pictures of each object",
)

_PODS = Card(
    name="pods",
    module="paper.pods",
    summary="Tell one mug from other mugs: personal objects.",
    asks="Does a photo show this particular mug, among other mugs? Personal objects, three references each.",
    data=PublishedData(
        what="PODS, chaenayo/PODS on the Hugging Face hub: 100 objects, 300 references and 10,888 test photos",
        size="1.2 GB",
        licence="MIT",
        how="hf download --repo-type dataset chaenayo/PODS --local-dir pods; --data pods. With the "
        "pods_info.json of https://data.csail.mit.edu/personal_rep/pods.zip in it, also over its 70 test objects; "
        "with a descriptions.json, {label: text}, also under descriptions",
    ),
    stand_in="112 generated photos of 16 things that differ in a small mark",
    cost="one forward pass for each photo and prompt: 11,188 under each of 100 names, and as many descriptions",
    limit="objects of each kind",
    options=(
        Option(
            name="prompts",
            default="all",
            choices=("all", "none", "supercategory", "name", "description"),
            help="what the objects are called",
        ),
    ),
)

_REFCOCOG = Card(
    name="refcocog",
    module="paper.refcocog",
    summary="Localise what a sentence refers to.",
    asks="How well does the heatmap cover what a sentence refers to?",
    data=PublishedData(
        what="RefCOCOg, split by umd: 4,896 expressions in val, 9,602 in test, about pictures of COCO train2014",
        size="25 MB, and 13 GB of COCO's train2014",
        licence="Apache-2.0; the pictures from Flickr under their own terms",
        how="refcocog.zip as linked from https://github.com/lichengunc/refer, and train2014.zip from "
        "http://images.cocodataset.org/zips; --data refcocog, with the pictures in images/mscoco/images/train2014 "
        "beside it",
    ),
    stand_in="480 expressions about 120 generated photos",
    cost="one forward pass for each expression, alone in its batch, and 1,000 to choose the threshold on",
    limit="expressions",
    options=(Option(name="split", default="val", choices=("val", "test"), help="what is measured"),),
)

_QUALITY = Card(
    name="quality",
    module="paper.quality",
    summary="What steering costs features of a whole picture.",
    asks="What does steering cost the features of the whole picture? Linear probes and labels of nearest patches.",
    data=PublishedData(
        what="ImageWoof (12,954 photos), Waterbirds (11,788) and Stanford Cars (16,185) for probes, ADE20k (22,210) "
        "for nearest patches; those present are measured",
        size="1.3, 0.5, 2 and 0.9 GB",
        licence="ImageWoof Apache-2.0, ADE20k BSD-3; the photos of all four for research",
        how="imagewoof2.tgz from https://github.com/fastai/imagenette, waterbird_complete95_forest2water2 from "
        "https://github.com/kohpangwei/group_DRO, Stanford Cars with a folder for each class (cars/train, cars/test), "
        "ADEChallengeData2016.zip from http://sceneparsing.csail.mit.edu; unpacked into one folder, --data that",
    ),
    stand_in="510 generated photos for two probes, 78 for six classes of nearest patches",
    cost="one forward pass for each photo of the probes, and for ADE20k 2,400 for each of 150 classes; 1 GB of memory",
    limit="photos of each split",
    options=(
        Option(
            name="gate_scales",
            default="",
            help="measure at each of these, such as 0,0.2,0.4,0.6,0.8,1, and CORE beside it",
        ),
        Option(name="memory", default=400, help="photos in the memory of a class of ADE20k"),
    ),
)

_EMBEDDING_MAP = Card(
    name="embedding-map",
    module="paper.embedding_map",
    summary="Group photos by a prompt, and draw the map.",
    asks="Does a prompt bring together the photos of a group of classes, or of one? Silhouettes, and a map by UMAP.",
    data=PublishedData(
        what="PASCAL VOC2012, val: 500 photos that show exactly one of eight classes",
        size="2 GB",
        licence="VOC's terms; photos from Flickr under their own, for research",
        how="VOCtrainval_11-May-2012.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2012, unpacked; --data "
        "VOCdevkit/VOC2012. The drawn map needs umap-learn (the extra bench)",
    ),
    stand_in="120 generated photos of eight kinds of things",
    cost="2,000 forward passes",
    limit="photos",
)

CARDS: dict[str, Card] = {
    each.name: each
    for each in (
        _CORE,
        _GENECIS,
        _WORDS,
        _PHOTOGRAPHS,
        _ATTRIBUTE_FLIP,
        _ICIR,
        _MOSAIC,
        _ANOMALY,
        _PODS,
        _REFCOCOG,
        _QUALITY,
        _EMBEDDING_MAP,
    )
}
