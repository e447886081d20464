"""Preferences as people bring them: what check and plan show of them, and what starts nothing."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from doorway import Answer, Door, World, write_rows

Row = dict[str, Any]

WORDS = ("cat", "house", "stone", "sleeps", "in", "the", "a")
QUESTIONS = [f"what {one} {other}" for one, other in itertools.product(WORDS, WORDS)][:40]
ASKED = [[{"role": "user", "content": question}] for question in QUESTIONS]
GOOD, BAD = ([{"role": "assistant", "content": text}] for text in ("a stone", "the cat"))


def pairs(**columns: Any) -> list[Row]:
    """Rows that differ in their prompt; a column may be a function of the row's number."""
    row = {"chosen": "a stone", "rejected": "the cat", **columns}
    return [
        {"prompt": question}
        | {name: value(number) if callable(value) else value for name, value in row.items()}
        for number, question in enumerate(QUESTIONS)
    ]


def judged(label: Any) -> list[Row]:
    return [
        {"prompt": question, "completion": "a stone", "label": label(number)}
        for number, question in enumerate(QUESTIONS)
    ]


def asked(model: str, folder: Path, rows: list[Row], *words: object) -> list[object]:
    data = write_rows(folder / "rows.jsonl", rows)
    return ["--model", model, "--data", data, "--set", f"output_dir={folder / 'runs'}", *words]


@pytest.fixture
def checked(world: World, loraloom: Door, tmp_path: Path) -> Any:
    def look(rows: list[Row], *words: object, chat: bool = True) -> Answer:
        model = world.chat_llama if chat else world.llama
        return loraloom("check", *asked(model, tmp_path, rows, *words), "--quick", "--json")

    return look


def shown(answer: Answer) -> str:
    """The first row of the preview, what is learnt between « and »."""
    marked = answer.json()["preview"]["examples"][0]
    text = "".join(f"«{one['text']}»" if one["supervised"] else one["text"] for one in marked)
    return text.replace("»«", "")


def result(answer: Answer, name: str) -> dict[str, Any]:
    return next(one for one in answer.json()["checks"] if one["name"] == name)


@pytest.mark.parametrize(
    "rows",
    [
        pairs(),
        pairs(prompt=lambda i: ASKED[i], chosen=GOOD, rejected=BAD),
        pairs(chosen=lambda i: ASKED[i] + GOOD, rejected=lambda i: ASKED[i] + BAD),
    ],
    ids=["texts", "messages", "whole conversations beside their prompt"],
)
def test_check_shows_both_sides_of_a_pair(rows: list[Row], checked: Any) -> None:
    answer = checked(rows)
    assert answer.code == 0, answer.err
    document = answer.json()
    assert document["task"] == "preference" and document["ok"]
    assert "`chosen` is to become likelier than `rejected`" in document["data"]
    text = shown(answer)
    prompt, chosen, rejected = text.split("\n")
    assert prompt.startswith("<user>") and "what" in prompt and prompt.endswith("<assistant>")
    assert chosen.startswith("chosen: «") and "stone<eos>»" in chosen
    assert rejected.startswith("rejected: «") and "cat<eos>»" in rejected


def test_plan_shows_both_sides_in_words(world: World, loraloom: Door, tmp_path: Path) -> None:
    answer = loraloom("plan", *asked(world.chat_llama, tmp_path, pairs()))
    assert answer.code == 0, answer.err
    assert "chosen: «" in answer.out and "rejected: «" in answer.out


def test_judged_answers_are_shown_with_their_verdict(checked: Any) -> None:
    answer = checked(judged(lambda i: i % 2 == 0), "--set", "data.validation=null")
    assert answer.code == 0, answer.err
    assert "(20) are to become likelier, the others (20) less likely" in answer.json()["data"]
    assert shown(answer).split("\n")[1].startswith(("good: «", "bad: «"))
    assert result(answer, "balance")["level"] == "ok"


