"""Who may send requests, and what a browser may do with the answer.

Against DNS rebinding the Host must be the server's own; against other sites' pages the Origin must be too; beyond this
machine a token is needed. The content security policy allows our own files only, and no inline script.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steersearch.web.problem import for_people, problem

COOKIE = "steersearch_token"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
CONTENT_SECURITY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, kw_only=True)
class Access:
    """hosts: names by which the server may be addressed, without ports.  token: needed with every request; None: none.
    socket: of this machine's user, see `server_socket`; who may open it needs neither.
    """

    hosts: frozenset[str] = LOOPBACK
    token: str | None = None
    socket: str | None = None

    @classmethod
    def of(cls, host: str, *more: str, token: str | None = None) -> Access:
        """For a server that listens on `host` and is reached by that name and `more`: with this token; else on this
        machine without one, elsewhere with a new one."""
        is_here = host in LOOPBACK
        token = token or (None if is_here else secrets.token_urlsafe(32))
        return cls(hosts=LOOPBACK | {host, *more}, token=token)


@dataclass(frozen=True)
class Guard:
    """ASGI middleware that refuses what `access` does not allow."""

    app: ASGIApp
    access: Access = field(default_factory=Access)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        by_socket = self.access.socket is not None and scope["server"] == (self.access.socket, None)
        refused = None if by_socket else self._refusal(scope)
        if refused is not None and "text/html" in Headers(scope=scope).get("accept", ""):
            refused = for_people(refused)
        if refused is not None:
            await refused(scope, receive, _with_headers(send))
            return
        await self.app(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that goes no further."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if (_name(host) or "") not in self.access.hosts:
            return problem(421, f"this server does not answer for the host {host[:200]!r}")
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != host:
            return problem(403, f"pages of {origin[:200]!r} may not use this server")
        navigates = headers.get("sec-fetch-mode") == "navigate" and scope["method"] == "GET"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not navigates:
            return problem(403, "pages of other sites may not use this server")
        return self._without_token(scope, headers)

    def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        """Ask for the token, or take it from the address into a cookie."""
        token = self.access.token
        if token is None:
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(query).get("token")
        if scope["path"] == "/" and given is not None and _same(given, token):
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            response = RedirectResponse(f"/?{rest}" if rest else "/", 303)
            response.set_cookie(COOKIE, token, httponly=True, samesite="strict")
            return response
        bearer = headers.get("authorization", "").removeprefix("Bearer ").strip()
        if _same(bearer, token) or _same(_cookie(headers), token):
            return None
        detail = "open the address that `steersearch serve` printed, or send its token: Authorization: Bearer TOKEN"
        return problem(401, detail, {"WWW-Authenticate": "Bearer"})


def _same(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode(), token.encode())


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _name(host: str) -> str | None:
    """The host without its port; None if it is not a host."""
    try:
        split = urlsplit(f"//{host}")
        _ = split.port
        return None if split.netloc != host or "@" in host else split.hostname
    except ValueError:
        return None


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sending
