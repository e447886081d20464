"""Runs that grow, and a server in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from growing import GrowingRun

pytest.importorskip("starlette", reason="needs starlette: pip install 'loraloom[serve]'")
uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn: pip install 'loraloom[serve]'")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def run(root: Path) -> Iterator[GrowingRun]:
    """A run that goes on, with nothing in it yet."""
    made = GrowingRun(root)
    yield made
    made.close()


@contextmanager
def serving(root: Path, *, read_only: bool = False, port: int = 0) -> Generator[str]:
    """The printed address of a server in a thread."""
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


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Serve a folder until the test ends; gives the printed address."""
    with ExitStack() as stack:
        yield lambda root, **options: stack.enter_context(serving(root, **options))
