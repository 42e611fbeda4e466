"""Checkpoints of a training run: all it needs to resume, each either complete or absent.

    RUN/checkpoints/step-000500/state.safetensors   all tensors
                                state.json          everything else, and the sha256 of both
    RUN/checkpoints/best/                           the same files, of the best step

A checkpoint is written to a draft folder, flushed to disk and renamed. A killed process leaves at most a folder whose
name begins with a dot; the next `save` removes it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Parameter

from steersearch.core.errors import (
    CheckpointError,
    OutputError,
    RunError,
)
from steersearch.core.files import file_sha256, read_json

logger = logging.getLogger(__name__)

FOLDER, BEST = "checkpoints", "best"
TENSORS, STATE = "state.safetensors", "state.json"
FILE_FORMAT = 2  # of both files; a higher one is refused
_WRITING, _REPLACED = ".writing-", ".replaced-"
_STEP = re.compile(r"(\.replaced-)?step-(\d{6,})")

# ---------------------------------------------------------------------------------------------------- writing


def save(
    folder: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    keep: int = 2,
    best: bool = False,
) -> Path:
    """Write the checkpoint of a run after `step` steps (0 or more); return its folder. Only one process may write.

    tensors: of any dtype, shape and device; `load` returns them bit for bit.
    state: plain data, kept as JSON: tuples return as lists, keys as text; floats are exact, nan and infinities allowed.
    keep: how many of the latest checkpoints stay, at least 1.  best: also keep this one as `best`, beyond `keep`.
    Removes checkpoints of later steps: the run was resumed before them.
    Raises OutputError if the disk is full or refuses; earlier checkpoints remain.
    """
    if step < 0 or keep < 1:
        raise ValueError(f"step = {step}, keep = {keep}: the first must be 0 or more, the second 1 or more")
    place = folder / FOLDER
    final = place / f"step-{step:06}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        _clear(place)
        with _draft(final) as draft:
            _write(draft, step, tensors, state)
        if best:
            with _draft(place / BEST) as draft:
                _link(final, draft)
        _prune(place, step, keep)
    except OSError as error:
        last = next((path for _, path in _candidates(place)), None)
        kept = "" if last is None else f"; {last.name} is still there: make room and resume the run"
        raise OutputError(final, f"{error.strerror or error}{kept}") from error
    return final


def _write(draft: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write both files of a checkpoint and flush them to disk."""
    file = draft / TENSORS
    try:
        save_file(_for_disk(tensors), file)
    except SafetensorError as error:  # raised for a full disk
        raise OSError(str(error)) from error
    file.chmod(0o644)  # safetensors creates its files for their owner alone
    _to_disk(file)
    content = {
        "format": FILE_FORMAT,
        "step": step,
        "bytes": file.stat().st_size,
        "sha256": file_sha256(file),
        "state": state,
    }
    text = json.dumps(content | {"sha256_of_this": _digest(content)}, indent=1)
    (draft / STATE).write_text(text, "utf-8")
    _to_disk(draft / STATE)


