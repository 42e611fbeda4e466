"""Embeddings of a data set's pictures under prompts, computed once and cached.

SteerViT embeds a gallery through the indexer, like a user's photos: the pictures are a photo folder, the prompts its
prompt indexes, and a killed run resumes. For other methods, which take pictures at other sizes, and for single pairs of
picture and prompt, the vectors are arrays, a file for every 32 pictures, written when complete.

Either way a picture is decoded once for all prompts, and only the vectors grow with the data set.
"""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from PIL import Image

from steersearch.benchmarks.harness.benchmark import Report
from steersearch.benchmarks.harness.cache import cache_folder, digest_of
from steersearch.benchmarks.harness.method import FixedVectors, Floats, Method
from steersearch.benchmarks.harness.steervit_method import SteerViTMethod
from steersearch.core.errors import BenchmarkError, OutputError
from steersearch.core.files import write_atomically
from steersearch.core.predictor import Predictor
from steersearch.core.preprocess import open_image
from steersearch.core.prompts import EncodedPrompt
from steersearch.indexer.embedder import known_identity
from steersearch.indexer.library import Library
from steersearch.indexer.loader import read_ahead
from steersearch.indexer.manifest import PromptIndex
from steersearch.indexer.progress import ProgressEvent
from steersearch.indexer.store import Store

CHUNK = 32  # pictures
_FROZEN = "no prompt"  # the prompt of the indexer at gate_scale 0, where it has no effect

Prompt = str | None
PairVectors = dict[Prompt, dict[int, Floats]]


class Pictures(Protocol):
    """Pictures by number. digest: a hash of all of them."""

    @property
    def digest(self) -> str: ...
    def __len__(self) -> int: ...
    def read(self, number: int) -> Image.Image:
        """RGB. Raises ImageError."""
        ...


@dataclass(frozen=True)
class Gallery:
    """Pictures that are files. files: names below `folder`, which holds no other pictures; digest: of all bytes."""

    folder: Path
    files: tuple[str, ...]
    digest: str

    def __len__(self) -> int:
        return len(self.files)

    def read(self, number: int) -> Image.Image:
        return open_image(self.folder / self.files[number])


def part_of(report: Report | None, done: int, total: int) -> Report | None:
    """`report` for a step that starts after `done` of `total` pictures."""
    if report is None:
        return None
    return lambda event: report(ProgressEvent(done + event.done, total, event.images_per_s))


def needs_a_prompt(method: Method) -> str | None:
    """Why the method needs a prompt; None if it does not."""
    try:
        method.see([Image.new("RGB", (64, 64), "grey")], None)
    except BenchmarkError as error:
        return str(error)
    return None


def gallery_vectors(
    method: Method, gallery: Gallery, prompts: Sequence[Prompt], report: Report | None = None
) -> dict[Prompt, Floats]:
    """prompt -> (G, D) float32, the whole gallery under each of `prompts`, in the order of its files.

    Raises BenchmarkError for a picture that cannot be used, or a method that gives no finite vector.
    """
    if isinstance(method, SteerViTMethod):
        return _indexed(method, gallery, prompts, report)
    everything = range(len(gallery))
    found = pair_vectors(method, gallery, dict.fromkeys(prompts, everything), report)
    return {prompt: np.stack([found[prompt][i] for i in everything]) for prompt in prompts}


# --------------------------------------------------------------------------------------- through the indexer


class _Embedder(Predictor):
    """Loads no text encoder for unsteered vectors."""

    def __init__(self, predictor: Predictor) -> None:
        vars(self).update(vars(predictor))

    def encode_prompt(self, prompt: str) -> EncodedPrompt:
        if prompt == _FROZEN:
            return EncodedPrompt(np.zeros((1, self.model.config.text_dim), dtype=np.float32))
        return super().encode_prompt(prompt)


def _indexed(
    method: SteerViTMethod, gallery: Gallery, prompts: Sequence[Prompt], report: Report | None
) -> dict[Prompt, Floats]:
    embedder = _Embedder(method.model)
    library = Library.create(gallery.folder, embedder, _place(method, gallery))
    asked = {prompt: _as_indexed(method, prompt) for prompt in prompts}
    for gate_scale in sorted({scale for _, scale in asked.values()}):
        names = list(dict.fromkeys(name for name, scale in asked.values() if scale == gate_scale))
        counts = library.index(names, gate_scale=gate_scale, progress=report)
        if counts.skips:
            raise BenchmarkError(f"{gallery.folder / counts.skips[0].path}: {counts.skips[0].reason}")
    identity = known_identity(embedder)
    own = {
        (i.prompt, i.gate_scale): i
        for i in library.prompts()
        if identity.fits(i.weights_hash, i.preprocessing)
    }
    read = {key: _read_index(library.place, own[key], gallery) for key in set(asked.values())}
    return {prompt: read[key] for prompt, key in asked.items()}


def _as_indexed(method: SteerViTMethod, prompt: Prompt) -> tuple[str, float]:
    """The indexer's prompt and gate_scale for `method` under `prompt`."""
    if prompt is None or not method.takes_prompt:
        return _FROZEN, 0.0
    return prompt.strip(), method.gate_scale


def _place(method: SteerViTMethod, gallery: Gallery) -> Path:
    """The library's place, which also depends on the dtype, as the indexer does not record it."""
    key = digest_of(gallery.digest, os.path.realpath(gallery.folder), method.settings["dtype"])
    return cache_folder() / "libraries" / key[:20]


