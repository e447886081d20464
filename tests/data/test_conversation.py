"""One conversation, however it was written: roles, weights, tools and their arguments,
JSON text, nulls, columns beside."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from loraloom.config.asked import DataConfig, Learn
from loraloom.data.conversation import FLAGS, ROLES, Conversation, read_tools
from loraloom.data.encode import encode
from loraloom.data.forms import conversation
from loraloom.data.load import load_table
from loraloom.data.recognise import Recognised, recognise
from loraloom.data.split import Splits
from loraloom.data.table import Table
from loraloom.errors import DataError

ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
CALLED = [
    {"role": "user", "content": "1 + 1?"},
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "content": "2"},
    {"role": "assistant", "content": "It is 2."},
]


def table(*rows: dict[str, Any]) -> Table:
    return Table("d.jsonl", rows, tuple(("d.jsonl:", i) for i in range(1, len(rows) + 1)))


def read(row: dict[str, Any], learn: Learn = "auto") -> Conversation:
    """One row, recognised and read."""
    return conversation(row, recognise(table(row), DataConfig(learn=learn)))


def notes(*rows: dict[str, Any]) -> str:
    return "\n".join(recognise(table(*rows), DataConfig()).notes)


def talk(*said: tuple[str, str], **keys: Any) -> list[dict[str, Any]]:
    return [{"role": role, "content": text, **keys} for role, text in said]


@pytest.mark.parametrize("name", [name for name in ROLES if "call" not in name])
def test_speakers_have_many_names(name: str) -> None:
    for written in (name, name.upper(), name.capitalize(), name.replace("_", "-"), f" {name} "):
        said = [("user", "a"), (written, "b"), ("assistant", "c")]
        as_messages = read({"messages": talk(*said)})
        as_sharegpt = read({"conversations": [{"from": role, "value": text} for role, text in said]})
        assert as_messages == as_sharegpt
        assert as_messages.messages[1] == {"role": ROLES[name], "content": "b"}
        assert as_messages.learnt == (False, ROLES[name] == "assistant", True)


def test_a_speaker_that_is_not_known_is_named_with_its_rows() -> None:
    rows = [
        {"messages": talk(("user", "a"), (role, "b"), ("assistant", "c"))}
        for role in ("critic", "assistant", "critic")
    ]
    assert "the role `critic` is not known (2 rows, first d.jsonl:1)" in notes(*rows)
    odd = [{"conversations": [{"from": who, "value": "a"}]} for who in ("human", "alien", "alien")]
    with pytest.raises(
        DataError, match=r"d\.jsonl:2[\s\S]*from: 'alien' in message 1; 2 of 3 rows have a wrong one"
    ):
        recognise(table(*odd), DataConfig())


@pytest.mark.parametrize("key", FLAGS)
@pytest.mark.parametrize("write", [bool, int, float, str, lambda value: str(value).lower()])
def test_flags_say_which_answers_are_learnt(key: str, write: Any) -> None:
    said = talk(("user", "a"), ("assistant", "wrong"), ("user", "no"), ("assistant", "right"))
    for index, learnt in ((1, False), (3, True)):
        said[index][key] = write(learnt == FLAGS[key])
    row = {"messages": said}
    assert read(row).answers == read(row, "all").answers == read(row, "last").answers == (3,)
    assert all(key not in message for message in read(row).messages)
    assert f"answers whose `{key}` is" in notes(row) and "(1 row)" in notes(row)


def test_a_flag_that_is_neither_yes_nor_no_is_refused() -> None:
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0.5}]
    with pytest.raises(DataError, match=r"weight: 0\.5 in message 2[\s\S]*`weight` as 0 or 1"):
        recognise(table({"messages": said}), DataConfig())


def test_flags_on_others_than_answers_are_told() -> None:
    said = [{"role": "user", "content": "a", "train": True}, {"role": "assistant", "content": "b"}]
    assert "`train` is true of messages that are no answers (1 row)" in notes({"messages": said})
    assert read({"messages": said}).learnt == (False, True)


HISTORY = talk(
    ("user", "a"),
    ("assistant", "b"),
    ("user", "c"),
    ("assistant", "d"),
    ("tool", "e"),
    ("assistant", "f"),
)


@pytest.mark.parametrize(
    ("row", "learn", "answers"),
    [
        ({"messages": HISTORY}, "auto", (1, 3, 5)),
        ({"messages": HISTORY}, "all", (1, 3, 5)),
        ({"messages": HISTORY}, "last", (5,)),
        ({"messages": HISTORY}, "completion", (3, 5)),
        ({"prompt": HISTORY[:3], "completion": HISTORY[3:]}, "auto", (3, 5)),
        ({"prompt": HISTORY[:3], "completion": HISTORY[3:]}, "completion", (3, 5)),
        ({"prompt": HISTORY[:5], "completion": HISTORY[5:]}, "auto", (5,)),
        ({"prompt": HISTORY[:3], "completion": HISTORY[3:]}, "all", (1, 3, 5)),
        ({"instruction": "c", "output": "d", "history": [["a", "b"]]}, "auto", (1, 3)),
        ({"instruction": "c", "output": "d", "history": [["a", "b"]]}, "last", (3,)),
        ({"question": "a", "answer": "b"}, "completion", (1,)),
        ({"messages": talk(("assistant", "hello"), ("user", "a"), ("assistant", " "))}, "auto", ()),
    ],
)
def test_learn_chooses_the_answers(row: dict[str, Any], learn: Learn, answers: tuple[int, ...]) -> None:
    assert read(row, learn).answers == answers


@pytest.mark.parametrize(
    "tools",
    [
        [ADD],
        ADD,
        ADD["function"],
        [{"type": "function", **ADD["function"]}],  # type: ignore[dict-item]
        json.dumps([ADD]),
        json.dumps(ADD["function"]),
        [json.dumps(ADD)],
        repr([ADD]),
        [{**ADD, "strict": None, "function": {**ADD["function"], "returns": None}}],  # type: ignore[dict-item]
    ],
)
def test_tools_are_read_in_any_shape(tools: Any) -> None:
    assert read_tools(tools) == (ADD,)
    for key in ("tools", "functions"):
        assert read({"messages": CALLED, key: tools}).tools == (ADD,)
    assert read({"messages": [{**CALLED[0], "tools": tools}, *CALLED[1:]]}).tools == (ADD,)


def test_tools_that_are_no_functions_are_refused() -> None:
    for wrong in ("search the web", ["search"], 3):
        with pytest.raises(DataError, match="`tools` has a wrong value"):
            recognise(table({"messages": CALLED, "tools": wrong}), DataConfig())
    assert (
        read({"messages": CALLED, "tools": ""}).tools
        == read({"messages": CALLED, "tools": None}).tools
        == ()
    )


@pytest.mark.parametrize(
    "row",
    [
        {
            "messages": [
                CALLED[0],
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                *CALLED[2:],
            ]
        },
        {"messages": [CALLED[0], {"role": "assistant", "tool_calls": json.dumps([CALL])}, *CALLED[2:]]},
        {
            "messages": [
                CALLED[0],
                {"role": "assistant", "tool_calls": [{"name": "add", "arguments": '{"a": 1}'}]},
                *CALLED[2:],
            ]
        },
        {
            "messages": [
                CALLED[0],
                {"role": "assistant", "function_call": {"name": "add", "arguments": '{"a": 1}'}},
                *CALLED[2:],
            ]
        },
        {"messages": json.dumps(CALLED)},
        {"messages": repr(CALLED)},
        {"prompt": json.dumps(CALLED[:1]), "completion": json.dumps(CALLED[1:])},
        {
            "conversations": [
                {"from": "human", "value": "1 + 1?"},
                {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
                {"from": "observation", "value": "2"},
                {"from": "gpt", "value": "It is 2."},
            ]
        },
    ],
)
def test_calls_are_read_in_any_shape(row: dict[str, Any]) -> None:
    assert list(read(row).messages) == CALLED
    assert read(row).answers == (1, 3)


def test_arguments_that_are_no_object_stay_as_they_are() -> None:
    said = [
        CALLED[0],
        {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": "1, 2"}}]},
    ]
    assert read({"messages": said}).messages[1]["tool_calls"][0]["function"]["arguments"] == "1, 2"
    for said_null, count in (({"a": 1, "b": None}, 1), ('{"a": 1, "b": null}', 0)):
        said[1]["tool_calls"] = [{"function": {"name": "add", "arguments": said_null}}]
        assert notes({"messages": said}).count("arguments of calls that are null are left out") == count
    said[1]["tool_calls"] = []
    with pytest.raises(DataError, match="nothing"):
        recognise(table({"messages": said}), DataConfig())


def test_a_system_column_comes_first_unless_there_is_one() -> None:
    sharegpt = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    for row in (
        {"conversations": sharegpt},
        {"instruction": "a", "output": "b"},
        {"prompt": "a", "completion": "b"},
        {"question": "a", "answer": "b"},
    ):
        said = read({**row, "system": "be brief"})
        assert said.messages[0] == {"role": "system", "content": "be brief"} and said.answers == (2,)
        assert read({**row, "system": None}).answers == read({**row, "system": ""}).answers == (1,)
    own = [{"from": "system", "value": "sing"}, *sharegpt]
    assert [m["content"] for m in read({"conversations": own, "system": "be brief"}).messages] == [
        "sing",
        "a",
        "b",
    ]
    assert "2 rows" in notes(*[{"conversations": own, "system": "be brief"}] * 2), (
        "a system text that is not used is named"
    )


def test_a_history_is_learnt_and_said() -> None:
    row = {"instruction": "c", "output": "d", "history": '[["a", "b"]]'}
    assert [m["content"] for m in read(row).messages] == ["a", "b", "c", "d"]
    assert "the answers in `history` are learnt too (1 row)" in notes(row)
    with pytest.raises(DataError, match=r"pairs of text"):
        recognise(table({**row, "history": ["a", "b"]}), DataConfig())


def test_variables_reach_the_template() -> None:
    row = {"messages": CALLED, "chat_template_kwargs": '{"enable_thinking": false}'}
    assert read(row).variables == {"enable_thinking": False}


def test_parquet_and_csv_say_what_jsonl_says(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [
        {"messages": CALLED, "tools": [ADD]},
        {"messages": talk(("user", "a"), ("assistant", "b")), "tools": None},
    ]
    with (tmp_path / "d.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    with (tmp_path / "d.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["messages", "tools"])
        writer.writeheader()
        writer.writerows(
            {key: json.dumps(value) if value else "" for key, value in row.items()} for row in rows
        )
    said, *others = [
        [conversation(row, recognise(found, DataConfig())) for row in found.rows]
        for found in (load_table(str(tmp_path / f"d.{kind}")) for kind in ("jsonl", "parquet", "csv"))
    ]
    assert list(said[0].messages) == CALLED and said[0].tools == (ADD,)
    assert others == [said, said]


def test_what_nothing_reads_is_named_once_with_its_rows() -> None:
    rows = [
        {"question": "a", "answer": "b", "id": 1, "source": "x", "note": None},
        {"question": "a", "answer": "b", "id": 2},
    ]
    assert notes(*rows) == "not used: `id` (2 rows), `source` (1 row)"
    assert notes({"question": "a", "answer": "b"}) == ""
    labelled = {"text": "a", "label": 0, "label_text": "bad", "images": ["x.png"]}
    assert notes(labelled, {**labelled, "label": 1}) == "not used: `images` (2 rows)"
    pairs = recognise(
        table({"instruction": "a", "output": "b", "system": "c"}), DataConfig(), encoder_decoder=True
    )
    assert pairs.notes == ("not used: `system` (1 row)",), "an encoder-decoder has no system message"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            [{"prompt": "a", "completion": "b", "rejected": "c"}],
            ["`rejected`", "--set data.format=prompt_completion"],
        ),
        (
            [{"prompt": "a", "chosen": "b", "rejected": "c"}],
            ["jq -c '{prompt, completion: .chosen}' d.jsonl", "`completion`"],
        ),
        ([{"chosen": CALLED, "rejected": CALLED}], ["{messages: .chosen}"]),
        (
            [{"prompt": "a", "messages": CALLED, "chosen": CALLED, "rejected": CALLED}],
            ["`rejected`", "data.format=messages"],
        ),
        (
            [{"question": "a", "answer": "b", "answer_rejected": "c"}],
            ["`answer_rejected`", "data.format=question_answer"],
        ),
        (
            [{"prompt": "a", "completion": "b", "label": good} for good in (True, False)],
            ["KTO", "1 of 2 rows", "is false"],
        ),
        (
            [{"prompt": "a", "completion": "b", "label": good} for good in ("True", "False")],
            ["KTO", "1 of 2 rows"],
        ),
        (
            [{"prompt": CALLED[:1], "completion": CALLED[3:], "label": good} for good in (1, 0, 0)],
            ["KTO", "2 of 3 rows"],
        ),
        (
            [{"messages": CALLED, "label": good} for good in (True, False)],
            ["KTO", "select(.label == true)"],
        ),
    ],
)
def test_preferences_are_refused_where_answers_are_to_be_learnt(
    rows: list[dict[str, Any]], words: list[str]
) -> None:
    with pytest.raises(DataError) as caught:
        recognise(table(*rows), DataConfig(), "causal_lm")
    message = str(caught.value)
    assert "train on the preferences: task: preference" in message
    assert "these rows look like preference data" in message and "\n  next: " in message
    assert all(word in message for word in words), message


def test_what_only_resembles_preferences_is_read() -> None:
    pair = {"prompt": "a", "completion": "b"}
    for column in ({"rejected": "c"}, {"label": True}):
        asked = recognise(table({**pair, **column}), DataConfig(format="prompt_completion"))
        assert asked.notes == (f"not used: `{next(iter(column))}` (1 row)",)
    assert notes({**pair, "rejected": None}) == ""
    assert notes({**pair, "label": "maths"}, {**pair, "label": "true"}) == "not used: `label` (2 rows)"
    assert (
        recognise(
            table({"text": "a", "label": False}, {"text": "b", "label": True}), DataConfig()
        ).format
        == "text_label"
    )


def test_learn_is_refused_for_rows_without_turns() -> None:
    with pytest.raises(
        ValueError, match=r"`data\.learn` is last, but rows of the format text have no turns"
    ):
        recognise(table({"text": "a"}), DataConfig(learn="last"))


def test_a_plain_pair_has_system_and_history_in_front() -> None:
    from loraloom.data.forms import pair

    columns = {name: name for name in ("instruction", "output", "system", "history")}
    row = {"instruction": "c", "output": "d", "system": "be brief", "history": [["a", "b"]]}
    prompt, answer = pair(row, Recognised("alpaca", "causal_lm", columns, ""))
    assert prompt == "be brief\n\nInstruction:\na\n\nOutput:\nb\n\nInstruction:\nc\n\nOutput:\n"
    assert answer == "d"


def test_rows_that_are_context_from_end_to_end_are_left_out_and_told(byte_tokenizer: Any) -> None:
    learnt, context = ({"messages": [CALLED[0], {**CALLED[3], "weight": weight}]} for weight in (1, 0))
    rows = table(learnt, context, context)
    data = encode(Splits(rows), recognise(rows, DataConfig()), byte_tokenizer)
    assert (len(data.train), data.report["train"].dropped) == (1, 0)
    assert any("are left out themselves (2 rows)" in note for note in data.notes)
    with pytest.raises(DataError, match=r"anything to be trained on[\s\S]*`weight` is 0 or false"):
        encode(Splits(table(context)), recognise(table(context), DataConfig()), byte_tokenizer)
