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


class SteerSearchError(Exception):
    """Base of all errors whose message is written for the user."""


class ImageError(SteerSearchError):
    """A file that cannot be used as an image. Fields: `path` (or None for an image in memory), `reason`."""

    def __init__(self, path: Path | str | None, reason: str) -> None:
        self.path = None if path is None else Path(path)
        self.reason = reason
        super().__init__(f"{path if path is not None else 'image'}: {reason}")


class ImageRefusedError(ImageError):
    """A file that may well be a picture but is not read as things are: a limit, or a decoder not installed, is why."""


class PromptError(SteerSearchError):
    """A prompt that cannot steer: empty or only white space."""


class UnknownModelError(SteerSearchError):
    """No model, file or hub id of this name. Fields: `name`, `known` (the names that exist), `nearest` or None."""

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
        self.folder, self.reason = Path(folder), reason
        super().__init__(f"{folder}: {reason}")


class NoImagesError(FolderError):
    """A photo folder without one image in it. Field: `suffixes`, those that count as images."""

    def __init__(self, folder: Path | str, suffixes: Sequence[str], remark: str = "") -> None:
        self.suffixes = tuple(suffixes)
        super().__init__(
            folder,
            f"holds no image (looked for {' '.join(suffixes)}; hidden and system folders left out){remark}",
        )


class LibraryPlaceError(SteerSearchError):
    """A place where a library cannot live. Fields: `place`, `reason`."""

    def __init__(self, place: Path | str, reason: str) -> None:
        self.place, self.reason = Path(place), reason
        super().__init__(f"{place}: {reason}; name another place with --library PLACE")


class LibraryMissingError(SteerSearchError):
    """No library at this place. Field: `place`."""

    def __init__(self, place: Path | str) -> None:
        self.place = Path(place)
        super().__init__(f'{place}: no library here; make one: steersearch index FOLDER --prompt "TEXT"')


class LibraryBusyError(SteerSearchError):
    """A library that another process writes to, for something that needs it alone. Fields: `place`, `holder` (who it
    is, "" where that is not known)."""

    def __init__(self, place: Path | str, holder: str = "") -> None:
        self.place, self.holder = Path(place), holder
        who = holder or "another process"
        super().__init__(f"{place}: {who} is writing to this library; wait until it has ended")


class LibraryDamagedError(SteerSearchError):
    """A file of a library that is not as it was written. Fields: `path`, `reason`, `way_out`."""

    def __init__(
        self, path: Path | str, reason: str, way_out: str = "see what can be saved: steersearch verify"
    ) -> None:
        self.path, self.reason, self.way_out = Path(path), reason, way_out
        super().__init__(f"{path}: damaged: {reason}; {way_out}")


