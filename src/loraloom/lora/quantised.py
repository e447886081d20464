"""Linear layers of the frozen base whose weight is held in few bits, and spread anew for every product.

bitsandbytes' own layers never run here. In eval mode on some processors its 4-bit layer puts its codes
into another order for good at the first input without a gradient; from then on its input's gradient is
lost and its weight cannot be read back. Its 8-bit layer takes outliers from the whole batch, so that one
candidate's rows would change another's. `quantised_loading.take_over` puts a `QuantisedLinear`
over the same codes in place of each, before anything runs.

W is spread in blocks of rows that stay in a core's own cache, multiplied with, and forgotten: a pack
spreads it twice a pass, forwards and backwards, for all of its candidates together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn

from loraloom.errors import RequestError, first_line
from loraloom.lora.device_faults import is_of_device
from loraloom.lora.frozen import frozen_product

BLOCK_BYTES = 2 * 2**20
"""A CPU spreads so much of a weight at once; CUDA, where each kernel has to be asked for, all of it."""


class QuantisedLinear(nn.Linear):
    """A frozen linear layer over codes: y = x W^T + bias, W [O, D] spread from them.

    Attributes:
        dtype: of x, y, bias and of W once it is spread.
        full_weight: gives what the codes were made of, [O, D] in float32; None where that is not there.
        rows_apart: rows can be spread from multiples of this on.
    """

    rows_apart = 1

    def __init__(
        self, in_features: int, out_features: int, bias: Tensor | None, dtype: torch.dtype
    ) -> None:
        nn.Module.__init__(self)  # not nn.Linear's own, which would make a dense weight
        self.in_features, self.out_features, self.dtype = in_features, out_features, dtype
        self.full_weight: Callable[[], Tensor] | None = None
        self.bias = None if bias is None else nn.Parameter(bias.detach().to(dtype), requires_grad=False)

    def rows(self, rows: slice) -> Tensor:
        """These rows of W, [rows, D], in `dtype`."""
        raise NotImplementedError

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """As in `frozen.FrozenWeight`."""
        row_bytes = self.in_features * self.dtype.itemsize
        most = self.out_features if self._on_cuda() else max(1, BLOCK_BYTES // row_bytes)
        step = math.ceil(most / self.rows_apart) * self.rows_apart
        for start in range(0, self.out_features, step):
            rows = slice(start, min(start + step, self.out_features))
            yield rows, self.rows(rows)

    def dense(self) -> Tensor:
        return self.rows(slice(0, self.out_features))

    @property
    def weight(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """W as others ask for it, PEFT for one; spread anew each time."""
        return self.dense()

    def forward(self, input: Tensor) -> Tensor:
        return frozen_product(input, self, self.bias)

    @property
    def stored_bytes(self) -> int:
        """What the codes and their scales take."""
        return sum(buffer.nbytes for buffer in self.buffers())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """`.to(dtype)` says what W is spread to; codes and scales are what they are, and only move."""
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype

        def moved(tensor: Tensor) -> Tensor:
            there = fn(tensor)
            return (
                there if tensor is self.bias or there.dtype == tensor.dtype else tensor.to(there.device)
            )

        return super()._apply(moved, recurse)

    def _on_cuda(self) -> bool:
        return next(self.buffers()).is_cuda


class FourBitLinear(QuantisedLinear):
    """Codes of NF4 or FP4 (Dettmers et al. 2023, arXiv:2305.14314): two numbers a byte,
    one scale a block.

    Args:
        codes: uint8 [O D / 2], row after row, the first number of a byte in its upper half.
        state: bitsandbytes' QuantState of these codes: scales of the blocks, themselves
            in 8 bits where it is nested.
    """

    codes: Tensor
    scales: Tensor
    scales_of_scales: Tensor
    scale_map: Tensor
    offset: Tensor

    def __init__(self, codes: Tensor, state: Any, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__(int(state.shape[1]), int(state.shape[0]), bias, dtype)
        self.quant_type, self.block, self.stored_dtype = (
            str(state.quant_type),
            int(state.blocksize),
            state.dtype,
        )
        self.rows_apart = self.block * 2 // math.gcd(self.block * 2, self.in_features)
        self.nested = bool(state.nested)
        self.register_buffer("codes", codes.reshape(-1).view(torch.uint8))
        self.register_buffer("scales", state.absmax)
        if self.nested:
            self.scale_block = int(state.state2.blocksize)
            self.register_buffer("scales_of_scales", state.state2.absmax)
            self.register_buffer("scale_map", state.state2.code)
            self.register_buffer("offset", state.offset)

    def rows(self, rows: slice) -> Tensor:
        start, stop = rows.start * self.in_features, rows.stop * self.in_features
        scales = self._scales()[start // self.block : math.ceil(stop / self.block)]
        codes = self.codes[start // 2 : math.ceil(stop / 2)]
        # As one long row: with AVX-512, bitsandbytes takes wrong scales where blocks go across row ends.
        spread = torch.ops.bitsandbytes.dequantize_4bit(
            codes, scales, self.block, self.quant_type, (1, stop - start), self.stored_dtype
        )
        return spread.view(-1, self.in_features).to(self.dtype)

    def _scales(self) -> Tensor:
        """Of all blocks, in float32."""
        if not self.nested:
            return self.scales.float()
        spread = torch.ops.bitsandbytes.dequantize_blockwise(
            self.scales, self.scales_of_scales, self.scale_map, self.scale_block, torch.float32
        )
        return spread + self.offset


class Int8Linear(QuantisedLinear):
    """Codes of 8 bits, one scale a row: W = codes * scales (LLM.int8(),
    arXiv:2208.07339, weights alone).

    Args:
        codes_OD: int8.
        scales_O: float32.
    """

    codes: Tensor
    scales: Tensor

    def __init__(
        self, codes_OD: Tensor, scales_O: Tensor, bias: Tensor | None, dtype: torch.dtype
    ) -> None:
        super().__init__(codes_OD.shape[1], codes_OD.shape[0], bias, dtype)
        self.register_buffer("codes", codes_OD)
        self.register_buffer("scales", scales_O.float())

    def rows(self, rows: slice) -> Tensor:
        wide = torch.promote_types(self.dtype, torch.float32)
        return (self.codes[rows].to(wide) * self.scales[rows, None]).to(self.dtype)


GPTQ_BITS = (2, 4, 8)
"""Of a code; 3 bits go across the ends of words."""


class GptqLinear(QuantisedLinear):
    """Codes of GPTQ (Frantar et al. 2022, arXiv:2210.17323).

    W[o, d] = scale[g, o] (code[d, o] - zero[g, o]), where g is the group that feature d belongs to.
    Codes lie in words of 32 bits, those of one output feature below each other; zeros too, those of one
    group beside each other.

    Args:
        layer: the linear layer in whose place this one stands; its weight is not looked at.
        groups: number of groups of features.
        first_zero: what the stored zeros lack.
    """

    qweight: Tensor
    qzeros: Tensor
    scales: Tensor
    g_idx: Tensor

    def __init__(self, layer: nn.Linear, bits: int, groups: int, first_zero: int) -> None:
        weight = layer.weight
        super().__init__(layer.in_features, layer.out_features, layer.bias, weight.dtype)
        self.bits, self.first_zero = bits, first_zero
        d_in, d_out, words = layer.in_features, layer.out_features, 32 // bits
        like: dict[str, Any] = {"dtype": torch.int32, "device": weight.device}
        self.register_buffer("qweight", torch.empty(d_in // words, d_out, **like))
        self.register_buffer("qzeros", torch.empty(groups, d_out // words, **like))
        self.register_buffer(
            "scales", torch.empty(groups, d_out, dtype=torch.float16, device=weight.device)
        )
        self.register_buffer("g_idx", torch.empty(d_in, **like))

    def rows(self, rows: slice) -> Tensor:
        wide = torch.promote_types(self.dtype, torch.float32)
        codes_DO = self._unpacked(self.qweight[:, rows]).transpose(1, 2).flatten(0, 1)
        zeros_GO = self._unpacked(self.qzeros).flatten(1)[:, rows] + self.first_zero
        groups_D = self.g_idx.long()
        spread_DO = self.scales[:, rows].to(wide)[groups_D] * (codes_DO - zeros_GO[groups_D])
        return spread_DO.T.to(self.dtype).contiguous()

    def _unpacked(self, words: Tensor) -> Tensor:
        """The numbers in words of 32 bits, the lowest bits first, as one more dimension."""
        shifts = torch.arange(0, 32, self.bits, device=words.device, dtype=torch.int32)
        return (words[..., None] >> shifts) & (2**self.bits - 1)


TRIED = 256
"""Numbers on which a package is tried: four blocks."""


def bitsandbytes(device: str = "cpu") -> Any:
    """The package, which makes and reads codes.

    Raises:
        RequestError: it is not installed, or has nothing for this device.
    """
    package = installed("a base in 4 or 8 bits", "model.quantization: none")
    _refuse_without_kernels(package, device)
    return package


def installed(what: str, without: str) -> Any:
    """bitsandbytes, whatever it has for this device.

    Args:
        what: needs it.
        without: the setting that does without it.

    Raises:
        RequestError: it is not installed.
    """
    try:
        import bitsandbytes
    except ImportError as fault:
        raise RequestError(
            f"{what} needs the package bitsandbytes",
            got=str(fault),
            need="the extra `quant`",
            next=f"pip install 'loraloom[quant]', or {without}",
        ) from fault
    return bitsandbytes


def _refuse_without_kernels(package: Any, device: str) -> None:
    """Make codes of a few numbers and spread them. A CPU that the package has nothing for is served by
    plain torch, slowly; a GPU is not.

    Raises:
        RequestError: it cannot, or other numbers come back.
    """
    ones = torch.ones(TRIED, device=device)
    try:
        codes, state = package.functional.quantize_4bit(ones, quant_type="nf4", compress_statistics=True)
        found: Tensor = package.functional.dequantize_4bit(codes, state)
        got = "" if torch.allclose(found, ones, atol=0.1) else "other numbers than were put in"
    except (RuntimeError, NotImplementedError, AttributeError) as fault:
        if is_of_device(fault):
            raise
        got = first_line(fault)
    if got:
        raise RequestError(
            f"bitsandbytes {package.__version__} cannot make and spread 4-bit codes on this device",
            got=f"{device}: {got}",
            need="a build of bitsandbytes for this device and this version of torch",
            next="python -m bitsandbytes says what it found; or model.quantization: none",
        )
