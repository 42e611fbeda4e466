"""Reads a `.pth` file without running anything that it says.

A `.pth` is a zip of a pickle and raw tensor data, and a pickle may name any function to be called. Here a
name is looked up in one table of inert stand-ins; whatever is not in it is refused by name. OmegaConf's
config objects have stand-ins too, which keep their state only, and become plain data.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from steersearch.core.errors import CheckpointError, UnsafePickleError


def read_pickled_zip(path: Path) -> Any:
    """What `torch.save` wrote to `path`, as dicts, lists, numbers, strings and CPU tensors.

    Raises UnsafePickleError for a pickle that names anything else, CheckpointError for a file that is no such
    zip or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _plain(_Unpickler(path, _Records(path, archive)).load())
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    except zipfile.BadZipFile as error:
        raise CheckpointError(
            f"{path}: not a checkpoint as torch writes them since 1.6 (no zip file)"
        ) from error
    except (
        Exception
    ) as error:  # a damaged pickle can fail anywhere: in an opcode, a stand-in, a tensor's shape
        raise CheckpointError(f"{path}: damaged ({type(error).__name__}: {error})") from error


class _Records:
    """The files in the zip: `data.pkl` and the tensors' bytes, all below one folder."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path, self._archive = path, archive
        pickles = [name for name in archive.namelist() if PurePosixPath(name).name == "data.pkl"]
        if len(pickles) != 1:
            raise CheckpointError(
                f"{path}: not a torch checkpoint (holds {len(pickles)} files named data.pkl)"
            )
        self._folder = pickles[0].removesuffix("data.pkl")
        if f"{self._folder}byteorder" in archive.namelist() and self.read("byteorder") != b"little":
            raise CheckpointError(f"{path}: written on a big-endian machine; save it again on another")

    def read(self, name: str) -> bytes:
        info = self._archive.getinfo(self._folder + name)
        if info.compress_type != zipfile.ZIP_STORED:  # torch never compresses; a zip bomb does
            raise CheckpointError(f"{self._path}: not a torch checkpoint ({info.filename} is compressed)")
        return self._archive.read(info)


class _Unpickler(pickle.Unpickler):
    """A pickle machine that knows the names in `_STAND_INS` and no others."""

    def __init__(self, path: Path, records: _Records) -> None:
        super().__init__(io.BytesIO(records.read("data.pkl")))
        self._path, self._records = path, records
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise UnsafePickleError(self._path, f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Tensor:
        """One tensor storage: ("storage", its type, file name, device, number of elements)."""
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not str(key).isalnum():
            raise CheckpointError(f"{self._path}: damaged (no tensor storage: {pid!r})")
        if key not in self._storages:
            data = bytearray(self._records.read(f"data/{key}"))
            storage = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            if len(storage) != count:
                raise CheckpointError(
                    f"{self._path}: damaged (storage {key} has {len(storage)} of {count} numbers)"
                )
            self._storages[key] = storage
        return self._storages[key]


# ---------------------------------------------------------------------------------------------- the stand-ins


class _Inert:
    """Stands for an object that is not needed: takes any arguments and any state, does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _OmegaConf:
    """Stands for a node of an OmegaConf config; `_plain` reads its state."""

    state: dict[str, Any]

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.state = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


def _tensor(
    storage: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_ignored: object
) -> Tensor:
    return torch.as_strided(storage, tuple(size), tuple(stride), offset)


def _parameter(data: Tensor, *_ignored: object) -> Tensor:
    return data


def _dict(*_ignored: object) -> dict[Any, Any]:
    return {}


def _latin1(text: str, *_ignored: object) -> bytes:
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

# (module, name) in the pickle -> what is put in its place.
_STAND_INS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): _dict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): tuple,
    ("torch", "device"): _Inert,
    ("_codecs", "encode"): _latin1,
    ("typing", "Any"): _Inert,
    ("typing", "Union"): _Inert,
    ("omegaconf.base", "Metadata"): _Inert,
    ("omegaconf.base", "ContainerMetadata"): _Inert,
    ("omegaconf.base", "UnionNode"): _OmegaConf,
    ("omegaconf.dictconfig", "DictConfig"): _OmegaConf,
    ("omegaconf.listconfig", "ListConfig"): _OmegaConf,
    **{("torch", name): dtype for name, dtype in _STORAGES.items()},
    **{(module, name): _Inert for module in ("builtins", "__builtin__") for name in _TYPES},
    **{("omegaconf.nodes", f"{kind}Node"): _OmegaConf for kind in _SCALARS},
    **{("pathlib", name): _path for name in ("Path", "PosixPath", "PurePosixPath", "WindowsPath")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Inert for core in ("core", "_core")},
    ("numpy", "dtype"): _Inert,
}


def _plain(value: Any) -> Any:
    """`value` with OmegaConf nodes replaced by their content, other stand-ins by None; recursive."""
    if isinstance(value, _OmegaConf):
        return _plain(value.state.get("_content", value.state.get("_val")))
    if isinstance(value, _Inert) or (isinstance(value, type) and issubclass(value, _Inert)):
        return None
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
