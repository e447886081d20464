"""Which layers get an adapter."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.lora.targets import module_names
from loraloom.plan.basis import Decided, Facts, count, parameters_per_rank, target_linears
from loraloom.records import Advice

KEY = "adapter.target_modules"


def advise(facts: Facts, asked: Config, decided: Decided) -> Advice:
    linears = target_linears(facts, "all-linear", decided["adapter.modules_to_save"].value)
    names = ", ".join(module_names(linears))
    reason = (
        f"all {len(linears)} linear layers ({names}), {count(parameters_per_rank(linears))} parameters a rank: "
        "leaving the MLP out loses more than a smaller rank does"
    )
    if facts.model.experts:
        reason += f"; the {facts.model.experts} experts of each layer are fused and stay frozen"
    return Advice(
        "all-linear", reason, "arXiv:2305.14314; thinkingmachines.ai/blog/lora", ("attention", "mlp", "all-linear"), "B"
    )
