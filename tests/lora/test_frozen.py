"""Products of frozen weights by oneDNN: right for any number of tokens, and compiled for few of them."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from loraloom.lora import frozen
from loraloom.lora.frozen import BLOCKS, SMALLEST, frozen_kernel, keep_few_programs

D_IN, D_OUT = 160, 112
ROWS = (1, 15, 16, 17, 79, 256, 300, 1024, 1300)


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> nn.Linear:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(frozen, "takes_onednn", lambda device_type, dtype: True)
    torch.manual_seed(0)
    return nn.Linear(D_IN, D_OUT)


@pytest.mark.parametrize("rows", ROWS)
def test_onednn_gives_the_plain_product_for_any_number_of_tokens(layer: nn.Linear, rows: int) -> None:
    kernel = frozen_kernel(layer)
    assert kernel is not None
    x, gy = torch.randn(rows, D_IN), torch.randn(rows, D_OUT)
    with torch.no_grad():
        assert torch.allclose(kernel.forward(x), layer(x), atol=1e-4)
        assert torch.allclose(kernel.backward(gy), gy @ layer.weight, atol=1e-4)
    assert kernel.forward(x).shape == (rows, D_OUT) and kernel.backward(gy).is_contiguous()


def test_whatever_the_batch_a_product_takes_one_of_few_numbers_of_tokens() -> None:
    weight, met = torch.randn(D_OUT, D_IN), set[int]()

    def product(x: Tensor) -> Tensor:
        met.add(x.shape[0])
        return F.linear(x, weight)

    for rows in range(1, 1400, 7):
        x = torch.randn(rows, D_IN)
        assert torch.allclose(frozen._in_blocks(product, x, D_OUT), F.linear(x, weight), atol=1e-4)  # pyright: ignore[reportPrivateUsage]
    assert met == set(BLOCKS)


@given(st.integers(1, 5_000))
def test_only_the_last_call_is_filled_up_and_none_is_wasted(rows: int) -> None:
    sizes = frozen.blocks_of(rows)
    assert set(sizes) <= set(BLOCKS) and list(sizes) == sorted(sizes, reverse=True)
    assert 0 <= sum(sizes) - rows < sizes[-1]
    assert sum(sizes) <= 2 * max(rows, BLOCKS[-1])


def test_rows_just_below_a_block_take_one_call() -> None:
    assert frozen.blocks_of(126) == (128,)
    assert frozen.blocks_of(200) == (128, 64, 16)
    assert frozen.blocks_of(31) == (32,)
    assert frozen.blocks_of(2_049) == (1024, 1024, 16)


def test_a_small_float32_weight_goes_elsewhere(
    layer: nn.Linear, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("oneDNN was asked")

    monkeypatch.setattr(frozen, "_in_blocks", refuse)
    small = nn.Linear(64, SMALLEST // 64 - 1)
    kernel, x = frozen_kernel(small), torch.randn(3, 64)
    assert kernel is not None and torch.allclose(kernel.forward(x), small(x), atol=1e-5)
    with pytest.raises(AssertionError, match="oneDNN was asked"):
        frozen_kernel(layer).forward(torch.randn(3, D_IN))  # type: ignore[union-attr]


def test_a_weight_is_asked_for_at_each_product() -> None:
    """Nothing may hold one: where it lies may change between two products."""
    layer, x = nn.Linear(8, 4), torch.randn(3, 8)
    kernel = frozen_kernel(layer)
    assert kernel is not None
    before = kernel.forward(x)
    layer.weight = nn.Parameter(2 * layer.weight.detach(), requires_grad=False)
    assert torch.allclose(kernel.forward(x) - layer.bias, 2 * (before - layer.bias), atol=1e-6)


def test_a_torch_without_onednn_multiplies_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not any(frozen.takes_onednn("cpu", dtype) for dtype in (torch.float32, torch.bfloat16))


def test_what_a_user_says_of_onednn_s_programs_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    monkeypatch.delenv("LRU_CACHE_CAPACITY", raising=False)
    keep_few_programs()
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "7"
    assert os.environ["LRU_CACHE_CAPACITY"] == frozen.PROGRAMS
