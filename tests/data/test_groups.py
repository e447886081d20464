"""What belongs together is never cut; what cannot be kept together is said; what files
share is counted."""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.data.recognise import Recognised
from loraloom.data.split import Splits, split
from loraloom.data.table import Table
from loraloom.errors import DataError

CHAT = Recognised("messages", "causal_lm", {"messages": "messages"}, "")
CLASSIFIED = Recognised("text_label", "seq_cls", {"text": "text", "label": "label"}, "")
PAIRS = Recognised(
    "prompt_completion", "causal_lm", {"prompt": "prompt", "completion": "completion"}, ""
)
TEXT = Recognised("text", "causal_lm", {"text": "text"}, "")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def table(rows: list[dict[str, Any]]) -> Table:
    return Table("train.jsonl", tuple(rows), tuple(("train.jsonl:", i) for i in range(1, len(rows) + 1)))


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def word(number: int) -> str:
    """A word of letters for each number."""
    return "".join(LETTERS[int(digit)] for digit in str(number))


def talk(*texts: str, **more: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {
        "messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)],
        **more,
    }


def numbers(splits: Splits) -> list[set[int]]:
    """The `n` of the rows of each split."""
    return [{row["n"] for row in part.rows} for part in splits.tables.values()]


def apart(splits: Splits) -> bool:
    sides = numbers(splits)
    return sum(map(len, sides)) == len(set[int]().union(*sides))


# Ways to write the same row otherwise.
WAYS: tuple[Callable[[dict[str, Any]], dict[str, Any]], ...] = (
    lambda m: m,
    lambda m: {**m, "id": m["content"]},
    lambda m: dict(reversed(m.items())),
    lambda m: {**m, "name": None, "tool_calls": None},
    lambda m: {**m, "content": [{"type": "text", "text": m["content"]}]},
    lambda m: {**m, "content": m["content"].replace(" ", "\n")},
    lambda m: {**m, "content": f"\t{m['content']}  "},
    lambda m: {**m, "content": m["content"].replace(" ", "\r\n")},
    lambda m: {**m, "content": unicodedata.normalize("NFD", m["content"])},
    lambda m: {**m, "content": unicodedata.normalize("NFKD", m["content"])},
    lambda m: {**m, "content": "\u200b".join(m["content"])},
    lambda m: {**m, "content": m["content"].upper()},
    lambda m: {**m, "role": m["role"].upper()} if m["role"] != "user" else m,
    lambda m: {"from": {"user": "human", "assistant": "gpt"}[m["role"]], "value": m["content"]},
)


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, len(WAYS) - 1), st.integers(0, len(WAYS) - 1)),
        min_size=40,
    ),
    validation=st.sampled_from([0.1, 0.3]),
    test=st.sampled_from([0.2, None]),
    seed=st.integers(0, 3),
)
def test_what_is_written_otherwise_is_never_on_two_sides(
    rows: list[tuple[int, int, int]], validation: float, test: float | None, seed: int
) -> None:
    def row(number: int, first: int, second: int) -> dict[str, Any]:
        asked, answer = talk(f"où est {word(number)} né", f"à {word(number)} même")["messages"]
        return {"messages": [WAYS[first](asked), WAYS[second](answer)], "n": number}

    whole = table([row(*each) for each in (*rows, *((100 + i, 0, 0) for i in range(10)))])
    splits = split(whole, validation, test, CHAT, seed=seed)
    assert apart(splits)
    origins = [part.origin(i) for part in splits.tables.values() for i in range(len(part))]
    assert sorted(origins) == sorted(whole.origin(i) for i in range(len(whole)))
    assert splits.duplicates == 0


