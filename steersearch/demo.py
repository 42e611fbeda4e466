"""The demo: draw photos, index them under two prompts, search with one photo under both, write the page.

A demo folder holds `photos`, the `library` made of them, `results.html`, and `demo.json`, the list of what
was drawn.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from steersearch import settings
from steersearch.api import Hits, Library
from steersearch.core.errors import FolderError
from steersearch.views import page, terminal
from steersearch.views.output import write_output

MODEL = "mini"  # trained on drawings like these, and bundled
HITS = 8
_PHOTOS, _LIBRARY, _PAGE, _RECORD, _DRAWING = "photos", "library", "results.html", "demo.json", ".drawing"


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What was drawn. query: name of the query photo, files: of all photos; both below `photos`."""

    query: str
    focuses: tuple[str, ...]
    files: tuple[str, ...]


def run_demo(folder: Path) -> Path:
    """Run the whole demo in `folder`, new or of an earlier run, and print both rankings.

    Returns the page's path. Raises FolderError if `folder` holds anything that is not the demo's.
    """
    demo = prepare_photos(folder)
    library = Library.create(folder / _PHOTOS, model=MODEL, place=folder / _LIBRARY)
    with terminal.progress("indexing") as report:
        counts = library.index(demo.focuses, progress=report)
    settings.remember_library(library.place)
    terminal.counts(counts)
    results = search(library, demo)
    for hits in results:
        terminal.line(f'\nfocus "{hits.searched.prompt}", query photo {demo.query}')
        terminal.hits(hits, terminal.Form.table)
    page.write_page(folder / _PAGE, library, folder / _PHOTOS / demo.query, results)
    terminal.line(f"\npage: {folder / _PAGE}")
    return folder / _PAGE


def search(library: Library, demo: Demo) -> list[Hits]:
    """The hits for the query photo under each focus."""
    photo = library.folder / demo.query
    return [library.query_indexes(photo, library.aims(focus), HITS) for focus in demo.focuses]


def prepare_photos(folder: Path) -> Demo:
    """Draw the demo's photos below `folder`, unless an earlier run has; raises FolderError, OutputError."""
    demo = _read_record(folder)
    _refuse_strangers(folder, demo)
    photos = folder / _PHOTOS
    if demo is not None and all((photos / name).is_file() for name in demo.files):
        return demo
    demo = _draw(folder)
    write_output(folder / _RECORD, json.dumps(asdict(demo), indent=1).encode())
    shutil.rmtree(photos, ignore_errors=True)  # incomplete, and nothing but the demo's own
    (folder / _DRAWING).rename(photos)
    return demo


def _draw(folder: Path) -> Demo:
    from steersearch.training.demo_photos import demo_photos

    drawing = folder / _DRAWING
    terminal.remark(f"drawing photos in {terminal.readable(folder / _PHOTOS)}")
    shutil.rmtree(drawing, ignore_errors=True)  # of a run that was interrupted
    try:
        drawing.mkdir(parents=True)
    except OSError as error:
        raise FolderError(folder, f"cannot be written ({error.strerror}); name another folder") from error
    drawn = demo_photos(drawing)
    files = sorted(path.relative_to(drawing).as_posix() for path in drawing.rglob("*") if path.is_file())
    query = drawn.query.relative_to(drawing).as_posix()
    return Demo(query=query, focuses=tuple(drawn.focuses), files=tuple(files))


def _read_record(folder: Path) -> Demo | None:
    try:
        kept = json.loads((folder / _RECORD).read_bytes())
        return Demo(query=kept["query"], focuses=tuple(kept["focuses"]), files=tuple(kept["files"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FolderError(
            folder, f"is in use or damaged ({_RECORD}: {error}); name another folder"
        ) from error


def _refuse_strangers(folder: Path, demo: Demo | None) -> None:
    """Raise FolderError if anything in `folder`, hidden files aside, was not made by the demo."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FolderError(folder, "is a file; name a new folder for the demo")
    own = set() if demo is None else {_RECORD, _LIBRARY, _PAGE, _PHOTOS}
    strangers = [path for path in sorted(folder.iterdir()) if path.name not in own]
    photos = folder / _PHOTOS
    if demo is not None:
        found = (path for path in sorted(photos.rglob("*")) if not path.is_dir())
        strangers += [path for path in found if path.relative_to(photos).as_posix() not in demo.files]
    strangers = [path for path in strangers if not path.name.startswith(".")]
    if strangers:
        name = terminal.readable(strangers[0].relative_to(folder))
        raise FolderError(
            folder, f"holds files that are not the demo's, such as {name}; name a new folder for the demo"
        )
