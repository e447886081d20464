"""Candidates that a user makes stand beside the search, and calls that made them can be played again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from test_searcher import BASE, PLAN, SPACE, ask, score, seen

from loraloom.pipeline.journal import Journal
from loraloom.search.decode import decode_space
from loraloom.search.searcher import Searcher
from loraloom.search.space import RATE
from loraloom.store.lines import Lines


def searcher(pruner: str = "careful") -> Searcher:
    return Searcher(SPACE, PLAN, 12, 4, pruner=pruner, base=BASE)


def test_one_made_by_hand_changes_nothing_for_the_others() -> None:
    """However good or bad it is: who is asked next, and who is pruned, stays as it was."""

    def course(*, by_hand: bool) -> tuple[Sequence[object], list[object]]:
        one, told = searcher(), list[object]()
        handed = ask(one, 4)
        made = one.add({**PLAN, RATE: 1e-2}) if by_hand else None
        for evaluation in range(1, 9):
            for place, trial in enumerate(handed):
                one.report(seen(trial, 1.0 + place / evaluation, evaluation))
            if made and evaluation < 8:
                one.report(seen(made, 0.001, evaluation))
            told += [(verdict.action, verdict.step) for verdict in one.verdicts()]
        if made:
            one.tell(made.id, "completed", score(0.001))
        for place, trial in enumerate(handed):
            one.tell(trial.id, "completed", score(1.0 + place))
        return [(trial.params, trial.kind) for trial in [*handed, *ask(one, 12)]], told

    assert course(by_hand=True) == course(by_hand=False)


def test_one_made_by_hand_ends_where_it_has_to_by_itself() -> None:
    one = searcher()
    ask(one, 4)
    made = one.add({RATE: 1.0})
    assert (made.id, made.kind) == ("t004", "hand")
    for evaluation in (3, 4):
        one.report(seen(made, 9.0, evaluation))
    assert [(verdict.trial_id, verdict.action) for verdict in one.verdicts()] == [("t004", "diverged")]
    assert next(iter(ask(one, 1))).id == "t005"


def test_more_are_handed_out_once_they_are_asked_for() -> None:
    one = searcher()
    assert len(ask(one, 20)) == 12 and not one.ready
    one.extend(3)
    assert [asked.id for asked in ask(one, 20)] == ["t012", "t013", "t014"]


def test_calls_of_a_user_are_played_again(tmp_path: Path) -> None:
    first = Journal(searcher(), Lines(tmp_path / "search.jsonl"))
    for _ in range(4):
        first.ask()
    made = first.add({**PLAN, "adapter.target_modules": ("q_proj", "v_proj")})
    first.report(seen(made, 1.0))
    first.verdicts()
    first.extend(2)
    first.tell(made.id, "failed")
    again = Journal(searcher(), Lines(tmp_path / "search.jsonl"))
    assert again.play() == 0
    rest = [[one.ask() for _ in range(12)] for one in (first, again)]
    assert rest[0] == rest[1] and sum(asked is not None for asked in rest[0]) == 10


def test_a_space_that_is_used_up_says_so() -> None:
    one = Searcher(decode_space({RATE: [1e-4, 3e-4]}), PLAN, 2, 2, sampler="grid", pruner="none")
    assert len(ask(one, 4)) == 2 and not one.used_up
    one.extend(2)
    assert len(ask(one, 4)) < 2 and one.used_up
