"""Words that a text encoder cannot read: they are named, in every form of an answer, and refused where none is left."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet
import pytest
from PIL import Image

from steersearch import Library, SteerViT
from steersearch.core.errors import PromptError
from steersearch.core.hub import text_encoder_in_package
from steersearch.core.prompts import Reading
from steersearch.core.registry import MINILM
from steersearch.core.text import MAX_TOKENS, CachedTextEncoder, Tokenizer
from steersearch.indexer.query_terms import Focus
from tests import toy_library as indexed
from tests.conftest import Run
from tests.toy_embedder import ToyEmbedder, save_photos

ZERO_WIDTH, JOINER, BELL = "\u200b", "\u200d", "\x07"


@pytest.fixture(scope="module")
def minilm() -> Tokenizer:
    folder = text_encoder_in_package(MINILM)
    assert folder is not None
    return Tokenizer(folder, MAX_TOKENS)


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """All bytes, as RoBERTa's vocabulary has them, and two words."""
    folder = tmp_path_factory.mktemp("roberta")
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that stand for themselves
    others = [byte for byte in range(256) if byte not in kept]
    letters = [*map(chr, kept), *(chr(256 + number) for number in range(len(others)))]
    merges = ["m u", "mu g", "Ġ mug", "r e", "re d", "Ġ red"]
    tokens = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        *letters,
        *(merge.replace(" ", "") for merge in merges),
        "<mask>",
    ]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return Tokenizer(folder, MAX_TOKENS)


@pytest.mark.parametrize(
    ("prompt", "reading"),
    [
        ("the remote control", Reading()),
        ("a mug, 16:9 and TV-sets!", Reading()),
        ("naïve café, Ünïcödé", Reading()),  # accents are taken off
        ("I ♥ mugs", Reading()),  # it has a token for that
        ("🦄 mug", Reading(unread=("🦄",))),
        ("🦄🦜 on a mug, 🦄", Reading(unread=("🦄🦜", "🦄"))),
        (f"👨{JOINER}👩{JOINER}👧 at a table", Reading(unread=(f"👨{JOINER}👩{JOINER}👧",))),
        ("猫 on a table", Reading(unread=("猫",))),
        ("[UNK] mug", Reading(unread=("[UNK]",))),
        (f"mug{ZERO_WIDTH}", Reading(unread=(ZERO_WIDTH,))),
        (f"mu{ZERO_WIDTH}g", Reading(unread=(ZERO_WIDTH,))),
        (f"red{BELL} mug", Reading(unread=(BELL,))),
        ("кошка", Reading(spelled=("кошка",))),
        ("кошка, mug", Reading(spelled=("кошка",))),
        ("नमस्ते mug", Reading(spelled=("नमस्ते",))),
        ("赤い車", Reading(unread=("赤",), spelled=("い車",))),
    ],
)
def test_word_pieces(minilm: Tokenizer, prompt: str, reading: Reading) -> None:
    assert minilm.read(prompt) == reading


@pytest.mark.parametrize(
    ("prompt", "reading"),
    [
        ("red mug", Reading()),
        ("zebra 16:9", Reading()),  # letter by letter here, but English
        ("🦄 mug", Reading(spelled=("🦄",))),
        ("кошка", Reading(spelled=("кошка",))),
        (f"mug{ZERO_WIDTH}", Reading(unread=(ZERO_WIDTH,))),
        (f"red{BELL} mug", Reading(unread=(BELL,))),
    ],
)
def test_pieces_of_bytes(roberta: Tokenizer, prompt: str, reading: Reading) -> None:
    assert roberta.read(prompt) == reading


@pytest.mark.parametrize("prompt", ["🦄", "🦄🦄, 🦜!", "猫", "[UNK]", "...", f"{ZERO_WIDTH}🦄"])
def test_a_prompt_of_which_no_word_is_left(minilm: Tokenizer, prompt: str) -> None:
    with pytest.raises(PromptError, match="the model cannot read a word of"):
        minilm.read(prompt)


