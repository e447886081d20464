"""An adapter of a run after training: looked at, merged and proved over the base that it knows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers as tf
from doorway import Door, Run, World


def test_the_best_of_a_run_is_merged_and_answers_alike(
    tuned: Run, loraloom: Door, tmp_path: Path
) -> None:
    """The base has no head: it comes with the adapter, and its classes too."""
    looked = loraloom("adapter", "inspect", tuned.folder, "--json")
    assert looked.code == 0, looked.err
    assert looked.json()["trained_over"]["fingerprint"] == tuned.result["base_fingerprint"]
    merged = loraloom("adapter", "merge", tuned.folder, "--out", tmp_path / "m", "--json")
    assert merged.code == 0, merged.err
    assert merged.json()["proof"]["passed"]
    model = tf.AutoModelForSequenceClassification.from_pretrained(tmp_path / "m")
    tokenizer = tf.AutoTokenizer.from_pretrained(tmp_path / "m")
    texts = ["the cat sleeps in the house", "a cake waits by the door", "the soup stands"]
    with torch.no_grad():
        found = model(**tokenizer(texts, return_tensors="pt", padding=True)).logits.argmax(-1)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    answers = loraloom("predict", "--adapter", tuned.folder, "--data", rows, "--json").json()["rows"]
    assert [model.config.id2label[int(i)] for i in found] == [row["predicted"] for row in answers]


def test_another_version_of_the_base_is_refused(
    tuned: Run, world: World, loraloom: Door, tmp_path: Path
) -> None:
    other = shutil.copytree(world.bert, tmp_path / "bert")
    model = tf.BertModel.from_pretrained(other)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.mul_(1.01)
    model.save_pretrained(other)
    words = ("--model", other, "--out", tmp_path / "m")
    answer = loraloom("adapter", "merge", tuned.folder, *words)
    assert answer.code == 2 and "other weights" in answer.err, answer.err
    assert tuned.result["base_fingerprint"] in answer.err
    assert not (tmp_path / "m").exists()
    looked = loraloom("adapter", "inspect", tuned.folder, "--model", other)
    assert "NOT the one that was given" in looked.out


@pytest.mark.parametrize("words", [("merge", "--out", "x"), ("inspect",), ("verify",)])
def test_a_base_that_is_not_here_is_named(
    words: tuple[str, ...], tuned: Run, loraloom: Door, tmp_path: Path
) -> None:
    verb, *rest = words
    answer = loraloom("adapter", verb, tuned.folder, *rest, "--model", tmp_path / "nowhere")
    assert answer.code == 2 and "nowhere" in answer.err
