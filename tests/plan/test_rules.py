"""Each rule's values on models and data of different sizes, and that its reason holds the numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import GIB, GPU, OLD_GPU

from loraloom.config.asked import AdapterConfig, Config, DataConfig, ModelConfig, TrainingConfig
from loraloom.config.keys import keys
from loraloom.errors import ConfigError
from loraloom.plan.case import Case, Decided
from loraloom.plan.numbers import power_of_two_above, power_of_two_below
from loraloom.plan.planner import Facts, make_plan
from loraloom.plan.rules import RULES, max_length
from loraloom.plan.rules.fixed import FIXED
from loraloom.plan.rules.rate import CLIP, around, width_factor
from loraloom.records import Advice

Make = Callable[..., Facts]


def advised(facts: Facts, key: str, config: Config | None = None) -> Advice:
    return make_plan(config or Config(), facts).settings[key]


def test_every_open_setting_of_a_request_has_a_rule() -> None:
    open_keys = {
        name
        for name, key in keys().items()
        if key.default == "auto" and not name.startswith(("search.", "limits."))
    }
    # decided, and said, by the reader
    read_with_the_rows = {"data.format", "data.group_column", "data.learn", "data.system"}
    assert open_keys - {*read_with_the_rows, "goal"} <= set(RULES)
    assert all(name in keys() for name in RULES)
    assert set(FIXED) <= set(RULES)


def test_every_reason_is_a_sentence_and_has_a_source(facts: Make) -> None:
    for name in ("tiny", "minilm", "t5", "8b"):
        for key, advice in make_plan(Config(), facts(name, device=GPU)).settings.items():
            assert len(advice.reason) > 15, key
            assert advice.source and advice.grade in ("A", "B", "C", "M"), key


@pytest.mark.parametrize("name", ["tiny", "minilm", "t5", "1b"])
def test_every_value_lies_in_the_range_that_is_offered(facts: Make, name: str) -> None:
    """Only what has nothing in general to try has no range."""
    without = {"adapter.rank_pattern", "adapter.alpha_pattern", "training.max_steps", "training.seed"}
    for goal in ("auto", "quality", "retain", "memory", "fastest"):
        for key, advice in make_plan(Config(goal=goal), facts(name, device=GPU)).settings.items():
            if key in without:
                assert advice.range is None
                continue
            assert advice.range, key
            if all(isinstance(end, int | float) and not isinstance(end, bool) for end in advice.range):
                assert advice.value is None or min(advice.range) <= advice.value <= max(advice.range), (
                    key
                )
            else:
                assert advice.value is None or advice.value in advice.range, key


# -- rank and alpha
# ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tokens", "r"),
    [
        ("1b", 1_000, 16),
        ("1b", 704_512 * 20, 32),
        ("1b", 704_512 * 32, 32),
        ("1b", 10**10, 256),
        ("tiny", 10**7, 16),
        ("minilm", 2_000, 8),
    ],
)
def test_rank_holds_the_supervised_tokens_between_floor_and_cap(
    facts: Make, name: str, tokens: int, r: int
) -> None:
    advice = advised(facts(name, device=GPU, supervised_tokens=tokens), "adapter.r")
    assert advice.value == r


def test_parameters_a_rank_are_those_that_are_published(facts: Make) -> None:
    """Llama-3.2-1B holds 704,512 and Llama-3-8B 2,621,440 adapter parameters a rank
    (thinkingmachines.ai/blog/lora)."""
    assert "over 704,512 parameters a rank" in advised(facts("1b", device=GPU), "adapter.r").reason
    assert "over 2.62M parameters a rank" in advised(facts("8b", device=GPU), "adapter.r").reason


def test_alpha_shows_the_scale(facts: Make) -> None:
    decoder = advised(facts("1b", device=GPU), "adapter.lora_alpha", Config(adapter=AdapterConfig(r=64)))
    assert decoder.value == 32 and "alpha/r = 32/64 = 0.5" in decoder.reason
    encoder = advised(facts("minilm"), "adapter.lora_alpha", Config(adapter=AdapterConfig(r=16)))
    assert encoder.value == 32 and "= 2" in encoder.reason


@pytest.mark.parametrize(("r", "offered"), [(16, (False,)), (64, (False, True))])
def test_rslora_is_offered_to_a_search_at_large_ranks_only(facts: Make, r: int, offered: Any) -> None:
    advice = advised(facts("1b", device=GPU), "adapter.use_rslora", Config(adapter=AdapterConfig(r=r)))
    assert advice.value is False and advice.range == offered


@given(st.floats(1, 1e6))
def test_powers_of_two_enclose_a_number(number: float) -> None:
    above, below = power_of_two_above(number), power_of_two_below(number)
    assert below <= number <= above <= 2 * below
    assert above & (above - 1) == 0 and below & (below - 1) == 0


# -- rate
# -------------------------------------------------------------------------------------------------------


def rate(facts: Facts, **training: Any) -> float:
    adapter = {
        key: training.pop(key)
        for key in ("r", "lora_alpha", "use_rslora", "lora_plus_ratio")
        if key in training
    }
    return advised(
        facts,
        "training.learning_rate",
        Config(adapter=AdapterConfig(**adapter), training=TrainingConfig(**training)),
    ).value


def test_a_decoder_at_the_sweep_s_own_setting_gets_the_sweep_s_rate(facts: Make) -> None:
    assert (
        rate(
            facts("8b", device=GPU, rows=200_000, length=20),
            r=16,
            lora_alpha=32,
            per_device_train_batch_size=128,
        )
        == 4e-4
    )


def test_the_rate_grows_with_rank_and_batch_and_falls_with_alpha(facts: Make) -> None:
    at = facts("1b", device=GPU, rows=100_000)
    base = rate(at, r=16, lora_alpha=32, per_device_train_batch_size=32)
    assert rate(at, r=256, lora_alpha=32, per_device_train_batch_size=32) == pytest.approx(
        2 * base, rel=0.01
    )
    assert rate(at, r=16, lora_alpha=16, per_device_train_batch_size=32) == pytest.approx(
        2 * base, rel=0.01
    )
    assert rate(at, r=16, lora_alpha=32, per_device_train_batch_size=128) == pytest.approx(
        2 * base, rel=0.01
    )


def test_a_larger_scale_by_rslora_is_met_by_a_smaller_rate(facts: Make) -> None:
    at = facts("1b", device=GPU, rows=100_000, length=20)
    plain = rate(at, r=16, lora_alpha=16, per_device_train_batch_size=128)
    assert rate(
        at, r=16, lora_alpha=16, use_rslora=True, per_device_train_batch_size=128
    ) == pytest.approx(plain / 4, rel=0.01)
    encoder = facts("minilm", rows=2_000, length=32)
    assert rate(encoder, r=16, use_rslora=True) == pytest.approx(rate(encoder, r=16) / 4, rel=0.01)


def test_lora_plus_halves_the_rate_of_a(facts: Make) -> None:
    at = facts("minilm", rows=2_000, length=32)
    assert rate(at, lora_plus_ratio=16) == pytest.approx(rate(at) / 2)


def test_short_runs_get_a_larger_rate(facts: Make) -> None:
    at = facts("1b", device=GPU)
    assert rate(at, max_steps=60) == pytest.approx(1.5 * rate(at, max_steps=600), rel=0.01)
    small, large = facts("minilm", rows=2_000, length=32), facts("bert-base", rows=2_000, length=32)
    assert rate(small, max_steps=60) == pytest.approx(2 * rate(small, max_steps=600))
    assert rate(large, max_steps=60) == rate(large, max_steps=600)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("minilm", 1e-3, 1e-3), ("bert-base", 4e-4, 5e-4), ("bert-large", 2e-4, 4e-4)],
)
def test_encoders_get_the_rate_of_their_size(facts: Make, name: str, low: float, high: float) -> None:
    assert low <= rate(facts(name, rows=2_000, length=32)) <= high


def test_a_narrow_decoder_gets_a_larger_rate_and_its_search_reaches_further(facts: Make) -> None:
    advice = advised(facts("tiny"), "training.learning_rate")
    assert 2e-3 <= advice.value <= 1e-2
    assert advice.range is not None and advice.range[1] > 1e-2
    assert "64 units" in advice.reason and advice.grade == "M"


@given(st.integers(16, 20_000))
def test_width_matters_below_the_swept_widths_only_and_never_jumps(width: int) -> None:
    assert width_factor(width) >= width_factor(width + 1) >= 1
    assert width_factor(width) / width_factor(width + 1) < 1.1
    assert width < 1024 or width_factor(width) == 1


@given(st.floats(1e-6, 1e-1), st.floats(1e-5, 1e-1))
def test_a_range_of_rates_holds_the_rate_and_respects_the_cap(value: float, cap: float) -> None:
    low, high = around(value, cap)
    assert low < value * 1.01 and high >= value * 0.99
    assert high <= max(value, cap) * 1.01


@given(st.sampled_from([1, 4, 64, 1024]), st.floats(1, 512), st.sampled_from([1, 8, 128]))
def test_no_setting_takes_a_wide_decoder_out_of_the_published_rates(
    r: int, alpha: float, batch: int
) -> None:
    from loraloom.plan.rules.rate import RANK_POWER, SWEEP_ALPHA, SWEEP_BATCH, SWEEP_RANK, SWEEP_RATE

    raw = (
        SWEEP_RATE
        * (r / SWEEP_RANK) ** RANK_POWER
        * (SWEEP_ALPHA / alpha)
        * (max(batch, 16) / SWEEP_BATCH) ** 0.5
    )
    assert CLIP[0] <= min(max(raw, CLIP[0]), CLIP[1]) <= CLIP[1]


# -- steps
# -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "batch"), [(100, 4), (1_000, 8), (5_000, 16), (200_000, 32)])
def test_batch_grows_with_the_data(facts: Make, rows: int, batch: int) -> None:
    assert (
        advised(facts("1b", device=GPU, rows=rows), "training.per_device_train_batch_size").value
        == batch
    )


@pytest.mark.parametrize(("rows", "epochs"), [(60, 4), (500, 3), (5_000, 2), (200_000, 1)])
def test_a_decoder_sees_small_data_more_often(facts: Make, rows: int, epochs: int) -> None:
    assert advised(facts("1b", device=GPU, rows=rows), "training.num_train_epochs").value == epochs


@pytest.mark.parametrize("rows", [50, 500, 2_000, 20_000, 200_000])
def test_an_encoder_gets_about_as_many_updates_whatever_the_size(facts: Make, rows: int) -> None:
    plan = make_plan(Config(), facts("minilm", rows=rows, length=32)).values()
    epochs = plan["training.num_train_epochs"]
    steps = -(-rows // plan["training.per_device_train_batch_size"]) * epochs
    assert 3 <= epochs <= 30
    assert steps >= 350 or epochs == 30


def test_a_processor_makes_one_pass_of_many_steps(facts: Make) -> None:
    key = "training.num_train_epochs"
    assert advised(facts("tiny", device=GPU, rows=5_000), key).value == 2
    one = advised(facts("tiny", rows=5_000), key)
    assert one.value == 1 and "on a processor" in one.reason
    assert advised(facts("tiny", rows=1_500), key).value == 2


def preferring(facts: Facts, rows: int, tokens: int) -> Facts:
    """The same with pairs of answers of so many tokens."""
    data = replace(
        facts.data, task="preference", sides=2, rows=rows, supervised_tokens=2 * rows * tokens
    )
    return replace(facts, data=data)


@pytest.mark.parametrize(("rows", "epochs"), [(100, 3), (5_000, 1)])
def test_few_pairs_are_seen_up_to_three_times(facts: Make, rows: int, epochs: int) -> None:
    chosen = preferring(facts("1b", device=GPU, rows=rows), rows, 20)
    assert advised(chosen, "training.num_train_epochs").value == epochs


def test_longer_answers_and_runs_are_preferred_at_a_lower_rate(facts: Make) -> None:
    def rate(rows: int, tokens: int) -> float:
        chosen = preferring(facts("1b", device=GPU, rows=rows), rows, tokens)
        return advised(chosen, "training.learning_rate").value

    assert rate(300, 5) == pytest.approx(2 * rate(300, 20), rel=0.02)
    assert rate(300, 3) == rate(300, 5)
    assert rate(50_000, 20) < rate(300, 20)
    assert rate(10_000_000, 5) == pytest.approx(rate(10_000_000, 500), rel=0.02), "20 parts at most"


def test_max_steps_decide_over_epochs(facts: Make) -> None:
    advice = advised(
        facts("1b", device=GPU),
        "training.num_train_epochs",
        Config(training=TrainingConfig(max_steps=1_000)),
    )
    assert advice.value == 4 and "max_steps = 1,000 decides" in advice.reason


@pytest.mark.parametrize(("rows", "dropout"), [(500, 0.1), (5_000, 0.05), (200_000, 0.0)])
def test_dropout_falls_with_more_data(facts: Make, rows: int, dropout: float) -> None:
    assert advised(facts("1b", device=GPU, rows=rows), "adapter.lora_dropout").value == dropout


@given(rows=st.integers(20, 200_000))
def test_warmup_lasts_ten_steps_where_the_run_is_long_enough(
    rows: int, model: Callable[..., Any]
) -> None:
    from machines import data

    plan = make_plan(Config(), Facts(model("tiny"), data(rows=rows), GPU)).values()
    steps = -(-rows // plan["training.per_device_train_batch_size"]) * plan["training.num_train_epochs"]
    warmup = plan["training.warmup_ratio"] * steps
    assert warmup >= 9.9 or plan["training.warmup_ratio"] == 0.2
    assert plan["training.warmup_ratio"] <= 0.2


def test_early_stopping_needs_validation_and_more_than_one_pass(facts: Make) -> None:
    key = "training.early_stopping_patience"
    assert advised(facts("minilm", rows=2_000), key).value == 3
    assert advised(facts("minilm", rows=2_000, validation_rows=0), key).value is None
    assert advised(facts("1b", device=GPU, rows=200_000), key).value is None


# -- model and memory
# -------------------------------------------------------------------------------------------------


def test_precision_follows_size_and_hardware(facts: Make) -> None:
    key = "training.precision"
    assert advised(facts("tiny", device=GPU), key).value == "fp32"
    assert advised(facts("1b", device=GPU), key).value == "bf16"
    assert advised(facts("1b", device=OLD_GPU), key).value == "fp32"  # which fits, and loses no gradient
    larger = replace(OLD_GPU, total_bytes=32 * GIB, free_bytes=30 * GIB)
    assert advised(facts("8b", device=larger), key).value == "fp16"
    assert advised(facts("1b"), key).value == "fp32"
    asked = make_plan(Config(model=ModelConfig(dtype="bfloat16")), facts("tiny")).values()
    assert (asked["training.precision"], asked["model.dtype"]) == ("bf16", "bfloat16")
    asked = make_plan(Config(training=TrainingConfig(precision="bf16")), facts("tiny")).values()
    assert asked["model.dtype"] == "bfloat16"


def test_length_cuts_nothing_that_the_model_can_hold(facts: Make) -> None:
    short = advised(facts("tiny", length=101), "data.max_length")
    assert short.value == 104 and "nothing is cut" in short.reason
    long = advised(facts("tiny", length=2_000), "data.max_length")
    assert long.value == 512 and "llama has 512 positions" in long.reason


def test_heads_and_experts_are_named(facts: Make) -> None:
    assert advised(facts("minilm"), "adapter.modules_to_save").value == ("classifier",)
    assert advised(facts("tiny"), "adapter.modules_to_save").value == ()
    assert (
        "4 experts of each layer and their router stay frozen"
        in advised(facts("mixtral"), "adapter.target_modules").reason
    )


def test_a_seq2seq_model_gets_its_own_rate(facts: Make) -> None:
    assert rate(facts("t5")) == 1e-3


def test_a_length_at_which_a_batch_is_read_otherwise_is_refused_with_the_reason(facts: Make) -> None:
    known = facts("tiny")
    short = replace(known, model=replace(known.model, max_positions=64, batch_reads_beyond=64))
    asked = Config(data=DataConfig(max_length=128))
    with pytest.raises(
        ConfigError, match=r"64 positions of which each row is read by itself(.|\n)*for a whole batch"
    ):
        max_length.check(Case(short, asked, Decided()))
