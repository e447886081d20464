"""What is written in two places says the same in both: dependencies, tested versions, walls."""

from __future__ import annotations

import ast
import re
import tokenize
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import grimp
import pytest

import loraloom

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def name_of(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def test_every_dependency_has_its_reason() -> None:
    table = CONTRIBUTING.partition("| package | for |")[2].partition("\n\n")[0]
    explained = {name.strip() for row in table.splitlines()[2:] for name in row.split("|")[1].split(",")}
    assert explained == {name_of(requirement) for requirement in PROJECT["project"]["dependencies"]}
    for extra in PROJECT["project"]["optional-dependencies"]:
        assert f"`{extra}`" in CONTRIBUTING


def test_what_the_targets_install_has_a_tested_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", pin) for pin in pins)
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = {
        name_of(requirement)
        for requirement in [*PROJECT["project"]["dependencies"], *extras["dev"], *extras["demo"]]
    }
    assert wanted <= {name_of(pin) for pin in pins}
    assert "torch==2.13.0" in pins


def test_the_walls_are_drawn_as_they_are_held() -> None:
    rooms = next(
        contract
        for contract in PROJECT["tool"]["importlinter"]["contracts"]
        if contract["id"] == "rooms"
    )
    drawn = CONTRIBUTING.partition("```\n")[2].partition("\n```")[0].splitlines()
    assert drawn == rooms["layers"]


ROOMS = sorted(path.parent.name for path in (ROOT / "src" / "loraloom").glob("*/__init__.py"))


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """What each file imports of ours, also for its types alone."""
    graph = grimp.build_graph("loraloom", cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


@pytest.mark.parametrize("room", ROOMS)
def test_no_file_imports_in_a_circle(room: str, imports: dict[str, set[str]]) -> None:
    """Between rooms the walls see to it."""
    inside = {module for module in imports if module.startswith(f"loraloom.{room}.")}
    TopologicalSorter({module: imports[module] & inside for module in inside}).prepare()


def test_every_public_name_is_there_and_typed() -> None:
    source = Path(loraloom.__file__).read_text(encoding="utf-8")
    for name, home in loraloom._HOMES.items():  # pyright: ignore[reportPrivateUsage]
        assert f"    from loraloom.{home} import {name} as {name}\n" in source
        assert (ROOT / "src" / "loraloom" / f"{home.replace('.', '/')}.py").is_file()
        assert name in dir(loraloom)
    assert loraloom.Config.__name__ == "Config"
    assert loraloom.load_config().search.trials == "auto"
    assert loraloom.__version__ == PROJECT["project"]["version"]
    with pytest.raises(AttributeError, match="no attribute 'weave'"):
        loraloom.weave  # noqa: B018


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, heading = target.partition("#")
        if not re.match(r"https?:", target):
            where = (page.parent / file) if file else page
            assert where.exists(), target
            assert not heading or heading in headings(where), target


def headings(page: Path) -> set[str]:
    """As GitHub calls them in addresses."""
    found = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in found}


def documented(docstring: str) -> set[str]:
    """The names that stand under `Args:` in a docstring."""
    _, found, section = docstring.partition("Args:\n")
    lines = re.split(r"\n(?=\S)", section, maxsplit=1)[0].splitlines() if found else []
    heads = [line.partition(":")[0] for line in lines if re.match(r" {4}\S", line)]
    return {name.strip("* ") for head in heads for name in head.split(",")}


def parameters(node: ast.AST) -> set[str]:
    """The arguments of a function, or of a class's constructor: its own, or the one
    that a dataclass gets from its fields."""
    if isinstance(node, ast.ClassDef):
        made = [
            inner
            for inner in node.body
            if isinstance(inner, ast.FunctionDef) and inner.name == "__init__"
        ]
        fields = [inner.target for inner in node.body if isinstance(inner, ast.AnnAssign)]
        return (
            parameters(made[0])
            if made
            else {field.id for field in fields if isinstance(field, ast.Name)}
        )
    assert isinstance(node, ast.FunctionDef)
    every = [
        *node.args.posonlyargs,
        *node.args.args,
        *node.args.kwonlyargs,
        node.args.vararg,
        node.args.kwarg,
    ]
    return {one.arg for one in every if one is not None}


def test_docstrings_explain_arguments_that_there_are() -> None:
    found: list[str] = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                absent = documented(ast.get_docstring(node) or "") - parameters(node)
                found += [
                    f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has no `{name}`"
                    for name in sorted(absent)
                ]
    assert not found, "\n".join(found)
    assert documented(
        "Does.\n\nArgs:\n    one, *two: what\n        goes on: here.\n\nRaises:\n    Three: no"
    ) == {"one", "two"}


OLD_WORDS = {
    "Entrant": "TrialGroup",
    "Finished": "Record",
    "Lane": "AdapterDelta",
    "Session": "Workbench or RunLog",
    "entrant": "group",
    "entrants": "groups",
    "lane": "delta",
    "Suggestion": "AskedTrial",
    "lanes": "deltas",
    "session": "bench or log",
    "slot": "trial",
}
"""Names that things had before they had one name each, and the one that they have now."""


def test_no_text_leans_on_a_document_that_nobody_can_open() -> None:
    """What is commonly advised was once told by the numbers of four guides."""
    paths = [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    found = [path for path in paths if "guide" in path.read_text(encoding="utf-8").lower()]
    assert not found, "\n".join(str(path.relative_to(ROOT)) for path in found)


def test_a_thing_has_one_name() -> None:
    found: list[str] = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        with tokenize.open(path) as file:
            names = {
                token.string
                for token in tokenize.generate_tokens(file.readline)
                if token.type == tokenize.NAME
            }
        found += [
            f"{path.relative_to(ROOT)}: {word}, now {OLD_WORDS[word]}"
            for word in sorted(names & OLD_WORDS.keys())
        ]
    assert not found, "\n".join(found)


def outside_imports() -> list[Any]:
    """(file, module, name) of all that benchmarks and examples take from the package."""
    found: list[Any] = []
    for path in sorted([*ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("examples/*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("loraloom"):
                names = ((path.relative_to(ROOT), node.module, each.name) for each in node.names)
                found.extend(names)
    return found


def defined(module: str) -> set[str]:
    """Names at the top of a module, and the modules inside it, without importing it."""
    place = ROOT / "src" / module.replace(".", "/")
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    inside = {each.stem for each in place.iterdir()} if place.is_dir() else set[str]()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                inside.add(node.name)
            case ast.Name(ctx=ast.Store()):
                inside.add(node.id)
            case ast.Import() | ast.ImportFrom():
                inside.update((each.asname or each.name) for each in node.names)
            case ast.Constant(value=str() as word):
                inside.add(word)  # lazily imported names are listed as text
            case _:
                pass
    return inside


def test_benchmarks_and_examples_import_what_there_is() -> None:
    absent = [(str(f), m, name) for f, m, name in outside_imports() if name not in defined(m)]
    assert absent == []
