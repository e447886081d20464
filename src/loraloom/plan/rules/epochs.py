"""How often the data is seen."""

from __future__ import annotations

import math

from loraloom.config import names
from loraloom.plan.about import About
from loraloom.plan.case import CONFIG, DERIVED, Case
from loraloom.records import Advice

KEY = names.NUM_TRAIN_EPOCHS
ABOUT = About(
    does="How often each row is seen.",
    rule=(
        "Language models: 3 under 1,000 rows, 2 under 50,000, else 1, up to 4 to reach 100 steps."
        " Encoders: as many as make about 1,000 steps on a GPU (400 on a processor), 3 to 30. Other"
        " tasks 3; preferences 1, up to 3 to reach 150 steps; reward models 1, up to 4 to reach 100."
    ),
    evidence=(
        "Up to four passes are nearly as good as fresh rows (arXiv:2305.16264); more memorise. Reward"
        " models are trained for one pass, as they overfit after it (arXiv:2307.09288, section 3.2.2)."
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
PREFERENCE = ("arXiv:2310.16944; benchmarks/preferences", (1, 3), "M")
"""Zephyr's DPO overfits after one epoch, with no loss on its benchmarks by the third."""
PREFERENCE_STEPS, PREFERENCE_EPOCHS = 150, 3
"""Three passes over 240 pairs told 0.91 of others apart, one pass at no rate more than 0.83
(benchmarks/preferences)."""
REWARD = ("arXiv:2307.09288", (1, 4), "B")
MOST_EPOCHS = 4
"""Of a language model: more passes memorise (arXiv:2305.16264 finds four nearly as good
as fresh data)."""


def advise(case: Case) -> Advice:
    if case.facts.data.task == "preference" and not case.asked.training.max_steps:
        return _preference(case)
    if case.facts.data.task == "reward" and not case.asked.training.max_steps:
        return _reward(case)
    facts, per_epoch, max_steps = case.facts, case.steps_per_epoch, case.asked.training.max_steps
    if max_steps:
        value = max(1, math.ceil(max_steps / per_epoch))
        reason = f"max_steps = {max_steps:,} decides; {per_epoch:,} steps make an epoch"
        return Advice(value, reason, CONFIG, (value, value), "M")
    if facts.model.kind == "encoder" and facts.data.task == "seq_cls":
        return _encoder(case)
    usual = _usual(case)
    # A processor takes long for a step: where one epoch has enough of them, it is left at one.
    slow = facts.device.kind == "cpu" and per_epoch >= CPU_STEPS and usual > 1
    usual = 1 if slow else usual
    most = max(usual, MOST_EPOCHS)
    value = min(max(usual, math.ceil(LEAST_STEPS / per_epoch)), most)
    reason = _counted(case, value)
    if slow:
        reason += (
            "; on a processor one pass of this size is enough to compare candidates, a second gains"
            " little"
        )
    if value > usual:
        reason += f", nearer to the {LEAST_STEPS} that an adapter needs"
    if slow:
        return Advice(value, reason, DERIVED, (1, most), "M")
    source = "arXiv:2305.16264" if facts.data.task == "causal_lm" else "arXiv:2106.09685"
    return Advice(value, reason, source, (1, most), "B")


def _preference(case: Case) -> Advice:
    """One pass, as more drives both answers away; more where one is too short to tell them apart."""
    value = min(max(1, math.ceil(PREFERENCE_STEPS / case.steps_per_epoch)), PREFERENCE_EPOCHS)
    reason = _counted(case, value)
    if value > 1:
        reason += f", nearer to the {PREFERENCE_STEPS} that it takes to tell answers apart"
    else:
        reason += "; a second pass drives both answers away"
    return Advice(value, reason, *PREFERENCE)


def _reward(case: Case) -> Advice:
    """One pass; more where so few steps would leave a head that starts from noise where it began."""
    value = min(max(1, math.ceil(LEAST_STEPS / case.steps_per_epoch)), MOST_EPOCHS)
    reason = f"{_counted(case, value)}; reward models overfit after one"
    if value > 1:
        reason += f", and a new head needs about {LEAST_STEPS}"
    return Advice(value, reason, *REWARD)


def _usual(case: Case) -> int:
    if case.facts.data.task != "causal_lm" or case.facts.data.rows < 1_000:
        return 3
    return 2 if case.facts.data.rows < 50_000 else 1


def _encoder(case: Case) -> Advice:
    device = case.facts.device.kind
    wanted = ENCODER_STEPS[device]
    low, high = ENCODER_EPOCHS
    value = min(max(math.ceil(wanted / case.steps_per_epoch), low), high)
    reason = (
        f"{_counted(case, value)}; a classifier gets about {wanted:,} on {device} "
        "(papers use 10 to 80 epochs on small sets, with early stopping)"
    )
    return Advice(value, reason, "arXiv:2106.09685", ENCODER_EPOCHS, "M")


def _counted(case: Case, epochs: int) -> str:
    per_epoch = case.steps_per_epoch
    made = "1 epoch makes" if epochs == 1 else f"{epochs} epochs make"
    return (
        f"{case.facts.data.rows:,} rows, {per_epoch:,} steps an epoch: {made} {epochs * per_epoch:,}"
        " steps"
    )
