"""`loraloom predict`: labels and answers for rows that have none, equal to what plain
PEFT and transformers give."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from bases import save_llama
from doorway import Door, Run, World, write_rows

ASKED = [
    f"who {verb} {place}"
    for verb in ("sleeps", "waits", "stands")
    for place in ("here", "in the house", "by the old door")
]


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def texts(world: World) -> list[dict[str, Any]]:
    return lines(Path(world.labels).read_text())


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory, loraloom: Door) -> tuple[str, Path]:
    """A decoder without a chat template, and an adapter of question and answer over it."""
    place = tmp_path_factory.mktemp("answering")
    base = str(save_llama(place / "base", [*ASKED, "Question: Answer: the cat sleeps"]))
    rows = write_rows(
        place / "rows.jsonl", [{"question": asked, "answer": "the cat"} for asked in ASKED]
    )
    answer = loraloom(
        "train",
        rows,
        "--model",
        base,
        "--max-steps",
        3,
        "-o",
        place,
        "--name",
        "first",
        "-q",
        "--batch-size",
        4,
    )
    assert answer.code == 0, answer.err
    return base, place / "first"


def test_labels_are_those_of_a_plain_loop(
    tuned: Run, world: World, loraloom: Door, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    given = [{"id": i, "text": row["text"], "also": {"n": i}} for i, row in enumerate(texts(world))]
    answer = loraloom(
        "predict",
        write_rows(tmp_path / "new.jsonl", given),
        "--adapter",
        tuned.folder,
        "--probabilities",
    )
    assert answer.code == 0, answer.err
    assert "not used" not in answer.err, "all columns are carried along"
    found = lines(answer.out)
    assert [{name: row[name] for name in ("id", "text", "also")} for row in found] == given
    labels = tuned.result["labels"]
    tokenizer: Any = AutoTokenizer.from_pretrained(tuned.folder / "best")
    base = AutoModelForSequenceClassification.from_pretrained(world.bert, num_labels=len(labels))
    model: Any = PeftModel.from_pretrained(base, str(tuned.folder / "best")).eval()
    for row in found:
        with torch.no_grad():
            shares = model(**tokenizer(row["text"], return_tensors="pt")).logits.softmax(-1)[0]
        assert row["predicted"] == labels[int(shares.argmax())]
        assert list(row["probability"].values()) == pytest.approx(shares.tolist(), abs=1e-4)
        assert list(row["probability"]) == labels


def test_the_share_that_is_right_is_the_accuracy(tuned: Run, world: World, loraloom: Door) -> None:
    words = ("--adapter", tuned.folder, "--data", world.labels, "--json")
    found = loraloom("predict", *words).json()["rows"]
    right = sum(row["predicted"] == row["label"] for row in found) / len(found)
    scored = loraloom("evaluate", *words).json()["metrics"]["test_accuracy"]
    assert right == pytest.approx(scored)


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_rows_are_kept_as_a_file(ending: str, tuned: Run, loraloom: Door, tmp_path: Path) -> None:
    rows = write_rows(
        tmp_path / "new.jsonl",
        [{"text": "the cat sleeps", "id": "b"}, {"text": "a cake waits", "id": "a"}],
    )
    out = tmp_path / f"said.{ending}"
    words = ("predict", "--adapter", tuned.folder, rows, "--out", out)
    answer = loraloom(*words, "--json")
    assert answer.code == 0, answer.err
    assert (answer.json()["rows"], answer.json()["out"]) == (2, str(out))
    if ending == "jsonl":
        found = lines(out.read_text())
    elif ending == "csv":
        found = list(csv.DictReader(out.open()))
    else:
        from pyarrow import parquet

        found = parquet.read_table(out).to_pylist()
    assert [row["id"] for row in found] == ["b", "a"]
    assert {row["predicted"] for row in found} <= set(tuned.result["labels"])
    again = loraloom(*words)
    assert again.code == 2
    assert "already exists" in again.err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["new.jsonl", out.name]


def test_answers_are_those_of_generate(
    answering: tuple[str, Path], loraloom: Door, tmp_path: Path
) -> None:
    base, run = answering
    rows = write_rows(
        tmp_path / "new.jsonl", [{"question": asked, "note": i} for i, asked in enumerate(ASKED)]
    )
    words = ("--adapter", run, "--max-new-tokens", 5, "--json")
    found = loraloom("predict", rows, *words).json()
    assert [row["note"] for row in found["rows"]] == list(range(len(ASKED)))
    alone = loraloom("generate", *words, *ASKED).json()
    assert [row["predicted"] for row in found["rows"]] == [one["text"] for one in alone]
    assert (found["task"], found["model"]) == ("causal_lm", base)


@pytest.mark.parametrize("answered", [True, False])
def test_the_last_answer_of_a_conversation_is_written(
    answered: bool, world: World, loraloom: Door, tmp_path: Path
) -> None:
    turns = [
        {"role": "user", "content": "the cat"},
        {"role": "assistant", "content": "a dog"},
        {"role": "user", "content": "why"},
    ]
    rows = [
        {
            "messages": [
                *turns,
                *([{"role": "assistant", "content": "the old answer"}] if answered else []),
            ]
        }
    ]
    words = ("--model", world.chat_llama, "--max-new-tokens", 5, "--json")
    answer = loraloom("predict", write_rows(tmp_path / "new.jsonl", rows), *words)
    assert answer.code == 0, answer.err
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(world.chat_llama)
    prompt = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    model: Any = AutoModelForCausalLM.from_pretrained(world.chat_llama)
    out = model.generate(
        input_ids=prompt["input_ids"], max_new_tokens=5, do_sample=False, pad_token_id=0
    )
    said = tokenizer.decode(out[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    assert answer.json()["rows"][0]["predicted"] == said


def test_an_encoder_decoder_answers_sources(world: World, loraloom: Door, tmp_path: Path) -> None:
    rows = write_rows(
        tmp_path / "new.jsonl", [{"source": "sleeps here"}, {"source": "waits by the door"}]
    )
    answer = loraloom("predict", rows, "--model", world.t5, "--max-new-tokens", 4, "--json")
    assert answer.code == 0, answer.err
    assert [set(row) for row in answer.json()["rows"]] == [{"source", "predicted"}] * 2


def test_a_dry_run_predicts_nothing(tuned: Run, world: World, loraloom: Door, tmp_path: Path) -> None:
    answer = loraloom(
        "predict", world.labels, "--adapter", tuned.folder, "--out", tmp_path / "x.csv", "--dry-run"
    )
    assert answer.code == 0
    assert "rows would be given to" in answer.out
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_predicted_is_said(
    tuned: Run, answering: tuple[str, Path], world: World, loraloom: Door, tmp_path: Path
) -> None:
    taken = write_rows(tmp_path / "taken.jsonl", [{"text": "the cat", "predicted": "x"}])
    for words, said in (
        (("predict", taken, "--adapter", tuned.folder), "a column `predicted` already"),
        (
            ("predict", world.labels, "--adapter", tuned.folder, "--out", "x.xlsx"),
            "a name that ends in .jsonl, .csv, .parquet",
        ),
        (
            ("predict", world.labels, "--adapter", tuned.folder, "--out", tmp_path / "no" / "x.csv"),
            "there is no folder",
        ),
        (("predict", world.labels, "--model", world.bert), "has no trained head for classes"),
        (
            ("predict", world.labels, "--adapter", tuned.folder, "--task", "causal_lm"),
            "leave --task out",
        ),
        (("predict", "--adapter", tuned.folder), "no rows were given"),
        (("predict", taken), "neither a model nor an adapter"),
        (
            ("predict", world.pairs, "--model", answering[0], "--probabilities"),
            "leave --probabilities out",
        ),
    ):
        answer = loraloom(*words)
        assert answer.code == 2, (words, answer.err)
        assert said in answer.err


def test_rows_without_room_for_an_answer_are_named(
    answering: tuple[str, Path], loraloom: Door, tmp_path: Path
) -> None:
    rows = write_rows(
        tmp_path / "new.jsonl", [{"question": "who sleeps here " * 60}, {"question": ASKED[0]}]
    )
    answer = loraloom("predict", rows, "--adapter", answering[1], "--max-new-tokens", 3)
    assert answer.code == 0, answer.err
    first, second = lines(answer.out)
    assert first["predicted"] is None
    assert isinstance(second["predicted"], str)
    assert "1 rows fill the model's" in answer.err


@pytest.fixture
def small_lots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lots so small that a few rows make several."""
    for module in ("predict", "predictions"):
        monkeypatch.setattr(f"loraloom.pipeline.{module}.LOT", 16)


