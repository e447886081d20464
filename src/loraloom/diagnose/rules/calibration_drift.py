"""Validation loss rises while as many answers are right as ever: the model grows too sure, not worse."""

from __future__ import annotations

from loraloom.diagnose.case import SIGMAS, Case, word
from loraloom.diagnose.rules import overfit
from loraloom.records import Finding

NAME = "calibration-drift"


def judge(case: Case) -> Finding | None:
    readings = case.signals.readings
    if not readings or not _as_good_as_ever(case):
        return None
    best = min(readings, key=lambda reading: reading.loss)
    last = readings[-1]
    if last.loss <= best.loss + SIGMAS * best.loss_se:
        return None
    return Finding(
        NAME,
        "note",
        "the validation loss rises while no fewer answers are right: the model grows too sure of itself",
        f"loss {word(best.loss)} at step {best.step} and {word(last.loss)} at step {last.step}; right"
        f" {word(best.metric)} and {word(last.metric)}",
        "select by the metric that you care for (search.metric), and do not stop for the loss",
    )


def _as_good_as_ever(case: Case) -> bool:
    """Where the loss decides, only a gain in what is right is worth a word beside its rise."""
    return overfit.metric_rises(case) if case.decides == "loss" else overfit.judge(case) is None
