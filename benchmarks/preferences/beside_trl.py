"""Eight DPO candidates in one pack beside runs of TRL's DPOTrainer, one by one.

Both train r 16 on all linear layers but the head over the same float32 base, with the same pairs, batch
and steps, in one thread. What is timed is the training itself, with whatever the reference takes: the
base is loaded, the rows are encoded, and nothing is scored. Seconds are those of the processor
(`process_time`), and the two take turns, since others may use the machine.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pairs
from runs import RATE, request

CANDIDATES, RUNS_OF_TRL, ROUNDS = 8, 2, 3
STEPS, BATCH, RANK, ALPHA = 10, 8, 16, 32
LOWEST_RATE, BETAS = 2e-5, (0.05, 0.1, 0.2, 0.3)


def ours(shared: Path, work: Path, files: dict[str, Any]) -> Callable[[], float]:
    """A round of eight candidates of different rates and betas."""
    from loraloom.config.decode import load_config
    from loraloom.pipeline.candidates import job
    from loraloom.pipeline.prepare import prepare
    from loraloom.pipeline.workbench import Workbench

    asked = request(shared, work, "beside TRL", {**files, "data.validation": None})
    asked |= {
        "adapter.r": RANK,
        "adapter.lora_alpha": ALPHA,
        "adapter.target_modules": "all-linear",
        "training.max_steps": STEPS,
        "training.per_device_train_batch_size": BATCH,
        "limits.max_packed": CANDIDATES,
        "model.dtype": "float32",
    }

    def once() -> float:
        bench = Workbench(prepare(load_config(None, asked)))
        bench.base  # noqa: B018  (loaded, as TRL's is)
        # What the reference makes of the rows is found anew, and not read from an earlier round's file.
        os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(dir=work)
        started = time.process_time()
        trainer = bench.trainer
        for number in range(CANDIDATES):
            beta, rate = BETAS[number % len(BETAS)], LOWEST_RATE * 2 ** (number // 2)
            made = job(bench.prepared, f"c{number}", {RATE: rate, "preference.beta": beta})
            trainer.join(made.candidate)
        while len(trainer.finished()) < CANDIDATES:
            trainer.tick()
        return time.process_time() - started

    return once


def theirs(shared: Path, work: Path, file: str) -> Callable[[], float]:
    """One run of TRL."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    name = str(shared / "models" / "tinychat-5M")
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    rows = [
        {side: [{"role": role, "content": row[side]}] for side, role in roles.items()}
        for row in pairs.rows_of(Path(file))
    ]
    settings = DPOConfig(
        output_dir=str(work / "trl"),
        per_device_train_batch_size=BATCH,
        max_steps=STEPS,
        learning_rate=LOWEST_RATE,
        beta=0.1,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    adapter = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")

    def once() -> float:
        trainer = DPOTrainer(
            AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32),
            args=settings,
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(name),
            peft_config=adapter,
        )
        started = time.process_time()
        trainer.train()
        return time.process_time() - started

    return once


def run_all(shared: Path, work: Path) -> dict[str, Any]:
    """Rounds of ours and of two runs of theirs, in turns."""
    import torch
    import trl

    torch.set_num_threads(1)
    file = pairs.write(work / "trl-train.jsonl", pairs.intents(shared, "train", BATCH * STEPS, 0))
    packed, alone = ours(shared, work, {"data.train": file}), theirs(shared, work, file)
    rounds: list[dict[str, float]] = []
    for number in range(ROUNDS):
        took = {"ours": packed(), "theirs": sum(alone() for _ in range(RUNS_OF_TRL))}
        rounds.append({**took, "ratio": took["ours"] / took["theirs"]})
        print(f"round {number}: {took}, ratio {rounds[-1]['ratio']:.2f}", flush=True)
    return {
        "trl": trl.__version__,
        "candidates": CANDIDATES,
        "runs_of_trl": RUNS_OF_TRL,
        "steps": STEPS,
        "pairs_a_step": BATCH,
        "rounds": rounds,
        "ratio": median(one["ratio"] for one in rounds),
    }
