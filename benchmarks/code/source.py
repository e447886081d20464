"""What can be counted in one Python file: lines, functions, comments, dense
expressions, and what it imports."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

FOR_TOOLS = (
    "fmt:",
    "noqa",
    "type:",
    "pyright:",
    "pragma:",
    "pylint:",
    "mypy:",
    "ruff:",
    "yapf:",
    "isort:",
    "!",
)
"""A comment that begins so is read by a tool and explains nothing."""


@dataclass(frozen=True)
class Source:
    """One file, counted. Widths are in columns, functions in lines from `def` to their
    end, docstring and all."""

    widths: tuple[int, ...]
    functions: tuple[int, ...]
    code_lines: int
    comment_lines: int
    statements: int
    ternaries: int
    comprehensions: int
    imports: frozenset[str]
    """Names of other measured modules, also those that are imported for types alone or
    inside a function."""


def read(path: Path, module: str, modules: frozenset[str]) -> Source:
    """Counts one file. `module` is its dotted name, `modules` has those of all files
    that are measured with it.

    Raises SyntaxError where the file is not Python.
    """
    with tokenize.open(path) as file:
        text = file.read()
    tree = ast.parse(text)
    nodes = list(ast.walk(tree))
    docstrings = {id(node) for node in nodes if _is_docstring(node)}
    statements = [node for node in nodes if isinstance(node, ast.stmt) and id(node) not in docstrings]
    functions = [node for node in statements if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return Source(
        widths=_widths(text),
        functions=tuple((node.end_lineno or node.lineno) - node.lineno + 1 for node in functions),
        code_lines=len(_code_lines(text, tree)),
        comment_lines=_comment_lines(text),
        statements=len(statements),
        ternaries=sum(isinstance(node, ast.IfExp) for node in nodes),
        comprehensions=sum(isinstance(node, comprehension) for node in nodes),
        imports=frozenset(_imports(nodes, package, modules)) - {module},
    )


def _widths(text: str) -> tuple[int, ...]:
    """The columns that each line takes. A word to a tool at the end of a line does not count."""
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and token.string.lstrip("# ").startswith(FOR_TOOLS):
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip()
    return tuple(len(line) for line in lines)


def _is_docstring(node: ast.AST) -> bool:
    """A string that stands as a statement: PEP 257's docstrings, also those below an attribute."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _code_lines(text: str, tree: ast.Module) -> set[int]:
    """Numbers of the lines that hold more than white space, comments and docstrings."""
    lines: set[int] = set()
    silent = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in silent:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if _is_docstring(node):
            assert isinstance(node, ast.Expr)
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def _comment_lines(text: str) -> int:
    """`#` comments that say something to a reader of the file: neither its licence nor
    a word to a tool."""
    comments: list[str] = []
    head: list[str] | None = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            (comments if head is None else head).append(token.string.lstrip("#").strip())
        elif head is not None and token.type not in (tokenize.NL, tokenize.ENCODING):
            if not any("copyright" in line.lower() or "licen" in line.lower() for line in head):
                comments += head
            head = None
    return sum(bool(comment) and not comment.startswith(FOR_TOOLS) for comment in comments)


def _imports(nodes: list[ast.AST], package: str, modules: frozenset[str]) -> Iterator[str]:
    """The measured modules that these nodes import. `from a import b` is a.b where that
    is a module, a otherwise."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (_module(alias.name, modules) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            start = ".".join(parents[: len(parents) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (start, node.module) if part)
            yield from (_module(f"{base}.{alias.name}", modules) for alias in node.names)


def _module(name: str, modules: frozenset[str]) -> str:
    """The longest beginning of a dotted name that is a measured module; empty where none is."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def circles(imports: Mapping[str, frozenset[str]]) -> list[set[str]]:
    """Groups of modules that reach one another by imports, each of two or more:
    strongly connected components."""
    found: list[set[str]] = []
    reached = {module: _reached(module, imports) for module in imports}
    left = set(imports)
    while left:
        module = left.pop()
        circle = {module} | {other for other in reached[module] & left if module in reached[other]}
        left -= circle
        if len(circle) > 1:
            found.append(circle)
    return found


def _reached(start: str, imports: Mapping[str, frozenset[str]]) -> set[str]:
    """All modules that one imports, directly or by way of others."""
    seen: set[str] = set()
    ahead = [start]
    while ahead:
        for module in imports.get(ahead.pop(), frozenset()):
            if module and module not in seen:
                seen.add(module)
                ahead.append(module)
    return seen
