"""What llama.cpp calls the parts of each family of models, and in which order and shape it wants them.

A family is proved where a tiny random model of it, run by llama.cpp, gives transformers' logits
(tests/adapters/gguf). The others go through llama.cpp's own converter (`llama_cpp_script.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from loraloom.adapters.gguf import rope
from loraloom.adapters.gguf.writer import Unsigned, Value
from loraloom.errors import ModelError, RequestError

Config = Mapping[str, Any]

_ENDS = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}
_LLAMA_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_QK_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
_GEMMA_2_LAYER = {
    **_LLAMA_LAYER,
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_PHI_3_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_QKV = ("attn_q", "attn_k", "attn_v")
_EVERY_LINEAR = (*_QKV, "attn_output", "ffn_gate", "ffn_up", "ffn_down")
_SILU, _GELU = ("silu", "swish"), ("gelu_pytorch_tanh", "gelu_new", "gelu")
_LAYER = re.compile(r"layers\.(\d+)\.(.+)\.(weight|bias)")
_NO_PART_OF_IT = re.compile(r".*rotary_emb\.inv_freq")
"""What old files have and transformers computes anew."""


@dataclass(frozen=True)
class Family:
    """One row of the table.

    Attributes:
        arch: llama.cpp's name of it.
        layer: parts of a layer, and what llama.cpp calls them.
        biases: those of them that may have one.
        permutes: whether rows of q and k are kept as Meta's code has them, the two numbers that are
            rotated together beside each other, and not half a head apart.
        norm_shift: what is added to the weights of norms.
        own_output: whether there is a place for an output layer beside the embeddings.
        activations: what `hidden_act` may be.
        ropes: what the rope type may be.
        more: metadata that only this family has.
    """

    arch: str
    layer: Mapping[str, str]
    biases: tuple[str, ...] = ()
    permutes: bool = False
    norm_shift: float = 0.0
    own_output: bool = True
    activations: tuple[str, ...] = _SILU
    ropes: tuple[str, ...] = ("default",)
    more: Callable[[Config], Mapping[str, Value]] = lambda config: {}

    @property
    def exact(self) -> bool:
        """Whether llama.cpp computes it in float32 throughout: GELU comes from a table of float16."""
        return self.activations == _SILU


def _gemma_2(config: Config) -> Mapping[str, Value]:
    """Raises ModelError for what llama.cpp computes otherwise, whatever the file says."""
    layers, window = int(config["num_hidden_layers"]), int(config.get("sliding_window") or 4096)
    kinds = config.get("layer_types") or _alternating(layers, 2)
    if list(kinds) != _alternating(layers, 2):
        raise _computes_otherwise(config, "layer_types", "sliding and full attention in turn")
    _need_scale(config, layers == 46)
    return {
        "attention.sliding_window": Unsigned(window),
        "attn_logit_softcapping": float(_asked(config, "attn_logit_softcapping")),
        "final_logit_softcapping": float(_asked(config, "final_logit_softcapping")),
    }


def _gemma_3(config: Config) -> Mapping[str, Value]:
    """Raises ModelError for what llama.cpp computes otherwise, whatever the file says."""
    layers = int(config["num_hidden_layers"])
    pattern = _alternating(layers, int(config.get("sliding_window_pattern") or 6))
    if list(config.get("layer_types") or pattern) != _alternating(layers, 6):
        raise _computes_otherwise(config, "layer_types", "five sliding layers, then a full one")
    _need_scale(config, layers == 62)
    if config.get("attn_logit_softcapping") or config.get("final_logit_softcapping"):
        raise _computes_otherwise(config, "final_logit_softcapping", "no soft capping")
    if config.get("use_bidirectional_attention"):
        raise _computes_otherwise(config, "use_bidirectional_attention", "causal attention")
    local = rope.parameters(config, "sliding_attention")
    if float(local["rope_theta"]) != 10_000.0 or local["rope_type"] != "default":
        raise _computes_otherwise(config, "rope_parameters", "rope_theta 10000 in sliding layers")
    return {"attention.sliding_window": Unsigned(int(config.get("sliding_window") or 4096))}


def _need_scale(config: Config, is_27b: bool) -> None:
    """llama.cpp scales queries by the size of a head; in models of 27B, which it knows by their layers,
    by a head's share of the hidden size. Raises ModelError for another scale."""
    shared = int(config["hidden_size"]) // int(config["num_attention_heads"])
    scale = shared if is_27b else _head(config)
    if int(config.get("query_pre_attn_scalar") or 256) != scale:
        raise _computes_otherwise(config, "query_pre_attn_scalar", str(scale))


