"""Rows of several kinds in one pass, against each kind written out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from torch.nn import functional as F

from loraloom.data.batches import Order, collate
from loraloom.data.rows import Row, causal_row
from loraloom.evals.mixed import MixedObjective
from loraloom.lora.base import share_copy
from loraloom.lora.packed import PackedModel
from loraloom.lora.routing import Routing
from loraloom.lora.segment import Segment
from loraloom.records import AdapterSpec, Candidate, TrainingSpec
from loraloom.train.pack import PackTrainer

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
VOCABULARY = 40


@pytest.fixture(scope="module")
def base() -> Any:
    torch.manual_seed(0)
    config = tf.LlamaConfig(**SIZES, num_key_value_heads=2, vocab_size=VOCABULARY, initializer_range=0.2)
    return tf.LlamaForCausalLM(config).eval()


def rows(seed: int = 0) -> list[Row]:
    rng = np.random.default_rng(seed)
    found: list[Row] = []
    for length in (7, 5, 9, 6):
        ids = rng.integers(4, VOCABULARY, length)
        found.append(causal_row(ids.tolist(), np.arange(length) >= 3))
    kinds = ("nll", "kl", "unlikelihood", "kl")
    return [replace(row, loss=kind) for row, kind in zip(found, kinds, strict=True)]  # type: ignore[arg-type]


def spec(base: Any) -> AdapterSpec:
    linear = (name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear))
    return AdapterSpec(4, 8.0, 0.0, tuple(name for name in linear if name != "lm_head"))


def moved(packed: PackedModel, base: Any) -> None:
    """An adapter in the pack that changes something."""
    adapter = packed.add("a", spec(base), 1)
    for entry, tensor in adapter.tensors():
        if entry.group == "lora_B":
            torch.manual_seed(5)
            tensor.copy_(torch.randn_like(tensor) * 0.1)
    adapter.refresh()


def test_each_kind_is_its_formula_and_no_row_changes_another(base: Any) -> None:
    packed = PackedModel(share_copy(base))
    objective = MixedObjective(base, packed)
    moved(packed, base)
    batch = collate(rows(), 0, "causal_lm")
    with packed.route(Routing((Segment("a", 0, 4),))) as model:
        got = objective.rows(model, batch)
        logits = model(input_ids=batch.input_ids).logits[:, :-1]
    frozen = base(input_ids=batch.input_ids).logits[:, :-1]
    targets = batch.labels[:, 1:]
    log_p, log_q = F.log_softmax(frozen, -1), F.log_softmax(logits, -1)
    nll = F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=-100, reduction="none")
    unlikely = -torch.log1p(-torch.exp(-nll))
    counted = targets != -100
    kl = (log_p.exp() * (log_p - log_q)).sum(-1)
    kinds = (nll, kl, unlikely, kl)
    wanted = [torch.where(counted, value, 0.0)[i].sum() for i, value in enumerate(kinds)]
    torch.testing.assert_close(got.loss, torch.stack(wanted).detach(), rtol=1e-4, atol=1e-5)
    assert got.weight.tolist() == counted.sum(1).tolist()


def test_an_adapter_that_changes_nothing_is_the_base_bit_for_bit(base: Any) -> None:
    packed = PackedModel(share_copy(base))
    objective = MixedObjective(base, packed)
    packed.add("zero", spec(base), 1)  # B is zero
    batch = collate([replace(row, loss="kl") for row in rows()], 0, "causal_lm")
    with torch.no_grad(), packed.route(Routing((Segment("zero", 0, 4),))) as model:
        logits = model(input_ids=batch.input_ids).logits
        assert float(objective.rows(model, batch).loss.abs().max()) == 0.0
    with torch.no_grad(), packed.base_only() as model:
        assert torch.equal(logits, model(input_ids=batch.input_ids).logits)


def trained(base: Any, chosen: list[Row], held: int = 0) -> tuple[Any, Any]:
    """Weights of an adapter before and after some steps."""
    packed = PackedModel(share_copy(base))
    trainer = PackTrainer(
        packed,
        chosen,
        MixedObjective(base, packed),
        task="causal_lm",
        pad_id=0,
        signals=False,
        order_of=lambda made: Order([len(row) for row in chosen], len(chosen), 0),
    )
    training = TrainingSpec(
        1e-2, max_steps=5, per_device_train_batch_size=2, lr_scheduler_type="constant"
    )
    seat = trainer.join(Candidate("a", spec(base), training))
    for entry, tensor in seat.adapter.tensors():
        if entry.group == "lora_B":
            torch.manual_seed(len(entry.path))
            tensor.copy_(torch.randn_like(tensor) * 0.1)
    seat.adapter.refresh()
    if held:
        seat.adapter.hold(held)
    before = {entry.key: tensor.clone() for entry, tensor in seat.adapter.tensors()}
    while not trainer.finished():
        trainer.tick()
    return before, {entry.key: tensor.clone() for entry, tensor in seat.adapter.tensors()}


def test_what_is_held_of_a_slot_stays_to_the_bit_while_the_rest_learns(base: Any) -> None:
    before, after = trained(base, rows(), held=3)
    for key, was in before.items():
        halves = (was[:3], was[3:]) if key.endswith("lora_A.weight") else (was[:, :3], was[:, 3:])
        now = after[key]
        new = (now[:3], now[3:]) if key.endswith("lora_A.weight") else (now[:, :3], now[:, 3:])
        assert torch.equal(halves[0], new[0]) and not torch.equal(halves[1], new[1])


def test_a_row_of_another_kind_is_weighed_alone_and_pulls_as_its_weight_says(base: Any) -> None:
    none = [replace(row, weight=0.0) if row.loss != "nll" else row for row in rows()]
    alone = [row for row in rows() if row.loss == "nll"]
    _, with_weightless = trained(base, none)
    _, by_itself = trained(base, alone)
    _, with_all = trained(base, rows())
    key = next(iter(by_itself))
    torch.testing.assert_close(with_weightless[key], by_itself[key], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(with_all[key], by_itself[key], atol=1e-3)