@given(
    sizes=st.lists(st.integers(1, 8), min_size=20, max_size=60),
    share=st.sampled_from([0.1, 0.25, 0.4]),
    seed=st.integers(0, 5),
    shuffled=st.randoms(use_true_random=False),
)
def test_groups_are_never_cut_and_shares_are_met_within_one_group(
    sizes: list[int], share: float, seed: int, shuffled: random.Random
) -> None:
    rows = [
        {"text": f"{word(n)} {word(k)}", "of": f"g{n}", "n": n}
        for n, size in enumerate(sizes)
        for k in range(size)
    ]
    shuffled.shuffle(rows)
    splits = split(table(rows), share, None, TEXT, group_column="of", seed=seed)
    assert apart(splits)
    drawn = len(splits.validation) + len(splits.confirm)
    assert len(splits.train) + drawn == len(rows)
    assert abs(drawn - share * len(rows)) <= max(sizes)
    assert splits == split(table(rows), share, None, TEXT, group_column="of", seed=seed)


RELATED = {
    "the same prompt with other answers": (
        PAIRS,
        lambda n, k: {"prompt": f"describe {word(n)}", "completion": f"one {word(k)}"},
    ),
    "a question of one user's turn": (CHAT, lambda n, k: talk(f"describe {word(n)}", f"one {word(k)}")),
    "a conversation and its longer versions": (
        CHAT,
        lambda n, k: talk(*(f"{word(n)} {word(turn)}" for turn in range(2 + 2 * k))),
    ),
    "a document cut into rows": (TEXT, lambda n, k: {"text": f"{word(n)} {word(k)}", "document_id": n}),
    "another spelling of that name": (
        TEXT,
        lambda n, k: {"text": f"{word(n)} {word(k)}", "Conversation ID": f"c{n}"},
    ),
    "texts with a label": (
        CLASSIFIED,
        lambda n, k: {"text": f"{word(n)} {word(k)}", "label": "ab"[k % 2], "dialogueId": n},
    ),
    "nearly the same texts": (
        TEXT,
        lambda n, k: {"text": " ".join([*(word(n * 1000 + i) for i in range(60)), "and", word(k)])},
    ),
}


@pytest.mark.parametrize("relation", RELATED)
def test_related_rows_stay_on_one_side(relation: str) -> None:
    recognised, row = RELATED[relation]
    rows = [{**row(n, k), "n": n} for k in range(4) for n in range(40)]
    splits = split(table(rows), 0.2, 0.1, recognised)
    assert apart(splits)
    assert len(splits.validation) == 32 and len(splits.test) == 16
    assert splits.overlaps == ()
    (note,) = splits.notes
    assert note.startswith("160 rows are 40 groups (160 ")
    # Only repeats are kept together where nothing else is asked for.
    assert not apart(split(table(rows), 0.2, 0.1, recognised, group_column=None))


def test_files_that_share_what_belongs_together_are_counted_closest_first(tmp_path: Path) -> None:
    long = [" ".join(word(n * 1000 + i) for i in range(60)) for n in range(40)]
    rows = [{"prompt": text, "completion": "yes"} for text in long]
    held_out = [
        *({"prompt": text.upper(), "completion": "Yes"} for text in long[:3]),
        *({"prompt": text, "completion": "no"} for text in long[3:8]),
        *({"prompt": f"{text} please", "completion": "yes"} for text in long[8:15]),
        *({"prompt": f"other {word(n)}", "completion": "yes"} for n in range(9)),
    ]
    splits = split(table(rows), None, write(tmp_path / "t.jsonl", held_out), PAIRS)
    assert [(each.split, each.kind, each.rows, each.of) for each in splits.overlaps] == [
        ("test", "content", 3, 24),
        ("test", "asked", 5, 24),
        ("test", "near", 7, 24),
    ]
    assert (
        splits.overlaps[1].sentence
        == "5 of 24 test rows share a prompt with rows that are trained or chosen on"
    )
    assert (len(splits.train), len(splits.test), splits.duplicates) == (40, 24, 3)
    assert (
        split(table(rows), None, str(tmp_path / "t.jsonl"), PAIRS, group_column=None).overlaps
        == splits.overlaps[:1]
    )


