"""Our engine with one candidate, against PEFT and a plain PyTorch loop; and adapters that PEFT loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import tiny
import torch
from engine import candidate, causal_rows, class_rows, largest_difference, run, trainer
from torch import nn

from loraloom.data.batches import Order, collate
from loraloom.lora.base import Base, share_copy
from loraloom.lora.state import peft_config, save_adapter, verify_adapter
from loraloom.records import Candidate
from loraloom.train.schedule import lr_at, warmup_steps

CASES = {
    "llama": (lambda: tiny.causal_lm("llama"), causal_rows, "causal_lm", None),
    "gpt2": (lambda: tiny.causal_lm("gpt2"), causal_rows, "causal_lm", None),
    "bert": (lambda: tiny.classifier("bert"), class_rows, "seq_cls", "classifier"),
    "llama-classifier": (lambda: tiny.classifier("llama"), class_rows, "seq_cls", "score"),
}


class Words:
    """Stands in for a tokenizer where only saving it matters."""

    pad_token_id = 0

    def save_pretrained(self, folder: str) -> None:
        Path(folder, "tokenizer_config.json").write_text("{}")


def plain_loop(model: Any, one: Candidate, rows: list, task: str, start: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """PEFT, torch.optim.AdamW and the model's own loss: what a person would write by hand."""
    wrapped = peft.get_peft_model(model, peft_config(one.adapter, Base("tiny", task, model, Words())))
    peft.set_peft_model_state_dict(wrapped, start)
    trained = [p for n, p in wrapped.named_parameters() if "lora_" in n or "modules_to_save" in n or p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(True)
    wrapped.eval()
    spec = one.training
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.0) if spec.optim == "adamw" else torch.optim.SGD(groups, lr=0.0, momentum=0.9)
    order = Order([len(row.input_ids) for row in rows], spec.per_device_train_batch_size, spec.seed)
    for step in range(spec.max_steps or 1):
        batch = collate([rows[i] for i in order.rows_of_step(step)], 0, task)  # type: ignore[arg-type]
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask.long()}
        if task == "causal_lm":
            logits = wrapped(**inputs).logits[:, :-1]
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=-100)
        else:
            loss = nn.functional.cross_entropy(wrapped(**inputs).logits, batch.labels)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, spec.max_grad_norm)
        total = spec.max_steps or 1
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, total, spec.learning_rate, spec.lr_scheduler_type, warmup_steps(total, spec.warmup_ratio))
        optimizer.step()
        optimizer.zero_grad()
    return dict(peft.get_peft_model_state_dict(wrapped))


@pytest.mark.parametrize(("optim", "tolerance"), [("sgd", 1e-10), ("adamw", 1e-9)])
@pytest.mark.parametrize("case", CASES)
def test_alone_equals_peft_and_a_plain_loop(case: str, optim: Any, tolerance: float) -> None:
    """AdamW divides by |g| + 1e-8, so that where a gradient is nearly zero, a difference of 1e-17 in the order of a sum
    comes out as 1e-9; with SGD nothing hides the gradients themselves."""
    make, rows, task, head = CASES[case]
    model = make()
    one = candidate(
        "t", model, head=head, r=3, max_steps=6, weight_decay=0.01, warmup_ratio=0.2, lr_scheduler_type="cosine", optim=optim
    )  # fmt: skip
    engine = trainer(model, rows(), task)
    seat = engine.join(one)
    start = {f"base_model.model.{entry.key}": tensor.clone() for entry, tensor in seat.adapter.tensors()}
    engine.leave("t")
    ours = run(engine, [one])["t"]
    theirs = plain_loop(share_copy(model, own_biases=True), one, rows(), task, start)
    assert set(theirs) == {f"base_model.model.{entry.key}" for entry, _ in ours.adapter.tensors()}
    for entry, tensor in ours.adapter.tensors():
        assert largest_difference(tensor, theirs[f"base_model.model.{entry.key}"]) < tolerance, entry.key


@pytest.mark.parametrize("bias", ["none", "lora_only"])
@pytest.mark.parametrize("case", CASES)
def test_a_saved_adapter_gives_the_same_logits_in_peft(case: str, bias: str, tmp_path: Path) -> None:
    make, rows, task, head = CASES[case]
    model = make().float()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    one = candidate("t", model, head=head, r=4, use_rslora=True, bias=bias, rank_pattern={}, max_steps=5)
    engine = trainer(model, rows(), task)
    seat = engine.join(one)
    for _ in range(5):
        engine.tick()
    base = Base("tiny", task, model, Words())  # type: ignore[arg-type]
    save_adapter(tmp_path / "adapter", seat.adapter.tensors(), one.adapter, base)
    batch = collate(rows()[:4], 0, task)  # type: ignore[arg-type]
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask.long()}
    assert verify_adapter(tmp_path / "adapter", engine.packed, "t", base, inputs, tolerance=1e-5) <= 1e-5
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_an_adapter_that_changed_on_disk_is_found_out(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from loraloom.errors import VerificationError

    model = tiny.causal_lm("llama").float()
    one = candidate("t", model)
    engine = trainer(model, causal_rows())
    seat = engine.join(one)
    engine.tick()
    engine.tick()
    base = Base("tiny", "causal_lm", model, Words())
    save_adapter(tmp_path, seat.adapter.tensors(), one.adapter, base)
    file = tmp_path / "adapter_model.safetensors"
    save_file({key: value * 1.5 for key, value in load_file(file).items()}, file, metadata={"format": "pt"})
    batch = collate(causal_rows()[:2], 0, "causal_lm")
    with pytest.raises(VerificationError, match="is not the one that was trained"):
        verify_adapter(tmp_path, engine.packed, "t", base, {"input_ids": batch.input_ids})
