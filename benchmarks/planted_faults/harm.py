"""Whether a planted fault did any harm: where it did none, a rule that says nothing has missed nothing.

One rule for every set, and nobody's choice: a fault is harmless where what it is about is not worse by
more than two standard errors. Such runs are counted in a column of their own, and the rates are given
with them and without them.

- Most faults are about the deciding metric: that of the healthy run of the same task, row by row where
  both were scored on the same rows. A run that kept no adapter has lost all that there was to gain.
- Overfitting: the last evaluation against the run's own best, row by row, since the
  best checkpoint is what is kept.
- Forgetting: the loss on the rows to retain against the bare base's, row by row.
- A rank that is too large costs parameters, and does harm unless the metric is better for it.
- A request that is refused, rows that stand on two sides and answers that are cut off
  are there whatever a score says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cases import Planted

from loraloom.pipeline.compare import compare
from loraloom.store.folder import RunFolder

SIGMAS = 2.0


@dataclass(frozen=True)
class Harm:
    """By how much a run is worse for its fault, in the unit of `what`, and whether that counts."""

    what: str
    worse: float
    se: float
    done: bool


def harm_of(case: Planted, folder: RunFolder, healthy: RunFolder) -> Harm | None:
    """What the fault did; None for faults that need no proof, for healthy runs, and
    where the healthy run is not at hand."""
    trial = folder.result().trials[0]
    if case.expected == ("overfit",):
        return _after_best(folder.signals(trial.id))
    if case.judged_by == "retain":
        mean, se = folder.signals(trial.id)["retain_change"]
        return _harm("loss on retained rows, above the base's", mean, se)
    if (
        case.judged_by not in ("metric", "parameters")
        or not case.expected
        or not healthy.result_path.is_file()
    ):
        return None
    if not trial.adapter:
        return Harm("no adapter was kept", 0.0, 0.0, True)
    worse, se, metric = _against(folder, healthy)
    if case.judged_by == "parameters":
        return Harm(f"{metric}, for more parameters", worse, se, worse >= -SIGMAS * se)
    return _harm(metric, worse, se)


def _harm(what: str, worse: float, se: float) -> Harm:
    return Harm(what, worse, se, worse > SIGMAS * se)


def _after_best(signals: Mapping[str, Any]) -> Harm:
    """The last evaluation has its difference from the best one before it, over the same rows."""
    last = signals["readings"][-1]
    return _harm("last evaluation against the best", -last["gain"], last["gain_se"])


def _against(folder: RunFolder, healthy: RunFolder) -> tuple[float, float, str]:
    """(by how much the metric is worse than the healthy run's, its standard error, the metric)."""
    found = compare([str(healthy.path), str(folder.path)])
    gain = next(line.gain for line in found.lines if line.gain is not None)
    return -gain.mean, gain.se, found.metric
