"""Named sets of values for known situations: common advice, with its conflicts resolved.

Where measurements speak against the advice, the preset keeps the rule's value and its reason says so.
What the user set by hand wins over a preset, and a preset wins over a goal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from loraloom.config import names
from loraloom.config.asked import Goal
from loraloom.config.units import parse_bytes
from loraloom.errors import ConfigError
from loraloom.facts.config_fields import Kind
from loraloom.plan.about import About
from loraloom.plan.adjust import Bend, Bent, Lean, at_most, says, to
from loraloom.plan.case import COMMON, DERIVED, Case, Facts
from loraloom.plan.rules import quantization
from loraloom.plan.rules.rank import width_cap
from loraloom.plan.rules.rate import around, rate_cap, rounded, width_factor
from loraloom.records import Advice, Task

LARGE_DATA = 10_000
"""From so many rows on the rule's dropout stands: the more data, the less it helps."""
EPISODIC_RATES = ((1_000_000_000, 1e-3), (float("inf"), 2e-4))
NARROW_EPISODIC = 2.0
"""On a decoder of 256 units 2e-3 to 2.5e-3 kept what was seen once, and the rule's 1.2e-3 took twice
the steps. Wider ones were not measured, and keep the rule."""
NARROW_SPATIAL = 4.0
"""The same of routes: at 3.2e-3 seven of ten ways were found after the steps that found five at 1.6e-3,
for a point and a half more of perplexity. Wider ones were not measured, and keep the rule."""
ANY: tuple[Task, ...] = ("causal_lm", "seq_cls", "seq2seq_lm", "preference", "reward")
KINDS: tuple[Kind, ...] = ("decoder", "encoder", "encoder_decoder")
LANGUAGE: tuple[Task, ...] = ("causal_lm", "seq2seq_lm")
ABOUT = About(
    does=(
        "A named set of values for a known situation, after common advice; it may bring a goal and a"
        " bound on the memory along."
    ),
    rule="None, unless you name one. What you set yourself wins over it; it wins over a goal.",
    evidence=(
        "Common advice is followed where measurements do not speak against it; where they do, the"
        " reason says so."
    ),
)


@dataclass(frozen=True)
class Preset(Lean):
    """A lean for one situation: tasks and kinds of model that it suits, the goal that
    goes with it, a bound on the memory."""

    tasks: tuple[Task, ...] = ANY
    kinds: tuple[Kind, ...] = KINDS
    goal: Goal = "auto"
    memory: str | None = None


def check(case: Case) -> None:
    """Refuse a preset that does not suit task and model.

    Raises:
        ConfigError: the preset is made for another task, or for another kind of model.
    """
    name = case.asked.preset
    if name is None or _suits(PRESETS[name], case.facts):
        return
    preset = PRESETS[name]
    kinds = (
        "" if preset.kinds == KINDS else f" on {' or '.join(_article(kind) for kind in preset.kinds)}"
    )
    others = [other for other in PRESETS if _suits(PRESETS[other], case.facts)]
    raise ConfigError(
        f"`preset: {name}` is for {preset.says}",
        got=f"the task {case.facts.data.task} on {_article(case.facts.model.kind)}",
        need=" or ".join(preset.tasks) + kinds,
        next=f"leave preset out, or take one of {', '.join(others)}",
    )


def _suits(preset: Preset, facts: Facts) -> bool:
    return facts.data.task in preset.tasks and facts.model.kind in preset.kinds


def _article(kind: Kind) -> str:
    return {"decoder": "a decoder", "encoder": "an encoder", "encoder_decoder": "an encoder-decoder"}[
        kind
    ]


def completed(case: Case) -> Case:
    """The case with the goal and the memory of its preset, where the user left them
    open and the device has more."""
    asked = case.asked
    if asked.preset is None:
        return case
    preset = PRESETS[asked.preset]
    if asked.goal == "auto":
        asked = replace(asked, goal=preset.goal)
    if (
        preset.memory
        and asked.limits.memory == "auto"
        and case.memory_budget > parse_bytes(preset.memory)
    ):
        asked = replace(asked, limits=replace(asked.limits, memory=preset.memory))
    return replace(case, asked=asked)


def advise(case: Case) -> Advice:
    """What the plan shows for `preset`."""
    name = case.asked.preset
    if name is None:
        return Advice(
            None, "no known situation was named: rules and goal decide", DERIVED, tuple(PRESETS), "M"
        )
    preset = PRESETS[name]
    more = [f"goal {preset.goal}"] if preset.goal != "auto" else []
    more += [f"at most {preset.memory}"] if preset.memory else []
    reason = f"you asked: for {preset.says}" + (
        f" ({', '.join(more)}, unless you say otherwise)" if more else ""
    )
    return Advice(name, reason, COMMON, tuple(PRESETS), "C")


