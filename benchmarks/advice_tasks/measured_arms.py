"""One task, measured: tools' defaults, the plan's values and the best of a search, each from three
seeds, on the test split."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from real_tasks import RealTask
from tool_defaults import TOOLS

from loraloom.config.decode import load_config
from loraloom.pipeline.candidates import job
from loraloom.pipeline.drive import Driver
from loraloom.pipeline.executor import executor_of
from loraloom.pipeline.job import Job, Record
from loraloom.pipeline.prepare import Prepared, prepare
from loraloom.pipeline.prove import completed
from loraloom.pipeline.race import FIRST_RACE_SEED, RaceSource, saved
from loraloom.pipeline.run_log import RunLog, set_up
from loraloom.pipeline.tune import SearchSource
from loraloom.pipeline.workbench import Workbench
from loraloom.plan.search_space import search_space
from loraloom.records import Score
from loraloom.search.compare import average, mean_cost, standard_error

TRIALS, SEEDS = 32, 3
SLOTS = 8
"""How many train at once. Given, not timed, so that the same candidates are drawn on every machine."""
MEMORY = "6GiB"
"""For the same reason: the plan's rows at a time follow the memory."""
PLAN, BEST = "plan", "best_of_searched"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """What one task came to: a test score for every arm and seed, and a record of how it was got."""

    scores: Mapping[str, Sequence[Score]]
    record: dict[str, Any]


def measure(
    task: RealTask, shared: Path, work: Path, say: Say, *, trials: int = TRIALS, seeds: int = SEEDS
) -> Measured:
    """Search once, then train every arm anew; `work` is a folder for all that is written on the way."""
    started = time.process_time()
    splits = task.splits(shared)
    flags: dict[str, Any] = {
        "model.name_or_path": task.model(shared),
        "task": task.task,
        **splits.write(work),
        "search.trials": trials,
        "limits.max_packed": SLOTS,
        "limits.memory": MEMORY,
        "output_dir": str(work / "runs"),
        "name": task.name,
    }
    prepared = prepare(load_config(flags=flags))
    bench, log = set_up(prepared, "tune", lambda event: None)
    with log.running(bench.restore):
        log.measured(bench.measure_base())
        log.pack_size = prepared.plan.pack_size
        driver, records = Driver(executor_of(bench, log), log), log.recorder.records
        driver.run(SearchSource(log, search_space(prepared.plan)))
        winner = completed(log)[0].job
        searched = time.process_time() - started
        say(
            f"{task.name}: searched in {searched:.0f} core seconds; best {winner.candidate.id}"
            f" {dict(winner.candidate.params)}"
        )
        params = {
            **{tool.name: tool.params(prepared.facts.model.model_type) for tool in TOOLS},
            PLAN: {},
            BEST: dict(winner.candidate.params),
        }
        jobs = {
            arm: [_job(prepared, arm, own, seed) for seed in range(seeds)] for arm, own in params.items()
        }
        scores = _tested(bench, log, driver, jobs)
        base = bench.score_base(prepared.data.test, "test")
        statuses = [record.trial.status for record in records.values() if not _is_arm(record.id, jobs)]
    record = {
        "about": task.about,
        "model": Path(prepared.config.model.name_or_path or "").name,
        "rows": {name: len(rows) for name, rows in vars(splits).items()},
        "metric": f"test_{bench.metric}",
        "core_seconds": {"search": round(searched), "all": round(time.process_time() - started)},
        "search": {
            "trials": len(statuses),
            "statuses": {status: statuses.count(status) for status in sorted(set(statuses))},
            "winner": winner.candidate.id,
            "winner_validation_cost": round(
                mean_cost(records[winner.candidate.id].best or Score("", {})), 4
            ),
        },
        "base": round(mean_cost(base), 4),
        "arms": {arm: _summary(own, jobs[arm][0], records) for arm, own in scores.items()},
    }
    return Measured(scores, record)


def _job(prepared: Prepared, arm: str, params: dict[str, Any], seed: int) -> Job:
    """A candidate of an arm. What a tool trains is kept as it is after its last step:
    none of them keeps the best."""
    planned = job(prepared, f"{arm}-{seed}", params, seed_offset=FIRST_RACE_SEED + seed, role=arm)
    if arm in (PLAN, BEST):
        return planned
    made = planned.candidate
    return replace(planned, candidate=replace(made, training=replace(made.training, evaluations=1)))


def _is_arm(trial: str, jobs: Mapping[str, Sequence[Job]]) -> bool:
    return trial.rpartition("-")[0] in jobs


def _tested(
    bench: Workbench, log: RunLog, driver: Driver, jobs: Mapping[str, Sequence[Job]]
) -> dict[str, list[Score]]:
    """Train all arms and score them on the test split. What diverged leaves nothing, so
    it counts as the bare base."""
    driver.run(RaceSource([one for own in jobs.values() for one in own]))
    rows, records = bench.prepared.data.test, log.recorder.records
    trained = [records[one.candidate.id] for own in jobs.values() for one in own]
    kept = [record for record in trained if record.trial.adapter]
    found = bench.score_saved(saved(log, kept), rows, "test")
    lost = {record.id: bench.score_base(rows, "test") for record in trained if record not in kept}
    return {arm: [(found | lost)[one.candidate.id] for one in own] for arm, own in jobs.items()}


def _summary(scores: Sequence[Score], job: Job, records: Mapping[str, Record]) -> dict[str, Any]:
    ended = [
        records[f"{job.candidate.id.rpartition('-')[0]}-{seed}"].trial.status
        for seed in range(len(scores))
    ]
    return {
        "cost": round(mean_cost(average(scores)), 5),
        "row_error": round(standard_error(average(scores)), 5),
        "costs": [round(mean_cost(score), 5) for score in scores],
        "statuses": ended,
        "settings": {key: value for key, value in sorted(job.settings.items()) if key in SHOWN},
    }


SHOWN = (
    "adapter.r",
    "adapter.lora_alpha",
    "adapter.lora_dropout",
    "adapter.target_modules",
    "training.learning_rate",
    "training.num_train_epochs",
    "training.per_device_train_batch_size",
    "training.gradient_accumulation_steps",
    "training.lr_scheduler_type",
    "training.warmup_ratio",
    "training.weight_decay",
)
"""Settings in which the arms differ."""
