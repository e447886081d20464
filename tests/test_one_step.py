"""docs/one_step.md names files and functions that exist, each in the file that it says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "one_step.md"
ROW = re.compile(
    r"^\| (?P<number>\d+)(?: \[[^]]+\]\((?P<link>[^)]+)\))? \| (?P<functions>[^|]+) \|", re.MULTILINE
)


def steps() -> list[tuple[Path, str]]:
    """(file, function) of every row of the page's tables; the first row of a number has the file."""
    files: dict[str, Path] = {}
    found: list[tuple[Path, str]] = []
    for row in ROW.finditer(PAGE.read_text(encoding="utf-8")):
        if row["link"]:
            files[row["number"]] = (PAGE.parent / row["link"]).resolve()
        found += [(files[row["number"]], name) for name in re.findall(r"`([\w.]+)`", row["functions"])]
    return found


def names_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)
            }
        elif isinstance(node, ast.FunctionDef):
            names.add(node.name)
    return names


@pytest.mark.parametrize(("file", "name"), steps(), ids=lambda value: getattr(value, "name", value))
def test_a_function_is_where_the_page_says(file: Path, name: str) -> None:
    assert name in names_in(file)


def test_the_page_counts_its_files() -> None:
    numbers = re.findall(r"^\| (\d+) \[", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert numbers == [str(n + 1) for n in range(12)]
