"""Reports of training runs and benchmarks as self-contained HTML pages: one look, one way to draw curves."""

from __future__ import annotations

from typing import Any

import jinja2

from steersearch.training import curves


def render(package: str, **values: Any) -> str:
    """The page report.html of a package's templates, which extends sheet.html; text from outside is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(package), jinja2.PackageLoader("steersearch.training")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(frame=curves, **values)
