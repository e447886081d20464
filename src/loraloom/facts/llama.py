"""LLaMA and the families that are built like it, described by arithmetic from config.json.

To build such a model, even without numbers, takes transformers' modelling code, and importing that takes
longer than all else that `plan` does. So the common families are described here. A config with a key or
a value that is not foreseen below is not described at all: `facts.model` then builds the model, which
holds for any family and says what is wrong with a broken file. Tests hold both descriptions of the same
config against each other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from loraloom.facts.linear import LinearFact, role_of
from loraloom.facts.source import MOST
from loraloom.facts.weights import BYTES
from loraloom.records import Task

LARGEST = 2**24
"""Of any size in a config: more than any model has, and few enough that a table of two
of them can still be addressed."""
WIDEST_HEAD = 256
"""Wider heads go another way through attention (`transformers.integrations.sdpa_attention`)."""
ROPE_NUMBERS: Mapping[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "llama3": frozenset(
        {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}
    ),
}
"""Ways to scale rotary positions, and the numbers that each needs."""


@dataclass(frozen=True)
class LlamaLike:
    """The sizes of one model. `task` is what it was saved for; None where its config does not tell."""

    family: str
    task: Task | None
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    positions: int
    tied: bool
    query_biases: bool
    """Whether the projections to queries, keys and values have biases."""
    output_biases: bool
    mlp_biases: bool
    head_norms: bool
    """Whether each head's query and key are normalised."""
    label_names: tuple[str, ...]
    """Of the classes, by number."""
    dtype: str | None

    def architecture(self, task: Task) -> str:
        head = "CausalLM" if task == "causal_lm" else "SequenceClassification"
        return f"{FAMILIES[self.family].prefix}For{head}"

    def linears(self, task: Task, labels: int) -> tuple[LinearFact, ...]:
        """Every linear layer, in the order of the modules."""
        head, classes = ("lm_head", self.vocabulary) if task == "causal_lm" else ("score", labels)
        blocks = (
            LinearFact(path, d_in, d_out, role_of(path))
            for layer in range(self.layers)
            for name, (d_in, d_out, _) in self._block().items()
            for path in (f"model.layers.{layer}.{name}",)
        )
        return (*blocks, LinearFact(head, self.hidden, classes, "head", takes_codes=False))

    def modules(self, task: Task) -> tuple[str, ...]:
        """Paths of all modules that own parameters, themselves or inside them."""
        return tuple(self._modules(task))

    def parameters(self, task: Task, labels: int) -> int:
        """How many numbers the model has; those that two tables share count once."""
        block = sum(d_in * d_out + biased * d_out for d_in, d_out, biased in self._block().values())
        norms = 2 * self.hidden + 2 * self.head_norms * self.head_size
        head = (
            0
            if task == "causal_lm" and self.tied
            else self.hidden * (self.vocabulary if task == "causal_lm" else labels)
        )
        return self.vocabulary * self.hidden + self.layers * (block + norms) + self.hidden + head

    def _block(self) -> dict[str, tuple[int, int, bool]]:
        """The linear layers of one block: inputs, outputs, and whether it has biases."""
        d = self.hidden
        f = self.intermediate
        a = self.heads * self.head_size
        kv = self.kv_heads * self.head_size
        return {
            "self_attn.q_proj": (d, a, self.query_biases),
            "self_attn.k_proj": (d, kv, self.query_biases),
            "self_attn.v_proj": (d, kv, self.query_biases),
            "self_attn.o_proj": (a, d, self.output_biases),
            "mlp.gate_proj": (d, f, self.mlp_biases),
            "mlp.up_proj": (d, f, self.mlp_biases),
            "mlp.down_proj": (f, d, self.mlp_biases),
        }

    def _modules(self, task: Task) -> Iterator[str]:
        yield from ("model", "model.embed_tokens", "model.layers")
        norms = ("self_attn.q_norm", "self_attn.k_norm") if self.head_norms else ()
        names = [*self._block()]
        inside = (
            "self_attn",
            *names[:4],
            *norms,
            "mlp",
            *names[4:],
            "input_layernorm",
            "post_attention_layernorm",
        )
        for layer in range(self.layers):
            yield f"model.layers.{layer}"
            yield from (f"model.layers.{layer}.{name}" for name in inside)
        yield from ("model.norm", "lm_head" if task == "causal_lm" else "score")


def read_llama_like(folder: str) -> LlamaLike | None:
    """The model that the folder's config.json describes; None where it is of another
    family, or anything but plain."""
    try:
        path = Path(folder).expanduser() / "config.json"
        # a pipe would never end
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    # no folder, "~name" of a user that does not exist, no JSON
    except (OSError, RuntimeError, ValueError):
        return None
    if not isinstance(content, dict):
        return None
    made = cast("dict[str, Any]", content)
    family = FAMILIES.get(made["model_type"]) if isinstance(made.get("model_type"), str) else None
    return _described(made, family) if family is not None and _is_plain(made, family) else None


