"""Mistakes of a person end before anything starts: exit 2 (1 for the disk), one
message, no run folder, no traceback."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from doorway import Answer, Door, World, write_rows

Asks = Callable[[World, Path], list[object]]


def absent_file(world: World, here: Path) -> list[object]:
    return ["--model", world.llama, "--data", here / "absent.jsonl"]


def empty_file(world: World, here: Path) -> list[object]:
    (here / "empty.jsonl").touch()
    return ["--model", world.llama, "--data", here / "empty.jsonl"]


def unknown_column(world: World, here: Path) -> list[object]:
    return [
        "--model",
        world.llama,
        "--data",
        write_rows(here / "odd.jsonl", [{"words": "the cat", "mood": 3}] * 40),
    ]


def named_column_absent(world: World, here: Path) -> list[object]:
    return ["--model", world.bert, "--data", world.labels, "--set", "data.label_column=colour"]


def unknown_key(world: World, here: Path) -> list[object]:
    return ["--model", world.llama, "--data", world.text, "--set", "training.learnin_rate=1e-4"]


def unseen_label(world: World, here: Path) -> list[object]:
    held = write_rows(
        here / "held.jsonl",
        [{"text": "the cat", "label": "animal"}, {"text": "a stone", "label": "mineral"}],
    )
    return ["--model", world.bert, "--data", world.labels, "--validation", held]


def no_weights(world: World, here: Path) -> list[object]:
    shutil.copytree(world.llama, here / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    return ["--model", here / "bare", "--data", world.text]


def no_model(world: World, here: Path) -> list[object]:
    return ["--model", here / "nowhere", "--data", world.text]


def no_such_target(world: World, here: Path) -> list[object]:
    return ["--model", world.llama, "--data", world.text, "--target-modules", "[query_key_value]"]


def no_such_target_in_space(world: World, here: Path) -> list[object]:
    space = "search.space={adapter.target_modules: [attention, [query_key_value]]}"
    return ["--model", world.llama, "--data", world.text, "--set", space]


ENDLESS = "((((.*)*)*)*)*z!"


def endless_target(world: World, here: Path) -> list[object]:
    return ["--model", world.llama, "--data", world.text, "--target-modules", ENDLESS]


def endless_rank_pattern(world: World, here: Path) -> list[object]:
    return [
        "--model",
        world.llama,
        "--data",
        world.text,
        "--set",
        f"adapter.rank_pattern={{'{ENDLESS}': 4}}",
    ]


def endless_target_in_space(world: World, here: Path) -> list[object]:
    space = f"search.space={{adapter.target_modules: [attention, ['{ENDLESS}']]}}"
    return ["--model", world.llama, "--data", world.text, "--set", space]


def no_such_metric(world: World, here: Path) -> list[object]:
    return ["--model", world.llama, "--data", world.text, "--set", "search.metric=validation_f1"]


def no_chat_template(world: World, here: Path) -> list[object]:
    return ["--model", world.llama, "--data", world.chat]


BAD: dict[str, tuple[Asks, tuple[str, ...]]] = {
    "missing file": (absent_file, ("absent.jsonl",)),
    "empty data": (empty_file, ("empty.jsonl", "no rows")),
    "unknown column": (unknown_column, ("words, mood", "odd.jsonl")),
    "a named column that is absent": (named_column_absent, ("colour", "text, label")),
    "unknown key": (unknown_key, ("training.learnin_rate", "training.learning_rate")),
    "a label seen only in validation": (unseen_label, ("mineral", "animal")),
    "a model folder without weights": (no_weights, ("no weights", "safetensors")),
    "a model folder that is absent": (no_model, ("nowhere",)),
    "a target whose regex never ends": (endless_target, (ENDLESS, "no end after")),
    "a pattern of ranks that never ends": (
        endless_rank_pattern,
        ("adapter.rank_pattern", ENDLESS, "no end after"),
    ),
    "a regex that never ends in the space": (endless_target_in_space, (ENDLESS, "no end after")),
    "a target that matches nothing": (no_such_target, ("query_key_value", "q_proj")),
    "a target in the space that matches nothing": (
        no_such_target_in_space,
        ("query_key_value", "q_proj"),
    ),
    "a metric that the task does not have": (no_such_metric, ("validation_f1", "validation_loss")),
    "a chat for a model without a template": (no_chat_template, ("chat template",)),
}


def refused(answer: Answer, here: Path, code: int = 2) -> None:
    """What all refusals have in common."""
    assert answer.code == code, answer.err
    assert answer.err.startswith("error: ")
    assert "\n  next: " in answer.err, "every refusal says what to do"
    assert "Traceback" not in answer.err and "this should not have happened" not in answer.err
    assert not (here / "runs").exists(), "nothing was started"


@pytest.mark.parametrize("name", BAD)
def test_it_is_refused_before_anything_starts(
    name: str, world: World, loraloom: Door, tmp_path: Path
) -> None:
    asks, words = BAD[name]
    answer = loraloom("tune", *asks(world, tmp_path), "--output-dir", tmp_path / "runs")
    refused(answer, tmp_path)
    assert answer.out == ""
    for word in words:
        assert word in answer.err


@pytest.mark.parametrize("verb", ["plan", "check", "train", "tune"])
def test_a_space_that_cannot_be_searched_is_refused_alike_by_every_verb(
    verb: str, world: World, loraloom: Door, tmp_path: Path
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        f"model: {{name_or_path: {world.llama}}}\ndata: {{train: {world.text}}}\nsearch:\n  space:\n   "
        " training.seed: [1, 2]\n"
    )
    answer = loraloom(verb, file, "--set", f"output_dir={tmp_path / 'runs'}")
    refused(answer, tmp_path)
    assert answer.err.startswith(
        f"error: {file}:5: `search.space` names `training.seed`, which cannot be searched\n"
    )


def test_a_range_of_one_value_is_a_value(world: World, loraloom: Door, tmp_path: Path) -> None:
    space = (
        "search.space={training.learning_rate: {low: 2e-4, high: 2e-4, log: true}, adapter.r: [4, 8]}"
    )
    asked = [
        "--model",
        world.llama,
        "--data",
        world.text,
        "--set",
        space,
        "--set",
        f"output_dir={tmp_path / 'runs'}",
        "--json",
    ]
    for words in (["plan"], ["tune", "--dry-run"]):
        answer = loraloom(*words, *asked)
        assert answer.code == 0, answer.err
        assert answer.json()["search_space"]["training.learning_rate"] == {
            "low": 2e-4,
            "high": 2e-4,
            "log": True,
        }


def test_a_refusal_is_one_json_document_as_well(world: World, loraloom: Door, tmp_path: Path) -> None:
    answer = loraloom(
        "train", *absent_file(world, tmp_path), "--output-dir", tmp_path / "runs", "--json"
    )
    refused(answer, tmp_path)
    error = answer.json()["error"]
    assert error.keys() >= {"what", "next"}
    assert error["what"] in answer.err


def test_no_disk_is_said_before_the_first_step(
    world: World, loraloom: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)  # pyright: ignore[reportUnknownLambdaType]
    answer = loraloom(
        "tune", "--model", world.llama, "--data", world.text, "--output-dir", tmp_path / "runs"
    )
    refused(answer, tmp_path, code=1)
    assert "not enough free space" in answer.err
    assert "got: 1.0 MiB free" in answer.err and "need: " in answer.err and "--output-dir" in answer.err


def test_a_disk_that_fills_up_during_the_run_loses_nothing(
    world: World, loraloom: Door, tmp_path: Path
) -> None:
    runs = tmp_path / "disk"
    runs.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", runs], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("loraloom.pipeline.run_log.space_needed", lambda _: 0)  # pyright: ignore[reportUnknownLambdaType]
            answer = loraloom(
                "tune",
                "--model",
                world.llama,
                "--data",
                world.text,
                "--output-dir",
                runs,
                "--name",
                "full",
                "--max-steps",
                4,
                "--trials",
                4,
                "--r",
                64,
            )
        assert answer.code == 1
        assert "error: " in answer.err and "Traceback" not in answer.err
        assert "No space left on device" in answer.err and "next: " in answer.err
        assert (runs / "full" / "config.yaml").is_file()
    finally:
        # Lazily: something may still hold a file on it.
        subprocess.run(["umount", "--lazy", runs], check=True)


def test_evaluate_refuses_what_is_no_adapter(world: World, loraloom: Door, tmp_path: Path) -> None:
    answer = loraloom("evaluate", "--data", world.text, "--adapter", tmp_path)
    refused(answer, tmp_path)
    assert "is no adapter" in answer.err and "adapter_config.json" in answer.err


def test_an_interrupted_run_ends_with_130_and_says_so(world: World, tmp_path: Path) -> None:
    words = [
        "tune",
        "--model",
        world.llama,
        "--data",
        world.text,
        "--output-dir",
        str(tmp_path),
        "--name",
        "cut",
    ]
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "loraloom",
            *words,
            "--max-steps",
            "100000",
            "--trials",
            "2",
            "--set",
            "search.pruner=none",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    events = tmp_path / "cut" / "events.jsonl"
    deadline = time.monotonic() + 240
    while not (events.is_file() and '"kind":"step"' in events.read_text().replace(" ", "")):
        assert process.poll() is None and time.monotonic() < deadline, "the run took no step"
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert out == "" and "interrupted" in err and "Traceback" not in err
    result = (tmp_path / "cut" / "run.json").read_text()
    assert '"status": "interrupted"' in result and '"status": "running"' not in result