def _read_index(place: Path, index: PromptIndex, gallery: Gallery) -> Floats:
    stored = Store(place).gallery(index.key)
    row_of = {path: row for row, path in enumerate(stored.paths)}
    return stored.embeddings[[row_of[file] for file in gallery.files]]


# ------------------------------------------------------------------------------------------------- as arrays


def pair_vectors(
    method: Method,
    pictures: Pictures,
    wanted: Mapping[Prompt, Iterable[int]],
    report: Report | None = None,
) -> PairVectors:
    """prompt -> number of a picture -> (D,) float32, for the pictures `wanted` under each prompt; cached.

    Raises BenchmarkError, ImageError.
    """
    if isinstance(method, FixedVectors):
        return _under_prompts(method, pictures, wanted, report)
    return _pair_vectors(method, pictures, wanted, report)


def _under_prompts(
    method: Method, pictures: Pictures, wanted: Mapping[Prompt, Iterable[int]], report: Report | None
) -> PairVectors:
    """As `pair_vectors`, from the vectors without a prompt."""
    assert isinstance(method, FixedVectors)
    asked = {prompt: list(numbers) for prompt, numbers in wanted.items()}
    everything = {number for numbers in asked.values() for number in numbers}
    plain = _pair_vectors(method, pictures, {None: everything}, report)[None]
    found: PairVectors = {}
    for prompt, numbers in asked.items():
        vectors = [plain[number] for number in numbers]
        under = vectors if prompt is None or not vectors else method.under(np.stack(vectors), prompt)
        found[prompt] = dict(zip(numbers, under, strict=True))
    return found


def _pair_vectors(
    method: Method,
    pictures: Pictures,
    wanted: Mapping[Prompt, Iterable[int]],
    report: Report | None = None,
) -> PairVectors:
    numbers: dict[int, list[Prompt]] = {}
    for prompt, those in wanted.items():
        for number in those:
            numbers.setdefault(number, []).append(prompt if method.takes_prompt else None)
    folder = cache_folder() / "features" / digest_of(method.identity)[:20] / pictures.digest[:20]
    found: PairVectors = {}
    done, began = 0, time.monotonic()
    for start in range(0, len(pictures), CHUNK):
        part = {i: numbers[i] for i in range(start, min(start + CHUNK, len(pictures))) if i in numbers}
        kept = _complete(method, pictures, part, folder / f"{start:06d}.npz")
        for number, prompts in part.items():
            for prompt in prompts:
                found.setdefault(prompt, {})[number] = kept[prompt, number]
        done += len(part)
        if report is not None and part:
            seconds = time.monotonic() - began
            report(ProgressEvent(done, len(numbers), done / seconds if seconds else 0.0))
    return {prompt: found.get(prompt if method.takes_prompt else None, {}) for prompt in wanted}


_Kept = dict[tuple[Prompt, int], Floats]


def _complete(method: Method, pictures: Pictures, asked: Mapping[int, Sequence[Prompt]], file: Path) -> _Kept:
    """The vectors in `file`, completed by those of `asked` that are missing."""
    kept = _read_kept(file) if asked else {}
    missing: dict[Prompt, list[int]] = {}
    for number, prompts in asked.items():
        for prompt in dict.fromkeys(prompts):
            if (prompt, number) not in kept:
                missing.setdefault(prompt, []).append(number)
    if missing:
        numbers = sorted({number for those in missing.values() for number in those})
        threads = max(2, min(8, cpu_count() or 2))
        images = dict(
            zip(numbers, read_ahead(numbers, pictures.read, threads=threads, look_ahead=CHUNK), strict=True)
        )
        for prompt, those in missing.items():
            kept |= {(prompt, n): v for n, v in zip(those, _seen(method, images, those, prompt), strict=True)}
        _keep(file, kept)
    return kept


def _seen(
    method: Method, images: Mapping[int, Image.Image], numbers: Sequence[int], prompt: Prompt
) -> list[Floats]:
    vectors: list[Floats] = []
    for start in range(0, len(numbers), method.batch_size):
        batch = numbers[start : start + method.batch_size]
        vectors += list(method.see([images[number] for number in batch], prompt).vectors)
    if not all(len(vector) and np.isfinite(vector).all() for vector in vectors):
        raise BenchmarkError(f'{method.name} gave an embedding that is empty or not finite for "{prompt}"')
    return vectors


def _read_kept(file: Path) -> _Kept:
    """The vectors of a file; empty if it is missing or damaged."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            prompts = json.loads(arrays["prompts"].tobytes())
            which = zip(
                arrays["of_prompt"].tolist(), arrays["of_picture"].tolist(), arrays["vectors"], strict=True
            )
            return {(prompts[p], number): vector for p, number, vector in which}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}


def _keep(file: Path, kept: _Kept) -> None:
    """Write a file atomically."""
    prompts = list(dict.fromkeys(prompt for prompt, _ in kept))

    def write(part: IO[bytes]) -> None:
        np.savez(
            part,
            prompts=np.frombuffer(json.dumps(prompts).encode(), np.uint8),
            of_prompt=np.array([prompts.index(prompt) for prompt, _ in kept], np.int32),
            of_picture=np.array([number for _, number in kept], np.int32),
            vectors=np.stack(list(kept.values())).astype(np.float32),
        )

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, write)
    except OSError as error:
        raise OutputError(file, error.strerror or str(error)) from error
