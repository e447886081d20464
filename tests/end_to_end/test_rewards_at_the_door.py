"""Reward models: trained, resumed, scored, loaded by others; and what starts nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from doorway import Answer, Door, World, write_rows
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

VERBS = ("sleeps", "waits", "stands", "turns", "falls")
PLACES = ("in the house", "by the door", "under the tree", "near the river")
PROMPTS = [f"what {verb} {place} {who}" for verb in VERBS for place in PLACES for who in ("", "a dog")]
CHOSEN, REJECTED = "the cat sleeps", "a pear falls"


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    rows = [
        {"prompt": one, "chosen": CHOSEN, "rejected": REJECTED, "margin": number % 2 / 10}
        for number, one in enumerate(PROMPTS)
    ]
    return write_rows(tmp_path / "pairs.jsonl", rows)


@pytest.fixture
def judged(tmp_path: Path) -> str:
    rows = [
        {"prompt": one, "completion": (CHOSEN, REJECTED)[bad], "label": not bad}
        for one in PROMPTS
        for bad in (False, True)
    ]
    return write_rows(tmp_path / "judged.jsonl", rows)


def words(verb: str, model: str, data: str, folder: Path, *more: object) -> list[object]:
    sets = ("training.max_steps=6", "data.validation=0.3", "training.learning_rate=1e-2")
    given = [word for setting in sets for word in ("--set", setting)]
    place = ["--output-dir", folder / "runs"] if verb != "plan" else []
    return [verb, "--model", model, "--data", data, *place, *given, *more]


def scores(loraloom: Door, adapter: Path, file: str) -> list[Any]:
    answer = loraloom("predict", "--adapter", adapter, "--data", file, "--json")
    assert answer.code == 0, answer.err
    return [row["score"] for row in answer.json()["rows"]]


def test_a_reward_model_is_trained_scored_and_loaded_by_peft(
    world: World, loraloom: Door, pairs: str, tmp_path: Path
) -> None:
    task = ("--task", "reward", "--name", "one", "--quiet")
    answer = loraloom(*words("train", world.chat_llama, pairs, tmp_path, *task))
    assert answer.code == 0, answer.err
    folder = tmp_path / "runs/one"
    run = json.loads((folder / "run.json").read_text())
    (trial,) = run["trials"]
    assert run["task"] == "reward" and trial["status"] == "completed"
    assert trial["metrics"]["validation_reward_accuracy"] > 0.9
    assert trial["metrics"]["validation_loss"] < run["baseline"]["metrics"]["validation_loss"]
    assert not any(key.startswith("preference.") and "center" not in key for key in trial["settings"])
    assert json.loads((folder / "best/adapter_config.json").read_text())["task_type"] == "SEQ_CLS"

    scored = loraloom("evaluate", "--adapter", folder, "--data", pairs, "--json")
    assert scored.code == 0, scored.err
    assert scored.json()["task"] == "reward"
    told = scored.json()["metrics"]
    assert told["test_reward_accuracy"] > 0.9 and told["test_reward_margin"] > 0

    compared = scores(loraloom, folder, pairs)
    turns = [
        [{"role": "user", "content": one}, {"role": "assistant", "content": CHOSEN}] for one in PROMPTS
    ]
    rows = [{"prompt": one, "completion": CHOSEN, "label": False} for one in PROMPTS]
    alone = scores(loraloom, folder, write_rows(tmp_path / "answers.jsonl", rows))
    talks = write_rows(tmp_path / "talks.jsonl", [{"messages": one} for one in turns])
    assert alone == pytest.approx([one["chosen"] for one in compared], abs=1e-5)
    assert scores(loraloom, folder, talks) == pytest.approx(alone, abs=1e-5)
    assert sum(one["chosen"] - one["rejected"] for one in compared) / len(compared) == pytest.approx(
        told["test_reward_margin"], rel=1e-4
    )

    tokenizer = AutoTokenizer.from_pretrained(folder / "best")
    base = AutoModelForSequenceClassification.from_pretrained(
        world.chat_llama, num_labels=1, pad_token_id=tokenizer.pad_token_id, dtype=torch.float32
    )
    model = PeftModel.from_pretrained(base, folder / "best").eval()
    asked = tokenizer.apply_chat_template(turns[:3], return_tensors="pt", return_dict=True, padding=True)
    with torch.no_grad():
        assert model(**asked).logits[:, 0].tolist() == pytest.approx(alone[:3], abs=1e-4)

    endless = [*rows, {"prompt": "what waits " * 400, "completion": CHOSEN}]
    far = write_rows(tmp_path / "endless.jsonl", endless)
    refused = loraloom("predict", "--adapter", folder, "--data", far)
    assert refused.code == 2 and "1 of 41 rows have no answer to score" in refused.err

    asked = loraloom("generate", "--adapter", folder, "what waits")
    assert asked.code == 2 and "loraloom predict" in asked.err
    proof = loraloom("adapter", "verify", folder / "best", "--json")
    assert proof.code == 0, proof.err


def test_an_encoder_scores_answers_without_being_asked_to(
    world: World, loraloom: Door, pairs: str, tmp_path: Path
) -> None:
    answer = loraloom(*words("train", world.bert, pairs, tmp_path, "--name", "bert"))
    assert answer.code == 0, answer.err
    assert "task: reward" in answer.out + answer.err and "is an encoder" in answer.out + answer.err
    folder = tmp_path / "runs/bert"
    run = json.loads((folder / "run.json").read_text())
    assert run["task"] == "reward"
    assert run["trials"][0]["metrics"]["validation_reward_accuracy"] > 0.9
    compared = scores(loraloom, folder, pairs)
    texts = write_rows(tmp_path / "texts.jsonl", [{"text": one} for one in PROMPTS])
    assert all(one["chosen"] > one["rejected"] for one in compared)
    assert all(isinstance(one, float) for one in scores(loraloom, folder, texts))


def test_a_base_with_one_output_scores_answers(
    world: World, loraloom: Door, pairs: str, tmp_path: Path
) -> None:
    place = tmp_path / "scorer"
    tokenizer = AutoTokenizer.from_pretrained(world.chat_llama)
    AutoModelForSequenceClassification.from_pretrained(
        world.chat_llama, num_labels=1, pad_token_id=tokenizer.pad_token_id
    ).save_pretrained(place)
    tokenizer.save_pretrained(place)
    document = loraloom(*words("plan", str(place), pairs, tmp_path, "--json")).json()
    assert document["settings"]["task"]["value"] == "reward"
    assert "already" in document["settings"]["adapter.modules_to_save"]["reason"]
    keys = [key for key in document["settings"] if key.startswith("preference.")]
    assert keys == ["preference.center_rewards_coefficient"]
    explained = loraloom(*words("plan", str(place), pairs, tmp_path, "--explain", "preference.beta"))
    assert explained.code == 0 and "Here" not in explained.out, explained.err


def test_a_run_goes_on_in_the_middle_of_a_step(
    world: World,
    loraloom: Door,
    pairs: str,
    tmp_path: Path,
    stopping: Callable[[int | None], None],
) -> None:
    def run(name: str) -> Answer:
        more = ("--task", "reward", "--name", name, "--quiet")
        windows = ("--set", "training.gradient_accumulation_steps=2")
        return loraloom(*words("train", world.chat_llama, pairs, tmp_path, *more, *windows))

    stopping(None)
    assert run("whole").code == 0
    stopping(3)
    assert run("cut").code == 130
    stopping(None)
    again = run("cut")
    assert again.code == 0, again.err
    left, right = (
        load_file(tmp_path / "runs" / name / "best/adapter_model.safetensors")
        for name in ("whole", "cut")
    )
    assert left.keys() == right.keys() and all((left[key] == right[key]).all() for key in right)


REFUSED: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "judged answers": ("chat_llama", "judged", "reward", ()),
    "judged answers and an encoder": ("bert", "judged", "auto", ()),
    "a beta": ("chat_llama", "pairs", "reward", ("preference.beta=0.2",)),
    "a beta that is searched": (
        "chat_llama",
        "pairs",
        "reward",
        ("search.space={preference.beta: [0.1, 1]}",),
    ),
    "centred preferences": (
        "chat_llama",
        "pairs",
        "preference",
        ("preference.center_rewards_coefficient=0.01",),
    ),
    "rows to retain": ("chat_llama", "pairs", "reward", ("data.retain=pairs.jsonl",)),
}
SAID = {
    "judged answers": "need: the columns prompt, chosen and rejected",
    "judged answers and an encoder": "need: the columns prompt, chosen and rejected",
    "a beta": "`preference.beta` is set, and the task is reward",
    "a beta that is searched": "`preference.beta` is set, and the task is reward",
    "centred preferences": "need: pairs of answers and `task: reward`",
    "rows to retain": "got: the task reward",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_reward_model_cannot_use_is_refused(
    name: str, world: World, loraloom: Door, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model, rows, task, settings = REFUSED[name]
    data = request.getfixturevalue(rows)
    sets = [word for one in settings for word in ("--set", one)]
    verb = "tune" if "search." in str(settings) else "train"
    answer = loraloom(*words(verb, getattr(world, model), data, tmp_path, "--task", task, *sets))
    assert answer.code == 2, answer.err
    assert SAID[name] in answer.err and "next: " in answer.err
    assert answer.err.count("error: ") == 1 and not (tmp_path / "runs").exists()
