"""Candidates over a base in 4 or 8 bits: together as alone, as over the weights that
codes stand for, as in PEFT."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import tiny
import torch
import transformers as tf
from engine import candidate, largest_difference, linears, rows_for, run, trainer, weights_of
from test_against_peft import PREFIX, VARIANTS, base_of, inputs_of, model_loss
from test_pack_equals_alone import mixed

from few_bits import KINDS, bitsandbytes, dense_twin, in_bitsandbytes, quantised, repacked
from loraloom.data.batches import Order, collate
from loraloom.lora.frozen import takes_onednn
from loraloom.lora.state import peft_config
from loraloom.records import Candidate
from loraloom.train.schedule import lr_at, warmup_steps

bitsandbytes()

WIDE = {**tiny.LLAMA_LIKE, "hidden_size": 64, "intermediate_size": 128}
"""Rows of whole blocks: with others bitsandbytes' own layers take wrong scales on some processors."""

ROUNDED = 0.0 if takes_onednn("cpu", torch.float32) else 1e-5
"""Elsewhere a product of more rows may add up in another order."""


def wide_llama() -> Any:
    torch.manual_seed(0)
    return tf.LlamaForCausalLM(tf.LlamaConfig(**WIDE)).eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_each_trial_is_bit_for_bit_what_it_would_be_alone(family: str, kind: str) -> None:
    chosen, full = tiny.FAMILIES[family], tiny.model_of(family, torch.float32)
    # Rows of one length: another padding is another order of sums, over whatever base.
    rows = [
        row
        for row in rows_for(family, count=300)
        if len(row.input_ids) == 8 and len(row.labels) in (1, 8)
    ]
    model = quantised(full, kind)
    trials = [one for one in mixed(full, chosen.heads) if one.training.per_device_train_batch_size == 2]
    together = run(trainer(model, rows, chosen.task, token_budget=10_000), trials)
    for one in trials:
        alone = run(trainer(model, rows, chosen.task), [one])[one.id]
        assert largest_difference(weights_of(together[one.id]), weights_of(alone)) <= ROUNDED, one.id


@pytest.mark.parametrize("kind", ["none", *KINDS])
def test_bert_s_pooler_alone_adds_up_otherwise_in_a_pack(kind: str) -> None:
    """It multiplies one row a text, frozen and in float32 over whatever base, and torch adds up two such
    rows in another order than twelve. With two at a time, all else is bit for bit what it is alone."""
    chosen, full = tiny.FAMILIES["bert"], tiny.model_of("bert", torch.float32)
    rows = [row for row in rows_for("bert", count=300) if len(row.input_ids) == 8]
    model = full if kind == "none" else quantised(full, kind)
    pooler = model.bert.pooler
    pooler.forward = lambda states: torch.cat(
        [torch.tanh(pooler.dense(two)) for two in states[:, 0].split(2)]
    )
    targets = [path for path in linears(full) if "pooler" not in path]
    trials = [
        candidate(f"t{seed}", full, targets=targets, heads=chosen.heads, seed=seed, **more)
        for seed, more in enumerate(({}, {"lora_dropout": 0.3}, {"r": 2}, {"use_dora": True}))
    ]
    together = run(trainer(model, rows, chosen.task, token_budget=10_000), trials)
    for one in trials:
        alone = run(trainer(model, rows, chosen.task), [one])[one.id]
        assert largest_difference(weights_of(together[one.id]), weights_of(alone)) <= ROUNDED, one.id


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["qwen2", "gpt2", "roberta", "bart"])
def test_in_float64_to_the_contract_s_tolerance(family: str, kind: str) -> None:
    chosen, rows, full = tiny.FAMILIES[family], rows_for(family), tiny.model_of(family, torch.float32)
    model = quantised(full, kind, torch.float64)
    trials = mixed(full, chosen.heads)
    together = run(trainer(model, rows, chosen.task, token_budget=10_000), trials)
    for one in trials:
        alone = run(trainer(model, rows, chosen.task), [one])[one.id]
        assert largest_difference(weights_of(together[one.id]), weights_of(alone)) < 1e-10, one.id


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gaussian": {"init_lora_weights": "gaussian"},
    "rank-stabilised": {"use_rslora": True},
    "dropout": {"lora_dropout": 0.3},
    "dora with dropout": {"use_dora": True, "lora_dropout": 0.3},
    **VARIANTS,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("option", OPTIONS)
def test_training_is_that_over_the_weights_that_the_codes_stand_for(
    option: str, checkpointing: bool, kind: str
) -> None:
    full, rows = tiny.model_of("qwen2", torch.float32), rows_for("qwen2")
    model = quantised(full, kind, torch.float64)
    one = candidate("t", full, optim="sgd", **OPTIONS[option])
    ours, plain = (
        run(trainer(base, rows, checkpointing=checkpointing), [one])[one.id]
        for base in (model, dense_twin(model))
    )
    assert largest_difference(weights_of(ours), weights_of(plain)) < 1e-10


