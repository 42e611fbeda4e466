"""Files with checksums, compared before their content is used.

A file is its content, in the usual format, then the CRC-32 of each block, then a tail: the length of the content, and a
checksum of all this and of the file's name, which detects swapped files. Small files are compared when they are opened,
large ones block by block before first use.
"""

from __future__ import annotations

import io
import mmap
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, BinaryIO
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from steersearch.core.errors import LibraryDamagedError, LibraryUnreadableError
from steersearch.core.files import open_regular
from steersearch.core.objects import ObjectPath
from steersearch.indexer.place import checked, read_json, write_inside, write_json

_BLOCK = 2**20  # bytes
_TAIL = struct.Struct("<8sQI")  # magic, length of the content, checksum
_MAGIC = b"crc32 1\n"
_WORTH_THREADS, _THREADS = 64, min(4, os.cpu_count() or 1)  # blocks from which on, and how many


class DamagedFileError(ValueError):
    """A file differs from what was written. Caught where the file can be rebuilt. Field: `path`."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path}: {reason}")


def write_checked(place: Path, path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """`write_inside`, with checksums. Raises LibraryPlaceError."""

    def write_all(file: IO[bytes]) -> None:
        summed = _Summed(file)
        write(summed)  # type: ignore[arg-type]  # it has the methods that writers use
        sums = np.array(summed.sums(), "<u4").tobytes()
        file.write(sums + _tail(path, summed.length, sums))

    write_inside(place, path, write_all)


def write_array(place: Path, path: Path, array: npt.NDArray[Any]) -> None:
    """An array as .npy with checksums. Raises LibraryPlaceError."""
    write_checked(place, path, lambda file: np.save(file, np.ascontiguousarray(array)))


def write_rows(place: Path, path: Path, count: int, parts: Iterable[npt.NDArray[Any]]) -> None:
    """As `write_array`, an array of `count` rows that come in parts, at least one. Raises LibraryPlaceError."""

    def write(file: IO[bytes]) -> None:
        for number, part in enumerate(parts):
            if number == 0:
                descr, shape = np.lib.format.dtype_to_descr(part.dtype), (count, *part.shape[1:])
                header = {"descr": descr, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(part).data)

    write_checked(place, path, write)


def read_array(path: Path) -> npt.NDArray[Any]:
    """Memory-map an array of `write_array`, fully compared. Raises OSError, DamagedFileError."""
    return CheckedArray(path).values


def read_table(path: Path, schema: Any) -> Any:
    """Memory-map a table of `write_table`, whose schema must be `schema`, metadata aside.

    Fully compared first, as Arrow trusts offsets in its files. Raises OSError, DamagedFileError.
    """
    file = CheckedFile(path)
    file.check()
    try:
        table = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(file.content))).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:  # Arrow raises OSError for invalid files too
        raise DamagedFileError(path, f"no Arrow table ({error})") from error
    if not table.schema.equals(schema):
        raise DamagedFileError(
            path, f"has the columns {table.schema.names}, not {schema.names}, or other types"
        )
    return table


def write_table(place: Path, path: Path, schema: Any, parts: Iterable[Any]) -> None:
    """A table of this schema, which comes in parts, in Arrow's file format with checksums. Raises LibraryPlaceError."""

    def write(file: IO[bytes]) -> None:
        with pa.ipc.new_file(file, schema) as writer:
            for part in parts:
                writer.write_table(part.cast(schema))

    write_checked(place, path, write)


