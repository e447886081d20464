"""The example that explains packed training: it stands alone, it runs, and it proves what it says."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "packed_loop.py"


def run(script: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def printed() -> str:
    done = run(SCRIPT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(printed: str) -> list[tuple[float, float, float]]:
    """First loss, last loss and difference of each candidate."""
    found = re.findall(r"([\d.]+) -> ([\d.]+)\s+(\S+)$", printed, re.MULTILINE)
    return [(float(first), float(last), float(difference)) for first, last, difference in found]


def test_it_imports_nothing_of_loraloom() -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text())):
        if isinstance(node, ast.Import):
            imported |= {each.name.split(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported <= {"__future__", "dataclasses", "time", "torch", "transformers"}


def test_every_candidate_ends_as_it_would_alone(printed: str) -> None:
    assert len(rows(printed)) == 3
    assert all(difference < 1e-6 for *_, difference in rows(printed))


def test_every_candidate_learns(printed: str) -> None:
    assert all(last < 0.8 * first for first, last, _ in rows(printed))


def test_together_they_pass_the_base_less_often(printed: str) -> None:
    together, alone = map(int, re.findall(r"(\d+) together, (\d+) one by one", printed)[0])
    assert together < alone / 2


def test_the_proof_can_fail(tmp_path: Path) -> None:
    """With a mean over everybody's tokens, as the model's own loss takes it, the neighbours are felt."""
    coupled = SCRIPT.read_text().replace(
        "loss_B[rows].sum() / tokens_B[rows].sum()", "loss_B[rows].sum() / tokens_B.sum()"
    )
    assert coupled != SCRIPT.read_text()
    (tmp_path / "coupled.py").write_text(coupled)
    done = run(tmp_path / "coupled.py")
    assert done.returncode == 1
    assert "is not what it would be alone" in done.stderr
