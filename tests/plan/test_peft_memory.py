"""The forecast of PEFT's memory: phases, what moves it, and 40 peaks that were measured on a T4."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.plan.peft_memory import PeftRun, adapted_by, forecast_peft, llama_sizes, peft_phases

EVIDENCE = Path(__file__).resolve().parents[3] / "shared" / "evidence" / "t4_peft_qlora_peaks.json"
TINYLLAMA = llama_sizes(2048, 22, 32, 4, 5632, 32000)
QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")


def run(**changes: Any) -> PeftRun:
    trained, queries, inputs = adapted_by(TINYLLAMA, QKVO, 32)
    return replace(PeftRun(2, 1024, trained, queries, inputs), **changes)


def test_sizes_count_the_parameters_of_a_public_model() -> None:
    assert TINYLLAMA.linear + TINYLLAMA.outside == 1_100_048_384
    assert adapted_by(TINYLLAMA, QKVO, 32)[0] == 9_011_200


def test_measured_peaks_are_forecast() -> None:
    if not EVIDENCE.exists():
        pytest.skip("the measured peaks lie in ../shared, which is not here")
    errors: list[float] = []
    for row in json.loads(EVIDENCE.read_text(encoding="utf-8"))["runs"]:
        config, asked = row["model_config"], row["run"]
        sizes = llama_sizes(
            config["hidden_size"],
            config["num_layers"],
            config["num_attention_heads"],
            config["num_kv_heads"],
            config["intermediate_size"],
            config["vocab_size"],
            head_dim=config["head_dim"],
            tied=config["tie_word_embeddings"],
        )
        trained, queries, inputs = adapted_by(sizes, asked["lora_targets"], asked["lora_rank"])
        quantised = asked["quantization"] == "nf4"
        made = PeftRun(
            asked["batch_size"],
            asked["seq_len"],
            trained,
            queries,
            inputs,
            quantization="nf4" if quantised else "none",
            upcast=quantised,
            attention="eager" if asked["attn_impl"] == "eager" else "fused",
            context=0.0,
        )
        errors.append(
            abs(forecast_peft(sizes, made).value / 2**20 / row["measured"]["peak_allocated_mib"] - 1)
        )
    assert len(errors) == 40
    assert median(errors) <= 0.02 and max(errors) <= 0.06


def test_the_value_is_the_widest_moment_and_its_parts_sum_to_it() -> None:
    phases = {name: sum(parts.values()) for name, parts in peft_phases(TINYLLAMA, run()).items()}
    estimate = forecast_peft(TINYLLAMA, run())
    assert (
        estimate.value
        == pytest.approx(max(phases.values()))
        == pytest.approx(sum(estimate.parts.values()))
    )
    assert estimate.low < estimate.value < estimate.high


def test_long_rows_of_eager_attention_move_the_peak_from_the_loss_into_a_layer() -> None:
    def moment(**changes: Any) -> str:
        phases = peft_phases(TINYLLAMA, run(**changes))
        return max(phases, key=lambda name: sum(phases[name].values()))

    assert moment(length=512, attention="eager") == "loss"
    assert moment(length=2048, attention="eager") == "layer"
    assert moment(length=2048, attention="fused") == "loss"


@given(
    rows=st.integers(1, 8),
    length=st.sampled_from([128, 512, 2048]),
    eager=st.booleans(),
    upcast=st.booleans(),
)
def test_more_never_takes_less(rows: int, length: int, eager: bool, upcast: bool) -> None:
    base = run(micro_batch=rows, length=length, attention="eager" if eager else "fused", upcast=upcast)
    need = forecast_peft(TINYLLAMA, base).value
    assert forecast_peft(TINYLLAMA, replace(base, micro_batch=rows + 1)).value > need
    assert forecast_peft(TINYLLAMA, replace(base, length=2 * length)).value > need
    assert forecast_peft(TINYLLAMA, replace(base, checkpointing=False)).value > need
    assert forecast_peft(TINYLLAMA, replace(base, quantization="nf4")).value < need
    assert forecast_peft(TINYLLAMA, replace(base, loss="fused")).value <= need
