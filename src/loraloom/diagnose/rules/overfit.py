"""Training went on to lower its own loss after held-out rows had ceased to gain by it.

What decides is judged, not the loss alone: a classifier whose loss rises while as many answers are right
has grown too sure of itself and not worse (arXiv:1706.04599), which is `calibration-drift`. Evaluations
are compared row by row: rows differ from one another far more than one row does from one evaluation to
the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loraloom.config import names
from loraloom.diagnose.case import WORTH, Case, Difference, word
from loraloom.diagnose.signals import Reading
from loraloom.records import Finding

NAME = "overfit"
CHECKS = 3
IDLE = 0.5
"""Share of a whole run that comes after its best evaluation: what most of a training is
spent on should pay."""
MORE_DROPOUT = 0.05


def judge(case: Case) -> Finding | None:
    readings = case.signals.readings
    best = case.signals.best
    if best is None or (case.exit or ("", ""))[0] == "diverged":
        return None
    last = readings[-1]
    later = [reading for reading in readings if reading.step > best.step]
    if not later or last.train_loss >= best.train_loss or last.loss <= best.loss:
        return None
    if not _lost(case, later) and not _idle(case, best, last):
        return None
    patch = shorter(case, best.step)
    return Finding(
        NAME,
        "warning",
        "the adapter overfits: it learns the training rows by heart",
        f"validation loss {word(best.loss)} at step {best.step} (epoch {word(best.epoch)}),"
        f" {word(last.loss)} +- {word(last.loss_se)} at step {last.step} (epoch {word(last.epoch)}),"
        f" while the training loss fell from {word(best.train_loss)} to {word(last.train_loss)}",
        "the best checkpoint was kept; train for less"
        f" ({', '.join(f'{key}={value}' for key, value in patch.items())}), or bring more rows",
        patch,
    )


def _lost(case: Case, later: Sequence[Reading]) -> bool:
    """Whether the last evaluations are surely worse than the best, by a good part of
    all that was gained."""
    recent = later[-CHECKS:]
    if len(recent) < min(CHECKS, len(case.signals.readings) - 1):
        return False
    losses = [Difference(-(reading.gain or 0.0), reading.gain_se or 0.0) for reading in recent]
    gained = max(case.base_gain or 0.0, 0.0)
    return all(loss.sure for loss in losses) and losses[-1].mean >= WORTH * gained


def _idle(case: Case, best: Reading, last: Reading) -> bool:
    """Whether most of a run that was not ended in time came after its best, and went into the training
    rows alone. Of a classifier, a loss does not tell: the share that is right comes to rest long before
    the head does."""
    widened = Difference((last.loss - best.loss) + (best.train_loss - last.train_loss), last.loss_se)
    whole = case.decides == "loss" and case.steps >= case.planned_steps
    return whole and best.step <= (1 - IDLE) * case.steps and widened.sure


def metric_rises(case: Case) -> bool:
    """Whether the share that is right found a new best among the last readings, or was better at any
    time after the loss had been lowest: a run that ends at that point would lose what was learnt
    since."""
    readings = case.signals.readings
    if _gains(readings[:-CHECKS], readings[-CHECKS:]):
        return True
    lowest = min(readings, key=lambda reading: reading.loss)
    return _gains([lowest], [reading for reading in readings if reading.step > lowest.step])


def _gains(earlier: Sequence[Reading], later: Sequence[Reading]) -> bool:
    if not earlier or not later:
        return False
    best = max(earlier, key=lambda reading: reading.metric)
    return max(reading.metric for reading in later) > best.metric + best.metric_se


def shorter(case: Case, step: int) -> dict[str, Any]:
    """A run that ends a little after the best step, on its own schedule, with some dropout."""
    if case.values.get(names.MAX_STEPS):
        patch: dict[str, Any] = {names.MAX_STEPS: max(1, round(1.25 * step))}
    else:
        patch = {names.NUM_TRAIN_EPOCHS: float(f"{max(1.25 * step / case.steps_per_epoch, 0.5):.2g}")}
    if float(case.values.get(names.LORA_DROPOUT) or 0) < MORE_DROPOUT:
        patch[names.LORA_DROPOUT] = MORE_DROPOUT
    return patch
