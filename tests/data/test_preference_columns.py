"""Which tables are read as preferences, where their prompts stand, and what is refused of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loraloom.config.asked import DataConfig
from loraloom.data.pairs import prompt_and_answers
from loraloom.data.recognise import Recognised, check, recognise
from loraloom.data.sources import load_training
from loraloom.data.table import Table
from loraloom.errors import ConfigError, DataError

Row = dict[str, Any]

ASKED = [{"role": "user", "content": "why"}]
GOOD, BAD = ([{"role": "assistant", "content": text}] for text in ("so", "no"))
TURNS = (("gpt", "good"), ("gpt", "bad"))
PAIR = {"prompt": "why", "chosen": "so", "rejected": "no"}
JUDGED = [{"prompt": "why", "completion": "so", "label": good} for good in (True, False)]


def table(*rows: Row) -> Table:
    return Table("d.jsonl", rows, tuple(("d.jsonl:", i) for i in range(1, len(rows) + 1)))


def read(*rows: Row, **asked: Any) -> Recognised:
    return recognise(table(*rows), DataConfig(**asked))


def said(row: Row) -> tuple[Any, ...]:
    """Prompt, chosen and rejected of a row that was recognised."""
    prompt, answers = prompt_and_answers(row, read(row).columns)
    return prompt, *answers


def refused(*rows: Row, **asked: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(*rows, **asked)
    return str(caught.value)


@pytest.mark.parametrize("name", ["prompt", "question", "instruction"])
def test_a_rejected_answer_makes_a_table_one_of_preferences(name: str) -> None:
    found = read({name: "why", "chosen": "so", "rejected": "no"})
    assert (found.format, found.task) == ("preference", "preference")
    assert found.columns["prompt"] == name
    assert "`chosen` is to become likelier than `rejected`" in found.note


def test_a_completion_beside_a_rejected_answer_is_the_better_one() -> None:
    found = read({"prompt": "why", "completion": "so", "rejected": "no"})
    assert found.columns["chosen"] == "completion"
    assert "`completion` is to become likelier than `rejected`" in found.note
    assert "could also be read as prompt_completion" in found.note


@pytest.mark.parametrize("labels", [(True, False), (1, 0), ("True", "false"), ("1.0", "0")])
@pytest.mark.parametrize("name", ["label", "desirable"])
def test_answers_with_verdicts_are_kto(labels: tuple[Any, Any], name: str) -> None:
    found = read(*({"prompt": "why", "completion": "so", name: label} for label in labels))
    assert (found.format, found.task) == ("kto", "preference")
    assert f"`{name}` is true (1)" in found.note


def test_the_verdict_may_stand_in_a_column_of_another_name() -> None:
    rows = [{"prompt": "why", "completion": "so", "ok": good} for good in (True, False)]
    assert read(*rows, format="kto", label_column="ok").columns["verdict"] == "ok"


def test_kto_needs_both_kinds_of_answers() -> None:
    only_good = refused(JUDGED[0], JUDGED[0])
    assert "no row has an answer whose `label` is false" in only_good
    assert "data.format=prompt_completion" in only_good
    assert "no row has an answer whose `label` is true" in refused(JUDGED[1])


def test_a_label_that_says_neither_true_nor_false_is_no_verdict() -> None:
    rows = [{**JUDGED[0], "label": rating} for rating in (1, 5)]
    assert read(*rows).format == "prompt_completion"
    message = refused(*rows, format="kto")
    assert "`label` has a wrong value" in message
    assert "got: 5" in message and "need: true or false" in message


@pytest.mark.parametrize("margin", [-1.0, "much", float("nan"), float("inf"), True])
def test_a_margin_is_a_number_of_at_least_0(margin: Any) -> None:
    message = refused({**PAIR, "margin": 2}, {**PAIR, "margin": margin})
    assert "d.jsonl:2" in message and "`margin` has a wrong value" in message


def test_a_margin_may_be_left_open() -> None:
    assert read({**PAIR, "margin": 2}, {**PAIR, "margin": None}).columns["margin"] == "margin"


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": ASKED, "chosen": GOOD, "rejected": BAD},
        {"prompt": "why", "chosen": GOOD, "rejected": BAD},
        {"prompt": ASKED, "chosen": "so", "rejected": "no"},
        {"prompt": ASKED, "chosen": GOOD[0], "rejected": BAD[0]},
        {"chosen": ASKED + GOOD, "rejected": ASKED + BAD},
        {"prompt": "why", "chosen": ASKED + GOOD, "rejected": ASKED + BAD},
        {"prompt": ASKED, "chosen": ASKED + GOOD, "rejected": ASKED + BAD},
        {"messages": ASKED, "chosen": GOOD[0], "rejected": BAD[0]},
        {"messages": ASKED + GOOD, "chosen": ASKED + GOOD, "rejected": ASKED + BAD},
        {"input": "why", "chosen": GOOD, "rejected": BAD},
    ],
)
def test_conversations_are_told_apart_however_they_are_written(row: Row) -> None:
    assert said(row) == (ASKED, GOOD, BAD)


def test_pairs_in_the_columns_of_other_trainers_are_read() -> None:
    """LLaMA-Factory's two forms of ranking, and the names that axolotl and others use."""
    asked, good, bad = ({"from": who, "value": text} for who, text in (("human", "a"), *TURNS))
    assert said({"conversations": [asked], "chosen": good, "rejected": bad}) == ([asked], [good], [bad])
    row = {"instruction": "add", "input": "1 2", "history": [["hi", "yes?"]], **PAIR}
    row.pop("prompt")
    assert said(row) == ("add\n\n1 2", "so", "no")
    assert said({**row, "chosen": GOOD, "rejected": BAD})[0] == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yes?"},
        {"role": "user", "content": "add\n\n1 2"},
    ]
    answers = {"chosen_response": "so", "rejected_response": "no"}
    assert said({"instruction": "why", **answers}) == ("why", "so", "no")
    assert said({"input": "why", "response_chosen": "so", "response_rejected": "no"})[0] == "why"
    found = read({**PAIR, "input": {"id": 1}, "score_chosen": 8.0, "score_rejected": 5.0})
    told = "not used: `input` (1 row), `score_chosen` (1 row), `score_rejected` (1 row)"
    assert told in found.notes


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "add", "input": "1 2", "output": "3"},
        {"question": "add\n\n1 2", "response": "3"},
        {"messages": [*ASKED, *GOOD]},
        {"conversations": [*ASKED, *GOOD]},
    ],
)
@pytest.mark.parametrize("name", ["kto_tag", "label"])
def test_judged_answers_in_the_columns_of_other_trainers_are_read(row: Row, name: str) -> None:
    judged = {**row, name: True}
    found = read(judged, {**row, name: False})
    assert found.format == "kto"
    prompt, answers = prompt_and_answers(judged, found.columns)
    assert (prompt, *answers) in ((ASKED, GOOD), ("add\n\n1 2", "3"))


