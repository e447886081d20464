"""Pairs that the reference ranks as they are meant before anything was trained."""

from __future__ import annotations

from loraloom.diagnose.already_preferred import LEAST_PAIRS, already_preferred


def test_nearly_all_pairs_of_either_split_are_worth_a_word() -> None:
    likelier = {"training": [True] * 95 + [False] * 5, "held-out": [True] * 10 + [False] * 10}
    found = already_preferred(likelier, "the base")
    assert found is not None and found.level == "warning"
    assert found.symptom.startswith("the base prefers nearly all chosen answers")
    assert "95% of 100 training pairs, 50% of 20 held-out pairs" in found.evidence


def test_fewer_or_too_few_to_tell_are_not() -> None:
    assert already_preferred({"training": [True] * 94 + [False] * 6}, "the base") is None
    assert already_preferred({"held-out": [True] * (LEAST_PAIRS - 1)}, "the base") is None
    assert already_preferred({}, "the base") is None
