"""Counts of rows that repeat, of lengths, classes, sources and scripts; what is drawn of many rows."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloom.data.diversity import diversity_of, scripts_of
from loraloom.data.duplicates import refuse_duplicates
from loraloom.data.recognise import Recognised
from loraloom.data.split import Splits, split
from loraloom.data.table import Table
from loraloom.errors import DataError

TEXT = Recognised("text", "causal_lm", {"text": "text"}, "")
PAIRS = Recognised(
    "prompt_completion", "causal_lm", {"prompt": "prompt", "completion": "completion"}, ""
)


def table(texts: list[str], source: str = "train.jsonl") -> Table:
    rows: list[dict[str, Any]] = [{"text": text} for text in texts]
    return Table(source, tuple(rows), tuple((f"{source}:", i + 1) for i in range(len(rows))))


@settings(deadline=None)
@given(st.lists(st.sampled_from(["one", "two", "three", "four", "five"]), min_size=3, max_size=30))
def test_repeats_are_counted_as_by_hand(texts: list[str]) -> None:
    found = diversity_of(Splits(table(texts)), TEXT, None, 0)
    assert found.splits["train"].repeats.same == len(texts) - len(set(texts))


def test_nearly_the_same_rows_are_counted_beside_the_same_ones() -> None:
    long = " ".join(f"word{i}" for i in range(40))
    texts = [long, f"{long} more", long, *(f"another row number {i}" for i in range(20))]
    found = diversity_of(Splits(table(texts)), TEXT, None, 0).splits["train"].repeats
    assert (found.same, found.near) == (1, 1)


def test_a_draw_keeps_all_counts_of_rows() -> None:
    texts = [f"row {i}" for i in range(200)] + ["row 1"] * 20
    splits = split(table(texts), 0.2, None, TEXT)
    held_out = len(splits.validation)
    found = diversity_of(splits, TEXT, None, 0, most_rows=30)
    same = sum(one.repeats.same for one in found.splits.values())
    assert (same, found.splits["validation"].rows) == (20, held_out)
    assert found.lacking["validation"].texts == 30
    assert any("30 drawn rows" in note for note in found.notes)
    assert found == diversity_of(splits, TEXT, None, 0, most_rows=30)


def test_prompts_and_answers_are_worded_apart() -> None:
    rows = [{"prompt": f"say {word}", "completion": f"{word} it is"} for word in ("oak", "elm", "ash")]
    whole = Table("a.jsonl", tuple(rows), tuple(("a.jsonl:", i + 1) for i in range(3)))
    found = diversity_of(Splits(whole), PAIRS, None, 0).wording
    assert (found["prompts"].words, found["answers"].words) == (6, 9)


def test_files_and_scripts_are_named() -> None:
    texts = table(["abc", "def"]), table(["дом"], "b.csv")
    both = Table("two", (*texts[0].rows, *texts[1].rows), (*texts[0].places, *texts[1].places))
    train = diversity_of(Splits(both), TEXT, None, 0).splits["train"]
    assert train.sources == {"train.jsonl": 2, "b.csv": 1}
    assert train.scripts == {"Latin": pytest.approx(2 / 3), "Cyrillic": pytest.approx(1 / 3)}


@given(st.text(alphabet="abZ дж漢字かカ12.,", max_size=40))
def test_shares_of_scripts_are_of_the_letters(text: str) -> None:
    found = scripts_of([text])
    letters = Counter(char for char in text if char.isalpha())
    assert sum(found.values()) == pytest.approx(1.0 if letters else 0.0)
    assert "Latin" not in found or any(char in "abZ" for char in letters)


def test_rows_that_are_all_the_same_are_refused() -> None:
    with pytest.raises(DataError, match="all 5 training rows say the same"):
        refuse_duplicates(Splits(table(["The cat.", "the  cat."] + ["THE CAT."] * 3)), TEXT)
    refuse_duplicates(Splits(table(["the only row"])), TEXT)
    refuse_duplicates(Splits(table(["a row", "another row"])), TEXT)
