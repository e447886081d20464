"""Who may ask: what is refused before a route is reached, and what a page of ours may do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from growing import GrowingRun
from starlette.testclient import TestClient

from loraloom.store.folder import RunFolder
from loraloom.web.app import application
from loraloom.web.guard import Guard, token_of

PORT = 7077
TOKEN = "a" * 43
HOST = f"127.0.0.1:{PORT}"
ORIGIN = f"http://{HOST}"
NOTE = {"uuid": "0123456789", "verb": "note", "text": "hello"}

Client = Callable[..., TestClient]


@pytest.fixture
def client(root: Path) -> Client:
    def made(*, known: bool = True, read_only: bool = False, host: str = HOST) -> TestClient:
        app = Guard(application(root, read_only=read_only), TOKEN, PORT)
        cookies = {f"loraloom-{PORT}": TOKEN} if known else {}
        return TestClient(app, f"http://{host}", cookies=cookies, follow_redirects=False)  # pyright: ignore[reportArgumentType]

    return made


def post(client: TestClient, body: Any = NOTE, **headers: str) -> Any:
    sent = {"origin": ORIGIN, "content-type": "application/json"} | headers
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(
        "/runs/first/commands", content=content, headers={k: v for k, v in sent.items() if v}
    )


def asked(folder: RunFolder) -> int:
    path = folder.control_path
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def test_the_printed_address_lets_a_browser_in_and_leaves_no_token_in_it(
    client: Client, run: GrowingRun
) -> None:
    answer = client(known=False).get(f"/?token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"loraloom-{PORT}={TOKEN};")
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert client().get("/").status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/runs.json", "/runs/first", "/runs/first/stream", "/static/run.js"]
)
def test_without_the_token_nothing_is_shown(client: Client, run: GrowingRun, path: str) -> None:
    assert client(known=False).get(path).status_code == 401
    assert client(known=False).get(f"{path}?token=wrong").status_code == 401
    stranger = client(known=False)
    stranger.cookies.set(f"loraloom-{PORT}", "wrong")
    assert stranger.get(path).status_code == 401


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1:1", "127.0.0.1"])
def test_a_foreign_host_is_refused_though_it_has_the_cookie(client: Client, host: str) -> None:
    assert client().get("/", headers={"host": host}).status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": ""}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": f"http://{HOST}.evil.example"}, 403),
        ({"content-type": "application/x-www-form-urlencoded"}, 403),
        ({"content-type": "text/plain"}, 403),
        ({"content-type": ""}, 403),
        ({"host": "evil.example"}, 400),
    ],
)
def test_another_page_changes_nothing(
    client: Client, run: GrowingRun, headers: Mapping[str, str], status: int
) -> None:
    assert post(client(), **headers).status_code == status
    assert asked(run.folder) == 0


def test_a_command_is_taken_from_our_own_page(client: Client, run: GrowingRun) -> None:
    answer = post(client())
    assert (answer.status_code, answer.json()["state"]) == (202, "asked")
    assert asked(run.folder) == 1


def test_a_large_body_is_refused(client: Client, run: GrowingRun) -> None:
    assert post(client(), b'{"text": "' + b"x" * 5000 + b'"}').status_code == 413
    assert asked(run.folder) == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"nonsense",
        b"[" * 4000,
        {"verb": "note", "text": "without a uuid"},
        NOTE | {"verb": "format"},
        NOTE | {"verb": "prune", "text": None, "trial": "../../etc"},
        NOTE | {"verb": "prune", "text": None, "trial": "t999"},
        NOTE | {"verb": "extend", "text": None, "changes": {"trials": 10**9}},
        NOTE | {"verb": "clone", "text": None, "trial": "t000", "changes": {"model.revision": "evil"}},
    ],
)
def test_what_is_no_command_is_refused_with_a_reason(client: Client, run: GrowingRun, body: Any) -> None:
    run.start("t000")
    client().get("/runs/first/snapshot")
    answer = post(client(), body)
    assert answer.status_code == 422
    assert answer.json()["error"]["what"]
    assert asked(run.folder) == 0


def test_a_read_only_server_refuses_every_command(client: Client, run: GrowingRun) -> None:
    assert post(client(read_only=True)).status_code == 403
    assert asked(run.folder) == 0


def test_a_run_without_a_driver_is_answered_with_what_lets_it_go_on(
    client: Client, run: GrowingRun
) -> None:
    run.result()
    run.close()
    answer = post(client())
    assert answer.status_code == 409
    assert f"loraloom tune --resume {run.folder.path}" in answer.json()["error"]["next"]
    assert asked(run.folder) == 0


@pytest.mark.parametrize(
    "name", ["%2e%2e", "..%2f..%2fetc", "first%2f..", "loraloom.db", ".hidden", "a%00b", "nobody"]
)
def test_a_path_that_climbs_is_not_found(client: Client, run: GrowingRun, name: str) -> None:
    for path in (f"/runs/{name}", f"/runs/{name}/snapshot", f"/runs/{name}/report"):
        assert client().get(path).status_code == 404


def test_a_link_out_of_the_folder_is_not_followed(
    client: Client, run: GrowingRun, root: Path, tmp_path: Path
) -> None:
    outside = GrowingRun(tmp_path / "elsewhere", "secret")
    outside.close()
    (root / "linked").symlink_to(outside.folder.path)
    assert client().get("/runs/linked/snapshot").status_code == 404
    assert [one["name"] for one in client().get("/runs.json").json()["runs"]] == ["first"]


def test_our_pages_let_no_script_run_but_our_own(client: Client, run: GrowingRun) -> None:
    for path in ("/", "/runs/first", "/compare?run=first", "/runs/nobody"):
        policy = client().get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'nonce-" in policy
        assert "unsafe" not in policy and "frame-ancestors 'none'" in policy


def test_a_report_is_shown_as_a_stranger(client: Client, run: GrowingRun) -> None:
    run.folder.report_path.write_text("<script>alert(1)</script>")
    policy = client().get("/runs/first/report").headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts;") and "allow-same-origin" not in policy
    assert "connect-src" not in policy and "default-src 'none'" in policy


def test_names_from_a_run_are_text_in_a_page(client: Client, root: Path) -> None:
    hostile = client().get("/compare?run=%3Cscript%3Ealert(1)%3C/script%3E").text
    assert "<script>alert" not in hostile and "&lt;script&gt;" in hostile


def test_the_token_stays_after_a_restart_and_is_the_users_own() -> None:
    first = token_of(12345)
    assert token_of(12345) == first != token_of(12346)
    kept = Path(os.environ["XDG_CACHE_HOME"], "loraloom", "serve-12345.token")
    assert kept.stat().st_mode & 0o077 == 0
    kept.chmod(0o644)  # others may have read it
    assert token_of(12345) != first
