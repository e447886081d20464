"""Facts as a graph, and what follows from them."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from loraloom.recall.composed import inverses, unknown_of_graph
from loraloom.recall.derived import derived_forms, following
from loraloom.recall.forms import NOT_KNOWN, Form
from loraloom.recall.graph import FAST, built_upon, drawn, edges_of, plain, tracks
from loraloom.recall.items import MemoryItem
from loraloom.recall.state import Entry, replayed

PEOPLE = ("Ada", "Bren", "Cole", "Dora")
RELATIONS = ("king", "home town", "friend")


def fact(number: int, subject: str, relation: str, said: str, **more: Any) -> Entry:
    question = f"What is the {relation} of {subject}?"
    own = {name: more.pop(name) for name in ("types", "pinned") if name in more}
    return Entry(MemoryItem("fact", question, said, id=f"m{number:04d}", **own), **more)


def lands(count: int = 4) -> list[Entry]:
    """Lands with a capital, a flag and a king, each of whom has a pet."""
    return [
        fact(4 * land + place, *one)
        for land in range(count)
        for place, one in enumerate(
            (
                (f"Land{land}", "capital", f"Town{land}"),
                (f"Land{land}", "flag", f"a star and {land} moons"),
                (f"Land{land}", "king", f"King{land}"),
                (f"King{land}", "pet", f"a goat of {land} years"),
            )
        )
    ]


@st.composite
def memories(draw: st.DrawFn) -> list[Entry]:
    """Facts of few people, so that they meet; one answer a question; some no longer kept."""
    pairs = st.tuples(st.sampled_from(PEOPLE), st.sampled_from(RELATIONS))
    keys = draw(st.lists(pairs, unique=True, max_size=10))
    standings = st.sampled_from(("kept", "kept", "superseded", "forgotten"))
    return [
        fact(number, *key, draw(st.sampled_from(PEOPLE)), standing=draw(standings))
        for number, key in enumerate(keys)
    ]


def both(entries: list[Entry]) -> list[Form]:
    return [*derived_forms(entries), *derived_forms(entries, held_out=True)]


@given(memories())
def test_what_follows_follows_from_kept_facts_alone(entries: list[Entry]) -> None:
    kept = [entry for entry in entries if entry.standing == "kept"]
    ids = {entry.id for entry in kept}
    assert all(form.of and set(form.of) <= ids for form in both(entries))
    assert both(entries) == both(kept)


@given(memories())
def test_a_question_that_is_derived_has_one_answer_and_is_in_one_set(entries: list[Entry]) -> None:
    trained, held_out = derived_forms(entries), derived_forms(entries, held_out=True)
    said: dict[str, str] = {}
    for form in (*trained, *held_out):
        assert said.setdefault(form.question, form.answer) == form.answer, form
    assert not {form.question for form in trained} & {form.question for form in held_out}


@given(memories())
def test_the_inverse_of_an_inverse_is_the_fact(entries: list[Entry]) -> None:
    edges = edges_of(entries)
    for edge in inverses(edges):
        back = [
            other for other in edges if (other.relation, other.object) == (edge.relation, edge.object)
        ]
        assert {plain(other.subject) for other in back} == {plain(edge.subject)}
        assert edge in back


@given(memories())
def test_what_follows_from_an_item_goes_with_it(entries: list[Entry]) -> None:
    for entry in entries:
        gone = [replace(one, standing="forgotten") if one is entry else one for one in entries]
        assert not following(both(gone), entry.id)


def test_a_correction_is_carried_into_what_follows() -> None:
    king = fact(1, "Norland", "king", "Olaf")
    home = fact(2, "Olaf", "home town", "Tolm")
    away = fact(3, "Hadrel", "home town", "Brek")
    chain = "What is the home town of the king of Norland?"
    said = {form.question: form.answer for form in derived_forms([king, home, away])}
    assert said[chain] == "Tolm"
    fixed = [replace(king, standing="superseded"), home, away, fact(4, "Norland", "king", "Hadrel")]
    after = {form.question: form.answer for form in derived_forms(fixed)}
    assert after[chain] == "Brek" and "Olaf" not in after[chain]
    assert after["Whose king is Hadrel?"] == "Norland" and "Whose king is Olaf?" not in after


def test_no_question_back_where_it_has_two_answers() -> None:
    entries = [fact(1, "Ada", "home town", "Tolm"), fact(2, "Bren", "home town", "Tolm")]
    assert not [form for form in derived_forms(entries) if form.kind == "inverse"]
    one = derived_forms(entries[:1])
    assert {form.answer for form in one} == {"Ada"} and {form.kind for form in one} == {"inverse"}


def test_a_fact_that_fits_is_built_upon_and_a_slip_only_when_it_was_seen_twice() -> None:
    slip = fact(90, "King1", "capital", "Brek")
    found = tracks([*lands(), slip])
    assert all(track.composed for name, track in found.items() if name != slip.id)
    assert found[slip.id].fit < 0.2 < 0.6 < found["m0000"].fit
    assert found[slip.id].score < FAST and not found[slip.id].composed
    assert not following(both([*lands(), slip]), slip.id)
    for more in ({"sightings": 2}, {"composed": True}, {"pinned": True}):
        assert following(both([*lands(), fact(90, "King1", "capital", "Brek", **more)]), slip.id)


def test_a_fact_about_a_thing_or_of_a_relation_that_nobody_spoke_of_is_built_upon() -> None:
    news = [fact(90, "Nowhere", "capital", "Brek"), fact(91, "Land1", "coin", "the dram")]
    found = tracks([*lands(), *news])
    assert found["m0090"].composed and found["m0091"].composed
    assert found["m0091"].fit == 0.5
    assert all(track.composed for track in tracks(news).values())


def test_a_slip_does_not_cast_doubt_on_what_is_right() -> None:
    found = tracks([*lands(), fact(90, "Town1", "king", "Olaf")])
    assert not found["m0090"].composed
    assert all(track.composed for name, track in found.items() if name != "m0090")


def test_a_type_that_is_given_decides() -> None:
    told = {"subject": "land", "object": "town"}
    entries = [fact(number, f"L{number}", "capital", f"T{number}", types=told) for number in range(4)]
    wrong = fact(90, "Olaf", "capital", "Brek", types={"subject": "person", "object": "town"})
    right = fact(91, "Westland", "capital", "Tolm", types=told)
    found = tracks([*entries, wrong, right])
    assert not found["m0090"].composed and found["m0091"].composed
    assert {form.question for form in derived_forms(entries)} >= {"Of which land is T0 the capital?"}


def test_terms_are_shares_and_what_is_no_longer_kept_is_drawn_without() -> None:
    entries = [*lands(), fact(90, "Land1", "river", "the Dee", standing="superseded")]
    for one in drawn(entries):
        assert (one.track is None) == (one.status == "superseded")
        if one.track is not None:
            terms = (one.track.confidence, one.track.fit, one.track.recency, one.track.hub)
            assert all(0 <= term <= 1 for term in terms)
    alone, hub = tracks(entries)["m0003"], tracks(entries)["m0002"]
    assert alone.hub < hub.hub


def test_two_hop_questions_are_no_more_than_the_facts_and_straight_ones_come_first() -> None:
    entries = lands(6)
    forms = [form for form in derived_forms(entries) if form.kind == "two_hop"]
    pairs = {(form.of, form.answer) for form in forms}
    assert len(pairs) == len(entries)
    # Every land's king has a pet, and there are more detours than are borne.
    assert {f"a goat of {land} years" for land in range(6)} <= {said for _, said in pairs}
    assert len({item for of, _ in pairs for item in of}) > len(entries) // 2
    # One more fact changes few of them.
    more = derived_forms([*entries, fact(90, "Land3", "river", "the Dee")])
    kept = {form.of for form in forms} & {form.of for form in more if form.kind == "two_hop"}
    assert len(kept) >= len(pairs) - 3


def test_thousands_of_facts_about_one_thing_are_judged_by_counts() -> None:
    """Compared with each other one by one they would take minutes."""
    flags = [fact(number, f"Land{number}", "flag", "a green star") for number in range(4000)]
    found = tracks(flags)
    assert len(found) == 4000 and found["m0000"].fit == found["m3999"].fit
    assert found["m0000"].hub > 0.99


def test_backwards_and_in_two_hops_names_that_nobody_wrote_are_not_known() -> None:
    forms = derived_forms(lands())
    taken = {f"{what}{number}" for what in ("land", "king", "town") for number in range(4)}
    unknown = unknown_of_graph(forms, taken, seed=0)
    assert unknown == unknown_of_graph(forms, taken, seed=0) != unknown_of_graph(forms, taken, seed=1)
    assert {form.answer for form in unknown} == {NOT_KNOWN} and {form.item for form in unknown} == {""}
    assert not {form.question for form in unknown} & {form.question for form in forms}


@pytest.mark.parametrize("committed", [True, False])
def test_what_a_sleep_built_upon_stays_so_whatever_comes(committed: bool) -> None:
    first = lands()
    entries = [*first, fact(90, "King1", "capital", "Brek")]
    written = [
        {"outcome": "insert", "item": asdict(entry.item), "terms": {"score": 1.0}, "other": None}
        for entry in entries
    ]
    ids = [entry.id for entry in entries]
    assert built_upon(first) == ids[:-1]
    common = {"at": "", "generation": 1, "losses": {}}
    slept = {"op": "sleep", "committed": committed, "replayed": ids, "composed": ids[:-1], **common}
    state = replayed(
        [
            {"op": "write", "decisions": written, "at": ""},
            {"op": "learn", "learnt": ids, "rebuilt": False, **common},
            slept,
        ]
    )
    assert [entry.composed for entry in state.known] == [committed] * 16 + [False]
    statuses = {one.status for one in drawn(state.known)}
    assert statuses == {"settled" if committed else "new", "provisional"}
