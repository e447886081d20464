"""One run of our engine in a process of its own: its peak memory as Linux counts it, or its time.

python measure.py trained '{"family": "llama", "rank": 16, ...}'
        # a shape of shapes.py; prints one JSON document
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers as tf
from peft import LoraConfig, get_peft_model
from shapes import Shape, config_of

from loraloom.adapters.base_files import BaseFiles
from loraloom.adapters.form import read_form
from loraloom.adapters.merge import plan_merge
from loraloom.adapters.operations import apply
from loraloom.config.asked import AdapterConfig, Config, LimitsConfig, ModelConfig, TrainingConfig
from loraloom.data.rows import Encoded, Row
from loraloom.evals.objective import objective_for
from loraloom.evals.writing import BATCH, PROMPT_SHARE, continuations
from loraloom.facts.data import data_facts
from loraloom.facts.device import device_facts
from loraloom.facts.model import ModelFacts, model_facts
from loraloom.lora.base import Base
from loraloom.lora.frozen import keep_few_programs
from loraloom.lora.packed import PackedModel
from loraloom.pipeline.preflight.rehearsal import rehearse
from loraloom.pipeline.prepare import Prepared
from loraloom.pipeline.probe import PASSES
from loraloom.pipeline.probe import timed as timed_by_probe
from loraloom.plan.correction import by_probe
from loraloom.plan.planner import Facts, Plan, candidate, make_plan
from loraloom.plan.time import with_measured
from loraloom.records import Estimate, Task
from loraloom.train.pack import PackTrainer

AUTO: dict[str, Any] = {
    "causal_lm": tf.AutoModelForCausalLM,
    "seq_cls": tf.AutoModelForSequenceClassification,
    "seq2seq_lm": tf.AutoModelForSeq2SeqLM,
}
TICKS = 4
"""Before the evaluation of a run whose memory is measured; one more comes after it."""
STEPS = 40
"""Of a run whose time is measured."""
HEADS = {"bert": ("classifier",)}


def rows_of(task: Task, count: int, shortest: int, longest: int, seed: int) -> tuple[Row, ...]:
    """Random rows, wholly supervised."""
    draw = np.random.default_rng(seed)
    made: list[Row] = []
    for _ in range(count):
        ids = draw.integers(3, 1000, draw.integers(shortest, longest + 1)).astype(np.int32)
        labels = ids.copy()
        if task == "causal_lm":
            labels[0] = -100
        made.append(Row(ids, draw.integers(0, 2, 1).astype(np.int32) if task == "seq_cls" else labels))
    return tuple(made)


def plan_of(shape: Shape, facts: ModelFacts, data: Encoded, steps: int) -> Plan:
    """The plan of exactly this run."""
    asked = Config(
        model=ModelConfig(dtype=shape.dtype),  # type: ignore[arg-type]
        adapter=AdapterConfig(r=shape.rank, target_modules=shape.targets, lora_dropout=0.0),
        training=TrainingConfig(
            per_device_train_batch_size=shape.rows,
            gradient_checkpointing=shape.checkpointing or "auto",
            gradient_accumulation_steps=1,
            max_steps=steps,
        ),
        limits=LimitsConfig(max_packed=shape.packed),
    )
    return make_plan(asked, Facts(facts, data_facts(data), device_facts("cpu")))


@dataclass(frozen=True)
class Subject:
    """A shape made real: its plan, and a model with random weights."""

    shape: Shape
    plan: Plan
    model: Any
    data: Encoded
    before: int
    """Bytes that the process held before there was a model."""

    @property
    def base(self) -> Base:
        return Base(
            "made",
            self.data.task,
            self.model,
            SimpleNamespace(pad_token_id=0),
            HEADS.get(self.shape.family, ()),
        )


def subject(shape: Shape, steps: int = 100) -> Subject:
    config, task = config_of(shape.family)
    names = ("no", "yes") if task == "seq_cls" else None
    shortest = shape.length // 4 if shape.varied else shape.length
    train, validation = (
        rows_of(task, count, shortest, shape.length, seed) for seed, count in enumerate((64, 16))
    )
    data = Encoded(train, validation, (), (), task, "made", names)
    with TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        facts = model_facts(folder, task=task, num_labels=2 if names else None)
    plan = plan_of(shape, facts, data, steps)
    before, values = status("VmRSS"), plan.values()
    torch.manual_seed(0)
    keep_few_programs()
    model = AUTO[task].from_config(
        config,
        attn_implementation=values["model.attn_implementation"],
        dtype=getattr(torch, shape.dtype),
    )
    # What building the model has left behind is no part of what comes.
    ctypes.CDLL(None).malloc_trim(0)
    return Subject(shape, plan, model.eval(), data, before)


def described(one: Subject, forecast: Estimate) -> dict[str, Any]:
    """What every record begins with."""
    return {
        "name": one.shape.name,
        "shape": asdict(one.shape),
        "parameters": one.plan.facts.model.parameters,
        "forecast_bytes": round(forecast.value),
        "parts": {name: round(size) for name, size in forecast.parts.items()},
        "before_bytes": one.before,
        "loaded_bytes": status("VmRSS"),
    }


def trainer_of(one: Subject) -> PackTrainer:
    objective = objective_for(one.data.task, one.model)
    packed = PackedModel(one.model, fresh_modules=HEADS.get(one.shape.family, ()))
    return PackTrainer(
        packed,
        one.data.train,
        objective,
        task=one.data.task,
        pad_id=0,
        validation=one.data.validation,
        token_budget=one.plan.token_budget,
        checkpointing=one.shape.checkpointing,
    )


def trained(shape: Shape) -> dict[str, Any]:
    """The peak of training and evaluation."""
    one = subject(shape)
    record, trainer = described(one, one.plan.forecast["memory"]), trainer_of(one)
    forget_peak()
    names = [f"t{number}" for number in range(shape.packed)]
    for name in names:
        trainer.join(candidate(one.plan, name, {}))
    for _ in range(TICKS):
        trainer.tick()
    training = status("VmHWM")
    trainer.evaluate(names)
    trainer.tick()
    return record | {"training_bytes": training, "measured_bytes": status("VmHWM")}


def probed(shape: Shape) -> dict[str, Any]:
    """The forecast after a probe, as `plan --probe` makes it."""
    one = subject(shape)
    forecast, rehearsal = (
        one.plan.forecast["memory"],
        rehearse(lambda: one.base, one.plan, one.data, PASSES),
    )
    return {"probed_bytes": round(by_probe(forecast, rehearsal.peak_bytes).estimate.value)}


def answered(shape: Shape) -> dict[str, Any]:
    """The peak of writing: `BATCH` rows, their first half given, or all that an encoder reads."""
    one = subject(shape)
    record, task, half = (
        described(one, one.plan.forecast["generation"]),
        one.data.task,
        shape.length // PROMPT_SHARE,
    )
    read, new = (shape.length, shape.length) if task == "seq2seq_lm" else (half, shape.length - half)
    model = with_adapter(one)
    forget_peak()
    words = SimpleNamespace(eos_token_id=None, decode=lambda ids, **_: str(len(ids)))
    prompts = [row.input_ids[:read].tolist() for row in one.data.train[:BATCH]]
    continuations(model, prompts, words, task=task, pad_id=0, max_new_tokens=new)
    return record | {"measured_bytes": status("VmHWM")}


def exported(shape: Shape) -> dict[str, Any]:
    """The peak of writing an adapter merged into its base, from file to file, above what this process
    holds of the live model."""
    one = subject(shape)
    record, model = described(one, one.plan.forecast["export"]), with_adapter(one)
    with TemporaryDirectory() as place:
        folder, base = Path(place) / "adapter", Path(place) / "base"
        model.save_pretrained(folder)
        model.unload().save_pretrained(base)
        del model, one
        gc.collect()
        forget_peak()
        form = read_form(folder)
        apply(plan_merge(form, BaseFiles(base, form)), Path(place) / "merged")
    return record | {"measured_bytes": status("VmHWM")}


def with_adapter(one: Subject) -> Any:
    """The model with PEFT's adapter of this shape on it."""
    spec = candidate(one.plan, "adapter", {}).adapter
    return get_peft_model(
        one.model, LoraConfig(r=spec.r, lora_alpha=spec.r, target_modules=list(spec.target_modules))
    ).eval()


