"""What is proved here in float64 is proved of models that compute in float64 throughout."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def in_float64(double_throughout: None) -> None:
    """For every test of this folder."""