FAULTS: dict[str, tuple[list[Row], list[str]]] = {
    "equal sides": (
        pairs(rejected=lambda i: "a stone" if i < 3 else "the cat"),
        ["rows.jsonl:1", "both answers are the same", "3 where both answers are the same; of 40 rows"],
    ),
    "an empty side": (
        pairs(chosen=lambda i: " " if i == 1 else "a stone"),
        ["rows.jsonl:2", "an answer is empty"],
    ),
    "only good answers": (judged(lambda _: True), ["no row has an answer whose `label` is false"]),
    "only bad answers": (judged(lambda _: False), ["no row has an answer whose `label` is true"]),
    "a margin below 0": (
        pairs(margin=lambda i: 1 - i),
        ["rows.jsonl:3", "`margin` has a wrong value", "-1"],
    ),
    "text beside messages": (
        pairs(chosen=GOOD),
        ["rows.jsonl:1", "`chosen` as messages, `rejected` as text"],
    ),
    "two prompts": (
        [{"chosen": ASKED[i] + GOOD, "rejected": ASKED[(i + 1) % 40] + BAD} for i in range(40)],
        ["rows.jsonl:1", "no prompt in common"],
    ),
    "a prompt that some repeat": (
        pairs(
            prompt=lambda i: ASKED[i],
            chosen=lambda i: (ASKED[i] if i % 2 else []) + GOOD,
            rejected=lambda i: (ASKED[i] if i % 2 else []) + BAD,
        ),
        ["rows.jsonl:2", "20 of 40 rows in which both answers repeat it"],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_starts_nothing(name: str, world: World, loraloom: Door, tmp_path: Path) -> None:
    rows, said = FAULTS[name]
    answer = loraloom("train", *asked(world.chat_llama, tmp_path, rows, "--name", "one"))
    assert answer.code == 2, answer.err
    assert all(word in answer.err for word in (*said, "next: ")), answer.err
    assert "Traceback" not in answer.err and not (tmp_path / "runs" / "one").exists()


def test_labels_that_are_no_verdicts_are_refused_where_kto_is_asked_for(checked: Any) -> None:
    answer = checked(judged(lambda i: ("fine", "poor")[i % 2]), "--set", "data.format=kto")
    assert answer.code == 2
    assert "`label` has a wrong value" in answer.err and "need: true or false" in answer.err


def test_what_a_cut_leaves_out_is_counted_by_every_verb(
    world: World, loraloom: Door, tmp_path: Path, checked: Any
) -> None:
    long = " the cat sleeps in the house" * 6
    rows = pairs(
        prompt=lambda i: QUESTIONS[i] + (long if i == 0 else ""),
        chosen=lambda i: (long if i == 1 else "") + "a stone",
        rejected=lambda i: (long if i == 1 else "") + "the cat",
    )
    words = ("--set", "data.max_length=24", "--set", "data.validation=null")
    answer = checked(rows, *words)
    assert answer.code == 0, answer.err
    found = result(answer, "labels")
    assert found["level"] == "warn" and "2 of 40 rows are left out" in found["what"]
    assert found["number"] == "1 whose prompt fills it, 1 whose answers are the same up to there"
    assert found["command"].startswith("--set data.max_length=")
    assert answer.json()["preview"]["dropped"] == 2
    planned = loraloom("plan", *asked(world.chat_llama, tmp_path, rows, *words), "--json").json()
    assert any("2 of 40 rows are left out" in warning for warning in planned["warnings"])


@pytest.mark.parametrize("words", [("--task", "dpo"), ("--set", "data.format=dpo")])
def test_the_words_of_other_tools_are_understood(words: tuple[str, ...], checked: Any) -> None:
    assert checked(pairs(), *words).json()["task"] == "preference"


NOTES: dict[str, tuple[list[Row], str]] = {
    "chosen answers are longer": (
        pairs(chosen="the cat sleeps in the house", rejected="the cat"),
        "the chosen answer is the longer one in 100%",
    ),
    "one prompt": (
        [{"prompt": "what cat", "chosen": f"a {q}", "rejected": f"the {q}"} for q in QUESTIONS],
        "all 40 pairs answer one prompt",
    ),
    "the other way round": (
        [*pairs(), {"prompt": QUESTIONS[0], "chosen": "the cat", "rejected": "a stone"}],
        "2 of 41 pairs contradict another one",
    ),
    "repeats": ([*pairs(), *pairs()[:10]], "10 of 50 training rows repeat earlier ones"),
    "margins": (pairs(margin=3), "`margin` is not used (40 rows)"),
    "columns": (pairs(score=3), "not used: `score` (40 rows)"),
}


@pytest.mark.parametrize("name", NOTES)
def test_what_a_person_should_know_is_said(
    name: str, world: World, loraloom: Door, tmp_path: Path
) -> None:
    rows, said = NOTES[name]
    words = asked(world.chat_llama, tmp_path, rows, "--set", "data.validation=null")
    answer = loraloom("plan", *words, "--json")
    assert answer.code == 0, answer.err
    assert any(said in warning for warning in answer.json()["warnings"]), answer.json()["warnings"]


def test_kto_out_of_balance_names_the_weights_that_mend_it(
    world: World, loraloom: Door, tmp_path: Path, checked: Any
) -> None:
    few_good = judged(lambda i: i % 4 == 0)
    whole = ("--set", "data.validation=null")
    found = result(checked(few_good, *whole), "balance")
    assert found["level"] == "warn" and found["command"].startswith(
        "--set preference.desirable_weight=3.00"
    )
    mended = result(checked(few_good, *whole, *found["command"].split()[:2]), "balance")
    assert mended["level"] == "ok"
    planned = loraloom("plan", *asked(world.chat_llama, tmp_path, few_good, *whole), "--json").json()
    assert any("preference.desirable_weight=3.00" in warning for warning in planned["warnings"])
    few_bad = result(checked(judged(lambda i: i % 4 != 0), *whole), "balance")
    assert "preference.undesirable_weight=" in few_bad["command"]


def test_an_adapter_that_chose_answers_the_prompts_of_such_rows(
    world: World, loraloom: Door, tmp_path: Path
) -> None:
    words = asked(world.llama, tmp_path, pairs(), "--name", "one", "--max-steps", 1)
    trained = loraloom("train", *words)
    assert trained.code == 0, trained.err
    best = tmp_path / "runs" / "one" / "best"
    assert "the plain form of training" in (best / "chat_template.jinja").read_text()
    out = tmp_path / "answers.jsonl"
    data = ("--data", tmp_path / "rows.jsonl", "--out", out, "--max-new-tokens", 2)
    answered = loraloom("predict", "--adapter", best, *data)
    assert answered.code == 0, answered.err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 40 and rows[0]["rejected"] == "the cat", "columns are carried along"


def test_an_adapter_that_chooses_is_served_as_any_language_model(checked: Any) -> None:
    answer = checked(pairs(), "--set", "deploy.target=vllm")
    assert result(answer, "deployment")["level"] != "fail", result(answer, "deployment")
