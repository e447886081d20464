"""The same faults on other data, other models and other seeds: held out once, and
looked at since, when rules were mended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cases import TOO_HIGH, UNENDED, Planted, retained
from files import Files, Row, Values, sample

from loraloom.config.decode import load_config
from loraloom.pipeline.prepare import prepare

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SEED = 11


def held_out_tasks(files: Files) -> dict[str, Values]:
    """Settings of each task, by dotted key: what `plan` advises, but for lengths that
    keep a run short."""
    return {
        "reviews": encoder(files, _reviews(files, "train", 160), 40, SEED),
        "docstrings": encoder(files, _docstrings(files, 240), 32, SEED),
        "articles": {
            "model.name_or_path": files.model("babyllama-tok105"),
            "data.train": _articles(files, 12_000, 240),
            "data.validation": 0.25,
            "data.max_length": 128,
            "training.seed": SEED,
        },
        "slots": {
            "model.name_or_path": files.model("tinychat-5M"),
            "model.dtype": "float32",
            "data.train": _slots(files, 120),
            "data.validation": 0.25,
            "training.seed": SEED,
        },
    }


def held_out(files: Files, tasks: dict[str, Values]) -> list[Planted]:
    """Every run, healthy ones first."""
    return [
        *_healthy(),
        *_of_the_steps(files, tasks),
        *_of_the_adapter(files),
        *_of_the_data(files, tasks),
    ]


def _healthy() -> list[Planted]:
    return [
        *(Planted(f"healthy {task}", task) for task in ("reviews", "docstrings", "articles", "slots")),
        Planted("healthy slots, another seed", "slots", (), {"training.seed": 23}),
    ]


def _of_the_steps(files: Files, tasks: dict[str, Values]) -> list[Planted]:
    """Rate, batch, warm-up and length of the training."""
    advised = advised_rates(tasks)

    def rate(task: str, factor: float) -> Values:
        return {"training.learning_rate": advised[task] * factor}

    long = {
        "training.num_train_epochs": 40,
        "training.per_device_train_batch_size": 16,
        "training.early_stopping_patience": 40,
    }
    one_row = {"training.per_device_train_batch_size": 1, "training.num_train_epochs": 1}
    few = {"data.train": _articles(files, 86 * 60, 60), **long}
    return [
        Planted("rate x100, encoder", "reviews", TOO_HIGH, rate("reviews", 100)),
        Planted("rate x100, decoder", "slots", TOO_HIGH, rate("slots", 100)),
        Planted("rate /100, encoder", "docstrings", ("rate-too-low",), rate("docstrings", 0.01)),
        Planted("rate /100, decoder", "articles", ("rate-too-low",), rate("articles", 0.01)),
        Planted("40 epochs on 64 rows", "articles", ("overfit",), few),
        Planted("20 steps, encoder", "docstrings", ("undertrained",), {"training.max_steps": 20}),
        Planted("10 steps, decoder", "slots", ("undertrained",), {"training.max_steps": 10}),
        Planted(
            "batch 1, high rate",
            "docstrings",
            ("noisy-steps", *TOO_HIGH),
            {**rate("docstrings", 10), **one_row},
        ),
        Planted(
            "no warm-up, spike",
            "articles",
            ("no-warm-up",),
            {**rate("articles", 3), "training.warmup_ratio": 0.0},
        ),
        Planted("forgetting", "articles", ("forgetting",), {"data.retain": retained(files)}, "retain"),
    ]


def _of_the_adapter(files: Files) -> list[Planted]:
    """Rank and targets."""
    dead = ["layers.4.mlp.gate_proj", "layers.4.mlp.up_proj"]
    frozen = {"model.name_or_path": files.cut_off("babyllama-tok105"), "adapter.target_modules": dead}
    return [
        Planted("rank 1", "articles", ("rank-bound",), {"adapter.r": 1, "adapter.lora_alpha": 2}),
        Planted(
            "rank 128",
            "reviews",
            ("rank-surplus",),
            {"adapter.r": 128, "adapter.lora_alpha": 256},
            "parameters",
        ),
        Planted(
            "one target layer",
            "slots",
            ("narrow-targets",),
            {"adapter.target_modules": ["layers.0.self_attn.q_proj"]},
        ),
        Planted("frozen adapter", "articles", ("adapter-not-trained",), frozen),
    ]


def _of_the_data(files: Files, tasks: dict[str, Values]) -> list[Planted]:
    """Labels, ends, and rows that stand on two sides."""
    reviews, docstrings = tasks["reviews"]["data.train"], tasks["docstrings"]["data.train"]
    leaked = {"data.validation": files.repeated(reviews, 40)}
    unseen = _reviews(files, "test", 100)
    return [
        Planted(
            "labels shuffled",
            "docstrings",
            ("nothing-to-learn",),
            {"data.train": files.shuffled(docstrings)},
        ),
        Planted(
            "end of answers not trained on",
            "slots",
            (UNENDED,),
            {"model.name_or_path": files.endless("tinychat-5M")},
        ),
        Planted("answers cut off", "slots", ("answers-cut-off",), {"data.max_length": 48}, "longer"),
        Planted(
            "validation rows from training",
            "reviews",
            ("held-out-rows-trained-on",),
            leaked,
            "honest",
            unseen,
        ),
    ]


def encoder(files: Files, train: str, length: int, seed: int) -> Values:
    """Healthy settings of a classifier."""
    return {
        "model.name_or_path": files.encoder,
        "data.train": train,
        "data.validation": 0.25,
        "data.max_length": length,
        "training.num_train_epochs": 6,
        "training.seed": seed,
    }


def advised_rates(tasks: dict[str, Values]) -> dict[str, float]:
    """The learning rate that `plan` gives each task."""
    return {
        name: prepare(load_config(None, task)).plan.values()["training.learning_rate"]
        for name, task in tasks.items()
    }


def _reviews(files: Files, split: str, count: int) -> str:
    """Sentences of film reviews, positive or negative."""
    rows = files.rows(f"rotten_tomatoes/{split}.jsonl", count, SEED)
    return files.write(
        f"reviews-{split}", [{"text": row["text"], "label": row["label_text"]} for row in rows]
    )


def _docstrings(files: Files, count: int) -> str:
    """Docstrings of the standard library and the package that each is from."""
    folder = files.work / "docstrings"
    if not folder.is_dir():
        script = EXAMPLES / "stdlib_docstrings.py"
        subprocess.run([sys.executable, str(script), str(folder)], check=True, stdout=subprocess.DEVNULL)
    rows = files.rows(str(folder / "train.jsonl"), count, SEED)
    return files.write("docstrings", [{"text": row["text"], "label": row["label"]} for row in rows])


def _articles(files: Files, characters: int, each: int) -> str:
    text = " ".join(
        (files.data / "wikitext2" / "test.txt").read_text(encoding="utf-8").replace("<unk>", "").split()
    )
    text = text[:characters]
    return files.write(
        f"articles-{each}", [{"text": text[i : i + each]} for i in range(0, len(text), each)]
    )


def _slots(files: Files, count: int) -> str:
    """What was said, and its names and values to be written down."""
    rows = [row for row in files.rows("snips/train.jsonl") if 2 <= len(row["slots"]) <= 4]
    picked = sample(rows, count, SEED)
    return files.write(
        f"slots-{count}", [{"question": row["text"], "answer": _filled(row)} for row in picked]
    )


def _filled(row: Row) -> str:
    return "; ".join(f"{slot['entity']}: {slot['value']}" for slot in row["slots"])
