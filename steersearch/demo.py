"""The demo: indexes a folder of photographs and drawings, searches it with one of each under two focuses, and writes
the hits to a page.

A demo folder holds `photos`, their `library`, `results.html`, `CREDITS.md`, which names the photographers, and
`demo.json`, the list of files.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path

from steersearch import settings
from steersearch.api import Hits, Library
from steersearch.core.errors import FolderError
from steersearch.core.preprocess import open_image
from steersearch.training.world.composition import Spot
from steersearch.training.world.demo_photos import demo_photos, with_remote
from steersearch.views import page, terminal
from steersearch.views.output import write_output

MODEL = "mini"  # bundled
HITS = 8
_PHOTOS, _LIBRARY, _PAGE, _RECORD, _MAKING = "photos", "library", "results.html", "demo.json", ".making"
_CREDITS = "CREDITS.md"
PHOTOGRAPHS = "photographs"  # both the folder that is shipped and the one among the demo's photos


def _lying(x: float, y: float, size: float, angle: float) -> Spot:
    return Spot(x, y, size, angle=angle, hangs=True)


# Photographs into which a drawn remote control is laid, and where: none that shows a real one is free to be shipped.
REMOTES = {
    "hammer-on-a-bench": _lying(0.72, 0.76, 0.42, 60),
    "pillow": _lying(0.36, 0.52, 0.42, 62),
    "game-controller": _lying(0.82, 0.76, 0.42, -14),
    "cup-and-saucer": _lying(0.77, 0.86, 0.38, 62),
    "books": _lying(0.66, 0.86, 0.32, 76),
    "cat": _lying(0.28, 0.90, 0.32, 74),
    "soccer-ball": _lying(0.30, 0.83, 0.36, 55),
    "cocktail": _lying(0.30, 0.80, 0.34, 66),
}
QUERY, FOCUSES = "cat", ("the remote control", "the cat")


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What was made. searches: query photo and focus of each; files: of all photos; both below `photos`."""

    searches: tuple[tuple[str, str], ...]
    files: tuple[str, ...]


def run_demo(folder: Path) -> Path:
    """Run the whole demo in `folder`, new or of an earlier run, and print the rankings.

    Returns the page's path. Raises FolderError if `folder` holds anything that is not the demo's.
    """
    demo = prepare_photos(folder)
    library = Library.create(folder / _PHOTOS, model=MODEL, place=folder / _LIBRARY)
    with terminal.progress("indexing") as report:
        counts = library.index(list(dict.fromkeys(focus for _, focus in demo.searches)), progress=report)
    settings.remember_library(library.place)
    terminal.counts(counts)
    results = search(library, demo)
    for photo, hits in results:
        name = photo.relative_to(library.folder).as_posix()
        terminal.line(f'\nfocus "{hits.searched.prompt}", query photo {name}')
        terminal.hits(hits, terminal.Form.table)
    page.write_page(folder / _PAGE, [hits for _, hits in results])
    terminal.remark(f"photographs: public domain; credits in {folder / _CREDITS}")
    terminal.line(f"\npage: {folder / _PAGE}")
    return folder / _PAGE


def search(library: Library, demo: Demo) -> list[tuple[Path, Hits]]:
    """Each query photo with its hits under each of its focuses."""
    asked = [(library.folder / photo, focus) for photo, focus in demo.searches]
    return [(photo, library.query(photo, focus, HITS, include_query=True)) for photo, focus in asked]


def prepare_photos(folder: Path) -> Demo:
    """Make the demo's photos below `folder`, unless an earlier run has; raises FolderError, OutputError."""
    demo = _read_record(folder)
    _refuse_strangers(folder, demo)
    photos = folder / _PHOTOS
    if demo is not None and demo.searches and all((photos / name).is_file() for name in demo.files):
        return demo
    demo = _make(folder)
    write_output(folder / _RECORD, json.dumps(asdict(demo), indent=1).encode())
    shutil.rmtree(photos, ignore_errors=True)  # incomplete, and nothing but the demo's own
    (folder / _MAKING).rename(photos)
    return demo


def _make(folder: Path) -> Demo:
    making = folder / _MAKING
    terminal.remark(f"making photos in {terminal.readable(folder / _PHOTOS)}")
    shutil.rmtree(making, ignore_errors=True)  # of a run that was interrupted
    try:
        (making / PHOTOGRAPHS).mkdir(parents=True)
    except OSError as error:
        raise FolderError(folder, f"cannot be written ({error.strerror}); name another folder") from error
    drawn = demo_photos(making)
    query = copy_photographs(making / PHOTOGRAPHS).relative_to(making).as_posix()
    credit = files("steersearch") / PHOTOGRAPHS / _CREDITS
    write_output(folder / _CREDITS, credit.read_bytes())
    searches = [(query, focus) for focus in FOCUSES]
    searches += [(drawn.query.relative_to(making).as_posix(), focus) for focus in drawn.focuses]
    made = sorted(path.relative_to(making).as_posix() for path in making.rglob("*") if path.is_file())
    return Demo(searches=tuple(searches), files=tuple(made))


def copy_photographs(folder: Path) -> Path:
    """Copy the shipped photographs into `folder`, some with a remote control in them; returns the query photo."""
    with as_file(files("steersearch") / PHOTOGRAPHS) as shipped:
        for file in sorted(shipped.glob("*.jpg")):
            if file.stem not in REMOTES:
                shutil.copy(file, folder / file.name)
                continue
            laid = with_remote(open_image(file), REMOTES[file.stem])
            laid.save(folder / _with_remote_name(file.stem), quality=90)
    return folder / _with_remote_name(QUERY)


def _with_remote_name(name: str) -> str:
    return f"{name}-and-a-drawn-remote-control.jpg"


def _read_record(folder: Path) -> Demo | None:
    """What an earlier run made; without searches if an earlier release made it, whose photos are then made again."""
    try:
        kept = json.loads((folder / _RECORD).read_bytes())
        searches = tuple((str(photo), str(focus)) for photo, focus in kept.get("searches", ()))
        return Demo(searches=searches, files=tuple(kept["files"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FolderError(
            folder, f"is in use or damaged ({_RECORD}: {error}); name another folder"
        ) from error


def _refuse_strangers(folder: Path, demo: Demo | None) -> None:
    """Raise FolderError if anything in `folder`, hidden files aside, was not made by the demo."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FolderError(folder, "is a file; name a new folder for the demo")
    own = set() if demo is None else {_RECORD, _LIBRARY, _PAGE, _PHOTOS, _CREDITS}
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
