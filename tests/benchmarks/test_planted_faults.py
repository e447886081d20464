"""The suite of planted faults: what counts as right, what counts as better, what is
timed, and that the result adds up."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from scripts import load

from loraloom.diagnose.order import ORDER
from loraloom.records import Trial
from loraloom.store.result import RunResult

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "planted_faults"


# Its neighbours are found as a run finds them.
sys.path.insert(0, str(FOLDER))
bench: Any = load("planted_faults")
sys.path.remove(str(FOLDER))
compare: Any = sys.modules["compare"]
cost: Any = sys.modules["cost"]
files: Any = sys.modules["files"]
harm: Any = sys.modules["harm"]
cases: Any = sys.modules["cases"]


def result(metric: str = "validation_loss", **trial: Any) -> RunResult:
    """A run with one trial."""
    made = Trial("t000", "completed", {}, **trial)
    direction: Any = "minimize" if metric.endswith("loss") else "maximize"
    run = RunResult(
        name="r",
        verb="train",
        status="completed",
        model="m",
        task="causal_lm",
        started_at="",
        metric=metric,
        direction=direction,
    )
    run.trials, run.baseline = [made], {"validation_loss": 2.0, "validation_accuracy": 0.5}
    return run


def outcome(
    *,
    expected: tuple[str, ...] = ("overfit",),
    right: bool = True,
    better: bool | None = None,
    worse: float | None = None,
) -> Any:
    compared = None if better is None else compare.Compared("loss", 2.0, 1.0, better)
    did = None if worse is None else harm._harm("loss", worse, 0.1)
    return bench.Outcome(
        "a run",
        "a task",
        list(expected),
        ["overfit"],
        "warning",
        right=right,
        compared=compared,
        harm=did,
    )


def test_rates_count_each_run_once() -> None:
    healthy = [outcome(expected=()), outcome(expected=(), right=False)]
    outcomes = [outcome(better=True), outcome(better=False), outcome(right=False), *healthy]
    assert bench.rates(outcomes) == {
        "first finding right": (2, 3),
        "first finding right, harmless faults counted": (2, 3),
        "healthy runs with nothing above a note": (1, 2),
        "remedies that helped": (1, 2),
    }


def test_what_a_healthy_run_is_told_is_tried_and_shown_and_no_remedy() -> None:
    told = outcome(expected=(), right=False, better=True)
    told.patch = {"training.num_train_epochs": 12.0}
    assert bench.rates([told])["remedies that helped"] == (0, 0)
    assert "| num_train_epochs 12 | loss 2.000 | 1.000 | yes |" in bench.table([told])
    told.compared = None
    assert "num_train_epochs" not in bench.table([told]), "a note is not tried"


def test_a_fault_that_did_no_harm_is_counted_apart() -> None:
    outcomes = [outcome(worse=0.5), outcome(right=False, worse=0.15), outcome(right=False, worse=0.5)]
    assert bench.rates(outcomes)["first finding right"] == (1, 2)
    assert bench.rates(outcomes)["first finding right, harmless faults counted"] == (1, 3)
    assert "0.150 +- 0.100: harmless" in bench.table(outcomes[1:2])


def folder(
    place: Path,
    metrics: dict[str, float],
    adapter: str | None = "a",
    signals: dict[str, Any] | None = None,
) -> Any:
    """A run on disk with one trial, its rows' costs not kept."""
    made = bench.RunFolder(place)
    place.mkdir()
    run = result("validation_loss", metrics=metrics, adapter=adapter)
    run.best, run.name = "t000", place.name
    made.write_result(run)
    made.write_signals("t000", signals or {})
    return made


def losses(loss: float) -> dict[str, float]:
    return {"validation_loss": loss, "validation_loss_se": 0.1}


def test_harm_is_held_against_the_healthy_run_of_the_task(tmp_path: Path) -> None:
    fault = cases.Planted("rank 1", "plays", ("rank-bound",))
    healthy, bad, mild = (
        folder(tmp_path / name, losses(loss)) for name, loss in (("h", 1.0), ("b", 1.5), ("m", 1.2))
    )
    done = harm.harm_of(fault, bad, healthy)
    assert done.done and done.worse == pytest.approx(0.5) and done.se == pytest.approx(2**0.5 * 0.1)
    assert not harm.harm_of(fault, mild, healthy).done
    assert harm.harm_of(fault, folder(tmp_path / "lost", losses(1.0), None), healthy).done, (
        "it kept no adapter"
    )
    assert harm.harm_of(fault, bad, bench.RunFolder(tmp_path / "absent")) is None
    assert harm.harm_of(cases.Planted("healthy plays", "plays"), bad, healthy) is None


def test_harm_is_what_the_fault_is_about(tmp_path: Path) -> None:
    healthy = folder(tmp_path / "h", losses(1.0))
    seen = folder(
        tmp_path / "s",
        losses(0.5),
        signals={"readings": [{"gain": -0.3, "gain_se": 0.1}], "retain_change": (0.1, 0.2)},
    )
    overfit = cases.Planted("40 epochs", "plays", ("overfit",))
    assert harm.harm_of(overfit, seen, healthy) == harm.Harm(
        "last evaluation against the best", 0.3, 0.1, True
    )
    assert not harm.harm_of(
        cases.Planted("forgetting", "plays", ("forgetting",), judged_by="retain"), seen, healthy
    ).done
    wide = cases.Planted("rank 128", "plays", ("rank-surplus",), judged_by="parameters")
    assert not harm.harm_of(wide, seen, healthy).done, "the rank was of use"
    assert harm.harm_of(wide, healthy, folder(tmp_path / "h2", losses(1.0))).done, (
        "parameters for nothing"
    )
    assert (
        harm.harm_of(
            cases.Planted("cut", "plays", ("answers-cut-off",), judged_by="longer"), seen, healthy
        )
        is None
    )


