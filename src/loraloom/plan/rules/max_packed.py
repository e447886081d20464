"""How many candidates train at once: as many as memory holds, up to where packing stops paying."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.plan.about import About
from loraloom.plan.inputs import Decided, Facts, bytes_text, memory_budget
from loraloom.plan.memory import decided_shape
from loraloom.plan.needs import need, packs_candidates
from loraloom.records import Advice

KEY = "limits.max_packed"
ABOUT = About(
    does="How many candidates train at once on the one frozen base.",
    rule=(
        "As many as fit into memory, up to 8 on a processor and 16 on a GPU, where more stop being"
        " faster."
    ),
    evidence=(
        "Packed training is what PLoRA (arXiv:2508.02932) gains from; benchmarks/packed measures ours."
    ),
    tools={"PEFT": "1"},
)
PAYS = {"cpu": 8, "mps": 8, "cuda": 16}
"""More candidates than this share the same products without making them faster."""


def advise(facts: Facts, asked: Config, decided: Decided) -> Advice:
    if not packs_candidates(asked):
        return Advice(1, "PEFT trains one adapter at a time", "huggingface/peft", (1, 1), "A")
    budget, pays = memory_budget(facts, asked), PAYS[facts.device.kind]
    fits = most_that_fit(asked, facts, decided, budget, pays)
    total = need(asked, facts, decided, decided_shape(decided, packed=fits))
    held = (
        f"{fits} {'candidate takes' if fits == 1 else 'candidates take'} {bytes_text(total.value)} of"
        f" {bytes_text(budget)}"
    )
    why = "more would not be faster on this device" if fits == pays else "one more would not fit"
    return Advice(fits, f"{held}; {why}", "derived here; arXiv:2508.02932", (1, pays), "M")


def most_that_fit(asked: Config, facts: Facts, decided: Decided, budget: int, most: int) -> int:
    """The largest number of candidates whose forecast fits, at least one."""
    for packed in range(most, 1, -1):
        if need(asked, facts, decided, decided_shape(decided, packed=packed)).high <= budget:
            return packed
    return 1
