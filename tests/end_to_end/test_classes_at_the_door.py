"""Class names and their order, from training to a folder that was moved away: nothing
is renumbered without a word."""

from __future__ import annotations

import csv
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from bases import save_bert
from doorway import Answer, Door, write_rows
from peft import LoraConfig, PeftModel, get_peft_model

WORDS = {"positive": "good", "negative": "bad", "neutral": "plain"}
NAMES = ("positive", "neutral", "negative")
"""Not by alphabet, so that an order which was guessed is a wrong one."""


def rows_of(*labels: str, count: int = 40) -> list[dict[str, Any]]:
    rng = random.Random(0)
    fillers = ("the", "film", "was", "quite", "here")
    return [
        {"text": " ".join([*rng.sample(fillers, 3), WORDS[label], str(i % 7)]), "label": label}
        for i in range(count)
        for label in labels
    ]


def save_classifier(folder: Path) -> str:
    """An encoder whose own head tells NAMES apart: its weights and its config.json are
    what a hub classifier has."""
    save_bert(folder, [row["text"] for row in rows_of(*NAMES)])
    config = tf.BertConfig.from_pretrained(
        folder, id2label=dict(enumerate(NAMES)), label2id={n: i for i, n in enumerate(NAMES)}
    )
    torch.manual_seed(0)
    model = tf.BertForSequenceClassification(config)
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    fit(model, model, tokenizer)
    model.save_pretrained(folder)
    return str(folder)