def in_peft(
    model: Any, one: Candidate, start: dict[str, torch.Tensor], rows: Any, task: str
) -> list[float]:
    """PEFT over bitsandbytes' own layers and a plain loop, in train(): in eval some
    processors would spoil the layers."""
    wrapped = peft.get_peft_model(model, peft_config(one.adapter, base_of("llama", model)))
    peft.set_peft_model_state_dict(wrapped, start)
    trained = [p for n, p in wrapped.named_parameters() if "lora_" in n]
    for parameter in trained:
        parameter.requires_grad_(True)
    wrapped.train()
    spec, losses = one.training, list[float]()
    optimizer = torch.optim.SGD(trained, lr=0.0, momentum=0.9)
    order = Order([len(row.input_ids) for row in rows], spec.per_device_train_batch_size, spec.seed)
    for step in range(spec.max_steps or 1):
        batch = collate([rows[i] for i in order.rows_of_step(step)], tiny.PAD, task)  # type: ignore[arg-type]
        loss = model_loss(wrapped, batch, inputs_of(model, batch, task), task)
        loss.backward()
        losses.append(float(loss.detach()))
        torch.nn.utils.clip_grad_norm_(trained, spec.max_grad_norm)
        total = spec.max_steps or 1
        for group in optimizer.param_groups:
            group["lr"] = lr_at(
                step,
                total,
                spec.learning_rate,
                spec.lr_scheduler_type,
                warmup_steps(total, spec.warmup_ratio),
            )
        optimizer.step()
        optimizer.zero_grad()
    return losses


@pytest.mark.parametrize(("kind", "tolerance"), [("nf4", 1e-5), ("int8", 2e-5)])
@pytest.mark.parametrize("option", ["plain", "rank-stabilised"])
def test_training_is_peft_s_over_bitsandbytes(kind: str, tolerance: float, option: str) -> None:
    """While it trains on a CPU, bitsandbytes spreads 8 bits as we do, and scales in
    another order: other last digits."""
    full, rows = wide_llama(), rows_for("llama")
    model = quantised(full, kind)
    one = candidate("t", full, targets=linears(full), optim="sgd", max_steps=6, **OPTIONS[option])
    engine = trainer(model, rows)
    seat, ours = engine.join(one), list[float]()
    start = {PREFIX + entry.key: tensor.clone() for entry, tensor in seat.adapter.tensors()}
    while not engine.finished():
        ours += [event.data["loss"] for event in engine.tick() if event.kind == "step"]
    theirs = in_peft(in_bitsandbytes(full, kind), one, start, rows, "causal_lm")
    assert ours == pytest.approx(theirs, rel=tolerance)


def gradients(wrapped: Any) -> dict[str, torch.Tensor]:
    """Of every B that gets one."""
    ids = torch.arange(1, 13).view(2, 6)
    wrapped.train().zero_grad(set_to_none=True)
    wrapped(input_ids=ids, labels=ids).loss.backward()
    own = wrapped.named_parameters()
    return {name: p.grad.clone() for name, p in own if "lora_B" in name and p.grad is not None}


def before_and_after_an_evaluation(base: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    wrapped = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    before = gradients(wrapped)
    with torch.no_grad():
        wrapped.eval()(input_ids=torch.arange(1, 7)[None])
    return before, gradients(wrapped)


def test_one_evaluation_spoils_bitsandbytes_own_layers_and_none_of_ours() -> None:
    """Where the processor multiplies in bfloat16 they put their codes into another order, and the
    gradient of their input is gone; elsewhere that order is forced on one of them."""
    full = wide_llama().to(torch.bfloat16)
    before, after = before_and_after_an_evaluation(quantised(full, "nf4", torch.bfloat16))
    assert len(before) == 4 and after.keys() == before.keys()
    assert all(grad.any() and torch.equal(after[name], grad) for name, grad in before.items())
    theirs = in_bitsandbytes(full, "nf4")
    layer = theirs.model.layers[0].self_attn.q_proj
    sound = spread_by_bitsandbytes(layer)
    if not layer.support_avx512bf16_for_cpu:
        assert repacked(layer) is layer
    else:
        before, after = before_and_after_an_evaluation(theirs)
        assert len(before) == 4 and len(after) < 4
    assert (spread_by_bitsandbytes(layer) - sound).norm() > 0.5 * sound.norm()


def spread_by_bitsandbytes(layer: Any) -> torch.Tensor:
    state = layer.weight.quant_state
    return bitsandbytes().functional.dequantize_4bit(layer.weight.data, state).float()
