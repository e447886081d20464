"""The rung pruner's conditions, one by one: each of them alone keeps a trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.records import Score
from loraloom.search.curves import TrialCurve
from loraloom.search.pruners.rungs import RungPruner, is_off, spearman
from loraloom.search.values import AskedTrial, Kind, Observation

HARD = np.random.default_rng(0).gamma(2.0, 0.5, 80)
HARD = HARD - HARD.mean()
PLANNED = 400
EVALUATIONS = 8
SETTINGS = {"training.learning_rate": 1e-4}


def trial(
    number: int,
    costs: Sequence[float],
    *,
    kind: Kind = "sampled",
    wave: int = 0,
    planned: int = PLANNED,
    evaluations: int = EVALUATIONS,
    warmup: float = 0.06,
    shape: object = "linear",
    noise: float = 0.0,
    params: dict[str, Any] | None = None,
    seed_offset: int = 0,
) -> TrialCurve:
    """A trial with one evaluation for each of `costs`, evenly over its planned steps."""
    settings = params or {"training.learning_rate": 1e-4 * (1 + number)}
    suggestion = AskedTrial(f"t{number:03d}", settings, kind, seed_offset, kind == "audit")
    curve = TrialCurve(suggestion, wave, protected=kind == "default" or seed_offset > 0)
    rng = np.random.default_rng(number)
    for place, cost in enumerate(costs, start=1):
        rows = cost + HARD + noise * rng.normal(size=len(HARD))
        score = Score("validation", {}, tuple(float(row) for row in rows))
        step = round(planned * place / evaluations)
        curve.add(Observation(curve.id, step, place / evaluations, warmup, score, cost, 3.0, shape))
    return curve


def field(bad: TrialCurve | None = None, count: int = 6) -> list[TrialCurve]:
    """The plan's setting and its like, all good, and one that is not, a quarter of the way."""
    good = [
        trial(number, [2.0, 1.5], kind="sampled" if number else "default") for number in range(count - 1)
    ]
    return [*good, bad or trial(count - 1, [2.3, 1.8])]


def pruned(curves: Sequence[TrialCurve], trials: int = 16) -> set[str]:
    return {verdict.trial_id for verdict in RungPruner(trials).verdicts(curves)}


def test_what_has_no_place_left_goes_at_the_first_rung_and_the_reason_says_why() -> None:
    (verdict,) = RungPruner(16).verdicts(field())
    assert (verdict.trial_id, verdict.action, verdict.step) == ("t005", "prune", 100)
    assert verdict.reason == (
        "at 25% of its steps its validation cost was 2.05, 0.3 above t002 at the same point (1.75), "
        "and not closing: no place is left; 5 of 6 comparable trials were better"
    )


def test_what_is_surely_worse_goes_though_places_are_left() -> None:
    worse = [trial(number, [2.0 + 0.1 * number, 1.5 + 0.1 * number]) for number in (3, 4, 5)]
    first, *others = RungPruner(128).verdicts([*field()[:3], *worse])
    assert first.trial_id == "t003"
    assert {verdict.trial_id for verdict in others} == {"t004", "t005"}
    assert first.reason.endswith(
        "and not closing: more than noise; 3 of 6 comparable trials were better"
    )


WORSE = [trial(number, [2.6, 2.1]) for number in (6, 7, 8)]


@pytest.mark.parametrize(
    "keeps",
    [
        pytest.param(field(trial(5, [2.3])), id="before the rung"),
        pytest.param(field(trial(5, [2.3, 1.8], planned=36)), id="before 10 steps"),
        pytest.param(field(trial(5, [2.3, 1.8], warmup=0.2)), id="within a tenth after warm-up"),
        pytest.param(
            field(trial(5, [2.2] * 4, evaluations=16, warmup=0.13)),
            id="before 3 of many evaluations after warm-up",
        ),
        pytest.param(field(trial(5, [2.3, 1.8], shape="cosine")), id="another schedule"),
        pytest.param(field(trial(5, [2.3, 1.8], kind="audit")), id="an audit"),
        pytest.param(field(trial(5, [2.3, 1.8], kind="default")), id="the plan's setting"),
        pytest.param(field(trial(5, [2.003, 1.503])), id="within half a percent"),
        pytest.param(field(trial(5, [2.3, 1.8], noise=4.0)), id="within noise"),
        pytest.param(field(trial(5, [2.9, 1.9])), id="closing"),
        pytest.param(field(count=3), id="too few to compare with"),
        pytest.param(
            [*field()[:3], *field()[-1:], trial(8, [2.0]), trial(9, [])], id="others on their way"
        ),
        pytest.param(
            [*field()[:2], trial(5, [2.3, 1.8]), *WORSE],
            id="a place is left, and not in the bottom third",
        ),
    ],
)
def test_each_condition_alone_keeps_a_trial(keeps: list[TrialCurve]) -> None:
    assert "t005" not in pruned(keeps)


def even(count: int, progress: int = 2) -> list[TrialCurve]:
    """Trials one as far behind the other as the next."""
    return [
        trial(number, [2.5 - 0.25 * place + 0.2 * number for place in range(progress)])
        for number in range(count)
    ]


def test_a_third_a_sixth_and_a_twelfth_keep_their_places_and_never_fewer_than_race() -> None:
    for progress, kept in ((2, 8), (4, 4), (6, 3)):
        assert pruned(even(24, progress)) == {f"t{number:03d}" for number in range(kept, 24)}
    assert pruned(even(24, 6), trials=128) == {f"t{number:03d}" for number in range(5, 24)}
    assert pruned(even(8), trials=4) == set()


