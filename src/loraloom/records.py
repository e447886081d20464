"""Plain values that pass between rooms. No torch, no I/O, nothing that can change after it was made.

A *trial* is one candidate; a *pack* is candidates trained together; a *slot* is a place in a pack; a
*run* is one invocation. Losses are in nats per supervised token (or per row for classification), memory
in bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Grade = Literal["A", "B", "C", "M"]
"""How well a rule is founded: A raw data or code, B paper text, C vendor or secondary,
M derived here."""

PRUNED_BY_HAND = "pruned by hand"
"""The reason of a trial that a user took out."""

TrialStatus = Literal["waiting", "running", "completed", "pruned", "diverged", "failed"]
EndStatus = Literal["completed", "pruned", "diverged", "failed"]
Task = Literal["causal_lm", "seq_cls", "seq2seq_lm", "preference", "reward"]
COMPARED: tuple[Task, ...] = ("preference", "reward")
"""Tasks whose rows say of two answers which one is better."""
RowLoss = Literal["nll", "unlikelihood", "kl"]
"""What is formed of a row: the negative log-likelihood of its supervised tokens; that of their not
being said, -log(1 - p) (Welleck et al., arXiv:1908.04319); or how far the model has moved from its
frozen base there, KL(base || model)."""
PreferenceLoss = Literal[
    "sigmoid", "robust", "ipo", "sigmoid_norm", "hinge", "sft", "orpo", "simpo", "kto"
]
"""What is formed of a pair of answers, or of one that is judged; names as in TRL, formulas in
`evals.preference`."""


def built_as(task: Task) -> Task:
    """The task that a model is built for: choosing between answers is learnt by a language model, to
    score them by a classifier with one output."""
    built: dict[Task, Task] = {"preference": "causal_lm", "reward": "seq_cls"}
    return built.get(task, task)


@dataclass(frozen=True)
class Advice:
    """One value that `plan` decided (or that the user asked for), with its reason and its source."""

    value: Any
    reason: str
    source: str
    range: tuple[Any, ...] | None = None
    grade: Grade | None = None


@dataclass(frozen=True)
class Estimate:
    """A forecast as a range. `unit` is "bytes" or "seconds"; `parts` sum to `value`."""

    value: float
    low: float
    high: float
    unit: str
    parts: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True)
class AdapterSpec:
    """Everything that shapes one LoRA adapter; names as in `peft.LoraConfig`. Targets
    are resolved module paths."""

    r: int
    lora_alpha: float
    lora_dropout: float
    target_modules: tuple[str, ...]
    """Full dotted paths inside the base model, already matched:
    "model.layers.0.self_attn.q_proj", ..."""
    use_rslora: bool = False
    use_dora: bool = False
    bias: Literal["none", "lora_only", "all"] = "none"
    init_lora_weights: bool | str = True
    rank_pattern: Mapping[str, int] = field(default_factory=dict[str, int])
    alpha_pattern: Mapping[str, float] = field(default_factory=dict[str, float])
    modules_to_save: tuple[str, ...] = ()
    """Full dotted paths of modules that every candidate trains whole (a classification head)."""


@dataclass(frozen=True)
class PreferenceSpec:
    """What one candidate forms of answers that are preferred and not; names as in TRL's `DPOConfig`,
    `CPOConfig`, `ORPOConfig` and `KTOConfig`."""

    loss_type: tuple[PreferenceLoss, ...] = ("sigmoid",)
    """Summed, each times its weight."""
    beta: float = 0.1
    """How closely the reference is kept to: large is close. Of `ipo` its tau, of `orpo` the weight of
    the odds ratio, of `simpo` the scale of the reward."""
    label_smoothing: float = 0.0
    """Of `robust`: the share of pairs whose answers are taken to be swapped."""
    loss_weights: tuple[float, ...] = ()
    """One for each of `loss_type`; empty for 1 each."""
    simpo_gamma: float = 0.5
    """Of `simpo`: the margin that is asked for."""
    cpo_alpha: float = 0.0
    """Of `simpo`: the weight of the chosen answer's own negative log-likelihood."""
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    """Of `kto`: what good and bad answers weigh."""
    center_rewards_coefficient: float = 0.0
    """Of a reward model: what the square of the sum of both rewards weighs; as in TRL's
    `RewardConfig`."""


