"""Steps of several pools, and which adapter is kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from loraloom.recall.items import MemoryItem
from loraloom.recall.mix import (
    Mix,
    Pool,
    StepMix,
    replay_weights,
    sleep_mix,
    sleep_steps,
    steps_for,
    wake_mix,
)
from loraloom.recall.recipe import Phase, Recipe
from loraloom.recall.state import Entry
from loraloom.recall.verdict import Result, chosen, worse


def test_each_step_has_so_many_of_each_pool_and_all_rows_come_in_turn() -> None:
    order = StepMix(
        [(Pool(range(10)), 4), (Pool(range(10, 13)), 2), (Pool([]), 5)], [9, 5, 7] * 5, seed=0
    )
    steps = [order.rows_of_step(step).tolist() for step in range(5)]
    assert all(len(set(step)) == 6 and sum(row >= 10 for row in step) == 2 for step in steps)
    counts = np.bincount([row for step in steps for row in step], minlength=13)
    assert set(counts[:10]) == {2}
    lengths = [[[9, 5, 7][row % 3] for row in step] for step in steps]
    assert all(found == sorted(found) for found in lengths)
    assert 2 <= order.micro < 6


def test_a_recipe_says_what_a_step_holds_and_how_many_there_are() -> None:
    recipe = Recipe(
        wake=Phase(2.0, 0, 0.0),
        sleep=Phase(1.0, 3, 5.0),
        rows=10,
        replayed=0.3,
        fewest_steps=4,
        neighbours=2,
        neighbour_weight=1.5,
    )
    assert wake_mix(recipe, has_old=True) == Mix(7, 3, recipe.unknown, 0, 0.0, 2, 1.5)
    assert wake_mix(replace(recipe, unknown=0), has_old=False) == Mix(10, 0, 0, 0, 0.0, 2, 1.5)
    assert sleep_mix(recipe) == Mix(0, 10, recipe.unknown, 3, 5.0, 2, 1.5)
    assert steps_for(recipe, 100, 10, recipe.wake.passes) == 20
    assert steps_for(recipe, 1, 10, recipe.wake.passes) == 4


def test_what_follows_and_is_not_answered_yet_takes_its_share_of_a_sleep() -> None:
    recipe = replace(
        Recipe(),
        sleep=Phase(2.0, 8, 6.0),
        rows=10,
        derived_passes=4.0,
        derived_share=0.6,
        fewest_steps=5,
    )
    assert sleep_mix(recipe, settled=100).new == 0 and sleep_steps(recipe, settled=100) == 20
    few = sleep_mix(recipe, settled=100, fresh=10)
    assert (
        (few.new, few.replayed) == (2, 8)
        and sleep_mix(recipe, settled=500, fresh=1).new == 0
        and sleep_steps(recipe, settled=100, fresh=10) == 24
    )
    many = sleep_mix(recipe, settled=10, fresh=100)
    assert (many.new, many.replayed) == (6, 4)
    mapped = replace(recipe, way_passes=5.0)
    assert sleep_steps(mapped, settled=100, ways=10) == 25
    assert sleep_mix(mapped, settled=100, ways=10) == sleep_mix(recipe, settled=100)


def test_what_is_learnt_is_drawn_more_seldom_and_still_drawn() -> None:
    pool = Pool(range(8))
    pool.rest([0, 1, 2, 3], times=4)
    order = StepMix([(pool, 2)], [1] * 8, seed=1)
    counts = np.bincount([row for step in range(40) for row in order.rows_of_step(step)], minlength=8)
    assert counts.sum() == 80 and counts[:4].min() >= 3 and counts[4:].min() > 3 * counts[:4].max()


def test_what_matters_and_what_has_faded_is_replayed_more() -> None:
    plain = Entry(MemoryItem("fact", "A?", "a", id="a"), loss=0.1)
    dear = Entry(MemoryItem("fact", "B?", "b", id="b", salience=2.0), loss=0.1)
    faded = Entry(MemoryItem("fact", "C?", "c", id="c"), loss=0.1)
    first, second, third = replay_weights([plain, dear, faded], {"a": 0.1, "b": 0.1, "c": 0.4})
    assert second == 2 * first and third == pytest.approx(4 * first)


def result(name: str, held_out: float, moved: float, verbatim: float = 1.0, forms: int = 500) -> Result:
    return Result(name, verbatim, held_out, 1.0, moved, 10.0, 1.0, forms)


def test_of_those_within_a_point_of_the_best_the_one_that_moved_the_base_least() -> None:
    found = [result("best", 0.95, 0.3), result("near", 0.945, 0.1), result("far", 0.9, 0.01)]
    assert chosen(found).name == "near"


def test_a_loss_of_more_than_a_point_or_a_form_is_a_reason_not_to_commit() -> None:
    before = result("before", 0.9, 0.1)
    assert worse(result("after", 0.895, 0.5), before) is None
    assert "0.850" in (worse(result("after", 0.85, 0.0), before) or "")
    assert "as trained" in (worse(result("after", 0.9, 0.0, verbatim=0.9), before) or "")
    # One of forty questions is borne where more is answered on the whole, and not where less is.
    forty = replace(before, items=40)
    lost = result("after", 0.895, 0.0, verbatim=0.975)
    assert worse(lost, forty) is not None and worse(replace(lost, held_out=0.95), forty) is None
    assert worse(replace(lost, held_out=0.95, verbatim=0.95), forty) is not None
    # What follows from the items is answered now, at the price of a few of their other wordings.
    follows = replace(before, derived=0.1, derived_forms=250)
    risen = replace(result("after", 0.86, 0.0), derived=0.9, derived_forms=250)
    assert worse(risen, follows) is None and worse(replace(risen, derived=0.1), follows) is not None
    assert worse(replace(risen, held_out=0.85), follows) is not None
    few = replace(before, forms=10)
    assert worse(result("after", 0.8, 0.0, forms=10), few) is None
