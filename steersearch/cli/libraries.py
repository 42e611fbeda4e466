"""`steersearch libraries`: list all libraries."""

from __future__ import annotations

from steersearch import settings
from steersearch.api import Library
from steersearch.cli.options import Json
from steersearch.core.errors import SteerSearchError
from steersearch.views import library_tables, terminal


def command(as_json: Json = False) -> None:
    """List all libraries: their photo folders, photos and prompts, their size, and whether the folders are there.

    They are those in the user's data directory, and others used lately.

    \b
    Example:
      steersearch libraries
    """
    shown = []
    for place in settings.library_places():
        try:
            library = Library.open(place)
            shown.append((library.info(), dict(library.away)))
        except SteerSearchError as error:
            terminal.remark(str(error))
    library_tables.libraries(shown, as_json=as_json)
