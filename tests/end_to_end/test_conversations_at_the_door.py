"""Conversations as people bring them: what check shows is learnt, and that plan, check
and train say the same."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
from doorway import Door, World, write_rows

REFUSES_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif"
    " %}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.role == 'assistant' %}<eos>{% endif"
    " %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
OPENS_A_THOUGHT = (
    "{% for m in messages %}{% if m.role == 'user' %}<user>{{ m.content }}{% elif m.role == 'assistant'"
    " %}<assistant>{{ m.content.split('</think>')[-1] }}<eos>{% endif %}{% endfor %}{% if"
    " add_generation_prompt %}<assistant><think>\n{% endif %}"
)
WITH_TOOLS = (
    "{% if tools %}<user>{% for t in tools %}{{ t.function.name }}{% endfor %}{% endif %}{% for m in"
    " messages %}<{{ m.role }}>{{ m.content or '' }}{% for c in m.tool_calls or [] %}{{"
    " c.function.arguments | tojson }}{% endfor %}{% if m.role == 'assistant' %}<eos>{% endif %}{%"
    " endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
WORDS = ("cat", "house", "stone", "sleeps", "in", "the", "a")
ASKED, ANSWER = "the cat", "a stone"
TALK = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": ANSWER}]
TOOL = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {}}},
}
CALL = {"function": {"name": "add", "arguments": '{"a": 1}'}}

Row = dict[str, Any]


def many(row: Row, count: int = 40) -> list[Row]:
    """So many rows that differ in their question, in words that the tiny tokenizer tells apart."""
    questions = [f"{ASKED} {one} {other}" for one, other in itertools.product(WORDS, WORDS)]

    def numbered(value: Any, number: int) -> Any:
        if isinstance(value, str):
            return value.replace(ASKED, questions[number])
        if isinstance(value, list):
            return [numbered(inner, number) for inner in value]
        return (
            {key: numbered(inner, number) for key, inner in value.items()}
            if isinstance(value, dict)
            else value
        )

    return [numbered(row, number) for number in range(count)]


CASES: dict[str, tuple[str | None, Row, list[str], list[str]]] = {
    "prompt and completion": (None, {"prompt": ASKED, "completion": ANSWER}, ["a stone<eos>"], []),
    "messages in prompt and completion": (
        None,
        {"prompt": [TALK[0], {"role": "assistant", "content": "no"}, TALK[0]], "completion": TALK[1:]},
        ["a stone<eos>"],
        [],
    ),
    "weights": (
        None,
        {"messages": [TALK[0], {"role": "assistant", "content": "no", "weight": 0}, *TALK]},
        ["a stone<eos>"],
        ["answers whose `weight` is 0 or false are read and not learnt (40 rows)"],
    ),
    "roles": (
        None,
        {
            "messages": [{"role": "Human", "content": ASKED}, {"role": "model", "content": ANSWER}],
            "id": 7,
        },
        ["a stone<eos>"],
        ["not used: `id` (40 rows)"],
    ),
    "a refused system message": (
        REFUSES_SYSTEM,
        {"messages": [{"role": "system", "content": "the house"}, *TALK]},
        ["a stone<eos>"],
        [
            "the chat template refuses system messages: their text is put before the user's next message"
            " (40 rows)"
        ],
    ),
    "an opened thought": (
        OPENS_A_THOUGHT,
        {"messages": [TALK[0], {"role": "assistant", "content": "<think>\nno\n</think>\n\na stone"}]},
        ["no\n</think>\n\na stone<eos>"],
        [],
    ),
    "tools": (
        WITH_TOOLS,
        {"messages": [TALK[0], {"role": "assistant", "tool_calls": [CALL]}], "tools": [TOOL]},
        ['{"a": 1}<eos>'],
        [],
    ),
    "tools that nothing writes": (
        REFUSES_SYSTEM,
        {"messages": TALK, "tools": [TOOL]},
        ["a stone<eos>"],
        ["the chat template has no place for tools (40 rows)"],
    ),
    "text that was rendered": (
        REFUSES_SYSTEM,
        {"text": f"<user>{ASKED}<assistant>{ANSWER}<eos>"},
        [],
        ["texts end in <eos> already (40 rows)", "the chat template's own marks already (40 rows;"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_plan_and_check_say_the_same(name: str, world: World, loraloom: Door, tmp_path: Path) -> None:
    template, row, learnt, notes = CASES[name]
    words = request(world, tmp_path, template, many(row))
    checked, planned = loraloom("check", *words, "--quick", "--json"), loraloom("plan", *words, "--json")
    assert (checked.code, planned.code) == (0, 0), checked.err + planned.err
    document = checked.json()
    assert {one["level"] for one in document["checks"]} <= {"ok", "skipped"}, document["checks"]
    assert all(warning in planned.json()["warnings"] for warning in document["warnings"])
    said = [
        warning
        for warning in document["warnings"]
        if "too few to keep half of them for the race" not in warning
    ]
    assert all(any(note in warning for warning in said) for note in notes), said
    assert len(said) == len(notes)
    for example in document["preview"]["examples"] if learnt else []:
        told = "".join(piece["text"] if piece["supervised"] else "" for piece in example)
        # The tokenizer of the tiny model knows neither every letter nor every space.
        assert known(told) == known("".join(learnt))


def known(text: str) -> str:
    """The letters of a text."""
    return "".join(
        letter for letter in text.replace("<unk>", "") if letter in "abcdefghijklmnopqrstuvwxyz"
    )


REFUSED: dict[str, tuple[Row, list[str]]] = {
    "kto": (
        {"prompt": ASKED, "completion": ANSWER, "label": False},
        ["`label`", "40 of 40 rows", "jq -c"],
    ),
    "dpo": (
        {"prompt": ASKED, "completion": ANSWER, "rejected": "no"},
        ["`rejected`", "data.format=prompt_completion"],
    ),
    "chosen": (
        {"prompt": ASKED, "chosen": ANSWER, "rejected": "no"},
        ["`rejected`", "`chosen` as the column `completion`"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_preferences_are_refused_as_answers_to_learn_by_all_in_the_same_words(
    name: str, world: World, loraloom: Door, tmp_path: Path
) -> None:
    row, said = REFUSED[name]
    words = request(world, tmp_path, None, many(row))
    words = [*words, "--task", "causal_lm"]
    answers = [loraloom(verb, *words) for verb in ("check", "plan", "train")]
    assert [answer.code for answer in answers] == [2, 2, 2]
    assert len({answer.err for answer in answers}) == 1
    assert all(
        word in answers[0].err for word in ("look like preference data", "task: preference", *said)
    )


def test_prompt_and_completion_are_trained_on_a_chat_model(
    world: World, loraloom: Door, tmp_path: Path
) -> None:
    words = request(world, tmp_path, OPENS_A_THOUGHT, many({"prompt": ASKED, "completion": ANSWER}))
    answer = loraloom("train", *words, "--max-steps", 1, "--name", "one")
    assert answer.code == 0, answer.err
    assert (tmp_path / "runs" / "one" / "best" / "adapter_config.json").is_file()


def test_learn_last_trains_on_the_last_answer_alone(
    world: World, loraloom: Door, tmp_path: Path
) -> None:
    words = request(
        world,
        tmp_path,
        None,
        many({"messages": [TALK[0], {"role": "assistant", "content": "no"}, *TALK]}),
    )
    shares = [
        loraloom("check", *words, "--quick", "--json", "--set", f"data.learn={learn}").json()["preview"][
            "supervised_share"
        ]
        for learn in ("all", "last", "completion")
    ]
    assert shares[0] > shares[1] == shares[2]


def request(world: World, here: Path, template: str | None, rows: list[Row]) -> list[object]:
    """The words of a command line: a model with this template, and these rows."""
    model: object = world.chat_llama
    if template is not None:
        model = here / "model"
        shutil.copytree(world.chat_llama, here / "model")
        (here / "model" / "chat_template.jinja").write_text(template)
    return [
        "--model",
        model,
        "--data",
        write_rows(here / "rows.jsonl", rows),
        "--output-dir",
        here / "runs",
    ]
