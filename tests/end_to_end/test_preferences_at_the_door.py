"""Runs that learn to choose between answers: trained, searched, resumed, scored; and what starts
nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doorway import Answer, Door, World, write_rows
from safetensors.torch import load_file

VERBS = ("sleeps", "waits", "stands", "turns", "falls")
PLACES = ("in the house", "by the door", "under the tree", "near the river")
PROMPTS = [f"what {verb} {place} {who}" for verb in VERBS for place in PLACES for who in ("", "a dog")]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "loraloom" / "reference"


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    rows = [{"prompt": one, "chosen": "the cat sleeps", "rejected": "a pear falls"} for one in PROMPTS]
    return write_rows(tmp_path / "pairs.jsonl", rows)


@pytest.fixture
def judged(tmp_path: Path) -> str:
    answers = ("the cat sleeps", "a pear falls")
    rows = [
        {"prompt": one, "completion": answers[bad], "label": not bad}
        for one in PROMPTS
        for bad in (False, True)
    ]
    return write_rows(tmp_path / "judged.jsonl", rows)


def words(verb: str, world: World, data: str, folder: Path, *more: object) -> list[object]:
    sets = ("training.max_steps=4", "data.validation=0.3", "search.seeds_for_finalists=1")
    given = [word for setting in sets for word in ("--set", setting)]
    place = ["--output-dir", folder / "runs"] if verb != "plan" else []
    return [verb, "--model", world.chat_llama, "--data", data, *place, *given, *more]


def result_of(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / "runs" / name / "run.json").read_text())


def test_pairs_are_trained_saved_and_scored(
    world: World, loraloom: Door, pairs: str, tmp_path: Path, cache: Path
) -> None:
    losses = ("--set", "preference.loss_type=[sigmoid, sft]", "--set", "training.learning_rate=1e-2")
    answer = loraloom(*words("train", world, pairs, tmp_path, "--name", "one", "--quiet", *losses))
    assert answer.code == 0, answer.err
    run = result_of(tmp_path, "one")
    (trial,) = run["trials"]
    assert run["task"] == "preference" and trial["status"] == "completed"
    assert run["baseline"]["metrics"]["validation_reward_accuracy"] == 0.5
    assert trial["metrics"]["validation_reward_accuracy"] > 0.9
    assert trial["metrics"]["validation_reward_margin"] > 0
    config = json.loads((tmp_path / "runs/one/best/adapter_config.json").read_text())
    assert config["task_type"] == "CAUSAL_LM"
    assert [file.suffix for file in cache.iterdir()] == [".safetensors"]

    scored = loraloom("evaluate", "--adapter", tmp_path / "runs/one", "--data", pairs, "--json")
    assert scored.code == 0, scored.err
    metrics = scored.json()["metrics"]
    assert metrics["test_reward_accuracy"] > 0.9 and metrics["test_chosen_logratio"] > 0
    bare = loraloom("evaluate", "--model", world.chat_llama, "--data", pairs, "--json").json()["metrics"]
    assert bare["test_reward_accuracy"] == 0.5 and bare["test_reward_margin"] == 0


def test_losses_and_betas_are_searched_in_one_pack(
    world: World, loraloom: Door, pairs: str, tmp_path: Path
) -> None:
    space = "{preference.beta: [0.05, 0.5], preference.loss_type: [sigmoid, ipo]}"
    more = ("--name", "two", "--trials", 4, "--quiet", "--set", f"search.space={space}")
    answer = loraloom(*words("tune", world, pairs, tmp_path, *more))
    assert answer.code == 0, answer.err
    run = result_of(tmp_path, "two")
    tried = {
        (tuple(one["params"]["preference.loss_type"]), one["params"]["preference.beta"])
        for one in run["trials"]
    }
    # The plan's own setting is among them.
    assert {loss for loss, _ in tried} == {("sigmoid",), ("ipo",)} and len(tried) > 2
    assert {beta for _, beta in tried} == {0.05, 0.1, 0.5}
    assert run["best"]["metrics"]["validation_reward_accuracy"] >= 0.5


def test_kto_goes_on_where_it_was_stopped(
    world: World,
    loraloom: Door,
    judged: str,
    tmp_path: Path,
    stopping: Callable[[int | None], None],
) -> None:
    def run(name: str) -> Answer:
        windows = ("--set", "training.gradient_accumulation_steps=2")
        return loraloom(*words("train", world, judged, tmp_path, "--name", name, "--quiet", *windows))

    stopping(None)
    assert run("whole").code == 0
    stopping(3)  # in the middle of a step
    assert run("cut").code == 130
    stopping(None)
    again = run("cut")
    assert again.code == 0, again.err
    left, right = (
        load_file(tmp_path / "runs" / name / "best/adapter_model.safetensors")
        for name in ("whole", "cut")
    )
    assert all((left[key] == right[key]).all() for key in right)


def test_a_plan_counts_both_sides_and_searches_the_beta(
    world: World, loraloom: Door, pairs: str, tmp_path: Path
) -> None:
    def planned(data: str) -> dict[str, Any]:
        size = ("--trials", 16, "--max-packed", 1)
        answer = loraloom(*words("plan", world, data, tmp_path, *size, "--json"))
        assert answer.code == 0, answer.err
        return answer.json()

    document = planned(pairs)
    settings = document["settings"]
    assert settings["preference.beta"]["value"] == 0.1
    assert settings["training.num_train_epochs"]["value"] == 1
    beta, rate = (document["search_space"][key] for key in ("preference.beta", "training.learning_rate"))
    assert (beta["low"], beta["high"]) == pytest.approx((0.01, 0.5))
    own = settings["training.learning_rate"]["value"]
    assert (rate["low"], rate["high"]) == pytest.approx((own / 10, own * 5), rel=0.01)
    # Twice the rows of answers that are learnt alone, in as many tokens.
    alone = write_rows(
        tmp_path / "answers.jsonl", [{"prompt": one, "completion": "the cat sleeps"} for one in PROMPTS]
    )
    answers = planned(alone)
    activations = [one["forecast"]["memory"]["activations_bytes"] for one in (document, answers)]
    assert activations[0] > 1.5 * activations[1]


REFUSED: dict[str, tuple[str, str, str]] = {
    "smoothing without robust": ("pairs", "preference.label_smoothing=0.1", "does nothing in sigmoid"),
    "a margin without simpo": ("pairs", "preference.simpo_gamma=1", "does nothing in sigmoid"),
    "weights for one loss": ("pairs", "preference.loss_weights=[1, 2]", "need: one for each loss"),
    "orpo beside another": ("pairs", "preference.loss_type=[orpo, sigmoid]", "joins orpo with others"),
    "sft alone": ("pairs", "preference.loss_type=sft", "looks at the chosen answers alone"),
    "kto of pairs": ("pairs", "preference.loss_type=kto", "the rows are pairs of answers"),
    "dpo of judged answers": (
        "judged",
        "preference.loss_type=sigmoid",
        "each row has one that is judged",
    ),
    "an unknown loss": ("pairs", "preference.loss_type=best", "robust"),
    "another task": ("pairs", "preference.beta=0.2 --task causal_lm", ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_do_nothing_is_refused(
    name: str, world: World, loraloom: Door, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    rows, setting, said = REFUSED[name]
    setting, *more = setting.split(" --task ")
    given = [word for task in more for word in ("--task", task)]
    data = request.getfixturevalue(rows)
    answer = loraloom(*words("train", world, data, tmp_path, "--set", setting, *given))
    assert answer.code == 2, answer.err
    assert said in answer.err and ("next: " in answer.err or "; try" in answer.err)
    assert not (tmp_path / "runs").exists()


def test_a_reference_is_no_part_of_simpo(
    world: World, loraloom: Door, pairs: str, tmp_path: Path
) -> None:
    sets = ("--set", "preference.loss_type=simpo", "--set", "preference.reference=base")
    answer = loraloom(*words("plan", world, pairs, tmp_path, *sets))
    assert answer.code == 2 and "simpo has no reference in it" in answer.err
