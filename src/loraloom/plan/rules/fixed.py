"""Settings that are the same for everyone until someone asks otherwise, each with the
evidence for leaving it alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from loraloom.config import names
from loraloom.config.choices import RANK_ALLOCATIONS
from loraloom.config.keys import asked_value
from loraloom.plan.about import About
from loraloom.plan.case import COMMON, DERIVED, Case
from loraloom.records import Advice, Grade


@dataclass(frozen=True)
class Fixed:
    """Why a default is kept. `range` is None where there is nothing in general to try."""

    reason: str
    source: str
    grade: Grade
    range: tuple[Any, ...] | None
    about: About


def _part_of(loss: str, does: str, evidence: str, source: str, trl: str, *tries: float) -> Fixed:
    """A number of one loss of preferences."""
    about = About(does=does, rule=f"{trl}, of `{loss}` alone.", evidence=evidence, tools={"TRL": trl})
    return Fixed(f"TRL's own; part of {loss} alone", source, "C", tries or None, about)


FIXED: dict[str, Fixed] = {
    names.BIAS: Fixed(
        "trained biases cost 4.4 points in the one table that claims a gain",
        COMMON,
        "C",
        ("none", "lora_only", "all"),
        About(
            does=(
                "Whether the layers' bias terms are trained too: none, those of layers with an adapter,"
                " or all."
            ),
            rule="None.",
            evidence=(
                "Common advice differs: train none, or gain 0.2 points by training them; but the table"
                " behind that gain shows 4.4 points lost, from one seed. Trained biases also change the"
                " base when the adapter is off."
            ),
            tools={"PEFT": "none"},
        ),
    ),
    names.USE_DORA: Fixed(
        "46.9 against 47.8 points, 26% slower, 2.1 GiB more",
        "huggingface/peft method comparison",
        "A",
        (False, True),
        About(
            does="DoRA: trains the length of each weight vector apart from its direction.",
            rule="Off.",
            evidence=(
                "On MetaMath 46.9 points against 47.8 without it, at 26% more time and 2.1 GiB more "
                "(huggingface/peft method comparison)."
            ),
            tools={"PEFT": "false"},
        ),
    ),
    names.INIT_LORA_WEIGHTS: Fixed(
        "nine ways to start land within 1-2% once the rate is tuned",
        "arXiv:2602.04998",
        "C",
        (True, "gaussian", "pissa", "olora", "orthogonal"),
        About(
            does="How A and B start. By default B is zero, so training begins at the base itself.",
            rule=(
                "The default. PiSSA starts from the base's largest directions and wants a lower rate;"
                " LoftQ, in one step over a base that is quantised as it is read, wants a higher one."
            ),
            evidence=(
                "Nine variants land within 1-2% of one another once the rate is tuned"
                " (arXiv:2602.04998). Over NF4, LoftQ closed a quarter of the gap to bf16 on one task"
                " and lost 0.007 to 0.040 nats to the default on another (benchmarks/memory)."
            ),
            tools={"PEFT": "true"},
        ),
    ),
    names.RANK_ALLOCATION: Fixed(
        "one rank for all layers: of eight allocations none gained on four tasks together",
        DERIVED,
        "M",
        RANK_ALLOCATIONS,
        About(
            does=(
                "Where rank goes, at the same number of parameters: `attention`, `mlp`, a third of the"
                " depth (`first`, `middle`, `last`), both (`mlp_last`), or where a measurement says:"
                " `energy`, `adalora`, `eva`. Alpha follows, so that every layer keeps its scale."
            ),
            rule="Uniform: every layer has the rank of `adapter.r`.",
            evidence=(
                "At equal parameters, each at its own tuned rate, none of eight gained beyond two"
                " standard errors on four small tasks together; what gained on one lost on another"
                " (benchmarks/ranks)."
            ),
            tools={"PEFT": "uniform; AdaLoRA and EVA are methods of their own"},
        ),
    ),
    names.RANK_PATTERN: Fixed(
        "one rank for all layers works well in most settings",
        COMMON,
        "C",
        None,
        About(
            does="Ranks of single layers, by the end of their path or a regex: `{q_proj: 16}`.",
            rule="Empty: every layer has the rank of `adapter.r`.",
            evidence="Larger ranks in later layers can help in some tasks; no general pattern is known.",
            tools={"PEFT": "empty"},
        ),
    ),
    names.ALPHA_PATTERN: Fixed(
        "one alpha for all layers",
        DERIVED,
        "C",
        None,
        About(
            does="Alphas of single layers, by the end of their path or a regex.",
            rule="Empty: every layer has the alpha of `adapter.lora_alpha`.",
            evidence=(
                "Worth setting only together with `adapter.rank_pattern`, to hold the scale alpha/r."
            ),
            tools={"PEFT": "empty"},
        ),
    ),
    names.LORA_PLUS_RATIO: Fixed(
        "off: gains little once the rate is tuned; 1 to 16 is worth a search",
        "arXiv:2402.12354",
        "A",
        (1.0, 4.0, 16.0),
        About(
            does="LoRA+: the rate of B as a multiple of that of A.",
            rule="Off. Where it is asked for, the rate is halved; large searches try 1, 4 and 16.",
            evidence=(
                "B starts at zero and bears larger steps (arXiv:2402.12354); with a tuned rate little of"
                " the gain is left."
            ),
            tools={"PEFT": "none"},
        ),
    ),
    names.MAX_STEPS: Fixed(
        "the number of epochs decides",
        DERIVED,
        "M",
        None,
        About(
            does="Optimiser steps of a candidate; wins over epochs.",
            rule="None: the epochs decide.",
            evidence="Steps compare runs of different batches badly; rows seen compare them well.",
            tools={"transformers": "-1: the epochs decide"},
        ),
    ),
    names.MAX_GRAD_NORM: Fixed(
        "clips rare outliers and leaves ordinary steps alone",
        "huggingface/transformers",
        "C",
        (0.3, 1.0),
        About(
            does="The length to which a longer gradient is cut.",
            rule="1, each candidate for itself.",
            evidence=(
                "A safeguard: more than half of the steps clipped after warm-up tells of a rate too high"
                " or a tiny batch."
            ),
            tools={"transformers": "1.0", "QLoRA": "0.3"},
        ),
    ),
    names.NEFTUNE_NOISE_ALPHA: Fixed(
        "off: noise on the embeddings helps chat style only (5 to 15)",
        "arXiv:2310.05914",
        "B",
        (5.0, 15.0),
        About(
            does="NEFTune: noise of this strength on the embeddings while training.",
            rule="Off; 5 with goal `chat`.",
            evidence=(
                "Answers of chat models become longer and are preferred; other tasks do not gain"
                " (arXiv:2310.05914)."
            ),
            tools={"transformers": "none", "TRL": "none"},
        ),
    ),
    names.LABEL_SMOOTHING: _part_of(
        "robust",
        "The share of pairs whose answers are taken to be swapped.",
        "It undoes the bias of swapped labels where the share is right (arXiv:2403.00409).",
        "arXiv:2403.00409",
        "0",
        0.0,
        0.1,
        0.2,
    ),
    names.LOSS_WEIGHTS: _part_of(
        "a list of losses",
        "What each of several losses weighs in their sum.",
        "Beside DPO the chosen answer's own loss keeps it likely (arXiv:2404.19733).",
        "arXiv:2404.19733",
        "1 each",
    ),
    names.SIMPO_GAMMA: _part_of(
        "simpo",
        "The margin of reward that is asked for.",
        "0.3 to 1.6 were best on four models, with beta 2 to 2.5 (arXiv:2405.14734).",
        "arXiv:2405.14734",
        "0.5",
        0.5,
        1.0,
        1.5,
    ),
    names.CPO_ALPHA: _part_of(
        "simpo",
        "The weight of the chosen answer's own loss beside the margin.",
        "0 is SimPO itself; above it the chosen answer is held up (arXiv:2401.08417).",
        "arXiv:2405.14734",
        "0",
        0.0,
        1.0,
    ),
    names.DESIRABLE_WEIGHT: _part_of(
        "kto",
        "What a good answer weighs.",
        "Times their number, good answers should weigh 1 to 1.33 times the bad ones (arXiv:2402.01306).",
        "arXiv:2402.01306",
        "1",
    ),
    names.UNDESIRABLE_WEIGHT: _part_of(
        "kto",
        "What a bad answer weighs.",
        "As for good ones: the rarer kind may weigh more (arXiv:2402.01306).",
        "arXiv:2402.01306",
        "1",
    ),
    names.CENTER_REWARDS_COEFFICIENT: Fixed(
        "TRL's own: off, so that the loss is that of the preferences alone",
        "arXiv:2312.09244",
        "C",
        (0.0, 0.01, 0.1),
        About(
            does=(
                "Of a reward model: what the square of the sum of a pair's rewards weighs, which holds"
                " them around 0."
            ),
            rule="0, of `task: reward` alone.",
            evidence=(
                "Pairs say how far rewards lie apart, not where they lie; 0.01 holds them around 0 where"
                " rewards of several models or prompts are to be compared (arXiv:2312.09244)."
            ),
            tools={"TRL": "none; advises 0.01"},
        ),
    ),
    names.SEED: Fixed(
        "fixed, so that the run can be repeated; finalists are run over several seeds",
        DERIVED,
        "M",
        None,
        About(
            does="Draws the adapter's start, the order of the rows, dropout and the search.",
            rule=(
                "42. The finalists of a search are trained again from other seeds, as one seed cannot"
                " tell skill from luck."
            ),
            evidence="The spread over seeds is large with LoRA (arXiv:2503.07329).",
            tools={"transformers": "42", "Unsloth": "3407 in its notebooks"},
        ),
    ),
}
"""Key -> why its default is kept. The value is the one that an empty request holds."""


def advise(case: Case, key: str) -> Advice:
    """Advice that keeps the default of `key`."""
    fixed = FIXED[key]
    return Advice(asked_value(case.asked, key), fixed.reason, fixed.source, fixed.range, fixed.grade)
