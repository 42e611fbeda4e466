"""Files of the model hub: at once if they are in the cache, else fetched, resumed where they were cut, and checked.

The cache, the login and the settings are huggingface_hub's: HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE. What
is fetched here other programs find there, and the other way round. Only the transfer itself is steered from here:
huggingface_hub throws away what a killed run had, while 1.4 GB deserve better.

No file with a wrong hash is ever used. A download is hashed before it gets its name in the cache. A file that was
there already is hashed when it is first asked for; `digests` remembers the result, and notices a changed file.
What a file is measured against: the sha256 in the registry, else the one under which the hub stores it.
"""

from __future__ import annotations

import errno
import importlib.util
import itertools
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
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeAlias

from steersearch.core import digests, tokenizer
from steersearch.core.errors import (
    CheckpointError,
    ChecksumError,
    DiskFullError,
    GatedModelError,
    HubError,
    HubFileMissingError,
    HubUnreachableError,
)
from steersearch.core.registry import HubFile, TextEncoderCard, known_text_encoder

logger = logging.getLogger(__name__)

PROBE_SECONDS = 2.0  # how long the hub may take to answer at all before it counts as unreachable
FRUITLESS_TRIES = 3  # in a row without one new byte, before a download is given up
PAUSE_SECONDS = 1.0  # between tries
WORTH_TELLING = 5_000_000  # bytes; a smaller download is over before it is read about
SECONDS_BETWEEN_LINES = 15.0  # in the log, during a download

Progress: TypeAlias = Callable[[int, int | None], None]  # bytes there so far, bytes in all if known

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WAY_OUT = "go online once to fetch it, or use the bundled model with --model mini"


# ------------------------------------------------------------------------------------------------- one file


def find(file: HubFile) -> Path | None:
    """Where `file` lies in the cache, with the right size but not hashed; None if it is not there. No network."""
    path = _in_cache(file)
    if path is None or (file.size is not None and path.stat().st_size != file.size):
        return None
    return path


def fetch(file: HubFile, progress: Progress | None = None) -> Path:
    """Where `file` lies, checked; downloaded if it is not in the cache. Two processes may ask for the same file.

    A download that is cut goes on where it was, by itself a few times and in the next call after that.
    `progress` is called as bytes arrive; without it, large downloads are told in the log. Raises
    HubUnreachableError within seconds, HubFileMissingError, GatedModelError, ChecksumError, DiskFullError, and
    HubError for all else.
    """
    path = _checked(file)
    if path is not None:
        return path
    reason = why_unreachable()
    if reason is not None:
        raise HubUnreachableError(file.repo, file.file, f"not downloaded yet and {reason}; {_WAY_OUT}")
    with _in_plain_words(file):
        return _download(file, progress or _told_in_log(file))


