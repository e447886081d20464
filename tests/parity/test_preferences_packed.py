"""Preferences: each loss against a plain twin in float64, and a pack against its candidates alone."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from engine import candidate, largest_difference, run, weights_of
from made_pairs import pairs
from torch import Tensor
from torch.nn import functional as F

from loraloom.data.rows import Example, Judged, Row, sides_of
from loraloom.evals.preference import PreferenceObjective
from loraloom.lora.base import share_copy
from loraloom.lora.packed import PackedModel
from loraloom.records import Candidate, PreferenceSpec
from loraloom.train.pack import PackTrainer

CLOSE = 1e-10
LOSSES = {
    "sigmoid": PreferenceSpec(beta=0.3),
    "robust": PreferenceSpec(("robust",), label_smoothing=0.1),
    "ipo": PreferenceSpec(("ipo",), beta=0.2),
    "sigmoid_norm": PreferenceSpec(("sigmoid_norm",), beta=2.0),
    "hinge": PreferenceSpec(("hinge",)),
    "sigmoid and sft": PreferenceSpec(("sigmoid", "sft"), loss_weights=(1.0, 0.5)),
    "orpo": PreferenceSpec(("orpo",), beta=0.2),
    "simpo": PreferenceSpec(("simpo",), beta=2.0, simpo_gamma=0.7),
    "cpo-simpo": PreferenceSpec(("simpo",), beta=2.0, cpo_alpha=0.5),
}
KTO = PreferenceSpec(("kto",), beta=0.2, desirable_weight=1.3, undesirable_weight=0.75)


def judged(count: int) -> list[Example]:
    return [Judged(row, bool(number % 3)) for number, row in enumerate(sides_of(pairs(count // 2)))]


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(5)
    made = tiny.tf.LlamaForCausalLM(tiny.tf.LlamaConfig(**tiny.LLAMA_LIKE)).double().eval()
    return made.requires_grad_(False)


def engine_of(model: Any, rows: list[Example]) -> PackTrainer:
    packed = PackedModel(share_copy(model))
    objective = PreferenceObjective(model, packed, pad_id=tiny.PAD, token_budget=64)
    return PackTrainer(
        packed, rows, objective, task="causal_lm", pad_id=tiny.PAD, decide_by="reward_accuracy"
    )


def one(model: Any, name: str, spec: PreferenceSpec, **more: Any) -> Candidate:
    # Nothing at zero: where B is, every log-ratio is, and half of a loss is not seen.
    values: dict[str, Any] = {"per_device_train_batch_size": 4, "max_steps": 3, **more}
    return candidate(name, model, preference=spec, init_lora_weights=False, **values)


def logps(model: Any, rows: tuple[Row, ...], *, prompt: bool = False) -> Tensor:
    """Of each row's answer, or of all its tokens, by the model's own logits."""
    found: list[Tensor] = []
    for row in rows:
        ids = torch.tensor(row.input_ids, dtype=torch.int64)
        own = F.log_softmax(model(ids[None]).logits[0, :-1], -1).gather(-1, ids[1:, None])[:, 0]
        counts = torch.tensor(row.labels[1:] >= 0) | prompt
        found.append((own * counts).sum())
    return torch.stack(found)


class Twin:
    """What a plain loop knows of four pairs."""

    def __init__(self, model: Any, base: Any, rows: list[Example]) -> None:
        chosen, rejected = sides_of(rows)[0::2], sides_of(rows)[1::2]
        self.c, self.r = logps(model, chosen), logps(model, rejected)
        with torch.no_grad():
            self.rc, self.rr = logps(base, chosen), logps(base, rejected)
        self.nc, self.nr = (
            torch.tensor([row.supervised for row in side], dtype=torch.float64)
            for side in (chosen, rejected)
        )
        self.nll = -self.c.sum() / self.nc.sum()
        whole = sum(len(row) - 1 for row in chosen)
        self.whole_nll = -logps(model, chosen, prompt=True).sum() / whole

    @property
    def d(self) -> Tensor:
        return (self.c - self.rc) - (self.r - self.rr)

    @property
    def per_token(self) -> Tensor:
        return (self.c - self.rc) / self.nc - (self.r - self.rr) / self.nr

    def margin(self) -> Tensor:
        return self.c / self.nc - self.r / self.nr


def odds(logp: Tensor) -> Tensor:
    return (logp.exp() / (1 - logp.exp())).log()


TWINS: dict[str, Callable[[Twin], Tensor]] = {
    "sigmoid": lambda t: -(1 / (1 + (-0.3 * t.d).exp())).log().mean(),
    "robust": lambda t: (
        (-0.9 * (0.1 * t.d).sigmoid().log() + 0.1 * (-0.1 * t.d).sigmoid().log()) / 0.8
    ).mean(),
    "ipo": lambda t: ((t.per_token - 2.5) ** 2).mean(),
    "sigmoid_norm": lambda t: -(2 * t.per_token).sigmoid().log().mean(),
    "hinge": lambda t: (1 - 0.1 * t.d).clamp(min=0).mean(),
    "sigmoid and sft": lambda t: -(0.1 * t.d).sigmoid().log().mean() + 0.5 * t.nll,
    "orpo": lambda t: t.whole_nll - 0.2 * (odds(t.c / t.nc) - odds(t.r / t.nr)).sigmoid().log().mean(),
    "simpo": lambda t: -(2 * t.margin() - 0.7).sigmoid().log().mean(),
    "cpo-simpo": lambda t: -(2 * t.margin() - 0.5).sigmoid().log().mean() + 0.5 * t.nll,
}


def plain_step(
    engine: PackTrainer, name: str, loss_of: Callable[[Any, Any], Tensor]
) -> tuple[float, float]:
    """Loss and norm of its gradient where a candidate's rows go through the model one by one."""
    from loraloom.lora.routing import Routing
    from loraloom.lora.segment import Segment

    arena = engine.packed.adapters[name].arena
    with engine.packed.route(Routing((Segment(name, 0, 1),), training=True)) as routed:

        def base(ids: Tensor) -> Any:
            with engine.packed.base_only() as bare:
                return bare(ids)

        loss = loss_of(routed, base)
        loss.backward()
    norm = float(arena.grads.norm())
    arena.grads.zero_()
    return float(loss.detach()), norm


