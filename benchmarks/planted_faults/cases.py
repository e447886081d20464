"""The runs that the rules were tuned on: small real tasks, each healthy or with one fault planted."""

from __future__ import annotations

from dataclasses import dataclass, field

from files import Files, Values, sample


@dataclass(frozen=True)
class Planted:
    """One run.

    Attributes:
        expected: names of findings that are right as the first one; none for a healthy run.
        judged_by: how the run with the proposed change is compared: "metric" (the deciding one),
            "retain" (loss on the rows to retain), "parameters" (fewer, and no worse than noise),
            "longer" (loss on whole answers), "honest" (how far the score is from that on the rows of
            `unseen`).
        unseen: a file of rows that no run trains on.
    """

    name: str
    task: str
    expected: tuple[str, ...] = ()
    values: Values = field(default_factory=dict[str, object])
    judged_by: str = "metric"
    unseen: str = ""


def tuned_tasks(files: Files) -> dict[str, Values]:
    """Healthy settings of each task, by dotted key."""
    return {
        "intents": _encoder(files, labelled_intents(files, "train", 180), 16),
        "stories": _stories(
            files, files.write("stories", files.rows("tinystories/stories_lower.jsonl", 30))
        ),
        "plays": _stories(files, _plays(files, 16_000)),
        "sums": _chat(files, files.write("sums", files.rows("gsm8k/train.jsonl", 48)), 320),
        "instructions": _chat(files, _instructions(files, 64), 256),
    }


def _encoder(files: Files, train: str, length: int) -> Values:
    return {
        "model.name_or_path": files.encoder,
        "data.train": train,
        "data.validation": 0.25,
        "data.max_length": length,
        "training.learning_rate": 2e-3,
        "training.per_device_train_batch_size": 8,
        "adapter.r": 8,
        "adapter.lora_alpha": 16,
        "training.num_train_epochs": 7,
        "training.lr_scheduler_type": "linear",
        "training.warmup_ratio": 0.1,
    }


def _stories(files: Files, train: str) -> Values:
    return {
        "model.name_or_path": files.model("stories260K"),
        "data.train": train,
        "data.validation": 0.25,
        "data.max_length": 64,
        "training.learning_rate": 5e-3,
        "training.per_device_train_batch_size": 8,
        "adapter.r": 8,
        "adapter.lora_alpha": 16,
        "training.num_train_epochs": 2,
        "training.lr_scheduler_type": "linear",
        "training.warmup_ratio": 0.1,
    }


def _chat(files: Files, train: str, length: int) -> Values:
    return {
        "model.name_or_path": files.model("tinychat-5M"),
        "model.dtype": "float32",
        "data.train": train,
        "data.validation": 0.25,
        "data.max_length": length,
        "training.learning_rate": 2e-3,
        "training.per_device_train_batch_size": 4,
        "adapter.r": 8,
        "adapter.lora_alpha": 16,
        "training.num_train_epochs": 2,
        "training.lr_scheduler_type": "linear",
        "training.warmup_ratio": 0.1,
    }


def labelled_intents(files: Files, split: str, count: int) -> str:
    """Utterances of SNIPS with the names of their intents."""
    rows = files.rows(f"snips/{split}.jsonl", count)
    return files.write(
        f"intents-{split}", [{"text": row["text"], "label": row["label_text"]} for row in rows]
    )


def _plays(files: Files, characters: int, each: int = 600) -> str:
    text = (files.data / "tinyshakespeare" / "input.txt").read_text()[:characters]
    return files.write(
        f"plays-{each}", [{"text": text[i : i + each]} for i in range(0, len(text), each)]
    )


def _instructions(files: Files, count: int) -> str:
    rows = [row for row in files.rows("self_instruct/seed_tasks.jsonl") if len(str(row)) < 700]
    return files.write("instructions", sample(rows, count))


def _few(files: Files, task: str) -> str:
    """Text that makes 64 training rows beside a quarter for validation, none of them
    longer than the rows of the task."""
    if task == "plays":
        return _plays(files, 86 * 60, 60)
    return files.write(
        "few", [{"text": row["text"][:120]} for row in files.rows("tinystories/stories_lower.jsonl", 86)]
    )


def retained(files: Files) -> str:
    """Stories that the small language models were made for."""
    return files.write(
        "retained",
        [{"text": row["text"][:250]} for row in files.rows("tinystories/stories_cased.jsonl", 24)],
    )


