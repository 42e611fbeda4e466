"""WordNet's nouns, their meanings and hypernyms.

Read from Debian's package wordnet-base (Princeton's licence), installed or unpacked, and never copied into this
repository. ImageNet's classes are WordNet synsets, which gives each class its names and hypernyms ("dog" for 118
classes).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from steersearch.core.errors import DataError, SteerSearchError
from steersearch.training.photographs.packages import Package

PACKAGE = Package("wordnet-base", "debian", "", "WordNet's own, a permissive one")
WORDNET_FOLDER = Path("/usr/share/wordnet")
LONGEST_NAME = 30
PHYSICAL = frozenset({"physical entity"})

# A class whose pictures show another meaning than its synset: vessels, not a punch.
_REFILED = {"07930864": "03147509"}
# Hypernyms that nobody would use: a wheeled vehicle is a container.
_NO_KINDS = {"04576211": "03094503"}
# Meanings that a photograph shows, if a commoner one or a class is another.
_SHOWN = {
    "cake": "07628870", "kite": "03621473", "lute": "03698360", "plant": "00017222", "plate": "03959485",
    "toilet": "04446521", "tv": "04405907",
}  # fmt: skip
_LITERAL = frozenset({"rubber duck", "solar panel", "wall"})  # their heads and hypernyms mislead
# Synsets, by their first word, that are too general to point at, or name a role instead of a visible thing.
TOO_WIDE = frozenset("""
    abstraction|animate thing|aquatic vertebrate|area|artifact|attribute|bar|barrier|being|bony fish|bovid|
    carnivore|causal agent|chordate|commodity|consumer goods|conveyance|covering|craft|device|diapsid|
    domestic animal|durables|entity|equipment|establishment|even-toed ungulate|food|foodstuff|furnishing|
    geological formation|group|implement|instrument|instrumentality|lever|living thing|material|matter|
    mechanism|mercantile establishment|natural object|nutrient|nutriment|object|obstruction|organism|oscine|
    part|passage|passerine|person|physical entity|place of business|placental|plant organ|plant part|produce|
    protective covering|relation|reproductive structure|restraint|rotating mechanism|ruminant|saurian|
    self-propelled vehicle|shape|sheet|solid|structure|substance|support|surface|teleost fish|thing|ungulate|
    unit|vertebrate|way|wheeled vehicle|whole
    """.replace("\n", "").replace("    ", "").split("|"))  # fmt: skip


class WordNetMissingError(SteerSearchError):
    """WordNet is not installed. Field: `folder`, where it was expected."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(f"no WordNet in {folder}; install it with: apt-get install wordnet-base")


@dataclass(frozen=True)
class Synset:
    """One meaning. words: the commonest first;  kinds_of: offsets of its direct hypernyms."""

    words: tuple[str, ...]
    kinds_of: tuple[str, ...]


class WordNet:
    """synsets: by offset in WordNet 3.0, eight digits.  meanings: offsets by lower-case word, the commonest first."""

    def __init__(self, folder: Path = WORDNET_FOLDER) -> None:
        """Raises WordNetMissingError."""
        if not (folder / "data.noun").is_file() or not (folder / "index.noun").is_file():
            raise WordNetMissingError(folder)
        self.folder = folder
        self.synsets = dict(map(_synset, _entries(folder / "data.noun")))
        self.meanings = dict(map(_meanings, _entries(folder / "index.noun")))

    def wider(self, offset: str) -> list[str]:
        """Offsets of this meaning and all its hypernyms, the nearest first."""
        found = [offset]
        for each in found:
            found += [kind for kind in self.synsets[each].kinds_of if kind not in found]
        return found

    def is_a(self, offset: str, words: frozenset[str]) -> bool:
        """Whether the meaning or a hypernym has one of `words` as its first word."""
        return any(self.synsets[each].words[0] in words for each in self.wider(offset))

    def find(self, noun: str) -> Sequence[str]:
        """Meanings of a noun, in the singular or plural."""
        for word in (noun, noun.removesuffix("s"), noun.removesuffix("es")):
            if word in self.meanings:
                return self.meanings[word]
        return ()


