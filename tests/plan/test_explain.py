"""One setting at length, the page that is written from the rules, and that neither says
what the code does not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loraloom.cli.main import main
from loraloom.config.asked import AdapterConfig, Config
from loraloom.errors import ConfigError
from loraloom.plan import handbook
from loraloom.plan.explain import ABOUT, explain
from loraloom.plan.planner import Facts, make_plan
from loraloom.plan.rules import (
    RULES,
    batch,
    dropout,
    early_stopping,
    epochs,
    max_length,
    max_packed,
    rank,
    rate,
    warmup,
)

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
Make = Callable[..., Facts]


def test_the_committed_page_is_the_one_that_the_rules_write() -> None:
    assert PAGE.read_text(encoding="utf-8") == handbook.page(), "run: make docs"


def test_the_page_has_every_setting_once() -> None:
    lines = handbook.page().splitlines()
    for key in RULES:
        assert sum(line in (f"## {key}", f"### {key}") for line in lines) == 1, key


def test_every_setting_is_described() -> None:
    assert set(ABOUT) == {*RULES, "goal", "preset"}
    for key, about in ABOUT.items():
        for text in (about.does, about.rule, about.evidence):
            assert len(text) > 3 and text.endswith((".", ")")), key


@pytest.mark.parametrize(
    ("key", "numbers"),
    [
        ("adapter.r", [*rank.FLOOR.values(), rank.CAP]),
        (batch.KEY, [number for pair in batch.BY_ROWS for number in pair] + [batch.LARGE, *batch.RANGE]),
        (
            epochs.KEY,
            [
                *epochs.ENCODER_EPOCHS,
                epochs.ENCODER_STEPS["cuda"],
                epochs.ENCODER_STEPS["cpu"],
                epochs.MOST_EPOCHS,
            ],
        ),
        ("data.max_length", [max_length.CAP]),
        ("limits.max_packed", [max_packed.PAYS["cpu"], max_packed.PAYS["cuda"]]),
        (
            rate.KEY,
            [rate.SWEPT_WIDTH, rate.SHORT_RUN, rate.SWEEP_BATCH, rate.SWEEP_ALPHA, rate.RANK_POWER],
        ),
        (warmup.KEY, [100 * warmup.USUAL["decoder"], 100 * warmup.USUAL["encoder"], 100 * warmup.MOST]),
    ],
)
def test_the_numbers_that_a_text_names_are_those_of_the_rule(key: str, numbers: list[float]) -> None:
    for number in numbers:
        assert f"{number:,g}" in ABOUT[key].rule, number


def test_rates_in_words_are_those_of_the_rule() -> None:
    text = ABOUT[rate.KEY].rule.replace("e-", "e-0")
    for value in (
        rate.SWEEP_RATE,
        *rate.CLIP,
        *(found for _, found in rate.ENCODER_RATES),
        rate.SEQ2SEQ_RATE,
    ):
        mantissa, _, power = f"{value:.1e}".partition("e")
        assert f"{float(mantissa):g}e{power}" in text, value


def test_defaults_of_peft_and_transformers_are_theirs() -> None:
    from peft import LoraConfig
    from transformers import TrainingArguments

    def default(cls: Any, name: str) -> Any:
        return {field.name: field.default for field in dataclasses.fields(cls)}[name]

    for name in (
        "r",
        "lora_alpha",
        "lora_dropout",
        "bias",
        "use_rslora",
        "use_dora",
        "init_lora_weights",
    ):
        assert ABOUT[f"adapter.{name}"].tools["PEFT"] == str(default(LoraConfig, name)).lower(), name
    trainer = (
        "learning_rate",
        "num_train_epochs",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "weight_decay",
        "max_grad_norm",
        "seed",
    )
    for name in trainer:
        assert float(ABOUT[f"training.{name}"].tools["transformers"]) == default(
            TrainingArguments, name
        ), name
    assert ABOUT["training.optim"].tools["transformers"] == str(default(TrainingArguments, "optim"))


# -- explain
# -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("adapter.r", "adapter.r"),
        ("r", "adapter.r"),
        ("lr", rate.KEY),
        ("alpha", "adapter.lora_alpha"),
        ("goal", "goal"),
    ],
)
def test_a_setting_is_found_by_the_words_that_people_use(name: str, key: str) -> None:
    assert explain(name).key == key


def test_an_unknown_setting_lists_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="no rule decides `lora_drop`") as error:
        explain("lora_drop")
    assert "did you mean `adapter.lora_dropout`?" in str(error.value)
    with pytest.raises(ConfigError, match=r"no rule decides `search\.sampler`: it is only yours to set"):
        explain("search.sampler")


def test_with_a_plan_it_tells_the_value_and_what_an_open_one_would_be(facts: Make) -> None:
    at = facts("tiny")
    open_plan = make_plan(Config(), at)
    found = explain("r", open_plan)
    assert found.advice == open_plan.settings["adapter.r"] and found.left_open is None
    asked = explain("r", make_plan(Config(adapter=AdapterConfig(r=4)), at))
    assert asked.advice is not None and asked.advice.value == 4
    assert asked.left_open == open_plan.settings["adapter.r"]


def test_it_tells_who_may_bend_it_and_what_is_commonly_advised() -> None:
    found = explain("adapter.lora_dropout")
    assert "goal fastest" in found.bent_by and "preset sentiment" in found.bent_by
    assert {"followed", "overruled"} == {item.status for item in found.common_advice}
    assert json.loads(json.dumps(found.to_json()))["common_advice"][0]["status"] in (
        "followed",
        "overruled",
    )


def test_the_command_explains_without_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--explain", "dropout"]) == 0
    out = capsys.readouterr().out
    for title in (
        "adapter.lora_dropout",
        "What it does",
        "Our rule",
        "What is known",
        "What is commonly advised",
        "Defaults elsewhere",
    ):
        assert title in out
    assert main(["plan", "--explain", "dropout", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["key"] == "adapter.lora_dropout" and document["advice"] is None
    assert main(["plan", "--explain", "momentum"]) == 2
    assert "no rule decides `momentum`" in capsys.readouterr().err


def test_small_rules_say_what_they_do() -> None:
    assert (
        "0.1 under 1,000 rows" in ABOUT[dropout.KEY].rule
        and "0.05 under 10,000" in ABOUT[dropout.KEY].rule
    )
    assert (
        early_stopping.RANGE[0] <= 3 <= early_stopping.RANGE[1]
        and "Three" in ABOUT[early_stopping.KEY].rule
    )
