"""One pack of like candidates: ticks timed, memory at its widest, both beside their forecasts."""

from __future__ import annotations

from typing import Any

from loraloom.evals.scoring import EVALUATION_FACTOR
from loraloom.plan.engine import TOKEN_BUDGET
from steps.bench import Bench
from steps.forecast import forecast, plan_of
from steps.training import engine, forget_peak, make_rows, pack_of, peak_bytes, timed, ways

DTYPE = "bfloat16"


def measured(
    bench: Bench, model: Any, shape: str, packed: int, tokens: int, token_budget: int | None = None
) -> dict[str, Any]:
    """Ticks of K candidates, batch 1, then an evaluation, which the forecast of memory covers too.

    Args:
        token_budget: tokens of a pass; None for what the plan says.
    """
    vocabulary = model.config.vocab_size
    # As many as one candidate's largest pass scores: the forecast takes it that there are.
    scored = 8 if bench.small else -(-EVALUATION_FACTOR * TOKEN_BUDGET[bench.device] // tokens)
    rows, validation = make_rows(tokens, vocabulary), make_rows(tokens, vocabulary, scored, seed=1)
    plan = plan_of(shape, DTYPE, packed, rows, validation, bench.device)
    budget = token_budget or plan.token_budget
    forget_peak(bench)
    trainer = engine(model, rows, validation, token_budget=budget)
    names = pack_of(model, trainer, packed)
    notes: list[str] = []

    def tick() -> None:
        notes.extend(str(event.data["text"]) for event in trainer.tick() if event.kind == "note")

    times = timed(bench, tick)
    training_peak = peak_bytes(bench)
    trainer.evaluate(names)
    tick()
    peak, said = peak_bytes(bench), forecast(plan, budget)
    return {
        **times,
        "candidates": packed,
        "tokens": tokens,
        "token_budget": budget,
        "tokens_per_second": 1e3 * packed * tokens / times["run_ms"],
        "training_peak_bytes": training_peak,
        "peak_bytes": peak,
        **said,
        "memory_error": None if peak is None else said["forecast_bytes"] / peak - 1,
        "time_error": said["forecast_ms"] / times["run_ms"] - 1,
        "notes": notes,
        "ways": ways(trainer),
    }
