"""`loraloom tune`: many candidates on one frozen base, pruned while they run; the best one is raced, proven and kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from loraloom.config.asked import Config
from loraloom.errors import ConfigError, RunError
from loraloom.pipeline.drive import Driver, Finished, Job
from loraloom.pipeline.prepare import Prepared, prepare
from loraloom.pipeline.race import finalists, race
from loraloom.pipeline.recorder import Watch
from loraloom.pipeline.session import Outcome, Session, best_folder
from loraloom.pipeline.warmup import plan_of_packs
from loraloom.plan.planner import candidate, search_caps
from loraloom.records import EndStatus, Score
from loraloom.search.compare import mean_cost
from loraloom.search.default_space import default_space
from loraloom.search.searcher import Observation, Searcher
from loraloom.search.space import Space
from loraloom.store.database import Database, default_url
from loraloom.train.pack import Seat
from loraloom.train.schedule import warmup_steps


def tune(config: Config, watch: Watch, dry_run: bool = False) -> Outcome | Prepared:
    """Search, race, prove, keep. With `dry_run` only what would be done is returned; nothing is written.

    Raises:
        RequestError: the request cannot work; nothing was started.
        RunError: it started and failed; the run folder holds what was done.
    """
    prepared = prepare(config)
    if not prepared.data.validation:
        raise ConfigError("`tune` needs validation data to compare candidates on", next="leave `data.validation` at 0.1")
    space = search_space(prepared)
    if dry_run:
        return prepared
    session = Session(prepared, "tune", watch)
    with session.running():
        session.measure_baseline()
        slots = plan_of_packs(session)
        search, driver = SearchSource(session, space, slots), session.driver(slots)
        driver.run(search)
        winner = race(session, driver, finalists(search.completed(driver), search.default, config.search.trials), search.default)
        prove(session, driver, winner, search.default)
        return session.finish()


def search_space(prepared: Prepared) -> Space:
    """What the user asked to search, else SEARCH's default space round the plan.

    Raises:
        ConfigError: a key or a range that cannot be searched.
        RequestError: a value that this model cannot have.
    """
    asked = prepared.config.search
    if asked.space == "auto":
        return default_space(prepared.plan.values(), asked.trials, prepared.plan.slots, search_caps(prepared.plan))
    space = Space.decode(asked.space)
    # Whether a value suits this model (a target that matches nothing) shows only in a candidate that has it.
    middle = space.point({})
    turned = [{**middle, dimension.key: level} for dimension in space.searched for level in dimension.levels(2)]
    for point in (middle, *turned):
        candidate(prepared.plan, "check", space.params(point))
    return space


@dataclass
class SearchSource:
    """Stands between the searcher, which knows no torch, and the driver, which knows no search."""

    session: Session
    space: Space
    slots: int
    default: str = ""
    scores: dict[str, Score] = field(default_factory=dict[str, Score])

    def __post_init__(self) -> None:
        asked, session = self.session.prepared.config.search, self.session
        with Database(default_url(session.prepared.config.output_dir)) as database:
            storage = database.study_url
        self.searcher = Searcher(
            self.space, session.prepared.plan.values(), asked.trials, self.slots,
            sampler=asked.sampler, pruner=asked.pruner, seed=session.prepared.config.training.seed, storage=storage,
            study_name=str(session.folder.path.resolve()), base=session.base_score, resume=False,
        )  # fmt: skip

    def ask(self) -> Job | None:
        suggestion = self.searcher.ask()
        if suggestion is None:
            return None
        if suggestion.kind == "default" and not self.default:
            self.default = suggestion.id
            self.session.result.default = suggestion.id
        return self.session.job(suggestion.id, dict(suggestion.params), seed_offset=suggestion.seed_offset, role=suggestion.kind)

    def scored(self, seat: Seat, score: Score) -> None:
        spec = seat.candidate.training
        self.searcher.report(
            Observation(
                trial_id=seat.id, step=seat.step, progress=seat.progress,
                warmup_share=warmup_steps(seat.planned_steps, spec.warmup_ratio) / seat.planned_steps, score=score,
                train_loss=seat.smoothed_loss or 0.0, initial_train_loss=seat.first_loss or 0.0,
                schedule_shape=(spec.lr_scheduler_type, spec.warmup_ratio, spec.num_train_epochs),
            )
        )  # fmt: skip

    def verdicts(self) -> Sequence[tuple[str, EndStatus, str]]:
        status: dict[str, EndStatus] = {"prune": "pruned", "diverged": "diverged", "stop": "completed"}
        return [(verdict.trial_id, status[verdict.action], verdict.reason) for verdict in self.searcher.verdicts()]

    def ended(self, finished: Finished, seat: Seat, reason: str | None) -> None:
        self.searcher.tell(seat.id, finished.status, finished.best)

    def completed(self, driver: Driver) -> list[Finished]:
        """Candidates whose adapter was saved, best first.

        Raises:
            RunError: there is none.
        """
        done = [one for one in driver.finished.values() if one.adapter is not None]
        if not done:
            raise RunError(
                "no candidate finished",
                got="; ".join(f"{t.id} {t.status}: {t.reason}" for t in list(self.session.recorder.trials.values())[:4]),
                next="lower the rate with --set training.learning_rate=1e-4, or allow more time with --set limits.time=...",
            )
        return sorted(done, key=lambda one: mean_cost(one.best) if one.best else math.inf)


def prove(session: Session, driver: Driver, winner: str, default: str) -> None:
    """Open the test split, once: bare base, the plan's own setting, the winner. Then copy and verify best/."""
    rows = session.prepared.data.test
    session.result.best = winner
    session.recorder.emit("winner", winner, params=session.recorder.trials[winner].params)
    if rows:
        base = session.score_base(rows, "test")
        session.result.baseline = {**session.result.baseline, **{f"test_{key}": value for key, value in base.metrics.items()}}
        jobs = [driver.finished[trial].job for trial in dict.fromkeys((winner, default)) if driver.finished[trial].adapter]
        for trial, score in session.score_saved(jobs, rows, "test").items():
            session.recorder.scored(trial, score)
    best_folder(session, winner)
