"""An adapter of each task, trained through the door, is plain PEFT: it loads over the
bare base and computes the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from doorway import Door, Run, World
from peft import PeftModel
from torch.nn.functional import cross_entropy

KINDS = {
    "causal_lm": tf.AutoModelForCausalLM,
    "seq_cls": tf.AutoModelForSequenceClassification,
    "seq2seq_lm": tf.AutoModelForSeq2SeqLM,
}
TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=list(KINDS))
def trained(
    request: pytest.FixtureRequest,
    world: World,
    loraloom: Door,
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """`train` of each task, far enough from its start to be told from the bare base."""
    task: str = request.param
    model, data = {
        "causal_lm": (world.llama, world.text),
        "seq_cls": (world.bert, world.labels),
        "seq2seq_lm": (world.t5, world.pairs),
    }[task]
    runs = tmp_path_factory.mktemp(task)
    answer = loraloom(
        "train",
        "--model",
        model,
        "--data",
        data,
        "--max-steps",
        "8",
        "--output-dir",
        runs,
        "--name",
        "one",
        "--learning-rate",
        "0.005",
        "--r",
        "4",
    )
    assert answer.code == 0, answer.err
    return Run(answer, runs / "one")


def rows_of(run: Run) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for line in Path(run.yaml("config.yaml")["data"]["train"]).read_text().splitlines()
    ]


def in_peft(run: Run) -> tuple[Any, Any]:
    """The adapter over its base, as a stranger would load it, and the tokenizer that came along."""
    result = run.result
    labels = {"num_labels": len(result["labels"])} if result["labels"] else {}
    base = KINDS[result["task"]].from_pretrained(result["model"], **labels)
    return PeftModel.from_pretrained(
        base, str(run.folder / "best")
    ).eval(), tf.AutoTokenizer.from_pretrained(run.folder / "best")


@torch.no_grad()
def loss_in_peft(run: Run) -> float:
    """Mean loss over all rows by the plain definition: one row at a time, nothing padded."""
    model, tokenizer = in_peft(run)
    result = run.result
    total, weight = 0.0, 0
    for row in rows_of(run):
        if result["task"] == "seq_cls":
            inputs, labels = (
                tokenizer(row["text"], return_tensors="pt"),
                torch.tensor([result["labels"].index(row["label"])]),
            )
            logits = model(**inputs).logits
        elif result["task"] == "seq2seq_lm":
            inputs = tokenizer(row["source"], return_tensors="pt")
            labels = torch.tensor(tokenizer(row["target"])["input_ids"])
            logits = model(**inputs, labels=labels[None]).logits[0]
        else:
            ids = torch.tensor([*tokenizer(row["text"])["input_ids"], tokenizer.eos_token_id])
            logits, labels = model(input_ids=ids[None]).logits[0, :-1], ids[1:]
        total += float(cross_entropy(logits, labels, reduction="sum"))
        weight += len(labels)
    return total / weight


def test_peft_gives_the_loss_that_evaluate_prints(trained: Run, loraloom: Door) -> None:
    config = trained.folder / "config.yaml"
    answer = loraloom("evaluate", config, "--adapter", trained.folder, "--split", "train", "--json")
    assert answer.code == 0, answer.err
    printed = answer.json()["metrics"]["train_loss"]
    assert loss_in_peft(trained) == pytest.approx(printed, rel=TOLERANCE)
    bare = loraloom("evaluate", config, "--split", "train", "--json").json()["metrics"]["train_loss"]
    assert printed < bare - 0.01, "the adapter learnt something that the bare base does not know"


def test_the_saved_logits_were_compared_before_they_counted(trained: Run) -> None:
    saved = [event["data"]["logits_difference"] for event in trained.events if event["kind"] == "saved"]
    assert len(saved) == 1 and saved[0] <= TOLERANCE


def test_the_base_is_not_in_the_adapter(trained: Run) -> None:
    from safetensors import safe_open

    with safe_open(trained.folder / "best" / "adapter_model.safetensors", "pt") as file:  # type: ignore[no-untyped-call]
        names = list(file.keys())
    assert all("lora_" in name or "classifier" in name for name in names)
    assert any("classifier" in name for name in names) == (trained.result["task"] == "seq_cls")


def test_an_adapter_writes_beside_its_base(world: World, trained: Run, loraloom: Door) -> None:
    answer = loraloom(
        "generate",
        "--adapter",
        trained.folder,
        "--base",
        "--max-new-tokens",
        "4",
        "the cat",
        "a pear",
        "--json",
    )
    if trained.result["task"] == "seq_cls":
        assert answer.code == 2
        assert "has no trained head for classes" in answer.err and "leave --base out" in answer.err
        return
    assert answer.code == 0, answer.err
    sources = ["base", str(trained.folder / "best")]
    assert [(one["prompt"], one["source"]) for one in answer.json()] == [
        (p, s) for p in ("the cat", "a pear") for s in sources
    ]
    assert all(isinstance(one["text"], str) for one in answer.json())
