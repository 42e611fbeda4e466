"""WordNet's nouns: what a word means, and what it is a kind of.

From Debian's package wordnet-base (Princeton's licence), read where it is installed and never copied into this
repository. ImageNet's classes are WordNet synsets: this makes of a class its names and the wider words that are true of
it as well ("dog" of 118 classes).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from steersearch.core.errors import SteerSearchError

WORDNET_FOLDER = Path("/usr/share/wordnet")
LONGEST_NAME = 30

# Synsets, by their first word, that are too wide to point at, or name a role rather than a thing to be seen.
TOO_WIDE = frozenset("""
    abstraction|animate thing|aquatic vertebrate|area|artifact|barrier|being|bony fish|bovid|carnivore|causal agent|
    chordate|commodity|consumer goods|conveyance|covering|craft|device|diapsid|domestic animal|durables|entity|
    equipment|establishment|even-toed ungulate|food|foodstuff|furnishing|geological formation|group|implement|
    instrument|instrumentality|living thing|material|matter|mechanism|mercantile establishment|natural object|
    nutriment|object|obstruction|organism|oscine|part|passage|passerine|person|physical entity|place of business|
    placental|plant organ|plant part|produce|protective covering|relation|reproductive structure|restraint|ruminant|
    saurian|self-propelled vehicle|shape|solid|structure|substance|surface|teleost fish|thing|ungulate|unit|
    vertebrate|way|wheeled vehicle|whole
    """.replace("\n", "").replace("    ", "").split("|"))  # fmt: skip


class WordNetMissingError(SteerSearchError):
    """WordNet is not installed. Field: `folder` where it was looked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(f"no WordNet in {folder}; install it with: apt-get install wordnet-base")


@dataclass(frozen=True)
class Synset:
    """One meaning. words: those that have it, the commonest first; kinds_of: offsets of the wider meanings."""

    words: tuple[str, ...]
    kinds_of: tuple[str, ...]


class WordNet:
    """synsets: by their offset in WordNet 3.0, eight digits.  meanings: offsets of each lower-case word, commonest
    first."""

    def __init__(self, folder: Path = WORDNET_FOLDER) -> None:
        """Raises WordNetMissingError."""
        if not (folder / "data.noun").is_file() or not (folder / "index.noun").is_file():
            raise WordNetMissingError(folder)
        self.synsets = dict(map(_synset, _entries(folder / "data.noun")))
        self.meanings = dict(map(_meanings, _entries(folder / "index.noun")))

    def wider(self, offset: str) -> list[str]:
        """Offsets of this meaning and of all that it is a kind of, the nearest first."""
        found = [offset]
        for each in found:
            found += [kind for kind in self.synsets[each].kinds_of if kind not in found]
        return found

    def is_a(self, offset: str, words: frozenset[str]) -> bool:
        """Whether the meaning is a kind of something whose first word is one of `words`."""
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
        """Of every synset that is, or is wider than, a class: the numbers of its classes."""
        found: dict[str, set[int]] = {}
        for number, offset in enumerate(self.offsets):
            for each in self.wordnet.wider(offset):
                found.setdefault(each, set()).add(number)
        return {offset: frozenset(numbers) for offset, numbers in found.items()}

    @cached_property
    def words(self) -> list[tuple[str, frozenset[int]]]:
        """Every word for a class or for several at once that one could point at, up to three for each synset."""
        return [
            (word.lower(), numbers)
            for offset, numbers in self.classes.items()
            if self.wordnet.synsets[offset].words[0] not in TOO_WIDE
            for word in self.wordnet.synsets[offset].words[:3]
            if len(word) < LONGEST_NAME
        ]

    def names(self, noun: str, among: frozenset[str] = frozenset()) -> frozenset[str]:
        """What else can truly be said of anything called `noun`: its head ("red apple": apple), synonyms, wider words.

        among: the meaning must be a kind of one of these; of several the commonest counts, a class' before others.
        """
        words = noun.split()
        for first in range(len(words)):
            part = " ".join(words[first:])
            meanings = [
                each for each in self.wordnet.find(part) if not among or self.wordnet.is_a(each, among)
            ]
            if not among:
                meanings.sort(key=lambda each: each not in self.classes)
            if not meanings:
                continue
            wider = self.wordnet.wider(meanings[0])
            said = {noun, part}
            if first == 0:
                said.update(word for word in self.wordnet.synsets[meanings[0]].words if word.islower())
            said.update(self.wordnet.synsets[each].words[0] for each in wider[1:] if each in self.classes)
            return frozenset(word for word in said - TOO_WIDE if len(word) < LONGEST_NAME)
        return frozenset({noun})


def _entries(file: Path) -> Iterator[list[str]]:
    """The fields of each line but those of the licence, which begin with blanks; the gloss is cut off."""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.startswith("  "):
                yield line.split(" | ")[0].split()


def _synset(entry: list[str]) -> tuple[str, Synset]:
    count = int(entry[3], 16)
    words = tuple(entry[4 + 2 * i].replace("_", " ") for i in range(count))
    at = 4 + 2 * count
    pointers = [entry[at + 1 + 4 * i : at + 5 + 4 * i] for i in range(int(entry[at]))]
    return entry[0], Synset(words, tuple(target for symbol, target, *_ in pointers if symbol in ("@", "@i")))


def _meanings(entry: list[str]) -> tuple[str, tuple[str, ...]]:
    return entry[0].replace("_", " "), tuple(entry[-int(entry[2]) :])