class LibraryUnreadableError(SteerSearchError):
    """A file of a library that cannot be read now, which says nothing about what is in it. Fields: `path`, `reason`."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path, self.reason = Path(path), reason
        super().__init__(f"{path}: cannot be read ({reason}); nothing was changed")


class SchemaVersionError(SteerSearchError):
    """A library written by a newer steersearch. Fields: `path`, `found`, `supported`."""

    def __init__(self, path: Path | str, found: object, supported: int) -> None:
        self.path, self.found, self.supported = Path(path), found, supported
        super().__init__(
            f"{path}: written in format {found}, this steersearch reads up to {supported}; "
            "update it: pip install --upgrade steersearch"
        )


class PromptIndexMissing(SteerSearchError):
    """No prompt index for this focus. Fields: `focus`, `folder`, `existing` (described), `command` that builds it."""

    def __init__(self, focus: str, folder: Path | str, existing: Sequence[str], command: str) -> None:
        self.focus, self.folder = focus, Path(folder)
        self.existing, self.command = tuple(existing), command
        have = ", ".join(existing) if existing else "none yet"
        super().__init__(f'no index of {folder} for "{focus}"; have: {have}; build it: {command}')


class AmbiguousPromptError(SteerSearchError):
    """A prompt that has several indexes where one is needed. Fields: `prompt`, `fitting` (described)."""

    def __init__(self, prompt: str, fitting: Sequence[str]) -> None:
        self.prompt, self.fitting = prompt, tuple(fitting)
        super().__init__(
            f'"{prompt}" has {len(fitting)} indexes: {", ".join(fitting)}; '
            "say which with --gate-scale, --model or --view"
        )


class ModelMismatchError(SteerSearchError):
    """A model that did not make the vectors it is to be compared with. Fields: `prompt`, `expected`, `given`."""

    def __init__(self, prompt: str, expected: str, given: str) -> None:
        self.prompt, self.expected, self.given = prompt, expected, given
        super().__init__(
            f'the index for "{prompt}" was made by the model {expected}, not by {given}; '
            f"use --model {expected}, or index the folder with the other model too"
        )


class ArgumentError(SteerSearchError):
    """A value that makes no sense where it was given. Fields: `name`, `value`, `reason`."""

    def __init__(self, name: str, value: object, reason: str) -> None:
        self.name, self.value, self.reason = name, value, reason
        super().__init__(f"{name} = {value!r}: {reason}")


class FilterError(SteerSearchError):
    """An SQL condition that cannot be evaluated. Fields: `condition`, `reason`, `columns` (that it can be about)."""

    def __init__(self, condition: str, reason: str, columns: Sequence[str]) -> None:
        self.condition, self.reason, self.columns = condition, reason, tuple(columns)
        super().__init__(f"{condition}: {reason}; columns: {', '.join(columns)}")


class UnsafePickleError(CheckpointError):
    """A checkpoint whose pickle calls for code; nothing was run. Fields: `path`, `wanted` (module.name)."""

    def __init__(self, path: Path | str, wanted: str) -> None:
        self.path, self.wanted = Path(path), wanted
        super().__init__(
            f'{path}: refused, its pickle calls for "{wanted}", which weights do not need; nothing was run. '
            "If you trust its maker, ask for a .safetensors file"
        )


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
        self.path = Path(path)
        self.missing, self.unexpected, self.misshapen = tuple(missing), tuple(unexpected), tuple(misshapen)
        named = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
        found = "; ".join(f"{what}: {listed(names)}" for what, names in named.items() if names)
        super().__init__(f"{path}: its weights do not fit the model that it describes; {found}")


class NoLibraryError(SteerSearchError):
    """No library was named, and none is found. Fields: `folder`, the current one; `last`, the library used last, which
    is not taken for a command that changes one."""

    def __init__(self, folder: Path | str, last: Path | None = None) -> None:
        self.folder, self.last = Path(folder), last
        if last is None:
            used = "none was used before"
            way_out = 'make one: steersearch index FOLDER --prompt "TEXT", or name one: --library PLACE'
        else:
            used = f"this command changes a library, so the one used last, {last}, is not taken"
            way_out = f"name the one that is meant: --library {shlex.quote(str(last))}"
        super().__init__(f"no library holds {folder} or lies below it, and {used}; {way_out}")


class SeveralLibrariesError(SteerSearchError):
    """Several libraries where one is needed. Fields: `where` (they are), `libraries` (described)."""

    def __init__(self, where: str, libraries: Sequence[str]) -> None:
        self.where, self.libraries = where, tuple(libraries)
        super().__init__(
            f"{len(libraries)} libraries {where}: {listed(libraries)}; name one with --library PLACE, or change into "
            "its photo folder"
        )


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names for a message, however many and long they are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(name if len(name) < 200 else f"{name[:200]}…" for name in names[:most]) + more


class WeightsChangedError(SteerSearchError):
    """A model whose weights are not those that made a prompt index. Fields: `model`, `expected`, `found`, `command`.

    command: indexes the folder again.  way_back: how to go on with the weights of then.
    """

    def __init__(
        self, model: str, prompt: str, expected: str, found: str, *, command: str, way_back: str
    ) -> None:
        self.model, self.prompt = model, prompt
        self.expected, self.found, self.command = expected, found, command
        super().__init__(
            f'the index for "{prompt}" was made with other weights of {model} (sha256 {expected[:12]}…, '
            f"here is {found[:12]}…), so its vectors cannot be compared; {way_back}, "
            f"or index the folder again: {command}"
        )


class OutputError(SteerSearchError):
    """A file that cannot be written. Fields: `path`, `reason`."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path, self.reason = Path(path), reason
        super().__init__(f"{path}: cannot be written ({reason})")