def test_a_prompt_that_all_rows_have_does_not_stop_a_draw_and_is_told() -> None:
    rows = [{"prompt": "tell me a joke", "completion": word(n)} for n in range(40)]
    splits = split(table(rows), 0.25, None, PAIRS)
    assert len(splits.validation) == 10
    assert splits.notes[0].startswith("40 of 40 rows share a prompt in groups too large for one side")
    assert [each.rows for each in splits.overlaps] == [10]


def test_templates_and_short_utterances_are_drawn_row_by_row() -> None:
    rows = [{"text": f"what is {n} plus {n + 1}?", "label": "ab"[n % 2]} for n in range(200)]
    splits = split(table(rows), 0.2, None, CLASSIFIED)
    assert len(splits.validation) == 40
    assert splits.notes == () and splits.overlaps == ()


def test_words_that_all_conversations_have_do_not_chain_them_into_one_group() -> None:
    rows = [
        {"text": text, "label": label, "conversation_id": n, "n": n}
        for n in range(40)
        for text, label in (("thanks", "a"), (f"about {word(n)}", "b"), (f"on {word(n)}", "a"))
    ]
    splits = split(table(rows), 0.2, None, CLASSIFIED)
    assert apart(splits)
    trained = {row["text"] for row in splits.train.rows}
    assert len(splits.validation) == 16 and not trained & {row["text"] for row in splits.validation.rows}
    assert "8 validation rows say what other rows say, and are left out" in splits.notes


def test_a_column_of_a_known_name_that_does_not_group_rows_is_left_alone() -> None:
    few = [{"text": word(n), "group": "abc"[n % 3]} for n in range(60)]
    splits = split(table(few), 0.1, None, TEXT)
    assert len(splits.validation) == 6
    assert splits.notes == (
        (
            "the rows of one `group` are not kept together: it has 3 values; set"
            " `data.group_column=group` if they must be"
        ),
    )
    named = split(table(few), 0.1, None, TEXT, group_column="group")
    assert (len(named.train), len(named.validation)) == (40, 20)
    assert any(
        "the smallest group has 20 rows: validation has those, where 6 were asked for" in note
        for note in named.notes
    )
    unique = [{"text": word(n), "document_id": n} for n in range(60)]
    assert split(table(unique), 0.1, None, TEXT).notes == ()


def test_groups_that_cannot_be_shared_out_say_what_to_do() -> None:
    rows = table([{"text": word(n), "of": "one"} for n in range(20)])
    with pytest.raises(
        DataError, match=r"too few groups of rows(.|\n)*20 rows, 1 in groups(.|\n)*group_column"
    ) as caught:
        split(rows, 0.1, None, TEXT, group_column="of")
    assert caught.value.exit_code == 2
    with pytest.raises(DataError, match=r"`data.group_column` is `off`(.|\n)*the columns text, of"):
        split(rows, 0.1, None, TEXT, group_column="off")


def test_rows_without_a_group_stand_alone_and_are_counted() -> None:
    rows = [{"text": word(n), "of": None if n % 2 else f"g{n % 8}"} for n in range(80)]
    splits = split(table(rows), 0.2, None, TEXT, group_column="of")
    assert any(note == "40 rows have no `of`: each is a group of its own" for note in splits.notes)
    assert len(splits.validation) == 16


def test_the_seed_and_not_the_alphabet_draws_from_small_classes() -> None:
    rows = table([{"text": word(n), "label": f"class{n // 2:03}"} for n in range(200)])
    drawn = [
        {row["label"] for row in split(rows, 0.1, None, CLASSIFIED, seed=seed).validation.rows}
        for seed in range(20)
    ]
    assert all(len(each) == 20 for each in drawn)
    often = np.array([sum(f"class{n:03}" in each for each in drawn) for n in range(100)])
    assert often.max() <= 12 and (often > 0).sum() > 80