def _alternating(layers: int, every: int) -> list[str]:
    """Each `every`-th layer attends to all tokens."""
    return [
        "sliding_attention" if (number + 1) % every else "full_attention" for number in range(layers)
    ]


def _phi_3(config: Config) -> Mapping[str, Value]:
    """Raises ModelError for heads that its code in llama.cpp does not allow."""
    if _head(config) * int(config["num_attention_heads"]) != int(config["hidden_size"]):
        raise _computes_otherwise(config, "head_dim", "hidden_size / num_attention_heads")
    return {"attention.sliding_window": Unsigned(int(config.get("sliding_window") or 0))}


_LLAMA = Family(
    "llama", _LLAMA_LAYER, _EVERY_LINEAR, permutes=True, ropes=("default", "llama3", "linear", "yarn")
)
_GEMMA = Family("gemma", _LLAMA_LAYER, norm_shift=1.0, own_output=False, activations=_GELU)
FAMILIES = {
    "LlamaForCausalLM": _LLAMA,
    "MistralForCausalLM": _LLAMA,
    "Qwen2ForCausalLM": Family("qwen2", _LLAMA_LAYER, _QKV, ropes=("default", "yarn")),
    "Qwen3ForCausalLM": Family("qwen3", {**_LLAMA_LAYER, **_QK_NORMS}, ropes=("default", "yarn")),
    "GemmaForCausalLM": _GEMMA,
    "Gemma2ForCausalLM": Family(
        "gemma2", _GEMMA_2_LAYER, norm_shift=1.0, own_output=False, activations=_GELU, more=_gemma_2
    ),
    "Gemma3ForCausalLM": Family(
        "gemma3",
        {**_GEMMA_2_LAYER, **_QK_NORMS},
        norm_shift=1.0,
        own_output=False,
        activations=_GELU,
        ropes=("default", "linear"),
        more=_gemma_3,
    ),
    "Phi3ForCausalLM": Family("phi3", _PHI_3_LAYER, ropes=("default", "longrope"), more=_phi_3),
}
"""By the name of transformers' class."""


@dataclass(frozen=True)
class Place:
    """Where a tensor goes.

    Attributes:
        name: in the file.
        heads: rows are put into another order within each of so many heads; 0 leaves them.
        shift: added to each number.
    """

    name: str
    heads: int = 0
    shift: float = 0.0

    def of(self, values: Tensor) -> Tensor:
        """The numbers as llama.cpp wants them."""
        if self.heads:
            values = values.unflatten(0, (self.heads, 2, -1)).transpose(1, 2).flatten(0, 2)
        return values + self.shift if self.shift else values


