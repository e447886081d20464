"""How many kernels a GPU is given in a tick, by those of `lora.kernels`: many candidates cost what one
costs, whatever they differ in. Triton's interpreter runs them on the stand-in, so that what they compute
is seen too.

What is left to cost something for each candidate is named in `FOR_EACH`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import pytest
import tiny
import torch
from engine import attention, causal_rows, largest_difference, linears, run, trainer, weights_of
from engine import candidate as candidate_of
from stand_in import StandIn, stand_in
from ticks import KINDS, engine_of, join, tick

from loraloom.lora import dropout
from loraloom.lora.kernels import selftest
from loraloom.lora.kernels.pack_deltas import KernelDeltas
from loraloom.records import Candidate
from loraloom.train.seat import Seat

pytestmark = pytest.mark.usefixtures("interpreter")

PACK, FEW = 16, 3
"""Candidates of a whole pack, and as many as are enough to be mixed: the interpreter is slow."""
MOST_FOR_A_PACK = 100
"""Launches of a tick that the other fifteen candidates of a pack may add to those of the first."""
MIXED = ("scales", "ranks", "targets", "batches", "biases")
"""Kinds of `KINDS` in all of which candidates may differ at once."""
SHARES = {MIXED: 0.1, ("dropout",): 0.3, (*MIXED, "dropout of some"): 0.3}
"""Launches that a pack of such kinds may have beyond those of candidates that are alike, as a share."""
FOR_EACH = {"noise": 4, "dora": 130}
"""Kinds that cost launches for each candidate, and how many: NEFTune's noise, which the host draws, and
the layers of DoRA, which take the whole weight and go candidate by candidate."""


@pytest.fixture(autouse=True)
def one_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    layers(1, monkeypatch)


def layers(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tiny.LLAMA_LIKE, "num_hidden_layers", number)


def combined(kinds: Sequence[str], n: int, model: Any) -> dict[str, Any]:
    """All of these kinds at once. Four layers for each are enough to count by."""
    found = {"targets": linears(model)[2:6]}
    for kind in kinds:
        found |= KINDS[kind](n, model)
    return found


def launches(count: int, kinds: Sequence[str] = (), dtype: torch.dtype = torch.float32) -> int:
    """Of the second tick of a pack, when everything has been made that is made once."""
    with stand_in("cuda") as device:
        engine = engine_of("llama", dtype)
        assert engine.packed.kernels
        join(engine, "llama", count, lambda n, model: combined(kinds, n, model))
        tick(device, engine, "llama")
        return tick(device, engine, "llama").total()


@cache
def launches_of_few_alike() -> int:
    return launches(FEW)


def test_a_pack_is_given_hardly_more_kernels_than_one_candidate() -> None:
    assert launches(PACK, MIXED) - launches(1) < MOST_FOR_A_PACK


def test_a_layer_costs_no_more_launches_for_many_than_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    shallow = [launches(1), launches_of_few_alike()]
    layers(2, monkeypatch)
    deep = [launches(1), launches(FEW)]
    assert deep[0] - shallow[0] == deep[1] - shallow[1] > 0


@pytest.mark.parametrize("kinds", SHARES, ids=" ".join)
def test_candidates_of_different_shapes_share_the_launches(kinds: Sequence[str]) -> None:
    assert launches(FEW, kinds) <= (1 + SHARES[kinds]) * launches_of_few_alike()


@pytest.mark.parametrize("kind", FOR_EACH)
def test_what_costs_something_for_each_candidate_costs_no_more_than_is_known(kind: str) -> None:
    few, more = launches(2, [kind]), launches(FEW, [kind])
    assert 0 < more - few <= FOR_EACH[kind] * (FEW - 2)


def test_copies_in_another_dtype_cost_nothing_for_each_candidate() -> None:
    assert launches(FEW, dtype=torch.bfloat16) == launches(2, dtype=torch.bfloat16)


# -- what they compute
# -----------------------------------------------------------------------------------------------


@pytest.fixture
def drawn_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the CPU too."""
    monkeypatch.setattr(dropout, "drawn_in_order", lambda device: False)


