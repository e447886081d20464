"""Runs that grow, and servers that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from growing import GrowingRun
from served import serving

pytest.importorskip("starlette", reason="needs starlette: pip install 'loraloom[serve]'")
pytest.importorskip("uvicorn", reason="needs uvicorn: pip install 'loraloom[serve]'")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def run(root: Path) -> Iterator[GrowingRun]:
    """A run that goes on, with nothing in it yet."""
    made = GrowingRun(root)
    yield made
    made.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Serve a folder until the test ends; gives the printed address."""
    with ExitStack() as stack:
        yield lambda root, **options: stack.enter_context(serving(root, **options))
