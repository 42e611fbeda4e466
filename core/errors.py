"""Everything that steersearch raises on purpose. The library raises; only the command line prints."""

from __future__ import annotations

import difflib
import errno
import os
import re
import reprlib
import shlex
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from decimal import Decimal
from pathlib import Path


def _path(given: Path | str) -> Path:
    """A path as it is: one in a bucket stays one."""
    return given if isinstance(given, Path) else Path(given)


class SteerSearchError(Exception):
    """Base of all errors whose message is written for the user. They can be sent to another process."""

    def __reduce__(self) -> tuple[object, ...]:
        return _received, (type(self), self.args, self.__dict__)


def _received(
    kind: type[SteerSearchError], args: tuple[object, ...], fields: dict[str, object]
) -> SteerSearchError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


class ImageError(SteerSearchError):
    """A file that cannot be used as an image. Fields: `path` (or None for an image in memory), `reason`."""

    def __init__(self, path: Path | str | None, reason: str) -> None:
        self.path = None if path is None else _path(path)
        self.reason = reason
        super().__init__(f"{path if path is not None else 'image'}: {reason}")


class ImageRefusedError(ImageError):
    """A file that may be a picture but is not read: it exceeds a limit, or its decoder is not installed."""


class PromptError(SteerSearchError):
    """A prompt that cannot steer: empty or only white space."""


class UnknownModelError(SteerSearchError):
    """No model, file or hub id has this name. Fields: `name`, `known` (the names that exist), `nearest` or None."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        self.name, self.known = name, tuple(known)
        self.nearest = next(iter(difflib.get_close_matches(name, known, 1)), None)
        meant = "" if self.nearest is None else f', did you mean "{self.nearest}"?'
        super().__init__(
            f'unknown model "{name}"{meant}; known: {", ".join(known)}; or give a .safetensors or .pth file'
        )


class CheckpointError(SteerSearchError):
    """A checkpoint that is damaged, unsafe or does not fit the model."""


class ConfigError(SteerSearchError):
    """A model setting that cannot work. Fields: `field`, `value`, `reason`."""

    def __init__(self, field: str, value: object, reason: str) -> None:
        self.field, self.value, self.reason = field, value, reason
        super().__init__(f"{field} = {_SHORT.repr(value)}: {reason}")


# A value out of somebody's file: of any length, and nested as deep as it likes.
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxtuple, _SHORT.maxlist, _SHORT.maxdict = 4, 32, 32, 8
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200


class FolderError(SteerSearchError):
    """A photo folder that cannot be indexed. Fields: `folder`, `reason`."""

    def __init__(self, folder: Path | str, reason: str) -> None:
        self.folder, self.reason = _path(folder), reason
        super().__init__(f"{folder}: {reason}")


class LibraryPlaceError(SteerSearchError):
    """A place where a library cannot live. Fields: `place`, `reason`."""

    def __init__(self, place: Path | str, reason: str) -> None:
        self.place, self.reason = _path(place), reason
        super().__init__(f"{place}: {reason}; name another place with --library PLACE")


class LibraryMissingError(SteerSearchError):
    """No library at this place. Field: `place`."""

    def __init__(self, place: Path | str) -> None:
        self.place = _path(place)
        folder = shlex.quote(str(place)) if self.place.is_dir() else "FOLDER"
        super().__init__(f"{place}: no library here; make one: steersearch index {folder}")


class NotIndexedError(SteerSearchError):
    """No library was named or found. Field: `folder`, where there are photos to index; None: not known."""

    def __init__(self, reason: str, folder: Path | None) -> None:
        self.folder = folder
        command = f"steersearch index {'FOLDER' if folder is None else shlex.quote(str(folder))}"
        super().__init__(f"{reason}; index your photos: {command}, or name a library: --library PLACE")


class LibraryBusyError(SteerSearchError):
    """A library that another process is writing to, where exclusive access is needed. Fields: `place`, `holder` (that
    process, "" if unknown)."""

    def __init__(self, place: Path | str, holder: str = "") -> None:
        self.place, self.holder = _path(place), holder
        who = holder or "another process"
        super().__init__(f"{place}: {who} is writing to this library; wait until it has ended")


class LibraryDamagedError(SteerSearchError):
    """A file of a library that does not match what was written. Fields: `path`, `reason`, `way_out`."""

    def __init__(
        self, path: Path | str, reason: str, way_out: str = "see what can be saved: steersearch verify"
    ) -> None:
        self.path, self.reason, self.way_out = _path(path), reason, way_out
        super().__init__(f"{path}: damaged: {reason}; {way_out}")


class LibraryUnreadableError(SteerSearchError):
    """A file of a library that cannot be read now; it may be undamaged. Fields: `path`, `reason`."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path, self.reason = _path(path), reason
        super().__init__(f"{path}: cannot be read ({reason}); nothing was changed")


