"""Losses row by row, against the model's own logits and torch's cross entropy; the
logits themselves are never whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from torch import nn

from loraloom.data.batches import collate
from loraloom.data.encode import Row
from loraloom.evals import cross_entropy
from loraloom.evals.cross_entropy import HeadForm, head_form
from loraloom.evals.objective import objective_for
from loraloom.lora.packed import PackedModel
from loraloom.lora.routing import Routing
from loraloom.lora.segment import Segment
from loraloom.records import AdapterSpec

pytestmark = pytest.mark.usefixtures("double_throughout")

VOCAB = 37
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": VOCAB,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "head_dim": 8,
}
T5 = {
    "vocab_size": VOCAB,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 16,
    "num_layers": 1,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}
BART = {
    "vocab_size": VOCAB,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}


def decoder(config: Any) -> Any:
    torch.manual_seed(0)
    model = tf.AutoModelForCausalLM.from_config(config).double().eval()
    nn.init.normal_(model.get_output_embeddings().weight, std=0.5)
    return model


def pair(config: Any) -> Any:
    torch.manual_seed(0)
    return tf.AutoModelForSeq2SeqLM.from_config(config).double().eval()


MODELS = {
    "plain": lambda: decoder(tf.LlamaConfig(**SMALL)),
    "capped": lambda: decoder(tf.Gemma2Config(**SMALL, final_logit_softcapping=1.5)),
    "scaled logits": lambda: decoder(tf.GraniteConfig(**SMALL, logits_scaling=3.0)),
    "scaled hidden": lambda: pair(tf.T5Config(**T5)),
    "over an inner model": lambda: pair(tf.BartConfig(**BART)),
}
FORMS = {
    "plain": HeadForm("inner"),
    "capped": HeadForm("inner", 1.5),
    "scaled logits": HeadForm("logits"),
    "scaled hidden": HeadForm("given"),
    "over an inner model": HeadForm("inner"),
}


def rows_of(model: Any) -> list[Row]:
    draw = np.random.default_rng(0)
    rows: list[Row] = []
    for size in (5, 9, 3, 7):
        ids = draw.integers(1, VOCAB, size).astype(np.int32)
        labels = (
            draw.integers(1, VOCAB, 12 - size).astype(np.int32)
            if model.config.is_encoder_decoder
            else ids.copy()
        )
        if not model.config.is_encoder_decoder:
            labels[: size // 3] = -100
        rows.append(Row(ids, labels))
    return rows


def plain(model: Any, rows: list[Row]) -> list[tuple[float, int, int]]:
    """(loss, supervised, right) of each row by itself, from the model's own logits."""
    found = []
    for row in rows:
        ids, labels = torch.tensor(row.input_ids[None]).long(), torch.tensor(row.labels[None]).long()
        if model.config.is_encoder_decoder:
            logits = model(
                input_ids=ids, decoder_input_ids=model.prepare_decoder_input_ids_from_labels(labels)
            ).logits[0]
            targets = labels[0]
        else:
            logits, targets = model(input_ids=ids).logits[0, :-1], labels[0, 1:]
        kept = targets != -100
        loss = nn.functional.cross_entropy(logits[kept], targets[kept], reduction="sum")
        found.append(
            (float(loss), int(kept.sum()), int((logits[kept].argmax(-1) == targets[kept]).sum()))
        )
    return found


@pytest.mark.parametrize("name", MODELS)
def test_each_row_has_the_loss_of_the_models_own_logits(name: str) -> None:
    model = MODELS[name]()
    rows, task = rows_of(model), "seq2seq_lm" if model.config.is_encoder_decoder else "causal_lm"
    objective: Any = objective_for(task, model)
    assert objective.form == FORMS[name]
    with torch.no_grad():
        result = objective.rows(model, collate(rows, 0, task))  # type: ignore[arg-type]
    for k, (loss, weight, right) in enumerate(plain(model, rows)):
        assert float(result.loss[k]) == pytest.approx(loss, rel=1e-12)
        assert (int(result.weight[k]), int(result.correct[k])) == (weight, right)
    assert objective.chance == pytest.approx(np.log(VOCAB))


@pytest.mark.parametrize("chunk_bytes", [1, 4 * VOCAB * 3])
@pytest.mark.parametrize("name", ["plain", "capped", "scaled hidden"])
def test_a_trained_head_in_pieces_has_the_gradients_of_the_whole(
    name: str, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two candidates with a head of their own each; their gradients against plain
    autograd on a copy of the model."""
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", chunk_bytes)
    model = MODELS[name]()
    rows, task = rows_of(model), "seq2seq_lm" if model.config.is_encoder_decoder else "causal_lm"
    objective = objective_for(task, model)
    packed = PackedModel(model)
    target = next(
        n for n, m in model.named_modules() if type(m) is nn.Linear and n.endswith(("q_proj", "q"))
    )
    adapters = [
        packed.add(n, AdapterSpec(2, 4, 0.0, (target,), modules_to_save=("lm_head",)), 0) for n in "ab"
    ]
    with packed.route(Routing((Segment("a", 0, 1), Segment("b", 1, 4)), True)):
        objective.rows(packed.model, collate(rows, 0, task)).loss.sum().backward()  # type: ignore[arg-type]
    again = MODELS[name]()
    for adapter, part in zip(adapters, (rows[:1], rows[1:]), strict=True):
        again.zero_grad()
        head = again.get_output_embeddings()
        head.weight = nn.Parameter(head.weight.detach().clone())
        total = objective_for(task, again).rows(again, collate(part, 0, task)).loss.sum()  # type: ignore[arg-type]
        (expected,) = torch.autograd.grad(total, head.weight)
        entry = next(entry for entry in adapter.arena.entries if entry.path == "lm_head")
        assert torch.allclose(adapter.arena.grad(entry), expected, rtol=0, atol=1e-12)


def test_a_language_model_never_holds_the_logits_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The head sees one chunk of rows at a time, frozen or trained, and only supervised positions."""
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", 4 * VOCAB * 2)
    model = MODELS["capped"]()
    rows = rows_of(model)
    objective = objective_for("causal_lm", model)
    seen: list[int] = []
    model.get_output_embeddings().register_forward_hook(
        lambda _m, _i, output: seen.append(output.shape[0])
    )
    objective.rows(model, collate(rows, 0, "causal_lm"))
    assert max(seen) <= 2 and sum(seen) == sum(row.supervised for row in rows)


def test_a_form_is_found_and_not_assumed() -> None:
    model = MODELS["plain"]()
    ids = {"input_ids": torch.arange(4)[None]}
    assert head_form(model, ids) == HeadForm("inner")
    model.lm_head.register_forward_hook(lambda _m, _i, output: output)
    model.model.norm.register_forward_hook(lambda _m, _i, output: output * 2)
    assert head_form(model, ids) == HeadForm("inner"), (
        "what happens inside the inner model is its own affair"
    )
