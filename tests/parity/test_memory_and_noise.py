"""Gradient checkpointing and NEFTune: what the one saves and the other adds, and that
neither couples candidates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
from engine import candidate, causal_rows, largest_difference, rows_for, run, trainer, weights_of
from torch import nn

from loraloom.errors import ModelError
from loraloom.lora.checkpointing import checkpoint_blocks, repeated_blocks
from loraloom.lora.packed import PackedModel
from loraloom.lora.routing import Routing
from loraloom.lora.segment import Segment


def pair(family: str, model: Any) -> list[Any]:
    heads = tiny.FAMILIES[family].heads
    return [
        candidate("a", model, heads=heads, lora_dropout=0.2, max_steps=3),
        candidate(
            "b", model, heads=heads, r=2, seed=3, max_steps=3, use_dora=True, neftune_noise_alpha=5.0
        ),
    ]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_checkpointing_changes_nothing_but_memory(family: str) -> None:
    model, rows, task = tiny.model_of(family), rows_for(family), tiny.FAMILIES[family].task
    plain = run(trainer(model, rows, task), pair(family, model))
    kept = run(trainer(model, rows, task, checkpointing=True), pair(family, model))
    for name, seat in plain.items():
        assert weights_of(seat).isfinite().all()
        assert torch.equal(weights_of(kept[name]), weights_of(seat)), name


def saved_bytes(checkpointing: bool, layers: int) -> int:
    """Bytes of tensors that autograd keeps for the backward pass of one packed
    micro-batch, each counted once."""
    import transformers as tf

    config = tf.LlamaConfig(**{**tiny.LLAMA_LIKE, "num_hidden_layers": layers})
    model = tf.AutoModelForCausalLM.from_config(config)
    frozen = {parameter.data_ptr() for parameter in model.parameters()}
    packed = PackedModel(model)
    if checkpointing:
        packed.checkpoint()
    packed.add("a", candidate("a", model).adapter, 0)
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in frozen:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    ids = torch.ones(4, 40, dtype=torch.long)
    with (
        packed.route(Routing((Segment("a", 0, 4),), True)) as base,
        torch.autograd.graph.saved_tensors_hooks(note, lambda t: t),
    ):
        result = base(input_ids=ids, use_cache=False).logits
    del result
    return sum(kept.values())


def test_checkpointing_keeps_one_input_a_block() -> None:
    more_plain = saved_bytes(False, 6) - saved_bytes(False, 2)
    more_kept = saved_bytes(True, 6) - saved_bytes(True, 2)
    one_input = 4 * 40 * 24 * 4
    assert more_kept <= 4 * one_input * 1.5
    assert more_plain > 8 * more_kept


def test_blocks_are_the_layers_and_not_what_lies_within() -> None:
    model = tiny.model_of("t5")
    assert repeated_blocks(model) == [*model.encoder.block, *model.decoder.block]
    with pytest.raises(
        ModelError, match=r"`training.gradient_checkpointing` needs repeated blocks, and Linear has none"
    ):
        checkpoint_blocks(nn.Linear(2, 2), lambda: None)  # type: ignore[arg-type,return-value]


def test_a_recomputed_block_has_its_routing_even_when_the_pass_is_over() -> None:
    """Backward outside `route`: the recomputation brings the routing of its own forward pass
    (huggingface/peft#2826)."""
    model = tiny.model_of("llama")
    grads = []
    for checkpointing in (False, True):
        engine = trainer(model, causal_rows(), checkpointing=checkpointing)
        seat = engine.join(candidate("a", model, init_lora_weights=False))
        with engine.packed.route(Routing((Segment("a", 0, 2),), True)) as base:
            loss = (
                base(input_ids=torch.ones(2, 5, dtype=torch.long), use_cache=False)
                .logits.square()
                .mean()
            )
        loss.backward()
        grads.append(seat.adapter.arena.grads.clone())
    assert grads[0].abs().max() > 0 and torch.equal(*grads)


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "bert", "t5", "bart"])
def test_noise_trains_another_adapter_and_leaves_the_neighbour_alone(family: str) -> None:
    model, rows, task, heads = (
        tiny.model_of(family),
        rows_for(family),
        tiny.FAMILIES[family].task,
        tiny.FAMILIES[family].heads,
    )
    quiet = candidate("quiet", model, heads=heads, init_lora_weights=False)
    noisy = candidate("noisy", model, heads=heads, init_lora_weights=False, neftune_noise_alpha=5.0)
    done = run(trainer(model, rows, task), [quiet, noisy])
    alone = {one.id: run(trainer(model, rows, task), [one])[one.id] for one in (quiet, noisy)}
    for name, seat in alone.items():
        assert largest_difference(weights_of(done[name]), weights_of(seat)) < 1e-10
    same = replace(noisy, training=replace(noisy.training, neftune_noise_alpha=None))
    unlike = largest_difference(
        weights_of(run(trainer(model, rows, task), [same])["noisy"]), weights_of(done["noisy"])
    )
    assert unlike > 1e-4


def test_scoring_adds_no_noise() -> None:
    model, rows = tiny.model_of("llama"), causal_rows()
    engine = trainer(model, rows, validation=rows[:4])
    engine.join(candidate("noisy", model, neftune_noise_alpha=50.0))
    bare = engine.evaluate(["noisy"])["noisy"].metrics["loss"]
    quiet = trainer(model, rows, validation=rows[:4])
    quiet.join(candidate("quiet", model))
    assert bare == quiet.evaluate(["quiet"])["quiet"].metrics["loss"]
