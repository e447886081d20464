"""Runs the tests of this folder where nothing was computed before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
OF_KERNELS = "test_on_kernels.py"


@pytest.mark.parametrize("part", sorted(path.name for path in FOLDER.glob("test_on_*.py")))
def test_on_the_stand_in_device(part: str, request: pytest.FixtureRequest) -> None:
    if part == OF_KERNELS:
        request.getfixturevalue("interpreter")
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-n",
        "0",
        str(FOLDER / part),
    ]
    done = subprocess.run(
        words, env=os.environ | {"STAND_IN": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
