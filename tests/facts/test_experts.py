"""Mixtures of experts: what takes an adapter, what stays as it is and why, and what a pass keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers as tf
from families import GROUPED, SIZES
from test_activations import LENGTH, RANK, saved_bytes_per_row

from loraloom.errors import ModelError
from loraloom.facts.activations import kept_bytes_per_row
from loraloom.facts.model import ModelFacts, model_facts
from loraloom.lora.targets import module_names, resolve_targets

LATENT = {
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
MIXTURES: dict[str, tuple[Any, set[str]]] = {
    "mixtral": (
        tf.MixtralConfig(**GROUPED, num_local_experts=4),
        {"q_proj", "k_proj", "v_proj", "o_proj"},
    ),
    "qwen2_moe": (
        tf.Qwen2MoeConfig(
            **GROUPED,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=32,
            shared_expert_intermediate_size=32,
        ),
        {
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
            "shared_expert_gate",
        },
    ),
    "deepseek_v3": (
        tf.DeepseekV3Config(
            **SIZES,
            **LATENT,
            n_routed_experts=4,
            num_experts_per_tok=2,
            n_group=2,
            topk_group=1,
            first_k_dense_replace=1,
            moe_intermediate_size=16,
        ),
        {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"},
    ),
    "granitemoe": (
        tf.GraniteMoeConfig(**GROUPED, num_local_experts=4),
        {"q_proj", "k_proj", "v_proj", "o_proj"},
    ),
    "llama4": (
        tf.Llama4TextConfig(
            **GROUPED, head_dim=8, num_local_experts=4, intermediate_size_mlp=64, attention_chunk_size=64
        ),
        {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    ),
}


def facts_of(name: str, folder: Path) -> ModelFacts:
    MIXTURES[name][0].save_pretrained(folder)
    return model_facts(str(folder))


@pytest.mark.parametrize("name", MIXTURES)
def test_attention_and_shared_experts_take_adapters_and_the_router_none(
    name: str, tmp_path: Path
) -> None:
    """Shared experts where PEFT can name them; in DeepSeek's families it cannot."""
    facts = facts_of(name, tmp_path)
    assert facts.experts == 4
    chosen = resolve_targets(facts.linears, "all-linear")
    assert set(module_names(one for one in facts.linears if one.path in chosen)) == MIXTURES[name][1]
    assert not [path for path in chosen if ".experts." in path or path.endswith((".router", ".gate"))]


@pytest.mark.parametrize(("name", "shared"), [("mixtral", 0), ("qwen2_moe", 2), ("deepseek_v3", 1)])
def test_a_token_goes_through_its_experts_alone(name: str, shared: int, tmp_path: Path) -> None:
    facts = facts_of(name, tmp_path)
    width = {"mixtral": 64, "qwen2_moe": 32, "deepseek_v3": 16}[name]
    layers = 1 if name == "deepseek_v3" else 2
    assert facts.active_expert_parameters == layers * 2 * 3 * 32 * width
    assert facts.linear_parameters > facts.active_expert_parameters


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "granitemoe"])
def test_the_count_of_what_a_pass_keeps_knows_experts(name: str, tmp_path: Path) -> None:
    facts = facts_of(name, tmp_path)
    paths = resolve_targets(facts.linears, "all-linear")
    counted = kept_bytes_per_row(facts, frozenset(paths), RANK, "float32", LENGTH, "rows")
    assert counted == pytest.approx(saved_bytes_per_row(facts, paths, "float32"), rel=0.03)


def test_a_router_that_is_named_is_refused_with_the_reason(tmp_path: Path) -> None:
    facts = facts_of("llama4", tmp_path)
    with pytest.raises(
        ModelError,
        match=r"`router` reaches 2 layers that stay as they are(.|\n)*leaves some of them idle",
    ):
        resolve_targets(facts.linears, ("q_proj", "router"))


def test_a_layer_that_peft_takes_for_experts_is_refused_with_the_reason(tmp_path: Path) -> None:
    """PEFT reads `gate_proj` of DeepSeek-V2, wherever it stands, as a part of the fused experts."""
    tf.DeepseekV2Config(
        **SIZES,
        **LATENT,
        n_routed_experts=4,
        num_experts_per_tok=2,
        first_k_dense_replace=1,
        moe_intermediate_size=16,
    ).save_pretrained(tmp_path)
    facts = model_facts(str(tmp_path))
    assert "gate_proj" not in module_names(facts.linears)
    with pytest.raises(
        ModelError, match=r"PEFT takes `gate_proj` of this family for a part of its fused experts"
    ):
        resolve_targets(facts.linears, "gate_proj")


def test_a_dense_model_of_a_family_that_has_mixtures_has_none(tmp_path: Path) -> None:
    tf.Qwen2MoeConfig(**GROUPED, num_experts=4, mlp_only_layers=[0, 1]).save_pretrained(tmp_path)
    assert model_facts(str(tmp_path)).experts == 0


def test_a_layer_whose_weights_peft_reads_under_another_name_is_left_out(tmp_path: Path) -> None:
    """Laguna's shared experts: what is trained there would not be found again."""
    config = tf.LagunaConfig(
        **GROUPED,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
    )
    config.save_pretrained(tmp_path)
    facts = model_facts(str(tmp_path))
    shared = [one for one in facts.linears if ".shared_experts." in one.path]
    assert shared and all("reads under other names" in one.why for one in shared)
    assert "q_proj" in module_names(facts.linears)


def test_peft_is_asked_of_every_family_whose_weights_transformers_renames(tmp_path: Path) -> None:
    """Beam without experts has layers of the names that PEFT takes for its fused ones."""
    if not hasattr(tf, "BeamConfig"):
        pytest.skip("this version of transformers does not know Beam")
    tf.BeamConfig(**GROUPED, head_dim=8).save_pretrained(tmp_path)
    facts = model_facts(str(tmp_path))
    left = {one.name for one in facts.linears if one.why.startswith("PEFT takes")}
    assert "gate_proj" in left and "q_proj" not in left
