"""Objects in a bucket as paths: s3://bucket/name, gs://…, az://….

The part of `pathlib.Path` that the indexer needs, through obstore, the object store that LanceDB has too. A "folder" is
a common beginning of names: it exists while an object has it. Credentials come from where other programs look for them
(AWS_ACCESS_KEY_ID and its sisters, AWS_PROFILE with ~/.aws, the machine's role), never from a command line, and are
neither kept nor shown. Imports obstore lazily.
"""

from __future__ import annotations

import configparser
import errno
import functools
import io
import math
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path, PosixPath
from typing import IO, Any
from zlib import crc32

from steersearch.core.errors import MissingExtraError, SteerSearchError

SCHEMES = ("s3", "gs", "az")
_URI = re.compile(rf"(?P<scheme>{'|'.join(SCHEMES)})://?(?P<bucket>[^/?#]+)(/|$)")
_PART = 2**24  # bytes of a download at a time
PATIENCE = timedelta(seconds=20)  # for a store that does not answer
_IN_MEMORY = 2**24  # bytes of an upload; more waits on the disk


class ObjectStoreError(OSError, SteerSearchError):
    """A bucket that cannot be used now. Fields as of an OSError; `way_out`."""

    def __init__(self, number: int, uri: str, reason: str, way_out: str) -> None:
        super().__init__(number, f"{reason}; {way_out}", uri)
        self.way_out = way_out

    @property
    def is_of_one_object(self) -> bool:
        """Whether others in the bucket may be readable."""
        return self.errno in (errno.EIO, errno.EACCES)

    @property
    def is_of_a_name(self) -> bool:
        """Whether an object here has a name that is not a valid path, so that none can be listed."""
        return self.errno == errno.EILSEQ

    @property
    def is_of_a_change(self) -> bool:
        """Whether the object was replaced meanwhile."""
        return self.errno == errno.ESTALE

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


def is_uri(given: str | os.PathLike[str]) -> bool:
    """Whether this names an object or a folder in a bucket."""
    return _URI.match(os.fspath(given)) is not None


def as_place(given: str | os.PathLike[str]) -> Path:
    """A path in a bucket or on this machine."""
    return ObjectPath(given) if is_uri(given) else Path(given)


def real_path(path: str | os.PathLike[str]) -> Path:
    """The absolute path without links; one in a bucket is that already."""
    return ObjectPath(path) if is_uri(path) else Path(os.path.realpath(path))


@dataclass(frozen=True)
class ObjectStatus:
    """What is known of an object without reading it. version: changes with its content.

    st_mtime_ns: when it was written, in whole seconds; below them, digits made of the version, so that two contents of
    one second differ.
    """

    st_size: int
    st_mtime_ns: int
    version: str
    st_mode: int = stat.S_IFREG
    st_ino: int = 0

    @property
    def st_ctime_ns(self) -> int:
        """As `st_mtime_ns`: an object is written once."""
        return self.st_mtime_ns

    @property
    def second(self) -> int:
        """When it was written, since 1970."""
        return self.st_mtime_ns // 10**9

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> ObjectStatus:
        """about: the metadata that obstore gives."""
        moment: datetime = about["last_modified"]
        version = str(about.get("e_tag") or "")
        mtime_ns = int(moment.timestamp()) * 10**9 + crc32(version.encode()) % 10**9
        return cls(about["size"], mtime_ns, version)


