"""How the source reads, in numbers: this repository before and now, beside packages
that you have checked out.

    python benchmarks/code/measure.py  # this repository; seconds; writes result.json
    python benchmarks/code/measure.py httpx=~/src/httpx/httpx ...
        # and packages: NAME=FOLDER of its top package
    python benchmarks/code/measure.py --show                           # the committed result

Rows of packages that are not named again stay as they were measured. Tests inside a
package are left out.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from source import circles, read

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULT = HERE / "result.json"
BEFORE = "2891fee"
"""The last commit before the source was loosened and its rooms were cut anew."""
LONG_FILE = 400
WIDTHS = (100, 105)
SHARES = {"median": 0.5, "p90": 0.9, "max": 1.0}
LABELS = {
    "files": "files",
    "lines of a file, median/p90/max": "file_lines",
    "lines of a function": "function_lines",
    "comments per 100 lines": "comments_per_100_lines",
    **{f"% of lines over {limit} columns": f"percent_over_{limit}_columns" for limit in WIDTHS},
    "ternaries per 100 lines": "ternaries_per_100_lines",
    "comprehensions per 100 lines": "comprehensions_per_100_lines",
    "import cycles": "import_cycles",
    "files in import cycles": "files_in_import_cycles",
    f"files over {LONG_FILE} lines": f"files_over_{LONG_FILE}_lines",
    "lines": "lines",
    "lines of code": "code_lines",
    "statements": "statements",
}
"""What the table calls the counts."""


def measured(folder: Path) -> dict[str, Any]:
    """What is counted in a package, given the folder of its top module. Shares are in
    percent of all its lines.

    Raises SystemExit where the folder has no Python files.
    """
    paths = sorted(path for path in folder.rglob("*.py") if not _is_test(path.relative_to(folder)))
    if not paths:
        raise SystemExit(
            f"{folder} has no Python files; give the folder of a package: NAME=CHECKOUT/PACKAGE"
        )
    names = {path: _module_name(path, folder) for path in paths}
    modules = frozenset(names.values())
    sources = {names[path]: read(path, names[path], modules) for path in paths}
    # An empty __init__.py is a file only to Python.
    lengths = [len(source.widths) for source in sources.values() if source.widths]
    widths = [width for source in sources.values() for width in source.widths]
    cycles = circles({module: source.imports for module, source in sources.items()})

    def percent(count: int) -> float:
        return round(100 * count / len(widths), 2)

    return {
        "files": len(lengths),
        "file_lines": _spread(lengths),
        "function_lines": _spread([lines for source in sources.values() for lines in source.functions]),
        "comments_per_100_lines": percent(sum(source.comment_lines for source in sources.values())),
        **{f"percent_over_{limit}_columns": percent(sum(w > limit for w in widths)) for limit in WIDTHS},
        "ternaries_per_100_lines": percent(sum(source.ternaries for source in sources.values())),
        "comprehensions_per_100_lines": percent(
            sum(source.comprehensions for source in sources.values())
        ),
        "import_cycles": len(cycles),
        "files_in_import_cycles": sum(len(cycle) for cycle in cycles),
        f"files_over_{LONG_FILE}_lines": sum(lines > LONG_FILE for lines in lengths),
        "lines": len(widths),
        "code_lines": sum(source.code_lines for source in sources.values()),
        "statements": sum(source.statements for source in sources.values()),
    }


def _is_test(path: Path) -> bool:
    """Whether a file, given by its path inside the package, holds tests by pytest's conventions."""
    in_folder = any(part in ("test", "tests") for part in path.parts[:-1])
    return (
        in_folder
        or path.stem.startswith("test_")
        or path.stem.endswith("_test")
        or path.stem == "conftest"
    )


def _module_name(path: Path, folder: Path) -> str:
    """The dotted name by which the file is imported."""
    parts = path.relative_to(folder.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _spread(counts: Sequence[int]) -> dict[str, int]:
    """Median, the value that nine in ten do not exceed, and the largest; of nothing, zeros."""
    ordered = sorted(counts) or [0]
    return {name: ordered[math.ceil(share * len(ordered)) - 1] for name, share in SHARES.items()}


def measured_at(commit: str) -> dict[str, Any]:
    """This repository's source at an earlier commit."""
    command = ["git", "archive", commit, "src"]
    archive = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        return measured(Path(folder) / "src" / "loraloom")


def commit_of(folder: Path) -> str | None:
    """The commit that is checked out where the folder lies; none outside a repository."""
    command = ["git", "-C", str(folder), "rev-parse", "--short=9", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """One column for each package, one line for each thing that is counted."""
    lines = [("", *rows)]
    for label, key in LABELS.items():
        lines.append((label, *(_cell(row[key]) for row in rows.values())))
    wide = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            [
                label.ljust(wide[0]),
                *(cell.rjust(size) for cell, size in zip(cells, wide[1:], strict=True)),
            ]
        )
        for label, *cells in lines
    )


def _cell(value: Any) -> str:
    """A spread as median/p90/max, a share with one decimal, a count as it is."""
    if isinstance(value, dict):
        return "/".join(map(str, value.values()))
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Counts how the source reads.")
    parser.add_argument(
        "packages", nargs="*", metavar="NAME=FOLDER", help="a package to put beside this one"
    )
    parser.add_argument(
        "--show", action="store_true", help="print the committed result, measure nothing"
    )
    parser.add_argument("--out", type=Path, default=RESULT, help="where the JSON goes")
    given = parser.parse_args(words)
    rows: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    if not given.show:
        rows["loraloom before"] = measured_at(BEFORE) | {"commit": BEFORE}
        rows["loraloom now"] = measured(ROOT / "src" / "loraloom")
        for word in given.packages:
            name, sign, place = word.partition("=")
            if not sign or not Path(place).expanduser().is_dir():
                parser.error(f"{word}: give NAME=FOLDER, the folder of a package")
            folder = Path(place).expanduser().resolve()
            rows[name] = measured(folder) | {"commit": commit_of(folder)}
        given.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
