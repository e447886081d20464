"""`adapter.init_from`: a run that begins with the weights of another one's adapter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from doorway import Answer, Door, Run, World, write_rows
from safetensors.torch import load_file, save_file

WEIGHTS = "adapter_model.safetensors"
Start = Callable[..., Answer]


def words(world: World, runs: Path, verb: str = "train", rate: float = 0.005) -> list[object]:
    told: list[object] = [verb, "--model", world.llama, "--data", world.text, "--output-dir", runs]
    searched = [] if verb == "tune" else ["--learning-rate", rate]
    return [*told, *searched, "--max-steps", "6", "--quiet"]


@pytest.fixture(scope="module")
def first(world: World, loraloom: Door, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an odd shape, so that what follows cannot have it by chance."""
    runs = tmp_path_factory.mktemp("init-from")
    shape = ["--r", "3", "--set", "adapter.lora_alpha=5", "--set", "adapter.target_modules=[q_proj]"]
    pattern = ["--set", "adapter.rank_pattern={layers.1.self_attn.q_proj: 2}"]
    answer = loraloom(*words(world, runs), *shape, *pattern, "--name", "first")
    assert answer.code == 0, answer.err
    return runs / "first"


@pytest.fixture
def second(world: World, loraloom: Door, first: Path, tmp_path: Path) -> Start:
    """A run that begins with `first`."""

    def start(*more: object, verb: str = "train", rate: float = 0.005, place: Path = first) -> Answer:
        begun = ["--set", f"adapter.init_from={place}", "--name", "second"]
        return loraloom(*words(world, tmp_path, verb, rate), *begun, *more)

    return start


def best(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "best" / WEIGHTS)


