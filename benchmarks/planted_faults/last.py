"""Healthy runs and runs that ended too early, to judge `undertrained` once it was mended: written down
before any of its runs."""

from __future__ import annotations

import json

from cases import Planted
from files import Files, Row, Values, sample
from held_out import encoder

from loraloom.config.decode import load_config
from loraloom.config.names import NUM_TRAIN_EPOCHS
from loraloom.pipeline.prepare import prepare

SEED = 17
HEALTHY = ("prompts", "speeches", "snippets", "utterances", "facts", "atlas")
KINDS = ("adversarial_qa", "common_gen", "cosmos_qa", "duorc", "qasc", "quoref", "ropes", "quartz")
"""Data sets of P3, as the names of its templates begin."""


def last_tasks(files: Files) -> dict[str, Values]:
    """Settings of each task, by dotted key: what `plan` advises, but for lengths that
    keep a run short."""
    return {
        "prompts": encoder(files, _prompts(files, 200), 64, SEED),
        "speeches": _text(files, "babyllama-tok105", _speeches(files, 14_000, 240), 128),
        "snippets": _text(files, "babyllama-tok105", _snippets(files, 100), 128),
        "utterances": _text(files, "stories260K", _utterances(files, 160), 48),
        "facts": _text(files, "stories260K", _facts(files, 160), 48),
        "atlas": {
            "model.name_or_path": files.model("tinychat-5M"),
            "model.dtype": "float32",
            "data.train": _atlas(files, 160),
            "data.validation": 0.25,
            "training.seed": SEED,
        },
    }


def last(files: Files, tasks: dict[str, Values]) -> list[Planted]:
    """Every run, healthy ones first. Shares are those of the healthy run's steps."""

    def share(task: str, share: float) -> Values:
        planned = prepare(load_config(None, tasks[task])).plan.values()
        return {NUM_TRAIN_EPOCHS: round(planned[NUM_TRAIN_EPOCHS] * share, 2)}

    return [
        *(Planted(f"healthy {task}", task) for task in HEALTHY),
        Planted("a sixth of the steps, encoder", "prompts", ("undertrained",), share("prompts", 1 / 6)),
        Planted(
            "a tenth of the steps, decoder", "snippets", ("undertrained",), share("snippets", 1 / 10)
        ),
        Planted(
            "a third of the steps, utterances",
            "utterances",
            ("undertrained",),
            share("utterances", 1 / 3),
        ),
        Planted("a third of the steps, atlas", "atlas", ("undertrained",), share("atlas", 1 / 3)),
    ]


def _text(files: Files, model: str, train: str, length: int) -> Values:
    return {
        "model.name_or_path": files.model(model),
        "data.train": train,
        "data.validation": 0.25,
        "data.max_length": length,
        "training.seed": SEED,
    }


def _prompts(files: Files, count: int) -> str:
    """The end of a prompt, and the data set that it was made of."""
    rows = [(row["prompt"], row["template"]) for row in files.rows("p3_mix/train.jsonl")]
    told = [
        {"text": " ".join(text.split())[-240:], "label": kind}
        for text, name in rows
        for kind in KINDS
        if name.startswith(kind)
    ]
    return files.write("prompts", sample(told, count, SEED))


def _speeches(files: Files, characters: int, each: int) -> str:
    """The end of Tiny Shakespeare, on one line."""
    text = " ".join((files.data / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8").split())[
        -characters:
    ]
    return files.write("speeches", [{"text": text[i : i + each]} for i in range(0, characters, each)])


def _snippets(files: Files, count: int) -> str:
    """Sentences of film reviews, as text."""
    rows = files.rows("rotten_tomatoes/validation.jsonl", count, SEED)
    return files.write("snippets", [{"text": row["text"]} for row in rows])


def _utterances(files: Files, count: int) -> str:
    """What is said to a machine, as text."""
    rows = files.rows("snips/validate.jsonl", count, SEED)
    return files.write("utterances", [{"text": row["text"]} for row in rows])


def _facts(files: Files, count: int) -> str:
    """A fact of ParaRel in one sentence."""
    patterns: dict[str, list[str]] = json.loads(
        (files.data / "pararel" / "patterns.json").read_text(encoding="utf-8")
    )
    rows = sample(
        [row for row in files.rows("pararel/facts.jsonl") if row["relation"] in patterns], count, SEED
    )
    return files.write("facts", [{"text": _sentence(row, patterns[row["relation"]][0])} for row in rows])


def _sentence(row: Row, pattern: str) -> str:
    return pattern.replace("[X]", row["subject"]).replace("[Y]", row["object"])


def _atlas(files: Files, count: int) -> str:
    """A country, and where it is."""
    rows = [
        row for row in files.rows("countries/countries.jsonl") if row["capital"] and row["languages"]
    ]
    told = [
        {
            "question": f"Tell me about {row['name']}.",
            "answer": (
                f"It lies in {row['subregion']}. Its capital is {row['capital'][0]}. They speak"
                f" {row['languages'][0]}."
            ),
        }
        for row in rows
    ]
    return files.write("atlas", sample(told, count, SEED))
