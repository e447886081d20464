"""Templates of many manners: what is learnt is what the model has to write after the
prompt that it is served."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manners import FAMILIES, Family

from loraloom.config.asked import Learn
from loraloom.data.chat import chat_rows, prompt_ids
from loraloom.data.forms import conversation
from loraloom.data.recognise import Recognised
from loraloom.data.render import Renderer
from loraloom.data.rows import Row
from loraloom.data.unused import chat_notes

Talk = list[dict[str, Any]]
TokenizerOf = Callable[[Family], Any]
SYSTEM = {"role": "system", "content": "be brief"}
TOOLS = [
    {
        "type": "function",
        "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {}}}},
    }
]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def answer(text: str, **keys: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **keys}


TALK: Talk = [SYSTEM, user("how many foxes?"), answer("12 foxes"), user("and dogs?"), answer("one 😀")]


def rows_of(tokenizer: Any, *talks: Talk, tools: Any = None, learn: Learn = "auto") -> list[Row]:
    read = Recognised(
        "messages", "causal_lm", {"messages": "messages", "tools": "tools"}, "", learn=learn
    )
    found = [
        (f"d:{i}", conversation({"messages": talk, "tools": tools}, read))
        for i, talk in enumerate(talks)
    ]
    return chat_rows(found, Renderer(tokenizer))


def stretches(row: Row) -> list[tuple[int, int]]:
    """Where what is learnt begins and ends."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (row.labels != -100).astype(int), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def learnt(rows: Sequence[Row], tokenizer: Any) -> list[tuple[list[int], str]]:
    """(prompt, text) of everything that is learnt."""
    return [
        (
            row.input_ids[:a].tolist(),
            tokenizer.decode(row.input_ids[a:b].tolist(), clean_up_tokenization_spaces=False),
        )
        for row in rows
        for a, b in stretches(row)
    ]


def served(messages: Talk, tokenizer: Any, tools: Any = None) -> list[int]:
    """The prompt as a server makes it; a system message that the template refuses goes
    before the user's words."""
    first, *rest = messages
    if first["role"] == "system" and "System role not supported" in tokenizer.chat_template:
        messages = [user(f"{first['content']}\n\n{rest[0]['content']}"), *rest[1:]]
    return list(
        tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=True, tokenize=True)[
            "input_ids"
        ]
    )


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


def test_each_answer_follows_the_prompt_that_is_served(
    family: Family, tokenizer_of: TokenizerOf
) -> None:
    tokenizer = tokenizer_of(family)
    found = learnt(rows_of(tokenizer, TALK), tokenizer)
    assert [text for _, text in found] == [
        f"{family.before}{family.empty}{message['content']}{family.end}"
        for message in (TALK[2], TALK[4])
    ]
    assert [prompt for prompt, _ in found] == [served(TALK[:2], tokenizer), served(TALK[:4], tokenizer)]
    assert chat_notes([("d:1", as_read(TALK))], Renderer(tokenizer)) == expected_notes(family)


def as_read(talk: Talk, tools: Any = None) -> Any:
    read = Recognised("messages", "causal_lm", {"messages": "messages", "tools": "tools"}, "")
    return conversation({"messages": talk, "tools": tools}, read)


def expected_notes(family: Family) -> list[str]:
    notes: list[str] = []
    if family is FAMILIES["refuses system"]:
        notes.append(
            "the chat template refuses system messages: their text is put before the user's next message"
            " (1 row); data.system says otherwise"
        )
    if family is FAMILIES["opens thoughts"]:
        notes.append(
            "the chat template opens <think> where an answer is due, and 2 of 2 answers have nothing in"
            " it: they are learnt with an empty one"
        )
    return notes


def test_the_prompt_in_use_is_that_of_training(family: Family, tokenizer_of: TokenizerOf) -> None:
    tokenizer = tokenizer_of(family)
    row, *_ = rows_of(tokenizer, TALK)
    given = prompt_ids(TALK[:2], tokenizer, continued=True)
    assert row.input_ids[: len(given)].tolist() == given == served(TALK[:2], tokenizer)
    assert stretches(row)[0][0] == len(given)


@pytest.mark.parametrize(
    ("name", "as_key"),
    [
        ("strips earlier thoughts", False),
        ("strips earlier thoughts", True),
        ("opens thoughts", False),
        ("opens thoughts", True),
        ("strips all thoughts", False),
    ],
)
def test_thoughts_are_written_before_the_answer(
    name: str, as_key: bool, tokenizer_of: TokenizerOf
) -> None:
    family = FAMILIES[name]

    def thinks(thought: str, text: str) -> dict[str, Any]:
        return (
            answer(text, reasoning=thought)
            if as_key
            else answer(f"<think>\n{thought}\n</think>\n\n{text}")
        )

    tokenizer = tokenizer_of(family)
    talk = [user("how many?"), thinks("hm", "12"), user("and dogs?"), thinks("well", "one")]
    found = learnt(rows_of(tokenizer, talk), tokenizer)
    assert [text for _, text in found] == [
        f"{family.thought.format(thought)}{text}{family.end}"
        for thought, text in (("hm", "12"), ("well", "one"))
    ]
    standard = [{**m, "reasoning_content": m["reasoning"]} if "reasoning" in m else m for m in talk]
    assert [prompt for prompt, _ in found] == [
        served(standard[:1], tokenizer),
        served(standard[:3], tokenizer),
    ]


