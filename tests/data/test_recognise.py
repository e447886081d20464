"""Formats, tasks and columns as they are recognised, asked for, and refused."""

from __future__ import annotations

from typing import Any

import pytest

from loraloom.config.asked import DataConfig
from loraloom.data.recognise import check, recognise
from loraloom.data.table import Table
from loraloom.errors import ConfigError, DataError

TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
SHAREGPT = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]


def table(*rows: dict[str, Any]) -> Table:
    return Table("d.jsonl", rows, tuple(("d.jsonl:", i) for i in range(1, len(rows) + 1)))


@pytest.mark.parametrize(
    ("row", "format", "task", "columns"),
    [
        ({"messages": TALK, "id": 1}, "messages", "causal_lm", {"messages": "messages"}),
        ({"conversations": SHAREGPT}, "sharegpt", "causal_lm", {"messages": "conversations"}),
        (
            {"instruction": "a", "input": "b", "output": "c"},
            "alpaca",
            "causal_lm",
            {"instruction": "instruction", "input": "input", "output": "output"},
        ),
        (
            {"instruction": "a", "output": "c"},
            "alpaca",
            "causal_lm",
            {"instruction": "instruction", "output": "output"},
        ),
        (
            {"prompt": "a", "completion": "b"},
            "prompt_completion",
            "causal_lm",
            {"prompt": "prompt", "completion": "completion"},
        ),
        (
            {"question": "a", "answer": "b"},
            "question_answer",
            "causal_lm",
            {"question": "question", "answer": "answer"},
        ),
        ({"text": "a"}, "text", "causal_lm", {"text": "text"}),
        ({"text": "a", "label": 1}, "text_label", "seq_cls", {"text": "text", "label": "label"}),
        (
            {"sentence": "a", "label": "x"},
            "text_label",
            "seq_cls",
            {"text": "sentence", "label": "label"},
        ),
        (
            {"source": "a", "target": "b"},
            "source_target",
            "causal_lm",
            {"source": "source", "target": "target"},
        ),
    ],
)
def test_formats_are_recognised_by_their_columns(
    row: dict[str, Any], format: str, task: str, columns: dict[str, str]
) -> None:
    found = recognise(table(row), DataConfig())
    assert (found.format, found.task, found.columns) == (format, task, columns)
    assert format in found.note
    assert "1 rows" in found.note


def test_pairs_are_for_the_encoder_decoder_if_there_is_one() -> None:
    found = recognise(table({"source": "a", "target": "b"}), DataConfig(), encoder_decoder=True)
    assert found.task == "seq2seq_lm"
    assert (
        recognise(table({"text": "a", "label": 0}), DataConfig(), encoder_decoder=True).task == "seq_cls"
    )
    with pytest.raises(DataError, match="no known format for seq_cls or seq2seq_lm"):
        recognise(table({"text": "a"}), DataConfig(), encoder_decoder=True)


def test_the_task_decides_between_formats() -> None:
    rows = table({"text": "a", "label": 0})
    assert recognise(rows, DataConfig(), "causal_lm").format == "text"
    assert "could also be read as text" in recognise(rows, DataConfig()).note
    assert recognise(rows, DataConfig(format="text")).task == "causal_lm"


def test_text_and_label_may_have_other_names() -> None:
    rows = table({"review": "a", "stars": 5, "text": "b"})
    found = recognise(rows, DataConfig(text_column="review", label_column="stars"))
    assert (found.format, found.columns) == ("text_label", {"text": "review", "label": "stars"})
    assert recognise(rows, DataConfig(text_column="review")).columns == {"text": "review"}
    assert recognise(rows, DataConfig(label_column="stars")).columns == {
        "text": "text",
        "label": "stars",
    }


