"""What three tools train with when nothing but a model and data is given: values that
their code or documentation states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PEFT_TARGETS: dict[str, tuple[str, ...]] = {"bert": ("query", "value"), "llama": ("q_proj", "v_proj")}
"""Layers that PEFT adapts where none are named, by model type. TRL hands no names to PEFT either."""

TRAINER: dict[str, Any] = {
    "training.learning_rate": 5e-5,
    "training.num_train_epochs": 3,
    "training.per_device_train_batch_size": 8,
    "training.gradient_accumulation_steps": 1,
    "training.lr_scheduler_type": "linear",
    "training.warmup_ratio": 0.0,
    "training.weight_decay": 0.0,
    "training.max_grad_norm": 1.0,
    "training.optim": "adamw",
    "adapter.use_rslora": False,
}
"""transformers.TrainingArguments, on which all three stand; plain LoRA, which all three use."""


@dataclass(frozen=True)
class Tool:
    """A tool's values by dotted key; those of TRAINER hold where it has none of its own."""

    name: str
    own: dict[str, Any]
    targets: dict[str, tuple[str, ...]] | str
    """Names of layers by model type, or one word for every type."""
    source: str

    def params(self, model_type: str) -> dict[str, Any]:
        """Everything that a candidate needs to be trained as the tool would train it."""
        targets = self.targets if isinstance(self.targets, str) else self.targets[model_type]
        return {**TRAINER, **self.own, "adapter.target_modules": targets}


TOOLS = (
    Tool(
        "peft",
        {"adapter.r": 8, "adapter.lora_alpha": 8, "adapter.lora_dropout": 0.0},
        PEFT_TARGETS,
        "peft.LoraConfig and transformers.TrainingArguments, no field set",
    ),
    Tool(
        "trl",
        {
            "adapter.r": 16,
            "adapter.lora_alpha": 32,
            "adapter.lora_dropout": 0.05,
            "training.learning_rate": 2e-4,
        },
        PEFT_TARGETS,
        "trl.ModelConfig for the adapter; the rate that TRL's page on PEFT gives for LoRA, ten times the"
        " 2e-5 of trl.SFTConfig, which is meant for whole models",
    ),
    Tool(
        "llama_factory",
        {"adapter.r": 8, "adapter.lora_alpha": 16, "adapter.lora_dropout": 0.0},
        "all-linear",
        "llamafactory.hparams.LoraArguments (rank 8, alpha twice the rank, target all) and transformers'"
        " arguments, no field set",
    ),
)
