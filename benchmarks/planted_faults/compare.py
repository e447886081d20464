"""Whether a run with the proposed change is better than the one that it was proposed for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from loraloom.config.decode import load_config
from loraloom.pipeline.evaluate import evaluate
from loraloom.records import Trial
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult


@dataclass(frozen=True)
class Compared:
    """One measure of both runs; smaller is better unless `what` is an accuracy."""

    what: str
    before: float
    after: float
    better: bool


def compare(judged_by: str, before: RunFolder, after: RunFolder, unseen: str = "") -> Compared:
    """Compare two runs by what their fault is about (`cases.Planted`)."""
    if judged_by == "honest":
        return _honest(before, after, unseen)
    if judged_by == "longer":
        return _longer(before, after)
    if judged_by == "retain":
        return _retained(before, after)
    measure = {"metric": _metric, "parameters": _parameters}[judged_by]
    return measure(before.result(), after.result())


def _metric(one: RunResult, two: RunResult) -> Compared:
    """The deciding metric; a run that kept no adapter has the bare base's."""
    scores = _kept(one, one.metric), _kept(two, one.metric)
    better = scores[1] < scores[0] if one.direction == "minimize" else scores[1] > scores[0]
    return Compared(one.metric.removeprefix("validation_"), scores[0], scores[1], better)


def _retained(before: RunFolder, after: RunFolder) -> Compared:
    """Nats lost on the rows to retain."""
    changes: list[float] = [
        one.signals(one.result().trials[0].id)["retain_change"][0] for one in (before, after)
    ]
    return Compared(
        "loss on retained rows, above the base", changes[0], changes[1], changes[1] < changes[0]
    )


def _parameters(one: RunResult, two: RunResult) -> Compared:
    """Thousands of LoRA parameters, with a metric no worse than two standard errors."""
    first, second = one.trials[0], two.trials[0]
    lost = first.metrics[one.metric] - second.metrics[one.metric]
    lost = -lost if one.direction == "minimize" else lost
    se = math.hypot(*(trial.metrics[f"{one.metric}_se"] for trial in (first, second)))
    fewer = second.trainable_parameters < first.trainable_parameters
    sizes = (first.trainable_parameters / 1000, second.trainable_parameters / 1000)
    return Compared("thousand parameters", sizes[0], sizes[1], fewer and lost <= 2 * se)


def _longer(before: RunFolder, after: RunFolder) -> Compared:
    """Loss of both adapters on the validation rows as long as the second run has them."""
    config = load_config(after.config_path)
    scores: list[float] = [
        evaluate(config, str(folder.best), "validation")["metrics"]["validation_loss"]
        for folder in (before, after)
    ]
    return Compared("loss on whole answers", scores[0], scores[1], scores[1] < scores[0])


def _honest(before: RunFolder, after: RunFolder, unseen: str) -> Compared:
    """How far the validation accuracy is above that on rows which neither run has seen: those that the
    second keeps aside were trained on by the first, so each is held against its own."""
    gaps: list[float] = []
    for folder in (before, after):
        config = load_config(folder.config_path, {"data.test": unseen})
        fresh: Any = evaluate(config, str(folder.best), "test")["metrics"]
        gaps.append(abs(_kept(folder.result(), "validation_accuracy") - fresh["test_accuracy"]))
    return Compared(
        "distance of the score from that on unseen rows", gaps[0], gaps[1], gaps[1] < gaps[0]
    )


def _kept(result: RunResult, metric: str) -> float:
    trial: Trial = result.trials[0]
    return trial.metrics[metric] if trial.adapter else result.baseline[metric]
