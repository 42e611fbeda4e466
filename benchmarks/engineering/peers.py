"""Indexing and searching the same photos with others: rclip, and FAISS or LanceDB used directly.

    python -m steersearch.benchmarks.engineering.peers --rclip .venv-rclip/bin/rclip --photos 2000 --save

All run the mini's backbone. rclip gets it as the ONNX file that it would otherwise download, with a resize from the 256
pixels that it passes and a random projection to its 512 numbers. So the backbone costs the same everywhere except
for the runtime (ONNX Runtime in rclip, else PyTorch), and hits cannot be compared. `DOES` says what else each does.
rclip needs its own environment, since its Pillow and NumPy differ: pip install rclip. The export needs onnx and
onnxscript.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from steersearch.benchmarks.engineering.fresh_process import call_fresh
from steersearch.benchmarks.engineering.pipeline import SIZES, encoded_scenes, write_photos
from steersearch.benchmarks.engineering.speed import bundled_hash
from steersearch.benchmarks.harness.record import Record, run_script
from steersearch.core.errors import BenchmarkError

PROMPT = "the remote control"
RCLIP_MODEL = "ViT-B-32-256-datacomp_s34b_b86k"  # the folder in which rclip looks for its weights
DOES = {
    "steersearch": "one prompt: hashes, thumbnails, heatmaps, region vectors (a second pass), resumable tables",
    "steersearch, no regions": "the same without region vectors: one pass",
    "rclip": "hashes; one vector a photo in SQLite; whole photos, no prompt",
    "faiss": "a script: decode, one prompt's pass, IndexFlatIP in a file; nothing else is kept",
    "lancedb": "a script: the same into a LanceDB table",
}


def write_rclip_model(folder: str) -> None:
    """Write the mini's backbone where rclip looks for its weights below `folder`; a search by photo needs no more."""
    import torch

    from steersearch.core.checkpoints import load_model
    from steersearch.core.efficientnet_lite import EfficientNetLite2

    class Visual(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = load_model("mini", device="cpu")
            network = next(each for each in self.model.modules() if isinstance(each, EfficientNetLite2))
            network.forward = network._maps  # type: ignore[method-assign]  # in one part, whatever the batch
            self.project = torch.nn.Linear(self.model.dim, 512, bias=False)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            side = self.model.config.resolution
            own = torch.nn.functional.interpolate(pixels, size=(side, side), mode="bilinear")
            out: torch.Tensor = self.project(self.model(own).prefix[:, 0])
            return out

    # With gradients the network uses PyTorch's own layers: oneDNN's fused ones cannot be exported to ONNX.
    place = Path(folder, RCLIP_MODEL)
    place.mkdir(parents=True)
    torch.onnx.export(
        Visual().eval().requires_grad_(), (torch.zeros(8, 3, 256, 256),), str(place / "visual.onnx"),
        input_names=["input"], output_names=["output"], dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip
    (place / "textual.onnx").touch()  # must exist, though only text queries read them
    Path(folder, "tokenizer").mkdir()
    Path(folder, "tokenizer", "bpe_simple_vocab_16e6.txt.gz").touch()


def faiss_directly(photos: str, place: str) -> None:
    """A script with FAISS: embed every photo under the prompt, write one index."""
    import faiss

    _, vectors = _embedded(photos)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    faiss.write_index(index, str(Path(place, "photos.faiss")))


def lancedb_directly(photos: str, place: str) -> None:
    """A script with LanceDB: embed every photo under the prompt, write one table."""
    import lancedb

    paths, vectors = _embedded(photos)
    rows = [{"path": path, "vector": vector} for path, vector in zip(paths, vectors, strict=True)]
    lancedb.connect(place).create_table("photos", rows)


def faiss_search(place: str, photo: str) -> None:
    """A cold search in the index of `faiss_directly`."""
    import faiss

    faiss.read_index(str(Path(place, "photos.faiss"))).search(_query(photo), 10)


def lancedb_search(place: str, photo: str) -> None:
    """A cold search in the table of `lancedb_directly`."""
    import lancedb

    table = lancedb.connect(place).open_table("photos")
    table.search(_query(photo)[0]).distance_type("cosine").limit(10).to_list()


def _embedded(photos: str) -> tuple[list[str], Any]:
    from steersearch.core.predictor import Predictor

    paths = [str(path) for path in sorted(Path(photos).rglob("*.jpg"))]
    return paths, Predictor.from_pretrained("mini", "cpu").embed(paths, PROMPT).numpy()


def _query(photo: str) -> Any:
    from steersearch.core.predictor import Predictor

    return Predictor.from_pretrained("mini", "cpu").embed([photo], PROMPT).numpy()


class Peer:
    """One way to index `photos` and search them, each step a process with its data in `home`."""

    def __init__(self, name: str, photos: Path, home: Path, rclip: Path | None) -> None:
        self.name, self._photos, self._home, self._rclip = name, photos, home, rclip
        home.mkdir(parents=True)
        if name == "rclip":
            call_fresh(write_rclip_model, None, folder=str(home))

    def index_seconds(self) -> float:
        return _seconds(self._index)

    @property
    def bytes_kept(self) -> int:
        """Bytes that indexing wrote to disk."""
        model = self._home / RCLIP_MODEL
        files = [path for path in self._home.rglob("*") if path.is_file() and model not in path.parents]
        return sum(path.stat().st_size for path in files)

    def search_seconds(self, photo: Path) -> float:
        return _seconds(lambda: self._search(photo))

    def _index(self) -> None:
        if self.name.startswith("steersearch"):
            extra = ["--no-regions"] if "no regions" in self.name else []
            self._steersearch("index", str(self._photos), "--prompt", PROMPT, "--model", "mini", *extra)
        elif self.name == "rclip":  # it has no index command: a search indexes first
            self._run_rclip(next(iter(sorted(self._photos.rglob("*.jpg")))))
        else:
            function = faiss_directly if self.name == "faiss" else lancedb_directly
            call_fresh(function, None, photos=str(self._photos), place=str(self._home))

    def _search(self, photo: Path) -> None:
        if self.name.startswith("steersearch"):
            self._steersearch("query", str(photo), "--focus", PROMPT, "--paths")
        elif self.name == "rclip":
            self._run_rclip(photo, "--no-indexing")
        else:
            function = faiss_search if self.name == "faiss" else lancedb_search
            call_fresh(function, None, place=str(self._home), photo=str(photo))

    def _steersearch(self, *command: str) -> None:
        own = dict.fromkeys(("XDG_STATE_HOME", "XDG_CACHE_HOME"), str(self._home))
        _run([sys.executable, "-m", "steersearch", *command, "--library", str(self._home / "library")], own)

    def _run_rclip(self, photo: Path, *options: str) -> None:
        assert self._rclip is not None
        own = {"RCLIP_DATADIR": str(self._home)}
        _run([str(self._rclip), str(photo), "-f", *options], own, self._photos)


def _run(command: Sequence[str], environment: Mapping[str, str], cwd: Path | None = None) -> None:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it says nothing"]
        raise BenchmarkError(f"{Path(command[0]).name} failed: {lines[-1]}")


def _seconds(action: Callable[[], None]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def measure(
    names: Sequence[str], photos: Path, query: Path, home: Path, rclip: Path | None, rounds: int
) -> dict[str, Any]:
    """Medians over `rounds`, each of which every peer starts from scratch; ratios are to steersearch."""
    indexing: dict[str, list[float]] = {name: [] for name in names}
    searching: dict[str, list[float]] = {name: [] for name in names}
    kept = {}
    for number in range(rounds):
        for name in names:
            peer = Peer(name, photos, home / f"{name.replace(', ', '-').replace(' ', '-')}-{number}", rclip)
            indexing[name].append(peer.index_seconds())
            peer.search_seconds(query)  # the first may still compile modules
            searching[name] += [peer.search_seconds(query) for _ in range(3)]
            kept[name] = peer.bytes_kept
    ours = names[0]
    return {
        name: {
            "index_seconds": round(median(indexing[name]), 2),
            "index_seconds_all": [round(value, 2) for value in indexing[name]],
            "index_over_ours": _ratio(indexing[name], indexing[ours]),
            "search_seconds": round(median(searching[name]), 3),
            "search_over_ours": _ratio(searching[name], searching[ours]),
            "bytes_kept": kept[name],
            "does": DOES[name],
        }
        for name in names
    }


def _ratio(values: Sequence[float], ours: Sequence[float]) -> float:
    return round(float(np.median(np.array(values) / np.array(ours))), 3)


def record_of(photos: int, size: str, rounds: int, rclip: Path | None) -> Record:
    """The record of every peer that can run on this machine."""
    names = [name for name in DOES if name != "rclip" or rclip]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        gallery, query = Path(folder, "photos"), Path(folder, "query.jpg")
        write_photos(gallery, encoded_scenes(SIZES[size]), photos, "peers")
        shutil.copy(next(iter(sorted(gallery.rglob("*.jpg")))), query)
        metrics = measure(names, gallery, query, Path(folder, "homes"), rclip, rounds)
    settings = {"photos": photos, "size": size, "rounds": rounds}
    name, seconds = f"peers-{size.replace(' ', '')}", time.monotonic() - began
    return Record.make(name, "mini", settings, metrics, seconds, weights_hash=bundled_hash("mini"))


def main() -> None:
    """Measure every peer that can run on this machine, print the record and, with --save, keep it."""
    parser = argparse.ArgumentParser(description="Index and search the same photos with others.")
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--size", choices=list(SIZES), default="0.2 MP")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rclip", type=Path, help="rclip's program; without it rclip is left out")
    run_script(parser, record_of)


if __name__ == "__main__":
    main()
