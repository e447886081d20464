"""`loraloom train`: one adapter from the plan. A pack of one, on the same loop as `tune`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loraloom.config.asked import Config
from loraloom.errors import RunError
from loraloom.pipeline.drive import Finished, Job
from loraloom.pipeline.prepare import Prepared, prepare
from loraloom.pipeline.recorder import Watch
from loraloom.pipeline.session import Outcome, Session
from loraloom.pipeline.tune import prove
from loraloom.records import EndStatus, Score
from loraloom.train.pack import Seat

TRIAL = "t000"


@dataclass
class OneSource:
    """Hands out one job, and stops it when it has not improved for `patience` evaluations."""

    job: Job | None
    patience: int | None
    waited: int = 0
    stop: bool = False

    def ask(self) -> Job | None:
        job, self.job = self.job, None
        return job

    def scored(self, seat: Seat, score: Score) -> None:
        self.waited = 0 if seat.best_step == seat.step else self.waited + 1
        self.stop = self.patience is not None and self.waited >= self.patience

    def verdicts(self) -> Sequence[tuple[str, EndStatus, str]]:
        if not self.stop:
            return ()
        return [(TRIAL, "completed", f"no gain on validation for {self.waited} evaluations; the best checkpoint is kept")]

    def ended(self, finished: Finished, seat: Seat, reason: str | None) -> None:
        pass


def train(config: Config, watch: Watch, dry_run: bool = False) -> Outcome | Prepared:
    """Train one adapter, prove it, keep it. Errors as in `tune`."""
    prepared = prepare(config)
    if dry_run:
        return prepared
    session = Session(prepared, "train", watch)
    with session.running():
        if prepared.data.validation:
            session.measure_baseline()
        job = session.job(TRIAL, {}, role="default")
        session.result.default = TRIAL
        driver = session.driver(1)
        driver.run(OneSource(job, job.candidate.training.early_stopping_patience))
        if driver.finished[TRIAL].adapter is None:
            reason = session.recorder.trials[TRIAL].reason
            raise RunError(
                f"the adapter was not finished: {reason}", next="--set training.learning_rate=... a third of what it was"
            )
        prove(session, driver, TRIAL, TRIAL)
        return session.finish()
