"""What is promised of the GPU, each beside what a result says of it. A table is made of
a result and of nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

NOT_MEASURED = "not measured"
HEADLINE = 16
"""Candidates of the pack that the targets speak of."""

Result = dict[str, Any]


def part(result: Result, step: str, name: str) -> dict[str, Any] | None:
    """What a part found; None where it did not end well."""
    found = result["steps"].get(step, {}).get("parts", {}).get(name)
    return found if found is not None and found["status"] == "done" else None


def over(result: Result, *names: str) -> float | None:
    """How many times as fast 16 candidates train at once as one after another, by the
    fastest of these."""
    packed = part(result, "speed", f"K={HEADLINE}")
    alone = [found["run_ms"] for name in names if (found := part(result, "speed", name))]
    return HEADLINE * min(alone) / packed["run_ms"] if packed and alone else None


def value_of(step: str, name: str, key: str) -> Callable[[Result], float | None]:
    def read(result: Result) -> float | None:
        found = part(result, step, name)
        value = None if found is None else found.get(key)
        return float(value) if isinstance(value, int | float) else None

    return read


def parts_of(result: Result, *steps: str) -> list[tuple[str, dict[str, Any]]]:
    """All parts of some steps that ended well, by name."""
    return [
        (name, found)
        for step in steps
        for name, found in result["steps"].get(step, {}).get("parts", {}).items()
        if found["status"] == "done"
    ]


def worst(key: str, *steps: str) -> Callable[[Result], float | None]:
    """The largest of a key's sizes over all packs of these steps."""

    def read(result: Result) -> float | None:
        sizes = [
            abs(found[key])
            for _, found in parts_of(result, *steps)
            if isinstance(found.get(key), int | float)
        ]
        return max(sizes, default=None)

    return read


def uneven(result: Result) -> float | None:
    """Speed of uneven batches as a share of that of even ones."""
    ratio = value_of("switches", "uneven batches: 1 and 3 rows", "ratio")(result)
    return None if ratio is None else 1 / ratio


def gain(name: str) -> Callable[[Result], float | None]:
    """How many times as slow a tick is with something taken back or added."""
    return value_of("switches", name, "ratio")


def contract(result: Result) -> float | None:
    """Comparisons that agree, as a share; None where none was made."""
    found = result["steps"].get("contract", {}).get("parts", {})
    made = [
        each["status"] for each in found.values() if each["status"] in ("done", "failed", "timed out")
    ]
    return made.count("done") / len(made) if made else None


def ended_well(step: str, name: str) -> Callable[[Result], float | None]:
    """1 where a part ended as it should, 0 where it failed."""

    def read(result: Result) -> float | None:
        status = result["steps"].get(step, {}).get("parts", {}).get(name, {}).get("status")
        return {"done": 1.0, "failed": 0.0, "timed out": 0.0}.get(status)

    return read


@dataclass(frozen=True)
class Row:
    """A line of the table. `target` is met from above (">=") or below ("<="); None for
    what is only shown."""

    text: str
    read: Callable[[Result], float | None]
    show: str
    sign: str = ">="
    target: float | None = None

    def cells(self, result: Result) -> tuple[str, str, str, str]:
        reached = self.read(result)
        wanted = "" if self.target is None else f"{self.sign} {self.show.format(self.target)}"
        if reached is None:
            return self.text, wanted, NOT_MEASURED, ""
        shown = self.show.format(reached)
        if self.target is None:
            return self.text, wanted, shown, ""
        met = reached >= self.target if self.sign == ">=" else reached <= self.target
        return self.text, wanted, shown, "met" if met else "missed"


