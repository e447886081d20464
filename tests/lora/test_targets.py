"""Targets: keywords, names and regexes against the layers of real families, and
messages for those that match nothing."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.errors import ModelError
from loraloom.lora.targets import Role, module_names, resolve_pattern, resolve_targets, short_label


@dataclass(frozen=True)
class Layer:
    path: str
    role: Role
    why: str = ""


def llama(layers: int = 2) -> list[Layer]:
    found: list[Layer] = []
    for number in range(layers):
        found += [Layer(f"model.layers.{number}.self_attn.{name}_proj", "attention") for name in "qkvo"]
        found += [
            Layer(f"model.layers.{number}.mlp.{name}_proj", "mlp") for name in ("gate", "up", "down")
        ]
    return [*found, Layer("lm_head", "head")]


GPT2 = [
    Layer("transformer.h.0.attn.c_attn", "attention"),
    Layer("transformer.h.0.attn.c_proj", "attention"),
    Layer("transformer.h.0.mlp.c_fc", "mlp"),
    Layer("transformer.h.0.mlp.c_proj", "mlp"),
    Layer("lm_head", "head"),
]
BERT = [
    Layer("bert.encoder.layer.0.attention.self.query", "attention"),
    Layer("bert.encoder.layer.0.output.dense", "mlp"),
    Layer("bert.pooler.dense", "other"),
    Layer("classifier", "head"),
]


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ("auto", 14),
        ("all-linear", 14),
        ("All-Linear", 14),
        ("attention", 8),
        ("mlp", 6),
        ("query", 2),
        (("query", "up_proj"), 4),
    ],
)
def test_keywords_choose_layers_by_their_role(asked: str | tuple[str, ...], size: int) -> None:
    assert len(resolve_targets(llama(), asked)) == size


def test_all_linear_leaves_out_heads_and_takes_a_pretrained_pooler() -> None:
    assert resolve_targets(BERT) == tuple(layer.path for layer in BERT[:3])
    assert resolve_targets(BERT, modules_to_save=("bert.pooler", "classifier")) == tuple(
        layer.path for layer in BERT[:2]
    )


@pytest.mark.parametrize(
    "asked",
    [
        "q_proj",
        ("q_proj",),
        "self_attn.q_proj",
        r".*self_attn\.q.*",
        (r"model\.layers\.\d\.self_attn\.q_proj",),
    ],
)
def test_names_ends_of_paths_and_regexes_name_the_same_layers(asked: str | tuple[str, ...]) -> None:
    expected = ("model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj")
    assert resolve_targets(llama(), asked) == expected


def test_one_layer_by_its_full_path() -> None:
    assert resolve_targets(llama(), "model.layers.1.mlp.up_proj") == ("model.layers.1.mlp.up_proj",)


def test_a_name_matches_whole_parts_of_a_path_only() -> None:
    with pytest.raises(ModelError, match="`proj` matches nothing"):
        resolve_targets(llama(), "proj")


@given(st.lists(st.sampled_from([layer.path for layer in llama(3)[:-1]]), min_size=1))
def test_any_paths_come_back_once_each_in_the_order_of_the_model(paths: list[str]) -> None:
    order = [layer.path for layer in llama(3)]
    found = resolve_targets(llama(3), tuple(paths))
    assert found == tuple(sorted(set(paths), key=order.index))


def test_one_bogus_name_among_good_ones_is_refused_with_what_the_model_has() -> None:
    with pytest.raises(ModelError) as error:
        resolve_targets(llama(), ("q_proj", "qkv"))
    assert (
        "target `qkv` matches nothing; this model has q_proj, k_proj, v_proj, o_proj, gate_proj"
        in str(error.value)
    )
    assert "lm_head" not in str(error.value)
    assert error.value.exit_code == 2


def test_query_on_a_fused_projection_names_the_fused_layer() -> None:
    with pytest.raises(ModelError) as error:
        resolve_targets(GPT2, "query")
    assert "adapter.target_modules: [c_attn]" in str(error.value)


def test_a_broken_regex_is_told_as_such() -> None:
    with pytest.raises(ModelError, match="neither a module of this model nor a regex"):
        resolve_targets(llama(), "q_proj(")


ENDLESS = "((((.*)*)*)*)*z!"


def test_a_regex_that_never_ends_is_refused() -> None:
    with pytest.raises(
        ModelError, match=r"(?s)target .* is neither .* nor a regex.*no end after 3 seconds"
    ):
        resolve_targets(llama(), ("q_proj", ENDLESS))


@pytest.mark.parametrize("key", ["adapter.rank_pattern", "adapter.alpha_pattern"])
@pytest.mark.parametrize(
    ("pattern", "fault"),
    [(ENDLESS, "no end after 3 seconds"), ("q_proj(", "missing"), ("a{99999999999}", "large")],
)
def test_a_pattern_of_ranks_that_cannot_be_matched_is_refused(
    key: str, pattern: str, fault: str
) -> None:
    with pytest.raises(ModelError, match=f"(?s)`{key}` names .* nor a regex for it.*{fault}"):
        resolve_pattern(resolve_targets(llama(), "attention"), {pattern: 4}, key=key)


def test_an_output_head_takes_no_adapter() -> None:
    with pytest.raises(ModelError, match="`lm_head` is the output head"):
        resolve_targets(llama(), ("q_proj", "lm_head"))


def test_a_target_inside_a_module_that_is_trained_whole_is_refused() -> None:
    with pytest.raises(
        ModelError, match="`dense` is both a LoRA target and a module that is trained whole"
    ) as error:
        resolve_targets(BERT, "dense", modules_to_save=("bert.pooler",))
    assert "bert.pooler.dense" in str(error.value)


def test_no_targets_at_all_is_refused() -> None:
    with pytest.raises(ModelError, match="is empty"):
        resolve_targets(llama(), ())


@pytest.mark.parametrize("keyword", ["all-linear", "attention", "mlp", "query"])
def test_a_label_gives_back_the_keyword(keyword: str) -> None:
    assert short_label(resolve_targets(llama(), keyword), llama()) == keyword


def test_a_label_of_other_sets_lists_the_names_once() -> None:
    assert short_label(resolve_targets(llama(), ("q_proj", "v_proj")), llama()) == "q_proj,v_proj"
    assert module_names(llama()) == (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )


def test_patterns_of_rank_become_paths_and_the_first_match_counts() -> None:
    paths = resolve_targets(llama(), "attention")
    ranks = resolve_pattern(
        paths, {"layers.0.self_attn.q_proj": 4, "q_proj": 32}, key="adapter.rank_pattern"
    )
    assert ranks == {"model.layers.0.self_attn.q_proj": 4, "model.layers.1.self_attn.q_proj": 32}


def test_a_pattern_of_rank_that_is_no_target_is_refused() -> None:
    with pytest.raises(
        ModelError,
        match=r"`adapter\.rank_pattern` names `up_proj`, which is no target; the targets are q_proj",
    ):
        resolve_pattern(
            resolve_targets(llama(), "attention"), {"up_proj": 4}, key="adapter.rank_pattern"
        )
