"""Read a `.pth` file without running its pickle.

A `.pth` is a zip of a pickle and tensor data, and a pickle is a program that may call any function by name. This
interpreter follows only the instructions that make plain data, and the names in `_MEANINGS`; it refuses all else.
Tensors become descriptions, which `PickledZip.check` compares with the file before `PickledZip.read` reads their data.

Why not `torch.load(weights_only=True)` with stand-ins for OmegaConf? As tests/test_hostile_models.py showed (torch
2.14), it crashes on a nested tuple as a key (1.9 MB of pickle); it decompresses records, so a zip bomb fills the
memory; it ignores the zip's checksums, so a damaged file silently gives wrong weights; before 2.10 it reads beyond the
end of a storage that claims too many bytes; it cannot read the config without all weights, nor protocol 4.
"""

from __future__ import annotations

import math
import os
import pickletools
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from steersearch.core.errors import CheckpointError
from steersearch.core.weights_file import opened_whole

MOST_PICKLED = 2 * 2**20  # bytes; a released file has 40,000
MOST_VALUES, MOST_NESTED = 100_000, 64  # in a config
MOST_DIMENSIONS = 8


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in the file, a view of a storage. offset and stride count elements, not bytes."""

    storage: str
    count: int  # elements in the storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class PickledZip:
    """A file of `torch.save`. content: the saved object, for `plain` and `check`."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, size: int) -> None:
        self.path, self._archive, self._size = path, archive, size
        self._storages: dict[str, Tensor] = {}
        pickles = [name for name in archive.namelist() if PurePosixPath(name).name == "data.pkl"]
        if len(pickles) != 1:
            raise CheckpointError(
                f"{path}: not a torch checkpoint (holds {len(pickles)} files named data.pkl)"
            )
        self._folder = pickles[0].removesuffix("data.pkl")
        if f"{self._folder}byteorder" in archive.namelist() and self._record("byteorder", 16) != b"little":
            raise CheckpointError(f"{path}: written on a big-endian machine; save it again on another")
        self.content = _Program(path, self._record("data.pkl", MOST_PICKLED)).result()

    def plain(self, value: Any, field: str) -> Any:
        """Convert `value`, part of the content, to dicts, lists, numbers and texts; all else becomes None.

        Raises CheckpointError, naming `field`, if it is nested too deep or expands to too many values, since a pickle
        may refer to the same list many times.
        """
        left = MOST_VALUES

        def made(value: Any, depth: int) -> Any:
            nonlocal left
            left -= 1
            if depth > MOST_NESTED:
                raise CheckpointError(f"{self.path}: its {field} is nested more than {MOST_NESTED} deep")
            if left < 0:
                raise CheckpointError(f"{self.path}: its {field} unfolds to more than {MOST_VALUES:,} values")
            if isinstance(value, _Node):
                state = value.state if isinstance(value.state, dict) else {}
                return made(state.get("_content", state.get("_val")), depth + 1)
            if isinstance(value, dict):
                return {key: made(item, depth + 1) for key, item in value.items()}
            if isinstance(value, (list, tuple)):
                return [made(item, depth + 1) for item in value]
            return value if isinstance(value, (str, int, float, bytes)) else None

        return made(value, 0)

    def check(self, tensors: Mapping[str, StoredTensor]) -> None:
        """Raise CheckpointError, naming the tensor, for one that reaches beyond its storage or the file."""
        for name, tensor in tensors.items():
            record = self._find(f"data/{tensor.storage}", name)
            if record.file_size != tensor.count * tensor.dtype.itemsize:
                have = record.file_size // tensor.dtype.itemsize
                raise CheckpointError(
                    f"{self.path}: damaged ({name}: its storage has {have} of {tensor.count} numbers)"
                )
            shown = tensor.nbytes // tensor.dtype.itemsize
            last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride, strict=True))
            if shown > tensor.count or (shown and last >= tensor.count):
                raise CheckpointError(
                    f"{self.path}: damaged ({name}: shape {tensor.shape}, stride {tensor.stride} and offset "
                    f"{tensor.offset} go beyond its storage of {tensor.count} numbers)"
                )
        sizes = {t.storage: t.count * t.dtype.itemsize for t in tensors.values()}
        for what, total in (
            ("tensors", sum(t.nbytes for t in tensors.values())),
            ("storages", sum(sizes.values())),
        ):
            if total > self._size:
                raise CheckpointError(
                    f"{self.path}: damaged (its {what} overlap: together {total:,} bytes, the file has {self._size:,})"
                )

    def read(self, tensor: StoredTensor) -> Tensor:
        """A checked tensor, as a view of its storage."""
        if tensor.storage not in self._storages:
            numbers = bytearray(self._content(self._find(f"data/{tensor.storage}", "its tensors")))
            whole = (
                torch.frombuffer(numbers, dtype=torch.uint8) if numbers else torch.empty(0, dtype=torch.uint8)
            )
            self._storages[tensor.storage] = whole
        storage = self._storages[tensor.storage].view(tensor.dtype)
        return torch.as_strided(storage, tensor.shape, tensor.stride, tensor.offset)

    def _record(self, name: str, at_most: int) -> bytes:
        info = self._find(name, "the archive")
        if info.file_size > at_most:
            raise CheckpointError(f"{self.path}: {name} has {info.file_size:,} bytes, more than {at_most:,}")
        return self._content(info)

    def _content(self, info: zipfile.ZipInfo) -> bytes:
        try:
            return self._archive.read(info)
        except Exception as error:  # encrypted, truncated, wrong checksum
            raise CheckpointError(f"{self.path}: damaged ({info.filename}: {error})") from error

    def _find(self, name: str, field: str) -> zipfile.ZipInfo:
        try:
            info = self._archive.getinfo(self._folder + name)
        except KeyError:
            raise CheckpointError(f"{self.path}: damaged ({field}: there is no {name})") from None
        if info.compress_type != zipfile.ZIP_STORED:  # torch never compresses; a zip bomb does
            raise CheckpointError(f"{self.path}: not a torch checkpoint ({info.filename} is compressed)")
        return info


