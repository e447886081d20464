"""How large the learning rate should be, and how it moves."""

from __future__ import annotations

from loraloom.plan.common_advice.item import RATE, SCHEDULE, SWEEP, TUNE, Subject, followed, overruled

SUBJECT = Subject(
    "Learning rate and schedule",
    (
        followed(
            "The learning rate is crucial, and high for LoRA.",
            "The first thing that a search changes.",
            RATE,
            TUNE,
        ),
        overruled(
            "Rates from 5e-6 to 2e-4.",
            "For supervised tuning 1e-4 already loses 1.3% on average; 5e-6 to 1e-5 belong to "
            "preference tuning.",
            SWEEP,
            RATE,
        ),
        overruled(
            "Rates of 5e-5 to 1e-4.",
            "Too low for supervised tuning: 2.4% and 1.3% of the loss are lost on average.",
            SWEEP,
            RATE,
        ),
        followed(
            "Rates of 1e-4 to 5e-4, tuned for the task.",
            "The rule lies there for the usual ranks and batches, and a search changes the rate first.",
            RATE,
            TUNE,
        ),
        followed(
            "A rate of about 2e-4 to begin with, for instructions.",
            "The rule gives 1.4e-4 at r 16, alpha 32 and batch 16 and 2e-4 at batch 32.",
            RATE,
        ),
        overruled(
            "A rate of 1e-5 for noisy data or long training.",
            "Ten times off costs 4.2% of the loss; a falling schedule does this job.",
            SWEEP,
            RATE,
            SCHEDULE,
        ),
        overruled(
            "A rate of 4e-5 for a 3B model, as one tutorial has it.",
            "It loses 2.7% of the loss on average.",
            SWEEP,
            RATE,
        ),
        followed(
            "Raise the rate when training is slow, lower it when the loss blows up or overfits.",
            "The plan's rate times and over 3 are among the first candidates; one that diverges "
            "is ended.",
            RATE,
            TUNE,
        ),
        followed(
            "A higher rate is faster and may overfit, a lower one needs more passes.",
            "Goal retain halves it; short runs get half as much again.",
            RATE,
            "goal retain",
        ),
        followed(
            "LoRA is a way to hold weights, not a replacement for preference training.",
            "Supervised tuning only, and the rule for the rate says so.",
            RATE,
        ),
        followed(
            "Warm up over 5 to 10% of the steps.",
            "3 to 20%: ten steps at least, so short runs have more; a search tries 0.06 and 0.1.",
            "rule training.warmup_ratio",
            TUNE,
        ),
        followed(
            "Let the rate fall, linearly or by a cosine.",
            "Linear; cosine can be asked for.",
            SCHEDULE,
        ),
        followed(
            "Use a schedule; a cosine or half cycle of it helps SGD more than Adam.",
            "Linear for AdamW; cosine and half_cycle_cosine can be asked for.",
            SCHEDULE,
            "setting training.lr_scheduler_type",
        ),
    ),
    differs="rates from 5e-6 to 5e-4 are named.",
)
