"""Pairs whose sides are joined to one row: what is trained is what two rows train, and a model that does
not read such rows is found out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from engine import largest_difference, run, weights_of
from hypothesis import given, settings
from hypothesis import strategies as st
from made_pairs import pairs
from test_preferences_packed import CLOSE, LOSSES, judged, one
from torch import Tensor

from loraloom.data.batches import Term, collate
from loraloom.data.joined import padded_tokens, row_lengths
from loraloom.data.rows import Example, Pair, Row
from loraloom.evals.joined import worth_joining
from loraloom.evals.preference import PreferenceObjective
from loraloom.lora.base import share_copy
from loraloom.lora.packed import PackedModel
from loraloom.lora.routing import Routing
from loraloom.lora.segment import Segment
from loraloom.records import Candidate, PreferenceSpec
from loraloom.train.pack import PackTrainer

tokens = st.lists(st.integers(1, 3), min_size=1, max_size=5)


def llama(**more: Any) -> Any:
    torch.manual_seed(5)
    made = tiny.tf.LlamaForCausalLM(tiny.tf.LlamaConfig(**tiny.LLAMA_LIKE, **more))
    return made.double().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model() -> Any:
    return llama()


def engine_of(model: Any, rows: list[Example], *, joined: bool, budget: int = 4096) -> PackTrainer:
    packed = PackedModel(share_copy(model))
    objective = PreferenceObjective(model, packed, pad_id=tiny.PAD, token_budget=64)
    objective.joined = joined
    return PackTrainer(
        packed,
        rows,
        objective,
        task="causal_lm",
        pad_id=tiny.PAD,
        decide_by="reward_accuracy",
        token_budget=budget,
        workers=1,  # whatever cores there are: several would ask the reference at once
    )


def pair_of(prompt: list[int], *answers: list[int]) -> Pair:
    """All of an answer is supervised, and where there is no prompt all but its first token."""
    sides: list[Row] = []
    for answer in answers:
        ids = np.array([*prompt, *answer], np.int32)
        labels = ids.copy()
        labels[: max(1, len(prompt))] = -100
        sides.append(Row(ids, labels))
    return Pair(*sides)


def steps(engine: PackTrainer, count: int) -> dict[str, tuple[float, ...]]:
    """Losses of each candidate's first steps."""
    events = [event for _ in range(count) for event in engine.tick() if event.kind == "step"]
    return {name: tuple(e.data["loss"] for e in events if e.trial == name) for name in engine.seats}


def same_steps(model: Any, rows: list[Example], those: list[Candidate], count: int) -> None:
    ways = [engine_of(model, rows, joined=joined) for joined in (False, True)]
    for engine in ways:
        for each in those:
            engine.join(each)
    apart, joined = (steps(engine, count) for engine in ways)
    for each in those:
        assert joined[each.id] == pytest.approx(apart[each.id], rel=CLOSE)
        weights = [weights_of(engine.seats[each.id]) for engine in ways]
        assert largest_difference(*weights) < CLOSE


class Asked:
    """A candidate's losses and gradients of any pairs, joined or not."""

    def __init__(self, model: Any) -> None:
        self.engine = engine_of(model, pairs(1), joined=False)
        self.arena = self.engine.join(one(model, "a", LOSSES["sigmoid"])).adapter.arena

    def of(self, rows: list[Pair], spec: PreferenceSpec, *, joined: bool) -> tuple[Tensor, Tensor]:
        batch = collate(rows, tiny.PAD, "causal_lm", [Term(spec)] * len(rows), joined=joined)
        routing = Routing((Segment("a", 0, len(batch.input_ids)),), training=True)
        with self.engine.packed.route(routing) as routed:
            losses = self.engine.objective.rows(routed, batch).loss
            losses.sum().backward()
        grads = self.arena.grads.clone()
        self.arena.grads.zero_()
        return losses.detach(), grads


@pytest.fixture(scope="module")
def asked(model: Any) -> Asked:
    return Asked(model)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.builds(pair_of, st.just([]) | tokens, tokens, tokens), min_size=1, max_size=3))
def test_any_pairs_have_the_losses_and_gradients_of_two_rows(asked: Asked, rows: list[Pair]) -> None:
    """Few different tokens: sides begin alike beyond their prompt, are the other one's beginning, or the
    other one. Without a prompt a side may have no label: then it has no mean a token."""
    for name in ("sigmoid and sft", *(("orpo",) if all(pair.supervised for pair in rows) else ())):
        apart, joined = (asked.of(rows, LOSSES[name], joined=way) for way in (False, True))
        for own, wanted in zip(joined, apart, strict=True):
            assert largest_difference(own, wanted) < CLOSE


def test_candidates_train_on_joined_pairs_as_on_two_rows(model: Any) -> None:
    those = [
        one(model, name, LOSSES[name], seed=seed, per_device_train_batch_size=2 + seed % 2)
        for seed, name in enumerate(("sigmoid", "ipo", "sigmoid and sft", "orpo", "simpo"))
    ]
    same_steps(model, pairs(10), those, 3)


