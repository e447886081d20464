"""One way to hold a base and to train over it, in a process of its own.

    python benchmarks/memory/one_arm.py held '{"kind": "nf4", "packed": 4, ...}'

prints one JSON document. `timed` is how long a step takes and what training adds to the loaded base,
`held` what the whole process takes beside the plan's forecast, `probed` the forecast after a probe.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from torch import nn

from loraloom.config.asked import Config
from loraloom.config.decode import load_config
from loraloom.pipeline.preflight.rehearsal import rehearse
from loraloom.pipeline.prepare import Prepared, prepare
from loraloom.pipeline.probe import PASSES, with_timing
from loraloom.pipeline.probe import timed as timed_by_probe
from loraloom.pipeline.workbench import Workbench
from loraloom.plan.correction import by_probe
from loraloom.plan.planner import candidate
from loraloom.plan.time import ticks_of_search

Kind = Literal["bf16", "nf4", "int8", "peft nf4"]

RANK, ALPHA, RATE = 8, 8, 5e-5
FAR = 1000
"""Steps that are planned, so that no candidate ends while it is measured."""
SETTLING = 4
"""Steps before the evaluation of an arm whose memory is measured; one more comes after it."""


@dataclass(frozen=True)
class Arm:
    """`packed` candidates at once, batch 1, on rows of `tokens`.

    Attributes:
        kind: how the base is held; "peft nf4" is PEFT over bitsandbytes' own layers, one candidate.
        base: folder of the model.
        rows: folder with `train.jsonl` and `validation.jsonl` of this length.
    """

    kind: Kind
    packed: int
    tokens: int
    base: str
    rows: str

    @property
    def quantization(self) -> str:
        return {"bf16": "none", "peft nf4": "nf4"}.get(self.kind, self.kind)

    @property
    def config(self) -> Config:
        """What a person would ask for to train this."""
        values: dict[str, Any] = {
            "model.name_or_path": self.base,
            "model.dtype": "bfloat16",
            "model.quantization": self.quantization,
            "data.train": f"{self.rows}/train.jsonl",
            "data.validation": f"{self.rows}/validation.jsonl",
            "data.max_length": self.tokens,
            "adapter.r": RANK,
            "adapter.lora_alpha": float(ALPHA),
            "adapter.lora_dropout": 0.0,
            "adapter.target_modules": "all-linear",
            "training.learning_rate": RATE,
            "training.max_steps": FAR,
            "training.per_device_train_batch_size": 1,
            "training.gradient_accumulation_steps": 1,
            "training.gradient_checkpointing": False,
            "limits.max_packed": self.packed,
            "search.trials": self.packed,
            "search.pruner": "none",
            "search.seeds_for_finalists": 1,
        }
        return load_config(None, values)


@dataclass(frozen=True)
class Pace:
    """After `warmup` steps at least `least`, and as many as fit into `seconds`."""

    warmup: int = 2
    least: int = 4
    seconds: float = 1.0


def timed(arm: Arm, pace: Mapping[str, Any]) -> dict[str, Any]:
    """Milliseconds of a step, in which each candidate moves once; bytes above the loaded base."""
    asked = Pace(**pace)
    # On one thread seconds of the processor: what else runs on the machine does not count.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    step, finish = (peft_step if arm.kind == "peft nf4" else packed_step)(arm)
    before = status("VmRSS")
    forget_peak()
    for _ in range(asked.warmup):
        step()
    laps: list[float] = []
    while len(laps) < asked.least or sum(laps) < asked.seconds:
        began = clock()
        step()
        laps.append(clock() - began)
    return {
        "step_ms": 1e3 * median(laps),
        "steps": len(laps),
        "peak_bytes": status("VmHWM") - before,
    } | (finish())


def packed_step(arm: Arm) -> tuple[Callable[[], object], Callable[[], dict[str, Any]]]:
    """A tick of the whole pack, and what else is known of it."""
    prepared = prepare(arm.config)
    bench = Workbench(prepared)
    # Once through the base, so that what it needs itself is not counted as training's.
    bench.score_base(prepared.data.validation[:1], "validation")
    seat(bench, arm.packed)
    first = next(iter(bench.trainer.seats.values()))
    return bench.trainer.tick, lambda: {"trained": first.adapter.arena.numel}


def peft_step(arm: Arm) -> tuple[Callable[[], object], Callable[[], dict[str, Any]]]:
    """Forward, backward, clip, fused AdamW, zero, over bitsandbytes' own layers. They stay in train():
    in eval mode they repack themselves on some processors, and the gradient is lost."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    prepared = prepare(arm.config)
    bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    base: Any = AutoModelForCausalLM.from_pretrained(
        arm.base, dtype=torch.bfloat16, quantization_config=bits
    )
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(base, config).train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, fused=True)
    rows = [torch.as_tensor(row.input_ids).long()[None] for row in prepared.data.train]
    turn = iter(range(10**9))

    def step() -> None:
        ids = rows[next(turn) % len(rows)]
        model(input_ids=ids, labels=ids).loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    model(input_ids=rows[0], labels=rows[0]).loss.backward()
    optimizer.zero_grad()
    return step, lambda: {"trained": sum(weight.numel() for weight in trained)}


