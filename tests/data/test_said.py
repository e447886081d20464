"""Rows that say the same have one key, however they are written; rows that do not have
different ones."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.data.recognise import Recognised
from loraloom.data.said import asked_keys, key_of, normal, turns

CHAT = Recognised("messages", "causal_lm", {"messages": "messages"}, "")
SHARE = Recognised("sharegpt", "causal_lm", {"messages": "conversations"}, "")
PAIRS = Recognised("question_answer", "causal_lm", {"question": "question", "answer": "answer"}, "")
ASKED = "Où est la  gare ﬁnale ?\nPlease answer in 1 word"
ANSWER = "Là-bas"


def chat(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"messages": list(messages)}


def said(user: Any, assistant: Any = ANSWER) -> dict[str, Any]:
    return chat({"role": "user", "content": user}, {"role": "assistant", "content": assistant})


@pytest.mark.parametrize(
    "other",
    [
        said(unicodedata.normalize("NFD", ASKED), unicodedata.normalize("NFD", ANSWER)),
        said(unicodedata.normalize("NFKC", ASKED)),
        said(ASKED.replace("\n", "\r\n")),
        said(f"  {ASKED.replace(' ', chr(0xA0))}\n\n"),
        said(ASKED.upper().replace("ﬁ".upper(), "FI")),
        said("\ufeff" + ASKED.replace("gare", "ga\u200bre\u00ad"), ANSWER + "\u200d"),
        said([{"type": "text", "text": ASKED[:9]}, {"type": "text", "text": ASKED[9:]}]),
        chat({"role": "system", "content": ""}, *said(ASKED)["messages"]),
        chat(
            {"id": 7, "content": ASKED, "role": "user", "name": None, "tool_calls": None},
            {"weight": 1, "role": "assistant", "content": ANSWER, "created_at": "2024-01-01"},
        ),
        chat({"from": "human", "value": ASKED}, {"from": "gpt", "value": ANSWER}),
    ],
    ids=[
        "NFD",
        "NFKC",
        "line breaks",
        "white space",
        "case",
        "unseen",
        "parts",
        "empty system",
        "keys",
        "sharegpt",
    ],
)
def test_equal_conversations_have_one_key(other: dict[str, Any]) -> None:
    assert key_of(turns(other, CHAT)) == key_of(turns(said(ASKED), CHAT))


def test_equal_conversations_have_one_key_in_every_form() -> None:
    keys = {
        key_of(turns(said("a", "b"), CHAT)),
        key_of(
            turns(
                {"conversations": [{"from": "human", "value": "A"}, {"from": "gpt", "value": "B"}]},
                SHARE,
            )
        ),
        key_of(turns({"question": "a ", "answer": "b"}, PAIRS)),
    }
    assert len(keys) == 1


def test_rows_that_differ_have_different_keys() -> None:
    calls = [
        chat(
            {"role": "user", "content": "a"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"function": {"name": "f", "arguments": {"x": x}}}],
            },
        )
        for x in (1, 2)
    ]
    rows = [said("a", "b"), said("b", "a"), said("a b", ""), said("a", "b c"), *calls]
    rows.append(chat({"role": "system", "content": "be short"}, *said("a", "b")["messages"]))
    assert len({key_of(turns(row, CHAT)) for row in rows}) == len(rows)


def test_arguments_of_a_tool_are_the_same_as_an_object_and_as_json_text() -> None:
    written: list[Any] = [{"x": 1, "y": None}, '{"x": 1}', {"x": 1}]
    rows = [
        chat(
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": i, "function": {"name": "f", "arguments": each}}],
            }
        )
        for i, each in enumerate(written)
    ]
    assert len({key_of(turns(row, CHAT)) for row in rows}) == 1


def test_each_answer_has_a_key_of_all_that_stands_before_it() -> None:
    short = asked_keys(turns(said("a", "b"), CHAT))
    longer = asked_keys(turns(chat(*said("a", "c")["messages"], *said("d", "e")["messages"]), CHAT))
    assert (len(short), len(longer)) == (1, 2)
    assert short[0] == longer[0] != longer[1]


@given(st.text(max_size=40))
def test_a_normal_form_is_its_own_normal_form_and_that_of_other_compositions(text: str) -> None:
    form = normal(text)
    assert normal(form) == form
    for composed in ("NFC", "NFD", "NFKC", "NFKD"):
        assert normal(unicodedata.normalize(composed, text)) == form
