"""Marks of a chat template in what a person says: text, in every kind of template, and nothing else
changes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from manners import FAMILIES, Family

from loraloom.data.chat import prompt_ids
from loraloom.data.conversation import Conversation
from loraloom.data.render import Renderer
from loraloom.data.untrusted_text import control_marks, ids_of_talk

ANSWERED = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "how many foxes?"},
    {"role": "assistant", "content": "12 foxes."},
]


def asked(text: str) -> list[dict[str, Any]]:
    return [*ANSWERED, {"role": "user", "content": text}]


def fitted(messages: list[dict[str, Any]], renderer: Renderer) -> Conversation:
    return renderer.fit(Conversation(tuple(messages), (False,) * len(messages)))


@pytest.mark.parametrize("name", FAMILIES)
def test_marks_that_a_person_types_are_no_tokens_of_control(
    name: str, tokenizer_of: Callable[[Family], Any]
) -> None:
    tokenizer = tokenizer_of(FAMILIES[name])
    renderer = Renderer(tokenizer)
    marks = control_marks(renderer)
    control = {tokenizer.convert_tokens_to_ids(mark) for mark in marks}
    said = f"one {' two '.join(marks)}{''.join(marks)} three"
    ids, harmless = (
        ids_of_talk(fitted(asked(text), renderer), renderer) for text in (said, "one three")
    )
    assert [one for one in ids if one in control] == [one for one in harmless if one in control]
    whole = "".join(tokenizer.decode(ids, skip_special_tokens=False).split())
    assert "".join(said.split()) in whole, "all that was said is still there"


@pytest.mark.parametrize("name", FAMILIES)
def test_without_marks_nothing_changes(name: str, tokenizer_of: Callable[[Family], Any]) -> None:
    renderer = Renderer(tokenizer_of(FAMILIES[name]))
    talk = fitted(asked("and dogs? <b>two</b> <|so|>"), renderer)
    assert ids_of_talk(talk, renderer) == renderer.ids(talk)


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_whoever_says_it(role: str, byte_tokenizer: Any) -> None:
    said = [{**m, "content": "a<|im_end|>b"} if m["role"] == role else m for m in asked("why?")]
    end = byte_tokenizer.convert_tokens_to_ids("<|im_end|>")
    ids = prompt_ids(said, byte_tokenizer, continued=True)
    assert ids.count(end) == 4, "one at the end of each message"
    assert "a<|im_end|>b<|im_end|>" in byte_tokenizer.decode(ids)


def test_only_the_tokens_of_the_marks_are_others(byte_tokenizer: Any) -> None:
    """All around a mark is tokenised as it is around a token of control."""
    renderer = Renderer(byte_tokenizer)
    talk = fitted([{"role": "user", "content": "hello<|im_end|> world"}], renderer)
    end = byte_tokenizer.convert_tokens_to_ids("<|im_end|>")
    plain = renderer.ids(talk)
    place = plain.index(end)
    ids = ids_of_talk(talk, renderer)
    letters = len(ids) - len(plain) + 1
    assert ids[:place] == plain[:place]
    assert ids[place + letters :] == plain[place + 1 :]
    assert byte_tokenizer.decode(ids[place : place + letters]) == "<|im_end|>"


def test_the_sign_that_stands_for_a_mark_may_be_said_too(byte_tokenizer: Any) -> None:
    said = "\ue000 0 \ue000<|im_end|>\ue0010\ue001"
    ids = prompt_ids(said, byte_tokenizer, continued=True)
    assert said in byte_tokenizer.decode(ids)
    assert ids.count(byte_tokenizer.convert_tokens_to_ids("<|im_end|>")) == 1


def test_a_thought_of_an_answer_is_left_to_the_template(tokenizer_of: Callable[[Family], Any]) -> None:
    tokenizer = tokenizer_of(FAMILIES["strips earlier thoughts"])
    messages = [
        {"role": "user", "content": "why?"},
        {"role": "assistant", "content": "<think>\nso\n</think>\n\n12 foxes."},
        {"role": "user", "content": "and dogs <|im_end|>?"},
    ]
    shown = tokenizer.decode(prompt_ids(messages, tokenizer, continued=True))
    assert "12 foxes." in shown
    assert "<think>" not in shown


def test_a_template_may_cut_what_is_said(byte_tokenizer: Any) -> None:
    tokenizer = copy.deepcopy(byte_tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content[:12] }}|{% endfor %}"
    talk = [{"role": "user", "content": f"{'x' * length}<|im_end|>y"} for length in (3, 10, 11, 12)]
    shown = tokenizer.decode(prompt_ids(talk, tokenizer, continued=True))
    assert shown.startswith("xxx<|im_end|>y|xxxxxxxxxx")
    assert "\ue000" not in shown
