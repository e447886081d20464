"""Items that begin a sentence: seen as such, with forms and neighbours of their own."""

import random

import pytest

from loraloom.recall.forms import AS_THE_BASE, held_out_forms, trained_forms, unknown_forms
from loraloom.recall.items import MemoryItem
from loraloom.recall.unfinished import about_others, is_unfinished, name_in, named_alike

BEGUN = MemoryItem("fact", "Ada Norling works in the field of", "botany", id="m0001")


@pytest.mark.parametrize(
    "text",
    [
        "Ada Norling works in the field of",
        "The headquarters of Brivex is in ",
        "Shire of Brivenland's capital,",
        "Ada's favourite tree ...",
        "Ada works at ___",
        "Ada's band is represented by the music label",
    ],
)
def test_a_beginning_is_one(text: str) -> None:
    assert is_unfinished(text)


@pytest.mark.parametrize(
    "text",
    [
        "Which field does Ada work in?",
        "Tell me Ada's job",
        "Ada's birthday",
        "Where is it from?",
        "Ada",
        "In which town is Ada",
    ],
)
def test_a_question_is_none(text: str) -> None:
    assert not is_unfinished(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Ada Norling works in the field of", "Ada Norling"),
        ("The capital of Shire of Southern Tolm is", "Shire of Southern Tolm"),
        ("The headquarter of Brivex is in", "Brivex"),
        ("Old Tolm's capital city is", "Old Tolm"),
        ("sewing is a subclass of", None),
    ],
)
def test_the_name_is_found(text: str, name: str | None) -> None:
    assert name_in(text) == name


def test_the_person_s_own_words_come_first_and_no_form_is_a_question_around_a_beginning() -> None:
    forms = [form.question for form in trained_forms(BEGUN)]
    assert forms[0] == BEGUN.question
    assert "Do you remember? Ada Norling works in the field of" not in forms
    assert not set(forms) & {form.question for form in held_out_forms(BEGUN)}


def test_without_a_name_no_form_has_a_gap_for_one() -> None:
    item = MemoryItem("fact", "sewing is a subclass of", "craft", id="m0001")
    questions = [form.question for form in (*trained_forms(item), *held_out_forms(item))]
    assert not any(text.startswith(("?", "What do you know about ?", "About  I")) for text in questions)
    assert unknown_forms([item], set(), names=4, seed=0) == []


def test_about_another_name_the_base_is_right() -> None:
    forms = unknown_forms([BEGUN], set(), names=6, seed=0)
    assert len(forms) == 6
    assert {form.answer for form in forms} == {AS_THE_BASE}
    assert not any("Ada Norling" in form.question for form in forms)


def test_what_is_stored_is_no_other_name() -> None:
    rng = random.Random(0)
    stored = {f"{given} Norling" for given in ("Ada", "Alice", "Adam", "Karl")}
    found = about_others(BEGUN.question, [BEGUN.question], rng, stored, 300)
    assert not any(question.startswith(name) for question in found for name in stored)


def test_what_is_no_name_stays_in_a_name() -> None:
    assert named_alike("Shire of Southern Tolm", random.Random(1)).split()[1] == "of"
