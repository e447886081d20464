"""What of a finished run a later search learns."""

from __future__ import annotations

import json
from contextlib import suppress
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.errors import RequestError
from loraloom.pipeline.past_searches import NONSENSE, past_search
from loraloom.records import Gain, Trial
from loraloom.search.anchors import anchors
from loraloom.search.default_space import default_space
from loraloom.search.history import PastSearch, Prior
from loraloom.search.space import ALPHA, BATCH, RANK, RATE
from loraloom.store.result import RunResult

OWN = {RATE: 1e-3}


def trial(
    name: str,
    cost: float,
    params: dict[str, Any] = OWN,
    status: Any = "completed",
    steps: int = 8,
    **more: Any,
) -> Trial:
    settings = {
        RATE: 1e-3,
        RANK: 8,
        ALPHA: 16.0,
        BATCH: 4,
        "adapter.target_modules": "all-linear",
        "model.dtype": "float32",
    }
    known: dict[str, Any] = {"metrics": {"validation_loss": cost}, "steps": steps, "planned_steps": 8}
    return Trial(name, status, params, settings=settings | params | more, **known)


def run(*trials: Trial, **more: Any) -> RunResult:
    known: dict[str, Any] = {
        "name": "one",
        "verb": "tune",
        "status": "completed",
        "model": "base",
        "task": "causal_lm",
    }
    return RunResult(
        **(
            known
            | {"started_at": "", "trials": list(trials), "default": "t000", "best": "t002s1"}
            | more
        )
    )


TRIALS = (
    trial("t000", 2.0),
    trial("t001", 1.5, {RATE: 4e-3}, "pruned", steps=2),
    trial("t002", 1.8, {RATE: 2e-3}),
    trial("t003", 1.7, {RATE: 3e-3}, "pruned", steps=4),
    trial("t004", 9.0, {RATE: 9e-3}, "diverged"),
    trial("t002s0", 1.9, {RATE: 2e-3}),
    trial("t002s1", 1.6, {RATE: 2e-3}),
)


def test_trials_stand_as_they_ended_and_the_race_is_left_out() -> None:
    """A pruned one has trained for a shorter time: its cost is held against those that
    left when it did."""
    past = past_search(run(*TRIALS))
    assert isinstance(past, PastSearch)
    assert [(one.params[RATE], one.standing) for one in past.known] == [
        (1e-3, 0.75),
        (4e-3, 0.25),
        (2e-3, 1.0),
        (3e-3, 0.5),
        (9e-3, 0.0),
    ]
    assert past.known[0].params == {
        RATE: 1e-3,
        RANK: 8,
        ALPHA: 16.0,
        BATCH: 4,
        "adapter.target_modules": "all-linear",
    }


def test_the_winner_is_the_trial_of_the_search_whose_setting_was_kept() -> None:
    past = past_search(run(*TRIALS))
    assert isinstance(past, PastSearch)
    assert (past.run, past.trial, past.params, past.gain) == (
        "one",
        "t002",
        {RATE: 2e-3},
        pytest.approx(0.2),
    )
    assert [one.reason for one in past.known if one.reason] == [
        "t002 of run one was 0.2 better than the plan's setting there"
    ]


def test_the_gain_is_that_of_the_race_where_it_gave_one() -> None:
    past = past_search(run(*TRIALS, gain=Gain(0.12, 0.01, 0.2, 0.99)))
    assert isinstance(past, PastSearch) and past.gain == 0.12


def test_more_is_better_for_an_accuracy() -> None:
    shares = [
        Trial(f"t00{n}", "completed", {RATE: rate}, {"validation_accuracy": share})
        for n, rate, share in ((0, 1e-3, 0.5), (1, 2e-3, 0.7), (2, 4e-3, 0.6))
    ]
    past = past_search(run(*shares, metric="validation_accuracy", direction="maximize", best="t001"))
    assert isinstance(past, PastSearch) and past.gain == pytest.approx(0.2)
    assert [one.standing for one in past.known] == [0.0, 1.0, 0.5]


def test_a_plan_that_won_is_no_setting_to_try_again() -> None:
    past = past_search(run(*TRIALS, best="t000"))
    assert isinstance(past, PastSearch) and past.gain == 0 and not any(one.reason for one in past.known)
    worse = past_search(run(*TRIALS, gain=Gain(-0.1, -0.2, 0.1, 0.2)))
    assert isinstance(worse, PastSearch) and not any(one.reason for one in worse.known)


def test_a_run_that_kept_nothing_tells_nothing() -> None:
    assert past_search(run(*TRIALS, best=None)) == "it kept none of its candidates"
    assert past_search(run(*TRIALS[:2], *TRIALS[4:])) == "2 of its candidates came to a result"


@pytest.mark.parametrize("strange", [{RANK: 0}, {ALPHA: "much"}, {RATE: float("nan")}, {BATCH: True}])
def test_settings_that_nobody_can_have_spoil_a_run(strange: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="t005"):
        past_search(run(*TRIALS, trial("t005", 1.0, OWN | strange)))


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=3),
    st.integers(),
    st.just(10**400),
    st.floats(),
    st.just([]),
    st.just({}),
    st.just(["a", ["b"]]),
    st.just({"a": 1}),
)


@given(st.data())
def test_whatever_stands_in_a_run_json_no_search_fails_for_it(data: st.DataObject) -> None:
    """One or two values of a good file are replaced by odd ones; what is still read has
    standings and a place in the space."""
    document = json.loads(json.dumps(run(*TRIALS).to_plain()))
    for _ in range(data.draw(st.integers(1, 2))):
        inner: Any = document
        while True:
            key = data.draw(
                st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner)))
            )
            if (
                not (isinstance(inner[key], dict | list) and inner[key])
                or data.draw(st.integers(0, 4)) == 0
            ):
                break
            inner = inner[key]
        inner[key] = deepcopy(data.draw(ODD))
    with suppress(RequestError, *NONSENSE):
        past = past_search(RunResult.from_plain(document))
        if isinstance(past, PastSearch):
            use(past)


def use(past: PastSearch) -> None:
    """What a search does with it, which must not fail."""
    try:
        plan = {RATE: 1e-3, RANK: 8, ALPHA: 16.0, BATCH: 4}
        for space in (default_space(plan, trials, 1) for trials in (4, 16, 128)):
            for anchor in anchors(space, plan, 16, past.known):
                assert 0 <= Prior(space, past.known)(space.point(anchor.params)) <= 1
        json.dumps(past.to_json())
    except NONSENSE as error:
        raise AssertionError("a search that was read cannot be used") from error
