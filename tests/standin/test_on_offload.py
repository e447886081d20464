"""What checkpointing keeps waits on the host: exactly the blocks' inputs, at the right time, with the
same gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import tiny
import torch
from engine import candidate, rows_for, run, trainer, weights_of
from stand_in import StandIn, is_ours
from streams import RaceError, Races, Stream, streams

from loraloom.lora.checkpointing import repeated_blocks
from loraloom.lora.offload import HostInputs
from loraloom.train.pack import PackTrainer
from loraloom.train.seat import Seat


@pytest.fixture
def races(cuda: StandIn, without_triton: None) -> Iterator[Races]:
    with streams(cuda) as found:
        yield found


def engine_of(family: str, checkpointing: Any) -> PackTrainer:
    chosen, rows = tiny.FAMILIES[family], rows_for(family)
    model = tiny.model_of(family).to("cuda")
    return trainer(
        model,
        rows,
        chosen.task,
        fresh_modules=chosen.heads,
        checkpointing=checkpointing,
        validation=rows[:4],
    )


def trained(engine: PackTrainer, family: str) -> dict[str, Seat]:
    """Two candidates of different kinds."""
    model, heads = engine.packed.model, tiny.FAMILIES[family].heads
    kinds: list[dict[str, Any]] = [{"lora_dropout": 0.3}, {"use_dora": family == "llama", "r": 2}]
    return run(
        engine,
        [candidate(f"c{n}", model, heads=heads, max_steps=1, **kind) for n, kind in enumerate(kinds)],
    )


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_gradients_are_those_of_plain_checkpointing(family: str, races: Races) -> None:
    here = trained(engine_of(family, True), family)
    engine = engine_of(family, "offload")
    there = trained(engine, family)
    assert engine.packed.host_inputs is not None and engine.packed.host_inputs.moved and races.seen
    for name, seat in here.items():
        assert torch.equal(weights_of(there[name]).cpu(), weights_of(seat).cpu()), name
    races.check()


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "t5"])
def test_exactly_the_inputs_of_the_blocks_are_moved(family: str, races: Races) -> None:
    engine = engine_of(family, "offload")
    heads, inputs = tiny.FAMILIES[family].heads, []
    blocks = repeated_blocks(engine.packed.model)
    for block in blocks:
        block.register_forward_pre_hook(
            lambda _, args, kwargs: inputs.append(args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
    engine.join(candidate("one", engine.packed.model, heads=heads, max_steps=1))
    host = engine.packed.host_inputs
    assert host is not None and not host.moved
    inputs.clear()
    engine.tick()
    assert len(blocks) == len(inputs) == host.moved
    assert sum(x.nbytes for x in inputs) == host.moved_bytes


def test_no_graph_is_recorded_of_it(races: Races) -> None:
    assert engine_of("llama", "offload").graphs is None


# -- one input alone
# ------------------------------------------------------------------------------------


def test_the_input_of_the_block_before_is_on_its_way_meanwhile(races: Races) -> None:
    host = HostInputs(torch.device("cuda"))
    x, y = (torch.randn(3, device="cuda", requires_grad=True) for _ in range(2))
    brought = []
    bring = host.bring
    host.bring = lambda tensor: brought.append(tensor) or bring(tensor)  # type: ignore[method-assign]
    with host.instead_of(x):
        first = x.square()
    with host.instead_of(y):
        second = y.square() * first
    second.sum().backward()
    assert torch.equal(y.grad, 2 * y * x.square()) and torch.equal(x.grad, 2 * x * y.square())
    assert len(brought) == 2 == host.moved
    races.check()


@pytest.mark.parametrize("forgotten", ["wait_stream", "wait_event", "record_stream"])
def test_a_wait_that_is_forgotten_is_noticed(
    forgotten: str, races: Races, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These tests can fail."""
    owner = torch.Tensor if forgotten == "record_stream" else Stream
    monkeypatch.setattr(owner, forgotten, lambda *_: None)
    host, x = HostInputs(torch.device("cuda")), torch.randn(3, device="cuda", requires_grad=True)
    with host.instead_of(x):
        y = (2 * x).square() * x
    y.sum().backward()
    with pytest.raises(RaceError):
        races.check()


def test_the_stream_is_the_one_of_the_moment(races: Races) -> None:
    """A pass may run on another stream than the one before."""
    host = HostInputs(torch.device("cuda"))
    for _ in range(2):
        own = Stream()
        own.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(own):
            x = torch.randn(4, device="cuda", requires_grad=True)
            with host.instead_of(x):
                y = x.square()
            (grad,) = torch.autograd.grad(y.sum(), x)
            assert is_ours(grad) and torch.equal(grad, 2 * x)
    races.check()
