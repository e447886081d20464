"""The commands on a GPU: what a person runs there, from plan to predictions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doorway import Door, World

pytestmark = pytest.mark.gpu


def result_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("base", ["llama", "bert", "t5"])
def test_what_is_trained_there_is_scored_and_asked_there(
    base: str, dtype: str, world: World, loraloom: Door, tmp_path: Path
) -> None:
    data = {"llama": world.text, "bert": world.labels, "t5": world.pairs}[base]
    words = ["--model", getattr(world, base), "--data", data, "--validation", "0.2", "--max-steps", "4"]
    words += ["--set", f"model.dtype={dtype}"]
    assert loraloom("check", *words).code == 0
    document = loraloom("plan", *words, "--json").json()
    assert document["device"]["kind"] == "cuda" and set(document["device"]["gpu"]) >= {
        "dtype",
        "kernels",
    }
    trained = loraloom("train", *words, "--output-dir", tmp_path, "--name", "run")
    assert trained.code == 0, trained.err
    result = result_in(tmp_path / "run")
    assert result["status"] == "completed" and result["environment"]["device"]["kind"] == "cuda"
    assert result["trials"][0]["peak_bytes"] > 0
    for verb in (["evaluate", "--data", data], ["predict", "--data", data]):
        answer = loraloom(*verb, "--adapter", tmp_path / "run", "--json")
        assert answer.code == 0, answer.err


def test_a_search_that_is_stopped_goes_on(
    world: World, loraloom: Door, tmp_path: Path, stopping: Callable[[int | None], None]
) -> None:
    words = [
        "tune",
        "--model",
        world.llama,
        "--data",
        world.text,
        "--trials",
        "4",
        "--max-steps",
        "6",
        "--max-packed",
        "4",
    ]
    words += ["--set", "search.seeds_for_finalists=1", "--output-dir", tmp_path, "--name", "run"]
    stopping(3)
    assert loraloom(*words).code == 130
    stopping(None)
    resumed = loraloom("tune", "--resume", tmp_path / "run")
    assert resumed.code == 0, resumed.err
    result = result_in(tmp_path / "run")
    assert result["status"] == "completed" and result["best"]
    assert (tmp_path / "run" / "best" / "adapter_model.safetensors").is_file()
