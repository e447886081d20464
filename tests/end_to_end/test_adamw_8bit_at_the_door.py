"""`training.optim: adamw_8bit` as a person asks for it: refused where it would only cost time, and run
and resumed where it is worth it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from doorway import Door, World
from safetensors.torch import load_file

from loraloom.plan import engine


def words(world: World, optim: str) -> list[object]:
    data = ["--model", world.llama, "--data", world.text, "--max-steps", "4"]
    return [*data, "--set", f"training.optim={optim}"]


@pytest.mark.parametrize("optim", ["adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit"])
@pytest.mark.parametrize("verb", ["plan", "train"])
def test_a_cpu_is_told_what_to_take(
    verb: str, optim: str, loraloom: Door, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(tmp_path)
    answer = loraloom(verb, *words(world, optim))
    assert answer.code == 2 and "`training.optim: adamw_8bit` cannot be used here" in answer.err
    assert "a CUDA device" in answer.err and "training.optim: adamw" in answer.err
    assert not list(tmp_path.rglob("run.json"))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A processor that counts as worth it stands in for a GPU: bitsandbytes has the same operation."""
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: pip install 'loraloom[quant]'")
    if request.param == "cpu":
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        monkeypatch.setattr(engine, "EIGHT_BIT_ADAMW", ("cpu",))
    return request.param


@pytest.mark.usefixtures("device")
def test_a_tune_that_was_stopped_goes_on_to_the_same_adapter(
    loraloom: Door, world: World, tmp_path: Path, stopping: Callable[[int | None], None]
) -> None:
    tune = ["tune", *words(world, "adamw_8bit"), "--output-dir", tmp_path, "--trials", 3]
    tune += ["--max-packed", 2, "--set", "search.seeds_for_finalists=1", "--json"]
    whole = loraloom(*tune, "--name", "whole")
    assert whole.code == 0, whole.err
    stopping(3)
    assert loraloom(*tune, "--name", "cut").code == 130
    stopping(None)
    resumed = loraloom("tune", "--resume", tmp_path / "cut", "--json")
    assert resumed.code == 0, resumed.err
    left, right = (
        load_file(tmp_path / name / "best" / "adapter_model.safetensors") for name in ("whole", "cut")
    )
    assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.usefixtures("device")
def test_what_lacks_for_it_is_named_before_anything_runs(
    loraloom: Door, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = loraloom("check", *words(world, "adamw_8bit"), "--json")
    assert checked.code == 0 and "moments can be held in 8 bits" in checked.out
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    answer = loraloom("train", *words(world, "adamw_8bit"), "--output-dir", tmp_path)
    assert answer.code == 2 and "loraloom[quant]" in answer.err and "training.optim: adamw" in answer.err
    assert not list(tmp_path.rglob("run.json"))
    checked = loraloom("check", *words(world, "adamw_8bit"), "--json")
    assert checked.code != 0 and "loraloom[quant]" in checked.out
