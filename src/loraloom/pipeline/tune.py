"""`loraloom tune`: many candidates on one frozen base, pruned while they run; the best
one is raced, proven and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loraloom.config.asked import Config
from loraloom.errors import ConfigError
from loraloom.pipeline.augment_race import race_augmented
from loraloom.pipeline.candidates import job
from loraloom.pipeline.device_errors import device_errors
from loraloom.pipeline.drive import Driver
from loraloom.pipeline.executor import executor_of, packed_at_once
from loraloom.pipeline.history import finished_runs, with_history
from loraloom.pipeline.job import Job
from loraloom.pipeline.journal import Journal
from loraloom.pipeline.measured_ranks import measure_ranks
from loraloom.pipeline.past_searches import tried_second, with_past_searches
from loraloom.pipeline.prepare import Prepared, prepare
from loraloom.pipeline.prove import completed, prove
from loraloom.pipeline.race import finalists, race
from loraloom.pipeline.recorder import Watch
from loraloom.pipeline.resume import Reopened, reopened
from loraloom.pipeline.run_log import Outcome, RunLog, set_up
from loraloom.pipeline.spared import look_closer
from loraloom.plan.search_space import search_space
from loraloom.records import EndStatus, Score, TrialStatus
from loraloom.search.searcher import Observation, Searcher
from loraloom.search.space import Space
from loraloom.search.values import Action
from loraloom.train.orders import SeatView
from loraloom.train.schedule import warmup_steps


@device_errors()
def tune(
    config: Config, watch: Watch, dry_run: bool = False, resume: str | Path | None = None
) -> Outcome | Prepared:
    """Search, race, prove, keep. With `dry_run` only what would be done is returned; nothing is written.

    Args:
        resume: folder of a run that is to go on where it stopped; `config` must ask for the same. An
            unfinished run of the config's own name goes on as well.

    Raises:
        RequestError: the request cannot work; nothing was started.
        RunError: it started and failed; the run folder holds what was done.
        InterruptedRunError: Ctrl-C.
    """
    with nullcontext() if dry_run else reopened(config, "tune", resume) as place:
        return _tune(config, watch, dry_run, place)


def _tune(config: Config, watch: Watch, dry_run: bool, place: Reopened | None) -> Outcome | Prepared:
    if place:
        prepared = prepare(place.config, race=True, free_bytes=place.free_bytes, trials=place.trials)
    else:
        prepared = prepare(config, race=True, diversity=not dry_run)
    if not prepared.data.validation:
        raise ConfigError(
            "`tune` needs validation data to compare candidates on",
            next="leave `data.validation` at 0.1",
        )
    space = search_space(prepared.plan)
    kept = place.past if place else None
    if dry_run:
        return with_history(prepared, kept)
    prepared = with_past_searches(
        prepared, (result for _, result in finished_runs(prepared.config.output_dir)), kept
    )
    bench, log = set_up(prepared, "tune", watch, place)
    with log.running(bench.restore):
        measure_ranks(bench, log)
        with closing(executor_of(bench, log)) as executor:
            driver = Driver(executor, log)
            if not log.resumed:
                log.measured(driver.score_base(), driver.score_initial())
                log.pack_size = packed_at_once(bench, log, executor)
            if not log.racing:
                driver.run(SearchSource(log, space))
            default = log.result.default or ""
            chosen = finalists(look_closer(log, completed(log)), default, prepared.plan.trials)
            winner = race(log, driver, chosen, default)
            winner = race_augmented(log, driver, winner)
        # Workers elsewhere are gone by now, so that there is room for a base in this process.
        prove(bench, log, winner, default)
        driver.commands.refuse_rest()
        return log.finish()


@dataclass
class SearchSource:
    """Stands between the searcher, which knows no torch, and the driver, which knows no search."""

    log: RunLog
    space: Space

    def __post_init__(self) -> None:
        log = self.log
        prepared = self.log.prepared
        asked = prepared.config.search
        # The study lives in memory: the journal is what lasts, and agrees with the
        # checkpoint to the last call.
        searcher = Searcher(
            self.space,
            prepared.plan.values(),
            prepared.plan.trials,
            log.pack_size or 1,
            sampler=asked.sampler,
            pruner=asked.pruner,
            seed=prepared.config.training.seed,
            base=log.base_score,
            known=[known for search in prepared.past for known in search.known],
        )
        self.searcher = Journal(searcher, log.journal)
        self._withdrawn: set[str] = set()
        self._extended = False
        changed = self.searcher.play()
        if changed:
            log.recorder.note(
                f"the sampler would now draw {changed} of the candidates otherwise; they stay as"
                " they are"
            )

    def ask(self) -> Job | None:
        asked = self.searcher.ask()
        log = self.log
        if asked is None:
            self._say_used_up()
            return None
        if asked.kind == "default" and log.result.default is None:
            log.result.default = asked.id
        again = tried_second(log.prepared, log.prepared.past) if asked.kind == "history" else None
        if again is not None:
            log.recorder.note(f"{asked.id} is tried again: {again.reason}")
        return job(
            log.prepared,
            asked.id,
            asked.params,
            seed_offset=asked.seed_offset,
            role=asked.kind,
        )

    def scored(self, seat: SeatView, score: Score) -> None:
        spec = seat.candidate.training
        self.searcher.report(
            Observation(
                trial_id=seat.id,
                step=seat.step,
                progress=seat.progress,
                warmup_share=warmup_steps(seat.planned_steps, spec.warmup_ratio) / seat.planned_steps,
                score=score,
                train_loss=seat.smoothed_loss or 0.0,
                initial_train_loss=seat.first_loss or 0.0,
                schedule_shape=(spec.lr_scheduler_type, spec.warmup_ratio, spec.num_train_epochs),
            )
        )

    def verdicts(self) -> Sequence[tuple[str, TrialStatus, str]]:
        status: dict[Action, TrialStatus] = {
            "prune": "pruned",
            "pause": "waiting",
            "diverged": "diverged",
            "stop": "completed",
        }
        return [
            (verdict.trial_id, status[verdict.action], verdict.reason)
            for verdict in self.searcher.verdicts()
        ]

    def ended(self, trial: str, status: EndStatus, best: Score | None) -> None:
        # The sampler is told of a failure: that one teaches it nothing.
        self.searcher.tell(trial, "failed" if trial in self._withdrawn else status, best)

    def add(self, params: Mapping[str, Any]) -> str:
        return self.searcher.add(params).id

    def extend(self, count: int) -> None:
        self.searcher.extend(count)
        self._extended = True

    def _say_used_up(self) -> None:
        """More were asked for by hand than the space holds."""
        if self._extended and self.searcher.searcher.used_up:
            self._extended = False
            self.log.recorder.note(
                "the search space holds no other candidate: fewer than asked are tried"
            )

    def withdraw(self, trial: str) -> None:
        self._withdrawn.add(trial)
