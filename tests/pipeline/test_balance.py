"""Which candidate an idle worker takes over."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from loraloom.pipeline.balance import Speed, relief, work_left
from loraloom.records import Candidate
from loraloom.train.orders import SeatView

FAST, SLOW = Speed(1000, 1.0), Speed(100, 1.0)


def seat(step: int, planned: int = 100, tokens_a_step: int = 10) -> SeatView:
    made = cast(Candidate, None)  # nobody asks which
    values = dict.fromkeys(SeatView.__dataclass_fields__)
    return SeatView(
        **{
            **values,
            "candidate": made,
            "step": step,
            "planned_steps": planned,
            "tokens": tokens_a_step * step,
        }
    )


def test_a_speed_is_of_those_who_were_there_before_and_after() -> None:
    speed = Speed()
    before = replace(seat(10), seconds=1.0)
    speed.saw({"a": before}, {"a": replace(seat(20), seconds=3.0), "b": replace(seat(50), seconds=9.0)})
    assert speed.rate == pytest.approx(50.0)
    assert Speed().rate is None


def test_what_is_left_counts_tokens() -> None:
    assert work_left(seat(60)) == pytest.approx(400)
    assert work_left(seat(0)) == 0


def test_the_last_of_a_slow_pack_goes_to_the_idle() -> None:
    speeds = {"idle": FAST, "slow": SLOW, "other": FAST}
    packs = {"idle": {}, "slow": {"a": seat(50), "b": seat(20)}, "other": {"c": seat(1)}}
    assert relief("idle", packs, speeds) == "b", "the most work goes where it is done soonest"
    assert relief("idle", packs, speeds, {"b"}) == "a"
    assert relief("idle", packs, speeds, {"a", "b"}) is None


def test_the_only_one_moves_to_a_faster_worker_and_to_no_slower_one() -> None:
    packs = {"idle": {}, "busy": {"a": seat(20)}}
    assert relief("idle", packs, {"idle": FAST, "busy": SLOW}) == "a"
    assert relief("idle", packs, {"idle": SLOW, "busy": FAST}) is None
    assert relief("idle", packs, {"busy": SLOW}) is None, "nothing was seen of it: it may be as slow"


def test_little_work_stays_where_it_is() -> None:
    packs = {"idle": {}, "slow": {"a": seat(90), "b": seat(90)}}
    assert relief("idle", packs, {"idle": FAST, "slow": SLOW}) is None
    assert relief("idle", {"idle": {}, "new": {"a": seat(0)}}, {}) is None