def _for_disk(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, and without shared memory, which safetensors refuses."""
    ready: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in tensors.items():
        value = value.detach().cpu().contiguous()
        storage = value.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != value.nbytes:
            value = value.clone()
        seen.add(value.untyped_storage().data_ptr())
        ready[name] = value
    return ready


def _digest(content: Mapping[str, Any]) -> str:
    """sha256 of plain data, unchanged by a trip through JSON."""
    read_back = json.loads(json.dumps(content))
    return hashlib.sha256(json.dumps(read_back, sort_keys=True).encode()).hexdigest()


@contextmanager
def _draft(final: Path) -> Iterator[Path]:
    """A new folder that is renamed to `final` when the block ends, or removed if it fails.

    An existing folder is moved aside first, under a name that `_candidates` recognises until it is removed.
    """
    draft = final.with_name(_WRITING + secrets.token_hex(8))
    try:
        draft.mkdir()
        yield draft
        _to_disk(draft)
        aside = final.with_name(_REPLACED + final.name)
        if final.exists():
            final.rename(aside)
        draft.rename(final)
        _to_disk(final.parent)
        shutil.rmtree(aside, ignore_errors=True)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _link(checkpoint: Path, draft: Path) -> None:
    """Add the files of `checkpoint` to `draft`: as hard links, or as copies where the disk has none."""
    for name in (TENSORS, STATE):
        try:
            os.link(checkpoint / name, draft / name)
        except OSError:
            shutil.copy2(checkpoint / name, draft / name)
            _to_disk(draft / name)


def _to_disk(path: Path) -> None:
    """Flush a file, or a folder's entries, to disk."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folders
        return
    opened = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _clear(place: Path) -> None:
    """Remove the leftovers of a killed process, or finish a replacement that it had started."""
    for left in place.glob(f"{_WRITING}*"):
        shutil.rmtree(left, ignore_errors=True)
    for aside in place.glob(f"{_REPLACED}*"):
        name = aside.with_name(aside.name.removeprefix(_REPLACED))
        if name.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(name)


def _prune(place: Path, step: int, keep: int) -> None:
    """Remove all but the last `keep` checkpoints up to `step`."""
    found = _candidates(place)
    stay = [path for number, path in found if number <= step][:keep]
    for _, path in found:
        if path not in stay:
            shutil.rmtree(path, ignore_errors=True)


# ---------------------------------------------------------------------------------------------------- reading


def latest(folder: Path) -> Path | None:
    """The latest undamaged checkpoint of the run in `folder`, None if it has no checkpoints.

    Verifies the files, and logs which damaged ones it passed over.
    Raises RunError if every checkpoint is damaged.
    """
    damage = []
    for _, path in _candidates(folder / FOLDER):
        try:
            _read_state(path)
        except RunError as error:
            damage.append(error)
            continue
        for passed_over in damage:
            logger.warning("%s; continuing from %s instead", passed_over, path.name)
        return path
    if damage:
        raise RunError(
            folder / FOLDER,
            f"no checkpoint is undamaged ({'; '.join(f'{e.path.name}: {e.reason}' for e in damage)}); "
            "delete them to start over",
        )
    return None


def best(folder: Path) -> Path | None:
    """The best checkpoint of the run in `folder`, if one was saved as such."""
    place = folder / FOLDER
    found = (path for path in (place / BEST, place / (_REPLACED + BEST)) if path.is_dir())
    return next(found, None)


def load(path: Path, device: torch.device | str = "cpu") -> tuple[int, dict[str, Tensor], dict[str, Any]]:
    """Steps done, tensors on `device` and plain data of the checkpoint folder `path`.

    Raises RunError if a file is missing, truncated, damaged, or written by a newer version.
    """
    content = _read_state(path)
    try:
        tensors = load_file(path / TENSORS, device=str(device))
    except (SafetensorError, OSError) as error:
        raise RunError(path, f"{TENSORS} cannot be read ({error})") from error
    if content["format"] == 1:
        tensors, content["state"] = _from_format_1(tensors, content["state"])
    return content["step"], tensors, content["state"]


def _from_format_1(
    tensors: Mapping[str, Tensor], state: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Steering called its settings "recipe" and its parameters "model.…"; other stages kept neither window nor best."""
    settings = state.get("settings", state.get("recipe"))
    renamed = {name.removeprefix("model."): value for name, value in tensors.items()}
    return renamed, {"best": None, "window": {}, **state, "settings": settings}


def _read_state(path: Path) -> dict[str, Any]:
    """The content of a checkpoint's `state.json`, after both files are verified."""
    if not path.is_dir():
        raise RunError(path, "no such folder")
    try:
        content = read_json(path / STATE)
        if content["format"] > FILE_FORMAT:
            raise RunError(
                path, f"written by a newer version (format {content['format']}); update steersearch"
            )
        expected = content.pop("sha256_of_this")
        if _digest(content) != expected:
            raise RunError(path, f"{STATE} is damaged (it was changed after it was written)")
        file = path / TENSORS
        size = file.stat().st_size
        if size != content["bytes"]:
            raise RunError(path, f"{TENSORS} is damaged ({size} bytes, written were {content['bytes']})")
        if file_sha256(file) != content["sha256"]:
            raise RunError(path, f"{TENSORS} is damaged (it was changed after it was written)")
    except FileNotFoundError as error:
        raise RunError(path, f"{Path(error.filename).name} is missing") from error
    except OSError as error:
        raise RunError(path, f"cannot be read ({error.strerror or error})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(path, f"{STATE} is damaged ({error!r})") from error
    return dict(content)


def _candidates(place: Path) -> list[tuple[int, Path]]:
    """Step and folder of all checkpoints, damaged or not, latest first; a replaced one follows its successor."""
    found = []
    with suppress(FileNotFoundError, NotADirectoryError):
        for path in place.iterdir():
            if (match := _STEP.fullmatch(path.name)) and path.is_dir():
                found.append((int(match[2]), match[1] is None, path))
    return [(step, path) for step, _, path in sorted(found, reverse=True)]


# --------------------------------------------------------------------------------------------- another recipe


def differences(
    saved: Mapping[str, Any], given: Mapping[str, Any], free: Collection[str] = ()
) -> list[tuple[str, Any, Any]]:
    """Settings that differ, as ("optimiser.lr", saved value, given value); None stands for a missing one.

    saved, given: nested plain data; a tuple equals a list.
    free: names to ignore, such as "optimiser.steps", or "run" for a whole section
    """
    before, now = (dict(_flat(json.loads(json.dumps(recipe)))) for recipe in (saved, given))
    names = [*before, *(name for name in now if name not in before)]
    return [
        (name, before.get(name), now.get(name))
        for name in names
        if (name not in before or name not in now or before[name] != now[name])
        and not any(name == ignored or name.startswith(f"{ignored}.") for ignored in free)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


# ------------------------------------------------------------------------------------------------- optimisers

_UNUSED = "unused"  # an empty tensor in place of the state of a parameter that never had a gradient


def optimiser_tensors(optimizer: torch.optim.Optimizer, names: Mapping[Parameter, str]) -> dict[str, Tensor]:
    """The state of `optimizer` as {"adamw/connector.mlp.0.weight/exp_avg": tensor, ...}, not copied.

    It leaves out learning rates, weight decay and the like, which follow from the recipe and the step.
    names: of all its parameters. Keys begin with the optimiser's class, so that a run has only one of each.
    Raises CheckpointError for a parameter without a name, or a state that is not a tensor.
    """
    label = _label(optimizer)
    tensors: dict[str, Tensor] = {}
    for parameter, name in _named(optimizer, names, label):
        state = optimizer.state.get(parameter) or {_UNUSED: torch.empty(0)}
        for key, value in state.items():
            if not isinstance(value, Tensor):
                raise _misfit(label, unexpected=[f"{name}/{key} ({type(value).__name__})"])
            tensors[f"{label}/{name}/{key}"] = value
    return tensors


def restore_optimiser(
    optimizer: torch.optim.Optimizer, names: Mapping[Parameter, str], tensors: Mapping[str, Tensor]
) -> None:
    """Restore the state that `optimiser_tensors` returned, each tensor to its parameter's device.

    tensors: may hold others too; those of this optimiser must match these parameters and their shapes.
    Raises CheckpointError with the names that are missing, unexpected or of another shape, and changes nothing.
    """
    label = _label(optimizer)
    parameters = {name: parameter for parameter, name in _named(optimizer, names, label)}
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(f"{label}/"):
            name, _, what = key.removeprefix(f"{label}/").rpartition("/")
            found.setdefault(name, {})[what] = value
    misshapen = [
        f"{name}/{what}"
        for name in parameters.keys() & found.keys()
        for what, value in found[name].items()
        if what not in ("step", _UNUSED) and value.shape != parameters[name].shape
    ]
    missing, unexpected = parameters.keys() - found.keys(), found.keys() - parameters.keys()
    if missing or unexpected or misshapen:
        raise _misfit(
            label, missing=sorted(missing), unexpected=sorted(unexpected), misshapen=sorted(misshapen)
        )
    groups = {p: group for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in parameters.items():
        kept = {what: value for what, value in found[name].items() if what != _UNUSED}
        counts_here = groups[parameter].get("fused") or groups[parameter].get("capturable")
        optimizer.state[parameter] = {
            # torch counts steps on the CPU, unless all of its step is one kernel
            what: value.detach().to(
                "cpu" if what == "step" and not counts_here else parameter.device, copy=True
            )
            for what, value in kept.items()
        }


def _misfit(
    label: str, missing: Sequence[str] = (), unexpected: Sequence[str] = (), misshapen: Sequence[str] = ()
) -> CheckpointError:
    named = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    found = "; ".join(f"{what}: {', '.join(names)}" for what, names in named.items() if names)
    return CheckpointError(f"the saved state of {label} does not fit what is trained; {found}")


def _label(optimizer: torch.optim.Optimizer) -> str:
    """The optimiser's class; Accelerate wraps it in one of its own."""
    inner = getattr(optimizer, "optimizer", optimizer)
    return type(inner).__name__.lower()


def _named(
    optimizer: torch.optim.Optimizer, names: Mapping[Parameter, str], label: str
) -> Iterator[tuple[Parameter, str]]:
    """The parameters of `optimizer` with their names."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter not in names:
                raise _misfit(label, missing=[f"the name of a parameter of shape {tuple(parameter.shape)}"])
            yield parameter, names[parameter]