class Layout:
    """A family with the sizes of one model.

    Args:
        config: its config.json.
        where: the folder, for messages.

    Raises:
        RequestError: a family that is not in the table.
        ModelError: a setting that llama.cpp has no place for.
    """

    def __init__(self, config: Config, where: str) -> None:
        self.config, self.where = config, where
        self.name = str((config.get("architectures") or ["a model of no class"])[0])
        if self.name not in FAMILIES:
            raise RequestError(
                f"{self.name} is no family whose GGUF file is proved here",
                where=where,
                need=f"one of {', '.join(sorted(FAMILIES))}",
                next="LLAMA_CPP=FOLDER with a checkout of llama.cpp, whose own converter is used then",
            )
        self.family = FAMILIES[self.name]
        self.arch = self.family.arch
        act = str(
            config.get("hidden_activation") or config.get("hidden_act") or self.family.activations[0]
        )
        if act not in self.family.activations:
            raise _computes_otherwise(config, "hidden_act", " or ".join(self.family.activations))
        kind = rope.parameters(config)["rope_type"]
        if kind not in self.family.ropes:
            raise _computes_otherwise(
                config, "rope_parameters", f"rope_type {', '.join(self.family.ropes)}"
            )

    def place(self, name: str) -> Place | None:
        """Where a tensor goes; None for one that is no part of the model.

        Raises:
            ModelError: llama.cpp has no place for it.
        """
        if _NO_PART_OF_IT.fullmatch(name):
            return None
        short = name.removeprefix("model.")
        part, _, kind = short.rpartition(".")
        if part in _ENDS and kind == "weight":
            if part == "lm_head" and not self.family.own_output:
                return self._output_of_its_own(name)
            return Place(
                f"{_ENDS[part]}.weight", shift=self.family.norm_shift if part == "norm" else 0.0
            )
        found = _LAYER.fullmatch(short)
        called = self.family.layer.get(found[2]) if found else None
        beyond = found is not None and int(found[1]) >= int(self.config["num_hidden_layers"])
        bias = found is not None and found[3] == "bias" and called not in self.family.biases
        if not found or called is None or beyond or bias:
            raise ModelError(
                f"llama.cpp has no place for `{name}` in a {self.arch}",
                where=self.where,
                need=f"the parts of a {self.name}",
                next="keep the merged safetensors: loraloom adapter merge",
            )
        shift = self.family.norm_shift if called.endswith("_norm") else 0.0
        return Place(f"blk.{found[1]}.{called}.{found[3]}", self._permuted_heads(called), shift)

    def _output_of_its_own(self, name: str) -> None:
        """Raises ModelError where it is not the embeddings over again."""
        if self.config.get("tie_word_embeddings") is False:
            raise ModelError(
                f"`{name}` is no copy of the embeddings, which llama.cpp takes for it in a {self.arch}",
                where=self.where,
                need="an adapter that leaves embeddings and output layer alone",
                next="keep the merged safetensors: loraloom adapter merge",
            )

    def _permuted_heads(self, called: str) -> int:
        if not self.family.permutes or called not in ("attn_q", "attn_k"):
            return 0
        heads = int(self.config["num_attention_heads"])
        return heads if called == "attn_q" else int(self.config.get("num_key_value_heads") or heads)

    def expected(self) -> set[str]:
        """Names in the file that no model can do without."""
        layers = range(int(self.config["num_hidden_layers"]))
        parts = {
            f"blk.{number}.{part}.weight" for number in layers for part in self.family.layer.values()
        }
        return parts | {"token_embd.weight", "output_norm.weight"}

    def metadata(self) -> dict[str, Value]:
        """The sizes of the model, under llama.cpp's keys."""
        config, heads = self.config, int(self.config["num_attention_heads"])
        head, turned = _head(config), rope.parameters(config)
        rotated = int(head * float(turned.get("partial_rotary_factor") or 1.0))
        found: dict[str, Value] = {
            "vocab_size": Unsigned(int(config["vocab_size"])),
            "context_length": Unsigned(int(config.get("max_position_embeddings") or 2048)),
            "embedding_length": Unsigned(int(config["hidden_size"])),
            "block_count": Unsigned(int(config["num_hidden_layers"])),
            "feed_forward_length": Unsigned(int(config["intermediate_size"])),
            "attention.head_count": Unsigned(heads),
            "attention.head_count_kv": Unsigned(int(config.get("num_key_value_heads") or heads)),
            "attention.key_length": Unsigned(head),
            "attention.value_length": Unsigned(head),
            "attention.layer_norm_rms_epsilon": float(config.get("rms_norm_eps") or 1e-6),
            "rope.dimension_count": Unsigned(rotated),
            "rope.freq_base": float(turned["rope_theta"]),
            **rope.metadata(config, turned),
            **self.family.more(config),
        }
        return {f"{self.arch}.{key}": value for key, value in found.items()}

    def further_tensors(self) -> dict[str, Tensor]:
        """What the file has and the model's weights have not: factors of rope."""
        return rope.tensors(self.config, rope.parameters(self.config), _head(self.config))

    def notes(self) -> list[str]:
        """What llama.cpp computes otherwise for long texts."""
        window = self.config.get("sliding_window")
        uses = self.config.get("use_sliding_window", self.name != "Qwen2ForCausalLM")
        longest = int(self.config.get("max_position_embeddings") or 2048)
        ignored = self.arch in ("llama", "qwen2", "qwen3", "phi3")
        if not (window and uses and ignored and int(window) < longest):
            return []
        return [
            f"llama.cpp attends to all tokens, this model to the last {int(window):,}: longer texts are"
            " answered otherwise"
        ]


def _head(config: Config) -> int:
    """Numbers of one head."""
    return int(
        config.get("head_dim") or int(config["hidden_size"]) // int(config["num_attention_heads"])
    )


def _asked(config: Config, key: str) -> Any:
    if config.get(key) is None:
        raise _computes_otherwise(config, key, "a number")
    return config[key]


def _computes_otherwise(config: Config, key: str, need: str) -> ModelError:
    return ModelError(
        f"llama.cpp computes a {(config.get('architectures') or ['model'])[0]} with another {key}",
        got=f"{key}: {config.get(key)}",
        need=need,
        next="keep the merged safetensors: loraloom adapter merge",
    )