def test_a_thought_that_a_template_does_not_read_is_named(tokenizer_of: TokenizerOf) -> None:
    talk = as_read([user("how many?"), answer("12", thinking="hm")])
    notes = {
        name: chat_notes([("d:1", talk)], Renderer(tokenizer_of(family)))
        for name, family in FAMILIES.items()
    }
    reads = {"strips earlier thoughts", "opens thoughts", "channels"}
    unread = ["the chat template does not write these keys of messages: `reasoning_content` (1 row)"]
    assert notes == {name: [] if name in reads else unread for name in FAMILIES}


@pytest.mark.parametrize("as_text", [False, True])
def test_tools_calls_and_results(as_text: bool, family: Family, tokenizer_of: TokenizerOf) -> None:
    tokenizer = tokenizer_of(family)
    arguments: Any = '{"a": 1}' if as_text else {"a": 1, "b": None}
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "add", "arguments": arguments}}
    talk: Talk = [
        user("one and one?"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "2", "tool_call_id": "abcdefghi"},
        answer("it is 2"),
    ]
    if not family.tools:
        notes = chat_notes([("d:1", as_read([user("hi"), answer("yes")], TOOLS))], Renderer(tokenizer))
        assert any(note.startswith("the chat template has no place for tools (1 row)") for note in notes)
        return
    found = learnt(rows_of(tokenizer, talk, tools=TOOLS), tokenizer)
    assert '{"a": 1}' in found[0][1] and "\\" not in found[0][1] and "null" not in found[0][1]
    assert found[0][1].endswith(family.end)
    assert found[1][1].endswith(f"it is 2{family.end}")
    spoken = [
        talk[0],
        {**talk[1], "tool_calls": [{**call, "function": {"name": "add", "arguments": {"a": 1}}}]},
        *talk[2:],
    ]
    assert [prompt for prompt, _ in found] == [served(spoken[:n], tokenizer, TOOLS) for n in (1, 3)]
    assert '"add"' in tokenizer.decode(found[0][0]), "the tools stand in the prompt"


def test_only_what_is_asked_for_is_learnt(family: Family, tokenizer_of: TokenizerOf) -> None:
    tokenizer = tokenizer_of(family)
    ((prompt, text),) = learnt(rows_of(tokenizer, TALK, learn="last"), tokenizer)
    assert text.endswith(f"one 😀{family.end}") and prompt == served(TALK[:4], tokenizer)
    weighted = [SYSTEM, TALK[1], {**TALK[2], "weight": 0}, TALK[3], {**TALK[4], "weight": 1}]
    assert learnt(rows_of(tokenizer, weighted), tokenizer) == [(prompt, text)]
    first = [SYSTEM, TALK[1], TALK[2], TALK[3], {**TALK[4], "train": False}]
    ((prompt, text),) = learnt(rows_of(tokenizer, first), tokenizer)
    assert "12 foxes" in text and prompt == served(TALK[:2], tokenizer)


TURNS = st.lists(
    st.tuples(st.sampled_from(["fox", "two dogs", "é 😀", " x "]), st.booleans()), min_size=1, max_size=4
)


@settings(max_examples=15, deadline=None)
@given(turns=TURNS, system=st.booleans(), name=st.sampled_from(sorted(FAMILIES)))
def test_no_token_of_a_weightless_turn_is_learnt(
    turns: list[tuple[str, bool]], system: bool, name: str, tokenizer_of: TokenizerOf
) -> None:
    family = FAMILIES[name]
    tokenizer = tokenizer_of(family)
    talk: Talk = [SYSTEM] if system else []
    prompts: list[list[int]] = []
    for number, (text, weight) in enumerate(turns):
        talk.append(user(f"question {number}"))
        prompts += [served(talk, tokenizer)] if weight else []
        talk.append(answer(f"{'good' if weight else 'wrong'} {number} {text}", weight=int(weight)))
    found = learnt(rows_of(tokenizer, talk), tokenizer)
    assert [prompt for prompt, _ in found] == prompts
    assert all("wrong" not in text and "question" not in text for _, text in found)
    assert all(text.rstrip().endswith(family.end.strip()) for _, text in found)