@pytest.mark.parametrize("prompt", [ZERO_WIDTH, BELL, "?!", f"{ZERO_WIDTH} {BELL}"])
def test_a_prompt_of_nothing_but_signs(minilm: Tokenizer, roberta: Tokenizer, prompt: str) -> None:
    for tokenizer in (minilm, roberta):
        with pytest.raises(PromptError):
            tokenizer.read(prompt)


def test_the_end_of_a_prompt_that_is_too_long(minilm: Tokenizer, roberta: Tokenizer) -> None:
    for tokenizer in (minilm, roberta):
        fits = " ".join(["mug"] * (MAX_TOKENS - 2))  # but for the special tokens at both ends
        assert tokenizer.read(fits) == Reading()
        assert tokenizer.read(f"{fits} red mug") == Reading(cut="red mug")
        assert len(tokenizer([f"{fits} red mug"])[0]) == MAX_TOKENS
    assert minilm.read(f"{fits} 🦄") == Reading(cut="🦄")


def test_what_is_said() -> None:
    assert Reading().remarks() == []
    assert not Reading()
    said = Reading(("🦄", ZERO_WIDTH), ("кошка",), "mug " * 100).remarks()
    assert said[:2] == [
        "the model cannot read \"🦄\", '\\u200b'",
        'the model knows little more than the letters of "кошка"',
    ]
    assert said[2] == f'the prompt is too long for the model, which does not read "{"mug " * 15}…"'
    for reading in (Reading(), Reading(("a",)), Reading(spelled=("b",), cut="c")):
        assert Reading.from_dict(json.loads(json.dumps(reading.to_dict()))) == reading


def test_a_reading_is_kept_with_the_encoded_prompt() -> None:
    for _ in range(2):  # fresh, and from the disk
        assert CachedTextEncoder("minilm").encode(["mug", "red 🦄"]).readings == (Reading(), Reading(("🦄",)))
    with pytest.raises(PromptError, match="cannot read a word of"):
        CachedTextEncoder("minilm").encode(["mug", "🦄"])


# ------------------------------------------------------------------------------------- in every form of an answer


def test_an_answer_carries_how_its_prompts_were_read(tmp_path: Path) -> None:
    """The toy cannot read words in capitals."""
    library = indexed.Library.create(save_photos(tmp_path / "photos", 3), tmp_path / "library")
    counts = library.index(ToyEmbedder(), ["red MUG", "blue"])
    assert counts.readings == {"red MUG": Reading(("MUG",)), "blue": Reading()}
    query = library.folder / "000.png"
    hits = library.query(ToyEmbedder(), query, ["red MUG", ("blue", 0.5)])
    assert [part.focus.reading for part in hits[0].parts] == [Reading(("MUG",)), Reading()]
    begun = Focus.on(library.new_index(ToyEmbedder(), "green CUP", 1.0))
    searched = library.search_any([begun], query, lambda _: ToyEmbedder())
    for found in (searched, library.find_any(begun, lambda _: ToyEmbedder())):
        assert found.searched.focuses[0].reading == Reading(("CUP",))
    assert [coverage.reading for coverage in library.info().prompts] == [
        Reading(("MUG",)),
        Reading(),
        Reading(("CUP",)),
    ]
    about = json.loads(library.table(library.find_prompt_index("red MUG")).schema.metadata[b"steersearch"])
    assert about["unread"] == ["MUG"]


def test_a_reading_that_is_damaged_is_found_and_made_again(tmp_path: Path) -> None:
    library = indexed.Library.create(save_photos(tmp_path / "photos", 3), tmp_path / "library")
    library.index(ToyEmbedder(), ["red MUG"])
    index = library.find_prompt_index("red MUG")
    file = library.place / "prompts" / index.key / "reading.json"
    unsaid = "it does not say how the prompt was read"
    for content, what in (("", "not JSON"), ("[1]", unsaid), ('{"unread": 3}', unsaid)):
        file.write_text(content)
        assert library.reading(index) is None
        (finding,) = library.verify(repair=True)
        assert what in finding.what
        library.index(ToyEmbedder())
        assert library.reading(index) == Reading(("MUG",))
        assert library.verify() == []
    file.unlink()
    assert library.reading(index) is None  # as in a library of an older version


