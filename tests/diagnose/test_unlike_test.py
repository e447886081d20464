"""A winner that does worse on the test than where it was chosen: unlike rows, a harder
test, or chance."""

from __future__ import annotations

from dataclasses import replace

from loraloom.diagnose.case import Difference
from loraloom.diagnose.unlike_test import Opened, unlike_test
from loraloom.records import Finding

VALIDATION = Opened(Difference(0.8, 0.05), Difference(2.0, 0.05), Difference(1.2, 0.04), 60)
"""Loss 0.8 where the bare base has 2.0."""
ADVICE = "take other rows"


def found(
    test: Opened, validation: Opened = VALIDATION, differs: tuple[str, ...] = ()
) -> Finding | None:
    return unlike_test("t003", "loss", validation, test, differs, ADVICE)


def test_a_winner_that_gains_less_on_the_test_is_warned_of() -> None:
    told = found(
        Opened(Difference(1.9, 0.05), Difference(2.1, 0.05), Difference(0.2, 0.04), 100),
        differs=("rows are longer",),
    )
    assert told is not None and (told.name, told.level, told.next) == (
        "validation-unlike-test",
        "warning",
        ADVICE,
    )
    assert "loss of t003 0.8 +- 0.05 on validation, 1.9 +- 0.05 on the test" in told.evidence
    assert "by 1.2 +- 0.04 and 0.2 +- 0.04" in told.evidence and told.evidence.endswith(
        "What differs: rows are longer"
    )


def test_where_nothing_is_known_to_differ_that_is_said() -> None:
    told = found(Opened(Difference(1.9, 0.05), Difference(2.1, 0.05), Difference(0.2, 0.04), 100))
    assert told is not None and "nothing that is counted here" in told.evidence


def test_a_test_that_is_harder_for_the_base_too_is_told_as_that() -> None:
    told = found(Opened(Difference(1.5, 0.05), Difference(2.7, 0.05), Difference(1.2, 0.04), 100))
    assert told is not None and (told.level, told.symptom[:18]) == ("note", "the test is harder")


def test_a_gain_that_is_lost_counts_on_a_test_that_is_harder_as_well() -> None:
    told = found(Opened(Difference(2.6, 0.05), Difference(2.7, 0.05), Difference(0.1, 0.04), 100))
    assert told is not None and told.level == "warning"


def test_what_errors_allow_is_no_finding() -> None:
    assert found(VALIDATION) is None
    assert (
        found(Opened(Difference(0.93, 0.05), Difference(2.0, 0.05), Difference(1.07, 0.05), 100)) is None
    )
    # better than chosen
    assert (
        found(Opened(Difference(0.4, 0.05), Difference(2.0, 0.05), Difference(1.6, 0.04), 100)) is None
    )


def test_a_loss_that_is_sure_and_small_is_no_warning() -> None:
    sharp = Opened(Difference(0.8, 0.01), Difference(2.0, 0.01), Difference(1.2, 0.01), 4000)
    assert (
        found(Opened(Difference(0.86, 0.01), Difference(2.0, 0.01), Difference(1.14, 0.01), 4000), sharp)
        is None
    )


def test_too_few_rows_give_no_finding() -> None:
    test = Opened(Difference(1.9, 0.05), Difference(2.1, 0.05), Difference(0.2, 0.04), 4)
    assert found(test) is None
    assert found(replace(test, draws=100), replace(VALIDATION, draws=4)) is None
