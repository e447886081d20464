"""What earlier searches say of a new one: standings, the expected standing of a point,
the setting that is tried again."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.search.anchors import anchors
from loraloom.search.decode import decode_space
from loraloom.search.default_space import default_space
from loraloom.search.history import Known, PastSearch, Prior, standings, tried_again
from loraloom.search.searcher import Searcher
from loraloom.search.second_wave import draw
from loraloom.search.space import ALPHA, BATCH, RANK, RATE

PLAN: dict[str, Any] = {RATE: 3e-4, BATCH: 16, RANK: 16, ALPHA: 32.0}
SPACE = decode_space(
    {RATE: {"low": 7.5e-5, "high": 1.2e-3, "log": True}, RANK: [8, 16, 32, 64]}
).tied_to(PLAN)


def at(rate: float, rank: int = 16, standing: float = 1.0, reason: str = "") -> Known:
    return Known({RATE: rate, RANK: rank, ALPHA: 2.0 * rank, BATCH: 16}, standing, reason)


def test_a_standing_is_the_share_of_the_others_that_are_worse_and_a_tie_is_half_of_one() -> None:
    assert standings([3.0, 1.0, 2.0]) == [0.0, 1.0, 0.5]
    assert standings([1.0, 1.0, 5.0]) == [0.75, 0.75, 0.0]
    assert standings([(0, 2.0), (1, 1.0), (2, 0.0)]) == [1.0, 0.5, 0.0]


def test_the_prior_follows_the_nearest_trials_and_is_neutral_far_from_all() -> None:
    prior = Prior(SPACE, [at(1e-3, standing=1.0), at(8e-5, standing=0.0)])
    high, middle, low = (prior(SPACE.point({**PLAN, RATE: rate})) for rate in (1e-3, 3e-4, 8e-5))
    assert low < 0.3 < middle < 0.7 < high
    assert Prior(SPACE, [at(1e-9)])(SPACE.point(PLAN)) == pytest.approx(0.5)
    assert Prior(SPACE, [])(SPACE.point(PLAN)) == 0.5


def test_a_rate_is_held_against_the_batch_that_it_belongs_to() -> None:
    """In a space whose rates are given for batches of 16 rows, 2e-4 at 64 rows is 1e-4."""
    space = default_space(PLAN, 16, 4)
    found = space.uncoupled({RATE: 2e-4, BATCH: 64, RANK: 16, ALPHA: 32.0})
    assert found[RATE] == pytest.approx(1e-4)
    assert Prior(space, [Known({RATE: 2e-4, BATCH: 64, RANK: 16, ALPHA: 32.0}, 1.0)])(
        space.point({RATE: 2e-4, BATCH: 64, RANK: 16, ALPHA: 32.0})
    ) == pytest.approx((1 + 0.25) / 1.5)


@given(
    known=st.lists(
        st.builds(at, st.floats(1e-7, 0.5), st.sampled_from([1, 8, 16, 48, 512]), st.floats(0, 1)),
        min_size=1,
        max_size=12,
    ),
    seed=st.integers(0, 2**32 - 1),
    trials=st.sampled_from([4, 16, 32, 128]),
)
def test_an_expected_standing_lies_between_0_and_1(known: list[Known], seed: int, trials: int) -> None:
    space = default_space(PLAN, trials, 1)
    prior = Prior(space, known)
    for point in draw(space, 8, np.random.default_rng(seed)):
        assert 0 <= prior(point) <= 1
        assert space.point(space.params(point)).keys() == point.keys()


def test_the_winner_of_an_earlier_search_is_tried_second_with_its_reason() -> None:
    known = [at(3e-4, 16, 0.5), at(7e-4, 64, 1.0, "t004 of run one was better")]
    searcher = Searcher(SPACE, PLAN, 8, 8, known=known)
    first, second = searcher.ask(), searcher.ask()
    assert first and first.kind == "default"
    assert second and second.kind == "history" and second.params == {RATE: 7e-4, RANK: 64, ALPHA: 128.0}
    assert [anchor.reason for anchor in anchors(SPACE, PLAN, 8, known)][
        1
    ] == "t004 of run one was better"


def test_a_winner_outside_the_space_is_moved_to_its_edge_and_what_is_not_searched_stays() -> None:
    params, _ = tried_again(
        decode_space({RATE: [1e-4, 3e-4, 6e-4]}), PLAN, [at(1.0, 64, 1.0, "won")]
    ) or ({}, "")
    assert params == {RATE: 6e-4}


@pytest.mark.parametrize("rate", [3e-4, 2.9e-4, 9e-4, 1e-4])
def test_a_winner_that_is_a_candidate_already_is_left_out(rate: float) -> None:
    assert [one.kind for one in anchors(SPACE, PLAN, 8, [at(rate, 16, 1.0, "won")])] == [
        "default",
        "anchor",
        "anchor",
        "anchor",
    ]


def test_of_several_winners_the_one_that_all_searches_speak_for_is_tried() -> None:
    known = [at(1e-4, 8, 1.0, "a"), at(1e-3, 32, 1.0, "b"), at(1.1e-4, 8, 0.1), at(9e-4, 32, 0.9)]
    assert tried_again(SPACE, PLAN, known) == ({RATE: 1e-3, RANK: 32, ALPHA: 64.0}, "b")


def test_a_past_search_survives_a_checkpoint() -> None:
    known = Known({RATE: 1e-4, "adapter.target_modules": ("q_proj", "v_proj")}, 0.1 + 0.2, "why")
    past = PastSearch("one", "t004", known.params, 0.1, (known,))
    assert PastSearch.from_plain(json.loads(json.dumps(asdict(past)))) == past
