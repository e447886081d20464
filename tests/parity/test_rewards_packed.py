"""A reward model: its step against a plain twin in float64, and a pack against its candidates alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from engine import candidate, largest_difference, run, weights_of
from made_pairs import pairs
from torch import Tensor

from loraloom.adapters.verify import kl_of
from loraloom.data.rows import Example, Row
from loraloom.evals.preference import task_objective
from loraloom.evals.reward import reward_metrics
from loraloom.lora.base import share_copy
from loraloom.lora.packed import PackedModel
from loraloom.lora.routing import Routing
from loraloom.lora.segment import Segment
from loraloom.records import Candidate, PreferenceSpec
from loraloom.train.pack import PackTrainer

CLOSE = 1e-10
FAMILIES: dict[str, Any] = {
    "decoder": (tiny.tf.LlamaForSequenceClassification, tiny.tf.LlamaConfig, tiny.LLAMA_LIKE, "score"),
    "encoder": (tiny.tf.BertForSequenceClassification, tiny.tf.BertConfig, tiny.ENCODER, "classifier"),
}


def built(family: str) -> tuple[Any, str]:
    """A model with one output, and the name of its head."""
    kind, config, sizes, head = FAMILIES[family]
    torch.manual_seed(5)
    model = kind(config(**sizes, num_labels=1)).double().eval()
    return model.requires_grad_(False), head


def engine_of(model: Any, rows: list[Example]) -> PackTrainer:
    packed = PackedModel(share_copy(model))
    objective = task_objective("reward", model, packed, pad_id=tiny.PAD, token_budget=64)
    return PackTrainer(packed, rows, objective, task="seq_cls", pad_id=tiny.PAD)


def one(made: tuple[Any, str], name: str, centre: float = 0.0, **more: Any) -> Candidate:
    values: dict[str, Any] = {"per_device_train_batch_size": 4, "max_steps": 3, **more}
    spec = PreferenceSpec(center_rewards_coefficient=centre)
    model, head = made
    return candidate(name, model, preference=spec, heads=(head,), init_lora_weights=False, **values)


def rewards(model: Any, rows: Sequence[Row]) -> Tensor:
    """Of each row by itself, without padding."""
    return torch.stack(
        [model(input_ids=torch.tensor(row.input_ids[None]).long()).logits[0, 0] for row in rows]
    )


@pytest.mark.parametrize("centre", [0.0, 0.3])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_is_that_of_a_plain_twin(family: str, centre: float) -> None:
    made, rows = built(family), pairs(4, (0.0, 0.5, 1.0))
    engine = engine_of(made[0], rows)
    engine.join(one(made, "a", centre))
    arena = engine.packed.adapters["a"].arena
    with engine.packed.route(Routing((Segment("a", 0, 1),), training=True)) as routed:
        chosen = rewards(routed, [each.sides[0] for each in rows])
        rejected = rewards(routed, [each.sides[1] for each in rows])
        margin = torch.tensor([number % 3 / 2 for number in range(4)], dtype=torch.float64)
        loss = -(1 / (1 + (rejected - chosen + margin).exp())).log().mean()
        loss = loss + centre * ((chosen + rejected) ** 2).mean()
        loss.backward()
    wanted = float(loss.detach()), float(arena.grads.norm())
    arena.grads.zero_()
    step = engine.tick()[-1].data
    assert (step["loss"], step["grad_norm"]) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_candidates_train_in_a_pack_as_alone_each_with_its_own_head(family: str) -> None:
    made, rows = built(family), pairs(10, (0.0, 0.5, 1.0))
    those = [
        one(
            made,
            name,
            centre,
            seed=seed,
            per_device_train_batch_size=2 + seed,
            learning_rate=1e-3 * seed,
        )
        for seed, (name, centre) in enumerate((("a", 0.0), ("b", 0.1), ("c", 0.0)), 1)
    ]
    together = run(engine_of(made[0], rows), those)
    for each in those:
        alone = run(engine_of(made[0], rows), [each])
        assert largest_difference(weights_of(together[each.id]), weights_of(alone[each.id])) < CLOSE
    heads = {
        each.id: {entry.key: value for entry, value in together[each.id].adapter.tensors()}
        for each in those
    }
    key = next(key for key in heads["a"] if key.startswith(f"{made[1]}.") and key.endswith("weight"))
    assert not torch.equal(heads["a"][key], heads["b"][key])


def test_passes_and_a_pause_in_a_step_do_not_matter() -> None:
    made, rows = built("decoder"), pairs(8, (0.0, 0.5, 1.0))
    whole = run(engine_of(made[0], rows), [one(made, "a")])["a"]

    halved = engine_of(made[0], rows)

    def halve(tick: int) -> None:
        for seat in halved.seats.values():
            seat.micro_rows = 2

    again = run(halved, [one(made, "a")], halve)["a"]
    assert largest_difference(weights_of(again), weights_of(whole)) < CLOSE

    cut = one(made, "a", per_device_train_batch_size=2, gradient_accumulation_steps=2)
    first = engine_of(made[0], rows)
    first.join(cut)
    for _ in range(3):  # one step and half of the next
        first.tick()
    state = first.state_dict()
    tensors = state.pop("tensors")
    second = engine_of(made[0], rows)
    second.load_state_dict({**json.loads(json.dumps(state)), "tensors": tensors})
    while not second.finished():
        second.tick()
    assert largest_difference(weights_of(second.seats["a"]), weights_of(whole)) < CLOSE


def test_what_is_scored_is_counted_by_pairs_and_not_centred() -> None:
    made, rows = built("decoder"), pairs(6, (0.0, 0.5, 1.0))
    engine = engine_of(made[0], rows)
    engine.join(one(made, "a", 0.5, max_steps=6))
    while not engine.finished():
        engine.tick()
    score = engine.evaluate(["a"], rows=rows)["a"]
    with engine.packed.route(Routing((Segment("a", 0, 1),))) as routed, torch.no_grad():
        r = rewards(routed, [side for each in rows for side in each.sides]).view(6, 2)
    difference = r[:, 0] - r[:, 1]
    margin = torch.tensor([number % 3 / 2 for number in range(6)], dtype=torch.float64)
    told = score.metrics
    assert len(score.costs) == 6
    assert told["loss"] == pytest.approx(float(-(difference - margin).sigmoid().log().mean()))
    assert told["reward_accuracy"] == pytest.approx(float((difference > 0).double().mean()))
    assert told["reward_margin"] == pytest.approx(float(difference.mean()))
    assert told["reward_mean"] == pytest.approx(float(r.mean()))


def test_length_is_seen_in_the_margins() -> None:
    draw = np.random.default_rng(0)
    tokens = draw.integers(3, 30, (40, 2)).astype(np.float64)
    told = reward_metrics(np.concatenate([tokens / 10, tokens], 1), ())
    assert told["length_correlation"] == pytest.approx(1)
    assert told["chosen_tokens"] == pytest.approx(tokens[:, 0].mean())


def test_a_proof_sees_another_reward() -> None:
    """The softmax over one output is 1, whatever it says."""
    r = torch.tensor([[1.0], [-2.0]])
    assert float(kl_of([r], [r]).max()) == 0
    assert float(kl_of([r], [r + 0.1]).min()) > 1e-4
