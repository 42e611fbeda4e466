"""A bucket on this machine: moto's server, which answers as S3 does."""

from __future__ import annotations

import json
import logging
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from moto import settings
from moto.backends import get_backend
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer

from steersearch.core.objects import ObjectPath, store_of

KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
    "AWS_SECRET_ACCESS_KEY": "not-a-secret",
    "AWS_REGION": "us-east-1",
}


_writing = threading.RLock()


def _in_turn(write: Callable[..., Any]) -> Callable[..., Any]:
    def locked(*given: Any) -> Any:
        with _writing:
            return write(*given)

    return locked


class Emulator:
    """The server; `stop` cuts it off."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        # moto looks whether the condition of a write holds, then writes; of two at once both may do so, unlike on S3
        for name in ("put_object", "delete_object"):
            monkeypatch.setattr(S3Response, name, _in_turn(getattr(S3Response, name)))
        get_backend("iam").reset()
        get_backend("s3").reset()  # what another test has stored in this process
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]
        self.environment = {
            **KEYS,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "NO_PROXY": "127.0.0.1",
        }

    def _ask(self, method: str, path: str) -> None:
        request = urllib.request.Request(f"{self.environment['AWS_ENDPOINT_URL']}/{path}", method=method)
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).close()

    def create_bucket(self, name: str) -> ObjectPath:
        """An empty bucket."""
        self._ask("PUT", name)
        return ObjectPath(f"s3://{name}")

    def put(self, bucket: str, name: str, content: bytes) -> None:
        """An object of any name."""
        backend = get_backend("s3")["123456789012"]["aws"]
        backend.put_object(bucket, name, content)

    def refuse_unknown_keys(self) -> None:
        """From now on, accept only keys of users that were created here: none."""
        self._monkeypatch.setattr(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)

    def only_read_from_now_on(self) -> None:
        """The keys in the environment become those of a user who may read everything and write nothing."""
        users = get_backend("iam")["123456789012"]["aws"]
        users.create_user("us-east-1", "reader")
        allowed = {"Effect": "Allow", "Action": ["s3:Get*", "s3:List*"], "Resource": "*"}
        users.put_user_policy("reader", "read", json.dumps({"Version": "2012-10-17", "Statement": [allowed]}))
        key = users.create_access_key("reader")
        self._monkeypatch.setenv("AWS_ACCESS_KEY_ID", key.access_key_id)
        self._monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key.secret_access_key)
        store_of.cache_clear()
        self.refuse_unknown_keys()

    def stop(self) -> None:
        self._server.stop()
        assert self._server._server is not None
        self._server._server.server_close()

    def start_again(self) -> None:
        """With all that was stored."""
        self._server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self._server.start()


@contextmanager
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A server that this process and its children use, by the environment."""
    server = Emulator(monkeypatch)
    for name in ("AWS_PROFILE", "AWS_ENDPOINT", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store_of.cache_clear()
    try:
        yield server
    finally:
        with suppress(OSError):  # a test has cut it off
            server.stop()
        store_of.cache_clear()
