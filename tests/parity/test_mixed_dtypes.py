"""Layers that stay in float32 where the rest of the base is in half precision: each
adapter works in its own layer's type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from engine import candidate, rows_for, run, trainer, weights_of
from test_against_peft import base_of, inputs_of

from loraloom.data.batches import collate
from loraloom.evals.objective import objective_for
from loraloom.lora.base import share_copy
from loraloom.lora.packed import PackedModel
from loraloom.lora.state import save_adapter, verify_adapter


def widened(model: Any, path: str) -> Any:
    """The same model with one layer in float32, which is given what it needs."""
    model.get_submodule(path).float().register_forward_pre_hook(lambda _module, args: (args[0].float(),))
    return model


def t5_as_transformers_loads_it() -> Any:
    """`T5PreTrainedModel._keep_in_fp32_modules` names `wo`."""
    model = tiny.model_of("t5", torch.float16)
    for name, module in model.named_modules():
        if name.endswith(".wo"):
            module.float()
    return model


MODELS: dict[str, tuple[str, Callable[[], Any]]] = {
    "every other layer of an MLP": ("t5", t5_as_transformers_loads_it),
    "a language model's head": (
        "llama",
        lambda: widened(tiny.model_of("llama", torch.bfloat16), "lm_head"),
    ),
    "a classifier's head": (
        "llama-classifier",
        lambda: widened(tiny.model_of("llama-classifier", torch.bfloat16), "score"),
    ),
    "a pooler": (
        "bert",
        lambda: widened(
            widened(tiny.model_of("bert", torch.bfloat16), "bert.pooler.dense"), "classifier"
        ),
    ),
}


@pytest.mark.parametrize("what", MODELS)
def test_it_trains_in_a_pack_as_alone(what: str) -> None:
    family, build = MODELS[what]
    model, chosen, rows = build(), tiny.FAMILIES[family], rows_for(family)
    trials = [candidate(f"t{n}", model, heads=chosen.heads, seed=n, r=4 if n else 2) for n in range(3)]
    together = run(trainer(model, rows, chosen.task), trials)
    for one in trials:
        alone = run(trainer(model, rows, chosen.task), [one])[one.id]
        weights = weights_of(together[one.id])
        assert weights.dtype == torch.float32 and bool(weights.isfinite().all())
        assert together[one.id].smoothed_loss == pytest.approx(alone.smoothed_loss, rel=1e-2)
        assert all(bool(tensor.any()) for _, tensor in together[one.id].adapter.tensors())


@pytest.mark.parametrize("what", MODELS)
def test_its_adapter_is_the_same_in_peft(what: str, tmp_path: Path) -> None:
    family, build = MODELS[what]
    model, chosen, rows = build(), tiny.FAMILIES[family], rows_for(family)
    engine = trainer(model, rows, chosen.task)
    seat = engine.join(candidate("t", model, heads=chosen.heads))
    engine.tick()
    base = base_of(family, model)
    save_adapter(tmp_path, seat.adapter.tensors(), seat.adapter.spec, base)
    inputs = inputs_of(model, collate(rows[:4], tiny.PAD, chosen.task), chosen.task)  # type: ignore[arg-type]
    assert verify_adapter(tmp_path, engine.packed, "t", base, inputs, tolerance=2e-2) <= 2e-2


def test_alike_candidates_may_still_be_stacked() -> None:
    """Equal shapes in every layer, two types: the pass has no one block for both, and
    the sums are still each one's own."""
    model, rows = t5_as_transformers_loads_it(), rows_for("t5")
    packed, objective = PackedModel(share_copy(model)), objective_for("seq2seq_lm", model)
    assert objective.rows(packed.model, collate(rows[:2], tiny.PAD, "seq2seq_lm")).loss.isfinite().all()
    trials = [candidate(f"t{n}", model, seed=n, learning_rate=1e-3 * (1 + n)) for n in range(2)]
    seats = run(trainer(model, rows, "seq2seq_lm"), trials)
    assert all(seat.adapter.block is None for seat in seats.values())
    assert not torch.equal(weights_of(seats["t0"]), weights_of(seats["t1"]))
