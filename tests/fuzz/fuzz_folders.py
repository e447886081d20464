"""Strategies for the files of adapter folders and model folders, made from sound ones."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

from fuzz_texts import deep, garbled, values
from hypothesis import strategies as st

ODD_FIELDS: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("IA3", "PREFIX_TUNING", "XLORA", "lora", None, 7),
    "task_type": ("SEQ_CLS", "NO_SUCH_TASK", None, []),
    "r": (0, -4, 3, 10**9, 10**400, 2.5, "8", True, None),
    "lora_alpha": (-16, 0, float("nan"), float("inf"), 10**400, "16", None),
    "lora_dropout": (1, -1, float("nan"), "0", None),
    "target_modules": (
        "(a+)+$",
        "([a-zA-Z._]*)*!",
        "(((((.*)*)*)*)*)*x",
        "all-linear",
        "[",
        "(?P<",
        "*",
        "",
        [],
        ["nothing"],
        [7],
        {"q_proj": 1},
        None,
        ["q_proj"] * 5000,
        ".*",
        "(?:q|v)_proj",
    ),
    "rank_pattern": (
        {"q_proj": 10**9},
        {"(a*)*b": 4},
        {"[": 4},
        {"q_proj": -1},
        {"q_proj": "4"},
        [],
        {"v_proj": 2},
        None,
    ),
    "alpha_pattern": ({"q_proj": -1}, {"(.*)*(.*)*(.*)*(.*)*z": 4}, {"q_proj": float("nan")}, "x", None),
    "modules_to_save": (["lm_head"], ["nothing"], "lm_head", [[]], ["embed_tokens"], None),
    "layers_to_transform": ([10**9], [-1], "0", [0], {}, None),
    "layers_pattern": ("(a*)*b", ["layers"], 3, None),
    "init_lora_weights": ("pissa", "olora", "loftq", "corda", "eva", "no such", 3, None),
    "bias": ("all", "some", 1, None),
    "use_dora": (True, "yes", None),
    "use_rslora": (True, 1, None),
    "fan_in_fan_out": (True, "no"),
    "auto_mapping": ({"base_model_class": "Popen", "parent_library": "subprocess"}, {}, 3),
    "megatron_config": ({"tensor_model_parallel_size": 2},),
    "megatron_core": ("antigravity",),
    "layer_replication": ([[0, 10**9]], [[0, 1], [0, 1]]),
    "trainable_token_indices": ([10**9], {"embed_tokens": [-1]}),
    "target_parameters": (["weight"],),
    "base_model_name_or_path": (7, None, "../../../etc", "\0", "~nobody-here"),
    "arrow_config": ({"top_k": 1},),
    "corda_config": ({"cache_file": "/tmp/no.pt"},),
    "no_such_field": (1,),
}
ODD_MODEL_FIELDS: Mapping[str, tuple[Any, ...]] = {
    "model_type": ("gpt2", "bert", "t5", "no_such_type", "", None, 7, ["llama"], "../llama"),
    "architectures": (
        None,
        [],
        [7],
        7,
        "LlamaForCausalLM",
        ["NoSuch"],
        ["LlamaForSequenceClassification"],
        {"a": 1},
    ),
    "auto_map": (
        {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
        {"AutoConfig": "../../evil.Config"},
        3,
    ),
    "hidden_size": (0, -8, 2**31, 2**63, 10**400, 7, "8", None, [8]),
    "intermediate_size": (0, -1, 10**12, "12"),
    "num_hidden_layers": (0, -1, 10**9, 10**400, 1.5, "1", [1], None),
    "num_attention_heads": (0, -1, 3, 10**9, None, "2"),
    "num_key_value_heads": (0, 3, -1, None),
    "head_dim": (0, -2, 5, None),
    "vocab_size": (0, -1, 5, 10**15, 2**63, None, "300"),
    "max_position_embeddings": (0, -1, 10**12, None, "x"),
    "num_labels": (10**12, -1, 0, None, "2"),
    "id2label": ({"0": "a", "1": "a"}, {"x": "y"}, 3, [], {"0": None}),
    "problem_type": ("no such",),
    "rope_parameters": ({"rope_type": "no such"}, {"rope_theta": -1, "rope_type": "default"}, 3, None),
    "rope_scaling": ({"type": "linear", "factor": 0}, {"rope_type": "yarn"}, 3),
    "quantization_config": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"quant_method": "no such"},
        {},
        3,
    ),
    "dtype": ("float8", "int8", "no such", 3, "os.system"),
    "torch_dtype": ("float16", "__class__"),
    "pad_token_id": (-1, 10**9, "0", None, [1]),
    "eos_token_id": ([1, 2], -1, "x", None),
    "tie_word_embeddings": (True, "yes", None),
    "is_encoder_decoder": (True, "x"),
    "is_decoder": (True,),
    "num_local_experts": (10**9,),
    "attn_implementation": ("no-such/kernel", "flash_attention_2"),
    "_attn_implementation": ("no-such/kernel", 3),
    "layer_types": (["no such"], [], 3),
    "hidden_act": ("no such", "os.system", None, 3),
    "text_config": ({}, {"num_hidden_layers": 10**9}, 3),
    "transformers_version": (3, "999"),
}
"""Fields of a llama's config.json."""


