"""What every sampler and every pruner must do, by whatever name it is listed."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from loraloom.config.choices import PRUNERS, SAMPLERS
from loraloom.pipeline.journal import Journal
from loraloom.records import Score
from loraloom.search.decode import decode_space
from loraloom.search.searcher import AskedTrial, Observation, Searcher
from loraloom.search.space import ALPHA, BATCH, RANK, RATE
from loraloom.store.lines import Lines
from standings import ranking

PLAN: dict[str, Any] = {
    RATE: 3e-4,
    RANK: 16,
    ALPHA: 32.0,
    BATCH: 16,
    "training.lr_scheduler_type": "linear",
}
SPACE = decode_space(
    {
        RATE: {"low": 7.5e-5, "high": 1.2e-3, "log": True},
        RANK: {"low": 8, "high": 64},
        BATCH: [8, 16, 32],
        "training.lr_scheduler_type": ["linear", "cosine"],
    }
)
TRIALS, SLOTS = 12, 4
EVALUATIONS, STEPS = 8, 240


def searcher(sampler: str = "sobol", pruner: str = "none", **more: Any) -> Searcher:
    return Searcher(SPACE, PLAN, TRIALS, SLOTS, sampler, pruner, seed=3, **more)


def cost(asked: AskedTrial, evaluation: int) -> float:
    return 1.0 + 0.2 * math.log(asked.params[RATE] / 4e-4) ** 2 + (1 - evaluation / EVALUATIONS) ** 2


def observed(asked: AskedTrial, evaluation: int) -> Observation:
    rows = tuple(cost(asked, evaluation) + 0.01 * row for row in range(-10, 11))
    progress = evaluation / EVALUATIONS
    return Observation(
        asked.id,
        STEPS * evaluation // EVALUATIONS,
        progress,
        0.05,
        Score("validation", {}, rows),
        rows[0],
        3.0,
    )


def play(search: Searcher | Journal) -> list[AskedTrial]:
    """Fill the slots, evaluate round by round, do what the verdicts say."""
    handed: list[AskedTrial] = []
    running: dict[str, tuple[AskedTrial, int]] = {}
    waiting: dict[str, tuple[AskedTrial, int]] = {}
    ends: dict[str, Literal["pruned", "diverged", "completed"]] = {
        "prune": "pruned",
        "diverged": "diverged",
        "stop": "completed",
    }
    while True:
        while len(running) < SLOTS and (asked := search.ask()):
            if asked.id not in waiting:
                handed.append(asked)
            running[asked.id] = waiting.pop(asked.id, (asked, 0))
        if not running:
            return handed
        for name, (asked, evaluation) in sorted(running.items()):
            if name not in running:
                continue
            running[name] = (asked, evaluation + 1)
            seen = observed(asked, evaluation + 1)
            search.report(seen)
            for verdict in search.verdicts():
                assert 0 < verdict.step <= STEPS
                assert verdict.reason
                if verdict.action == "pause":
                    waiting[verdict.trial_id] = running.pop(verdict.trial_id)
                    continue
                search.tell(
                    verdict.trial_id,
                    ends[verdict.action],
                    seen.score if verdict.action == "stop" else None,
                )
                (running if verdict.trial_id in running else waiting).pop(verdict.trial_id)
            if evaluation + 1 == EVALUATIONS and name in running:
                search.tell(name, "completed", seen.score)
                del running[name]


def replayed(folder: Path, new: Callable[[], Searcher]) -> None:
    """A search that is kept as it goes, and its calls played to a new searcher."""
    whole = Journal(new(), Lines(folder / "search.jsonl"))
    play(whole)
    again = Journal(new(), whole.lines)
    assert again.play() == 0
    assert ranking(again.searcher) == ranking(whole.searcher)
    assert again.searcher.ask() is None


def fingerprint(asked: AskedTrial) -> str:
    return repr((sorted(asked.params.items()), asked.seed_offset))


@pytest.mark.parametrize("sampler", SAMPLERS)
class TestSamplers:
    def test_the_plans_setting_comes_first_and_whole(self, sampler: str) -> None:
        first = searcher(sampler).ask()
        assert first is not None
        assert (first.id, first.kind, first.seed_offset) == ("t000", "default", 0)
        assert dict(first.params) == PLAN

    def test_nothing_is_asked_twice_and_no_more_than_wanted(self, sampler: str) -> None:
        search = searcher(sampler)
        handed = play(search)
        assert len({fingerprint(asked) for asked in handed}) == len(handed) == TRIALS
        assert search.ask() is None
        assert [asked.id for asked in handed] == [f"t{number:03d}" for number in range(TRIALS)]

    def test_every_candidate_lies_in_the_space_and_is_told_in_keys_of_the_config(
        self, sampler: str
    ) -> None:
        for asked in play(searcher(sampler)):
            params = dict(asked.params)
            assert params.keys() == PLAN.keys()
            assert 7.5e-5 <= params[RATE] <= 1.2e-3
            assert params[RANK] in (8, 16, 32, 64)
            assert params[ALPHA] == 2 * params[RANK]
            assert params[BATCH] in (8, 16, 32)

    def test_a_space_that_is_used_up_ends_the_search(self, sampler: str) -> None:
        small = decode_space({RANK: [8, 16]})
        search = Searcher(small, PLAN, 12, 2, sampler, "none", seed=0)
        asked = []
        while (one := search.ask()) is not None:
            asked.append(one)
        assert {one.params[RANK] for one in asked} == {8, 16}
        assert len({fingerprint(one) for one in asked}) == len(asked) <= 3

    def test_the_same_calls_bring_another_one_to_the_same_place(
        self, sampler: str, tmp_path: Path
    ) -> None:
        replayed(tmp_path, lambda: searcher(sampler))

    def test_it_says_nothing(
        self, sampler: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with warnings.catch_warnings(), caplog.at_level(logging.INFO):
            warnings.simplefilter("error")
            play(searcher(sampler))
        assert not caplog.records
        assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("pruner", PRUNERS)
class TestPruners:
    def test_the_plans_setting_and_the_best_end_their_run(self, pruner: str) -> None:
        search = searcher(pruner=pruner)
        handed = play(search)
        best = min(handed, key=lambda asked: cost(asked, EVALUATIONS))
        status = {place.trial_id: place.status for place in ranking(search)}
        assert status["t000"] == status[best.id] == "completed"
        assert ranking(search)[0].trial_id == best.id

    def test_nothing_is_pruned_before_the_first_rung(self, pruner: str) -> None:
        search = searcher(pruner=pruner)
        play(search)
        first_rung = {"hyperband": 0.25 - 1 / EVALUATIONS, "auto": 1 / EVALUATIONS}.get(pruner, 0.25)
        assert all(place.progress >= first_rung for place in ranking(search))

    def test_each_verdict_is_given_once(self, pruner: str) -> None:
        search = searcher(pruner=pruner)
        handed = [asked for _ in range(8) if (asked := search.ask())]
        given: list[str] = []
        for evaluation in range(1, EVALUATIONS):
            for asked in handed:
                search.report(observed(asked, evaluation))
                given += [verdict.trial_id for verdict in search.verdicts()]
        assert len(given) == len(set(given))
        assert "t000" not in given
        assert search.verdicts() == []

    def test_the_same_calls_bring_another_one_to_the_same_place(
        self, pruner: str, tmp_path: Path
    ) -> None:
        replayed(tmp_path, lambda: searcher(pruner=pruner))

    def test_it_says_nothing(self, pruner: str, caplog: pytest.LogCaptureFixture) -> None:
        with warnings.catch_warnings(), caplog.at_level(logging.INFO):
            warnings.simplefilter("error")
            play(searcher(pruner=pruner))
        assert not caplog.records
