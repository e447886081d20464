"""The first sentences of the page are true, and as sure as the numbers allow."""

from __future__ import annotations

import math

import pytest
from finished import result_of, trial
from hypothesis import given
from hypothesis import strategies as st

from loraloom.report.headline import gain, headline

small = st.floats(0.01, 10)


@given(small, small, small, small)
def test_a_gain_turns_round_with_the_direction_and_with_the_pair(
    a: float, se_a: float, b: float, se_b: float
) -> None:
    down = gain(a, se_a, b, se_b, "minimize")
    assert gain(a, se_a, b, se_b, "maximize").difference == -down.difference
    assert gain(b, se_b, a, se_a, "minimize").difference == -down.difference
    assert down.error == pytest.approx(math.sqrt(se_a**2 + se_b**2))
    low, high = down.interval
    assert (down.certainty == "clear") == (low > 0 or high < 0)


def test_a_gain_without_errors_claims_nothing() -> None:
    assert gain(1.0, math.nan, 2.0, 0.1, "minimize").certainty == "unknown"


def test_the_winner_against_base_and_plan() -> None:
    said = headline(result_of(trial("a", loss=1.25), trial("b", loss=1.0), best="b", default="a"))
    assert said.title == "b wins: validation loss 60.0% lower than the bare base."
    text = " ".join(said.support)
    assert "20.0% lower than that of the plan's own setting, a (1.250 ± 0.020)" in text
    assert "larger than the noise" in text
    assert "out of 2 candidates" in text
    assert {fact.value for fact in said.facts} == {"1.000 ± 0.020", "−60.0%", "−20.0%", "50 k"}


def test_a_difference_within_the_noise_is_called_that() -> None:
    text = " ".join(
        headline(result_of(trial("a", loss=1.01), trial("b", loss=1.0), best="b", default="a")).support
    )
    assert "within the noise" in text
    assert "larger than" not in text


def test_the_verdict_of_the_run_is_preferred() -> None:
    result = result_of(
        trial("a", loss=1.25),
        trial("b", loss=1.0),
        best="b",
        default="a",
        verdict="Over 3 seeds b leads by 0.24.",
    )
    support = headline(result).support
    assert "Over 3 seeds b leads by 0.24." in support
    assert not any("95% interval" in line for line in support)


def test_an_adapter_that_does_not_help_is_not_praised() -> None:
    assert headline(result_of(trial("a", loss=3.0), trial("b", loss=4.0), best="a")).title.endswith(
        "higher than the bare base: it does not help."
    )
    assert headline(result_of(trial("a", loss=2.49), trial("b", loss=4.0), best="a")).title.endswith(
        "which is within the noise."
    )


def test_accuracy_is_told_in_points() -> None:
    winner = trial("a", metrics={"validation_accuracy": 0.75, "validation_accuracy_se": 0.01})
    result = result_of(
        winner,
        metric="validation_accuracy",
        direction="maximize",
        baseline={"validation_accuracy": 0.5},
        best="a",
    )
    said = headline(result)
    assert said.title == "The adapter reaches validation accuracy 25.0 points higher than the bare base."
    assert "+25.0 points" in {fact.value for fact in said.facts}


def test_the_sealed_split_is_preferred_where_there_is_something_to_compare() -> None:
    winner = trial("a", metrics={"validation_loss": 1.0, "test_loss": 1.25})
    alone = headline(result_of(winner, trial("b"), best="a"))
    assert "validation loss" in alone.title
    compared = headline(
        result_of(winner, trial("b"), best="a", baseline={"validation_loss": 2.5, "test_loss": 2.5})
    )
    assert compared.title == "a wins: test loss 50.0% lower than the bare base."
    assert "which the search never saw" in " ".join(compared.support)


def test_rows_kept_from_the_search_are_preferred_to_those_that_it_saw() -> None:
    winner = trial("a", metrics={"validation_loss": 1.0, "confirm_loss": 1.5})
    base = {"validation_loss": 2.5, "confirm_loss": 3.0}
    said = headline(result_of(winner, trial("b"), best="a", baseline=base))
    assert said.title == "a wins: confirm loss 50.0% lower than the bare base."
    assert "kept from the search" in " ".join(said.support)


def test_a_winner_that_may_be_noise_does_not_win() -> None:
    result = result_of(
        trial("a", loss=1.01), trial("b", loss=1.0), best="a", default="a", significant=False
    )
    assert headline(result).title.startswith("a is kept: ")


def test_a_plan_that_wins_is_named_as_the_winner() -> None:
    said = headline(result_of(trial("a", loss=1.0), trial("b", loss=2.0), best="a", default="a"))
    assert "The winner is the plan's own setting" in said.support[0]


@pytest.mark.parametrize(
    ("status", "before"),
    [("running", "The run is going on"), ("interrupted", "The run stopped before it chose")],
)
def test_before_a_choice_the_best_so_far_is_named(status: str, before: str) -> None:
    trials = [trial("a", loss=2.0), trial("b", loss=1.0), trial("c", "waiting")]
    assert headline(result_of(*trials, status=status)).title == f"{before}: b leads so far."
    assert headline(result_of(*trials[1:], status=status)).title == f"{before}: b alone has finished."


@pytest.mark.parametrize(
    ("status", "title"),
    [
        ("running", "The run is going on: no candidate has finished yet."),
        ("completed", "No candidate finished, so there is no adapter to keep."),
    ],
)
def test_without_a_winner_it_says_how_far_the_run_came(status: str, title: str) -> None:
    said = headline(
        result_of(trial("a", "diverged"), trial("b", "diverged"), trial("c", "failed"), status=status)
    )
    assert said.title == title
    assert [(fact.label, fact.value) for fact in said.facts] == [("diverged", "2"), ("failed", "1")]


def test_the_score_of_each_source_stands_beside_that_of_all() -> None:
    of_parts = {"validation_loss/chat": 1.2, "validation_loss/chat_se": 0.1, "validation_loss/code": 1.9}
    one = trial("t000", metrics={"validation_loss": 1.5, "validation_loss_se": 0.1, **of_parts})
    facts = {fact.label: fact.value for fact in headline(result_of(one, best="t000")).facts}
    assert facts["on chat"].startswith("1.2")
    assert facts["on code"].startswith("1.9")
    assert not any(label.endswith("_se") for label in facts)
