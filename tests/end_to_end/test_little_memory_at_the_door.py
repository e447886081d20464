"""Less and less memory at the command line: what the plan takes by itself, and what it says of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from doorway import Door, World

WIDE = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
}
KEYS = ("training.gradient_checkpointing", "model.quantization", "model.streaming")


@pytest.fixture
def billion(world: World, tmp_path: Path) -> Path:
    """The config of a model of a billion parameters: `plan` needs no weights."""
    folder = tmp_path / "billion"
    shutil.copytree(world.llama, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | WIDE | {"dtype": "float32"}))
    return folder


def test_each_step_is_taken_when_it_is_needed(loraloom: Door, world: World, billion: Path) -> None:
    words = ["plan", "--model", billion, "--data", world.text, "--set", "model.dtype=bfloat16"]
    one = ["--batch-size", 1, "--max-packed", 1]

    def planned(*more: object) -> dict[str, Any]:
        answer = loraloom(*words, *more, "--json")
        assert answer.code == 0, answer.err
        return answer.json()

    def needs(*sets: str) -> int:
        settings = [word for one_set in sets for word in ("--set", one_set)]
        document = planned(*one, "--memory", "60GiB", *settings)
        return document["forecast"]["memory"]["high_bytes"]

    roomy = planned("--memory", "60GiB")
    assert [roomy["settings"][key]["value"] for key in KEYS] == [False, "none", False]
    whole = needs("training.gradient_checkpointing=true", "model.quantization=none")
    coded = needs("training.gradient_checkpointing=true", "model.quantization=nf4")
    assert coded < whole
    tight = planned("--memory", (whole + coded) // 2)
    assert [tight["settings"][key]["value"] for key in KEYS] == [True, "nf4", False]
    assert tight["forecast"]["memory"]["high_bytes"] <= (whole + coded) // 2
    assert tight["forecast"]["time"]["spreading_seconds"] > 0
    shown = loraloom(*words, "--memory", (whole + coded) // 2).out
    assert "quantization      nf4" in shown and "do not fit into" in shown


def test_the_price_of_each_step_is_told_in_seconds_and_quality(
    loraloom: Door, world: World, billion: Path
) -> None:
    words = ["plan", "--model", billion, "--data", world.text, "--memory", "60GiB", "--all"]
    lines = [line.strip() for line in loraloom(*words).out.splitlines()]
    steps = [line for line in lines if line.startswith("to need less: ")]
    four = next(line for line in steps if "NF4" in line)
    assert "slower (" in four and " more)" in four and "quality: " in four
    assert all("quality: " in line for line in steps)