def why_unreachable() -> str | None:
    """None if the model hub answers within two seconds, else why it does not ("the model hub … does not answer")."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set, so the model hub is not asked"
    reasons: list[str | None] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
            urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()
        except urllib.error.HTTPError:
            pass  # an answer, if not a welcome one
        except (OSError, ValueError) as error:
            cause = getattr(error, "reason", error)
            reasons.append(_words(cause) if isinstance(cause, Exception) else str(cause))
            return
        reasons.append(None)

    # On a thread of its own, because looking up a host name knows no timeout.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PROBE_SECONDS)
    reason = reasons[0] if reasons else f"nothing within {PROBE_SECONDS:g} seconds"
    return None if reason is None else f"the model hub {constants.ENDPOINT} does not answer ({reason})"


def is_repository(name: str) -> bool:
    """Whether `name` can be the id of a repository, "owner/name", and not a path."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def cache_folder() -> Path:
    """The folder of the cache that huggingface_hub keeps; it need not exist yet."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def free_space(folder: Path) -> int:
    """Bytes free on the disk of `folder`, which need not exist yet."""
    there = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    return shutil.disk_usage(there).free


# ------------------------------------------------------------------------------------------------ the cache


def _in_cache(file: HubFile) -> Path | None:
    import huggingface_hub

    try:
        found = huggingface_hub.try_to_load_from_cache(file.repo, file.file, revision=file.revision)
    except ValueError as error:  # an id that no repository can have
        raise HubError(file.repo, file.file, f"no repository can have this name ({error})") from error
    return Path(found) if isinstance(found, str) else None


def _checked(file: HubFile) -> Path | None:
    """`file` in the cache if its hash is right; deleted there, and None, if it is wrong."""
    path = _in_cache(file)
    if path is None:
        return None
    expected = file.sha256 or _stored_as(path)
    if expected is None or (found := digests.remembered_sha256(path)) == expected:
        return path
    logger.warning("%s: damaged (sha256 is %s, expected %s), deleted", path, found, expected)
    try:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
    except OSError as error:
        way_out = f"delete {path} ({error.strerror})"
        raise ChecksumError(file.repo, file.file, found, expected, way_out) from error
    return None


def _stored_as(path: Path) -> str | None:
    """The sha256 that the hub gave for a cached file: large files are stored under it."""
    name = path.resolve().name
    return name if _SHA256.fullmatch(name) else None


# -------------------------------------------------------------------------------------------- the download


def _download(file: HubFile, progress: Progress | None) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    offered = get_hf_file_metadata(hf_hub_url(file.repo, file.file, revision=file.revision))
    etag, commit = offered.etag, offered.commit_hash
    if etag is None or commit is None or not re.fullmatch(r"[\w.-]+", etag):
        raise HubError(file.repo, file.file, "the server does not answer like a model hub; see HF_ENDPOINT")
    if file.sha256 is not None and _SHA256.fullmatch(etag) and etag != file.sha256:
        way_out = "its publisher has replaced it, nothing was downloaded; look for a newer steersearch"
        raise ChecksumError(file.repo, file.file, etag, file.sha256, way_out)
    name = repo_folder_name(repo_id=file.repo, repo_type="model")
    blob = cache_folder() / name / "blobs" / etag
    lock = cache_folder() / ".locks" / name / f"{etag}.lock"  # the one that huggingface_hub takes
    for folder in (blob.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(str(lock)):
        if not blob.exists():  # else another process was faster
            partial = blob.with_name(f"{etag}.incomplete")
            url = hf_hub_url(file.repo, file.file, revision=commit)
            _transfer(file, url, partial, offered.size, progress)
            _name(file, partial, blob)
    hf_hub_download(file.repo, file.file, revision=file.revision)  # finds the blob and links it
    path = _checked(file)
    if path is None:
        raise HubError(file.repo, file.file, "changed on the hub while it was fetched; try again")
    return path


def _transfer(file: HubFile, url: str, partial: Path, size: int | None, progress: Progress | None) -> None:
    """Append to `partial` what it lacks of `size` bytes; left in place for the next try if that fails."""
    fruitless = 0
    while True:
        there = _bytes_in(partial)
        if size is None or there > size:  # nothing that could be gone on with
            partial.unlink(missing_ok=True)
            there = 0
        if size is not None and (free := free_space(partial.parent)) < size - there:
            raise DiskFullError(
                file.repo, file.file, partial.parent, needed=size - there, free=free, kept=there
            )
        if there == size:
            return
        try:
            _get(url, partial, there, size, progress)
            return
        except Exception as error:
            arrived = _bytes_in(partial)
            if isinstance(error, OSError) and error.errno in _NO_SPACE:
                partial.unlink(missing_ok=True)  # a disk without one free byte stops more than this download
                raise DiskFullError(
                    file.repo, file.file, partial.parent, needed=size or arrived, free=arrived
                ) from error
            fruitless = 0 if arrived > there else fruitless + 1
            if not _may_pass(error) or fruitless == FRUITLESS_TRIES:
                raise
            logger.info(
                "%s/%s: %s; going on at %s bytes", file.repo, file.file, _words(error), f"{arrived:,}"
            )
            time.sleep(PAUSE_SECONDS)


def _get(url: str, partial: Path, there: int, size: int | None, progress: Progress | None) -> None:
    """One request for what follows the `there` bytes of `partial`, written as it arrives."""
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    headers = build_hf_headers() | {"Accept-Encoding": "identity"}
    if there:
        headers["Range"] = f"bytes={there}-"
    with _opened(url, headers) as (status, chunks), partial.open("ab") as out:
        if there and status != HTTPStatus.PARTIAL_CONTENT:  # a proxy that knows no ranges sends all of it
            out.truncate(0)
            there = 0
        for chunk in itertools.chain((b"",), chunks):
            out.write(chunk)
            there += len(chunk)
            if progress is not None:
                progress(there, size)
    if size is not None and there != size:
        raise ConnectionError(f"the connection ended after {there:,} of {size:,} bytes")


@contextmanager
def _opened(url: str, headers: dict[str, str]) -> Iterator[tuple[int, Iterator[bytes]]]:
    """Status and body of a GET with huggingface_hub's own HTTP client: its proxies, certificates and time limits."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session, hf_raise_for_status  # type: ignore[attr-defined]

    client: Any = get_session()
    patience = constants.HF_HUB_DOWNLOAD_TIMEOUT
    if callable(getattr(client, "stream", None)):
        with client.stream("GET", url, headers=headers, timeout=patience) as response:
            hf_raise_for_status(response)
            yield response.status_code, response.iter_bytes()
    else:  # before huggingface_hub 1.0: requests
        with client.get(url, headers=headers, timeout=patience, stream=True) as response:
            hf_raise_for_status(response)
            yield response.status_code, response.iter_content(2**16)


def _told_in_log(file: HubFile) -> Progress:
    """A line when a large download begins, and one now and then: a run must not seem to hang."""
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


