"""Which tokens are supervised: for templates that only grow, that rewrite themselves,
and for none at all."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from manners import FAMILIES, Family

from loraloom.config.asked import DataConfig
from loraloom.data.causal import framing_of
from loraloom.data.chat import chat_rows as rows_of
from loraloom.data.encode import Encoded, encode
from loraloom.data.forms import conversation
from loraloom.data.plain import pair_rows, text_rows
from loraloom.data.recognise import Recognised, recognise
from loraloom.data.render import Renderer
from loraloom.data.rows import Row
from loraloom.data.split import Splits
from loraloom.data.table import Table
from loraloom.data.tokens import ids_of
from loraloom.errors import DataError, ModelError

TALK = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "how many foxes?"},
    {"role": "assistant", "content": "12 foxes."},
    {"role": "user", "content": "and dogs?"},
    {"role": "assistant", "content": "one 😀"},
]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

REWRITES = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' and loop.last"
    " %}(thought) {% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt"
    " %}<|im_start|>assistant\n{% endif %}"
)
"""Only the last answer shows a thought, so earlier turns change as the talk goes on."""

MARKED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% if loop.last %}(thought)\n{% endif %}{% generation %}{{ m['content'] }}{% endgeneration %}"
    "{% else %}{{ m['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The same with marks, which leave out the end of the turn."""

HIDES = (
    "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The opening of an answer never shows in the finished conversation."""

NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('system is not supported') }}{% endif %}"
    + CHATML
)
ALTERNATES = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{"
    " raise_exception('roles must alternate') }}{% endif %}{% endfor %}" + CHATML
)
STRICT = "{{ raise_exception('Only user and assistant roles are supported') }}"


def chat_rows(talks: list[tuple[str, list[dict[str, Any]]]], tokenizer: Any) -> list[Row]:
    """Rows of (origin, messages), every answer learnt."""
    read = Recognised("messages", "causal_lm", {"messages": "messages"}, "")
    return rows_of(
        [(origin, conversation({"messages": talk}, read)) for origin, talk in talks], Renderer(tokenizer)
    )


def with_template(tokenizer: Any, template: str | None) -> Any:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    return changed


def supervised_text(row: Row, tokenizer: Any) -> list[str]:
    """The supervised stretches of a row, as text."""
    marks = row.labels != -100
    assert (row.labels[marks] == row.input_ids[marks]).all()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marks.astype(int), [0]])))
    runs = [row.input_ids[a:b].tolist() for a, b in edges.reshape(-1, 2)]
    return [tokenizer.decode(run, clean_up_tokenization_spaces=False) for run in runs]


def test_assistant_turns_with_their_ends_and_nothing_else(
    byte_tokenizer: Any, trimming_tokenizer: Any
) -> None:
    for tokenizer in (byte_tokenizer, trimming_tokenizer):
        (row,) = chat_rows([("d:1", TALK)], tokenizer)
        assert supervised_text(row, tokenizer) == ["12 foxes.<|im_end|>", "one 😀<|im_end|>"]
        assert row.input_ids.tolist() == tokenizer.apply_chat_template(TALK, tokenize=True)["input_ids"]


def test_white_space_of_an_answer_is_supervised(byte_tokenizer: Any) -> None:
    talk = [TALK[1], {"role": "assistant", "content": " \n 12 \n\n"}]
    (row,) = chat_rows([("d:1", talk)], byte_tokenizer)
    assert supervised_text(row, byte_tokenizer)[0].endswith("12 \n\n<|im_end|>")


