"""Our engine with one candidate, against PEFT and a plain PyTorch loop; and adapters that PEFT loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny
import torch
from engine import candidate, linears, rows_for, run, trainer, weights_of
from torch import Tensor, nn

from loraloom.data.batches import Batch, Order, collate
from loraloom.data.encode import Row
from loraloom.errors import ModelError, VerificationError
from loraloom.lora.base import Base, share_copy
from loraloom.lora.state import (
    load_peft,
    logits_of,
    peft_config,
    read_adapter,
    save_adapter,
    verify_adapter,
)
from loraloom.records import Candidate
from loraloom.train.pack import PackTrainer
from loraloom.train.schedule import lr_at, warmup_steps

PREFIX = "base_model.model."
VARIANTS: dict[str, dict[str, Any]] = {
    "lora_only": {"bias": "lora_only"},
    "all biases": {"bias": "all"},
    "dora": {"use_dora": True, "use_rslora": True},
    "dora with biases": {"use_dora": True, "bias": "all"},
    "pissa": {"init_lora_weights": "pissa"},
    "olora, rank-stabilised": {"init_lora_weights": "olora", "use_rslora": True},
    "few iterations of pissa": {"init_lora_weights": "pissa_niter_4", "r": 2},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "nothing at zero": {"init_lora_weights": False},
}


class Words:
    """Stands in for a tokenizer where none is saved: the adapter is then read with its base's."""

    pad_token_id = 0

    def save_pretrained(self, folder: str) -> None:
        pass


def base_of(family: str, model: Any) -> Base:
    return Base("tiny", tiny.FAMILIES[family].task, model, Words())  # type: ignore[arg-type]


def inputs_of(model: Any, batch: Batch, task: str) -> dict[str, Tensor]:
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask.long()}
    if task == "seq2seq_lm":
        inputs["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(batch.labels)
    return inputs


def model_loss(model: Any, batch: Batch, inputs: dict[str, Tensor], task: str) -> Tensor:
    logits = model(**inputs).logits
    if task == "causal_lm":
        return nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=-100
        )
    if task == "seq2seq_lm":
        return nn.functional.cross_entropy(
            logits.flatten(0, 1), batch.labels.flatten(), ignore_index=-100
        )
    return nn.functional.cross_entropy(logits, batch.labels)


