"""The last words of a command."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from loraloom.cli import planned, summary
from loraloom.cli.learnt import show_rows, supervised
from loraloom.cli.screen import PLAIN_WIDTH, WIDEST, plain_console
from loraloom.records import Trial
from loraloom.report.words import with_error
from loraloom.store.database import Database
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def finished(tmp_path: Path, task: str, labels: list[str]) -> SimpleNamespace:
    folder = RunFolder.create(tmp_path / "my runs", "first")
    folder.best.mkdir()
    trial = Trial("t000", "completed", {}, metrics={"validation_loss": 1.5, "validation_loss_se": 0.02})
    result = RunResult(
        name="first",
        verb="tune",
        status="completed",
        model="base/model",
        task=task,
        started_at="2026-01-02T03:04:05+00:00",
        seconds=75,
        best="t000",
        default="t000",
        trials=[trial],
        labels=labels,
        baseline={"validation_loss": 2.7},
        verdict="t000 is ahead.",
    )
    return SimpleNamespace(folder=folder, result=result)


@pytest.mark.usefixtures("wide")
def test_the_end_of_a_run_names_report_adapter_and_how_to_use_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = finished(tmp_path, "causal_lm", [])
    summary.show_outcome(outcome)  # type: ignore[arg-type]
    out = capsys.readouterr().out
    best = outcome.folder.best
    assert "t000 is ahead." in out
    assert f"report   {outcome.folder.report_path}\n" in out
    assert f"adapter  {best}\n" in out
    assert f"try it   loraloom generate --adapter '{best}' --base \"...\"\n" in out
    assert "  base = AutoModelForCausalLM.from_pretrained('base/model')\n" in out
    assert f"  model = PeftModel.from_pretrained(base, '{best}')\n" in out


@pytest.mark.usefixtures("wide")
def test_a_classifier_is_loaded_with_its_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = finished(tmp_path, "seq_cls", ["bad", "good"])
    summary.show_outcome(outcome)  # type: ignore[arg-type]
    out = capsys.readouterr().out
    assert (
        "AutoModelForSequenceClassification.from_pretrained(" in out
        and "id2label={0: 'bad', 1: 'good'}" in out
    )
    assert f"try it   loraloom generate --adapter '{outcome.folder.best}' \"...\"\n" in out


@pytest.mark.usefixtures("wide")
def test_nothing_is_promised_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = finished(tmp_path, "causal_lm", [])
    outcome.result.best = None
    summary.show_outcome(outcome)  # type: ignore[arg-type]
    assert "PeftModel" not in capsys.readouterr().out


@pytest.mark.usefixtures("wide")
def test_each_run_is_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = finished(tmp_path, "causal_lm", [])
    with Database("sqlite://") as database:
        database.record(outcome.result, outcome.folder.path)
        summary.show_runs(database.runs(), str(tmp_path))
    out = capsys.readouterr().out
    for cell in (
        "first",
        "tune",
        "completed",
        "base/model",
        "2026-01-02 03:04",
        "1 min 15 s",
        with_error(2.7),
        with_error(1.5, 0.02),
    ):
        assert cell in out


def advice(value: object, offered: tuple[object, ...] | None = None) -> dict[str, object]:
    return {"value": value, "reason": "because " * 30, "source": "arXiv:2106.09685", "range": offered}


@pytest.mark.parametrize("width", [80, 120, 160])
def test_settings_are_readable_at_every_width(width: int) -> None:
    settings = {
        "training.learning_rate": advice(2e-4),
        "adapter.r": advice(16, (8, 128)),
        "task": advice("causal_lm"),
        "adapter.bias": advice("none", ("none", "all")),
    }
    console = Console(width=width, record=True, file=StringIO())
    for block in planned._settings(settings):  # pyright: ignore[reportPrivateUsage]
        console.print(block, width=min(width, WIDEST))
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    heads = [line for line in lines if "because" not in line and "arXiv" not in line]
    adapter = ["adapter", "  r     16  (8 to 128)", "  bias  none  (none, all)"]
    assert heads == ["task  causal_lm", *adapter, "training", "  learning_rate  2e-4"]
    reasons = [line for line in lines if "because" in line]
    assert min(len(line) for line in reasons if "arXiv" not in line) > min(width, WIDEST) - 20
    assert max(len(line) for line in lines) <= min(width, WIDEST)


def test_without_a_terminal_the_width_does_not_depend_on_where_it_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert plain_console().width == PLAIN_WIDTH


def test_long_training_data_are_cut_in_their_middle() -> None:
    shown = supervised([("question " * 100, False), ("answer", True)]).plain
    assert shown.startswith("question question") and shown.endswith("question «answer»")
    assert "[... 540 characters ...]" in shown


@pytest.mark.parametrize("pieces", [2, 3, 12])
def test_rows_keep_to_the_lines_that_are_left_and_show_where_learning_begins_and_ends(
    monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    console = Console(width=80, record=True, file=StringIO())
    row = [("word " * 200 + "\n", place % 2 == 1) for place in range(pieces)]
    show_rows(console, [row, row], said=20)
    shown = console.export_text()
    assert len(shown.splitlines()) <= 20
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 80
    assert pieces > 3 or shown.count("«") == shown.count("»") == 2 * (pieces // 2)


def test_one_row_whole_is_shown_rather_than_two_in_parts() -> None:
    console = Console(width=80, force_terminal=True, record=True, file=StringIO())
    row = [("hello\n" * 4 + "chosen: ", False), ("yes", True), ("\nrejected: ", False), ("no", True)]
    show_rows(console, [row, row], said=100)
    shown = console.export_text()
    assert shown.count("chosen: «yes»") == shown.count("rejected: «no»") == 1
    assert "lines ..." not in shown


def test_what_is_learnt_is_marked() -> None:
    row = [("<s>", False), ("two", False), (" four", True), ("</s>", True), ("\n", False)]
    assert supervised(row).plain == "<s>two« four</s>»\n"


def test_nested_facts_are_indented(capsys: pytest.CaptureFixture[str]) -> None:
    summary.show_facts({"python": "3.11", "device": {"kind": "cpu", "bf16": True}})
    assert capsys.readouterr().out == "python: 3.11\ndevice\n  kind: cpu\n  bf16: yes\n"
