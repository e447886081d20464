"""Who may ask: everything of the server's security that is not in a page itself.

The server listens on 127.0.0.1 alone. Any page in the user's browser can still send requests there, and
any name can be made to point there, so that each request has to show a cookie that only the printed
address gives, a host that is ours and, to change anything, an origin that is ours.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

from loraloom.errors import RequestError
from loraloom.facts.remembered import cache_folder
from loraloom.store.folder import RunFolder
from loraloom.store.names import check_name

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BODY_BYTES = 4096
TOKEN_BYTES = 32
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}
ASK_AGAIN = "Open the address that `loraloom serve` printed: it lets this browser in."


def policy(nonce: str) -> str:
    """What a page of ours may do: run our own scripts, ask this server, and nothing else."""
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}';"
        " img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    )


REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline';"
    " img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""A run's report is a file from a folder that may come from anywhere. It is shown as a stranger: in an
origin of its own, without our cookie, and it can ask for nothing. Its own policy, in the file, lets no
script run but its own."""


def token_of(port: int) -> str:
    """The secret of the server on this port; the same after a restart, so that open pages go on."""
    path = cache_folder() / f"serve-{port}.token"
    with suppress(OSError, UnicodeDecodeError):
        kept = path.read_text(encoding="ascii").strip()
        if _TOKEN.fullmatch(kept) and path.stat().st_mode & 0o077 == 0:
            return kept
    token = secrets.token_urlsafe(TOKEN_BYTES)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(token)
    return token


def run_folder(root: Path, name: str) -> RunFolder:
    """The run of that name right in `root`.

    Raises:
        RequestError: it cannot be a name, leads elsewhere (by a link), or is no run.
    """
    check_name(name)
    path = root / name
    if path.resolve().parent != root.resolve():
        raise RequestError(f"`{name}` lies outside of `{root}`", next="serve the folder that it lies in")
    return RunFolder.open(path)


class Guard:
    """An application that lets requests through to another one.

    Args:
        token: what the printed address holds.
        port: where the server listens; it names the cookie, since cookies do not know ports.
    """

    def __init__(self, app: App, token: str, port: int) -> None:
        self.app = app
        self.token = token
        self.cookie = f"loraloom-{port}"
        self.hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        refused = self.refusal(scope["method"], headers)
        if refused:
            await _answer(send, refused[0], refused[1])
        elif offered := _offered(scope):
            await self._let_in(offered, scope["path"], send)
        elif not self._known(headers):
            await _answer(send, 401, ASK_AGAIN)
        else:
            await self.app(scope, receive, send)

    def refusal(self, method: str, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """Why a request is not even looked at, with its status; None where it may be."""
        host = headers.get("host", "")
        if host not in self.hosts:
            return 400, "This host is not one of ours."
        if method in ("GET", "HEAD"):
            return None
        if method != "POST":
            return 405, "Only GET and POST are known."
        if headers.get("origin") not in {f"http://{host}" for host in self.hosts}:
            return 403, "Another page may not do this."
        if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return 403, "Only JSON is taken."
        length = headers.get("content-length", "")
        if not length.isdecimal() or len(length) > 9:
            return 411, "The length of the body has to be told."
        if int(length) > MOST_BODY_BYTES:
            return 413, f"At most {MOST_BODY_BYTES:,} bytes are taken."
        return None

    def _known(self, headers: Mapping[str, str]) -> bool:
        offered = dict(_cookies(headers.get("cookie", ""))).get(self.cookie, "")
        return hmac.compare_digest(offered.encode(), self.token.encode())

    async def _let_in(self, offered: str, path: str, send: Send) -> None:
        """The token in an address becomes a cookie and leaves the address."""
        if not hmac.compare_digest(offered.encode(), self.token.encode()):
            await _answer(send, 401, ASK_AGAIN)
            return
        cookie = f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"
        # Two slashes would be another host.
        where = "/" + quote(path.lstrip("/\\"))
        await _answer(send, 303, "", {"location": where, "set-cookie": cookie})


def _offered(scope: Scope) -> str:
    if scope["method"] != "GET":
        return ""
    return parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]


def _cookies(header: str) -> Iterable[tuple[str, str]]:
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        yield name, value


async def _answer(send: Send, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
    every = {**HEADERS, "content-type": "text/plain; charset=utf-8", "cache-control": "no-store"}
    every |= headers or {}
    encoded = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in every.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": text.encode()})
