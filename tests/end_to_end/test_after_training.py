"""An adapter of a run after training: looked at, merged and proved over the base that it knows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers as tf
from doorway import Door, Run, World

from loraloom.adapters.form import read_form
from loraloom.adapters.made_proof import relative_error


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


@pytest.mark.parametrize(("start", "rate"), [("pissa", 2e-3), ("olora", 2e-3), ("olora", 1e-2)])
def test_an_adapter_over_a_changed_base_is_reshaped_as_any_other(
    start: str, rate: float, world: World, loraloom: Door, tmp_path: Path
) -> None:
    """Such a start is saved as plain LoRA of twice the rank over the base as it is. OLoRA's terms are
    large beside what they add up to, the more so with rsLoRA, and float32 rounds them accordingly."""
    words = ["train", "--model", world.llama, "--data", world.text, "--max-steps", 3]
    words += ["--r", 3, "--learning-rate", rate, "--output-dir", tmp_path, "--name", "run", "--quiet"]
    words += ["--set", f"adapter.use_rslora={str(rate > 2e-3).lower()}"]
    answer = loraloom(*words, "--set", f"adapter.init_lora_weights={start}")
    assert answer.code == 0, answer.err
    trained = read_form(tmp_path / "run" / "best")
    assert trained.ranks == (6,)
    asked = {path: [factor.pair] for path, factor in trained.factors.items()}
    merge = ("merge", tmp_path / "run", "--dtype", "float32", "--out", tmp_path / "merged")
    ways = {
        "combined": ("combine", tmp_path / "run"),
        "resized": ("resize", tmp_path / "run", "--rank", 6),
        "extracted": ("extract", "--base", world.llama, "--tuned", tmp_path / "merged", "--rank", 6),
    }
    merged = loraloom("adapter", *merge)
    assert merged.code == 0, merged.err
    for name, verb in ways.items():
        made = loraloom("adapter", *verb, "--out", tmp_path / name)
        assert made.code == 0, made.err
        assert relative_error(read_form(tmp_path / name), asked) < 1e-5


def test_the_seeds_of_a_run_are_averaged_and_scored_on_its_validation(
    world: World, loraloom: Door, tmp_path: Path
) -> None:
    words = ["tune", "--model", world.chat_llama, "--data", world.chat, "--validation", 0.3]
    words += ["--trials", 2, "--max-steps", 4, "--output-dir", tmp_path, "--name", "run", "--quiet"]
    answer = loraloom(*words, "--set", "search.seeds_for_finalists=2")
    assert answer.code == 0, answer.err
    made = loraloom("adapter", "average", tmp_path / "run", "--out", tmp_path / "mean", "--json")
    assert made.code == 0, made.err
    found = made.json()
    assert len(found["adapters"]) >= 2
    assert all("/run/trials/" in folder for folder in found["adapters"])
    assert found["proof"]["made_by"] == "average"
    scores = found["scores"]
    assert len(scores["seeds"]) == len(found["adapters"])
    better = {number for number, loss in enumerate(scores["seeds"]) if loss < scores["average"]}
    assert set(scores["better_seeds"]) == better
    words = ("--adapter", tmp_path / "mean", "--data", world.chat, "--validation", 0.3)
    scored = loraloom("evaluate", *words, "--split", "validation", "--json")
    assert scored.code == 0, scored.err
    measured = scored.json()["metrics"][scores["metric"]]
    assert measured == pytest.approx(scores["average"], rel=1e-5)


def test_a_run_with_one_seed_has_no_mean(tuned: Run, loraloom: Door, tmp_path: Path) -> None:
    answer = loraloom("adapter", "average", tuned.folder, "--out", tmp_path / "mean")
    assert answer.code == 2 and "a mean needs two" in answer.err, answer.err