def held(arm: Arm, _: Mapping[str, Any]) -> dict[str, Any]:
    """The process at its widest while it loads, trains and evaluates, beside the plan's forecast."""
    prepared = prepare(arm.config)
    memory, before = prepared.plan.forecast["memory"], status("VmRSS")
    forget_peak()
    bench = Workbench(prepared)
    loading = status("VmHWM")
    forget_peak()
    names = seat(bench, arm.packed)
    for _ in range(SETTLING):
        bench.trainer.tick()
    bench.trainer.evaluate(names)
    bench.trainer.tick()
    return {
        "measured_bytes": status("VmHWM"),
        "before_bytes": before,
        "loading_bytes": loading,
        "base_bytes": bench.base.stored_bytes,
        "forecast_bytes": memory.value,
        "forecast_parts": dict(memory.parts),
        "forecast_ms": _tick_ms(prepared),
    }


def probed(arm: Arm, _: Mapping[str, Any]) -> dict[str, Any]:
    """What `plan --probe` says, its steps timed in seconds of the processor."""
    prepared = prepare(arm.config)
    load = cache(prepared.load_base)
    rehearsal = rehearse(load, prepared.plan, prepared.data, PASSES)
    memory = by_probe(prepared.plan.forecast["memory"], rehearsal.peak_bytes)
    timing = timed_by_probe(prepared, load(), clock=time.process_time)
    found = with_timing(prepared, memory, timing, share=1.0)
    return {"probed_bytes": found.plan.forecast["memory"].value, "probed_ms": _tick_ms(found)}


def seat(bench: Workbench, packed: int) -> list[str]:
    made = [
        candidate(bench.prepared.plan, f"t{number}", {}, seed_offset=number) for number in range(packed)
    ]
    for one in made:
        bench.trainer.join(one)
    return [one.id for one in made]


def _tick_ms(prepared: Prepared) -> float:
    """Of a tick of the whole pack, as the plan foretells it."""
    parts = prepared.plan.forecast["time"].parts
    return 1e3 * (parts["training"] + parts["layers"]) / ticks_of_search(prepared.plan.case)


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def status(key: str) -> int:
    """Bytes of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


MODES: dict[str, Callable[[Arm, Mapping[str, Any]], dict[str, Any]]] = {
    "timed": timed,
    "held": held,
    "probed": probed,
}


def main(words: list[str]) -> dict[str, Any]:
    mode, arm, pace = words[0], Arm(**json.loads(words[1])), json.loads(words[2])
    return {"arm": asdict(arm)} | MODES[mode](arm, pace)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
