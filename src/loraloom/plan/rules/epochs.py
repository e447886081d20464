"""How often the data is seen."""

from __future__ import annotations

import math

from loraloom.config.asked import Config
from loraloom.plan.about import About
from loraloom.plan.inputs import DERIVED, Decided, Facts, decided_batch, steps_per_epoch
from loraloom.records import Advice

KEY = "training.num_train_epochs"
ABOUT = About(
    does="How often each row is seen.",
    rule=(
        "Language models: 3 under 1,000 rows, 2 under 50,000, else 1, up to 4 to reach 100 steps."
        " Encoders: as many as make about 1,000 steps on a GPU (400 on a processor), 3 to 30. Other"
        " tasks 3."
    ),
    evidence=(
        "Up to four passes are nearly as good as fresh rows (arXiv:2305.16264); more memorise."
        " Classifiers on small sets use 10 to 80 (arXiv:2106.09685). The best checkpoint is kept, so a"
        " pass too many costs time and not the result."
    ),
    tools={"transformers": "3", "TRL": "3", "LLaMA-Factory": "3"},
)
ENCODER_STEPS = {"cuda": 1_000, "mps": 600, "cpu": 400}
"""Updates that an encoder's classifier gets, as far as the epochs allow; a processor
takes a second or so for each."""
ENCODER_EPOCHS = (3, 30)
LEAST_STEPS = 100
CPU_STEPS = 250
"""With so many steps in one epoch, a processor's time is better spent on another
candidate than on a second pass."""
MOST_EPOCHS = 4
"""Of a language model: more passes memorise (arXiv:2305.16264 finds four nearly as good
as fresh data)."""


def advise(facts: Facts, asked: Config, decided: Decided) -> Advice:
    rows, batch = facts.data.rows, decided_batch(decided)
    per_epoch = steps_per_epoch(facts, batch)
    if asked.training.max_steps:
        value = max(1, math.ceil(asked.training.max_steps / per_epoch))
        reason = f"max_steps = {asked.training.max_steps:,} decides; {per_epoch:,} steps make an epoch"
        return Advice(value, reason, "config", (value, value), "M")
    if facts.model.kind == "encoder" and facts.data.task == "seq_cls":
        return _encoder(facts, per_epoch)
    usual = 3 if facts.data.task != "causal_lm" or rows < 1_000 else 2 if rows < 50_000 else 1
    slow = facts.device.kind == "cpu" and per_epoch >= CPU_STEPS and usual > 1
    usual = 1 if slow else usual
    value = min(max(usual, math.ceil(LEAST_STEPS / per_epoch)), max(usual, MOST_EPOCHS))
    epochs = "1 epoch makes" if value == 1 else f"{value} epochs make"
    reason = f"{rows:,} rows, {per_epoch:,} steps an epoch: {epochs} {value * per_epoch:,} steps"
    if slow:
        reason += (
            "; on a processor one pass of this size is enough to compare candidates, a second gains"
            " little"
        )
    if value > usual:
        reason += f", nearer to the {LEAST_STEPS} that an adapter needs"
    offered = (1, max(usual, MOST_EPOCHS))
    if slow:
        return Advice(value, reason, DERIVED, offered, "M")
    return Advice(
        value,
        reason,
        "arXiv:2305.16264" if facts.data.task == "causal_lm" else "arXiv:2106.09685",
        offered,
        "B",
    )


def _encoder(facts: Facts, per_epoch: int) -> Advice:
    wanted = ENCODER_STEPS[facts.device.kind]
    low, high = ENCODER_EPOCHS
    value = min(max(math.ceil(wanted / per_epoch), low), high)
    reason = (
        f"{facts.data.rows:,} rows, {per_epoch:,} steps an epoch: {value} epochs make"
        f" {value * per_epoch:,} steps; a classifier gets about {wanted:,} on {facts.device.kind}"
        " (papers use 10 to 80 epochs on small sets, with early stopping)"
    )
    return Advice(value, reason, "arXiv:2106.09685", ENCODER_EPOCHS, "M")
