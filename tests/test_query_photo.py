"""A query photo is decoded once and goes through the model once, whoever asks for what comes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steersearch import Library
from steersearch.core.images import reader
from steersearch.core.images.decoding import decode
from steersearch.core.predictor import Predictor
from tests.conftest import Run, draw_picture

INDEXED = "the red mug"


class Looked:
    """decodes: by file name.  passes: the first photo of each batch that goes through the model."""

    def __init__(self, model: Path) -> None:
        self.model = model
        self.decodes: Counter[str] = Counter()
        self.passes: list[np.ndarray[Any, Any]] = []

    def passes_of(self, photo: Path) -> int:
        """How often this photo went through the model, alone."""
        model = Predictor.from_pretrained(self.model)
        seen = model.preprocess(reader.read_picture(photo))
        return sum(np.allclose(batch, seen, atol=1e-5) for batch in self.passes)


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> Looked:
    """Counts while the real parts run."""
    counts = Looked(tiny_model)
    read, encode = reader._read, Predictor.encode

    def counting_read(task: Callable[..., Any], path: Path, *rest: Any, **options: Any) -> Any:
        counts.decodes[path.name] += task is decode
        return read(task, path, *rest, **options)

    def counting_encode(self: Predictor, pixels: Any, *rest: Any, **options: Any) -> Any:
        counts.passes.append(pixels[0].float().cpu().numpy())
        return encode(self, pixels, *rest, **options)

    monkeypatch.setattr(reader, "_read", counting_read)
    monkeypatch.setattr(Predictor, "encode", counting_encode)
    return counts


@pytest.fixture
def library(photos: Path, tiny_model: Path, word_encoder: None) -> Library:
    library = Library.create(photos, model=str(tiny_model))
    library.index(prompts=[INDEXED, "bookshelf"])
    return library


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    draw_picture(tmp_path / "stranger.jpg", "red", seed=77)
    return tmp_path / "stranger.jpg"


@pytest.mark.parametrize(
    "focuses",
    [("lamp",), (INDEXED,), (INDEXED, "bookshelf"), ("lamp", "kettle"), (INDEXED, "--collapse")],
    ids=["new", "indexed", "two indexed", "two new", "collapsed"],
)
def test_a_photo_from_outside_is_decoded_once_and_seen_once_with_a_page(
    run: Run, library: Library, stranger: Path, tmp_path: Path, looked: Looked, focuses: tuple[str, ...]
) -> None:
    words = [word for text in focuses for word in (["--focus", text] if text[0] != "-" else [text])]
    done = run("query", stranger, *words, "--html", tmp_path / "page.html")
    assert done.code == 0, done.err
    assert (tmp_path / "page.html").exists()
    assert looked.decodes["stranger.jpg"] == 1
    assert looked.passes_of(stranger) == 1


def test_a_photo_of_the_library_is_decoded_to_be_shown_and_never_seen_again(
    run: Run, library: Library, photos: Path, tmp_path: Path, looked: Looked
) -> None:
    assert run("query", "--include-query", photos / "red.jpg", "--focus", INDEXED).code == 0
    assert looked.decodes == {}
    assert (
        run(
            "query",
            "--include-query",
            photos / "red.jpg",
            "--focus",
            INDEXED,
            "-k",
            1,
            "--html",
            tmp_path / "p.html",
        ).code
        == 0
    )
    assert looked.decodes == {"red.jpg": 2}  # as the query, and as the first hit
    assert looked.passes == []


def test_another_search_with_the_same_content_asks_no_model(
    library: Library, stranger: Path, looked: Looked
) -> None:
    first = library.query(stranger, INDEXED)
    again = library.query(stranger, INDEXED)
    assert looked.passes_of(stranger) == 1
    assert again == first
    (focus,) = first.searched.focuses
    assert (library.heatmap(stranger, focus) == first.query.photos[0].heatmap(focus.index)).all()
    assert looked.passes_of(stranger) == 1
    library.query(stranger, "bookshelf")
    assert looked.passes_of(stranger) == 2
    draw_picture(stranger, "blue", seed=78)
    library.query(stranger, INDEXED)
    assert looked.passes_of(stranger) == 1  # of the new content


def test_hits_carry_what_the_model_saw_of_the_query(library: Library, stranger: Path) -> None:
    hits = library.query(stranger, "lamp", k=3)
    assert hits.query is not None
    model = Predictor.from_pretrained(library.model)
    index = hits.searched.focuses[0].index
    np.testing.assert_allclose(
        hits.query.heatmap(index), model.heatmaps([stranger], "lamp")[0].numpy(), atol=1e-5
    )
    np.testing.assert_allclose(
        hits.query.embedding(index), model.embed([stranger], "lamp")[0].numpy(), atol=1e-5
    )