@dataclass(frozen=True)
class TrainingSpec:
    """How one candidate is trained; names as in `transformers.TrainingArguments`."""

    learning_rate: float
    num_train_epochs: float = 1.0
    max_steps: int | None = None
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    lr_scheduler_type: Literal["linear", "cosine", "constant", "half_cycle_cosine"] = "linear"
    warmup_ratio: float = 0.0
    weight_decay: float = 0.0
    optim: str = "adamw"
    max_grad_norm: float = 1.0
    lora_plus_ratio: float | None = None
    neftune_noise_alpha: float | None = None
    seed: int = 42
    evaluations: int = 8
    """How often the candidate is scored on validation, evenly over its own steps; the
    last one is at its end."""
    early_stopping_patience: int | None = None
    preference: PreferenceSpec | None = None
    """Of a task that learns to choose between answers."""
    replay_share: float = 0.0
    """The share of every batch that is from `data.replay`."""


@dataclass(frozen=True)
class Candidate:
    """One configuration to train: what a slot of a pack takes. `params` are the
    searched values by dotted key."""

    id: str
    adapter: AdapterSpec
    training: TrainingSpec
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    start: str | None = None
    """Where in the run folder its first weights lie (`train.start`); None for fresh ones."""


@dataclass(frozen=True)
class Score:
    """One evaluation of one candidate on one split.

    `costs` holds one number a row, the same rows in the same order for every candidate of a run, so that
    two candidates can be compared in pairs; `weights` the row's share (supervised tokens, or 1 for a
    class); `clusters` the number of what a row is a part of (a document, a conversation, a group): rows
    of one cluster are one draw in every error. The mean cost is sum(costs * weights) / sum(weights): the
    loss, or the error rate for accuracy.
    """

    split: str
    metrics: Mapping[str, float]
    """`loss`, `accuracy`, `token_accuracy`, ..., each with `NAME_se` beside it."""
    costs: Sequence[float] = ()
    weights: Sequence[float] = ()
    clusters: Sequence[int] = ()

    @property
    def drift(self) -> float:
        """How far the chosen answers of preferences have moved from the reference, in nats a token; 0
        for any other task."""
        return abs(self.metrics.get("chosen_logratio", 0.0))


@dataclass(frozen=True)
class Gain:
    """How much better a setting is than the plan's own, in the unit of the cost: above 0 is better.

    Attributes:
        mean, low, high: of the posterior, with its 95% interval.
        probability: that it is better at all.
    """

    mean: float
    low: float
    high: float
    probability: float


@dataclass(frozen=True)
class Event:
    """Something that happened, as one line of events.jsonl. `at` is seconds since the run began.

    Kinds: run_started, forecast, plan, trial_started, step, evaluated, best, waiting, running, pruned,
    diverged, completed, failed, saved, race, winner, test, signals, note, command, run_finished.
    """

    kind: str
    trial: str | None = None
    step: int | None = None
    at: float = 0.0
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Finding:
    """A named fault with its evidence and the next change."""

    name: str
    level: Literal["note", "warning", "fault"]
    symptom: str
    evidence: str
    next: str
    patch: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Trial:
    """What is known of one candidate, as it stands in run.json."""

    id: str
    status: TrialStatus
    params: Mapping[str, Any]
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    seconds: float = 0.0
    tokens: int = 0
    steps: int = 0
    planned_steps: int = 0
    peak_bytes: int = 0
    trainable_parameters: int = 0
    adapter: str | None = None
    """Path relative to the run folder, once saved and verified."""
    findings: tuple[Finding, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Every setting of this candidate by dotted key (what the table shows), searched or not."""
    reason: str | None = None
    """Why it ended before its last step, when it did."""
    role: str = ""
    """Why it is there: default, anchor, history, sampled, audit, hand (a user cloned it) or race."""
    parent: str | None = None
    """The trial that it was cloned from by hand."""
    warm: bool = False
    """Whether it began with its parent's best weights, and not with fresh ones."""

    @property
    def tells_of_setting(self) -> bool:
        """Whether how it did says how good its setting is: not where a user took it out, or where it
        began with another one's weights."""
        return self.reason != PRUNED_BY_HAND and not self.warm
