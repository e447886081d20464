"""A run that was interrupted anywhere, also within an accumulation window, ends bit for
bit as if it had not been."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from engine import candidate, causal_rows, rows_for, trainer, weights_of

from loraloom.errors import RunError
from loraloom.lora import adapter_builder
from loraloom.records import Candidate
from loraloom.train import checkpoint
from loraloom.train.pack import PackTrainer
from loraloom.train.seat import Seat


def trials_of(model: Any, heads: tuple[str, ...] = ()) -> list[Candidate]:
    return [
        candidate("plain", model, heads=heads, evaluations=3, max_steps=6),
        candidate(
            "slow",
            model,
            heads=heads,
            gradient_accumulation_steps=3,
            per_device_train_batch_size=1,
            max_steps=3,
            lora_dropout=0.2,
        ),
        candidate(
            "sgd",
            model,
            heads=heads,
            optim="sgd",
            bias="lora_only",
            per_device_train_batch_size=3,
            neftune_noise_alpha=5.0,
        ),
        candidate("pissa", model, heads=heads, init_lora_weights="pissa", params={"adapter.r": 4}),
        candidate("dora", model, heads=heads, use_dora=True, lora_plus_ratio=4.0, weight_decay=0.1),
    ]


def finish(engine: PackTrainer) -> dict[str, Seat]:
    done: dict[str, Seat] = {}
    while engine.seats:
        engine.tick()
        engine.evaluate(engine.due())
        done |= {name: engine.leave(name) for name in engine.finished()}
    return done


@pytest.mark.parametrize("ticks", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_going_on_from_disk_is_going_on(family: str, ticks: int, tmp_path: Path) -> None:
    model, rows, chosen = tiny.model_of(family), rows_for(family), tiny.FAMILIES[family]

    def fresh() -> PackTrainer:
        return trainer(model, rows, chosen.task, validation=rows[:5], fresh_modules=chosen.heads)

    through, stopped, resumed = fresh(), fresh(), fresh()
    for engine in (through, stopped):
        for one in trials_of(model, chosen.heads):
            engine.join(one)
        for _ in range(ticks):
            engine.tick()
            engine.evaluate(engine.due())
    checkpoint.save(tmp_path, stopped)
    resumed.load_state_dict(state_in(tmp_path))
    assert {seat.id: seat.candidate for seat in resumed.seats.values()} == {
        one.id: one for one in trials_of(model, chosen.heads)
    }
    expected, got = finish(through), finish(resumed)
    assert set(expected) == set(got)
    for name, seat in expected.items():
        assert torch.equal(weights_of(got[name]), weights_of(seat)), name
        assert (got[name].best, got[name].best_step, got[name].tokens) == (
            seat.best,
            seat.best_step,
            seat.tokens,
        )
        assert got[name].smoothed_loss == seat.smoothed_loss
        assert (seat.best_weights is None) == (got[name].best_weights is None)
        if seat.best_weights is not None:
            assert torch.equal(got[name].best_weights, seat.best_weights)  # type: ignore[arg-type]


def test_nothing_is_drawn_for_what_is_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PiSSA decomposes every weight that it touches, which on a large base takes minutes."""
    model = tiny.model_of("llama")
    stopped, resumed = trainer(model, causal_rows()), trainer(model, causal_rows())
    for one in trials_of(model):
        stopped.join(one)
    checkpoint.save(tmp_path, stopped)
    with monkeypatch.context() as planted:
        planted.setattr(adapter_builder, "start_of", lambda *_: pytest.fail("drawn"))
        resumed.load_state_dict(state_in(tmp_path))
    for name, seat in stopped.seats.items():
        ours, theirs = resumed.seats[name].adapter.constants, seat.adapter.constants
        assert all(torch.equal(a, b) for (_, a), (_, b) in zip(ours, theirs, strict=True)) and bool(
            ours
        ) == (name == "pissa")


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_waiting_out_of_the_pack_changes_nothing(family: str, tmp_path: Path) -> None:
    """Every candidate waits between any two of its steps, over a checkpoint too; what
    it trains is what it would have."""
    model, rows, chosen = tiny.model_of(family), rows_for(family), tiny.FAMILIES[family]

    def fresh() -> PackTrainer:
        engine = trainer(model, rows, chosen.task, validation=rows[:5], fresh_modules=chosen.heads)
        engine.shelf.folder = tmp_path
        return engine

    through, broken = fresh(), fresh()
    for engine in (through, broken):
        for one in trials_of(model, chosen.heads):
            engine.join(one)
    expected, got = finish(through), dict[str, Seat]()
    while broken.seats or broken.shelf:
        checkpoint.save(tmp_path, broken)
        broken = fresh()
        broken.load_state_dict(state_in(tmp_path))
        for trial in broken.shelf:
            broken.go_on(trial)
        broken.tick()
        broken.evaluate(broken.due())
        got |= {name: broken.leave(name) for name in broken.finished()}
        for seat in list(broken.seats.values()):
            if not seat.window:
                broken.pause(seat.id)
    assert set(expected) == set(got)
    for name, seat in expected.items():
        assert torch.equal(weights_of(got[name]), weights_of(seat)), name
        assert (got[name].best, got[name].best_step, got[name].tokens) == (
            seat.best,
            seat.best_step,
            seat.tokens,
        )
    checkpoint.save(tmp_path, broken)
    checkpoint.save(tmp_path, broken)
    assert not list(tmp_path.glob("waiting-*")), "files that no checkpoint names are removed"


