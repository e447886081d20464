"""`loraloom train`: one adapter from the plan. A pack of one, on the same loop as `tune`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

from loraloom.config.asked import Config
from loraloom.errors import RunError
from loraloom.pipeline.augment_race import changed
from loraloom.pipeline.candidates import job
from loraloom.pipeline.device_errors import device_errors
from loraloom.pipeline.diagnosing import exit_of, first_remedy
from loraloom.pipeline.drive import Driver
from loraloom.pipeline.executor import executor_of
from loraloom.pipeline.history import with_history
from loraloom.pipeline.job import Job
from loraloom.pipeline.measured_ranks import measure_ranks
from loraloom.pipeline.prepare import Prepared, prepare, share_of
from loraloom.pipeline.prove import prove
from loraloom.pipeline.recorder import Watch
from loraloom.pipeline.resume import Reopened, reopened
from loraloom.pipeline.run_log import Outcome, RunLog, set_up
from loraloom.records import EndStatus, Score
from loraloom.search.values import Verdict
from loraloom.train.orders import SeatView

TRIAL = "t000"


@dataclass
class OneSource:
    """Hands out one job, and stops it where it diverges or overfits, or has not
    improved for `patience` evaluations."""

    job: Job | None
    patience: int | None
    exit_of: Callable[[SeatView], Verdict | None]
    waited: int = 0
    stop: bool = False
    exit: Verdict | None = None

    def ask(self) -> Job | None:
        job = self.job
        self.job = None
        return job

    def scored(self, seat: SeatView, score: Score) -> None:
        self.waited = seat.waited
        self.stop = self.patience is not None and self.waited >= self.patience
        self.exit = self.exit_of(seat)

    def verdicts(self) -> Sequence[tuple[str, EndStatus, str]]:
        found: list[tuple[str, EndStatus, str]] = []
        if self.exit:
            found.append(
                (TRIAL, "diverged" if self.exit.action == "diverged" else "completed", self.exit.reason)
            )
        if self.stop:
            reason = f"no gain on validation for {self.waited} evaluations; the best checkpoint is kept"
            found.append((TRIAL, "completed", reason))
        return found

    def ended(self, trial: str, status: EndStatus, best: Score | None) -> None:
        pass


@device_errors()
def train(
    config: Config, watch: Watch, dry_run: bool = False, resume: str | Path | None = None
) -> Outcome | Prepared:
    """Train one adapter, prove it, keep it. Arguments and errors as in `tune`."""
    with nullcontext() if dry_run else reopened(config, "train", resume) as place:
        return _train(config, watch, dry_run, place)


def _train(config: Config, watch: Watch, dry_run: bool, place: Reopened | None) -> Outcome | Prepared:
    prepared = (
        prepare(place.config, free_bytes=place.free_bytes, trials=place.trials)
        if place
        else prepare(config, diversity=not dry_run)
    )
    if dry_run:
        return with_history(prepared)
    bench, log = set_up(prepared, "train", watch, place)
    with log.running(bench.restore):
        measure_ranks(bench, log)
        records = log.recorder.records
        with closing(executor_of(bench, log)) as executor:
            driver = Driver(executor, log)
            if not log.resumed and prepared.data.validation:
                log.measured(driver.score_base(), driver.score_initial())
            log.result.default = TRIAL
            one = job(prepared, TRIAL, {}, role="default")
            for variants in prepared.variants:
                one = changed(one, TRIAL, variants.augmentation.name)
            patience = one.candidate.training.early_stopping_patience
            driver.run(OneSource(None if TRIAL in records else one, patience, _exits(log)))
        ended = records[TRIAL].trial
        if ended.adapter is None:
            remedy = first_remedy(ended.findings)
            next_step = "--set training.learning_rate=... a third of what it was"
            if remedy is not None:
                next_step = f"{remedy.next}: loraloom train --apply {shlex.quote(str(log.folder.path))}"
            raise RunError(f"the adapter was not finished: {ended.reason}", next=next_step)
        prove(bench, log, TRIAL, TRIAL)
        driver.commands.refuse_rest()
        return log.finish()


def _exits(log: RunLog) -> Callable[[SeatView], Verdict | None]:
    """Why a candidate that is trained alone should end now, as far as signals are measured."""
    prepared = log.prepared
    if not prepared.config.diagnose.signals:
        return lambda seat: None
    return lambda seat: exit_of(seat, log.base_score, share_of(prepared.task))
