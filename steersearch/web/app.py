"""The application: the page, its files, and the REST interface behind the guard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files

import jinja2
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles

import steersearch
from steersearch.web import orders
from steersearch.web.guard import Access, Guard
from steersearch.web.problem import answer_problems
from steersearch.web.routes import Server, router
from steersearch.web.shelf import Shelf


def create_app(shelf: Shelf, access: Access | None = None) -> FastAPI:
    """The server's application over some libraries.

    access: who may send requests; None: this machine alone.
    """
    access = access or Access()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        server.close()

    server = Server(shelf)
    app = FastAPI(
        title="steersearch",
        version=steersearch.__version__,
        description="Photo search by a photo and a focus: words that say what to look at in it.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # its scripts come from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.server, app.state.access = server, access
    app.include_router(router)
    app.include_router(orders.router)
    answer_problems(app)
    here = files("steersearch.web")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        (here / "templates" / "app.html").read_text("utf-8")
    )

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def index() -> HTMLResponse:
        return HTMLResponse(page.render(version=steersearch.__version__, can_reveal=access.token is None))

    @app.get("/favicon.ico", include_in_schema=False)
    def icon() -> Response:
        return Response((here / "static" / "icon.svg").read_bytes(), media_type="image/svg+xml")

    app.mount("/static", StaticFiles(directory=str(here / "static")), "static")
    app.add_middleware(Guard, access=access)
    return app
