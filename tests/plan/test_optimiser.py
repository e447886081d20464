"""Moments in 8 bits: what the plan counts, what its ladder offers, and where they are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from machines import CPU, GPU

from loraloom.config.asked import Config, ModelConfig, SearchConfig, TrainingConfig
from loraloom.errors import ConfigError
from loraloom.plan import ladder as rungs
from loraloom.plan.planner import Facts, make_plan
from loraloom.plan.shape import Shape

KEY = "training.optim"
ASKED = Config(training=TrainingConfig(optim="adamw_8bit"))
Make = Callable[..., Facts]


def test_its_two_moments_are_counted_with_their_scales(facts: Make) -> None:
    at = facts("1b", device=GPU)
    plain, coded = (make_plan(config, at).forecast["memory_one"].parts for config in (Config(), ASKED))
    assert coded["optimizer"] / plain["optimizer"] == pytest.approx(2.03125 / 8)
    assert "adamw_8bit" in (make_plan(Config(), at).settings[KEY].range or ())
    assert "adamw_8bit" not in (make_plan(Config(), facts("1b", device=CPU)).settings[KEY].range or ())


@pytest.mark.parametrize(
    ("change", "device", "words"),
    [
        ({}, CPU, ("got: a processor", "need: a CUDA device")),
        ({}, replace(CPU, kind="mps", name="a Mac"), ("got: a Mac", "need: a CUDA device")),
        ({"engine": "peft"}, GPU, ("got: engine: peft", "need: the packed engine")),
        ({"model": ModelConfig(dtype="float64")}, GPU, ("got: model.dtype: float64", "in float32")),
        (
            {
                "training": TrainingConfig(),
                "search": SearchConfig(space={KEY: ["adamw", "adamw_8bit"]}),
            },
            CPU,
            ("got: a processor", "need: a CUDA device"),
        ),
    ],
    ids=["cpu", "mps", "peft", "float64", "searched"],
)
def test_it_is_refused_where_it_has_no_meaning(
    facts: Make, change: dict[str, object], device: object, words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan(replace(ASKED, **change), facts("1b", device=device))
    text = str(caught.value)
    assert f"`{KEY}: adamw_8bit` cannot be used here" in text and f"next: {KEY}: adamw" in text
    assert all(word in text for word in words), text


@pytest.mark.parametrize("installed", [True, False])
def test_its_rung_comes_before_fewer_bits_of_the_base(
    facts: Make, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rungs, "find_spec", lambda name: object() if installed else None)
    large = Config(model=ModelConfig(dtype="bfloat16"))
    plan = make_plan(large, facts("1b", device=GPU))
    case = plan.case.assuming({"adapter.r": 128})
    found = {rung.name: rung for rung in rungs.ladder(case, Shape(1, 64))}
    names, rung = list(found), found["moments in 8 bits"]
    assert names.index(rung.name) < names.index("NF4 base with double quantisation")
    assert rung.change == {KEY: "adamw_8bit"} and rung.source == "arXiv:2110.02861"
    assert rung.available is installed and rung.saved > 0 and rung.quality
    assert "moments in 8 bits" not in {
        rung.name for rung in rungs.ladder(make_plan(ASKED, facts("1b", device=GPU)).case, Shape(1, 64))
    }
