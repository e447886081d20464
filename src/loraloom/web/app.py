"""The routes of the live page. Starlette and uvicorn are known in this room alone."""

from __future__ import annotations

import asyncio
import importlib.util
import mmap
import re
import secrets
import sys
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from loraloom.errors import LoraloomError, RequestError, StoreError
from loraloom.report.frame import TEMPLATES as REPORT_FILES
from loraloom.report.frame import environment
from loraloom.store.to_json import to_json
from loraloom.web import stream
from loraloom.web.commands import ask, status_of
from loraloom.web.guard import HEADERS, REPORT_POLICY, policy, run_folder
from loraloom.web.runs import Runs
from loraloom.web.view import View

HERE = Path(__file__).parent
OWN_FILES = ("live.css", "common.js", "charts.js", "runs.js", "run.js", "commands.js", "compare.js")
MOST_VIEWS = 8
"""Runs that are kept in memory: those that were looked at last."""
PIECE_BYTES = 64 * 1024
MOST_STREAMS = 100
MOST_COMPARED = 8
COMPARE_SECONDS = 120.0
GLOBAL_SHEET = "plotly.js-style-global"
_SHEET = re.compile(rb'createElement\("style"\);\w+\.id="([0-9a-f]{64})"')
_PAGE = re.compile(r"/compare|/runs/[^/]+(/report)?")
NEVER = "no-store"
A_YEAR = "private, max-age=31536000, immutable"


@dataclass(frozen=True)
class Files:
    """What pages load, by name, and one word that changes with any of it."""

    paths: Mapping[str, Path]
    version: str
    sheets: tuple[str, ...]
    """Ids of the style sheets that plotly would add, which the policy refuses: where a page has one of
    that id, plotly takes it as it is."""


class Site:
    """What the routes share.

    Args:
        root: the folder of the run folders.
        read_only: whether every command is refused.
    """

    def __init__(self, root: Path, *, read_only: bool) -> None:
        self.root = root
        self.read_only = read_only
        self.runs = Runs(root)
        self.files = _files()
        self.streams = 0
        self.boot = secrets.token_hex(4)
        self._views: OrderedDict[Path, View] = OrderedDict()
        self._listing = asyncio.Lock()
        self._comparing = asyncio.Semaphore(1)

    def view(self, name: str) -> View:
        """The run of that name, kept for the next who asks.

        Raises:
            RequestError: there is none.
        """
        folder = run_folder(self.root, name)
        key = folder.path.resolve()
        view = self._views.get(key) or View(folder)
        self._views[key] = view
        self._views.move_to_end(key)
        while len(self._views) > MOST_VIEWS:
            self._views.popitem(last=False)
        return view

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """A page of ours: no script runs in it but our own."""
        nonce = secrets.token_urlsafe(16)
        text = (
            environment(HERE / "templates")
            .get_template(template)
            .render(
                nonce=nonce,
                version=self.files.version,
                sheets=self.files.sheets,
                folder=self.root.name or str(self.root),
                read_only=self.read_only,
                **values,
            )
        )
        headers = {**HEADERS, "content-security-policy": policy(nonce), "cache-control": NEVER}
        return Response(text, status, headers, "text/html; charset=utf-8")

    # -- pages
    # ----------------------------------------------------------------------------------------------

    async def all_runs(self, request: Request) -> Response:
        return self.page("runs.html.j2")

    async def one_run(self, request: Request) -> Response:
        view = self.view(request.path_params["name"])
        return self.page("run.html.j2", name=view.folder.name)

    async def comparison(self, request: Request) -> Response:
        names = request.query_params.getlist("run")
        return self.page("compare.html.j2", names=names)

    async def report(self, request: Request) -> Response:
        folder = run_folder(self.root, request.path_params["name"])
        if not folder.report_path.is_file():
            raise RequestError(
                f"run `{folder.name}` has no report yet: it is drawn when the run ends",
                next=f"draw it now: loraloom report {folder.path}",
            )
        headers = {**HEADERS, "content-security-policy": REPORT_POLICY, "cache-control": NEVER}
        return FileResponse(folder.report_path, headers=headers, media_type="text/html; charset=utf-8")

    async def file(self, request: Request) -> Response:
        path = self.files.paths.get(request.path_params["file"])
        if path is None:
            raise RequestError("there is no such file", next="go back to the list of runs")
        kind = "text/css" if path.suffix == ".css" else "text/javascript"
        headers = {**HEADERS, "cache-control": A_YEAR}
        return FileResponse(path, headers=headers, media_type=f"{kind}; charset=utf-8")

    # -- data
    # ----------------------------------------------------------------------------------------------

    async def listing(self, request: Request) -> Response:
        async with self._listing:
            rows = await stream.apart(self.runs.rows)
        return _json({"runs": rows})

    async def snapshot(self, request: Request) -> Response:
        view = self.view(request.path_params["name"])

        def taken() -> bytes:
            view.refresh()
            return view.snapshot(boot=self.boot)

        body = memoryview(await stream.apart(taken))

        async def pieces() -> AsyncIterator[memoryview]:
            # megabytes for very many candidates, which would lie in memory several times at once
            for start in range(0, len(body), PIECE_BYTES):
                yield body[start : start + PIECE_BYTES]

        headers = {**HEADERS, "cache-control": NEVER}
        return StreamingResponse(pieces(), headers=headers, media_type="application/json")

    async def candidate(self, request: Request) -> Response:
        """All settings of one candidate, and which of them a clone may change."""
        view = self.view(request.path_params["name"])
        trial = view.trial(request.path_params["trial"])
        if trial is None:
            raise RequestError("this run has no such candidate", next="reload the page")
        from loraloom.config.space import searchable  # pydantic comes with it: 8 MiB

        return _json({**trial, "searchable": [key for key in searchable() if key in trial["settings"]]})

    async def command(self, request: Request) -> Response:
        """Ask something of the run: what becomes of it is told by the stream."""
        if self.read_only:
            what, advice = "this server only shows", "start it again without --read-only"
            return _json({"error": {"what": what, "next": advice}}, 403)
        view = self.view(request.path_params["name"])
        body = await request.body()
        try:
            answer = await stream.apart(lambda: ask(view.folder, body, view.states()))
            return _json(answer, 202)
        except LoraloomError as error:
            parts = {"what": error.what, "got": error.got, "need": error.need, "next": error.next}
            known = {key: part for key, part in parts.items() if part}
            return _json({"error": known}, status_of(error))

    async def stream(self, request: Request) -> Response:
        view = self.view(request.path_params["name"])
        if self.streams >= MOST_STREAMS:
            return _json({"error": {"what": "too many pages are open"}}, 503)
        asked = request.query_params
        begin = stream.where_to_begin(request.headers.get("last-event-id"), asked.get("place"))
        version = asked.get("version", "")
        # after a restart of the server versions begin anew: then all pieces are newer
        seen = int(version) if version.isdecimal() and asked.get("boot") == self.boot else -1

        async def counted() -> AsyncIterator[bytes]:
            self.streams += 1
            try:
                async for message in stream.changes(view, begin, seen):
                    yield message
            finally:
                self.streams -= 1

        headers = {**HEADERS, "cache-control": NEVER}
        return StreamingResponse(counted(), headers=headers, media_type="text/event-stream")

    async def compared(self, request: Request) -> Response:
        """What `loraloom compare` says, from a process of its own: it reads the costs of all rows."""
        places = request.query_params.getlist("run")
        if not 1 <= len(places) <= MOST_COMPARED:
            raise RequestError(f"one run to {MOST_COMPARED} can be compared", next="choose fewer")
        for place in places:
            run_folder(self.root, place.partition(":")[0])
        words = ["compare", "--json", "--output-dir", str(self.root), "--", *places]
        async with self._comparing:
            return _json(*await _ran(words))