UNENDED = "refused: the end of a turn is not learnt: the model would not stop"
"""What `train` answers, before the first step."""
TOO_HIGH = ("diverged", "rate-too-high")


def tuned_on(files: Files, tasks: dict[str, Values]) -> list[Planted]:
    """Every run, healthy ones first."""
    return [
        *_healthy(),
        *_of_the_steps(files, tasks),
        *_of_the_adapter(files),
        *_of_the_data(files, tasks),
    ]


def _healthy() -> list[Planted]:
    return [
        *(Planted(f"healthy {task}", task) for task in ("intents", "stories", "plays", "instructions")),
        Planted(
            "healthy intents, attention only", "intents", (), {"adapter.target_modules": "attention"}
        ),
        Planted(
            "healthy stories, rank 16",
            "stories",
            (),
            {"adapter.r": 16, "adapter.lora_alpha": 32, "training.seed": 7},
        ),
    ]


def _of_the_steps(files: Files, tasks: dict[str, Values]) -> list[Planted]:
    """Rate, batch, warm-up and length of the training."""

    def rate(task: str, factor: float) -> Values:
        return {"training.learning_rate": tasks[task]["training.learning_rate"] * factor}

    long = {
        "training.num_train_epochs": 40,
        "training.per_device_train_batch_size": 16,
        "training.early_stopping_patience": 40,
    }
    one_row = {"training.per_device_train_batch_size": 1, "training.num_train_epochs": 1}
    more = {"data.retain": retained(files), "training.num_train_epochs": 4}
    return [
        Planted("rate x100, encoder", "intents", TOO_HIGH, rate("intents", 100)),
        Planted("rate x100, decoder", "stories", TOO_HIGH, rate("stories", 100)),
        Planted("rate /100, encoder", "intents", ("rate-too-low",), rate("intents", 0.01)),
        Planted("rate /100, decoder", "plays", ("rate-too-low",), rate("plays", 0.01)),
        Planted(
            "40 epochs on 64 rows, plays",
            "plays",
            ("overfit",),
            {"data.train": _few(files, "plays"), **long},
        ),
        Planted(
            "40 epochs on 64 rows, stories",
            "stories",
            ("overfit",),
            {"data.train": _few(files, "stories"), **long},
        ),
        Planted("12 steps, encoder", "intents", ("undertrained",), {"training.max_steps": 12}),
        Planted("10 steps, decoder", "plays", ("undertrained",), {"training.max_steps": 10}),
        Planted(
            "batch 1, high rate",
            "intents",
            ("noisy-steps", *TOO_HIGH),
            {**rate("intents", 10), **one_row},
        ),
        Planted(
            "no warm-up, spike",
            "plays",
            ("no-warm-up",),
            {**rate("plays", 7), "training.warmup_ratio": 0.0},
        ),
        Planted("forgetting", "plays", ("forgetting",), more, "retain"),
    ]


def _of_the_adapter(files: Files) -> list[Planted]:
    """Rank and targets."""
    dead = ["layers.4.mlp.gate_proj", "layers.4.mlp.up_proj"]
    frozen = {"model.name_or_path": files.cut_off("stories260K"), "adapter.target_modules": dead}
    return [
        Planted("rank 1", "plays", ("rank-bound",), {"adapter.r": 1, "adapter.lora_alpha": 2}),
        Planted("rank 128", "intents", ("rank-surplus",), {"adapter.r": 128}, "parameters"),
        Planted(
            "one target layer",
            "plays",
            ("narrow-targets",),
            {"adapter.target_modules": ["layers.0.self_attn.q_proj"]},
        ),
        Planted("frozen adapter", "plays", ("adapter-not-trained",), frozen),
    ]


def _of_the_data(files: Files, tasks: dict[str, Values]) -> list[Planted]:
    """Labels, ends, and rows that stand on two sides."""
    intents = tasks["intents"]["data.train"]
    leaked = {"data.validation": files.repeated(intents, 48)}
    unseen = labelled_intents(files, "validate", 100)
    return [
        Planted(
            "labels shuffled", "intents", ("nothing-to-learn",), {"data.train": files.shuffled(intents)}
        ),
        Planted(
            "end of answers not trained on",
            "sums",
            (UNENDED,),
            {"model.name_or_path": files.endless("tinychat-5M")},
        ),
        Planted("answers cut off", "sums", ("answers-cut-off",), {"data.max_length": 192}, "longer"),
        Planted(
            "validation rows from training",
            "intents",
            ("held-out-rows-trained-on",),
            leaked,
            "honest",
            unseen,
        ),
    ]
