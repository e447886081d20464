"""A server in a thread, for tests that ask it over a real connection."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serving(root: Path, *, read_only: bool = False, port: int = 0) -> Generator[str]:
    """The printed address of a server."""
    import uvicorn

    from loraloom.web import server

    with server.listening(root, port) as door:
        made = uvicorn.Server(server.config_of(door, read_only=read_only))
        thread = threading.Thread(target=made.run, kwargs={"sockets": [door.socket]}, daemon=True)
        thread.start()
        while not made.started:
            time.sleep(0.01)
        try:
            yield door.address
        finally:
            made.should_exit = True
            thread.join(10)
