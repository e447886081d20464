"""One candidate that is short of memory is scored in smaller passes, before anything dearer is cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from machines import GIB, GPU

from loraloom.config.decode import load_config
from loraloom.plan.memory import forecast_memory
from loraloom.plan.needs import need, scoring_less
from loraloom.plan.planner import Facts, Plan, make_plan
from loraloom.plan.shape import decided_shape

Make = Callable[..., Facts]


def planned(facts: Make, memory: str) -> Plan:
    asked = load_config(None, {"limits.memory": memory, "data.max_length": 512})
    return make_plan(asked, facts("8b", device=GPU, length=512))


def test_an_8b_in_four_bits_trains_in_8_gib_with_its_weights_on_the_device(facts: Make) -> None:
    plan = planned(facts, "8GiB")
    assert plan.settings.quantization == "nf4" and not plan.settings.streaming
    assert plan.pack_size == 1 and plan.token_budget < 4096
    assert plan.forecast["memory"].high <= 8 * GIB
    (note,) = [note for note in plan.notes if "scored at a time" in note]
    assert (
        f"{2 * plan.token_budget:,} tokens" in note and "not 8,192" in note and "seconds longer" in note
    )


def test_where_there_is_room_as_many_tokens_are_scored_as_the_device_takes(facts: Make) -> None:
    for memory in ("10GiB", "24GiB"):
        plan = planned(facts, memory)
        assert plan.token_budget >= 4096 and not [note for note in plan.notes if "scored" in note]


def test_no_fewer_than_one_row_and_never_of_a_pack(facts: Make) -> None:
    case = planned(facts, "24GiB").case
    short = replace(case, asked=replace(case.asked, limits=replace(case.asked.limits, memory=GIB)))
    alone = scoring_less(short, decided_shape(case.decided))
    assert alone.token_budget and 2 * alone.token_budget <= case.decided.length < 4 * alone.token_budget
    assert need(short, decided_shape(case.decided)) == forecast_memory(short, alone)
    pack = decided_shape(case.decided, packed=2)
    assert scoring_less(short, pack) is pack
