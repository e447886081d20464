"""What augmentation does to a row: never to its label or its answers, and the same for the same seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.config.choices import AUGMENTATIONS, NOISES
from loraloom.data.augment import (
    LEARN_PROMPT,
    PARAPHRASE,
    AugmentedOrder,
    augmentations,
    augmented,
    with_prompt_learnt,
)
from loraloom.data.batches import Order
from loraloom.data.noise import NEIGHBOURS, NOISE
from loraloom.data.recognise import Recognised
from loraloom.data.rows import IGNORED, Row
from loraloom.data.table import Table
from loraloom.errors import ConfigError, DataError

LABELS = Recognised("text_label", "seq_cls", {"text": "text", "label": "label"}, "")
FORMS = {
    "messages": {"messages": "messages"},
    "sharegpt": {"messages": "messages"},
    "alpaca": {"instruction": "instruction", "input": "input", "output": "output"},
    "prompt_completion": {"prompt": "prompt", "completion": "completion"},
    "question_answer": {"question": "question", "answer": "answer"},
    "source_target": {"source": "source", "target": "target"},
}


def table(rows: list[dict[str, Any]]) -> Table:
    return Table("a.jsonl", tuple(rows), tuple(("a.jsonl:", i + 1) for i in range(len(rows))))


def row_of(form: str, asked: str, answer: str) -> dict[str, Any]:
    if form in ("messages", "sharegpt"):
        who, what = ("role", "content") if form == "messages" else ("from", "value")
        turns = (("user", asked), ("assistant", answer), ("user", "and?"), ("assistant", "no more"))
        return {"messages": [{who: role, what: text} for role, text in turns]}
    columns = list(FORMS[form])
    return {columns[0]: asked, "input": "", columns[-1]: answer}


@pytest.mark.parametrize("kind", NOISES)
@given(st.lists(st.tuples(st.text(max_size=40), st.sampled_from(["a", "b"])), min_size=1, max_size=8))
def test_noise_leaves_labels_and_other_columns(kind: str, rows: list[tuple[str, str]]) -> None:
    whole = table([{"text": text, "label": label, "id": i} for i, (text, label) in enumerate(rows)])
    made = augmented(whole, LABELS, kind, 3)
    assert [(row["label"], row["id"]) for row in made.rows] == [
        (row["label"], row["id"]) for row in whole.rows
    ]
    assert made == augmented(whole, LABELS, kind, 3)
    assert all(
        row["text"].strip() for row, (text, _) in zip(made.rows, rows, strict=True) if text.strip()
    )


@pytest.mark.parametrize("kind", NOISES)
def test_noise_changes_most_texts_and_depends_on_its_seed(kind: str) -> None:
    whole = table([{"text": f"the bird number {i} sings, and Waits", "label": i % 2} for i in range(40)])
    one, other = (augmented(whole, LABELS, kind, seed) for seed in (0, 1))
    changed = sum(a["text"] != b["text"] for a, b in zip(whole.rows, one.rows, strict=True))
    assert changed >= 30 and one != other


@given(st.text(alphabet="ab cd.,", min_size=1, max_size=60), st.integers(0, 99))
def test_what_each_noise_may_do(text: str, seed: int) -> None:
    import random

    def noisy(kind: str) -> str:
        return NOISE[kind](text, random.Random(seed))

    assert set(noisy("word_dropout").split()) <= set(text.split())
    assert sorted(noisy("word_swap").split()) == sorted(text.split())
    assert noisy("casing").casefold() == text.casefold()
    bare = str.maketrans("", "", ".,;!? ")
    assert noisy("punctuation").translate(bare) == text.translate(bare)
    assert set(noisy("typing").lower()) <= {*text.lower(), *(c for a in "abcd" for c in NEIGHBOURS[a])}


@pytest.mark.parametrize("form", FORMS)
@given(st.text(max_size=30), st.text(max_size=20))
def test_a_paraphrase_has_the_question_whole_and_the_answer_untouched(
    form: str, asked: str, answer: str
) -> None:
    recognised = Recognised(form, "causal_lm", FORMS[form], "")
    before = row_of(form, asked, answer)
    (after,) = augmented(table([before]), recognised, PARAPHRASE, 0).rows
    if form in ("messages", "sharegpt"):
        texts = [[next(reversed(turn.values())) for turn in row["messages"]] for row in (before, after)]
        assert texts[0][1:] == texts[1][1:] and asked in texts[1][0]
    else:
        column, *others = before
        assert asked in after[column]
        assert {name: after[name] for name in others} == {name: before[name] for name in others}


def test_paraphrases_are_other_words_and_leave_finished_prompts() -> None:
    recognised = Recognised("prompt_completion", "causal_lm", FORMS["prompt_completion"], "")
    rows = [{"prompt": f"{i} in braces {{x}}", "completion": "y"} for i in range(20)]
    made = augmented(table(rows), recognised, PARAPHRASE, 0)
    assert len({row["prompt"].replace(f"{i} in", "") for i, row in enumerate(made.rows)}) > 3
    assert all(row["prompt"] in new["prompt"] for row, new in zip(rows, made.rows, strict=True))
    done = table([{"prompt": "<|user|>hello<|end|>", "completion": "y"}])
    assert augmented(done, recognised, PARAPHRASE, 0, ["<|end|>"]) == done


def test_a_change_that_reaches_the_label_is_refused() -> None:
    same = Recognised("text_label", "seq_cls", {"text": "label", "label": "label"}, "")
    with pytest.raises(
        DataError, match="changes the column `label`, which holds what is learnt"
    ) as told:
        augmented(table([{"label": "good thing"}, {"label": "bad"}]), same, "typing", 0)
    assert "a.jsonl:1" in str(told.value)


@pytest.mark.parametrize(
    ("form", "task", "possible"),
    [
        ("text_label", "seq_cls", set(NOISES)),
        ("alpaca", "causal_lm", {PARAPHRASE, LEARN_PROMPT}),
        ("source_target", "seq2seq_lm", {PARAPHRASE}),
        ("text", "causal_lm", set[str]()),
    ],
)
def test_each_task_has_its_own_augmentations(form: str, task: Any, possible: set[str]) -> None:
    recognised = Recognised(form, task, {}, "")
    for kind in AUGMENTATIONS:
        if kind in possible:
            assert [one.kind for one in augmentations((kind,), recognised)] == [kind]
        else:
            with pytest.raises(ConfigError, match=f"names {kind}, which does not suit"):
                augmentations((kind,), recognised)
    assert augmentations(None, recognised) == ()


def test_a_share_of_its_own_stands_in_the_name() -> None:
    half, third = augmentations({"typing": 0.5, "casing": 0.3}, LABELS)
    assert (half.name, third.name) == ("typing", "{casing: 0.3}")


def test_a_prompt_is_learnt_but_for_the_first_token_and_marks() -> None:
    ids = np.array([1, 5, 6, 2, 7, 2], dtype=np.int32)
    row = Row(ids, np.array([IGNORED] * 4 + [7, 2], dtype=np.int32))
    assert with_prompt_learnt(row, frozenset({1, 2})).labels.tolist() == [IGNORED, 5, 6, IGNORED, 7, 2]


@given(st.integers(1, 30), st.integers(1, 3), st.floats(0, 1), st.integers(0, 5), st.integers(0, 40))
def test_an_augmented_order_takes_the_same_rows_or_copies_of_them(
    rows: int, copies: int, share: float, seed: int, step: int
) -> None:
    plain = Order([4] * rows, 4, seed)
    numbers = rows + np.arange(rows * copies).reshape(rows, copies)
    numbers[0] = -1  # a row without copies
    order = AugmentedOrder(plain, numbers, share, seed)
    owners = {int(copy): row for row in range(rows) for copy in numbers[row]}
    taken = order.rows_of_step(step)
    assert [owners.get(int(row), int(row)) for row in taken] == plain.rows_of_step(step).tolist()
    assert taken.tolist() == AugmentedOrder(plain, numbers, share, seed).rows_of_step(step).tolist()


def test_the_share_of_changed_rows_is_as_asked() -> None:
    plain = Order([4] * 1000, 1000, 0)
    order = AugmentedOrder(plain, 1000 + np.arange(2000).reshape(1000, 2), 0.3, 7)
    changed = [np.mean(order.rows_of_step(step) >= 1000) for step in range(5)]
    assert abs(np.mean(changed) - 0.3) < 0.05
    first, second = order.rows_of_step(0), order.rows_of_step(1)
    assert set(first[first >= 1000]) != set(second[second >= 1000])
    assert not np.any(
        AugmentedOrder(plain, 1000 + np.zeros((1000, 1), int), 0.0, 7).rows_of_step(0) >= 1000
    )
