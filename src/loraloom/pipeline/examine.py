"""A candidate that is about to leave the pack, looked at by the rules of `diagnose`; on
the worker's side of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from loraloom.config import names
from loraloom.data.encode import Encoded
from loraloom.data.rows import Row, sides_of
from loraloom.diagnose.case import Case
from loraloom.diagnose.order import diagnose
from loraloom.evals.scoring import RowSums, score_of
from loraloom.lora.targets import NO_TARGETS
from loraloom.pipeline.initial_adapter import as_saved
from loraloom.pipeline.prepare import Prepared
from loraloom.pipeline.workbench import Workbench
from loraloom.plan.rules import RULES
from loraloom.records import COMPARED, EndStatus, Score
from loraloom.search.compare import mean_cost, paired_difference
from loraloom.train.orders import End, Examined
from loraloom.train.schedule import warmup_steps
from loraloom.train.seat import Seat

ADVISED = (names.LEARNING_RATE, names.R, names.NUM_TRAIN_EPOCHS)
"""Settings whose advised value tells a rule which way a value is off."""
PROBE_ROWS = (4, 16)
"""Fewest and most rows of each split that the exact-match probe reads."""
PROBE_SHARE = 64
"""One probe row of each split for this many rows trained on: about a hundredth of the training. Where
that is fewer than the fewest there is no probe; so short a training learns nothing by heart."""
PROBE_PAIRS = 64
"""Training pairs whose choice is looked at: a standard error of a share of 0.06 at most."""


class Examiner:
    """Takes the last signals of candidates, and has the rules say what they mean."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self._retained_base: Score | None = None

    def examine(self, seat: Seat, order: End) -> Examined | None:
        """What is seen of a candidate whose last weights are still in place; None where
        nothing is measured."""
        gauge = self.bench.trainer.gauge
        if gauge is None:
            return None
        gauge.measure_modules(seat)
        retained = None
        if order.status == "completed":
            self._probe_exact(seat)
            retained = self._probe_retained(seat)
        findings = diagnose(self.case(seat, order.settings, order.status, order.reason))
        return Examined(tuple(findings), seat.signals.to_plain(), retained)

    def case(
        self, seat: Seat, settings: Mapping[str, Any], status: EndStatus, reason: str | None
    ) -> Case:
        """Everything that the rules may ask about a candidate."""
        prepared = self.bench.prepared
        spec = seat.candidate.training
        base = self.bench.base_score
        metric = self.bench.metric
        return Case(
            signals=seat.signals,
            values=settings,
            planned_steps=seat.planned_steps,
            warmup_steps=warmup_steps(seat.planned_steps, spec.warmup_ratio),
            steps_per_epoch=seat.order.steps_per_epoch,
            rows=len(prepared.data.train),
            adapted=len(seat.candidate.adapter.target_modules),
            adaptable=sum(linear.role not in NO_TARGETS for linear in prepared.facts.model.linears),
            task=prepared.task,
            decides=metric,
            advised=advised(prepared, seat),
            base_cost=None if base is None else mean_cost(base),
            base_loss=None if base is None else base.metrics["loss"],
            guess_cost=guess_cost(prepared.data, metric),
            guess_loss=guess_cost(prepared.data, "loss"),
            status=status,
            reason=reason,
            fresh_b=not seat.adapter.constants and seat.candidate.start is None,
        )

    def _probe_exact(self, seat: Seat) -> None:
        """How many rows of each split the model now has right in every supervised token."""
        data, (fewest, most) = self.bench.prepared.data, PROBE_ROWS
        if data.task in COMPARED:
            self._probe_pairs(seat)
            return
        trained = seat.step * seat.candidate.training.per_device_train_batch_size
        count = min(most, trained // PROBE_SHARE)
        if count < fewest:
            return
        seat.signals.train_exact = exact_share(self.bench.sums(data.train[:count], [seat.id])[seat.id])
        if data.validation:
            seat.signals.held_out_exact = exact_share(
                self.bench.sums(data.validation[:count], [seat.id])[seat.id]
            )

    def _probe_pairs(self, seat: Seat) -> None:
        """How many training pairs, or judged answers, are told apart; those held out were scored."""
        rows = self.bench.prepared.data.train[:PROBE_PAIRS]
        seat.signals.train_exact = exact_share(self.bench.sums(rows, [seat.id])[seat.id])

    def _probe_retained(self, seat: Seat) -> Score | None:
        """The best checkpoint on the rows to retain, its loss against what training began with."""
        rows = self.bench.prepared.retain
        if not rows:
            return None
        if seat.best_weights is not None:
            seat.adapter.restore(seat.best_weights)
        objective = self.bench.objective
        now = score_of(self.bench.sums(rows, [seat.id])[seat.id], "retain", objective, "loss")
        if self._retained_base is None:
            self._retained_base = self._retained_before(rows)
        change = paired_difference(now, self._retained_base)
        seat.signals.retain_change = (change.mean, change.se)
        return Score(now.split, now.metrics)

    def _retained_before(self, rows: Sequence[Row]) -> Score:
        """What every candidate begins with on the rows to retain: the adapter that the run begins with,
        where there is one, else the bare base."""
        bench = self.bench
        initial = as_saved(bench.prepared.plan, bench.trainer.shelf.run_folder)
        with bench.seated(initial):
            sums = bench.sums(rows, [made.id for made, _ in initial])
        return score_of(next(iter(sums.values())), "retain", bench.objective, "loss")


def exact_share(sums: RowSums) -> float:
    """Share of rows whose every supervised token (or class) is the model's first choice."""
    return float(np.mean(sums.correct >= sums.weight))


def advised(prepared: Prepared, seat: Seat) -> dict[str, Any]:
    """What the plan's rules say for the keys of `ADVISED`, given all else that this candidate has."""
    case = prepared.plan.case.assuming(seat.candidate.params)
    # A number of steps that was asked for decides the epochs, and would be advised in return.
    unbounded = replace(
        case, asked=replace(case.asked, training=replace(case.asked.training, max_steps=None))
    )
    return {
        key: RULES[key](unbounded if key == names.NUM_TRAIN_EPOCHS else case).value for key in ADVISED
    }


def guess_cost(data: Encoded, decides: str) -> float | None:
    """Cost on validation of always giving the same best answer; None for language models."""
    if data.task != "seq_cls" or not data.validation:
        return None
    counts = np.bincount([int(row.labels[0]) for row in sides_of(data.validation)])
    shares = counts[counts > 0] / counts.sum()
    return (
        float(-(shares * np.log(shares)).sum()) if decides.endswith("loss") else float(1 - shares.max())
    )