@contextmanager
def pickled_zip(path: Path) -> Iterator[PickledZip]:
    """The file of `torch.save` at `path`.

    Raises CheckpointError for a pickle that names anything unnecessary for weights, and for a damaged file or one of
    another format.
    """
    with opened_whole(path) as file:
        try:
            archive = zipfile.ZipFile(file)
        except Exception as error:  # an invalid directory raises many types
            reason = "not a checkpoint of torch 1.6 or later (not a zip file)"
            raise CheckpointError(f"{path}: {reason}") from error
        with archive:
            yield PickledZip(path, archive, os.fstat(file.fileno()).st_size)


# ---------------------------------------------------------------------------------------------- the pickle


def _unsafe(path: Path, wanted: str) -> CheckpointError:
    return CheckpointError(
        f'{path}: refused, its pickle calls "{wanted}", which weights do not need; nothing was run. '
        "Ask its author for a .safetensors file"
    )


class _Node:
    """Stands in for an object of which only the state matters (OmegaConf's), or which is not needed."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: Any = None


@dataclass(frozen=True)
class _Name:
    """A function or class that the pickle names, and our replacement for it."""

    makes: Callable[..., Any] | torch.dtype


class _Program:
    """An interpreter of pickles that can call only our own replacements."""

    def __init__(self, path: Path, code: bytes) -> None:
        self._path, self._code = path, code
        self._stack: list[Any] = []
        self._marks: list[int] = []  # heights of the stack
        self._memo: dict[Any, Any] = {}

    def result(self) -> Any:
        try:
            for opcode, argument, _ in pickletools.genops(self._code):
                if opcode.name == "STOP":
                    return self._stack.pop()
                self._follow(opcode.name, argument)
        except CheckpointError:
            raise
        except Exception as error:  # a damaged pickle can fail anywhere
            raise CheckpointError(f"{self._path}: damaged ({type(error).__name__}: {error})") from error
        raise CheckpointError(f"{self._path}: damaged (its pickle has no end)")

    def _follow(self, instruction: str, argument: Any) -> None:
        stack = self._stack
        match instruction:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self._marks.append(len(stack))
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[instruction])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE" | "LIST":
                stack.append(tuple(self._to_mark()) if instruction == "TUPLE" else self._to_mark())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._last(int(instruction[-1]))))
            case "SETITEM" | "SETITEMS" | "DICT":
                items = self._last(2) if instruction == "SETITEM" else self._to_mark()
                if instruction == "DICT":
                    stack.append({})
                stack[-1].update(_pairs(zip(items[::2], items[1::2], strict=True)))
            case "APPEND" | "APPENDS" | "ADDITEMS":
                items = self._last(1) if instruction == "APPEND" else self._to_mark()
                stack[-1].extend(items)
            case "POP":
                stack.pop()
            case "BINPUT" | "LONG_BINPUT" | "PUT" | "MEMOIZE":
                self._memo[len(self._memo) if argument is None else argument] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(self._memo[argument])
            case "GLOBAL" | "INST":
                stack.append(self._named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(self._named(*self._last(2)))
            case "REDUCE" | "NEWOBJ":
                called, arguments = self._last(2)
                stack.append(called.makes(*arguments))
            case "BUILD":
                state = stack.pop()
                if isinstance(stack[-1], _Node):
                    stack[-1].state = state
                elif not isinstance(
                    stack[-1], dict
                ):  # an OrderedDict with attributes, such as a state_dict's versions
                    raise CheckpointError(f"{self._path}: damaged (a state for {type(stack[-1]).__name__})")
            case "BINPERSID":
                stack.append(_storage(*stack.pop()))
            case _ if instruction in _NUMBERS_AND_TEXTS:
                stack.append(argument)
            case _:
                raise _unsafe(self._path, f"the instruction {instruction}")

    def _named(self, module: str, name: str) -> _Name:
        try:
            return _Name(_MEANINGS[module, name])
        except KeyError:
            raise _unsafe(self._path, f"{module}.{name}") from None

    def _last(self, number: int) -> list[Any]:
        taken = self._stack[-number:]
        del self._stack[-number:]
        return taken

    def _to_mark(self) -> list[Any]:
        mark = self._marks.pop()
        taken = self._stack[mark:]
        del self._stack[mark:]
        return taken


_NUMBERS_AND_TEXTS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8".split()
)


def _pairs(pairs: Iterable[Any] = ()) -> dict[Any, Any]:
    made = {}
    for key, value in pairs:
        if not isinstance(
            key, (str, int, float, bytes, type(None))
        ):  # hashing a nested tuple may overflow the C stack
            raise TypeError(f"a key of type {type(key).__name__}")
        made[key] = value
    return made


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype
    count: int


def _storage(kind: str, type_: _Name, key: str, device: object, count: int) -> _Storage:
    if kind != "storage" or not isinstance(type_.makes, torch.dtype) or not str(key).isalnum():
        raise TypeError("a persistent object that is not a tensor storage")
    return _Storage(str(key), type_.makes, _whole(count))


def _tensor(
    storage: _Storage, offset: int, shape: Iterable[int], stride: Iterable[int], *_: object
) -> StoredTensor:
    lengths, steps = (tuple(map(_whole, numbers)) for numbers in (shape, stride))
    if len(lengths) != len(steps) or len(lengths) > MOST_DIMENSIONS:
        raise TypeError(f"a tensor of {len(lengths)} dimensions with {len(steps)} strides")
    return StoredTensor(storage.key, storage.count, storage.dtype, _whole(offset), lengths, steps)


def _whole(number: object) -> int:
    if not isinstance(number, int) or not 0 <= number < 2**62:
        raise TypeError("an invalid size or offset")
    return number


def _inert(*_: object) -> _Node:
    return _Node()


def _dict(*_: object) -> dict[Any, Any]:
    return {}


def _first(value: Any = (), *_: object) -> Any:
    return value


def _latin1(text: str, *_: object) -> bytes:
    return text.encode("latin1")


def _path(*parts: str) -> str:
    return str(PurePosixPath(*parts))


_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_TYPES = ("dict", "list", "tuple", "int", "long", "float", "str", "unicode", "bool", "bytes", "object")
_SCALARS = ("Any", "Boolean", "Bytes", "Enum", "Float", "Integer", "InterpolationResult", "Path", "String")

# (module, name) in the pickle -> our replacement.
_MEANINGS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _pairs,
    ("collections", "defaultdict"): _dict,
    ("builtins", "set"): _first,
    ("__builtin__", "set"): _first,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch", "Size"): _first,
    ("torch", "device"): _inert,
    ("_codecs", "encode"): _latin1,
    ("typing", "Any"): _inert,
    ("typing", "Union"): _inert,
    ("omegaconf.base", "Metadata"): _inert,
    ("omegaconf.base", "ContainerMetadata"): _inert,
    ("omegaconf.base", "UnionNode"): _inert,
    ("omegaconf.dictconfig", "DictConfig"): _inert,
    ("omegaconf.listconfig", "ListConfig"): _inert,
    **{("torch", name): dtype for name, dtype in _STORAGES.items()},
    **{(module, name): _inert for module in ("builtins", "__builtin__") for name in _TYPES},
    **{("omegaconf.nodes", f"{kind}Node"): _inert for kind in _SCALARS},
    **{("pathlib", name): _path for name in ("Path", "PosixPath", "PurePosixPath", "WindowsPath")},
    **{(f"numpy.{core}.multiarray", "scalar"): _inert for core in ("core", "_core")},
    ("numpy", "dtype"): _inert,
}
