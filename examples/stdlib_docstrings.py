"""A real data set that every Python brings along: which package of the standard library
is this docstring from?

    python examples/stdlib_docstrings.py OUT

writes OUT/train.jsonl, OUT/validation.jsonl and OUT/test.jsonl with the columns `text`, `label` and
`name`. The sources are parsed, never imported. The classes are the packages with the most docstrings,
and every package name is struck out of every text. No function and no text stands in two splits.
"""

from __future__ import annotations

import ast
import json
import math
import random
import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

CLASSES = 10
MOST_ROWS_PER_CLASS = 240
HELD_OUT = 400
"""Rows each of validation and test, where the library gives enough."""
FEWEST_WORDS, MOST_WORDS = 4, 60
STRUCK_OUT = "..."

NOT_LIBRARY = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idle_test",
    "idlelib",
    "turtledemo",
    "lib2to3",
    "distutils",
}
"""Installed packages, tests and an editor; the last two left Python in 3.12 and 3.13."""


class Docstring(NamedTuple):
    package: str
    name: str
    """Qualified: "email.message.Message.get_payload"."""
    text: str


def write(folder: str | Path, seed: int = 0) -> dict[str, int]:
    """Write the three files into `folder` (made if need be); the same Python and seed
    give the same bytes.

    Returns:
        The number of rows of each split.

    Raises:
        RuntimeError: this Python came without the sources or docstrings of its library.
    """
    splits = make_splits(seed)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for name, rows in splits.items():
        lines = (
            json.dumps({"text": row.text, "label": row.package, "name": row.name}, ensure_ascii=False)
            for row in rows
        )
        (target / f"{name}.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return {name: len(rows) for name, rows in splits.items()}


def make_splits(seed: int = 0) -> dict[str, list[Docstring]]:
    """train, validation and test, shuffled, each with the same share of every class."""
    rng = random.Random(seed)
    classes = choose_classes(library_docstrings())
    for rows in classes.values():
        rng.shuffle(rows)
        del rows[MOST_ROWS_PER_CLASS:]
    share = min(0.25, HELD_OUT / sum(len(rows) for rows in classes.values()))
    splits: dict[str, list[Docstring]] = {"train": [], "validation": [], "test": []}
    for rows in classes.values():
        held_out = math.ceil(share * len(rows))
        splits["validation"] += rows[:held_out]
        splits["test"] += rows[held_out : 2 * held_out]
        splits["train"] += rows[2 * held_out :]
    for rows in splits.values():
        rng.shuffle(rows)
    return splits


def choose_classes(rows: Iterable[Docstring]) -> dict[str, list[Docstring]]:
    """Usable rows of the richest packages, their names struck out."""
    rows = distinct(rows)
    richest = [package for package, _ in Counter(row.package for row in rows).most_common(CLASSES)]
    names = re.compile("|".join(map(re.escape, richest)), re.IGNORECASE)
    struck = (
        row._replace(text=names.sub(STRUCK_OUT, row.text)) for row in rows if row.package in richest
    )
    classes: dict[str, list[Docstring]] = {package: [] for package in sorted(richest)}
    for row in distinct(struck):
        if len(re.findall(r"[^\W\d_]{2,}", row.text)) >= FEWEST_WORDS:
            classes[row.package].append(row)
    if len(classes) < CLASSES or min(map(len, classes.values())) < 20:
        raise RuntimeError(
            f"{sysconfig.get_path('stdlib')} has too few docstrings: install Python with the sources of"
            " its library"
        )
    return classes


def library_docstrings() -> Iterator[Docstring]:
    """Every docstring of a module, class or function in the public packages of the standard library."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[0].startswith(("_", "config-")) or NOT_LIBRARY.intersection(parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # templates, and files that are broken on purpose
            continue
        for name, text in docstrings_of(tree, ".".join(part for part in parts if part != "__init__")):
            yield Docstring(parts[0], name, " ".join(text.split()[:MOST_WORDS]))


def docstrings_of(tree: ast.Module, module: str) -> Iterator[tuple[str, str]]:
    """(qualified name, docstring) of the module and of all that is defined in it, however deep."""
    open_nodes: list[tuple[ast.AST, str]] = [(tree, module)]
    while open_nodes:
        node, name = open_nodes.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if not isinstance(node, ast.Module):
                name = f"{name}.{node.name}"
            if text := ast.get_docstring(node):
                yield name, text
        inside = [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr)]
        open_nodes += [(child, name) for child in reversed(inside)]


def distinct(rows: Iterable[Docstring]) -> list[Docstring]:
    """One row a name and one a text. A text that several packages share tells of none
    of them, and goes."""
    by_name: dict[str, Docstring] = {}
    for row in rows:
        by_name.setdefault(row.name, row)
    by_text: dict[str, Docstring] = {}
    packages: dict[str, set[str]] = {}
    for row in by_name.values():
        key = row.text.casefold()
        by_text.setdefault(key, row)
        packages.setdefault(key, set()).add(row.package)
    return [row for key, row in by_text.items() if len(packages[key]) == 1]


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python examples/stdlib_docstrings.py OUT", file=sys.stderr)
        return 2
    counts = write(sys.argv[1])
    print(", ".join(f"{name} {rows:,}" for name, rows in counts.items()), "rows in", sys.argv[1])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
