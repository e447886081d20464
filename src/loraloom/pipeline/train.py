"""`loraloom train`: one adapter from the plan. A pack of one, on the same loop as `tune`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from loraloom.config.asked import Config
from loraloom.errors import RunError
from loraloom.pipeline.device_errors import device_errors
from loraloom.pipeline.diagnosing import first_remedy, waited
from loraloom.pipeline.drive import Finished, Job
from loraloom.pipeline.history import with_history
from loraloom.pipeline.prepare import Prepared, prepare
from loraloom.pipeline.recorder import Watch
from loraloom.pipeline.resume import Reopened, reopened
from loraloom.pipeline.session import Outcome, Session
from loraloom.pipeline.tune import prove
from loraloom.records import EndStatus, Score
from loraloom.search.values import Verdict
from loraloom.train.pack import Seat

TRIAL = "t000"


@dataclass
class OneSource:
    """Hands out one job, and stops it where it diverges or overfits, or has not improved for `patience` evaluations."""

    job: Job | None
    patience: int | None
    exit_of: Callable[[Seat], Verdict | None]
    waited: int = 0
    stop: bool = False
    exit: Verdict | None = None

    def ask(self) -> Job | None:
        job, self.job = self.job, None
        return job

    def scored(self, seat: Seat, score: Score) -> None:
        self.waited = waited(seat)
        self.stop = self.patience is not None and self.waited >= self.patience
        self.exit = self.exit_of(seat)

    def verdicts(self) -> Sequence[tuple[str, EndStatus, str]]:
        found: list[tuple[str, EndStatus, str]] = []
        if self.exit:
            found.append((TRIAL, "diverged" if self.exit.action == "diverged" else "completed", self.exit.reason))
        if self.stop:
            reason = f"no gain on validation for {self.waited} evaluations; the best checkpoint is kept"
            found.append((TRIAL, "completed", reason))
        return found

    def ended(self, finished: Finished, seat: Seat, reason: str | None) -> None:
        pass


@device_errors()
def train(config: Config, watch: Watch, dry_run: bool = False, resume: str | Path | None = None) -> Outcome | Prepared:
    """Train one adapter, prove it, keep it. Arguments and errors as in `tune`."""
    with nullcontext() if dry_run else reopened(config, "train", resume) as place:
        return _train(config, watch, dry_run, place)


def _train(config: Config, watch: Watch, dry_run: bool, place: Reopened | None) -> Outcome | Prepared:
    prepared = prepare(place.config, free_bytes=place.free_bytes, trials=place.trials) if place else prepare(config)
    if dry_run:
        return with_history(prepared)
    session = Session(prepared, "train", watch, place)
    with session.running():
        if not session.resumed and prepared.data.validation:
            session.measure_baseline()
        job = session.job(TRIAL, {}, role="default")
        session.result.default = TRIAL
        driver = session.driver()
        patience = job.candidate.training.early_stopping_patience
        driver.run(OneSource(None if driver.knows(TRIAL) else job, patience, session.diagnosis.exit_of))
        if driver.finished[TRIAL].adapter is None:
            ended = session.recorder.trials[TRIAL]
            remedy = first_remedy(ended.findings)
            next_step = "--set training.learning_rate=... a third of what it was"
            if remedy is not None:
                next_step = f"{remedy.next}: loraloom train --apply {shlex.quote(str(session.folder.path))}"
            raise RunError(f"the adapter was not finished: {ended.reason}", next=next_step)
        prove(session, driver, TRIAL, TRIAL)
        return session.finish()
