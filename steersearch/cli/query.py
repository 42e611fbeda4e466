"""`steersearch query`: search with a photo and a focus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
    PhotoLimits,
    Preview,
    Print0,
    SortBy,
    Where,
    budget_of,
    exact_or_budget,
    focuses,
    form_of_hits,
    limits_of,
    region_of,
    without_focus,
)
from steersearch.indexer.region import parts_of
from steersearch.query_source import STDIN, is_temporary, photo_from, photo_from_clipboard
from steersearch.views import terminal


def command(
    image: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE",
            help="The photo to search with: a file, an http or https URL, or - for standard input. Several "
            "are searched with their mean, or with --any with each of them.",
        ),
    ] = None,
    any_of: Annotated[
        bool,
        typer.Option(
            "--any", help="Search with each of several IMAGEs: a hit has the best of its scores with them."
        ),
    ] = False,
    focus: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT:WEIGHT",
            callback=lambda texts: focuses(texts) if texts else None,
            help="What to look at: any words; indexed prompts are answered exactly. Without one, whole photos are "
            "compared by their unsteered vectors. Repeatable, with weights; a negative "
            "weight steers away from its text. A text that ends in a colon and a number needs a weight.",
        ),
    ] = None,
    region: Annotated[
        Any,
        typer.Option(
            metavar="LEFT,TOP,RIGHT,BOTTOM",
            parser=region_of,
            help="A box in the photo, in pixels (120,80,300,260) or percent (10%,20%,50%,60%): find what it shows, "
            "without words. With a focus, both count. With several photos, one box for each, with / between them.",
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", metavar="K", min=1, help="Number of hits.")] = 10,
    folder: InFolder = None,
    after: After = None,
    before: Before = None,
    where: Where = None,
    collapse: Collapse = False,
    sort: SortBy = "score",
    include_query: Annotated[
        bool,
        typer.Option("--include-query", help="Keep query photos, and copies of them, among the hits."),
    ] = False,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Compare all photos, however long it takes."),
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
    limit: PhotoLimits = None,
    clipboard: Annotated[
        bool, typer.Option("--clipboard", help="Search with the picture in the clipboard.")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch no IMAGE from a URL.")] = False,
) -> None:
    """Search a library with a photo and a focus: words that say what to look at in it.

    Without a focus, whole photos are compared.

    \b
    Example:
      steersearch query img.jpg
      steersearch query img.jpg --focus bookshelf -k 5
      steersearch query one.jpg two.jpg --focus bookshelf --any
      steersearch query img.jpg --region 120,80,300,260
      steersearch query img.jpg --focus sofa --focus cushion:0.5 --focus cat:-1
    """
    form = form_of_hits(as_json=as_json, paths=paths, print0=print0, preview=preview)
    delivery = Delivery(output=output, in_browser=in_browser, copy_to=copy_to, link_to=link_to)
    exact_or_budget(exact, budget)
    if focus is None:
        without_focus({"--gate-scale": gate_scale, "--budget": budget})
    sources = image or []
    if bool(sources) == clipboard:
        raise typer.BadParameter("give a photo, or --clipboard", param_hint="IMAGE")
    if region is not None and len(parts_of(region)) != max(1, len(sources)):
        reason = 'needs a single IMAGE, or a part of each: "/" between them, nothing for a whole photo'
        raise typer.BadParameter(reason, param_hint="--region")
    if any_of and len(sources) < 2:
        raise typer.BadParameter("needs several IMAGEs", param_hint="--any")
    if focus is not None and len(sources) > 1:
        _refuse_words(sources)
    limits = limits_of(limit)
    queries = [photo_from(source, offline=offline, limits=limits) for source in sources]
    queries = queries or [photo_from_clipboard()]
    photos = open_or_index(library, photo=next((photo for photo in queries if not is_temporary(photo)), None))
    with terminal.progress("steering") as advance:
        hits = served.query(
            photos,
            queries,
            focus,
            k=k,
            any_of=any_of,
            region=region,
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
            include_query=include_query,
            limits=limits,
            budget_s=budget_of(budget, exact=exact, is_steered=focus is not None),
            progress=advance,
        )
    delivered = delivery.of(hits)
    terminal.hits(hits, form)
    if after or before:
        terminal.dates_remark(hits)
    terminal.hits_remark(hits, k, photos.command(hits.searched.index))
    if not delivered:
        raise typer.Exit(1)


def _refuse_words(sources: list[str]) -> None:
    """Refuse what looks like an unquoted word of a focus."""
    for source in sources:
        is_named = source == STDIN or "://" in source or Path(source).suffix
        if not is_named and not Path(source).exists():
            reason = f'no photo is called {source!r}; several words need quotes, as in "red flower"'
            raise typer.BadParameter(reason, param_hint="IMAGE")