@pytest.mark.parametrize("name", list(LOSSES))
def test_a_step_is_that_of_a_plain_twin(model: Any, name: str) -> None:
    rows = pairs(4)
    engine = engine_of(model, rows)
    engine.join(one(model, name, LOSSES[name]))
    wanted = plain_step(engine, name, lambda own, base: TWINS[name](Twin(own, base, rows)))
    step = engine.tick()[-1].data
    assert (step["loss"], step["grad_norm"]) == pytest.approx(wanted, rel=1e-9)


def test_kto_is_its_plain_twin(model: Any) -> None:
    rows = judged(4)
    engine = engine_of(model, rows)
    seat = engine.join(one(model, "kto", KTO))
    order = seat.order.rows_of_step(0)
    window = [rows[i] for i in order]

    def loss_of(own: Any, base: Any) -> Tensor:
        sides = sides_of(window)
        crossed = [
            Row(
                np.concatenate([row.input_ids[row.labels < 0], other.input_ids[other.labels >= 0]]),
                np.concatenate([row.labels[row.labels < 0], other.labels[other.labels >= 0]]),
            )
            for row, other in zip(sides, (sides[-1], *sides[:-1]), strict=True)
        ]
        with torch.no_grad():
            moved = (logps(own, tuple(crossed)) - logps(base, tuple(crossed))).mean().clamp(min=0)
            reference = logps(base, sides)
        h = logps(own, sides) - reference
        good = torch.tensor([each.good for each in window if isinstance(each, Judged)])
        losses = torch.where(
            good, 1.3 * (1 - (0.2 * (h - moved)).sigmoid()), 0.75 * (1 - (0.2 * (moved - h)).sigmoid())
        )
        return losses.mean()

    wanted = plain_step(engine, "kto", loss_of)
    step = engine.tick()[-1].data
    assert (step["loss"], step["grad_norm"]) == pytest.approx(wanted, rel=1e-9)


def together_and_alone(model: Any, rows: list[Example], those: list[Candidate]) -> None:
    together = run(engine_of(model, rows), those)
    for each in those:
        alone = run(engine_of(model, rows), [each])
        assert largest_difference(weights_of(together[each.id]), weights_of(alone[each.id])) < CLOSE


