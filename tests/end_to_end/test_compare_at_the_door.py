"""`compare` and `report` through the command line, over real runs and over hand-made ones."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doorway import Door, Run, World

from loraloom.records import Score, Trial
from loraloom.report.words import with_error
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult
from loraloom.store.samples import read_samples
from loraloom.store.scores import add_score, read_scores


def made(
    output_dir: Path, name: str, losses: dict[str, float], *, rows: str = "same", **changes: Any
) -> RunFolder:
    """A finished run whose candidates t000, t001, ... have these losses on 400 rows;
    rank 8 each, "small" ones rank 1."""
    folder = RunFolder.create(output_dir, name)
    hard = np.random.default_rng(0).gamma(2.0, size=400)
    trials: list[Trial] = []
    for number, (trial, loss) in enumerate(losses.items()):
        costs = (
            hard - hard.mean() + loss + np.random.default_rng(number + 1).normal(scale=0.05, size=400)
        )
        error = float(costs.std(ddof=1) / 20)
        trials.append(
            Trial(
                trial,
                "completed",
                {"training.learning_rate": 1e-4 * (number + 1)},
                {"validation_loss": float(costs.mean()), "validation_loss_se": error},
                10.0 + number,
                100,
                10,
                10,
                2**30,
                100 if trial.startswith("small") else 1000,
            )
        )
        if rows:
            add_score(
                folder.trial_folder(trial), Score("validation", {}, tuple(costs), (1.0,) * 400), rows
            )
    best = min(trials, key=lambda trial: trial.metrics["validation_loss"]).id
    values: dict[str, Any] = {
        "verb": "tune",
        "status": "completed",
        "model": "tiny",
        "task": "causal_lm",
        "started_at": "2025-01-01T00:00:00+00:00",
        "best": best,
        "default": trials[0].id,
        "trials": trials,
    }
    folder.write_result(RunResult(name=name, **(values | changes)))
    return folder


def lines(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {line["name"]: line for line in document["lines"]}


def test_rows_in_pairs_see_what_means_cannot(loraloom: Door, tmp_path: Path) -> None:
    losses = {"t000": 2.0, "t001": 1.9, "t002": 2.001}
    made(tmp_path, "paired", losses)
    made(tmp_path, "loose", losses, rows="")
    paired = loraloom("compare", "paired", "--output-dir", tmp_path, "--json").json()
    loose = loraloom("compare", "loose", "--output-dir", tmp_path, "--json").json()
    assert paired["keep"] == "t001"
    assert "very probably (100%) better than the plan's setting t000" in paired["verdict"]
    # of the adapters it is sure; of their settings one seed each does not say it
    assert not paired["significant"]
    gain = lines(paired)["t001"]["gain"]
    assert gain["paired_rows"] == 400
    assert 0.08 < gain["low"] < gain["mean"] < gain["high"] < 0.12
    assert lines(paired)["t000"]["gain"] is None
    assert paired["notes"] == []
    assert loose["keep"] == "t001"
    assert lines(loose)["t001"]["gain"]["low"] < 0 < lines(loose)["t001"]["gain"]["high"]
    assert "not compared row by row" in loose["notes"][0]


def test_without_a_winner_the_cheaper_is_kept(loraloom: Door, tmp_path: Path) -> None:
    made(tmp_path, "even", {"t000": 2.0, "small": 2.0, "t002": 2.0})
    answer = loraloom("compare", tmp_path / "even", "--json")
    document = answer.json()
    assert document["keep"] == "small"
    assert (
        "small is kept: it is cheaper than the plan's setting t000 and not worse by more than 0.5%"
        in document["verdict"]
    )
    assert "trainable_parameters" in lines(document)["small"]["front"]
    assert "small is kept" in answer.err


def test_runs_are_compared_by_their_winners(loraloom: Door, tmp_path: Path) -> None:
    made(tmp_path, "first", {"t000": 2.0, "t001": 1.9})
    made(tmp_path, "second", {"t000": 1.5})
    made(tmp_path, "third", {"t000": 1.5}, rows="others")
    document = loraloom("compare", "first", "second", "third", "--output-dir", tmp_path, "--json").json()
    assert document["reference"] == "first:t001"
    assert set(lines(document)) == {"first:t001", "second:t000", "third:t000"}
    assert lines(document)["second:t000"]["gain"]["paired_rows"] == 400
    assert lines(document)["third:t000"]["gain"]["paired_rows"] == 0
    assert "third:t000: not compared row by row" in document["notes"][0]
    one = loraloom("compare", "first:t000", "second", "--output-dir", tmp_path, "--json").json()
    assert one["reference"] == "first:t000"
    assert one["lines"][0]["name"] == "second:t000"


def test_a_winner_whose_time_was_up_is_compared(loraloom: Door, tmp_path: Path) -> None:
    folder = made(tmp_path, "first", {"t000": 2.0, "t001": 1.9, "t002": 2.1})
    result = folder.result()
    result.trials = [
        replace(trial, status="pruned", adapter=f"trials/{trial.id}/adapter") for trial in result.trials
    ]
    result.trials[2] = replace(result.trials[2], adapter=None)
    folder.write_result(result)
    assert set(lines(loraloom("compare", "first", "--output-dir", tmp_path, "--json").json())) == {
        "t000",
        "t001",
    }


def test_equal_names_in_two_folders_stay_apart(loraloom: Door, tmp_path: Path) -> None:
    places = [
        made(tmp_path / where, "same", {"t000": loss}).path for where, loss in (("a", 2.0), ("b", 1.5))
    ]
    document = loraloom("compare", *places, "--json").json()
    assert [Path(line["name"]).parent.name for line in document["lines"]] == ["b", "a"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nosuch"], "there is no run folder"),
        (["first:t009"], "run `first` has no trial `t009`"),
        (["first", "accurate"], "runs that were judged by different metrics cannot be compared"),
        (["empty"], "run `empty` has no candidate that was trained to the end"),
        (["first", "unwon"], "run `unwon` has no winner"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    loraloom: Door, tmp_path: Path, words: list[str], message: str
) -> None:
    made(tmp_path, "first", {"t000": 2.0})
    made(tmp_path, "accurate", {"t000": 0.5}, metric="validation_accuracy", direction="maximize")
    made(tmp_path, "empty", {"t000": 2.0}, trials=[], best=None)
    made(tmp_path, "unwon", {"t000": 2.0}, best=None)
    answer = loraloom("compare", *words, "--output-dir", tmp_path)
    assert answer.code == 2
    assert message in answer.err
    assert "next:" in answer.err


def test_seeds_of_a_setting_are_one_line(loraloom: Door, tmp_path: Path) -> None:
    folder = made(tmp_path, "raced", {"t000": 2.0, "t001": 1.9, "t000s0": 2.1, "t001s0": 1.8})
    result = folder.result()
    params = {trial.id: trial.params for trial in result.trials}
    result.trials = [replace(trial, params=params[trial.id[:4]]) for trial in result.trials]
    folder.write_result(result)
    document = loraloom("compare", "raced", "--output-dir", tmp_path, "--json").json()
    assert {name: line["trials"] for name, line in lines(document).items()} == {
        "t001": ["t001s0", "t001"],
        "t000": ["t000", "t000s0"],
    }
    value = lines(document)["t001"]["values"]["validation"]
    assert value["mean"] == pytest.approx(1.85, abs=0.02)
    assert value["se"] > 0.04


def test_a_real_run_keeps_row_costs_and_is_compared_by_them(loraloom: Door, tuned: Run) -> None:
    finished = [trial for trial in tuned.result["trials"] if trial["adapter"]]
    for trial in finished:
        kept = read_scores(tuned.folder / "trials" / trial["id"])["validation"]
        wrong = float(np.average(kept.costs, weights=kept.weights))
        assert 1 - wrong == pytest.approx(trial["metrics"]["validation_accuracy"], abs=1e-5)
        assert {"validation_macro_f1", "validation_mcc", "validation_mcc_se"} <= set(trial["metrics"])
    answer = loraloom("compare", tuned.folder, "--json")
    assert answer.code == 0, answer.err
    document = answer.json()
    assert document["metric"] == "accuracy"
    assert all(line["gain"]["paired_rows"] > 0 for line in document["lines"] if line["gain"])
    assert "too few to tell" in document["importance"]["note"]


def test_report_draws_the_page_anew(loraloom: Door, tmp_path: Path) -> None:
    folder = made(tmp_path, "first", {"t000": 2.0, "t001": 1.9})
    answer = loraloom("report", "first", "--output-dir", tmp_path, "--json")
    assert answer.code == 0, answer.err
    assert Path(answer.json()["report"]) == folder.report_path.resolve()
    assert "t001" in folder.report_path.read_text()
    assert loraloom("report", "nosuch", "--output-dir", tmp_path).code == 2


def test_samples_are_written_at_the_end_and_texts_are_judged(
    loraloom: Door, world: World, tmp_path: Path
) -> None:
    words = [
        "--model",
        world.llama,
        "--data",
        world.text,
        "--max-steps",
        "2",
        "--output-dir",
        tmp_path,
        "--name",
        "first",
    ]
    answer = loraloom("train", *words, "--quiet")
    assert answer.code == 0, answer.err
    samples = read_samples(RunFolder(tmp_path / "first"))
    assert len(samples) == 4
    assert all(sample.prompt and sample.wanted for sample in samples)
    assert "What it writes" in (tmp_path / "first" / "report.html").read_text()
    judged = loraloom(
        "evaluate",
        "--adapter",
        tmp_path / "first",
        "--data",
        world.text,
        "--metric",
        "exact_match",
        "--max-new-tokens",
        "4",
        "--json",
    )
    assert judged.code == 0, judged.err
    metrics = judged.json()["metrics"]
    assert 0 <= metrics["test_exact_match"] <= 1
    assert metrics["test_exact_match_se"] >= 0
    other = loraloom("evaluate", "--adapter", tmp_path / "first", "--data", world.labels)
    assert (other.code, "trained for CAUSAL_LM, and these rows are for SEQ_CLS" in other.err) == (
        2,
        True,
    ), other.err
    long = loraloom("generate", "--adapter", tmp_path / "first", "the cat " * 2000)
    assert (long.code, "error: the prompt has" in long.err) == (2, True), long.err


def test_there_are_three_splits_to_evaluate_on(loraloom: Door, world: World) -> None:
    answer = loraloom("evaluate", "--model", world.llama, "--data", world.text, "--split", "dev")
    assert (answer.code, "there is no split `dev`" in answer.err) == (2, True), answer.err


def test_an_output_folder_that_is_a_file_is_refused(loraloom: Door, world: World) -> None:
    answer = loraloom("runs", "--output-dir", world.text)
    assert (answer.code, "is a file, so no run can be kept in it" in answer.err) == (2, True), answer.err


def test_a_classifier_writes_no_texts_to_judge(loraloom: Door, world: World) -> None:
    answer = loraloom(
        "evaluate",
        "--model",
        world.bert,
        "--data",
        world.labels,
        "--task",
        "seq_cls",
        "--metric",
        "exact_match",
    )
    assert answer.code == 2
    assert "judges texts, and a classifier writes none" in answer.err


def test_an_unknown_tracker_ends_before_any_work(loraloom: Door, world: World, tmp_path: Path) -> None:
    answer = loraloom(
        "train",
        "--model",
        world.llama,
        "--data",
        world.text,
        "--output-dir",
        tmp_path,
        "--set",
        "report_to=[notes]",
    )
    assert answer.code == 2
    assert "is no tracker" in answer.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_a_terminal_s_width_is_kept_to_and_numbers_are_whole(
    loraloom: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    long = "a-run-with-a-name-that-somebody-typed-on-a-friday-evening"
    made(tmp_path, "first", {"t000": 2.0, "t001": 1.9, "t002": 2.1})
    made(tmp_path, long, {"t000": 1.5}, model="someone/a-model-with-quite-a-long-name-Instruct")
    monkeypatch.setenv("COLUMNS", str(width))
    for words in (["compare", "first"], ["compare", "first", long], ["runs"]):
        answer = loraloom(*words, "--output-dir", tmp_path)
        assert answer.code == 0, answer.err
        assert not [
            line
            for line in answer.out.splitlines()
            if len(line.rstrip()) > width and " " in line.rstrip()
        ]
        assert "…" not in answer.out
    told = loraloom("runs", "--output-dir", tmp_path, "--json").json()
    assert all(with_error(run["best_value"], run["best_se"]) in answer.out for run in told)
    assert answer.out.count("completed") == 2


def test_all_columns_are_shown_on_demand_and_where_there_is_no_terminal(
    loraloom: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, "first", {"t000": 2.0, "t001": 1.9})
    words = ["compare", "first", "--output-dir", tmp_path]
    piped = loraloom(*words).out
    assert "not shown" not in piped and "95% interval" in piped and "front" in piped
    monkeypatch.setenv("COLUMNS", "60")
    short = loraloom(*words).out
    assert "not shown" in short and "--all" in short
    assert loraloom(*words, "--all").out.splitlines()[:8] == piped.splitlines()[:8]


def test_a_screen_holds_the_best_the_kept_and_the_reference(
    loraloom: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, "many", {f"t{number:03d}": 2.0 - number / 100 for number in range(40)})
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    monkeypatch.setattr("rich.console.Console.height", 24)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    answer = loraloom("compare", "many", "--output-dir", tmp_path)
    assert answer.code == 0, answer.err
    assert len(answer.out.splitlines()) < 24 + 4
    assert "t039" in answer.out and "t000" in answer.out and "t010" not in answer.out
    assert "more candidates (--all shows them)" in answer.out
    assert "t010" in loraloom("compare", "many", "--output-dir", tmp_path, "--all").out


def test_many_that_were_not_compared_row_by_row_are_counted(loraloom: Door, tmp_path: Path) -> None:
    made(tmp_path, "loose", {f"t{number:03d}": 2.0 for number in range(12)}, rows="")
    (note,) = loraloom("compare", "loose", "--output-dir", tmp_path, "--json").json()["notes"]
    assert re.match(r"(t\d+, ){3}t\d+ and 7 more: not compared row by row", note)


def test_compare_and_tune_say_the_same_of_a_race(world: World, loraloom: Door, tmp_path: Path) -> None:
    """The search's own run of a setting is no part of its race: the choice was made by it."""
    words = (
        "--model",
        world.bert,
        "--data",
        world.labels,
        "--validation",
        "0.2",
        "--trials",
        "4",
        "--max-steps",
        "8",
    )
    tuned = loraloom(
        "tune", *words, "--output-dir", tmp_path, "--name", "raced", "--json", "--seed", "3"
    )
    assert tuned.code == 0, tuned.err
    verdict, compared = (
        tuned.json()["verdict"],
        loraloom("compare", tmp_path / "raced", "--json").json()["verdict"],
    )
    interval = verdict[verdict.index("gain ") :].partition(";")[0]
    assert interval in compared, (verdict, compared)
