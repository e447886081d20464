"""Which class a label is: its spelling does not matter, and its number is that of the
head, wherever that is known."""

from __future__ import annotations

from typing import Any

import pytest

from loraloom.data.classes import (
    Classes,
    Known,
    classes_of,
    count_labels,
    doubtful,
    label_text,
    sort_labels,
    spelling_of,
    unnamed,
)
from loraloom.errors import DataError

SENTIMENT = Known(("positive", "negative", "neutral"), "the adapter")


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1, "1", 1.0, "1.0", " 1 ", "+1", "1."], {"1"}),
        ([True, "true", "TRUE", "True ", False, "FALSE"], {"true", "false"}),
        (["café", "cafe\u0301", "café ", "\u00a0café"], {"café"}),
        (["very good", "very  good", "very\u00a0good"], {"very good"}),
        (["-1", -1, -1.0], {"-1"}),
        ([1.0, "nan", float("nan"), None, "", "  "], {"1"}),
        (["007", "7"], {"007", "7"}),
        (["1.0", "1.1", "beta"], {"1.0", "1.1", "beta"}),
        (["Positive", "positive"], {"Positive", "positive"}),
    ],
)
def test_a_label_written_in_two_ways_is_one_class(values: list[Any], labels: set[str]) -> None:
    spelling = spelling_of(values)
    assert {text for value in values if (text := label_text(value, spelling)) is not None} == labels


@pytest.mark.parametrize(
    "values", [[0.5, 1.0], ["0.5", "1"], ["3.3", "nan"], [".5"], ["1e-3", "2"], ["-0.5", "+2.25"]]
)
def test_fractions_among_numbers_are_quantities(values: list[Any]) -> None:
    assert spelling_of(values) == "quantities"


def test_without_a_head_numbers_go_by_size_and_words_by_alphabet() -> None:
    assert sort_labels({"10", "9", "-1"}) == ("-1", "9", "10")
    assert classes_of({"b", "a"}) == Classes(("a", "b"), {"a": 0, "b": 1})


@pytest.mark.parametrize(
    ("labels", "numbers"),
    [
        ({"positive"}, {"positive": 0}),
        ({"negative", "neutral"}, {"negative": 1, "neutral": 2}),
        ({"POSITIVE", "Neutral"}, {"POSITIVE": 0, "Neutral": 2}),
        ({"0", "2"}, {"0": 0, "2": 2}),
    ],
)
def test_the_order_is_that_of_the_head(labels: set[str], numbers: dict[str, int]) -> None:
    found = classes_of(labels, SENTIMENT)
    assert found.numbers == numbers
    assert found.names == SENTIMENT.names


def test_numbers_that_a_column_beside_them_explains() -> None:
    assert classes_of({"7", "9"}, SENTIMENT, {"7": "neutral", "9": "positive"}).numbers == {
        "7": 2,
        "9": 0,
    }


@pytest.mark.parametrize("labels", [{"positive", "mixed"}, {"1", "3"}, {"-1", "0"}])
def test_a_label_that_the_head_does_not_have_is_refused_by_name(labels: set[str]) -> None:
    with pytest.raises(DataError, match="is none of the classes of the adapter") as error:
        classes_of(labels, SENTIMENT)
    assert "positive, negative, neutral" in str(error.value)


def test_case_counts_where_it_tells_names_apart() -> None:
    both = Known(("US", "us"), "the adapter")
    assert classes_of({"us"}, both).numbers == {"us": 1}
    with pytest.raises(DataError):
        classes_of({"Us"}, both)


def test_a_head_without_names_is_guessed_and_said() -> None:
    found = classes_of({"pos", "neg"}, Known(unnamed(2), "the adapter"))
    assert found.numbers == {"neg": 0, "pos": 1}
    assert found.note is not None
    assert "guessed by alphabet, 0 neg, 1 pos" in found.note
    assert "data.label_names" in found.note


def test_numbers_of_a_head_without_names_need_no_guess() -> None:
    assert classes_of({"2"}, Known(unnamed(3), "the adapter")) == Classes(("0", "1", "2"), {"2": 2})
    stars = classes_of({"1", "3"}, Known(unnamed(3), "the adapter"))
    assert stars.numbers == {"1": 0, "3": 2}
    assert stars.note is not None


def test_more_labels_than_outputs_are_refused() -> None:
    with pytest.raises(DataError, match="3 labels, and the adapter has 2 classes"):
        classes_of({"a", "b", "c"}, Known(unnamed(2), "the adapter"))


def test_a_base_of_other_classes_gets_a_head_of_the_data() -> None:
    found = classes_of({"spam", "ham"}, Known(("negative", "positive"), "the head of x", binding=False))
    assert found.names == ("ham", "spam")
    assert found.note is not None
    assert "negative, positive" in found.note


def test_a_base_of_the_same_classes_keeps_its_order_and_that_is_said() -> None:
    found = classes_of({"pos", "neg"}, Known(("pos", "neg"), "the head of x", binding=False))
    assert found.numbers == {"pos": 0, "neg": 1}
    assert found.note is not None
    assert "0 pos, 1 neg" in found.note


def test_what_is_doubtful_is_said_with_its_rows() -> None:
    (case,) = doubtful(count_labels(["Good", "good", "bad", "good", None]))
    assert "`Good` (1 rows) and `good` (2 rows)" in case
    (hidden,) = doubtful(count_labels(["-1", "-1", "0", "1"]))
    assert hidden.startswith("2 rows have the label -1")
    assert doubtful(count_labels(["-1", "1"])) == []
    assert doubtful(count_labels(["-2", "-1", "0"])) == []