class ObjectPath(PosixPath):
    """An object, or the objects whose names begin with this one's and a slash. Raises ObjectStoreError where a bucket
    cannot be used, FileNotFoundError for an object that is not there."""

    def __str__(self) -> str:
        first, *others = self.parts or ("",)
        return "/".join([f"{first}/", *others] if first.endswith(":") else [first, *others])

    def __fspath__(self) -> str:
        return str(self)

    @property
    def bucket(self) -> ObjectPath:
        """The bucket itself."""
        return ObjectPath(f"{self.parts[0]}//{self.parts[1]}")

    @property
    def object_name(self) -> str:
        """Its name in the bucket; "" of the bucket."""
        return "/".join(self.parts[2:])

    @property
    def _store(self) -> Any:
        if re.search("[@:]", self.parts[1]):
            scheme = self.parts[0].removesuffix(":")
            way_out = f"name the bucket alone, and set {_WAYS_OUT[scheme]}"
            raise ObjectStoreError(errno.EINVAL, f"{scheme}://…", "a URI holds no credentials", way_out)
        with self._reported():
            return store_of(self.parts[0].removesuffix(":"), self.parts[1])

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except (SteerSearchError, FileExistsError):
            raise
        except Exception as error:  # obstore raises many types
            raise store_error(self, error) from error

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        """A function of obstore on this object."""
        store = self._store
        with self._reported():
            return getattr(_obstore(), name)(store, *arguments, **options)

    # looking

    def stat(self, *, follow_symlinks: bool = True) -> ObjectStatus:  # type: ignore[override]
        return ObjectStatus.of(self._call("head", self.object_name))

    def lstat(self) -> ObjectStatus:  # type: ignore[override]
        return self.stat()

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        return self.is_file() or self.is_dir()

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        try:
            return bool(self.object_name) and bool(self.stat())
        except FileNotFoundError:
            return False

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        try:
            return next(self.below(), None) is not None
        except ObjectStoreError as error:
            if error.is_of_a_name:
                return True
            raise

    def is_symlink(self) -> bool:
        return False

    def iterdir(self) -> Iterator[ObjectPath]:  # type: ignore[override]
        folders, objects = self.listed()
        yield from sorted([*folders, *(path for path, _ in objects)])

    def listed(self) -> tuple[list[ObjectPath], list[tuple[ObjectPath, ObjectStatus]]]:
        """The folders and the objects directly below."""
        found = self._call("list_with_delimiter", self.object_name or None)
        folders = [self.bucket / name.rstrip("/") for name in found["common_prefixes"]]
        return folders, [(self.bucket / about["path"], ObjectStatus.of(about)) for about in found["objects"]]

    def below(self) -> Iterator[tuple[ObjectPath, ObjectStatus]]:
        """All objects below, at any depth."""
        batches = self._call("list", self.object_name or None)
        while True:
            with self._reported():
                batch = next(batches, None)
            if batch is None:
                return
            for about in batch:
                yield self.bucket / about["path"], ObjectStatus.of(about)

    def glob(self, pattern: str, **_: Any) -> Iterator[ObjectPath]:  # type: ignore[override]
        parts = pattern.split("/")
        found = self.iterdir() if len(parts) == 1 else (path for path, _ in self.below())
        for path in found:
            names = path.parts[len(self.parts) :]
            if len(names) == len(parts) and all(map(fnmatchcase, names, parts)):
                yield path

    # reading

    def read_bytes(self) -> bytes:
        got = self._call("get", self.object_name)
        with self._reported():
            return bytes(got.bytes())

    def read_at_most(self, count: int) -> bytes:
        """The first `count` bytes."""
        if self.stat().st_size <= count:
            return self.read_bytes()
        return bytes(self._call("get_range", self.object_name, start=0, length=count))

    def download(self, file: IO[bytes]) -> None:
        """Copy the content to `file`: of one version, even if the object is replaced meanwhile."""
        self.download_version(file, self.stat())

    def download_version(self, file: IO[bytes], status: ObjectStatus) -> None:
        """As `download`, the version with this status. Raises ObjectStoreError if there is another by now."""
        start = 0
        while start < status.st_size:
            options = {
                "if_match": status.version or None,
                "range": (start, min(start + _PART, status.st_size)),
            }
            got = self._call("get", self.object_name, options=options)
            with self._reported():
                content = got.bytes()
            file.write(content)
            start += len(content)

    # changing

    def write(self, write: Callable[[IO[bytes]], object]) -> None:
        """Let `write` fill a file, which then takes the place of the object, whole or not at all."""
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
            write(file)
            file.seek(0)
            self._call("put", self.object_name, file)

    def upload(self, file: Path) -> None:
        """Copy a file to the object, in parts if it is large."""
        self._call("put", self.object_name, file)

    def create(self, content: bytes) -> str | None:
        """Make an object that does not exist; its version, or None if it exists: of two who try, one succeeds."""
        return self._put_if(content, "create")

    def replace_version(self, content: bytes, version: str) -> str | None:
        """Replace the content of this version; the new version, or None if it is another by now."""
        return self._put_if(content, {"e_tag": version})

    def _put_if(self, content: bytes, mode: Any) -> str | None:
        exceptions, store = _obstore().exceptions, self._store
        with self._reported():
            try:
                return str(
                    _obstore().put(store, self.object_name, content, mode=mode, use_multipart=False)["e_tag"]
                )
            except (exceptions.AlreadyExistsError, exceptions.PreconditionError, FileNotFoundError):
                return None

    def unlink(self, missing_ok: bool = False) -> None:
        if not missing_ok:
            self.stat()
        self._call("delete", self.object_name)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a folder exists with its first object."""

    def rmdir(self) -> None:
        """Nothing: a folder ends with its last object."""

    def delete_all(self) -> None:
        """Delete the object and everything below."""
        names = [path.object_name for path, _ in self.below()]
        for start in range(0, len(names), 1000):
            self._call("delete", names[start : start + 1000])
        self._call("delete", self.object_name)

    def rename(self, target: str | os.PathLike[str]) -> ObjectPath:
        """Copy all, then delete: killed in between it leaves both."""
        to = ObjectPath(target)
        names = [path.object_name for path, _ in self.below()] or [self.object_name]
        for name in names:
            self._call("copy", name, to.object_name + name.removeprefix(self.object_name))
        self._call("delete", names)
        return to


# ------------------------------------------------------------------------------------------------------------- stores


def _obstore() -> Any:
    """obstore, imported late: commands on this machine's files do without it."""
    try:
        import obstore
    except ImportError as error:
        raise MissingExtraError("obstore", "objects", "a library or photo in a bucket") from error
    return obstore