def application(root: Path, *, read_only: bool) -> Starlette:
    """The application, without its guard."""
    site = Site(root, read_only=read_only)
    routes = [
        Route("/", site.all_runs),
        Route("/compare", site.comparison),
        Route("/static/{file}", site.file),
        Route("/runs.json", site.listing),
        Route("/compare.json", site.compared),
        Route("/runs/{name}", site.one_run),
        Route("/runs/{name}/report", site.report),
        Route("/runs/{name}/snapshot", site.snapshot),
        Route("/runs/{name}/stream", site.stream),
        Route("/runs/{name}/trials/{trial}", site.candidate),
        Route("/runs/{name}/commands", site.command, methods=["POST"]),
    ]

    async def refused(request: Request, error: Exception) -> Response:
        found: Any = error
        status = 404 if isinstance(error, RequestError) else 500
        if not _is_page(request.url.path):
            return _json({"error": {"what": found.what, "next": found.next}}, status)
        return site.page("message.html.j2", status, what=found.what, next=found.next or "")

    return Starlette(routes=routes, exception_handlers={LoraloomError: refused})


async def _ran(words: list[str]) -> tuple[bytes, int]:
    """The document that a command of ours prints, and the status that it is sent with."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "loraloom",
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        out, _ = await asyncio.wait_for(child.communicate(), COMPARE_SECONDS)
    except TimeoutError:
        raise StoreError(
            "comparing took too long", next=f"do it in a terminal: loraloom {' '.join(words)}"
        ) from None
    finally:
        if child.returncode is None:
            child.kill()
    return out or b"{}", 200 if child.returncode == 0 else 422


def _json(content: Any, status: int = 200) -> Response:
    body = content if isinstance(content, bytes) else to_json(content)
    headers = {**HEADERS, "cache-control": NEVER}
    return Response(body, status, headers, "application/json")


def _files() -> Files:
    paths = {name: HERE / "static" / name for name in OWN_FILES}
    paths["page.css"] = REPORT_FILES / "page.css"
    # found, not imported: plotly's Python takes 20 MiB, and only its script is wanted
    plotly = importlib.util.find_spec("plotly")
    if plotly is not None and plotly.submodule_search_locations:
        paths["plotly.js"] = Path(plotly.submodule_search_locations[0], "package_data", "plotly.min.js")
    stamps = [path.stat() for path in paths.values() if path.is_file()]
    version = hash(tuple((one.st_size, one.st_mtime_ns) for one in stamps)) & 0xFFFFFFFF
    return Files(paths, f"{version:08x}", _sheets(paths.get("plotly.js")))


def _sheets(script: Path | None) -> tuple[str, ...]:
    if script is None or not script.is_file():
        return ()
    # mapped, not read: 5 MB that are wanted once
    with script.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return (GLOBAL_SHEET, *(found.decode() for found in set(_SHEET.findall(text))))


def _is_page(path: str) -> bool:
    """Whether a person reads what is there, and not a script."""
    return path == "/" or bool(_PAGE.fullmatch(path))
