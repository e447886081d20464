"""The runs: small real tasks, each healthy or with one fault planted."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Values = dict[str, Any]


@dataclass(frozen=True)
class Planted:
    """One run.

    Attributes:
        expected: names of findings that are right as the first one; none for a healthy run.
        judged_by: how the run with the proposed change is compared: "metric" (the deciding one), "retain" (loss on the rows
            to retain), "parameters" (fewer, and no worse than noise), "longer" (loss on whole answers), "honest" (how far
            the score is from that on unseen rows).
    """

    name: str
    task: str
    expected: tuple[str, ...] = ()
    values: Values = field(default_factory=dict[str, Any])
    judged_by: str = "metric"


@dataclass(frozen=True)
class Files:
    """Where models and data are, and a folder for what is made of them."""

    models: Path
    data: Path
    encoder: str
    work: Path

    def tasks(self) -> dict[str, Values]:
        """Healthy settings of each task, by dotted key."""
        return {
            "intents": self._encoder(self._labelled("snips", 180), 16),
            "stories": self._stories(self._tinystories(30)),
            "plays": self._stories(self._plays(16_000)),
            "sums": self._chat(self._gsm8k(48), 320),
            "instructions": self._chat(self._instructions(64), 256),
        }

    def _encoder(self, train: Path, length: int) -> Values:
        return {
            "model.name_or_path": self.encoder, "data.train": str(train), "data.validation": 0.25, "data.max_length": length,
            "training.learning_rate": 2e-3, "training.per_device_train_batch_size": 8, "adapter.r": 8, "adapter.lora_alpha": 16,
            "training.num_train_epochs": 7, "training.lr_scheduler_type": "linear", "training.warmup_ratio": 0.1,
        }  # fmt: skip

    def _stories(self, train: Path) -> Values:
        return {
            "model.name_or_path": str(self.models / "stories260K"), "data.train": str(train), "data.validation": 0.25,
            "data.max_length": 64, "training.learning_rate": 5e-3, "training.per_device_train_batch_size": 8, "adapter.r": 8,
            "adapter.lora_alpha": 16, "training.num_train_epochs": 2, "training.lr_scheduler_type": "linear",
            "training.warmup_ratio": 0.1,
        }  # fmt: skip

    def _chat(self, train: Path, length: int) -> Values:
        return {
            "model.name_or_path": str(self.models / "tinychat-5M"), "model.dtype": "float32", "data.train": str(train),
            "data.validation": 0.25, "data.max_length": length, "training.learning_rate": 2e-3,
            "training.per_device_train_batch_size": 4, "adapter.r": 8, "adapter.lora_alpha": 16,
            "training.num_train_epochs": 2, "training.lr_scheduler_type": "linear", "training.warmup_ratio": 0.1,
        }  # fmt: skip

    # -- files that are made -------------------------------------------------------------------------------------

    def _labelled(self, name: str, count: int) -> Path:
        rows = _sample(_read(self.data / name / "train.jsonl"), count)
        return self._write(f"{name}.jsonl", [{"text": row["text"], "label": row["label_text"]} for row in rows])

    def _tinystories(self, count: int) -> Path:
        return self._write("stories.jsonl", _sample(_read(self.data / "tinystories" / "stories_lower.jsonl"), count))

    def _plays(self, characters: int, each: int = 600) -> Path:
        text = (self.data / "tinyshakespeare" / "input.txt").read_text()[:characters]
        rows = [{"text": text[i : i + each]} for i in range(0, len(text), each)]
        return self._write(f"plays-{each}.jsonl", rows)

    def _gsm8k(self, count: int) -> Path:
        return self._write("sums.jsonl", _sample(_read(self.data / "gsm8k" / "train.jsonl"), count))

    def _instructions(self, count: int) -> Path:
        rows = _read(self.data / "self_instruct" / "seed_tasks.jsonl")
        return self._write("instructions.jsonl", _sample([row for row in rows if len(str(row)) < 700], count))

    def _write(self, name: str, rows: Sequence[Values]) -> Path:
        path = self.work / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    # -- files with a fault --------------------------------------------------------------------------------------

    def few(self, task: str) -> str:
        """Text that makes 64 training rows beside a quarter for validation, none of them longer than the rows of the task."""
        if task == "plays":
            return str(self._plays(86 * 90, 90))
        rows = _sample(_read(self.data / "tinystories" / "stories_lower.jsonl"), 86)
        return str(self._write("few.jsonl", [{"text": row["text"][:120]} for row in rows]))

    def shuffled(self, source: str) -> str:
        """The rows of a file, their labels dealt out anew."""
        rows = _read(Path(source))
        labels = [row["label"] for row in rows]
        random.Random(0).shuffle(labels)
        mixed = [{"text": row["text"], "label": label} for row, label in zip(rows, labels, strict=True)]
        return str(self._write("shuffled.jsonl", mixed))

    def repeated(self, source: str, count: int) -> str:
        """A validation file made of training rows."""
        fresh = _read(self.data / "snips" / "validate.jsonl")
        self._write("unseen.jsonl", [{"text": row["text"], "label": row["label_text"]} for row in _sample(fresh, 150)])
        return str(self._write("repeated.jsonl", _sample(_read(Path(source)), count)))

    def retained(self) -> str:
        """Stories that the base was made for."""
        rows = _sample(_read(self.data / "tinystories" / "stories_cased.jsonl"), 24)
        return str(self._write("retained.jsonl", [{"text": row["text"][:250]} for row in rows]))

    def cut_off_base(self) -> str:
        """A copy of stories260K whose last block passes its input on: no gradient reaches its inner layers."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = self.work / "cut-off"
        source = str(self.models / "stories260K")
        model: Any = AutoModelForCausalLM.from_pretrained(source)
        with torch.no_grad():
            block = model.model.layers[-1]
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(source).save_pretrained(folder)
        return str(folder)

    def endless_chat(self) -> str:
        """A copy of tinychat-5M whose template never closes an answer."""
        folder = self.work / "endless"
        folder.mkdir(exist_ok=True)
        for file in (self.models / "tinychat-5M").iterdir():
            if file.is_file():
                (folder / file.name).write_bytes(file.read_bytes())
        template = folder / "chat_template.jinja"
        template.write_text(template.read_text().replace("{{ m['content'] + '<|im_end|>' }}", "{{ m['content'] }}"))
        return str(folder)


