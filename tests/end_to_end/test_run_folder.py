"""What `tune` leaves on disk and prints: the outside promise, read back as another program would."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from doorway import Door, Run, World

KEYS = {
    "schema_version", "name", "verb", "status", "model", "task", "started_at", "seconds", "environment",
    "baseline", "best", "trials", "findings",
}  # fmt: skip
TRIAL_KEYS = {
    "id",
    "status",
    "params",
    "metrics",
    "seconds",
    "tokens",
    "steps",
    "peak_bytes",
    "trainable_parameters",
    "adapter",
    "findings",
}


def test_tune_prints_the_document_that_it_keeps(tuned: Run) -> None:
    assert tuned.answer.json() == tuned.result
    assert "validation" in tuned.answer.err, "what people read goes to stderr"


def test_the_result_has_every_promised_key(tuned: Run) -> None:
    result = tuned.result
    assert result.keys() >= KEYS
    assert (result["schema_version"], result["name"], result["verb"], result["status"]) == (
        1,
        "first",
        "tune",
        "completed",
    )
    assert (result["task"], result["labels"]) == ("seq_cls", ["animal", "food"])
    assert len(result["trials"]) == 4
    for trial in result["trials"]:
        assert trial.keys() >= TRIAL_KEYS
        assert trial["status"] in {"completed", "pruned", "diverged"}
        assert trial["trainable_parameters"] > 0 and trial["peak_bytes"] > 0 and trial["tokens"] > 0


def test_metrics_carry_their_standard_error(tuned: Run) -> None:
    measured: list[dict[str, Any]] = [
        tuned.result["baseline"]["metrics"],
        tuned.result["best"]["metrics"],
    ]
    for metrics in measured:
        assert metrics.keys() >= {"validation_loss", "validation_accuracy", "test_loss", "test_accuracy"}
        for name, value in metrics.items():
            assert math.isfinite(value)
            assert name.endswith("_se") or name == "train_loss" or f"{name}_se" in metrics


def test_the_test_split_is_opened_for_the_winner_and_the_default_alone(tuned: Run) -> None:
    result = tuned.result
    tested = {
        trial["id"]
        for trial in result["trials"]
        if any(name.startswith("test_") for name in trial["metrics"])
    }
    assert tested == {result["best"]["id"], result["default"]}
    opened = [event["trial"] for event in tuned.events if event["kind"] == "test"]
    assert sorted(opened) == sorted(tested), "once each"


def test_evaluate_opens_the_same_test_split(tuned: Run, loraloom: Door) -> None:
    answer = loraloom(
        "evaluate", tuned.folder / "config.yaml", "--adapter", tuned.folder / "best", "--json"
    )
    assert answer.code == 0, answer.err
    kept = tuned.result["best"]["metrics"]
    for name, value in answer.json()["metrics"].items():
        assert value == pytest.approx(kept[name], rel=1e-5, abs=1e-9)


def test_events_tell_the_run_from_its_start_to_its_end(tuned: Run) -> None:
    kinds = [event["kind"] for event in tuned.events]
    assert (kinds[0], kinds[-1]) == ("run_started", "run_finished")
    assert {"trial_started", "step", "evaluated", "saved", "winner"} <= set(kinds)
    times = [event["at"] for event in tuned.events]
    assert times == sorted(times)


def test_every_setting_has_its_reason_and_its_source(tuned: Run) -> None:
    resolved = tuned.yaml("resolved.yaml")
    assert {
        "adapter.r",
        "adapter.target_modules",
        "training.learning_rate",
        "data.max_length",
        "limits.max_packed",
    } <= set(resolved)
    for key, advice in resolved.items():
        assert advice["reason"] and advice["source"], key
    assert resolved["training.max_steps"]["value"] == 16


def test_the_config_that_is_kept_asks_for_the_same_again(
    tuned: Run, loraloom: Door, tmp_path: Path
) -> None:
    asked = tuned.yaml("config.yaml")
    assert (asked["name"], asked["search"]["trials"], asked["training"]["max_steps"]) == ("first", 4, 16)
    again = loraloom("plan", tuned.folder / "config.yaml", "--json", "--output-dir", tmp_path)
    assert again.code == 0
    resolved = tuned.yaml("resolved.yaml")
    assert {
        key: advice["value"]
        for key, advice in again.json()["settings"].items()
        if key != "limits.max_packed"
    } == {key: advice["value"] for key, advice in resolved.items() if key != "limits.max_packed"}


def test_report_and_best_are_there(tuned: Run) -> None:
    page = (tuned.folder / "report.html").read_text()
    assert all(trial["id"] in page for trial in tuned.result["trials"])
    best = tuned.result["best"]
    for folder in (tuned.folder / "best", tuned.folder / best["adapter"]):
        assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= {
            path.name for path in folder.iterdir()
        }
    kept = {trial["id"] for trial in tuned.result["trials"] if trial["adapter"]}
    assert {path.parent.name for path in tuned.folder.glob("trials/*/adapter")} == kept


def test_runs_lists_them_even_without_an_index(tuned: Run, loraloom: Door) -> None:
    root = tuned.folder.parent
    listed = loraloom("runs", "--output-dir", root, "--json")
    assert [(run["name"], run["status"], run["best"]) for run in listed.json()] == [
        ("first", "completed", tuned.result["best"]["id"])
    ]
    (root / "loraloom.db").unlink()
    assert loraloom("runs", "--output-dir", root, "--json").json() == listed.json()


def test_runs_sees_a_folder_that_came_from_elsewhere(tuned: Run, loraloom: Door, tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        for kept in ("run.json", "events.jsonl", "config.yaml"):
            (folder / kept).write_bytes((tuned.folder / kept).read_bytes())
        names = {
            Path(run["folder"]).name
            for run in loraloom("runs", "--output-dir", tmp_path, "--json").json()
        }
        assert name in names


def test_an_existing_name_is_refused(tuned: Run, world: World, loraloom: Door) -> None:
    before = (tuned.folder / "run.json").read_bytes()
    answer = loraloom(
        "tune",
        "--model",
        world.bert,
        "--data",
        world.labels,
        "--output-dir",
        tuned.folder.parent,
        "--name",
        "first",
    )
    assert answer.code == 2
    assert "run `first` already exists" in answer.err and "--name first-2" in answer.err
    assert (tuned.folder / "run.json").read_bytes() == before


@pytest.mark.parametrize("verb", ["tune", "train"])
def test_a_dry_run_shows_the_plan_and_writes_nothing(
    verb: str, world: World, loraloom: Door, tmp_path: Path
) -> None:
    answer = loraloom(
        verb,
        "--model",
        world.chat_llama,
        "--data",
        world.chat,
        "--dry-run",
        "--output-dir",
        tmp_path / "runs",
    )
    assert answer.code == 0, answer.err
    assert list(tmp_path.iterdir()) == []
    for words in ("\nr  ", "\nlearning_rate", "\nmemory: ", "\ntime: "):
        assert words in answer.out
    shown = answer.out.split("«")[1].split("»")[0]
    assert "what" not in shown and any(
        subject in shown for subject in ("cat", "dog", "bird", "horse", "soup", "cake")
    )


def test_plan_needs_no_weights(world: World, loraloom: Door, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((Path(world.llama) / name).read_bytes())
    answer = loraloom("plan", "--model", tmp_path, "--data", world.text, "--json")
    assert answer.code == 0, answer.err
    document = answer.json()
    assert document.keys() >= {"settings", "forecast", "warnings"}
    assert document["forecast"]["memory"]["total_bytes"] > 0
    for advice in document["settings"].values():
        assert advice.keys() >= {"value", "reason", "source"}


def test_a_config_file_says_the_same_as_flags(world: World, loraloom: Door, tmp_path: Path) -> None:
    path = tmp_path / "asked.yaml"
    path.write_text(
        yaml.safe_dump(
            {"model": {"name_or_path": world.llama}, "data": {"train": world.text}, "adapter": {"r": 4}}
        )
    )
    by_file = loraloom("plan", path, "--json").json()
    by_flags = loraloom(
        "plan", "--model", world.llama, "--data", world.text, "--set", "adapter.r=4", "--json"
    ).json()
    # goes by free memory
    by_file["settings"].pop("limits.max_packed"), by_flags["settings"].pop("limits.max_packed")
    told = [
        {key: (one["value"], one["source"]) for key, one in plan["settings"].items()}
        for plan in (by_file, by_flags)
    ]
    assert told[0] == told[1]
    assert by_file["settings"]["adapter.r"]["value"] == 4
