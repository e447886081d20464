"""Validation loss rises while the task's metric rises too: the model grows too sure, not worse."""

from __future__ import annotations

from loraloom.diagnose.case import SIGMAS, Case, word
from loraloom.diagnose.rules.overfit import metric_rises
from loraloom.records import Finding

NAME = "calibration-drift"


def judge(case: Case) -> Finding | None:
    readings = case.signals.readings
    if not readings or not metric_rises(case):
        return None
    best, last = min(readings, key=lambda reading: reading.loss), readings[-1]
    if last.loss <= best.loss + SIGMAS * best.loss_se:
        return None
    return Finding(
        NAME,
        "note",
        "the validation loss rises while more answers are right: the model grows too sure of itself",
        f"loss {word(best.loss)} at step {best.step} and {word(last.loss)} at step {last.step}; right {word(best.metric)} and "
        f"{word(last.metric)}",
        "select by the metric that you care for (search.metric), and do not stop for the loss",
    )
