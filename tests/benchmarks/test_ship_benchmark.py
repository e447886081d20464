"""The benchmark of artefacts: its committed result keeps the promises, its tables are those of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from scripts import load

from loraloom.adapters.proof import PROMISES

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "ship"
sys.path.insert(0, str(FOLDER))
bench: Any = load("ship")
RESULT: dict[str, Any] = json.loads((FOLDER / "result.json").read_text(encoding="utf-8"))
ROWS: list[dict[str, Any]] = [row for row in RESULT["rows"] if "refused" not in row]
FORMATS = {"gguf-lora": "GGUF LoRA", "vllm": "PEFT"}


def promised(artefact: str) -> float | None:
    """The bound of an artefact's mean KL, before its share of the effect."""
    name = FORMATS.get(artefact) or artefact.replace("gguf:", "GGUF ").removeprefix("merged ")
    return PROMISES[name].kl if name in PROMISES else None


@pytest.mark.parametrize("adapter", bench.ADAPTERS)
def test_the_committed_result_keeps_every_promise(adapter: str) -> None:
    ours = [row for row in ROWS if row["adapter"] == adapter and row["by"] == "loraloom"]
    assert {row["artefact"] for row in ours} >= {*bench.TARGETS, "merged F32", "merged BF16"}
    for row in ours:
        bound = promised(row["artefact"])
        assert row["token_ids_equal"] and row["effect"] > 0.05
        assert bound is None or row["kl_mean"] <= bound, row
        assert bound is not None or 0 < row["base_kl"] < 2 * row["kl_mean"], row


def test_other_tools_are_beside_ours() -> None:
    theirs = {
        (row["adapter"], row["artefact"]): row["kl_mean"] for row in ROWS if row["by"] == "llama.cpp"
    }
    assert theirs["LoRA", "gguf-lora"] < 1e-9 < 1e-4 < theirs["rsLoRA", "gguf-lora"]


def test_the_tables_of_the_readme_are_those_of_the_result() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for table in (bench.table(RESULT["rows"], "LoRA"), bench.by_adapter(RESULT["rows"])):
        assert all(line in text for line in table.splitlines())
