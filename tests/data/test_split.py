"""Splits: seeded, disjoint in content, true to the labels, and honest about rows that files repeat."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.data.classes import sort_labels
from loraloom.data.recognise import Recognised
from loraloom.data.said import key_of, turns
from loraloom.data.split import LEAST_FOR_RACE, Splits, split
from loraloom.data.table import Table
from loraloom.errors import ConfigError, DataError

CLASSIFIED = Recognised("text_label", "seq_cls", {"text": "text", "label": "label"}, "")
TEXT = Recognised("text", "causal_lm", {"text": "text"}, "")


def table(rows: list[dict[str, Any]], name: str = "train.jsonl") -> Table:
    return Table(name, tuple(rows), tuple((f"{name}:", i) for i in range(1, len(rows) + 1)))


def classified(count: int, labels: str = "ab") -> Table:
    return table([{"text": f"row {i}", "label": labels[i % len(labels)]} for i in range(count)])


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def keys(part: Table, recognised: Recognised) -> set[str]:
    return {key_of(turns(row, recognised)) for row in part.rows}


@given(
    texts=st.lists(
        st.sampled_from(["a", "A ", "b", "c\nc", "c c", *map(str, range(30))]), min_size=25, max_size=120
    ),
    validation=st.sampled_from([0.1, 0.3, None]),
    test=st.sampled_from([0.2, None]),
    seed=st.integers(0, 5),
)
def test_a_table_is_split_without_loss_or_overlap(
    texts: list[str], validation: float | None, test: float | None, seed: int
) -> None:
    rows = table([{"text": text} for text in [*texts, "one more", "and another", "and a last"]])
    splits = split(rows, validation, test, TEXT, seed=seed)
    parts = list(splits.tables.values())
    assert sorted(p.origin(i) for p in parts for i in range(len(p))) == sorted(
        rows.origin(i) for i in range(len(rows))
    )
    seen = [key for part in parts for key in keys(part, TEXT)]
    assert len(seen) == len(set(seen))
    assert splits.duplicates == 0
    assert splits == split(rows, validation, test, TEXT, seed=seed)
    assert bool(len(splits.validation)) == (validation is not None)
    assert bool(len(splits.test)) == (test is not None)


def test_another_seed_draws_other_rows() -> None:
    drawn = {
        split(classified(100), 0.2, None, CLASSIFIED, seed=seed).validation.origin(0)
        for seed in range(8)
    }
    assert len(drawn) > 1


def test_shares_are_of_the_whole_and_even_over_labels() -> None:
    rows = table([{"text": str(i), "label": "rare" if i % 10 == 0 else "common"} for i in range(300)])
    splits = split(rows, 0.2, 0.1, CLASSIFIED)
    assert Counter(row["label"] for row in splits.validation.rows) == {"rare": 6, "common": 54}
    assert Counter(row["label"] for row in splits.test.rows) == {"rare": 3, "common": 27}
    assert len(splits.train) == 210


def test_many_small_labels_still_add_up_to_the_share() -> None:
    rows = table([{"text": str(i), "label": str(i // 3)} for i in range(150)])
    splits = split(rows, 0.1, None, CLASSIFIED)
    assert len(splits.validation) == 15
    assert {row["label"] for row in splits.train.rows} == {str(i) for i in range(50)}


def test_equal_texts_stay_together_whatever_their_label() -> None:
    rows = table(
        [
            {"text": f"Text  {i // 2}".upper() if i % 2 else f"text {i // 2}", "label": i % 2}
            for i in range(60)
        ]
    )
    splits = split(rows, 0.3, None, CLASSIFIED)
    assert not keys(splits.train, CLASSIFIED) & keys(splits.validation, CLASSIFIED)
    assert len(splits.validation) == 18


def test_a_validation_split_that_is_large_enough_gives_half_to_the_race() -> None:
    few = split(classified(LEAST_FOR_RACE * 4 - 4), 0.5, None, CLASSIFIED, race=True)
    assert (len(few.validation), len(few.confirm)) == (2 * LEAST_FOR_RACE - 2, 0)
    enough = split(classified(LEAST_FOR_RACE * 4), 0.5, None, CLASSIFIED, race=True)
    assert (len(enough.validation), len(enough.confirm)) == (LEAST_FOR_RACE, LEAST_FOR_RACE)
    assert Counter(row["label"] for row in enough.confirm.rows) == {
        "a": LEAST_FOR_RACE // 2,
        "b": LEAST_FOR_RACE // 2,
    }
    assert not any("race" in note for note in enough.notes)


def test_without_a_search_all_rows_stay_in_validation() -> None:
    alone = split(classified(LEAST_FOR_RACE * 4), 0.5, None, CLASSIFIED)
    assert (len(alone.validation), len(alone.confirm), alone.notes) == (2 * LEAST_FOR_RACE, 0, ())
    searched = split(classified(LEAST_FOR_RACE * 4), 0.5, None, CLASSIFIED, race=True)
    assert keys(alone.validation, CLASSIFIED) == keys(searched.validation, CLASSIFIED) | keys(
        searched.confirm, CLASSIFIED
    )


def test_that_no_rows_are_kept_for_the_race_is_said_with_what_would_do(tmp_path: Path) -> None:
    (note,) = split(classified(400), 0.1, None, CLASSIFIED, race=True).notes
    assert (
        note.startswith("40 validation rows are too few")
        and "takes 96 (`data.validation` of 0.24 would give them)" in note
    )
    (note,) = split(classified(40), 0.5, None, CLASSIFIED, race=True).notes
    assert "takes 96:" in note  # a share that leaves too little to train on is not proposed
    given_apart = write(
        tmp_path / "v.jsonl", [{"text": f"own {i}", "label": "ab"[i % 2]} for i in range(60)]
    )
    (note,) = split(classified(400), given_apart, None, CLASSIFIED, race=True).notes
    assert note.startswith("60 validation rows") and "takes 96:" in note


def test_the_race_takes_groups_and_not_rows() -> None:
    """Many rows of few conversations are few draws."""
    rows = table([{"text": f"row {i}", "label": "ab"[i % 2], "session_id": i // 20} for i in range(800)])
    few = split(rows, 0.5, None, CLASSIFIED, race=True)
    assert (len(few.validation), len(few.confirm)) == (400, 0)
    assert any("400 validation rows in 20 groups are too few" in note for note in few.notes)
    rows = table([{"text": f"row {i}", "label": "ab"[i % 2], "session_id": i // 4} for i in range(800)])
    many = split(rows, 0.5, None, CLASSIFIED, race=True)
    assert len(many.confirm) == 200
    sessions = [{row["session_id"] for row in part.rows} for part in (many.validation, many.confirm)]
    assert not sessions[0] & sessions[1] and min(map(len, sessions)) >= LEAST_FOR_RACE


def test_rows_that_have_each_a_class_of_its_own_are_not_halved(tmp_path: Path) -> None:
    labelled = [{"text": f"row {i}", "label": f"c{i % 150}"} for i in range(300)]
    held_out = write(tmp_path / "v.jsonl", [{"text": f"own {i}", "label": f"c{i}"} for i in range(150)])
    found = split(table(labelled), held_out, None, CLASSIFIED, race=True)
    assert (len(found.validation), len(found.confirm)) == (150, 0)
    assert any("cannot be divided into halves of 48 rows" in note for note in found.notes)


def test_own_files_are_used_as_they_are_and_repeats_are_counted(tmp_path: Path) -> None:
    held_out = write(
        tmp_path / "v.jsonl", [{"text": "ROW 1", "label": "a"}, {"text": "new", "label": "b"}]
    )
    sealed = write(
        tmp_path / "t.jsonl", [{"text": "new", "label": "b"}, {"text": "row 2", "label": "a"}]
    )
    splits = split(classified(10), held_out, sealed, CLASSIFIED)
    assert len(splits.train) == 10
    assert [row["text"] for row in splits.validation.rows] == ["ROW 1", "new"]
    assert splits.repeated == {"validation": 1, "test": 2}
    assert splits.duplicates == 3


def test_without_splits_all_rows_are_trained_on() -> None:
    splits = split(classified(3), None, None, CLASSIFIED)
    assert splits == Splits(classified(3))


def test_a_label_that_train_lacks_is_refused(tmp_path: Path) -> None:
    held_out = write(tmp_path / "v.jsonl", [{"text": "x", "label": "a"}, {"text": "y", "label": "z"}])
    with pytest.raises(DataError) as caught:
        split(classified(10), held_out, None, CLASSIFIED)
    message = str(caught.value)
    assert message.startswith(f"{held_out}:2: the label `z` is in validation but not in train")
    assert "a, b" in message
    assert caught.value.exit_code == 2


def test_a_held_out_file_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"v\.jsonl:1: this row has no column `label`"):
        split(classified(10), write(tmp_path / "v.jsonl", [{"text": "x"}]), None, CLASSIFIED)
    with pytest.raises(DataError, match=r"nowhere\.jsonl does not exist"):
        split(classified(10), None, str(tmp_path / "nowhere.jsonl"), CLASSIFIED)


@pytest.mark.parametrize(
    ("validation", "test", "words"),
    [
        (0.0, None, "`data.validation` is 0.0"),
        (None, 1.5, "`data.test` is 1.5"),
        (1, None, "`data.validation` is 1 "),
        (0.6, 0.4, "together take 1 of the rows"),
    ],
)
def test_impossible_shares_are_refused(validation: Any, test: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        split(classified(10), validation, test, CLASSIFIED)


def test_too_few_rows_to_split_are_refused() -> None:
    with pytest.raises(
        DataError,
        match=r"too few different rows to take validation rows from\n  got: 3 rows, 1 different",
    ):
        split(table([{"text": "same"}] * 3), 0.1, None, TEXT)
    assert len(split(table([{"text": "a"}, {"text": "b"}]), 0.1, None, TEXT).validation) == 1


def test_one_label_alone_is_refused() -> None:
    with pytest.raises(DataError, match="has only one label"):
        split(classified(10, labels="a"), None, None, CLASSIFIED)


def test_labels_are_sorted_as_numbers_if_they_are() -> None:
    assert sort_labels({"10", "9", "-1"}) == ("-1", "9", "10")
    assert sort_labels({"10", "9", "b"}) == ("10", "9", "b")
