"""Held-out loss rises while the training loss goes on falling."""

from __future__ import annotations

from typing import Any

from loraloom.diagnose.case import DROPOUT, EPOCHS, SIGMAS, STEPS, Case, word
from loraloom.diagnose.signals import Reading
from loraloom.records import Finding

NAME = "overfit"
CHECKS = 3
MORE_DROPOUT = 0.05


def judge(case: Case) -> Finding | None:
    readings = case.signals.readings
    if len(readings) < 2 or (case.exit or ("", ""))[0] == "diverged" or metric_rises(case):
        return None
    best = min(readings, key=lambda reading: reading.loss)
    later = [reading for reading in readings if reading.step > best.step]
    risen = [reading for reading in later if reading.loss > best.loss + SIGMAS * best.loss_se]
    if len(risen) < min(CHECKS, len(readings) - 1) or readings[-1] not in risen:
        return None
    last = readings[-1]
    if last.train_loss >= best.train_loss:
        return None
    patch = shorter(case, best.step)
    return Finding(
        NAME,
        "warning",
        "the adapter overfits: it learns the training rows by heart",
        f"validation loss {word(best.loss)} at step {best.step} (epoch {word(best.epoch)}), {word(last.loss)} +- "
        f"{word(last.loss_se)} at step {last.step} (epoch {word(last.epoch)}), while the training loss fell from "
        f"{word(best.train_loss)} to {word(last.train_loss)}",
        f"the best checkpoint was kept; train for less ({', '.join(f'{key}={value}' for key, value in patch.items())}), or "
        "bring more rows",
        patch,
    )


def metric_rises(case: Case) -> bool:
    """Whether the share that is right found a new best among the last readings; where it decides, also whether it was better at
    any time after the loss had been lowest: a run that ends at that point would lose what was learnt since."""
    readings = case.signals.readings
    if _gains(readings[:-CHECKS], readings[-CHECKS:]):
        return True
    lowest = min(readings, key=lambda reading: reading.loss)
    later = [reading for reading in readings if reading.step > lowest.step]
    return case.decides != "loss" and _gains([lowest], later)


def _gains(earlier: list[Reading], later: list[Reading]) -> bool:
    if not earlier or not later:
        return False
    best = max(earlier, key=lambda reading: reading.metric)
    return max(reading.metric for reading in later) > best.metric + best.metric_se


def shorter(case: Case, step: int) -> dict[str, Any]:
    """A run that ends a little after the best step, on its own schedule, with some dropout."""
    if case.values.get(STEPS):
        patch: dict[str, Any] = {STEPS: max(1, round(1.25 * step))}
    else:
        patch = {EPOCHS: float(f"{max(1.25 * step / case.steps_per_epoch, 0.5):.2g}")}
    if float(case.values.get(DROPOUT) or 0) < MORE_DROPOUT:
        patch[DROPOUT] = MORE_DROPOUT
    return patch
