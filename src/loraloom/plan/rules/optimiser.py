"""The optimiser."""

from __future__ import annotations

from loraloom.config import names
from loraloom.errors import ConfigError
from loraloom.plan import engine
from loraloom.plan.about import About
from loraloom.plan.case import Case
from loraloom.plan.needs import holds_moments_in_8_bits
from loraloom.plan.numbers import bytes_text, count
from loraloom.records import Advice

KEY = names.OPTIM
ABOUT = About(
    does="What turns gradients into steps.",
    rule="AdamW.",
    evidence=(
        "Its moments take 8 bytes an adapter parameter, which is little beside the base; SGD's momentum"
        " takes 4. adamw_8bit holds the two in 2.03, with the same results in its authors' experiments"
        " (arXiv:2110.02861): on CUDA, with the extra `quant`. On a CPU a step of 2 million numbers took"
        " 35 ms in place of 1.0, and it is refused."
    ),
    tools={"transformers": "adamw_torch_fused", "Unsloth": "adamw_8bit in its notebooks"},
)


def advise(case: Case) -> Advice:
    trained = case.adapter_parameters
    reason = (
        f"AdamW's two moments of {count(trained)} adapter parameters take {bytes_text(8 * trained)}: too"
        " little to save on"
    )
    choices = ("adamw", "sgd", *(("adamw_8bit",) if holds_moments_in_8_bits(case) else ()))
    return Advice("adamw", reason, "arXiv:2106.09685", choices, "C")


def uses_8_bits(case: Case) -> bool:
    """Whether a candidate, or one that is searched for, holds its moments in 8 bits."""
    space = case.asked.search.space
    searched = [] if space == "auto" else space.get(KEY, [])
    return "adamw_8bit" in (case.decided[KEY].value, *searched)


def check(case: Case) -> None:
    """Refuse moments in 8 bits where nothing can hold them, or at no gain.

    Raises:
        ConfigError: the device is not a GPU, PEFT's forecast is asked for, or adapters are float64.
    """
    if not uses_8_bits(case) or holds_moments_in_8_bits(case):
        return
    device = case.facts.device
    if case.asked.engine == "peft":
        got, need = "engine: peft", "the packed engine: PEFT's forecast is of moments in float32"
    elif device.kind in engine.EIGHT_BIT_ADAMW:
        got, need = f"{names.DTYPE}: float64", "adapters in float32, which its kernel steps"
    else:
        got = device.name
        need = (
            "a CUDA device: on a CPU it took 35 times as long as float32, and there is no other kernel"
        )
    raise ConfigError(
        f"`{KEY}: adamw_8bit` cannot be used here", got=got, need=need, next=f"{KEY}: adamw"
    )
