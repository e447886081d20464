"""A trial that is broken leaves at once; one that is merely slow does not."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from loraloom.records import Score
from loraloom.search.curves import TrialCurve
from loraloom.search.exits import leave
from loraloom.search.values import AskedTrial, Observation, Verdict

ROWS = tuple(0.01 * row for row in range(-20, 21))


def curve(
    costs: list[float],
    train: list[float] | None = None,
    *,
    protected: bool = False,
    warmup: float = 0.1,
    accuracy: list[float] | None = None,
) -> TrialCurve:
    """A trial of ten evaluations in all that has come as far as `costs` go."""
    made = TrialCurve(AskedTrial("t001", {}, "sampled"), 0, protected)
    for place, cost in enumerate(costs):
        metrics = {} if accuracy is None else {"accuracy": accuracy[place]}
        score = Score("validation", metrics, tuple(cost + row for row in ROWS))
        loss = cost if train is None else train[place]
        made.add(Observation("t001", 10 * (place + 1), (place + 1) / 10, warmup, score, loss, 2.0))
    return made


def action(verdict: Verdict | None) -> str | None:
    return verdict and verdict.action


def test_one_bad_number_is_forgiven_and_two_are_not() -> None:
    assert leave(curve([1.9, math.nan, 1.7]), None) is None
    verdict = leave(curve([1.9, math.nan, 1.7, math.inf]), None)
    assert action(verdict) == "diverged"
    assert verdict is not None
    assert verdict.reason == "2 of its 4 evaluations were not finite"
    assert verdict.step == 40


def test_in_warmup_only_a_blow_up_counts() -> None:
    assert leave(curve([5.0], [5.9], warmup=0.2), 1.0) is None
    verdict = leave(curve([5.0], [6.1], warmup=0.2), 1.0)
    assert verdict is not None
    assert "in warm-up, above 3 times the first (2)" in verdict.reason


def test_later_three_checks_in_a_row_count() -> None:
    assert leave(curve([1.0, 1.0, 1.0], [1.0, 1.6, 1.6]), None) is None
    assert leave(curve([1.0, 1.0, 1.0, 1.0], [1.0, 1.6, 1.4, 1.6]), None) is None
    verdict = leave(curve([1.0, 1.0, 1.0, 1.0], [1.0, 1.6, 1.6, 1.6]), None)
    assert verdict is not None
    assert "above 1.5 times its best (1) on 3 checks in a row" in verdict.reason


def test_a_train_loss_near_nothing_may_double() -> None:
    assert leave(curve([1.0] * 5, [0.5, 0.01, 0.05, 0.05, 0.05]), None) is None
    assert action(leave(curve([1.0] * 5, [0.5, 0.01, 0.25, 0.25, 0.25]), None)) == "diverged"


def test_worse_than_the_base_counts_from_a_quarter_on_and_not_for_the_yardstick() -> None:
    assert leave(curve([2.1, 2.1, 2.1]), 2.0) is None
    assert leave(curve([2.1, 2.1, 2.1, 1.9]), 2.0) is None
    verdict = leave(curve([2.1, 2.1, 2.1, 2.1]), 2.0)
    assert action(verdict) == "diverged"
    assert verdict is not None
    assert "worse than before training (2) on 2 checks in a row" in verdict.reason
    assert leave(curve([2.1, 2.1, 2.1, 2.1], protected=True), 2.0) is None
    assert leave(curve([2.1, 2.1, 2.1, 2.1]), None) is None


def test_overfitting_stops_a_trial_unless_its_metric_still_gains() -> None:
    losses = [1.5, 1.2, 1.0, 1.1, 1.2, 1.3]
    verdict = leave(curve(losses), None)
    assert action(verdict) == "stop"
    assert verdict is not None
    assert "above its best (1 at step 30)" in verdict.reason
    assert leave(curve(losses, accuracy=[0.1, 0.2, 0.3, 0.3, 0.35, 0.4]), None) is None
    assert action(leave(curve(losses, accuracy=[0.1, 0.2, 0.3, 0.3, 0.2, 0.3]), None)) == "stop"


def test_overfitting_needs_half_of_the_steps_and_three_evaluations() -> None:
    assert leave(curve([1.0, 1.2, 1.3, 1.4], [1.0] * 4), None) is None
    assert leave(curve([1.5, 1.2, 1.1, 1.0, 1.1, 1.2]), None) is None
    assert leave(curve([1.5, 1.2, 1.1, 1.0, 0.9, 0.8, 0.7, 0.8, 0.9, 1.0]), None) is None


@given(st.lists(st.floats(0.0, 0.2), min_size=1, max_size=10))
def test_whatever_learns_stays(falls: list[float]) -> None:
    """A loss that never rises is never a reason to leave."""
    costs = [1.99 - sum(falls[: place + 1]) * 0.5 for place in range(len(falls))]
    assert leave(curve(costs), 2.0) is None