class CheckedFile:
    """A memory-mapped file of `write_checked`. Opening verifies the list of checksums, `check` the content.

    Raises OSError, DamagedFileError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO = open_regular(path)
        size = os.fstat(self._file.fileno()).st_size
        tail = self._bytes(max(size - _TAIL.size, 0), _TAIL.size)
        length = _TAIL.unpack(tail)[1] if len(tail) == _TAIL.size else 0
        num_blocks = -(-length // _BLOCK)
        if size != length + 4 * num_blocks + _TAIL.size:
            raise DamagedFileError(path, "has no checksums, or is cut short")
        sums = self._bytes(length, 4 * num_blocks)
        if tail != _tail(path, length, sums):
            raise DamagedFileError(path, "its checksums are damaged, or another file's")
        self._length, self._sums = length, np.frombuffer(sums, "<u4")
        self._is_checked = np.zeros(num_blocks, dtype=bool)
        self.content = memoryview(mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ))[:length]

    def check(self, spans: Iterable[tuple[int, int]] | None = None) -> None:
        """Compare the blocks that hold these byte spans (first, end); None: all. Raises OSError, DamagedFileError."""
        is_wanted = np.zeros_like(self._is_checked) if spans is not None else np.ones_like(self._is_checked)
        for first, end in spans or ():
            is_wanted[first // _BLOCK : -(-end // _BLOCK)] = True
        wanted = np.flatnonzero(is_wanted & ~self._is_checked).tolist()
        if len(wanted) < _WORTH_THREADS:
            found = list(map(self._sum, wanted))
        else:
            with ThreadPoolExecutor(_THREADS) as pool:
                found = list(pool.map(self._sum, wanted))
        if found != self._sums[wanted].tolist():
            raise DamagedFileError(self.path, "its content does not match its checksums")
        self._is_checked[wanted] = True
        if self._is_checked.all():
            self._file.close()

    def _sum(self, block: int) -> int:
        start = block * _BLOCK
        return crc32(self._bytes(start, min(_BLOCK, self._length - start)))

    def _bytes(self, start: int, count: int) -> bytes:
        """Read instead of mapped, so that a failing disk raises OSError instead of killing the process."""
        return os.pread(self._file.fileno(), count, start)


class CheckedArray:
    """An array of `write_array`, whose rows are compared before first use. Raises OSError, DamagedFileError."""

    def __init__(self, path: Path) -> None:
        self._file = CheckedFile(path)
        self._file.check([(0, min(_BLOCK, len(self._file.content)))])
        header = io.BytesIO(self._file.content[:_BLOCK])
        try:
            np.lib.format.read_magic(header)
            shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(header)
            self._start = header.tell()
            if is_fortran or dtype.hasobject:
                raise ValueError(f"an array of {dtype} in Fortran order")
            content = self._file.content[self._start :]
            array = (np.frombuffer(content, dtype) if len(content) else np.empty(0, dtype)).reshape(shape)
        except ValueError as error:
            raise DamagedFileError(path, f"no array ({error})") from error
        self._array: npt.NDArray[Any] = array
        self.shape, self.dtype = array.shape, array.dtype

    def __len__(self) -> int:
        return len(self._array)

    @property
    def values(self) -> npt.NDArray[Any]:
        """The whole array."""
        self._file.check()
        return self._array

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Some of its rows."""
        width = self._array.nbytes // max(len(self._array), 1)
        starts = self._start + width * np.unique(rows)
        self._file.check((int(start), int(start) + width) for start in starts)
        found: npt.NDArray[Any] = self._array[rows]
        return found


class _Summed:
    """Passes data on to a file and computes the CRC-32 of each block."""

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._whole: list[int] = []
        self._sum, self.length = 0, 0

    def write(self, data: Any) -> int:
        view = memoryview(data)
        view = view.cast("B") if view.nbytes else memoryview(b"")  # an array without rows cannot be cast
        start = 0
        while start < len(view):
            part = view[start : start + _BLOCK - self.length % _BLOCK]
            self._sum = crc32(part, self._sum)
            self.length += len(part)
            start += len(part)
            if self.length % _BLOCK == 0:
                self._whole.append(self._sum)
                self._sum = 0
        self._file.write(view)
        return len(view)

    def flush(self) -> None:
        """Nothing is buffered here."""

    def sums(self) -> list[int]:
        return self._whole + ([self._sum] if self.length % _BLOCK else [])


def _tail(path: Path, length: int, sums: bytes) -> bytes:
    name = f"{path.parent.name}/{path.name}".encode()
    return _TAIL.pack(_MAGIC, length, crc32(b"%s %d " % (name, length), crc32(sums)))


# ------------------------------------------------------------------------------------------- files that LanceDB writes

_SEALS = "checksums.json"  # in the table's folder
_HINT = "latest_version_hint.json"  # the one file that LanceDB rewrites, and does not rely on
_STRUCTURE = ("_versions", "_deletions")
_CHUNK = 2**20

Seal = list[int]  # size, CRC-32
_OWNER: Seal = [0, 0]  # of the table's own name, by which tables that were swapped are noticed
REPAIRED = "repaired_"  # begins the name of a table that will take another's place


