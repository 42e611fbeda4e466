"""Files of the model hub: from the cache, or fetched by huggingface_hub; checked either way.

Cache, login and settings are huggingface_hub's (HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE) and shared with other
programs. It resumes interrupted downloads.

No file with a wrong sha256 is used: `remembered_sha256` hashes a file once and again after each change, and compares
with the registry, else with the hash under which the hub stores the file. The hub's answer is checked before a
download, because huggingface_hub turns names in it into paths, and does not limit its size.
"""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import re
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeAlias

from steersearch.core.errors import CheckpointError, HubError, HubFileMissingError
from steersearch.core.files import as_path, remembered_sha256
from steersearch.core.registry import HubFile, ModelCard, TextEncoderCard, known_text_encoder

logger = logging.getLogger(__name__)

PROBE_SECONDS = 2.0  # until the hub counts as unreachable
WORTH_TELLING = 5_000_000  # bytes; smaller downloads are not logged
# Largest accepted size in bytes of a file whose size is not published: weights, and configuration files.
MOST_BYTES, MOST_DESCRIBING = 20 * 10**9, 2 * 10**8
SECONDS_BETWEEN_LINES = 15.0  # in the log, during a download

Progress: TypeAlias = Callable[[int, int | None], None]  # bytes fetched, bytes in all if known

TOKENIZERS = ("tokenizer.json", "vocab.json", "merges.txt")  # the first, or the other two

_DESCRIBING = (".json", ".txt", ".md", ".jinja", ".model")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ETAG = re.compile(r"[0-9A-Za-z][\w.-]{7,127}")
_WAY_OUT = "go online once to fetch it, or use the bundled model with --model mini"


# ------------------------------------------------------------------------------------------------- one file


def find(file: HubFile) -> Path | None:
    """The path of `file` in the cache, its size checked, not its hash; None if it is missing. No network."""
    path = _in_cache(file)
    if path is None or (file.size is not None and path.stat().st_size != file.size):
        return None
    return path


def has_model(card: ModelCard) -> bool:
    """Whether this machine has all known files of a named model. No network."""
    files = (card.weights, None if card.trunk is None else card.trunk.weights)
    encoder = text_encoder_in_package(card.text_encoder) or cached_text_encoder(card.text_encoder)
    return encoder is not None and all(find(file) for file in files if isinstance(file, HubFile))


def fetch(file: HubFile, progress: Progress | None = None) -> Path:
    """The path of `file`, checked; downloads it if the cache lacks it. Safe for concurrent processes.

    progress: called as bytes arrive; None: large downloads are logged. Raises HubError, within seconds if the hub
    cannot be reached, and its subclass HubFileMissingError.
    """
    path = _checked(file)
    if path is not None:
        return path
    reason = why_unreachable()
    if reason is not None:
        raise HubError(file.repo, file.file, f"not downloaded yet and {reason}; {_WAY_OUT}")
    with _in_plain_words(file):
        return _download(file, progress or _logged(file))