def _name(file: HubFile, partial: Path, blob: Path) -> None:
    """Give a whole download its name in the cache, if its hash is right; else delete it."""
    found = digests.file_sha256(partial)
    expected = file.sha256 or (blob.name if _SHA256.fullmatch(blob.name) else found)
    if found != expected:
        partial.unlink()
        way_out = "the download was deleted; try again, and if that ends the same do not trust the source"
        raise ChecksumError(file.repo, file.file, found, expected, way_out)
    partial.replace(blob)
    digests.remember(blob, found)


def _bytes_in(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _may_pass(error: Exception) -> bool:
    """Whether trying again can help: lost connections and a hub in trouble, not refusals and local faults."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return error.response is not None and error.response.status_code in (408, 429, 500, 502, 503, 504)
    local = isinstance(error, OSError) and error.errno is not None
    return not local or isinstance(error, (ConnectionError, TimeoutError))


def _words(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


@contextmanager
def _in_plain_words(file: HubFile) -> Iterator[None]:
    """What huggingface_hub and its HTTP library raise, as our errors with a way out."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{file.repo}"
    try:
        yield
    except HubError:
        raise
    except errors.GatedRepoError as error:
        raise GatedModelError(file.repo, file.file, page) from error
    except errors.RepositoryNotFoundError as error:
        reason = (
            f"no such repository, or not for your eyes: see {page}; if it is private, run `hf auth login`"
        )
        raise HubFileMissingError(file.repo, file.file, reason) from error
    except (errors.EntryNotFoundError, errors.RevisionNotFoundError) as error:
        reason = f"no such file at the revision {file.revision}; see {page}"
        raise HubFileMissingError(file.repo, file.file, reason) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        reason = f"the model hub answered {status}; try again later, or see {page}"
        raise HubError(file.repo, file.file, reason) from error
    except Exception as error:  # of the operating system, or of whatever HTTP library is beneath
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            raise DiskFullError(
                file.repo, file.file, cache_folder(), needed=file.likely_size or 0, free=0
            ) from error
        reason = f"cannot be fetched ({_words(error)}); try again, what has arrived is kept"
        raise HubError(file.repo, file.file, reason) from error


# -------------------------------------------------------------------------------------------- text encoders

WEIGHTS = "model.safetensors"  # the only format that is read: others can run code when they are loaded


def text_encoder_folder(name: str, progress: Progress | None = None) -> Path:
    """A folder with the config, tokenizer and model.safetensors of the text encoder `name`, fetched if need be.

    name: "roberta-large" or "minilm" (pinned and checked), another hub id, or a folder. An installed package that
    carries minilm is not looked at. Raises as `fetch`, and CheckpointError for a folder without these files.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        lacking = [file for file in ("config.json", WEIGHTS) if not (folder / file).is_file()]
        if lacking:
            raise CheckpointError(f"{folder}: no text encoder, it holds no {' and no '.join(lacking)}")
        return folder
    card = known_text_encoder(name)
    return _fetch_snapshot(name, progress) if card is None else _fetch_known(card, progress)


def text_encoder_in_package(card: TextEncoderCard) -> Path | None:
    """The folder in an installed package that carries this text encoder; that package is not imported."""
    found = None if card.module is None else importlib.util.find_spec(card.module)
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(found.submodule_search_locations[0]) / "model"
    return folder if (folder / WEIGHTS).is_file() else None


def text_encoder_identity(name: str) -> str:
    """sha256 of the weights of the text encoder `name`, 64 hexadecimal digits.

    Known without a file for those that are pinned, and without loading for others; a hub id whose weights are
    not in the cache is fetched. Raises as `text_encoder_folder`.
    """
    card = known_text_encoder(name)
    if card is not None and card.weights.sha256 is not None and not Path(name).is_dir():
        return card.weights.sha256
    return digests.remembered_sha256(text_encoder_folder(name) / WEIGHTS)


def _fetch_known(card: TextEncoderCard, progress: Progress | None) -> Path:
    for repo in card.other_repos:  # cached by other programs under an earlier name
        there = [_checked(replace(file, repo=repo)) for file in card.files]
        if (weights := there[-1]) is not None and all(there):
            return weights.parent
    return [fetch(file, progress) for file in card.files][-1].parent


def _fetch_snapshot(repo: str, progress: Progress | None) -> Path:
    """The files of a text encoder of which nothing is known but its hub id, all of one commit."""
    weights = _checked(HubFile(repo=repo, file=WEIGHTS))
    if weights is not None:
        names = {path.name for path in weights.parent.iterdir()}
        if "config.json" in names and names & set(tokenizer.FILES):
            return weights.parent
    config = fetch(HubFile(repo=repo, file="config.json"), progress)
    commit = config.parent.name
    for name in tokenizer.FILES:
        with suppress(HubFileMissingError):
            fetch(HubFile(repo=repo, file=name, revision=commit), progress)
    try:
        fetch(HubFile(repo=repo, file=WEIGHTS, revision=commit), progress)
    except HubFileMissingError as error:
        reason = (
            "not there, and weights in other formats are not read: they can run code when they are loaded"
        )
        raise HubFileMissingError(repo, WEIGHTS, reason) from error
    return config.parent
