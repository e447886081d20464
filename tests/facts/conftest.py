"""Model folders, made when a test asks for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from families import FAMILIES

Folder = Callable[[str], str]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The path of a folder with a family's config.json and nothing else."""
    made: dict[str, str] = {}

    def make(family: str) -> str:
        if family not in made:
            path: Path = tmp_path_factory.mktemp(family)
            FAMILIES[family]().save_pretrained(path)
            made[family] = str(path)
        return made[family]

    return make