def trained(device: str, checkpointing: bool) -> dict[str, Seat]:
    """Candidates of different batches, ranks, targets, windows and dropouts."""
    model = tiny.model_of("gpt2", torch.float32).to(device)
    engine = trainer(model, causal_rows(12), checkpointing=checkpointing)
    assert engine.packed.kernels == (device == "cuda")
    first, *_, last = linears(engine.packed.model)
    own = engine.packed.model
    chosen: list[Candidate] = [
        candidate_of(
            "a",
            own,
            targets=attention(own),
            bias="lora_only",
            lora_dropout=0.3,
            gradient_accumulation_steps=2,
            per_device_train_batch_size=1,
            max_steps=2,
        ),
        candidate_of("b", own, targets=(first, last), r=9, per_device_train_batch_size=3, max_steps=2),
        candidate_of("c", own, targets=(first,), r=1, lora_dropout=0.1, max_steps=1, optim="sgd"),
    ]
    return run(engine, chosen)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "run again"])
@pytest.mark.usefixtures("drawn_as_on_a_gpu")
def test_a_device_trains_by_the_kernels_as_the_cpu_does_without(checkpointing: bool) -> None:
    here = trained("cpu", checkpointing)
    with stand_in("cuda"):
        there = trained("cuda", checkpointing)
    for name, seat in here.items():
        assert largest_difference(weights_of(there[name]).cpu(), weights_of(seat)) < 1e-4
        assert there[name].signals.trace.norms == pytest.approx(seat.signals.trace.norms, rel=1e-5)


def missing(*args: object, **kwargs: object) -> None:
    raise RuntimeError("Failed to find C compiler\nPlease specify via CC environment variable.")


FAULTS = {
    "no compiler": (
        "_expand",
        missing,
        "could not be run here .RuntimeError: Failed to find C compiler.$",
    ),
    "does nothing": (
        "_expand",
        lambda *args, **kwargs: None,
        "outputs are not those of plain torch here",
    ),
}


@pytest.fixture
def _tried_anew() -> Iterator[None]:
    selftest.fault.cache_clear()
    yield
    selftest.fault.cache_clear()


@pytest.mark.usefixtures("_tried_anew")
@pytest.mark.parametrize("name", FAULTS)
def test_kernels_that_fail_on_a_device_are_not_used_there(
    name: str, cuda: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them is: what is wrong with one may be wrong with all."""
    method, planted, said = FAULTS[name]
    monkeypatch.setattr(KernelDeltas, method, planted)
    engine = engine_of("llama", torch.float32)
    join(engine, "llama", 2, KINDS["alike"])
    told = [event.data["text"] for event in engine.tick() if event.kind == "note"]
    assert told == [
        f"Triton kernels are not used: {engine.packed.kernels_refusal}; plain torch does the same"
    ]
    found = tick(cuda, engine, "llama")
    assert re.search(said, engine.packed.kernels_refusal or "") and not engine.packed.kernels
    assert not any("kernels" in line for line in found)


@pytest.mark.usefixtures("_tried_anew")
def test_what_a_device_refuses_is_not_the_kernels_fault(
    cuda: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(KernelDeltas, "_shrink", full)
    with pytest.raises(torch.OutOfMemoryError):
        engine_of("llama", torch.float32)


def test_a_kernel_is_one_launch_and_takes_no_tensor_of_the_host(cuda: StandIn) -> None:
    from loraloom.lora.kernels.softmax import losses_in_place

    logits, targets = torch.randn(3, 40), torch.tensor([1, 2, 3])
    there = logits.to("cuda")
    cuda.launches.clear()
    losses = losses_in_place(there, targets.to("cuda"), None)
    assert {line: n for line, n in cuda.launches.items() if "kernels" in line}.popitem()[1] == 1
    torch.testing.assert_close(
        losses.cpu(), torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    )
    assert not torch.equal(there.cpu(), logits), "what a kernel writes is seen on the device"
    with pytest.raises(RuntimeError, match="a tensor of the host"):
        losses_in_place(there, targets, None)