@functools.cache
def store_of(scheme: str, bucket: str) -> Any:
    """The bucket, for obstore."""
    _obstore()
    from obstore import store

    from_url: Any = store.from_url  # whose types differ from store to store
    options: dict[str, Any] = {"allow_http": allows_http(), "connect_timeout": "5s"}
    retries = {"max_retries": 3, "retry_timeout": PATIENCE}
    keys = _profile_keys() if scheme == "s3" else {}
    return from_url(f"{scheme}://{bucket}", client_options=options, retry_config=retries, **keys)


def allows_http() -> bool:
    """Whether the endpoint that the user has set is one without TLS, such as a store on this machine."""
    return os.environ.get("AWS_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT", "")).startswith("http://")


def lance_options(place: Path) -> dict[str, str]:
    """What LanceDB is to be given to open tables at `place`, without credentials, which it finds itself."""
    if not isinstance(place, ObjectPath):
        return {}
    patience = str(math.ceil(PATIENCE.total_seconds()))
    return {
        "allow_http": str(allows_http()).lower(),
        "client_max_retries": "3",
        "client_retry_timeout": patience,
    }


_KEYS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}


def _profile_keys() -> dict[str, str]:
    """The keys of AWS_PROFILE in ~/.aws, which obstore does not read; {} where the environment has some."""
    if "AWS_ACCESS_KEY_ID" in os.environ:
        return {}
    profile, found = os.environ.get("AWS_PROFILE", "default"), dict[str, str]()
    for variable, name, section in (
        ("AWS_CONFIG_FILE", "config", profile if profile == "default" else f"profile {profile}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", profile),
    ):
        parser = configparser.RawConfigParser()
        parser.read(os.path.expanduser(os.environ.get(variable, f"~/.aws/{name}")), "utf-8")
        if parser.has_section(section):
            found |= dict(parser.items(section))
    keys = {ours: found[theirs] for theirs, ours in _KEYS.items() if theirs in found}
    if keys and "region" in found and not {"AWS_REGION", "AWS_DEFAULT_REGION"} & set(os.environ):
        keys["region"] = found["region"]
    return keys


