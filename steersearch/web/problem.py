"""Errors as problem+json (RFC 9457), in the same words as the command line."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from steersearch.core.errors import (
    ArgumentError,
    FilterError,
    ImageError,
    LibraryBusyError,
    LibraryMissingError,
    MissingExtraError,
    ModelMismatchError,
    PromptError,
    PromptIndexMissing,
    SteerSearchError,
    in_words,
)

MEDIA_TYPE = "application/problem+json"
# The first class that an error is an instance of decides.
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (ImageError, 415),
    (PromptError, 422),
    (ArgumentError, 422),
    (FilterError, 422),
    (LibraryMissingError, 404),
    (PromptIndexMissing, 404),
    (LibraryBusyError, 409),
    (ModelMismatchError, 409),
    (MissingExtraError, 501),
)


class BusyError(SteerSearchError):
    """More searches are waiting than the server takes. Field: `retry_s`, seconds after which to try again."""

    def __init__(self, retry_s: int) -> None:
        self.retry_s = retry_s
        super().__init__(f"the server is busy; try again in {retry_s} s")


class UnknownIdError(SteerSearchError):
    """An id that names nothing, or no longer does. Fields: `what` ("library", "photo", …), `id`."""

    def __init__(self, what: str, id: str) -> None:
        self.what, self.id = what, id
        super().__init__(f"no {what} has the id {id[:80]!r}; {_GONE[what]}")


_GONE = {
    "library": "it was removed, or the server does not offer it",
    "photo": "the library no longer has it: choose another",
    "upload": "uploads go with the server, and after many newer ones: send the photo again",
    "job": "the server has started again since",
}


def problem(status: int, detail: str, headers: dict[str, str] | None = None, **fields: Any) -> JSONResponse:
    """A problem document as a response."""
    return JSONResponse(
        {"status": status, "title": _TITLES.get(status, "Error"), "detail": detail, **fields},
        status,
        headers,
        MEDIA_TYPE,
    )


def for_people(response: Response) -> Response:
    """A problem document as a page, for who opens an address in a browser; any other response as it is."""
    if response.media_type != MEDIA_TYPE:
        return response
    said = json.loads(bytes(response.body))
    title, detail = escape(said["title"]), escape(said["detail"])
    page = f'<!doctype html><html lang="en"><title>{title}</title><h1>{title}</h1><p>{detail}</p></html>'
    kept = {name: value for name, value in response.headers.items() if name == "www-authenticate"}
    return HTMLResponse(page, response.status_code, kept)


_TITLES = {
    400: "Bad request",
    401: "A token is needed",
    403: "Refused",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Too large",
    415: "Not a usable picture",
    421: "Another host",
    422: "Bad value",
    500: "Failed",
    501: "Not installed",
    503: "Busy",
}


def answer_problems(app: FastAPI) -> None:
    """Make `app` answer every error with a problem document."""
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_request)
    app.add_exception_handler(Exception, _of_any)
    app.add_exception_handler(SteerSearchError, _of_any)
    app.add_exception_handler(OSError, _of_any)


def of_error(error: BaseException) -> JSONResponse:
    """The problem document of any error."""
    if isinstance(error, BusyError):
        return problem(503, str(error), {"Retry-After": str(error.retry_s)})
    if isinstance(error, UnknownIdError):
        return problem(404, str(error))
    said = in_words(error)
    if said is None:
        return problem(
            500, f"{type(error).__name__}: this is a bug in steersearch; the server's log says more"
        )
    return problem(next((status for kind, status in _STATUS if isinstance(error, kind)), 500), said)


async def _of_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, str(error.detail), dict(error.headers or {}))


async def _of_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    wrong = [f"{'.'.join(map(str, one['loc'][1:])) or 'body'}: {one['msg']}" for one in error.errors()]
    return problem(422, "; ".join(wrong))


async def _of_any(request: Request, error: Exception) -> JSONResponse:
    return of_error(error)
