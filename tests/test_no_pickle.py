"""No file of ours is a pickle: reading one runs what it says, and folders are handed about."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_imports import ROOT, imported, sources, within

PICKLES = ("pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib")
# Published pickles are read there, by unpicklers that know no names but their own.
RESTRICTED = {"core/released_pickle.py", "training/data/importers/plain_pickle.py"}
WRITES_RELEASED = {"core/checkpoints.py"}  # the authors' .pth, for their code


def calls(path: Path) -> Iterator[tuple[str, dict[str, ast.expr]]]:
    """Last two parts of the name of whatever is called in a file, and the keywords it is called with."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value).rpartition(".")[2]
            yield f"{owner}.{node.func.attr}", {k.arg or "**": k.value for k in node.keywords}


def faults(path: Path) -> list[str]:
    """What in a file may run code out of another file."""
    place = str(path.relative_to(ROOT))
    found = [
        f"imports {name}"
        for name in imported(path)
        if place not in RESTRICTED and any(within(name, pickles) for pickles in PICKLES)
    ]
    found += [
        f"imports {name}" for name in imported(path) if name in ("torch.load", "torch.save", "numpy.load")
    ]
    for name, keywords in calls(path):
        if name == "torch.load" and not _is(keywords.get("weights_only"), True):
            found.append("torch.load without weights_only=True")
        if name == "torch.save" and place not in WRITES_RELEASED:
            found.append("torch.save")
        if "**" in keywords and name in ("np.load", "numpy.load"):
            found.append("np.load with keywords that cannot be seen")
        if not _is(keywords.get("allow_pickle", ast.Constant(False)), False):
            found.append("allow_pickle")
        if name.endswith((".read_pickle", ".to_pickle")):
            found.append(name)
    return found


def _is(value: ast.expr | None, wanted: bool) -> bool:
    return isinstance(value, ast.Constant) and value.value is wanted


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_runs_what_another_one_says(path: Path) -> None:
    assert faults(path) == []