class SchemaVersionError(SteerSearchError):
    """A library written by a newer steersearch. Fields: `path`, `found`, `supported`."""

    def __init__(self, path: Path | str, found: object, supported: int) -> None:
        self.path, self.found, self.supported = _path(path), found, supported
        super().__init__(
            f"{path}: written in format {found}, this steersearch reads up to {supported}; "
            "update it: pip install --upgrade steersearch"
        )


class PromptIndexMissing(SteerSearchError):
    """No prompt index for this focus. Fields: `focus`, `folder`, `existing` (described), `command` that builds it, ""
    where none is wanted."""

    def __init__(self, focus: str, folder: Path | str, existing: Sequence[str], command: str = "") -> None:
        self.focus, self.folder = focus, _path(folder)
        self.existing, self.command = tuple(existing), command
        have = _nearest(focus, existing) if existing else "none yet"
        super().__init__(
            f'no index of {folder} for "{focus}"; have: {have}'
            + (f"; build it: {command}" if command else "")
        )


_NEAR = 5  # prompts that a message names


def _nearest(focus: str, existing: Sequence[str]) -> str:
    """The descriptions most like `focus`, and how many more there are."""
    if len(existing) <= _NEAR:
        return ", ".join(existing)
    nearest = sorted(existing, key=lambda one: -difflib.SequenceMatcher(None, focus, one).ratio())[:_NEAR]
    more = len(existing) - len(nearest)
    return ", ".join(nearest) + f" and {more:,} more (steersearch info)"


def index_of(prompt: str) -> str:
    """What messages call the index of a prompt; "": of none."""
    return f'the index for "{prompt}"' if prompt else "the index of unsteered vectors"


class ModelMismatchError(SteerSearchError):
    """A model that did not make the vectors it is to be compared with, or has other weights by now."""

    @classmethod
    def of(cls, prompt: str, expected: str, given: str) -> ModelMismatchError:
        """expected, given: names of models."""
        return cls(
            f"{index_of(prompt)} was made by the model {expected}, not by {given}; "
            f"use --model {expected}, or index the folder with the other model too"
        )


class ArgumentError(SteerSearchError):
    """An argument with an invalid value. Fields: `name`, `value`, `reason`."""

    def __init__(self, name: str, value: object, reason: str) -> None:
        self.name, self.value, self.reason = name, value, reason
        super().__init__(f"{name} = {value!r}: {reason}")


class FilterError(SteerSearchError):
    """An SQL condition that cannot be evaluated. Fields: `condition`, `reason`, `columns` (that it can be about)."""

    def __init__(self, condition: str, reason: str, columns: Sequence[str]) -> None:
        self.condition, self.reason, self.columns = condition, reason, tuple(columns)
        super().__init__(f"{condition}: {reason}; columns: {', '.join(columns)}")


class CheckpointKeysError(CheckpointError):
    """Weights that do not fit the model. Fields: `path`, `missing`, `unexpected`, `misshapen` (names)."""

    def __init__(
        self,
        path: Path | str,
        *,
        missing: Sequence[str] = (),
        unexpected: Sequence[str] = (),
        misshapen: Sequence[str] = (),
    ) -> None:
        self.path = _path(path)
        self.missing, self.unexpected, self.misshapen = tuple(missing), tuple(unexpected), tuple(misshapen)
        named = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
        found = "; ".join(f"{what}: {listed(names)}" for what, names in named.items() if names)
        super().__init__(f"{path}: its weights do not fit the model that it describes; {found}")


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names for a message, however many and long they are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(name if len(name) < 200 else f"{name[:200]}…" for name in names[:most]) + more


class OutputError(SteerSearchError):
    """A file that cannot be written. Fields: `path`, `reason`."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path, self.reason = _path(path), reason
        super().__init__(f"{path}: cannot be written ({reason})")


class BenchmarkError(SteerSearchError):
    """A benchmark that could not be measured, or whose figures would mean nothing."""


class HubError(CheckpointError):
    """A file that could not be fetched from the model hub. Fields: `repo`, `file`, `reason`."""

    def __init__(self, repo: str, file: str, reason: str) -> None:
        self.repo, self.file, self.reason = repo, file, reason
        super().__init__(f"{repo}/{file}: {reason}")


class HubFileMissingError(HubError):
    """No such repository, revision or file on the model hub, or no access to it."""


class DataError(SteerSearchError):
    """Data that cannot be used at all. Fields: `path`, `reason`."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path, self.reason = _path(path), reason
        super().__init__(f"{path}: {reason}")


class SplitMissingError(DataError):
    """A data set without the split that was asked for. Fields: `split`, `splits` (that it has)."""

    def __init__(self, path: Path | str, split: str, splits: Sequence[str]) -> None:
        self.split, self.splits = split, tuple(splits)
        super().__init__(path, f'it has no split "{split}"; it has: {", ".join(splits) or "none"}')