def test_the_bottom_half_goes_where_there_are_many_trials() -> None:
    """Too near to the last that keeps its place, and far behind the first."""
    near = [trial(number, [2.5 + 0.001 * number, 2.0 + 0.001 * number]) for number in range(1, 6)]
    curves = [trial(0, [1.5, 1.0]), *near]
    assert pruned(curves, trials=16) == {"t004", "t005"}
    assert pruned(curves, trials=32) == {"t003", "t004", "t005"}


def test_a_short_run_is_judged_at_the_rung_too() -> None:
    assert pruned([replace_planned(curve, 60) for curve in field()]) == {"t005"}


def replace_planned(curve: TrialCurve, planned: int) -> TrialCurve:
    costs = [reading.cost for reading in curve.readings]
    return trial(int(curve.id[1:]), costs, planned=planned, kind=curve.asked.kind)


def test_survivors_are_all_that_a_later_rung_counts() -> None:
    """At half way there are four left of six, of which the worst goes."""
    fallen = [replace_status(trial(number, [2.9, 2.4])) for number in (4, 5)]
    left = [
        trial(number, [2.0 + 0.1 * number, 1.5 + 0.1 * number, 1.3 + 0.1 * number, 1.2 + 0.1 * number])
        for number in range(4)
    ]
    assert pruned([*left, *fallen]) == {"t003"}


def replace_status(curve: TrialCurve) -> TrialCurve:
    return replace(curve, status="pruned")


def test_nothing_is_judged_before_both_runs_of_the_plan_have_come_as_far() -> None:
    twin = trial(6, [2.2], seed_offset=1)
    assert pruned([*field(), twin]) == set()
    assert pruned([*field(), trial(6, [2.0, 1.5], seed_offset=1)]) == {"t005"}


def test_a_gap_within_the_spread_of_two_seeds_is_none() -> None:
    assert pruned([*field(), trial(6, [2.6, 2.0], seed_offset=1)]) == set()


def test_ranks_are_not_held_against_each_other_before_the_last_rung() -> None:
    def ranked(number: int, cost: float, progress: int) -> TrialCurve:
        params = {**SETTINGS, "adapter.r": 2 ** (1 + number), "adapter.lora_alpha": 2.0 ** (2 + number)}
        return trial(number, [cost + 0.5 / place for place in range(1, progress + 1)], params=params)

    for progress, expected in ((2, set[str]()), (4, set[str]()), (6, {"t003", "t004", "t005"})):
        curves = [ranked(number, 2.0 + 0.2 * number, progress) for number in range(6)]
        assert pruned(curves) == expected


def test_the_leader_stays_even_if_it_was_behind_at_the_rung() -> None:
    good = trial(5, [0.8]).readings[0]
    for progresses, expected in (((0.3,), {"t005"}), ((0.3, 0.35), set[str]())):
        late = trial(5, [2.3, 1.8])
        for progress in progresses:
            late.add(
                Observation(
                    late.id, round(PLANNED * progress), progress, 0.06, good.score, 0.8, 3.0, "linear"
                )
            )
        assert pruned([*field()[:-1], late]) == expected


def test_a_rung_that_misleads_its_audits_is_switched_off() -> None:
    def ended(number: int, early: float, final: float) -> TrialCurve:
        return replace(trial(number, [early, early], kind="audit"), status="completed", cost=final)

    misled = [ended(10 + number, 1.0 + 0.1 * number, 5.0 - number) for number in range(5)]
    honest = [ended(10 + number, 1.0 + 0.1 * number, 1.0 + number) for number in range(5)]
    assert is_off(0.25, misled)
    assert not is_off(0.25, misled[:4])
    assert not is_off(0.25, honest)
    assert pruned([*field(), *honest]) == {"t005"}
    assert pruned([*field(), *misled]) == set()


def test_rank_correlation_is_spearmans_with_ties() -> None:
    assert spearman([(1, 1), (2, 2), (3, 9)]) == pytest.approx(1.0)
    assert spearman([(1, 3), (2, 2), (3, 1)]) == pytest.approx(-1.0)
    assert spearman([(1, 1), (1, 2), (2, 3)]) == pytest.approx(0.8660254)
    assert spearman([(1, 1), (1, 2)]) == 1.0


@given(
    st.lists(st.floats(0.0, 1.0), min_size=8, max_size=8),
    st.permutations(range(8)),
    st.sampled_from([16, 32]),
)
def test_the_order_of_arrival_does_not_matter(costs: list[float], order: list[int], trials: int) -> None:
    """Whoever reports first, with a verdict asked for after each report: the same trials go."""

    def run(arrivals: Sequence[int]) -> set[str]:
        waiting = {
            number: trial(number, [2.0 + costs[number], 1.5 + costs[number]], noise=0.1)
            for number in range(8)
        }
        curves = {
            number: replace(curve, readings=curve.readings[:1]) for number, curve in waiting.items()
        }
        gone: set[str] = set()
        for number in arrivals:
            curves[number].readings.append(waiting[number].readings[-1])
            for name in pruned(list(curves.values()), trials):
                gone.add(name)
                curves[int(name[1:])].status = "pruned"
        return gone

    assert run(order) == run(range(8))
