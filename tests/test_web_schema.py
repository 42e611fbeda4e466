"""Requests made from the OpenAPI document: whatever is sent, no answer is a failure of the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersearch.api import Library
from steersearch.web.app import create_app
from steersearch.web.shelf import Shelf, id_of
from tests.conftest import COLOURS, WordEncoder, draw_picture

schemathesis = pytest.importorskip("schemathesis")
pytestmark = pytest.mark.slow
HOST = "127.0.0.1"
HERE = f"http://{HOST}"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Any]:
    patch = pytest.MonkeyPatch()
    patch.setattr("steersearch.core.predictor.CachedTextEncoder", lambda *_: WordEncoder())
    patch.setattr("typer.launch", lambda *_, **__: None)  # no file manager opens
    folder = tmp_path_factory.mktemp("schema")
    (folder / "photos").mkdir()
    for seed, colour in enumerate(COLOURS):
        draw_picture(folder / "photos" / f"{colour}.jpg", colour, seed)
    library = Library.create(folder / "photos", str(tiny_model), place=folder / "library")
    library.index(["the red thing"])
    made = create_app(Shelf([library.place]))
    made.state.id = id_of(library.place.resolve())
    yield made
    made.state.server.close()
    patch.undo()


def test_no_request_is_answered_by_a_failure(app: Any) -> None:
    """Each operation with values that its description allows; half of them with real ids."""
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app, headers={"Host": HOST})
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 15
    photos = app.state.server.shelf.photos(app.state.id).now()
    real = {"library": app.state.id, "image_id": photos[0].id}
    for operation in operations:

        @given(operation.as_strategy(), st.booleans())
        @settings(settings.get_profile("quick"), max_examples=20)
        def check(case: Any, is_real: bool) -> None:
            if is_real:
                case.path_parameters |= {name: real[name] for name in real if name in case.path_parameters}
                case.query = (case.query or {}) | ({"image": photos[0].id} if "search" in case.path else {})
            response = case.call(base_url=HERE, headers={"Host": HOST})
            # Not installed, busy.
            is_answer = response.status_code < 500 or response.status_code in (501, 503)
            assert is_answer, (case.method, case.formatted_path, response.text)

        check()
