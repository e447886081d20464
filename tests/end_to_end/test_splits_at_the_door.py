"""What a person is told of rows that belong together, and that evaluate scores the very
rows that a run kept aside."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from doorway import Door, World, write_rows

VERBS = ("sleeps", "waits", "stands", "turns", "falls", "rests")
SUBJECTS = ("the cat", "a dog", "the bird", "a horse", "the soup", "a cake", "the bread", "a pear")
PLACES = ("in the house", "by the door", "under the tree", "near the river", "on the table")


def talk(asked: str, answer: str, **more: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}],
        **more,
    }


def answered(prompts: int, answers: int, **more: Any) -> list[dict[str, Any]]:
    asked = [f"what {verb} {place}" for verb in VERBS for place in PLACES]
    return [talk(asked[n], SUBJECTS[k], **more) for k in range(answers) for n in range(prompts)]


def test_plan_says_what_was_grouped_and_check_finds_nothing_to_warn_of(
    world: World, loraloom: Door, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "many.jsonl", answered(30, 4))
    words = ["--model", world.chat_llama, "--data", rows, "--test", "0.1", "--json"]
    warnings = loraloom("plan", *words).json()["warnings"]
    assert (
        "120 rows are 30 groups (120 share a prompt): each group stays on one side of the splits"
        in warnings
    )
    assert not any("too good" in warning for warning in warnings)
    (safety,) = [
        each
        for each in loraloom("check", "--quick", *words).json()["checks"]
        if each["name"] == "safety"
    ]
    assert safety["level"] == "ok"


def test_files_that_share_prompts_are_told_by_plan_and_check(
    world: World, loraloom: Door, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "train.jsonl", answered(30, 3))
    test = write_rows(
        tmp_path / "test.jsonl", [talk("what sleeps in the house", subject) for subject in SUBJECTS[2:]]
    )
    words = ["--model", world.chat_llama, "--data", rows, "--test", test, "--json"]
    said = "5 of 6 test rows share a prompt with rows that are trained or chosen on"
    warnings = loraloom("plan", *words).json()["warnings"]
    assert f"{said}: scores on them are too good" in warnings
    assert "1 held-out rows are also trained on: scores on them are too good" in warnings
    (safety,) = [
        each
        for each in loraloom("check", "--quick", *words).json()["checks"]
        if each["name"] == "safety"
    ]
    assert (safety["level"], safety["number"]) == ("warn", "1 of 6 test rows")
    alone = write_rows(
        tmp_path / "others.jsonl",
        [talk("what sleeps in the house", subject) for subject in SUBJECTS[3:]],
    )
    words[5] = alone
    (safety,) = [
        each
        for each in loraloom("check", "--quick", *words).json()["checks"]
        if each["name"] == "safety"
    ]
    assert safety["level"] == "warn" and "5 of 5 test rows share a prompt" in safety["number"]


def test_a_group_column_is_used_and_named_nowhere_as_unused(
    world: World, loraloom: Door, tmp_path: Path
) -> None:
    rows = [
        talk(f"what {VERBS[n % 6]} {PLACES[n % 5]}", SUBJECTS[n % 8], case=n // 3, dialogue_id=n // 5)
        for n in range(90)
    ]
    file = write_rows(tmp_path / "groups.jsonl", rows)
    words = ["plan", "--model", world.chat_llama, "--data", file, "--json"]
    automatic = loraloom(*words).json()["warnings"]
    assert any("share a `dialogue_id`" in warning for warning in automatic)
    assert any(re.match(r"not used: `case`", warning) for warning in automatic)
    named = loraloom(*words, "--set", "data.group_column=case").json()["warnings"]
    assert any("90 share a `case`" in warning for warning in named)
    assert any(re.match(r"not used: `dialogue_id`", warning) for warning in named)
    none = loraloom(*words, "--set", "data.group_column=null").json()["warnings"]
    assert not any("groups" in warning for warning in none)


def test_a_wrong_group_column_and_too_few_groups_say_what_to_do(
    world: World, loraloom: Door, tmp_path: Path
) -> None:
    file = write_rows(tmp_path / "one.jsonl", answered(30, 2, site="a"))
    words = ["plan", "--model", world.chat_llama, "--data", file]
    wrong = loraloom(*words, "--set", "data.group_column=sight")
    assert (
        wrong.code == 2
        and "`data.group_column` is `sight`" in wrong.err
        and "messages, site" in wrong.err
    )
    few = loraloom(*words, "--set", "data.group_column=site")
    assert few.code == 2 and "too few groups of rows to take validation rows from" in few.err
    assert "`data.group_column` to a finer column or null" in few.err


def test_evaluate_scores_the_rows_that_the_run_kept_aside(
    world: World, loraloom: Door, tmp_path: Path
) -> None:
    # Groups of several sizes, and words that the encoder does not know: what is drawn
    # and what is left out both matter.
    rows = [
        {
            "text": f"{SUBJECTS[n % 8]} {VERBS[n // 8 % 6]} {'xyzqv'[n // 48] * 3}",
            "label": "ab"[n % 8 > 3],
            "session_id": n // 4,
        }
        for n in range(72)
    ]
    file = write_rows(tmp_path / "labels.jsonl", rows)
    asked = ["--data", file, "--validation", "0.2", "--test", "0.2"]
    answer = loraloom(
        "train",
        "--model",
        world.bert,
        *asked,
        "--max-steps",
        "4",
        "--output-dir",
        tmp_path,
        "--name",
        "run",
        "--json",
    )
    assert answer.code == 0, answer.err
    warnings = loraloom("plan", "--model", world.bert, *asked, "--json").json()["warnings"]
    assert any("token for token the same" in warning for warning in warnings)
    kept = answer.json()["trials"][0]["metrics"] | (answer.json()["best"] or {}).get("metrics", {})
    found = loraloom(
        "evaluate", "--adapter", tmp_path / "run", *asked, "--split", "test", "--json"
    ).json()
    assert abs(found["metrics"]["test_loss"] - kept["test_loss"]) < 1e-4
    assert abs(found["metrics"]["test_accuracy"] - kept["test_accuracy"]) < 1e-6


def test_a_search_keeps_rows_for_its_race_and_train_keeps_none(
    world: World, loraloom: Door, tmp_path: Path
) -> None:
    words = [
        "--model",
        world.bert,
        "--data",
        world.labels,
        "--validation",
        "0.4",
        "--max-steps",
        "4",
        "--output-dir",
        tmp_path,
    ]
    plan = loraloom("plan", *words)
    assert (
        plan.code == 0 and "rows: 144 train, 48 validation, 48 confirm (kept for the race)" in plan.out
    )
    assert "rows: 144 train, 48 validation, 48 confirm" in loraloom("check", "--quick", *words).out
    assert loraloom("train", *words, "--dry-run", "--json").json()["rows"] == {
        "train": 144,
        "validation": 96,
    }
    tuned = loraloom("tune", *words, "--trials", "2", "--set", "search.seeds_for_finalists=2", "--json")
    assert tuned.code == 0, tuned.err
    result = tuned.json()
    raced = [trial for trial in result["trials"] if re.fullmatch(r"t\d+s\d", trial["id"])]
    assert len(raced) == 4 and all("confirm_accuracy" in trial["metrics"] for trial in raced)
    assert "that the choice had seen" not in result["verdict"]


def test_a_search_without_rows_for_its_race_says_so_before_and_after(
    world: World, loraloom: Door, tmp_path: Path
) -> None:
    words = [
        "--model",
        world.bert,
        "--data",
        world.labels,
        "--validation",
        "0.2",
        "--max-steps",
        "4",
        "--output-dir",
        tmp_path,
    ]
    document = loraloom("plan", *words, "--json").json()
    assert document["rows"] == {"train": 192, "validation": 48}
    assert any(
        "takes 96 (`data.validation` of 0.4" not in text and "takes 96" in text
        for text in document["warnings"]
    )
    tuned = loraloom("tune", *words, "--trials", "2", "--set", "search.seeds_for_finalists=2", "--json")
    assert "on rows that the choice had seen" in tuned.json()["verdict"]
    trained = loraloom("train", *words, "--json").json()
    assert not any("race" in note for note in trained["notes"])