def cut_at(path: Path, share: float) -> None:
    """Leave of a file what a kill would have left that came when so much of it was written."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


@pytest.mark.parametrize(("ending", "share"), [("jsonl", 0.02), ("csv", 0.45), ("parquet", 0.97)])
def test_what_goes_on_after_a_kill_is_what_would_have_been(
    ending: str,
    share: float,
    tuned: Run,
    world: World,
    loraloom: Door,
    tmp_path: Path,
    small_lots: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from loraloom.pipeline.predictions import Predictions

    rows = write_rows(
        tmp_path / "new.jsonl", [{"n": i, **row} for i, row in enumerate(texts(world)[:70])]
    )
    words = ("predict", rows, "--adapter", tuned.folder, "--probabilities", "--out")
    whole, out = tmp_path / f"whole.{ending}", tmp_path / f"said.{ending}"
    partial = tmp_path / f"said.{ending}.partial"
    with monkeypatch.context() as patched:
        # As if the kill had come when all was predicted, and no row was written.
        patched.setattr(Predictions, "remove", lambda kept: kept.path.rename(partial))
        assert loraloom(*words, whole).code == 0
    assert partial.read_text().count("\n") == 71, "one line on what it is, and one a row"
    cut_at(partial, share)
    refused = loraloom(*words, out)
    assert refused.code == 2
    assert "go on with them: --resume" in refused.err
    assert not out.exists()
    answer = loraloom(*words, out, "--resume", "--json")
    assert answer.code == 0, answer.err
    assert answer.json()["rows"] == 70
    assert out.read_bytes() == whole.read_bytes()
    assert [file.name for file in tmp_path.iterdir() if "said" in file.name] == [out.name]
    assert "finished already" in loraloom(*words, out, "--resume").err


def test_predictions_go_on_only_with_what_they_were_begun_with(
    tuned: Run, world: World, loraloom: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loraloom.pipeline.predictor import Predictor

    given = [{"text": row["text"], "id": i} for i, row in enumerate(texts(world)[:8])]
    rows = write_rows(tmp_path / "new.jsonl", given)
    out = tmp_path / "said.jsonl"
    words = ("predict", rows, "--out", out, "--adapter")
    with monkeypatch.context() as patched:
        patched.setattr(Predictor, "answer", interrupt)
        stopped = loraloom(*words, tuned.folder)
    assert stopped.code == 130
    assert f"0 of 8 rows are kept in {out}.partial" in stopped.err
    assert "--resume" in stopped.err
    (tmp_path / "other").mkdir()
    for file in (tuned.folder / "best").iterdir():
        (tmp_path / "other" / file.name).write_bytes(file.read_bytes())
    record = tmp_path / "other" / "loraloom.json"
    record.write_text(record.read_text() + "\n")
    for changed, said in (
        ((tmp_path / "other", "--resume"), "other than then: the adapter"),
        ((tuned.folder, "--resume", "--probabilities"), "other than then: the settings"),
    ):
        refused = loraloom(*words, *changed)
        assert refused.code == 2
        assert said in refused.err
    write_rows(Path(rows), [*given[:-1], {**given[-1], "id": "another"}])
    refused = loraloom(*words, tuned.folder, "--resume")
    assert refused.code == 2
    assert "other than then: the rows" in refused.err
    write_rows(Path(rows), given)
    assert loraloom(*words, tuned.folder, "--resume").code == 0


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_answers_go_on_after_a_kill(
    answering: tuple[str, Path], loraloom: Door, tmp_path: Path, small_lots: None
) -> None:
    rows = write_rows(tmp_path / "new.jsonl", [{"question": asked} for asked in ASKED * 3])
    words = ("predict", rows, "--adapter", answering[1], "--max-new-tokens", 3, "--out")
    whole, out = tmp_path / "whole.jsonl", tmp_path / "said.jsonl"
    assert loraloom(*words, whole, "--resume").code == 0, "with nothing there it begins"
    from loraloom.pipeline.predictor import Predictor

    answer = Predictor.answer
    left = iter(range(4))

    def some(*given: Any) -> Any:
        return answer(*given) if next(left, None) is not None else interrupt()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Predictor, "answer", some)
        assert loraloom(*words, out).code == 130
    kept = (tmp_path / "said.jsonl.partial").read_text().splitlines()[1:]
    assert 0 < len(kept) < len(ASKED) * 3
    assert all("predicted" in json.loads(line) for line in kept)
    assert loraloom(*words, out, "--resume").code == 0
    assert out.read_bytes() == whole.read_bytes()


def test_to_go_on_needs_a_file(tuned: Run, world: World, loraloom: Door) -> None:
    refused = loraloom("predict", world.labels, "--adapter", tuned.folder, "--resume")
    assert refused.code == 2
    assert "--out FILE" in refused.err


def test_a_column_that_parquet_cannot_hold_is_told_before_anything_is_predicted(
    tuned: Run, loraloom: Door, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "new.jsonl", [{"text": "a", "x": 1}, {"text": "b", "x": "one"}])
    refused = loraloom("predict", rows, "--adapter", tuned.folder, "--out", tmp_path / "x.parquet")
    assert refused.code == 2
    assert "Parquet cannot hold a column" in refused.err
    assert [file.name for file in tmp_path.iterdir()] == ["new.jsonl"]


def test_rows_of_several_files_follow_one_another(tuned: Run, loraloom: Door, tmp_path: Path) -> None:
    files = [
        write_rows(tmp_path / f"{name}.jsonl", [{"text": f"the {name} sleeps"}])
        for name in ("dog", "cat")
    ]
    answer = loraloom("predict", *files, "--adapter", tuned.folder)
    assert answer.code == 0, answer.err
    assert [row["text"] for row in lines(answer.out)] == ["the dog sleeps", "the cat sleeps"]
