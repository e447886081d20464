"""Memory that runs out, and numbers that go bad: whoever is hit, the others do not notice."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from engine import candidate, causal_rows, largest_difference, rows_for, run, trainer, weights_of
from torch import Tensor

from loraloom.data.encode import Row
from loraloom.errors import RunError
from loraloom.lora.base import load_base
from loraloom.records import Candidate, Event
from loraloom.train.pack import PackTrainer
from loraloom.train.seat import Seat


def different(model: Any, count: int) -> list[Candidate]:
    return [
        candidate(
            f"c{k}",
            model,
            r=1 + k % 5,
            seed=k,
            per_device_train_batch_size=1 + k % 3,
            lora_dropout=0.1 * (k % 2),
            max_steps=7,
        )
        for k in range(count)
    ]


def alone(model: Any, rows: list[Row], one: Candidate) -> Seat:
    return run(trainer(model, rows), [one])[one.id]


# -- numbers
# -------------------------------------------------------------------------------------------------------


def run_until_ended(
    engine: PackTrainer, trials: list[Candidate]
) -> tuple[dict[str, Seat], dict[str, Seat], list[Event]]:
    """(completed, diverged, events) of a pack."""
    completed: dict[str, Seat] = {}
    diverged: dict[str, Seat] = {}
    events: list[Event] = []
    for one in trials:
        engine.join(one)
    while engine.seats:
        events += engine.tick()
        diverged |= {name: engine.leave(name) for name in engine.diverged()}
        completed |= {name: engine.leave(name) for name in engine.finished()}
    return completed, diverged, events


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_fifteen_of_sixteen_do_not_notice_the_one_that_diverges(family: str) -> None:
    model, rows = tiny.model_of(family), rows_for(family)
    trials = different(model, 15)
    wild = candidate("wild", model, learning_rate=1e200, max_steps=7)
    completed, diverged, events = run_until_ended(trainer(model, rows), [*trials[:7], wild, *trials[7:]])
    assert set(completed) == {one.id for one in trials} and set(diverged) == {"wild"}
    for one in trials:
        assert (
            largest_difference(weights_of(completed[one.id]), weights_of(alone(model, rows, one)))
            < 1e-10
        )
    named = [event for event in events if "first_bad_layer" in event.data]
    assert {event.trial for event in named} == {"wild"}
    assert named[0].step == 2 and diverged["wild"].step == 3
    assert diverged["wild"].bad_layer == named[0].data["first_bad_layer"]
    assert diverged["wild"].bad_layer in dict(model.named_modules()) and ".0." in str(
        diverged["wild"].bad_layer
    )


def test_one_of_sixteen_at_a_rate_of_10_has_diverged_and_the_others_are_as_if_alone(
    shared: Path,
) -> None:
    """At a rate of 10 a real model's loss stays finite, thanks to its norms; nothing is
    left to train there."""
    base = load_base(str(shared / "models" / "stories260K"), "causal_lm")
    lines = (shared / "data" / "tinystories" / "stories_lower.jsonl").open(encoding="utf-8")
    ids = [
        np.array(base.tokenizer(json.loads(line)["text"]).input_ids[:48], np.int32)
        for line in itertools.islice(lines, 60)
    ]
    rows = [Row(each, each.copy()) for each in ids]
    trials = different(base.model, 15)
    ten = candidate("ten", base.model, learning_rate=10.0, max_steps=9)
    completed, diverged, events = run_until_ended(
        trainer(base.model, rows), [*trials[:9], ten, *trials[9:]]
    )
    assert set(completed) == {one.id for one in trials} and set(diverged) == {"ten"}
    named = [event for event in events if "first_bad_layer" in event.data]
    assert {event.trial for event in named} == {"ten"} and diverged["ten"].step < 9
    assert (
        diverged["ten"].bad_layer == named[0].data["first_bad_layer"] and diverged["ten"].nonfinite == 0
    )
    for one in trials:
        assert (
            largest_difference(weights_of(completed[one.id]), weights_of(alone(base.model, rows, one)))
            < 1e-4
        )


def test_a_gradient_that_is_not_finite_changes_no_weight() -> None:
    model = tiny.model_of("llama")
    engine = trainer(model, causal_rows())
    seat = engine.join(candidate("x", model))
    before = seat.adapter.snapshot()
    seat.adapter.arena.grads.fill_(float("nan"))
    (event,) = engine.tick()
    assert torch.equal(seat.adapter.arena.weights, before)
    assert seat.nonfinite == 1 and not seat.adapter.arena.grads.any()
    assert event.data["first_bad_layer"] == "model.layers.1.mlp.down_proj", (
        "forward is clean: the layer nearest the loss"
    )


# -- memory
# -------------------------------------------------------------------------------------------------------

CPU_WORDS = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
    " to allocate 9 bytes."
)
SHORTAGES = [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    lambda: RuntimeError(CPU_WORDS),
    lambda: RuntimeError("not enough memory: you tried to allocate 9 bytes"),
    MemoryError,
]


class Scarce(torch.autograd.Function):
    """The identity, with a backward pass that finds no memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, fault: BaseException) -> Tensor:
        ctx.fault = fault
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise ctx.fault


