"""Passes at once: the same training as one after another, in any order of the threads."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest
import tiny
import torch
from engine import candidate, largest_difference, rows_for, run, trainer, weights_of
from test_pack_equals_alone import mixed

from loraloom.evals.objective import Objective
from loraloom.lora.workers import Workers


@pytest.fixture(autouse=True)
def _own_threads():  # pyright: ignore[reportUnusedFunction]
    """What a test sets is its own affair."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def threads_of(engine: Any) -> set[str]:
    """Names of the threads in which passes ran, once they have."""
    names: set[str] = set()
    objective: Objective = engine.objective
    rows = objective.rows

    def noted(model: Any, batch: Any, at: Any = None) -> Any:
        names.add(threading.current_thread().name)
        return rows(model, batch, at)

    objective.rows = noted  # type: ignore[method-assign]
    return names


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "deberta", "t5"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_passes_at_once_give_what_one_after_another_gives(family: str, checkpointing: bool) -> None:
    chosen, rows, model = tiny.FAMILIES[family], rows_for(family), tiny.model_of(family, torch.float64)
    trials = mixed(model, chosen.heads)
    engines = [
        trainer(model, rows, chosen.task, workers=n, token_budget=120, checkpointing=checkpointing)
        for n in (1, 3)
    ]
    names = threads_of(engines[1])
    single, shared = (run(engine, trials) for engine in engines)
    assert names - {"MainThread"}
    for one in trials:
        assert largest_difference(weights_of(shared[one.id]), weights_of(single[one.id])) < 1e-10, one.id
        assert (shared[one.id].tokens, shared[one.id].step) == (
            single[one.id].tokens,
            single[one.id].step,
        )


def test_the_same_run_twice_gives_the_same_bits() -> None:
    rows, model = rows_for("llama"), tiny.model_of("llama", torch.float32)
    first, second = (run(trainer(model, rows, workers=2), mixed(model)) for _ in range(2))
    for name, seat in first.items():
        assert torch.equal(weights_of(seat), weights_of(second[name])), name


def test_noise_on_embeddings_is_not_drawn_in_two_threads() -> None:
    """It hangs on the model's one embedding: passes then follow one another."""
    rows, model = rows_for("llama"), tiny.model_of("llama", torch.float64)
    trials = [
        dataclasses.replace(one, training=dataclasses.replace(one.training, neftune_noise_alpha=5.0))
        for one in mixed(model)
    ]
    single, shared = (run(trainer(model, rows, workers=n, token_budget=60), trials) for n in (1, 2))
    for one in trials:
        assert largest_difference(weights_of(shared[one.id]), weights_of(single[one.id])) < 1e-10, one.id


def test_scores_do_not_depend_on_who_took_them() -> None:
    rows, model = rows_for("llama"), tiny.model_of("llama", torch.float64)
    trials = [candidate(name, model, seed=n) for n, name in enumerate("abc")]
    scores: list[Any] = []
    for workers in (1, 3):
        engine = trainer(
            model, rows, workers=workers, validation=rows_for("llama", seed=4), token_budget=60
        )
        for one in trials:
            engine.join(one)
        engine.tick()
        names = threads_of(engine)
        scores.append(engine.evaluate(["a", "b", "c"]))
        assert ("MainThread" in names) == (workers == 1)
    for name in "abc":
        assert scores[0][name].costs == pytest.approx(scores[1][name].costs, rel=1e-12)


def test_a_fault_in_one_thread_ends_all() -> None:
    workers, done = Workers(torch.device("cpu"), 2), []

    def run_one(number: int) -> int:
        if number == 1:
            raise ValueError("number 1")
        done.append(number)
        return number

    with pytest.raises(ValueError, match="number 1"):
        workers.map(run_one, [0, 1, 2, 3])
    assert sorted(done) == [0, 2, 3], "the others come to their end first"
    assert workers.map(run_one, [2, 3], together=False) == [2, 3]


def test_each_worker_has_its_share_of_the_cores() -> None:
    torch.set_num_threads(4)
    shared = Workers(torch.device("cpu"), 2)
    assert shared.map(lambda _: torch.get_num_threads(), range(4)) == [2] * 4
    assert torch.get_num_threads() == 4
    assert Workers(torch.device("cpu")).count == 4
    torch.set_num_threads(1)
    assert Workers(torch.device("cpu")).count == 1
    assert Workers(torch.device("cuda")).count == 1
