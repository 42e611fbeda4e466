"""Imports point one way, each heavy library is imported in one file, and starting the program stays cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What each of our packages may import of the others.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "core": ("steersearch.core",),
    "indexer": (
        "steersearch.indexer",
        "steersearch.core.errors",
        "steersearch.core.files",
        "steersearch.core.images",
        "steersearch.core.learned",
        "steersearch.core.objects",
        "steersearch.core.preprocess",
        "steersearch.core.prompts",
        "steersearch.core.vectors",
        "steersearch.indexer.manifest",
    ),
    "training": ("steersearch.training", "steersearch.core", "steersearch.indexer"),
    "benchmarks": (
        "steersearch.benchmarks",
        "steersearch.training",
        "steersearch.core",
        "steersearch.indexer",
    ),
    "steersearch": ("steersearch",),
}
ONLY_IN: dict[str, set[str]] = {
    "lancedb": {
        "benchmarks/engineering/search_scale.py",
        "indexer/database.py",
    },
    "lance": set(),
    "faiss": {
        "benchmarks/engineering/search_scale.py",
        "indexer/faiss_index.py",
    },
    "obstore": {"core/objects.py"},
    "rawpy": {"core/images/raw.py"},
    "pillow_heif": {"core/images/pillow.py"},
    "timm": {"core/backbone.py"},
    "transformers": {
        "training/data/sam2.py",
        "benchmarks/baselines/pretrained.py",
    },
    "tokenizers": {"core/text.py"},
    "open_clip": {"benchmarks/baselines/open_clip_models.py"},
    "watchfiles": {"indexer/watch.py"},
    "ray": {
        "benchmarks/engineering/focus_scale.py",
        "indexer/ray_cluster.py",
        "indexer/ray_engine.py",
        "indexer/ray_fleet.py",
    },
    "textual_image": {"steersearch/views/previews.py"},
}
SUBPACKAGES = (
    "core/images",
    "indexer/care",
    "steersearch/cli",
    "steersearch/cli/bench",
    "steersearch/cli/train",
    "steersearch/views",
    "steersearch/web",
    "benchmarks/harness",
    "benchmarks/paper",
    "benchmarks/ours",
    "benchmarks/engineering",
    "training/world",
    "benchmarks/baselines",
    "training/data",
    "training/data/importers",
    "training/hybrid",
    "training/photographs",
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
    "textual_image",
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
    assert users == ONLY_IN[library]


# Where modules of ours are imported inside functions, and why.
LATE: dict[str, str] = {
    "steersearch/__init__.py": "the package's names are imported at their first use",
    "steersearch/api.py": "torch takes seconds, and a search in an index needs none",
    "steersearch/cli/bench/learned_map.py": "torch takes seconds, and help needs none",
    "steersearch/cli/bench/options.py": "torch takes seconds, and help needs none",
    "steersearch/cli/bench/speed.py": "the same",
    "steersearch/cli/plan.py": "the same; only `here` measures",
    "steersearch/cli/models.py": "only `auto` asks torch what the machine has",
    "steersearch/cli/train/__init__.py": "the commands of the group, and help, do without torch",
    "steersearch/cli/train/masks.py": "the same",
    "steersearch/explain.py": "torch takes seconds, and help needs none",
    "steersearch/views/terminal.py": "only --preview draws pictures",
    "core/downloads.py": "checkpoints imports torch, which `models list` does without",
    "core/images/reader.py": "most photos are decoded in this process, and need no other",
    "benchmarks/engineering/memory.py": "what an import takes is what is measured",
}


# Other packages that are imported inside functions, and why.
LATE_PACKAGES: dict[str, str] = {
    **dict.fromkeys(
        ("torch", "timm", "transformers", "tokenizers", "huggingface_hub", "accelerate", "lancedb", "faiss"),
        "slow to import, and many commands do without",
    ),
    **dict.fromkeys(
        ("pyarrow.compute", "pyarrow.parquet", "pathspec", "re2", "jinja2", "rich"),
        "a search in an index does without: a tenth of its time",
    ),
    **dict.fromkeys(
        (
            "cv2",
            "diffusers",
            "onnxruntime",
            "obstore",
            "open_clip",
            "pillow_heif",
            "rawpy",
            "ray",
            "textual_image",
            "umap",
            "wandb",
        ),
        "of an extra, which need not be installed",
    ),
    "torch.utils.tensorboard": "of an extra, which need not be installed",
    "importlib.metadata": "only for the version",
    "tomllib": "only where there is a file of settings",
    "resource": "not on Windows",
}


def test_other_packages_are_imported_at_the_top() -> None:
    for path in sources():
        if str(path.relative_to(ROOT)) in ("benchmarks/engineering/memory.py",):  # see LATE
            continue
        names = [name for node in imported_late(path) if not is_ours(node) for name in names_in(node)]
        assert [n for n in names if not any(within(n, package) for package in LATE_PACKAGES)] == [], path


def names_in(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return [alias.name for alias in node.names]


def test_modules_of_ours_are_imported_at_the_top() -> None:
    late = {str(path.relative_to(ROOT)) for path in sources() if any(map(is_ours, imported_late(path)))}
    assert late == set(LATE)


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Nor for its types alone, or inside a function."""
    modules = {module_of(path): path for path in sources()}
    graph = {name: _modules_in(imported(path), modules) - {name} for name, path in modules.items()}
    assert circles(graph) == []


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts if parts[0] == "steersearch" else ("steersearch", *parts))
    return name.removesuffix(".__init__")