def test_a_loss_is_better_when_small_and_an_accuracy_when_large() -> None:
    low, high = ({"validation_loss": value} for value in (1.0, 1.5))
    assert compare._metric(result(metrics=high, adapter="a"), result(metrics=low, adapter="a")).better
    low, high = ({"validation_accuracy": value} for value in (0.6, 0.9))
    worse, good = (
        result("validation_accuracy", metrics=metrics, adapter="a") for metrics in (low, high)
    )
    assert compare._metric(worse, good).better and not compare._metric(good, worse).better


def test_a_run_that_kept_no_adapter_has_the_score_of_the_base() -> None:
    lost = result(metrics={"validation_loss": 9.0}, adapter=None)
    assert compare._metric(lost, result(metrics={"validation_loss": 1.9}, adapter="a")).before == 2.0


def test_fewer_parameters_help_only_where_nothing_is_lost() -> None:
    def sized(parameters: int, loss: float) -> RunResult:
        return result(
            metrics={"validation_loss": loss, "validation_loss_se": 0.05},
            trainable_parameters=parameters,
        )

    assert compare._parameters(sized(2000, 1.0), sized(1000, 1.1)).better, "within two standard errors"
    assert not compare._parameters(sized(2000, 1.0), sized(1000, 1.2)).better
    assert not compare._parameters(sized(1000, 1.0), sized(1000, 1.0)).better


def test_the_meter_times_diagnosis_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(seconds: float) -> None:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    monkeypatch.setattr(cost.Examiner, "examine", lambda self: busy(0.01))
    monkeypatch.setattr(cost.Driver, "run", lambda self: (busy(0.03), cost.Examiner.examine(None)))
    meter = cost.CostMeter()
    assert meter.share is None
    with meter:
        cost.Driver.run(None)
    share = meter.share
    assert share is not None and 0 < share < 1
    cost.Driver.run(None)
    assert meter.share == share, "outside it times nothing"


def test_what_is_added_is_the_median_over_pairs() -> None:
    assert cost.added_share(
        {"with": [11.0, 10.2, 30.0], "without": [10.0, 10.0, 10.0]}
    ) == pytest.approx(0.1)


def test_labels_are_dealt_out_anew_and_none_is_lost(tmp_path: Path) -> None:
    made = files.Files(tmp_path, tmp_path, "", tmp_path)
    rows = [{"text": str(n), "label": n % 3} for n in range(30)]
    mixed = made.rows(made.shuffled(made.write("rows", rows)))
    assert [row["text"] for row in mixed] == [row["text"] for row in rows]
    assert mixed != rows and sorted(row["label"] for row in mixed) == sorted(
        row["label"] for row in rows
    )


def test_it_says_what_is_missing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert bench.main(["--show", "--out", str(tmp_path / "none.json")]) == 2
    assert "no result at" in capsys.readouterr().err


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    return json.loads((FOLDER / "result.json").read_text())


def part_of(written: dict[str, Any], name: str) -> dict[str, Any]:
    if name not in written:
        pytest.skip(f"no result of this part yet: python benchmarks/planted_faults/run.py --set {name}")
    return written[name]


@pytest.mark.parametrize("part", bench.SETS)
def test_the_written_goals_are_those_of_the_written_runs(part: str, written: dict[str, Any]) -> None:
    outcomes = [bench.read_outcome(one) for one in part_of(written, part)["runs"]]
    counted = {goal: (told["good"], told["of"]) for goal, told in written[part]["goals"].items()}
    assert counted == bench.rates(outcomes)
    for one in outcomes:
        named = bool(one.findings) and one.findings[0] in one.expected
        assert one.right == (named if one.expected else one.level in ("", "note")), one.name
        parameters = one.harm is not None and one.harm.what.endswith("parameters")
        if one.harm is not None and one.harm.se:
            assert one.harm.done == (one.harm.worse > (-2 if parameters else 2) * one.harm.se), one.name


@pytest.mark.parametrize("part", bench.SETS)
def test_the_first_run_of_an_unseen_set_is_kept(part: str, written: dict[str, Any]) -> None:
    first = part_of(written, part)["first_run"]
    assert (first is not None) == bench.SETS[part].unseen
    if first is not None:
        assert set(first["goals"]) <= set(bench.GOALS) and first["date"] <= written["date"]
        counted = bench.rates([bench.read_outcome(one) for one in first["runs"]])
        assert all(counted[goal] == (told["good"], told["of"]) for goal, told in first["goals"].items())
        assert [one["name"] for one in first["runs"]] == [one["name"] for one in written[part]["runs"]]


@pytest.mark.parametrize("part", bench.SETS)
def test_what_is_expected_is_a_finding_or_a_refusal(part: str, written: dict[str, Any]) -> None:
    names = {name for one in part_of(written, part)["runs"] for name in one["expected"]}
    assert all(name in ORDER or name.startswith("refused: ") for name in names)


def test_the_written_cost_is_that_of_the_written_seconds(written: dict[str, Any]) -> None:
    for told in part_of(written, "cost").values():
        assert told["added_share"] == cost.added_share(told["loop_seconds"])


def test_the_written_result_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--show"]) == 0
    shown = capsys.readouterr().out
    assert all(goal in shown for goal in bench.GOALS) and "held_out" in shown