@pytest.mark.parametrize("words", [("good", "bad"), ("👍", "👎"), ("thumbs_up", "thumbs_down")])
def test_a_verdict_may_be_a_word(words: tuple[str, str]) -> None:
    found = read(*({**JUDGED[0], "label": word} for word in words))
    assert found.format == "kto" and "is true (1)" in found.note


def test_a_prompt_that_ends_with_an_answer_is_refused() -> None:
    message = refused({"messages": ASKED + GOOD, "chosen": "so", "rejected": "no"})
    assert "the prompt of this row ends with an answer" in message


def test_an_implicit_prompt_of_texts_ends_with_a_whole_word() -> None:
    row = {"chosen": "Human: why\n\nBot: I think", "rejected": "Human: why\n\nBot: I will not"}
    assert said(row) == ("Human: why\n\nBot: I", " think", " will not")
    row = {"chosen": "Is it?\n\nYes", "rejected": "Is it?\n\nYesterday"}
    assert said(row) == ("Is it?", "\n\nYes", "\n\nYesterday")
    assert "without the chat template" in read(row).notes[0]


def test_a_prompt_that_all_answers_repeat_is_read_once() -> None:
    row = {"prompt": "Is it?", "chosen": "Is it? Yes", "rejected": "Is it? No"}
    assert said(row) == ("Is it?", " Yes", " No")
    row = {"prompt": "Is it?", "chosen": "Is it? Yes it is", "rejected": "Is it? Yes it was"}
    assert said(row) == ("Is it?", " Yes it is", " Yes it was"), "all that follows the prompt"
    assert "not a second time" in read(row).notes[0]
    some = read(row, {**PAIR, "prompt": "Is it?"})
    assert "prompt" in some.columns
    assert "in 1 of 2 rows both answers begin with the words of `prompt`" in some.notes[0]


