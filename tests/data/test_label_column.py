"""Rows with a label that nobody asked for: it is named, with the setting that takes it,
and never taken silently."""

from __future__ import annotations

from typing import Any

import pytest

from loraloom.config.asked import DataConfig
from loraloom.data.label_column import likely_labels
from loraloom.data.recognise import recognise
from loraloom.data.table import Table
from loraloom.errors import DataError


def table(**columns: list[Any]) -> Table:
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return Table("d.csv", tuple(rows), tuple(("d.csv:", i + 2) for i in range(len(rows))))


TEXT = [f"row {i}" for i in range(20)]
AB = ["a", "b"] * 10


@pytest.mark.parametrize(
    "name",
    ["category", "labels", "class", "Intent", "Sentiment", "class label", "is-spam", "label_text"],
)
def test_a_label_beside_a_text_is_named_with_the_setting_that_takes_it(name: str) -> None:
    rows = table(text=TEXT, **{name: AB})
    found = recognise(rows, DataConfig())
    assert found.format == "text"
    assert any(f"--set data.label_column={name}" in note for note in found.notes)
    with pytest.raises(DataError) as error:
        recognise(rows, DataConfig(), "seq_cls")
    assert f"--set data.label_column={name}" in str(error.value)
    assert recognise(rows, DataConfig(label_column=name)).task == "seq_cls"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("category", ["same"] * 20),
        ("target", [f"an answer of its own {i}" for i in range(20)]),
        ("labels", [["a"], ["b"]] * 10),
        ("source", AB),
        ("label_text", ["x" * 100, "y"] * 10),
    ],
)
def test_a_column_that_tells_nothing_apart_is_no_label(name: str, values: list[Any]) -> None:
    assert likely_labels(table(text=TEXT, **{name: values})) == []


@pytest.mark.parametrize(
    "pair", [("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2")]
)
def test_pairs_of_texts_are_refused_with_what_can_be_done(pair: tuple[str, str]) -> None:
    with pytest.raises(DataError) as error:
        recognise(table(**{pair[0]: TEXT, pair[1]: TEXT, "label": AB}), DataConfig())
    assert f"`{pair[0]}` and `{pair[1]}` into one column" in str(error.value)
