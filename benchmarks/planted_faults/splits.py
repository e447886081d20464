"""Runs whose test was opened: of the same source as validation, or not. Written down
before any of them was run."""

from __future__ import annotations

from cases import Planted, labelled_intents, tuned_tasks
from files import Files, Values, sample

SEED = 23
UNLIKE = ("validation-unlike-test",)


def splits_tasks(files: Files) -> dict[str, Values]:
    """The healthy settings of two tasks that the rules were tuned on, with another seed
    and a test of their own source."""
    tuned = tuned_tasks(files)
    seed = {"training.seed": SEED}
    return {
        "intents": {**tuned["intents"], **seed, "data.test": labelled_intents(files, "validate", 120)},
        "stories": {**tuned["stories"], **seed, "data.test": _other_stories(files, tuned["stories"])},
    }


def splits(files: Files, tasks: dict[str, Values]) -> list[Planted]:
    """Every run, healthy ones first."""
    train = files.rows(tasks["stories"]["data.train"])
    nearly = [{"text": f"{row['text']} the end ."} for row in train[:20]]
    by_heart = {
        "data.validation": files.write("stories-nearly", nearly),
        "training.num_train_epochs": 12,
        "training.early_stopping_patience": 12,
    }
    return [
        Planted("healthy intents", "intents"),
        Planted("healthy stories", "stories"),
        Planted("healthy intents, another seed", "intents", (), {"training.seed": 41}),
        Planted("healthy stories, test drawn", "stories", (), {"data.test": 0.25}),
        Planted("test of plays", "stories", UNLIKE, {"data.test": _plays(files)}),
        Planted("test of keywords", "intents", UNLIKE, {"data.test": _keywords(files, 120)}),
        Planted("validation nearly repeats training", "stories", UNLIKE, by_heart),
    ]


def _other_stories(files: Files, task: Values) -> str:
    """Stories that the task is not trained on."""
    trained = {row["text"] for row in files.rows(task["data.train"])}
    rows = [row for row in files.rows("tinystories/stories_lower.jsonl") if row["text"] not in trained]
    return files.write("stories-test", sample(rows, 30, SEED))


def _plays(files: Files) -> str:
    """Another source: the end of Tiny Shakespeare."""
    text = (files.data / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")[-12_000:].lower()
    return files.write("plays-test", [{"text": text[i : i + 600]} for i in range(0, len(text), 600)])


def _keywords(files: Files, count: int) -> str:
    """Another source: what somebody types instead of saying it, the longer words alone."""
    rows = files.rows("snips/validate.jsonl", count)
    told = [
        " ".join(word for word in row["text"].split() if len(word) > 5) or row["text"] for row in rows
    ]
    labels = [row["label_text"] for row in rows]
    return files.write(
        "keywords", [{"text": text, "label": label} for text, label in zip(told, labels, strict=True)]
    )