@pytest.mark.parametrize(
    ("data", "task", "kind", "words"),
    [
        (
            DataConfig(text_column="body"),
            "auto",
            DataError,
            ["`data.text_column` is `body`", "the columns text, label"],
        ),
        (
            DataConfig(label_column="class"),
            "auto",
            DataError,
            ["`data.label_column` is `class`", "the columns text, label"],
        ),
        (
            DataConfig(format="messages"),
            "auto",
            DataError,
            ["d.jsonl:1", "got: the columns text, label", "messages (messages)"],
        ),
        (
            DataConfig(format="messages"),
            "seq_cls",
            ConfigError,
            ["messages does not serve the task seq_cls", "text_label"],
        ),
        (
            DataConfig(format="alpaca", text_column="text"),
            "auto",
            ConfigError,
            ["`data.text_column`", "alpaca has no text"],
        ),
        (
            DataConfig(),
            "seq2seq_lm",
            DataError,
            ["no known format for seq2seq_lm", "source, target (source_target)"],
        ),
    ],
)
def test_requests_that_contradict_the_data_are_refused(
    data: DataConfig, task: Any, kind: type[Exception], words: list[str]
) -> None:
    with pytest.raises(kind) as caught:
        recognise(table({"text": "a", "label": 0}), data, task)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_nothing_recognised_names_file_line_and_columns() -> None:
    with pytest.raises(DataError) as caught:
        recognise(table({"body": "a", "stars": 1}), DataConfig())
    message = str(caught.value)
    assert message.startswith("d.jsonl:1: no known format")
    assert "the columns body, stars" in message
    assert "text or sentence, label (text_label)" in message
    assert "data.text_column" in message


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"text": "a"}, {"text": 3}], ["d.jsonl:2", "`text`", "got: a number", "need: text"]),
        ([{"text": "a"}, {"text": None}], ["d.jsonl:2", "got: nothing (null)"]),
        ([{"text": "a"}, {"txt": "b"}], ["d.jsonl:2", "no column `text`", "got: txt"]),
        (
            [{"text": "a", "label": 0}, {"text": "b", "label": 0.5}],
            ["d.jsonl:2", "the fraction 0.5", "not supported"],
        ),
        ([{"text": "a", "label": 0}, {"text": "b"}], ["d.jsonl:2", "no column `label`"]),
        ([{"text": "a", "label": [0]}], ["d.jsonl:1", "got: the list [0]", "several labels"]),
        ([{"messages": TALK}, {"messages": "hi"}], ["d.jsonl:2", "got: text", '{"role": ...']),
        ([{"messages": []}], ["got: an empty list"]),
        ([{"messages": [*TALK, "hi"]}], ["text as message 3"]),
        (
            [{"messages": [{"role": "user", "content": None}]}],
            ["nothing (null) in message 1", "`content` as text"],
        ),
        (
            [{"messages": [{"role": "user", "content": [{"type": "image"}]}]}],
            ["parts that are not text"],
        ),
        ([{"messages": [{"content": "a"}]}], ["the keys content in message 1"]),
        (
            [{"conversations": [{"from": "alien", "value": "hi"}]}],
            ["from: 'alien' in message 1", "human"],
        ),
        ([{"conversations": [{"from": "human", "value": 1}]}], ["a number in message 1"]),
        ([{"prompt": "a", "completion": TALK}], ["must all be text", "got: text and messages"]),
        (
            [{"prompt": "a", "completion": "b"}, {"prompt": TALK, "completion": TALK}],
            ["d.jsonl:2", "messages and messages"],
        ),
    ],
)
def test_rows_that_break_their_format_are_refused(rows: list[dict[str, Any]], words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        recognise(table(*rows), DataConfig())
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_an_optional_input_may_be_null() -> None:
    rows = table({"instruction": "a", "input": None, "output": "b"}, {"instruction": "a", "output": "b"})
    check(rows, recognise(rows, DataConfig()))


def test_parts_of_text_and_tool_calls_are_contents() -> None:
    talk = [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "tool_calls": [{"id": 1}]},
    ]
    assert recognise(table({"messages": talk}), DataConfig()).format == "messages"