def timed(shape: Shape) -> dict[str, Any]:
    """Seconds of a run as `plan --probe` forecasts them from ten steps, and as they
    come, evaluations included.

    They are seconds of the processor: with one thread those that the clock shows where
    nothing else runs.
    """
    one = subject(shape, STEPS)
    plan = search_of(one.plan, shape.packed)
    prepared = Prepared(plan.config, plan.facts, plan, one.data, None, None)  # type: ignore[arg-type]
    timing = timed_by_probe(prepared, one.base, clock=time.process_time)
    forecast = with_measured(
        plan.forecast["time"], plan.case, timing.tick_seconds, timing.evaluation_seconds
    )
    trainer = trainer_of(one)
    for number in range(shape.packed):
        trainer.join(candidate(plan, f"t{number}", {}, seed_offset=number))
    trainer.tick()
    started, by_the_clock = time.process_time(), time.perf_counter()
    for _ in range(STEPS - 1):
        trainer.tick()
        if due := trainer.due():
            trainer.evaluate(due)
    used = time.process_time() - started
    return {
        "name": shape.name,
        "forecast_seconds": forecast.value - forecast.parts["startup"],
        "measured_seconds": used * STEPS / (STEPS - 1),
        "processor_share": used / (time.perf_counter() - by_the_clock),
        "before_probe_seconds": plan.forecast["time"].value - plan.forecast["time"].parts["startup"],
        "tick_seconds": [round(seconds, 4) for _, seconds in timing.ticks],
        "usual_tick_seconds": timing.tick_seconds,
        "evaluation_seconds": timing.evaluation_seconds,
    }


def search_of(plan: Plan, trials: int) -> Plan:
    """The plan of a search with so many candidates and no race after it."""
    config = replace(
        plan.config, search=replace(plan.config.search, trials=trials, seeds_for_finalists=1)
    )
    return make_plan(config, plan.facts)


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


MODES: dict[str, Callable[[Shape], dict[str, Any]]] = {
    "trained": trained,
    "probed": probed,
    "answered": answered,
    "exported": exported,
    "timed": timed,
}

if __name__ == "__main__":
    print(json.dumps(MODES[sys.argv[1]](Shape(**json.loads(sys.argv[2])))))
