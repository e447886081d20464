"""Ray clusters of this machine for tests: on the loopback alone, on whatever ports are free, with a
token that is not the user's."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from ray_nodes import ENVIRONMENT


@pytest.fixture(scope="session")
def ray_environment() -> Iterator[pytest.MonkeyPatch]:
    """Ray is there, and not imported yet: what it reads then is set."""
    if find_spec("ray") is None:
        pytest.skip('needs Ray: pip install "loraloom[cluster]"')
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        # Its machines are processes of this one, and find the modules of the tests as it does.
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        yield patch
