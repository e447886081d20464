"""Which layers get an adapter."""

from __future__ import annotations

from loraloom.config import names
from loraloom.lora.targets import module_names
from loraloom.plan.about import About
from loraloom.plan.case import Case, parameters_per_rank, target_linears
from loraloom.plan.numbers import count
from loraloom.records import Advice

KEY = names.TARGET_MODULES
ABOUT = About(
    does="Which linear layers carry an adapter.",
    rule=(
        "All of them but the output head, found in the model itself and not by LLaMA's names. Goal"
        " `memory` takes the MLP alone."
    ),
    evidence=(
        "QLoRA (arXiv:2305.14314) matches full tuning only with all layers adapted; attention alone"
        " loses to the MLP alone (thinkingmachines.ai/blog/lora). On MetaMath, the MLP at r 10 scores"
        " 49.4 and queries with values at r 32 47.8, standard error 1.4 (huggingface/peft method"
        " comparison)."
    ),
    tools={
        "PEFT": "by model, mostly queries and values",
        "LLaMA-Factory": "all",
        "Unsloth": "all seven layers of a LLaMA block",
        "litgpt": "queries and values",
    },
)


def advise(case: Case) -> Advice:
    linears = target_linears(case.facts.model, "all-linear", case.decided.modules_to_save)
    named = ", ".join(module_names(linears))
    reason = (
        f"all {len(linears)} linear layers ({named}), {count(parameters_per_rank(linears))} parameters a"
        " rank: leaving the MLP out loses more than a smaller rank does"
    )
    if case.facts.model.experts:
        reason += f"; the {case.facts.model.experts} experts of each layer and their router stay frozen"
    return Advice(
        "all-linear",
        reason,
        "arXiv:2305.14314; thinkingmachines.ai/blog/lora",
        ("attention", "mlp", "all-linear"),
        "B",
    )