def is_ours(node: ast.Import | ast.ImportFrom) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.level > 0 or within(node.module or "", "steersearch")
    return any(within(alias.name, "steersearch") for alias in node.names)


def imported_late(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """What a file imports inside functions."""
    functions = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.FunctionDef)]
    return [n for each in functions for n in ast.walk(each) if isinstance(n, ast.Import | ast.ImportFrom)]


def _modules_in(names: frozenset[str], modules: Collection[str]) -> set[str]:
    """The modules that these names are, or are in."""
    found = (name if name in modules else name.rpartition(".")[0] for name in names)
    return {name for name in found if name in modules}


def circles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """The modules that lead back to themselves, with those that they do it by way of."""
    reached = {name: _reached(graph, name) for name in graph}
    found = {
        frozenset(m for m in reached[name] if name in reached[m]) for name in graph if name in reached[name]
    }
    return [set(circle) for circle in sorted(found, key=lambda circle: min(circle), reverse=True)]


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = [*graph[start]]
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += graph[name]
    return found


def test_the_indexer_never_imports_the_model() -> None:
    for path in (ROOT / "indexer").rglob("*.py"):
        assert [name for name in imported(path) if within(name, "torch")] == [], path


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set()}) == [{"a", "b", "c"}]


def test_help_loads_nothing_heavy() -> None:
    loaded = modules_after("from steersearch.cli import app; app(['--help'], standalone_mode=False)")
    assert "typer" in loaded
    assert loaded & set(HEAVY) == set()


@pytest.mark.parametrize(
    "command",
    [
        "bench core",
        "bench speed",
        "bench all",
        "bench build core",
        "bench build learned-map",
        "bench report",
        "train check",
        "train masks",
        "train photographs",
    ],
)
def test_help_loads_no_torch(command: str) -> None:
    arguments = [*command.split(), "--help"]
    loaded = modules_after(f"from steersearch.cli import app; app({arguments}, standalone_mode=False)")
    assert f"steersearch.cli.{command.split()[0]}" in loaded
    assert "torch" not in loaded


@pytest.mark.parametrize("command", ["models list", "models show", "train", "bench list", "bench methods"])
def test_help_of_a_command_without_photos_loads_no_numpy(command: str) -> None:
    arguments = [*command.split(), "--help"]
    loaded = modules_after(f"from steersearch.cli import app; app({arguments}, standalone_mode=False)")
    assert "steersearch.cli.options" in loaded
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
