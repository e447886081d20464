"""The learning rate: the setting that decides most. A rate twice off costs 0.4% of the
loss, ten times off 4.2%."""

from __future__ import annotations

from dataclasses import replace

from loraloom.config import names
from loraloom.facts.model import ModelFacts
from loraloom.plan.about import About
from loraloom.plan.case import Case, Decided
from loraloom.plan.numbers import count
from loraloom.records import Advice

KEY = names.LEARNING_RATE
ABOUT = About(
    does="How far each step goes at its peak. It decides more than any other setting.",
    rule=(
        "Language models: 4e-4 (r/16)^0.25 (32/alpha) sqrt(max(batch, 16)/128), half as much again under"
        " 100 steps, clipped to 5e-5 to 1e-3, larger below 1,024 units of width. Encoders: 1e-3 up to"
        " 40M parameters and twice that under 100 steps, 4.5e-4 up to 200M, 3e-4 above, at r 8 and alpha"
        " 16. Models like T5: 1e-3. Preferences: that, divided by steps / 100 and by"
        " sqrt(tokens of an answer / 5), each at least 1, both together 20 at most."
        " Reward models: that, undivided."
    ),
    evidence=(
        "Scored on a public sweep by benchmarks/advice_rate, for small encoders on runs of our own. A"
        " rate twice off costs 0.4% of the loss, three times 1.0%, ten times 4.2%. The sweep holds alpha"
        " at 32 and the batch at 128: the steps in both are extrapolated. Rates for preference tuning"
        " and reinforcement learning lie at 5e-6 to 1e-5; for a reward model TRL advises 1e-3."
    ),
    tools={
        "transformers": "5e-5",
        "TRL": "2e-5",
        "Unsloth": "2e-4",
        "LLaMA-Factory": "1e-4 in its examples",
    },
)
SWEEP = "thinking-machines-lab/tinker-cookbook (117 sweeps of 34 models, batch 128, alpha 32)"
SWEEP_RATE, SWEEP_RANK, SWEEP_ALPHA, SWEEP_BATCH = 4e-4, 16, 32, 128
RANK_POWER = 0.25
LEAST_BATCH = 16
"""Smaller batches do not lower the rate further: what is known of batches ends here."""
SMALL_ENCODER = 40_000_000
"""Encoders up to this many parameters (MiniLM, small BERTs) want larger rates than the
base sizes that papers tune."""
CLIP = (5e-5, 1e-3)
SHORT_RUN, SHORT_FACTOR = 100, 1.5
SWEPT_WIDTH, WIDTH_POWER = 1024, 1.25
"""Narrower models than the sweep holds want larger rates. On two of 64 and 256 units, with batch 8, the
best lay near 5e-3 and 1.5e-3: 35 and 10 times the rule for wide ones; this power gives 32 and 5.7, and
leaves wide models alone."""
ENCODER_RATES = ((SMALL_ENCODER, 1e-3), (200_000_000, 4.5e-4), (float("inf"), 3e-4))
ENCODER_RANK, ENCODER_ALPHA = 8, 16
SHORT_SMALL_ENCODER = 2.0
"""A small encoder's run of under 100 steps; on longer ones 2e-3 loses a seed now and then
(advice_rate/encoders.py)."""
SEQ2SEQ_RATE = 1e-3
REACH = 4.0
ENCODER_CAP = 2e-3
PREFERENCE_PARTS = (1.0, 20.0)
PREFERENCE_STEPS = 100
"""Steps for which a rate is divided by 1: a run of twice as many is divided by 2."""
PREFERENCE_TOKENS = 5
"""Tokens of an answer for which a rate is divided by 1: of four times as many, by 2."""
PREFERENCE_REACH = (10.0, 5.0)
PREFERENCE_SOURCE = "benchmarks/preferences; arXiv:2310.16944; TRL's advice for adapters (1e-5)"
"""Of preferences. In runs of thousands of steps TRL advises 1e-5 for adapters where it advises 2e-4 for
answers, and Zephyr took 5e-6 with QLoRA: a twentieth and less. In 60 to 180 steps so small a rate leaves
a small decoder where it was. Answers of 5 tokens are told apart best at the rate of supervised training;
of 80 tokens at a quarter of it just as well, with a third of the drift (benchmarks/preferences)."""


REWARD_SOURCE = "TRL's advice for adapters of reward models (1e-3)"
"""Beside what the rule itself stands on: a reward model has no reference that it is to stay near."""


def advise(case: Case) -> Advice:
    advice = _supervised(case)
    if case.facts.data.task == "reward":
        return replace(advice, source=f"{advice.source}; {REWARD_SOURCE}")
    return advice if case.facts.data.task != "preference" else _preference(case, advice)


def _preference(case: Case, supervised: Advice) -> Advice:
    """What the answers alone would be learnt with, and less the longer a run and its answers are: what
    counts is how far it goes from its reference, and a log-ratio is a sum over an answer's tokens."""
    least, most = PREFERENCE_PARTS
    data, steps = case.facts.data, case.total_steps
    tokens = data.supervised_tokens / max(1, data.rows * data.sides)
    longer = max(1.0, tokens / PREFERENCE_TOKENS) ** 0.5
    part = min(max(steps / PREFERENCE_STEPS, least) * longer, most)
    value = rounded(supervised.value / part)
    low, high = (rounded(value / PREFERENCE_REACH[0]), rounded(value * PREFERENCE_REACH[1]))
    reason = (
        f"{supervised.value:g}, which would suit the answers alone, over {part:.3g} for {steps} steps"
        f" and {tokens:.0f} tokens an answer"
    )
    return Advice(value, reason, PREFERENCE_SOURCE, (low, high), "M")