def _rank(low: int, high: int | None = None, *, why: str) -> Bend:
    """Between `low` and `high`, and never above what the model's width bears."""

    def bend(case: Case, advice: Advice) -> Bent:
        value = max(low, advice.value) if high is None else min(max(low, advice.value), high)
        return Bent(min(value, width_cap(case.facts.model)), why, COMMON, "C")

    return bend


def _scale(low: float, high: float, why: str, source: str = COMMON) -> Bend:
    """Alpha between `low` and `high` times the rank."""

    def bend(case: Case, advice: Advice) -> Bent:
        r = case.decided.r
        value = min(max(advice.value, low * r), high * r)
        scale = f"scale alpha/r = {value:g}/{r} = {value / r:g}"
        return Bent(value, f"{why}: {scale}; the rate is set for it", source, "C")

    return bend


def _dropout(value: float) -> Bend:
    """What is commonly advised, for data that is not large."""

    def bend(case: Case, advice: Advice) -> Bent:
        usual = f"common advice takes {value:g}"
        if case.facts.data.rows < LARGE_DATA:
            return Bent(value, f"{usual}, for data of this size", COMMON, "C")
        return Bent(advice.value, f"{usual}, but the more data, the less dropout helps", COMMON, "M")

    return bend


def _quick_rate(case: Case, advice: Advice) -> Bent:
    model = case.facts.model
    least = next(rate for limit, rate in EPISODIC_RATES if model.parameters < limit)
    why = "one sighting has to be enough, so no less than 1e-3 (2e-4 from a billion parameters on)"
    narrow = model.kind == "decoder" and width_factor(model.hidden_size) > 1
    if narrow:
        why += f"; times {NARROW_EPISODIC:g}, as was best on a decoder of 256 units"
    return _rate(case, max(rounded(advice.value * (NARROW_EPISODIC if narrow else 1.0)), least), why)


def _routes_rate(case: Case, advice: Advice) -> Bent | None:
    model = case.facts.model
    if model.kind != "decoder" or width_factor(model.hidden_size) <= 1:
        return None
    why = f"a route has many steps: times {NARROW_SPATIAL:g}, as was best on a decoder of 256 units"
    return _rate(case, rounded(advice.value * NARROW_SPATIAL), why)


def _rate(case: Case, value: float, why: str) -> Bent:
    searched = around(value, rate_cap(case.facts.model, value))
    return Bent(value, why, f"{COMMON}; {DERIVED}", "M", searched)


def _epochs(least: int, why: str) -> Bend:
    def bend(case: Case, advice: Advice) -> Bent | None:
        if case.asked.training.max_steps or advice.value >= least:
            return None
        return Bent(least, why, COMMON, "C")

    return bend


def _bits_that_are_needed(case: Case, advice: Advice) -> Bent:
    """The rule's own value: the goal takes four bits wherever it can."""
    needed = quantization.advise(case)
    why = "common advice always takes 4 bits; here NF4 is taken where the base does not fit as it is"
    return Bent(needed.value, why, needed.source, "B", needed.range)


ALL_LAYERS = "leaving the MLP out loses more (arXiv:2305.14314), so all linear layers stay"
ATTENTION_ONLY = says(f"common advice here adapts attention only; {ALL_LAYERS}")
TWICE = _scale(2, 2, "common advice takes twice the rank")
NO_BIAS = says("common advice agrees")