def plain_loop(
    family: str, model: Any, one: Candidate, rows: list[Row], start: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """PEFT, torch's optimisers and the model's own logits: what a person would write by hand."""
    task = tiny.FAMILIES[family].task
    wrapped = peft.get_peft_model(model, peft_config(one.adapter, base_of(family, model)))
    peft.set_peft_model_state_dict(wrapped, dict(start))
    trained = [
        p
        for n, p in wrapped.named_parameters()
        if p.requires_grad or "lora_" in n or "modules_to_save" in n
    ]
    if one.adapter.bias == "all":
        trained += [
            p
            for n, p in wrapped.named_parameters()
            if n.endswith(".bias") and not any(p is q for q in trained)
        ]
    for parameter in trained:
        parameter.requires_grad_(True)
    wrapped.eval()
    spec = one.training
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = (
        torch.optim.AdamW(groups, lr=0.0)
        if spec.optim == "adamw"
        else torch.optim.SGD(groups, lr=0.0, momentum=0.9)
    )
    order = Order([len(row.input_ids) for row in rows], spec.per_device_train_batch_size, spec.seed)
    total = spec.max_steps or 1
    for step in range(total):
        batch = collate([rows[i] for i in order.rows_of_step(step)], tiny.PAD, task)  # type: ignore[arg-type]
        model_loss(wrapped, batch, inputs_of(model, batch, task), task).backward()
        nn.utils.clip_grad_norm_(trained, spec.max_grad_norm)
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
    return {**dict(wrapped.named_parameters()), **peft.get_peft_model_state_dict(wrapped)}


def compare(family: str, one: Candidate, model: Any, tolerance: float) -> None:
    """Train with our engine and by hand from the same start; every tensor must agree."""
    rows = rows_for(family)
    engine = trainer(model, rows, tiny.FAMILIES[family].task)
    seat = engine.join(one)
    start = {
        PREFIX + entry.key: tensor.clone()
        for entry, tensor in seat.adapter.tensors()
        if not entry.relative
    }
    taken: dict[str, Tensor] = {}
    for path in {entry.path for entry, _ in seat.adapter.constants}:
        a, b = (start.pop(f"{PREFIX}{path}.lora_{name}.weight.removed") for name in "AB")
        taken[path] = (
            one.adapter.lora_alpha / a.shape[0] ** (0.5 if one.adapter.use_rslora else 1) * b @ a
        )
    engine.leave(one.id)
    ours = run(engine, [one])[one.id]
    by_hand = share_copy(model, own_biases=True)
    for path, product in taken.items():
        layer = by_hand.get_submodule(path)
        layer.weight = nn.Parameter(
            layer.weight - (product.T if type(layer).__name__ == "Conv1D" else product)
        )
    plain = replace(one, adapter=replace(one.adapter, init_lora_weights=True)) if taken else one
    theirs = plain_loop(family, by_hand, plain, rows, start)
    for entry, tensor in ours.adapter.tensors():
        if entry.key.endswith(".removed"):
            continue
        expected = theirs[PREFIX + entry.key].detach()
        if entry.relative:
            frozen = model.get_submodule(entry.path).bias
            expected = expected - frozen
        scale = expected.abs().max().clamp(min=1e-3)
        assert float((tensor - expected).abs().max() / scale) < tolerance, entry.key


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_alone_equals_peft_and_a_plain_loop(family: str) -> None:
    model = tiny.model_of(family)
    one = candidate(
        "t",
        model,
        heads=tiny.FAMILIES[family].heads,
        r=3,
        max_steps=4,
        warmup_ratio=0.2,
        lr_scheduler_type="cosine",
        optim="sgd",
    )
    compare(family, one, model, 1e-10)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "t5"])
def test_adamw_with_weight_decay_is_torch_s_own(family: str) -> None:
    """AdamW divides by |g| + 1e-8, so that where a gradient is nearly zero, a difference of 1e-17 in the
    order of a sum comes out as 1e-9; with SGD nothing hides the gradients themselves."""
    model = tiny.model_of(family)
    compare(
        family,
        candidate("t", model, heads=tiny.FAMILIES[family].heads, max_steps=6, weight_decay=0.01),
        model,
        1e-8,
    )


