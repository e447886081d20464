"""Bases that several tests read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from small_bases import save_base


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Each base once; nobody writes into its folder."""
    root = tmp_path_factory.mktemp("bases")

    def base(kind: str) -> Path:
        return root / kind if (root / kind).is_dir() else save_base(kind, root / kind)

    return base
