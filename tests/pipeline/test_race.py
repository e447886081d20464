"""Who is raced: the best run of each of the best settings, the plan's own setting always among them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from loraloom.pipeline.job import Job, Record
from loraloom.pipeline.race import FIRST_RACE_SEED, again, finalists, whole
from loraloom.records import AdapterSpec, Candidate, TrainingSpec, Trial, TrialStatus


def finished(trial: str, status: TrialStatus = "completed", **params: Any) -> Record:
    made = Candidate(trial, AdapterSpec(8, 16, 0.0, ("a",)), TrainingSpec(1e-3), params)
    return Record(Job(made, {}), Trial(trial, status, params, adapter="adapter"))


def ids(found: list[Record]) -> list[str]:
    return [one.job.candidate.id for one in found]


def test_the_better_seed_stands_for_its_setting() -> None:
    ranked = [
        finished("t002", rate=1),
        finished("t003", rate=2),
        finished("t000", rate=2),
        finished("t001", rate=3),
    ]
    assert ids(finalists(ranked, "t000", trials=4)) == ["t002", "t003"]


def test_the_plans_setting_is_there_however_badly_it_did() -> None:
    ranked = [
        finished("t002", rate=1),
        finished("t003", rate=3),
        finished("t001", rate=4),
        finished("t000", rate=2),
    ]
    assert ids(finalists(ranked, "t000", trials=4)) == ["t002", "t000"]
    assert ids(finalists(ranked, "t000", trials=16)) == ["t002", "t003", "t000"]


def test_without_the_plans_setting_the_best_are_raced() -> None:
    ranked = [finished("t002", rate=1), finished("t003", rate=3), finished("t001", rate=4)]
    assert ids(finalists(ranked, "t000", trials=4)) == ["t002", "t003"]


def test_the_seeds_of_the_race_are_the_same_for_all() -> None:
    """t003 is the plan's setting from another seed: its races begin from the plan's
    seed all the same."""
    jobs = [finished("t001", rate=1).job, replace(finished("t003", rate=2).job)]
    jobs[1] = replace(
        jobs[1], candidate=replace(jobs[1].candidate, training=TrainingSpec(1e-3, seed=43))
    )
    seeds = {
        job.candidate.id: [again(job, 42, number).candidate.training.seed for number in range(3)]
        for job in jobs
    }
    assert seeds["t001"] == seeds["t003"] == [42 + FIRST_RACE_SEED + number for number in range(3)]
    assert [again(jobs[1], 42, number).candidate.id for number in range(2)] == ["t003s0", "t003s1"]


def test_a_run_that_was_cut_short_is_not_whole() -> None:
    """Time that runs out ends a candidate as pruned, with an adapter: half a training, which says
    nothing of its setting."""
    assert whole(finished("t001s0"))
    assert not whole(finished("t001s1", "pruned"))
    assert not whole(None)