def test_candidates_of_different_losses_train_in_a_pack_as_alone(model: Any) -> None:
    some = ("sigmoid", "ipo", "sigmoid and sft", "orpo", "simpo")
    those = [
        one(model, name, LOSSES[name], seed=seed, per_device_train_batch_size=2 + seed % 2)
        for seed, name in enumerate(some)
    ]
    together_and_alone(model, pairs(10), those)


def test_candidates_of_kto_train_in_a_pack_as_alone(model: Any) -> None:
    other = PreferenceSpec(("kto",), beta=0.5)
    those = [
        one(model, "one", KTO),
        one(model, "two", other, learning_rate=3e-3, seed=1),
        one(model, "with the rows of one", other, learning_rate=3e-3),
    ]
    together_and_alone(model, judged(10), those)


@pytest.mark.parametrize(
    "spec", [LOSSES["sigmoid and sft"], LOSSES["orpo"], KTO], ids=lambda s: s.loss_type
)
def test_the_passes_of_a_step_do_not_matter(model: Any, spec: PreferenceSpec) -> None:
    """Accumulation, and micro-batches that were halved for want of memory, keep pairs whole."""
    rows = judged(8) if "kto" in spec.loss_type else pairs(8)
    whole = run(engine_of(model, rows), [one(model, "a", spec)])["a"]
    windows = one(model, "a", spec, per_device_train_batch_size=1, gradient_accumulation_steps=4)
    assert (
        largest_difference(weights_of(run(engine_of(model, rows), [windows])["a"]), weights_of(whole))
        < CLOSE
    )

    halved = engine_of(model, rows)

    def halve(tick: int) -> None:
        for seat in halved.seats.values():
            seat.micro_rows = 2

    assert (
        largest_difference(
            weights_of(run(halved, [one(model, "a", spec)], halve)["a"]), weights_of(whole)
        )
        < CLOSE
    )


def test_a_step_that_was_cut_in_two_goes_on_after_json(model: Any) -> None:
    rows = judged(8)
    made = one(model, "a", KTO, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    whole = run(engine_of(model, rows), [made])["a"]
    first = engine_of(model, rows)
    first.join(made)
    for _ in range(3):  # one step and half of the next
        first.tick()
    state = first.state_dict()
    tensors = state.pop("tensors")
    second = engine_of(model, rows)
    second.load_state_dict({**json.loads(json.dumps(state)), "tensors": tensors})
    assert second.seats["a"].candidate == made
    while not second.finished():
        second.tick()
    assert largest_difference(weights_of(second.seats["a"]), weights_of(whole)) < CLOSE


def test_a_fresh_adapter_has_not_moved_and_the_base_prefers_nothing(model: Any) -> None:
    rows = pairs(6)
    engine = engine_of(model, rows)
    engine.join(candidate("fresh", model, preference=PreferenceSpec()))
    own = engine.evaluate(["fresh"], rows=rows)["fresh"].metrics
    assert own["loss"] == pytest.approx(np.log(2), abs=1e-9)
    assert own["chosen_logratio"] == pytest.approx(0, abs=1e-9)
    base = engine.row_sums(rows, [])[""]
    assert (base.correct == 0.5).all()


def test_what_is_scored_is_counted_by_pairs(model: Any) -> None:
    rows = pairs(6)
    engine = engine_of(model, rows)
    made = one(model, "a", LOSSES["sigmoid"], max_steps=12)
    engine.join(made)
    while not engine.finished():
        engine.tick()
    score = engine.evaluate(["a"], rows=rows)["a"]
    with engine.packed.base_only() as bare:
        base = copy.copy(bare)
        reference = logps(base, sides_of(rows))
    assert len(score.costs) == 6 and sum(score.weights) == 6
    own = engine.row_sums(rows, ["a"])["a"].answers
    assert own is not None
    ratio = own[:, [0, 3]] - reference.numpy().reshape(6, 2)
    right = ratio[:, 0] > ratio[:, 1]
    assert score.metrics["reward_accuracy"] == pytest.approx(right.mean())
    assert score.metrics["reward_margin"] == pytest.approx((ratio[:, 0] - ratio[:, 1]).mean())
    tokens = sum(row.supervised for row in sides_of(rows)[0::2])
    assert score.metrics["chosen_logratio"] == pytest.approx(ratio[:, 0].sum() / tokens)
    assert right.mean() > 0.5