def test_prefix_difference_is_what_a_template_marks_itself(shared: Path) -> None:
    """tinychat's template has {% generation %} marks, which prefix difference does not read."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(shared / "models" / "tinychat-5M")
    with (shared / "data" / "gsm8k" / "train.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(next(lines)) for _ in range(50)]
    talks = [
        [{"role": "user", "content": r["question"]}, {"role": "assistant", "content": r["answer"]}]
        for r in rows
    ]
    talks.append(TALK)
    for talk, row in zip(talks, chat_rows([("d:1", talk) for talk in talks], tokenizer), strict=True):
        own = tokenizer.apply_chat_template(
            talk, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        assert row.input_ids.tolist() == own["input_ids"]
        assert (row.labels != -100).astype(int).tolist() == own["assistant_masks"]


def test_a_template_that_rewrites_earlier_turns_gives_a_row_a_turn(byte_tokenizer: Any) -> None:
    tokenizer = with_template(byte_tokenizer, REWRITES)
    first, second = chat_rows([("d:1", TALK)], tokenizer)
    assert supervised_text(first, tokenizer) == ["(thought) 12 foxes.<|im_end|>"]
    assert supervised_text(second, tokenizer) == ["(thought) one 😀<|im_end|>"]
    assert (
        first.input_ids.tolist() == tokenizer.apply_chat_template(TALK[:3], tokenize=True)["input_ids"]
    )
    assert second.input_ids.tolist() == tokenizer.apply_chat_template(TALK, tokenize=True)["input_ids"]


def test_marks_are_used_where_prefixes_do_not_tell(byte_tokenizer: Any) -> None:
    tokenizer = with_template(byte_tokenizer, MARKED)
    (row,) = chat_rows([("d:1", TALK)], tokenizer)
    assert supervised_text(row, tokenizer) == ["12 foxes.<|im_end|>", "one 😀<|im_end|>"]


def test_an_answer_that_cannot_be_found_is_an_error(byte_tokenizer: Any) -> None:
    with pytest.raises(DataError) as caught:
        chat_rows([("d.jsonl:7", TALK)], with_template(byte_tokenizer, HIDES))
    assert str(caught.value).startswith(
        "d.jsonl:7: the model's chat template hides where the answer begins"
    )
    assert "{% if add_generation_prompt %}" in str(caught.value)


def test_what_a_template_refuses_is_told_in_its_words(byte_tokenizer: Any) -> None:
    with pytest.raises(DataError) as caught:
        chat_rows([("d.jsonl:7", TALK)], with_template(byte_tokenizer, STRICT))
    message = str(caught.value)
    assert message.startswith("d.jsonl:7: the model's chat template refuses")
    assert "Only user and assistant roles are supported" in message
    assert "system, user, assistant, user, assistant" in message


def test_no_template_is_an_error_of_the_model(bos_tokenizer: Any) -> None:
    with pytest.raises(
        ModelError, match=r"no chat template[\s\S]*Instruct or Chat[\s\S]*prompt and completion"
    ):
        chat_rows([("d:1", TALK)], bos_tokenizer)


def test_a_template_with_its_own_bos_gives_one(bos_tokenizer: Any) -> None:
    template = "{{ bos_token }} {% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
    tokenizer = with_template(bos_tokenizer, template)
    (row,) = chat_rows(
        [("d:1", [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "world"}])],
        tokenizer,
    )
    assert row.input_ids.tolist().count(tokenizer.bos_token_id) == 1


def test_a_conversation_without_an_answer_has_nothing_supervised(byte_tokenizer: Any) -> None:
    opening = [{"role": "assistant", "content": "hello"}]
    rows = chat_rows([("d:1", TALK[:2]), ("d:2", opening)], byte_tokenizer)
    assert [row.supervised for row in rows] == [0, 0]


@pytest.mark.parametrize(
    ("prompt", "completion"), [("hello", " world"), ("hello ", "world"), ("a\n", "\nb"), ("", "hello")]
)
def test_a_pair_begins_with_the_ids_of_its_prompt(
    byte_tokenizer: Any, prompt: str, completion: str
) -> None:
    (row,) = pair_rows([(prompt, completion)], byte_tokenizer, framing_of(byte_tokenizer))
    given = ids_of([prompt], byte_tokenizer)[0]
    ids = row.input_ids.tolist()
    assert ids[: len(given)] == given
    assert (
        byte_tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        == prompt + completion + "<|im_end|>"
    )
    first = max(1, len(given))
    assert (row.labels[:first] == -100).all()
    assert row.labels[first:].tolist() == ids[first:]


def test_a_pair_is_framed_once(bos_tokenizer: Any) -> None:
    (row,) = pair_rows([("hello world", "yes no")], bos_tokenizer, framing_of(bos_tokenizer))
    assert bos_tokenizer.convert_ids_to_tokens(row.input_ids.tolist()) == [
        "<s>",
        "hello",
        "world",
        "yes",
        "no",
        "</s>",
    ]
    assert supervised_text(row, bos_tokenizer) == ["yes no </s>"]


def test_an_empty_completion_teaches_nothing(byte_tokenizer: Any) -> None:
    (row,) = pair_rows([("hello", "")], byte_tokenizer, framing_of(byte_tokenizer))
    assert row.supervised == 0


def test_text_is_supervised_but_for_its_first_token(byte_tokenizer: Any, bos_tokenizer: Any) -> None:
    with_bos, empty = text_rows(["hello world", ""], bos_tokenizer, framing_of(bos_tokenizer))
    assert bos_tokenizer.convert_ids_to_tokens(with_bos.input_ids.tolist()) == [
        "<s>",
        "hello",
        "world",
        "</s>",
    ]
    assert (with_bos.labels == -100).tolist() == [True, False, False, False]
    assert empty.supervised == 0
    (without,) = text_rows(["hello world"], byte_tokenizer, framing_of(byte_tokenizer))
    assert (without.labels == -100).tolist() == [True] + [False] * (len(without) - 1)
    assert without.labels[-1] == byte_tokenizer.eos_token_id


@pytest.mark.parametrize(
    "text",
    ["hello world", "<s> hello world", "hello world </s>", "<s> hello world </s>\n", " <s> hello world"],
)
def test_a_text_has_one_beginning_and_one_end(bos_tokenizer: Any, text: str) -> None:
    framing = framing_of(bos_tokenizer)
    (row,) = text_rows([text], bos_tokenizer, framing)
    assert bos_tokenizer.convert_ids_to_tokens(row.input_ids.tolist()) == [
        "<s>",
        "hello",
        "world",
        "</s>",
    ]
    begins, ends = "<s>" in text, "</s>" in text
    (pair,) = pair_rows(
        [("<s> hello" if begins else "hello", " world </s>" if ends else " world")],
        bos_tokenizer,
        framing,
    )
    assert pair.input_ids.tolist() == row.input_ids.tolist()
    assert supervised_text(pair, bos_tokenizer) == ["world </s>"]


def encoded(rows: list[dict[str, Any]], tokenizer: Any) -> Encoded:
    table = Table("d.jsonl", tuple(rows), tuple(("d.jsonl:", i) for i in range(1, len(rows) + 1)))
    return encode(Splits(table), recognise(table, DataConfig()), tokenizer)


def test_text_that_a_template_has_written_already_is_told(byte_tokenizer: Any) -> None:
    text = byte_tokenizer.apply_chat_template(TALK[1:3], tokenize=False)
    data = encoded([{"text": text}, {"text": "The quick brown fox"}], byte_tokenizer)
    assert byte_tokenizer.decode(data.train[0].input_ids.tolist()) == text.rstrip(), "no second end"
    assert "the chat template's own marks already (1 row; '<|im_start|>')" in data.notes[-1]
    assert '{"messages": [...]}' in data.notes[-1]
    assert encoded([{"text": "The quick brown fox"}], byte_tokenizer).notes == ()


def test_a_prompt_that_a_template_has_written_already_is_not_written_again(byte_tokenizer: Any) -> None:
    prompt = byte_tokenizer.apply_chat_template(TALK[1:2], tokenize=False, add_generation_prompt=True)
    data = encoded([{"prompt": prompt, "completion": "12 foxes.<|im_end|>\n"}], byte_tokenizer)
    (row,) = chat_rows([("d:1", TALK[1:3])], byte_tokenizer)
    assert data.train[0].input_ids.tolist() == row.input_ids.tolist()[:-1], (
        "but for the line break after the end"
    )
    assert supervised_text(data.train[0], byte_tokenizer) == ["12 foxes.<|im_end|>"]
    assert any("prompt and completion are joined as they are" in note for note in data.notes)


def test_an_answer_that_ends_itself_is_ended_once(byte_tokenizer: Any) -> None:
    talk = [TALK[1], {"role": "assistant", "content": "12 foxes.<|im_end|>\n"}]
    data = encoded([{"messages": talk}], byte_tokenizer)
    assert supervised_text(data.train[0], byte_tokenizer) == ["12 foxes.<|im_end|>"]
    assert data.notes == (
        "answers end in <|im_end|> already (1 row): it is taken off, since the chat template writes it",
    )


@pytest.mark.parametrize(
    ("template", "talk", "cure"),
    [
        (NO_SYSTEM, TALK, "data.system=merge"),
        (ALTERNATES, [TALK[1], TALK[1], TALK[2]], "join turns of one speaker"),
        (ALTERNATES, [TALK[2], TALK[1], TALK[2]], "begin with the user's"),
        (STRICT, TALK, "write the turns as the template wants them"),
    ],
)
def test_a_refusal_counts_its_rows_and_says_what_helps(
    byte_tokenizer: Any, template: str, talk: Any, cure: str
) -> None:
    tokenizer = with_template(byte_tokenizer, template)
    read = Recognised("messages", "causal_lm", {"messages": "messages"}, "", system="keep")
    talks = [(f"d:{i}", conversation({"messages": talk}, read)) for i in range(1, 4)]
    with pytest.raises(DataError) as caught:
        rows_of(talks, Renderer(tokenizer, "keep"))
    message = str(caught.value)
    assert message.startswith("d:1: the model's chat template refuses 3 of 3 rows")
    assert "supported" in message or "alternate" in message
    assert cure in message.partition("\n  next: ")[2]


def test_system_messages_are_merged_where_the_template_refuses_them_or_one_asks(
    byte_tokenizer: Any,
) -> None:
    merged = [{"role": "user", "content": "be brief\n\nhow many foxes?"}, *TALK[2:]]
    read = Recognised("messages", "causal_lm", {"messages": "messages"}, "")
    for template, system in ((NO_SYSTEM, "auto"), (CHATML, "merge")):
        tokenizer = with_template(byte_tokenizer, template)
        renderer = Renderer(tokenizer, system)  # type: ignore[arg-type]
        (row,) = rows_of([("d:1", conversation({"messages": TALK}, read))], renderer)
        (same,) = rows_of([("d:1", conversation({"messages": merged}, read))], renderer)
        assert (
            row.input_ids.tolist() == same.input_ids.tolist()
            and row.labels.tolist() == same.labels.tolist()
        )
    late = [*TALK[1:3], TALK[0], *TALK[3:]]
    (row,) = rows_of(
        [("d:1", conversation({"messages": late}, read))], Renderer(byte_tokenizer, "merge")
    )
    assert "user\nbe brief\n\nand dogs?<|im_end|>" in byte_tokenizer.decode(row.input_ids.tolist())
    (kept,) = rows_of([("d:1", conversation({"messages": TALK}, read))], Renderer(byte_tokenizer))
    assert "system\nbe brief<|im_end|>" in byte_tokenizer.decode(kept.input_ids.tolist())


def test_arguments_are_text_for_a_template_that_wants_text(byte_tokenizer: Any) -> None:
    template = CHATML.replace(
        "{{ m['content'] }}",
        "{% for c in m.tool_calls or [] %}{{ 'f(' + c.function.arguments + ')' }}{% endfor %}",
    )
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    (row,) = chat_rows(
        [("d:1", [TALK[1], {"role": "assistant", "tool_calls": [call]}])],
        with_template(byte_tokenizer, template),
    )
    assert supervised_text(row, byte_tokenizer) == ['f({"a": 1})<|im_end|>']


def test_marks_leave_out_an_answer_of_weight_zero(byte_tokenizer: Any) -> None:
    talk = [*TALK[:4], {"role": "assistant", "content": "wrong", "weight": 0}, *TALK[3:]]
    (row,) = chat_rows([("d:1", talk)], with_template(byte_tokenizer, MARKED))
    assert supervised_text(row, byte_tokenizer) == ["12 foxes.<|im_end|>", "one 😀<|im_end|>"]


def test_what_a_template_does_not_write_is_named(byte_tokenizer: Any) -> None:
    only_users = (
        "{% for m in messages %}{% if m.role != 'system' and m.role != 'tool' %}<|im_start|>{{ m.role"
        " }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt"
        " %}<|im_start|>assistant\n{% endif %}"
    )
    row = {
        "messages": [TALK[0], {**TALK[1], "name": "Ann"}, {"role": "tool", "content": "3"}, TALK[2]],
        "chat_template_kwargs": {"enable_thinking": True},
    }
    said = "\n".join(encoded([row, row], with_template(byte_tokenizer, only_users)).notes)
    assert "does not write messages of the role system (2 rows); --set data.system=merge" in said
    assert "does not write messages of the role tool (2 rows)" in said
    assert "does not write these keys of messages: `name` (2 rows)" in said
    assert "does not read these variables: `enable_thinking` (2 rows)" in said


def test_a_text_that_ends_a_turn_gets_no_end_of_a_document_too(
    tokenizer_of: Callable[[Family], Any],
) -> None:
    tokenizer = tokenizer_of(FAMILIES["bars"])
    text = tokenizer.apply_chat_template(TALK[1:3], tokenize=False)
    assert text.endswith("<|end|>\n") and tokenizer.eos_token == "</s>"
    data = encoded([{"text": text}, {"text": "hello"}], tokenizer)
    said = [tokenizer.decode(row.input_ids.tolist()) for row in data.train]
    assert said[0].endswith("<|end|>") and said[1].endswith("</s>")


def test_a_thought_is_tokenised_apart_from_the_prompt_that_opens_it(
    tokenizer_of: Callable[[Family], Any],
) -> None:
    tokenizer = copy.deepcopy(tokenizer_of(FAMILIES["opens thoughts"]))
    tokenizer.add_tokens(["\n\n"])  # as most tokenizers have it: it would span the end of the prompt
    (row,) = chat_rows([("d:1", TALK[1:3])], tokenizer)
    served = tokenizer.apply_chat_template(TALK[1:2], add_generation_prompt=True)["input_ids"]
    assert row.input_ids[: len(served)].tolist() == served
    assert int((row.labels != -100).argmax()) == len(served)
    assert supervised_text(row, tokenizer) == ["\n</think>\n\n12 foxes.</s>"]