PRESETS: dict[str, Preset] = {
    "3-4b": Preset(
        "models of three to four billion parameters",
        {
            names.R: _rank(
                16, why="common advice starts at 8 or 16 and takes more where that underfits"
            ),
            names.LORA_ALPHA: says(
                "common advice takes one to two times the rank, which 32 is at ranks 16 and 32"
            ),
            names.LORA_DROPOUT: says(
                "common advice takes 0.1 throughout; the size of the data tells more"
            ),
            names.TARGET_MODULES: says(
                "common advice for this size agrees: attention and MLP of all layers"
            ),
            names.LEARNING_RATE: says(
                "common advice names 5e-5 to 2e-4, but rates of 5e-5 and 1e-4, whatever the rank,"
                " lost 2.4% and 1.3% of the loss in the sweep"
            ),
            names.NUM_TRAIN_EPOCHS: at_most(2, "common advice takes one or two passes", COMMON),
            names.PER_DEVICE_TRAIN_BATCH_SIZE: says(
                "common advice takes 1 to 4; small batches are good with the rate made for them"
                " (arXiv:2507.07101), so the two are searched together"
            ),
            names.WEIGHT_DECAY: to(
                0.001, "common advice starts with a little", COMMON, "C", (0.0, 0.01, 0.1)
            ),
        },
        kinds=("decoder",),
    ),
    "sentiment": Preset(
        "sentiment and other short texts with a label",
        {
            names.R: _rank(16, why="common advice takes 16 here, a middle rank"),
            names.LORA_ALPHA: TWICE,
            names.LORA_DROPOUT: _dropout(0.1),
            names.TARGET_MODULES: ATTENTION_ONLY,
            names.BIAS: NO_BIAS,
        },
        tasks=("seq_cls",),
    ),
    "generation": Preset(
        "writing and completing text",
        {
            names.R: says(
                "common advice takes 8 here; 4 -> 16 gains 0.74% of the loss (tinker-cookbook sweep)"
                " and costs little"
            ),
            names.LORA_ALPHA: _scale(1, 2, "common advice takes twice the rank"),
            names.LORA_DROPOUT: _dropout(0.05),
            names.TARGET_MODULES: ATTENTION_ONLY,
            names.BIAS: NO_BIAS,
        },
        tasks=LANGUAGE,
    ),
    "question-answering": Preset(
        "answers to questions",
        {
            names.R: _rank(32, why="common advice takes a high rank for answers that need reasoning"),
            names.LORA_ALPHA: TWICE,
            names.LORA_DROPOUT: _dropout(0.1),
            names.TARGET_MODULES: says(
                "common advice lists LLaMA's layers even for T5; here the model's own are found"
            ),
            names.BIAS: says(
                "common advice trains biases here, but the table behind it shows 4.4 points lost by them"
            ),
        },
        tasks=LANGUAGE,
    ),
    "under-8gb": Preset(
        "a device with less than 8 GB",
        {
            names.R: says(
                "common advice takes 4; the rank is the last thing to save on, as the adapter is the"
                " smallest part of the peak"
            ),
            names.LORA_ALPHA: TWICE,
            names.LORA_DROPOUT: _dropout(0.05),
            names.TARGET_MODULES: says(
                "common advice adapts queries only; the table behind it shows 4.3 points lost by that"
            ),
            names.BIAS: NO_BIAS,
            names.QUANTIZATION: _bits_that_are_needed,
        },
        goal="memory",
        memory="8GB",
    ),
    "memory-episodic": Preset(
        "a memory of events that are seen once",
        {
            names.R: _rank(16, 32, why="common advice takes 16 to 32 for events"),
            names.LORA_ALPHA: _scale(
                2, 2, "common advice takes twice the rank, to give new memories weight"
            ),
            names.LORA_DROPOUT: at_most(
                0.0, "an event is seen too seldom to drop parts of it", DERIVED, "M"
            ),
            names.LEARNING_RATE: _quick_rate,
            names.NUM_TRAIN_EPOCHS: _epochs(4, "common advice adds a few passes to memorise"),
        },
    ),
    "memory-relational": Preset(
        "a memory of facts and relations",
        {
            names.R: _rank(
                16,
                32,
                why="common advice takes a smaller rank; r 8 answered 74% of other wordings where r 16"
                " answered 89%",
            ),
            names.LORA_ALPHA: _scale(
                2, 2, "as large as the rank, it halves what a step moves: 36% instead of 74%", DERIVED
            ),
            names.LORA_DROPOUT: at_most(
                0.0, "its wordings vary already: with 0.1 it was 85% instead of 89%", DERIVED, "M"
            ),
            names.LEARNING_RATE: _quick_rate,
        },
    ),
    "memory-spatial": Preset(
        "a memory of routes that are replayed",
        {
            names.R: _rank(32, 32, why="common advice takes 16 to 32 for routes, and 32 found more"),
            names.LORA_ALPHA: _scale(2, 2, "twice the rank, the larger end of common advice"),
            names.LORA_DROPOUT: at_most(
                0.0, "each step of a route is a detail that has to be right", DERIVED, "M"
            ),
            names.LEARNING_RATE: _routes_rate,
            names.NUM_TRAIN_EPOCHS: _epochs(
                3, "common advice: paths are replayed, and longer training settles them"
            ),
        },
    ),
}
"""Name -> what it does to which rule."""
