"""The searcher: what Optuna is told, what a second process finds, and what is refused."""

from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from loraloom.errors import ConfigError, RequestError, StoreError
from loraloom.records import Score
from loraloom.search.searcher import Observation, Searcher, Suggestion
from loraloom.search.space import ALPHA, RANK, RATE, Space

PLAN: dict[str, Any] = {RATE: 3e-4, RANK: 16, ALPHA: 32.0}
SPACE = Space.decode({RATE: {"low": 7.5e-5, "high": 1.2e-3, "log": True}, RANK: [8, 16, 32, 64]})
BASE = Score("validation", {"loss": 2.0})


def score(cost: float, accuracy: float | None = None) -> Score:
    metrics = {"loss": cost} if accuracy is None else {"loss": cost, "accuracy": accuracy}
    return Score("validation", metrics, tuple(cost + 0.01 * row for row in range(-20, 21)))


def seen(asked: Suggestion, cost: float, evaluation: int = 1) -> Observation:
    return Observation(asked.id, 50 * evaluation, evaluation / 8, 0.06, score(cost), cost, 3.0, ("linear", 0.06))


def ask(searcher: Searcher, count: int) -> list[Suggestion]:
    return [asked for _ in range(count) if (asked := searcher.ask())]


def study(url: str) -> optuna.Study:
    return optuna.load_study(study_name="search", storage=url)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


def test_four_trials_are_the_anchors_and_nothing_is_pruned() -> None:
    searcher = Searcher(SPACE, PLAN, 4, 4)
    handed = ask(searcher, 5)
    assert [(asked.kind, asked.seed_offset) for asked in handed] == [("default", 0), ("anchor", 0), ("anchor", 0), ("anchor", 1)]
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


def test_the_ranking_is_by_cost_with_the_completed_first() -> None:
    searcher = Searcher(SPACE, PLAN, 8, 8, base=BASE)
    handed = ask(searcher, 6)
    searcher.tell("t000", "completed", score(1.2))
    searcher.tell("t001", "completed", score(1.1))
    searcher.report(seen(handed[2], 0.9))
    searcher.tell("t002", "pruned")
    searcher.tell("t003", "diverged")
    searcher.tell("t004", "failed")
    ranked = [(place.trial_id, place.status) for place in searcher.ranking()]
    assert ranked == [
        ("t001", "completed"),
        ("t000", "completed"),
        ("t005", "running"),
        ("t002", "pruned"),
        ("t003", "diverged"),
        ("t004", "failed"),
    ]
    assert searcher.ranking()[0].cost == pytest.approx(1.1)
    assert searcher.ranking()[0].se == pytest.approx(0.01 * math.sqrt(140 * 41 / 40) / math.sqrt(41))


@pytest.mark.parametrize(("sampler", "state"), [("gp", TrialState.COMPLETE), ("tpe", TrialState.PRUNED)])
def test_each_sampler_is_told_of_pruning_what_it_can_use(sampler: str, state: TrialState, url: str) -> None:
    searcher = Searcher(SPACE, PLAN, 16, 4, sampler, storage=url, base=BASE)
    handed = ask(searcher, 3)
    for asked, cost in zip(handed, (1.5, 1.8, 1.7), strict=True):
        searcher.report(seen(asked, cost))
    searcher.tell("t000", "completed", score(1.1))
    searcher.tell("t001", "pruned")
    searcher.tell("t002", "diverged")
    completed, pruned, diverged = study(url).trials
    assert completed.value == pytest.approx(1.1)
    assert pruned.state == state
    # The leader's end plus the gap at the point where both were seen; Optuna itself writes the last report of a pruned one.
    assert pruned.value == pytest.approx(1.1 + 0.3 if sampler == "gp" else 1.8)
    assert pruned.user_attrs["result"]["censored"] == (sampler == "gp")
    assert (diverged.state, diverged.value) == (TrialState.COMPLETE, 2.0)


def test_a_failed_trial_teaches_nothing_and_is_not_repeated(url: str) -> None:
    searcher = Searcher(SPACE, PLAN, 2, 1, storage=url)
    ask(searcher, 1)
    searcher.tell("t000", "failed")
    assert [trial.state for trial in study(url).trials] == [TrialState.FAIL]
    assert [asked.id for asked in ask(searcher, 3)] == ["t001"]
    assert [asked.id for asked in ask(Searcher(SPACE, PLAN, 2, 1, storage=url), 3)] == ["t001"]


def test_a_crash_leaves_no_zombie_and_no_gap(url: str) -> None:
    first = Searcher(SPACE, PLAN, 8, 4, storage=url)
    handed = ask(first, 4)
    first.report(seen(handed[1], 1.4))
    first.tell("t000", "completed", score(1.0))
    again = Searcher(SPACE, PLAN, 8, 4, storage=url)
    assert not [trial for trial in study(url).trials if trial.state == TrialState.RUNNING]
    assert {place.trial_id: place.status for place in again.ranking()} == {
        "t000": "completed",
        "t001": "waiting",
        "t002": "waiting",
        "t003": "waiting",
    }
    resumed = ask(again, 3)
    assert [(asked.id, asked.resumed) for asked in resumed] == [("t001", True), ("t002", True), ("t003", True)]
    assert [asked.params for asked in resumed] == [asked.params for asked in handed[1:]]
    assert next(place.cost for place in again.ranking() if place.trial_id == "t001") == pytest.approx(1.4)
    assert [asked.id for asked in ask(again, 9)] == ["t004", "t005", "t006", "t007"]