UNENDED = "refused: the end of a turn is not learnt: the model would not stop"
"""What `train` answers, before the first step."""
TOO_HIGH = ("diverged", "rate-too-high")


def planted(files: Files, tasks: dict[str, Values]) -> list[Planted]:
    """Every run, healthy ones first."""
    return [*_healthy(), *_of_the_steps(files, tasks), *_of_the_adapter(files), *_of_the_data(files, tasks)]


def _healthy() -> list[Planted]:
    return [
        *(Planted(f"healthy {task}", task) for task in ("intents", "stories", "plays", "instructions")),
        Planted("healthy intents, attention only", "intents", (), {"adapter.target_modules": "attention"}),
        Planted("healthy stories, rank 16", "stories", (), {"adapter.r": 16, "adapter.lora_alpha": 32, "training.seed": 7}),
    ]


def _of_the_steps(files: Files, tasks: dict[str, Values]) -> list[Planted]:
    """Rate, batch, warm-up and length of the training."""

    def rate(task: str, factor: float) -> Values:
        return {"training.learning_rate": tasks[task]["training.learning_rate"] * factor}

    long = {"training.num_train_epochs": 40, "training.per_device_train_batch_size": 16, "training.early_stopping_patience": 40}
    one_row = {"training.per_device_train_batch_size": 1, "training.num_train_epochs": 1}
    more = {"data.retain": files.retained(), "training.num_train_epochs": 4}
    return [
        Planted("rate x100, encoder", "intents", TOO_HIGH, rate("intents", 100)),
        Planted("rate x100, decoder", "stories", TOO_HIGH, rate("stories", 100)),
        Planted("rate /100, encoder", "intents", ("rate-too-low",), rate("intents", 0.01)),
        Planted("rate /100, decoder", "plays", ("rate-too-low",), rate("plays", 0.01)),
        Planted("40 epochs on 64 rows, plays", "plays", ("overfit",), {"data.train": files.few("plays"), **long}),
        Planted("40 epochs on 64 rows, stories", "stories", ("overfit",), {"data.train": files.few("stories"), **long}),
        Planted("12 steps, encoder", "intents", ("undertrained",), {"training.max_steps": 12}),
        Planted("10 steps, decoder", "plays", ("undertrained",), {"training.max_steps": 10}),
        Planted("batch 1, high rate", "intents", ("noisy-steps", *TOO_HIGH), {**rate("intents", 10), **one_row}),
        Planted("no warm-up, spike", "plays", ("no-warm-up",), {**rate("plays", 10), "training.warmup_ratio": 0.0}),
        Planted("forgetting", "plays", ("forgetting",), more, "retain"),
    ]


def _of_the_adapter(files: Files) -> list[Planted]:
    """Rank and targets."""
    dead = ["layers.4.mlp.gate_proj", "layers.4.mlp.up_proj"]
    frozen = {"model.name_or_path": files.cut_off_base(), "adapter.target_modules": dead}
    return [
        Planted("rank 1", "plays", ("rank-bound",), {"adapter.r": 1, "adapter.lora_alpha": 2}),
        Planted("rank 128", "intents", ("rank-surplus",), {"adapter.r": 128, "adapter.lora_alpha": 256}, "parameters"),
        Planted("one target layer", "plays", ("narrow-targets",), {"adapter.target_modules": ["layers.0.self_attn.q_proj"]}),
        Planted("frozen adapter", "plays", ("adapter-not-trained",), frozen),
    ]


def _of_the_data(files: Files, tasks: dict[str, Values]) -> list[Planted]:
    """Labels, ends, and rows that stand on two sides."""
    intents = tasks["intents"]["data.train"]
    leaked = {"data.validation": files.repeated(intents, 48)}
    return [
        Planted("labels shuffled", "intents", ("nothing-to-learn",), {"data.train": files.shuffled(intents)}),
        Planted("end of answers not trained on", "sums", (UNENDED,), {"model.name_or_path": files.endless_chat()}),
        Planted("answers cut off", "sums", ("answers-cut-off",), {"data.max_length": 96}, "longer"),
        Planted("validation rows from training", "intents", ("held-out-rows-trained-on",), leaked, "honest"),
    ]


def _read(path: Path) -> list[Values]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def _sample(rows: Sequence[Values], count: int) -> list[Values]:
    return random.Random(0).sample(list(rows), count)
