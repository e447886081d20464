"""Causal attention on a CPU, forwards and backwards: torch's fused kernel, a whole
table of scores, blocks of queries.

    python benchmarks/attention/run.py          # about a minute; writes result.json
    python benchmarks/attention/run.py --show   # the committed result

All three are timed in turn in one run, the best of several repeats each. What
`loraloom` takes for a shape is marked.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from loraloom.facts.device import environment
from loraloom.lora.attention import LONGEST, RowAttention, causal_bias
from loraloom.lora.attention_blocks import BlockAttention, takes

RESULT = Path(__file__).resolve().parent / "result.json"
SHAPES = ((8, 4, 8), (9, 3, 64), (12, 12, 64))
"""Heads, key heads, features of a head: stories260K, a small LLaMA, GPT-2."""
LENGTHS = (64, 128, 256, 512, 1024, 2048)
DTYPES = (torch.float32, torch.bfloat16)
ROWS, REPEATS = 2, 7


def inputs(heads: int, groups: int, width: int, length: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """q, k, v and the gradient of the output, as models make them: [B, H, T, D] seen
    through a transpose."""
    torch.manual_seed(0)
    made = [
        torch.randn(ROWS, length, n, width, dtype=dtype).transpose(1, 2)
        for n in (heads, groups, groups, heads)
    ]
    return *(x.requires_grad_() for x in made[:3]), made[3]


def ways(q: Tensor, k: Tensor, v: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Each way to the same output."""
    heads, groups, length, scale = q.shape[1], k.shape[1], q.shape[2], q.shape[-1] ** -0.5
    bias = causal_bias(length, length, heads // groups, q.dtype, q.device)
    return {
        "fused": lambda: F.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=heads != groups
        ),
        "table": lambda: RowAttention.apply(q, k, v, bias, scale),  # type: ignore[dict-item, return-value]
        "blocks": lambda: BlockAttention.apply(q, k, v, None, scale),  # type: ignore[dict-item, return-value]
    }


def taken(q: Tensor, k: Tensor) -> str:
    """Which of them the engine uses for a row of this length."""
    if q.shape[2] <= LONGEST[q.dtype]:
        return "table"
    return "blocks" if takes(q, k, None) else "fused"


def milliseconds(way: Callable[[], Tensor], leaves: Sequence[Tensor], grad: Tensor) -> float:
    """The best time of a forward and a backward pass, a row."""
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        torch.autograd.grad(way(), leaves, grad)
        best = min(best, time.perf_counter() - started)
    return round(1e3 * best / ROWS, 3)


def measure(threads: int) -> list[dict[str, Any]]:
    torch.set_num_threads(threads)
    found: list[dict[str, Any]] = []
    for dtype in DTYPES:
        for heads, groups, width in SHAPES:
            for length in LENGTHS:
                q, k, v, grad = inputs(heads, groups, width, length, dtype)
                times = {name: milliseconds(way, (q, k, v), grad) for name, way in ways(q, k, v).items()}
                row = {
                    "dtype": str(dtype).removeprefix("torch."),
                    "heads": heads,
                    "key_heads": groups,
                    "width": width,
                }
                found.append(row | {"length": length, "milliseconds": times, "taken": taken(q, k)})
    return found


def table(result: dict[str, Any]) -> str:
    lines = [
        f"{'dtype':<9} {'heads':>6} {'width':>6} {'tokens':>7} {'fused':>9} {'table':>9} {'blocks':>9}  "
        " fused over taken"
    ]
    for row in result["shapes"]:
        times, shape = row["milliseconds"], f"{row['heads']}/{row['key_heads']}"
        cells = "".join(f"{times[name]:>9.2f}{'*' if name == row['taken'] else ' '}" for name in times)
        gain = times["fused"] / times[row["taken"]]
        lines.append(
            f"{row['dtype']:<9} {shape:>6} {row['width']:>6} {row['length']:>7} {cells}   {gain:.2f}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1, help="cores that each kernel uses")
    parser.add_argument("--show", action="store_true", help="print the committed result and leave")
    asked = parser.parse_args(arguments)
    if not asked.show:
        about, shapes = environment(), measure(asked.threads)
        result = {
            "command": "python benchmarks/attention/run.py",
            "date": time.strftime("%Y-%m-%d"),
            "threads": asked.threads,
            "machine": about["device"]["name"],
            "versions": {"python": about["python"], **about["packages"]},
            "unit": "milliseconds a row, forwards and backwards",
            "shapes": shapes,
        }
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(json.loads(RESULT.read_text(encoding="utf-8"))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
