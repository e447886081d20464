"""The halving pruner, rung by rung: who waits, who goes on, who goes, and when the
first rung is not believed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.records import Score
from loraloom.search.curves import TrialCurve
from loraloom.search.pruners.halving import (
    FIRST,
    SECOND,
    HalvingPruner,
    mark,
    places_at,
    whole_trainings,
)
from loraloom.search.values import AskedTrial, Kind, Observation

PLANNED, EVALUATIONS = 80, 8
RATE, RANK = "training.learning_rate", "adapter.r"


def trial(
    number: int, costs: Sequence[float], *, kind: Kind = "sampled", paused: bool = False, **more: Any
) -> TrialCurve:
    """A trial with one evaluation for each of `costs`, evenly over its planned steps. More: params,
    shape, planned, warmup."""
    params = more.get("params", {RATE: 1e-4 * (1 + number)})
    curve = TrialCurve(
        AskedTrial(f"t{number:03d}", params, kind), 0, protected=kind == "default", paused=paused
    )
    planned = more.get("planned", PLANNED)
    for place, cost in enumerate(costs, start=1):
        step = round(planned * place / EVALUATIONS)
        score = Score("validation", {"loss": cost}, (cost,) * 4)
        seen = Observation(
            curve.id,
            step,
            step / planned,
            more.get("warmup", 0.06),
            score,
            cost,
            3.0,
            more.get("shape", "linear"),
        )
        curve.add(seen)
    return curve


def field(count: int, *, reached: int = 1, end: Sequence[float] | None = None) -> list[TrialCurve]:
    """The plan's setting and so many others, the first of them the best, all after as
    many evaluations."""
    found = [trial(0, [2.0] * reached, kind="default")]
    for number in range(1, count + 1):
        costs = [1.0 + 0.01 * number] * reached
        if end is not None and reached > 1:
            costs[-1] = end[number - 1]
        found.append(trial(number, costs, paused=True))
    return found


def verdicts(curves: Sequence[TrialCurve], coming: int = 0, trials: int = 16) -> dict[str, str]:
    return {
        verdict.trial_id: verdict.action for verdict in HalvingPruner(trials).verdicts(curves, coming)
    }


def released(curves: Sequence[TrialCurve], coming: int = 0, trials: int = 16) -> list[str]:
    return HalvingPruner(trials).released(curves, coming)


def brought(curves: Sequence[TrialCurve], costs: dict[str, float]) -> list[TrialCurve]:
    """The same with those who were released at the second rung, at these costs (else what they had)."""
    found: list[TrialCurve] = []
    free = set(released(curves))
    for curve in curves:
        if curve.id in free or curve.protected:
            last = curve.readings[-1].cost
            end = min(costs.get(curve.id, last), last)
            found.append(
                trial(
                    int(curve.id[1:]),
                    [last, last, end],
                    kind=curve.asked.kind,
                    paused=curve.id in free,
                )
            )
        else:
            found.append(curve)
    return found


def test_who_comes_to_the_first_rung_waits_there_and_the_plans_own_goes_on() -> None:
    curves = field(6)
    for curve in curves:
        curve.paused = False
    curves.append(trial(7, []))
    assert verdicts(curves) == {f"t{number:03d}": "pause" for number in range(1, 7)}
    assert released(curves) == []


def test_nothing_is_decided_while_candidates_are_still_to_come() -> None:
    assert verdicts(field(6), coming=1) == {} and released(field(6), coming=1) == []


def test_a_third_goes_on_from_the_first_rung_and_two_audits_with_it() -> None:
    curves = field(15)
    free = released(curves)
    assert free[:5] == ["t001", "t002", "t003", "t004", "t005"]
    assert len(free) == 7 and set(free[5:]) <= {f"t{number:03d}" for number in range(6, 16)}
    assert verdicts(curves) == {}, "the others wait until the audits have shown that the rung was right"


def test_the_others_go_once_the_second_rung_has_agreed_with_the_first() -> None:
    late = brought(field(15), {})
    found = verdicts(late)
    assert {name for name, action in found.items() if action == "prune"} == {
        f"t{number:03d}" for number in range(3, 16)
    }
    assert released(late) == ["t001", "t002"]


def test_a_first_rung_that_the_audits_gainsay_is_moved() -> None:
    curves = field(15)
    audits = released(curves)[5:]
    late = brought(curves, dict.fromkeys(audits, 0.5))
    back = released(late)
    assert set(back) == {curve.id for curve in curves[1:]} - set(released(curves))
    assert verdicts(late) == {}, "nobody goes before all have come as far"
    last = [
        trial(int(c.id[1:]), [1.0, 1.0, 0.1], paused=True) if c.id == back[0] else c
        for c in brought(late, {})
    ]
    last = [trial(int(c.id[1:]), [1.2] * 3, paused=True) if c.id in back[1:] else c for c in last]
    assert back[0] in released(last), "one that the first rung had cut may win after all"


def test_who_ends_on_the_way_is_not_waited_for() -> None:
    curves = field(6)
    curves.append(trial(7, []))
    curves[-1].status = "diverged"
    assert released(curves)


def test_a_score_that_is_not_finite_is_the_last_place() -> None:
    curves = field(6)
    curves[3] = trial(3, [float("nan")], paused=True)
    late = brought(curves, {})
    assert mark(curves[3], FIRST) is not None
    assert "t003" not in released(late)


def test_other_courses_of_the_rate_are_not_held_against_each_other() -> None:
    curves = field(6)
    other = [trial(10 + number, [5.0 + number], paused=True, shape="cosine") for number in range(6)]
    assert set(released([*curves, *other])) >= {"t001", "t002", "t010", "t011"}


def test_few_of_a_kind_all_go_on() -> None:
    curves = [*field(6), *(trial(10 + n, [5.0 + n], paused=True, shape="cosine") for n in range(3))]
    assert set(released(curves)) >= {"t010", "t011", "t012"}


def test_each_rank_has_a_place_as_far_as_half_of_the_places_go() -> None:
    curves = field(12)
    for number, curve in enumerate(curves[1:], start=1):
        rank = 8 if number <= 9 else 64
        curves[number] = trial(
            number, [1.0 + 0.01 * number], paused=True, params={RATE: 1e-4 * number, RANK: rank}
        )
        assert curve.id == f"t{number:03d}"
    chosen = HalvingPruner(16)._first(curves, curves, 0)  # pyright: ignore[reportPrivateUsage]
    assert chosen is not None and set(chosen.chosen) == {"t001", "t002", "t003", "t010"}


@pytest.mark.parametrize(("warmup", "expected"), [(0.06, 10), (0.2, 20)])
def test_the_first_rung_lies_after_warm_up(warmup: float, expected: int) -> None:
    seen = mark(trial(1, [1.0] * 4, warmup=warmup), FIRST)
    assert seen is not None and seen.step == expected


@pytest.mark.parametrize("planned", [40, 60, 100, 120, 1000])
def test_all_batch_sizes_are_judged_after_as_many_evaluations(planned: int) -> None:
    curve = trial(1, [1.0] * 8, planned=planned)
    assert [
        curve.readings.index(reading) for rung in (FIRST, SECOND) if (reading := mark(curve, rung))
    ] == [0, 2]


@given(st.integers(5, 200))
def test_a_wide_search_takes_less_than_training_all_and_more_than_its_parts(trials: int) -> None:
    assert 1 + (trials - 1) / 8 < whole_trainings(trials) < trials
    assert places_at(trials, trials) <= trials


@given(st.integers(4, 40), st.randoms(use_true_random=False))
def test_the_order_of_the_trials_decides_nothing(count: int, mixed: random.Random) -> None:
    curves = field(count)
    other = curves[:]
    mixed.shuffle(other)
    assert set(released(other, trials=count)) == set(released(curves, trials=count))


def test_in_a_short_run_both_rungs_may_be_one() -> None:
    curves = [trial(0, [2.0] * 5, kind="default", planned=8)]
    curves += [
        trial(number, [1.0 + 0.01 * number] * 5, paused=True, planned=8) for number in range(1, 7)
    ]
    assert mark(curves[1], FIRST) is mark(curves[1], SECOND)
    assert released(curves) == ["t001", "t002"]
    assert set(verdicts(curves)) == {"t003", "t004", "t005", "t006"}