@st.composite
def edited(draw: st.DrawFn, sound: Mapping[str, Any], odd: Mapping[str, tuple[Any, ...]]) -> bytes:
    """A sound JSON object with some fields changed, or lost, or its text damaged."""
    made = dict(sound)
    for name in draw(st.lists(st.sampled_from(tuple(odd)), min_size=0, max_size=3, unique=True)):
        made[name] = draw(st.one_of(st.sampled_from(odd[name]), st.sampled_from(odd[name]), values))
    if made and draw(st.integers(0, 3)) == 0:
        del made[draw(st.sampled_from(tuple(made)))]
    text = json.dumps(made).encode()
    kind = draw(st.integers(0, 19))
    if kind == 0:
        return draw(
            st.one_of(
                deep.map(str.encode),
                st.binary(max_size=30),
                st.sampled_from((b"", b"[]", b"null", b"7", b'"x"')),
            )
        )
    return draw(garbled(st.just(text))) if kind <= 2 else text


def header_of(tensors: Mapping[str, Any], body: int) -> bytes:
    """A safetensors file whose header says this, over zeros."""
    header = json.dumps(tensors).encode()
    return struct.pack("<Q", len(header)) + header + bytes(body)


@st.composite
def weights(draw: st.DrawFn, sound: bytes) -> bytes:
    """A sound safetensors file, most of the time with an accident; or a header that lies."""
    kind = draw(st.integers(0, 9))
    if kind <= 4:
        return sound
    if kind <= 7:
        return draw(garbled(st.just(sound)))
    entry = st.one_of(
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(("F32", "F4", "BOOL", "")),
                "shape": st.sampled_from(([2, 8], [2**40, 2**40], [-1], [], [0])),
                "data_offsets": st.sampled_from(
                    ([0, 64], [64, 0], [0, 2**62], [-8, 8], ["a", "b"], [0])
                ),
            }
        ),
        values,
    )
    names = st.sampled_from(
        (
            "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
            "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight",
            "__metadata__",
            "",
            "../x",
            "model.embed_tokens.weight",
            "x" * 10_000,
        )
    )
    if kind == 8:
        return draw(
            st.sampled_from(
                (
                    struct.pack("<Q", 2**63) + b"{}",
                    struct.pack("<Q", 10**8) + b"{}",
                    b"\x80\x04K*.",
                    b"PK\x03\x04",
                    b"",
                )
            )
        )
    return header_of(
        draw(st.dictionaries(names, entry, max_size=3)), draw(st.sampled_from((0, 64, 4096)))
    )
