"""Rows that are longer than the model, or than the run had them: cut alike in training
and evaluation, and said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import transformers as tf
from bases import POSITIONS, SPREAD, WIDTHS, save_bert, save_llama, save_t5
from doorway import Answer, Door, write_rows

WORDS = ("cat", "dog", "sleeps", "waits", "house", "door")
LONG = 200
ENDLESS = int(1e30)
"""What tokenizers say that were saved without a limit."""


def without_limit(folder: Path) -> Path:
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = ENDLESS
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    text = [" ".join(WORDS)]
    roberta = save_bert(root / "roberta", text)
    vocabulary = len(tf.AutoTokenizer.from_pretrained(roberta))
    config = tf.RobertaConfig(
        **WIDTHS,
        vocab_size=vocabulary,
        max_position_embeddings=POSITIONS,
        pad_token_id=0,
        initializer_range=SPREAD,
    )
    tf.RobertaModel(config).save_pretrained(roberta)
    made = {
        "roberta": roberta,
        "bert": save_bert(root / "bert", text),
        "llama": save_llama(root / "llama", text),
    }
    return {
        **{name: without_limit(folder) for name, folder in made.items()},
        "t5": save_t5(root / "t5", text),
    }


@pytest.fixture
def labelled(tmp_path: Path) -> str:
    rows = [
        {"text": " ".join(WORDS[(i + j) % 6] for j in range(LONG)), "label": "ab"[i % 2]}
        for i in range(40)
    ]
    return write_rows(tmp_path / "labelled.jsonl", rows)


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    rows = [
        {"source": " ".join(WORDS[(i + j) % 6] for j in range(LONG)), "target": WORDS[i % 6]}
        for i in range(12)
    ]
    return write_rows(tmp_path / "pairs.jsonl", rows)


def notes(answer: Answer) -> str:
    assert answer.code == 0, answer.err
    return "\n".join(answer.json()["notes"])


@pytest.mark.parametrize(("name", "positions"), [("roberta", POSITIONS - 1), ("bert", POSITIONS)])
def test_a_bare_base_is_scored_up_to_its_last_position(
    name: str, positions: int, bases: dict[str, Path], labelled: str, loraloom: Door
) -> None:
    found = notes(loraloom("evaluate", "--model", bases[name], "--data", labelled, "--json"))
    assert f"40 of 40 rows were cut at {positions} tokens, since the model's positions end" in found


@pytest.mark.parametrize("asked", [[], ["--set", "data.max_length=16"]], ids=["positions", "16"])
def test_an_adapter_is_scored_on_rows_cut_as_its_run_cut_them(
    asked: list[str], bases: dict[str, Path], labelled: str, loraloom: Door, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in Path(labelled).read_text().splitlines()]
    turned = [{**row, "text": " ".join(reversed(row["text"].split()))} for row in rows]
    run = loraloom(
        "train",
        "--model",
        bases["roberta"],
        "--data",
        write_rows(tmp_path / "turned.jsonl", turned),
        "--max-steps",
        "2",
        "--output-dir",
        tmp_path,
        "--name",
        "run",
        "--validation",
        labelled,
        "--json",
        *asked,
    )
    assert run.code == 0, run.err
    (trial,) = json.loads((tmp_path / "run" / "run.json").read_text())["trials"]
    length = 16 if asked else POSITIONS - 1
    moved = shutil.copytree(tmp_path / "run" / "best", tmp_path / "moved")
    for place in (tmp_path / "run", moved):
        answer = loraloom(
            "evaluate", "--adapter", place, "--validation", labelled, "--split", "validation", "--json"
        )
        assert f"40 of 40 rows were cut at {length} tokens" in notes(answer)
        assert answer.json()["metrics"]["validation_loss"] == pytest.approx(
            trial["metrics"]["validation_loss"], rel=1e-4
        )


def test_an_older_adapter_without_a_record_takes_the_length_of_the_run_that_it_lies_in(
    bases: dict[str, Path], labelled: str, loraloom: Door, tmp_path: Path
) -> None:
    run = loraloom(
        "train",
        "--model",
        bases["bert"],
        "--data",
        labelled,
        "--max-steps",
        "1",
        "--output-dir",
        tmp_path,
        "--name",
        "run",
        "--set",
        "data.max_length=16",
    )
    assert run.code == 0, run.err
    (tmp_path / "run" / "best" / "loraloom.json").unlink()
    answer = loraloom("evaluate", "--adapter", tmp_path / "run", "--data", labelled, "--json")
    assert "cut at 16 tokens, since the adapter was trained on rows cut there" in notes(answer)


def test_more_than_the_positions_is_refused(
    bases: dict[str, Path], labelled: str, loraloom: Door
) -> None:
    answer = loraloom(
        "evaluate", "--model", bases["bert"], "--data", labelled, "--set", "data.max_length=100"
    )
    assert answer.code == 2
    assert f"{POSITIONS} positions" in answer.err


def test_a_model_without_positions_reads_rows_to_their_end(
    bases: dict[str, Path], pairs: str, loraloom: Door
) -> None:
    answer = loraloom("evaluate", "--model", bases["t5"], "--data", pairs, "--json")
    assert "cut" not in notes(answer)


def test_texts_are_written_after_prompts_that_were_cut(
    bases: dict[str, Path], pairs: str, loraloom: Door
) -> None:
    with Path(pairs).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"source": "cat", "target": "dog"}) + "\n")
    answer = loraloom(
        "evaluate", "--model", bases["llama"], "--data", pairs, "--metric", "exact_match", "--json"
    )
    assert "12 rows have nothing to score before that, and are left out" in notes(answer)
    prompt = loraloom("generate", "--model", bases["llama"], " ".join(WORDS * 40))
    assert prompt.code == 2
    assert f"{POSITIONS} positions" in prompt.err
