"""The count of what a training pass keeps, held against what autograd really saved in a
packed training pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers as tf
from families import FAMILIES

from loraloom.facts import activations
from loraloom.facts.activations import kept_by_widest_layer, kept_bytes_per_row
from loraloom.facts.model import ModelFacts, model_facts
from loraloom.lora import attention as row_attention
from loraloom.lora.packed import PackedModel
from loraloom.lora.routing import Routing
from loraloom.lora.segment import Segment
from loraloom.lora.targets import resolve_targets
from loraloom.records import AdapterSpec

LENGTH, ROWS, RANK = 48, 4, 4


def saved_bytes_per_row(facts: ModelFacts, targets: tuple[str, ...], dtype: str) -> float:
    """Bytes that autograd saved in a real pass of the packed model, up to the hidden
    states or the class scores."""
    auto: Any = (
        tf.AutoModelForCausalLM if facts.task == "causal_lm" else tf.AutoModelForSequenceClassification
    )
    model = auto.from_config(facts.config, attn_implementation="sdpa").to(getattr(torch, dtype)).eval()
    packed = PackedModel(model)
    adapter = packed.add("one", AdapterSpec(RANK, 8, 0.0, targets), seed=0)
    own = {
        tensor.untyped_storage().data_ptr()
        for tensor in (*model.parameters(), *model.buffers(), adapter.arena.weights)
    }
    saved: dict[int, torch.UntypedStorage] = {}

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    routing = Routing((Segment("one", 0, ROWS),), training=True)
    ids = torch.randint(3, 90, (ROWS, LENGTH))
    with (
        torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor),
        packed.route(routing) as network,
    ):
        result: Any = (
            network.base_model(input_ids=ids, use_cache=False)
            if facts.task == "causal_lm"
            else network(input_ids=ids)
        )  # type: ignore[operator]
    assert result is not None
    return sum(storage.nbytes() for storage in saved.values()) / ROWS


@pytest.mark.parametrize(
    "family", ["llama", "qwen3", "gemma", "gpt2", "phi", "gpt_neox", "bert", "distilbert", "modernbert"]
)
@pytest.mark.parametrize("targets", ["all-linear", "attention"])
@pytest.mark.parametrize("attention", ["rows", "sdpa"])
def test_the_count_is_what_a_real_pass_saves(
    folder: Any, family: str, targets: str, attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if attention == "sdpa":
        monkeypatch.setattr(row_attention, "LONGEST", {})
    facts = model_facts(folder(family))
    paths = resolve_targets(facts.linears, targets)
    counted = kept_bytes_per_row(facts, frozenset(paths), RANK, "float32", LENGTH, attention)
    assert counted == pytest.approx(saved_bytes_per_row(facts, paths, "float32"), rel=0.03)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "t5"])
@pytest.mark.parametrize("chosen", ["all", "last"])
def test_a_deep_model_s_count_follows_from_its_first_layers(
    tmp_path: Any, family: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = replace(deep(tmp_path, family), llama=None)
    paths = resolve_targets(facts.linears, "attention")
    targets = frozenset(paths if chosen == "all" else paths[-2:])

    def counted() -> tuple[float | None, int]:
        kept_bytes_per_row.cache_clear()
        runs.clear()
        return kept_bytes_per_row(facts, targets, RANK, "float32", LENGTH, "sdpa"), len(runs)

    runs, whole = list[int](), activations._count  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(activations, "_count", lambda *given: (runs.append(1), whole(*given))[1])
    short, times = counted()
    monkeypatch.setattr(activations, "DEEP", 1_000)
    assert short == counted()[0] and short
    assert times == (2 if chosen == "all" and family != "t5" else 1)


def deep(folder: Any, family: str) -> ModelFacts:
    """Facts of a model with 14 narrow layers."""
    sizes: dict[str, Any] = {
        "vocab_size": 100,
        "hidden_size": 32,
        "num_hidden_layers": 14,
        "num_attention_heads": 4,
    }
    configs: dict[str, Any] = {
        "llama": lambda: tf.LlamaConfig(**sizes, intermediate_size=48),
        "gpt2": lambda: tf.GPT2Config(n_embd=32, n_layer=14, n_head=4, vocab_size=100),
        "bert": lambda: tf.BertConfig(**sizes, intermediate_size=48),
        "t5": lambda: tf.T5Config(
            vocab_size=100, d_model=32, d_kv=8, d_ff=48, num_layers=14, num_heads=4
        ),
    }
    configs[family]().save_pretrained(folder)
    return model_facts(str(folder))


def test_a_count_leaves_the_config_of_the_facts_as_it_was(folder: Any) -> None:
    facts = model_facts(folder("llama"))
    before = facts.config.to_dict() | {"attention": facts.config._attn_implementation}
    assert kept_bytes_per_row(
        facts, frozenset(resolve_targets(facts.linears)), RANK, "float32", 40, "rows"
    )
    assert facts.config.to_dict() | {"attention": facts.config._attn_implementation} == before


def test_half_precision_keeps_about_half(folder: Any) -> None:
    facts = model_facts(folder("llama"))
    paths = frozenset(resolve_targets(facts.linears))
    full = kept_bytes_per_row(facts, paths, RANK, "float32", LENGTH, "sdpa")
    half = kept_bytes_per_row(facts, paths, RANK, "bfloat16", LENGTH, "sdpa")
    assert full is not None and half is not None
    assert 0.5 < half / full < 0.65


def test_attention_that_is_not_fused_grows_with_the_square(folder: Any) -> None:
    facts = model_facts(folder("llama"))
    paths = frozenset(resolve_targets(facts.linears))

    def growth(attention: str) -> float:
        short = kept_bytes_per_row(facts, paths, RANK, "float32", 32, attention)
        long = kept_bytes_per_row(facts, paths, RANK, "float32", 64, attention)
        assert short is not None and long is not None
        return long / short

    assert growth("sdpa") == pytest.approx(2, rel=0.01)
    assert growth("eager") > 2.2 and growth("rows") > 2.2


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_encoder_decoders_are_counted_too(folder: Any, family: str) -> None:
    facts = model_facts(folder(family))
    assert (
        kept_bytes_per_row(
            facts, frozenset(resolve_targets(facts.linears)), RANK, "float32", 32, "eager"
        )
        or 0
    ) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_counted_or_left_out_without_a_crash(folder: Any, family: str) -> None:
    facts = model_facts(folder(family))
    counted = kept_bytes_per_row(
        facts, frozenset(resolve_targets(facts.linears)), RANK, "float32", 16, "eager"
    )
    assert counted is None or counted > 0


def test_facts_without_a_config_cannot_be_counted(folder: Any) -> None:
    facts = replace(model_facts(folder("llama")), llama=None, read_config=None, name_or_path="by hand")
    assert kept_bytes_per_row(facts, frozenset(), RANK, "float32", 16, "sdpa") is None
    assert kept_by_widest_layer(facts, frozenset(), RANK, "float32", 16, "sdpa") is None


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_the_widest_layer_of_an_encoder_and_a_decoder_is_the_decoder_s(folder: Any, family: str) -> None:
    facts = model_facts(folder(family))
    given: Any = (frozenset(resolve_targets(facts.linears)), RANK, "float32", 32, "sdpa")
    widest, whole = kept_by_widest_layer(facts, *given), kept_bytes_per_row(facts, *given)
    assert widest is not None and whole is not None
    assert whole / facts.layers < widest < whole / 2


def test_nothing_is_kept_before_the_first_adapter(folder: Any) -> None:
    facts = replace(model_facts(folder("llama")), llama=None)
    last, first = (
        frozenset(
            linear.path
            for linear in facts.linears
            if f"layers.{layer}." in linear.path and linear.name == "down_proj"
        )
        for layer in (1, 0)
    )
    late, early = (
        kept_bytes_per_row(facts, chosen, RANK, "float32", LENGTH, "sdpa") for chosen in (last, first)
    )
    assert late is not None and early is not None
    assert late < early / 3
