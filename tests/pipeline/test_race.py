"""Who is raced: the best run of each of the best settings, the plan's own setting always among them."""

from __future__ import annotations

from typing import Any

from loraloom.pipeline.drive import Finished, Job
from loraloom.pipeline.race import finalists
from loraloom.records import AdapterSpec, Candidate, TrainingSpec


def finished(trial: str, **params: Any) -> Finished:
    made = Candidate(trial, AdapterSpec(8, 16, 0.0, ("a",)), TrainingSpec(1e-3), params)
    return Finished(Job(made, {}), "completed", None, "adapter", 1.0)


def ids(found: list[Finished]) -> list[str]:
    return [one.job.candidate.id for one in found]


def test_the_better_seed_stands_for_its_setting() -> None:
    ranked = [finished("t002", rate=1), finished("t003", rate=2), finished("t000", rate=2), finished("t001", rate=3)]
    assert ids(finalists(ranked, "t000", trials=4)) == ["t002", "t003"]


def test_the_plans_setting_is_there_however_badly_it_did() -> None:
    ranked = [finished("t002", rate=1), finished("t003", rate=3), finished("t001", rate=4), finished("t000", rate=2)]
    assert ids(finalists(ranked, "t000", trials=4)) == ["t002", "t000"]
    assert ids(finalists(ranked, "t000", trials=16)) == ["t002", "t003", "t000"]


def test_without_the_plans_setting_the_best_are_raced() -> None:
    ranked = [finished("t002", rate=1), finished("t003", rate=3), finished("t001", rate=4)]
    assert ids(finalists(ranked, "t000", trials=4)) == ["t002", "t003"]