def test_conversations_of_which_some_repeat_the_prompt_are_refused() -> None:
    rows = [{"prompt": ASKED, "chosen": [*ask, *GOOD], "rejected": [*ask, *BAD]} for ask in ([], ASKED)]
    message = refused(*rows)
    assert "d.jsonl:2" in message and "1 of 2 rows in which both answers repeat it" in message


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({**PAIR, "chosen": GOOD}, "`chosen` as messages, `rejected` as text"),
        ({"chosen": "so", "rejected": "no"}, "no prompt in common"),
        ({"chosen": GOOD, "rejected": BAD}, "no prompt in common"),
        (
            {"chosen": [*ASKED, *GOOD, *ASKED, *BAD], "rejected": [*ASKED, *GOOD, *BAD, *ASKED]},
            "begins with a turn of the user",
        ),
        ({**PAIR, "rejected": None}, "nothing (null)"),
        ({**PAIR, "prompt": None}, "nothing (null)"),
        ({**PAIR, "rejected": ["no"]}, "a list of {"),
    ],
)
def test_a_row_that_compares_nothing_is_refused_with_its_place(row: Row, words: str) -> None:
    others = [PAIR] if "prompt" in row else []
    message = refused(row, *others)
    assert words in message and "d.jsonl:1" in message and "next: " in message


def test_rows_of_a_file_of_their_own_are_held_to_the_same() -> None:
    with pytest.raises(DataError, match="must be text, or all of them messages"):
        check(table({**PAIR, "chosen": GOOD}), read(PAIR))


def test_supervised_training_is_asked_for_by_its_format_or_its_task() -> None:
    assert read({**PAIR, "completion": "so"}, format="prompt_completion").task == "causal_lm"
    with pytest.raises(ConfigError, match="the format preference does not serve the task causal_lm"):
        recognise(table(PAIR), DataConfig(format="preference"), "causal_lm")
    with pytest.raises(DataError, match="look like preference data"):
        recognise(table(PAIR), DataConfig(), encoder_decoder=True)


def test_a_table_that_compares_nothing_is_told_what_to_write() -> None:
    for asked in ({"task": "preference"}, {"format": "preference"}):
        with pytest.raises(DataError) as caught:
            recognise(
                table({"prompt": "why", "completion": "so"}),
                DataConfig(format=asked.get("format", "auto")),  # pyright: ignore[reportArgumentType]
                asked.get("task", "auto"),  # pyright: ignore[reportArgumentType]
            )
        message = str(caught.value)
        assert "no known format for preference fits" in message
        assert "write the columns prompt, chosen and rejected" in message


def test_what_is_learnt_of_a_pair_is_not_to_be_chosen() -> None:
    with pytest.raises(ConfigError, match=r"`data\.learn` is last"):
        read(PAIR, learn="last")


def test_columns_beside_a_pair_are_named() -> None:
    assert read({**PAIR, "score_chosen": 3, "system": "be brief"}).notes == (
        "not used: `score_chosen` (1 row)",
    )


def sources(folder: Path, *tables: list[Row]) -> tuple[Table, Recognised]:
    """What several files are together."""
    names = [folder / f"{number}.jsonl" for number in range(len(tables))]
    for name, rows in zip(names, tables, strict=True):
        name.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataConfig(train=tuple(map(str, names)))
    return load_training(data, "auto", lambda: False, encoder_decoder=False, seed=0)


def test_pairs_of_several_files_are_written_in_one_form(tmp_path: Path) -> None:
    talk = {"chosen": ASKED + GOOD, "rejected": ASKED + BAD, "margin": 2}
    both, found = sources(tmp_path, [PAIR], [talk])
    assert [prompt_and_answers(row, found.columns) for row in both.rows] == [(ASKED, (GOOD, BAD))] * 2
    assert [row.get("margin") for row in both.rows] == [None, 2]
    texts, found = sources(tmp_path, [PAIR], [{"question": "why", "chosen": "so", "rejected": "no"}])
    assert [prompt_and_answers(row, found.columns) for row in texts.rows] == [("why", ("so", "no"))] * 2


def test_texts_that_begin_with_their_prompt_stay_as_they_are(tmp_path: Path) -> None:
    row = {"chosen": "Is it? Yes", "rejected": "Is it? No"}
    both, found = sources(tmp_path, [row], [{**row, "margin": 2}])
    assert "prompt" not in found.columns
    assert {prompt_and_answers(row, found.columns) for row in both.rows} == {("Is it?", (" Yes", " No"))}


def test_preferences_of_several_kinds_are_not_mixed(tmp_path: Path) -> None:
    for other in (JUDGED, [{"chosen": "Is it? Yes", "rejected": "Is it? No"}]):
        with pytest.raises(DataError, match="preferences of several kinds cannot be mixed"):
            sources(tmp_path, [PAIR], other)