@pytest.mark.parametrize("family", ["qwen2", "gpt2", "roberta"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_of_lora_equals_peft(variant: str, family: str) -> None:
    model = tiny.model_of(family)
    one = candidate(
        "t", model, heads=tiny.FAMILIES[family].heads, max_steps=3, optim="sgd", **VARIANTS[variant]
    )
    compare(family, one, model, 1e-9)


@pytest.mark.parametrize(
    ("family", "modules"),
    [
        ("llama", ("lm_head", "model.embed_tokens")),
        ("qwen3", ("lm_head",)),
        ("gemma2", ("lm_head", "model.norm")),
        ("phi", ("lm_head",)),
        ("t5", ("lm_head", "decoder.embed_tokens")),
        ("bart", ("lm_head",)),
    ],
)
def test_modules_trained_whole_equal_peft(family: str, modules: tuple[str, ...]) -> None:
    model = tiny.model_of(family)
    compare(
        family, candidate("t", model, modules_to_save=modules, max_steps=3, optim="sgd"), model, 1e-9
    )


def trained_and_saved(
    family: str, folder: Path, **values: Any
) -> tuple[PackTrainer, Candidate, Base, dict[str, Tensor]]:
    model, rows, task = (
        tiny.model_of(family, torch.float32),
        rows_for(family),
        tiny.FAMILIES[family].task,
    )
    one = candidate("t", model, heads=tiny.FAMILIES[family].heads, max_steps=3, **values)
    engine = trainer(model, rows, task)
    seat = engine.join(one)
    for _ in range(3):
        engine.tick()
    base = base_of(family, model)
    save_adapter(folder, seat.adapter.tensors(), seat.adapter.spec, base)
    return engine, one, base, inputs_of(model, collate(rows[:4], tiny.PAD, task), task)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_saved_adapter_gives_the_same_logits_in_peft(family: str, tmp_path: Path) -> None:
    engine, _, base, inputs = trained_and_saved(
        family, tmp_path, use_rslora=True, rank_pattern={"0.*": 2}, bias="lora_only"
    )
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    assert verify_adapter(tmp_path, engine.packed, "t", base, inputs, tolerance=1e-5) <= 1e-5
    untouched = logits_of(base.model, inputs)
    assert not torch.allclose(
        untouched,
        logits_of(load_peft(tmp_path, share_copy(base.model, own_biases=True)), inputs),
        atol=1e-4,
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in base.model.state_dict().items())


@pytest.mark.parametrize("family", ["llama", "gpt2", "deberta", "bart"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_saved_so_that_peft_loads_it_and_so_do_we(
    variant: str, family: str, tmp_path: Path
) -> None:
    if family == "deberta" and VARIANTS[variant].get("bias") == "all":
        pytest.skip("refused: a norm of DeBERTa works on relative positions, which all rows share")
    engine, one, base, inputs = trained_and_saved(
        family, tmp_path, alpha_pattern={".*1.*": 5.0}, **VARIANTS[variant]
    )
    assert verify_adapter(tmp_path, engine.packed, "t", base, inputs, tolerance=1e-5) <= 1e-5
    again = engine.packed.add("again", one.adapter, seed=99)
    read_adapter(tmp_path, again, base.model)
    assert torch.allclose(again.arena.weights, weights_of(engine.seats["t"]), atol=1e-7)
    assert verify_adapter(tmp_path, engine.packed, "again", base, inputs, tolerance=1e-5) <= 1e-5


def test_names_that_reach_further_in_peft_are_saved_as_paths(tmp_path: Path) -> None:
    """PEFT reads "dense" in modules_to_save as the end of any path."""
    model = tiny.model_of("bert", torch.float32)
    engine = trainer(model, rows_for("bert"), "seq_cls")
    whole = ("classifier", "bert.pooler.dense")
    seat = engine.join(candidate("t", model, modules_to_save=whole, targets=linears(model)[:2]))
    engine.tick()
    base = base_of("bert", model)
    save_adapter(tmp_path, seat.adapter.tensors(), seat.adapter.spec, base)
    batch = collate(rows_for("bert")[:3], tiny.PAD, "seq_cls")
    assert (
        verify_adapter(
            tmp_path, engine.packed, "t", base, inputs_of(model, batch, "seq_cls"), tolerance=1e-5
        )
        <= 1e-5
    )


def test_an_adapter_that_changed_on_disk_is_found_out(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    engine, _, base, inputs = trained_and_saved("llama", tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file(
        {key: value * 1.5 for key, value in load_file(file).items()}, file, metadata={"format": "pt"}
    )
    with pytest.raises(VerificationError, match="is not the one that was trained"):
        verify_adapter(tmp_path, engine.packed, "t", base, inputs)


def test_an_adapter_of_another_shape_is_not_read(tmp_path: Path) -> None:
    engine, one, base, _ = trained_and_saved("llama", tmp_path)
    wider = engine.packed.add("wider", replace(one.adapter, r=8), seed=1)
    with pytest.raises(ModelError, match="is not as it was saved"):
        read_adapter(tmp_path, wider, base.model)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:50])
    with pytest.raises(ModelError, match="cannot be read"):
        read_adapter(tmp_path, wider, base.model)
