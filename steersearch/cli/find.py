"""`steersearch find`: find photos by text alone."""

from __future__ import annotations

from typing import Annotated

import typer

from steersearch import served
from steersearch.cli.deliver import Delivery
from steersearch.cli.library import open_or_index
from steersearch.cli.options import Json, Place
from steersearch.cli.search_options import (
    After,
    Before,
    Budget,
    Collapse,
    CopyTo,
    InFolder,
    LinkTo,
    OneModel,
    OneScale,
    OneView,
    Open,
    Output,
    Paths,
    Preview,
    Print0,
    SortBy,
    Where,
    budget_of,
    exact_or_budget,
    form_of_hits,
    words,
)
from steersearch.views import terminal


def command(
    text: Annotated[
        str,
        typer.Argument(
            metavar="TEXT",
            callback=words,
            help="What to find: any words; indexed prompts are answered at once.",
        ),
    ],
    k: Annotated[int, typer.Option("-k", metavar="K", min=1, help="Number of hits.")] = 10,
    folder: InFolder = None,
    after: After = None,
    before: Before = None,
    where: Where = None,
    collapse: Collapse = False,
    sort: SortBy = "score",
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare all photos, however long it takes.")
    ] = False,
    budget: Budget = None,
    library: Place = None,
    gate_scale: OneScale = None,
    model: OneModel = None,
    view: OneView = None,
    as_json: Json = False,
    paths: Paths = False,
    print0: Print0 = False,
    preview: Preview = False,
    output: Output = None,
    in_browser: Open = False,
    copy_to: CopyTo = None,
    link_to: LinkTo = None,
) -> None:
    """Find the photos that show what TEXT names, the most certain first.

    There is always a first hit: its score says how far it exceeds the others, not whether it shows the thing.
    Presence says how certain the model is that the photo shows TEXT; it compares photos under one TEXT only.
    With the bundled model mini, two of three first hits are right on photos of everyday things; a note says where it
    may well be wrong.

    \b
    Example:
      steersearch find "the remote control"
      steersearch find bicycle -k 50 --in holidays --paths
    """
    form = form_of_hits(as_json=as_json, paths=paths, print0=print0, preview=preview)
    delivery = Delivery(output=output, in_browser=in_browser, copy_to=copy_to, link_to=link_to)
    exact_or_budget(exact, budget)
    photos = open_or_index(library)
    with terminal.progress("steering") as advance:
        hits = served.find(
            photos,
            text,
            k=k,
            gate_scale=gate_scale,
            model=model,
            view=view,
            folder=folder,
            after=after,
            before=before,
            where=where,
            exact=exact,
            collapse=collapse,
            sort=sort,
            budget_s=budget_of(budget, exact=exact),
            progress=advance,
        )
    delivered = delivery.of(hits)
    terminal.found(hits, form)
    if after or before:
        terminal.dates_remark(hits)
    index = hits.searched.focuses[0].index
    terminal.found_remark(hits, k, photos.command(index), without_presence=photos.without_presence(index))
    if not delivered:
        raise typer.Exit(1)
