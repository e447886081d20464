"""The stand-in itself: it refuses what a GPU refuses, and counts what a GPU would wait for."""

from __future__ import annotations

import copy

import pytest
import torch
from stand_in import NAME, RefusedError, StandIn, stand_in
from torch import nn

from loraloom.train.divergence import largest_outputs


def test_tensors_live_elsewhere_and_compute_the_same() -> None:
    with stand_in():
        weight = torch.arange(6.0).view(2, 3).to(NAME).requires_grad_()
        (weight * weight).sum().backward()
        assert weight.device.type == NAME and weight.grad is not None
        assert torch.equal(weight.grad.cpu(), 2 * torch.arange(6.0).view(2, 3))


def test_host_and_device_do_not_mix() -> None:
    with stand_in():
        there, here = torch.ones(3, device=NAME), torch.ones(3)
        with pytest.raises(RefusedError, match="a tensor of the host"):
            there + here
        # a number is no tensor to a GPU either
        assert (there + torch.tensor(1.0)).cpu().tolist() == [2, 2, 2]
        with pytest.raises(RefusedError, match="a generator of the host"):
            there.uniform_(generator=torch.Generator())
        with pytest.raises(TypeError, match="device"):
            there.numpy()


def test_draws_of_the_device_are_its_own() -> None:
    with stand_in():
        torch.manual_seed(0)
        there, here = torch.rand(3, device=NAME), torch.rand(3)
        assert not torch.equal(there.cpu(), here)
        torch.manual_seed(0)
        assert torch.equal(torch.rand(3), here)


def test_waits_and_launches_are_counted_by_line() -> None:
    layers = {"": nn.Linear(3, 3)}
    with stand_in() as device:
        layer = layers[""].to(NAME)
        x = torch.ones(2, 3).pin_memory().to(NAME, non_blocking=True)
        device.waits.clear(), device.launches.clear()
        largest_outputs(layers, lambda: layer(x))
        assert {line.split(":")[0] for line in device.waits} == {
            "lora/transfer.py"
        } and device.waits.total() == 1
        before = device.launches.total()
        x.view(-1)[2:].mul_(2).add_(1)
        assert device.launches.total() == before + 2 and device.waits.total() == 1
        for wait in (
            lambda: bool(x.sum()),
            lambda: x[x > 2],
            lambda: x.cpu(),
            lambda: x.nonzero(),
            lambda: x.new_tensor([1.0]),
        ):
            before = device.waits.total()
            wait()
            assert device.waits.total() == before + 1


def test_a_gpu_without_float64() -> None:
    with stand_in("mps", float64=False):
        there = torch.ones(3, device="mps")
        assert there.device.type == "mps" and there.is_mps and not there.is_cuda
        with pytest.raises(RefusedError, match="no float64"):
            there.double()
        assert there.cpu().double().sum() == 3


def test_modules_keep_their_ties_and_copies_are_their_own(cuda: StandIn) -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    moved = model.to("cuda")
    assert moved[1].weight is moved[0].weight and moved[0].weight.is_cuda
    other = copy.deepcopy(moved)
    assert other[1].weight is other[0].weight and other[0].weight is not moved[0].weight
