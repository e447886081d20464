"""At the first step, with B at 0, the adapter must change nothing: then A has no
gradient, and B has one."""

from __future__ import annotations

from loraloom.diagnose.case import Case, word
from loraloom.records import Finding

NAME = "broken-injection"
TOLERANCE = 1e-6
"""Of the gradient of A beside that of B: rounding, and nothing else, may come in."""


def judge(case: Case) -> Finding | None:
    norms = case.signals.first_norms
    if norms is None or not case.fresh_b:
        return None
    norm_a, norm_b = norms
    if norm_a <= TOLERANCE * max(norm_b, TOLERANCE):
        return None
    return Finding(
        NAME,
        "fault",
        "the adapter changed the model before it was trained",
        f"gradient of A {word(norm_a)} and of B {word(norm_b)} at step 1; with B = 0 that of A is 0",
        "do not use this adapter; report the model's architecture as a fault of loraloom",
    )