def test_it_begins_with_those_weights_and_has_their_shape(
    second: Start, first: Path, tmp_path: Path
) -> None:
    answer = second(rate=1e-9)
    assert answer.code == 0, answer.err
    before, after = best(first), best(tmp_path / "second")
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[key], after[key], atol=1e-6) for key in before)
    assert any(bool(tensor.any()) for key, tensor in after.items() if "lora_B" in key)
    config = json.loads((tmp_path / "second" / "best" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (3, 5, ["q_proj"])


def test_it_goes_on_from_there_and_is_held_against_it(
    second: Start, first: Path, tmp_path: Path
) -> None:
    answer = second()
    assert answer.code == 0, answer.err
    result = Run(answer, tmp_path / "second").result
    began, base = result["initial"]["metrics"], result["baseline"]["metrics"]
    told = json.loads((first / "run.json").read_text())["best"]["metrics"]
    assert began["validation_loss"] == pytest.approx(told["validation_loss"], rel=1e-4)
    assert result["best"]["metrics"]["validation_loss"] < began["validation_loss"]
    assert began["validation_loss"] != pytest.approx(base["validation_loss"], rel=1e-4)
    page = (tmp_path / "second" / "report.html").read_text()
    assert f"against {first}" in page


def test_the_plan_says_where_rank_alpha_and_targets_come_from(
    world: World, loraloom: Door, first: Path
) -> None:
    answer = loraloom(
        *("plan", "--model", world.llama, "--data", world.text, "--json"),
        *("--set", f"adapter.init_from={first}", "--trials", "40"),
    )
    assert answer.code == 0, answer.err
    plan = answer.json()
    assert plan["settings"]["adapter.r"]["value"] == 3
    for key in ("adapter.r", "adapter.lora_alpha", "adapter.target_modules"):
        assert plan["settings"][key]["reason"] == f"of {first}"
    assert not any(key.startswith("adapter.") for key in plan["search_space"] if "dropout" not in key)
    assert "training.learning_rate" in plan["search_space"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--r", "8"], "`adapter.r` is 8"),
        (["--set", "adapter.target_modules=mlp"], "`adapter.target_modules` is mlp"),
        (["--set", "adapter.init_lora_weights=pissa"], "`adapter.init_lora_weights` is pissa"),
        (["--set", "search.space={adapter.r: [2, 4]}"], "`search.space` names `adapter.r`"),
    ],
)
def test_another_shape_is_refused(second: Start, tmp_path: Path, more: list[str], told: str) -> None:
    answer = second(*more, verb="tune" if "search.space" in more[1] else "train")
    assert answer.code == 2
    assert told in answer.err and "first" in answer.err
    assert not (tmp_path / "second").exists()


def test_the_same_shape_may_be_asked_for(second: Start) -> None:
    answer = second("--r", "3", "--set", "adapter.target_modules=[q_proj]", "--dry-run")
    assert answer.code == 0, answer.err


def test_another_base_is_refused(world: World, loraloom: Door, first: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(world.llama, other)
    weights = load_file(other / "model.safetensors")
    save_file({key: 1.5 * tensor for key, tensor in weights.items()}, other / "model.safetensors")
    asked = [*words(world, tmp_path), "--set", f"adapter.init_from={first}"]
    asked[asked.index(world.llama)] = other
    answer = loraloom(*asked)
    assert answer.code == 2
    assert "another base" in answer.err and world.llama in answer.err


def test_another_task_and_a_folder_without_an_adapter_are_refused(
    world: World, loraloom: Door, first: Path, tmp_path: Path
) -> None:
    other = loraloom(
        *("train", "--model", world.llama, "--data", world.labels, "--task", "seq_cls"),
        *("--set", f"adapter.init_from={first}", "--output-dir", tmp_path, "--quiet"),
    )
    assert other.code == 2 and "CAUSAL_LM" in other.err
    nothing = loraloom(*words(world, tmp_path), "--set", f"adapter.init_from={tmp_path}")
    assert nothing.code == 2 and "no adapter" in nothing.err


def test_a_search_begins_with_it_too_and_goes_on_after_a_stop(
    second: Start, stopping: Callable[[int | None], None], first: Path, tmp_path: Path
) -> None:
    space = ["--trials", "3", "--max-packed", "2", "--set", "search.seeds_for_finalists=1"]
    stopping(3)
    assert second(*space, verb="tune").code == 130
    stopping(None)
    answer = second(*space, verb="tune")
    assert answer.code == 0, answer.err
    trials = Run(answer, tmp_path / "second").result["trials"]
    assert len(trials) == 3 and not any(trial["warm"] for trial in trials)
    assert len({json.dumps(trial["params"], sort_keys=True) for trial in trials}) == 3
    assert {trial["settings"]["adapter.r"] for trial in trials} == {3}


def test_a_run_does_not_go_on_with_another_adapter(
    second: Start, stopping: Callable[[int | None], None], first: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    shutil.copytree(first / "best", own)
    stopping(2)
    assert second(place=own).code == 130
    stopping(None)
    config = json.loads((own / "adapter_config.json").read_text())
    (own / "adapter_config.json").write_text(json.dumps({**config, "lora_dropout": 0.3}))
    answer = second(place=own)
    assert answer.code == 2
    assert "no longer the adapter" in answer.err


def test_a_classifier_keeps_the_order_of_its_classes(
    world: World, loraloom: Door, tmp_path: Path
) -> None:
    told = ["--output-dir", tmp_path, "--max-steps", "8", "--learning-rate", "0.005", "--quiet"]
    named = ["--set", "data.label_names=[food, animal]", "--name", "classes"]
    one = loraloom("train", "--model", world.bert, "--data", world.labels, *told, *named)
    assert one.code == 0, one.err
    more = ["--set", f"adapter.init_from={tmp_path / 'classes'}", "--name", "more"]
    answer = loraloom("train", "--model", world.bert, "--data", world.labels, *told, *more)
    assert answer.code == 0, answer.err
    result: dict[str, Any] = Run(answer, tmp_path / "more").result
    assert result["labels"] == ["food", "animal"]
    began, end = result["initial"]["metrics"], result["best"]["metrics"]
    assert end["validation_loss"] < began["validation_loss"]
    strange = write_rows(
        tmp_path / "strange.jsonl", [{"text": f"a {n}", "label": "x"} for n in "abcdef"]
    )
    refused = loraloom("train", "--model", world.bert, "--data", strange, *told, *more[:2])
    assert refused.code == 2
