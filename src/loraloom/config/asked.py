"""What the user asks, as frozen dataclasses. "auto" means: `plan` decides, and says why.

Names follow PEFT and transformers. `decode.py` alone turns YAML, flags and `--set` into these.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from loraloom.config.choices import (
    AUGMENTATIONS,
    OPTIMISERS,
    PRUNERS,
    RANK_ALLOCATIONS,
    SAMPLERS,
)
from loraloom.records import PreferenceLoss

Auto = Literal["auto"]
Learn = Literal["auto", "all", "last", "completion"]
System = Literal["auto", "keep", "merge"]
Goal = Literal["auto", "quality", "retain", "chat", "memory", "fastest"]
Preset = Literal[
    "3-4b",
    "sentiment",
    "generation",
    "question-answering",
    "under-8gb",
    "memory-episodic",
    "memory-relational",
    "memory-spatial",
]

if TYPE_CHECKING:
    Sampler = Pruner = Optimiser = Allocation = Augmentation = str
else:
    # The names that there are, read from where each stands once; a checker needs them written out.
    Sampler, Pruner = Literal[tuple(SAMPLERS)], Literal[tuple(PRUNERS)]
    Optimiser = Literal[("auto", *OPTIMISERS)]
    Allocation = Literal[RANK_ALLOCATIONS]
    Augmentation = Literal[AUGMENTATIONS]


@dataclass(frozen=True)
class ModelConfig:
    name_or_path: str | None = None
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    quantization: Literal["auto", "none", "nf4", "int8"] = "auto"
    streaming: bool | Auto = "auto"
    """Whether the base stays where there is room for it, and is brought piece by piece for each pass."""
    attn_implementation: str = "auto"
    trust_remote_code: bool = False


@dataclass(frozen=True)
class SourceConfig:
    """One of several sources that are mixed: what it is, and how much of the training it has."""

    source: str
    """File, folder, hub name or pattern."""
    weight: float | None = None
    """Its share of the training, against the weights of the others."""
    epochs: float | None = None
    """How often its rows come in one epoch of the run."""
    name: str | None = None
    """What reports call it; None for the name of its file."""


@dataclass(frozen=True)
class DataConfig:
    train: str | tuple[str | SourceConfig, ...] | None = None
    """File, folder, hub name, pattern, or a list of these that are read one after the other. Entries of
    a list may be {source, weight, epochs, name}: then the sources are mixed."""
    validation: float | str | tuple[str, ...] | None = 0.1
    """A share of train, a source as for train, or null."""
    test: float | str | tuple[str, ...] | None = None
    format: Literal[
        "auto",
        "messages",
        "sharegpt",
        "alpaca",
        "prompt_completion",
        "question_answer",
        "text",
        "text_label",
        "source_target",
        "preference",
        "kto",
    ] = "auto"
    max_length: int | Auto = "auto"
    packing: bool | Auto = "auto"
    text_column: str | None = None
    label_column: str | None = None
    label_names: tuple[str, ...] | None = None
    """Names of the classes in the order of their numbers, where neither the data nor
    the model says it."""
    learn: Learn = "auto"
    """Which answers of a conversation are learnt: auto (what the rows say, else all), all, the last, or
    the completion: what follows the prompt, or the user's last turn. A weight of 0 holds in each
    case."""
    system: System = "auto"
    """System messages: keep gives them to the chat template, merge puts their text before the user's
    next message, auto does so where the template refuses them."""
    group_column: str | Auto | None = "auto"
    """Column whose rows stay on one side of every split; auto: prompts, conversations, known columns and
    near-duplicates are kept together; null: only rows that say the same."""
    max_rows: int | None = None
    """Use this many training rows at most (a seeded sample), for a quick look."""
    augment: tuple[Augmentation, ...] | dict[Augmentation, float] | None = None
    """Changed training rows that `tune` races against the plain ones, each kept only where it is better
    for certain: names, or name -> share of the rows that are changed."""
    mix: Literal["proportional", "equal"] | dict[str, float] | None = None
    """How much of the training each source of a list has, where no weights say it: as many rows as it
    has, as much as any other, or {temperature: T}: its rows to the power 1/T. null: sources are read
    as one."""
    replay: str | None = None
    """Rows of what the model is to go on being able to do: file, folder or hub name. They are trained on
    beside the rows of `train`; some are held out, and what training costs on them is measured."""
    replay_share: float | Auto = "auto"
    """The share of every batch that is from `replay`."""
    deduplicate: bool | Literal["near"] = False
    """Leave out training rows that say what an earlier one says (near: or nearly the same)."""
    retain: str | None = None
    """Rows of what the model should still be able to do: file, folder or hub name. Never trained on;
    what training costs on them is measured."""

    @property
    def train_names(self) -> str | tuple[str, ...] | None:
        """What `train` names, without weights."""
        if self.train is None or isinstance(self.train, str):
            return self.train
        return tuple(one.source if isinstance(one, SourceConfig) else one for one in self.train)

    @property
    def is_mixed(self) -> bool:
        """Whether sources are kept apart in training, and not read as one."""
        parts = self.train if isinstance(self.train, tuple) else ()
        return self.mix is not None or any(isinstance(one, SourceConfig) for one in parts)


@dataclass(frozen=True)
class AdapterConfig:
    r: int | Auto = "auto"
    lora_alpha: float | Auto = "auto"
    lora_dropout: float | Auto = "auto"
    target_modules: str | tuple[str, ...] = "auto"
    """auto | all-linear | attention | mlp | query | names or suffixes of modules."""
    bias: Literal["none", "lora_only", "all"] = "none"
    use_rslora: bool | Auto = "auto"
    use_dora: bool = False
    init_lora_weights: bool | str = True
    rank_allocation: Allocation = "uniform"
    """Where rank goes, at the parameters that `r` has in every layer: to a group of layers, or where a
    short training (energy, adalora) or a look at the rows (eva) says."""
    rank_pattern: dict[str, int] = field(default_factory=dict[str, int])
    alpha_pattern: dict[str, float] = field(default_factory=dict[str, float])
    modules_to_save: tuple[str, ...] | Auto = "auto"
    lora_plus_ratio: float | None = None
    init_from: str | None = None
    """A run, or the folder of an adapter over the same base, whose weights every candidate begins
    with."""


@dataclass(frozen=True)
class TrainingConfig:
    learning_rate: float | Auto = "auto"
    lr_scheduler_type: Literal["auto", "linear", "cosine", "constant", "half_cycle_cosine"] = "auto"
    warmup_ratio: float | Auto = "auto"
    num_train_epochs: float | Auto = "auto"
    max_steps: int | None = None
    per_device_train_batch_size: int | Auto = "auto"
    gradient_accumulation_steps: int | Auto = "auto"
    weight_decay: float | Auto = "auto"
    optim: Optimiser = "auto"
    max_grad_norm: float = 1.0
    gradient_checkpointing: bool | Literal["offload"] | Auto = "auto"
    """offload: what is kept of each block waits in the host's memory (CUDA alone)."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "fp64"] = "auto"
    seed: int = 42
    early_stopping_patience: int | Auto | None = "auto"
    neftune_noise_alpha: float | None = None


