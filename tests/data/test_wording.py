"""Distinct and new words are counted as a plain count over all texts counts them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.data.wording import lacking, surprise, wording_of

SAID = st.lists(st.sampled_from(["a", "b", "c", "ox", "elk", "7", "12"]), max_size=6).map(" ".join)


def runs_of(text: str, size: int) -> list[tuple[str, ...]]:
    words = text.split()
    return [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]


@given(st.lists(SAID, max_size=12), st.integers(0, 3))
def test_runs_are_counted_as_by_hand(texts: list[str], seed: int) -> None:
    found = wording_of(texts, seed)
    assert found.words == sum(len(text.split()) for text in texts)
    for size in (1, 2, 3):
        every = [run for text in texts for run in runs_of(text, size)]
        holders = Counter(run for text in texts for run in set(runs_of(text, size)))
        count = max(1, len(every))
        assert found.distinct[size] == pytest.approx(len(set(every)) / count)
        assert found.repeated[size] == pytest.approx(sum(holders[run] > 1 for run in every) / count)


@given(st.lists(SAID, max_size=10), st.lists(SAID, max_size=10))
def test_what_training_lacks_is_found_as_by_hand(train: list[str], test: list[str]) -> None:
    found = lacking(train, {"test": test})["test"]
    known = {word for text in train for word in text.split()}
    new = [{w for w in text.split() if w not in known and not w.isdigit()} for text in test]
    assert (found.texts, found.new_words) == (len(test), sum(map(bool, new)))
    assert dict(found.words).items() <= Counter(word for each in new for word in each).items()
    begun = {" ".join(text.split()[:3]) for text in train}
    assert found.new_openings == sum(" ".join(text.split()[:3]) not in begun for text in test)


@given(st.lists(SAID, min_size=2, max_size=10))
def test_what_is_usual_is_what_each_text_has_alone(train: list[str]) -> None:
    found = lacking(train, {"test": []})["test"]
    different = list(dict.fromkeys(train))
    alone = [
        lacking([*different[:i], *different[i + 1 :]], {"x": [t]})["x"] for i, t in enumerate(different)
    ]
    assert found.usual_words == pytest.approx(sum(one.new_words for one in alone) / len(different))
    assert found.usual_openings == pytest.approx(sum(one.new_openings for one in alone) / len(different))


def test_texts_of_one_source_are_no_surprise_and_other_matter_is() -> None:
    words = [f"word{i}" for i in range(400)]
    rows = [f"the {words[i * 7 % 400]} and the {words[i * 13 % 400]}" for i in range(600)]
    other = [f"der {word} und das haus" for word in words[:100]]
    found = lacking(rows[:500], {"same": rows[500:], "other": other})
    assert surprise(found["same"].new_words, found["same"].texts, found["same"].usual_words) < 3
    assert surprise(found["other"].new_words, found["other"].texts, found["other"].usual_words) > 3
    assert found["other"].words[0] in {("der", 100), ("das", 100), ("haus", 100), ("und", 100)}


def test_a_draw_holds_so_many_words_and_follows_its_seed() -> None:
    texts = [" ".join([f"row{i}"] * (1 + i % 7)) for i in range(500)]
    assert wording_of(texts, 1, most_words=100).words == 100
    assert wording_of(texts, 1, most_words=100) == wording_of(texts, 1, most_words=100)
    assert wording_of(texts, 1, most_words=100) != wording_of(texts, 5, most_words=100)
