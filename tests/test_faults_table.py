"""docs/faults.md names tests that exist, and says of each fault which they are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "faults.md").read_text()
FAULTS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ")
][2:]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED.findall(PAGE)}))
def test_every_test_that_is_named_exists(file: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    known = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert {name for other, name in NAMED.findall(PAGE) if other == file} <= known


@pytest.mark.parametrize("cells", FAULTS, ids=lambda cells: cells[0])
def test_every_fault_says_what_happens_what_is_lost_and_where_it_is_shown(cells: list[str]) -> None:
    assert len(cells) == 4 and all(cells)
    assert NAMED.search(cells[3])
