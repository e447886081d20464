"""Random mixes of candidates: whatever sits beside it, whenever it joins, whoever fails
or leaves, each is as if alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import tiny
import torch
from engine import attention, candidate, largest_difference, linears, rows_for, trainer, weights_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loraloom.records import Candidate
from loraloom.train.pack import PackTrainer
from loraloom.train.seat import Seat

NO_BIASES_OF_ALL = ("deberta",)
"""Refused there: a projection works on relative positions, which all rows share."""


@dataclass(frozen=True)
class Mix:
    """What is done to a pack. `late` joins at tick `joins`; `early` leaves at tick
    `leaves`; `wild` goes NaN."""

    settings: tuple[dict[str, Any], ...]
    order: tuple[int, ...]
    token_budget: int
    checkpointing: bool
    longest: int
    joins: int
    leaves: int
    wild: bool
    resumed: int | None


one_setting = st.fixed_dictionaries(
    {
        "r": st.integers(1, 9),
        "lora_alpha": st.sampled_from([1.0, 8.0, 20.0]),
        "lora_dropout": st.sampled_from([0.0, 0.0, 0.1, 0.5]),
        "use_rslora": st.booleans(),
        "use_dora": st.sampled_from([False, False, False, True]),
        "bias": st.sampled_from(["none", "none", "lora_only", "all"]),
        "init_lora_weights": st.sampled_from([True, True, "gaussian", "olora", "pissa_niter_2"]),
        "learning_rate": st.sampled_from([1e-4, 1e-3, 1e-2]),
        "lora_plus_ratio": st.sampled_from([None, 4.0]),
        "per_device_train_batch_size": st.integers(1, 4),
        "gradient_accumulation_steps": st.integers(1, 3),
        "lr_scheduler_type": st.sampled_from(["linear", "cosine", "constant", "half_cycle_cosine"]),
        "warmup_ratio": st.sampled_from([0.0, 0.4]),
        "weight_decay": st.sampled_from([0.0, 0.1]),
        "optim": st.sampled_from(["adamw", "sgd"]),
        "max_grad_norm": st.sampled_from([0.0, 0.05, 1.0]),
        "neftune_noise_alpha": st.sampled_from([None, None, 5.0]),
        "seed": st.integers(0, 2**31),
        "max_steps": st.sampled_from([1, 2, 3, None]),
        "num_train_epochs": st.sampled_from([0.3, 1.2]),
        "where": st.sampled_from(["every", "attention", "one"]),
        "uneven": st.booleans(),
        "whole": st.booleans(),
    }
)


@st.composite
def mixes(draw: st.DrawFn) -> Mix:
    count = draw(st.integers(2, 4))
    return Mix(
        settings=tuple(draw(one_setting) for _ in range(count)),
        order=tuple(draw(st.permutations(range(count)))),
        token_budget=draw(st.sampled_from([1, 60, 10_000])),
        checkpointing=draw(st.booleans()),
        longest=draw(st.integers(5, 16)),
        joins=draw(st.integers(0, 3)),
        leaves=draw(st.integers(1, 4)),
        wild=draw(st.booleans()),
        resumed=draw(st.sampled_from([None, None, 1, 2])),
    )


@cache
def model_of(family: str, dtype: torch.dtype) -> Any:
    return tiny.model_of(family, dtype)


def made(name: str, family: str, model: Any, drawn: dict[str, Any]) -> Candidate:
    values = dict(drawn)
    where, uneven, whole = values.pop("where"), values.pop("uneven"), values.pop("whole")
    # A start out of the weight cannot have a rank above its smaller side: a mixture has
    # gates of one output.
    every = [path for path in linears(model) if min(model.get_submodule(path).weight.shape) >= 9]
    targets = {"every": every, "attention": attention(model), "one": every[1:2]}[where]
    if uneven:
        values["rank_pattern"] = {targets[0]: 1 + values["r"] % 4}
        values["alpha_pattern"] = {targets[-1].rpartition(".")[2]: 3.0}
    if values["use_dora"]:
        values["init_lora_weights"] = True
    if values["bias"] == "all" and family in NO_BIASES_OF_ALL:
        values["bias"] = "lora_only"
    heads = tiny.FAMILIES[family].heads or (("lm_head",) if whole and hasattr(model, "lm_head") else ())
    if (
        values["max_steps"] is None
        and values["gradient_accumulation_steps"] * values["per_device_train_batch_size"] < 3
    ):
        values["max_steps"] = 4
    return candidate(name, model, targets=targets, heads=heads, **values)


def engine_of(family: str, model: Any, mix: Mix, **more: Any) -> PackTrainer:
    chosen = tiny.FAMILIES[family]
    rows = rows_for(family, count=14, longest=mix.longest)
    return trainer(model, rows, chosen.task, fresh_modules=chosen.heads, **more)


def together(family: str, model: Any, mix: Mix, trials: list[Candidate]) -> dict[str, Seat]:
    """All that finish, of a pack that is stirred as the mix says; the first in order joins late, an
    extra one leaves early."""

    def fresh() -> PackTrainer:
        return engine_of(
            family, model, mix, token_budget=mix.token_budget, checkpointing=mix.checkpointing
        )

    engine = fresh()
    ordered = [trials[k] for k in mix.order]
    early = candidate("early", model, r=3, max_steps=50, heads=tiny.FAMILIES[family].heads)
    wild = candidate("wild", model, learning_rate=1e200, max_steps=50, heads=tiny.FAMILIES[family].heads)
    for one in [early, *ordered[1:], *([wild] if mix.wild else [])]:
        engine.join(one)
    done: dict[str, Seat] = {}
    tick = 0
    while engine.seats or tick <= mix.joins:
        if tick == mix.joins:
            engine.join(ordered[0])
        if tick == mix.leaves:
            engine.leave("early")
        if tick == mix.resumed:
            state, engine = engine.state_dict(), fresh()
            engine.load_state_dict(state)
        engine.tick()
        done |= {name: engine.leave(name) for name in engine.finished()}
        for name in engine.diverged():
            engine.leave(name)
        tick += 1
    assert engine.packed.adapters == {}
    return done


def assert_as_alone(family: str, dtype: torch.dtype, mix: Mix, tolerance: float) -> None:
    model = model_of(family, dtype)
    trials = [made(f"t{k}", family, model, drawn) for k, drawn in enumerate(mix.settings)]
    done = together(family, model, mix, trials)
    for one in trials:
        engine = engine_of(family, model, mix)
        seat = engine.join(one)
        while not engine.finished():
            engine.tick()
        got = done[one.id]
        difference = largest_difference(weights_of(got), weights_of(seat))
        assert difference < tolerance, (one, difference)
        assert got.smoothed_loss == pytest.approx(seat.smoothed_loss, rel=max(tolerance / 10, 1e-10))
        assert (got.step, got.tokens) == (seat.step, seat.tokens)


CALM = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize(
    ("dtype", "tolerance", "examples"),
    [
        (torch.float64, 1e-10, 3),
        pytest.param(torch.float64, 1e-10, 15, marks=pytest.mark.long),
        pytest.param(torch.float32, 1e-4, 5, marks=pytest.mark.long),
    ],
)
def test_any_mix_of_candidates_trains_as_if_alone(
    family: str, dtype: torch.dtype, tolerance: float, examples: int
) -> None:
    @settings(CALM, max_examples=examples)
    @given(mix=mixes())
    def as_alone(mix: Mix) -> None:
        assert_as_alone(family, dtype, mix, tolerance)

    as_alone()
