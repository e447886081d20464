"""When checkpoints are written, and a searcher brought to where another one was by the
calls that one got."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loraloom.pipeline.journal import Journal
from loraloom.pipeline.write_timer import EVERY_SECONDS, SHARE, WriteTimer
from loraloom.records import Score
from loraloom.search.decode import decode_space
from loraloom.search.searcher import Observation, Searcher
from loraloom.store.lines import Lines
from standings import ranking

BASELINE = {"training.learning_rate": 1e-3, "adapter.r": 8}
SPACE = {"training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "adapter.r": [4, 8, 16]}


def written(
    takes: float,
    every: float,
    until: float,
    urgent: Callable[[float], bool] = lambda _: False,
    *,
    saves: bool = False,
) -> list[float]:
    """The times at which is written by a timer that is asked every so often, when
    writing takes so long."""
    now = [0.0]
    times: list[float] = []
    timer = WriteTimer(lambda: now[0], saves=saves)
    while now[0] < until:
        timer.urgent = timer.urgent or urgent(now[0])
        if timer.due():
            with timer.writing():
                times.append(now[0])
                now[0] += takes
        now[0] += every
    return times


def test_the_first_is_written_at_once_and_the_others_seldom() -> None:
    times = written(takes=0.01, every=1.0, until=300)
    assert times[0] == 0
    assert all(later - earlier >= EVERY_SECONDS for earlier, later in itertools.pairwise(times))
    assert len(times) == pytest.approx(300 / EVERY_SECONDS, abs=1)


def test_what_was_finished_is_written_at_once() -> None:
    times = written(takes=0.01, every=1.0, until=100, urgent=lambda now: 50 <= now < 51)
    assert any(50 <= time < 52 for time in times)


@pytest.mark.parametrize("saves", [False, True])
@pytest.mark.parametrize("takes", [0.5, 5.0, 20.0])
def test_it_never_takes_more_than_its_share(takes: float, saves: bool) -> None:
    times = written(takes, every=0.5, until=3000, urgent=lambda _: True, saves=saves)
    assert len(times) > 1 and (len(times) - 1) * takes / 3000 <= SHARE


def test_two_urgent_things_in_a_row_are_both_written_where_the_share_is_saved_up() -> None:
    def soon(*, saves: bool) -> int:
        """How often is written in the moment in which two things are urgent."""
        times = written(0.5, every=0.01, until=100, urgent=lambda now: 50 <= now < 50.6, saves=saves)
        return sum(50 <= time < 51.2 for time in times)

    assert (soon(saves=True), soon(saves=False)) == (2, 1)


def test_what_was_urgent_does_not_put_off_the_rest() -> None:
    now = [0.0]
    timer = WriteTimer(lambda: now[0], urgent=False)
    with timer.writing():
        now[0] += 0.01
    for now[0] in (10.0, 20.0, 29.0):
        timer.urgent = True
        assert timer.due() and not timer.late()
        with timer.writing(whole=False):
            now[0] += 0.01
    now[0] = 10.0 + EVERY_SECONDS
    assert timer.due() and timer.late()


def searcher(seed: int = 3) -> Searcher:
    return Searcher(decode_space(SPACE), BASELINE, 8, 2, sampler="tpe", pruner="median", seed=seed)


def observation(trial: str, step: int, params: Any) -> Observation:
    cost = 2.0 - 40 * params["training.learning_rate"] - step / 50
    score = Score("validation", {"loss": cost}, (cost - 0.1, cost + 0.1), (1.0, 3.0))
    return Observation(trial, step, step / 8, 0.1, score, cost, 3.0, ("linear", 0.1, 1.0))


def work(journal: Journal, rounds: int) -> list[Any]:
    """Ask, report and tell for a while; what came back."""
    heard: list[Any] = []
    for _ in range(rounds):
        suggestion = journal.ask()
        heard.append(suggestion)
        if suggestion is None:
            continue
        seen = [observation(suggestion.id, step, suggestion.params) for step in (2, 4, 8)]
        for one in seen:
            journal.report(one)
            heard.append(journal.verdicts())
        journal.tell(suggestion.id, "completed", seen[-1].score)
    return heard


@pytest.mark.parametrize("rounds", range(10))
def test_a_searcher_that_is_played_the_calls_goes_on_like_the_first(rounds: int, tmp_path: Path) -> None:
    lines = Lines(tmp_path / "search.jsonl")
    first = Journal(searcher(), lines)
    work(first, rounds)
    (tmp_path / "copy.jsonl").write_bytes(lines.path.read_bytes() if rounds else b"")
    second = Journal(searcher(), Lines(tmp_path / "copy.jsonl"))
    assert second.play() == 0
    assert ranking(second.searcher) == ranking(first.searcher)
    assert work(second, 9 - rounds) == work(first, 9 - rounds)
    assert (tmp_path / "copy.jsonl").read_bytes() == lines.path.read_bytes()


def test_a_journal_of_an_older_release_is_played(tmp_path: Path) -> None:
    """It says of each candidate that it was not resumed."""
    lines = Lines(tmp_path / "search.jsonl")
    first = Journal(searcher(), lines)
    work(first, 5)
    calls = [json.loads(line) for line in lines]
    older = Lines(tmp_path / "older.jsonl")
    for call in calls:
        if call["call"] == "ask":
            call["suggestion"]["resumed"] = False
        older.append(json.dumps(call).encode())
    second = Journal(searcher(), older)
    assert second.play() == 0
    assert ranking(second.searcher) == ranking(first.searcher)


def test_candidates_stay_what_they_were_where_the_sampler_draws_otherwise(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "search.jsonl")
    first = Journal(searcher(seed=3), lines)
    work(first, 5)
    other = Journal(searcher(seed=4), lines)
    assert other.play() > 0
    places = {
        place.trial_id: (place.params, place.status, place.cost) for place in ranking(first.searcher)
    }
    assert {
        place.trial_id: (place.params, place.status, place.cost) for place in ranking(other.searcher)
    } == places
    new = other.ask()
    assert (
        new is not None
        and new.id == "t005"
        and new.params not in [params for params, _, _ in places.values()]
    )


def test_weights_of_rows_are_written_once(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "search.jsonl")
    work(Journal(searcher(), lines), 2)
    calls = [json.loads(line) for line in lines]
    weights = [call["observation"]["score"]["weights"] for call in calls if call["call"] == "report"]
    assert weights[0] == [1.0, 3.0] and set(map(str, weights[1:])) == {"None"}
