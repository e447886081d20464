"""Named sets of values for known situations: what the project's four guides recommend,
with their conflicts resolved.

Where measurements speak against a guide, the preset keeps the rule's value and its reason says so. What
the user set by hand wins over a preset, and a preset wins over a goal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from loraloom.config.asked import Config, Goal
from loraloom.config.units import parse_bytes
from loraloom.errors import ConfigError
from loraloom.facts.model import Kind
from loraloom.plan.about import About
from loraloom.plan.adjust import Bend, Bent, Case, Lean, at_most, says, to
from loraloom.plan.inputs import DERIVED, Facts
from loraloom.plan.rules.rank import width_cap
from loraloom.plan.rules.rate import around, rate_cap, rounded
from loraloom.records import Advice, Task

LARGE_DATA = 10_000
"""From so many rows on the rule's dropout stands: the more data, the less it helps."""
EPISODIC_RATES = ((1_000_000_000, 1e-3), (float("inf"), 2e-4))
RELATIONAL_SLOWDOWN = 5.0
ANY: tuple[Task, ...] = ("causal_lm", "seq_cls", "seq2seq_lm")
KINDS: tuple[Kind, ...] = ("decoder", "encoder", "encoder_decoder")
LANGUAGE: tuple[Task, ...] = ("causal_lm", "seq2seq_lm")
ABOUT = About(
    does=(
        "A named set of values for a known situation, after the guides; it may bring a goal and a bound"
        " on the memory along."
    ),
    rule="None, unless you name one. What you set yourself wins over it; it wins over a goal.",
    evidence=(
        "The guides are kept where measurements do not speak against them; where they do, the reason"
        " says so."
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
    guide: str = ""
    """Which of the four guides it follows."""


def check(facts: Facts, config: Config) -> None:
    """Refuse a preset that does not suit task and model.

    Raises:
        ConfigError: the preset is made for another task, or for another kind of model.
    """
    if config.preset is None or _suits(PRESETS[config.preset], facts):
        return
    preset = PRESETS[config.preset]
    kinds = (
        "" if preset.kinds == KINDS else f" on {' or '.join(_article(kind) for kind in preset.kinds)}"
    )
    others = [name for name, other in PRESETS.items() if _suits(other, facts)]
    raise ConfigError(
        f"`preset: {config.preset}` is for {preset.says}",
        got=f"the task {facts.data.task} on {_article(facts.model.kind)}",
        need=" or ".join(preset.tasks) + kinds,
        next=f"leave preset out, or take one of {', '.join(others)}",
    )


def _suits(preset: Preset, facts: Facts) -> bool:
    return facts.data.task in preset.tasks and facts.model.kind in preset.kinds


def _article(kind: Kind) -> str:
    return {"decoder": "a decoder", "encoder": "an encoder", "encoder_decoder": "an encoder-decoder"}[
        kind
    ]


def completed(config: Config, facts: Facts) -> Config:
    """The request with the goal and the memory of its preset, where the user left them
    open and the device has more."""
    if config.preset is None:
        return config
    preset = PRESETS[config.preset]
    if config.goal == "auto":
        config = replace(config, goal=preset.goal)
    if (
        preset.memory
        and config.limits.memory == "auto"
        and facts.device.free_bytes > parse_bytes(preset.memory)
    ):
        config = replace(config, limits=replace(config.limits, memory=preset.memory))
    return config


def advise(config: Config) -> Advice:
    """What the plan shows for `preset`."""
    if config.preset is None:
        return Advice(
            None, "no known situation was named: rules and goal decide", DERIVED, tuple(PRESETS), "M"
        )
    preset = PRESETS[config.preset]
    more = [f"goal {preset.goal}"] if preset.goal != "auto" else []
    more += [f"at most {preset.memory}"] if preset.memory else []
    reason = f"you asked: for {preset.says}" + (
        f" ({', '.join(more)}, unless you say otherwise)" if more else ""
    )
    return Advice(config.preset, reason, preset.guide, tuple(PRESETS), "C")


def _rank(low: int, high: int | None = None, *, why: str, source: str) -> Bend:
    """Between `low` and `high`, and never above what the model's width bears."""

    def bend(case: Case, advice: Advice) -> Bent:
        value = max(low, advice.value) if high is None else min(max(low, advice.value), high)
        return Bent(min(value, width_cap(case.facts)), why, source, "C")

    return bend


def _scale(low: float, high: float, why: str, source: str) -> Bend:
    """Alpha between `low` and `high` times the rank."""

    def bend(case: Case, advice: Advice) -> Bent:
        r = case.decided["adapter.r"].value
        value = min(max(advice.value, low * r), high * r)
        return Bent(
            value,
            f"{why}: scale alpha/r = {value:g}/{r} = {value / r:g}; the rate is set for it",
            source,
            "C",
        )

    return bend


def _dropout(value: float, guide: str) -> Bend:
    """The guide's dropout for data that is not large."""

    def bend(case: Case, advice: Advice) -> Bent:
        if case.facts.data.rows < LARGE_DATA:
            return Bent(value, f"{guide} takes {value:g}, for data of this size", guide, "C")
        return Bent(
            advice.value,
            f"{guide} takes {value:g}, but the more data, the less dropout helps",
            guide,
            "M",
        )

    return bend


def _quick_rate(case: Case, advice: Advice) -> Bent:
    value = next(rate for limit, rate in EPISODIC_RATES if case.facts.model.parameters < limit)
    value = max(advice.value, value)
    why = "one sighting has to be enough, so no less than 1e-3 (2e-4 from a billion parameters on)"
    return Bent(value, why, "guide 0; derived here", "M", around(value, rate_cap(case.facts, value)))


def _slow_rate(case: Case, advice: Advice) -> Bent:
    value = rounded(advice.value / RELATIONAL_SLOWDOWN)
    why = f"facts settle by repetition, so a rate {RELATIONAL_SLOWDOWN:g} times lower (3 to 10 is usual)"
    return Bent(value, why, "guide 0; derived here", "M", around(value, rate_cap(case.facts, value)))


def _epochs(least: int, why: str) -> Bend:
    def bend(case: Case, advice: Advice) -> Bent | None:
        if case.config.training.max_steps or advice.value >= least:
            return None
        return Bent(least, why, "guide 0", "C")

    return bend


LOW_RATES = (
    "guide 0 names 5e-5 to 2e-4: rates of 5e-5 and 1e-4, whatever the rank, lost 2.4% and 1.3% of the"
    " loss in the sweep"
)
ALL_LAYERS = "leaving the MLP out loses more (arXiv:2305.14314), so all linear layers stay"
NO_BIAS = "guide 3 trains biases here, but its own table loses 4.4 points by them"

PRESETS: dict[str, Preset] = {
    "3-4b": Preset(
        "models of three to four billion parameters",
        {
            "adapter.r": _rank(
                16, why="guide 0 starts at 8 or 16 and takes more where that underfits", source="guide 0"
            ),
            "adapter.lora_alpha": says(
                "guide 0 takes one to two times the rank, which 32 is at ranks 16 and 32"
            ),
            "adapter.lora_dropout": says(
                "guide 0 takes 0.1 throughout; the size of the data tells more"
            ),
            "adapter.target_modules": says("guide 0 agrees: attention and MLP of all layers"),
            "training.learning_rate": says(LOW_RATES),
            "training.num_train_epochs": at_most(2, "guide 0 takes one or two passes", "guide 0"),
            "training.per_device_train_batch_size": says(
                "guide 0 takes 1 to 4; small batches are good with the rate made for them"
                " (arXiv:2507.07101), so the two are searched together"
            ),
            "training.weight_decay": to(
                0.001, "guide 0 starts with a little", "guide 0", "C", (0.0, 0.01, 0.1)
            ),
        },
        kinds=("decoder",),
        guide="guide 0",
    ),
    "sentiment": Preset(
        "sentiment and other short texts with a label",
        {
            "adapter.r": _rank(16, why="guide 3's middle rank", source="guide 3"),
            "adapter.lora_alpha": _scale(2, 2, "guide 3 takes twice the rank", "guide 3"),
            "adapter.lora_dropout": _dropout(0.1, "guide 3"),
            "adapter.target_modules": says(f"guide 3 adapts attention only; {ALL_LAYERS}"),
            "adapter.bias": says("guide 3 agrees"),
        },
        tasks=("seq_cls",),
        guide="guide 3",
    ),
    "generation": Preset(
        "writing and completing text",
        {
            "adapter.r": says(
                "guide 3 takes 8; 4 -> 16 gains 0.74% of the loss (tinker-cookbook sweep) and costs"
                " little"
            ),
            "adapter.lora_alpha": _scale(1, 2, "guide 3 takes twice the rank", "guide 3"),
            "adapter.lora_dropout": _dropout(0.05, "guide 3"),
            "adapter.target_modules": says(f"guide 3 adapts attention only; {ALL_LAYERS}"),
            "adapter.bias": says("guide 3 agrees"),
        },
        tasks=LANGUAGE,
        guide="guide 3",
    ),
    "question-answering": Preset(
        "answers to questions",
        {
            "adapter.r": _rank(
                32, why="guide 3's high rank, for answers that take reasoning", source="guide 3"
            ),
            "adapter.lora_alpha": _scale(2, 2, "guide 3 takes twice the rank", "guide 3"),
            "adapter.lora_dropout": _dropout(0.1, "guide 3"),
            "adapter.target_modules": says(
                "guide 3 lists LLaMA's layers for a T5 task; here the model's own are found"
            ),
            "adapter.bias": says(NO_BIAS),
        },
        tasks=LANGUAGE,
        guide="guide 3",
    ),
    "under-8gb": Preset(
        "a device with less than 8 GB",
        {
            "adapter.r": says(
                "guide 3 takes 4; the rank is the last thing to save on, as the adapter is the smallest"
                " part of the peak"
            ),
            "adapter.lora_alpha": _scale(2, 2, "guide 3 takes twice the rank", "guide 3"),
            "adapter.lora_dropout": _dropout(0.05, "guide 3"),
            "adapter.target_modules": says(
                "guide 3 adapts queries only and lost 4.3 points by it in its own table"
            ),
            "adapter.bias": says("guide 3 agrees"),
            "model.quantization": says(
                "guide 3 takes 4 bits; here they are taken as NF4 where the engine and device can"
            ),
        },
        goal="memory",
        memory="8GB",
        guide="guide 3",
    ),
    "memory-episodic": Preset(
        "a memory of events that are seen once",
        {
            "adapter.r": _rank(16, 32, why="guide 0 takes 16 to 32 for events", source="guide 0"),
            "adapter.lora_alpha": _scale(
                2, 2, "guide 0 takes twice the rank, to give new memories weight", "guide 0"
            ),
            "adapter.lora_dropout": at_most(
                0.05, "an event is seen too seldom to drop parts of it", DERIVED, "M"
            ),
            "training.learning_rate": _quick_rate,
            "training.num_train_epochs": _epochs(4, "guide 0 adds a few passes to memorise"),
        },
        guide="guide 0",
    ),
    "memory-relational": Preset(
        "a memory of facts and relations that settle slowly",
        {
            "adapter.r": _rank(
                8, 8, why="guide 0 takes a smaller rank, for gentle changes", source="guide 0"
            ),
            "adapter.lora_alpha": _scale(
                1, 1, "as large as the rank, so that one sighting moves little", "guide 0; derived here"
            ),
            "adapter.lora_dropout": to(
                0.1, "guide 0: against the noise of single episodes", "guide 0", "C", (0.05, 0.1)
            ),
            "training.learning_rate": _slow_rate,
        },
        guide="guide 0",
    ),
    "memory-spatial": Preset(
        "a memory of routes that are replayed",
        {
            "adapter.r": _rank(16, 32, why="guide 0 takes 16 to 32 for routes", source="guide 0"),
            "adapter.lora_alpha": _scale(1, 2, "one to two times the rank", "guide 0; derived here"),
            "adapter.lora_dropout": to(
                0.1, "guide 0: a route, not its details, should stay", "guide 0", "C", (0.05, 0.1)
            ),
            "training.learning_rate": says("between that of events and that of facts"),
            "training.num_train_epochs": _epochs(
                3, "guide 0: paths are replayed, and longer training settles them"
            ),
        },
        guide="guide 0",
    ),
}
"""Name -> what it does to which rule."""
