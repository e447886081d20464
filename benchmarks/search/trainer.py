"""The usual way: PEFT + transformers.Trainer, one candidate after another on a base
that stays loaded."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import gettempdir
from typing import Any

import torch
from definitions import TRAIN_ROWS, WARMUP
from peft import LoraConfig, get_peft_model
from tasks import EVALUATIONS, Task
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from loraloom.data.batches import collate
from loraloom.data.rows import Row
from loraloom.search.space import BATCH, RATE
from loraloom.train.schedule import warmup_steps

WARM, COUNTED = 3, 8
"""Steps before the clock starts, and steps that are timed."""
SEED = 42


class Alone:
    """Trains settings of a task's space one at a time.

    What PEFT does to the base is undone after each: nothing is read from disk twice.

    Args:
        dtype: of the base; None for the one that our engine has.
    """

    def __init__(self, task: Task, dtype: torch.dtype | None = None) -> None:
        self.task = task
        self.base: Any = task.prepared.load_base().model.to(dtype)
        self._rows = list(task.prepared.data.train)
        self._validation = list(task.validation)

    def train(self, params: Mapping[str, Any], seed: int) -> float:
        """A whole training with its evaluations; gives the lowest validation loss."""
        made = self._made(params, seed)
        made.train()
        self._undo(made)
        losses: list[float] = [
            entry["eval_loss"] for entry in made.state.log_history if "eval_loss" in entry
        ]
        return min(losses)

    def step_seconds(self, params: Mapping[str, Any]) -> float:
        """CPU seconds of the median step."""
        watch = _Watch()
        made = self._made(params, SEED, watch)
        made.train()
        self._undo(made)
        return median(
            after - before
            for before, after in zip(watch.ends[WARM:], watch.ends[WARM + 1 :], strict=False)
        )

    def evaluation_seconds(self) -> float:
        """CPU seconds of one evaluation."""
        made = self._made({}, SEED)
        made.evaluate()
        taken: list[float] = []
        for _ in range(3):
            began = time.process_time()
            made.evaluate()
            taken.append(time.process_time() - began)
        self._undo(made)
        return median(taken)

    def startup_seconds(self, params: Mapping[str, Any]) -> float:
        """CPU seconds between two trainings: a new adapter, a new Trainer, and what
        PEFT put on the base taken off."""
        taken: list[float] = []
        for seed in range(3):
            began = time.process_time()
            self._undo(self._made(params, seed))
            taken.append(time.process_time() - began)
        return median(taken)

    def _made(self, params: Mapping[str, Any], seed: int, watch: _Watch | None = None) -> Trainer:
        adapter = self.task.candidate("alone", params, seed).adapter
        config = LoraConfig(
            r=adapter.r,
            lora_alpha=int(adapter.lora_alpha),
            lora_dropout=adapter.lora_dropout,
            target_modules=list(adapter.target_modules),
            modules_to_save=list(adapter.modules_to_save) or None,
        )
        settings = {**self.task.plan, **params}
        batch = settings[BATCH]
        planned = -(-TRAIN_ROWS // batch)
        arguments = TrainingArguments(
            output_dir=str(Path(gettempdir()) / "search-benchmark"),
            use_cpu=True,
            num_train_epochs=1,
            seed=seed,
            max_steps=WARM + COUNTED + 1 if watch else -1,
            per_device_train_batch_size=batch,
            per_device_eval_batch_size=32,
            learning_rate=settings[RATE],
            lr_scheduler_type="linear",
            weight_decay=0.0,
            warmup_steps=warmup_steps(planned, settings[WARMUP]),
            eval_strategy="no" if watch else "steps",
            eval_steps=planned // EVALUATIONS,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model: Any = get_peft_model(self.base, config)
            made = Trainer(
                model=model,
                args=arguments,
                train_dataset=_dataset(self._rows),
                eval_dataset=_dataset(self._validation),
                data_collator=self._collated,
                callbacks=[watch] if watch else None,
            )
        made.remove_callback(PrinterCallback)
        return made

    def _undo(self, made: Trainer) -> None:
        model: Any = made.model
        self.base = model.unload()

    def _collated(self, rows: Sequence[Row]) -> dict[str, Any]:
        batch = collate(rows, self.task.bench.base.pad_id, self.task.prepared.task)
        return {
            "input_ids": batch.input_ids.long(),
            "attention_mask": batch.attention_mask.long(),
            "labels": batch.labels.long(),
        }


class _Watch(TrainerCallback):
    """CPU time at the end of each step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ends.append(time.process_time())


def _dataset(rows: Sequence[Row]) -> Any:
    """Trainer reads any sequence; the collator does the rest."""
    return rows
