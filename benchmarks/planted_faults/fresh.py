"""The faults once more, on data, pairs of model and task, and seeds of neither other set: written down
before any of its runs."""

from __future__ import annotations

from itertools import pairwise

from cases import TOO_HIGH, UNENDED, Planted, retained
from files import Files, Row, Values, sample
from held_out import advised_rates, encoder

SEED = 5
REGIONS = ("Africa", "Americas", "Asia", "Europe", "Oceania")
RELATIONS = {
    "P36": "capital",
    "P106": "occupation",
    "P140": "religion",
    "P176": "maker",
    "P413": "position",
    "P449": "broadcaster",
    "P1412": "language",
}
"""Of Wikidata, as ParaRel has them."""


def fresh_tasks(files: Files) -> dict[str, Values]:
    """Settings of each task, by dotted key: what `plan` advises, but for lengths that
    keep a run short."""
    countries = _regions(files)
    return {
        "regions": encoder(files, files.write("regions", countries[:200]), 40, SEED),
        "relations": encoder(files, _relations(files, 220), 24, SEED),
        "encyclopedia": _windows(files, "stories260K", _encyclopedia(files, 20_000, 250), 64),
        "problems": _windows(files, "babyllama-tok105", _problems(files, 60), 160),
        "dialogues": {
            "model.name_or_path": files.model("tinychat-5M"),
            "model.dtype": "float32",
            "data.train": _dialogues(files, 140),
            "data.validation": 0.25,
            "training.seed": SEED,
        },
    }


def fresh(files: Files, tasks: dict[str, Values]) -> list[Planted]:
    """Every run, healthy ones first."""
    return [
        *_healthy(),
        *_of_the_steps(files, tasks),
        *_of_the_adapter(files),
        *_of_the_data(files, tasks),
    ]


def _healthy() -> list[Planted]:
    return [
        *(
            Planted(f"healthy {task}", task)
            for task in ("regions", "relations", "encyclopedia", "problems", "dialogues")
        ),
        Planted("healthy relations, another seed", "relations", (), {"training.seed": 31}),
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
    few = {"data.train": _encyclopedia(files, 86 * 60, 60), **long}
    one_row = {"training.per_device_train_batch_size": 1, "training.num_train_epochs": 1}
    return [
        Planted("rate x100, encoder", "regions", TOO_HIGH, rate("regions", 100)),
        Planted("rate x100, decoder", "problems", TOO_HIGH, rate("problems", 100)),
        Planted("rate /100, encoder", "relations", ("rate-too-low",), rate("relations", 0.01)),
        Planted("rate /100, decoder", "encyclopedia", ("rate-too-low",), rate("encyclopedia", 0.01)),
        Planted("40 epochs on 64 rows", "encyclopedia", ("overfit",), few),
        Planted("20 steps, encoder", "relations", ("undertrained",), {"training.max_steps": 20}),
        Planted("10 steps, decoder", "problems", ("undertrained",), {"training.max_steps": 10}),
        Planted(
            "batch 1, high rate",
            "regions",
            ("noisy-steps", *TOO_HIGH),
            {**rate("regions", 10), **one_row},
        ),
        Planted(
            "no warm-up, spike",
            "problems",
            ("no-warm-up",),
            {**rate("problems", 3), "training.warmup_ratio": 0.0},
        ),
        Planted(
            "forgetting", "encyclopedia", ("forgetting",), {"data.retain": retained(files)}, "retain"
        ),
    ]


def _of_the_adapter(files: Files) -> list[Planted]:
    """Rank and targets."""
    dead = ["layers.4.mlp.gate_proj", "layers.4.mlp.up_proj"]
    frozen = {"model.name_or_path": files.cut_off("stories260K"), "adapter.target_modules": dead}
    return [
        Planted("rank 1", "encyclopedia", ("rank-bound",), {"adapter.r": 1, "adapter.lora_alpha": 2}),
        Planted(
            "rank 64",
            "relations",
            ("rank-surplus",),
            {"adapter.r": 64, "adapter.lora_alpha": 128},
            "parameters",
        ),
        Planted(
            "one target layer",
            "dialogues",
            ("narrow-targets",),
            {"adapter.target_modules": ["layers.2.self_attn.v_proj"]},
        ),
        Planted("frozen adapter", "encyclopedia", ("adapter-not-trained",), frozen),
    ]


def _of_the_data(files: Files, tasks: dict[str, Values]) -> list[Planted]:
    """Labels, ends, and rows that stand on two sides."""
    regions, relations = tasks["regions"]["data.train"], tasks["relations"]["data.train"]
    leaked = {"data.validation": files.repeated(regions, 50)}
    unseen = files.write("regions-unseen", _regions(files)[200:])
    return [
        Planted(
            "labels shuffled",
            "relations",
            ("nothing-to-learn",),
            {"data.train": files.shuffled(relations)},
        ),
        Planted(
            "end of answers not trained on",
            "dialogues",
            (UNENDED,),
            {"model.name_or_path": files.endless("tinychat-5M")},
        ),
        Planted("answers cut off", "dialogues", ("answers-cut-off",), {"data.max_length": 56}, "longer"),
        Planted(
            "validation rows from training",
            "regions",
            ("held-out-rows-trained-on",),
            leaked,
            "honest",
            unseen,
        ),
    ]


def _windows(files: Files, model: str, train: str, length: int) -> Values:
    return {
        "model.name_or_path": files.model(model),
        "data.train": train,
        "data.validation": 0.25,
        "data.max_length": length,
        "training.seed": SEED,
    }


def _regions(files: Files) -> list[Row]:
    """Countries by their capital, languages and money, and the part of the world that they lie in."""
    rows = [
        row
        for row in files.rows("countries/countries.jsonl")
        if row["region"] in REGIONS and row["capital"]
    ]
    told = [
        {
            "text": ", ".join(
                [row["name"], *row["capital"], *row["languages"][:3], *row["currencies"][:1]]
            )
        }
        for row in rows
    ]
    labelled = [{**text, "label": row["region"]} for text, row in zip(told, rows, strict=True)]
    return sample(labelled, len(labelled), SEED)


def _relations(files: Files, count: int) -> str:
    """Two names, and what the second is to the first."""
    rows = [row for row in files.rows("pararel/facts.jsonl") if row["relation"] in RELATIONS]
    picked = sample(rows, count, SEED)
    told = [
        {"text": f"{row['subject']}: {row['object']}", "label": RELATIONS[row["relation"]]}
        for row in picked
    ]
    return files.write("relations", told)


def _encyclopedia(files: Files, characters: int, each: int) -> str:
    text = " ".join(
        (files.data / "wikitext2" / "valid.txt").read_text(encoding="utf-8").replace("<unk>", "").split()
    )
    return files.write(
        f"encyclopedia-{each}", [{"text": text[i : i + each]} for i in range(0, characters, each)]
    )


def _problems(files: Files, count: int) -> str:
    """Sums told as stories."""
    rows = files.rows("gsm8k/test.jsonl", count, SEED)
    return files.write("problems", [{"text": " ".join(row["question"].split())} for row in rows])


def _dialogues(files: Files, count: int) -> str:
    """A speech of a play and the one that answers it."""
    blocks = (files.data / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8").split("\n\n")
    speeches = [" ".join(block.split("\n")[1:]) for block in blocks]
    pairs = [
        {"question": one, "answer": other}
        for one, other in pairwise(speeches)
        if max(len(one), len(other)) < 120 and min(len(one), len(other)) > 40
    ]
    return files.write("dialogues", sample(pairs, count, SEED))
