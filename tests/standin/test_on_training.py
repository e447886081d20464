"""A pack on a device trains as on the CPU: nothing is left behind, nothing is drawn by
another generator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from engine import attention, candidate, largest_difference, linears, rows_for, trainer, weights_of
from stand_in import NAME, StandIn, stand_in

from loraloom.lora import dropout
from loraloom.records import Candidate
from loraloom.train import checkpoint
from loraloom.train.pack import PackTrainer
from loraloom.train.seat import Seat

CLOSE = 1e-12
"""Relative difference of weights in float64: the device adds up in another order."""


@pytest.fixture(autouse=True)
def alike(double_throughout: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every test of this file: models in float64 throughout, and a CPU that draws
    dropout's masks as a GPU does."""
    monkeypatch.setattr(dropout, "drawn_in_order", lambda device: False)


def trials_of(family: str, model: Any) -> list[Candidate]:
    """One candidate of every kind."""
    heads = tiny.FAMILIES[family].heads
    # T5 embeds source and target with one module
    noise = {} if family == "t5" else {"neftune_noise_alpha": 5.0}
    kinds: dict[str, dict[str, Any]] = {
        "plain": {"evaluations": 2},
        "ranks": {
            "r": 3,
            "lora_alpha": 5,
            "rank_pattern": {linears(model)[0]: 6},
            "per_device_train_batch_size": 2,
        },
        "some": {"targets": attention(model), "optim": "sgd", "bias": "lora_only", **noise},
        "slow": {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 1, "max_steps": 2},
        "dora": {"use_dora": True, "lora_plus_ratio": 4.0, "weight_decay": 0.1},
        "pissa": {"init_lora_weights": "pissa"},
    }
    if family == "llama":
        kinds |= {"drops": {"lora_dropout": 0.3}, "drops too": {"lora_dropout": 0.1, "use_dora": True}}
    return [
        candidate(name, model, heads=heads, **{"max_steps": 2, **values})
        for name, values in kinds.items()
    ]


def engine_on(device: str, family: str, **more: Any) -> PackTrainer:
    chosen, rows = tiny.FAMILIES[family], rows_for(family)
    model = tiny.model_of(family).to(device)
    return trainer(model, rows, chosen.task, validation=rows[:5], fresh_modules=chosen.heads, **more)


def finish(engine: PackTrainer) -> dict[str, Seat]:
    done: dict[str, Seat] = {}
    while engine.seats:
        engine.tick()
        engine.evaluate(engine.due())
        done |= {name: engine.leave(name) for name in engine.finished()}
    return done


def trained(device: str, family: str, **more: Any) -> dict[str, Seat]:
    engine = engine_on(device, family, **more)
    for one in trials_of(family, engine.packed.model):
        engine.join(one)
    return finish(engine)


def assert_same(there: dict[str, Seat], here: dict[str, Seat]) -> None:
    assert set(there) == set(here)
    for name, seat in here.items():
        got = there[name]
        apart = largest_difference(weights_of(got).cpu(), weights_of(seat))
        assert apart < CLOSE, name
        assert got.best is not None and seat.best is not None
        assert got.best.metrics == pytest.approx(seat.best.metrics, rel=1e-9, nan_ok=True), name
        assert got.signals.first_norms == pytest.approx(seat.signals.first_norms), name
        assert (got.best_step, got.tokens, got.smoothed_loss) == (
            seat.best_step,
            seat.tokens,
            pytest.approx(seat.smoothed_loss),
        )


@pytest.mark.parametrize(
    ("family", "checkpointing"),
    [("llama", False), ("llama", True), ("bert", False), ("bert", True), ("t5", False)],
)
def test_a_device_trains_as_the_cpu_does(family: str, checkpointing: bool) -> None:
    here = trained("cpu", family, checkpointing=checkpointing)
    with stand_in("cuda"):
        assert_same(trained("cuda", family, checkpointing=checkpointing), here)


@pytest.mark.parametrize(("family", "checkpointing"), [("llama", False), ("t5", True)])
def test_a_device_of_another_name_takes_the_same_way(family: str, checkpointing: bool) -> None:
    """T5's blocks make masks where they are run again, in the device's own thread,
    which does not know the name of CUDA."""
    here = trained("cpu", family, checkpointing=checkpointing)
    with stand_in():
        assert_same(trained(NAME, family, checkpointing=checkpointing), here)


def test_a_checkpoint_goes_from_device_to_device(tmp_path: Path) -> None:
    """Written by one device and read by the other, both ways, in the middle of a window."""
    family = "bert"
    here = trained("cpu", family)
    with stand_in("cuda"):
        for first, then in (("cpu", "cuda"), ("cuda", "cpu")):
            begun = engine_on(first, family)
            for one in trials_of(family, begun.packed.model):
                begun.join(one)
            begun.tick()
            checkpoint.save(tmp_path / first, begun)
            kept, resumed = checkpoint.load(tmp_path / first), engine_on(then, family)
            assert kept is not None
            resumed.load_state_dict(kept.trainer)
            assert_same(finish(resumed), here)


def test_a_layer_gone_bad_is_named(cuda: StandIn) -> None:
    engine = engine_on("cuda", "llama")
    seat = engine.join(candidate("wild", engine.packed.model))
    entry = next(
        entry for entry in seat.adapter.arena.entries if entry.path.endswith("layers.1.mlp.up_proj")
    )
    seat.adapter.arena.weight(entry).fill_(torch.inf)
    seat.adapter.refresh()
    (event,) = engine.tick()
    assert event.data["first_bad_layer"] == entry.path and seat.nonfinite == 1


def test_an_apple_gpu_needs_no_float64() -> None:
    """From joining to what is told of a finished candidate: nothing asks the device for
    a number that it does not have."""
    model, rows = tiny.model_of("bert", torch.float32), rows_for("bert")
    with stand_in("mps", float64=False):
        engine = trainer(
            model.to("mps"), rows, "seq_cls", validation=rows[:5], fresh_modules=("classifier",)
        )
        names = ("plain", "dora", "drops")
        made = [
            candidate(
                name,
                engine.packed.model,
                heads=("classifier",),
                use_dora=name == "dora",
                lora_dropout=0.1 * (name == "drops"),
            )
            for name in names
        ]
        for one in made:
            engine.join(one)
        engine.tick()
        assert engine.divergence.bad_layer(engine.seats["plain"]) is None
        for seat in finish(engine).values():
            assert seat.best is not None and engine.gauge is not None
            engine.gauge.measure_modules(seat)
            assert seat.signals.modules
