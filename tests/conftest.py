"""What every test may count on: no network, no storage of the user's, and the larger
fixtures where they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import settings

from postgres_server import Server, binaries

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Machines that run the tests are slow at times and must agree on the outcome: no
# deadline, the same examples everywhere.
settings.register_profile("loraloom", deadline=None, derandomize=True)
settings.load_profile("loraloom")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Models and data that are too large for the repository: `LORALOOM_SHARED`, else
    `shared` beside the checkout."""
    folder = Path(os.environ.get("LORALOOM_SHARED") or Path(__file__).resolve().parents[2] / "shared")
    if not folder.is_dir():
        pytest.skip("needs the shared models and data: set LORALOOM_SHARED to their folder")
    return folder


@pytest.fixture(autouse=True)
def own_storage(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.delenv("LORALOOM_STORAGE", raising=False)
    # some shells export it, and what a command prints depends on it
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server that nobody else uses."""
    pytest.importorskip("psycopg", reason="needs psycopg: pip install loraloom[postgres]")
    programs = binaries()
    if programs is None:
        pytest.skip("needs the programs of a PostgreSQL server: apt-get install postgresql")
    server = Server(programs)
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture
def double_throughout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of transformers compute in float64 alone (tests/doubles.py says why)."""
    from doubles import keep_float64

    keep_float64(monkeypatch)


@pytest.fixture(scope="session")
def interpreter() -> None:
    """Triton is there, and its interpreter can run kernels on a CPU. Without CUDA that
    is so on Linux, with the extra `dev`."""
    pytest.importorskip("triton", reason="needs Triton: pip install loraloom[gpu], on Linux")
    releases = {name: tuple(map(int, version(name).split(".")[:2])) for name in ("triton", "numpy")}
    if releases["triton"] < (3, 7) and releases["numpy"] >= (2, 4):
        pytest.skip(
            "the interpreter of Triton 3.6 cannot run loops over tokens with NumPy 2.4: take a newer"
            " Triton"
        )


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
