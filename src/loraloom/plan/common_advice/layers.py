"""Which layers carry an adapter, whether biases are trained, and how A and B start."""

from __future__ import annotations

from loraloom.plan.common_advice.item import (
    ALPHA,
    BIAS,
    DROPOUT,
    TARGETS,
    R,
    Subject,
    followed,
    overruled,
)

SUBJECT = Subject(
    "Layers, biases and the start",
    (
        followed(
            "Put adapters on every layer, on its attention as on its MLP.",
            "All linear layers, found in the model itself.",
            TARGETS,
        ),
        overruled(
            "Adapt the attention layers (Q, K, V and O), as most people do.",
            "Leaving the MLP out loses more than a smaller rank does.",
            "arXiv:2305.14314",
            TARGETS,
        ),
        overruled(
            "Queries, keys and values as a compromise.",
            "Leaving the MLP out loses more than a smaller rank does.",
            "arXiv:2305.14314",
            TARGETS,
        ),
        overruled(
            "Queries alone where few parameters are wanted.",
            "The table behind it shows 4.3 points lost; the MLP alone with a smaller rank saves "
            "as much and loses less.",
            "the table behind it; huggingface/peft method comparison",
            "goal memory",
        ),
        followed(
            "More layers often do better, at more memory.",
            "All linear layers, unless memory is short.",
            TARGETS,
            "goal memory",
        ),
        overruled(
            "As in many examples: q_proj and v_proj with r 8, alpha 16, dropout 0.05 and no biases.",
            "Rank, layers and dropout follow the model and the data; alpha/r of 2 is the plan's "
            "as well at r 16.",
            "arXiv:2305.14314; tinker-cookbook sweep, benchmarks/advice_rate",
            R,
            TARGETS,
            DROPOUT,
            ALPHA,
        ),
        overruled(
            "A baseline of r 16, alpha 32 and all attention layers.",
            "r 16 and alpha 32 are the plan's as well. Leaving the MLP out loses more than a "
            "smaller rank does.",
            "arXiv:2305.14314",
            TARGETS,
            R,
            ALPHA,
        ),
        followed(
            "Know what q, k, v, o, gate, up and down projections do.",
            "Roles are read from the model: attention, mlp and query can be named.",
            "setting adapter.target_modules",
        ),
        followed(
            "Adapt separate layers one after another.",
            "Targets can be named by path.",
            "setting adapter.target_modules",
        ),
        followed(
            "Train no biases, at least at first.",
            "None.",
            BIAS,
        ),
        overruled(
            "Biases of adapted layers gain 0.2 points.",
            "The table behind it shows a loss of 4.4 points.",
            "the table behind it",
            BIAS,
        ),
        followed(
            "All biases for the most adaptation.",
            "`adapter.bias: all` can be asked for.",
            "setting adapter.bias",
        ),
        followed(
            "Both projections start so that the update is zero.",
            "A is random, B is zero.",
            "rule adapter.init_lora_weights",
        ),
        overruled(
            "LoftQ's start improves accuracy.",
            "On one task it closed a quarter of NF4's gap to bf16, on another it lost 0.007 to 0.040 "
            "nats to the default start (benchmarks/memory); starts land within 1-2% once the rate is "
            "tuned.",
            "arXiv:2602.04998",
            "rule adapter.init_lora_weights",
        ),
    ),
    differs="all linear layers, attention alone, or queries alone.",
)