class OutputExistsError(OutputError):
    """A file that is there already and was not to be replaced. Field: `path`."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, "it exists; replace it with --force")


class EmbeddingError(SteerSearchError):
    """A model that gave no usable embedding. Fields: `path`, `prompt`, `model`."""

    def __init__(self, path: Path | str, prompt: str, model: str) -> None:
        self.path, self.prompt, self.model = Path(path), prompt, model
        super().__init__(
            f'{path}: the model {model} gave an embedding that is not finite for "{prompt}"; '
            "try --device cpu, and report it if that fails too"
        )


class GpuMemoryError(SteerSearchError):
    """A GPU whose memory does not suffice for a single photo. Field: `model`."""

    def __init__(self, model: str) -> None:
        self.model = model
        super().__init__(
            f"the GPU has too little free memory for one photo in the model {model}; end what else uses it, or try "
            "--device cpu or a smaller --model"
        )


class FaissConflictError(SteerSearchError):
    """Both FAISS packages are installed; they own the same files and neither works. Field: `packages`."""

    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = tuple(packages)
        super().__init__(
            f"{' and '.join(packages)} are both installed and share their files; for the GPU: pip uninstall -y "
            f"{' '.join(packages)} && pip install faiss-gpu-cu12; without: the same with faiss-cpu"
        )


class BenchmarkError(SteerSearchError):
    """A benchmark that could not be measured, or whose figures would mean nothing."""


class HubError(CheckpointError):
    """A file of the model hub that could not be had. Fields: `repo`, `file`, `reason`."""

    def __init__(self, repo: str, file: str, reason: str) -> None:
        self.repo, self.file, self.reason = repo, file, reason
        super().__init__(f"{repo}/{file}: {reason}")


class HubUnreachableError(HubError):
    """A file that is not downloaded yet, and a model hub that does not answer."""


class HubFileMissingError(HubError):
    """No such repository, revision or file on the model hub, or none that may be seen."""


class GatedModelError(HubError):
    """A repository whose files its owners hand out on conditions. Field: `page`, where these are accepted."""

    def __init__(self, repo: str, file: str, page: str) -> None:
        self.page = page
        super().__init__(
            repo,
            file,
            f"its owners want their conditions accepted first: log in and accept them on {page}, then make "
            "yourself known here with `hf auth login` or the variable HF_TOKEN",
        )


class ChecksumError(HubError):
    """A file that is not the one that was published. Fields: `found`, `expected` (sha256)."""

    def __init__(self, repo: str, file: str, found: str, expected: str, way_out: str) -> None:
        self.found, self.expected = found, expected
        super().__init__(repo, file, f"sha256 is {found}, expected {expected}; {way_out}")


class DiskFullError(HubError):
    """Too little disk space for a download. Fields: `folder`, `needed`, `free` (bytes)."""

    def __init__(self, repo: str, file: str, folder: Path | str, *, needed: int, free: int) -> None:
        self.folder, self.needed, self.free = Path(folder), needed, free
        super().__init__(
            repo,
            file,
            f"needs {needed / 1e6:,.1f} MB more in {folder}, where {free / 1e6:,.1f} MB are free; "
            "make room, or set HF_HOME to a folder on another disk",
        )


class DataError(SteerSearchError):
    """Training data that cannot be used at all. Fields: `path`, `reason`."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path, self.reason = Path(path), reason
        super().__init__(f"{path}: {reason}")


class SplitMissingError(DataError):
    """A data set without the split that was asked for. Fields: `split`, `splits` (that it has)."""

    def __init__(self, path: Path | str, split: str, splits: Sequence[str]) -> None:
        self.split, self.splits = split, tuple(splits)
        super().__init__(path, f'it has no split "{split}"; it has: {", ".join(splits) or "none"}')


class UnsafeDataError(DataError):
    """A pickle of annotations that calls for code; nothing was run. Field: `wanted` (module.name)."""

    def __init__(self, path: Path | str, wanted: str) -> None:
        self.wanted = wanted
        super().__init__(
            path, f'refused, its pickle calls for "{wanted}", which annotations do not need; nothing was run'
        )


class SampleError(SteerSearchError):
    """One row of training data that cannot be used. Fields: `path`, `row` (where in it), `reason`."""

    def __init__(self, path: Path | str, row: str, reason: str) -> None:
        self.path, self.row, self.reason = Path(path), row, reason
        super().__init__(f"{path}, {row}: {reason}")


class TextStoreError(SteerSearchError):
    """Kept text tokens that are damaged or are not there. Fields: `folder`, `reason`."""

    def __init__(self, folder: Path | str, reason: str) -> None:
        self.folder, self.reason = Path(folder), reason
        super().__init__(f"{folder}: {reason}")


