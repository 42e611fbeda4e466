"""WordNet's files, in their own format, and what is said of a thing by them."""

from __future__ import annotations

from pathlib import Path

import pytest

from steersearch.training.photographs.wordnet import ClassWords, WordNet, WordNetMissingError

LICENCE = "  1 This software and database is being provided to you, the LICENSEE\n"
# Offset, words, wider meanings; as data.noun has them, with the fields that are not read.
MEANINGS = {
    "00000001": (["entity"], []),
    "00000002": (["physical_entity"], ["00000001"]),
    "00000003": (["animal", "beast"], ["00000002"]),
    "00000004": (["dog", "domestic_dog", "Canis_familiaris"], ["00000003"]),
    "00000005": (["poodle", "poodle_dog"], ["00000004"]),
    "00000006": (["pug"], ["00000004"]),
    "00000007": (["villain", "dog"], ["00000002"]),
    "00000008": (["dogma"], ["00000001"]),
}


@pytest.fixture
def wordnet(tmp_path: Path) -> WordNet:
    senses: dict[str, list[str]] = {}
    data = LICENCE
    for offset, (words, wider) in MEANINGS.items():
        counted = " ".join(f"{word} 0" for word in words)
        pointers = "".join(f"@ {each} n 0000 ~ 00000001 n 0000 " for each in wider)
        data += (
            f"{offset} 05 n {len(words):02x} {counted} {2 * len(wider):03d} {pointers}| a gloss | of it  \n"
        )
        for word in words:
            senses.setdefault(word.lower(), []).append(offset)
    senses["dog"] = ["00000007", "00000004"]  # the commonest first
    index = LICENCE + "".join(
        f"{word} n {len(found)} 2 @ ~ {len(found)} 0 {' '.join(found)}  \n" for word, found in senses.items()
    )
    (tmp_path / "data.noun").write_text(data)
    (tmp_path / "index.noun").write_text(index)
    return WordNet(tmp_path)


@pytest.fixture
def words(wordnet: WordNet) -> ClassWords:
    return ClassWords(wordnet, ["00000005", "00000006"])


def test_meanings_and_what_they_are_kinds_of(wordnet: WordNet) -> None:
    assert wordnet.synsets["00000004"].words == ("dog", "domestic dog", "Canis familiaris")
    assert wordnet.wider("00000005") == [f"0000000{number}" for number in (5, 4, 3, 2, 1)]
    assert wordnet.is_a("00000005", frozenset({"animal"}))
    assert not wordnet.is_a("00000007", frozenset({"animal"}))
    assert list(wordnet.find("dog")) == ["00000007", "00000004"]
    assert list(wordnet.find("poodles")) == ["00000005"]
    assert list(wordnet.find("sofa")) == []


def test_wider_words_are_true_of_all_their_classes(words: ClassWords) -> None:
    assert words.classes["00000004"] == {0, 1}
    assert ("poodle dog", frozenset({0})) in words.words
    assert ("canis familiaris", frozenset({0, 1})) in words.words
    assert ("animal", frozenset({0, 1})) in words.words
    assert not any(word == "entity" for word, _ in words.words)  # too wide to point at
    assert not any(word == "villain" for word, _ in words.words)  # of no class


def test_a_thing_has_the_names_of_its_meaning(words: ClassWords) -> None:
    assert words.names("dog") == {"dog", "domestic dog", "animal"}  # the meaning that is wider than a class
    assert words.names("dog", frozenset({"animal"})) == {"dog", "domestic dog", "animal"}
    assert words.names("small poodle") == {"small poodle", "poodle", "dog", "animal"}
    assert words.names("sofa") == {"sofa"}
    assert words.names("entity") == {"entity"}  # too wide for others, but its own name
    assert words.names("dogma") == {"dogma"}  # nothing that could be seen


def test_wordnet_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(WordNetMissingError, match="apt-get install wordnet-base"):
        WordNet(tmp_path)
