"""What is counted besides the loss: classes that were confused, and texts that were
written. Each with its standard error.

Standard errors are bootstrapped over rows (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 6), for neither F1 nor Matthews' coefficient is a mean over rows. The draws are seeded: the same
rows give the same error.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from loraloom.errors import ConfigError

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

TextMetric = Callable[[Sequence[str], Sequence[str]], Sequence[float]]
"""(what was written, what should have been) -> one number a row."""

RESAMPLES = 400
"""Draws of the bootstrap: a standard error of 400 draws is itself off by about 1 / sqrt(2 * 400), 4%."""


def class_metrics(chosen: Ints, labels: Ints) -> dict[str, float]:
    """Macro F1 and Matthews' correlation of `chosen` classes with the true `labels`,
    both [rows], with `NAME_se`.

    Macro F1 is the plain mean over the classes that occur in either; one that is never right counts 0.
    The correlation is that of Gorodkin (2004) for any number of classes, 0 where all rows have one class
    or are given one.

    Drawing rows with replacement draws the cells of the confusion matrix from a
    multinomial: so that is what is drawn.
    """
    if not len(labels):
        return {}
    classes, coded = np.unique(np.concatenate([labels, chosen]), return_inverse=True)
    pairs_2N = coded.reshape(2, -1)
    cells_2P, counts_P = np.unique(pairs_2N, axis=1, return_counts=True)
    names = ("macro_f1", "mcc")
    found = _f1_and_mcc(counts_P[None].astype(np.float64), cells_2P, len(classes))[:, 0]
    draws_RP = np.random.default_rng(0).multinomial(len(labels), counts_P / len(labels), size=RESAMPLES)
    spread = _f1_and_mcc(draws_RP.astype(np.float64), cells_2P, len(classes)).std(axis=1, ddof=1)
    values = {name: float(value) for name, value in zip(names, found, strict=True)}
    return values | {f"{name}_se": float(value) for name, value in zip(names, spread, strict=True)}


def _f1_and_mcc(counts_RP: Floats, cells_2P: Ints, classes: int) -> Floats:
    """[2, R]: macro F1 and MCC of R confusion matrices, each given by the counts of P
    of its (true, chosen) cells."""
    right = cells_2P[0] == cells_2P[1]
    true_RC, chosen_RC, hit_RC = (np.zeros((len(counts_RP), classes)) for _ in range(3))
    np.add.at(true_RC.T, cells_2P[0], counts_RP.T)
    np.add.at(chosen_RC.T, cells_2P[1], counts_RP.T)
    np.add.at(hit_RC.T, cells_2P[0, right], counts_RP.T[right])
    seen_RC = (true_RC + chosen_RC) > 0
    f1_RC = 2 * hit_RC / np.where(seen_RC, true_RC + chosen_RC, 1)
    f1_R = f1_RC.sum(axis=1) / seen_RC.sum(axis=1)
    n_R = counts_RP.sum(axis=1)
    correct_R = hit_RC.sum(axis=1)
    covariance_R = correct_R * n_R - (true_RC * chosen_RC).sum(axis=1)
    spread_R = np.sqrt((n_R**2 - (true_RC**2).sum(axis=1)) * (n_R**2 - (chosen_RC**2).sum(axis=1)))
    return np.stack([f1_R, covariance_R / np.where(spread_R > 0, spread_R, 1)])


def exact_match(written: Sequence[str], wanted: Sequence[str]) -> list[float]:
    """1 where both are the same text but for white space, else 0."""
    return [float(one.split() == other.split()) for one, other in zip(written, wanted, strict=True)]


def rouge_l(written: Sequence[str], wanted: Sequence[str]) -> list[float]:
    """F-measure of the longest common subsequence of words (Lin 2004), as Google's
    `rouge-score` counts it, unstemmed."""
    scorer = importlib.import_module("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    return [
        float(scorer.score(other, one)["rougeL"].fmeasure)
        for one, other in zip(written, wanted, strict=True)
    ]


TEXT_METRICS: Mapping[str, TextMetric] = {"exact_match": exact_match, "rouge_l": rouge_l}


def text_metrics(names: Sequence[str]) -> dict[str, TextMetric]:
    """The metrics of these names: of `TEXT_METRICS`, or MODULE:FUNCTION of the user's
    own. Made before anything is generated.

    Raises:
        ConfigError: a name that is no metric, a module or function that is not there, two functions of
            one name, `rouge-score` not installed.
    """
    found = {name.rpartition(":")[2]: _text_metric(name) for name in names}
    if len(found) < len(set(names)):
        raise ConfigError(
            "two metrics have the same name", got=", ".join(names), next="rename one of the functions"
        )
    return found


def text_scores(
    metrics: Mapping[str, TextMetric], written: Sequence[str], wanted: Sequence[str]
) -> dict[str, float]:
    """Mean of each metric over the rows, with its bootstrapped standard error as `NAME_se`.

    Raises:
        ConfigError: a function of the user's fails, or does not give one number a row.
    """
    scores: dict[str, float] = {}
    for name, metric in metrics.items():
        values = _per_row(name, metric, written, wanted)
        scores[name], scores[f"{name}_se"] = bootstrapped_mean(values)
    return scores


def bootstrapped_mean(values: Floats) -> tuple[float, float]:
    """Mean of `values` [rows] and the standard deviation of the means of as many rows
    drawn with replacement."""
    if not len(values):
        return math.nan, math.nan
    draw = np.random.default_rng(0)
    means = [float(values[draw.integers(0, len(values), len(values))].mean()) for _ in range(RESAMPLES)]
    return float(values.mean()), float(np.std(means, ddof=1)) if len(values) > 1 else math.nan


def _per_row(name: str, metric: TextMetric, written: Sequence[str], wanted: Sequence[str]) -> Floats:
    try:
        found: Any = metric(list(written), list(wanted))
        values = np.asarray(found, dtype=np.float64)
    except Exception as error:
        raise ConfigError(
            f"metric `{name}` failed",
            got=f"{type(error).__name__}: {error}",
            need=_SIGNATURE,
            next="correct the function",
        ) from error
    if values.shape != (len(wanted),):
        got = "one number" if values.ndim == 0 else f"an array of shape {list(values.shape)}"
        raise ConfigError(
            f"metric `{name}` did not give one number a row",
            got=f"{got} for {len(wanted)} rows",
            need=_SIGNATURE,
            next="correct the function",
        )
    return values


_SIGNATURE = "a function (written: list of texts, wanted: list of texts) -> one number a row"


def _text_metric(name: str) -> TextMetric:
    if name == "rouge_l" and importlib.util.find_spec("rouge_score") is None:
        raise ConfigError(
            "metric `rouge_l` needs the package rouge-score",
            got="not installed",
            next='pip install "loraloom[metrics]"',
        )
    if name in TEXT_METRICS:
        return TEXT_METRICS[name]
    module, colon, function = name.rpartition(":")
    if not colon or not module or not function:
        raise ConfigError(
            f"`{name}` is no metric",
            need=f"{', '.join(TEXT_METRICS)}, or MODULE:FUNCTION of your own",
            next="--metric exact_match",
        )
    return _own(module, function)


def _own(module: str, function: str) -> TextMetric:
    """A function of the user's, whose module is looked for in the current folder first,
    as `python -m` would."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), function, None)
    except Exception as error:
        raise ConfigError(
            f"module `{module}` of metric `{module}:{function}` cannot be imported",
            got=f"{type(error).__name__}: {error}",
            need="a Python module in this folder or in the environment",
            next=f"python -c 'import {module}' shows why",
        ) from error
    if not callable(found):
        raise ConfigError(
            f"module `{module}` has no function `{function}`",
            need=_SIGNATURE,
            next=f"define it in {module}, or correct the name",
        )
    return cast(TextMetric, found)
