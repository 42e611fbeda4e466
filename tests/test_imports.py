"""Imports point one way, each heavy library is imported in one file, and starting the program stays cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What each of our packages may import of the others.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "core": ("steersearch.core",),
    "indexer": (
        "steersearch.indexer",
        "steersearch.core.atomic",
        "steersearch.core.capture_date",
        "steersearch.core.digits",
        "steersearch.core.errors",
        "steersearch.core.json_file",
        "steersearch.core.preprocess",
        "steersearch.core.image_file",
        "steersearch.core.pillow_file",
        "steersearch.core.photo_limits",
        "steersearch.core.picture",
        "steersearch.core.regular_file",
        "steersearch.core.local_path",
        "steersearch.core.prompts",
        "steersearch.core.reading",
    ),
    "training": ("steersearch.training", "steersearch.core", "steersearch.indexer"),
    "benchmarks": (
        "steersearch.benchmarks",
        "steersearch.training",
        "steersearch.core",
        "steersearch.indexer",
        "steersearch.embedder",  # SteerViT as the indexer sees it: galleries are indexed as a user's photos are
    ),
    "steersearch": ("steersearch",),
}
ONLY_IN: dict[str, set[str]] = {
    "lancedb": {
        "benchmarks/peers.py",
        "benchmarks/search_scale.py",
        "indexer/database.py",
        "indexer/store.py",
    },
    "lance": set(),
    "faiss": {"benchmarks/peers.py", "benchmarks/search_scale.py", "indexer/faiss_index.py"},
    "rawpy": {"core/raw_photo.py"},
    "pillow_heif": {"core/pillow_file.py"},
    "timm": {"core/trunk.py"},
    "transformers": {
        "core/quiet.py",
        "training/segmenter.py",
        "benchmarks/baselines/pretrained.py",
    },
    "tokenizers": {"core/tokenizer.py"},
    "open_clip": {"benchmarks/baselines/open_clip_models.py"},
}
SUBPACKAGES = (
    "steersearch/cli",
    "steersearch/cli/bench",
    "steersearch/cli/train",
    "steersearch/views",
    "benchmarks/baselines",
)  # of ours, with sources
HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "lancedb",
    "faiss",
    "pyarrow",
    "pandas",
    "numpy",
    "PIL",
    "rich",
)


def sources() -> list[Path]:
    """Every Python file of ours, once: the links in `steersearch` are not entered."""
    return sorted(path for package in (*MAY_IMPORT, *SUBPACKAGES) for path in (ROOT / package).glob("*.py"))


@cache
def imported(path: Path) -> frozenset[str]:
    """Full names of all modules and names that a file imports, anywhere in it."""
    return frozenset(_imported(path))


def _imported(path: Path) -> Iterator[str]:
    folder = ".".join(path.relative_to(ROOT).parent.parts)
    package = folder if within(folder, "steersearch") else f"steersearch.{folder}"
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                base = package.split(".")[: len(package.split(".")) - node.level + 1]
                module = ".".join([*base, module] if module else base)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def test_every_package_has_sources() -> None:
    folders = {path.relative_to(ROOT).parent.as_posix() for path in sources()}
    assert folders == {*MAY_IMPORT, *SUBPACKAGES}


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    allowed = MAY_IMPORT[path.relative_to(ROOT).parts[0]]
    ours = [name for name in imported(path) if within(name, "steersearch")]
    assert [name for name in ours if not any(within(name, package) for package in allowed)] == []


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_heavy_library_has_one_door(library: str) -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in sources()
        if any(within(name, library) for name in imported(path))
    }
    assert users <= ONLY_IN[library]


def test_the_indexer_never_imports_the_model() -> None:
    for path in (ROOT / "indexer").glob("*.py"):
        assert [name for name in imported(path) if within(name, "torch")] == [], path


def test_help_loads_nothing_heavy() -> None:
    loaded = modules_after("from steersearch.cli import app; app(['--help'], standalone_mode=False)")
    assert "typer" in loaded
    assert loaded & set(HEAVY) == set()


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = modules_after("import steersearch")
    assert "steersearch" in loaded
    assert loaded & set(HEAVY) == set()


def modules_after(code: str) -> set[str]:
    """Names of the modules that are loaded once `code` has run in a fresh process."""
    code += "\nimport sys; print('LOADED', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("LOADED")[2].split())