@dataclass(frozen=True)
class ClassWords:
    """ImageNet's classes in words.

    offsets: the synset of each class, in the order of the classifier
    """

    wordnet: WordNet
    offsets: Sequence[str]

    @cached_property
    def classes(self) -> dict[str, frozenset[int]]:
        """The numbers of the classes of every synset that is a class or a hypernym of one."""
        found: dict[str, set[int]] = {}
        for number, offset in enumerate(self.offsets):
            for each in self.wordnet.wider(offset):
                found.setdefault(each, set()).add(number)
        return {offset: frozenset(numbers) for offset, numbers in found.items()}

    @cached_property
    def words(self) -> list[tuple[str, frozenset[int]]]:
        """Every word for one or several classes that one could point at, up to three per synset."""
        return [
            (word.lower(), numbers)
            for offset, numbers in self.classes.items()
            if self.wordnet.synsets[offset].words[0] not in TOO_WIDE
            for word in self.wordnet.synsets[offset].words[:3]
            if len(word) < LONGEST_NAME
        ]

    def names(self, noun: str, among: frozenset[str] = PHYSICAL) -> frozenset[str]:
        """All names for anything called `noun`: its head ("red apple": apple), synonyms, hypernyms.

        among: the meaning must be a kind of one of these. The commonest meaning counts, but among physical things one
        that is a class comes first.
        """
        words = [] if noun in _LITERAL else noun.split()
        for first in range(len(words)):
            part = " ".join(words[first:])
            meanings = [each for each in self.wordnet.find(part) if self.wordnet.is_a(each, among)]
            if among == PHYSICAL:
                meanings.sort(key=lambda each: (each != _SHOWN.get(part), each not in self.classes))
            if not meanings:
                continue
            wider = self.wordnet.wider(meanings[0])
            said = {noun, part}
            if first == 0:
                said.update(word for word in self.wordnet.synsets[meanings[0]].words if word.islower())
            said.update(
                self.wordnet.synsets[each].words[0].lower() for each in wider[1:] if each in self.classes
            )
            return frozenset({noun} | {word for word in said - TOO_WIDE if len(word) < LONGEST_NAME})
        return frozenset({noun})


def class_words(wordnet: WordNet) -> ClassWords:
    """ImageNet-1k's classes in the usual order, read from timm's list without importing timm, which takes seconds.

    Raises DataError for another version than WordNet 3.0.
    """
    timm = find_spec("timm")
    assert timm is not None  # a dependency
    assert timm.origin is not None
    synsets = (Path(timm.origin).parent / "data/_info/imagenet_synsets.txt").read_text().split()
    offsets = [_REFILED.get(offset, offset) for offset in (synset.removeprefix("n") for synset in synsets)]
    if not wordnet.synsets.keys() >= set(offsets):
        raise DataError(wordnet.folder, "not WordNet 3.0: it lacks some of ImageNet's classes")
    return ClassWords(wordnet, offsets)


def _entries(file: Path) -> Iterator[list[str]]:
    """The fields of each line without its gloss; lines of the licence start with spaces."""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.startswith("  "):
                yield line.split(" | ")[0].split()


def _synset(entry: list[str]) -> tuple[str, Synset]:
    offset, count = entry[0], int(entry[3], 16)
    words = tuple(entry[4 + 2 * i].replace("_", " ") for i in range(count))
    at = 4 + 2 * count
    pointers = [entry[at + 1 + 4 * i : at + 5 + 4 * i] for i in range(int(entry[at]))]
    wider = [target for symbol, target, *_ in pointers if symbol in ("@", "@i")]
    return offset, Synset(words, tuple(target for target in wider if target != _NO_KINDS.get(offset)))


def _meanings(entry: list[str]) -> tuple[str, tuple[str, ...]]:
    return entry[0].replace("_", " "), tuple(entry[-int(entry[2]) :])
