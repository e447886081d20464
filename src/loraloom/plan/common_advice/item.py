"""One piece of common advice, in our own words, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass

from loraloom.config import names

SWEEP = "tinker-cookbook sweep, benchmarks/advice_rate"
TUNE = "command tune"
R = f"rule {names.R}"
ALPHA = f"rule {names.LORA_ALPHA}"
DROPOUT = f"rule {names.LORA_DROPOUT}"
TARGETS = f"rule {names.TARGET_MODULES}"
BIAS = f"rule {names.BIAS}"
RATE = f"rule {names.LEARNING_RATE}"
EPOCHS = f"rule {names.NUM_TRAIN_EPOCHS}"
DECAY = f"rule {names.WEIGHT_DECAY}"
BATCH = f"rule {names.PER_DEVICE_TRAIN_BATCH_SIZE}"
PATIENCE = f"rule {names.EARLY_STOPPING_PATIENCE}"
QUANTIZATION = f"rule {names.QUANTIZATION}"
CHECKPOINTING = f"rule {names.GRADIENT_CHECKPOINTING}"
SCHEDULE = f"rule {names.LR_SCHEDULER_TYPE}"
OPTIMISER = f"rule {names.OPTIM}"


@dataclass(frozen=True)
class Item:
    """`by` names what carries it out, each as "KIND NAME": rule, setting, preset, goal,
    command or test."""

    says: str
    because: str
    by: tuple[str, ...]
    overruled: str = ""
    """Source that speaks against it; empty where none does."""
    untested: bool = False
    """It is not followed, and nobody has compared it with what is done instead."""

    @property
    def status(self) -> str:
        if self.untested:
            return "untested"
        return "overruled" if self.overruled else "followed"

    @property
    def keys(self) -> tuple[str, ...]:
        """The settings that it is about."""
        found = (what.partition(" ") for what in self.by)
        return tuple(name for kind, _, name in found if kind in ("rule", "setting"))


@dataclass(frozen=True)
class Subject:
    """Advice on one subject. `differs` ends the sentence "Common advice differs: ...", and is
    empty where it does not."""

    title: str
    items: tuple[Item, ...]
    differs: str = ""


def followed(says: str, because: str, *by: str) -> Item:
    return Item(says, because, by)


def overruled(says: str, because: str, source: str, *by: str) -> Item:
    """`by` names what is done instead."""
    return Item(says, because, by, source)


def untested(says: str, because: str, *by: str) -> Item:
    """`by` names what is done instead, though the two were not compared."""
    return Item(says, because, by, untested=True)