TIMES, SHARE, NUMBER, MS = "{:.2f} times", "{:.1%}", "{:.1f}", "{:.1f} ms"
TRAINERS = ("PEFT + Trainer", "PEFT + Trainer, bf16")
LOOPS = ("PEFT loop", "PEFT loop, autocast")
ROWS = (
    Row(
        "comparisons with the CPU, with training alone and with plain twins that agree",
        contract,
        SHARE,
        ">=",
        1.0,
    ),
    Row(
        "K=16 over PEFT + Trainer one after another (aim: 12)",
        lambda result: over(result, *TRAINERS),
        TIMES,
        ">=",
        8.0,
    ),
    Row("K=16 over PEFT in a plain loop", lambda result: over(result, *LOOPS), TIMES),
    Row("uneven batches, speed of even ones", uneven, SHARE, ">=", 0.9),
    Row("memory forecast, largest error at 1B", worst("memory_error", "speed"), SHARE, "<=", 0.03),
    Row(
        "memory forecast, largest error at 0.5B and 3B",
        worst("memory_error", "sizes"),
        SHARE,
        "<=",
        0.03,
    ),
    Row(
        "time forecast before a probe, largest error at 1B",
        worst("time_error", "speed"),
        SHARE,
        "<=",
        0.15,
    ),
    Row(
        "waits of the host a tick, K=16",
        value_of("where_time_goes", "waits, K=16", "waits_per_tick"),
        NUMBER,
        "<=",
        2.0,
    ),
    Row("dropout 0.05, time of a tick without", gain("dropout 0.05"), TIMES, "<=", 1.3),
    Row("ranks differ, time of a tick with like ones", gain("ranks 4 and 12"), TIMES, "<=", 1.1),
    Row("targets differ, time of a tick of all with all", gain("targets differ"), TIMES, "<=", 1.1),
    Row(
        "memory runs out: halved, the same losses (1: yes)",
        ended_well("out_of_memory", "halved"),
        "{:.0f}",
        ">=",
        1.0,
    ),
    Row("K=1, a tick", value_of("speed", "K=1", "run_ms"), MS),
    Row("K=16, a tick", value_of("speed", "K=16", "run_ms"), MS),
    Row("K=32, a tick", value_of("speed", "K=32", "run_ms"), MS),
    Row("PEFT + Trainer, a step", value_of("speed", "PEFT + Trainer", "run_ms"), MS),
    Row(
        "launches a tick, K=16",
        value_of("where_time_goes", "profile, K=16", "launches_per_tick"),
        "{:,.0f}",
    ),
    Row(
        "time in which the device is busy, K=16",
        value_of("where_time_goes", "profile, K=16", "busy_share"),
        SHARE,
    ),
    Row("kernels off, time of a tick", gain("kernels off"), TIMES),
    Row("fused norms off, time of a tick", gain("fused off"), TIMES),
    Row("CUDA graph on, time of a tick", gain("graphs on"), TIMES),
    Row("49 rows of logits at once, time of a tick", gain("49 rows of logits at once"), TIMES),
    Row(
        "NF4 base, K=16, 4,096 tokens a pass, time of a tick over bfloat16",
        value_of("nf4", "K=16", "ratio"),
        TIMES,
        "<=",
        1.05,
    ),
    Row("NF4 base, K=1, the same", value_of("nf4", "K=1", "ratio"), TIMES),
    Row(
        "inputs of blocks on the host, time of a tick",
        value_of("nf4", "offload", "ratio"),
        TIMES,
        "<=",
        1.05,
    ),
    Row(
        "inputs of blocks on the host: the same weights (1: yes)",
        value_of("nf4", "offload", "same"),
        "{:.0f}",
        ">=",
        1.0,
    ),
    Row(
        "8B in NF4, four candidates of r 16 at 2,048 tokens, peak memory",
        value_of("nf4", "8B, K=4", "peak_gb"),
        "{:.1f} GB",
        "<=",
        12.0,
    ),
)


def table(result: Result) -> str:
    """Markdown."""
    lines = ["| what | target | result | |", "| --- | --- | --- | --- |"]
    return "\n".join(
        [*lines, *(f"| {' | '.join(row.cells(result))} |".replace("|  |", "| |") for row in ROWS)]
    )
