"""The code benchmark counts what is there: a package of three files, each with something to count."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from scripts import BENCHMARKS, load

sys.path.insert(0, str(BENCHMARKS / "code"))
bench: Any = load("code", "measure")

ONE = f'''# Copyright of somebody
"""Of types alone, and back: a cycle."""
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .two import other


def first(other: "other") -> list[int]:
    """A docstring is no code."""
    # Why: it is what the test counts.
    return [n if n else 1 for n in range(3)]  # noqa: {"C416, " * 12}
'''
TWO = f'''def other():
    from package import one

    return one, "{"x" * 100}"
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    (folder / "tests").mkdir(parents=True)
    for name, text in {
        "__init__": "from package.one import first\n",
        "one": ONE,
        "two": TWO,
        "three": "",
    }.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    (folder / "tests" / "helper.py").write_text("nothing = 1\n", encoding="utf-8")
    return folder


def test_it_counts_what_is_there(package: Path) -> None:
    row = bench.measured(package)
    assert (row["files"], row["lines"]) == (3, 1 + 12 + 4)
    assert row["file_lines"] == {"median": 4, "p90": 12, "max": 12}
    assert row["function_lines"] == {"median": 4, "p90": 4, "max": 4}
    one_in_17 = round(100 / 17, 2)
    for key in ("comments_per_100_lines", "ternaries_per_100_lines", "comprehensions_per_100_lines"):
        assert row[key] == one_in_17, key
    assert row["percent_over_100_columns"] == row["percent_over_105_columns"] == one_in_17
    assert row["code_lines"] == 1 + 5 + 3
    assert row["statements"] == 1 + 5 + 3


def test_imports_for_types_and_inside_functions_close_a_cycle(package: Path) -> None:
    row = bench.measured(package)
    assert (row["import_cycles"], row["files_in_import_cycles"]) == (1, 2)
    (package / "two.py").write_text("other = 1\n", encoding="utf-8")
    assert bench.measured(package)["import_cycles"] == 0


def test_a_package_is_put_beside_this_one(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Without the history: a clone may be shallow.
    monkeypatch.setattr(bench, "measured_at", lambda commit: bench.measured(package))
    bench.main([f"mine={package}", "--out", str(tmp_path / "result.json")])
    rows = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert rows["mine"] == bench.measured(package) | {"commit": None}
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split()[-1] == "mine"
    assert shown[1].split() == ["files", *(str(row["files"]) for row in rows.values())]
    with pytest.raises(SystemExit, match="2"):
        bench.main(["mine=nowhere"])
