"""What the run as a whole says of its data and its candidates, and whether a rule may
end one of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from loraloom.config.asked import Config
from loraloom.data.contrast import contrast, more_related
from loraloom.data.encode import Encoded
from loraloom.data.rows import sides_of
from loraloom.diagnose.across import across
from loraloom.diagnose.case import Difference as Cost
from loraloom.diagnose.data import DataSigns, data_findings
from loraloom.diagnose.order import ranked
from loraloom.diagnose.unlike_test import Opened, unlike_test
from loraloom.pipeline.preflight.stop import stop_ids
from loraloom.pipeline.prepare import Prepared
from loraloom.records import EndStatus, Finding, Score, Trial, built_as
from loraloom.search.compare import mean_cost, paired_difference, standard_error
from loraloom.search.curves import Reading, TrialCurve
from loraloom.search.exits import leave
from loraloom.search.values import AskedTrial, Verdict
from loraloom.store.scores import read_scores
from loraloom.train.orders import SeatView
from loraloom.train.schedule import warmup_steps


def may_end(asked: Config, seat: SeatView, status: EndStatus) -> bool:
    """Whether a candidate may be ended before its last step; False where the user wants to be told only.

    Pruning is a choice of the search, numbers that are not finite cannot be trained on, and a patience
    that the user named is the user's; the rest is judgement.
    """
    patience = asked.training.early_stopping_patience
    impatient = status == "completed" and isinstance(patience, int) and seat.waited >= patience
    return asked.diagnose.act or status == "pruned" or bool(seat.nonfinite) or impatient


def findings_of_run(
    prepared: Prepared, trials: Iterable[Trial], metric: str, of_run: Iterable[Finding]
) -> list[Finding]:
    """What the data, and the trials together, say, beside what was found on the way (`of_run`)."""
    if not prepared.config.diagnose.signals:
        return []
    found = data_findings(
        data_signs(prepared.data, prepared.tokenizer, prepared.facts.model.max_positions)
    )
    return ranked([*found, *of_run, *across(list(trials), metric)])


def opened_test(
    data: Encoded, trial: str, folder: Path, bases: Mapping[str, Score], winner: Score, metric: str
) -> Finding | None:
    """Hold the scores of bare base and winner on the test against those on validation.

    Args:
        folder: the winner's, where its scores on validation are kept row by row.
        bases: the bare base's score on validation and on the test, by split.
    """
    kept = read_scores(folder).get("validation")
    if kept is None:
        return None
    validation = opened(bases["validation"], kept.score("validation", {}))
    measure = "loss" if metric == "loss" else "error rate"
    return unlike_test(
        trial,
        measure,
        validation,
        opened(bases["test"], winner),
        contrast(data),
        _for_like_validation(data),
    )


def opened(base: Score, winner: Score) -> Opened:
    """What bare base and winner cost on one split."""
    gain = paired_difference(base, winner)
    ours, theirs = (Cost(mean_cost(score), standard_error(score)) for score in (winner, base))
    return Opened(ours, theirs, Cost(gain.mean, gain.se), gain.rows)


def _for_like_validation(data: Encoded) -> str:
    """What to do where validation does not stand for the test."""
    if more_related(data):
        return (
            "keep related rows on one side: data.validation=0.1, and data.group_column=COLUMN that names"
            " what belongs together"
        )
    if "test" not in data.given:
        return (
            "name what belongs together, if anything does: data.group_column=COLUMN; or bring more rows"
        )
    return (
        "take validation rows from where the test's come from (data.validation=FILE): then what is"
        " chosen suits the test"
    )


def exit_of(seat: SeatView, base: Score | None, share: str) -> Verdict | None:
    """`search.exits` for a candidate that no searcher watches, from its evaluations.

    Args:
        base: the bare base's score on validation.
        share: name of the metric that counts what is right.
    """
    curve = TrialCurve(AskedTrial(seat.id, {}, "default"), wave=0, protected=True)
    warmup = warmup_steps(seat.planned_steps, seat.candidate.training.warmup_ratio) / seat.planned_steps
    for seen in seat.readings:
        score = Score("validation", {"cost": seen.cost, "cost_se": seen.cost_se, share: seen.metric})
        curve.readings.append(
            Reading(
                step=seen.step,
                progress=seen.step / seat.planned_steps,
                warmup_share=warmup,
                cost=seen.cost,
                score=score,
                train_loss=seen.train_loss,
                initial_train_loss=seat.first_loss or 0.0,
            )
        )
    return leave(curve, None if base is None else mean_cost(base))


def data_signs(data: Encoded, tokenizer: Any, positions: int | None = None) -> DataSigns:
    """What the encoded rows say about themselves, for a model of so many positions."""
    report = data.report.get("train")
    return DataSigns(
        rows=len(data.train),
        held_out=len(data.validation) + len(data.confirm) + len(data.test),
        leaked=data.duplicates,
        lost=report.share_lost if report else 0.0,
        cut=report.cut if report else 0,
        longest=max((len(row) for row in data.train), default=0),
        ended=_ended_share(data, tokenizer),
        positions=positions,
    )


def _ended_share(data: Encoded, tokenizer: Any) -> float | None:
    """Share of training rows whose last supervised token is one that ends a text; None
    where that is not asked of a row."""
    ends = stop_ids(tokenizer)
    if built_as(data.task) != "causal_lm" or data.format == "text" or not ends:
        return None
    return float(np.mean([int(row.labels[row.labels >= 0][-1]) in ends for row in sides_of(data.train)]))


def first_remedy(findings: Iterable[Finding]) -> Finding | None:
    """The first finding that a change of the config may cure."""
    return next((finding for finding in findings if finding.patch), None)
