"""How many tokens of a row are used. Rows are only cut at the positions of the model, or at CAP."""

from __future__ import annotations

from loraloom.config import names
from loraloom.config.asked import Config
from loraloom.errors import ConfigError
from loraloom.facts.model import ModelFacts
from loraloom.plan.about import About
from loraloom.plan.case import DERIVED, Case
from loraloom.records import Advice

KEY = names.MAX_LENGTH
ABOUT = About(
    does="How many tokens of a row are used; what is longer is cut.",
    rule=(
        "The longest row, rounded up to eight, up to the model's positions and 4,096. Rows are padded to"
        " the longest of their own batch, so a generous bound costs nothing until a long row comes."
    ),
    evidence="Counted on your data.",
    tools={"TRL": "1024", "LLaMA-Factory": "2048", "Unsloth": "2048 in its notebooks"},
)
CAP = 4096
"""Longer rows are rare in tuning data, and one of them decides the memory of the whole run."""


def advise(case: Case) -> Advice:
    data = case.facts.data
    limit = case.facts.model.max_positions
    longest = max(data.longest, data.longest_anywhere)
    cap = min(CAP, limit or CAP)
    if longest <= cap:
        value = min(cap, -(-max(longest, 8) // 8) * 8)
        reason = (
            f"the longest row has {longest:,} tokens (99% have at most"
            f" {data.percentiles.get(99, longest):,}): nothing is cut"
        )
        return Advice(value, reason, DERIVED, (8, cap), "M")
    why = (
        f"{case.facts.model.model_type} has {limit:,} positions"
        if limit and limit <= CAP
        else f"rows above {CAP:,} tokens are not worth it"
    )
    share = data.share_above(cap)
    reason = (
        f"{why}, the longest row has {longest:,} tokens: {_percent(share)} of the rows are cut or"
        " divided"
    )
    return Advice(cap, reason, DERIVED, (8, cap), "M")


def check(case: Case) -> None:
    """Refuse a length that the model has no positions for.

    Raises:
        ConfigError: `data.max_length` is above the model's positions.
    """
    refuse_beyond_positions(case.asked, case.facts.model)


def refuse_beyond_positions(asked: Config, model: ModelFacts) -> None:
    """The same, of a model alone."""
    limit = model.max_positions
    if isinstance(asked.data.max_length, int) and limit and asked.data.max_length > limit:
        switch = model.batch_reads_beyond == limit
        raise ConfigError(
            f"`data.max_length` is {asked.data.max_length:,} but {model.name_or_path} has {limit:,}"
            " positions" + (" of which each row is read by itself" if switch else ""),
            got=(
                "RoPE that takes other angles for a whole batch once its longest row is longer"
                if switch
                else None
            ),
            need=f"at most {limit:,}",
            next=f"data.max_length: {limit}, or leave it out",
        )


def _percent(share: float) -> str:
    return "at most 1%" if share <= 0.01 else f"up to {share:.0%}"
