"""How many candidates train at once: as many as memory holds, up to where packing stops paying."""

from __future__ import annotations

from loraloom.config import names
from loraloom.plan.about import About
from loraloom.plan.case import Case
from loraloom.plan.needs import need, packs_candidates
from loraloom.plan.numbers import bytes_text
from loraloom.plan.shape import decided_shape
from loraloom.records import Advice

KEY = names.MAX_PACKED
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


def advise(case: Case) -> Advice:
    if not packs_candidates(case):
        return Advice(1, "PEFT trains one adapter at a time", "huggingface/peft", (1, 1), "A")
    pays = PAYS[case.facts.device.kind]
    fits = most_that_fit(case, pays)
    total = need(case, decided_shape(case.decided, packed=fits))
    held = (
        f"{fits} {'candidate takes' if fits == 1 else 'candidates take'} {bytes_text(total.value)} of"
        f" {bytes_text(case.memory_budget)}"
    )
    why = "more would not be faster on this device" if fits == pays else "one more would not fit"
    return Advice(fits, f"{held}; {why}", "derived here; arXiv:2508.02932", (1, pays), "M")


def most_that_fit(case: Case, most: int) -> int:
    """The largest number of candidates whose forecast fits, at least one."""
    for packed in range(most, 1, -1):
        if need(case, decided_shape(case.decided, packed=packed)).high <= case.memory_budget:
            return packed
    return 1