@dataclass(frozen=True)
class PreferenceConfig:
    """How answers that are preferred are told from those that are not; names as in TRL."""

    loss_type: tuple[PreferenceLoss, ...] | Auto = "auto"
    """One loss, or several that are summed: `[sigmoid, sft]`."""
    beta: float | Auto = "auto"
    """How closely the reference is kept to: large is close."""
    label_smoothing: float = 0.0
    """Share of pairs that are taken to be swapped (robust)."""
    loss_weights: tuple[float, ...] = ()
    """One for each of `loss_type`; empty for 1 each."""
    simpo_gamma: float = 0.5
    """The margin that simpo asks for."""
    cpo_alpha: float = 0.0
    """Weight of the chosen answer's own loss beside simpo's."""
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    """What good and bad answers weigh in kto."""
    center_rewards_coefficient: float = 0.0
    """Weight of the square of the sum of a pair's rewards, which holds a reward model's around 0."""
    reference: str = "auto"
    """What a candidate is held against: base, the folder of an adapter, or auto: what it begins as."""


@dataclass(frozen=True)
class SearchConfig:
    trials: int | Auto = "auto"
    sampler: Sampler = "auto"
    pruner: Pruner = "auto"
    budget: float | None = None
    """Seconds for the search, or null."""
    space: dict[str, Any] | Auto = "auto"
    """Dotted key -> list of choices, or {low, high, log, step}."""
    metric: str = "auto"
    seeds_for_finalists: int | Auto = "auto"
    keep: Literal["best", "safe"] = "best"
    """best: the setting with the highest expected gain; safe: the plan's own unless
    another is better with 95%."""
    history: str = "auto"
    """What earlier searches on the same base found: auto (the runs of the output
    folder), none, or one run."""


@dataclass(frozen=True)
class LimitsConfig:
    memory: str | int | Auto = "auto"
    """Bytes, "12GiB", or auto: what the device has."""
    time: str | float | None = None
    """Seconds, "30m", "2h", or null."""
    max_packed: int | Auto = "auto"
    devices: int | tuple[str, ...] | Auto = "auto"
    """Workers of a search: how many, the GPUs that they take, or auto: every GPU, or two on a
    processor. Where it is set and `execute` is not, they are processes of this host."""


@dataclass(frozen=True)
class DiagnoseConfig:
    act: bool = True
    """Stop a candidate that diverges or overfits; false only reports it."""
    signals: bool = True
    """Collect what the findings stand on."""


@dataclass(frozen=True)
class DeployConfig:
    target: Literal["vllm", "sglang", "llama.cpp", "ollama", "mlx", "merged"] | None = None


@dataclass(frozen=True)
class Config:
    """The whole request."""

    model: ModelConfig = field(default_factory=ModelConfig)
    task: Literal["auto", "causal_lm", "seq_cls", "seq2seq_lm", "preference", "reward"] = "auto"
    goal: Goal = "auto"
    """What the plan leans towards where it may choose."""
    preset: Preset | None = None
    """A named set of values for a known situation; what is set here by hand wins over it."""
    data: DataConfig = field(default_factory=DataConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    preference: PreferenceConfig = field(default_factory=PreferenceConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    engine: Literal["packed", "peft"] = "packed"
    execute: Literal["inline", "processes", "ray"] = "inline"
    """Where candidates are trained: in this process, in processes of this host, or on a Ray cluster."""
    diagnose: DiagnoseConfig = field(default_factory=DiagnoseConfig)
    deploy: DeployConfig = field(default_factory=DeployConfig)
    output_dir: str = "runs"
    report_to: tuple[str, ...] = ()
    name: str | None = None
