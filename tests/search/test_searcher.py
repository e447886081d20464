"""The searcher: what Optuna is told, and what is refused."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
from optuna.trial import TrialState

from loraloom.errors import ConfigError
from loraloom.records import Score
from loraloom.search.decode import decode_space
from loraloom.search.searcher import AskedTrial, Observation, Searcher
from loraloom.search.space import ALPHA, RANK, RATE
from standings import ranking

PLAN: dict[str, Any] = {RATE: 3e-4, RANK: 16, ALPHA: 32.0}
SPACE = decode_space({RATE: {"low": 7.5e-5, "high": 1.2e-3, "log": True}, RANK: [8, 16, 32, 64]})
BASE = Score("validation", {"loss": 2.0})


def score(cost: float, accuracy: float | None = None) -> Score:
    metrics = {"loss": cost} if accuracy is None else {"loss": cost, "accuracy": accuracy}
    return Score("validation", metrics, tuple(cost + 0.01 * row for row in range(-20, 21)))


def seen(asked: AskedTrial, cost: float, evaluation: int = 1) -> Observation:
    return Observation(
        asked.id, 50 * evaluation, evaluation / 8, 0.06, score(cost), cost, 3.0, ("linear", 0.06)
    )


def ask(searcher: Searcher, count: int) -> list[AskedTrial]:
    return [asked for _ in range(count) if (asked := searcher.ask())]


def test_four_trials_are_the_anchors_and_nothing_is_pruned() -> None:
    searcher = Searcher(SPACE, PLAN, 4, 4)
    handed = ask(searcher, 5)
    assert [(asked.kind, asked.seed_offset) for asked in handed] == [
        ("default", 0),
        ("anchor", 0),
        ("anchor", 0),
        ("anchor", 1),
    ]
    for evaluation in range(1, 8):
        for asked in handed:
            searcher.report(seen(asked, 1.0 + (asked.id == "t001"), evaluation))
            assert searcher.verdicts() == []


def test_with_four_trials_one_by_one_the_last_is_the_best_once_more() -> None:
    searcher = Searcher(SPACE, PLAN, 4, 1)
    for cost in (1.2, 1.0, 1.1):
        (asked,) = ask(searcher, 1)
        searcher.tell(asked.id, "completed", score(cost))
    (last,) = ask(searcher, 1)
    assert (last.params[RATE], last.seed_offset) == (pytest.approx(9e-4), 1)


def test_each_trial_has_the_cost_and_status_that_were_told() -> None:
    searcher = Searcher(SPACE, PLAN, 8, 8, base=BASE)
    handed = ask(searcher, 6)
    searcher.tell("t000", "completed", score(1.2))
    searcher.tell("t001", "completed", score(1.1))
    searcher.report(seen(handed[2], 0.9))
    searcher.tell("t002", "pruned")
    searcher.tell("t003", "diverged")
    searcher.tell("t004", "failed")
    found = {place.trial_id: (place.status, place.cost) for place in ranking(searcher)}
    assert found == {
        "t000": ("completed", pytest.approx(1.2)),
        "t001": ("completed", pytest.approx(1.1)),
        "t002": ("pruned", pytest.approx(0.9)),
        "t003": ("diverged", math.inf),
        "t004": ("failed", math.inf),
        "t005": ("running", math.inf),
    }


@pytest.mark.parametrize(("sampler", "state"), [("gp", TrialState.COMPLETE), ("tpe", TrialState.PRUNED)])
def test_each_sampler_is_told_of_pruning_what_it_can_use(sampler: str, state: TrialState) -> None:
    searcher = Searcher(SPACE, PLAN, 16, 4, sampler, base=BASE)
    handed = ask(searcher, 3)
    for asked, cost in zip(handed, (1.5, 1.8, 1.7), strict=True):
        searcher.report(seen(asked, cost))
    searcher.tell("t000", "completed", score(1.1))
    searcher.tell("t001", "pruned")
    searcher.tell("t002", "diverged")
    completed, pruned, diverged = searcher._study.trials  # pyright: ignore[reportPrivateUsage]
    assert completed.value == pytest.approx(1.1)
    assert pruned.state == state
    # The leader's end plus the gap at the point where both were seen; Optuna itself writes the last
    # report of a pruned one.
    assert pruned.value == pytest.approx(1.1 + 0.3 if sampler == "gp" else 1.8)
    assert (diverged.state, diverged.value) == (TrialState.COMPLETE, 2.0)


def test_a_failed_trial_teaches_nothing_and_is_not_repeated() -> None:
    searcher = Searcher(SPACE, PLAN, 2, 1)
    ask(searcher, 1)
    searcher.tell("t000", "failed")
    assert [trial.state for trial in searcher._study.trials] == [TrialState.FAIL]  # pyright: ignore[reportPrivateUsage]
    assert [asked.id for asked in ask(searcher, 3)] == ["t001"]


def test_a_trial_that_starts_over_forgets_what_it_had_seen() -> None:
    searcher = Searcher(SPACE, PLAN, 4, 4)
    (asked,) = ask(searcher, 1)
    for evaluation, cost in ((1, 1.5), (2, 1.2), (1, 1.6)):
        searcher.report(seen(asked, cost, evaluation))
    (place,) = ranking(searcher)
    assert (place.progress, place.cost) == (1 / 8, pytest.approx(1.6))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="there is no sampler `cma`"):
        Searcher(SPACE, PLAN, 4, 4, "cma")
    with pytest.raises(ConfigError, match="there is no pruner `halving`"):
        Searcher(SPACE, PLAN, 4, 4, pruner="halving")


def test_wrong_calls_are_refused() -> None:
    searcher = Searcher(SPACE, PLAN, 4, 4)
    with pytest.raises(ValueError, match="trial t000 is not running"):
        searcher.tell("t000", "failed")
    (asked,) = ask(searcher, 1)
    with pytest.raises(ValueError, match="cannot be completed with a cost of nan"):
        searcher.tell("t000", "completed")
    with pytest.raises(ValueError, match="is no place in a training"):
        searcher.report(seen(asked, 1.0, 9))
    searcher.tell("t000", "completed", score(1.0))
    with pytest.raises(ValueError, match="trial t000 is not running"):
        searcher.report(seen(asked, 1.0))


def test_a_score_to_maximise_becomes_a_cost() -> None:
    searcher = Searcher(SPACE, PLAN, 4, 4, minimize=False)
    ask(searcher, 2)
    searcher.tell("t000", "completed", score(0.6))
    searcher.tell("t001", "completed", score(0.8))
    assert [(place.trial_id, place.cost) for place in ranking(searcher)] == [
        ("t001", pytest.approx(-0.8)),
        ("t000", pytest.approx(-0.6)),
    ]


def test_a_stop_is_a_completion_with_the_best_score() -> None:
    searcher = Searcher(SPACE, PLAN, 4, 4)
    (asked,) = ask(searcher, 1)
    verdicts = []
    for evaluation, cost in enumerate((1.5, 1.2, 1.0, 1.1, 1.2, 1.3), start=1):
        searcher.report(seen(asked, cost, evaluation))
        verdicts += searcher.verdicts()
    assert [(verdict.trial_id, verdict.action, verdict.step) for verdict in verdicts] == [
        ("t000", "stop", 300)
    ]
    searcher.tell("t000", "completed", score(1.0))
    assert ranking(searcher)[0].cost == pytest.approx(1.0)


def test_the_room_is_light_to_enter() -> None:
    """`--help` and `check` decode a space without Optuna, and nothing here imports torch by itself."""
    heavy = (
        "import sys, loraloom.search.space, loraloom.search.pruners, loraloom.search.samplers,"
        " loraloom.search.default_space;"
    )
    heavy += "from loraloom.search.decode import decode_space; decode_space({'adapter.r': [8, 16]});"
    heavy += "print(sorted({'optuna', 'sqlalchemy', 'torch', 'scipy'} & sys.modules.keys()))"
    assert (
        subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )
