"""The server itself: one address on this machine, from Ctrl-C to Ctrl-C."""

from __future__ import annotations

import errno
import gc
import os
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from loraloom.errors import RequestError
from loraloom.store.folder import no_place
from loraloom.web.guard import Guard, token_of

if TYPE_CHECKING:
    import uvicorn

HOST = "127.0.0.1"
GRACE_SECONDS = 2
"""For open pages, when the server is stopped."""
LARGEST_HEADERS = 16 * 1024
HEAP = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}
"""For glibc: what was read for a moment goes back to the system, 5 MiB for a thousand candidates."""


@dataclass(frozen=True)
class Door:
    """Where a server listens."""

    root: Path
    socket: socket.socket
    port: int
    token: str

    @property
    def address(self) -> str:
        """What lets a browser in."""
        return f"http://{HOST}:{self.port}/?token={self.token}"


@contextmanager
def listening(output_dir: str | Path, port: int) -> Generator[Door]:
    """Take the port.

    Raises:
        RequestError: starlette and uvicorn are missing, the folder is a file, or the port is taken.
    """
    _require_packages()
    root = Path(output_dir)
    if root.is_file():
        raise no_place(root)
    if not root.is_dir():
        raise RequestError(
            f"there is no folder `{root}`",
            need="the folder that holds the run folders",
            next="begin a run first, or name the folder: loraloom serve OUTPUT_DIR",
        )
    door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((HOST, port))
        door.listen(128)
    except OSError as error:
        door.close()
        raise _refused(port, error) from error
    with door:
        taken = door.getsockname()[1]
        yield Door(root, door, taken, token_of(taken))


def config_of(door: Door, *, read_only: bool) -> uvicorn.Config:
    """What the server is made of."""
    import uvicorn

    from loraloom.web.app import application

    return uvicorn.Config(
        Guard(application(door.root, read_only=read_only), door.token, door.port),
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        h11_max_incomplete_event_size=LARGEST_HEADERS,
    )


def run_server(door: Door, *, read_only: bool) -> None:
    """Serve until Ctrl-C."""
    import uvicorn

    config = config_of(door, read_only=read_only)
    gc.freeze()
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[door.socket])


def become_server(door: Door, *, read_only: bool) -> None:
    """Serve until Ctrl-C, as a program without the command line's own libraries where the system can
    turn one program into another: they are 20 MiB, and a page is left open for days."""
    if os.name != "posix":
        run_server(door, read_only=read_only)
        return
    door.socket.set_inheritable(True)
    told = [str(door.root), str(door.socket.fileno()), "yes" if read_only else "no"]
    sys.stdout.flush()
    for name, value in HEAP.items():
        os.environ.setdefault(name, value)
    os.execv(sys.executable, [sys.executable, "-m", "loraloom.web.server", *told])


def _main(root: str, handle: str, read_only: str) -> None:
    """Go on with the socket that the command line has opened."""
    with socket.socket(fileno=int(handle)) as taken:
        port = taken.getsockname()[1]
        run_server(Door(Path(root), taken, port, token_of(port)), read_only=read_only == "yes")


def _require_packages() -> None:
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise RequestError(
            f"the live page needs packages that are not here: {', '.join(missing)}",
            next="pip install 'loraloom[serve]'",
        )


def _refused(port: int, error: OSError) -> RequestError:
    if error.errno == errno.EADDRINUSE:
        return RequestError(
            f"port {port} is taken by another program, or another `loraloom serve`",
            next="--port 0 takes a free one",
        )
    return RequestError(
        f"this process may not listen on port {port}", got=str(error), next="--port 0 takes a free one"
    )


if __name__ == "__main__":
    _main(*sys.argv[1:])