def _described(made: dict[str, Any], family: Family) -> LlamaLike:
    heads = made["num_attention_heads"]
    asked = any(name.endswith("ForSequenceClassification") for name in made.get("architectures", ()))
    biases = made.get("attention_bias", False)
    return LlamaLike(
        family=made["model_type"],
        task="seq_cls" if asked else None,
        hidden=made["hidden_size"],
        intermediate=made["intermediate_size"],
        layers=made["num_hidden_layers"],
        heads=heads,
        kv_heads=made.get("num_key_value_heads", heads),
        head_size=made.get("head_dim", made["hidden_size"] // heads),
        vocabulary=made["vocab_size"],
        positions=made["max_position_embeddings"],
        tied=made.get("tie_word_embeddings", False),
        query_biases=family.query_biases or biases,
        output_biases=biases,
        mlp_biases=made.get("mlp_bias", False),
        head_norms=family.head_norms,
        label_names=tuple(made.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"}).values()),
        dtype=made.get("dtype") or made.get("torch_dtype"),
    )


def _is_plain(made: dict[str, Any], family: Family) -> bool:
    """Whether all that stands in a config is foreseen, and its sizes fit each other."""
    checks = {**KEYS, **family.keys}
    if not all(key in checks and checks[key](value) for key, value in made.items()):
        return False
    return made.keys() >= REQUIRED | family.required and _fits(made)


def _fits(made: dict[str, Any]) -> bool:
    """Whether the sizes of a config, each good by itself, fit each other."""
    hidden = made["hidden_size"]
    heads = made["num_attention_heads"]
    layers = made["num_hidden_layers"]
    head_size = made.get("head_dim", hidden // heads)
    pad = made.get("pad_token_id")
    return all(
        (
            hidden % heads == 0,
            heads % made.get("num_key_value_heads", heads) == 0,
            0 < head_size <= WIDEST_HEAD and head_size % 2 == 0,
            len(made.get("layer_types", range(layers))) == layers,
            pad is None or 0 <= pad < made["vocab_size"],
            len({made[key] for key in ("dtype", "torch_dtype") if key in made}) <= 1,
        )
    )


def _is_size(value: Any) -> bool:
    return _is_whole(value) and 0 < value <= LARGEST


def _is_count_of_layers(value: Any) -> bool:
    return _is_size(value) and value <= MOST["layer"]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return (_is_whole(value) or isinstance(value, float)) and math.isfinite(value)


def _is_share(value: Any) -> bool:
    return isinstance(value, float) and 0 <= value <= 1


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_word(value: Any) -> bool:
    return isinstance(value, str)


def _is_token(value: Any) -> bool:
    return value is None or _is_whole(value)


def _is_rope(value: Any) -> bool:
    """Whether these are rotary positions that are known, with all the numbers that they
    need and no more."""
    if not isinstance(value, dict):
        return value is None
    rope = dict(cast("dict[str, Any]", value))
    kind = rope.pop("rope_type", None)
    needed = ROPE_NUMBERS.get(kind) if isinstance(kind, str) else None
    if needed is None or set(rope) - {"rope_theta"} != set(needed):
        return False
    return all(_is_number(number) and number > 0 for number in rope.values())


def _all(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """A check of a list: each of its items passes."""
    return lambda value: (
        isinstance(value, list) and all(check(item) for item in cast("list[Any]", value))
    )


def _is_names(value: Any) -> bool:
    """Whether these are the names of classes by their numbers, from 0 on."""
    if not isinstance(value, dict):
        return False
    names = cast("dict[str, Any]", value)
    return (
        len(names) > 1
        and [*names] == [str(number) for number in range(len(names))]
        and all(map(_is_word, names.values()))
    )


def _is_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_whole, cast("dict[str, Any]", value).values()))


SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)
REQUIRED = frozenset({"model_type", *SIZES})
KEYS: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys((*SIZES, "num_key_value_heads"), _is_size),
    "num_hidden_layers": _is_count_of_layers,
    **dict.fromkeys(("bos_token_id", "pad_token_id"), _is_token),
    **dict.fromkeys(("model_type", "transformers_version", "_name_or_path"), _is_word),
    **dict.fromkeys(("tie_word_embeddings", "use_cache"), _is_flag),
    **dict.fromkeys(("initializer_range", "attention_dropout", "rms_norm_eps"), _is_share),
    **dict.fromkeys(("rope_scaling", "rope_parameters"), _is_rope),
    **dict.fromkeys(("dtype", "torch_dtype"), lambda value: isinstance(value, str) and value in BYTES),
    "architectures": _all(_is_word),
    "eos_token_id": lambda value: _is_token(value) or _all(_is_whole)(value),
    "hidden_act": lambda value: value == "silu",
    "rope_theta": lambda value: _is_number(value) and value > 0,
    "id2label": _is_names,
    "label2id": _is_numbers,
}
"""What may stand in a config of any of these families."""
NO_WINDOW: Mapping[str, Callable[[Any], bool]] = {
    "use_sliding_window": lambda value: value is False,
    "sliding_window": lambda value: value is None or _is_whole(value),
    "max_window_layers": _is_count_of_layers,
    "layer_types": _all(lambda value: value == "full_attention"),
}
"""How a config says that every token sees all before it."""


@dataclass(frozen=True)
class Family:
    """How one family differs: the name of its classes, what stands in its configs, and
    what it adds to a block."""

    prefix: str
    keys: Mapping[str, Callable[[Any], bool]]
    required: frozenset[str] = frozenset()
    query_biases: bool = False
    head_norms: bool = False


FAMILIES: Mapping[str, Family] = {
    "llama": Family(
        "Llama",
        {
            "head_dim": _is_size,
            "attention_bias": _is_flag,
            "mlp_bias": _is_flag,
            "pretraining_tp": _is_whole,
        },
    ),
    "mistral": Family(
        "Mistral",
        {"head_dim": _is_size, "sliding_window": lambda value: value is None},
        required=frozenset({"sliding_window", "num_key_value_heads"}),
    ),
    "qwen2": Family("Qwen2", NO_WINDOW, required=frozenset({"num_key_value_heads"}), query_biases=True),
    "qwen3": Family(
        "Qwen3",
        {**NO_WINDOW, "head_dim": _is_size, "attention_bias": _is_flag},
        required=frozenset({"num_key_value_heads", "head_dim"}),
        head_norms=True,
    ),
}