def test_nothing_is_begun_for_a_prompt_of_which_no_word_is_read(tmp_path: Path) -> None:
    class Illiterate(ToyEmbedder):
        def encode_prompt(self, prompt: str) -> object:  # type: ignore[override]
            raise PromptError("the model cannot read a word of it")

    library = indexed.Library.create(save_photos(tmp_path / "photos", 3), tmp_path / "library")
    with pytest.raises(PromptError):
        library.index(Illiterate(), ["red"])
    assert not library.place.exists()
    library.index(ToyEmbedder(), ["red"])
    aim = Focus.on(library.new_index(Illiterate(), "blue", 1.0))
    with pytest.raises(PromptError):
        library.find_any(aim, lambda _: Illiterate())
    assert [index.prompt for index in library.prompts()] == ["red"]
    assert library.unfinished() == []


def test_every_command_says_what_was_not_read(
    run: Run, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    said = 'the model cannot read "MUG"\n'
    assert (
        f'prompt "red MUG": {said}' in run("index", photos, "--prompt", "red MUG", "--model", tiny_model).err
    )
    for command in (["find", "red MUG"], ["query", photos / "red.jpg", "--focus", "red MUG"]):
        done = run(*command, "--json", "-k", "1", "--html", "page.html")
        (row,) = map(json.loads, done.out.splitlines())
        assert row["unread"] == ["MUG"]
        assert said in done.err
        assert "the model cannot read &#34;MUG&#34;" in (tmp_path / "page.html").read_text("utf-8")
    several = ["query", photos / "red.jpg", "--focus", "red MUG", "--focus", "blue:0.5", "--json"]
    first = json.loads(run(*several).out.splitlines()[0])
    assert [focus.get("unread") for focus in first["focuses"]] == [["MUG"], None]
    assert said in run("export", "-o", "mug.parquet", "--focus", "red MUG").err
    about = json.loads(pyarrow.parquet.read_schema(tmp_path / "mug.parquet").metadata[b"steersearch"])
    assert about["unread"] == ["MUG"]
    explained = run("explain", photos / "red.jpg", "--focus", "MUG", "-o", "map.png", "--model", tiny_model)
    assert f"“MUG”: {said}" in explained.err
    assert f'prompt "red MUG": {said}' in run("info").err
    rows = json.loads(run("info", "--json").out)["prompts"]
    assert [row.get("unread") for row in rows] == [["MUG"], None]
    hits = Library.open(photos).find("red MUG")
    assert "the model cannot read" in hits._repr_html_()


def test_the_mini_refuses_an_emoji_and_reads_the_words_beside_one(tmp_path: Path) -> None:
    photos = save_photos(tmp_path / "photos", 2)
    library = Library.create(photos, model="mini", place=tmp_path / "library")
    with pytest.raises(PromptError, match='cannot read a word of "🦄"'):
        library.index(prompts=["🦄"])
    assert not library.place.exists()
    library.index(prompts=["🦄 mug"], regions=False)
    assert library.find("🦄 mug").searched.focuses[0].reading == Reading(("🦄",))
    with pytest.raises(PromptError):
        library.query(photos / "000.png", "🦜")
    with pytest.raises(PromptError):
        SteerViT.from_pretrained("mini").embed([photos / "000.png"], prompt="🦄")


def test_vectors_of_prompts_that_are_not_read_whole_come_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Their end, or a word, counts for nothing: the vectors are those of another prompt."""
    picture = Image.new("RGB", (40, 30))
    SteerViT.from_pretrained("mini").embed([picture] * 3, ["a mug", "a mug 猫", "a mug " * 400])
    said = [record.message for record in caplog.records]
    assert ["cannot read" in said[0], "too long for the model" in said[1]] == [True, True]
    assert len(said) == 2
