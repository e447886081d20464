"""From a live candidate to its findings: collects what the rules of `diagnose` need to know, and has them asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from loraloom.data.contrast import contrast, more_related
from loraloom.data.encode import Encoded, Row
from loraloom.diagnose.across import across
from loraloom.diagnose.case import EPOCHS, RANK, RATE, Case
from loraloom.diagnose.case import Difference as Cost
from loraloom.diagnose.data import DataSigns, data_findings
from loraloom.diagnose.rank import diagnose, ranked
from loraloom.diagnose.unlike_test import Opened, unlike_test
from loraloom.evals.scoring import RowSums, row_sums, score_of
from loraloom.lora.targets import NO_TARGETS
from loraloom.pipeline.preflight.stop import stop_ids
from loraloom.plan.rules import RULES
from loraloom.records import EndStatus, Finding, Score
from loraloom.search.compare import mean_cost, paired_difference, standard_error
from loraloom.search.curves import Curve, Reading
from loraloom.search.exits import leave
from loraloom.search.values import Suggestion, Verdict
from loraloom.store.scores import read_scores
from loraloom.train.pack import Seat
from loraloom.train.schedule import warmup_steps

if TYPE_CHECKING:
    from loraloom.pipeline.drive import Job
    from loraloom.pipeline.prepare import Prepared
    from loraloom.pipeline.session import Session

ADVISED = (RATE, RANK, EPOCHS)
"""Settings whose advised value tells a rule which way a value is off."""
PROBE_ROWS = (4, 16)
"""Fewest and most rows of each split that the exact-match probe reads."""
PROBE_SHARE = 64
"""One probe row of each split for this many rows trained on: about a hundredth of the training. Where that is fewer than the
fewest there is no probe; so short a training learns nothing by heart."""


class Diagnosis:
    """The doctor of one run (`drive.Doctor`)."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._retained_base: Score | None = None
        self._of_test: Finding | None = None

    def may_end(self, seat: Seat, status: EndStatus, reason: str | None) -> bool:
        """Pruning is a choice of the search, numbers that are not finite cannot be trained on, and a patience that the user
        named is the user's; the rest is judgement."""
        asked = self.session.prepared.config
        patience = asked.training.early_stopping_patience
        impatient = status == "completed" and isinstance(patience, int) and waited(seat) >= patience
        if asked.diagnose.act or status == "pruned" or seat.nonfinite or impatient:
            return True
        seat.signals.seen_exit = seat.signals.seen_exit or (status, reason or status)
        return False

    def examine(self, job: Job, seat: Seat, status: EndStatus, reason: str | None) -> None:
        """Take the last signals of a candidate that is about to leave, and write down what they say."""
        gauge = self.session.trainer.gauge
        if gauge is None:
            return
        gauge.measure_modules(seat)
        if status == "completed":
            self._probe_exact(seat)
            self._probe_retained(seat)
        self.session.recorder.diagnosed(seat, diagnose(self.case(job, seat, status, reason)))

    def exit_of(self, seat: Seat) -> Verdict | None:
        """Why a candidate that is trained alone should end now, if there is a reason."""
        gauge = self.session.trainer.gauge
        return None if gauge is None else exit_of(seat, gauge.base, gauge.share)

    def of_run(self) -> list[Finding]:
        """What the data, and the trials together, say."""
        if self.session.trainer.gauge is None:
            return []
        prepared = self.session.prepared
        found = data_findings(data_signs(prepared.data, prepared.tokenizer, prepared.facts.model.max_positions))
        found += [self._of_test] if self._of_test else []
        return ranked([*found, *across(list(self.session.recorder.trials.values()), self.session.result.metric)])

    def test_opened(self, trial: str, base: Score, winner: Score) -> None:
        """Hold the scores of bare base and winner on the test against those on validation."""
        session, data = self.session, self.session.prepared.data
        kept = read_scores(session.folder.trial_folder(trial)).get("validation")
        if session.base_score is None or kept is None:
            return
        validation = opened(session.base_score, kept.score("validation", {}))
        measure = "loss" if session.metric == "loss" else "share that is wrong"
        self._of_test = unlike_test(trial, measure, validation, opened(base, winner), contrast(data), _for_like_validation(data))

    def case(self, job: Job, seat: Seat, status: EndStatus, reason: str | None) -> Case:
        """Everything that the rules may ask about a candidate."""
        prepared, spec = self.session.prepared, seat.candidate.training
        reading = self.session.trainer.gauge
        base = None if reading is None else reading.base
        return Case(
            signals=seat.signals,
            values=job.settings,
            planned_steps=seat.planned_steps,
            warmup_steps=warmup_steps(seat.planned_steps, spec.warmup_ratio),
            steps_per_epoch=seat.order.steps_per_epoch,
            rows=len(prepared.data.train),
            adapted=len(seat.candidate.adapter.target_modules),
            adaptable=sum(linear.role not in NO_TARGETS for linear in prepared.facts.model.linears),
            task=prepared.task,
            decides=self.session.metric,
            advised=advised(prepared, seat),
            base_cost=None if base is None else mean_cost(base),
            base_loss=None if base is None else base.metrics["loss"],
            guess_cost=guess_cost(prepared.data, self.session.metric),
            guess_loss=guess_cost(prepared.data, "loss"),
            status=status,
            reason=reason,
            fresh_b=not seat.adapter.constants,
        )

    def _probe_exact(self, seat: Seat) -> None:
        """How many rows of each split the model now has right in every supervised token."""
        data, (fewest, most) = self.session.prepared.data, PROBE_ROWS
        trained = seat.step * seat.candidate.training.per_device_train_batch_size
        count = min(most, trained // PROBE_SHARE)
        if count < fewest:
            return
        seat.signals.train_exact = exact_share(self._sums(data.train[:count], [seat.id])[seat.id])
        if data.validation:
            seat.signals.held_out_exact = exact_share(self._sums(data.validation[:count], [seat.id])[seat.id])

    def _probe_retained(self, seat: Seat) -> None:
        """The loss of the best checkpoint on the rows to retain, against the bare base's."""
        rows = self.session.prepared.retain
        if not rows:
            return
        if seat.best_weights is not None:
            seat.adapter.restore(seat.best_weights)
        objective = self.session.objective
        if self._retained_base is None:
            self._retained_base = score_of(self._sums(rows, [])[""], "retain", objective, "loss")
        now = score_of(self._sums(rows, [seat.id])[seat.id], "retain", objective, "loss")
        change = paired_difference(now, self._retained_base)
        seat.signals.retain_change = (change.mean, change.se)

    def _sums(self, rows: Sequence[Row], slots: Sequence[str]) -> dict[str, RowSums]:
        session = self.session
        return row_sums(
            session.packed, session.objective, rows, slots, task=session.prepared.task, pad_id=session.base.pad_id,
            token_budget=2 * session.trainer.token_budget,
        )  # fmt: skip


def opened(base: Score, winner: Score) -> Opened:
    """What bare base and winner cost on one split."""
    gain = paired_difference(base, winner)
    ours, theirs = (Cost(mean_cost(score), standard_error(score)) for score in (winner, base))
    return Opened(ours, theirs, Cost(gain.mean, gain.se), gain.rows)


def _for_like_validation(data: Encoded) -> str:
    """What to do where validation does not stand for the test."""
    if more_related(data):
        return "keep related rows on one side: data.validation=0.1, and data.group_column=COLUMN that names what belongs together"
    if "test" not in data.given:
        return "name what belongs together, if anything does: data.group_column=COLUMN; or bring more rows"
    return "take validation rows from where the test's come from (data.validation=FILE): then what is chosen suits the test"


def waited(seat: Seat) -> int:
    """Evaluations since the best one. Counted on the seat, which a checkpoint keeps."""
    return sum(seat.best_step < step <= seat.step for step in seat.evaluation_steps)


def exit_of(seat: Seat, base: Score | None, share: str) -> Verdict | None:
    """`search.exits` for a candidate that no searcher watches, from the evaluations that its seat keeps.

    Args:
        base: the bare base's score on validation.
        share: name of the metric that counts what is right.
    """
    curve = Curve(Suggestion(seat.id, {}, "default"), wave=0, protected=True)
    warmup = warmup_steps(seat.planned_steps, seat.candidate.training.warmup_ratio) / seat.planned_steps
    for seen in seat.signals.readings:
        score = Score("validation", {"cost": seen.cost, "cost_se": seen.cost_se, share: seen.metric})
        curve.readings.append(
            Reading(
                seen.step, seen.step / seat.planned_steps, warmup, seen.cost, seen.cost_se, score, seen.train_loss,
                seat.first_loss or 0.0,
            )
        )  # fmt: skip
    return leave(curve, None if base is None else mean_cost(base))


def exact_share(sums: RowSums) -> float:
    """Share of rows whose every supervised token (or class) is the model's first choice."""
    return float(np.mean(sums.correct >= sums.weight))


def advised(prepared: Prepared, seat: Seat) -> dict[str, Any]:
    """What the plan's rules say for the keys of `ADVISED`, given all else that this candidate has."""
    settings, made = prepared.plan.settings, seat.candidate
    decided = {key: replace(advice, value=made.params.get(key, advice.value)) for key, advice in settings.items()}
    asked = prepared.config
    # A number of steps that was asked for decides the epochs, and would be advised in return.
    unbounded = replace(asked, training=replace(asked.training, max_steps=None))
    return {key: RULES[key](prepared.facts, unbounded if key == EPOCHS else asked, decided).value for key in ADVISED}


def guess_cost(data: Encoded, decides: str) -> float | None:
    """Cost on validation of always giving the same best answer; None for language models."""
    if data.task != "seq_cls" or not data.validation:
        return None
    counts = np.bincount([int(row.labels[0]) for row in data.validation])
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum()) if decides.endswith("loss") else float(1 - shares.max())


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
    """Share of training rows whose last supervised token is one that ends a text; None where that is not asked of a row."""
    ends = stop_ids(tokenizer)
    if data.task != "causal_lm" or data.format == "text" or not ends:
        return None
    return float(np.mean([int(row.labels[row.labels >= 0][-1]) in ends for row in data.train]))


def first_remedy(findings: Iterable[Finding]) -> Finding | None:
    """The first finding that a change of the config may cure."""
    return next((finding for finding in findings if finding.patch), None)