def test_a_checkpoint_is_not_whole_without_those_who_wait(tmp_path: Path) -> None:
    model, rows = tiny.model_of("llama"), rows_for("llama")
    engine = trainer(model, rows, "causal_lm", validation=rows[:5])
    engine.shelf.folder = tmp_path
    engine.join(candidate("plain", model, max_steps=6))
    checkpoint.save(tmp_path, engine)
    engine.tick()
    engine.pause("plain")
    checkpoint.save(tmp_path, engine)
    (file,) = tmp_path.glob("waiting-*")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    found = checkpoint.load(tmp_path)
    assert found is not None and [seat["candidate"]["id"] for seat in found.trainer["seats"]] == [
        "plain"
    ]
    assert "waiting-plain-1.safetensors differs" in found.passed_over[0]


def state_in(folder: Path) -> dict[str, Any]:
    """What the latest checkpoint in a folder holds of the trainer."""
    found = checkpoint.load(folder)
    assert found is not None
    return found.trainer


def test_the_window_that_was_open_keeps_its_gradients(tmp_path: Path) -> None:
    model, rows = tiny.model_of("llama"), causal_rows()
    engine = trainer(model, rows)
    seat = engine.join(
        candidate("slow", model, gradient_accumulation_steps=3, per_device_train_batch_size=1)
    )
    engine.tick()
    checkpoint.save(tmp_path, engine)
    again = trainer(model, rows)
    again.load_state_dict(state_in(tmp_path))
    other = again.seats["slow"]
    assert seat.micro == other.micro == 1 and seat.adapter.arena.grads.any()
    assert torch.equal(seat.adapter.arena.grads, other.adapter.arena.grads)
    assert seat.adapter.arena.grads.data_ptr() != other.adapter.arena.grads.data_ptr()


def test_loading_replaces_what_sat_there_and_moments_never_reach_another_trial(tmp_path: Path) -> None:
    model, rows = tiny.model_of("llama"), causal_rows()
    engine = trainer(model, rows)
    engine.join(candidate("a", model))
    engine.tick()
    checkpoint.save(tmp_path, engine)
    engine.join(candidate("b", model))
    engine.load_state_dict(state_in(tmp_path))
    assert set(engine.seats) == set(engine.packed.adapters) == {"a"}
    engine.leave("a")
    assert engine.join(candidate("a", model)).optimizer.state_dict() == {}


def test_what_does_not_belong_together_is_not_resumed(tmp_path: Path) -> None:
    model, rows = tiny.model_of("llama"), causal_rows()
    engine = trainer(model, rows)
    engine.join(candidate("a", model))
    checkpoint.save(tmp_path, engine)
    with pytest.raises(RunError, match="over other training rows"):
        trainer(model, causal_rows(seed=1)).load_state_dict(state_in(tmp_path))
    state = state_in(tmp_path)
    state["seats"][0]["candidate"]["adapter"]["r"] = 5
    with pytest.raises(RunError, match="does not fit this model"):
        trainer(model, rows).load_state_dict(state)