def why_unreachable() -> str | None:
    """None if the model hub answers within two seconds, else the reason ("the model hub … does not answer")."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set, so the model hub is not asked"
    reasons: list[str | None] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
            urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()
        except urllib.error.HTTPError:
            pass  # it answers
        except (OSError, ValueError, HTTPException) as error:
            cause = getattr(error, "reason", error)
            reasons.append(_words(cause) if isinstance(cause, Exception) else str(cause))
            return
        reasons.append(None)

    # On a thread, because looking up a host name has no timeout.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PROBE_SECONDS)
    reason = reasons[0] if reasons else f"nothing within {PROBE_SECONDS:g} seconds"
    return None if reason is None else f"the model hub {constants.ENDPOINT} does not answer ({reason})"


def is_repository(name: str) -> bool:
    """Whether `name` can be the id of a repository, "owner/name", and not a path."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def cache_folder() -> Path:
    """The folder of huggingface_hub's cache; it need not exist yet.

    Raises CheckpointError for a user without a home folder.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_CACHE.startswith("~"):  # it would create a folder of that name
        raise CheckpointError("there is no home folder to keep downloads in; set HF_HOME to a folder")
    return Path(constants.HF_HUB_CACHE)


def free_space(folder: Path) -> int:
    """Bytes free on the disk of `folder`, which need not exist yet."""
    there = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    return shutil.disk_usage(there).free


def disk_full(repo: str, file: str, *, needed: int, free: int) -> HubError:
    """The error for too little disk space in the cache. needed, free: bytes."""
    return HubError(
        repo,
        file,
        f"needs {needed / 1e6:,.1f} MB more in {cache_folder()}, where {free / 1e6:,.1f} MB are free; "
        "make room, or set HF_HOME to a folder on another disk",
    )


def list_files(repo: str, revision: str) -> list[str]:
    """The names of the files of a repository on the hub. Raises as `fetch`."""
    from huggingface_hub import HfApi, constants

    with _in_plain_words(HubFile(repo=repo, file="the list of its files", revision=revision)):
        return sorted(HfApi(endpoint=constants.ENDPOINT).list_repo_files(repo, revision=revision))


# ------------------------------------------------------------------------------------------------ the cache


def _in_cache(file: HubFile) -> Path | None:
    import huggingface_hub

    if not file.file.isprintable() or "\\" in file.file or {"", ".", ".."} & set(file.file.split("/")):
        raise HubError(file.repo, repr(file.file), "not a valid file name")
    try:
        found = huggingface_hub.try_to_load_from_cache(file.repo, file.file, revision=file.revision)
    except ValueError as error:
        raise HubError(file.repo, file.file, f"not a valid repository name ({error})") from error
    return Path(found) if isinstance(found, str) else None


def _checked(file: HubFile) -> Path | None:
    """The path of `file` in the cache; with a wrong hash it is deleted, and None."""
    path = _in_cache(file)
    if path is None or (wrong := _wrong_hash(file, path)) is None:
        return path
    logger.warning("%s: damaged (sha256 is %s, expected %s), deleted", path, *wrong)
    _delete(file, path, *wrong)
    return None


def _wrong_hash(file: HubFile, path: Path) -> tuple[str, str] | None:
    """Actual and expected sha256 of a cached file; None if they agree or none is published."""
    expected = file.sha256 or _stored_as(path)
    if expected is None or (found := remembered_sha256(path)) == expected:
        return None
    return found, expected


def _stored_as(path: Path) -> str | None:
    """The sha256 that the hub gave for a cached file, which is the name that a large file is stored under."""
    name = Path(os.readlink(path)).name if path.is_symlink() else ""
    return name if _SHA256.fullmatch(name) else None


def _wrong_checksum(file: HubFile, found: str, expected: str, way_out: str) -> HubError:
    return HubError(file.repo, file.file, f"sha256 is {found}, expected {expected}; {way_out}")


def _delete(file: HubFile, path: Path, found: str, expected: str) -> None:
    try:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
    except OSError as error:
        way_out = f"delete {path} ({error.strerror})"
        raise _wrong_checksum(file, found, expected, way_out) from error


# -------------------------------------------------------------------------------------------- the download


def _download(file: HubFile, progress: Progress) -> Path:
    from huggingface_hub import hf_hub_download

    bar: Any = _bar(file, _announced_size(file), progress)
    path = Path(hf_hub_download(file.repo, file.file, revision=file.revision, tqdm_class=bar))
    if (wrong := _wrong_hash(file, path)) is not None:
        _delete(file, path, *wrong)
        way_out = "the download was deleted; try again, and if it fails again do not trust the source"
        raise _wrong_checksum(file, *wrong, way_out)
    return path


def _announced_size(file: HubFile) -> int:
    """The size that the hub announces, or else the largest accepted.

    Raises HubError, before the download, for a name that leads out of the cache, an impossible size, another sha256
    and lack of disk space.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    said = get_hf_file_metadata(hf_hub_url(file.repo, file.file, revision=file.revision))
    for name, form in ((said.commit_hash, _COMMIT), (said.etag, _ETAG)):
        if name is not None and not form.fullmatch(name):
            reason = f"the hub answers with an invalid name, {name[:80]!r}"
            raise HubError(file.repo, file.file, reason)
    if file.sha256 and said.etag and _SHA256.fullmatch(said.etag) and said.etag != file.sha256:
        way_out = "its publisher has replaced it; nothing was downloaded. Look for a newer steersearch"
        raise _wrong_checksum(file, said.etag, file.sha256, way_out)
    usual = MOST_DESCRIBING if Path(file.file).suffix in _DESCRIBING else MOST_BYTES
    most = usual if file.size is None else file.size
    if said.size is None:
        return most
    if not 0 <= said.size <= most:
        reason = f"the hub announces {said.size:,} bytes, accepted are 0 to {most:,}"
        raise HubError(file.repo, file.file, reason)
    if (free := free_space(cache_folder())) < said.size:
        raise disk_full(file.repo, file.file, needed=said.size, free=free)
    return said.size