def starve(
    engine: PackTrainer,
    too_much: Callable[[int, int], bool],
    fault: Callable[[], BaseException],
    *,
    halfway: bool,
) -> list[int]:
    """Let every training pass of which `too_much(rows, tokens)` fail: before anything, or in the
    backward pass when the later layers already have their gradients. Gives a list that grows by one
    number for each failure."""
    failures: list[int] = []
    first = engine.packed.model.get_submodule("model.layers.0")

    def hook(_module: Any, args: tuple[Any, ...], output: Tensor) -> Tensor:
        if not torch.is_grad_enabled() or not too_much(
            output.shape[0], output.shape[0] * output.shape[1]
        ):
            return output
        failures.append(output.shape[0])
        if not halfway:
            raise fault()
        return Scarce.apply(output, fault())  # type: ignore[return-value]

    first.register_forward_hook(hook)
    return failures


@pytest.mark.parametrize("halfway", [False, True])
@pytest.mark.parametrize("fault", SHORTAGES)
def test_a_pass_that_does_not_fit_is_split_and_every_step_stays_what_it_was(
    fault: Callable[[], BaseException], halfway: bool
) -> None:
    model, rows = tiny.model_of("llama"), causal_rows()
    trials = [
        *different(model, 4),
        candidate(
            "slow", model, per_device_train_batch_size=2, gradient_accumulation_steps=3, max_steps=2
        ),
    ]
    engine = trainer(model, rows)
    failures = starve(engine, lambda rows, tokens: tokens > 60, fault, halfway=halfway)
    events: list[Event] = []
    for one in trials:
        engine.join(one)
    done: dict[str, Seat] = {}
    while engine.seats:
        events += engine.tick()
        done |= {name: engine.leave(name) for name in engine.finished()}
    notes = [event for event in events if event.kind == "note"]
    assert failures and len(notes) == len(failures) and engine.token_budget < 4096
    assert all("memory ran out in a pass of" in note.data["text"] for note in notes)
    for one in trials:
        expected = alone(model, rows, one)
        assert largest_difference(weights_of(done[one.id]), weights_of(expected)) < 1e-10
        assert done[one.id].tokens == expected.tokens
        assert done[one.id].smoothed_loss == pytest.approx(expected.smoothed_loss, rel=1e-9)


@pytest.mark.parametrize("halfway", [False, True])
def test_a_lone_candidate_takes_smaller_micro_batches_with_the_same_gradient(halfway: bool) -> None:
    model, rows = tiny.model_of("llama"), causal_rows()
    one = candidate(
        "one", model, per_device_train_batch_size=6, gradient_accumulation_steps=2, max_steps=3
    )
    engine = trainer(model, rows)
    starve(engine, lambda rows, tokens: rows > 2, SHORTAGES[0], halfway=halfway)
    seat, events = engine.join(one), []
    while not engine.finished():
        events += engine.tick()
    assert seat.micro_rows == 2
    assert [event.data["micro_rows"] for event in events if event.kind == "note"] == [3, 2]
    assert largest_difference(weights_of(seat), weights_of(alone(model, rows, one))) < 1e-10


def test_one_row_that_does_not_fit_ends_the_run_with_a_reason() -> None:
    model = tiny.model_of("llama")
    engine = trainer(model, causal_rows())
    starve(engine, lambda rows, tokens: True, SHORTAGES[0], halfway=False)
    engine.join(candidate("one", model))
    with pytest.raises(
        RunError,
        match=r"memory ran out with one row of \d+ tokens of candidate one\n.*\n.*max_length lower",
    ):
        engine.tick()


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    model = tiny.model_of("llama")
    engine = trainer(model, causal_rows())
    starve(engine, lambda rows, tokens: True, lambda: RuntimeError("shapes do not match"), halfway=False)
    engine.join(candidate("one", model))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        engine.tick()


def test_scoring_in_smaller_passes_gives_the_same_scores() -> None:
    model, rows = tiny.model_of("llama"), causal_rows()
    engine = trainer(model, rows, validation=rows[:9])
    trials = [engine.join(one).id for one in different(model, 3)]
    engine.tick()
    expected = engine.evaluate(trials)
    rows_seen: list[int] = []

    def hook(_module: Any, args: tuple[Any, ...], output: Tensor) -> None:
        if output.shape[0] > 2:
            raise RuntimeError(CPU_WORDS)
        rows_seen.append(output.shape[0])

    engine.packed.model.get_submodule("model.layers.0").register_forward_hook(hook)
    scores = engine.evaluate(trials)
    assert rows_seen and max(rows_seen) <= 2
    told = [event.data["text"] for event in engine.tick() if event.kind == "note"]
    assert "memory ran out while scoring 3 candidates" in told[0]
    assert not any("while scoring" in event.data.get("text", "") for event in engine.tick())
    for trial in trials:
        assert scores[trial].costs == pytest.approx(expected[trial].costs, rel=1e-12)
