"""Smaller and larger bases, short and long rows: 1 and 16 candidates beside PEFT's
plain loop, with forecasts."""

from __future__ import annotations

from steps.bench import Bench, tidy_up
from steps.packs import DTYPE, measured
from steps.speed import peft_loop
from steps.training import build


def measure(bench: Bench) -> None:
    shapes, lengths, packs = (
        (("small",), (8,), (1, 2)) if bench.small else (("0.5B", "3B"), (128, 1024), (1, 16))
    )
    for shape in shapes:
        model = build(shape, DTYPE, bench.device)
        for tokens in lengths:
            where = f"{shape}, {tokens} tokens"
            bench.part(f"{where}, PEFT loop", lambda m=model, t=tokens: peft_loop(bench, m, t))
            for packed in packs:
                bench.part(
                    f"{where}, K={packed}",
                    lambda m=model, s=shape, k=packed, t=tokens: measured(bench, m, s, k, t),
                )
        del model
        tidy_up()
