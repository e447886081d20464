"""Augmentations race against plain rows in `tune`, are trained with as asked in `train`, and are refused
where they do not suit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doorway import Door, Run, World, call

KINDS = ["word_dropout", "{casing: 0.3}"]


def words_of(world: World, runs: Path) -> list[object]:
    return ["--model", world.bert, "--data", world.labels, "--output-dir", runs, "--batch-size", 8]


@pytest.fixture(scope="module")
def raced(world: World, tmp_path_factory: pytest.TempPathFactory) -> Run:
    runs = tmp_path_factory.mktemp("augmented")
    few = ["--set", "data.augment={word_dropout: 0.5, casing: 0.3}", "--set", "training.max_steps=8"]
    few += ["--set", "search.seeds_for_finalists=2", "--trials", "2", "--name", "first"]
    answer = call("tune", *words_of(world, runs), *few)
    return Run(answer, runs / "first")


def test_each_augmentation_is_compared_over_seeds_with_plain_rows(raced: Run) -> None:
    assert raced.answer.code == 0, raced.answer.err
    result = raced.result
    told: list[dict[str, Any]] = result["augmentation"]
    assert [one["augmentation"] for one in told] == KINDS
    for one in told:
        gain = one["gain"]
        assert gain["low"] <= gain["mean"] <= gain["high"]
        assert one["kept"] <= (gain["probability"] >= 0.95)
        assert any(note.startswith(f"{one['augmentation']}: ") for note in result["notes"])
    assert sum(one["kept"] for one in told) <= 1
    by_kind = {
        kind: [t for t in result["trials"] if t["params"].get("data.augment") == kind] for kind in KINDS
    }
    assert [len(trials) for trials in by_kind.values()] == [2, 2]
    plain = {t["id"]: t for t in result["trials"]}
    for trials in by_kind.values():
        for trial in trials:
            twin = plain[trial["id"].partition("a")[0]]
            assert twin["settings"]["training.seed"] == trial["settings"]["training.seed"]
            assert "data.augment" not in twin["params"]
            assert {**twin["params"], "data.augment": trial["params"]["data.augment"]} == trial["params"]
    kept = next((one["augmentation"] for one in told if one["kept"]), None)
    assert result["best"]["params"].get("data.augment") == kept
    page = (raced.folder / "report.html").read_text()
    # A screen breaks sentences where its width ends.
    shown = " ".join(raced.answer.out.split())
    assert all(one["sentence"] in shown for one in told)
    assert "rows changed" in page and all(one["sentence"] in page for one in told)


def test_a_race_that_is_stopped_goes_on_as_if_nothing_had_happened(
    world: World, loraloom: Door, stopping: Callable[[int | None], None], tmp_path: Path
) -> None:
    few = ["--set", "data.augment=[typing, casing]", "--max-steps", 4, "--trials", 2]
    few += ["--max-packed", 1, "--set", "search.seeds_for_finalists=1"]
    words = ["tune", *words_of(world, tmp_path), *few, "--name"]
    whole = loraloom(*words, "whole", "--json").json()
    # The search takes 8 ticks, so that the tenth is one of the race, which has 12.
    stopping(10)
    assert loraloom(*words, "cut").code == 130
    stopping(None)
    ended = loraloom(*words, "cut", "--json").json()
    assert ended["augmentation"] == whole["augmentation"] != []
    assert ended["best"]["id"] == whole["best"]["id"]
    twice = [note for note in ended["notes"] if note.startswith("typing: ")]
    assert len(twice) == 1


def test_train_takes_one_as_asked(world: World, loraloom: Door, tmp_path: Path) -> None:
    few = [*words_of(world, tmp_path), "--set", "training.max_steps=4"]
    one = loraloom("train", *few, "--set", "data.augment=typing", "--name", "one", "--json").json()
    assert one["trials"][0]["params"] == {"data.augment": "typing"} and one["augmentation"] == []
    told = [note for note in one["notes"] if "data.augment" in note]
    assert len(told) == 1 and "typing is taken as it is" in told[0]
    plain = loraloom("train", *few, "--name", "plain", "--json").json()
    assert one["trials"][0]["metrics"]["train_loss"] != plain["trials"][0]["metrics"]["train_loss"]
    two = loraloom("train", *few, "--set", "data.augment=[typing, casing]", "--name", "two")
    assert two.code == 2 and "`train` trains one adapter" in two.err and "tune" in two.err
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize("verb", ["plan", "train", "tune"])
def test_what_does_not_suit_is_refused_in_one_message(
    verb: str, world: World, loraloom: Door, tmp_path: Path
) -> None:
    words = ["--output-dir", tmp_path / "runs", "--set", "data.augment=[typing]"]
    answer = loraloom(verb, "--model", world.chat_llama, "--data", world.chat, *words)
    assert answer.code == 2 and answer.err.count("error:") == 1
    assert "`data.augment` names typing, which does not suit rows of the format messages" in answer.err
    assert "any of paraphrase, learn_prompt" in answer.err
    unknown = loraloom(verb, *words_of(world, tmp_path / "runs"), "--set", "data.augment=[noise]")
    assert unknown.code == 2 and "word_dropout" in unknown.err
    assert not (tmp_path / "runs").exists()


def test_a_change_of_the_label_column_starts_nothing(
    world: World, loraloom: Door, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    texts = ["the cat sleeps", "a dog waits"] * 30
    rows.write_text("".join(json.dumps({"label": text}) + "\n" for text in texts))
    columns = ["--set", "data.text_column=label", "--set", "data.label_column=label"]
    words = ["--model", world.bert, "--data", rows, *columns, "--output-dir", tmp_path / "runs"]
    answer = loraloom("tune", *words, "--validation", "null", "--set", "data.augment=[typing]")
    assert answer.code == 2 and answer.err.count("error:") == 1
    assert not (tmp_path / "runs").exists()


def test_chat_rows_race_with_other_frames_and_learnt_prompts(
    world: World, loraloom: Door, tmp_path: Path
) -> None:
    words = ["--model", world.chat_llama, "--data", world.chat, "--output-dir", tmp_path]
    few = ["--set", "training.max_steps=3", "--set", "search.seeds_for_finalists=2", "--trials", "2"]
    asked = ["--set", "data.augment=[paraphrase, learn_prompt]"]
    answer = loraloom("tune", *words, *few, *asked, "--name", "chat", "--json")
    assert answer.code == 0, answer.err
    told = answer.json()["augmentation"]
    assert [one["augmentation"] for one in told] == ["paraphrase", "learn_prompt"]
    assert {one["measure"] for one in told} == {"loss"}
