"""A search keeps every evaluation of every candidate, row by row: in eight bytes a row,
with one copy of the weights."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from loraloom.records import Score
from loraloom.search.compare import mean_cost, paired_difference, standard_error
from loraloom.search.curves import compact
from loraloom.search.decode import decode_space
from loraloom.search.searcher import Observation, Searcher

ROWS, EVALUATIONS = 5000, 8


def score(seed: int, rows: int = ROWS) -> Score:
    """As evaluations give it: tuples of Python's own numbers."""
    draw = np.random.default_rng(seed)
    return Score(
        "validation",
        {"loss": 1.0},
        tuple(draw.random(rows).tolist()),
        tuple(float(i % 7 + 1) for i in range(rows)),
    )


def test_a_candidate_costs_a_search_less_than_half_a_megabyte() -> None:
    space = decode_space({"training.learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}})
    search = Searcher(
        space, {"training.learning_rate": 1e-3}, trials=8, pack_size=4, sampler="random", pruner="auto"
    )

    def train() -> None:
        suggestion = search.ask()
        assert suggestion is not None
        for step in range(1, EVALUATIONS + 1):
            seen = score(step)
            search.report(
                Observation(
                    suggestion.id, step, step / EVALUATIONS, 0.0, seen, 1.0, 1.0, ("linear", 0.0, 1.0)
                )
            )
        search.tell(suggestion.id, "completed", score(EVALUATIONS))

    train()
    gc.collect()
    tracemalloc.start()
    for _ in range(3):
        train()
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / 3 < 1.2 * 8 * ROWS * EVALUATIONS + 100_000


@pytest.mark.parametrize("like", [None, score(3, 50), score(3, 60)])
def test_a_compact_score_says_the_same(like: Score | None) -> None:
    plain = score(1, 50)
    small = compact(plain, like)
    assert (mean_cost(small), standard_error(small)) == (mean_cost(plain), standard_error(plain))
    assert paired_difference(small, score(2, 50)) == paired_difference(plain, score(2, 50))
    assert list(small.costs) == list(plain.costs) and list(small.weights) == list(plain.weights)


def test_equal_weights_are_held_once() -> None:
    first = compact(score(1, 50), None)
    assert compact(score(2, 50), first).weights is first.weights
    other = compact(replace(score(2, 50), weights=(1.0,) * 50), first)
    assert list(other.weights) == [1.0] * 50
