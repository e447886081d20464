"""A base whose blocks come from the host for each pass trains as one on the device, to the bit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tiny
import torch
from engine import candidate, causal_rows, rows_for, run, trainer, weights_of
from stand_in import StandIn
from streams import RaceError, Races, Stream, streams
from torch import nn

from few_bits import quantised
from loraloom.errors import ModelError
from loraloom.lora.checkpointing import repeated_blocks
from loraloom.lora.quantised import Int8Linear
from loraloom.lora.streaming import BlockStream
from loraloom.train.seat import Seat

DEVICE = torch.device("cuda")


@pytest.fixture
def races(cuda: StandIn, without_triton: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Races]:
    monkeypatch.setitem(tiny.LLAMA_LIKE, "num_hidden_layers", 5)
    with streams(cuda) as found:
        yield found


def in_eight_bits(model: Any) -> Any:
    """A copy whose blocks have layers over codes."""
    changed = copy.deepcopy(model)
    for block in repeated_blocks(changed):
        for path, layer in list(block.named_modules()):
            if isinstance(layer, nn.Linear):
                w_OD = layer.weight.detach()
                scales_O = w_OD.abs().amax(1) / 127
                codes_OD = (w_OD / scales_O[:, None]).round().to(torch.int8)
                block.set_submodule(path, Int8Linear(codes_OD, scales_O, layer.bias, w_OD.dtype))
    return changed


def in_four_bits(model: Any) -> Any:
    """bitsandbytes makes codes of float32 at most."""
    return quantised(copy.deepcopy(model).float(), "nf4", torch.float64)


def trained(model: Any, family: str, targets: tuple[str, ...]) -> dict[str, Seat]:
    heads, rows = tiny.FAMILIES[family].heads, rows_for(family, count=6, longest=8)
    engine = trainer(
        model,
        rows,
        tiny.FAMILIES[family].task,
        fresh_modules=heads,
        checkpointing=True,
        validation=rows[:2],
    )
    kinds: list[dict[str, Any]] = [{"lora_dropout": 0.3}, {"use_dora": family == "llama", "r": 2}]
    made = [
        candidate(f"c{n}", model, targets=targets, heads=heads, max_steps=2, **kind)
        for n, kind in enumerate(kinds)
    ]
    return run(engine, made)


@pytest.mark.parametrize(
    ("family", "few_bits"), [("llama", ""), ("llama", "int8"), ("llama", "nf4"), ("t5", "")]
)
def test_a_streamed_base_trains_as_a_resident_one(family: str, few_bits: str, races: Races) -> None:
    model = tiny.model_of(family)
    targets = candidate("any", model).adapter.target_modules[:4]
    if few_bits:
        model = in_eight_bits(model) if few_bits == "int8" else in_four_bits(model)
    streamed = copy.deepcopy(model)
    here = trained(model.to("cuda"), family, targets)
    stream = BlockStream(streamed, DEVICE)
    there = trained(streamed, family, targets)
    assert stream.copies > 4 and races.seen
    races.check()
    for name, seat in here.items():
        assert weights_of(seat).abs().sum() > 0
        assert torch.equal(weights_of(there[name]).cpu(), weights_of(seat).cpu()), name


@pytest.mark.parametrize("forgotten", ["wait_stream", "wait_event"])
def test_a_wait_that_is_forgotten_is_noticed(
    forgotten: str, races: Races, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These tests can fail."""
    model = tiny.model_of("llama")
    targets = candidate("any", model).adapter.target_modules[:1]
    BlockStream(model, DEVICE)
    monkeypatch.setattr(Stream, forgotten, lambda *_: None)
    trained(model, "llama", targets)
    with pytest.raises(RaceError):
        races.check()


class Blocks(nn.Module):
    """Five blocks in a row, and a weight that two of them share."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(5))
        self.layers[3].weight = self.layers[1].weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def test_the_next_block_is_on_its_way_forwards_and_backwards(races: Races) -> None:
    stream = BlockStream(Blocks(), DEVICE)
    asked: list[tuple[int, bool]] = []
    for number in (0, 1, 2, 3, 4, 4, 3, 2, 1, 0, 0, 1):
        there = stream._held[number % 2] == number
        stream.bring(number)
        asked.append((number, there))
    assert [number for number, there in asked if not there] == [0]  # all others had been foreseen
    assert stream.copies == 5 + 3 + 1  # two are still there on the way back, and once more at its end


def test_what_blocks_share_stays_on_the_device(races: Races) -> None:
    model = Blocks()
    expected = model(torch.ones(2, 4))
    BlockStream(model, DEVICE)
    assert model.layers[1].weight is model.layers[3].weight
    with torch.no_grad():
        assert torch.allclose(model(torch.ones(2, 4, device="cuda")).cpu(), expected)
    races.check()


def test_a_copy_of_the_model_shares_what_is_streamed(races: Races) -> None:
    from loraloom.lora.base import share_copy

    model = tiny.model_of("llama")
    ids = torch.ones(1, 4, dtype=torch.long)
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        stream = BlockStream(model, DEVICE)
        other = share_copy(model)
        copies = stream.copies
        got = other(input_ids=ids.to("cuda")).logits.cpu()
    assert stream.copies > copies and torch.allclose(got, expected)


def test_without_checkpointing_or_blocks_it_is_refused(races: Races) -> None:
    model = tiny.model_of("llama")
    BlockStream(model, DEVICE)
    with pytest.raises(ModelError, match="a streamed base is trained with checkpointing"):
        trainer(model, causal_rows())
    with pytest.raises(
        ModelError, match=r"`model\.streaming` needs repeated blocks, and Linear has none"
    ):
        BlockStream(nn.Linear(2, 2), DEVICE)


def test_a_host_that_is_full_says_so(races: Races, monkeypatch: pytest.MonkeyPatch) -> None:
    empty: Callable[..., Any] = torch.empty

    def full(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("pin_memory"):
            raise torch.OutOfMemoryError("CUDA error: out of memory")
        return empty(*args, **kwargs)

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(ModelError, match="the host has no memory for the weights"):
        BlockStream(tiny.model_of("llama"), DEVICE)