def _bar(file: HubFile, most: int, progress: Progress) -> type:
    """A progress bar for huggingface_hub that draws nothing, reports progress, and refuses more than `most` bytes."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]  # documented all the same

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]
            self.done: int = options.get("initial", 0)
            progress(self.done, self.total)

        def update(self, n: float | None = 1) -> None:
            self.done += int(n or 0)
            if self.done > most:
                reason = f"the hub sends more than the expected {most:,} bytes"
                raise HubError(file.repo, file.file, reason)
            progress(self.done, self.total)

        def update_transfer(self, _: float) -> None:
            """Called by Xet in addition to `update`, with compressed sizes."""

        def set_transfer_postfix_str(self, *_: Any, **__: Any) -> None:
            """Called by Xet."""

    return Bar


def _logged(file: HubFile) -> Progress:
    """Log the start of a large download, and its progress from time to time."""
    last = float("-inf")

    def tell(done: int, total: int | None) -> None:
        nonlocal last
        if total is None or total < WORTH_TELLING or time.monotonic() - last < SECONDS_BETWEEN_LINES:
            return
        last = time.monotonic()
        logger.info(
            "fetching %s/%s: %s of %s MB", file.repo, file.file, f"{done / 1e6:,.0f}", f"{total / 1e6:,.0f}"
        )

    return tell


def _words(error: BaseException) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


@contextmanager
def _in_plain_words(file: HubFile) -> Iterator[None]:
    """Translate errors of huggingface_hub and its HTTP library into ours, with a way out."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{file.repo}"
    try:
        yield
    except HubError:
        raise
    except errors.GatedRepoError as error:
        reason = f"gated: accept the conditions on {page}, then log in with `hf auth login` or the variable HF_TOKEN"
        raise HubError(file.repo, file.file, reason) from error
    except errors.RepositoryNotFoundError as error:
        reason = f"no such repository, or a private one: see {page}, or log in with `hf auth login`"
        raise HubFileMissingError(file.repo, file.file, reason) from error
    except errors.LocalEntryNotFoundError as error:  # raised for any trouble with the hub's first answer
        raise HubError(file.repo, file.file, _trouble(error.__cause__ or error, page)) from error
    except (errors.EntryNotFoundError, errors.RevisionNotFoundError) as error:
        reason = f"no such file at the revision {file.revision}; see {page}"
        raise HubFileMissingError(file.repo, file.file, reason) from error
    except Exception as error:  # of the operating system or the HTTP library
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            raise disk_full(file.repo, file.file, needed=file.likely_size or 0, free=0) from error
        raise HubError(file.repo, file.file, _trouble(error, page)) from error


def _trouble(error: BaseException, page: str) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.FileMetadataError):
        return "the server does not answer like a model hub; see HF_ENDPOINT"
    if isinstance(error, errors.HfHubHTTPError) and error.response is not None:
        return f"the model hub answered {error.response.status_code}; try again later, or see {page}"
    return f"cannot be fetched ({_words(error)}); try again"


# -------------------------------------------------------------------------------------------- text encoders

WEIGHTS = "model.safetensors"  # the only format accepted: others can run code when loaded


def text_encoder_folder(name: str, progress: Progress | None = None) -> Path:
    """The folder with config, tokenizer and model.safetensors of the text encoder `name`; fetches missing files.

    name: "roberta-large" or "minilm" (pinned and checked), another hub id, or a folder. Ignores an installed package
    that carries minilm. Raises as `fetch`, and CheckpointError for a folder that lacks files.
    """
    folder = as_path(name)
    if os.path.isdir(folder):
        lacking = [file for file in ("config.json", WEIGHTS) if not (folder / file).is_file()]
        if lacking:
            raise CheckpointError(f"{folder}: not a text encoder, it lacks {' and '.join(lacking)}")
        return folder
    card = known_text_encoder(name)
    return _fetch_snapshot(name, progress) if card is None else _fetch_known(card, progress)


def text_encoder_in_package(card: TextEncoderCard) -> Path | None:
    """The folder with this text encoder in an installed package, found without importing it."""
    found = None if card.module is None else importlib.util.find_spec(card.module)
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(found.submodule_search_locations[0]) / "model"
    return folder if (folder / WEIGHTS).is_file() else None


def cached_text_encoder(card: TextEncoderCard) -> tuple[HubFile, ...] | None:
    """The files of this text encoder, under the current or an earlier name of the repository, if all are cached."""
    for repo in (card.weights.repo, *card.other_repos):
        files = tuple(replace(file, repo=repo) for file in card.files)
        if all(find(file) for file in files):
            return files
    return None


def text_encoder_identity(name: str) -> str:
    """sha256 of the weights of the text encoder `name`, 64 hexadecimal digits.

    Comes from the registry if pinned, else from the file, which is fetched if necessary. Raises as
    `text_encoder_folder`.
    """
    card = known_text_encoder(name)
    if card is not None and card.weights.sha256 is not None and not os.path.isdir(as_path(name)):
        return card.weights.sha256
    return remembered_sha256(text_encoder_folder(name) / WEIGHTS)


def _fetch_known(card: TextEncoderCard, progress: Progress | None) -> Path:
    for repo in card.other_repos:  # cached by other programs under an earlier name
        there = [_checked(replace(file, repo=repo)) for file in card.files]
        if (weights := there[-1]) is not None and all(there):
            return weights.parent
    return [fetch(file, progress) for file in card.files][-1].parent


def _fetch_snapshot(repo: str, progress: Progress | None) -> Path:
    """Fetch the files of a text encoder that is not in the registry, all of one commit."""
    weights = _checked(HubFile(repo=repo, file=WEIGHTS))
    if weights is not None:
        names = {path.name for path in weights.parent.iterdir()}
        if "config.json" in names and names & set(TOKENIZERS):
            return weights.parent
    config = fetch(HubFile(repo=repo, file="config.json"), progress)
    commit = config.parent.name
    for name in TOKENIZERS:
        with suppress(HubFileMissingError):
            fetch(HubFile(repo=repo, file=name, revision=commit), progress)
    try:
        fetch(HubFile(repo=repo, file=WEIGHTS, revision=commit), progress)
    except HubFileMissingError as error:
        reason = "missing, and other weight formats are refused, because they can run code when loaded"
        raise HubFileMissingError(repo, WEIGHTS, reason) from error
    return config.parent