def seal(place: Path, table: Path, *, forget: bool = False) -> None:
    """Record size and checksum of each file of a table that has none recorded. The caller holds the exclusive lock.

    If the record itself is damaged nothing is added, lest damaged files be recorded as good.
    forget: drop missing files from the record. Raises OSError, LibraryPlaceError.
    """
    try:
        known, files = _noted(table), dict(_files(table))
    except LibraryDamagedError:
        return
    seals = {} if forget else dict(known)
    seals |= {name: known.get(name) or _seal_of(path) for name, path in files.items()}
    if seals and not _owner(seals):
        seals[_name(table)] = _OWNER
    if seals != known:
        write_json(place, table / _SEALS, {"files": seals})


def is_sealed(table: Path) -> bool:
    """Whether the table was ever sealed, whatever is left of it."""
    return (table / _SEALS).exists()


def check_structure(table: Path) -> None:
    """Compare the files that list a table's rows.

    Raises LibraryDamagedError, LibraryUnreadableError if its newest version is missing, OSError.
    """
    if isinstance(table, ObjectPath):
        return
    seals = _read(table)
    if (owner := _owner(seals)) and owner != _name(table):
        raise LibraryDamagedError(table, f"it is the table {owner} under another name")
    sealed = [name for name in seals if name.startswith("_versions/")]
    there = {name: path for name, path in _files(table) if name.startswith(_STRUCTURE)}
    newest = max((name for name in there if name.startswith("_versions/")), key=_version, default="")
    if sealed and _version(newest) < max(map(_version, sealed)):
        raise LibraryUnreadableError(table, "its newest version is missing")
    for name, path in there.items():
        is_read = name == newest or name.startswith("_deletions/")
        if is_read and name in seals and not _fits(path, seals[name]):
            raise LibraryDamagedError(path, "it does not match its checksum")


def damaged_files(table: Path) -> tuple[list[str], list[str]]:
    """The files of a table that changed since they were sealed, and the unsealed ones. Reads every file.

    Raises OSError, LibraryUnreadableError.
    """
    damaged: list[str] = []
    try:
        seals = _noted(table)
        if _owner(seals) not in ("", _name(table)):
            damaged = [_SEALS]
    except LibraryDamagedError:
        seals, damaged = {}, [_SEALS]
    found = {name: _seal_of(path) for name, path in _files(table)}
    unsealed = [name for name in found if name not in seals]
    return damaged + [name for name in found if name in seals and found[name] != seals[name]], unsealed


def _read(table: Path) -> dict[str, Seal]:
    """The record of a table; empty if it is damaged, as a missing seal proves nothing."""
    try:
        return _noted(table)
    except LibraryDamagedError:
        return {}


def _noted(table: Path) -> dict[str, Seal]:
    """The record of a table. Raises LibraryDamagedError, LibraryUnreadableError."""
    path = table / _SEALS
    try:
        (files,) = checked(path, read_json(path)).values()
        return {str(name): [int(size), int(checksum)] for name, (size, checksum) in files.items()}
    except FileNotFoundError:
        return {}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LibraryDamagedError(path, f"not the checksums of files ({error})") from error


def _owner(seals: dict[str, Seal]) -> str:
    """The name of the table that was sealed; "" where an earlier version did it."""
    return next((name for name, entry in seals.items() if entry == _OWNER and "/" not in name), "")


def _name(table: Path) -> str:
    return table.name.removeprefix(REPAIRED)


def _files(table: Path) -> Iterator[tuple[str, Path]]:
    """Relative names and paths of the files of a table that are written once; none in a bucket, whose store keeps
    checksums itself."""
    for folder, _, names in [] if isinstance(table, ObjectPath) else os.walk(table):
        for name in sorted(names):
            path = Path(folder) / name
            if name != _HINT and path.parent != table:
                yield path.relative_to(table).as_posix(), path


def _fits(path: Path, seal: Seal) -> bool:
    """Whether a file matches its seal; a file swept away meanwhile counts as matching."""
    try:
        return _seal_of(path) == seal
    except FileNotFoundError:
        return True


def _seal_of(path: Path) -> Seal:
    checksum, size = 0, 0
    with open_regular(path) as file:
        while chunk := file.read(_CHUNK):
            checksum, size = crc32(chunk, checksum), size + len(chunk)
    return [size, checksum]


def _version(name: str) -> int:
    """The number of a version. LanceDB names files by the largest number minus it, so that the newest sorts first."""
    stem = name.rpartition("/")[2].removesuffix(".manifest")
    number = int(stem) if stem.isdecimal() else 0
    return 2**64 - 1 - number if number > 2**63 else number
