"""The memory forecast against what a packed training pass on a processor really
allocates, and how it moves."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from hypothesis import given
from hypothesis import strategies as st
from machines import CPU, GPU, data
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from loraloom.config.asked import (
    AdapterConfig,
    Config,
    LimitsConfig,
    ModelConfig,
    SearchConfig,
    TrainingConfig,
)
from loraloom.data.batches import collate, next_passes
from loraloom.data.rows import Row
from loraloom.evals import cross_entropy
from loraloom.evals.objective import objective_for
from loraloom.facts.activations import kept_bytes_per_row
from loraloom.facts.device import DeviceFacts
from loraloom.facts.model import ModelFacts, model_facts
from loraloom.lora import frozen
from loraloom.lora.attention import LONGEST
from loraloom.lora.packed import PackedModel
from loraloom.lora.routing import Routing
from loraloom.lora.segment import Segment
from loraloom.plan.memory import forecast_memory
from loraloom.plan.pass_memory import is_gated, kept_by_formula, kept_by_layers
from loraloom.plan.planner import Facts, Plan, candidate, make_plan
from loraloom.plan.shape import Shape

Make = Callable[..., Facts]
SIZES: dict[str, Any] = {
    "vocab_size": 500,
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 352,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES: dict[str, Callable[[], Any]] = {
    "llama": lambda: tf.LlamaConfig(**SIZES, num_key_value_heads=2),
    "qwen3": lambda: tf.Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=32),
    "gpt2": lambda: tf.GPT2Config(
        n_embd=128, n_layer=3, n_head=4, vocab_size=500, n_positions=256, bos_token_id=1, eos_token_id=2
    ),
    "gpt_neox": lambda: tf.GPTNeoXConfig(**SIZES),
    "bert": lambda: tf.BertConfig(**SIZES),
    "modernbert": lambda: tf.ModernBertConfig(**SIZES, cls_token_id=1, sep_token_id=2),
    "t5": lambda: tf.T5Config(
        vocab_size=500,
        d_model=128,
        d_kv=32,
        d_ff=352,
        num_layers=2,
        num_heads=4,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    ),
}
AUTO: dict[str, Any] = {
    "causal_lm": tf.AutoModelForCausalLM,
    "seq_cls": tf.AutoModelForSequenceClassification,
    "seq2seq_lm": tf.AutoModelForSeq2SeqLM,
}
ROWS, LENGTH = 4, 96
LONGER = LONGEST[torch.float32] + 16
"""Rows of so many tokens go to the fused kernel in float32."""


class Allocations(TorchDispatchMode):
    """Counts the bytes of tensors that operations make, as they come and go."""

    def __init__(self, existing: set[int]) -> None:
        super().__init__()
        self.existing, self.alive = existing, dict[int, int]()
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self.alive and storage.data_ptr() not in self.existing:
                    self.alive[storage._cdata] = storage.nbytes()
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self.freed, storage._cdata)
        self.peak = max(self.peak, self.now)
        return result

    def freed(self, key: int) -> None:
        self.now -= self.alive.pop(key)


def plan_of(
    facts: ModelFacts, dtype: Any, targets: str, length: int = LENGTH, *, checkpointing: bool = False
) -> Plan:
    task = facts.task
    tokens = 64 * length * (2 if task == "seq2seq_lm" else 1)
    rows = data(
        task,
        rows=64,
        length=length,
        tokens=tokens,
        supervised_tokens=64 if task == "seq_cls" else 64 * length,
    )
    config = Config(
        model=ModelConfig(dtype=dtype),
        adapter=AdapterConfig(r=8, lora_dropout=0.0, target_modules=targets),
        training=TrainingConfig(
            per_device_train_batch_size=ROWS, gradient_checkpointing=checkpointing or "auto"
        ),
    )
    return make_plan(config, Facts(facts, rows, CPU))


def a_step(facts: ModelFacts, plan: Plan, length: int = LENGTH) -> Allocations:
    """What a forward and backward pass of the packed model allocates beside model,
    adapters and the loss's tables.

    The tables are made once for all passes, and for more rows than a small one fills: pages that nobody
    writes to take no memory. So they count as there before.
    """
    task, values = facts.task, plan.values()
    model = AUTO[task].from_config(facts.config, attn_implementation=values["model.attn_implementation"])
    model = model.to(getattr(torch, values["model.dtype"])).eval()
    loss, packed = (
        objective_for(task, model),
        PackedModel(model),
    )
    adapter = packed.add("one", candidate(plan, "one", {}).adapter, 0)
    if values["training.gradient_checkpointing"]:
        packed.checkpoint()
    draw = np.random.default_rng(0)
    ids = [draw.integers(3, 400, length).astype(np.int32) for _ in range(ROWS)]
    rows = [Row(row, np.array([1], np.int32) if task == "seq_cls" else row) for row in ids]
    batch = collate(rows, 0, task)
    existing = {
        t.untyped_storage().data_ptr()
        for t in (*model.parameters(), *model.buffers(), adapter.arena.weights)
    }
    existing |= {table.untyped_storage().data_ptr() for table in tables_of(loss, packed, batch)}
    routing = Routing((Segment("one", 0, ROWS),), training=True)
    with Allocations(existing) as allocations, packed.route(routing) as network:
        loss.rows(network, batch).loss.sum().backward()
    return allocations


def tables_of(loss: Any, packed: PackedModel, batch: Any) -> list[torch.Tensor]:
    """The tables that a language model's loss keeps from pass to pass, made by a pass
    of the bare base."""
    kept: list[torch.Tensor] = []
    room = cross_entropy._room  # pyright: ignore[reportPrivateUsage]

    def remember(*asked: Any) -> torch.Tensor:
        kept.append(room(*asked))
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch, packed.base_only() as network, torch.no_grad():
        patch.setattr(cross_entropy, "_room", remember)
        loss.rows(network, batch)
    return kept


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("dtype", "targets", "length"),
    [
        ("float32", "all-linear", LENGTH),
        ("float32", "attention", LENGTH),
        ("float32", "all-linear", LONGER),
        ("bfloat16", "all-linear", LENGTH),
        ("bfloat16", "all-linear", 240),
    ],
)
def test_activations_and_logits_are_what_a_step_allocates(
    tmp_path: Any, family: str, dtype: str, targets: str, length: int
) -> None:
    FAMILIES[family]().save_pretrained(tmp_path)
    facts = model_facts(str(tmp_path))
    plan = plan_of(facts, dtype, targets, length)
    parts = plan.forecast["memory_one"].parts
    assert parts["activations"] == pytest.approx(a_step(facts, plan, length).peak, rel=0.08)


@pytest.mark.parametrize("family", FAMILIES)
def test_with_checkpointing_too(tmp_path: Any, family: str) -> None:
    FAMILIES[family]().save_pretrained(tmp_path)
    facts = model_facts(str(tmp_path))
    plan = plan_of(facts, "float32", "all-linear", checkpointing=True)
    parts, step = plan.forecast["memory_one"].parts, a_step(facts, plan)
    assert parts["activations"] == pytest.approx(step.peak, rel=0.1)


def test_a_decoder_that_classifies_is_counted_without_a_padding_token(tmp_path: Any) -> None:
    """Its forward pass refuses rows of many tokens where its config names none."""
    sizes: dict[str, Any] = {**SIZES, "pad_token_id": None, "num_hidden_layers": 14}
    tf.LlamaConfig(**sizes).save_pretrained(tmp_path)
    facts = model_facts(str(tmp_path), task="seq_cls", num_labels=2)
    adapted = frozenset(linear.path for linear in facts.linears if linear.role != "head")
    counted = kept_bytes_per_row(facts, adapted, 8, "float32", LENGTH, "sdpa")
    assert counted == pytest.approx(kept_by_formula(facts, 4, LENGTH, "sdpa"), rel=0.15)


@pytest.mark.parametrize("takes", [True, False])
def test_programs_are_there_where_onednn_multiplies(
    facts: Make, takes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        frozen, "takes_onednn", lambda device_type, dtype: takes and device_type == "cpu"
    )
    forecast = make_plan(Config(), facts("bert-base")).forecast
    assert (forecast["memory"].parts["programs"] > 0) == takes
    assert forecast["memory"].parts["programs"] == forecast["memory_one"].parts["programs"]
    on_a_gpu = make_plan(Config(), facts("bert-base", device=GPU)).forecast
    assert on_a_gpu["memory"].parts["programs"] == 0


@pytest.mark.parametrize(("device", "tokens"), [(CPU, 512), (GPU, 4096)])
def test_a_full_pass_holds_the_plan_s_token_budget(
    facts: Make, device: DeviceFacts, tokens: int
) -> None:
    at = facts("tiny", device=device, length=64)
    plan = make_plan(Config(limits=LimitsConfig(max_packed=1)), at)
    assert plan.token_budget == tokens

    def activations(rows: int, packed: int) -> float:
        return forecast_memory(plan.case, Shape(rows, 64, packed)).parts["activations"]

    full = tokens // 64
    assert activations(1, full) == activations(1, 100) == activations(full, 1) > activations(1, full - 1)
    assert activations(2 * full, 1) > activations(full, 1)


@pytest.mark.parametrize(("packed", "length", "rows"), [(32, 256, 1), (16, 1024, 1), (16, 64, 4)])
def test_on_a_gpu_one_pass_holds_the_pack(facts: Make, packed: int, length: int, rows: int) -> None:
    at = facts("1b", device=GPU, length=length)
    training, search = TrainingConfig(per_device_train_batch_size=rows), SearchConfig(trials=64)
    asked = Config(limits=LimitsConfig(max_packed=packed), training=training, search=search)
    plan = make_plan(asked, at)
    assert plan.token_budget == max(4096, packed * length * rows)
    one = [list(range(number * rows, (number + 1) * rows)) for number in range(packed)]
    waiting = {f"t{number}": np.array(own) for number, own in enumerate(one)}
    assert len(next_passes(waiting, [length] * packed * rows, plan.token_budget, 1)[0]) == packed
    layers = [
        make_plan(replace(asked, limits=LimitsConfig(max_packed=many)), at)
        .forecast["time"]
        .parts["layers"]
        for many in (packed // 2, packed)
    ]
    assert layers[1] < layers[0]


def test_where_memory_is_short_a_pass_holds_less_and_no_candidate_is_lost(facts: Make) -> None:
    at, asked = facts("1b", device=GPU, length=1024), LimitsConfig(max_packed=16)
    training = TrainingConfig(per_device_train_batch_size=1, gradient_checkpointing=False)
    roomy = make_plan(Config(limits=asked, training=training), at)
    least = forecast_memory(roomy.case, replace(roomy.shape, token_budget=None))
    most = roomy.forecast["memory"]
    assert roomy.token_budget == 16384 and least.high < most.high
    limit = f"{round((least.high + most.high) / 2 / 2**20)}MiB"
    short = make_plan(Config(limits=replace(asked, memory=limit), training=training), at)
    assert short.pack_size == 16 and 4096 <= short.token_budget < 16384
    assert short.forecast["memory"].high < most.high


def test_kernels_need_no_table_for_the_loss_and_stack_nothing(facts: Make) -> None:
    at = facts("1b", device=GPU, length=256)
    refused = {"kernels": {"bfloat16": "no Triton", "float32": None}}
    without, with_them = (
        make_plan(Config(), replace(at, device=replace(GPU, refusals=found))).forecast["memory"].parts
        for found in (refused, {"kernels": {"bfloat16": None}})
    )
    rows = cross_entropy.chunk_rows(at.model.vocab_size, torch.device("cuda"), torch.float32)
    assert without["logits"] == 4 * rows * at.model.vocab_size and with_them["logits"] == 0
    assert with_them["adapters"] <= without["adapters"]


def test_parts_sum_to_the_value_inside_its_range(facts: Make) -> None:
    for name in ("tiny", "minilm", "t5", "8b"):
        estimate = make_plan(Config(), facts(name, device=GPU)).forecast["memory"]
        assert sum(estimate.parts.values()) == pytest.approx(estimate.value)
        assert estimate.low < estimate.value < estimate.high and estimate.unit == "bytes"


def test_more_of_anything_never_takes_less(facts: Make) -> None:
    at = facts("1b", device=GPU)
    case = make_plan(Config(), at).case
    base = Shape(micro_batch=8, length=512)  # less would be under what a pass that only scores takes
    for change in ({"micro_batch": 16}, {"length": 1024}, {"packed": 4}):
        assert forecast_memory(case, replace(base, **change)).value > forecast_memory(case, base).value
    for change in ({"checkpointing": True}, {"quantization": "nf4"}):
        assert forecast_memory(case, replace(base, **change)).value < forecast_memory(case, base).value


def test_candidates_add_their_own_state_only_once_the_pass_is_full(facts: Make) -> None:
    at = facts("1b", device=GPU, length=1024)
    case = make_plan(Config(), at).case
    one, many = (forecast_memory(case, Shape(4, 1024, packed=packed)).parts for packed in (1, 8))
    assert many["activations"] == one["activations"]
    assert many["adapters"] == pytest.approx(8 * one["adapters"])
    assert many["weights"] == one["weights"]


def test_an_adapter_costs_sixteen_bytes_a_number_and_its_best_copy(facts: Make) -> None:
    """4 weight, 4 gradient, 8 moments; 4 for the best weights so far."""
    at = facts("tiny")
    parts = make_plan(Config(adapter=AdapterConfig(r=16)), at).forecast["memory_one"].parts
    assert parts["adapters"] + parts["gradients"] + parts["optimizer"] == 16 * 5_780 * 20
    assert parts["gradients"] == 4 * 5_780 * 16


def test_the_formula_agrees_with_the_count_for_llama_and_bert(facts: Make) -> None:
    for name in ("1b", "bert-base"):
        at = facts(name, device=GPU, length=256)
        case = make_plan(Config(), at).case
        element = 2 if case.decided.dtype == "bfloat16" else 4
        counted = kept_by_layers(case, Shape(1, 256))
        assert kept_by_formula(at.model, element, 256, "sdpa") == pytest.approx(counted, rel=0.15)


def test_gated_mlps_are_recognised(facts: Make) -> None:
    assert is_gated(facts("1b").model)
    assert not is_gated(facts("minilm").model)
    assert not is_gated(facts("t5").model)


def test_passes_at_once_are_planned_where_they_fit(facts: Make) -> None:
    """Two cores run two passes; where memory holds one only, or memory is the goal, one
    follows the other."""
    two = replace(CPU, threads=2)
    one_core, at = facts("tiny"), facts("tiny", device=two)
    plan, single = make_plan(Config(), at), make_plan(Config(), one_core)
    assert (plan.workers, single.workers) == (2, 1)
    assert plan.forecast["memory"].value >= single.forecast["memory"].value
    between = int((single.forecast["memory"].high + plan.forecast["memory"].high) / 2)
    tight = replace(Config(), limits=LimitsConfig(memory=between, max_packed=plan.pack_size))
    same = {
        "training": TrainingConfig(
            per_device_train_batch_size=plan.values()["training.per_device_train_batch_size"]
        )
    }
    found = make_plan(replace(tight, **same), at)
    assert found.workers == 1 and found.forecast["memory"].high <= between
    assert make_plan(Config(goal="memory"), at).workers == 1


@given(
    micro=st.integers(1, 64),
    length=st.integers(8, 2048),
    packed=st.integers(1, 16),
    workers=st.integers(1, 4),
    budget=st.integers(64, 8192),
)
def test_the_tokens_of_passes_at_once_bound_those_that_run(
    micro: int, length: int, packed: int, workers: int, budget: int
) -> None:
    """As the loop groups them: no wave of like micro-batches holds more than is forecast."""
    lengths, each = [length] * packed * micro, np.arange(packed * micro).reshape(packed, micro)
    waiting = {f"t{number}": rows for number, rows in enumerate(each)}
    most = Shape(micro, length, packed, workers=workers, token_budget=budget).tokens("cpu")
    while waiting:
        groups = next_passes(waiting, lengths, budget, workers)
        assert sum(len(group) for group in groups) * micro * length <= most
        for trial in [trial for group in groups for trial in group]:
            del waiting[trial]