def _supervised(case: Case) -> Advice:
    if case.facts.model.kind == "encoder":
        return _encoder(case)
    if case.facts.model.kind == "encoder_decoder":
        reason = (
            "models like T5 take ten times the rate of decoders (in bf16 or float32: float16 overflows)"
        )
        return Advice(
            SEQ2SEQ_RATE, reason, "huggingface/peft examples", around(SEQ2SEQ_RATE, ENCODER_CAP), "C"
        )
    return _decoder(case)


def _decoder(case: Case) -> Advice:
    """4e-4 (r/16)^0.25 (32/alpha) sqrt(max(B, 16)/128), more for short runs and narrow
    models, clipped."""
    r, alpha, batch = case.decided.r, case.decided.alpha, case.decided.batch
    scale = _scale(case.decided)
    steps = case.total_steps
    width = case.facts.model.hidden_size
    narrow = width_factor(width)
    short = SHORT_FACTOR if steps < SHORT_RUN else 1.0
    plus = _plus(case)
    value = rounded(clipped(swept_rate(r, scale * r, batch) * short * plus) * narrow)
    reason = (
        f"{SWEEP_RATE:g} at r 16, alpha 32, batch 128, carried to r {r}, alpha {alpha:g} (scale"
        f" {scale:g}) and batch {batch}; the steps in alpha and batch are extrapolated"
    )
    if short > 1:
        reason += f"; times {short:g}, as {steps} steps are few"
    if narrow > 1:
        reason += (
            f"; times {narrow:.3g}, as {width} units are narrower than any sweep (fitted on widths 64"
            " and 256)"
        )
    if plus < 1:
        reason += "; halved, as LoRA+ lets B learn faster"
    return Advice(value, reason, SWEEP, around(value, rate_cap(case.facts.model, value)), "M")


def swept_rate(r: float, alpha: float, batch: float) -> float:
    """The rate of a decoder at `alpha` (of the scale alpha/r) and `batch` rows a step,
    before it is clipped.

    Fitted on r at alpha 32 and batch 128; the factors in alpha and batch are extrapolations.
    """
    return (
        SWEEP_RATE
        * (r / SWEEP_RANK) ** RANK_POWER
        * (SWEEP_ALPHA / alpha)
        * (max(batch, LEAST_BATCH) / SWEEP_BATCH) ** 0.5
    )


def clipped(rate: float) -> float:
    """`rate` within what any sweep of wide decoders wanted."""
    return min(max(rate, CLIP[0]), CLIP[1])


def _encoder(case: Case) -> Advice:
    r, alpha = case.decided.r, case.decided.alpha
    scale = _scale(case.decided)
    size = case.facts.model.parameters
    small = size <= SMALL_ENCODER
    base = next(rate for limit, rate in ENCODER_RATES if size <= limit)
    steps = case.total_steps
    short = SHORT_SMALL_ENCODER if small and steps < SHORT_RUN else 1.0
    carried = (r / ENCODER_RANK) ** RANK_POWER * (ENCODER_ALPHA / (scale * r))
    value = rounded(base * short * carried * _plus(case))
    reason = (
        f"{base:g} suits encoders of this size ({count(size)}) at r 8, alpha 16; "
        f"carried to r {r}, alpha {alpha:g} (scale {scale:g})"
    )
    if short > 1:
        reason += f"; times {short:g}, as {steps} steps are few"
    searched = around(value, rate_cap(case.facts.model, value))
    if small:
        return Advice(value, reason, "derived here, on a 22M MiniLM", searched, "M")
    return Advice(value, reason, "arXiv:2106.09685", searched, "A")


def _scale(decided: Decided) -> float:
    """What B A is multiplied by: alpha / r, or alpha / sqrt(r) with rsLoRA."""
    r = decided.r
    return decided.alpha / (r**0.5 if decided[names.USE_RSLORA].value else r)


def _plus(case: Case) -> float:
    """LoRA+ trains B at a multiple of the rate, so the rate itself is about halved
    (arXiv:2402.12354)."""
    ratio = case.asked.adapter.lora_plus_ratio
    return 0.5 if ratio is not None and ratio > 1 else 1.0


def width_factor(width: int) -> float:
    """How much larger the rate of a narrow decoder is than the sweep's rule: 1 from 1,024 units up."""
    return max(1.0, SWEPT_WIDTH / width) ** WIDTH_POWER


def rate_cap(model: ModelFacts, value: float) -> float:
    """The largest rate that a search may try: no sweep wanted more, except where the
    rule itself lies near it."""
    if model.kind == "decoder":
        return CLIP[1] * width_factor(model.hidden_size)
    return max(ENCODER_CAP, 2 * value)


def around(value: float, cap: float) -> tuple[float, float]:
    """The range worth searching: a factor of four each way, below the cap."""
    return (rounded(value / REACH), rounded(max(value, min(value * REACH, cap))))


def rounded(rate: float) -> float:
    """Three digits: no sweep tells rates apart that are closer."""
    return float(f"{rate:.3g}")
