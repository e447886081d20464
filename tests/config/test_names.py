"""Dotted keys: each is declared in `config.asked`, named in `config.names`, and typed nowhere else."""

from __future__ import annotations

import ast
from pathlib import Path

import loraloom
from loraloom.config import names
from loraloom.config.keys import keys

SOURCE = Path(loraloom.__file__).parent
NAMED = {name: key for name, key in vars(names).items() if name.isupper()}


def test_a_constant_is_the_last_word_of_its_key() -> None:
    for name, key in NAMED.items():
        assert key in keys() and name == key.rpartition(".")[2].upper()


def test_no_other_file_types_a_key_that_has_a_name() -> None:
    found: list[str] = []
    for path in sorted(SOURCE.rglob("*.py")):
        if path == Path(names.__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in NAMED.values():
                found.append(f"{path.relative_to(SOURCE)}:{node.lineno} {node.value}")
    assert not found, "\n".join(found)