def test_a_pack_of_joined_pairs_trains_each_candidate_as_alone(model: Any) -> None:
    """With dropout, in passes of one candidate and of two, and with micro-batches that were halved."""
    rows = pairs(10)
    those = [
        one(model, name, LOSSES[name], seed=seed, lora_dropout=0.1 * seed)
        for seed, name in enumerate(("sigmoid", "orpo", "ipo"))
    ]
    together = run(engine_of(model, rows, joined=True, budget=120), those)
    for each in those:
        alone = run(engine_of(model, rows, joined=True), [each])[each.id]
        assert largest_difference(weights_of(together[each.id]), weights_of(alone)) < CLOSE
    whole = those[0]
    halved = replace(
        whole,
        training=replace(whole.training, per_device_train_batch_size=2, gradient_accumulation_steps=2),
    )
    cut = run(engine_of(model, rows, joined=True), [halved])[whole.id]
    assert largest_difference(weights_of(together[whole.id]), weights_of(cut)) < CLOSE


def test_pairs_are_scored_alike_in_one_row_and_in_two(model: Any) -> None:
    rows = pairs(12)
    found = []
    for joined in (False, True):
        engine = engine_of(model, rows, joined=joined)
        engine.join(one(model, "a", LOSSES["sigmoid"]))
        found.append(engine.row_sums(rows, ["a"])["a"])
    apart, joined = found
    assert apart.answers is not None and joined.answers is not None
    np.testing.assert_allclose(joined.answers, apart.answers, rtol=CLOSE)
    np.testing.assert_array_equal(joined.correct, apart.correct)


def test_what_a_pass_holds_is_counted_in_joined_rows(model: Any) -> None:
    """Of the prompt once, and of both answers."""
    pair = pair_of([1, 2, 3], [4, 5], [6, 7, 8])
    assert row_lengths(pair) == (5, 6) and padded_tokens(pair) == 12
    assert row_lengths(pair, joined=True) == (8,) and padded_tokens(pair, joined=True) == 8
    engine = engine_of(model, [pair] * 4, joined=True, budget=8 * 4)
    seat = engine.join(one(model, "a", LOSSES["sigmoid"]))
    engine.join(one(model, "b", LOSSES["sigmoid"]))
    shapes: list[tuple[int, ...]] = []
    embed = engine.packed.model.get_input_embeddings()
    handle = embed.register_forward_hook(lambda _m, given, _o: shapes.append(tuple(given[0].shape)))
    engine.tick()
    handle.remove()
    assert seat.tokens == 4 * 8
    # Each candidate has a pass of its own; in the first, the reference is asked about the pair, once.
    assert shapes == [(4, 8), (1, 8), (4, 8)]


MADE = {
    "llama": lambda: tiny.tf.LlamaConfig(**tiny.LLAMA_LIKE),
    "gpt2": tiny.FAMILIES["gpt2"].config,
    "gpt-neox": tiny.FAMILIES["gpt-neox"].config,
    "mixtral": tiny.FAMILIES["mixtral"].config,
    # It has a bias for how far away a token is, by its place in the row.
    "bloom": lambda: tiny.tf.BloomConfig(
        hidden_size=24, n_layer=2, n_head=4, vocab_size=tiny.VOCAB, pad_token_id=tiny.PAD
    ),
    # State spaces read one token after another, and know no mask of who sees whom.
    "mamba": lambda: tiny.tf.MambaConfig(
        hidden_size=24, num_hidden_layers=2, state_size=4, vocab_size=tiny.VOCAB, pad_token_id=tiny.PAD
    ),
    # Attention in some layers, short convolutions in the others.
    "lfm2": lambda: tiny.tf.Lfm2Config(
        **tiny.LLAMA_LIKE, layer_types=["conv", "full_attention"], full_attn_idxs=[1]
    ),
}


@pytest.mark.parametrize("family", MADE)
def test_a_model_is_asked_whether_it_reads_joined_rows(family: str) -> None:
    torch.manual_seed(1)
    model = tiny.tf.AutoModelForCausalLM.from_config(MADE[family]()).double().eval()
    packed = PackedModel(model.requires_grad_(False))
    objective = PreferenceObjective(model, packed, pad_id=tiny.PAD, token_budget=64)
    objective.join(pairs(6))
    assert objective.joined == (family in ("llama", "gpt2", "gpt-neox", "mixtral"))


def test_pairs_stay_apart_where_that_is_no_more_work_or_a_window_is_short(model: Any) -> None:
    config = model.config
    long_prompts = [pair_of([1] * 9, [2, 3], [4])]
    assert worth_joining(long_prompts, config)
    assert not worth_joining([pair_of([1], [2] * 9, [3] * 9)], config)
    assert not worth_joining(judged(4), config)
    assert not worth_joining([*long_prompts, *judged(4)], config)
    sliding = tiny.tf.MistralConfig(**tiny.LLAMA_LIKE, sliding_window=10)
    assert not worth_joining(long_prompts, sliding)
    assert worth_joining([pair_of([1] * 8, [2, 3], [4])], sliding)