def fit(model: Any, trained: Any, tokenizer: Any, steps: int = 60) -> None:
    rows = rows_of(*NAMES, count=12)
    inputs = tokenizer(
        [row["text"] for row in rows], padding=True, return_tensors="pt", return_token_type_ids=False
    )
    labels = torch.tensor([NAMES.index(row["label"]) for row in rows])
    optimiser = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(steps):
        model(**inputs, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    trained.eval()
    assert float((model(**inputs).logits.argmax(-1) == labels).float().mean()) > 0.95


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_classifier(tmp_path_factory.mktemp("classifier") / "bert")


@pytest.fixture(scope="module")
def trained(
    classifier: str, tmp_path_factory: pytest.TempPathFactory, loraloom: Door
) -> tuple[Answer, Path]:
    """A run over the classifier, which goes on from its head."""
    root = tmp_path_factory.mktemp("trained")
    data = write_rows(root / "all.jsonl", rows_of(*NAMES))
    answer = loraloom(
        "train",
        "--model",
        classifier,
        "--data",
        data,
        "--max-steps",
        "2",
        "--output-dir",
        root,
        "--name",
        "run",
        "--json",
    )
    assert answer.code == 0, answer.err
    return answer, root / "run"


def accuracy(answer: Answer) -> float:
    assert answer.code == 0, answer.err
    return float(answer.json()["metrics"]["test_accuracy"])


@pytest.mark.parametrize(
    "labels", [NAMES, NAMES[1:], NAMES[2:]], ids=["all", "two of three", "one of three"]
)
def test_a_classifier_is_scored_in_its_own_order(
    labels: tuple[str, ...], classifier: str, loraloom: Door, tmp_path: Path
) -> None:
    data = write_rows(tmp_path / "d.jsonl", rows_of(*labels))
    assert accuracy(loraloom("evaluate", "--model", classifier, "--data", data, "--json")) > 0.95
    numbers = write_rows(
        tmp_path / "n.jsonl", [row | {"label": NAMES.index(row["label"])} for row in rows_of(*labels)]
    )
    assert accuracy(loraloom("evaluate", "--model", classifier, "--data", numbers, "--json")) > 0.95


def test_training_goes_on_from_the_head_and_says_so(trained: tuple[Answer, Path]) -> None:
    answer, folder = trained
    result = json.loads((folder / "run.json").read_text())
    assert result["labels"] == list(NAMES)
    assert result["baseline"]["metrics"]["validation_accuracy"] > 0.95
    assert "0 positive, 1 neutral, 2 negative" in answer.err + answer.out


@pytest.mark.parametrize(
    "labels", [NAMES, NAMES[1:], NAMES[2:]], ids=["all", "two of three", "one of three"]
)
def test_a_folder_that_was_moved_away_knows_its_classes(
    labels: tuple[str, ...], trained: tuple[Answer, Path], loraloom: Door, tmp_path: Path
) -> None:
    best = shutil.copytree(trained[1] / "best", tmp_path / "elsewhere")
    data = write_rows(tmp_path / "d.jsonl", rows_of(*labels))
    answer = loraloom("evaluate", "--adapter", best, "--data", data, "--json")
    assert accuracy(answer) > 0.95
    assert not any("guessed" in note for note in answer.json()["notes"])


def test_labels_that_are_none_of_the_classes_are_named(
    trained: tuple[Answer, Path], classifier: str, loraloom: Door, tmp_path: Path
) -> None:
    data = write_rows(
        tmp_path / "d.jsonl",
        [row | {"label": row["label"].replace("neutral", "mixed")} for row in rows_of(*NAMES)],
    )
    for source in (["--adapter", trained[1] / "best"], ["--model", classifier]):
        answer = loraloom("evaluate", *source, "--data", data)
        assert answer.code == 2
        assert "`mixed`" in answer.err
        assert "positive, neutral, negative" in answer.err


def test_the_names_beside_an_adapter_are_what_transformers_takes(
    trained: tuple[Answer, Path], classifier: str
) -> None:
    best = trained[1] / "best"
    beside = json.loads((best / "loraloom.json").read_text())
    labels = {
        "id2label": {int(i): name for i, name in beside["id2label"].items()},
        "label2id": beside["label2id"],
    }
    base = tf.AutoModelForSequenceClassification.from_pretrained(classifier, **labels)
    loaded = PeftModel.from_pretrained(base, str(best)).eval()
    assert [loaded.config.id2label[i] for i in range(3)] == list(NAMES)
    # finds base and adapter by itself
    through_transformers = tf.AutoModelForSequenceClassification.from_pretrained(best)
    assert through_transformers.config.num_labels == 3
    for trial in (trained[1] / "trials").iterdir():
        assert (trial / "adapter" / "loraloom.json").read_bytes() == (
            best / "loraloom.json"
        ).read_bytes()


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter as PEFT saves it: its head has three outputs, and nothing on the disk names them."""
    root = tmp_path_factory.mktemp("foreign")
    base = save_bert(root / "base", [row["text"] for row in rows_of(*NAMES)])
    tokenizer = tf.AutoTokenizer.from_pretrained(base)
    torch.manual_seed(0)
    model = tf.AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    config = LoraConfig(
        r=4, task_type="SEQ_CLS", target_modules=["query", "value"], modules_to_save=["classifier"]
    )
    wrapped = get_peft_model(model, config)
    fit(wrapped, wrapped, tokenizer)
    wrapped.save_pretrained(root / "adapter")
    tokenizer.save_pretrained(root / "adapter")
    return root / "adapter"


def test_the_order_of_a_foreign_adapter_without_names_is_guessed_and_said(
    foreign: Path, loraloom: Door, tmp_path: Path
) -> None:
    data = write_rows(tmp_path / "d.jsonl", rows_of(*NAMES))
    guessed = loraloom("evaluate", "--adapter", foreign, "--data", data)
    assert guessed.code == 0
    assert "guessed by alphabet, 0 negative, 1 neutral, 2 positive" in guessed.out + guessed.err
    named = ["--set", f"data.label_names=[{', '.join(NAMES)}]"]
    assert accuracy(loraloom("evaluate", "--adapter", foreign, "--data", data, "--json", *named)) > 0.95
    one = write_rows(tmp_path / "one.jsonl", rows_of("positive"))
    assert accuracy(loraloom("evaluate", "--adapter", foreign, "--data", one, "--json", *named)) > 0.95
    numbers = write_rows(
        tmp_path / "n.jsonl", [row | {"label": NAMES.index(row["label"])} for row in rows_of("negative")]
    )
    assert accuracy(loraloom("evaluate", "--adapter", foreign, "--data", numbers, "--json")) > 0.95
    few = loraloom("evaluate", "--adapter", foreign, "--data", data, "--set", "data.label_names=[a, b]")
    assert few.code == 2
    assert "3 outputs" in few.err


def test_a_foreign_adapter_over_a_classifier_that_names_its_classes(
    classifier: str, loraloom: Door, tmp_path: Path
) -> None:
    model = tf.AutoModelForSequenceClassification.from_pretrained(classifier)
    get_peft_model(
        model, LoraConfig(r=2, task_type="SEQ_CLS", target_modules=["query"])
    ).save_pretrained(tmp_path / "a")
    shutil.copy(Path(classifier) / "tokenizer.json", tmp_path / "a")
    shutil.copy(Path(classifier) / "tokenizer_config.json", tmp_path / "a")
    data = write_rows(tmp_path / "d.jsonl", rows_of("negative", "neutral"))
    assert accuracy(loraloom("evaluate", "--adapter", tmp_path / "a", "--data", data, "--json")) > 0.95


def test_a_base_without_a_head_is_said_to_guess(foreign: Path, loraloom: Door, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "d.jsonl", rows_of(*NAMES))
    answer = loraloom("evaluate", "--model", foreign.parent / "base", "--data", data)
    assert answer.code == 0
    assert "has no trained head" in answer.out + answer.err


def test_a_head_for_other_classes_is_said_to_be_trained_anew(
    classifier: str, loraloom: Door, tmp_path: Path
) -> None:
    data = write_rows(
        tmp_path / "d.jsonl",
        [{"text": row["text"], "label": "ab"[i % 2]} for i, row in enumerate(rows_of(*NAMES))],
    )
    answer = loraloom("plan", "--model", classifier, "--data", data, "--json")
    assert answer.code == 0, answer.err
    assert any(
        "positive, neutral, negative" in warning and "a, b" in warning
        for warning in answer.json()["warnings"]
    )


def test_true_and_false_are_one_pair_of_classes_in_every_format(
    world: Any, loraloom: Door, tmp_path: Path
) -> None:
    rows = [{"text": row["text"], "label": i % 2 == 0} for i, row in enumerate(rows_of(*NAMES))]
    train = write_rows(tmp_path / "train.jsonl", rows)
    held_out = tmp_path / "validation.csv"
    held_out.write_text(
        "text,label\n" + "".join(f"{r['text']} x,{str(r['label']).upper()}\n" for r in rows[:20])
    )
    answer = loraloom("plan", "--model", world.bert, "--data", train, "--validation", held_out, "--json")
    assert answer.code == 0, answer.err


def refusals(rows: list[dict[str, Any]], model: str, loraloom: Door, folder: Path) -> set[str]:
    """What `check` says of the same rows in four formats, without the place."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    write_rows(folder / "d.jsonl", rows)
    for suffix, separator in ((".csv", ","), (".tsv", "\t")):
        with (folder / f"d{suffix}").open("w", newline="") as file:
            lines = csv.writer(file, delimiter=separator)
            lines.writerows([("text", "label"), *((row["text"], row["label"]) for row in rows)])
    parquet.write_table(arrow.Table.from_pylist(rows), folder / "d.parquet")
    kinds = ("jsonl", "csv", "tsv", "parquet")
    answers = [
        loraloom("check", "--quick", "--model", model, "--data", folder / f"d.{kind}") for kind in kinds
    ]
    assert [answer.code for answer in answers] == [2] * 4
    return {answer.err.partition(": ")[2].partition(": ")[2] for answer in answers}


def test_quantities_are_refused_alike_in_every_format(
    world: Any, loraloom: Door, tmp_path: Path
) -> None:
    (said,) = refusals(
        [{"text": f"row {i}", "label": i / 4} for i in range(20)], world.bert, loraloom, tmp_path
    )
    assert "the fraction 0.25" in said


@pytest.mark.parametrize("lists", [(["a"], ["a", "b"]), ([0], [0, 1])], ids=["names", "numbers"])
def test_several_labels_of_a_row_are_refused_alike_in_every_format(
    lists: tuple[list[Any], list[Any]], world: Any, loraloom: Door, tmp_path: Path
) -> None:
    (said,) = refusals(
        [{"text": f"row {i}", "label": lists[i % 2]} for i in range(20)], world.bert, loraloom, tmp_path
    )
    assert "several labels of a row are not supported" in said


def test_an_encoder_says_which_column_it_would_take_for_the_label(
    world: Any, loraloom: Door, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in Path(world.labels).read_text().splitlines()]
    data = write_rows(
        tmp_path / "d.jsonl", [{"text": row["text"], "category": row["label"]} for row in rows]
    )
    for words in (
        ["check", "--quick", "--model", world.bert],
        ["plan", "--model", world.bert],
        ["evaluate", "--model", world.bert],
    ):
        answer = loraloom(*words, "--data", data)
        assert answer.code == 2
        assert "--set data.label_column=category" in answer.err
        assert "causal_lm" not in answer.err
    assert (
        loraloom(
            "plan", "--model", world.bert, "--data", data, "--set", "data.label_column=category"
        ).code
        == 0
    )