class UnknownSettingError(SteerSearchError):
    """A key that no recipe of training has. Fields: `key`, `known` (keys or sections around it), `nearest` or None."""

    def __init__(self, key: str, known: Sequence[str], nearest: str | None) -> None:
        self.key, self.known, self.nearest = key, tuple(known), nearest
        meant = "" if nearest is None else f' Did you mean "{nearest}"?'
        super().__init__(f'there is no setting "{key}".{meant} There are: {", ".join(known)}')


class RunStateError(CheckpointError):
    """A checkpoint of a training run that cannot be used. Fields: `path` (its folder), `reason`."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path, self.reason = Path(path), reason
        super().__init__(f"{path}: {reason}")


class RecipeDiffersError(RunStateError):
    """A checkpoint that was made with other settings. Field: `differences` (setting, saved value, given value)."""

    def __init__(self, path: Path | str, differences: Sequence[tuple[str, object, object]]) -> None:
        self.differences = tuple(differences)
        listed = "; ".join(f"{name} was {was!r}, is now {now!r}" for name, was, now in differences)
        super().__init__(
            path,
            f"made with other settings: {listed}; resume it with its own, or begin anew in another folder",
        )


class OptimiserStateError(CheckpointError):
    """A saved optimiser that does not fit the parameters. Fields: `label`, `missing`, `unexpected`, `misshapen`."""

    def __init__(
        self,
        label: str,
        *,
        missing: Sequence[str] = (),
        unexpected: Sequence[str] = (),
        misshapen: Sequence[str] = (),
    ) -> None:
        self.label = label
        self.missing, self.unexpected, self.misshapen = tuple(missing), tuple(unexpected), tuple(misshapen)
        named = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
        found = "; ".join(f"{what}: {', '.join(names)}" for what, names in named.items() if names)
        super().__init__(f"the saved state of {label} does not fit what is trained; {found}")


class CheckpointNotSavedError(OutputError):
    """A checkpoint of a run that could not be written. Fields: `path`, `reason`, `last` (the one before, or None)."""

    def __init__(self, path: Path | str, reason: str, last: Path | None) -> None:
        self.last = last
        kept = "" if last is None else f"; {last.name} is still there: make room and resume the run"
        super().__init__(path, f"{reason}{kept}")


class NotFiniteError(SteerSearchError):
    """A loss or gradient that is no number; the weights are as before the step. Fields: `value`, `step`, `folder`.

    setting: what to lower
    """

    def __init__(
        self, value: float, step: int, folder: Path | str, what: str = "loss", setting: str = "optimiser.lr"
    ) -> None:
        self.value, self.step, self.folder = value, step, Path(folder)
        super().__init__(
            f"{folder}: the {what} is {value} at step {step}, stopped before it spoils the weights; look at the data "
            f"of this step, or begin anew in another folder with a lower {setting}"
        )


class TrainingStoppedError(SteerSearchError):
    """Training that the machine did not let go on: a full disk, too little memory. Fields: `place`, `reason`."""

    def __init__(self, place: Path | str, reason: str) -> None:
        self.place, self.reason = Path(place), reason
        super().__init__(f"{place}: {reason}")


class MissingExtraError(SteerSearchError):
    """Something optional is asked for and not installed. Fields: `package`, `extra`, `purpose`."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.package, self.extra, self.purpose = package, extra, purpose
        super().__init__(f'{purpose} needs {package}; install it with: pip install "steersearch[{extra}]"')


class JournalError(SteerSearchError):
    """Measurements of a training run that cannot be written or read. Fields: `path`, `reason`."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path, self.reason = Path(path), reason
        super().__init__(f"{path}: {reason}")


class RunExistsError(SteerSearchError):
    """A folder in which a training run is already. Field: `folder`."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        super().__init__(
            f"{folder}: it holds a run; go on with it: steersearch train --resume -o {shlex.quote(str(folder))}, "
            "or name another folder with -o"
        )


class RunMissingError(SteerSearchError):
    """A folder in which no training run is that could be resumed. Field: `folder`."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        super().__init__(
            f"{folder}: no run here that could be resumed (there is no recipe.json); name its folder with -o, or "
            "begin one by leaving out --resume"
        )


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
