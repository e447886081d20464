"""A pair is two answers as they would be learnt, over one prompt; what a cut leaves of it; and how it is
shown."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloom.config.asked import DataConfig
from loraloom.data.encode import Encoded, encode, preview
from loraloom.data.recognise import recognise
from loraloom.data.rows import IGNORED, Judged, Pair, Row, sides_of
from loraloom.data.split import Splits, split
from loraloom.data.table import Table
from loraloom.errors import DataError
from loraloom.facts.data import data_facts

Given = dict[str, Any]

WORDS = st.sampled_from(["fox", " jumps", "\n", "\n\n", "  ", "😀", "é", "Yes", "<|im_end|>", "12"])
TEXT = st.lists(WORDS, min_size=1, max_size=5).map("".join)
PAIRS = st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=3)


def table(*rows: Given) -> Table:
    return Table("d.jsonl", rows, tuple(("d.jsonl:", i) for i in range(1, len(rows) + 1)))


def encoded(rows: list[Given], tokenizer: Any, **asked: Any) -> Encoded:
    read = table(*rows)
    return encode(Splits(read), recognise(read, DataConfig(**asked)), tokenizer)


def pairs(data: Encoded) -> list[Pair]:
    found = [row for row in data.train if isinstance(row, Pair)]
    assert len(found) == len(data.train)
    return found


def first(row: Row) -> int:
    return int(np.argmax(row.labels != IGNORED))


@pytest.mark.parametrize("name", ["byte_tokenizer", "trimming_tokenizer", "bos_tokenizer"])
@settings(max_examples=25)
@given(said=PAIRS)
def test_each_side_has_the_tokens_of_an_answer_to_learn(
    name: str, said: list[tuple[str, str, str]], request: pytest.FixtureRequest
) -> None:
    tokenizer = request.getfixturevalue(name)
    rows = [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in said]
    read = table(*rows)
    recognised = recognise(read, DataConfig(format="preference"))
    try:
        found = encode(Splits(read), recognised, tokenizer)
    except DataError:
        return  # nothing to choose in any of them
    alone: list[list[Row | None]] = []
    for side in ("chosen", "rejected"):
        alone.append([])
        for row in rows:
            one = [{"prompt": row["prompt"], "completion": row[side]}]
            try:
                (answer,) = sides_of(encoded(one, tokenizer, format="prompt_completion").train)
            except DataError:
                answer = None
            alone[-1].append(answer)
    left = iter(pairs(found))
    for chosen, rejected in zip(*alone, strict=True):
        if chosen is None or rejected is None or np.array_equal(chosen.input_ids, rejected.input_ids):
            continue
        pair = next(left)
        np.testing.assert_array_equal(pair.chosen.input_ids, chosen.input_ids)
        np.testing.assert_array_equal(pair.rejected.input_ids, rejected.input_ids)
        start = first(pair.chosen)
        assert start == first(pair.rejected) <= min(first(chosen), first(rejected))
        np.testing.assert_array_equal(pair.chosen.input_ids[:start], pair.rejected.input_ids[:start])
        for side, answer in ((pair.chosen, chosen), (pair.rejected, rejected)):
            learnt = first(answer)
            np.testing.assert_array_equal(side.labels[start:learnt], side.input_ids[start:learnt])
            np.testing.assert_array_equal(side.labels[learnt:], answer.labels[learnt:])
    assert next(left, None) is None


def test_a_token_that_reaches_from_the_prompt_into_one_answer_is_compared(byte_tokenizer: Any) -> None:
    tokenizer = copy.deepcopy(byte_tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '' if m.role == 'user' else 'is' }}{{ m.content }}<|im_end|>"
        "{% endfor %}{% if add_generation_prompt %}is{% endif %}"
    )
    rows = [{"prompt": "three", "chosen": "t", "rejected": " four"}]
    (pair,) = pairs(encoded(rows, tokenizer))
    learnt = [tokenizer.decode(side.input_ids[first(side) :]) for side in pair.sides]
    assert learnt == ["ist<|im_end|>", "is four<|im_end|>"], "`ist` is one token, and no prompt"


def test_plain_texts_end_in_the_end_of_the_document(bos_tokenizer: Any) -> None:
    rows = [{"prompt": "one two", "chosen": " three", "rejected": " no", "margin": 2}]
    (pair,) = pairs(encoded(rows, bos_tokenizer))
    assert [bos_tokenizer.decode(side.input_ids) for side in pair.sides] == [
        "<s> one two three </s>",
        "<s> one two no </s>",
    ]
    assert [side.supervised for side in pair.sides] == [2, 2]
    assert pair.margin == 2.0


def test_texts_without_a_column_of_prompts_leave_the_chat_template_out(byte_tokenizer: Any) -> None:
    rows = [{"chosen": "user: one\n\nassistant: yes", "rejected": "user: one\n\nassistant: no"}]
    (pair,) = pairs(encoded(rows, byte_tokenizer))
    assert byte_tokenizer.decode(pair.chosen.input_ids).startswith("user: one\n\nassistant: yes")
    assert byte_tokenizer.decode(pair.chosen.input_ids[first(pair.chosen) :]).startswith(" yes")
    assert byte_tokenizer.chat_template, "the tokenizer itself is left as it was"


def test_a_system_text_stands_before_the_prompt_of_both_sides(
    byte_tokenizer: Any, bos_tokenizer: Any
) -> None:
    rows = [{"system": "three", "prompt": "one", "chosen": " two", "rejected": " no"}]
    (pair,) = pairs(encoded(rows, byte_tokenizer))
    for side in pair.sides:
        assert byte_tokenizer.decode(side.input_ids).startswith("<|im_start|>system\nthree<|im_end|>")
    (pair,) = pairs(encoded(rows, bos_tokenizer))
    assert bos_tokenizer.decode(pair.rejected.input_ids) == "<s> three one no </s>"


def test_answers_of_several_turns_learn_what_the_assistant_says(byte_tokenizer: Any) -> None:
    asked, answer = ({"role": role, "content": "one"} for role in ("user", "assistant"))
    rows = [
        {"prompt": [asked], "chosen": [answer, asked, answer], "rejected": [{**answer, "content": "no"}]}
    ]
    (pair,) = pairs(encoded(rows, byte_tokenizer))
    learnt = pair.chosen.input_ids[pair.chosen.labels != IGNORED]
    assert byte_tokenizer.decode(learnt) == "one<|im_end|>one<|im_end|>"


def test_answers_that_a_template_writes_anew_are_refused(byte_tokenizer: Any) -> None:
    tokenizer = copy.deepcopy(byte_tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.content if m.role == 'user' or loop.last else 'x' }}"
        "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"
    )
    asked, answer = ({"role": role, "content": "one"} for role in ("user", "assistant"))
    rows = [{"prompt": [asked], "chosen": [answer, asked, answer], "rejected": [answer]}]
    with pytest.raises(DataError, match="several turns of the assistant in one answer"):
        encoded(rows, tokenizer)


def test_judged_answers_keep_their_verdict(byte_tokenizer: Any) -> None:
    rows = [{"prompt": "one", "completion": "two", "label": good} for good in (True, False)]
    data = encoded(rows, byte_tokenizer)
    assert [row.good for row in data.train if isinstance(row, Judged)] == [True, False]
    assert data_facts(data).repeated_rows == 0
    assert data_facts(encoded([*rows, rows[0]], byte_tokenizer)).repeated_rows == 1


def test_a_cut_keeps_prompts_and_drops_what_it_makes_alike(bos_tokenizer: Any) -> None:
    rows = [
        {"prompt": "one two", "chosen": " three four five", "rejected": " three four no"},
        {"prompt": "one two", "chosen": " four", "rejected": " five"},
        {"prompt": "one two three four five", "chosen": " yes", "rejected": " no"},
    ]
    data = encoded(rows, bos_tokenizer)
    assert (data.report["train"].longest, data.report["train"].tokens) == (8, 7 + 7 + 5 + 5 + 8 + 8)
    cut = data.cut(5)
    (pair,) = pairs(cut)
    assert [bos_tokenizer.decode(side.input_ids) for side in pair.sides] == [
        "<s> one two four </s>",
        "<s> one two five </s>",
    ]
    report = cut.report["train"]
    assert (report.rows, report.dropped, report.cut) == (1, 2, 2)
    with pytest.raises(DataError, match="the longest row has 8 tokens"):
        data.cut(3)


def test_pairs_of_which_nothing_can_be_chosen_are_counted(bos_tokenizer: Any) -> None:
    asked = {"prompt": "one"}
    rows = [
        {**asked, "chosen": " two", "rejected": " two"},
        {**asked, "chosen": "", "rejected": " two"},
        {**asked, "chosen": " two", "rejected": " three"},
    ]
    data = encoded(rows, bos_tokenizer)
    assert (len(data.train), data.report["train"].dropped) == (1, 2)
    with pytest.raises(DataError, match=r"two answers that are the same to the model, or an empty one"):
        encoded(rows[:2], bos_tokenizer)


def test_lengths_are_those_of_the_longer_side(bos_tokenizer: Any) -> None:
    rows = [{"prompt": "one", "chosen": " two three", "rejected": " no"}]
    facts = data_facts(encoded(rows, bos_tokenizer))
    assert (facts.longest, facts.tokens, facts.rows) == (5, 9, 1)


def test_pairs_of_one_prompt_stay_on_one_side_of_a_split(bos_tokenizer: Any) -> None:
    rows = [
        {"prompt": f"{word} of three", "chosen": f" yes {answer}", "rejected": f" no {answer}"}
        for word in "abcdefghij"
        for answer in ["one", "two", "three", "four"]
    ]
    read = table(*rows)
    recognised = recognise(read, DataConfig())
    splits = split(read, 0.3, None, recognised)
    prompts = [{row["prompt"] for row in part.rows} for part in (splits.train, splits.validation)]
    assert not prompts[0] & prompts[1] and prompts[1]
    data = encode(splits, recognised, bos_tokenizer)
    assert len({row.cluster for row in data.validation}) == len(prompts[1])


def test_the_preview_names_each_side(bos_tokenizer: Any, byte_tokenizer: Any) -> None:
    rows: list[Given] = [{"prompt": "one", "chosen": " two", "rejected": " no"}]
    (shown,) = preview(encoded(rows, bos_tokenizer), bos_tokenizer)
    assert "".join(f"«{text}»" if learnt else text for text, learnt in shown) == (
        "<s> one\nchosen: « two»« </s>»\nrejected: « no»« </s>»"
    )
    rows = [{"prompt": "one", "completion": "two", "label": good} for good in (True, False)]
    judged = preview(encoded(rows, byte_tokenizer), byte_tokenizer)
    good, bad = ("".join(text for text, _ in row) for row in judged)
    assert "assistant\ngood: two" in good and "assistant\nbad: two" in bad


def test_earlier_turns_of_a_row_are_read_and_not_compared(byte_tokenizer: Any) -> None:
    asked = {"instruction": "why", "chosen": "so", "rejected": "no", "history": [["hi", "yes?"]]}
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}]
    whole = {"prompt": [*turns, {"role": "user", "content": "why"}], "chosen": "so", "rejected": "no"}
    (one,), (other,) = (pairs(encoded([row], byte_tokenizer)) for row in (asked, whole))
    for a, b in zip(one.sides, other.sides, strict=True):
        assert a.input_ids.tolist() == b.input_ids.tolist()
        assert a.labels.tolist() == b.labels.tolist()
