"""Invented things to remember: one seed, one content, and no question that measures is trained."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

import pytest

from loraloom.recall.forms import NOT_KNOWN, trained_forms
from loraloom.recall.workload import NOBODY, Workload, shuffled, workload
from loraloom.recall.workload_words import RELATIONS


@pytest.fixture(scope="module")
def made() -> Workload:
    return workload(3)


def test_a_seed_gives_the_same_content_and_another_seed_another(made: Workload) -> None:
    assert workload(3).digest == made.digest != workload(4).digest
    assert re.fullmatch("[0-9a-f]{64}", made.digest)
    assert shuffled(made, 0).digest != made.digest


def test_no_question_that_measures_is_trained(made: Workload) -> None:
    trained = {form.question for item in made.items for form in trained_forms(item)}
    for one in made.questions:
        assert one.way == "verbatim" or one.question not in trained, one
    far = Counter(one.item for one in made.questions if one.way == "far")
    assert set(far.values()) == {2} and len(far) == len(made.items)


def test_questions_have_one_answer_and_no_answer_is_a_good_guess(made: Workload) -> None:
    items = made.items
    assert len(made.sessions) == 10 and len(items) == len({item.key for item in items}) == 200
    assert {item.kind for item in items} == {"event", "fact"}
    answered: dict[str, str] = {}
    for one in made.questions:
        assert answered.setdefault(one.question, one.answer) == one.answer
    assert max(Counter(item.answer for item in items).values()) <= 4
    relations = Counter(item.slots["relation"] for item in items if "relation" in item.slots)
    assert relations.keys() == {relation.name for relation in RELATIONS}
    assert max(relations.values()) - min(relations.values()) <= 1


def test_some_events_differ_in_one_slot_that_is_shown(made: Workload) -> None:
    rows = [row for session in made.sessions for row in session if "ask" in row]

    def shown(row: dict[str, str]) -> set[tuple[str, str]]:
        return {pair for pair in row.items() if pair[0] in ("who", "what", "where", "when")} - {
            (row["ask"], row[row["ask"]])
        }

    near = [
        (one, other)
        for one, other in pairwise(rows)
        if one["ask"] == other["ask"] and len(shown(dict(one)) - shown(dict(other))) == 1
    ]
    assert len(near) > len(rows) / 5
    assert all(one[one["ask"]] != other[other["ask"]] for one, other in near)


def test_unseen_names_are_of_nobody_and_their_answer_is_not_known(made: Workload) -> None:
    unseen = [one for one in made.questions if one.item == NOBODY]
    assert {one.way for one in unseen} == {"unseen", "unseen near", "unseen far"}
    assert {one.answer for one in unseen} == {NOT_KNOWN} and len(unseen) >= 200
    names = {word for item in made.items for word in re.findall(r"[A-Z]\w+", item.question)}
    known = {one.question for one in made.questions if one.item != NOBODY}
    assert all(set(re.findall(r"[A-Z]\w+", one.question)) - names for one in unseen)
    assert not {one.question for one in unseen} & known


def test_shuffled_answers_are_those_of_others_and_the_questions_stay_true(made: Workload) -> None:
    moved = shuffled(made, 1)
    assert moved.questions == made.questions
    pairs = list(zip(made.items, moved.items, strict=True))
    assert all(one.question == other.question for one, other in pairs)
    assert not any(one.answer == other.answer for one, other in pairs)
    assert Counter(one.answer for one, _ in pairs) == Counter(other.answer for _, other in pairs)


def test_the_first_sessions_alone_have_the_questions_about_them(made: Workload) -> None:
    part = made.until(2)
    assert part.items == made.items[:40]
    assert max(one.item for one in part.questions) == 39
    unseen = [sum(one.item == NOBODY for one in whole.questions) for whole in (part, made)]
    assert 0 < unseen[0] < unseen[1] / 4
