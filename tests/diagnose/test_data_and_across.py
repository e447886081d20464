"""What the data say, and what trials say together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loraloom.diagnose.across import across
from loraloom.diagnose.data import DataSigns, data_findings
from loraloom.records import Trial

GOOD = DataSigns(rows=100, held_out=20, leaked=0, lost=0.0, cut=0, longest=50, ended=1.0)


def names(signs: DataSigns) -> list[str]:
    return [finding.name for finding in data_findings(signs)]


def test_good_rows_have_no_findings() -> None:
    assert names(GOOD) == []
    assert names(replace(GOOD, ended=None)) == []


def test_held_out_rows_that_are_trained_on() -> None:
    (found,) = data_findings(replace(GOOD, leaked=7))
    assert found.name == "held-out-rows-trained-on" and "7 of 20" in found.evidence
    assert found.patch == {"data.validation": 0.1}


def test_answers_that_are_cut_off() -> None:
    (found,) = data_findings(replace(GOOD, lost=0.3, cut=60, ended=0.2))
    assert found.name == "answers-cut-off" and "30%" in found.evidence
    assert found.patch == {"data.max_length": 100}


def test_ends_that_are_cut_off_count_even_where_little_else_is_lost() -> None:
    (found,) = data_findings(replace(GOOD, lost=0.01, cut=70, ended=0.3))
    assert found.name == "answers-cut-off" and "30% of the rows keep the token" in found.evidence


def test_rows_that_are_as_long_as_the_model_reads_cannot_be_longer() -> None:
    (found,) = data_findings(replace(GOOD, lost=0.3, cut=60, positions=50))
    assert found.patch == {} and "more than 50 positions" in found.next
    (found,) = data_findings(replace(GOOD, lost=0.3, cut=60, positions=64))
    assert found.patch == {"data.max_length": 64}


def test_rows_without_an_end_of_their_own_were_not_cut_off() -> None:
    assert names(replace(GOOD, ended=0.0)) == []


def trial(
    name: str, r: int, loss: float, se: float = 0.01, rate: float = 1e-3, status: str = "completed"
) -> Trial:
    params = {"adapter.r": r, "training.learning_rate": rate}
    return Trial(name, status, params, {"validation_loss": loss, "validation_loss_se": se})  # type: ignore[arg-type]


def test_a_larger_rank_that_helps_asks_for_a_still_larger_one() -> None:
    (found,) = across([trial("a", 8, 2.0), trial("b", 16, 1.8)], "validation_loss")
    assert (found.name, found.patch) == ("rank-helps", {"adapter.r": 32})
    assert "16 (b)" in found.evidence and "8 (a)" in found.evidence


def test_a_larger_rank_that_gains_nothing_is_said() -> None:
    (found,) = across([trial("a", 8, 2.0), trial("b", 64, 2.0)], "validation_loss")
    assert (found.name, found.level, found.patch) == ("rank-does-not-help", "note", {})


@pytest.mark.parametrize(
    "trials",
    [
        [],
        [trial("a", 8, 2.0)],
        [trial("a", 8, 2.0), trial("b", 16, 1.8, rate=2e-3)],
        [trial("a", 8, 2.0), trial("b", 16, 1.8, status="pruned")],
        [trial("a", 8, 2.0, se=0.1), trial("b", 16, 1.8, se=0.1)],
    ],
)
def test_nothing_is_said_where_nothing_can_be_compared(trials: list[Trial]) -> None:
    assert across(trials, "validation_loss") == []


def test_accuracy_is_better_when_large() -> None:
    metrics = [{"validation_accuracy": value, "validation_accuracy_se": 0.01} for value in (0.7, 0.9)]
    small, large = (
        replace(trial(name, r, 0), metrics=m) for name, r, m in zip("ab", (4, 8), metrics, strict=True)
    )
    assert [found.name for found in across([small, large], "validation_accuracy")] == ["rank-helps"]
