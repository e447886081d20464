"""Family by family: losses of padded rows, three steps against PEFT, and a pack against
each candidate alone.

A handful runs with all tests, the others with `make test-long`. The families are those of the installed
transformers, so that a new version shows what it broke; what a family cannot do stands in `sweep` with
its reason.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import sweep
import tiny
import torch
from engine import (
    candidate,
    causal_rows,
    class_rows,
    largest_difference,
    pair_rows,
    run,
    trainer,
    weights_of,
)
from torch import Tensor, nn

from loraloom.data.batches import Batch, Order, collate
from loraloom.errors import ModelError
from loraloom.evals.objective import objective_for
from loraloom.facts.model import model_facts
from loraloom.lora.base import share_copy
from loraloom.lora.targets import resolve_targets
from loraloom.records import Candidate
from loraloom.train.pack import PackTrainer
from loraloom.train.schedule import lr_at, warmup_steps

PREFIX = "base_model.model."
STEPS = 3
TOLERANCE, LOOSE = 1e-9, 1e-4
"""In float64; and of families that compute a part in float32 whatever their weights are."""

QUICK = {
    ("causal_lm", "falcon"),
    ("causal_lm", "gpt_oss"),
    ("causal_lm", "xlnet"),
    ("seq_cls", "big_bird"),
    ("seq_cls", "roc_bert"),
    ("seq_cls", "convbert"),
    ("seq2seq_lm", "mbart"),
    ("seq2seq_lm", "t5gemma"),
}


def families() -> list[Any]:
    return [
        pytest.param(
            task, name, id=f"{task}-{name}", marks=() if (task, name) in QUICK else pytest.mark.long
        )
        for task in sweep.NAMES
        for name in sweep.offered(task)
    ]


def reference(model: Any, batch: Batch, task: str) -> Tensor:
    """The mean loss under the logits that the model itself makes of the labels. Its own
    loss is taken in float32."""
    logits = model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask.long(), labels=batch.labels
    ).logits
    if task == "causal_lm":
        return nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=-100
        )
    return nn.functional.cross_entropy(logits.flatten(0, -2), batch.labels.flatten(), ignore_index=-100)


class Case:
    """A family with rows for its task and the layers that `all-linear` takes in it."""

    def __init__(self, task: Any, family: str, folder: Path) -> None:
        self.task, self.tolerance = task, LOOSE if family in sweep.PARTLY_FLOAT32 else TOLERANCE
        try:
            self.model = sweep.model_of(family, task)
        except sweep.TooLargeError as large:
            pytest.skip(f"not made small by the names of sizes: {large}")
        self.model.config.save_pretrained(folder)
        facts = model_facts(str(folder), task=task)
        self.heads = facts.head_modules
        self.targets = resolve_targets(facts.linears, "all-linear", modules_to_save=self.heads)
        makers = {"causal_lm": causal_rows, "seq_cls": class_rows, "seq2seq_lm": pair_rows}
        self.rows = makers[task](count=12)

    def batch(self, numbers: Any) -> Batch:
        return collate([self.rows[i] for i in numbers], tiny.PAD, self.task)

    def candidate(self, name: str, **values: Any) -> Candidate:
        given = {
            "heads": self.heads,
            "targets": self.targets,
            "max_steps": STEPS,
            "optim": "sgd",
            "learning_rate": 1e-2,
        }
        return candidate(name, self.model, **given | values)

    def engine(self) -> PackTrainer:
        return trainer(self.model, self.rows, self.task)

    def by_hand(self, one: Candidate, start: dict[str, Tensor]) -> dict[str, Tensor]:
        """PEFT and torch's SGD, from the same start."""
        targets, whole = list(one.adapter.target_modules), list(self.heads) or None
        config = peft.LoraConfig(
            r=one.adapter.r, lora_alpha=8, target_modules=targets, modules_to_save=whole
        )
        wrapped = peft.get_peft_model(share_copy(self.model), config, autocast_adapter_dtype=False)
        peft.set_peft_model_state_dict(wrapped, dict(start))
        trained = [p for n, p in wrapped.named_parameters() if "lora_" in n or "modules_to_save" in n]
        for parameter in trained:
            parameter.requires_grad_(True)
        wrapped.eval()
        spec, optimizer = one.training, torch.optim.SGD(trained, lr=0.0, momentum=0.9)
        order = Order(
            [len(row.input_ids) for row in self.rows], spec.per_device_train_batch_size, spec.seed
        )
        for step in range(STEPS):
            reference(wrapped, self.batch(order.rows_of_step(step)), self.task).backward()
            nn.utils.clip_grad_norm_(trained, spec.max_grad_norm)
            warmup = warmup_steps(STEPS, spec.warmup_ratio)
            optimizer.param_groups[0]["lr"] = lr_at(
                step, STEPS, spec.learning_rate, spec.lr_scheduler_type, warmup
            )
            optimizer.step()
            optimizer.zero_grad()
        return {**dict(wrapped.named_parameters()), **peft.get_peft_model_state_dict(wrapped)}


def joined(task: str, family: str, folder: Path) -> None:
    """Go as far as a training that is about to begin."""
    case = Case(task, family, folder)
    case.engine().join(case.candidate("one"))


@pytest.mark.parametrize(("task", "family"), families())
@pytest.mark.filterwarnings("ignore")
def test_a_family_is_trained_as_peft_does_and_in_a_pack_as_alone(
    task: str, family: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if (task, family) in sweep.OPEN:
        request.applymarker(pytest.mark.xfail(reason=sweep.OPEN[task, family], strict=False))
    if (task, family) in sweep.SLOW:
        pytest.skip("takes minutes even when it is tiny")
    if (task, family) in sweep.REFUSED:
        with pytest.raises(ModelError, match=sweep.REFUSED[task, family]):
            joined(task, family, tmp_path)
        return
    case = Case(task, family, tmp_path)
    with torch.no_grad():
        found = objective_for(case.task, case.model).rows(case.model, case.batch(range(4)))
        alone = torch.stack([reference(case.model, case.batch([i]), task) for i in range(4)])
    assert largest_difference(found.loss / found.weight, alone) < case.tolerance, "losses of padded rows"

    one = case.candidate("one", r=3)
    start = {
        PREFIX + entry.key: tensor.clone() for entry, tensor in case.engine().join(one).adapter.tensors()
    }
    trained = run(case.engine(), [one])["one"]
    theirs = case.by_hand(trained.candidate, start)
    for entry, tensor in trained.adapter.tensors():
        expected = theirs[PREFIX + entry.key].detach()
        scale = expected.abs().max().clamp(min=1e-3)
        assert float((tensor - expected).abs().max() / scale) < case.tolerance, (
            f"{entry.key} against PEFT"
        )

    other = case.candidate(
        "other", r=5, targets=case.targets[::2], per_device_train_batch_size=3, seed=11, lora_dropout=0.2
    )
    together = run(case.engine(), [one, other])
    left = run(case.engine(), [other])["other"]
    for own, packed in ((trained, together["one"]), (left, together["other"])):
        assert largest_difference(weights_of(packed), weights_of(own)) < case.tolerance, "in a pack"