class SampleError(SteerSearchError):
    """One row of training data that cannot be used. Fields: `path`, `row` (where in it), `reason`."""

    def __init__(self, path: Path | str, row: str, reason: str) -> None:
        self.path, self.row, self.reason = _path(path), row, reason
        super().__init__(f"{path}, {row}: {reason}")


class UnknownSettingError(SteerSearchError):
    """A key that no recipe of training has. Fields: `key`, `known` (keys or sections around it), `nearest` or None."""

    def __init__(self, key: str, known: Sequence[str], nearest: str | None) -> None:
        self.key, self.known, self.nearest = key, tuple(known), nearest
        meant = "" if nearest is None else f' Did you mean "{nearest}"?'
        super().__init__(f'there is no setting "{key}".{meant} There are: {", ".join(known)}')


class SettingError(SteerSearchError):
    """A settings file that cannot be used, or a value in it."""


class RunError(SteerSearchError):
    """A training run that cannot be used or go on: its folder, a checkpoint, its journal. Fields: `path`, `reason`."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path, self.reason = _path(path), reason
        super().__init__(f"{path}: {reason}")

    @classmethod
    def exists(cls, folder: Path) -> RunError:
        """A folder in which there is a run already."""
        way_out = f"go on with it: steersearch train --resume -o {shlex.quote(str(folder))}"
        return cls(folder, f"it holds a run; {way_out}, or name another folder with -o")


class ClusterError(SteerSearchError):
    """A Ray cluster that cannot be reached, or has no worker that can work."""


class ServerError(SteerSearchError):
    """The server that STEERSEARCH_SERVER names did not answer. Fields: `address`, `reason`."""

    def __init__(self, address: str, reason: str) -> None:
        self.address, self.reason = address, reason
        super().__init__(
            f"STEERSEARCH_SERVER={address}: {reason}; without the variable, the search is done here"
        )


class MissingExtraError(SteerSearchError):
    """An optional package that is needed and not installed. Fields: `package`, `extra`, `purpose`."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.package, self.extra, self.purpose = package, extra, purpose
        super().__init__(f'{purpose} needs {package}; install it with: pip install "steersearch[{extra}]"')


# --------------------------------------------------------------------- what the machine refuses, in words for the user

# How RuntimeErrors of torch, FAISS and Python say so, and ImportErrors of large libraries. Others are faults of ours.
_MEMORY = re.compile(
    r"allocat\w* memory|not enough memory|out of memory|bad_alloc|bad allocation|failed to map segment",
    re.IGNORECASE,
)
_GPU = re.compile(r"CUDA|HIP|MPS|\bGPU\b")
_HOME = re.compile(r"could not determine.*home", re.IGNORECASE)
_WORKERS = re.compile(
    r"DataLoader worker \(pid|can't start new thread|Resource temporarily unavailable", re.IGNORECASE
)

_MACHINE, _CARD = (f"the memory of this {what} does not suffice" for what in ("machine", "GPU"))
_PROCESSES = "a worker process or thread was killed or could not start, as for want of memory or by a limit"
SCARCE = (_MACHINE, _CARD, _PROCESSES)
_LESS = "end what else uses it, raise the limits that `ulimit -a` shows, or try a smaller batch or model"

_WAYS_OUT = {
    errno.EMFILE: "more files are open at once than `ulimit -n` allows; raise it",
    errno.ENFILE: "this machine has too many files open; end what else runs",
}


def refusal(error: BaseException) -> str | None:
    """One of SCARCE, what the system says of a file, or None where the machine refused nothing."""
    said = str(error)
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | ImportError) and _MEMORY.search(said)
    ):
        return _CARD if _GPU.search(said) else _MACHINE
    if isinstance(error, BrokenExecutor) or (
        isinstance(error, RuntimeError | OSError) and _WORKERS.search(said)
    ):
        return _PROCESSES
    if isinstance(error, RuntimeError) and _HOME.search(said):
        return "there is no home folder; set HOME"
    if isinstance(error, OSError):
        if error.errno == errno.ENOMEM:
            return _MACHINE
        return _WAYS_OUT.get(error.errno or 0) or error.strerror or said.strip() or type(error).__name__
    return None


def in_words(error: BaseException) -> str | None:
    """What a command says of an error: the message of one of ours, or what the machine refused, with the file if there
    is one; None for a fault of ours."""
    if isinstance(error, SteerSearchError):
        return str(error)
    reason = refusal(error)
    if reason is None:
        return None
    if reason in SCARCE:
        reason += f"; {_LESS}"
    file = getattr(error, "filename", None)
    return reason if file is None else f"{os.fsdecode(file) if isinstance(file, bytes) else file}: {reason}"


def in_digits(number: float) -> str:
    """A number in digits, without an exponent, as short as it can be without loss."""
    return format(Decimal(repr(number)).normalize(), "f")
