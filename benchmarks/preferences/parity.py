"""Every preference loss of a pack against TRL's trainer of it, step by step.

Candidates of two losses train together on one frozen base; TRL trains each of them alone. Both begin
with the same adapter, whose B is not zero, read the same token ids in the same order, and take four
steps of AdamW in float32 on one thread. As in a run, ours takes the prompt of a pair through the model
once. `parity.json` has the largest difference of each quantity, relative to TRL's: in the first step,
whose weights are the same, and over all four. AdamW divides a gradient by its own size, so that where
one is all but zero its rounding moves a weight as far as any.

    python benchmarks/preferences/parity.py --shared ../shared
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pairs
import torch

STEPS, BATCH, RATE, RANK, ALPHA = 4, 4, 1e-3, 8, 16
SIDES = ("chosen", "rejected")
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SETTINGS: dict[str, dict[str, Any]] = {
    "sigmoid": {"loss_type": ["sigmoid"], "beta": 0.1},
    "robust": {"loss_type": ["robust"], "beta": 0.1, "label_smoothing": 0.1},
    "ipo": {"loss_type": ["ipo"], "beta": 0.1},
    "sigmoid_norm": {"loss_type": ["sigmoid_norm"], "beta": 0.1},
    "hinge": {"loss_type": ["hinge"], "beta": 0.1},
    "sigmoid + sft": {"loss_type": ["sigmoid", "sft"], "beta": 0.1, "loss_weights": [1.0, 0.5]},
    "orpo": {"loss_type": ["orpo"], "beta": 0.1},
    "simpo": {"loss_type": ["simpo"], "beta": 2.0, "simpo_gamma": 0.5},
    "kto": {"loss_type": ["kto"], "beta": 0.1},
    "kto, weighted": {
        "loss_type": ["kto"],
        "beta": 0.1,
        "desirable_weight": 1.33,
        "undesirable_weight": 0.75,
    },
    "reward": {},
    "reward, centred": {"center_rewards_coefficient": 0.05},
}
PACKS = (
    ("sigmoid", "ipo"),
    ("robust", "sigmoid_norm"),
    ("hinge", "sigmoid + sft"),
    ("orpo", "simpo"),
    ("kto", "kto, weighted"),
    ("reward", "reward, centred"),
)
"""What trains together."""


def is_reward(name: str) -> bool:
    """Whether it is a reward model, and no loss of a language model."""
    return name.startswith("reward")


def base_of(name: str, model: str) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    if not is_reward(name):
        return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    pad = AutoTokenizer.from_pretrained(model).pad_token_id
    return AutoModelForSequenceClassification.from_pretrained(
        model, dtype=torch.float32, num_labels=1, pad_token_id=pad
    )


# -- TRL ------------------------------------------------------------------------------------------------


def trl_trainer(name: str, model: str, rows: list[dict[str, Any]], work: Path) -> Any:
    """TRL's trainer of a loss over a fresh adapter."""
    import trl
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    own = dict(SETTINGS[name])
    kind = "reward" if is_reward(name) else own["loss_type"][0]
    config: Any
    trainer: Any
    config, trainer = trl.DPOConfig, trl.DPOTrainer
    if kind == "orpo":
        config, trainer = ORPOConfig, ORPOTrainer
        del own["loss_type"]
    elif kind == "simpo":
        config, trainer = CPOConfig, CPOTrainer
        own |= {"loss_type": "simpo", "cpo_alpha": 0.0}
    elif kind == "kto":
        config, trainer = trl.KTOConfig, trl.KTOTrainer
        own["loss_type"] = "kto"
        rows = [
            {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
            for row in rows
            for side in ("chosen", "rejected")
        ]
    elif kind == "reward":
        config, trainer = trl.RewardConfig, trl.RewardTrainer
        rows = [{**row, "margin": number % 3 / 2} for number, row in enumerate(rows)]
    settings = config(
        output_dir=str(work / "trl"),
        per_device_train_batch_size=BATCH * (2 if kind == "kto" else 1),
        max_steps=STEPS,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        remove_unused_columns=False,
        max_length=256,
        train_sampling_strategy="sequential",
        **own,
    )
    torch.manual_seed(7)
    return trainer(
        base_of(name, model),
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(
            r=RANK,
            lora_alpha=ALPHA,
            target_modules=TARGETS,
            task_type="SEQ_CLS" if kind == "reward" else "CAUSAL_LM",
            modules_to_save=["score"] if kind == "reward" else None,
            init_lora_weights=False,
        ),
    )


def theirs(name: str, model: str, rows: list[dict[str, Any]], work: Path) -> dict[str, Any]:
    """What TRL does in its steps, and what it began and ended with."""
    trainer = trl_trainer(name, model, rows, work)
    start = work / name.replace(" ", "_")
    with torch.no_grad():
        # Small enough that no log-ratio is of hundreds of nats, and not zero.
        for path, weight in trainer.model.named_parameters():
            if "lora_B" in path:
                weight.mul_(0.1)
    trainer.model.save_pretrained(start)
    columns = list(trainer.train_dataset)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {
        "start": start,
        "columns": columns,
        "loss": [entry["loss"] for entry in logs],
        "grad_norm": [entry["grad_norm"] for entry in logs],
        "rewards": [[entry[key] for key in REWARDS[is_reward(name)]] for entry in logs],
        "kl": [entry.get("kl") for entry in logs],
        "weights": trained_of(trainer.model.state_dict()),
    }


REWARDS = {False: ("rewards/chosen", "rewards/rejected"), True: ("mean_reward", "margin")}
"""What TRL's logs tell of rewards: of a language model, and of a reward model."""
TRAINED = ("lora_A", "lora_B", "modules_to_save")


def trained_of(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """A, B and a head by the names that PEFT saves them under."""
    return {
        key.replace(".modules_to_save", "").replace(".default", ""): value.detach().clone()
        for key, value in state.items()
        if any(part in key for part in TRAINED)
    }


# -- ours -----------------------------------------------------------------------------------------------


def examples_of(columns: list[dict[str, Any]]) -> list[Any]:
    """The rows that TRL made, as ours."""
    from loraloom.data.rows import Judged, Pair, Row

    def row(prompt: list[int], answer: list[int]) -> Row:
        ids = np.array([*prompt, *answer], np.int32)
        return Row(ids, np.array([*[-100] * len(prompt), *answer], np.int32))

    found: list[Any] = []
    for one in columns:
        if "chosen_ids" in one and "prompt_ids" not in one:
            whole = [row(one[f"{side}_ids"][:1], one[f"{side}_ids"][1:]) for side in SIDES]
            found.append(Pair(*whole, margin=one["margin"]))
        elif "chosen_input_ids" in one:
            sides = [
                Row(*(np.array(one[f"{side}_{part}"], np.int32) for part in ("input_ids", "labels")))
                for side in SIDES
            ]
            found.append(Pair(*sides))
        elif "completion_ids" in one:
            found.append(Judged(row(one["prompt_ids"], one["completion_ids"]), bool(one["label"])))
        else:
            found.append(Pair(*(row(one["prompt_ids"], one[f"{side}_ids"]) for side in SIDES)))
    return found


class InOrder:
    """Rows as they stand in the file, so many a step."""

    steps_per_epoch = STEPS

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def rows_of_step(self, step: int) -> Any:
        return np.arange(step * self.batch, (step + 1) * self.batch)


def ours(
    names: tuple[str, ...], model: str, found: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The same steps of these candidates, together."""
    from loraloom.evals.preference import PreferenceObjective, task_objective
    from loraloom.lora.base import share_copy
    from loraloom.lora.packed import PackedModel
    from loraloom.lora.state import read_adapter
    from loraloom.records import AdapterSpec, Candidate, PreferenceSpec, TrainingSpec, built_as
    from loraloom.train.pack import PackTrainer

    rewards = is_reward(names[0])
    base = base_of(names[0], model).eval().requires_grad_(False)
    pad = base.config.pad_token_id if rewards else 0
    packed = PackedModel(share_copy(base))
    examples = examples_of(found[names[0]]["columns"])
    batch = BATCH * (2 if len(examples[0].sides) == 1 else 1)
    task = "reward" if rewards else "preference"
    objective = task_objective(task, base, packed, pad_id=pad, token_budget=4096)
    if isinstance(objective, PreferenceObjective):
        objective.join(examples)
    trainer = PackTrainer(
        packed,
        examples,
        objective,
        task=built_as(task),
        pad_id=pad,
        token_budget=1 << 20,
        order_of=lambda _: InOrder(batch),
    )
    targets = tuple(path for path, _ in base.named_modules() if path.rpartition(".")[2] in TARGETS)
    for name in names:
        own = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in SETTINGS[name].items()
        }
        training = TrainingSpec(
            RATE,
            max_steps=STEPS,
            per_device_train_batch_size=batch,
            lr_scheduler_type="constant",
            preference=PreferenceSpec(**own),
        )
        whole = ("score",) if rewards else ()
        adapter = AdapterSpec(RANK, ALPHA, 0.0, targets, init_lora_weights=False, modules_to_save=whole)
        seat = trainer.join(Candidate(name, adapter, training))
        read_adapter(found[name]["start"], seat.adapter, base)
    told: dict[str, dict[str, Any]] = {
        name: {"loss": [], "grad_norm": [], "rewards": [], "kl": []} for name in names
    }
    for step in range(STEPS):
        window = [examples[i] for i in InOrder(batch).rows_of_step(step)]
        for name, sums in trainer.row_sums(window, list(names)).items():
            told[name]["rewards"].append(rewards_of(sums, SETTINGS[name]))
        events = trainer.tick()
        for event in events:
            if event.kind == "step":
                told[event.trial or ""]["loss"].append(event.data["loss"])
                told[event.trial or ""]["grad_norm"].append(event.data["grad_norm"])
    for name in names:
        tensors = trainer.seats[name].adapter.tensors()
        told[name]["weights"] = {f"base_model.model.{entry.key}": value for entry, value in tensors}
    return told


def rewards_of(sums: Any, setting: dict[str, Any]) -> list[float]:
    """What TRL logs of rewards (`REWARDS`)."""
    if sums.rewards is not None:
        chosen, rejected = sums.rewards[:, 0], sums.rewards[:, 1]
        return [float((chosen + rejected).mean() / 2), float((chosen - rejected).mean())]
    means: list[float] = []
    for logp, reference, tokens in (sums.answers[:, :3].T, sums.answers[:, 3:].T):
        there = tokens > 0
        reward = logp - reference
        if setting["loss_type"][0] in ("orpo", "simpo"):
            reward = logp / np.maximum(tokens, 1)
        means.append(setting["beta"] * float(reward[there].mean()))
    return means


# -- both -----------------------------------------------------------------------------------------------


def difference(one: Any, other: Any) -> float:
    """The largest, as a share of the other's largest number."""
    left, right = np.asarray(one, np.float64), np.asarray(other, np.float64)
    return float(np.abs(left - right).max() / max(np.abs(right).max(), 1e-12))


def compared(mine: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    keys = sorted(other["weights"])
    left, right = ({key: one["weights"][key] for key in keys} for one in (mine, other))
    weights = max(float((left[key].reshape(right[key].shape) - right[key]).abs().max()) for key in keys)
    told = ("loss", "rewards", "grad_norm")
    return {
        **{f"first_{name}": difference(mine[name][:1], other[name][:1]) for name in told},
        **{name: difference(mine[name], other[name]) for name in told},
        "weights": weights / max(float(one.abs().max()) for one in right.values()),
    }


def run(shared: Path, packs: tuple[tuple[str, ...], ...] = PACKS) -> dict[str, dict[str, float]]:
    """The table."""
    model = str(shared / "models" / "tinychat-5M")
    rows = pairs.intents(shared, "train", STEPS * BATCH, 0)
    table: dict[str, dict[str, float]] = {}
    for names in packs:
        with tempfile.TemporaryDirectory() as folder:
            found = {name: theirs(name, model, rows, Path(folder)) for name in names}
            mine = ours(names, model, found)
        for name in names:
            table[name] = compared(mine[name], found[name])
            print(name, {key: f"{value:.1e}" for key, value in table[name].items()}, flush=True)
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("parity.json"))
    asked = parser.parse_args()
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    torch.set_num_threads(1)
    import trl

    table = run(asked.shared)
    said = {"trl": trl.__version__, "steps": STEPS, "pairs_a_step": BATCH, "largest_difference": table}
    asked.out.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