def test_pruning_goes_on_after_a_crash_with_what_was_seen_before(url: str) -> None:
    first = Searcher(SPACE, PLAN, 16, 8, "sobol", "careful", storage=url)
    handed = ask(first, 8)
    for evaluation in (1, 2):
        for asked in handed[:-1]:
            first.report(seen(asked, 2.0 - 0.2 * evaluation, evaluation))
    again = Searcher(SPACE, PLAN, 16, 8, "sobol", "careful", storage=url)
    last = ask(again, 8)[-1]
    again.report(seen(last, 2.5, 1))
    assert again.verdicts() == []
    again.report(seen(last, 2.4, 2))
    (verdict,) = again.verdicts()
    assert (verdict.trial_id, verdict.action) == (last.id, "prune")


def test_a_trial_that_starts_over_forgets_what_it_had_seen() -> None:
    searcher = Searcher(SPACE, PLAN, 4, 4)
    (asked,) = ask(searcher, 1)
    for evaluation, cost in ((1, 1.5), (2, 1.2), (1, 1.6)):
        searcher.report(seen(asked, cost, evaluation))
    (place,) = searcher.ranking()
    assert (place.progress, place.cost) == (1 / 8, pytest.approx(1.6))


def test_a_larger_budget_goes_on_where_a_smaller_one_ended(url: str) -> None:
    first = Searcher(SPACE, PLAN, 4, 4, "random", storage=url)
    for asked in ask(first, 9):
        first.tell(asked.id, "completed", score(1.0))
    assert [asked.id for asked in ask(Searcher(SPACE, PLAN, 6, 4, "random", storage=url), 9)] == ["t004", "t005"]


def test_another_space_under_the_same_name_is_refused(url: str) -> None:
    Searcher(SPACE, PLAN, 4, 4, storage=url, study_name="mine")
    with pytest.raises(RequestError) as caught:
        Searcher(Space.decode({RANK: [8, 16]}), PLAN, 4, 4, storage=url, study_name="mine")
    assert str(caught.value) == (
        "the search `mine` was begun with another search space\n"
        "  got: adapter.r: 8, 16; alpha_per_r 2\n"
        "  need: training.learning_rate: 7.5e-05 to 0.0012 (log); adapter.r: 8, 16, 32, 64; alpha_per_r 2\n"
        "  next: give this run another name, or the space that it began with"
    )


def test_a_new_run_under_an_old_name_can_begin_anew(url: str) -> None:
    for asked in ask(first := Searcher(SPACE, PLAN, 4, 4, storage=url), 4):
        first.tell(asked.id, "completed", score(1.0))
    assert ask(Searcher(SPACE, PLAN, 4, 4, storage=url), 4) == []
    anew = Searcher(Space.decode({RANK: [8, 16]}), PLAN, 4, 4, storage=url, resume=False)
    assert [asked.id for asked in ask(anew, 1)] == ["t000"]


def test_a_folder_that_is_not_there_is_the_stores_fault(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="the search cannot be kept in `sqlite://") as caught:
        Searcher(SPACE, PLAN, 4, 4, storage=f"sqlite:///{tmp_path / 'nowhere' / 'study.db'}")
    assert caught.value.got == "unable to open database file"
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("storage", ["nonsense", "nodriver://somebody:secret@host/name"])
def test_a_url_that_cannot_be_is_the_users_fault_and_hides_the_password(storage: str) -> None:
    with pytest.raises(RequestError, match="cannot be used") as caught:
        Searcher(SPACE, PLAN, 4, 4, storage=storage)
    assert "secret" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_database_that_breaks_in_the_middle_says_what_to_do(url: str, tmp_path: Path) -> None:
    searcher = Searcher(SPACE, PLAN, 4, 4, storage=url)
    (asked,) = ask(searcher, 1)
    with closing(sqlite3.connect(tmp_path / "study.db")) as connection:
        connection.execute("DROP TABLE trial_user_attributes")
    with pytest.raises(StoreError, match="the search's storage refused") as caught:
        searcher.report(seen(asked, 1.0))
    assert caught.value.got is not None
    assert "no such table" in caught.value.got
    assert "resume the run" in str(caught.value)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="there is no sampler `cma`"):
        Searcher(SPACE, PLAN, 4, 4, "cma")
    with pytest.raises(ConfigError, match="there is no pruner `halving`"):
        Searcher(SPACE, PLAN, 4, 4, pruner="halving")


def test_slips_of_the_caller_are_named() -> None:
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


def test_gains_are_turned_round() -> None:
    searcher = Searcher(SPACE, PLAN, 4, 4, minimize=False)
    ask(searcher, 2)
    searcher.tell("t000", "completed", score(0.6))
    searcher.tell("t001", "completed", score(0.8))
    assert [(place.trial_id, place.cost) for place in searcher.ranking()] == [
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
    assert [(verdict.trial_id, verdict.action, verdict.step) for verdict in verdicts] == [("t000", "stop", 300)]
    searcher.tell("t000", "completed", score(1.0))
    assert searcher.ranking()[0].cost == pytest.approx(1.0)


def test_the_room_is_light_to_enter() -> None:
    """`--help` and `check` decode a space without Optuna, and nothing here imports torch by itself."""
    heavy = "import sys, loraloom.search.space, loraloom.search.pruners, loraloom.search.samplers, loraloom.search.default_space;"
    heavy += "from loraloom.search.space import Space; Space.decode({'adapter.r': [8, 16]});"
    heavy += "print(sorted({'optuna', 'sqlalchemy', 'torch', 'scipy'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout == "[]\n"
