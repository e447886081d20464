"""How many candidates train at once: as many as memory holds, up to where packing stops paying."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.plan.basis import Decided, Facts, bytes_text, memory_budget
from loraloom.plan.memory import decided_shape, forecast_memory
from loraloom.records import Advice

KEY = "limits.max_packed"
PAYS = {"cpu": 8, "mps": 8, "cuda": 16}
"""More candidates than this share the same products without making them faster."""


def advise(facts: Facts, asked: Config, decided: Decided) -> Advice:
    budget, pays = memory_budget(facts, asked), PAYS[facts.device.kind]
    fits = most_that_fit(facts, decided, budget, pays)
    total = forecast_memory(facts, decided, decided_shape(decided, packed=fits))
    held = f"{fits} {'candidate takes' if fits == 1 else 'candidates take'} {bytes_text(total.value)} of {bytes_text(budget)}"
    why = "more would not be faster on this device" if fits == pays else "one more would not fit"
    return Advice(fits, f"{held}; {why}", "derived here; arXiv:2508.02932", (1, pays), "M")


def most_that_fit(facts: Facts, decided: Decided, budget: int, most: int) -> int:
    """The largest number of candidates whose forecast fits, at least one."""
    for packed in range(most, 1, -1):
        if forecast_memory(facts, decided, decided_shape(decided, packed=packed)).high <= budget:
            return packed
    return 1