# ------------------------------------------------------------------------------------------------------------- errors

_WAYS_OUT = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE with ~/.aws, or the role of this machine",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_NO_NAME = re.compile(r"/\.\.?(/|$)|[\x00-\x1f\x7f]")
_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|The specified bucket does not exist")
_REFUSED = re.compile(
    r"AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|Unauthenticated|Unauthorized|"
    r"PermissionDenied|\b40[13]\b|Forbidden|AuthFailure"
)
_NO_CREDENTIALS = re.compile(
    r"169\.254\.169\.254|CredentialsNotLoaded|no providers in chain|credential provider"
)
_UNREACHABLE = re.compile(
    r"error sending request|HTTP error|[Cc]onnect|timed out|Timeout|dns error|error decoding response|\b50[0234]\b"
)


def store_error(path: Path, error: BaseException) -> OSError:
    """What to raise for an exception of obstore or LanceDB about this path: its text may hold parts of credentials, and
    is never shown."""
    text, uri = str(error), str(path)
    bucket = str(path.bucket) if isinstance(path, ObjectPath) else uri
    if _NO_BUCKET.search(text):
        return ObjectStoreError(
            errno.ENODEV, uri, f"there is no bucket {bucket}", "check its name and region"
        )
    if type(error).__name__ == "PreconditionError":
        return ObjectStoreError(errno.ESTALE, uri, "it was replaced meanwhile", "run the command again")
    if type(error).__name__ == "InvalidPathError":
        found = re.search(r'(?s)Path "(.*?)"', text)
        odd = found[1] if found else ""
        called = "whose name begins with" if odd.endswith("/") else "called"
        reason = f"there is an object {called} {odd!r}, which is not a path"
        return ObjectStoreError(errno.EILSEQ, uri, reason, "rename it, or name a folder beside it")
    if isinstance(error, ValueError) and _NO_NAME.search(uri):
        way_out = 'write it without "." and ".." between slashes, and without control characters'
        return ObjectStoreError(errno.EINVAL, uri, "no object has such a name", way_out)
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "no such object", uri)
    keys = _WAYS_OUT[uri.partition(":")[0]]
    if _NO_CREDENTIALS.search(text):
        return ObjectStoreError(errno.EACCES, uri, "no credentials were found", f"set {keys}")
    if _REFUSED.search(text):
        return ObjectStoreError(errno.EACCES, uri, "access is refused", f"check {keys}")
    if _UNREACHABLE.search(text):
        way_out = "check the network and AWS_ENDPOINT_URL, and run the command again"
        return ObjectStoreError(errno.ENETUNREACH, uri, "the store does not answer", way_out)
    code = re.search(r"<Code>(\w+)</Code>", text)
    reason = f"the store refused ({code[1] if code else type(error).__name__})"
    return ObjectStoreError(errno.EIO, uri, reason, "run the command again")


def is_of_the_store(error: BaseException) -> bool:
    """Whether an exception of LanceDB is one of the object store."""
    found = (p.search(str(error)) for p in (_NO_BUCKET, _REFUSED, _NO_CREDENTIALS, _UNREACHABLE))
    return any(found)


def opened_object(path: ObjectPath, status: ObjectStatus | None = None) -> io.BufferedReader:
    """A copy of the object, open for reading, which is gone when it is closed.  status: of the version wanted."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
    try:
        path.download_version(file, status or path.stat())
        file.seek(0)
        return file  # type: ignore[return-value]
    except BaseException:
        file.close()
        raise
